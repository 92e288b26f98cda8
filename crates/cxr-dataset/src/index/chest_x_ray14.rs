//! NIH's `Data_Entry_2017*.csv`.
//!
//! Its header names nine columns but has eleven, because two names hold an unquoted comma; the
//! first release adds a trailing comma to every line and writes ages as `058Y`, `013M` or `001D`.

use std::path::Path;

use cxr_table::{Row as Cells, Table, excerpt, whole_number};

use super::{Index, Release};
use crate::record::{Age, Record, Sex, ViewPosition};
use crate::{DatasetError, ImageName, LabelSet, LabelState, PatientId};

/// Names of the header's cells, as a reader that splits at every comma sees them, and behind NIH's the spelling of
/// other copies: Kaggle's sample has the last four.
const COLUMNS: [(&str, &str); 11] = [
    ("Image Index", "Image Index"),
    ("Finding Labels", "Finding Labels"),
    ("Follow-up #", "Follow-up #"),
    ("Patient ID", "Patient ID"),
    ("Patient Age", "Patient Age"),
    ("Patient Gender", "Patient Sex"),
    ("View Position", "View Position"),
    ("OriginalImage[Width", "OriginalImageWidth"),
    ("Height]", "OriginalImageHeight"),
    ("OriginalImagePixelSpacing[x", "OriginalImagePixelSpacing_x"),
    ("y]", "OriginalImagePixelSpacing_y"),
];
const N_IMAGES: usize = 112_120;
const N_WITHOUT_FINDING_V2020: usize = 60_361;
const N_WITHOUT_FINDING_FIRST: usize = 60_412;

/// Whether the header is meant to be ChestX-ray14's: no user's table has these two columns.
pub(super) fn recognise(header: &[String]) -> bool {
    header.iter().any(|cell| cell == "Finding Labels")
        || (header.iter().any(|cell| cell == "Image Index")
            && header.iter().any(|cell| cell == "Follow-up #"))
}

pub(super) fn parse(path: &Path, table: &Table) -> Result<Index, DatasetError> {
    check_header(path, table.header())?;
    table.check_lengths()?;
    let label_set = LabelSet::chest_x_ray14();
    let mut first_release = table.n_empty_columns() == 1;
    let mut rows = Vec::with_capacity(table.rows().len());
    for cells in table.rows() {
        let row = Row { path, table, cells };
        let (record, old_age) = row.record(&label_set)?;
        first_release |= old_age;
        rows.push((cells.line(), record));
    }
    let form = if first_release {
        Release::ChestXRay14First
    } else {
        Release::ChestXRay14V2020
    };
    let index = Index::of_rows(path, label_set, rows, form)?;
    // A complete table is named by its labels, whatever a spreadsheet made of its form.
    let release = match (index.records.len(), index.n_without_finding()) {
        (N_IMAGES, N_WITHOUT_FINDING_V2020) => Release::ChestXRay14V2020,
        (N_IMAGES, N_WITHOUT_FINDING_FIRST) => Release::ChestXRay14First,
        _ => form,
    };
    Ok(Index { release, ..index })
}

fn check_header(path: &Path, header: &[String]) -> Result<(), DatasetError> {
    for (position, (expected, other)) in COLUMNS.into_iter().enumerate() {
        let found = header.get(position).map_or("", String::as_str);
        if found != expected && found != other {
            let problem = if header.iter().any(|cell| cell == expected) {
                format!(
                    "expected column {} to be `{expected}`, got `{}`",
                    position + 1,
                    excerpt(found)
                )
            } else {
                format!("the column `{expected}` is missing")
            };
            return Err(DatasetError::table(
                path,
                problem,
                "take ChestX-ray14's table as NIH publishes it, or make a table of 0/1 columns without `Finding Labels`",
            ));
        }
    }
    match header.get(COLUMNS.len()..) {
        Some([]) => Ok(()),
        _ => Err(DatasetError::table(
            path,
            format!("expected {} columns, got {}", COLUMNS.len(), header.len()),
            "remove the added columns",
        )),
    }
}

