//! Names of images and identities of patients, parsed once and trusted afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub(crate) use cxr_table::excerpt;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization as _;

use crate::DatasetError;

/// The name of an image: a relative path such as `00000013_005.png` or
/// `train/patient00001/study1/view1_frontal.jpg`, most often a file name alone.
///
/// It is the key of everything: index, lists, splits, prepared store and predictions. Folders are
/// separated by `/`. Every part is non-empty, at most 255 bytes long, has no space at either end and is
/// neither `.` nor `..`; the name has at most 1,024 bytes, no `\`, no control character, none that changes the direction
/// of writing, and does not begin with a drive such as `C:`. Joined to a folder it never leaves that folder.
/// Cloning is cheap. Names order by their bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(Arc<str>);

impl ImageName {
    /// Checks that `name` is a relative path that stays where it is joined to.
    ///
    /// # Errors
    /// [`DatasetError::ImageName`] says which rule it breaks.
    pub fn new(name: &str) -> Result<Self, DatasetError> {
        match Self::broken_rule(name) {
            Some(reason) => Err(DatasetError::ImageName {
                name: excerpt(name),
                reason,
            }),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its last part: the file name.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Its parts, the folders first.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The name itself and then what is left of it without its first folder, its first two, and so on to the file
    /// name.
    pub fn tails(&self) -> impl Iterator<Item = Self> {
        let begins = self.0.match_indices('/').map(|(at, _)| at + 1);
        std::iter::once(0)
            .chain(begins)
            .filter_map(|begin| self.0.get(begin..))
            .map(Self::trusted)
    }

    /// Its [tails](Self::tails) without the extension of an image; none where it has no such extension.
    pub fn ids(&self) -> impl Iterator<Item = Self> {
        let stem = self.stem().map(Self::trusted);
        stem.into_iter()
            .flat_map(|stem| stem.tails().collect::<Vec<_>>())
    }

    /// The name without the extension of an image; `None` where it has none, or nothing else.
    pub(crate) fn stem(&self) -> Option<&str> {
        if !crate::has_image_extension(self.file_name()) {
            return None;
        }
        let (stem, _) = self.0.rsplit_once('.')?;
        Self::broken_rule(stem).is_none().then_some(stem)
    }

    /// The name without its first folder, where it has one.
    pub(crate) fn without_root(&self) -> Option<&str> {
        self.0.split_once('/').map(|(_, rest)| rest)
    }

    /// What it is to a file system that does not tell cases apart: equal for two spellings of one name.
    pub(crate) fn spelling(&self) -> std::borrow::Cow<'_, str> {
        match self.0.is_ascii() {
            true if self.0.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                self.0.to_ascii_lowercase().into()
            }
            true => (&*self.0).into(),
            // Systems also write one letter with an accent as one character or two.
            false => self.0.nfc().flat_map(char::to_lowercase).nfc().collect(),
        }
    }

    pub(crate) fn broken_rule(name: &str) -> Option<&'static str> {
        if name.is_empty() {
            return Some("it is empty");
        }
        if name.len() > 1024 {
            return Some("it is longer than 1,024 bytes");
        }
        if name.starts_with('/') {
            return Some("it begins at a root; write it relative to the folder of the images");
        }
        if name.contains('\\') {
            return Some("it has a `\\`; separate folders by `/`");
        }
        if let [drive, b':', ..] = name.as_bytes()
            && drive.is_ascii_alphabetic()
        {
            return Some("it begins with a drive; write it relative to the folder of the images");
        }
        if name.chars().any(char::is_control) {
            return Some("it has a control character");
        }
        if name.contains(is_deceptive) {
            return Some(
                "it has a character that changes the direction of writing or is invisible",
            );
        }
        name.split('/').find_map(|part| match part {
            "" => Some("one of its folders has no name"),
            "." | ".." => Some("it climbs out of its folder, or names a folder"),
            _ if part.len() > 255 => Some("a part of it is longer than 255 bytes"),
            _ if part.trim() != part => {
                Some("it, or one of its folders, begins or ends with a space")
            }
            _ => None,
        })
    }

    /// For names that passed [`Self::broken_rule`] already.
    pub(crate) fn trusted(name: &str) -> Self {
        Self(name.into())
    }
}

impl FromStr for ImageName {
    type Err = DatasetError;

    fn from_str(name: &str) -> Result<Self, DatasetError> {
        Self::new(name)
    }
}

impl TryFrom<String> for ImageName {
    type Error = DatasetError;

    fn try_from(name: String) -> Result<Self, DatasetError> {
        Self::new(&name)
    }
}

impl From<ImageName> for String {
    fn from(name: ImageName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl AsRef<str> for ImageName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl AsRef<std::path::Path> for ImageName {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(self.as_str())
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ImageName({:?})", &self.0)
    }
}

/// Whose radiograph an image is: equal for two images of one patient.
///
/// In ChestX-ray14 it is the first eight digits of the image name; in a user's table it is the
/// text of the patient column. Non-empty, without control characters, at most 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PatientId(Arc<str>);

impl PatientId {
    /// Checks the text of a patient column.
    ///
    /// # Errors
    /// [`DatasetError::PatientId`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, DatasetError> {
        let reason = if text.trim().is_empty() {
            "it is empty"
        } else if text.len() > 255 {
            "it is longer than 255 bytes"
        } else if text.chars().any(char::is_control) {
            "it has a control character"
        } else {
            return Ok(Self(text.into()));
        };
        Err(DatasetError::PatientId {
            text: excerpt(text),
            reason,
        })
    }

