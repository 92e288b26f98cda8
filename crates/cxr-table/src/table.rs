//! A table: a header, and rows that know which line of the file they are on.

use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::text::line_ends;
use crate::{TableError, decode_text, read_text, separator, show};

/// A row that is added to the text: where it is not the last one that is read, a quote was never closed.
const END: &str = "\n,end of the table,";

/// A table as a spreadsheet, pandas or R wrote it.
///
/// Columns are separated by commas, semicolons or tabs: as a first line such as `sep=;` says, else as divides the
/// first rows into as many cells as the header. Cells are without spaces at their ends. Rows without any content are
/// left out, and so are columns at the end that have neither a name (pandas writes `Unnamed: 11`) nor content, and
/// the first column where it is the numbering that pandas adds: without a name (or `Unnamed: 0`), all whole numbers,
/// beside a column that is not all numbers.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    header: Vec<String>,
    header_line: u64,
    rows: Vec<Row>,
    separator: u8,
    n_empty_columns: usize,
}

/// A row of a [`Table`].
#[derive(Clone, Debug)]
pub struct Row {
    line: u64,
    cells: StringRecord,
}

impl Row {
    /// The line of the file that it begins on, the first being line 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// A cell; empty where the row is too short.
    pub fn cell(&self, column: usize) -> &str {
        self.cells.get(column).unwrap_or_default()
    }

    /// The cells in order.
    pub fn cells(&self) -> impl Iterator<Item = &str> {
        self.cells.iter()
    }

    /// How many cells it has.
    pub fn n_cells(&self) -> usize {
        self.cells.len()
    }
}

impl Table {
    /// Reads a file, as [`read_text`] reads it.
    ///
    /// # Errors
    /// Those of [`read_text`] and of [`Self::parse`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, TableError> {
        let path = path.as_ref();
        Self::parse(&read_text(path)?, path)
    }

    /// A table of a file's bytes, plain or gzip; `path` names it in errors.
    ///
    /// # Errors
    /// Those of [`decode_text`] and of [`Self::parse`].
    pub fn from_bytes(bytes: Vec<u8>, path: impl AsRef<Path>) -> Result<Self, TableError> {
        let path = path.as_ref();
        Self::parse(&decode_text(bytes, path)?, path)
    }

    /// A table of a text; `path` names it in errors.
    ///
    /// # Errors
    /// No header, no row below it, a quote that is not closed, another separator, or content in a column without a
    /// name.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, TableError> {
        let table = Self::parse_or_empty(text, path)?;
        if table.rows.is_empty() {
            return Err(table.error(
                "expected rows below the header, got none",
                "name a table with rows",
            ));
        }
        Ok(table)
    }

    /// The same where a header without rows is a table, too.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_or_empty(text: &str, path: impl AsRef<Path>) -> Result<Self, TableError> {
        let path = path.as_ref();
        let (separator, body) = match separator::named(text) {
            Some((separator, length)) => (separator, text.get(length..).unwrap_or_default()),
            None => (separator::find(text, path)?, text),
        };
        let lines_before = line_ends(text.as_bytes()) - line_ends(body.as_bytes());
        let (header, mut rows) = records(body, separator, lines_before, path)?;
        let Some(header) = header else {
            return Err(TableError::table(
                path,
                "expected a header and rows, got an empty file",
                "name a table",
            ));
        };
        rows.retain(|row| row.cells().any(|cell| !cell.is_empty()));
        let mut table = Self {
            path: path.to_owned(),
            header: header.cells().map(str::to_owned).collect(),
            header_line: header.line,
            rows,
            separator,
            n_empty_columns: 0,
        };
        table.drop_empty_columns()?;
        table.drop_index();
        Ok(table)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the columns.
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The rows in the file's order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How many columns at the end were left out: they have neither a name nor content.
    pub fn n_empty_columns(&self) -> usize {
        self.n_empty_columns
    }

    /// Checks that every row has a cell for every column.
    ///
    /// # Errors
    /// The first row that has not.
    pub fn check_lengths(&self) -> Result<(), TableError> {
        let expected = self.header.len();
        match self.rows.iter().find(|row| row.n_cells() != expected) {
            None => Ok(()),
            Some(row) => Err(TableError::line(
                &self.path,
                row.line,
                format!("expected {expected} cells, got {}", row.n_cells()),
                "give every row the header's number of cells",
            )),
        }
    }

    /// A finite number. Where commas do not separate the columns, a comma may be the decimal sign.
    pub fn decimal(&self, cell: &str) -> Option<f64> {
        let number = match self.separator {
            b',' => cell.parse(),
            _ => cell.replacen(',', ".", 1).parse(),
        };
        number.ok().filter(|number: &f64| number.is_finite())
    }

    /// An error about one line of the table.
    pub fn line_error(
        &self,
        line: u64,
        problem: impl Into<String>,
        repair: impl Into<String>,
    ) -> TableError {
        TableError::line(&self.path, line, problem, repair)
    }

    /// An error about the table as a whole.
    pub fn error(&self, problem: impl Into<String>, repair: impl Into<String>) -> TableError {
        TableError::table(&self.path, problem, repair)
    }

    fn drop_empty_columns(&mut self) -> Result<(), TableError> {
        let n_all = self.header.len();
        let named = |cell: &String| !cell.is_empty() && !is_unnamed(cell);
        let n_named = self
            .header
            .iter()
            .rposition(named)
            .map_or(0, |last| last + 1);
        if n_named == 0 {
            return Err(TableError::line(
                &self.path,
                self.header_line,
                "expected the names of the columns, got none",
                "write a header above the rows",
            ));
        }
        for row in &mut self.rows {
            let n_filled = separator::n_filled(&row.cells);
            // A row that is too long is found by its length.
            if n_filled > n_all {
                row.cells.truncate(n_filled);
                continue;
            }
            if n_filled > n_named {
                let filled = row.cells.get(n_filled - 1).unwrap_or_default();
                return Err(TableError::line(
                    &self.path,
                    row.line,
                    format!(
                        "column {n_filled} has no name, and holds `{}`",
                        show::excerpt(filled)
                    ),
                    "give every column a name",
                ));
            }
            row.cells.truncate(n_named);
        }
        self.n_empty_columns = n_all - n_named;
        self.header.truncate(n_named);
        Ok(())
    }

    fn drop_index(&mut self) {
        let is_number = |cell: &str| crate::is_missing(cell) || cell.parse::<f64>().is_ok();
        let is_index = self.header.len() > 2
            && self
                .header
                .first()
                .is_some_and(|name| name.is_empty() || name == "Unnamed: 0")
            && (self.rows.iter()).all(|row| crate::whole_number(row.cell(0)).is_some())
            && !self.rows.iter().all(|row| is_number(row.cell(1)));
        if is_index {
            self.header.remove(0);
            for row in &mut self.rows {
                row.cells = row.cells.iter().skip(1).collect();
            }
        }
    }
}

