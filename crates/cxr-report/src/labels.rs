//! The labels of a run's images, as its folder keeps them: `labels-<part>.csv`, a table that
//! `cxr score` reads, so that nobody needs the data set to score the run's predictions again.

use std::io::Write as _;
use std::path::Path;

use crate::error::ReportError;
use crate::evaluation::Truth;

/// The labels of the images of one part.
///
/// ```
/// use cxr_report::labels::{LabelRow, LabelTable};
/// let row = LabelRow {
///     image: "00000001_000.png".to_owned(),
///     patient: Some("00000001".to_owned()),
///     states: vec![Some(true), None],
/// };
/// let table = LabelTable::new(vec!["Mass".to_owned(), "Hernia".to_owned()], vec![row]);
/// assert_eq!(table.to_csv(), "Image Index,Patient ID,Mass,Hernia\n00000001_000.png,00000001,1,\n");
/// assert_eq!((table.positives(0), table.positives(1)), (1, 0));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTable {
    labels: Vec<String>,
    rows: Vec<LabelRow>,
}

/// One image's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRow {
    /// The image.
    pub image: String,
    /// Whose radiograph it is; `None` when that is not known.
    pub patient: Option<String>,
    /// For each label whether the finding is present; `None` when that is not known.
    pub states: Vec<Option<bool>>,
}

const IMAGE: &str = "Image Index";
const PATIENT: &str = "Patient ID";

impl LabelTable {
    /// A table of these labels and rows, the states of each row in the order of the labels.
    pub fn new(labels: Vec<String>, rows: Vec<LabelRow>) -> Self {
        Self { labels, rows }
    }

    /// The labels in the order of the states.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The images in the order of the file.
    pub fn rows(&self) -> &[LabelRow] {
        &self.rows
    }

    /// Images known to have the label with this index.
    pub fn positives(&self, label: usize) -> usize {
        let has_it = |row: &&LabelRow| row.states.get(label) == Some(&Some(true));
        self.rows.iter().filter(has_it).count()
    }

    /// Images known to have none of the findings.
    pub fn n_without_finding(&self) -> usize {
        let is_clear = |row: &&LabelRow| row.states.iter().all(|state| *state == Some(false));
        self.rows.iter().filter(is_clear).count()
    }

    /// The table as CSV: 1, 0, or nothing for what is not known. Patients stand in it when every
    /// image's is known.
    pub fn to_csv(&self) -> String {
        let with_patients = self.rows.iter().all(|row| row.patient.is_some());
        let head = [IMAGE].into_iter().chain(with_patients.then_some(PATIENT));
        let mut text = csv_line(head.chain(self.labels.iter().map(String::as_str)));
        for row in &self.rows {
            let patient = row.patient.as_deref().filter(|_| with_patients);
            let states = row.states.iter().map(|state| match state {
                Some(true) => "1",
                Some(false) => "0",
                None => "",
            });
            let head = [row.image.as_str()].into_iter().chain(patient);
            text.push_str(&csv_line(head.chain(states)));
        }
        text
    }

    /// Writes the table, whole or not at all.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        Ok(cxr_fs::write(path, self.to_csv().as_bytes())?)
    }

    /// As [`Self::write`], beside the file's place: it is put there with the others of `staged`.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn stage(&self, path: &Path, staged: &mut cxr_fs::Staged) -> Result<(), ReportError> {
        let text = self.to_csv();
        Ok(staged.write(path, |file| file.write_all(text.as_bytes()))?)
    }

    /// Reads a table that [`Self::write`] wrote; `None` when there is none.
    ///
    /// # Errors
    /// [`ReportError::Read`], [`ReportError::Csv`], and [`ReportError::LabelCell`] for a cell that
    /// is no label.
    pub fn read(path: &Path) -> Result<Option<Self>, ReportError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                let path = path.to_owned();
                return Err(ReportError::Read { path, source });
            }
        };
        let malformed = |source| ReportError::Csv {
            path: path.to_owned(),
            source,
        };
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().map_err(malformed)?.clone();
        let with_patients = header.get(1) == Some(PATIENT);
        let first_label = if with_patients { 2 } else { 1 };
        let labels: Vec<String> = header.iter().skip(first_label).map(str::to_owned).collect();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(malformed)?;
            let state = |cell: &str| match cell {
                "1" => Ok(Some(true)),
                "0" => Ok(Some(false)),
                "" => Ok(None),
                other => Err(ReportError::LabelCell {
                    path: path.to_owned(),
                    line: record.position().map_or(0, csv::Position::line),
                    text: other.to_owned(),
                }),
            };
            let patient = record.get(1).filter(|_| with_patients).map(str::to_owned);
            let states = record.iter().skip(first_label).map(state);
            rows.push(LabelRow {
                image: record.get(0).unwrap_or_default().to_owned(),
                patient,
                states: states.collect::<Result<_, _>>()?,
            });
        }
        Ok(Some(Self { labels, rows }))
    }

    /// The same for an [`Evaluation`](crate::evaluation::Evaluation).
    ///
    /// # Errors
    /// [`ReportError::TruthTwice`] for an image that occurs twice, [`ReportError::LabelCount`] for a
    /// row with another number of labels.
    pub fn truth(&self) -> Result<Truth, ReportError> {
        let mut truth = Truth::new(self.labels.iter().cloned());
        for row in &self.rows {
            truth.add(
                &row.image,
                row.states.iter().copied(),
                row.patient.as_deref(),
            )?;
        }
        Ok(truth)
    }
}

/// One line of CSV, cells quoted where they need it.
pub(crate) fn csv_line<T: AsRef<str>>(cells: impl IntoIterator<Item = T>) -> String {
    let mut line = String::new();
    for (at, cell) in cells.into_iter().enumerate() {
        let cell = cell.as_ref();
        if at > 0 {
            line.push(',');
        }
        if cell.contains([',', '"', '\n', '\r']) {
            line.push('"');
            line.push_str(&cell.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(cell);
        }
    }
    line.push('\n');
    line
}
