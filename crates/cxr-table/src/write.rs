//! CSV, as the workspace writes it.

/// One line of CSV with its end (`\n`): cells are quoted where they hold a comma, a quote or a line end.
pub fn csv_line<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) -> String {
    let mut line = String::new();
    for (at, cell) in cells.into_iter().enumerate() {
        let cell = cell.as_ref();
        if at > 0 {
            line.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) {
            line.push('"');
            line.push_str(&cell.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(cell);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            rows in prop::collection::vec(prop::collection::vec("[ -~äé,;\"\n\r\t]{0,9}", 3), 1..5)
        ) {
            // Cells are trimmed, and rows without content left out, by every reader.
            let mut text = csv_line(["first", "second", "third"]);
            let mut expected = Vec::new();
            for row in &rows {
                text += &csv_line(row);
                let row: Vec<&str> = row.iter().map(|cell| cell.trim()).collect();
                if row.iter().any(|cell| !cell.is_empty()) {
                    expected.push(row);
                }
            }
            match crate::Table::parse(&text, "t.csv") {
                Ok(table) => {
                    let found: Vec<Vec<&str>> = table.rows().iter().map(|row| row.cells().collect()).collect();
                    prop_assert_eq!(found, expected);
                }
                Err(error) => prop_assert!(expected.is_empty(), "{}", error),
            }
        }
    }
}