/// The names of a table's columns, of which not more than the beginning is read. They are as in [`Table::header`], but
/// that columns which are left out there are among them.
///
/// # Errors
/// A file that cannot be read, and those of [`decode_text`]; no header in the first 64 KiB.
pub fn read_header(path: impl AsRef<Path>) -> Result<Vec<String>, TableError> {
    let path = path.as_ref();
    let text = crate::text::read_beginning(path)?;
    let (separator, body) = match separator::named(&text) {
        Some((separator, length)) => (separator, text.get(length..).unwrap_or_default()),
        None => (separator::find(&text, path)?, text.as_str()),
    };
    let header = separator::reader(body, separator)
        .into_records()
        .map_while(Result::ok)
        .find(|row| row.iter().any(|cell| !cell.is_empty()));
    match header {
        Some(header) => Ok(header.iter().map(str::to_owned).collect()),
        None => Err(TableError::table(
            path,
            "expected a header and rows, got an empty file",
            "name a table",
        )),
    }
}

/// Whether it is the name that pandas gives to a column without one.
fn is_unnamed(name: &str) -> bool {
    let number = name.strip_prefix("Unnamed: ");
    number.is_some_and(|number| crate::whole_number(number).is_some())
}

/// The first record, and the others, each with the line it begins on.
fn records(
    text: &str,
    separator: u8,
    lines_before: u64,
    path: &Path,
) -> Result<(Option<Row>, Vec<Row>), TableError> {
    let mut marked = String::with_capacity(text.len() + END.len());
    marked.push_str(text);
    // Within quotes the mark becomes part of a cell, whatever the separator.
    marked.push_str(END);
    let bytes = marked.as_bytes();
    let mut reader = separator::reader(&marked, separator);
    let mut rows: Vec<Row> = Vec::new();
    let (mut counted, mut line) = (0, lines_before + 1);
    let mut is_closed = false;
    let mut cells = StringRecord::new();
    loop {
        let begin = reader.position().byte() as usize;
        let more = reader.read_record(&mut cells).map_err(|error| {
            let problem = format!("malformed row: {error}");
            TableError::line(path, line, problem, "repair its quotes")
        })?;
        if !more {
            break;
        }
        // The reader's position is before the rest of the last line's end, and before lines that are empty.
        let skipped = bytes.get(begin..).unwrap_or(&[]).iter();
        let skipped = skipped
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        let begin = begin + skipped;
        line += line_ends(bytes.get(counted..begin).unwrap_or(&[]));
        counted = begin;
        if begin > text.len() {
            is_closed = true;
            break;
        }
        rows.push(Row {
            line,
            cells: cells.clone(),
        });
    }
    let last = rows.last().map_or(line, |row| row.line);
    if !is_closed {
        return Err(TableError::line(
            path,
            last,
            "a quote is opened and not closed",
            "close it, or remove it",
        ));
    }
    let mut rows = rows.into_iter();
    let header = rows.next();
    Ok((header, rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Table, String> {
        Table::parse(text, "t.csv").map_err(|error| error.to_string())
    }

    /// Header and rows, cells joined by `|`.
    fn shown(text: &str) -> Vec<String> {
        let table = parse(text).unwrap();
        table.check_lengths().unwrap();
        let rows = table.rows().iter();
        let rows = rows.map(|row| {
            format!(
                "{}: {}",
                row.line(),
                row.cells().collect::<Vec<_>>().join("|")
            )
        });
        std::iter::once(table.header().join("|"))
            .chain(rows)
            .collect()
    }

    #[test]
    fn rows_know_their_line_however_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                "image,note\n\na.png,\"two\nlines\"\nb.png,x\n\n \nc.png,y".replace('\n', end);
            let table = parse(&text).unwrap();
            let lines: Vec<u64> = table.rows().iter().map(Row::line).collect();
            assert_eq!(lines, [3, 5, 8], "{end:?}");
        }
    }

    #[test]
    fn what_only_looks_like_content_is_left_out() {
        for (text, expected) in [
            ("a,b,,\nx,1,,\n,,,\n", vec!["a|b", "2: x|1"]),
            ("a,b,,\nx,1\n", vec!["a|b", "2: x|1"]),
            ("a,b,Unnamed: 2\nx,1,\n", vec!["a|b", "2: x|1"]),
            (",a,b\n0,x,1\n3,y,0\n", vec!["a|b", "2: x|1", "3: y|0"]),
            ("Unnamed: 0,a,b\n0,x,1\n", vec!["a|b", "2: x|1"]),
            // Not an index: names, or no column of names behind it.
            (",a,b\nx,1,1\n", vec!["|a|b", "2: x|1|1"]),
            (",a,b\n1,1,0\n", vec!["|a|b", "2: 1|1|0"]),
            ("sep=;\r\na;b\r\nx;1\r\n", vec!["a|b", "3: x|1"]),
        ] {
            assert_eq!(shown(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_there_and_not_understood_is_an_error() {
        for (text, expected) in [
            ("", "empty file"),
            ("sep=;\n", "empty file"),
            ("a,b\n", "expected rows"),
            ("a,b\n,\n", "expected rows"),
            (",,\nx,1,\n", "line 1: expected the names of the columns"),
            (
                "a,b,\nx,1,\ny,1,2\n",
                "line 3: column 3 has no name, and holds `2`",
            ),
            (
                "a,b,Unnamed: 2\nx,1,7\n",
                "line 2: column 3 has no name, and holds `7`",
            ),
            (
                "a,b\r\nx,1\r\n\"y,1\r\nz,1\r\n",
                "line 3: a quote is opened and not closed",
            ),
            ("\"a,b\nx,1\n", "line 1: a quote is opened and not closed"),
            ("a,b\nx,\"1", "line 2: a quote is opened and not closed"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
        for (row, n_cells) in [("y", 1), ("y,1,1", 3)] {
            let table = parse(&format!("a,b\nx,1\n{row}\n")).unwrap();
            let error = table.check_lengths().unwrap_err().to_string();
            let expected = format!("line 3: expected 2 cells, got {n_cells}");
            assert!(error.contains(&expected), "{error}");
        }
    }

    #[test]
    fn a_comma_may_be_the_decimal_sign_where_it_separates_nothing() {
        let (commas, semicolons) = (parse("a,b\nx,1\n").unwrap(), parse("a;b\nx;1\n").unwrap());
        assert_eq!(semicolons.decimal("-0,25"), Some(-0.25));
        assert_eq!(semicolons.decimal("0.25"), Some(0.25));
        assert_eq!(commas.decimal("0,25"), None);
        for none in ["1,000,000", "NaN", "inf", "", "x"] {
            assert_eq!(semicolons.decimal(none), None, "{none}");
        }
    }
}
