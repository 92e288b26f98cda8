//! Which parameters a stage trains, and how each.

use candle_core::Var;
use cxr_ops::{Parameters, Role};
use serde::{Deserialize, Serialize};

use crate::{Stage, TrainError};

/// Parameters of a stage that are trained otherwise than the rest. The first group that a parameter's
/// name fits is its group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// A pattern for whole names, in which `*` stands for any characters: `features.*`, `*.bias`,
    /// `*.norm*.weight`. Parameters that belong to the loss are `loss.0` and so on.
    pub parameters: String,
    /// Times the stage's learning rate.
    #[serde(default = "one")]
    pub rate_factor: f64,
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
    pub(crate) fn check(&self, key: &str) -> Result<(), TrainError> {
        let factor = self.rate_factor;
        if !(factor.is_finite() && factor > 0.) {
            let key = format!("{key}.rate_factor");
            let expected = "above 0; `frozen = true` trains nothing";
            return Err(TrainError::setting(&key, expected, factor));
        }
        if let Some(decay) = self.weight_decay
            && !(decay.is_finite() && decay >= 0.)
        {
            let key = format!("{key}.weight_decay");
            return Err(TrainError::setting(&key, "at least 0", decay));
        }
        if self.frozen && (factor != 1. || self.weight_decay.is_some()) {
            let expected = "without rate and decay where it is frozen";
            return Err(TrainError::setting(key, expected, &self.parameters));
        }
        Ok(())
    }
}

/// A parameter that is trained, and how.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Its full dotted name.
    pub name: String,
    /// Its values.
    pub var: Var,
    /// Times the learning rate.
    pub rate_factor: f64,
    /// Instead of the optimiser's weight decay.
    pub weight_decay: Option<f64>,
}

impl Trained {
    /// A parameter trained at the learning rate and with the optimiser's decay.
    pub fn new(name: impl Into<String>, var: Var) -> Self {
        Self {
            name: name.into(),
            var,
            rate_factor: 1.,
            weight_decay: None,
        }
    }

    /// Parameters of a network, all trained alike.
    pub fn all(parameters: Vec<(String, Var)>) -> Vec<Self> {
        let each = parameters.into_iter();
        each.map(|(name, var)| Self::new(name, var)).collect()
    }

    /// Parameters of a network as `groups` say; those of a frozen group are left out.
    pub fn in_groups(parameters: Vec<(String, Var)>, groups: &[ParameterGroup]) -> Vec<Self> {
        let each = parameters.into_iter();
        each.filter_map(|(name, var)| {
            let trained = Self::new(name, var);
            let Some(group) = group_of(groups, &trained.name).map(|index| &groups[index]) else {
                return Some(trained);
            };
            (!group.frozen).then_some(Self {
                rate_factor: group.rate_factor,
                weight_decay: group.weight_decay,
                ..trained
            })
        })
        .collect()
    }
}

/// What a stage trains: the network's parameters in name order, then the loss's own.
pub(crate) fn trained(
    stage: &Stage,
    parameters: &Parameters,
    of_loss: &[(String, Var)],
) -> Vec<Trained> {
    let mut all = parameters.select(Role::Trainable, "");
    all.extend(of_loss.iter().cloned());
    all.retain(|(name, _)| !begins_frozen(stage, name));
    Trained::in_groups(all, &stage.groups)
}

/// A frozen prefix or a group that fits nothing is a misspelling; a stage that trains nothing of the
/// network a mistake.
pub(crate) fn check(
    stages: &[Stage],
    parameters: &Parameters,
    of_loss: &[(String, Var)],
) -> Result<(), TrainError> {
    let all: Vec<String> = (parameters.select(Role::Trainable, "").into_iter())
        .chain(of_loss.iter().cloned())
        .map(|(name, _)| name)
        .collect();
    let fixed = parameters.select(Role::Fixed, "");
    let frozen_or_not = || all.iter().chain(fixed.iter().map(|(name, _)| name));
    for (index, stage) in stages.iter().enumerate() {
        let key = format!("training.stages[{index}]");
        for prefix in &stage.frozen {
            if !frozen_or_not().any(|name| name.starts_with(prefix.as_str())) {
                let (key, found) = (format!("{key}.frozen"), format!("`{prefix}`"));
                let expected = "the beginning of a parameter's name, such as `features.`";
                return Err(TrainError::setting(&key, expected, found));
            }
        }
        let left = |name: &&String| !begins_frozen(stage, name);
        for (index, group) in stage.groups.iter().enumerate() {
            let is_first = |name: &String| group_of(&stage.groups, name) == Some(index);
            if !all.iter().filter(left).any(is_first) {
                let key = format!("{key}.groups[{index}].parameters");
                let expected = "a pattern that fits a trained parameter which no earlier group fits, such as `features.*`";
                let found = format!("`{}`", group.parameters);
                return Err(TrainError::setting(&key, expected, found));
            }
        }
        let network = trained(stage, parameters, &[]);
        if network.is_empty() {
            let expected = "such that something is trained";
            let key = format!("{key}.frozen");
            return Err(TrainError::setting(&key, expected, "all frozen"));
        }
    }
    Ok(())
}

/// What the names of a backbone's parameters begin with.
pub(crate) const BACKBONE: &str = "features.";

/// A backbone that gives no gradients, `why`, has to be frozen in every stage.
pub(crate) fn check_backbone_is_frozen(stages: &[Stage], why: &str) -> Result<(), TrainError> {
    for (index, stage) in stages.iter().enumerate() {
        if !begins_frozen(stage, BACKBONE) {
            let key = format!("training.stages[{index}].frozen");
            let expected = format!("such that it has `{BACKBONE}`: {why}");
            let found = format!("{:?}", stage.frozen);
            return Err(TrainError::setting(&key, expected, found));
        }
    }
    Ok(())
}

fn begins_frozen(stage: &Stage, name: &str) -> bool {
    let mut prefixes = stage.frozen.iter();
    prefixes.any(|prefix| name.starts_with(prefix.as_str()))
}

fn group_of(groups: &[ParameterGroup], name: &str) -> Option<usize> {
    groups
        .iter()
        .position(|group| fits(&group.parameters, name))
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
