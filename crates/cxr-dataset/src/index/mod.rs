//! The index of a data set: one record for each image, read from a published or a user's table.

pub(crate) mod builder;
mod merge;

pub use merge::MergeSource;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use builder::Builder;

use crate::fingerprint::Fingerprinter;
use crate::formats::{self, ReadOptions};
use crate::{
    DatasetError, FindingBox, Fingerprint, ImageName, LabelSet, LabelState, Part, PatientId,
    Record, StudyId,
};

/// Every image of a data set with its labels: what its tables say, whether or not there is a file of that name.
#[derive(Clone, Debug)]
pub struct Index {
    label_set: LabelSet,
    records: Vec<Record>,
    positions: HashMap<ImageName, usize>,
    release: Release,
    boxes: Vec<FindingBox>,
    tables: Vec<PathBuf>,
    warnings: Vec<TableWarning>,
}

/// Which tables an [`Index`] was read from: a name for programs, and one for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Release {
    name: &'static str,
    title: &'static str,
}

impl Release {
    /// `Data_Entry_2017_v2020.csv`: the release with 60,361 images without a finding.
    pub const CHEST_X_RAY14_V2020: Self =
        Self::new("chest-x-ray14-v2020", "ChestX-ray14, v2020 release");
    /// `Data_Entry_2017.csv`: the first release, with 60,412.
    pub const CHEST_X_RAY14_FIRST: Self =
        Self::new("chest-x-ray14-first", "ChestX-ray14, first release");
    /// A user's own table, or records made in memory.
    pub const OWN_TABLE: Self = Self::new("user-table", "a user's table");

    /// Several data sets that were made one.
    pub const SEVERAL: Self = Self::new("several", "several data sets");

    /// A release of a data set; `name` in lower case with hyphens.
    pub const fn new(name: &'static str, title: &'static str) -> Self {
        Self { name, title }
    }

    /// Its name in JSON, such as `chexpert`.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.title)
    }
}

impl Serialize for Release {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// Something in a table that its reader should know of, and that makes no row unusable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableWarning {
    /// What it is, of each of those that are counted.
    pub message: String,
    /// How often it was met.
    pub count: usize,
    /// The table where it was met first.
    pub table: Option<PathBuf>,
    /// The line where it was met first.
    pub line: Option<u64>,
}

impl fmt::Display for TableWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.message, self.count)?;
        match (&self.table, self.line) {
            (Some(table), Some(line)) => {
                write!(formatter, ", first in `{}`, line {line}", table.display())
            }
            _ => Ok(()),
        }
    }
}

