//! Calibration maps: fitted on one set of images, applied to another.

#[cfg(feature = "serde")]
use crate::error::MetricError;
use crate::logistic::fit_line;
use crate::scored::Scored;

/// Divides logits by one number (Guo et al. 2017), which never changes a ranking.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Temperature"))]
pub struct TemperatureScaling {
    /// The temperature, above 0; above 1 it softens overconfident logits.
    pub temperature: f64,
}

/// What is stored of a [`TemperatureScaling`], before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Temperature {
    temperature: f64,
}

#[cfg(feature = "serde")]
impl TryFrom<Temperature> for TemperatureScaling {
    type Error = MetricError;

    fn try_from(Temperature { temperature }: Temperature) -> Result<Self, MetricError> {
        if temperature > 0.0 && temperature.is_finite() {
            Ok(Self { temperature })
        } else {
            Err(MetricError::OutOfRange {
                what: "the temperature",
                range: "(0, ∞)",
                value: temperature,
            })
        }
    }
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
        let values = || scores.scores().iter();
        let first = values().next();
        if values().all(|value| Some(value) == first) {
            return Some(Self {
                slope: 0.0,
                intercept: intercept_of(positives, negatives),
            });
        }
        let (high, low) = (
            (positives + 1.0) / (positives + 2.0),
            1.0 / (negatives + 2.0),
        );
        let targets = scores.labels().iter();
        let targets = targets.map(|&label| if label { high } else { low });
        let [slope, intercept] = fit_line(values().zip(targets));
        Some(Self { slope, intercept })
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

/// ln(p / (1 − p)), the logit of a probability: −∞ at 0, ∞ at 1.
pub fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

/// ln(1 + eˣ) without overflow.
pub(crate) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}
