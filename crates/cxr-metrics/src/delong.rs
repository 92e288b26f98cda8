//! The standard error of an AUC and of a difference of two, and how well each is known.
//!
//! Both come from *placements*: for a positive, the share of negatives it outranks; for a
//! negative, the share of positives that outrank it (ties one half). Their means are the AUC and
//! their spread its error. Sorting gives all placements in O(n log n) (Sun & Xu 2014). The error
//! of a difference is the error formula applied to the differences of placements, which is the
//! covariance form of DeLong, DeLong & Clarke-Pearson (1988) multiplied out.
//!
//! With few patients that have a finding, the error is itself uncertain. Intervals and tests
//! therefore use Student's t with the degrees of freedom that the numbers of images per patient
//! leave; `docs/statistics.md` of the repository has the coverage that this gives.

use crate::cluster_sums::ClassSums;
use crate::clusters::Clusters;
use crate::error::{MetricError, check_length};
use crate::extreme;
use crate::hypothesis::HypothesisVariance;
use crate::interval::{Interval, Level};
use crate::normal;
use crate::satterthwaite::{Component, satterthwaite};
use crate::scaling::logit;
use crate::scored::{Scored, Scores};
use crate::sorted::{Entry, Sorter, count_labels, tie_groups};
use crate::student;

/// Below so many degrees of freedom an interval or a p-value is approximate: its coverage depends
/// on the shape of the scores as well.
pub const APPROXIMATE_BELOW: f64 = 10.0;

/// Why an estimate has no interval, or a difference no p-value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Undefined {
    /// All images of a class are of one cluster (patient), or there is one image of it: nothing
    /// shows how far another cluster would be from it.
    OneCluster,
    /// The estimated error is 0, as where the classes are separated perfectly: the method knows no
    /// better, and an interval of no width would claim certainty.
    NoSpread,
}

/// An AUC with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AucEstimate {
    /// The area under the ROC curve.
    pub auc: f64,
    /// Its estimated standard error; `None` when a class has a single example (or, clustered, lies
    /// in a single cluster), which says nothing about spread. 0 when the classes are separated
    /// perfectly: the method then knows no better.
    pub standard_error: Option<f64>,
    /// The degrees of freedom of the standard error, at least 1: one less than the clusters of the
    /// rarer class where clusters have one size and the other class is common, fewer where sizes
    /// differ (Bell & McCaffrey 2002 for each class with images of a cluster taken as copies, then
    /// Satterthwaite 1946). `None` when the standard error is `None` or 0.
    pub degrees_of_freedom: Option<f64>,
    /// The standard error of logit(AUC) that [`Self::interval`] is made with: se/(AUC·(1−AUC)) for an
    /// AUC between 0.1 and 0.9, moderated towards the ends (see there). `None` where the interval is.
    pub logit_standard_error: Option<f64>,
}

impl AucEstimate {
    /// The interval made on the logit scale and mapped back, so that it stays inside (0, 1) and leans
    /// away from the nearer end (Pepe 2003): logit(auc) ± t·se/(auc·(1−auc)), with t the quantile of
    /// Student's distribution for [`Self::degrees_of_freedom`].
    ///
    /// Above 0.90, and below 0.10, a sample that lacks the few hard cases has an AUC too high and an
    /// error too small. Growing in from there to the full at 0.95 and 0.05, the variance of the logit
    /// is replaced by (ν·V_J + κ·V_B)/(ν + κ) with ν + κ degrees of freedom, κ = 4·√(1 + ν/10): V_J is
    /// the delete-one-cluster jackknife of the logit, at most twice the delta method's variance, V_B what two normal distributions of one variance
    /// would give at this AUC for the effective number of images. With hundreds of clusters the three
    /// agree.
    ///
    /// `None` when the standard error is `None` or 0; [`Self::undefined`] says which.
    pub fn interval(&self, level: Level) -> Option<Interval> {
        let error = self.logit_standard_error?;
        let degrees_of_freedom = self.degrees_of_freedom?;
        let added = extreme::added_degrees(self.auc, degrees_of_freedom);
        let half = level.t(degrees_of_freedom + added) * error;
        Some(logit_interval(self.auc, half, level))
    }

    /// auc ± z·se, cut off at 0 and 1: what pROC and many papers print. [`Self::interval`] covers
    /// better near 0 and 1 and with few positives.
    pub fn wald_interval(&self, level: Level) -> Option<Interval> {
        let half = level.z() * self.standard_error?;
        Some(Interval {
            lower: (self.auc - half).max(0.0),
            upper: (self.auc + half).min(1.0),
            level,
        })
    }

