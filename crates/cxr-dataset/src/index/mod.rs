//! The index of a data set: one record for each image, read from a published or a user's table.

mod chest_x_ray14;
mod merge;
mod user_table;

pub use merge::MergeSource;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprinter;
use crate::{DatasetError, Fingerprint, ImageName, LabelSet, LabelState, PatientId, Record};

/// Every image of a data set with its labels: what the table says, whether or not a file of that
/// name is at hand.
#[derive(Clone, Debug)]
pub struct Index {
    label_set: LabelSet,
    records: Vec<Record>,
    positions: HashMap<ImageName, usize>,
    release: Release,
}

/// Which table an [`Index`] was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Release {
    /// `Data_Entry_2017_v2020.csv`: the release with 60,361 images without a finding.
    ChestXRay14V2020,
    /// `Data_Entry_2017.csv`: the first release, with 60,412.
    ChestXRay14First,
    /// A user's own table, or records made in memory.
    UserTable,
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ChestXRay14V2020 => "ChestX-ray14, v2020 release",
            Self::ChestXRay14First => "ChestX-ray14, first release",
            Self::UserTable => "a user's table",
        })
    }
}

/// How often one label has each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelCount {
    /// Images with the finding.
    pub positive: usize,
    /// Images without it.
    pub negative: usize,
    /// Images of which it is not known.
    pub unknown: usize,
}

