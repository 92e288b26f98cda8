//! A DICOM file with deflated frames inside: an error, or as many pixels as it says.
#![no_main]

mod envelope;

libfuzzer_sys::fuzz_target!(|input: &[u8]| envelope::decode("1.2.840.10008.1.2.8.1", input));
