//! The choice of optimiser, as an experiment makes it.

use serde::{Deserialize, Serialize};

use crate::RunError;

/// Which optimiser, and its constants: the table `[training.optimiser]` of an experiment. `kind` is
/// `adamw`, which it is too when it is left out, `adam`, `rmsprop` or `sgd`; the other keys are the fields of
/// [`AdamWConfig`], [`RmsPropConfig`] or [`SgdConfig`].
///
/// ```
/// use cxr_run::{OptimiserConfig, SgdConfig};
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
    /// Adam (Kingma & Ba 2015, algorithm 1) as PyTorch defines it: AdamW's step, but for the decay, which is part of the
    /// gradient, `g + weight_decay·w`, and so is divided by the second moment too. Its defaults are [`AdamWConfig::adam`].
    Adam(AdamWConfig),
    /// RMSprop.
    RmsProp(RmsPropConfig),
    /// Stochastic gradient descent with momentum.
    Sgd(SgdConfig),
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

impl OptimiserConfig {
    pub(crate) fn check(&self) -> Result<(), RunError> {
        match self {
            Self::AdamW(config) | Self::Adam(config) => config.check(),
            Self::RmsProp(config) => config.check(),
            Self::Sgd(config) => config.check(),
        }
    }

    /// The decay of the weights, and whether biases and normalisation weights decay too.
    pub fn weight_decay(&self) -> (f64, bool) {
        match self {
            Self::AdamW(config) | Self::Adam(config) => (config.weight_decay, config.decay_vectors),
            Self::RmsProp(config) => (config.weight_decay, config.decay_vectors),
            Self::Sgd(config) => (config.weight_decay, config.decay_vectors),
        }
    }
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2): with g the gradient,
/// `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
/// `w ← (1 − rate·weight_decay)·w − rate · (m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)` at step t from 1.
///
/// The defaults are the paper's, and PyTorch's where the paper is silent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Decay of the first moment, β₁.
    pub beta1: f64,
    /// Decay of the second moment, β₂.
    pub beta2: f64,
    /// ε, added to the root of the second moment.
    pub eps: f64,
    /// Share of a weight, times the learning rate, that each step takes away.
    pub weight_decay: f64,
    /// Whether biases and normalisation weights decay too, as in Keras.
    pub decay_vectors: bool,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 4e-3,
            decay_vectors: true,
        }
    }
}

impl AdamWConfig {
    /// The defaults of [`OptimiserConfig::Adam`]: no decay, as in PyTorch and Keras.
    pub fn adam() -> Self {
        Self {
            weight_decay: 0.,
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), RunError> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        at_least_zero("eps", self.eps)?;
        at_least_zero("weight_decay", self.weight_decay)
    }
}

/// RMSprop (Tieleman & Hinton 2012) as PyTorch defines it: with g the gradient plus `weight_decay·w`,
/// `v ← αv + (1−α)g²`, `b ← momentum·b + g / (√v + ε)`, `w ← w − rate·b`; v and b start at 0, and without momentum b is the
/// last summand alone. Keras has α = 0.9 and ε = 1e-7, PyTorch the defaults here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RmsPropConfig {
    /// Decay of the mean of squares, α, in [0, 1).
    pub alpha: f64,
    /// ε, added to the root of the mean of squares.
    pub eps: f64,
    /// Share of the last step's direction that is kept, in [0, 1); 0 keeps no state.
    pub momentum: f64,
    /// This times the weight is added to its gradient.
    pub weight_decay: f64,
    /// Whether biases and normalisation weights decay too.
    pub decay_vectors: bool,
}

impl Default for RmsPropConfig {
    fn default() -> Self {
        Self {
            alpha: 0.99,
            eps: 1e-8,
            momentum: 0.,
            weight_decay: 0.,
            decay_vectors: true,
        }
    }
}

impl RmsPropConfig {
    fn check(&self) -> Result<(), RunError> {
        below_one("alpha", self.alpha)?;
        at_least_zero("eps", self.eps)?;
        below_one("momentum", self.momentum)?;
        at_least_zero("weight_decay", self.weight_decay)
    }
}

/// Stochastic gradient descent with momentum, as PyTorch defines it: with g the gradient plus
/// `weight_decay·w`, `b ← momentum·b + g`, then `w ← w − rate·b`, or with Nesterov's momentum
/// `w ← w − rate·(g + momentum·b)`; b starts at 0. The decay is part of the gradient, unlike AdamW's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// Share of the last step's direction that is kept, in [0, 1); 0 keeps no state.
    pub momentum: f64,
    /// Looks ahead along the momentum (Sutskever et al. 2013).
    pub nesterov: bool,
    /// This times the weight is added to its gradient.
    pub weight_decay: f64,
    /// Whether biases and normalisation weights decay too.
    pub decay_vectors: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.,
            decay_vectors: true,
        }
    }
}

