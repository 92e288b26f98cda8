//! Stochastic gradient descent.

use cxr_run::SgdConfig;

#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) momentum: f32,
    pub(super) nesterov: bool,
    pub(super) rate: f32,
    pub(super) weight_decay: f32,
}

impl Rule {
    pub(super) fn new(config: &SgdConfig, rate: f64, weight_decay: f64) -> Self {
        Self {
            momentum: config.momentum as f32,
            nesterov: config.nesterov,
            rate: rate as f32,
            weight_decay: weight_decay as f32,
        }
    }

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