/// How often one label has each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelCount {
    /// Images with the finding.
    pub positive: usize,
    /// Images without it.
    pub negative: usize,
    /// Images of which the source says that it is uncertain.
    #[serde(default)]
    pub uncertain: usize,
    /// Images of which nothing is said.
    pub unknown: usize,
    /// Those of them whose cell is empty.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub blank: usize,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Index {
    /// Reads the tables of a data set: one that is named, with those beside it that belong to it, or those of a folder.
    /// Which [`TableFormat`](crate::TableFormat) they have is found by their headers.
    ///
    /// Tables are read as [`cxr_table::Table`] reads them: plain or gzip, in UTF-8 or UTF-16, separated by commas,
    /// semicolons or tabs, their columns in any order.
    ///
    /// # Errors
    /// An unreadable file, a missing column, a malformed row, an image listed twice or in two spellings, a label
    /// outside a closed list, or a cell that is no label state; the message names file and line.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        Self::read_with(path, &ReadOptions::default())
    }

    /// The same with a format that is named, or another rule by which several readers of one image are joined.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Self, DatasetError> {
        formats::read(path.as_ref(), options)
    }

    /// An index of records made in memory.
    ///
    /// # Errors
    /// [`DatasetError::Record`] for an image that occurs twice or in two spellings, or a record with another number
    /// of labels than `label_set`.
    pub fn new(label_set: LabelSet, records: Vec<Record>) -> Result<Self, DatasetError> {
        let mut builder = Builder::new(Release::OWN_TABLE, label_set);
        for record in records {
            builder.push_own(record)?;
        }
        Ok(builder.finish())
    }

    /// The same images with other labels, in which boxes may be called otherwise, or are left out.
    pub(crate) fn relabelled(
        &self,
        label_set: LabelSet,
        labels: impl Fn(&[LabelState]) -> Vec<LabelState>,
        rename: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let record = |record: &Record| Record {
            labels: labels(&record.labels).into(),
            ..record.clone()
        };
        let of_box = |found: &FindingBox| {
            Some(FindingBox {
                finding: rename(&found.finding)?,
                ..found.clone()
            })
        };
        Self {
            label_set,
            records: self.records.iter().map(record).collect(),
            positions: self.positions.clone(),
            release: self.release,
            boxes: self.boxes.iter().filter_map(of_box).collect(),
            tables: self.tables.clone(),
            warnings: self.warnings.clone(),
        }
    }

    /// The same with empty cells of those labels, by their places, as negative ones, and a warning of how many.
    pub(crate) fn with_negative_blanks(mut self, is_negative: &[bool]) -> Self {
        let mut count = 0;
        for record in &mut self.records {
            for (state, is_negative) in record.labels.iter_mut().zip(is_negative) {
                if *is_negative && *state == LabelState::Blank {
                    *state = LabelState::Negative;
                    count += 1;
                }
            }
        }
        if count > 0 {
            self.warnings.push(TableWarning {
                message: "empty cells of labels that are taken for negative".to_owned(),
                count,
                table: None,
                line: None,
            });
        }
        self
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

    /// The record of the image at this path in an archive: the one that is called as its path ends, or, in the tables of a
    /// published data set, by an id that is that without the extension of an image.
    pub fn listed(&self, path: &ImageName) -> Option<&Record> {
        let ids = path.ids().filter(|_| self.has_ids());
        path.tails().chain(ids).find_map(|name| self.get(&name))
    }

    /// Whether an image may be called by an id, which is no file's name: a published data set's, not in an own table.
    pub(crate) fn has_ids(&self) -> bool {
        self.release != Release::OWN_TABLE
    }

    /// The labels, in the order of [`Record::labels`].
    pub fn label_set(&self) -> &LabelSet {
        &self.label_set
    }

    /// Which table this was read from.
    pub fn release(&self) -> Release {
        self.release
    }

    /// Boxes around findings, where the tables have them, in pixels of the publisher's images.
    pub fn boxes(&self) -> &[FindingBox] {
        &self.boxes
    }

    /// The tables it was read from; none for records made in memory.
    pub fn tables(&self) -> &[PathBuf] {
        &self.tables
    }

    /// What its tables hold that a researcher should know of.
    pub fn warnings(&self) -> &[TableWarning] {
        &self.warnings
    }

    /// The images that the publisher puts into one part, in the order of the records.
    pub fn official(&self, part: Part) -> Vec<ImageName> {
        let records = self.records.iter();
        let of_part = records.filter(|record| record.part == Some(part));
        of_part.map(|record| record.name.clone()).collect()
    }

    /// How many studies (examinations) there are; images of unknown studies are not counted.
    pub fn n_studies(&self) -> usize {
        let studies: HashSet<&StudyId> = (self.records.iter())
            .filter_map(|record| record.study.as_ref())
            .collect();
        studies.len()
    }

    /// For each label, how many images have it, lack it, or leave it uncertain or unsaid.
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

    /// How many images are known to have none of the findings: those positive for the label that says so
    /// ([`LabelSet::no_finding`]) where there is one, else those negative for every label.
    pub fn n_without_finding(&self) -> usize {
        let said = self.label_set.no_finding();
        let is_clear = |record: &&Record| match said {
            Some(label) => record.labels.get(label) == Some(&LabelState::Positive),
            None => record.has_no_finding(),
        };
        self.records.iter().filter(is_clear).count()
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
    /// name, patient and states, uncertain ones as unknown. It does not depend on the order of rows or on other columns.
    pub fn fingerprint(&self) -> Fingerprint {
        self.digest("cxr labels 1", |state| match state {
            LabelState::Uncertain => LabelState::Unknown,
            state => state,
        })
    }

    /// The same, which tells uncertain labels from unknown ones: for whoever makes a difference between them.
    pub fn fingerprint_with_uncertain(&self) -> Fingerprint {
        self.digest("cxr labels 2", |state| state)
    }

    fn digest(&self, form: &str, state: impl Fn(LabelState) -> LabelState) -> Fingerprint {
        let mut fingerprinter = Fingerprinter::default();
        fingerprinter.text(form);
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
            codes.extend(record.labels.iter().map(|&of_label| state(of_label).code()));
            fingerprinter.bytes(&codes);
        }
        fingerprinter.finish()
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
                LabelState::Uncertain => count.uncertain += 1,
                LabelState::Unknown => count.unknown += 1,
                LabelState::Blank => {
                    count.unknown += 1;
                    count.blank += 1;
                }
            }
        }
    }
    counts
}
