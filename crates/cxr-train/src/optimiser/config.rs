//! The choice of optimiser, as it stands in an experiment file.

use serde::{Deserialize, Serialize};

use super::{AdamWConfig, Rule, SgdConfig};
use crate::{TrainError, Trained};

/// Which optimiser, and its constants: the table `[training.optimiser]` of an experiment. `kind` is
/// `adamw`, which it is too when it is left out, or `sgd`; the other keys are the fields of
/// [`AdamWConfig`] or [`SgdConfig`].
///
/// ```
/// use cxr_train::{OptimiserConfig, SgdConfig};
///
/// let config: OptimiserConfig = toml::from_str("kind = 'sgd'\nmomentum = 0.8")?;
/// let expected = SgdConfig { momentum: 0.8, ..SgdConfig::default() };
/// assert_eq!(config, OptimiserConfig::Sgd(expected));
/// let error = toml::from_str::<OptimiserConfig>("kind = 'sgd'\nbeta1 = 0.8").unwrap_err();
/// assert!(error.to_string().contains("`sgd` has no `beta1`"));
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub enum OptimiserConfig {
    /// AdamW.
    AdamW(AdamWConfig),
    /// Stochastic gradient descent with momentum.
    Sgd(SgdConfig),
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

impl OptimiserConfig {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        match self {
            Self::AdamW(config) => config.check(),
            Self::Sgd(config) => config.check(),
        }
    }

    /// What is kept for each parameter.
    pub(super) fn state_names(&self) -> &'static [&'static str] {
        match self {
            Self::AdamW(_) => &["first", "second"],
            Self::Sgd(config) if config.momentum == 0. => &[],
            Self::Sgd(_) => &["momentum"],
        }
    }

    /// What step `step`, counted from 1, does to a parameter.
    pub(super) fn rule(&self, rate: f64, step: u64, parameter: &Trained) -> Rule {
        let rate = rate * parameter.rate_factor;
        let (weight_decay, decay_vectors) = match self {
            Self::AdamW(config) => (config.weight_decay, config.decay_vectors),
            Self::Sgd(config) => (config.weight_decay, config.decay_vectors),
        };
        let decays = decay_vectors || parameter.var.rank() > 1;
        let usual = if decays { weight_decay } else { 0. };
        let weight_decay = parameter.weight_decay.unwrap_or(usual);
        match self {
            Self::AdamW(config) => Rule::AdamW(config.rule(rate, weight_decay, step)),
            Self::Sgd(config) => Rule::Sgd(config.rule(rate, weight_decay)),
        }
    }
}

/// The keys of all optimisers. Which of them are allowed depends on the kind.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Left out for AdamW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beta1: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    beta2: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    eps: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    momentum: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nesterov: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_decay: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decay_vectors: Option<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    AdamW,
    Sgd,
}

impl TryFrom<Table> for OptimiserConfig {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let kind = table.kind.unwrap_or(Kind::AdamW);
        let of_adamw = [
            ("beta1", table.beta1.is_some()),
            ("beta2", table.beta2.is_some()),
            ("eps", table.eps.is_some()),
        ];
        let of_sgd = [
            ("momentum", table.momentum.is_some()),
            ("nesterov", table.nesterov.is_some()),
        ];
        let (name, foreign) = match kind {
            Kind::AdamW => ("adamw", of_sgd.as_slice()),
            Kind::Sgd => ("sgd", of_adamw.as_slice()),
        };
        if let Some((key, _)) = foreign.iter().find(|(_, is_given)| *is_given) {
            return Err(format!("the optimiser `{name}` has no `{key}`"));
        }
        Ok(match kind {
            Kind::AdamW => {
                let default = AdamWConfig::default();
                Self::AdamW(AdamWConfig {
                    beta1: table.beta1.unwrap_or(default.beta1),
                    beta2: table.beta2.unwrap_or(default.beta2),
                    eps: table.eps.unwrap_or(default.eps),
                    weight_decay: table.weight_decay.unwrap_or(default.weight_decay),
                    decay_vectors: table.decay_vectors.unwrap_or(default.decay_vectors),
                })
            }
            Kind::Sgd => {
                let default = SgdConfig::default();
                Self::Sgd(SgdConfig {
                    momentum: table.momentum.unwrap_or(default.momentum),
                    nesterov: table.nesterov.unwrap_or(default.nesterov),
                    weight_decay: table.weight_decay.unwrap_or(default.weight_decay),
                    decay_vectors: table.decay_vectors.unwrap_or(default.decay_vectors),
                })
            }
        })
    }
}

impl From<OptimiserConfig> for Table {
    fn from(config: OptimiserConfig) -> Self {
        match config {
            OptimiserConfig::AdamW(config) => Self {
                beta1: Some(config.beta1),
                beta2: Some(config.beta2),
                eps: Some(config.eps),
                weight_decay: Some(config.weight_decay),
                decay_vectors: Some(config.decay_vectors),
                ..Self::default()
            },
            OptimiserConfig::Sgd(config) => Self {
                kind: Some(Kind::Sgd),
                momentum: Some(config.momentum),
                nesterov: Some(config.nesterov),
                weight_decay: Some(config.weight_decay),
                decay_vectors: Some(config.decay_vectors),
                ..Self::default()
            },
        }
    }
}

pub(super) fn below_one(key: &str, value: f64) -> Result<(), TrainError> {
    // What rounds to 1 in single precision would never take anything new in.
    if (0. ..1.).contains(&value) && (value as f32) < 1. {
        return Ok(());
    }
    let key = format!("training.optimiser.{key}");
    Err(TrainError::setting(
        &key,
        "in [0, 1), in single precision too",
        value,
    ))
}

pub(super) fn at_least_zero(key: &str, value: f64) -> Result<(), TrainError> {
    if value.is_finite() && value >= 0. {
        return Ok(());
    }
    let key = format!("training.optimiser.{key}");
    Err(TrainError::setting(&key, "at least 0", value))
}
