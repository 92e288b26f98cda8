//! Probabilities for people among whom a finding is more or less common than it was in training.

use crate::error::MetricError;
use crate::scaling::{logit, sigmoid};

/// Corrects a probability for another prevalence by Bayes' rule: its odds are multiplied by the ratio of
/// the prevalences' odds (Elkan 2001; Saerens, Latinne & Decaestecker 2002, eq. 2.4 with known priors).
///
/// Right if only the prevalence differs: images with the finding look alike in both places, and so do
/// those without. The ranking, and so the AUC, stays as it is.
///
/// ```
/// use cxr_metrics::PrevalenceShift;
/// // Trained where half have the finding, used where one in ten has it.
/// let shift = PrevalenceShift::new(0.5, 0.1)?;
/// assert!((shift.apply(0.5) - 0.1).abs() < 1e-12);
/// assert!((shift.apply(0.9) - 0.5).abs() < 1e-12);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "Prevalences", into = "Prevalences")
)]
pub struct PrevalenceShift {
    from: f64,
    to: f64,
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Prevalences {
    from: f64,
    to: f64,
}

#[cfg(feature = "serde")]
impl From<PrevalenceShift> for Prevalences {
    fn from(PrevalenceShift { from, to }: PrevalenceShift) -> Self {
        Self { from, to }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Prevalences> for PrevalenceShift {
    type Error = MetricError;

    fn try_from(Prevalences { from, to }: Prevalences) -> Result<Self, MetricError> {
        Self::new(from, to)
    }
}

impl PrevalenceShift {
    /// From the prevalence where the probabilities are calibrated to another.
    ///
    /// # Errors
    /// [`MetricError::OutOfRange`] unless both lie strictly between 0 and 1.
    pub fn new(from: f64, to: f64) -> Result<Self, MetricError> {
        for value in [from, to] {
            if !(value > 0.0 && value < 1.0) {
                return Err(MetricError::OutOfRange {
                    what: "a prevalence",
                    range: "(0, 1)",
                    value,
                });
            }
        }
        Ok(Self { from, to })
    }

    /// The prevalence where the probabilities are calibrated.
    pub fn from(&self) -> f64 {
        self.from
    }

    /// The prevalence that they are corrected for.
    pub fn to(&self) -> f64 {
        self.to
    }

    /// What is added to a logit.
    pub fn logit_shift(&self) -> f64 {
        logit(self.to) - logit(self.from)
    }

    /// The probability under the other prevalence; 0 and 1 stay what they are.
    pub fn apply(&self, probability: f64) -> f64 {
        if probability <= 0.0 || probability >= 1.0 {
            return probability;
        }
        sigmoid(logit(probability) + self.logit_shift())
    }
}
