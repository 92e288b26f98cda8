//! PNG, JPEG and DICOM: an error, or as many pixels as the image says and no more than are allowed.
#![no_main]

use cxr_dataset::{MAX_PIXELS, decode_gray_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = decode_gray_bytes(bytes, "fuzzed") {
        assert!(image.pixels().len() as u64 <= MAX_PIXELS);
        assert_eq!(image.pixels().len(), image.width() * image.height());
    }
});