impl Index {
    /// Reads a table as [`cxr_table::Table`] reads it: plain or gzip, in UTF-8 or UTF-16, separated by commas,
    /// semicolons or tabs; and recognises which kind it is:
    ///
    /// - ChestX-ray14's CSV in its v2020 form, or with Kaggle's spelling of the header;
    /// - the same in its first release, told apart by its trailing comma and ages such as `058Y`
    ///   and, where all 112,120 images are listed, by the number of them without a finding;
    /// - a user's own table: the first column names the image, by its file name or by its path; columns headed
    ///   `patient`, `age`, `sex` or `view` (or `Patient ID`, `Patient Age`, `Patient Sex`, `Patient Gender`,
    ///   `View Position`, in any case, with `_` or a space) describe it; every other column is a
    ///   label with 1 or `True` (positive), 0 or `False` (negative), or −1 or nothing (unknown). Nothing may also be
    ///   written as pandas and R write it: `NaN`, `None`, `NA`;
    /// - CheXpert's table, which is such a table whose images are paths with the patients in them, and whose views
    ///   are in the columns `Frontal/Lateral` and `AP/PA`: an image is lateral if either says so.
    ///
    /// # Errors
    /// An unreadable file, a missing column, a malformed row, an image listed twice, a label
    /// outside the fourteen, or a cell that is no label state; the message names file and line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let path = path.as_ref();
        let table = cxr_table::Table::read(path)?;
        if chest_x_ray14::recognise(table.header()) {
            chest_x_ray14::parse(path, &table)
        } else {
            user_table::parse(path, &table)
        }
    }

    /// An index of records made in memory.
    ///
    /// # Errors
    /// [`DatasetError::Record`] for an image that occurs twice, or a record with another number
    /// of labels than `label_set`.
    pub fn new(label_set: LabelSet, records: Vec<Record>) -> Result<Self, DatasetError> {
        Self::assemble(label_set, records, Release::UserTable).map_err(|(position, problem)| {
            DatasetError::Record {
                name: position.to_string(),
                problem,
            }
        })
    }

    /// The records in the table's order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The record of one image.
    pub fn get(&self, name: &ImageName) -> Option<&Record> {
        self.positions
            .get(name)
            .and_then(|&position| self.records.get(position))
    }

    /// The labels, in the order of [`Record::labels`].
    pub fn label_set(&self) -> &LabelSet {
        &self.label_set
    }

    /// Which table this was read from.
    pub fn release(&self) -> Release {
        self.release
    }

    /// For each label, how many images have it, lack it, or say nothing of it.
    pub fn label_counts(&self) -> Vec<LabelCount> {
        count_labels(&self.label_set, self.records.iter())
    }

    /// How many images have both of two labels: row and column are positions in
    /// [`Self::label_set`], and the diagonal is each label's own count.
    pub fn co_occurrence(&self) -> Vec<Vec<usize>> {
        let n_labels = self.label_set.len();
        let mut counts = vec![vec![0; n_labels]; n_labels];
        for record in &self.records {
            let present: Vec<bool> = record
                .labels
                .iter()
                .map(|&state| state == LabelState::Positive)
                .collect();
            for (row, _) in counts
                .iter_mut()
                .zip(&present)
                .filter(|(_, present)| **present)
            {
                for (count, present) in row.iter_mut().zip(&present) {
                    *count += usize::from(*present);
                }
            }
        }
        counts
    }

    /// How many images are known to have none of the findings.
    pub fn n_without_finding(&self) -> usize {
        self.records
            .iter()
            .filter(|record| record.has_no_finding())
            .count()
    }

    /// How many patients there are; images of unknown patients are not counted.
    pub fn n_patients(&self) -> usize {
        let patients: HashSet<&PatientId> = self
            .records
            .iter()
            .filter_map(|record| record.patient.as_ref())
            .collect();
        patients.len()
    }

    /// A number for each of `names`, the same for two images of one patient: the clusters of
    /// clustered statistics. `None` when an image is not in the index or its patient not known.
    pub fn patient_clusters(&self, names: &[ImageName]) -> Option<Vec<u64>> {
        let mut numbers: HashMap<&PatientId, u64> = HashMap::new();
        names
            .iter()
            .map(|name| {
                let patient = self.get(name)?.patient.as_ref()?;
                let next = numbers.len() as u64;
                Some(*numbers.entry(patient).or_insert(next))
            })
            .collect()
    }

    /// A digest of the labels: label names, and for each image, in the order of the names, its
    /// name, patient and states. It does not depend on the order of rows or on other columns.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprinter = Fingerprinter::default();
        fingerprinter.text("cxr labels 1");
        fingerprinter.number(self.label_set.len() as u64);
        for label in self.label_set.names() {
            fingerprinter.text(label);
        }
        let mut sorted: Vec<&Record> = self.records.iter().collect();
        sorted.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut codes = Vec::with_capacity(self.label_set.len());
        for record in sorted {
            fingerprinter.text(record.name.as_str());
            fingerprinter.text(record.patient.as_ref().map_or("", PatientId::as_str));
            codes.clear();
            codes.extend(record.labels.iter().map(|state| state.code()));
            fingerprinter.bytes(&codes);
        }
        fingerprinter.finish()
    }

    /// Joins records, or says which one (by position) does not fit.
    fn assemble(
        label_set: LabelSet,
        records: Vec<Record>,
        release: Release,
    ) -> Result<Self, (RecordPosition, String)> {
        let mut positions = HashMap::with_capacity(records.len());
        for (position, record) in records.iter().enumerate() {
            let at = |problem| {
                (
                    RecordPosition {
                        position,
                        name: record.name.clone(),
                    },
                    problem,
                )
            };
            if record.labels.len() != label_set.len() {
                return Err(at(format!(
                    "expected {} labels, got {}",
                    label_set.len(),
                    record.labels.len()
                )));
            }
            if positions.insert(record.name.clone(), position).is_some() {
                return Err(at(format!("the image `{}` is listed twice", record.name)));
            }
        }
        Ok(Self {
            label_set,
            records,
            positions,
            release,
        })
    }

    /// [`Self::assemble`] for rows of a file.
    fn of_rows(
        path: &Path,
        label_set: LabelSet,
        rows: Vec<(u64, Record)>,
        release: Release,
    ) -> Result<Self, DatasetError> {
        let (lines, records): (Vec<u64>, Vec<Record>) = rows.into_iter().unzip();
        Self::assemble(label_set, records, release).map_err(|(at, problem)| {
            let line = lines.get(at.position).copied().unwrap_or(0);
            DatasetError::line(path, line, problem, "list every image once")
        })
    }
}

struct RecordPosition {
    position: usize,
    name: ImageName,
}

impl fmt::Display for RecordPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(formatter)
    }
}

pub(crate) fn count_labels<'a>(
    label_set: &LabelSet,
    records: impl Iterator<Item = &'a Record>,
) -> Vec<LabelCount> {
    let mut counts = vec![LabelCount::default(); label_set.len()];
    for record in records {
        for (count, state) in counts.iter_mut().zip(&record.labels) {
            match state {
                LabelState::Positive => count.positive += 1,
                LabelState::Negative => count.negative += 1,
                LabelState::Unknown => count.unknown += 1,
            }
        }
    }
    counts
}
