//! PyTorch's files: an error, or tensors as long as their sides say, no longer together than a few times the file.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(weights) = cxr_pickle::read_weights(bytes) {
        let mut all = 0;
        for tensor in &weights.tensors {
            let count: usize = tensor.shape.iter().product();
            assert_eq!(tensor.bytes.len(), count * tensor.element.bytes());
            all += tensor.bytes.len();
        }
        assert!(all <= 4 * bytes.len());
    }
});
