//! Intervals for any statistic by resampling images, or patients with all their images.
//!
//! A replicate is a list of weights: how often each image was drawn. Every label is sorted once
//! beforehand, so that a replicate's AUC is one pass over the sorted images that adds weights up
//! in integers; nothing is copied or sorted again.

use crate::clusters::Clusters;
use crate::curve::CutOff;
use crate::decision::Confusion;
use crate::error::MetricError;
use crate::interval::{Interval, Level};
use crate::multi_label::{Column, MultiLabel, mean};
use crate::normal;
use crate::operating_point::{OperatingPoint, OperatingRule};
use crate::random::ChaCha8;
use crate::ranking::ratio;
use crate::sorted::{Sorter, tie_groups};

/// How an interval is read off the replicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum IntervalMethod {
    /// The quantiles of the replicates, interpolated linearly.
    #[default]
    Percentile,
    /// Bias-corrected and accelerated (Efron 1987): second-order accurate. The acceleration comes
    /// from the jackknife by cluster: one evaluation of the statistic per cluster, those without
    /// which it is undefined not counting.
    Bca,
}

/// How to resample.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BootstrapConfig {
    /// The number of replicates; 2,000 by default.
    pub replicates: usize,
    /// Names the draws: the same seed gives the same interval on any number of threads; 0 by default.
    pub seed: u64,
    /// The confidence level; 95 % by default.
    pub level: Level,
    /// How the interval is read off; percentile by default.
    pub method: IntervalMethod,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self {
            replicates: 2000,
            seed: 0,
            level: Level::P95,
            method: IntervalMethod::Percentile,
        }
    }
}

/// A statistic with its bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BootstrapEstimate {
    /// The statistic of the data as they are.
    pub estimate: f64,
    /// The standard deviation of the replicates; `None` with fewer than two.
    pub standard_error: Option<f64>,
    /// The interval; `None` when no replicate was defined, or for BCa when the replicates lie all
    /// on one side of the estimate.
    pub interval: Option<Interval>,
    /// The replicates that count.
    pub replicates: usize,
    /// The replicates in which the statistic was undefined.
    pub skipped: usize,
}

