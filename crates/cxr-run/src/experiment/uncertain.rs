//! What a training makes of labels that the source calls uncertain.

use std::collections::BTreeMap;

use cxr_augment::KeyedRng;
use serde::{Deserialize, Serialize};

use crate::RunError;

/// What a loss makes of one label of an image whose source calls it uncertain (−1): the policies of CheXpert's paper
/// (Irvin et al., AAAI 2019), and soft targets (Pham et al., Neurocomputing 2021).
///
/// In an experiment file `"ignore"`, `"zeros"`, `"ones"`, `"multi-class"` or `{ soft = [0.55, 0.85] }`. Targets from a model
/// that was trained before (U-SelfTrained) are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum UncertaintyPolicy {
    /// The label has no part in the loss of the image.
    #[default]
    Ignore,
    /// It is taken for absent.
    Zeros,
    /// It is taken for present.
    Ones,
    /// It is a class of its own (U-MultiClass): the network has three outputs for the label, absent, present and uncertain,
    /// and softmax cross-entropy takes the place of the loss `bce`, which is that of the labels with other policies. The
    /// label's logit is that of presence less that of absence, so that its probability is one of these two alone.
    #[serde(rename = "multi-class")]
    MultiClass,
    /// In each epoch its target is a number between these two, drawn by (seed, epoch, image, label). The loss has to take
    /// soft targets.
    Soft([f64; 2]),
}

/// The target of an uncertain label that is a class of its own, beside 0 for absent and 1 for present ones.
pub const UNCERTAIN_CLASS: f32 = 2.;

impl UncertaintyPolicy {
    /// The target of the loss; `None` where the label has no part in it. [`UNCERTAIN_CLASS`] is the third class.
    pub fn target(self, seed: u64, epoch: u64, image: &str, label: &str) -> Option<f32> {
        match self {
            Self::Ignore => None,
            Self::Zeros => Some(0.),
            Self::Ones => Some(1.),
            Self::MultiClass => Some(UNCERTAIN_CLASS),
            Self::Soft([low, high]) => {
                // No image's name has a line end.
                let key = format!("{image}\n{label}");
                let draw = KeyedRng::new("uncertain", seed, epoch, &key).uniform(low, high);
                Some(draw as f32)
            }
        }
    }

    fn check(self, key: &str) -> Result<(), RunError> {
        match self {
            Self::Soft([low, high]) if !(0. ..=high).contains(&low) || high > 1. => {
                let expected = "two numbers from 0 to 1, the smaller one first";
                Err(RunError::setting(key, expected, format!("[{low}, {high}]")))
            }
            _ => Ok(()),
        }
    }
}

/// The policy of every label: `data.uncertain` of an experiment file.
///
/// ```toml
/// [data.uncertain]
/// default = "zeros"
/// labels = { Atelectasis = "ones", Edema = { soft = [0.55, 0.85] } }
/// ```
///
/// It is about training alone: metrics leave uncertain labels out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Uncertainty {
    /// That of labels which are not named.
    pub default: UncertaintyPolicy,
    /// That of labels by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, UncertaintyPolicy>,
}

impl Uncertainty {
    /// Whether it is the default, by which uncertain labels are left out.
    pub fn is_ignore(&self) -> bool {
        *self == Self::default()
    }

    /// The policy of a label.
    pub fn of(&self, label: &str) -> UncertaintyPolicy {
        self.labels.get(label).copied().unwrap_or(self.default)
    }

    /// Whether uncertain is a class of its own for some label.
    pub fn has_multi_class(&self) -> bool {
        let mut all = self.labels.values().chain([&self.default]);
        all.any(|policy| *policy == UncertaintyPolicy::MultiClass)
    }

    /// The policy of each of some labels, in their order.
    ///
    /// # Errors
    /// [`RunError::Setting`] for a label that is named and not among them.
    pub fn of_labels(&self, labels: &[String]) -> Result<Vec<UncertaintyPolicy>, RunError> {
        if let Some(stranger) = self.labels.keys().find(|name| !labels.contains(name)) {
            let expected = format!("labels of the data set, {}", labels.join(", "));
            return Err(RunError::setting(
                "data.uncertain.labels",
                expected,
                stranger,
            ));
        }
        Ok(labels.iter().map(|label| self.of(label)).collect())
    }

    /// Checks the numbers.
    pub(super) fn check(&self) -> Result<(), RunError> {
        self.default.check("data.uncertain.default")?;
        for (label, policy) in &self.labels {
            policy.check(&format!("data.uncertain.labels.{label}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_by_label() {
        let uncertain: Uncertainty = toml::from_str(
            "default = \"zeros\"\nlabels = { A = \"ones\", B = { soft = [0.55, 0.85] }, C = \"ignore\" }",
        )
        .unwrap();
        uncertain.check().unwrap();
        let labels = ["A", "B", "C", "D"].map(str::to_owned);
        let policies = uncertain.of_labels(&labels).unwrap();
        let target = |at: usize, epoch| policies[at].target(7, epoch, "a.png", &labels[at]);
        assert_eq!(
            [target(0, 0), target(2, 0), target(3, 0)],
            [Some(1.), None, Some(0.)]
        );
        let draws: Vec<f32> = (0..200).map(|epoch| target(1, epoch).unwrap()).collect();
        assert!(draws.iter().all(|draw| (0.55..0.85).contains(draw)));
        let mean = draws.iter().sum::<f32>() / 200.;
        // The mean of 200 draws of a uniform of width 0.3 has a standard deviation of 0.006.
        assert!((mean - 0.7).abs() < 0.03, "{mean}");
        assert_eq!(draws[3], target(1, 3).unwrap());
        let other = policies[1].target(7, 3, "b.png", "B").unwrap();
        assert_ne!(draws[3], other);
        let written = toml::to_string(&uncertain).unwrap();
        assert_eq!(toml::from_str::<Uncertainty>(&written).unwrap(), uncertain);

        let text = "labels = { A = \"multi-class\" }";
        let classes: Uncertainty = toml::from_str(text).unwrap();
        assert!(classes.has_multi_class() && !uncertain.has_multi_class());
        assert_eq!(classes.of("A").target(7, 0, "a.png", "A"), Some(2.));
        assert_eq!(classes.of("B"), UncertaintyPolicy::Ignore);
        assert!(toml::to_string(&classes).unwrap().contains("multi-class"));

        let error = uncertain.of_labels(&labels[..1]).unwrap_err().to_string();
        assert!(error.contains("data.uncertain.labels"), "{error}");
        for bad in [
            "{ soft = [0.9, 0.1] }",
            "{ soft = [-0.1, 0.5] }",
            "{ soft = [0.5, 1.5] }",
            "{ soft = [nan, 1.0] }",
        ] {
            let uncertain: Uncertainty = toml::from_str(&format!("default = {bad}")).unwrap();
            assert!(uncertain.check().is_err(), "{bad}");
        }
        assert!(toml::from_str::<Uncertainty>("default = \"twos\"").is_err());
    }
}
