use crate::scored::{Scored, Scores};
use crate::sorted::{Entry, Sorter, count_labels, tie_groups};

/// A point of a ROC curve: the rates when every score at or above the threshold is called positive.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RocPoint {
    /// Negatives called positive, as a share of all negatives.
    pub false_positive_rate: f64,
    /// Positives called positive, as a share of all positives: sensitivity, recall.
    pub true_positive_rate: f64,
    /// A score that occurs; +∞ at the first point, where nothing is called positive.
    #[cfg_attr(feature = "serde", serde(with = "crate::infinite"))]
    pub threshold: f64,
}

/// A ROC curve: one point per distinct score, from (0, 0) to (1, 1) by falling threshold.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RocCurve {
    /// The points in the order of falling thresholds; both rates never fall.
    pub points: Vec<RocPoint>,
}

impl RocCurve {
    /// The same line through fewer points: those inside a horizontal or vertical stretch are left
    /// out, so that a curve of 25,000 images can be drawn with a few thousand.
    pub fn corners(&self) -> Self {
        let on_a_line = |a: &RocPoint, b: &RocPoint, c: &RocPoint| {
            (a.false_positive_rate == b.false_positive_rate
                && b.false_positive_rate == c.false_positive_rate)
                || (a.true_positive_rate == b.true_positive_rate
                    && b.true_positive_rate == c.true_positive_rate)
        };
        let mut points: Vec<RocPoint> = Vec::new();
        for (at, point) in self.points.iter().enumerate() {
            let kept = match (points.last(), self.points.get(at + 1)) {
                (Some(before), Some(after)) => !on_a_line(before, point, after),
                _ => true,
            };
            if kept {
                points.push(*point);
            }
        }
        Self { points }
    }

    /// The area by the trapezoid rule; [`roc_auc`](crate::roc_auc) without its exact counting.
    pub fn area(&self) -> f64 {
        self.points
            .windows(2)
            .map(|pair| {
                (pair[1].false_positive_rate - pair[0].false_positive_rate)
                    * (pair[1].true_positive_rate + pair[0].true_positive_rate)
                    / 2.0
            })
            .sum()
    }
}

/// A point of a precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PrPoint {
    /// Positives called positive, as a share of all positives.
    pub recall: f64,
    /// Positives called positive, as a share of all that is called positive.
    pub precision: f64,
    /// A score that occurs; +∞ at the first point, where nothing is called positive and the
    /// precision is 1 by convention.
    #[cfg_attr(feature = "serde", serde(with = "crate::infinite"))]
    pub threshold: f64,
}

/// A precision-recall curve: one point per distinct score by falling threshold, after the
/// conventional (recall 0, precision 1).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PrCurve {
    /// The points in the order of falling thresholds; recall never falls.
    pub points: Vec<PrPoint>,
}

/// The ROC curve; `None` when either class is absent.
pub fn roc_curve(scored: Scored<'_>) -> Option<RocCurve> {
    let mut sorter = Sorter::default();
    let entries = sorter.sort(scored.scores(), scored.labels());
    let points = roc_points(entries, scored.scores())?;
    Some(RocCurve {
        points: points.collect(),
    })
}

/// The precision-recall curve; `None` when there is no positive.
pub fn pr_curve(scored: Scored<'_>) -> Option<PrCurve> {
    let mut sorter = Sorter::default();
    let entries = sorter.sort(scored.scores(), scored.labels());
    let (positives, _) = count_labels(entries);
    if positives == 0 {
        return None;
    }
    let start = PrPoint {
        recall: 0.0,
        precision: 1.0,
        threshold: f64::INFINITY,
    };
    let points = std::iter::once(start)
        .chain(cut_offs(entries, scored.scores()).map(|cut| PrPoint {
            recall: cut.true_positives as f64 / positives as f64,
            precision: cut.true_positives as f64
                / (cut.true_positives + cut.false_positives) as f64,
            threshold: cut.threshold,
        }))
        .collect();
    Some(PrCurve { points })
}

/// The points of the ROC curve, without storing them.
pub(crate) fn roc_points<'a>(
    entries: &'a [Entry],
    scores: Scores<'a>,
) -> Option<impl Iterator<Item = RocPoint> + 'a> {
    let (positives, negatives) = count_labels(entries);
    if positives == 0 || negatives == 0 {
        return None;
    }
    let start = RocPoint {
        false_positive_rate: 0.0,
        true_positive_rate: 0.0,
        threshold: f64::INFINITY,
    };
    Some(
        std::iter::once(start).chain(cut_offs(entries, scores).map(move |cut| RocPoint {
            false_positive_rate: cut.false_positives as f64 / negatives as f64,
            true_positive_rate: cut.true_positives as f64 / positives as f64,
            threshold: cut.threshold,
        })),
    )
}

/// What is called positive when the threshold is one of the scores.
#[derive(Clone, Copy)]
pub(crate) struct CutOff {
    pub(crate) threshold: f64,
    pub(crate) true_positives: u64,
    pub(crate) false_positives: u64,
}

/// One cut-off per distinct score, by falling threshold.
pub(crate) fn cut_offs<'a>(
    entries: &'a [Entry],
    scores: Scores<'a>,
) -> impl Iterator<Item = CutOff> + 'a {
    tie_groups(entries)
        .rev()
        .scan((0, 0), move |(true_positives, false_positives), group| {
            let (positives, negatives) = count_labels(group);
            *true_positives += positives;
            *false_positives += negatives;
            Some(CutOff {
                threshold: scores.get(group.first()?.row())? + 0.0,
                true_positives: *true_positives,
                false_positives: *false_positives,
            })
        })
}
