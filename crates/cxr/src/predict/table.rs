//! Answers as people and programs read them: CSV, JSON lines, Parquet.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use cxr_table::csv_line;
use serde_json::json;

use super::network::Threshold;
use super::part::Row;

/// How a table of answers begins, as CSV and as JSON lines.
const CSV_START: &str = "image,patient,study,";
const JSON_START: &str = r#"{"image":"#;
#[cfg(feature = "parquet")]
const PARQUET_START: &[u8] = b"PAR1";
/// The first line of the table of what has no answer.
const FAILED_HEADER: [&str; 2] = ["image", "reason"];

/// The forms of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Csv,
    JsonLines,
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Form {
    /// By the ending of a file's name.
    ///
    /// # Errors
    /// Another ending.
    pub(super) fn of(path: &Path) -> anyhow::Result<Self> {
        let ending = path
            .extension()
            .map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson") => Ok(Self::JsonLines),
            #[cfg(feature = "parquet")]
            Some("parquet") => Ok(Self::Parquet),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => bail!("this `cxr` was built without the feature `parquet`"),
            _ => bail!(
                "`{}`: expected a name that ends in .csv, .jsonl or .parquet",
                path.display()
            ),
        }
    }

    /// Whether a file is what this wrote.
    pub(super) fn is_ours(start: &[u8]) -> bool {
        #[cfg(feature = "parquet")]
        if start.starts_with(PARQUET_START) {
            return true;
        }
        start.starts_with(CSV_START.as_bytes()) || start.starts_with(JSON_START.as_bytes())
    }
}

/// Whether a file is a table of what has no answer.
pub(super) fn is_failed_table(start: &[u8]) -> bool {
    start.starts_with(csv_line(FAILED_HEADER).as_bytes())
}

/// Which labels are written, and from where on they are predicted.
pub(super) struct Columns {
    /// The labels' positions among the model's, their names, and their thresholds.
    pub(super) labels: Vec<(usize, String, Threshold)>,
    /// Whether it is written how unlike an image is to those that a model knows.
    pub(super) has_distance: bool,
    /// Whether it is written what is not known of an image that a model asks for.
    pub(super) has_inputs: bool,
}

/// The column of what is not known of an image.
pub(super) const MISSING: &str = "missing_inputs";

/// What is not known of an image, as one cell.
pub(super) fn missing_cell(row: &Row) -> String {
    row.missing.join(";")
}

impl Columns {
    /// The first line of a CSV table.
    pub(super) fn header(&self) -> String {
        let of = |kind: &'static str| {
            self.labels
                .iter()
                .map(move |(_, label, _)| format!("{kind}_{label}"))
        };
        let mut names = ["image", "patient", "study"].map(str::to_owned).to_vec();
        if self.has_distance {
            names.extend(["distance", "unusual"].map(str::to_owned));
        }
        if self.has_inputs {
            names.push(MISSING.to_owned());
        }
        csv_line(
            names
                .into_iter()
                .chain(of("logit"))
                .chain(of("prob"))
                .chain(of("positive")),
        )
    }

    /// A row of CSV.
    pub(super) fn line(&self, row: &Row) -> anyhow::Result<String> {
        let values = self.values(row)?;
        let mut cells = vec![
            row.image.clone(),
            row.patient.clone().unwrap_or_default(),
            row.study.clone().unwrap_or_default(),
        ];
        if self.has_distance {
            let distance = row.distance;
            cells.push(distance.map_or_else(String::new, |distance| distance.to_string()));
            cells.push(distance.map_or_else(String::new, |d| u8::from(d > 1.).to_string()));
        }
        if self.has_inputs {
            cells.push(missing_cell(row));
        }
        cells.extend(values.iter().map(|value| shortest(value.logit)));
        cells.extend(values.iter().map(|value| value.probability.to_string()));
        cells.extend(
            values
                .iter()
                .map(|value| u8::from(value.is_positive).to_string()),
        );
        Ok(csv_line(cells))
    }

    fn json(&self, row: &Row) -> anyhow::Result<String> {
        let mut labels = serde_json::Map::new();
        for (value, (_, label, threshold)) in self.values(row)?.iter().zip(&self.labels) {
            let value = json!({
                "logit": value.logit,
                "probability": value.probability,
                "threshold": threshold.probability,
                "positive": value.is_positive,
            });
            labels.insert(label.clone(), value);
        }
        // The image comes first, for who reads it and for `Form::is_ours`.
        let image = serde_json::to_string(&row.image)?;
        let patient = serde_json::to_string(&row.patient)?;
        let study = serde_json::to_string(&row.study)?;
        let labels = serde_json::to_string(&labels)?;
        let distance = match (self.has_distance, row.distance) {
            (true, Some(distance)) => {
                format!(
                    "\"distance\":{},\"unusual\":{},",
                    json!(distance),
                    distance > 1.
                )
            }
            _ => String::new(),
        };
        let missing = match self.has_inputs {
            true => format!("\"{MISSING}\":{},", json!(row.missing)),
            false => String::new(),
        };
        Ok(format!(
            "{JSON_START}{image},\"patient\":{patient},\"study\":{study},{distance}{missing}\"labels\":{labels}}}\n"
        ))
    }

    /// What is written of an answer, for each label.
    pub(super) fn values(&self, row: &Row) -> anyhow::Result<Vec<Value>> {
        let value = |&(at, _, threshold): &(usize, String, Threshold)| {
            let probability = row.probabilities.get(at).copied()?;
            let logit = row.logits.get(at).copied()?;
            Some(Value {
                logit,
                probability,
                is_positive: match threshold.logit {
                    Some(threshold) => logit > threshold,
                    None => probability > threshold.probability,
                },
            })
        };
        let values: Option<Vec<Value>> = self.labels.iter().map(value).collect();
        values.with_context(|| format!("the answer for `{}` lacks a label", row.image))
    }
}

