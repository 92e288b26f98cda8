//! AdamW, and Adam, whose decay is part of the gradient.

use cxr_run::AdamWConfig;

/// `w ← keep·w − rate·m / (√v·correction + ε)`, with `in_gradient·w` added to the gradient.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) beta1: f32,
    pub(super) new_in_first: f32,
    pub(super) beta2: f32,
    pub(super) new_in_second: f32,
    pub(super) eps: f32,
    pub(super) keep: f32,
    pub(super) in_gradient: f32,
    pub(super) is_coupled: bool,
    pub(super) rate: f32,
    pub(super) second_correction: f32,
}

impl Rule {
    /// What step `step`, counted from 1, does at this rate and decay.
    pub(super) fn new(config: &AdamWConfig, rate: f64, weight_decay: f64, step: u64) -> Self {
        let step = step as f64;
        Self {
            beta1: config.beta1 as f32,
            new_in_first: (1. - config.beta1) as f32,
            beta2: config.beta2 as f32,
            new_in_second: (1. - config.beta2) as f32,
            eps: config.eps as f32,
            keep: (1. - rate * weight_decay) as f32,
            in_gradient: 0.,
            is_coupled: false,
            rate: (rate / (1. - config.beta1.powf(step))) as f32,
            second_correction: (1. - config.beta2.powf(step)).sqrt().recip() as f32,
        }
    }

    /// What step `step` of Adam does.
    pub(super) fn coupled(config: &AdamWConfig, rate: f64, weight_decay: f64, step: u64) -> Self {
        Self {
            in_gradient: weight_decay as f32,
            is_coupled: true,
            ..Self::new(config, rate, 0., step)
        }
    }

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
            let mut g = scale * g;
            if self.is_coupled {
                g += self.in_gradient * *w;
            }
            *m = self.beta1 * *m + self.new_in_first * g;
            *v = self.beta2 * *v + self.new_in_second * g * g;
            let root = v.sqrt() * self.second_correction + self.eps;
            *w = self.keep * *w - self.rate * *m / root;
        }
    }
}