    /// Why there is no interval; `None` when there is one.
    pub fn undefined(&self) -> Option<Undefined> {
        undefined(self.standard_error, self.logit_standard_error.is_some())
    }

    /// Whether there are fewer than [`APPROXIMATE_BELOW`] degrees of freedom.
    pub fn is_approximate(&self) -> bool {
        is_approximate(self.degrees_of_freedom)
    }
}

/// The difference of two AUCs, or of two means of AUCs, on the same examples.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PairedTest {
    /// The first model's AUC.
    pub auc_a: f64,
    /// The second model's AUC.
    pub auc_b: f64,
    /// `auc_a - auc_b`.
    pub difference: f64,
    /// The standard error of the difference; `None` as for [`AucEstimate::standard_error`].
    pub standard_error: Option<f64>,
    /// The degrees of freedom of the standard error, as [`AucEstimate::degrees_of_freedom`], but
    /// with images of a cluster correlated as much as their differences are: differences of two
    /// models are less alike within a patient than scores are. `None` when the error is `None` or 0.
    pub degrees_of_freedom: Option<f64>,
    /// What the p-value is of: for two AUCs a standard normal deviate ([`HypothesisVariance::z`]), for
    /// two means the difference in standard errors, which has Student's distribution. 0 for a model
    /// against itself; `None` where the p-value is.
    pub statistic: Option<f64>,
    /// Two-sided p-value of the statistic; 1 when the difference and its error are 0, as for a model
    /// against itself; `None` when the error is 0 or unknown but the difference is not 0.
    pub p_value: Option<f64>,
    /// The variance of a difference of two AUCs under a hypothesis; `None` for means, and where the
    /// error is `None` or 0.
    pub hypothesis: Option<HypothesisVariance>,
}

impl PairedTest {
    /// Of two means: Student's t.
    pub(crate) fn of_means(
        (auc_a, auc_b): (f64, f64),
        standard_error: Option<f64>,
        degrees_of_freedom: Option<f64>,
    ) -> Self {
        let t = |error: f64, difference: f64| {
            let t = difference / error;
            Some((t, student::two_sided_p(t, degrees_of_freedom?)))
        };
        Self::new((auc_a, auc_b), standard_error, degrees_of_freedom, None, t)
    }

    fn of_aucs(
        aucs: (f64, f64),
        standard_error: Option<f64>,
        degrees_of_freedom: Option<f64>,
        hypothesis: HypothesisVariance,
    ) -> Self {
        let z = |_, difference: f64| {
            let z = hypothesis.z(difference);
            Some((z, normal::two_sided_p(z)))
        };
        let of_spread = standard_error.filter(|&error| error > 0.0);
        let hypothesis = of_spread.map(|_| hypothesis);
        Self::new(aucs, standard_error, degrees_of_freedom, hypothesis, z)
    }

    fn new(
        (auc_a, auc_b): (f64, f64),
        standard_error: Option<f64>,
        degrees_of_freedom: Option<f64>,
        hypothesis: Option<HypothesisVariance>,
        test: impl FnOnce(f64, f64) -> Option<(f64, f64)>,
    ) -> Self {
        let difference = auc_a - auc_b;
        let tested = match standard_error {
            Some(error) if error > 0.0 => test(error, difference),
            Some(_) if difference == 0.0 => Some((0.0, 1.0)),
            _ => None,
        };
        Self {
            auc_a,
            auc_b,
            difference,
            standard_error,
            degrees_of_freedom,
            statistic: tested.map(|(statistic, _)| statistic),
            p_value: tested.map(|(_, p_value)| p_value),
            hypothesis,
        }
    }

    /// The true differences that the test does not reject, within −1 … 1: for two AUCs those with
    /// |z| at most the level's normal quantile ([`HypothesisVariance::z`]), for two means
    /// difference ± t·se. It has 0 inside exactly when the p-value is above 1 − level, and like the
    /// p-value is `None` for a difference without a spread; a model against itself differs by 0 to 0.
    ///
    /// Where about four patients or fewer (by Kish's count) have nearly all the images of a finding, no
    /// difference can be rejected, and the interval of two AUCs runs from −1 to 1.
    pub fn interval(&self, level: Level) -> Option<Interval> {
        self.p_value?;
        let [below, above] = match (self.hypothesis, self.degrees_of_freedom) {
            (Some(hypothesis), _) => hypothesis.accepted(self.difference, level),
            (None, Some(degrees)) => [level.t(degrees) * self.standard_error?; 2],
            (None, None) => [0.0; 2],
        };
        Some(Interval {
            lower: (self.difference - above).max(-1.0),
            upper: (self.difference + below).min(1.0),
            level,
        })
    }

