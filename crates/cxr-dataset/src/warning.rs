//! What a reader of a usable image should know of it.

use std::fmt;

use serde::Serialize;

/// Something about an image that was read which its owner may want to look at. Its text says what, without the image's
/// name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ImageWarning {
    /// Almost all of its pixels, 99 of 100, share at most 65 of the 256 grey levels: its values use a part of their
    /// range, such as 12 bits stored in 16, and it comes out nearly uniform, mostly black.
    NarrowRange {
        /// The darkest level that is no outlier.
        darkest: u8,
        /// The brightest.
        brightest: u8,
    },
    /// A DICOM file without Modality, taken for a radiograph.
    NoModality {
        /// What it was taken for one by.
        taken_by: String,
    },
    /// A DICOM file of a view that is not understood, taken for a frontal one.
    UnknownView {
        /// The view, escaped.
        view: String,
    },
    /// A DICOM file that names another part of the body than the chest. Machines and people often leave this attribute
    /// at the part examined before, so it refuses nothing.
    OtherBodyPart {
        /// The part, escaped.
        part: String,
    },
    /// Bytes behind the pixels of a DICOM file that are no part of it. Its attributes and pixels are whole.
    TrailingBytes {
        /// How many.
        n_bytes: usize,
    },
}

impl ImageWarning {
    /// What all warnings of this kind have in common, for a count of them.
    pub fn summary(&self) -> &'static str {
        match self {
            Self::NarrowRange { .. } => {
                "use a small part of the grey levels and come out nearly uniform (`--stretch` uses them all)"
            }
            Self::NoModality { .. } => "are DICOM files without Modality, taken for radiographs",
            Self::UnknownView { .. } => {
                "are DICOM files of an unknown view, taken for frontal ones"
            }
            Self::OtherBodyPart { .. } => "are DICOM files that name another part of the body",
            Self::TrailingBytes { .. } => "are DICOM files with other bytes behind their pixels",
        }
    }
}

impl fmt::Display for ImageWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NarrowRange { darkest, brightest } => write!(
                formatter,
                "99 of 100 pixels lie between the grey levels {darkest} and {brightest} of 255: its values use a part of their range"
            ),
            Self::NoModality { taken_by } => {
                write!(formatter, "it has no Modality and was taken by {taken_by}")
            }
            Self::UnknownView { view } => {
                write!(
                    formatter,
                    "its view `{view}` is unknown and was taken for a frontal one"
                )
            }
            Self::OtherBodyPart { part } => {
                write!(
                    formatter,
                    "it names the part of the body `{part}`, not the chest"
                )
            }
            Self::TrailingBytes { n_bytes } => {
                write!(
                    formatter,
                    "{n_bytes} bytes behind its pixels are no part of a DICOM file"
                )
            }
        }
    }
}
