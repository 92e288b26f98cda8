//! A user's own table: image name, optional facts about the image, and one column for each label.
//!
//! The first column names the image, by its file name or by its path; columns headed `patient`, `study`, `age`, `sex` or
//! `view` (or `Patient ID`, `Patient Age`, `Patient Sex`, `Patient Gender`, `View Position`, in any case, with `_` or a
//! space) describe it; every other column is a label with 1 or `True` (positive), 0 or `False` (negative), −1
//! (uncertain), or nothing (unknown). Nothing may also be written as pandas and R write it: `NaN`, `None`, `NA`.

use cxr_table::{excerpt, is_missing};

use super::sheet::{label_set, state};
use super::{DatasetFormat, Header, Line, Request, Sheet};
use crate::index::builder::Builder;
use crate::record::{Age, Record, Sex, ViewPosition};
use crate::{DatasetError, Index, PatientId, Release, StudyId};

/// A user's own table.
#[derive(Debug)]
pub(super) struct OwnTable;

impl DatasetFormat for OwnTable {
    fn name(&self) -> &'static str {
        "own"
    }

    fn title(&self) -> &'static str {
        "an own table"
    }

    fn access(&self) -> &'static str {
        ""
    }

    fn recognises(&self, _: &Header<'_>) -> bool {
        true
    }

    fn read(&self, request: Request) -> Result<Index, DatasetError> {
        let mut tables = request.all().into_iter();
        let Some(first) = tables.next() else {
            return Err(DatasetError::Format {
                problem: "there is no table".to_owned(),
                repair: "name one".to_owned(),
            });
        };
        if let Some(second) = tables.next() {
            return Err(DatasetError::table(
                second.path(),
                format!(
                    "it is beside `{}`, and either may be meant",
                    first.path().display()
                ),
                "name one of the tables",
            ));
        }
        parse(&first.load()?)
    }

    #[cfg(test)]
    fn examples(&self) -> &'static [super::Example] {
        use super::Example;
        &[Example {
            header: "image,patient,Edema",
            row: "@,p1,1",
            names: ["a/1.png", "a/2.png"],
        }]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Patient,
    Study,
    Age,
    Sex,
    View,
    /// CheXpert's `Frontal/Lateral`.
    Projection,
    Label,
}

fn parse(sheet: &Sheet) -> Result<Index, DatasetError> {
    let header = sheet.header();
    let columns: Vec<Column> = header.iter().skip(1).map(|cell| recognise(cell)).collect();
    check_columns(sheet, &columns)?;
    sheet.table().check_lengths()?;
    let labels = header.iter().skip(1).zip(&columns);
    let labels = labels.filter(|(_, column)| **column == Column::Label);
    let labels = label_set(sheet.path(), labels.map(|(name, _)| name.clone()).collect())?;
    let mut builder = Builder::new(Release::OWN_TABLE, labels);
    for line in sheet.lines() {
        let record = record(sheet, &columns, line)?;
        builder.push(sheet.path(), line.number(), record)?;
    }
    Ok(builder.finish())
}

fn record(sheet: &Sheet, columns: &[Column], line: Line<'_>) -> Result<Record, DatasetError> {
    let error = |problem: String, repair: &str| line.error(problem, repair);
    let name = line.image_name(line.cell(0)).map_err(|refused| match refused {
        DatasetError::Line { problem, .. } => error(
            problem,
            "write the image's file name, or its path in the folder of the images, in the first column",
        ),
        other => other,
    })?;
    let mut record = Record::new(name, Vec::new());
    let mut states = Vec::with_capacity(columns.len());
    let mut is_lateral = false;
    let mut study = None;
    for (at, (column, header)) in columns
        .iter()
        .zip(sheet.header().iter().skip(1))
        .enumerate()
    {
        let cell = line.cell(at + 1);
        let unexpected = |expected: &str| {
            error(
                format!(
                    "expected {expected} in `{}`, got `{}`",
                    excerpt(header),
                    excerpt(cell)
                ),
                "correct the cell, or remove the column if it is no label",
            )
        };
        match column {
            Column::Label => {
                states.push(state(cell).ok_or_else(|| unexpected("1, 0, −1 or nothing"))?);
            }
            Column::Patient if is_missing(cell) => {
                return Err(error(
                    format!("expected a patient in `{}`, got nothing", excerpt(header)),
                    "write one, a name of its own for each patient who is not known, or remove the column",
                ));
            }
            _ if is_missing(cell) => {}
            Column::Patient => {
                let patient = PatientId::new(cell);
                record.patient = Some(patient.map_err(|_| unexpected("a patient"))?);
            }
            Column::Study => study = Some(cell),
            Column::Age => {
                let age = Age::parse(cell);
                let age = age.ok_or_else(|| unexpected("whole years, such as `61` or `061Y`"))?;
                record.age_years = Some(age.years);
            }
            Column::Sex => {
                record.sex = Sex::parse(cell).map_err(|()| unexpected("`F`, `M` or `Unknown`"))?;
            }
            Column::View => {
                let view = ViewPosition::parse(cell);
                record.view = Some(view.ok_or_else(|| unexpected("`PA`, `AP` or `lateral`"))?);
            }
            Column::Projection => match cell.to_ascii_lowercase().as_str() {
                "lateral" => is_lateral = true,
                "frontal" => {}
                _ => return Err(unexpected("`Frontal` or `Lateral`")),
            },
        }
    }
    if is_lateral {
        record.view = Some(ViewPosition::Lateral);
    }
    if let Some(study) = study {
        // Many number the studies of each patient from 1.
        let whole = match &record.patient {
            Some(patient) => format!("{patient}/{study}"),
            None => study.to_owned(),
        };
        record.study = Some(StudyId::new(&whole).map_err(|refused| {
            error(
                refused.to_string(),
                "correct the cell, or remove the column",
            )
        })?);
    }
    record.labels = states.into();
    Ok(record)
}

fn check_columns(sheet: &Sheet, columns: &[Column]) -> Result<(), DatasetError> {
    let header = sheet.header();
    for kind in [
        Column::Patient,
        Column::Study,
        Column::Age,
        Column::Sex,
        Column::View,
        Column::Projection,
    ] {
        let named: Vec<&str> = header
            .iter()
            .skip(1)
            .zip(columns)
            .filter(|&(_, &column)| column == kind)
            .map(|(cell, _)| cell.as_str())
            .collect();
        if let [first, second, ..] = named.as_slice() {
            return Err(sheet.error(
                format!(
                    "the columns `{}` and `{}` say the same",
                    excerpt(first),
                    excerpt(second)
                ),
                "keep one of them",
            ));
        }
    }
    if !columns.contains(&Column::Label) {
        return Err(sheet.error(
            "expected at least one label column behind the image name, got none",
            "add one column of 1, 0, −1 or nothing for each label",
        ));
    }
    Ok(())
}

fn recognise(header: &str) -> Column {
    match header.to_ascii_lowercase().replace('_', " ").as_str() {
        "patient" | "patient id" => Column::Patient,
        "study" | "study id" => Column::Study,
        "age" | "patient age" => Column::Age,
        "sex" | "gender" | "patient sex" | "patient gender" => Column::Sex,
        "view" | "view position" | "ap/pa" => Column::View,
        "frontal/lateral" => Column::Projection,
        _ => Column::Label,
    }
}