    /// Why there is no p-value; `None` when there is one.
    pub fn undefined(&self) -> Option<Undefined> {
        undefined(self.standard_error, self.p_value.is_some())
    }

    /// Whether there are fewer than [`APPROXIMATE_BELOW`] degrees of freedom.
    pub fn is_approximate(&self) -> bool {
        is_approximate(self.degrees_of_freedom)
    }
}

pub(crate) fn undefined(standard_error: Option<f64>, is_defined: bool) -> Option<Undefined> {
    match standard_error {
        _ if is_defined => None,
        None => Some(Undefined::OneCluster),
        Some(_) => Some(Undefined::NoSpread),
    }
}

pub(crate) fn is_approximate(degrees_of_freedom: Option<f64>) -> bool {
    degrees_of_freedom.is_some_and(|degrees| degrees < APPROXIMATE_BELOW)
}

/// The ends of logit(`value`) ± `half`, mapped back.
pub(crate) fn logit_interval(value: f64, half: f64, level: Level) -> Interval {
    let centre = logit(value);
    let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
    Interval {
        lower: logistic(centre - half),
        upper: logistic(centre + half),
        level,
    }
}

/// The AUC and its standard error by DeLong, DeLong & Clarke-Pearson (1988), in the O(n log n)
/// form of Sun & Xu (2014). `None` when either class is absent.
///
/// The examples are taken as independent: each is a cluster of its own, and there are about as many
/// degrees of freedom as examples of the rarer class. Several images of one patient are not
/// independent: use [`clustered_delong`], or the error comes out too small, and an interval of 95 %
/// covers the truth in 50 to 85 % of test sets like ChestX-ray14's.
pub fn delong(scored: Scored<'_>) -> Option<AucEstimate> {
    let clusters = Clusters::singletons(scored.len());
    let mut sorter = Sorter::default();
    let entries = sorter.sort(scored.scores(), scored.labels());
    estimate_of_sorted(entries, (clusters.of_row(), clusters.len()))
}

/// The AUC and its standard error when examples come in clusters, such as the images of a patient
/// (Obuchowski 1997). `clusters` names each example's cluster. With one example per cluster it
/// equals [`delong`]. `None` when either class is absent.
///
/// A finding and its score persist from one radiograph of a patient to the next, so a patient
/// with twenty films is not twenty patients. On the 22,433 images of a published CheXNet the error
/// of the Pneumothorax AUC is 0.0053 if patients are ignored and 0.0097 if they are not: an
/// interval from [`delong`] would be little more than half as wide as it should be.
///
/// The effect, worked on eight patients: five films each that resemble each other exactly.
///
/// ```
/// use cxr_metrics::{Scored, clustered_delong, delong};
/// let patient_scores = [0.9, 0.8, 0.4, 0.7, 0.3, 0.6, 0.2, 0.1_f32];
/// let patient_labels = [true, true, true, false, true, false, false, false];
/// let films = |patient: usize| std::iter::repeat_n(patient, 5);
///
/// let patients: Vec<u64> = (0..8).flat_map(films).map(|patient| patient as u64).collect();
/// let scores: Vec<f32> = (0..8).flat_map(films).map(|patient| patient_scores[patient]).collect();
/// let labels: Vec<bool> = (0..8).flat_map(films).map(|patient| patient_labels[patient]).collect();
///
/// let ignoring = delong(Scored::new(&scores, &labels)?).unwrap();
/// let clustered = clustered_delong(Scored::new(&scores, &labels)?, &patients)?.unwrap();
/// let one_each = delong(Scored::new(&patient_scores, &patient_labels)?).unwrap();
///
/// assert_eq!(ignoring.auc, clustered.auc);
/// // Forty films that say no more than eight: the clustered error is that of one film each …
/// assert!((clustered.standard_error.unwrap() - one_each.standard_error.unwrap()).abs() < 1e-12);
/// // … and the plain one is √((40/2 − 1) / (8/2 − 1)) = 2.5 times too small.
/// let factor = clustered.standard_error.unwrap() / ignoring.standard_error.unwrap();
/// assert!((factor - (19.0_f64 / 3.0).sqrt()).abs() < 1e-12);
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
///
/// # Errors
/// [`MetricError::Length`] unless there is one cluster per example.
pub fn clustered_delong(
    scored: Scored<'_>,
    clusters: &[u64],
) -> Result<Option<AucEstimate>, MetricError> {
    let clusters = Clusters::new(clusters, scored.len())?;
    let mut sorter = Sorter::default();
    let entries = sorter.sort(scored.scores(), scored.labels());
    Ok(estimate_of_sorted(
        entries,
        (clusters.of_row(), clusters.len()),
    ))
}

