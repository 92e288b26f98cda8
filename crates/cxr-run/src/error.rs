//! What can go wrong with experiment files, run folders and tables of scores.

use std::path::{Path, PathBuf};

use cxr_fs::FsError;
use cxr_metrics::MetricError;
use cxr_table::TableError;

/// Why a run folder or a table in it cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An experiment file that does not parse.
    #[error("experiment file `{}` is not valid: {problem}", path.display())]
    ExperimentFile {
        /// The file.
        path: PathBuf,
        /// Where and why, from the TOML reader.
        problem: String,
    },
    /// A value of an experiment that is out of its range.
    #[error("`{key}` of the experiment must be {expected}, got {found}")]
    Setting {
        /// The key, with its table.
        key: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A variant that the experiment does not have.
    #[error("experiment `{experiment}` has no variant `{name}`; it has {known}")]
    UnknownVariant {
        /// The experiment.
        experiment: String,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file that is not whole, or not what it should be.
    #[error("`{}` is not a usable {kind}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A file or folder cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A table cannot be read: its encoding, its form, or a row with more or fewer cells than the header.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A predictions table has no column to score.
    #[error("`{}`: expected an image column and at least one label column, got {found} columns", path.display())]
    NoLabelColumn {
        /// The file.
        path: PathBuf,
        /// Columns in the header.
        found: usize,
    },
    /// Two columns are about one label, such as `prob_Mass` and `logit_Mass`.
    #[error("`{}`: expected one column for `{label}`, got `{first}` and `{second}`", path.display())]
    LabelTwice {
        /// The file.
        path: PathBuf,
        /// The label.
        label: String,
        /// The header of its first column.
        first: String,
        /// The header of its second column.
        second: String,
    },
    /// A score is no number, or NaN, or infinite.
    #[error("`{}`, line {line}, column `{column}`: expected a finite number, got `{text}`", path.display())]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// The line in the file, the header being line 1.
        line: u64,
        /// The column's header.
        column: String,
        /// What stands there.
        text: String,
    },
    /// An image has two rows.
    #[error("`{}`, line {line}: image `{image}` stands already on line {first_line}", path.display())]
    ImageTwice {
        /// The file.
        path: PathBuf,
        /// The line of the second row.
        line: u64,
        /// The line of the first.
        first_line: u64,
        /// The image.
        image: String,
    },
    /// An image has scores but no labels.
    #[error("`{}`, line {line}: image `{image}` has no row in the label table", path.display())]
    ImageWithoutLabels {
        /// The predictions.
        path: PathBuf,
        /// The line in the predictions.
        line: u64,
        /// The image.
        image: String,
    },
    /// An image is scored in one of two predictions tables only.
    #[error("`{}`, line {line}: image `{image}` has no row in `{}`", path.display(), other.display())]
    ImageWithoutScores {
        /// The predictions that hold the image.
        path: PathBuf,
        /// The line there.
        line: u64,
        /// The image.
        image: String,
        /// The predictions that lack it.
        other: PathBuf,
    },
    /// A label of the label table has no column of scores.
    #[error("`{}`: expected a column `{label}`, `prob_{label}` or `logit_{label}`, found none", path.display())]
    LabelWithoutScores {
        /// The predictions.
        path: PathBuf,
        /// The label.
        label: String,
    },
    /// A column of scores is about no label of the label table.
    #[error("`{}`: column `{column}` is about none of the labels `{}`", path.display(), labels.join("`, `"))]
    ScoresWithoutLabel {
        /// The predictions.
        path: PathBuf,
        /// The column's header.
        column: String,
        /// The labels there are.
        labels: Vec<String>,
    },
    /// No column of scores is about a label of the label table.
    #[error("`{}`: expected a column for one of the labels `{}`, found none", path.display(), labels.join("`, `"))]
    NoCommonLabel {
        /// The predictions.
        path: PathBuf,
        /// The labels there are.
        labels: Vec<String>,
    },
    /// The truth of an image has another number of labels than there are label names.
    #[error("expected {expected} labels of image `{image}`, got {found}")]
    LabelCount {
        /// The image.
        image: String,
        /// The number of label names.
        expected: usize,
        /// The number of labels given.
        found: usize,
    },
    /// The truth of an image was given twice.
    #[error("expected the labels of image `{image}` once, got them twice")]
    TruthTwice {
        /// The image.
        image: String,
    },
    /// Studies are to be scored, and the label table names none.
    #[error("{tables} does not say which images are of one study")]
    NoStudies {
        /// What the table is.
        tables: String,
    },
    /// No image has both scores and labels.
    #[error("`{}`: expected at least one image of the label table, found none", path.display())]
    NothingToScore {
        /// The predictions.
        path: PathBuf,
    },
    /// A result by patient was asked for and an image's patient is not known.
    #[error("expected a patient for every image, got none for `{image}`")]
    PatientUnknown {
        /// The first such image by name.
        image: String,
    },
    /// A cell of a run's label table is no label.
    #[error("`{}`, line {line}: expected 1, 0 or nothing, got `{text}`", path.display())]
    LabelCell {
        /// The file.
        path: PathBuf,
        /// The line in the file, the header being line 1.
        line: u64,
        /// What stands there.
        text: String,
    },
    /// A folder that another process is working in.
    #[error("run folder `{}` is in use by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that is no longer where it was opened.
    #[error("run folder `{}` was deleted, moved or replaced while this process worked in it; nothing more is written\nhint: put it back, and the same command goes on from its last checkpoint", path.display())]
    FolderGone {
        /// The folder.
        path: PathBuf,
    },
    /// A folder holds no run.
    #[error("expected folders of runs in `{}`, found none; `cxr train` makes them", path.display())]
    NoRuns {
        /// The folder.
        path: PathBuf,
    },
    /// A run has no metrics yet.
    #[error("expected a run's metrics at `{}`, found none; run `cxr train` again to resume and finish the run", path.display())]
    RunUnfinished {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A run's files are not those that its metrics are of.
    #[error("run `{}` is finished, but {what} since; `cxr evaluate` makes its files again", path.display())]
    RunChanged {
        /// The run's folder.
        path: PathBuf,
        /// What happened to which file.
        what: String,
    },
    /// A run's file is not what this version writes.
    #[error("`{}` is not what this version writes; `cxr evaluate` on its folder writes it again, or `cxr explain` its explanations", path.display())]
    RunFile {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// An augmentation that is out of its range.
    #[error(transparent)]
    Augment(#[from] cxr_augment::AugmentError),
    /// An index, a list or a split that cannot be used.
    #[error(transparent)]
    Dataset(#[from] cxr_dataset::DatasetError),
    /// A metric refused its input.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

/// The largest table or run file that is read.
pub(crate) const MAX_BYTES: u64 = 1 << 30;

/// The text of a run's file, if there is one.
///
/// # Errors
/// [`RunError::Io`] for one that cannot be read, is no text, or is larger than any that a run has.
pub fn read_run_file(path: &Path) -> Result<Option<String>, RunError> {
    match cxr_fs::read_text(path, MAX_BYTES) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes `value` as JSON with a line break at its end, whole or not at all.
///
/// # Errors
/// [`RunError::Io`].
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), RunError> {
    Ok(cxr_fs::write(path, json_text(path, value)?.as_bytes())?)
}

/// The text that [`write_json`] writes.
pub(crate) fn json_text(path: &Path, value: &impl serde::Serialize) -> Result<String, RunError> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(RunError::io("write", path)(error.into())),
    }
}

impl RunError {
    /// [`Self::Setting`].
    pub fn setting(key: &str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Setting {
            key: key.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    /// For `map_err`: names what was tried with which file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl From<FsError> for RunError {
    fn from(error: FsError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}
