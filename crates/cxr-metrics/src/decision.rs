use crate::error::{MetricError, check_length};
use crate::interval::Proportion;
use crate::scored::Scored;

/// What a yes-or-no decision got right and wrong.
///
/// Every rate is `None` where its denominator is 0, never a silent 0.
///
/// ```
/// use cxr_metrics::{Confusion, Level, Scored};
/// let scored = Scored::new(&[0.9, 0.6, 0.5, 0.4, 0.2], &[true, true, false, true, false])?;
/// let at_half = Confusion::at(scored, 0.5);
/// let sensitivity = at_half.sensitivity().unwrap();
/// assert_eq!((sensitivity.hits, sensitivity.of), (2, 3));
/// let interval = sensitivity.wilson(Level::P95);
/// assert!((interval.lower - 0.2077).abs() < 1e-4 && (interval.upper - 0.9385).abs() < 1e-4);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Confusion {
    /// Has the finding, called positive.
    pub true_positives: u64,
    /// Has it not, called positive.
    pub false_positives: u64,
    /// Has it not, called negative.
    pub true_negatives: u64,
    /// Has the finding, called negative.
    pub false_negatives: u64,
}

impl Confusion {
    /// Calls positive every score at or above the threshold (for logits, 0 is even odds). Compared
    /// exactly: 0.1_f32 is above 0.1_f64, so a threshold for `f32` scores is best an `f32`.
    pub fn at(scored: Scored<'_>, threshold: impl Into<f64>) -> Self {
        let threshold = threshold.into();
        let called = scored.scores().iter().map(|score| score >= threshold);
        Self::count(called.zip(scored.labels().iter().copied()))
    }

    /// Counts calls against truth, as of a reader who gives no scores.
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there are as many calls as labels.
    pub fn of_calls(called_positive: &[bool], labels: &[bool]) -> Result<Self, MetricError> {
        check_length("calls, one per label", labels.len(), called_positive.len())?;
        Ok(Self::count(
            called_positive.iter().copied().zip(labels.iter().copied()),
        ))
    }

    pub(crate) fn count(called_and_truth: impl Iterator<Item = (bool, bool)>) -> Self {
        let mut counts = Self::default();
        for (called, truth) in called_and_truth {
            *match (called, truth) {
                (true, true) => &mut counts.true_positives,
                (true, false) => &mut counts.false_positives,
                (false, true) => &mut counts.false_negatives,
                (false, false) => &mut counts.true_negatives,
            } += 1;
        }
        counts
    }

    /// All examples.
    pub fn total(&self) -> u64 {
        self.positives() + self.negatives()
    }

    /// Examples that have the finding.
    pub fn positives(&self) -> u64 {
        self.true_positives + self.false_negatives
    }

    /// Examples that have it not.
    pub fn negatives(&self) -> u64 {
        self.true_negatives + self.false_positives
    }

    /// Sensitivity, recall, true positive rate; `None` without positives.
    pub fn sensitivity(&self) -> Option<Proportion> {
        Proportion::new(self.true_positives, self.positives())
    }

    /// Specificity, true negative rate; `None` without negatives.
    pub fn specificity(&self) -> Option<Proportion> {
        Proportion::new(self.true_negatives, self.negatives())
    }

    /// Positive predictive value, precision; `None` when nothing is called positive.
    pub fn ppv(&self) -> Option<Proportion> {
        Proportion::new(
            self.true_positives,
            self.true_positives + self.false_positives,
        )
    }

    /// Negative predictive value; `None` when nothing is called negative.
    pub fn npv(&self) -> Option<Proportion> {
        Proportion::new(
            self.true_negatives,
            self.true_negatives + self.false_negatives,
        )
    }

    /// The share that is right; `None` without examples.
    pub fn accuracy(&self) -> Option<Proportion> {
        Proportion::new(self.true_positives + self.true_negatives, self.total())
    }

    /// F1, the harmonic mean of sensitivity and PPV: 2·TP / (2·TP + FP + FN); `None` when there is
    /// no positive and none is called.
    pub fn f1(&self) -> Option<f64> {
        let wrong = self.false_positives + self.false_negatives;
        Some(Proportion::new(2 * self.true_positives, 2 * self.true_positives + wrong)?.value())
    }

    /// The mean of sensitivity and specificity; `None` when either class is absent.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        Some((self.sensitivity()?.value() + self.specificity()?.value()) / 2.0)
    }

    /// Youden's index: sensitivity + specificity − 1; `None` when either class is absent.
    pub fn youden(&self) -> Option<f64> {
        Some(self.sensitivity()?.value() + self.specificity()?.value() - 1.0)
    }

    /// Matthews' correlation coefficient, −1 … 1; `None` when a class is absent or never called
    /// (scikit-learn says 0 there).
    pub fn mcc(&self) -> Option<f64> {
        let [tp, fp, tn, fn_] = [
            self.true_positives,
            self.false_positives,
            self.true_negatives,
            self.false_negatives,
        ]
        .map(|count| count as f64);
        let margins = (tp + fp).sqrt() * (tp + fn_).sqrt() * (tn + fp).sqrt() * (tn + fn_).sqrt();
        (margins > 0.0).then(|| (tp * tn - fp * fn_) / margins)
    }
}
