//! Chest X-ray data sets: labels, records, official lists, splits, image decoding and the
//! prepared image store.
//!
//! A published or a user's table becomes an [`Index`]; with the [`OfficialLists`] it becomes a
//! [`Split`]; image files, or those in an archive, are decoded, made grey, resized and kept in one
//! [`Store`], from which training reads them and which is verified at every read. Nothing is dropped silently: a row, list or image
//! that cannot be used is an error that names file, line and repair, and images that are merely
//! not at hand are taken out by an explicit call that counts them.
//!
//! With the feature `dicom` it reads DICOM files besides PNG and JPEG, and refuses those that are no
//! frontal radiograph.
//!
//! This crate never makes tensors, never touches the network, and draws nothing at random: a
//! split follows from the names and a seed.
//!
//! A [`DataFolder`] does all of it for a folder with table, lists and images.
//!
//! ```
//! use cxr_dataset::{Index, OfficialLists, Split, ValidationSplit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let table = folder.path().join("mine.csv");
//! std::fs::write(&table, "image,patient,Edema,Hernia\na.png,1,1,0\nb.png,1,0,\nc.png,2,0,1\n")?;
//! let index = Index::read(&table)?;
//! let names: Vec<_> = index.records().iter().map(|record| record.name.clone()).collect();
//! let lists = OfficialLists::new(names[..2].to_vec(), names[2..].to_vec())?;
//! let split = Split::new(&index, &lists, ValidationSplit::Paper, 0)?;
//! println!("{}", split.report(&index)?);
//! assert_eq!((split.train().len(), split.test().len()), (2, 1));
//! # Ok(())
//! # }
//! ```

mod archive;
mod blanks;
mod boxes;
mod decode;
#[cfg(feature = "dicom")]
mod dicom;
mod error;
mod files;
mod fingerprint;
mod folder;
mod format;
mod formats;
mod gray;
mod index;
mod label_map;
mod labels;
mod lists;
mod name;
mod record;
mod resize;
mod several;
mod split;
mod store;
mod subset;
mod tone;
mod warning;

pub use archive::{
    ArchiveSummary, ArchivedImage, MAX_ARCHIVED_FILE, archived_paths, has_image_extension,
    is_archive, visit_archive,
};
pub use blanks::{BlankPolicy, Blanks};
pub use boxes::{FindingBox, read_boxes};
pub use decode::{
    ImageFacts, MAX_COLOR, MAX_PIXELS, Radiograph, decode_gray, decode_gray_bytes,
    decode_radiograph, decode_radiograph_bytes, decode_radiograph_in, inspect_image,
    inspect_image_bytes, read_image_file,
};
pub use error::DatasetError;
pub use files::{ImageFile, ImageFiles, Naming, PassedOver, Refusal, is_image_file};
pub use fingerprint::Fingerprint;
pub use folder::{
    BOX_LIST, DataFolder, Found, PreparedSet, Survey, SurveyOptions, TEST_LIST, TRAIN_LIST,
    has_lists, label_table, only_folder_beside, store_file,
};
pub use format::ImageFormat;
pub use formats::{ReadOptions, ReaderRule, TableFormat, has_tables};
pub use gray::GrayImage;
pub use index::{Index, LabelCount, MergeSource, Release, TableWarning};
pub use label_map::LabelMap;
pub use labels::{CHEST_X_RAY14_LABELS, LabelSet, LabelState};
pub use lists::OfficialLists;
pub use name::{ImageName, PatientId, StudyId};
pub use record::{Record, Sex, ViewPosition};
pub use resize::resize_bicubic;
pub use several::DataSet;
pub use split::{Part, PartReport, SharedPatients, Split, SplitReport, ValidationSplit};
pub use store::{
    Inserted, PrepareOptions, Prepared, Progress, Store, StoreBuilder, StoreSettings, prepare,
};
pub use subset::Subset;
pub use tone::Tone;
pub use warning::{ImageWarning, WarningKind};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
