//! Which findings a data set names, and what is known of each on one image.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::DatasetError;

/// What is known of one finding on one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelState {
    /// The finding is absent.
    Negative,
    /// The finding is present.
    Positive,
    /// The source says that it is uncertain (−1): no metric counts it, and a loss as the experiment's policy says.
    Uncertain,
    /// Its cell is empty: a report that does not mention it, as a rule. No loss and no metric counts it, unless
    /// [`Blanks`](crate::Blanks) make it negative.
    Blank,
    /// Nothing is said of it (a label that the data set does not have, an image without labels): no loss and no metric
    /// counts it.
    Unknown,
}

impl LabelState {
    /// The target of a loss: 1 for a positive label, else 0. Meaningful where [`Self::is_known`].
    pub fn target(self) -> f32 {
        if self == Self::Positive { 1.0 } else { 0.0 }
    }

    /// Whether the label may be counted.
    pub fn is_known(self) -> bool {
        matches!(self, Self::Negative | Self::Positive)
    }

    /// Whether the source says something of the label.
    pub fn is_said(self) -> bool {
        !matches!(self, Self::Blank | Self::Unknown)
    }

    /// Its byte in a digest.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Negative => 0,
            Self::Positive => 1,
            // Early versions knew no difference.
            Self::Unknown | Self::Blank => 2,
            Self::Uncertain => 3,
        }
    }
}

/// The findings of a data set, in the order of every target, logit and column.
///
/// At least one name; names are distinct, non-empty, without spaces at their ends, and free of `|`, which joins names
/// in ChestX-ray14's table, and of control characters. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct LabelSet(Arc<[String]>);

impl LabelSet {
    /// The fourteen findings of NIH ChestX-ray14 in the order of the paper's Table 2.
    pub fn chest_x_ray14() -> Self {
        Self(CHEST_X_RAY14_LABELS.map(str::to_owned).into())
    }

    /// Checks and keeps `names` in their order.
    ///
    /// # Errors
    /// [`DatasetError::LabelSet`] for no name, a duplicate, or a name that cannot head a column.
    pub fn new(names: Vec<String>) -> Result<Self, DatasetError> {
        let refuse = |problem: String| Err(DatasetError::LabelSet { problem });
        if names.is_empty() {
            return refuse("expected at least one label, got none".to_owned());
        }
        let mut seen = HashSet::with_capacity(names.len());
        for (position, name) in names.iter().enumerate() {
            if name.trim().is_empty() || name.trim() != name {
                return refuse(format!(
                    "label {} is blank or padded with spaces",
                    position + 1
                ));
            }
            if name.contains('|') || name.chars().any(char::is_control) {
                let shown = cxr_table::excerpt(name);
                return refuse(format!("`{shown}` holds `|` or a control character"));
            }
            if !seen.insert(name) {
                let shown = cxr_table::excerpt(name);
                return refuse(format!("`{shown}` is named twice"));
            }
        }
        Ok(Self(names.into()))
    }

    /// The names in order.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// How many labels there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "a label set is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The position of the label that says that there is no finding: `No Finding` in any case, or `Normal`. The first
    /// of several.
    pub fn no_finding(&self) -> Option<usize> {
        (self.0.iter()).position(|name| {
            name.eq_ignore_ascii_case("no finding") || name.eq_ignore_ascii_case("normal")
        })
    }

    /// The position of `name`, or `None` when the set does not hold it.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|held| held == name)
    }
}

impl TryFrom<Vec<String>> for LabelSet {
    type Error = DatasetError;

    fn try_from(names: Vec<String>) -> Result<Self, DatasetError> {
        Self::new(names)
    }
}

impl From<LabelSet> for Vec<String> {
    fn from(labels: LabelSet) -> Self {
        labels.0.to_vec()
    }
}

impl fmt::Debug for LabelSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.iter()).finish()
    }
}

/// The findings of NIH ChestX-ray14, in the order of its papers' tables.
pub const CHEST_X_RAY14_LABELS: [&str; 14] = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourteen_are_a_valid_set() {
        let labels = LabelSet::chest_x_ray14();
        assert_eq!(labels.len(), 14);
        assert_eq!(LabelSet::new(labels.names().to_vec()).unwrap(), labels);
        assert_eq!(labels.index_of("Hernia"), Some(13));
        assert_eq!(labels.index_of("hernia"), None);
    }

    #[test]
    fn labels_are_free_text() {
        let names = [
            "Nodule/Mass",
            "../x",
            "Edema, acute",
            "\"quoted\"",
            "CON",
            "Ödem",
        ]
        .map(str::to_owned);
        assert_eq!(LabelSet::new(names.to_vec()).unwrap().names(), names);
    }

    #[test]
    fn ambiguous_sets_are_refused() {
        for bad in [
            vec![],
            vec![""],
            vec![" a"],
            vec!["a", "b", "a"],
            vec!["a|b"],
        ] {
            let names = bad.iter().map(|&name| name.to_owned()).collect();
            assert!(LabelSet::new(names).is_err(), "{bad:?} was accepted");
        }
    }
}
