//! libFuzzer's entry to [`pomguard_fuzz::packet`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pomguard_fuzz::packet(data));
