//! Calibration maps: fitted on one set of images, applied to another.

use crate::scored::Scored;

/// Divides logits by one number (Guo et al. 2017), which never changes a ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TemperatureScaling {
    /// The temperature, above 0; above 1 it softens overconfident logits.
    pub temperature: f64,
}

impl TemperatureScaling {
    /// The temperature of least negative log-likelihood on `logits`.
    ///
    /// `None` where there is none: the sign of the logits already separates the classes (the
    /// likelihood grows as the temperature goes to 0), or the logits do not point to the truth
    /// (it grows as the temperature goes to ∞).
    pub fn fit(logits: Scored<'_>) -> Option<Self> {
        let pairs = || logits.scores().iter().zip(logits.labels().iter().copied());
        // The likelihood is concave in the slope 1/T; `gain` is its derivative, which falls.
        let gain = |slope: f64| -> f64 {
            pairs()
                .map(|(x, label)| x * (f64::from(u8::from(label)) - sigmoid(slope * x)))
                .sum()
        };
        let separated = pairs().all(|(x, label)| if label { x >= 0.0 } else { x <= 0.0 });
        if separated || gain(0.0) <= 0.0 {
            return None;
        }
        let mut upper = 1.0;
        while gain(upper) > 0.0 {
            upper *= 2.0;
            if upper > 1e30 {
                return None;
            }
        }
        let mut lower = 0.0;
        // Halving until the two ends are neighbours: as exact as f64, and nothing to tune.
        loop {
            let slope = (lower + upper) / 2.0;
            if slope <= lower || slope >= upper {
                return Some(Self {
                    temperature: 1.0 / slope,
                });
            }
            *(if gain(slope) > 0.0 {
                &mut lower
            } else {
                &mut upper
            }) = slope;
        }
    }

    /// The calibrated probability of a logit.
    pub fn apply(&self, logit: impl Into<f64>) -> f64 {
        sigmoid(logit.into() / self.temperature)
    }
}

/// A line through scores, then a sigmoid: Platt (1999).
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PlattScaling {
    /// What a score is multiplied by.
    pub slope: f64,
    /// What is added.
    pub intercept: f64,
}

impl PlattScaling {
    /// Logistic regression of the truth on any finite scores, with Platt's softened targets
    /// (m+1)/(m+2) for the m positives and 1/(n+2) for the n negatives, which keep the fit finite
    /// when the classes are separated. Newton's method with step halving (Lin, Lin & Weng 2007).
    ///
    /// `None` when either class is absent.
    pub fn fit(scores: Scored<'_>) -> Option<Self> {
        let (positives, negatives) = (scores.positives() as f64, scores.negatives() as f64);
        if positives == 0.0 || negatives == 0.0 {
            return None;
        }
        // Standardised scores keep the Hessian well conditioned whatever the scores' unit.
        let n = positives + negatives;
        let values = || scores.scores().iter();
        let centre = values().sum::<f64>() / n;
        let spread = (values().map(|x| (x - centre).powi(2)).sum::<f64>() / n).sqrt();
        let prior = ((positives + 1.0) / (negatives + 1.0)).ln();
        if spread == 0.0 {
            return Some(Self {
                slope: 0.0,
                intercept: intercept_of(positives, negatives),
            });
        }
        let (high, low) = (
            (positives + 1.0) / (positives + 2.0),
            1.0 / (negatives + 2.0),
        );
        let pairs = || {
            let target = |&label: &bool| if label { high } else { low };
            values()
                .map(|x| (x - centre) / spread)
                .zip(scores.labels().iter().map(target))
        };
        let loss = |[slope, intercept]: [f64; 2]| -> f64 {
            pairs()
                .map(|(x, target)| {
                    softplus(slope * x + intercept) - target * (slope * x + intercept)
                })
                .sum()
        };
        let mut at = [0.0, prior];
        let mut loss_here = loss(at);
        for _ in 0..100 {
            let (mut gradient, mut hessian) = ([0.0; 2], [0.0; 3]);
            for (x, target) in pairs() {
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
        Some(Self {
            slope,
            intercept: at[1] - slope * centre,
        })
    }

    /// The calibrated probability of a score.
    pub fn apply(&self, score: impl Into<f64>) -> f64 {
        sigmoid(self.slope * score.into() + self.intercept)
    }
}

/// The log-odds that the softened targets average to, when scores tell nothing apart.
fn intercept_of(positives: f64, negatives: f64) -> f64 {
    let share = (positives * (positives + 1.0) / (positives + 2.0) + negatives / (negatives + 2.0))
        / (positives + negatives);
    (share / (1.0 - share)).ln()
}

/// 1 / (1 + e^(−x)), the probability of a logit.
pub fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + eˣ) without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
