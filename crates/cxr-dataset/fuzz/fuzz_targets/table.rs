//! Label tables, tables of age, sex and view, lists, boxes, splits, and the reader under all of them, in every encoding and with every separator: an
//! error, or an answer that holds together. The first byte chooses.
#![no_main]

use cxr_dataset::{AttributeTable, Index, OfficialLists, Split, read_boxes};
use cxr_table::{Table, csv_line, numbered_lines};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("fuzzed.csv");
    std::fs::write(&path, bytes).expect("the file is written");
    match kind % 7 {
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
        3 => {
            if let Ok(table) = Table::read(&path) {
                read_again(&table);
            }
        }
        4 => {
            // The same text in UTF-16 is the same table.
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            let text = text.trim_start_matches('\u{feff}');
            let marked = format!("\u{feff}{text}");
            let units = marked.encode_utf16().flat_map(u16::to_be_bytes).collect();
            let cells = |table: Result<Table, _>| {
                table.ok().map(|table| (table.header().to_vec(), rows_of(&table)))
            };
            assert_eq!(cells(Table::from_bytes(units, &path)), cells(Table::parse(text, &path)));
        }
        5 => {
            if let Ok(table) = AttributeTable::read(&path) {
                // A row is of one image, whatever the images are called.
                let found = table.of_images(["a.png", "b/a.png", "b\\a.png", "é.dcm", "", "/"]);
                assert!(found.is_err() || found.is_ok_and(|found| found.len() == 6));
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

fn rows_of(table: &Table) -> Vec<Vec<String>> {
    let rows = table.rows().iter();
    rows.map(|row| row.cells().map(str::to_owned).collect()).collect()
}

/// Lines ascend and exist, and what was read is the same when it is written and read once more.
fn read_again(table: &Table) {
    assert!(table.rows().array_windows().all(|[first, second]| first.line() < second.line()));
    if table.check_lengths().is_err() {
        return;
    }
    let mut text = csv_line(table.header());
    for row in table.rows() {
        text += &csv_line(row.cells());
    }
    // Commas take the place of another separator: with one more column the reader has to choose them.
    let Ok(again) = Table::parse(&format!("sep=,\n{text}"), "again.csv") else {
        panic!("what was written is not read: {text:?}");
    };
    let n_lines = numbered_lines(&text).count() as u64 + 1;
    assert!(again.rows().iter().all(|row| row.line() <= n_lines));
    if table.header().first().is_some_and(|name| !name.is_empty() && name != "Unnamed: 0") {
        assert_eq!((again.header(), rows_of(&again)), (table.header(), rows_of(table)));
    }
}
