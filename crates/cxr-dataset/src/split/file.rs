//! A split as a text file that can be read back and compared line by line.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use cxr_table::{Table, csv_line, numbered_lines, read_text};

use super::{Part, Split};
use crate::{DatasetError, ImageName};

const FIRST_LINE: &str = "# cxr split 1";
const HEADER: &str = "Image Index,Part";
/// The lines that name rule, seed and counts.
const LINES_ABOVE: u64 = 5;

impl Split {
    /// Writes the split as CSV, one image a line under its part, below lines that begin with `#`
    /// and name rule, seed and absent images. Two splits are equal where their files are.
    ///
    /// # Errors
    /// [`DatasetError::Io`]; nothing is left under `path` then.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), DatasetError> {
        let mut text = format!("{FIRST_LINE}\n# rule {}\n# seed {}\n", self.rule, self.seed);
        for (word, [train, validation, test]) in
            [("absent", self.absent), ("excluded", self.excluded)]
        {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# {word} {train} {validation} {test}");
        }
        let _ = writeln!(text, "{HEADER}");
        for part in Part::ALL {
            for name in self.part(part) {
                text += &csv_line([name.as_str(), part.name()]);
            }
        }
        Ok(cxr_fs::write(path.as_ref(), text.as_bytes())?)
    }

    /// Reads back what [`Self::write`] wrote.
    ///
    /// # Errors
    /// An unreadable file, another header, an unknown part, or an image in two parts.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let path = path.as_ref();
        let text = read_text(path)?;
        let unexpected = |line: u64, expected: &str| {
            DatasetError::line(
                path,
                line,
                format!("expected {expected}"),
                "write the split again",
            )
        };
        let mut lines = numbered_lines(&text).map(|(_, line)| line);
        if lines.next() != Some(FIRST_LINE) {
            return Err(unexpected(1, "the first line of a split file"));
        }
        let rule = lines
            .next()
            .and_then(|line| line.strip_prefix("# rule "))
            .and_then(|rule| rule.parse().ok());
        let rule = rule.ok_or_else(|| unexpected(2, "`# rule paper` or `# rule patient`"))?;
        let seed = lines.next().and_then(|line| line.strip_prefix("# seed "));
        let seed = seed.and_then(|seed| seed.parse().ok());
        let seed = seed.ok_or_else(|| unexpected(3, "`# seed` and a whole number"))?;
        let mut counts = |line: u64, prefix: &str| {
            let counts = lines.next().and_then(|line| line.strip_prefix(prefix));
            let counts: Option<Vec<usize>> = counts
                .and_then(|counts| counts.split(' ').map(|count| count.parse().ok()).collect());
            let counts = counts.and_then(|counts| <[usize; 3]>::try_from(counts).ok());
            counts.ok_or_else(|| unexpected(line, &format!("`{prefix}` and three whole numbers")))
        };
        let absent = counts(4, "# absent ")?;
        let excluded = counts(5, "# excluded ")?;

        // The lines above the table are left blank, so that its rows keep their numbers.
        let table: String = numbered_lines(&text)
            .map(|(number, line)| match number {
                ..=LINES_ABOVE => "\n".to_owned(),
                _ => format!("{line}\n"),
            })
            .collect();
        let table = Table::parse_or_empty(&table, path)?;
        if table.header() != ["Image Index", "Part"] {
            return Err(unexpected(LINES_ABOVE + 1, "the header `Image Index,Part`"));
        }
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        let mut listed = HashSet::new();
        for row in table.rows() {
            let line = row.line();
            if row.n_cells() != 2 {
                return Err(unexpected(line, "an image name and its part"));
            }
            let name =
                ImageName::new(row.cell(0)).map_err(|_| unexpected(line, "an image name"))?;
            let part = Part::ALL.iter().position(|part| part.name() == row.cell(1));
            let images = part.and_then(|part| parts.get_mut(part));
            let images =
                images.ok_or_else(|| unexpected(line, "`train`, `validation` or `test`"))?;
            if !listed.insert(name.clone()) {
                return Err(unexpected(line, "every image once"));
            }
            images.push(name);
        }
        Ok(Self {
            rule,
            seed,
            parts,
            absent,
            excluded,
        })
    }
}
