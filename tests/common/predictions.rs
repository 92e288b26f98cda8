//! Tables of predictions, the run's own and those of `cxr predict`, and how they are made.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Output;

use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::Field;

use crate::common::{cxr, stderr};

/// The run that `trained` makes.
pub(crate) const RUN: &str = "models/runs/tiny/bce";

/// What a file says.
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// The rows of a CSV table without quotes, by the first cell, and its header.
pub(crate) fn rows(table: &str) -> (Vec<String>, BTreeMap<String, Vec<String>>) {
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let mut lines = table.lines();
    let header = cells(lines.next().unwrap());
    let mut rows = BTreeMap::new();
    for line in lines {
        let cells = cells(line);
        assert_eq!(cells.len(), header.len(), "{line}");
        rows.insert(cells[0].clone(), cells);
    }
    (header, rows)
}

/// The logits of a run's own predictions, as text.
pub(crate) fn own(folder: &Path, file: &str) -> BTreeMap<String, Vec<String>> {
    let (_, rows) = rows(&text(&folder.join(RUN).join(file)));
    let logits = |(name, cells): (String, Vec<String>)| (name, cells[1..].to_vec());
    rows.into_iter().map(logits).collect()
}

/// The logits of a table that `predict` wrote.
pub(crate) fn logits(table: &str) -> BTreeMap<String, Vec<String>> {
    let (header, rows) = rows(table);
    let places: Vec<usize> = (0..header.len())
        .filter(|&at| header[at].starts_with("logit_"))
        .collect();
    assert_eq!(places.len(), 14);
    rows.into_iter()
        .map(|(name, cells)| (name, places.iter().map(|&at| cells[at].clone()).collect()))
        .collect()
}

/// Copies the images of the test list into `test`; returns their names.
pub(crate) fn test_images(folder: &Path) -> Vec<String> {
    let names: Vec<String> = own(folder, "predictions-test.csv").into_keys().collect();
    std::fs::create_dir(folder.join("test")).unwrap();
    for name in &names {
        let from = folder.join("data/images").join(name);
        std::fs::copy(from, folder.join("test").join(name)).unwrap();
    }
    names
}

/// How it must have ended, without a panic.
#[track_caller]
pub(crate) fn ends(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
    assert!(!stderr(output).contains("panicked"), "{}", stderr(output));
}

/// Runs `cxr predict` with the run's model.
pub(crate) fn predict(folder: &Path, arguments: &[&str]) -> Output {
    cxr(folder, &[&["predict", RUN][..], arguments].concat())
}

/// The rows of a Parquet file, by column.
pub(crate) fn parquet_rows(path: &Path) -> Vec<BTreeMap<String, Field>> {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = reader.into_iter().map(|row| {
        let columns = row.unwrap().into_columns();
        columns.into_iter().collect()
    });
    rows.collect()
}

/// A text that is there.
pub(crate) fn text_of(field: &Field) -> &str {
    match field {
        Field::Str(text) => text,
        other => panic!("expected text, got {other}"),
    }
}
