//! The variance of a difference of two AUCs if the true difference is a given one, and the test by it.
//!
//! The estimated error of a difference is a matter of luck where a few patients make up most of it: a
//! patient with many films and a large difference enlarges difference and error together. A variance
//! about the hypothesis instead of the estimate has no such luck: if both models are equally good, a
//! patient's share in the difference is as likely to be for the one as for the other, and given its
//! size the sum over patients has exactly the variance Σx² and the fourth cumulant −2·Σx⁴.

use crate::cluster_sums::ClassSums;
use crate::delong::Classes;
use crate::interval::Level;

/// The variance of a difference of AUCs under the hypothesis that the true one is δ, as a function of
/// e = difference − δ: V(e) = `centred` + 2·`cross`·e + `sizes`·e².
///
/// With S and S′ the sums of a patient's deviations of differences of placements, m of M its positives
/// and n of N its negatives, a patient adds x = z + e·c to e: z = S/M + S′/N, and c = a·m/M + (1−a)·n/N
/// with a = V₁/(V₁+V₀) the share of the positives in the variance, as what the two classes add to a
/// difference cannot be known apart. V(e) is Σx², and ∑x is e.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HypothesisVariance {
    /// Σz².
    pub centred: f64,
    /// Σzc.
    pub cross: f64,
    /// Σc², at least one over the number of patients.
    pub sizes: f64,
    /// κ = Σx⁴/(Σx²)² for δ = 0: one over the number of patients that make the difference, 0 … 1.
    pub kurtosis: f64,
}

impl HypothesisVariance {
    pub(crate) fn new(classes: &Classes, difference: f64) -> Self {
        let (positives, negatives) = (&classes.positives, &classes.negatives);
        let variances = [positives, negatives].map(|class| class.variance().unwrap_or(0.0));
        let total = variances[0] + variances[1];
        let share = if total > 0.0 {
            variances[0] / total
        } else {
            0.5
        };
        let (m, n) = (positives.n_images(), negatives.n_images());
        let of = |class: &ClassSums, cluster: usize| {
            (
                class.deviations()[cluster],
                f64::from(class.sizes()[cluster]),
            )
        };
        let (mut centred, mut cross, mut sizes) = (0.0, 0.0, 0.0);
        let (mut squares, mut fourths) = (0.0, 0.0);
        for cluster in 0..positives.sizes().len() {
            let (of_positives, own_m) = of(positives, cluster);
            let (of_negatives, own_n) = of(negatives, cluster);
            let z = of_positives / m + of_negatives / n;
            let c = share * own_m / m + (1.0 - share) * own_n / n;
            let square = (z + difference * c).powi(2);
            centred += z * z;
            cross += z * c;
            sizes += c * c;
            squares += square;
            fourths += square * square;
        }
        Self {
            centred,
            cross,
            sizes,
            kurtosis: if squares > 0.0 {
                fourths / (squares * squares)
            } else {
                1.0
            },
        }
    }

    /// The deviate of e = difference − δ, standard normal if the true difference is δ:
    /// T + κ/12·(T³ − 3T) with T = e/√V(e). The second term is the first of Cornish & Fisher's (1938)
    /// for the fourth cumulant −2κ of a sum of numbers whose signs are as likely one as the other; it
    /// matters where a few patients make the difference. Grows with T.
    pub fn z(&self, excess: f64) -> f64 {
        let variance = self.centred + 2.0 * self.cross * excess + self.sizes * excess * excess;
        if variance > 0.0 {
            self.deviate(excess / variance.sqrt())
        } else {
            0.0
        }
    }

    fn deviate(&self, t: f64) -> f64 {
        t + self.kurtosis / 12.0 * (t * t - 3.0) * t
    }

    /// The T with the deviate `z`, by Newton's method; the slope is at least 3/4.
    fn statistic_of(&self, z: f64) -> f64 {
        let mut t = z;
        for _ in 0..60 {
            let slope = 1.0 + self.kurtosis / 4.0 * (t * t - 1.0);
            let step = (self.deviate(t) - z) / slope;
            t -= step;
            if step.abs() <= 1e-15 * t.abs() {
                break;
            }
        }
        t
    }

    /// How far below and above the difference true differences may lie that are not rejected: the range of
    /// −e and of e about 0 with e² ≤ T²·V(e); infinite where nothing is rejected.
    pub(crate) fn accepted(&self, difference: f64, level: Level) -> [f64; 2] {
        let critical = self.statistic_of(level.z());
        let t_squared = critical * critical;
        // (1 − T²·sizes)·e² − 2T²·cross·e − T²·centred ≤ 0
        let leading = 1.0 - t_squared * self.sizes;
        let half = t_squared * self.cross;
        let discriminant = half * half + leading * t_squared * self.centred;
        let mut range = [f64::NEG_INFINITY, f64::INFINITY];
        if discriminant >= 0.0 {
            let sum = half + discriminant.sqrt().copysign(half);
            for root in [sum / leading, -t_squared * self.centred / sum] {
                if root > 0.0 {
                    range[1] = range[1].min(root);
                } else if root <= 0.0 {
                    range[0] = range[0].max(root);
                }
            }
        }
        if self.z(difference).abs() <= level.z() {
            range = [range[0].min(difference), range[1].max(difference)];
        }
        [-range[0], range[1]]
    }
}
