//! A table whose columns are found by name and whose cells are understood, or are errors that name their line.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use cxr_table::{Row, Table, excerpt, is_missing, whole_number};

use super::source::key;
use crate::record::{Age, Sex};
use crate::{DatasetError, ImageName, LabelSet, LabelState, PatientId, StudyId};

/// A table that was read, every row with a cell for every column.
pub(crate) struct Sheet {
    path: PathBuf,
    table: Table,
}

impl Sheet {
    pub(crate) fn read(path: &Path) -> Result<Self, DatasetError> {
        let table = Table::read(path)?;
        Ok(Self {
            path: path.to_owned(),
            table,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn header(&self) -> &[String] {
        self.table.header()
    }

    /// Checks what every format needs: rows of the header's length, and columns that can be told apart.
    pub(crate) fn check(&self) -> Result<(), DatasetError> {
        self.table.check_lengths()?;
        let mut seen = HashMap::new();
        for name in self.header() {
            if let Some(first) = seen.insert(key(name), name) {
                return Err(DatasetError::table(
                    &self.path,
                    match first == name {
                        true => format!("the column `{}` is there twice", excerpt(name)),
                        false => format!(
                            "the columns `{}` and `{}` say the same",
                            excerpt(first),
                            excerpt(name)
                        ),
                    },
                    "keep one of them",
                ));
            }
        }
        Ok(())
    }

    /// The column of one of these names.
    pub(crate) fn column(&self, names: &[&str]) -> Option<usize> {
        let is_it = |cell: &String| names.iter().any(|name| key(cell) == key(name));
        self.header().iter().position(is_it)
    }

    /// The same, which has to be there.
    pub(crate) fn need(&self, names: &[&str]) -> Result<usize, DatasetError> {
        self.column(names).ok_or_else(|| {
            DatasetError::table(
                &self.path,
                format!(
                    "the column `{}` is missing",
                    names.first().copied().unwrap_or_default()
                ),
                "take the table as it is published, or name another format",
            )
        })
    }

    pub(crate) fn name_of(&self, column: usize) -> &str {
        self.header().get(column).map_or("", String::as_str)
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.table
            .rows()
            .iter()
            .map(|row| Line { sheet: self, row })
    }

    /// The columns of those labels of a list that the table has, in the table's order; and each of the remaining
    /// columns that is not among `others`.
    pub(crate) fn labels(&self, known: &[&str], others: &[&str]) -> (Vec<usize>, Vec<usize>) {
        let is_in = |list: &[&str], name: &str| list.iter().any(|item| key(item) == key(name));
        let (mut labels, mut strangers) = (Vec::new(), Vec::new());
        for (column, name) in self.header().iter().enumerate() {
            if is_in(known, name) {
                labels.push(column);
            } else if !is_in(others, name) {
                strangers.push(column);
            }
        }
        (labels, strangers)
    }

    pub(crate) fn error(
        &self,
        problem: impl Into<String>,
        repair: impl Into<String>,
    ) -> DatasetError {
        DatasetError::table(&self.path, problem, repair)
    }
}

/// The labels of several tables: their names in the order in which they occur first.
pub(crate) fn union<'a>(
    path: &Path,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<LabelSet, DatasetError> {
    let mut seen = HashSet::new();
    let new = names.into_iter().filter(|name| seen.insert(key(name)));
    label_set(path, new.map(str::to_owned).collect())
}

/// A label set of a table, whose error names the table.
pub(crate) fn label_set(path: &Path, names: Vec<String>) -> Result<LabelSet, DatasetError> {
    LabelSet::new(names).map_err(|error| {
        DatasetError::table(
            path,
            error.to_string(),
            "give every label column its own name",
        )
    })
}

/// The place in a label set of each of some columns.
pub(crate) fn places(sheet: &Sheet, labels: &[usize], set: &LabelSet) -> Vec<(usize, usize)> {
    let places = set.names().iter().enumerate();
    let places: HashMap<String, usize> = places.map(|(place, name)| (key(name), place)).collect();
    let place = |&column: &usize| Some((column, *places.get(&key(sheet.name_of(column)))?));
    labels.iter().filter_map(place).collect()
}

/// One row of a [`Sheet`].
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    sheet: &'a Sheet,
    row: &'a Row,
}

impl<'a> Line<'a> {
    pub(crate) fn number(&self) -> u64 {
        self.row.line()
    }

    /// Table and line, for a warning.
    pub(crate) fn place(&self) -> Option<(&'a Path, u64)> {
        Some((&self.sheet.path, self.row.line()))
    }

    pub(crate) fn path(&self) -> &'a Path {
        &self.sheet.path
    }

    pub(crate) fn cell(&self, column: usize) -> &'a str {
        self.row.cell(column)
    }

