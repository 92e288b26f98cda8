//! One image: whose it is, how it was taken, and what is known of each finding.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{ImageAttributes, ImageName, LabelState, Part, PatientId, StudyId};

/// One row of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The image.
    pub name: ImageName,
    /// Whose radiograph it is; `None` when a user's table has no patient column.
    pub patient: Option<PatientId>,
    /// Which examination it belongs to; `None` where the data set does not say.
    pub study: Option<StudyId>,
    /// The part that its data set's publisher puts it in.
    pub part: Option<Part>,
    /// One state for each label of the index's [`LabelSet`](crate::LabelSet), in its order.
    pub labels: Box<[LabelState]>,
    /// Age in completed years; ChestX-ray14's first release also has impossible ones such as 412.
    pub age_years: Option<u16>,
    /// Sex as recorded.
    pub sex: Option<Sex>,
    /// How the radiograph was taken.
    pub view: Option<ViewPosition>,
    /// The table's own word for a view that is [`ViewPosition::Other`].
    pub view_code: Option<Arc<str>>,
    /// Number of the patient's examination, from 0. It does not number the patient's files.
    pub follow_up: Option<u32>,
    /// Width and height in pixels before the publisher resized the image.
    pub original_size: Option<(u32, u32)>,
    /// Horizontal and vertical distance of two pixels of the original, in millimetres.
    pub original_spacing_mm: Option<(f64, f64)>,
}

impl Record {
    /// A record that knows its image and labels, and nothing else.
    pub fn new(name: ImageName, labels: impl Into<Box<[LabelState]>>) -> Self {
        Self {
            name,
            patient: None,
            study: None,
            part: None,
            labels: labels.into(),
            age_years: None,
            sex: None,
            view: None,
            view_code: None,
            follow_up: None,
            original_size: None,
            original_spacing_mm: None,
        }
    }

    /// Its age, sex and view.
    pub fn attributes(&self) -> ImageAttributes {
        ImageAttributes {
            age_years: self.age_years,
            sex: self.sex,
            view: self.view,
        }
    }

    /// Whether every label is known to be negative ("No Finding" in ChestX-ray14).
    pub fn has_no_finding(&self) -> bool {
        self.labels
            .iter()
            .all(|&state| state == LabelState::Negative)
    }
}

/// Sex as recorded in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sex {
    /// `F`
    Female,
    /// `M`
    Male,
}

impl Sex {
    /// What a cell says: `Ok(None)` where the sex is said to be unknown or another, as CheXpert and DICOM do, and
    /// `Err` for what is no sex.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, ()> {
        match text.to_ascii_lowercase().as_str() {
            "f" | "female" => Ok(Some(Self::Female)),
            "m" | "male" => Ok(Some(Self::Male)),
            "u" | "unknown" | "o" | "other" => Ok(None),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Sex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Female => "female",
            Self::Male => "male",
        })
    }
}

/// The direction in which the X-rays passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ViewPosition {
    /// Back to front, standing: the usual radiograph.
    #[serde(rename = "PA")]
    PosteroAnterior,
    /// Front to back, often of a patient who cannot stand.
    #[serde(rename = "AP")]
    AnteroPosterior,
    /// Front to back, of a patient who lies: PadChest's `AP_horizontal`.
    #[serde(rename = "AP_horizontal")]
    AnteroPosteriorSupine,
    /// One of these, and the source does not say which.
    #[serde(rename = "frontal")]
    Frontal,
    /// From the side.
    #[serde(rename = "lateral")]
    Lateral,
    /// Any other, such as an oblique or a swimmer's view; [`Record::view_code`] has the source's word for it.
    #[serde(rename = "other")]
    Other,
}

impl ViewPosition {
    /// Whether an image of this view is one of those that are asked for: `AP` are also those of patients who lie, and
    /// `frontal` all that are taken from the front or the back.
    pub fn is(self, wanted: Self) -> bool {
        let ap = [Self::AnteroPosterior, Self::AnteroPosteriorSupine];
        match wanted {
            Self::AnteroPosterior => ap.contains(&self),
            Self::Frontal => {
                matches!(self, Self::PosteroAnterior | Self::Frontal) || ap.contains(&self)
            }
            _ => self == wanted,
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "pa" | "posteroanterior" => Some(Self::PosteroAnterior),
            "ap" | "anteroposterior" => Some(Self::AnteroPosterior),
            "ap_horizontal" => Some(Self::AnteroPosteriorSupine),
            "frontal" => Some(Self::Frontal),
            "l" | "ll" | "rl" | "lateral" => Some(Self::Lateral),
            _ => None,
        }
    }
}

/// An age as tables and DICOM files write it: `61`, `61.0`, `061Y`, `013M`, `006W` or `001D`.
pub(crate) struct Age {
    /// Completed years.
    pub(crate) years: u16,
    /// Whether the unit is written behind the number.
    pub(crate) has_unit: bool,
}

impl Age {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, units_in_a_year) = match text.as_bytes().last()? {
            b'Y' | b'y' => (text.get(..text.len() - 1)?, Some(1)),
            b'M' | b'm' => (text.get(..text.len() - 1)?, Some(12)),
            b'W' | b'w' => (text.get(..text.len() - 1)?, Some(52)),
            b'D' | b'd' => (text.get(..text.len() - 1)?, Some(365)),
            _ => (text, None),
        };
        let units = cxr_table::whole_number(number.trim())?;
        Some(Self {
            years: u16::try_from(units / units_in_a_year.unwrap_or(1)).ok()?,
            has_unit: units_in_a_year.is_some(),
        })
    }
}

impl fmt::Display for ViewPosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::PosteroAnterior => "PA",
            Self::AnteroPosterior => "AP",
            Self::AnteroPosteriorSupine => "AP_horizontal",
            Self::Frontal => "frontal",
            Self::Other => "other",
            Self::Lateral => "lateral",
        })
    }
}
