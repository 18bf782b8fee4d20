//! libFuzzer's entry to [`pomguard_fuzz::matrix`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pomguard_fuzz::matrix(data));