impl SgdConfig {
    fn check(&self) -> Result<(), RunError> {
        below_one("momentum", self.momentum)?;
        at_least_zero("weight_decay", self.weight_decay)?;
        if self.nesterov && self.momentum == 0. {
            let key = "training.optimiser.nesterov";
            let expected = "false where the momentum is 0";
            return Err(RunError::setting(key, expected, self.nesterov));
        }
        Ok(())
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
    alpha: Option<f64>,
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

impl Table {
    /// The constants of AdamW or Adam, these where they are not given.
    fn moments(&self, default: AdamWConfig) -> AdamWConfig {
        AdamWConfig {
            beta1: self.beta1.unwrap_or(default.beta1),
            beta2: self.beta2.unwrap_or(default.beta2),
            eps: self.eps.unwrap_or(default.eps),
            weight_decay: self.weight_decay.unwrap_or(default.weight_decay),
            decay_vectors: self.decay_vectors.unwrap_or(default.decay_vectors),
        }
    }

    fn of_moments(kind: Option<Kind>, config: &AdamWConfig) -> Self {
        Self {
            kind,
            beta1: Some(config.beta1),
            beta2: Some(config.beta2),
            eps: Some(config.eps),
            weight_decay: Some(config.weight_decay),
            decay_vectors: Some(config.decay_vectors),
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    AdamW,
    Adam,
    RmsProp,
    Sgd,
}

impl Kind {
    /// Its name, and the keys that it has beside the decay.
    fn keys(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::AdamW => ("adamw", &["beta1", "beta2", "eps"]),
            Self::Adam => ("adam", &["beta1", "beta2", "eps"]),
            Self::RmsProp => ("rmsprop", &["alpha", "eps", "momentum"]),
            Self::Sgd => ("sgd", &["momentum", "nesterov"]),
        }
    }
}

impl TryFrom<Table> for OptimiserConfig {
    type Error = String;

    fn try_from(table: Table) -> Result<Self, String> {
        let kind = table.kind.unwrap_or(Kind::AdamW);
        let given = [
            ("beta1", table.beta1.is_some()),
            ("beta2", table.beta2.is_some()),
            ("alpha", table.alpha.is_some()),
            ("eps", table.eps.is_some()),
            ("momentum", table.momentum.is_some()),
            ("nesterov", table.nesterov.is_some()),
        ];
        let (name, keys) = kind.keys();
        let is_foreign = |&&(key, is_given): &&(&str, bool)| is_given && !keys.contains(&key);
        if let Some((key, _)) = given.iter().find(is_foreign) {
            return Err(format!("the optimiser `{name}` has no `{key}`"));
        }
        Ok(match kind {
            Kind::AdamW => Self::AdamW(table.moments(AdamWConfig::default())),
            Kind::Adam => Self::Adam(table.moments(AdamWConfig::adam())),
            Kind::RmsProp => {
                let default = RmsPropConfig::default();
                Self::RmsProp(RmsPropConfig {
                    alpha: table.alpha.unwrap_or(default.alpha),
                    eps: table.eps.unwrap_or(default.eps),
                    momentum: table.momentum.unwrap_or(default.momentum),
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
            OptimiserConfig::AdamW(config) => Self::of_moments(None, &config),
            OptimiserConfig::Adam(config) => Self::of_moments(Some(Kind::Adam), &config),
            OptimiserConfig::RmsProp(config) => Self {
                kind: Some(Kind::RmsProp),
                alpha: Some(config.alpha),
                eps: Some(config.eps),
                momentum: Some(config.momentum),
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

fn below_one(key: &str, value: f64) -> Result<(), RunError> {
    // What rounds to 1 in single precision would never take anything new in.
    if (0. ..1.).contains(&value) && (value as f32) < 1. {
        return Ok(());
    }
    let key = format!("training.optimiser.{key}");
    Err(RunError::setting(
        &key,
        "in [0, 1), in single precision too",
        value,
    ))
}

fn at_least_zero(key: &str, value: f64) -> Result<(), RunError> {
    if value.is_finite() && value >= 0. {
        return Ok(());
    }
    let key = format!("training.optimiser.{key}");
    Err(RunError::setting(&key, "at least 0", value))
}