/// Tests whether two models rank the same examples equally well: the paired test of DeLong et al.
/// (1988), or, with `clusters`, of Obuchowski (1997). `None` when either class is absent.
///
/// # Errors
/// As for [`Scored::new`] with either model's scores, and [`MetricError::Length`] for clusters.
///
/// ```
/// use cxr_metrics::paired_delong;
/// let labels = [true, false, true, false, true, false];
/// let scores = [0.9, 0.2, 0.4, 0.6, 0.7, 0.1];
/// let against_itself = paired_delong(&labels, &scores, &scores, None)?.unwrap();
/// assert_eq!(against_itself.p_value, Some(1.0));
/// # Ok::<(), cxr_metrics::MetricError>(())
/// ```
pub fn paired_delong<'a>(
    labels: &'a [bool],
    scores_a: impl Into<Scores<'a>>,
    scores_b: impl Into<Scores<'a>>,
    clusters: Option<&[u64]>,
) -> Result<Option<PairedTest>, MetricError> {
    let (scores_a, scores_b) = (scores_a.into(), scores_b.into());
    check_length("scores of the second model", scores_a.len(), scores_b.len())?;
    let (a, b) = (
        Scored::new(scores_a, labels)?,
        Scored::new(scores_b, labels)?,
    );
    let clusters = Clusters::or_singletons(clusters, labels.len())?;
    Ok(paired(a, b, (clusters.of_row(), clusters.len())))
}

/// The cluster of each row and the number of clusters.
pub(crate) type RowClusters<'a> = (&'a [u32], usize);

pub(crate) fn estimate_of_sorted(
    entries: &[Entry],
    clusters: RowClusters<'_>,
) -> Option<AucEstimate> {
    let placements = Placements::of_sorted(entries)?;
    let classes = placements.classes(clusters);
    let auc = placements.auc;
    let variance = classes.variance();
    let degrees_of_freedom = classes.degrees_of_freedom([1.0, 1.0]);
    let logit_variance = match (variance, degrees_of_freedom) {
        (Some(variance), Some(degrees)) if variance > 0.0 && auc > 0.0 && auc < 1.0 => {
            let plain = variance / (auc * (1.0 - auc)).powi(2);
            Some(extreme::moderate(plain, degrees, auc, || {
                extreme::Sources {
                    classes: &classes,
                    within: extreme::wins_within(entries, clusters),
                }
            }))
        }
        _ => None,
    };
    Some(AucEstimate {
        auc,
        standard_error: variance.map(f64::sqrt),
        degrees_of_freedom: degrees_of_freedom.filter(|_| logit_variance.is_some()),
        logit_standard_error: logit_variance.map(f64::sqrt),
    })
}

pub(crate) fn paired(
    a: Scored<'_>,
    b: Scored<'_>,
    clusters: RowClusters<'_>,
) -> Option<PairedTest> {
    Some(Differences::new(a, b, clusters)?.test())
}

/// What two models' placements on the same examples differ by.
pub(crate) struct Differences {
    pub(crate) auc_a: f64,
    pub(crate) auc_b: f64,
    pub(crate) classes: Classes,
}

impl Differences {
    pub(crate) fn new(a: Scored<'_>, b: Scored<'_>, clusters: RowClusters<'_>) -> Option<Self> {
        let mut sorter = Sorter::default();
        let mut placements = Placements::of_sorted(sorter.sort(a.scores(), a.labels()))?;
        let auc_a = placements.auc;
        let other = Placements::of_sorted(sorter.sort(b.scores(), b.labels()))?;
        let auc_b = other.auc;
        placements.subtract(&other);
        Some(Self {
            auc_a,
            auc_b,
            classes: placements.classes(clusters),
        })
    }

    pub(crate) fn test(&self) -> PairedTest {
        let error = self.classes.variance().map(f64::sqrt);
        let degrees_of_freedom = self
            .classes
            .degrees_of_freedom(self.classes.correlations())
            .filter(|_| error.is_some_and(|error| error > 0.0));
        let hypothesis = HypothesisVariance::new(&self.classes, self.auc_a - self.auc_b);
        PairedTest::of_aucs(
            (self.auc_a, self.auc_b),
            error,
            degrees_of_freedom,
            hypothesis,
        )
    }
}

