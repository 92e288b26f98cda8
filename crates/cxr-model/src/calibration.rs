//! From logits to probabilities that mean what they say.

use serde::{Deserialize, Serialize};

use crate::Origin;

/// How the logits of each label become probabilities, and what that was fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// One for each label, in the order of the logits.
    pub labels: Vec<LabelCalibration>,
    /// The predictions that it was fitted on.
    pub origin: Origin,
}

/// How a logit of one label becomes a probability. `σ` is the logistic function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum LabelCalibration {
    /// `σ(logit)`: the label was not calibrated, because it has too few known images, for instance.
    None {},
    /// `σ(logit / temperature)` (Guo et al. 2017).
    Temperature {
        /// Above 0.
        temperature: f64,
    },
    /// `σ(slope · logit + intercept)` (Platt 1999).
    Platt {
        /// Factor of the logit.
        slope: f64,
        /// What is added to it.
        intercept: f64,
    },
    /// `σ(logit)` moved so that `probability` becomes ½, linear on both sides of it: how torchxrayvision gives what its
    /// networks say (`op_norm`).
    OperatingPoint {
        /// The `σ(logit)` from which on the label is called, in (0, 1).
        probability: f64,
    },
    /// Linear between points of a rising curve, constant beyond its ends (Zadrozny and Elkan 2002).
    Isotonic {
        /// Logits of the points, rising.
        logits: Vec<f64>,
        /// Probabilities of the points, in [0, 1], not falling.
        probabilities: Vec<f64>,
    },
}

/// `1 / (1 + exp(−x))`, without an overflow.
fn sigmoid(x: f64) -> f64 {
    if x >= 0. {
        1. / (1. + (-x).exp())
    } else {
        let exp = x.exp();
        exp / (1. + exp)
    }
}

impl LabelCalibration {
    /// The probability of a finite logit.
    pub fn probability(&self, logit: f64) -> f64 {
        match self {
            Self::None {} => sigmoid(logit),
            Self::Temperature { temperature } => sigmoid(logit / temperature),
            Self::Platt { slope, intercept } => sigmoid(slope * logit + intercept),
            Self::OperatingPoint { probability } => {
                let p = sigmoid(logit);
                match p < *probability {
                    true => p / (2. * probability),
                    false => 1. - (1. - p) / (2. * (1. - probability)),
                }
            }
            Self::Isotonic {
                logits,
                probabilities,
            } => interpolate(logits, probabilities, logit),
        }
    }

    /// Whether its numbers are such that every logit has a probability.
    ///
    /// # Errors
    /// What they must be.
    pub fn check(&self) -> Result<(), &'static str> {
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        match self {
            Self::None {} => Ok(()),
            Self::Temperature { temperature } => match temperature.is_finite() && *temperature > 0.
            {
                true => Ok(()),
                false => Err("a temperature above 0"),
            },
            Self::Platt { slope, intercept } => match finite(&[*slope, *intercept]) {
                true => Ok(()),
                false => Err("a finite slope and intercept"),
            },
            Self::OperatingPoint { probability } => match *probability > 0. && *probability < 1. {
                true => Ok(()),
                false => Err("an operating point between 0 and 1"),
            },
            Self::Isotonic {
                logits,
                probabilities,
            } => {
                let is_rising = logits.is_sorted_by(|a, b| a < b);
                let is_curve = probabilities.is_sorted()
                    && probabilities.iter().all(|p| (0. ..=1.).contains(p));
                let is_whole = !logits.is_empty() && logits.len() == probabilities.len();
                match is_whole && finite(logits) && is_rising && is_curve {
                    true => Ok(()),
                    false => {
                        Err("a curve of rising logits and probabilities in [0, 1] that do not fall")
                    }
                }
            }
        }
    }
}

/// The curve at `x`; `0.5` of a curve without points, which [`LabelCalibration::check`] refuses.
fn interpolate(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    let after = xs.partition_point(|&point| point < x);
    match (after.checked_sub(1), xs.get(after)) {
        (Some(before), Some(&right)) => {
            let (left, low, high) = (xs[before], ys[before], ys[after]);
            low + (high - low) * ((x - left) / (right - left))
        }
        (None, Some(_)) => ys.first().copied().unwrap_or(0.5),
        (_, None) => ys.last().copied().unwrap_or(0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_formulas() {
        // σ(2), σ(1) and σ(0.5 · 2 − 1) = ½, in closed form.
        let sigma = |x: f64| 1. / (1. + (-x).exp());
        let is = |calibration: LabelCalibration, logit: f64, expected: f64| {
            let found = calibration.probability(logit);
            assert!((found - expected).abs() < 1e-15, "{calibration:?}: {found}");
        };
        is(LabelCalibration::None {}, 2., sigma(2.));
        is(LabelCalibration::None {}, -800., 0.);
        is(LabelCalibration::None {}, 800., 1.);
        is(
            LabelCalibration::Temperature { temperature: 2. },
            2.,
            sigma(1.),
        );
        let platt = LabelCalibration::Platt {
            slope: 0.5,
            intercept: -1.,
        };
        is(platt, 2., 0.5);
        // At the point ½; half way down to 0, a quarter; half way up to 1, three quarters.
        let logit = |p: f64| (p / (1. - p)).ln();
        for (p, expected) in [(0.2, 0.5), (0.1, 0.25), (0.6, 0.75)] {
            let point = LabelCalibration::OperatingPoint { probability: 0.2 };
            is(point, logit(p), expected);
        }
    }

    #[test]
    fn an_isotonic_curve_is_linear_between_its_points_and_constant_beyond() {
        let curve = LabelCalibration::Isotonic {
            logits: vec![-1., 0., 2.],
            probabilities: vec![0.1, 0.1, 0.9],
        };
        curve.check().unwrap_or_else(|problem| panic!("{problem}"));
        for (logit, expected) in [
            (-5., 0.1),
            (-1., 0.1),
            (-0.5, 0.1),
            (0., 0.1),
            (1., 0.5),
            (2., 0.9),
            (9., 0.9),
        ] {
            let found = curve.probability(logit);
            assert!((found - expected).abs() < 1e-15, "{logit}: {found}");
        }
    }

    #[test]
    fn numbers_that_give_no_probability_are_refused() {
        let isotonic = |logits: &[f64], probabilities: &[f64]| LabelCalibration::Isotonic {
            logits: logits.to_vec(),
            probabilities: probabilities.to_vec(),
        };
        for wrong in [
            LabelCalibration::Temperature { temperature: 0. },
            LabelCalibration::Temperature {
                temperature: f64::NAN,
            },
            LabelCalibration::Platt {
                slope: f64::INFINITY,
                intercept: 0.,
            },
            LabelCalibration::OperatingPoint { probability: 0. },
            LabelCalibration::OperatingPoint { probability: 1. },
            isotonic(&[], &[]),
            isotonic(&[0.], &[]),
            isotonic(&[0., 0.], &[0.1, 0.2]),
            isotonic(&[0., 1.], &[0.2, 0.1]),
            isotonic(&[0., 1.], &[0.2, 1.1]),
            isotonic(&[0., f64::NAN], &[0.2, 0.3]),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
