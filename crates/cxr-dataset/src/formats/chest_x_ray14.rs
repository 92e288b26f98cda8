//! NIH's `Data_Entry_2017*.csv`.
//!
//! Its header names nine columns but has eleven, because two names hold an unquoted comma; the
//! first release adds a trailing comma to every line and writes ages as `058Y`, `013M` or `001D`.

use cxr_table::{excerpt, whole_number};

use super::{DatasetFormat, Header, Line, Request, Sheet};
use crate::index::builder::Builder;
use crate::record::{Age, Record, Sex, ViewPosition};
use crate::{DatasetError, Index, LabelSet, LabelState, PatientId, Release};

/// NIH ChestX-ray14.
#[derive(Debug)]
pub(super) struct ChestXRay14;

impl DatasetFormat for ChestXRay14 {
    fn name(&self) -> &'static str {
        "chest-x-ray14"
    }

    fn title(&self) -> &'static str {
        "NIH ChestX-ray14"
    }

    fn access(&self) -> &'static str {
        "open, by NIH; `cxr fetch nih` downloads it"
    }

    /// No user's table has these two columns.
    fn recognises(&self, header: &Header<'_>) -> bool {
        header.has("Finding Labels") || (header.has("Image Index") && header.has("Follow-up #"))
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let mut builder = Builder::new(Release::CHEST_X_RAY14_V2020, LabelSet::chest_x_ray14());
        let mut is_first_release = false;
        for source in request.all() {
            let sheet = source.load()?;
            is_first_release |= read(&sheet, &mut builder)?;
        }
        if is_first_release {
            builder.release_as(Release::CHEST_X_RAY14_FIRST);
        }
        let n_without = (builder.records().iter())
            .filter(|record| record.has_no_finding())
            .count();
        // A complete table is named by its labels, whatever a spreadsheet made of its form.
        match (builder.records().len(), n_without) {
            (N_IMAGES, N_WITHOUT_FINDING_V2020) => {
                builder.release_as(Release::CHEST_X_RAY14_V2020);
            }
            (N_IMAGES, N_WITHOUT_FINDING_FIRST) => {
                builder.release_as(Release::CHEST_X_RAY14_FIRST);
            }
            _ => {}
        }
        Ok(builder.finish())
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[Example {
            header: "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
            row: "@,No Finding,0,1,58,M,PA,2682,2749,0.143,0.143",
            names: ["00000001_000.png", "00000001_001.png"],
        }]
    }
}

/// Names of the header's cells, as a reader that splits at every comma sees them, and behind NIH's the spelling of
/// other copies: Kaggle's sample has the last four.
const COLUMNS: [[&str; 2]; 11] = [
    ["Image Index", "Image Index"],
    ["Finding Labels", "Finding Labels"],
    ["Follow-up #", "Follow-up #"],
    ["Patient ID", "Patient ID"],
    ["Patient Age", "Patient Age"],
    ["Patient Gender", "Patient Sex"],
    ["View Position", "View Position"],
    ["OriginalImage[Width", "OriginalImageWidth"],
    ["Height]", "OriginalImageHeight"],
    ["OriginalImagePixelSpacing[x", "OriginalImagePixelSpacing_x"],
    ["y]", "OriginalImagePixelSpacing_y"],
];
const N_IMAGES: usize = 112_120;
const N_WITHOUT_FINDING_V2020: usize = 60_361;
const N_WITHOUT_FINDING_FIRST: usize = 60_412;

/// Where each of [`COLUMNS`] is in a table.
pub(super) struct Columns([usize; 11]);

impl Columns {
    pub(super) fn of(sheet: &Sheet) -> Result<Self, DatasetError> {
        let mut columns = [0; 11];
        for (names, column) in COLUMNS.iter().zip(&mut columns) {
            *column = sheet.column(names).ok_or_else(|| {
                sheet.error(
                    format!("the column `{}` is missing", names.first().copied().unwrap_or_default()),
                    "take ChestX-ray14's table as NIH publishes it, or make a table of 0/1 columns without `Finding Labels`",
                )
            })?;
        }
        Ok(Self(columns))
    }

    /// The names that they may have, for tables with more columns.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        COLUMNS.iter().flatten().copied()
    }
}

/// Adds the records of a table, and says whether it has the form of the first release.
fn read(sheet: &Sheet, builder: &mut Builder) -> Result<bool, DatasetError> {
    let columns = Columns::of(sheet)?;
    sheet.check()?;
    if sheet.header().len() > COLUMNS.len() {
        return Err(sheet.error(
            format!(
                "expected {} columns, got {}",
                COLUMNS.len(),
                sheet.header().len()
            ),
            "remove the added columns",
        ));
    }
    let mut is_first_release = sheet.table().n_empty_columns() == 1;
    let label_set = builder.label_set().clone();
    for line in sheet.lines() {
        let row = Row {
            line,
            columns: &columns,
        };
        let (mut record, has_unit) = row.record()?;
        record.labels = row.labels(&label_set)?;
        is_first_release |= has_unit;
        builder.push(sheet.path(), line.number(), record)?;
    }
    Ok(is_first_release)
}

/// A row of a table with NIH's columns.
pub(super) struct Row<'a> {
    pub(super) line: Line<'a>,
    pub(super) columns: &'a Columns,
}

impl Row<'_> {
    /// The record without its labels, and whether its age is written as in the first release.
    pub(super) fn record(&self) -> Result<(Record, bool), DatasetError> {
        let name = self.line.image_name(self.cell(0))?;
        let patient = PatientId::from_chest_x_ray14(&name).map_err(|error| {
            self.line
                .error(error.to_string(), "write the name as NIH does")
        })?;
        let listed: u32 = self.number(3)?;
        if patient.as_str().parse() != Ok(listed) {
            return Err(self.line.error(
                format!("expected the patient of `{name}`, got {listed}"),
                "write the first eight digits of the image name",
            ));
        }
        let (age_years, has_unit) = self.age()?;
        let sex = Sex::parse(self.cell(5)).map_err(|()| self.unexpected(5, "`F` or `M`"))?;
        let view =
            ViewPosition::parse(self.cell(6)).ok_or_else(|| self.unexpected(6, "`PA` or `AP`"))?;
        let follow_up = self.number(2)?;
        let record = Record {
            study: Some(self.line.study(&format!("{patient}/{follow_up}"))?),
            patient: Some(patient),
            age_years: Some(age_years),
            sex,
            view: Some(view),
            follow_up: Some(follow_up),
            original_size: Some((self.number(7)?, self.number(8)?)),
            original_spacing_mm: Some((self.spacing(9)?, self.spacing(10)?)),
            ..Record::new(name, Vec::new())
        };
        Ok((record, has_unit))
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
                    return Err(self
                        .line
                        .error(format!("`{shown}` is named twice"), "name it once"));
                }
                None => {
                    return Err(self.line.error(
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
        match self.line.decimal(self.at(column)) {
            Ok(millimetres) if millimetres > 0.0 => Ok(millimetres),
            _ => Err(self.unexpected(column, "a distance in millimetres")),
        }
    }

    /// Where the column is in the table.
    fn at(&self, column: usize) -> usize {
        self.columns.0.get(column).copied().unwrap_or(usize::MAX)
    }

    fn cell(&self, column: usize) -> &str {
        self.line.cell(self.at(column))
    }

    fn unexpected(&self, column: usize, expected: &str) -> DatasetError {
        self.line.unexpected(self.at(column), expected)
    }
}
