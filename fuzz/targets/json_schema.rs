#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mister_smith_fuzz::schemas::json(data));
