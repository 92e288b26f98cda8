//! A weight for each label in a loss.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::RunError;

/// What each label weighs in a loss: `label_weights` of a variant.
///
/// ```toml
/// label_weights = { effective-number = 0.999 }
/// label_weights = { inverse-frequency = 1.0 }
/// label_weights = { given = { Hernia = 4.0, Pneumonia = 2.0 } }
/// ```
///
/// The first two are made of how many training images have each label; `cxr_losses::label_weights` has their formulas.
/// What a weight multiplies in each loss is said at `cxr_losses::LabelWeighted`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LabelWeights {
    /// The inverse of the effective number of a label's images (Cui et al., CVPR 2019), with this β in [0, 1); their mean
    /// over the labels is 1.
    EffectiveNumber(f64),
    /// The inverse frequency of a label to this power, at least 0; the rarest label has weight 1.
    InverseFrequency(f64),
    /// Those of labels by name, finite and at least 0; the others have weight 1.
    Given(BTreeMap<String, f64>),
}

impl LabelWeights {
    /// Checks the numbers; `key` names the setting in errors.
    pub(super) fn check(&self, key: &str) -> Result<(), RunError> {
        match self {
            Self::EffectiveNumber(beta) if !(0. ..1.).contains(beta) => {
                let key = format!("{key}.effective-number");
                Err(RunError::setting(&key, "at least 0 and below 1", beta))
            }
            Self::InverseFrequency(power) if !(power.is_finite() && *power >= 0.) => {
                let key = format!("{key}.inverse-frequency");
                Err(RunError::setting(&key, "finite and at least 0", power))
            }
            Self::Given(weights) => {
                let is_bad = |weight: &f64| !(weight.is_finite() && *weight >= 0.);
                match weights.iter().find(|(_, weight)| is_bad(weight)) {
                    Some((label, weight)) => {
                        let key = format!("{key}.given.{label}");
                        Err(RunError::setting(&key, "finite and at least 0", weight))
                    }
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// What to call it in a sentence, such as `effective number of images, β = 0.999`.
    pub fn words(&self) -> String {
        match self {
            Self::EffectiveNumber(beta) => format!("effective number of images, β = {beta}"),
            Self::InverseFrequency(power) => format!("inverse frequency to the power {power}"),
            Self::Given(weights) => {
                let pairs = weights
                    .iter()
                    .map(|(label, weight)| format!("{label} {weight}"));
                pairs.collect::<Vec<_>>().join(", ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        label_weights: LabelWeights,
    }

    #[test]
    fn each_kind_is_read_as_it_is_written() {
        for text in [
            "label_weights = { effective-number = 0.999 }",
            "label_weights = { inverse-frequency = 1.0 }",
            "label_weights = { given = { Hernia = 4.0 } }",
        ] {
            let read: Holder = toml::from_str(text).unwrap();
            read.label_weights.check("x").unwrap();
            let written = toml::to_string(&read).unwrap();
            assert_eq!(toml::from_str::<Holder>(&written).unwrap(), read, "{text}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (weights, key) in [
            (LabelWeights::EffectiveNumber(1.), "x.effective-number"),
            (LabelWeights::InverseFrequency(-1.), "x.inverse-frequency"),
            (
                LabelWeights::Given(BTreeMap::from([("Hernia".to_owned(), f64::NAN)])),
                "x.given.Hernia",
            ),
        ] {
            let error = weights.check("x").unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