/// The deviations of the positives' and of the negatives' placements, by cluster.
pub(crate) struct Classes {
    pub(crate) positives: ClassSums,
    pub(crate) negatives: ClassSums,
}

impl Classes {
    pub(crate) fn of_sorted(entries: &[Entry], clusters: RowClusters<'_>) -> Option<(f64, Self)> {
        let placements = Placements::of_sorted(entries)?;
        Some((placements.auc, placements.classes(clusters)))
    }

    fn both(&self) -> [&ClassSums; 2] {
        [&self.positives, &self.negatives]
    }

    /// S₁₀/m + S₀₁/n + 2·S₁₁/(m·n), with S over sums of deviations within clusters (Obuchowski 1997);
    /// with one example per cluster DeLong's. `None` when a class lies in one cluster.
    fn variance(&self) -> Option<f64> {
        let (mut occupied, mut products) = (0.0, 0.0);
        let of_cluster = self
            .positives
            .deviations()
            .iter()
            .zip(self.negatives.deviations());
        let sizes = self.positives.sizes().iter().zip(self.negatives.sizes());
        for ((positive, negative), (&m, &n)) in of_cluster.zip(sizes) {
            products += positive * negative;
            occupied += f64::from(u8::from(m > 0 || n > 0));
        }
        let images = self.positives.n_images() * self.negatives.n_images();
        let variance = self.positives.variance()?
            + self.negatives.variance()?
            + 2.0 * occupied / (occupied - 1.0) * products / images;
        // The three terms are scaled differently, so a true zero may come out as a negative one.
        Some(variance.max(0.0))
    }

    /// The variances of both classes, images of a cluster correlated by so much in each.
    pub(crate) fn components(&self, correlations: [f64; 2]) -> Option<[Component; 2]> {
        let [positives, negatives] = self.both();
        Some([
            positives.component(correlations[0])?,
            negatives.component(correlations[1])?,
        ])
    }

    /// What makes [`Self::components`] unbiased ([`ClassSums::correction`]).
    pub(crate) fn corrections(&self, correlations: [f64; 2]) -> [f64; 2] {
        [
            self.positives.correction(correlations[0]),
            self.negatives.correction(correlations[1]),
        ]
    }

    pub(crate) fn correlations(&self) -> [f64; 2] {
        self.both().map(ClassSums::correlation)
    }

    fn degrees_of_freedom(&self, correlations: [f64; 2]) -> Option<f64> {
        satterthwaite(&self.components(correlations)?)
    }
}

/// Placements in the order of the rows, with their class; or differences of placements.
struct Placements {
    of_row: Vec<(f64, bool)>,
    auc: f64,
}

impl Placements {
    fn of_sorted(entries: &[Entry]) -> Option<Self> {
        let (positives, negatives) = count_labels(entries);
        if positives == 0 || negatives == 0 {
            return None;
        }
        let mut of_row = vec![(0.0, false); entries.len()];
        let (mut positives_below, mut negatives_below, mut twice_wins) = (0, 0, 0);
        for group in tie_groups(entries) {
            let (tied_positives, tied_negatives) = count_labels(group);
            let twice_outranked = 2 * negatives_below + tied_negatives;
            let twice_outranking = 2 * (positives - positives_below) - tied_positives;
            let of_positive = twice_outranked as f64 / (2 * negatives) as f64;
            let of_negative = twice_outranking as f64 / (2 * positives) as f64;
            for entry in group {
                let placement = if entry.label() {
                    of_positive
                } else {
                    of_negative
                };
                of_row[entry.row()] = (placement, entry.label());
            }
            twice_wins += tied_positives * twice_outranked;
            positives_below += tied_positives;
            negatives_below += tied_negatives;
        }
        let auc = twice_wins as f64 / (2 * positives * negatives) as f64;
        Some(Self { of_row, auc })
    }

    fn subtract(&mut self, other: &Self) {
        for ((placement, _), (subtrahend, _)) in self.of_row.iter_mut().zip(&other.of_row) {
            *placement -= subtrahend;
        }
        self.auc -= other.auc;
    }

    fn classes(&self, (of_row, n_clusters): RowClusters<'_>) -> Classes {
        let mut classes = Classes {
            positives: ClassSums::new(n_clusters),
            negatives: ClassSums::new(n_clusters),
        };
        for (&(placement, positive), &cluster) in self.of_row.iter().zip(of_row) {
            let class = if positive {
                &mut classes.positives
            } else {
                &mut classes.negatives
            };
            class.add(cluster as usize, placement - self.auc);
        }
        classes
    }
}
