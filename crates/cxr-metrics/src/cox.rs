//! Whether probabilities are right on the whole, and whether they are too extreme: Cox's calibration
//! intercept and slope.

use crate::clusters::Clusters;
use crate::error::MetricError;
use crate::interval::{Interval, Level};
use crate::logistic::fit_line;
use crate::scaling::sigmoid;
use crate::scored::Scored;

/// An estimate with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Coefficient {
    /// The estimate.
    pub value: f64,
    /// Its standard error by the sandwich of cluster sums (Liang & Zeger 1986), G/(G−1) for G clusters;
    /// `None` when the rarer class is in one cluster.
    pub standard_error: Option<f64>,
    /// The clusters of the rarer class, less one; `None` likewise.
    pub degrees_of_freedom: Option<f64>,
}

impl Coefficient {
    /// value ± t·se with Student's t; `None` without a standard error. The degrees of freedom are a rule of
    /// thumb, and the coverage of this interval has not been simulated.
    pub fn interval(&self, level: Level) -> Option<Interval> {
        let half = level.t(self.degrees_of_freedom?) * self.standard_error?;
        Some(Interval {
            lower: self.value - half,
            upper: self.value + half,
            level,
        })
    }
}

/// How logits must be changed to fit what is observed (Cox 1958; Van Calster et al. 2019): the logistic
/// regression of the truth on the logit, logit P(finding) = intercept + slope·logit.
///
/// ```
/// use cxr_metrics::{CoxCalibration, Scored};
/// // Ten patients at logit 2 of whom six have the finding, ten at −2 of whom four have it.
/// let logits: Vec<f64> = [2.0, -2.0].into_iter().flat_map(|x| [x; 10]).collect();
/// let labels: Vec<bool> = [6, 4].into_iter().flat_map(|with| (0..10).map(move |at| at < with)).collect();
/// let found = CoxCalibration::fit(Scored::new(&logits, &labels)?, None)?.unwrap();
/// assert!((found.slope.value - 1.5_f64.ln() / 2.0).abs() < 1e-12); // far too extreme
/// assert!(found.intercept.value.abs() < 1e-12 && found.in_the_large.value.abs() < 1e-12);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct CoxCalibration {
    /// 1 where logits are neither too extreme (below 1) nor too timid (above).
    pub slope: Coefficient,
    /// The intercept beside that slope; 0 where the slope is 1 and probabilities are right on the whole.
    pub intercept: Coefficient,
    /// Calibration in the large: the intercept where the slope is held at 1. Above 0, the finding is more
    /// frequent than the probabilities say.
    pub in_the_large: Coefficient,
}

impl CoxCalibration {
    /// Fits by maximum likelihood, errors by cluster (patient) where clusters are given, else with every
    /// image taken as independent.
    ///
    /// `None` where there is no maximum: a class is absent, no positive's logit is below a negative's, or the
    /// reverse, or all logits are equal.
    ///
    /// # Errors
    /// [`MetricError::Length`] unless there is one cluster per example.
    pub fn fit(logits: Scored<'_>, clusters: Option<&[u64]>) -> Result<Option<Self>, MetricError> {
        let clusters = Clusters::or_singletons(clusters, logits.len())?;
        let pairs = || {
            let targets = logits
                .labels()
                .iter()
                .map(|&label| f64::from(u8::from(label)));
            logits.scores().iter().zip(targets)
        };
        if !overlap(logits) {
            return Ok(None);
        }
        let [slope, intercept] = fit_line(pairs());
        let level = offset(pairs());
        let known = Information::of(pairs(), slope, intercept, &clusters);
        let of_level = Information::of(pairs(), 1.0, level, &clusters);
        let rarer = logits.positives() <= logits.negatives();
        let degrees_of_freedom = clusters_with(logits.labels(), rarer, &clusters) as f64 - 1.0;
        let coefficient = |value, variance: f64| {
            let has_error = degrees_of_freedom > 0.0 && variance.is_finite();
            Coefficient {
                value,
                standard_error: has_error.then(|| variance.sqrt()),
                degrees_of_freedom: has_error.then_some(degrees_of_freedom),
            }
        };
        let [of_slope, of_intercept] = known.variances();
        Ok(Some(Self {
            slope: coefficient(slope, of_slope),
            intercept: coefficient(intercept, of_intercept),
            in_the_large: coefficient(level, of_level.variance_of_intercept_alone()),
        }))
    }
}

/// Whether the classes' logits overlap both ways, without which a slope has no finite estimate.
fn overlap(logits: Scored<'_>) -> bool {
    let range = |class: bool| {
        let of_class = logits.scores().iter().zip(logits.labels());
        of_class
            .filter(|&(_, &label)| label == class)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (x, _)| {
                (low.min(x), high.max(x))
            })
    };
    let ((low, high), (low_without, high_without)) = (range(true), range(false));
    low < high_without && low_without < high
}

/// The intercept at which the probabilities add up to the positives, by halving.
fn offset(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let excess = |by: f64| -> f64 { pairs.clone().map(|(x, y)| sigmoid(x + by) - y).sum() };
    let (mut low, mut high) = (-1.0, 1.0);
    while excess(low) > 0.0 {
        low *= 2.0;
    }
    while excess(high) < 0.0 {
        high *= 2.0;
    }
    loop {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            return middle;
        }
        *(if excess(middle) > 0.0 {
            &mut high
        } else {
            &mut low
        }) = middle;
    }
}

fn clusters_with(labels: &[bool], class: bool, clusters: &Clusters) -> usize {
    let mut has = vec![false; clusters.len()];
    for (&label, &cluster) in labels.iter().zip(clusters.of_row()) {
        has[cluster as usize] |= label == class;
    }
    has.into_iter().filter(|&has| has).count()
}

/// Curvature of the log-likelihood and spread of its gradient over clusters: of x·x, x·1 and 1·1.
struct Information {
    curvature: [f64; 3],
    spread: [f64; 3],
}

impl Information {
    fn of(
        pairs: impl Iterator<Item = (f64, f64)>,
        slope: f64,
        intercept: f64,
        clusters: &Clusters,
    ) -> Self {
        let mut curvature = [0.0; 3];
        let mut sums = vec![[0.0; 2]; clusters.len()];
        for ((x, y), &cluster) in pairs.zip(clusters.of_row()) {
            let p = sigmoid(slope * x + intercept);
            let own = p * (1.0 - p);
            curvature[0] += own * x * x;
            curvature[1] += own * x;
            curvature[2] += own;
            let sum = &mut sums[cluster as usize];
            sum[0] += (y - p) * x;
            sum[1] += y - p;
        }
        let count = clusters.len() as f64;
        let mut spread = [0.0; 3];
        for [of_x, of_one] in sums {
            spread[0] += of_x * of_x;
            spread[1] += of_x * of_one;
            spread[2] += of_one * of_one;
        }
        Self {
            curvature,
            spread: spread.map(|sum| sum * count / (count - 1.0)),
        }
    }

    /// Of slope and intercept: the diagonal of H⁻¹·S·H⁻¹.
    fn variances(&self) -> [f64; 2] {
        let [xx, x, one] = self.curvature;
        let determinant = xx * one - x * x;
        let quadratic = |[a, b]: [f64; 2]| {
            let [s_xx, s_x, s_one] = self.spread;
            (a * a * s_xx + 2.0 * a * b * s_x + b * b * s_one) / (determinant * determinant)
        };
        [quadratic([one, -x]), quadratic([-x, xx])]
    }

    fn variance_of_intercept_alone(&self) -> f64 {
        self.spread[2] / (self.curvature[2] * self.curvature[2])
    }
}