struct Row<'a> {
    path: &'a Path,
    table: &'a Table,
    cells: &'a Cells,
}

impl Row<'_> {
    /// The record, and whether its age is written as in the first release.
    fn record(&self, label_set: &LabelSet) -> Result<(Record, bool), DatasetError> {
        let name = ImageName::new(self.cell(0))
            .map_err(|error| self.error(error.to_string(), "write the image's file name"))?;
        let patient = PatientId::from_chest_x_ray14(&name)
            .map_err(|error| self.error(error.to_string(), "write the name as NIH does"))?;
        let listed: u32 = self.number(3)?;
        if patient.as_str().parse() != Ok(listed) {
            return Err(self.error(
                format!("expected the patient of `{name}`, got {listed}"),
                "write the first eight digits of the image name",
            ));
        }
        let (age_years, old_age) = self.age()?;
        let sex = Sex::parse(self.cell(5)).map_err(|()| self.unexpected(5, "`F` or `M`"))?;
        let view =
            ViewPosition::parse(self.cell(6)).ok_or_else(|| self.unexpected(6, "`PA` or `AP`"))?;
        let record = Record {
            labels: self.labels(label_set)?,
            patient: Some(patient),
            age_years: Some(age_years),
            sex,
            view: Some(view),
            follow_up: Some(self.number(2)?),
            original_size: Some((self.number(7)?, self.number(8)?)),
            original_spacing_mm: Some((self.spacing(9)?, self.spacing(10)?)),
            name,
        };
        Ok((record, old_age))
    }

    fn labels(&self, label_set: &LabelSet) -> Result<Box<[LabelState]>, DatasetError> {
        let mut states = vec![LabelState::Negative; label_set.len()].into_boxed_slice();
        let text = self.cell(1);
        if text == "No Finding" {
            return Ok(states);
        }
        for label in text.split('|') {
            let state = label_set
                .index_of(label)
                .and_then(|position| states.get_mut(position));
            match state {
                Some(state @ LabelState::Negative) => *state = LabelState::Positive,
                Some(_) => {
                    let shown = excerpt(label);
                    return Err(self.error(format!("`{shown}` is named twice"), "name it once"));
                }
                None => {
                    return Err(self.error(
                        format!("`{}` is none of the fourteen findings", excerpt(label)),
                        format!(
                            "write `No Finding`, or names among {} joined by `|`",
                            label_set.names().join(", ")
                        ),
                    ));
                }
            }
        }
        Ok(states)
    }

    /// Completed years, and whether the unit is written behind the number.
    fn age(&self) -> Result<(u16, bool), DatasetError> {
        let age = Age::parse(self.cell(4));
        let age = age.ok_or_else(|| self.unexpected(4, "an age such as `58` or `058Y`"))?;
        Ok((age.years, age.has_unit))
    }

    fn number(&self, column: usize) -> Result<u32, DatasetError> {
        let number = whole_number(self.cell(column)).and_then(|number| number.try_into().ok());
        number.ok_or_else(|| self.unexpected(column, "a whole number"))
    }

    fn spacing(&self, column: usize) -> Result<f64, DatasetError> {
        match self.table.decimal(self.cell(column)) {
            Some(millimetres) if millimetres > 0.0 => Ok(millimetres),
            _ => Err(self.unexpected(column, "a distance in millimetres")),
        }
    }

    fn cell(&self, column: usize) -> &str {
        self.cells.cell(column)
    }

    fn unexpected(&self, column: usize, expected: &str) -> DatasetError {
        let name = COLUMNS.get(column).map_or("", |(name, _)| name);
        self.error(
            format!(
                "expected {expected} in `{name}`, got `{}`",
                excerpt(self.cell(column))
            ),
            "restore the row from NIH's table",
        )
    }

    fn error(&self, problem: impl Into<String>, repair: impl Into<String>) -> DatasetError {
        DatasetError::line(self.path, self.cells.line(), problem, repair)
    }
}
