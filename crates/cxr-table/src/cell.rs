//! Cells as pandas, spreadsheets and R write them.

/// Whether a cell says that nothing is known: it is empty, or one of the words that pandas, R and databases write
/// (`NaN`, `nan`, `None`, `NA`, `N/A`, `<NA>`, `null`).
pub fn is_missing(cell: &str) -> bool {
    matches!(
        cell,
        "" | "NaN"
            | "nan"
            | "NAN"
            | "None"
            | "NONE"
            | "none"
            | "NA"
            | "N/A"
            | "n/a"
            | "<NA>"
            | "null"
            | "NULL"
            | "Null"
    )
}

/// A whole number, also as a column of floating-point numbers has it (`61.0`).
pub fn whole_number(cell: &str) -> Option<u64> {
    let whole = match cell.split_once('.') {
        Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole,
        Some(_) => return None,
        None => cell,
    };
    // `+5` is a number to the standard library, but none that anybody writes.
    let digits = whole.bytes().all(|byte| byte.is_ascii_digit());
    (digits && !whole.is_empty()).then(|| whole.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_may_come_from_a_float_column() {
        for (cell, expected) in [
            ("61", Some(61)),
            ("061", Some(61)),
            ("61.0", Some(61)),
            ("61.", Some(61)),
            ("61.5", None),
            ("", None),
            (".0", None),
            ("-1", None),
            ("1e3", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(whole_number(cell), expected, "{cell:?}");
        }
    }
}
