//! libFuzzer's entry to [`pomguard_fuzz::site`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pomguard_fuzz::site(data));
