//! Isotonic regression: the rising curve nearest to the truth.

use crate::scored::Scored;

/// A calibration map that only knows that a higher score means a likelier finding: the non-falling curve of least squared
/// error on what it was fitted on (Zadrozny & Elkan 2002), by pooling adjacent violators (Ayer et al. 1955).
///
/// It is linear between its points and constant beyond them, as scikit-learn's `IsotonicRegression` with
/// `out_of_bounds="clip"` is. It needs more examples than a line does; a score can get the probability 0 or 1.
///
/// ```
/// use cxr_metrics::{IsotonicRegression, Scored};
/// let scores = [0.1, 0.2, 0.3, 0.4];
/// let fitted = IsotonicRegression::fit(Scored::new(&scores, &[false, true, false, true])?).unwrap();
/// // 0.2 and 0.3 are pooled: one of two.
/// assert_eq!(fitted.apply(0.25), 0.5);
/// assert_eq!((fitted.apply(0.0), fitted.apply(0.9)), (0.0, 1.0));
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct IsotonicRegression {
    /// The scores of the curve's points, rising.
    pub scores: Vec<f64>,
    /// The probability at each, in [0, 1] and not falling.
    pub probabilities: Vec<f64>,
}

/// Neighbours in the order of the scores that have one probability.
struct Pool {
    first: f64,
    last: f64,
    positives: f64,
    examples: f64,
}

impl IsotonicRegression {
    /// The curve through the ends of each pool of examples; `None` when either class is absent.
    pub fn fit(scored: Scored<'_>) -> Option<Self> {
        if scored.positives() == 0 || scored.negatives() == 0 {
            return None;
        }
        let scores = scored.scores().iter().map(|&score| f64::from(score));
        let mut examples: Vec<(f64, bool)> = scores.zip(scored.labels().iter().copied()).collect();
        examples.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Equal scores are one example of their mean, whatever their order; −0 and 0 are equal.
        let mut pools: Vec<Pool> = Vec::new();
        for ties in examples.chunk_by(|a, b| a.0 == b.0) {
            let score = ties.first()?.0;
            pools.push(Pool {
                first: score,
                last: score,
                positives: ties.iter().filter(|(_, label)| *label).count() as f64,
                examples: ties.len() as f64,
            });
            // The last pool is joined with the one before it as long as it is not above it.
            while let [.., before, last] = pools.as_mut_slice()
                && before.positives * last.examples >= last.positives * before.examples
            {
                before.last = last.last;
                before.positives += last.positives;
                before.examples += last.examples;
                pools.pop();
            }
        }
        let mut fitted = Self {
            scores: Vec::new(),
            probabilities: Vec::new(),
        };
        for pool in &pools {
            let probability = pool.positives / pool.examples;
            fitted.scores.push(pool.first);
            fitted.probabilities.push(probability);
            if pool.last > pool.first {
                fitted.scores.push(pool.last);
                fitted.probabilities.push(probability);
            }
        }
        Some(fitted)
    }

    /// The probability of a score.
    pub fn apply(&self, score: f64) -> f64 {
        let after = self.scores.partition_point(|&point| point < score);
        let at = |index: usize| Some((*self.scores.get(index)?, *self.probabilities.get(index)?));
        match (after.checked_sub(1).and_then(at), at(after)) {
            (Some((left, low)), Some((right, high))) => {
                low + (high - low) * ((score - left) / (right - left))
            }
            (Some((_, end)), None) | (None, Some((_, end))) => end,
            (None, None) => 0.5,
        }
    }
}
