//! AdamW.

use serde::{Deserialize, Serialize};

use super::config::{at_least_zero, below_one};
use crate::TrainError;

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
    pub(super) fn check(&self) -> Result<(), TrainError> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        at_least_zero("eps", self.eps)?;
        at_least_zero("weight_decay", self.weight_decay)
    }

    /// What step `step`, counted from 1, does at this rate and decay.
    pub(super) fn rule(&self, rate: f64, weight_decay: f64, step: u64) -> Rule {
        let step = step as f64;
        Rule {
            beta1: self.beta1 as f32,
            new_in_first: (1. - self.beta1) as f32,
            beta2: self.beta2 as f32,
            new_in_second: (1. - self.beta2) as f32,
            eps: self.eps as f32,
            keep: (1. - rate * weight_decay) as f32,
            rate: (rate / (1. - self.beta1.powf(step))) as f32,
            second_correction: (1. - self.beta2.powf(step)).sqrt().recip() as f32,
        }
    }
}

/// `w ← keep·w − rate·m / (√v·correction + ε)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) beta1: f32,
    pub(super) new_in_first: f32,
    pub(super) beta2: f32,
    pub(super) new_in_second: f32,
    pub(super) eps: f32,
    pub(super) keep: f32,
    pub(super) rate: f32,
    pub(super) second_correction: f32,
}

impl Rule {
    pub(super) fn apply(
        self,
        weights: &mut [f32],
        gradient: &[f32],
        scale: f32,
        first: &mut [f32],
        second: &mut [f32],
    ) {
        let values = weights.iter_mut().zip(gradient);
        for ((w, &g), (m, v)) in values.zip(first.iter_mut().zip(second)) {
            let g = scale * g;
            *m = self.beta1 * *m + self.new_in_first * g;
            *v = self.beta2 * *v + self.new_in_second * g * g;
            let root = v.sqrt() * self.second_correction + self.eps;
            *w = self.keep * *w - self.rate * *m / root;
        }
    }
}
