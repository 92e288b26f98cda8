//! Which parameters a stage trains, and how each.

use candle_core::Var;
use cxr_ops::{Parameters, Role};
use cxr_run::{ParameterGroup, Stage};

use crate::TrainError;

/// A parameter that is trained, and how.
#[derive(Debug, Clone)]
pub struct Trained {
    /// Its full dotted name.
    pub name: String,
    /// Its values.
    pub var: Var,
    /// Times the learning rate.
    pub learning_rate_factor: f64,
    /// Instead of the optimiser's weight decay.
    pub weight_decay: Option<f64>,
}

impl Trained {
    /// A parameter trained at the learning rate and with the optimiser's decay.
    pub fn new(name: impl Into<String>, var: Var) -> Self {
        Self {
            name: name.into(),
            var,
            learning_rate_factor: 1.,
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
            let Some(group) = groups.iter().find(|group| group.fits(&trained.name)) else {
                return Some(trained);
            };
            (!group.frozen).then_some(Self {
                learning_rate_factor: group.learning_rate_factor,
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
    all.retain(|(name, _)| !stage.freezes(name));
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
        let left = |name: &&String| !stage.freezes(name);
        for (index, group) in stage.groups.iter().enumerate() {
            let is_first = |name: &String| stage.group_of(name) == Some(index);
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