/// The interval of a statistic of many labels.
///
/// Images are drawn with replacement, or, with `clusters`, whole patients with all their images.
/// The `statistic` sees a [`Resample`]; one for which it returns `None` or NaN is skipped and counted.
/// Returns `None` when the statistic is undefined for the data as they are.
///
/// ```
/// use cxr_metrics::{BootstrapConfig, MultiLabel, bootstrap};
/// let scores = [0.1, 0.4, 0.35, 0.8, 0.7, 0.2, 0.6, 0.9];
/// let labels = [false, false, true, true, true, false, false, true];
/// let patients = [1, 1, 2, 3, 4, 5, 6, 7];
/// let data = MultiLabel::new(["Effusion"], &scores, &labels, None)?;
/// let config = BootstrapConfig { replicates: 500, seed: 7, ..Default::default() };
/// let auc = bootstrap(&data, Some(&patients), &config, |resample| resample.macro_auc())?.unwrap();
/// assert_eq!(auc.estimate, 0.875);
/// assert!(auc.interval.unwrap().contains(auc.estimate));
/// assert_eq!(auc.replicates + auc.skipped, 500);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
///
/// # Errors
/// [`MetricError::Length`] unless there is one cluster per image.
pub fn bootstrap(
    data: &MultiLabel,
    clusters: Option<&[u64]>,
    config: &BootstrapConfig,
    statistic: impl Fn(&Resample<'_>) -> Option<f64> + Sync,
) -> Result<Option<BootstrapEstimate>, MetricError> {
    let plans = Plan::of_all(data);
    resample_many(data.n_images(), clusters, config, |weights| {
        statistic(&Resample {
            data,
            plans: &plans,
            weights,
        })
    })
}

/// The interval of the difference of a statistic between two models on the same images, first
/// minus second, both seeing the same draws.
///
/// # Errors
/// As for [`bootstrap`], and [`MetricError::Mismatch`] when labels or truth of the two differ.
pub fn paired_bootstrap(
    a: &MultiLabel,
    b: &MultiLabel,
    clusters: Option<&[u64]>,
    config: &BootstrapConfig,
    statistic: impl Fn(&Resample<'_>) -> Option<f64> + Sync,
) -> Result<Option<BootstrapEstimate>, MetricError> {
    a.check_paired(b)?;
    let (plans_a, plans_b) = (Plan::of_all(a), Plan::of_all(b));
    resample_many(a.n_images(), clusters, config, |weights| {
        let of_a = statistic(&Resample {
            data: a,
            plans: &plans_a,
            weights,
        })?;
        Some(
            of_a - statistic(&Resample {
                data: b,
                plans: &plans_b,
                weights,
            })?,
        )
    })
}

/// The data as one replicate sees them: each image counted as often as it was drawn.
#[derive(Clone, Copy, Debug)]
pub struct Resample<'a> {
    data: &'a MultiLabel,
    plans: &'a [Plan],
    weights: &'a [u16],
}

impl<'a> Resample<'a> {
    /// How often each image was drawn; 0 for those left out.
    pub fn weights(&self) -> &'a [u16] {
        self.weights
    }

    /// The data before resampling.
    pub fn data(&self) -> &'a MultiLabel {
        self.data
    }

    /// The replicate written out, for statistics that take no weights. Copies every image.
    pub fn to_multi_label(&self) -> MultiLabel {
        self.data.with_rows_repeated(self.weights)
    }

    /// The AUC of the label with this index; `None` when a class was not drawn, or there is no
    /// such label.
    pub fn auc(&self, label: usize) -> Option<f64> {
        self.plans.get(label)?.auc(self.weights)
    }

    /// The average precision of the label with this index; `None` when no positive was drawn, or
    /// there is no such label.
    pub fn average_precision(&self, label: usize) -> Option<f64> {
        self.plans.get(label)?.average_precision(self.weights)
    }

    /// What the threshold gets right and wrong for the label with this index, each image counted as
    /// often as it was drawn; `None` when there is no such label.
    ///
    /// ```
    /// use cxr_metrics::{BootstrapConfig, MultiLabel, bootstrap};
    /// let scores = [0.1, 0.4, 0.35, 0.8, 0.7, 0.2, 0.6, 0.9];
    /// let labels = [false, false, true, true, true, false, false, true];
    /// let data = MultiLabel::new(["Effusion"], &scores, &labels, None)?;
    /// let config = BootstrapConfig { replicates: 200, ..Default::default() };
    /// let f1 = bootstrap(&data, None, &config, |resample| resample.confusion(0, 0.5)?.f1())?.unwrap();
    /// assert_eq!(f1.estimate, 0.75);
    /// # Ok::<(), cxr_metrics::MetricError>(())
    /// ```
    pub fn confusion(&self, label: usize, threshold: impl Into<f64>) -> Option<Confusion> {
        Some(
            self.plans
                .get(label)?
                .confusion(self.weights, threshold.into()),
        )
    }

    /// The threshold that meets a rule best for the label with this index, chosen on the images as often
    /// as they were drawn, for intervals that know that a threshold was chosen. `None` as for
    /// [`OperatingRule::choose`], and when there is no such label.
    ///
    /// # Errors
    /// As for [`OperatingRule::choose`].
    pub fn operating_point(
        &self,
        label: usize,
        rule: OperatingRule,
    ) -> Result<Option<OperatingPoint>, MetricError> {
        rule.check()?;
        let Some(plan) = self.plans.get(label) else {
            return Ok(None);
        };
        let (totals, cuts) = plan.cut_offs(self.weights);
        Ok(rule.best(totals, cuts.into_iter()))
    }

    /// The mean AUC over the labels that have one in the data; `None` when a replicate lacks one of
    /// them, so that every replicate is a mean over the same labels.
    pub fn macro_auc(&self) -> Option<f64> {
        self.macro_mean(
            |plan| plan.has_positives && plan.has_negatives,
            |plan| plan.auc(self.weights),
        )
    }

    /// The mean average precision, with the labels chosen as for [`Self::macro_auc`].
    pub fn macro_average_precision(&self) -> Option<f64> {
        self.macro_mean(
            |plan| plan.has_positives,
            |plan| plan.average_precision(self.weights),
        )
    }

    fn macro_mean(
        &self,
        defined: impl Fn(&Plan) -> bool,
        value: impl Fn(&Plan) -> Option<f64>,
    ) -> Option<f64> {
        let values = self.plans.iter().filter(|plan| defined(plan)).map(value);
        let values = values.collect::<Option<Vec<f64>>>()?;
        mean(values.into_iter().map(|value| (Some(value), 1.0))).map(|mean| mean.value)
    }
}

