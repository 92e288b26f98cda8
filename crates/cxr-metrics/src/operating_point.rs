use crate::curve::{CutOff, cut_offs};
use crate::decision::Confusion;
use crate::error::MetricError;
use crate::interval::Proportion;
use crate::scored::Scored;
use crate::sorted::{Sorter, count_labels};

/// How to choose a threshold.
///
/// Choose on one set of images and [apply](OperatingPoint::apply) to another: rates at a threshold
/// chosen on the same images are too good.
///
/// ```
/// use cxr_metrics::{OperatingRule, Scored};
/// let validation = Scored::new(&[0.1, 0.3, 0.4, 0.8], &[false, false, true, true])?;
/// let test = Scored::new(&[0.2, 0.5, 0.35, 0.9], &[false, false, true, true])?;
/// let point = OperatingRule::Youden.choose(validation)?.unwrap();
/// assert_eq!(point.threshold, 0.4);
/// assert_eq!(point.chosen_on.youden(), Some(1.0));
/// assert_eq!(point.apply(test).youden(), Some(0.0));
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OperatingRule {
    /// The largest sensitivity + specificity (Youden 1950).
    Youden,
    /// The largest F1.
    BestF1,
    /// The largest sensitivity with at least this specificity; among equals, the most specific.
    SensitivityAtSpecificity(f64),
    /// The largest specificity with at least this sensitivity; among equals, the most sensitive.
    SpecificityAtSensitivity(f64),
    /// The largest sensitivity with at least this positive predictive value.
    PpvAtLeast(f64),
}

/// A threshold and what it does where it was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OperatingPoint {
    /// Scores at or above it are called positive: one of the scores it was chosen on, or +∞ when
    /// the rule is best met by calling nothing positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::infinite"))]
    pub threshold: f64,
    /// The counts on the examples it was chosen on.
    pub chosen_on: Confusion,
}

impl OperatingPoint {
    /// The counts that the threshold gives on other examples.
    pub fn apply(&self, scored: Scored<'_>) -> Confusion {
        Confusion::at(scored, self.threshold)
    }
}

impl OperatingRule {
    /// The threshold that meets the rule best; of equally good ones the highest. `None` when
    /// either class is absent, or no threshold reaches the PPV asked for.
    ///
    /// # Errors
    /// [`MetricError::OutOfRange`] when the rate in the rule is not in [0, 1].
    pub fn choose(&self, scored: Scored<'_>) -> Result<Option<OperatingPoint>, MetricError> {
        self.check()?;
        let mut sorter = Sorter::default();
        let entries = sorter.sort(scored.scores(), scored.labels());
        let totals = count_labels(entries);
        Ok(self.best(totals, cut_offs(entries, scored.scores())))
    }

    /// [`MetricError::OutOfRange`] when the rate in the rule is not in [0, 1].
    pub(crate) fn check(&self) -> Result<(), MetricError> {
        use OperatingRule::{PpvAtLeast, SensitivityAtSpecificity, SpecificityAtSensitivity};
        if let SensitivityAtSpecificity(rate) | SpecificityAtSensitivity(rate) | PpvAtLeast(rate) =
            *self
            && !(0.0..=1.0).contains(&rate)
        {
            let what = "the rate to reach";
            return Err(MetricError::OutOfRange {
                what,
                range: "[0, 1]",
                value: rate,
            });
        }
        Ok(())
    }

    /// The best of the cut-offs, by falling threshold, and of calling nothing positive.
    pub(crate) fn best(
        &self,
        (positives, negatives): (u64, u64),
        cuts: impl Iterator<Item = CutOff>,
    ) -> Option<OperatingPoint> {
        use OperatingRule::{
            BestF1, PpvAtLeast, SensitivityAtSpecificity, SpecificityAtSensitivity, Youden,
        };
        let nothing = CutOff {
            threshold: f64::INFINITY,
            true_positives: 0,
            false_positives: 0,
        };
        // What is compared between thresholds, the more important first; `None`: not allowed.
        let merit = |counts: &Confusion| -> Option<(f64, f64)> {
            let value = |rate: Option<Proportion>| rate.map(|rate| rate.value());
            let sensitivity = value(counts.sensitivity())?;
            let specificity = value(counts.specificity())?;
            match *self {
                Youden => Some((sensitivity + specificity, 0.0)),
                BestF1 => Some((counts.f1()?, 0.0)),
                SensitivityAtSpecificity(rate) => {
                    (specificity >= rate).then_some((sensitivity, specificity))
                }
                SpecificityAtSensitivity(rate) => {
                    (sensitivity >= rate).then_some((specificity, sensitivity))
                }
                PpvAtLeast(rate) => (value(counts.ppv())? >= rate).then_some((sensitivity, 0.0)),
            }
        };
        let mut best: Option<((f64, f64), OperatingPoint)> = None;
        for cut in std::iter::once(nothing).chain(cuts) {
            let point = OperatingPoint {
                threshold: cut.threshold,
                chosen_on: Confusion {
                    true_positives: cut.true_positives,
                    false_positives: cut.false_positives,
                    true_negatives: negatives - cut.false_positives,
                    false_negatives: positives - cut.true_positives,
                },
            };
            if let Some(merit) = merit(&point.chosen_on)
                && best.is_none_or(|(best_merit, _)| merit > best_merit)
            {
                best = Some((merit, point));
            }
        }
        best.map(|(_, point)| point)
    }
}
