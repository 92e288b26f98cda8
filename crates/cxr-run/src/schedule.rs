//! The learning rate over the steps of a stage.

use serde::{Deserialize, Serialize};

use crate::RunError;

/// A learning rate as a function of how far a stage is.
///
/// With a `warmup` of W the rate rises evenly through the first W steps (or epochs), from
/// `rate/(W + 1)` to what the schedule begins with: PyTorch's `LinearLR` with `start_factor`
/// 1/(W + 1). The schedule proper begins after it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// The same rate at every step.
    Constant {
        /// The rate.
        rate: f64,
        /// Steps or epochs of warm-up.
        #[serde(default, skip_serializing_if = "is_zero")]
        warmup: usize,
        /// What the warm-up is counted in.
        #[serde(default = "Per::step", skip_serializing_if = "Per::is_step")]
        per: Per,
    },
    /// Half a cosine from `rate` at the first step towards `floor`, which the step after the last
    /// would reach: `floor + ½(rate − floor)(1 + cos(πt/T))` for t = 0 … T−1 (Loshchilov & Hutter
    /// 2017, equation 5, without restarts; PyTorch's `CosineAnnealingLR`).
    Cosine {
        /// The rate at the first step.
        rate: f64,
        /// The rate that the cosine ends in.
        floor: f64,
        /// Steps or epochs of warm-up.
        #[serde(default, skip_serializing_if = "is_zero")]
        warmup: usize,
        /// Whether the rate changes with every step or with every epoch; what the warm-up is counted in.
        #[serde(default = "Per::step", skip_serializing_if = "Per::is_step")]
        per: Per,
    },
    /// The rate is multiplied by `factor` after every so many epochs (or steps): PyTorch's `StepLR`.
    Step {
        /// The rate at the first step.
        rate: f64,
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
    pub steps: usize,
}

impl StageTime {
    /// So many units have passed, of so many.
    fn count(self, per: Per) -> (usize, usize) {
        match per {
            Per::Step => (
                self.epoch * self.steps + self.step,
                self.epochs * self.steps,
            ),
            Per::Epoch => (self.epoch, self.epochs),
        }
    }
}

impl Schedule {
    /// The same rate at every step.
    pub fn constant(rate: f64) -> Self {
        Self::Constant {
            rate,
            warmup: 0,
            per: Per::Step,
        }
    }

    /// Half a cosine per step, without warm-up.
    pub fn cosine(rate: f64, floor: f64) -> Self {
        Self::Cosine {
            rate,
            floor,
            warmup: 0,
            per: Per::Step,
        }
    }

    /// The rate of a step.
    pub fn rate(&self, time: StageTime) -> f64 {
        let (first, warmup, per) = self.beginning();
        let (passed, total) = time.count(per);
        if passed < warmup {
            return first * (passed + 1) as f64 / (warmup + 1) as f64;
        }
        let (passed, total) = (passed - warmup, total.saturating_sub(warmup));
        match *self {
            Self::Constant { rate, .. } => rate,
            Self::Cosine { rate, floor, .. } => {
                let share = passed as f64 / total.max(1) as f64;
                floor + 0.5 * (rate - floor) * (1. + (std::f64::consts::PI * share).cos())
            }
            Self::Step {
                rate,
                factor,
                every,
                ..
            } => rate * factor.powf((passed / every.max(1)) as f64),
        }
    }

    fn beginning(&self) -> (f64, usize, Per) {
        match *self {
            Self::Constant { rate, warmup, per }
            | Self::Cosine {
                rate, warmup, per, ..
            }
            | Self::Step {
                rate, warmup, per, ..
            } => (rate, warmup, per),
        }
    }

    pub(crate) fn check(&self, key: &str) -> Result<(), RunError> {
        let (rate, _, _) = self.beginning();
        if !(rate.is_finite() && rate > 0.) {
            return Err(RunError::setting(key, "a rate above 0", rate));
        }
        match *self {
            Self::Constant { .. } => {}
            Self::Cosine { floor, .. } => {
                if !(0. ..=rate).contains(&floor) {
                    let expected = format!("a floor from 0 to {rate}");
                    return Err(RunError::setting(key, expected, floor));
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

    /// Whether the warm-up ends within a stage of so many epochs and steps an epoch; `key` names the warm-up in errors.
    ///
    /// # Errors
    /// [`RunError::Setting`] for one that does not.
    pub fn check_length(&self, key: &str, epochs: usize, steps: usize) -> Result<(), RunError> {
        let (_, warmup, per) = self.beginning();
        let whole = StageTime {
            epoch: 0,
            epochs,
            step: 0,
            steps,
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