    /// The first eight digits of a ChestX-ray14 image name such as `00000013_005.png`.
    ///
    /// # Errors
    /// [`DatasetError::PatientId`] when the name does not begin with eight digits and `_`.
    pub fn from_chest_x_ray14(name: &ImageName) -> Result<Self, DatasetError> {
        match name.file_name().split_once('_') {
            Some((digits, _))
                if digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                Ok(Self(digits.into()))
            }
            _ => Err(DatasetError::PatientId {
                text: excerpt(name.as_str()),
                reason: "a ChestX-ray14 image name begins with eight digits and `_`",
            }),
        }
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for PatientId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PatientId {
    type Error = DatasetError;

    fn try_from(text: String) -> Result<Self, DatasetError> {
        Self::new(&text)
    }
}

impl From<PatientId> for String {
    fn from(patient: PatientId) -> Self {
        patient.0.as_ref().to_owned()
    }
}

impl fmt::Display for PatientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for PatientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PatientId({:?})", &self.0)
    }
}

/// Which examination an image belongs to: equal for two images of one study, and different for studies of different
/// patients.
///
/// What a table's study is called, with the patient where studies are numbered by patient (`patient00001/study1`).
/// Non-empty, without control characters, at most 255 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StudyId(PatientId);

impl StudyId {
    /// Checks the text of a study column.
    ///
    /// # Errors
    /// [`DatasetError::PatientId`] says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, DatasetError> {
        PatientId::new(text).map(Self)
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl TryFrom<String> for StudyId {
    type Error = DatasetError;

    fn try_from(text: String) -> Result<Self, DatasetError> {
        Self::new(&text)
    }
}

impl From<StudyId> for String {
    fn from(study: StudyId) -> Self {
        study.0.into()
    }
}

impl fmt::Display for StudyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for StudyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StudyId({:?})", self.as_str())
    }
}

/// Whether it makes one name look like another: it turns the direction of writing, ends a line, or is a mark of
/// byte order.
fn is_deceptive(character: char) -> bool {
    matches!(
        character,
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn image_names_stay_in_their_folder() {
        for good in [
            "00000013_005.png",
            "a",
            "Röntgen 7.jpg",
            ".hidden",
            "a..b",
            "a/b.png",
            "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg",
        ] {
            assert_eq!(ImageName::new(good).unwrap().as_str(), good);
        }
        let (long, longer) = ("x".repeat(256), "x/".repeat(600) + "x");
        for bad in [
            "",
            "a\\b.png",
            "/etc/passwd",
            "//host/share",
            "C:\\x.png",
            "c:/x.png",
            "C:x.png",
            ".",
            "..",
            "../a.png",
            "a/../../b.png",
            "a/./b.png",
            "a//b.png",
            "a/",
            "a\nb",
            "a\0b",
            " a",
            "a ",
            "a/ b",
            "a\u{202e}gnp.b",
            "a\u{2028}b",
            &long,
            &longer,
        ] {
            assert!(ImageName::new(bad).is_err(), "{bad:?} was accepted");
        }
        let name = ImageName::new("a/b/c.png").unwrap();
        assert_eq!(name.file_name(), "c.png");
        let tails: Vec<String> = name.tails().map(String::from).collect();
        assert_eq!(tails, ["a/b/c.png", "b/c.png", "c.png"]);
        let ids = |name: &str| -> Vec<String> {
            let name = ImageName::new(name).unwrap();
            name.ids().map(String::from).collect()
        };
        assert_eq!(ids("a/1.2.7.png"), ["a/1.2.7", "1.2.7"]);
        for none in ["a/.png", "a/1.2.7", "png"] {
            assert_eq!(ids(none), Vec::<String>::new());
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_folder(text in "[a./\\\\:C ~\u{202e}\0]{0,12}|.{0,300}") {
            if let Ok(name) = ImageName::new(&text) {
                let path = std::path::Path::new(name.as_str());
                let is_normal = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.components().all(is_normal) && path.components().count() > 0);
                prop_assert_eq!(name.parts().collect::<Vec<_>>().join("/"), text);
            }
        }
    }

    #[test]
    fn the_patient_is_the_first_eight_digits_of_a_chest_x_ray14_name() {
        let patient = |name: &str| PatientId::from_chest_x_ray14(&ImageName::new(name).unwrap());
        assert_eq!(patient("00030805_000.png").unwrap().as_str(), "00030805");
        for bad in [
            "0003080_000.png",
            "000308055_000.png",
            "0003080a_000.png",
            "00030805.png",
        ] {
            assert!(patient(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn messages_about_hostile_text_stay_short_and_printable() {
        let message = ImageName::new(&"\u{1b}[2J/".repeat(100))
            .unwrap_err()
            .to_string();
        assert!(
            message.len() < 900 && !message.contains('\u{1b}'),
            "{message}"
        );
    }
}
