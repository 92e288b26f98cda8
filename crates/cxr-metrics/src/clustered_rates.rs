//! Sensitivity, specificity and predictive values when images come in clusters (patients).

use crate::cluster_sums::ClassSums;
use crate::clusters::Clusters;
use crate::decision::Confusion;
use crate::delong::is_approximate;
use crate::error::{MetricError, check_length};
use crate::interval::{Interval, Level, Proportion, wilson};

/// A share of a count whose examples come in clusters, such as a sensitivity over several films of
/// each patient.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ClusteredProportion {
    /// The count.
    pub proportion: Proportion,
    /// The number of independent examples that would give the variance between clusters, p(1−p)/V,
    /// at most [`Proportion::of`]; where V is 0, as for a share of 0 or 1, Kish's effective
    /// number of clusters (1965). `None` when all examples are of one cluster.
    pub effective_n: Option<f64>,
    /// The degrees of freedom of V: those of the numbers of images as for
    /// [`AucEstimate`](crate::AucEstimate), or, where fewer, 2·(ΣS²)²/ΣS⁴ of the sums S of deviations
    /// within clusters: a predictive value of 0.997 rests on the few patients with a miss. `None` likewise.
    pub degrees_of_freedom: Option<f64>,
}

impl ClusteredProportion {
    /// Wilson's score interval for [`Self::effective_n`]·(z/t)² examples, with the quantiles of the
    /// normal and of Student's distribution (after Korn & Graubard 1998). It stays in [0, 1] and has
    /// width even at 0 and 1. `None` when all examples are of one cluster.
    pub fn wilson(&self, level: Level) -> Option<Interval> {
        let by_t = level.z() / level.t(self.degrees_of_freedom?);
        let n = self.effective_n? * by_t * by_t;
        Some(wilson(self.proportion.value(), n, level))
    }

    /// Whether there are fewer than [`APPROXIMATE_BELOW`](crate::APPROXIMATE_BELOW) degrees of freedom.
    pub fn is_approximate(&self) -> bool {
        is_approximate(self.degrees_of_freedom)
    }
}

/// A [`Confusion`] whose rates know about patients. Every rate is `None` where its denominator is 0.
///
/// ```
/// use cxr_metrics::{ClusteredRates, Level};
/// // Four patients with three films each; a patient's films are all called alike.
/// let patients = [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4];
/// let called = [true, true, true, true, true, true, true, true, true, false, false, false];
/// let rates = ClusteredRates::of_calls(&called, &[true; 12], &patients)?;
/// let sensitivity = rates.sensitivity.unwrap();
/// assert_eq!(sensitivity.proportion.value(), 0.75);
/// // Twelve films that say no more than three independent ones, with three degrees of freedom.
/// assert!((sensitivity.effective_n.unwrap() - 3.0).abs() < 1e-12);
/// assert!((sensitivity.degrees_of_freedom.unwrap() - 3.0).abs() < 1e-12);
/// let by_patient = sensitivity.wilson(Level::P95).unwrap();
/// let by_image = sensitivity.proportion.wilson(Level::P95);
/// assert!(by_patient.lower < by_image.lower && by_patient.upper > by_image.upper);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ClusteredRates {
    /// The counts, and with them the measures that have no interval.
    pub counts: Confusion,
    /// Share of the positives that is called; `None` without positives.
    pub sensitivity: Option<ClusteredProportion>,
    /// Share of the negatives that is not called; `None` without negatives.
    pub specificity: Option<ClusteredProportion>,
    /// Share of the called that is positive; `None` when nothing is called.
    pub ppv: Option<ClusteredProportion>,
    /// Share of the not called that is negative; `None` when everything is called.
    pub npv: Option<ClusteredProportion>,
    /// The share that is right; `None` without examples.
    pub accuracy: Option<ClusteredProportion>,
}

impl ClusteredRates {
    /// Counts calls against truth by cluster.
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there are as many calls and clusters as labels.
    pub fn of_calls(
        called_positive: &[bool],
        labels: &[bool],
        clusters: &[u64],
    ) -> Result<Self, MetricError> {
        check_length("calls, one per label", labels.len(), called_positive.len())?;
        let clusters = Clusters::new(clusters, labels.len())?;
        let counts = Confusion::of_calls(called_positive, labels)?;
        let rate = |proportion: Option<Proportion>,
                    counts_in: &dyn Fn(bool, bool) -> bool,
                    is_hit: &dyn Fn(bool, bool) -> bool| {
            let proportion = proportion?;
            let mut sums = ClassSums::new(clusters.len());
            let calls = called_positive.iter().zip(labels).zip(clusters.of_row());
            for ((&called, &label), &cluster) in calls {
                if counts_in(called, label) {
                    let hit = f64::from(u8::from(is_hit(called, label)));
                    sums.add(cluster as usize, hit - proportion.value());
                }
            }
            Some(clustered(proportion, &sums))
        };
        let right = |called: bool, label: bool| called == label;
        Ok(Self {
            counts,
            sensitivity: rate(counts.sensitivity(), &|_, label| label, &right),
            specificity: rate(counts.specificity(), &|_, label| !label, &right),
            ppv: rate(counts.ppv(), &|called, _| called, &right),
            npv: rate(counts.npv(), &|called, _| !called, &right),
            accuracy: rate(counts.accuracy(), &|_, _| true, &right),
        })
    }
}

fn clustered(proportion: Proportion, sums: &ClassSums) -> ClusteredProportion {
    let p = proportion.value();
    let (mut effective_n, mut degrees_of_freedom) = (None, None);
    if let Some(variance) = sums.variance() {
        let n = if variance > 0.0 && p > 0.0 && p < 1.0 {
            (p * (1.0 - p) / variance).min(proportion.of as f64)
        } else {
            sums.kish()
        };
        effective_n = Some(n);
        let of_sizes = sums.degrees_of_freedom(1.0);
        let observed = sums
            .observed_degrees_of_freedom()
            .filter(|_| variance > 0.0);
        degrees_of_freedom = Some(observed.map_or(of_sizes, |observed| observed.min(of_sizes)));
    }
    ClusteredProportion {
        proportion,
        effective_n,
        degrees_of_freedom,
    }
}
