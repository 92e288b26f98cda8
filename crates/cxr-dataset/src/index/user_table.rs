//! A user's own table: image name, optional facts about the image, and one column for each label. CheXpert's is one
//! of them, with the patient in the path of each image.

use std::path::Path;

use cxr_table::{Row, Table, excerpt, is_missing};

use super::{Index, Release};
use crate::record::{Age, Record, Sex, ViewPosition};
use crate::{DatasetError, ImageName, LabelSet, LabelState, PatientId};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Patient,
    Age,
    Sex,
    View,
    /// CheXpert's `Frontal/Lateral`.
    Projection,
    Label,
}

pub(super) fn parse(path: &Path, table: &Table) -> Result<Index, DatasetError> {
    let header = table.header();
    let columns: Vec<Column> = header.iter().skip(1).map(|cell| recognise(cell)).collect();
    check_columns(path, header, &columns)?;
    table.check_lengths()?;
    let labels = header.iter().skip(1).zip(&columns);
    let labels = labels.filter(|(_, column)| **column == Column::Label);
    let label_set =
        LabelSet::new(labels.map(|(name, _)| name.clone()).collect()).map_err(|error| {
            DatasetError::table(
                path,
                error.to_string(),
                "give every label column its own name",
            )
        })?;

    let mut rows = Vec::with_capacity(table.rows().len());
    for row in table.rows() {
        rows.push((row.line(), record(path, header, &columns, row)?));
    }
    if header.first().is_some_and(|first| first == "Path") && !columns.contains(&Column::Patient) {
        take_patients_from_paths(&mut rows);
    }
    Index::of_rows(path, label_set, rows, Release::UserTable)
}

fn record(
    path: &Path,
    header: &[String],
    columns: &[Column],
    row: &Row,
) -> Result<Record, DatasetError> {
    let error =
        |problem: String, repair: &str| DatasetError::line(path, row.line(), problem, repair);
    let name = ImageName::new(row.cell(0)).map_err(|refused| {
        error(
            refused.to_string(),
            "write the image's file name, or its path in the folder of the images, in the first column",
        )
    })?;
    let mut record = Record::new(name, Vec::new());
    let mut states = Vec::with_capacity(columns.len());
    let mut is_lateral = false;
    let cells = row.cells().skip(1);
    for ((column, header), cell) in columns.iter().zip(header.iter().skip(1)).zip(cells) {
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
    record.labels = states.into();
    Ok(record)
}

/// CheXpert's patients are folders: `train/patient00001/study1/view1_frontal.jpg`. They are taken where every path
/// has one.
fn take_patients_from_paths(rows: &mut [(u64, Record)]) {
    let patient = |name: &ImageName| {
        let is_patient = |part: &&str| {
            (part.strip_prefix("patient")).is_some_and(|digits| {
                !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
            })
        };
        let part = name.parts().find(is_patient)?;
        PatientId::new(part).ok()
    };
    let patients: Option<Vec<PatientId>> = rows
        .iter()
        .map(|(_, record)| patient(&record.name))
        .collect();
    for ((_, record), patient) in rows.iter_mut().zip(patients.into_iter().flatten()) {
        record.patient = Some(patient);
    }
}

fn check_columns(path: &Path, header: &[String], columns: &[Column]) -> Result<(), DatasetError> {
    for kind in [
        Column::Patient,
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
            return Err(DatasetError::table(
                path,
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
        return Err(DatasetError::table(
            path,
            "expected at least one label column behind the image name, got none",
            "add one column of 1, 0, −1 or nothing for each label",
        ));
    }
    Ok(())
}

fn recognise(header: &str) -> Column {
    match header.to_ascii_lowercase().replace('_', " ").as_str() {
        "patient" | "patient id" => Column::Patient,
        "age" | "patient age" => Column::Age,
        "sex" | "gender" | "patient sex" | "patient gender" => Column::Sex,
        "view" | "view position" | "ap/pa" => Column::View,
        "frontal/lateral" => Column::Projection,
        _ => Column::Label,
    }
}

/// Whole numbers and truth values, also as spreadsheets and pandas write them (`1.0`, `True`).
fn state(cell: &str) -> Option<LabelState> {
    if is_missing(cell) {
        return Some(LabelState::Unknown);
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
        Ok(-1.0) => Some(LabelState::Unknown),
        _ => None,
    }
}
