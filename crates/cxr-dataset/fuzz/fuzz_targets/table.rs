//! Label tables, lists, boxes and splits: an error, or an answer that holds together. The first byte chooses.
#![no_main]

use cxr_dataset::{Index, OfficialLists, Split, read_boxes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("fuzzed.csv");
    std::fs::write(&path, bytes).expect("the file is written");
    match kind % 4 {
        0 => {
            if let Ok(index) = Index::read(&path) {
                for record in index.records() {
                    assert_eq!(record.labels.len(), index.label_set().len());
                    assert_eq!(index.get(&record.name), Some(record));
                }
            }
        }
        1 => {
            let test = folder.path().join("test.txt");
            std::fs::write(&test, "z.png\n").expect("the file is written");
            drop(OfficialLists::read(&path, &test));
        }
        2 => {
            for found in read_boxes(&path).unwrap_or_default() {
                assert!(found.x + found.width <= 1024.0 && found.y + found.height <= 1024.0);
            }
        }
        _ => {
            if let Ok(split) = Split::read(&path) {
                let again = folder.path().join("again.csv");
                split.write(&again).expect("a split is written");
                assert_eq!(Split::read(&again).expect("and read back"), split);
            }
        }
    }
});
