use crate::curve::roc_points;
use crate::error::MetricError;
use crate::scored::Scored;
use crate::sorted::{Entry, Sorter, count_labels, tie_groups};

/// The area under the ROC curve: the probability that a positive outranks a negative, ties
/// counting one half (Hanley & McNeil 1982; Mann & Whitney's U divided by its maximum).
///
/// Counted in integers and divided once, so it is the closest `f64` to the true ratio.
/// `None` when either class is absent. Constant scores give 0.5.
///
/// ```
/// use cxr_metrics::{Scored, roc_auc};
/// let labels = [false, false, true, true];
/// assert_eq!(roc_auc(Scored::new(&[0.1, 0.4, 0.35, 0.8], &labels)?), Some(0.75));
/// assert_eq!(roc_auc(Scored::new(&[0.1, 0.4, 0.35, 0.8], &[true; 4])?), None);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
pub fn roc_auc(scored: Scored<'_>) -> Option<f64> {
    auc_of_sorted(Sorter::default().sort(scored.scores(), scored.labels()))
}

/// The area under the ROC curve up to a false positive rate, rescaled by McClish (1989) so that
/// chance is 0.5 and perfection 1; equal to scikit-learn's `roc_auc_score(max_fpr=…)`.
///
/// `None` when either class is absent.
///
/// # Errors
/// [`MetricError::OutOfRange`] unless `0 < max_false_positive_rate ≤ 1`.
pub fn partial_auc(
    scored: Scored<'_>,
    max_false_positive_rate: f64,
) -> Result<Option<f64>, MetricError> {
    let limit = max_false_positive_rate;
    if !(limit > 0.0 && limit <= 1.0) {
        let what = "the largest false positive rate";
        return Err(MetricError::OutOfRange {
            what,
            range: "(0, 1]",
            value: limit,
        });
    }
    let mut sorter = Sorter::default();
    let entries = sorter.sort(scored.scores(), scored.labels());
    let Some(points) = roc_points(entries, scored.scores()) else {
        return Ok(None);
    };
    let mut area = 0.0;
    let (mut x0, mut y0) = (0.0, 0.0);
    for point in points {
        let (mut x, mut y) = (point.false_positive_rate, point.true_positive_rate);
        let crosses = x > limit;
        if crosses {
            y = y0 + (y - y0) * (limit - x0) / (x - x0);
            x = limit;
        }
        area += (x - x0) * (y + y0) / 2.0;
        (x0, y0) = (x, y);
        if crosses {
            break;
        }
    }
    let chance = limit * limit / 2.0;
    Ok(Some(0.5 * (1.0 + (area - chance) / (limit - chance))))
}

/// Average precision: the precision at each distinct score, weighted by the recall gained there;
/// the step-wise sum of scikit-learn's `average_precision_score`, without interpolation.
///
/// `None` when there is no positive. Without a negative it is 1.
pub fn average_precision(scored: Scored<'_>) -> Option<f64> {
    average_precision_of_sorted(Sorter::default().sort(scored.scores(), scored.labels()))
}

pub(crate) fn auc_of_sorted(entries: &[Entry]) -> Option<f64> {
    let (mut twice_wins, mut positives, mut negatives) = (0_u64, 0_u64, 0_u64);
    let mut rest = entries.iter().peekable();
    while let Some(first) = rest.next() {
        let mut tied_positives = u64::from(first.label());
        let mut tied = 1;
        while let Some(entry) = rest.next_if(|entry| entry.key() == first.key()) {
            tied_positives += u64::from(entry.label());
            tied += 1;
        }
        let tied_negatives = tied - tied_positives;
        twice_wins += tied_positives * (2 * negatives + tied_negatives);
        positives += tied_positives;
        negatives += tied_negatives;
    }
    ratio(twice_wins, 2 * positives * negatives)
}

pub(crate) fn average_precision_of_sorted(entries: &[Entry]) -> Option<f64> {
    let (mut area, mut positives, mut predicted) = (0.0, 0_u64, 0_u64);
    for group in tie_groups(entries).rev() {
        let (gained, _) = count_labels(group);
        positives += gained;
        predicted += group.len() as u64;
        area += gained as f64 * (positives as f64 / predicted as f64);
    }
    (positives > 0).then(|| area / positives as f64)
}

/// `None` for 0 / 0.
pub(crate) fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
