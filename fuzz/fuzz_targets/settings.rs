//! libFuzzer's entry to [`pomguard_fuzz::settings`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pomguard_fuzz::settings(data));
