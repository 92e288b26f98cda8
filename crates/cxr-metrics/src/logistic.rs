//! Logistic regression of a target on one number.

use crate::scaling::{sigmoid, softplus};

/// Slope and intercept of least negative log-likelihood for targets in [0, 1], by Newton's method with step
/// halving (Lin, Lin & Weng 2007). The values must differ, and the likelihood have a maximum.
pub(crate) fn fit_line(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> [f64; 2] {
    let n = pairs.clone().count() as f64;
    // Standardised values keep the Hessian well conditioned whatever their unit.
    let centre = pairs.clone().map(|(x, _)| x).sum::<f64>() / n;
    let squares = pairs.clone().map(|(x, _)| (x - centre).powi(2));
    let spread = (squares.sum::<f64>() / n).sqrt();
    let share = pairs.clone().map(|(_, target)| target).sum::<f64>() / n;
    let standardised = || {
        let pairs = pairs.clone();
        pairs.map(|(x, target)| ((x - centre) / spread, target))
    };
    let loss = |[slope, intercept]: [f64; 2]| -> f64 {
        let of_pair =
            |(x, target)| softplus(slope * x + intercept) - target * (slope * x + intercept);
        standardised().map(of_pair).sum()
    };
    let mut at = [0.0, (share / (1.0 - share)).ln()];
    let mut loss_here = loss(at);
    for _ in 0..100 {
        let (mut gradient, mut hessian) = ([0.0; 2], [0.0; 3]);
        for (x, target) in standardised() {
            let p = sigmoid(at[0] * x + at[1]);
            let (error, curvature) = (p - target, p * (1.0 - p));
            gradient[0] += error * x;
            gradient[1] += error;
            hessian[0] += curvature * x * x;
            hessian[1] += curvature * x;
            hessian[2] += curvature;
        }
        let determinant = hessian[0] * hessian[2] - hessian[1] * hessian[1];
        let step = [
            (hessian[2] * gradient[0] - hessian[1] * gradient[1]) / determinant,
            (hessian[0] * gradient[1] - hessian[1] * gradient[0]) / determinant,
        ];
        let mut length = 1.0;
        let next = loop {
            let next = [at[0] - length * step[0], at[1] - length * step[1]];
            let loss_next = loss(next);
            if loss_next < loss_here {
                loss_here = loss_next;
                break Some(next);
            }
            length /= 2.0;
            if length < 1e-10 {
                break None; // no step improves: the minimum to rounding
            }
        };
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    let slope = at[0] / spread;
    [slope, at[1] - slope * centre]
}
