//! Stochastic gradient descent.

use serde::{Deserialize, Serialize};

use super::config::{at_least_zero, below_one};
use crate::TrainError;

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
    pub(super) fn check(&self) -> Result<(), TrainError> {
        below_one("momentum", self.momentum)?;
        at_least_zero("weight_decay", self.weight_decay)?;
        if self.nesterov && self.momentum == 0. {
            let key = "training.optimiser.nesterov";
            let expected = "false where the momentum is 0";
            return Err(TrainError::setting(key, expected, self.nesterov));
        }
        Ok(())
    }

    pub(super) fn rule(&self, rate: f64, weight_decay: f64) -> Rule {
        Rule {
            momentum: self.momentum as f32,
            nesterov: self.nesterov,
            rate: rate as f32,
            weight_decay: weight_decay as f32,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) momentum: f32,
    pub(super) nesterov: bool,
    pub(super) rate: f32,
    pub(super) weight_decay: f32,
}

impl Rule {
    pub(super) fn apply(self, weights: &mut [f32], gradient: &[f32], scale: f32) {
        for (w, &g) in weights.iter_mut().zip(gradient) {
            *w -= self.rate * (scale * g + self.weight_decay * *w);
        }
    }

    pub(super) fn apply_with_momentum(
        self,
        weights: &mut [f32],
        gradient: &[f32],
        scale: f32,
        momentum: &mut [f32],
    ) {
        for ((w, &g), b) in weights.iter_mut().zip(gradient).zip(momentum) {
            let g = scale * g + self.weight_decay * *w;
            *b = self.momentum * *b + g;
            let direction = if self.nesterov {
                g + self.momentum * *b
            } else {
                *b
            };
            *w -= self.rate * direction;
        }
    }
}
