//! The variance of an AUC's logit where the AUC is near 0 or 1.
//!
//! An AUC of 0.97 rests on the few hard cases. A sample that happens to lack them has an AUC too
//! high *and* an estimated error too small, so that the interval lies above the truth far more
//! often than it should. Two things mend most of that: the jackknife of the logit itself, which
//! sees how much the logit would move if a hard case were missing, and a little of what the error
//! should be at such an AUC by a model, which does not share the sample's luck.

use crate::cluster_sums::ClassSums;
use crate::delong::{Classes, RowClusters};
use crate::normal;
use crate::scaling::logit;
use crate::sorted::{Entry, tie_groups};

/// How far from 1/2 an AUC is where moderation sets in, and over what distance it becomes full.
const BEGIN: f64 = 0.40;
const RAMP: f64 = 0.05;

/// The jackknife's variance is at most so many times the plain one. A single case that has most of the wrong pairs moves the
/// logit by several units when it is left out, which says that the case is rare, not that the AUC may be one half.
const MOST_TIMES_PLAIN: f64 = 2.0;

/// What the model's variance counts for, in degrees of freedom, beside an estimate that has so many:
/// 4.7 beside 4, 8.4 beside 34, and a share that fades, as heavy tails make an estimate worse than its
/// degrees of freedom say, and hundreds of patients know better than a model.
fn prior_degrees(degrees_of_freedom: f64) -> f64 {
    4.0 * (1.0 + degrees_of_freedom / 10.0).sqrt()
}

/// How much of the variance is the moderated one, 0 … 1.
fn weight(auc: f64) -> f64 {
    (((auc - 0.5).abs() - BEGIN) / RAMP).clamp(0.0, 1.0)
}

/// The degrees of freedom that the model adds to those of the variance.
pub(crate) fn added_degrees(auc: f64, degrees_of_freedom: f64) -> f64 {
    prior_degrees(degrees_of_freedom) * weight(auc)
}

/// What the moderated variance is made of, beyond the plain one.
pub(crate) struct Sources<'a> {
    pub(crate) classes: &'a Classes,
    /// Per cluster, how often its positives outrank its own negatives, ties one half.
    pub(crate) within: Vec<f64>,
}

/// The variance of logit(`auc`) to use, 0 < `auc` < 1: `plain` in the middle, towards the ends
/// (ν·jackknife + κ·model)/(ν + κ). `sources` is called only where they are needed.
pub(crate) fn moderate<'a>(
    plain: f64,
    degrees_of_freedom: f64,
    auc: f64,
    sources: impl FnOnce() -> Sources<'a>,
) -> f64 {
    let weight = weight(auc);
    if weight == 0.0 {
        return plain;
    }
    let sources = sources();
    let jackknife = jackknife(&sources, auc).min(MOST_TIMES_PLAIN * plain);
    let model = binormal(sources.classes, auc);
    let prior = prior_degrees(degrees_of_freedom);
    let moderated = (degrees_of_freedom * jackknife + prior * model) / (degrees_of_freedom + prior);
    (1.0 - weight) * plain + weight * moderated
}

/// The delete-one-cluster jackknife of the logit, (K−1)/K·Σ(Lₖ − L̄)². Without a cluster the AUC may
/// be 0 or 1; it is then taken half a pair away, so that its logit is finite.
fn jackknife(sources: &Sources<'_>, auc: f64) -> f64 {
    let Classes {
        positives,
        negatives,
    } = sources.classes;
    let (m, n) = (positives.n_images(), negatives.n_images());
    let logits: Vec<f64> = (0..sources.within.len())
        .filter_map(|cluster| {
            let own_m = f64::from(positives.sizes()[cluster]);
            let own_n = f64::from(negatives.sizes()[cluster]);
            // A placement is a share of wins: the sums of placements, not of deviations, count.
            let wins_of_positives = (positives.deviations()[cluster] + own_m * auc) * n;
            let wins_over_negatives = (negatives.deviations()[cluster] + own_n * auc) * m;
            let wins =
                auc * m * n - wins_of_positives - wins_over_negatives + sources.within[cluster];
            let pairs = (m - own_m) * (n - own_n);
            (own_m + own_n > 0.0).then(|| logit(wins.clamp(0.5, pairs - 0.5) / pairs))
        })
        .collect();
    let count = logits.len() as f64;
    let mean = logits.iter().sum::<f64>() / count;
    let squares: f64 = logits.iter().map(|value| (value - mean).powi(2)).sum();
    (count - 1.0) / count * squares
}

/// The variance of the logit if scores of both classes were normal with one variance, for the
/// effective numbers of images. A placement then has the variance P(both of two positives lose to
/// one negative) − (1 − AUC)², and the two comparisons are correlated by 1/2.
fn binormal(classes: &Classes, auc: f64) -> f64 {
    let error = auc.min(1.0 - auc);
    let both_lose = normal::both_above(-normal::quantile(error));
    let of_a_placement = (both_lose - error * error).max(0.0);
    let images = |class: &ClassSums| class.effective_images();
    let per_image = 1.0 / images(&classes.positives) + 1.0 / images(&classes.negatives);
    of_a_placement * per_image / (auc * (1.0 - auc)).powi(2)
}

/// Per cluster, how often its positives outrank its own negatives, ties one half.
pub(crate) fn wins_within(entries: &[Entry], (of_row, n_clusters): RowClusters<'_>) -> Vec<f64> {
    let mut twice_wins = vec![0_u64; n_clusters];
    let mut negatives_below = vec![0_u64; n_clusters];
    let cluster = |entry: &Entry| of_row[entry.row()] as usize;
    for group in tie_groups(entries) {
        // Once before and once after the tie's own negatives: they count one half.
        let add = |twice_wins: &mut [u64], negatives: &[u64]| {
            for entry in group.iter().filter(|entry| entry.label()) {
                twice_wins[cluster(entry)] += negatives[cluster(entry)];
            }
        };
        add(&mut twice_wins, &negatives_below);
        for entry in group.iter().filter(|entry| !entry.label()) {
            negatives_below[cluster(entry)] += 1;
        }
        add(&mut twice_wins, &negatives_below);
    }
    twice_wins
        .into_iter()
        .map(|twice| twice as f64 / 2.0)
        .collect()
}
