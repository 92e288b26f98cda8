//! The labels of a run's images, as its folder keeps them: `labels-<part>.csv`, a table that
//! `cxr score` reads, so that nobody needs the data set to score the run's predictions again.

use std::io::Write as _;
use std::path::Path;

use cxr_dataset::{ImageName, Index, LabelState, PatientId, Record};
use cxr_table::{Table, csv_line, excerpt};

use crate::{RunError, Truth};

/// The labels of the images of one part.
///
/// ```
/// use cxr_run::{LabelRow, LabelTable};
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

impl LabelRow {
    /// What is true of an image by its record. A patient whom the table does not name is the one whose number begins a
    /// name of ChestX-ray14.
    pub fn of(record: &Record) -> Self {
        let from_name = || PatientId::from_chest_x_ray14(&record.name).ok();
        let patient = record.patient.clone().or_else(from_name);
        let states = record.labels.iter().map(|state| match state {
            LabelState::Positive => Some(true),
            LabelState::Negative => Some(false),
            LabelState::Uncertain | LabelState::Blank | LabelState::Unknown => None,
        });
        Self {
            image: record.name.to_string(),
            patient: patient.map(|patient| patient.as_str().to_owned()),
            states: states.collect(),
        }
    }
}

const IMAGE: &str = "Image Index";
const PATIENT: &str = "Patient ID";

impl LabelTable {
    /// A table of these labels and rows, the states of each row in the order of the labels.
    pub fn new(labels: Vec<String>, rows: Vec<LabelRow>) -> Self {
        Self { labels, rows }
    }

    /// The labels that an index has of some images; one that is not in the index has no row.
    pub fn of(index: &Index, images: &[ImageName]) -> Self {
        let records = images.iter().filter_map(|name| index.get(name));
        let labels = index.label_set().names().iter().map(ToString::to_string);
        Self::new(labels.collect(), records.map(LabelRow::of).collect())
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

    /// The table as CSV: 1, 0, or nothing for what is not known. It has the patients when every
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
    /// [`RunError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), RunError> {
        Ok(cxr_fs::write(path, self.to_csv().as_bytes())?)
    }

    /// As [`Self::write`], beside the file's place: it is put there with the others of `staged`.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn stage(&self, path: &Path, staged: &mut cxr_fs::Staged) -> Result<(), RunError> {
        let text = self.to_csv();
        Ok(staged.write(path, |file| file.write_all(text.as_bytes()))?)
    }

    /// Reads a table that [`Self::write`] wrote; `None` when there is none.
    ///
    /// # Errors
    /// [`RunError::Io`], [`RunError::Table`], and [`RunError::LabelCell`] for a cell that
    /// is no label.
    pub fn read(path: &Path) -> Result<Option<Self>, RunError> {
        if !path.try_exists().map_err(RunError::io("read", path))? {
            return Ok(None);
        }
        let text = cxr_table::read_text(path)?;
        let table = Table::parse_or_empty(&text, path)?;
        table.check_lengths()?;
        let header = table.header();
        let with_patients = header.get(1).is_some_and(|name| name == PATIENT);
        let first_label = if with_patients { 2 } else { 1 };
        let labels: Vec<String> = header.iter().skip(first_label).cloned().collect();
        let mut rows = Vec::with_capacity(table.rows().len());
        for row in table.rows() {
            let state = |cell: &str| match cell {
                "1" => Ok(Some(true)),
                "0" => Ok(Some(false)),
                "" => Ok(None),
                other => Err(RunError::LabelCell {
                    path: path.to_owned(),
                    line: row.line(),
                    text: excerpt(other),
                }),
            };
            let states = row.cells().skip(first_label).map(state);
            rows.push(LabelRow {
                image: row.cell(0).to_owned(),
                patient: with_patients.then(|| row.cell(1).to_owned()),
                states: states.collect::<Result<_, _>>()?,
            });
        }
        Ok(Some(Self { labels, rows }))
    }

    /// The same for an [`Evaluation`](crate::Evaluation).
    ///
    /// # Errors
    /// [`RunError::TruthTwice`] for an image that occurs twice, [`RunError::LabelCount`] for a
    /// row with another number of labels.
    pub fn truth(&self) -> Result<Truth, RunError> {
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
