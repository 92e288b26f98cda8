//! Stores: an error, or images that can be read or are refused one by one.
#![no_main]

use cxr_dataset::Store;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("fuzzed.store");
    std::fs::write(&path, bytes).expect("the file is written");
    if let Ok(store) = Store::open(&path) {
        assert_eq!(store.names().count(), store.len());
        for name in store.names() {
            if let Ok(pixels) = store.image(&name) {
                assert_eq!(pixels.len(), store.side() as usize * store.side() as usize);
            }
        }
    }
});