/// One label's images in ascending order of score, those of a tie negatives first.
#[derive(Clone, Debug)]
struct Plan {
    /// Image · 2 + label.
    order: Vec<u32>,
    /// Where each run of equal scores ends in `order`.
    tie_ends: Vec<u32>,
    /// The score of each run.
    tie_scores: Vec<f64>,
    /// The runs that hold both classes: begin, first positive, end.
    mixed_ties: Vec<[u32; 3]>,
    has_positives: bool,
    has_negatives: bool,
}

impl Plan {
    fn of_all(data: &MultiLabel) -> Vec<Self> {
        let mut sorter = Sorter::default();
        data.columns()
            .iter()
            .map(|column| Self::of(column, &mut sorter))
            .collect()
    }

    fn of(column: &Column, sorter: &mut Sorter) -> Self {
        let scores = column.scores.borrow();
        let entries = sorter.sort(scores, &column.labels);
        let mut plan = Self {
            order: Vec::with_capacity(entries.len()),
            tie_ends: Vec::new(),
            tie_scores: Vec::new(),
            mixed_ties: Vec::new(),
            has_positives: false,
            has_negatives: false,
        };
        for group in tie_groups(entries) {
            let begin = plan.order.len() as u32;
            for class in [false, true] {
                let of_class = group.iter().filter(|entry| entry.label() == class);
                plan.order.extend(of_class.map(|entry| {
                    let at = entry.row();
                    let image = column.rows.as_ref().map_or(at as u32, |rows| rows[at]);
                    image << 1 | u32::from(class)
                }));
            }
            let end = plan.order.len() as u32;
            let negatives = group.iter().filter(|entry| !entry.label()).count() as u32;
            plan.has_negatives |= negatives > 0;
            plan.has_positives |= begin + negatives < end;
            if negatives > 0 && begin + negatives < end {
                plan.mixed_ties.push([begin, begin + negatives, end]);
            }
            plan.tie_ends.push(end);
            let score = group.first().and_then(|entry| scores.get(entry.row()));
            plan.tie_scores.extend(score.map(|score| score + 0.0));
        }
        plan
    }

    /// Without branches on data: a tie's negatives come first, so its positives count all of them
    /// as outranked, and the half that is too much is taken back afterwards where it matters.
    fn auc(&self, weights: &[u16]) -> Option<f64> {
        let (mut wins, mut positives, mut negatives) = (0_u64, 0_u64, 0_u64);
        for &image_and_label in &self.order {
            let weight = u64::from(weights[(image_and_label >> 1) as usize]);
            let if_positive = weight & u64::from(image_and_label & 1).wrapping_neg();
            wins += if_positive * negatives;
            positives += if_positive;
            negatives += weight - if_positive;
        }
        let sum = |from: u32, to: u32| -> u64 {
            self.order[from as usize..to as usize]
                .iter()
                .map(|image_and_label| u64::from(weights[(image_and_label >> 1) as usize]))
                .sum()
        };
        let twice_excess: u64 = self
            .mixed_ties
            .iter()
            .map(|&[begin, first_positive, end]| {
                sum(begin, first_positive) * sum(first_positive, end)
            })
            .sum();
        ratio(2 * wins - twice_excess, 2 * positives * negatives)
    }

