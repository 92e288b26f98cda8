//! RMSprop.

use cxr_run::RmsPropConfig;

/// `v ← alpha·v + new_in_square·g²`, `b ← momentum·b + g / (√v + ε)`, `w ← w − rate·b`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) alpha: f32,
    pub(super) new_in_square: f32,
    pub(super) eps: f32,
    pub(super) momentum: f32,
    pub(super) rate: f32,
    pub(super) weight_decay: f32,
}

impl Rule {
    pub(super) fn new(config: &RmsPropConfig, rate: f64, weight_decay: f64) -> Self {
        Self {
            alpha: config.alpha as f32,
            new_in_square: (1. - config.alpha) as f32,
            eps: config.eps as f32,
            momentum: config.momentum as f32,
            rate: rate as f32,
            weight_decay: weight_decay as f32,
        }
    }

    pub(super) fn apply(
        self,
        weights: &mut [f32],
        gradient: &[f32],
        scale: f32,
        square: &mut [f32],
    ) {
        let values = weights.iter_mut().zip(gradient);
        for ((w, &g), v) in values.zip(square) {
            *w -= self.rate * self.step(*w, scale * g, v);
        }
    }

    pub(super) fn apply_with_momentum(
        self,
        weights: &mut [f32],
        gradient: &[f32],
        scale: f32,
        square: &mut [f32],
        momentum: &mut [f32],
    ) {
        let values = weights.iter_mut().zip(gradient);
        for ((w, &g), (v, b)) in values.zip(square.iter_mut().zip(momentum)) {
            *b = self.momentum * *b + self.step(*w, scale * g, v);
            *w -= self.rate * *b;
        }
    }

    /// The gradient over the root of its mean square, which takes it in.
    fn step(self, w: f32, g: f32, v: &mut f32) -> f32 {
        let g = g + self.weight_decay * w;
        *v = self.alpha * *v + self.new_in_square * g * g;
        g / (v.sqrt() + self.eps)
    }
}
