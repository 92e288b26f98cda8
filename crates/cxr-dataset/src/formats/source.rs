//! A table before it is read: where it is, and what its columns are called.

use std::path::{Path, PathBuf};

use cxr_table::read_header;

use super::Sheet;
use crate::DatasetError;

/// The names of a table's columns, compared without their case and with `_` as a space.
#[derive(Clone, Copy)]
pub(crate) struct Header<'a>(&'a [String]);

impl<'a> Header<'a> {
    pub(crate) fn of(names: &'a [String]) -> Self {
        Self(names)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|cell| key(cell) == key(name))
    }

    /// How many of these names there are.
    pub(crate) fn count(&self, names: &[&str]) -> usize {
        names.iter().filter(|name| self.has(name)).count()
    }

    pub(crate) fn names(&self) -> &'a [String] {
        self.0
    }
}

/// A column's name as it is compared.
pub(crate) fn key(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace('_', " ")
}

/// A table that may still have to be read.
pub(crate) struct Source {
    path: PathBuf,
    header: Vec<String>,
    sheet: Option<Sheet>,
}

impl Source {
    /// A table of which only the header is read.
    pub(crate) fn peek(path: &Path) -> Result<Self, DatasetError> {
        Ok(Self {
            header: read_header(path)?,
            path: path.to_owned(),
            sheet: None,
        })
    }

    pub(crate) fn of_sheet(sheet: Sheet) -> Self {
        Self {
            path: sheet.path().to_owned(),
            header: sheet.header().to_vec(),
            sheet: Some(sheet),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn header(&self) -> Header<'_> {
        Header::of(&self.header)
    }

    /// Whether it is this file.
    pub(crate) fn is(&self, path: &Path) -> bool {
        self.path == path
            || (self.path.canonicalize().ok())
                .is_some_and(|own| path.canonicalize().ok() == Some(own))
    }

    /// The file's name in lower case, without its extensions.
    pub(crate) fn stem(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        name.strip_suffix(".csv").unwrap_or(name).to_owned()
    }

    /// Reads it whole, unless it was.
    pub(crate) fn load(self) -> Result<Sheet, DatasetError> {
        match self.sheet {
            Some(sheet) => Ok(sheet),
            None => Sheet::read(&self.path),
        }
    }
}

/// The tables of a folder, by name.
pub(crate) fn tables_in(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let unreadable = || DatasetError::io("read", folder);
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        if is_table(&path) && path.is_file() {
            tables.push(path);
        }
    }
    tables.sort();
    Ok(tables)
}

/// The tables in the folders of a folder, such as VinDr-CXR's `annotations/`.
pub(crate) fn tables_below(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let unreadable = || DatasetError::io("read", folder);
    let mut tables = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with('.') && path.is_dir() {
            tables.extend(tables_in(&path)?);
        }
    }
    tables.sort();
    Ok(tables)
}

/// In the names of Kaggle's examples of a submission.
pub(crate) const SUBMISSION: &str = "sample_submission";

/// Whether a file is a table of labels by its name.
pub(crate) fn is_table(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    // Files that systems add begin with a dot, and Kaggle's examples of a submission look like the truth.
    !name.starts_with('.')
        && !name.contains(SUBMISSION)
        && (name.ends_with(".csv") || name.ends_with(".csv.gz"))
}
