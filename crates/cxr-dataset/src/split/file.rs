//! A split as a text file that can be read back and compared line by line.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use super::{Part, Split};
use crate::source::read_text;
use crate::{DatasetError, ImageName};

const FIRST_LINE: &str = "# cxr split 1";
const HEADER: &str = "Image Index,Part";

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
                let quoted = name.as_str().replace('"', "\"\"");
                let plain = !name.as_str().contains([',', '"', '#']);
                let _ = if plain {
                    writeln!(text, "{name},{part}")
                } else {
                    writeln!(text, "\"{quoted}\",{part}")
                };
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
        let mut lines = text.lines();
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

        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .from_reader(text.as_bytes());
        match reader.headers() {
            Ok(header) if header == vec!["Image Index", "Part"] => {}
            _ => return Err(unexpected(6, "the header `Image Index,Part`")),
        }
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        let mut listed = HashSet::new();
        for row in reader.records() {
            let row = row.map_err(|error| {
                let line = error.position().map_or(6, csv::Position::line);
                unexpected(line, "an image name and its part")
            })?;
            let line = row.position().map_or(0, csv::Position::line);
            let name = ImageName::new(row.get(0).unwrap_or(""))
                .map_err(|_| unexpected(line, "an image name"))?;
            let part = Part::ALL
                .iter()
                .position(|part| Some(part.name()) == row.get(1));
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
