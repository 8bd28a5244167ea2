//! Hands a fuzzer's bytes to the target `records`, which stands in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloudbeds_auth_proxy::fuzzing::records(data));
