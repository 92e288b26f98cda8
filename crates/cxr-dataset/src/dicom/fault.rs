//! What is wrong with a DICOM file, before its path is known.

use std::path::Path;

use dicom_core::Tag;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use crate::DatasetError;
use crate::name::excerpt;

#[derive(Debug)]
pub(super) enum Fault {
    /// Truncated, or not what DICOM says.
    Damaged(String),
    /// An attribute is there and its value is not understood.
    Attribute {
        attribute: String,
        value: String,
        expected: String,
    },
    /// Written in a way that is not read.
    Format(String),
    /// Sound, and not a chest radiograph from the front.
    NotARadiograph(String),
    /// More pixels than are decoded.
    TooLarge { width: u64, height: u64 },
}

impl Fault {
    pub(super) fn attribute(tag: Tag, value: &str, expected: impl Into<String>) -> Self {
        Self::Attribute {
            attribute: attribute(tag),
            value: excerpt(value),
            expected: expected.into(),
        }
    }

    pub(super) fn into_error(self, origin: &Path) -> DatasetError {
        let path = origin.to_owned();
        match self {
            Self::Damaged(problem) => DatasetError::ImageDamaged {
                path,
                format: "DICOM",
                source: problem.into(),
            },
            Self::Attribute {
                attribute,
                value,
                expected,
            } => DatasetError::ImageAttribute {
                path,
                attribute,
                value,
                expected,
            },
            Self::Format(found) => DatasetError::ImageFormat { path, found },
            Self::NotARadiograph(found) => DatasetError::NotARadiograph { path, found },
            Self::TooLarge { width, height } => crate::decode::too_large(width, height, origin),
        }
    }
}

/// An attribute as messages name it: `WindowCenter (0028,1050)`.
pub(super) fn attribute(tag: Tag) -> String {
    let entry = StandardDataDictionary.by_tag(tag);
    let name = entry.map_or("attribute", |entry| entry.alias());
    format!("{name} {tag}")
}
