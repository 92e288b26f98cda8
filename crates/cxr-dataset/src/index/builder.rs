//! An index while it is made, record by record: what is listed twice is an error of the row that lists it again.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};

use super::{Index, Release, TableWarning};
use crate::{DatasetError, FindingBox, ImageName, LabelSet, Record};

/// Records of one or several tables on their way into an [`Index`].
pub(crate) struct Builder {
    release: Release,
    label_set: LabelSet,
    records: Vec<Record>,
    positions: HashMap<ImageName, usize>,
    /// The first record under each spelling, by its hash.
    spellings: HashMap<u64, usize>,
    hasher: RandomState,
    /// Table and line of each record.
    origins: Vec<(u16, u64)>,
    tables: Vec<PathBuf>,
    boxes: Vec<FindingBox>,
    warnings: Vec<TableWarning>,
    warned: HashMap<String, usize>,
}

impl Builder {
    pub(crate) fn new(release: Release, label_set: LabelSet) -> Self {
        Self {
            release,
            label_set,
            records: Vec::new(),
            positions: HashMap::new(),
            spellings: HashMap::new(),
            hasher: RandomState::new(),
            origins: Vec::new(),
            tables: Vec::new(),
            boxes: Vec::new(),
            warnings: Vec::new(),
            warned: HashMap::new(),
        }
    }

    pub(crate) fn label_set(&self) -> &LabelSet {
        &self.label_set
    }

    pub(crate) fn release_as(&mut self, release: Release) {
        self.release = release;
    }

    /// Notes that a table was read, whatever of it becomes records.
    pub(crate) fn read_table(&mut self, path: &Path) {
        if !self.tables.iter().any(|known| known == path) {
            self.tables.push(path.to_owned());
        }
    }

    /// Adds the record that begins on a line of a table.
    ///
    /// # Errors
    /// [`DatasetError::Line`] for an image that was added before, in whatever spelling, or another number of labels.
    pub(crate) fn push(
        &mut self,
        path: &Path,
        line: u64,
        record: Record,
    ) -> Result<usize, DatasetError> {
        let table = match self.tables.iter().position(|known| known == path) {
            Some(table) => table,
            None => {
                self.tables.push(path.to_owned());
                self.tables.len() - 1
            }
        };
        // So many tables no data set has; the first stands for those behind.
        self.origins.push((u16::try_from(table).unwrap_or(0), line));
        self.push_record(record).map_err(|problem| {
            DatasetError::line(
                path,
                line,
                problem,
                "list every image once, in one spelling",
            )
        })
    }

    /// Adds a record that no table has.
    ///
    /// # Errors
    /// [`DatasetError::Record`], as [`Self::push`].
    pub(crate) fn push_own(&mut self, record: Record) -> Result<usize, DatasetError> {
        let name = record.name.to_string();
        self.push_record(record)
            .map_err(|problem| DatasetError::Record { name, problem })
    }

    fn push_record(&mut self, record: Record) -> Result<usize, String> {
        if record.labels.len() != self.label_set.len() {
            return Err(format!(
                "expected {} labels, got {}",
                self.label_set.len(),
                record.labels.len()
            ));
        }
        let position = self.records.len();
        if let Some(&first) = self.positions.get(&record.name) {
            return Err(format!(
                "the image `{}` is listed twice{}",
                record.name,
                self.place(first)
            ));
        }
        let spelling = record.name.spelling();
        let hash = self.hasher.hash_one(&*spelling);
        if let Some(&first) = self.spellings.get(&hash)
            && let Some(other) = self.records.get(first)
            && other.name.spelling() == spelling
        {
            return Err(format!(
                "`{}` and `{}`{} are two spellings of one name",
                record.name,
                other.name,
                self.place(first)
            ));
        }
        self.spellings.entry(hash).or_insert(position);
        self.positions.insert(record.name.clone(), position);
        self.records.push(record);
        Ok(position)
    }

    /// Where a record was read, for a message: ` (`, the table, its line, `)`.
    fn place(&self, position: usize) -> String {
        let origin = self.origins.get(position).copied();
        let place = origin.and_then(|(table, line)| {
            let path = self.tables.get(usize::from(table))?;
            Some(format!(" (first in `{}`, line {line})", path.display()))
        });
        place.unwrap_or_default()
    }

    pub(crate) fn position(&self, name: &ImageName) -> Option<usize> {
        self.positions.get(name).copied()
    }

    pub(crate) fn record_mut(&mut self, position: usize) -> Option<&mut Record> {
        self.records.get_mut(position)
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(crate) fn add_box(&mut self, found: FindingBox) {
        self.boxes.push(found);
    }

    /// Counts something that a researcher should know and that makes no row unusable. `place` is the first of its kind.
    pub(crate) fn warn(&mut self, message: &str, place: Option<(&Path, u64)>) {
        self.warn_times(message, 1, place);
    }

    /// The same for so many at once.
    pub(crate) fn warn_times(&mut self, message: &str, count: usize, place: Option<(&Path, u64)>) {
        if count == 0 {
            return;
        }
        if let Some(known) =
            (self.warned.get(message)).and_then(|&number| self.warnings.get_mut(number))
        {
            known.count += count;
            return;
        }
        self.warned.insert(message.to_owned(), self.warnings.len());
        self.warnings.push(TableWarning {
            message: message.to_owned(),
            count,
            table: place.map(|(path, _)| path.to_owned()),
            line: place.map(|(_, line)| line),
        });
    }

    pub(crate) fn finish(self) -> Index {
        Index {
            label_set: self.label_set,
            records: self.records,
            positions: self.positions,
            release: self.release,
            boxes: self.boxes,
            tables: self.tables,
            warnings: self.warnings,
        }
    }
}