    /// Positives and negatives among the images in a stretch of the order.
    fn count(&self, from: u32, to: u32, weights: &[u16]) -> (u64, u64) {
        let (mut positives, mut all) = (0, 0);
        for image_and_label in &self.order[from as usize..to as usize] {
            let weight = u64::from(weights[(image_and_label >> 1) as usize]);
            positives += weight * u64::from(image_and_label & 1);
            all += weight;
        }
        (positives, all - positives)
    }

    fn confusion(&self, weights: &[u16], threshold: f64) -> Confusion {
        let below = self
            .tie_scores
            .partition_point(|&score| score < threshold || threshold.is_nan());
        // Nothing is below the first run.
        let begin = below.checked_sub(1).map_or(0, |run| self.tie_ends[run]);
        let end = self.order.len() as u32;
        let (false_negatives, true_negatives) = self.count(0, begin, weights);
        let (true_positives, false_positives) = self.count(begin, end, weights);
        Confusion {
            true_positives,
            false_positives,
            true_negatives,
            false_negatives,
        }
    }

    /// Positives and negatives in all, and one cut-off per score that was drawn, by falling threshold.
    fn cut_offs(&self, weights: &[u16]) -> ((u64, u64), Vec<CutOff>) {
        let (mut true_positives, mut false_positives) = (0, 0);
        let mut cuts = Vec::with_capacity(self.tie_ends.len());
        for run in (0..self.tie_ends.len()).rev() {
            let begin = run.checked_sub(1).map_or(0, |before| self.tie_ends[before]);
            let (positives, negatives) = self.count(begin, self.tie_ends[run], weights);
            if positives + negatives > 0 {
                true_positives += positives;
                false_positives += negatives;
                cuts.push(CutOff {
                    threshold: self.tie_scores[run],
                    true_positives,
                    false_positives,
                });
            }
        }
        ((true_positives, false_positives), cuts)
    }

    fn average_precision(&self, weights: &[u16]) -> Option<f64> {
        let (mut area, mut positives, mut predicted) = (0.0, 0_u64, 0_u64);
        let begins = std::iter::once(&0).chain(&self.tie_ends).rev().skip(1);
        for (&begin, &end) in begins.zip(self.tie_ends.iter().rev()) {
            let mut gained = 0;
            for image_and_label in &self.order[begin as usize..end as usize] {
                let weight = u64::from(weights[(image_and_label >> 1) as usize]);
                predicted += weight;
                gained += weight * u64::from(image_and_label & 1);
            }
            positives += gained;
            if gained > 0 {
                area += gained as f64 * (positives as f64 / predicted as f64);
            }
        }
        (positives > 0).then(|| area / positives as f64)
    }
}

/// Draws weights, evaluates, and reads the interval off.
fn resample_many(
    n_images: usize,
    clusters: Option<&[u64]>,
    config: &BootstrapConfig,
    statistic: impl Fn(&[u16]) -> Option<f64> + Sync,
) -> Result<Option<BootstrapEstimate>, MetricError> {
    let clusters = Clusters::or_singletons(clusters, n_images)?;
    let Some(estimate) = statistic(&vec![1; n_images]) else {
        return Ok(None);
    };
    let drawn = evaluate(config.replicates, &|buffers: &mut Buffers, replicate| {
        buffers.draw(&clusters, config.seed, replicate as u64);
        statistic(&buffers.weights)
    });
    let mut replicates: Vec<f64> = drawn
        .into_iter()
        .flatten()
        .filter(|value| !value.is_nan())
        .collect();
    replicates.sort_by(f64::total_cmp);
    let jackknife = match config.method {
        IntervalMethod::Percentile => Vec::new(),
        IntervalMethod::Bca => evaluate(clusters.len(), &|buffers: &mut Buffers, left_out| {
            buffers.leave_out(&clusters, left_out);
            statistic(&buffers.weights)
        }),
    };
    let tail = (1.0 - config.level.get()) / 2.0;
    let tails = match config.method {
        IntervalMethod::Percentile => Some([tail, 1.0 - tail]),
        IntervalMethod::Bca => bca_tails(estimate, &replicates, &jackknife, tail),
    };
    let interval = tails.and_then(|[lower, upper]| {
        let (lower, upper) = (quantile(&replicates, lower)?, quantile(&replicates, upper)?);
        Some(Interval {
            lower,
            upper,
            level: config.level,
        })
    });
    Ok(Some(BootstrapEstimate {
        estimate,
        standard_error: standard_deviation(&replicates),
        interval,
        replicates: replicates.len(),
        skipped: config.replicates - replicates.len(),
    }))
}

