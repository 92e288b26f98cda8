//! Calibrations and thresholds from the logits of one label and the truth.

use cxr_metrics::{
    IsotonicRegression, MetricError, OperatingRule, PlattScaling, PrevalenceShift, Scored,
    TemperatureScaling,
};

use crate::{LabelCalibration, ThresholdRule};

/// How a calibration is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CalibrationMethod {
    /// Not at all: `σ(logit)`.
    None,
    /// One number that logits are divided by ([`TemperatureScaling`]).
    Temperature,
    /// A line through the logits ([`PlattScaling`]): the choice where a loss sets no zero, as ranking losses do not.
    Platt,
    /// Any rising curve ([`IsotonicRegression`]): needs hundreds of images that have the label.
    Isotonic,
}

impl LabelCalibration {
    /// The calibration of a label by its logits and whether it is there; `None` where a class is absent, or where no
    /// temperature fits.
    pub fn fit(method: CalibrationMethod, logits: Scored<'_>) -> Option<Self> {
        match method {
            CalibrationMethod::None => Some(Self::None {}),
            CalibrationMethod::Temperature => {
                let TemperatureScaling { temperature } = TemperatureScaling::fit(logits)?;
                Some(Self::Temperature { temperature })
            }
            CalibrationMethod::Platt => {
                let PlattScaling { slope, intercept } = PlattScaling::fit(logits)?;
                Some(Self::Platt { slope, intercept })
            }
            CalibrationMethod::Isotonic => {
                let fitted = IsotonicRegression::fit(logits)?;
                Some(Self::Isotonic {
                    logits: fitted.scores,
                    probabilities: fitted.probabilities,
                })
            }
        }
    }

    /// The same for images of which another share has the label: the odds change by one factor ([`PrevalenceShift`]).
    /// `None` for a curve, which is not moved so.
    pub fn for_prevalence(&self, shift: PrevalenceShift) -> Option<Self> {
        let (slope, intercept) = match *self {
            Self::None {} => (1., 0.),
            Self::Temperature { temperature } => (1. / temperature, 0.),
            Self::Platt { slope, intercept } => (slope, intercept),
            Self::Isotonic { .. } | Self::OperatingPoint { .. } => return None,
        };
        Some(Self::Platt {
            slope,
            intercept: intercept + shift.logit_shift(),
        })
    }
}

impl ThresholdRule {
    /// The logit above which the rule calls a label present, by the logits of some images and whether it is there.
    /// `None` where a class is absent, where no threshold reaches what the rule asks for, and for rules that choose
    /// none.
    ///
    /// # Errors
    /// A rate that is not in [0, 1].
    pub fn choose(&self, logits: Scored<'_>) -> Result<Option<f32>, MetricError> {
        let rule = match *self {
            Self::Loss | Self::Given => return Ok(None),
            Self::Youden => OperatingRule::Youden,
            Self::BestF1 => OperatingRule::BestF1,
            Self::Sensitivity(rate) => OperatingRule::SpecificityAtSensitivity(rate),
            Self::Specificity(rate) => OperatingRule::SensitivityAtSpecificity(rate),
            Self::PositivePredictiveValue(rate) => OperatingRule::PpvAtLeast(rate),
        };
        let point = rule.choose(logits)?;
        // A point counts scores at its threshold as positive; a card's threshold is below them.
        Ok(point.map(|point| (point.threshold as f32).min(f32::MAX).next_down()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_below_the_scores_that_they_call_positive() {
        let logits = [-1., 0.5, 0.5, 2.0_f32];
        let scored = Scored::new(&logits, &[false, true, false, true]).unwrap();
        let above = |rule: ThresholdRule| {
            let threshold = rule.choose(scored).unwrap().unwrap();
            assert!(threshold.is_finite());
            logits.iter().filter(|&&logit| logit > threshold).count()
        };
        assert_eq!(above(ThresholdRule::Sensitivity(1.)), 3);
        assert_eq!(above(ThresholdRule::Specificity(1.)), 1);
        assert_eq!(above(ThresholdRule::PositivePredictiveValue(1.)), 1);
        assert!(ThresholdRule::Sensitivity(1.5).choose(scored).is_err());
        assert_eq!(ThresholdRule::Loss.choose(scored).unwrap(), None);
        let absent = Scored::new(&logits, &[false; 4]).unwrap();
        assert_eq!(ThresholdRule::Youden.choose(absent).unwrap(), None);
    }

    #[test]
    fn another_prevalence_changes_the_odds_by_one_factor() {
        for calibration in [
            LabelCalibration::None {},
            LabelCalibration::Temperature { temperature: 3. },
            LabelCalibration::Platt {
                slope: 0.5,
                intercept: -1.,
            },
        ] {
            let shift = PrevalenceShift::new(0.5, 0.1).unwrap();
            let moved = calibration.for_prevalence(shift).unwrap();
            for logit in [-3., 0., 2.5] {
                let odds = |p: f64| p / (1. - p);
                let ratio = odds(moved.probability(logit)) / odds(calibration.probability(logit));
                assert!((ratio - 1. / 9.).abs() < 1e-12, "{calibration:?}: {ratio}");
            }
        }
    }
}
