//! What can go wrong, and whose fault it is.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Every failure of this crate.
///
/// A message names the file (and the line, where there is one), what was expected and what was
/// found; where the reader can repair it, `repair` says how.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted: `open`, `read`, `write`, `rename`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// One line of a table or list is wrong.
    #[error("`{}`, line {line}: {problem}; {repair}", path.display())]
    Line {
        /// The table or list.
        path: PathBuf,
        /// The line of the file, the header being line 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        repair: String,
    },
    /// A table or list is wrong as a whole: its header, its length, its form.
    #[error("`{}`: {problem}; {repair}", path.display())]
    Table {
        /// The table or list.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        repair: String,
    },
    /// A text is not the name of an image.
    #[error("`{name}` is not an image name: {reason}")]
    ImageName {
        /// The text, escaped.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A text is not the identity of a patient or a study.
    #[error("`{text}` is no patient's or study's identity: {reason}")]
    PatientId {
        /// The text, escaped.
        text: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// Label names that cannot be distinguished, or none at all.
    #[error("not a label set: {problem}")]
    LabelSet {
        /// What is wrong.
        problem: String,
    },
    /// Records that do not fit together into one index.
    #[error("the record of `{name}`: {problem}")]
    Record {
        /// The image whose record is wrong.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A format of tables, or a rule for them, that there is not.
    #[error("{problem}; {repair}")]
    Format {
        /// What is wrong.
        problem: String,
        /// What to do about it.
        repair: String,
    },
    /// A split cannot be made of these lists and this index.
    #[error("cannot split: {problem}; {repair}")]
    Split {
        /// What is missing or contradictory.
        problem: String,
        /// What to do about it.
        repair: String,
    },
    /// A file is none of the image formats that are read.
    #[error("`{}`: expected {}, got {found}", path.display(), crate::decode::FORMATS)]
    ImageFormat {
        /// The file, or the name under which the bytes were handed over.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// An image is truncated or damaged.
    #[error("cannot decode `{}`: truncated or damaged {format}", path.display())]
    ImageDamaged {
        /// The file, or the name under which the bytes were handed over.
        path: PathBuf,
        /// `PNG`, `JPEG` or `DICOM`.
        format: &'static str,
        /// The decoder's reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An attribute of a DICOM file is there and its value is not understood.
    #[error("`{}`: {attribute} is `{value}`, expected {expected}", path.display())]
    ImageAttribute {
        /// The file, or the name under which the bytes were handed over.
        path: PathBuf,
        /// The attribute's name and tag.
        attribute: String,
        /// Its value, escaped.
        value: String,
        /// What would be understood.
        expected: String,
    },
    /// A sound image, but not one of a chest radiograph from the front.
    #[error("`{}`: expected a frontal radiograph, got {found}", path.display())]
    NotARadiograph {
        /// The file, or the name under which the bytes were handed over.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// An image declares more pixels than are decoded: a decompression bomb, or not a radiograph.
    #[error("`{}`: expected at most {limit} pixels, got {width}×{height}", path.display())]
    ImageTooLarge {
        /// The file, or the name under which the bytes were handed over.
        path: PathBuf,
        /// Declared width in pixels.
        width: u64,
        /// Declared height in pixels.
        height: u64,
        /// The most pixels that are decoded.
        limit: u64,
    },
    /// Pixels, width and height do not agree, or a size is zero.
    #[error("not a grey image: {problem}")]
    ImageShape {
        /// What does not agree.
        problem: String,
    },
    /// A prepared store is damaged, truncated, unfinished, or not a store.
    #[error("prepared store `{}`: {problem}; {repair}", path.display())]
    Store {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        repair: &'static str,
    },
    /// An archive is none, is truncated or damaged, or grows like a decompression bomb.
    #[error("archive `{}`: {problem}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An image was asked of a store that does not hold it.
    #[error("prepared store `{}` holds no image `{name}`", path.display())]
    NotInStore {
        /// The store.
        path: PathBuf,
        /// The image.
        name: String,
    },
    /// A folder that is no data set: it has no label table, or lacks the official lists.
    #[error("`{}` does not hold Data_Entry_2017_v2020.csv, `train_val_list.txt` and `test_list.txt`, nor the tables of another data set", path.display())]
    NoMetadata {
        /// The folder.
        path: PathBuf,
    },
    /// A data set's folder without images.
    #[error("`{}` holds no images", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },
    /// Listed images that are missing, and may not be, or all of them.
    #[error("{missing} of {listed} listed images are missing from `{}`, the first is `{first}`", path.display())]
    Missing {
        /// The folder, or the store.
        path: PathBuf,
        /// How many images are missing.
        missing: usize,
        /// Of how many.
        listed: usize,
        /// The first of them.
        first: String,
        /// An image that may be meant by that name.
        similar: Option<String>,
    },
    /// A prepared store with images of another size than wanted.
    #[error("`{}` holds images of {found}×{found} pixels, and the experiment wants {wanted}×{wanted}", path.display())]
    StoreSide {
        /// The store.
        path: PathBuf,
        /// Side of its images in pixels.
        found: usize,
        /// Side that is wanted.
        wanted: usize,
    },
    /// Images of a data set that cannot be read, decoded or resized.
    #[error("{} of {of} images cannot be used{}", images.len(), first_problem(images))]
    Unusable {
        /// They, sorted by name, each with what is wrong with it.
        images: Vec<(crate::ImageName, DatasetError)>,
        /// Of how many.
        of: usize,
    },
    /// Preparing was stopped by its stop flag; what was done is kept and the next call resumes.
    #[error("stopped after {done} of {total} images; run again to resume `{}`", path.display())]
    Interrupted {
        /// The store being prepared.
        path: PathBuf,
        /// Images done so far.
        done: usize,
        /// Images asked for.
        total: usize,
    },
}

fn first_problem(images: &[(crate::ImageName, DatasetError)]) -> String {
    let first = images.first();
    first.map_or_else(String::new, |(_, error)| format!(", the first: {error}"))
}

impl From<cxr_fs::FsError> for DatasetError {
    fn from(error: cxr_fs::FsError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}

impl From<cxr_table::TableError> for DatasetError {
    fn from(error: cxr_table::TableError) -> Self {
        match error {
            cxr_table::TableError::Io {
                action,
                path,
                source,
            } => Self::Io {
                action,
                path,
                source,
            },
            cxr_table::TableError::Line {
                path,
                line,
                problem,
                repair,
            } => Self::Line {
                path,
                line,
                problem,
                repair,
            },
            cxr_table::TableError::Table {
                path,
                problem,
                repair,
            } => Self::Table {
                path,
                problem,
                repair,
            },
            other => Self::Table {
                path: PathBuf::new(),
                problem: other.to_string(),
                repair: "name another table".to_owned(),
            },
        }
    }
}

impl DatasetError {
    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    pub(crate) fn line(
        path: &Path,
        line: u64,
        problem: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        Self::Line {
            path: path.to_owned(),
            line,
            problem: problem.into(),
            repair: repair.into(),
        }
    }

    pub(crate) fn table(
        path: &Path,
        problem: impl Into<String>,
        repair: impl Into<String>,
    ) -> Self {
        Self::Table {
            path: path.to_owned(),
            problem: problem.into(),
            repair: repair.into(),
        }
    }
}
