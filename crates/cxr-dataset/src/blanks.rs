//! What an empty cell of a label means.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{DatasetError, Index, LabelSet};

/// What an empty cell of a label means: [`LabelState::Blank`](crate::LabelState::Blank).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlankPolicy {
    /// Nothing is known of the finding: no loss and no metric counts it.
    #[default]
    Unknown,
    /// The finding is absent: a report that does not mention it is taken to say so, as most programs for CheXpert and
    /// MIMIC-CXR-JPG do. CheXpert's paper does not say what it does with empty cells.
    Negative,
}

impl FromStr for BlankPolicy {
    type Err = DatasetError;

    fn from_str(text: &str) -> Result<Self, DatasetError> {
        match text {
            "unknown" => Ok(Self::Unknown),
            "negative" => Ok(Self::Negative),
            _ => Err(DatasetError::LabelSet {
                problem: format!(
                    "an empty cell is `unknown` or `negative`, not `{}`",
                    cxr_table::excerpt(text)
                ),
            }),
        }
    }
}

/// What the empty cells of each label mean: `data.blank` of an experiment file.
///
/// ```toml
/// [data.blank]
/// default = "negative"
/// labels = { "Lung Lesion" = "unknown" }
/// ```
///
/// It is about empty cells alone. A label that a table does not have, and a study that no table of labels has, stay
/// unknown. It holds wherever labels are used: in the split, the loss and the metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Blanks {
    /// That of labels which are not named.
    pub default: BlankPolicy,
    /// That of labels by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, BlankPolicy>,
}

impl Blanks {
    /// Whether empty cells of all labels are unknown, as they are unless something else is asked for.
    pub fn are_unknown(&self) -> bool {
        let mut all = self.labels.values().chain([&self.default]);
        all.all(|policy| *policy == BlankPolicy::Unknown)
    }

    /// What an empty cell of this label means.
    pub fn of(&self, label: &str) -> BlankPolicy {
        self.labels.get(label).copied().unwrap_or(self.default)
    }

    /// The same without rules for labels that are not in the set.
    #[must_use]
    pub fn among(mut self, labels: &LabelSet) -> Self {
        self.labels
            .retain(|label, _| labels.index_of(label).is_some());
        self
    }
}

impl Index {
    /// The same labels with empty cells as `blanks` says; how many became negative is a warning of the index.
    ///
    /// ```
    /// use cxr_dataset::{BlankPolicy, Blanks, Index, LabelSet, LabelState, Record};
    ///
    /// let labels = LabelSet::new(vec!["Edema".to_owned(), "Mass".to_owned()])?;
    /// let states = [LabelState::Blank, LabelState::Unknown];
    /// let index = Index::new(labels, vec![Record::new("a.png".parse()?, states)])?;
    /// let blanks = Blanks { default: BlankPolicy::Negative, ..Blanks::default() };
    /// let index = index.with_blanks(&blanks)?;
    /// assert_eq!(index.records()[0].labels[..], [LabelState::Negative, LabelState::Unknown]);
    /// # Ok::<(), cxr_dataset::DatasetError>(())
    /// ```
    ///
    /// # Errors
    /// [`DatasetError::LabelSet`] for a rule of a label that the index does not have.
    pub fn with_blanks(self, blanks: &Blanks) -> Result<Self, DatasetError> {
        let names = self.label_set().names();
        if let Some(stranger) = blanks.labels.keys().find(|name| !names.contains(name)) {
            return Err(DatasetError::LabelSet {
                problem: format!(
                    "there is a rule for empty cells of `{}`, which is not among the labels: {}",
                    cxr_table::excerpt(stranger),
                    names.join(", ")
                ),
            });
        }
        let is_negative = names
            .iter()
            .map(|name| blanks.of(name) == BlankPolicy::Negative);
        let is_negative: Vec<bool> = is_negative.collect();
        Ok(self.with_negative_blanks(&is_negative))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelState, Record};

    #[test]
    fn empty_cells_alone_become_negative_and_only_where_it_is_asked_for() {
        use LabelState::{Blank, Negative, Positive, Uncertain, Unknown};
        let labels = ["A", "B", "C"].map(str::to_owned).to_vec();
        let records = [
            ("1.png", [Blank, Blank, Positive]),
            ("2.png", [Unknown, Uncertain, Blank]),
        ];
        let records = records.map(|(name, states)| Record::new(name.parse().unwrap(), states));
        let index = Index::new(LabelSet::new(labels).unwrap(), records.to_vec()).unwrap();
        let parse = |text: &str| toml::from_str::<Blanks>(text).unwrap();
        let of = |text: &str| {
            let index = index.clone().with_blanks(&parse(text)).unwrap();
            let states = index.records().iter().map(|record| record.labels.to_vec());
            (states.collect::<Vec<_>>(), index)
        };
        let (states, same) = of("");
        assert_eq!(
            states,
            [
                vec![Blank, Blank, Positive],
                vec![Unknown, Uncertain, Blank]
            ]
        );
        assert_eq!(same.warnings(), []);
        assert_eq!(same.fingerprint(), index.fingerprint());
        let (states, all) = of("default = \"negative\"");
        assert_eq!(
            states,
            [
                vec![Negative, Negative, Positive],
                vec![Unknown, Uncertain, Negative]
            ]
        );
        assert_eq!(all.warnings()[0].count, 3);
        assert_ne!(all.fingerprint(), index.fingerprint());
        let (states, _) = of("default = \"negative\"\nlabels = { B = \"unknown\" }");
        assert_eq!(states[0], [Negative, Blank, Positive]);
        let (states, _) = of("labels = { B = \"negative\" }");
        assert_eq!(states[0], [Blank, Negative, Positive]);

        let stranger = parse("labels = { D = \"negative\" }");
        let error = index.clone().with_blanks(&stranger).unwrap_err();
        assert!(error.to_string().contains("`D`"), "{error}");
        assert_eq!(stranger.among(index.label_set()), Blanks::default());
        assert!(toml::from_str::<Blanks>("default = \"zeros\"").is_err());
    }
}