/// An answer for one label.
pub(super) struct Value {
    pub(super) logit: f64,
    pub(super) probability: f64,
    pub(super) is_positive: bool,
}

/// A logit as the tables of a run write it: those of one model are single precision.
fn shortest(logit: f64) -> String {
    let single = logit as f32;
    match f64::from(single) == logit {
        true => single.to_string(),
        false => logit.to_string(),
    }
}

/// Writes a table of the rows that `next` gives, and beside it that of the failures; returns how many there were of each.
///
/// # Errors
/// A file that cannot be written, or what `next` returns.
pub(super) fn write(
    form: Form,
    path: &Path,
    failed_path: &Path,
    columns: &Columns,
    mut next: impl FnMut() -> anyhow::Result<Option<Row>>,
) -> anyhow::Result<(usize, usize)> {
    let mut staged = cxr_fs::Staged::new();
    let mut failures = tempfile::tempfile().context("cannot make a temporary file")?;
    let mut outcome: anyhow::Result<(usize, usize)> = Ok((0, 0));
    let mut n_failed = 0;
    staged.write(path, |file| {
        let mut failed = BufWriter::new(&mut failures);
        let mut next_answer = || -> anyhow::Result<Option<Row>> {
            while let Some(row) = next()? {
                let Some(reason) = &row.failed else {
                    return Ok(Some(row));
                };
                n_failed += 1;
                failed.write_all(csv_line([&row.image, reason]).as_bytes())?;
            }
            Ok(None)
        };
        let written = match form {
            Form::Csv => write_csv(file, columns, &mut next_answer),
            Form::JsonLines => write_json(file, columns, &mut next_answer),
            #[cfg(feature = "parquet")]
            Form::Parquet => super::parquet::write(file, columns, &mut next_answer),
        };
        failed.flush()?;
        outcome = written.map(|n_rows| (n_rows, n_failed));
        match &outcome {
            Ok(_) => Ok(()),
            Err(error) => Err(std::io::Error::other(format!("{error:#}"))),
        }
    })?;
    let (n_rows, n_failed) = outcome?;
    std::io::Seek::rewind(&mut failures)?;
    staged.write(failed_path, |file| {
        file.write_all(csv_line(FAILED_HEADER).as_bytes())?;
        std::io::copy(&mut failures, file).map(|_| ())
    })?;
    staged.commit()?;
    Ok((n_rows, n_failed))
}

/// The next answer.
pub(super) type NextRow<'a> = &'a mut dyn FnMut() -> anyhow::Result<Option<Row>>;

fn write_csv(file: &mut File, columns: &Columns, next: NextRow<'_>) -> anyhow::Result<usize> {
    let mut file = BufWriter::new(file);
    file.write_all(columns.header().as_bytes())?;
    let mut n_rows = 0;
    while let Some(row) = next()? {
        file.write_all(columns.line(&row)?.as_bytes())?;
        n_rows += 1;
    }
    file.flush()?;
    Ok(n_rows)
}

fn write_json(file: &mut File, columns: &Columns, next: NextRow<'_>) -> anyhow::Result<usize> {
    let mut file = BufWriter::new(file);
    let mut n_rows = 0;
    while let Some(row) = next()? {
        file.write_all(columns.json(&row)?.as_bytes())?;
        n_rows += 1;
    }
    file.flush()?;
    Ok(n_rows)
}
