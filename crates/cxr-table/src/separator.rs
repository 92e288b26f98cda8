//! How a table separates its columns.

use std::path::Path;

use crate::TableError;

/// In the order in which they are preferred.
const KNOWN: [u8; 3] = [b',', b';', b'\t'];
/// So many rows are looked at.
const LOOKED_AT: usize = 64;

/// The separator that a first line such as `sep=;` names, which Excel writes and obeys, and how many bytes that line
/// has with its end.
pub(crate) fn named(text: &str) -> Option<(u8, usize)> {
    let end = text.find(['\r', '\n'])?;
    let (line, rest) = text.split_at(end);
    let line = line.trim_matches('"');
    let separator = match line.get(..4) {
        Some(key) if key.eq_ignore_ascii_case("sep=") => line.get(4..)?,
        _ => return None,
    };
    let &[separator] = separator.as_bytes() else {
        return None;
    };
    let is_usable = separator.is_ascii() && !separator.is_ascii_alphanumeric() && separator != b'"';
    let end_len = if rest.starts_with("\r\n") { 2 } else { 1 };
    is_usable.then_some((separator, end + end_len))
}

/// The separator that divides the first rows into as many cells as the header, the comma before others; where none
/// does, the one that the header has most of.
pub(crate) fn find(text: &str, path: &Path) -> Result<u8, TableError> {
    let candidates = KNOWN.map(|separator| (separator, Columns::of(text, separator)));
    let divides = |columns: &Columns| columns.in_header > 1;
    let even = (candidates.iter()).find(|(_, columns)| divides(columns) && columns.are_even);
    // The first of several that are equal.
    let most = (candidates.iter().rev()).max_by_key(|(_, columns)| columns.in_header);
    let header = text
        .split(['\r', '\n'])
        .find(|line| !line.trim().is_empty());
    match even.or(most) {
        Some((separator, columns)) if divides(columns) => Ok(*separator),
        _ => match header.and_then(|header| header.chars().find(|c| "|:".contains(*c))) {
            Some(other) => Err(TableError::table(
                path,
                format!("expected columns separated by `,`, `;` or a tab, got `{other}`"),
                "save the table with commas",
            )),
            None => Ok(b','),
        },
    }
}

struct Columns {
    in_header: usize,
    /// Every row that was looked at has as many cells, but for empty ones at its end.
    are_even: bool,
}

impl Columns {
    fn of(text: &str, separator: u8) -> Self {
        let mut reader = reader(text, separator);
        let mut rows = reader.records().map_while(Result::ok).take(LOOKED_AT);
        let Some(header) = rows.next() else {
            return Self {
                in_header: 0,
                are_even: false,
            };
        };
        let (least, most) = (n_filled(&header), header.len());
        Self {
            in_header: header.len(),
            are_even: rows.all(|row| row.len() >= least && n_filled(&row) <= most),
        }
    }
}

/// How many cells a row has, but for the empty ones at its end.
pub(crate) fn n_filled(row: &csv::StringRecord) -> usize {
    let filled = row.iter().enumerate().filter(|(_, cell)| !cell.is_empty());
    filled.last().map_or(0, |(last, _)| last + 1)
}

pub(crate) fn reader(text: &str, separator: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_the_one_that_fits() {
        for (text, expected) in [
            ("image,Mass\na.png,1\n", b','),
            ("image;Mass\na.png;1\n", b';'),
            ("image\tMass\na.png\t1\n", b'\t'),
            ("image;Mass\na.png;0,5\n", b';'),
            ("image;Edema, acute;Mass\na.png;1;0\n", b';'),
            ("image,Edema; acute,Mass\na.png,1,0\n", b','),
            ("\"image, or file\";Mass\na.png;1\n", b';'),
            ("image,Mass,,\na.png,1\n", b','),
            ("image\na.png\n", b','),
            ("", b','),
        ] {
            let found = find(text, Path::new("t.csv")).unwrap();
            assert_eq!(found, expected, "{text:?}");
        }
        let error = find("image|Mass\na.png|1\n", Path::new("t.csv")).unwrap_err();
        assert!(error.to_string().contains("got `|`"), "{error}");
    }

    #[test]
    fn a_first_line_may_name_it() {
        assert_eq!(named("sep=;\r\na;b\r\n"), Some((b';', 7)));
        assert_eq!(named("\"SEP=\t\"\na\tb\n"), Some((b'\t', 8)));
        for none in [
            "sep=",
            "sep=;",
            "separator=;\n",
            "sep=ab\n",
            "sep=a\n",
            "image\n",
        ] {
            assert_eq!(named(none), None, "{none:?}");
        }
    }
}
