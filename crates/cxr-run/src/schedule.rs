//! The learning rate over the steps of a stage.

use serde::{Deserialize, Serialize};

use crate::RunError;

/// A learning rate as a function of how far a stage is.
///
/// With a `warmup` of W the rate rises evenly through the first W steps (or epochs), from
/// `learning_rate/(W + 1)` to what the schedule begins with: PyTorch's `LinearLR` with `start_factor`
/// 1/(W + 1). The schedule proper begins after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate at every step.
    Constant {
        /// The learning rate.
        #[serde(alias = "rate")]
        learning_rate: f64,
        /// Steps or epochs of warm-up.
        #[serde(default, skip_serializing_if = "is_zero")]
        warmup: usize,
        /// What the warm-up is counted in.
        #[serde(default = "Per::step", skip_serializing_if = "Per::is_step")]
        per: Per,
    },
    /// Half a cosine from `learning_rate` at the first step towards `min_learning_rate`, which the step after the last
    /// would reach: `m + ½(r − m)(1 + cos(πt/T))` of these two, for t = 0 … T−1 (Loshchilov & Hutter
    /// 2017, equation 5, without restarts; PyTorch's `CosineAnnealingLR`).
    Cosine {
        /// The learning rate at the first step.
        #[serde(alias = "rate")]
        learning_rate: f64,
        /// The learning rate that the cosine ends in.
        #[serde(alias = "floor")]
        min_learning_rate: f64,
        /// Steps or epochs of warm-up.
        #[serde(default, skip_serializing_if = "is_zero")]
        warmup: usize,
        /// Whether the rate changes with every step or with every epoch; what the warm-up is counted in.
        #[serde(default = "Per::step", skip_serializing_if = "Per::is_step")]
        per: Per,
    },
    /// The rate is multiplied by `factor` after every so many epochs (or steps): PyTorch's `StepLR`.
    Step {
        /// The learning rate at the first step.
        #[serde(alias = "rate")]
        learning_rate: f64,
        /// What it is multiplied by.
        factor: f64,
        /// After how many epochs or steps, at least 1.
        every: usize,
        /// Epochs or steps of warm-up.
        #[serde(default, skip_serializing_if = "is_zero")]
        warmup: usize,
        /// What `every` and the warm-up are counted in.
        #[serde(default = "Per::epoch", skip_serializing_if = "Per::is_epoch")]
        per: Per,
    },
}

/// What a schedule counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Optimiser steps.
    Step,
    /// Epochs: the rate is the same throughout an epoch.
    Epoch,
}

impl Per {
    fn step() -> Self {
        Self::Step
    }

    fn epoch() -> Self {
        Self::Epoch
    }

    fn is_step(&self) -> bool {
        *self == Self::Step
    }

    fn is_epoch(&self) -> bool {
        *self == Self::Epoch
    }
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageTime {
    /// The epoch within the stage, from 0.
    pub epoch: usize,
    /// The stage's epochs.
    pub epochs: usize,
    /// The step within the epoch, from 0.
    pub step: usize,
    /// Steps of an epoch.
    pub steps_per_epoch: usize,
}

impl StageTime {
    /// So many units have passed, of so many.
    fn count(self, per: Per) -> (usize, usize) {
        match per {
            Per::Step => (
                self.epoch * self.steps_per_epoch + self.step,
                self.epochs * self.steps_per_epoch,
            ),
            Per::Epoch => (self.epoch, self.epochs),
        }
    }
}

impl Schedule {
    /// The same rate at every step.
    pub fn constant(learning_rate: f64) -> Self {
        Self::Constant {
            learning_rate,
            warmup: 0,
            per: Per::Step,
        }
    }

    /// Half a cosine per step, without warm-up.
    pub fn cosine(learning_rate: f64, min_learning_rate: f64) -> Self {
        Self::Cosine {
            learning_rate,
            min_learning_rate,
            warmup: 0,
            per: Per::Step,
        }
    }

    /// The learning rate of a step.
    pub fn learning_rate(&self, time: StageTime) -> f64 {
        let (first, warmup, per) = self.beginning();
        let (passed, total) = time.count(per);
        if passed < warmup {
            return first * (passed + 1) as f64 / (warmup + 1) as f64;
        }
        let (passed, total) = (passed - warmup, total.saturating_sub(warmup));
        match *self {
            Self::Constant { learning_rate, .. } => learning_rate,
            Self::Cosine {
                learning_rate: first,
                min_learning_rate: last,
                ..
            } => {
                let share = passed as f64 / total.max(1) as f64;
                last + 0.5 * (first - last) * (1. + (std::f64::consts::PI * share).cos())
            }
            Self::Step {
                learning_rate,
                factor,
                every,
                ..
            } => learning_rate * factor.powf((passed / every.max(1)) as f64),
        }
    }

    fn beginning(&self) -> (f64, usize, Per) {
        match *self {
            Self::Constant {
                learning_rate,
                warmup,
                per,
            }
            | Self::Cosine {
                learning_rate,
                warmup,
                per,
                ..
            }
            | Self::Step {
                learning_rate,
                warmup,
                per,
                ..
            } => (learning_rate, warmup, per),
        }
    }

    pub(crate) fn check(&self, key: &str) -> Result<(), RunError> {
        let (rate, _, _) = self.beginning();
        if !(rate.is_finite() && rate > 0.) {
            return Err(RunError::setting(key, "a learning rate above 0", rate));
        }
        match *self {
            Self::Constant { .. } => {}
            Self::Cosine {
                min_learning_rate: last,
                ..
            } => {
                if !(0. ..=rate).contains(&last) {
                    let expected = format!("a minimum from 0 to the learning rate, {rate}");
                    return Err(RunError::setting(key, expected, last));
                }
            }
            Self::Step { factor, every, .. } => {
                if !(factor > 0. && factor <= 1.) {
                    let expected = "a factor above 0 and at most 1";
                    return Err(RunError::setting(key, expected, factor));
                }
                if every == 0 {
                    return Err(RunError::setting(key, "`every` of at least 1", every));
                }
            }
        }
        Ok(())
    }

    /// Whether the warm-up ends within a stage of so many epochs and steps per epoch; `key` names the warm-up in errors.
    ///
    /// # Errors
    /// [`RunError::Setting`] for one that does not.
    pub fn check_length(&self, key: &str, epochs: usize, steps: usize) -> Result<(), RunError> {
        let (_, warmup, per) = self.beginning();
        let whole = StageTime {
            epoch: 0,
            epochs,
            step: 0,
            steps_per_epoch: steps,
        };
        let (_, total) = whole.count(per);
        if warmup >= total {
            let unit = match per {
                Per::Step => "steps",
                Per::Epoch => "epochs",
            };
            let expected = format!("a warm-up shorter than the stage's {total} {unit}");
            return Err(RunError::setting(key, expected, warmup));
        }
        Ok(())
    }
}
