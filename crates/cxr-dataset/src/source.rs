//! Text files and pipes, read whole: plain or gzip, never without a bound.

use std::io::Read;
use std::path::Path;

use crate::DatasetError;

/// No table of a data set comes near this size; a compressed file that grows past it is refused.
const LARGEST_TEXT: u64 = 1 << 30;

/// The file's text without a byte-order mark; gzip is recognised by its first bytes.
pub(crate) fn read_text(path: &Path) -> Result<String, DatasetError> {
    let mut bytes = cxr_fs::read_stream(path, LARGEST_TEXT)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .take(LARGEST_TEXT + 1)
            .read_to_end(&mut plain)
            .map_err(DatasetError::io("decompress", path))?;
        bytes = plain;
    }
    if bytes.len() as u64 > LARGEST_TEXT {
        return Err(DatasetError::table(
            path,
            format!("expected at most {LARGEST_TEXT} bytes of text, got more"),
            "name the table itself",
        ));
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let newlines = error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|&&byte| byte == b'\n')
            .count();
        DatasetError::line(
            path,
            newlines as u64 + 1,
            "expected UTF-8 text, got other bytes",
            "save the table as UTF-8 text",
        )
    })
}

/// A table's header, and its rows with their line numbers.
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<(u64, csv::StringRecord)>,
}

impl Table {
    /// Checks that every row has a cell for every column; columns without a name at the end of the
    /// header may be left out.
    pub(crate) fn check_lengths(&self, path: &Path) -> Result<(), DatasetError> {
        let most = self.header.len();
        let least = self
            .header
            .iter()
            .rposition(|cell| !cell.is_empty())
            .map_or(0, |last| last + 1);
        let uneven = self
            .rows
            .iter()
            .find(|(_, cells)| !(least..=most).contains(&cells.len()));
        match uneven {
            None => Ok(()),
            Some((line, cells)) => Err(DatasetError::line(
                path,
                *line,
                format!("expected {least} cells, got {}", cells.len()),
                "give every row the header's number of cells",
            )),
        }
    }
}

pub(crate) fn read_table(path: &Path) -> Result<Table, DatasetError> {
    let text = read_text(path)?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut records = reader.records();
    let malformed = |error: csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        DatasetError::line(
            path,
            line,
            format!("malformed row: {error}"),
            "repair its quotes",
        )
    };
    let header: Vec<String> = match records.next() {
        Some(header) => header
            .map_err(malformed)?
            .iter()
            .map(str::to_owned)
            .collect(),
        None => {
            return Err(DatasetError::table(
                path,
                "expected a header and rows, got an empty file",
                "name a table",
            ));
        }
    };
    let mut rows = Vec::new();
    for record in records {
        let record = record.map_err(malformed)?;
        let line = record.position().map_or(0, csv::Position::line);
        rows.push((line, record));
    }
    if rows.is_empty() {
        return Err(DatasetError::table(
            path,
            "expected rows below the header, got none",
            "name a table with rows",
        ));
    }
    Ok(Table { header, rows })
}
