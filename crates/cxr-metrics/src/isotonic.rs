//! Isotonic regression: the calibration map that assumes nothing but that a higher score is no less
//! probable.

use crate::error::MetricError;
use crate::scored::Scored;
use crate::sorted::{Sorter, count_labels, tie_groups};

/// A monotone map from scores to probabilities (Zadrozny & Elkan 2002): of all rising functions the one
/// of least squared error, by pooling adjacent violators (Ayer et al. 1955), straight between the scores
/// it was fitted on and constant beyond them. As scikit-learn's
/// `IsotonicRegression(out_of_bounds="clip")`, which `CalibratedClassifierCV` uses.
///
/// It makes ties and so lowers an AUC a little; with few positives it fits noise.
///
/// ```
/// use cxr_metrics::{IsotonicRegression, Scored};
/// let scored = Scored::new(&[0.1, 0.2, 0.3, 0.6, 0.9], &[false, true, false, true, true])?;
/// let map = IsotonicRegression::fit(scored).unwrap();
/// assert_eq!([0.0, 0.1, 0.2, 0.3, 0.45, 0.9].map(|score| map.apply(score)), [0.0, 0.0, 0.5, 0.5, 0.75, 1.0]);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Knots", into = "Knots"))]
pub struct IsotonicRegression {
    /// The scores at which the map bends, rising, at least one.
    pub scores: Vec<f64>,
    /// The probability at each, in [0, 1], never falling.
    pub probabilities: Vec<f64>,
}

/// What is stored of an [`IsotonicRegression`].
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Knots {
    scores: Vec<f64>,
    probabilities: Vec<f64>,
}

#[cfg(feature = "serde")]
impl From<IsotonicRegression> for Knots {
    fn from(map: IsotonicRegression) -> Self {
        Self {
            scores: map.scores,
            probabilities: map.probabilities,
        }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Knots> for IsotonicRegression {
    type Error = MetricError;

    fn try_from(knots: Knots) -> Result<Self, MetricError> {
        Self::new(knots.scores, knots.probabilities)
    }
}

impl IsotonicRegression {
    /// A map through these points.
    ///
    /// # Errors
    /// [`MetricError::Empty`], [`MetricError::Length`], [`MetricError::NotFinite`] for a score,
    /// [`MetricError::NotAProbability`], and [`MetricError::NotAscending`] for a score that is not above the
    /// one before or a probability that is below.
    pub fn new(scores: Vec<f64>, probabilities: Vec<f64>) -> Result<Self, MetricError> {
        // Checks everything but the order.
        let labels = vec![false; probabilities.len()];
        Scored::new(&scores, &labels)?;
        crate::Forecast::new(&probabilities, &labels)?;
        let scores_rise = scores.windows(2).position(|pair| pair[0] >= pair[1]);
        let falls = probabilities.windows(2).position(|pair| pair[0] > pair[1]);
        match scores_rise.or(falls) {
            Some(before) => Err(MetricError::NotAscending { index: before + 1 }),
            None => Ok(Self {
                scores,
                probabilities,
            }),
        }
    }

    /// Fits the map on scores of any kind. `None` when either class is absent.
    pub fn fit(scored: Scored<'_>) -> Option<Self> {
        let mut sorter = Sorter::default();
        let entries = sorter.sort(scored.scores(), scored.labels());
        let (positives, negatives) = count_labels(entries);
        if positives == 0 || negatives == 0 {
            return None;
        }
        let mut blocks: Vec<Block> = Vec::new();
        for group in tie_groups(entries) {
            let score = scored.scores().get(group.first()?.row())? + 0.0;
            let (positives, _) = count_labels(group);
            let mut block = Block {
                first: score,
                last: score,
                positives,
                all: group.len() as u64,
            };
            // Counts, so that equal shares are found equal.
            while let Some(before) = blocks.pop_if(|before| before.is_at_least(&block)) {
                block = before.joined(&block);
            }
            blocks.push(block);
        }
        let (mut scores, mut probabilities) = (Vec::new(), Vec::new());
        for block in &blocks {
            let share = block.positives as f64 / block.all as f64;
            scores.push(block.first);
            probabilities.push(share);
            if block.last > block.first {
                scores.push(block.last);
                probabilities.push(share);
            }
        }
        Some(Self {
            scores,
            probabilities,
        })
    }

    /// The calibrated probability of a score; NaN for NaN, and of a map without points.
    pub fn apply(&self, score: impl Into<f64>) -> f64 {
        let score = score.into();
        if score.is_nan() {
            return f64::NAN;
        }
        let above = self.scores.partition_point(|&knot| knot <= score);
        let at = |index: usize| Some((*self.scores.get(index)?, *self.probabilities.get(index)?));
        match (above.checked_sub(1).and_then(at), at(above)) {
            (Some((x0, y0)), Some((x1, y1))) => {
                // In halves, so that a distance between far scores cannot overflow.
                let share = (score / 2.0 - x0 / 2.0) / (x1 / 2.0 - x0 / 2.0);
                y0 + (y1 - y0) * share
            }
            (Some((_, end)), None) | (None, Some((_, end))) => end,
            (None, None) => f64::NAN,
        }
    }
}

/// Scores that share a probability.
struct Block {
    first: f64,
    last: f64,
    positives: u64,
    all: u64,
}

impl Block {
    /// Whether its share of positives is at least the other's.
    fn is_at_least(&self, other: &Self) -> bool {
        u128::from(self.positives) * u128::from(other.all)
            >= u128::from(other.positives) * u128::from(self.all)
    }

    fn joined(&self, next: &Self) -> Self {
        Self {
            first: self.first,
            last: next.last,
            positives: self.positives + next.positives,
            all: self.all + next.all,
        }
    }
}