#[derive(Clone, Default)]
struct Buffers {
    of_cluster: Vec<u16>,
    weights: Vec<u16>,
}

impl Buffers {
    /// As many clusters as there are, with replacement. A count beyond 65,535 would take as many
    /// draws of one cluster among as many clusters: it saturates rather than wraps.
    fn draw(&mut self, clusters: &Clusters, seed: u64, replicate: u64) {
        let mut rng = ChaCha8::new(seed, replicate);
        self.of_cluster.clear();
        self.of_cluster.resize(clusters.len(), 0);
        for _ in 0..clusters.len() {
            let count = &mut self.of_cluster[rng.below(clusters.len() as u32) as usize];
            *count = count.saturating_add(1);
        }
        self.spread(clusters);
    }

    fn leave_out(&mut self, clusters: &Clusters, left_out: usize) {
        self.of_cluster.clear();
        self.of_cluster.resize(clusters.len(), 1);
        self.of_cluster[left_out] = 0;
        self.spread(clusters);
    }

    fn spread(&mut self, clusters: &Clusters) {
        self.weights.clear();
        let of_image = clusters
            .of_row()
            .iter()
            .map(|&cluster| self.of_cluster[cluster as usize]);
        self.weights.extend(of_image);
    }
}

/// The values for 0 … count−1 in that order.
#[cfg(not(feature = "rayon"))]
fn evaluate(
    count: usize,
    value: &(impl Fn(&mut Buffers, usize) -> Option<f64> + Sync),
) -> Vec<Option<f64>> {
    let mut buffers = Buffers::default();
    (0..count).map(|at| value(&mut buffers, at)).collect()
}

/// The values for 0 … count−1 in that order, whoever computed them.
#[cfg(feature = "rayon")]
fn evaluate(
    count: usize,
    value: &(impl Fn(&mut Buffers, usize) -> Option<f64> + Sync),
) -> Vec<Option<f64>> {
    use rayon::prelude::*;
    (0..count)
        .into_par_iter()
        .map_init(Buffers::default, value)
        .collect()
}

/// The two quantiles that BCa reads instead of α/2 and 1 − α/2 (Efron 1987).
/// Undefined when all replicates lie on one side of the estimate.
fn bca_tails(
    estimate: f64,
    replicates: &[f64],
    jackknife: &[Option<f64>],
    tail: f64,
) -> Option<[f64; 2]> {
    let below = replicates.partition_point(|&value| value < estimate);
    let not_above = replicates.partition_point(|&value| value <= estimate);
    let share_below = (below + not_above) as f64 / 2.0 / replicates.len() as f64;
    if !(share_below > 0.0 && share_below < 1.0) {
        return None;
    }
    let bias = normal::quantile(share_below);
    let left_out: Vec<f64> = jackknife.iter().copied().flatten().collect();
    let centre = left_out.iter().sum::<f64>() / left_out.len() as f64;
    let (squares, cubes) = left_out.iter().fold((0.0, 0.0), |(squares, cubes), value| {
        let deviation = centre - value;
        (squares + deviation.powi(2), cubes + deviation.powi(3))
    });
    let acceleration = if squares > 0.0 {
        cubes / (6.0 * f64::powf(squares, 1.5))
    } else {
        0.0
    };
    Some([tail, 1.0 - tail].map(|tail| {
        let z = bias + normal::quantile(tail);
        normal::cumulative(bias + z / (1.0 - acceleration * z))
    }))
}

/// Interpolated linearly between order statistics, as NumPy does by default.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let position = share * (sorted.len().checked_sub(1)?) as f64;
    let below = position.floor();
    let (low, high) = (
        *sorted.get(below as usize)?,
        *sorted.get(position.ceil() as usize)?,
    );
    Some(low + (high - low) * (position - below))
}

fn standard_deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}
