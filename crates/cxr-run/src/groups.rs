//! Parameters that a stage trains otherwise than the rest, as an experiment names them.

use serde::{Deserialize, Serialize};

use crate::{RunError, Stage};

/// Parameters of a stage that are trained otherwise than the rest. The first group that a parameter's
/// name fits is its group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// A pattern for whole names, in which `*` stands for any characters: `features.*`, `*.bias`,
    /// `*.norm*.weight`. Parameters that belong to the loss are `loss.0` and so on.
    pub parameters: String,
    /// Times the stage's learning rate.
    #[serde(default = "one", alias = "rate_factor")]
    pub learning_rate_factor: f64,
    /// Instead of the optimiser's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// They are not trained. A normalisation whose parameters are frozen goes on using and gathering
    /// the statistics of batches, unless the whole backbone is frozen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

fn one() -> f64 {
    1.
}

impl ParameterGroup {
    /// Whether a parameter's name fits the pattern.
    pub fn fits(&self, name: &str) -> bool {
        fits(&self.parameters, name)
    }

    pub(crate) fn check(&self, key: &str) -> Result<(), RunError> {
        let factor = self.learning_rate_factor;
        if !(factor.is_finite() && factor > 0.) {
            let key = format!("{key}.learning_rate_factor");
            let expected = "above 0; `frozen = true` trains nothing";
            return Err(RunError::setting(&key, expected, factor));
        }
        if let Some(decay) = self.weight_decay
            && !(decay.is_finite() && decay >= 0.)
        {
            let key = format!("{key}.weight_decay");
            return Err(RunError::setting(&key, "at least 0", decay));
        }
        if self.frozen && (factor != 1. || self.weight_decay.is_some()) {
            let expected =
                "without a factor of the learning rate and a weight decay where it is frozen";
            return Err(RunError::setting(key, expected, &self.parameters));
        }
        Ok(())
    }
}

impl Stage {
    /// Whether parameters of this name are frozen by a prefix.
    pub fn freezes(&self, name: &str) -> bool {
        let mut prefixes = self.frozen.iter();
        prefixes.any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// The index of the group that a parameter of this name is in.
    pub fn group_of(&self, name: &str) -> Option<usize> {
        self.groups.iter().position(|group| group.fits(name))
    }
}

/// Whether `pattern`, in which `*` stands for any characters, fits the whole name.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(begin) else {
        return false;
    };
    let mut parts = rest.split('*');
    let Some(end) = parts.next_back() else {
        return true;
    };
    for part in parts {
        let Some(found) = name.find(part) else {
            return false;
        };
        name = &name[found + part.len()..];
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("features.*", "features.conv0.weight", true),
            ("features.*", "top.features.weight", false),
            ("*.bias", "top.dense1.bias", true),
            ("*.bias", "top.dense1.bias.weight", false),
            ("*.norm*.weight", "features.denseblock1.norm2.weight", true),
            ("*.norm*.weight", "features.norm.bias", false),
            ("*", "loss.0", true),
            ("loss.0", "loss.0", true),
            ("loss.0", "loss.01", false),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            // What the beginning took cannot be the end as well.
            ("ab*b", "ab", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
