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
    /// A DICOM file whose PatientAge is not understood; its age counts as not known.
    UnknownAge {
        /// The age, escaped.
        age: String,
    },
    /// A DICOM file whose PatientSex is not understood; its sex counts as not known.
    UnknownSex {
        /// The sex, escaped.
        sex: String,
    },
}

impl ImageWarning {
    /// Its kind, without what is particular to the image.
    pub fn kind(&self) -> WarningKind {
        match self {
            Self::NarrowRange { .. } => WarningKind::NarrowRange,
            Self::NoModality { .. } => WarningKind::NoModality,
            Self::UnknownView { .. } => WarningKind::UnknownView,
            Self::OtherBodyPart { .. } => WarningKind::OtherBodyPart,
            Self::TrailingBytes { .. } => WarningKind::TrailingBytes,
            Self::UnknownAge { .. } => WarningKind::UnknownAge,
            Self::UnknownSex { .. } => WarningKind::UnknownSex,
        }
    }
}

/// The kinds of [`ImageWarning`], as a store keeps them of its images. The text of one goes on after a number of
/// images: "3 images are DICOM files …".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// [`ImageWarning::NarrowRange`].
    NarrowRange,
    /// [`ImageWarning::NoModality`].
    NoModality,
    /// [`ImageWarning::UnknownView`].
    UnknownView,
    /// [`ImageWarning::OtherBodyPart`].
    OtherBodyPart,
    /// [`ImageWarning::TrailingBytes`].
    TrailingBytes,
    /// [`ImageWarning::UnknownAge`].
    UnknownAge,
    /// [`ImageWarning::UnknownSex`].
    UnknownSex,
}

impl WarningKind {
    /// Every kind, each at the place of its bit in a store.
    pub(crate) const ALL: [Self; 7] = [
        Self::NarrowRange,
        Self::NoModality,
        Self::UnknownView,
        Self::OtherBodyPart,
        Self::TrailingBytes,
        Self::UnknownAge,
        Self::UnknownSex,
    ];

    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Its name in reports for programs, that of the tag `kind` in an [`ImageWarning`].
    pub fn name(self) -> &'static str {
        match self {
            Self::NarrowRange => "narrow-range",
            Self::NoModality => "no-modality",
            Self::UnknownView => "unknown-view",
            Self::OtherBodyPart => "other-body-part",
            Self::TrailingBytes => "trailing-bytes",
            Self::UnknownAge => "unknown-age",
            Self::UnknownSex => "unknown-sex",
        }
    }
}

impl fmt::Display for WarningKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NarrowRange => {
                "use few of the grey levels and come out nearly uniform (`cxr prepare --stretch` uses all levels)"
            }
            Self::NoModality => "are DICOM files without Modality, taken for radiographs",
            Self::UnknownView => "are DICOM files of an unknown view, taken for frontal ones",
            Self::OtherBodyPart => "are DICOM files that name another part of the body",
            Self::TrailingBytes => "are DICOM files with other bytes behind their pixels",
            Self::UnknownAge => "are DICOM files with a PatientAge that is not understood",
            Self::UnknownSex => "are DICOM files with a PatientSex that is not understood",
        })
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
            Self::UnknownAge { age } => write!(
                formatter,
                "its PatientAge `{age}` is not understood, such as `061Y` would be"
            ),
            Self::UnknownSex { sex } => write!(
                formatter,
                "its PatientSex `{sex}` is not understood, such as `F`, `M` or `O` would be"
            ),
        }
    }
}
