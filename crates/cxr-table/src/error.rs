//! What can be wrong with a text file or a table.

use std::path::{Path, PathBuf};

/// A text file or a table that cannot be used: what was found, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The operating system refused to read the file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted: `open`, `read`, `decompress`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// One line is wrong.
    #[error("`{}`, line {line}: {problem}; {repair}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line of the file, the first being line 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        repair: String,
    },
    /// The file is wrong as a whole: its encoding, its header, its form.
    #[error("`{}`: {problem}; {repair}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        repair: String,
    },
}

impl TableError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn line(
        path: &Path,
        line: u64,
        problem: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        Self::Line {
            path: path.to_owned(),
            line,
            problem: problem.into(),
            repair: repair.into(),
        }
    }

    pub(crate) fn table(
        path: &Path,
        problem: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        Self::Table {
            path: path.to_owned(),
            problem: problem.into(),
            repair: repair.into(),
        }
    }
}