    /// What a cell says; `None` where it says nothing, or there is no such column.
    pub(crate) fn said(&self, column: Option<usize>) -> Option<&'a str> {
        let cell = self.row.cell(column?);
        (!is_missing(cell)).then_some(cell)
    }

    /// What a cell says, which has to say something.
    pub(crate) fn need(&self, column: usize) -> Result<&'a str, DatasetError> {
        self.said(Some(column))
            .ok_or_else(|| self.unexpected(column, "something"))
    }

    pub(crate) fn error(
        &self,
        problem: impl Into<String>,
        repair: impl Into<String>,
    ) -> DatasetError {
        DatasetError::line(&self.sheet.path, self.row.line(), problem, repair)
    }

    pub(crate) fn unexpected(&self, column: usize, expected: &str) -> DatasetError {
        let cell = self.cell(column);
        let got = match is_missing(cell) {
            true => "nothing".to_owned(),
            false => format!("`{}`", excerpt(cell)),
        };
        self.error(
            format!(
                "expected {expected} in `{}`, got {got}",
                excerpt(self.sheet.name_of(column))
            ),
            "restore the row from the published table",
        )
    }

    pub(crate) fn image_name(&self, name: &str) -> Result<ImageName, DatasetError> {
        ImageName::new(name).map_err(|refused| {
            self.error(
                refused.to_string(),
                "write the image's file name, or its path in the folder of the images",
            )
        })
    }

    pub(crate) fn patient(&self, text: &str) -> Result<PatientId, DatasetError> {
        PatientId::new(text).map_err(|refused| {
            self.error(refused.to_string(), "write the patient as the table does")
        })
    }

    pub(crate) fn study(&self, text: &str) -> Result<StudyId, DatasetError> {
        StudyId::new(text)
            .map_err(|refused| self.error(refused.to_string(), "write the study as the table does"))
    }

    /// A whole number; `61.0` is one too.
    pub(crate) fn whole(&self, column: usize) -> Result<u64, DatasetError> {
        whole_number(self.cell(column)).ok_or_else(|| self.unexpected(column, "a whole number"))
    }

    pub(crate) fn label(&self, column: usize) -> Result<LabelState, DatasetError> {
        state(self.cell(column)).ok_or_else(|| self.unexpected(column, "1, 0, −1 or nothing"))
    }

    pub(crate) fn age(&self, column: Option<usize>) -> Result<Option<u16>, DatasetError> {
        let (Some(column), Some(cell)) = (column, self.said(column)) else {
            return Ok(None);
        };
        match Age::parse(cell) {
            Some(age) => Ok(Some(age.years)),
            None => Err(self.unexpected(column, "whole years, such as `61` or `061Y`")),
        }
    }

    pub(crate) fn sex(&self, column: Option<usize>) -> Result<Option<Sex>, DatasetError> {
        let (Some(column), Some(cell)) = (column, self.said(column)) else {
            return Ok(None);
        };
        Sex::parse(cell).map_err(|()| self.unexpected(column, "`F`, `M` or `Unknown`"))
    }

    /// A finite number.
    pub(crate) fn decimal(&self, column: usize) -> Result<f64, DatasetError> {
        let number = self.sheet.table.decimal(self.cell(column));
        number.ok_or_else(|| self.unexpected(column, "a number"))
    }
}

/// What a cell says of a label: whole numbers and truth values, also as spreadsheets and pandas write them (`1.0`,
/// `True`). `None` for what is no label state.
pub(crate) fn state(cell: &str) -> Option<LabelState> {
    if is_missing(cell) {
        return Some(LabelState::Blank);
    }
    if cell.eq_ignore_ascii_case("true") {
        return Some(LabelState::Positive);
    }
    if cell.eq_ignore_ascii_case("false") {
        return Some(LabelState::Negative);
    }
    // A minus sign as typesetters write it, and a comma as some spreadsheets do.
    match cell.replace('−', "-").replacen(',', ".", 1).parse::<f64>() {
        Ok(1.0) => Some(LabelState::Positive),
        Ok(0.0) => Some(LabelState::Negative),
        Ok(-1.0) => Some(LabelState::Uncertain),
        _ => None,
    }
}
