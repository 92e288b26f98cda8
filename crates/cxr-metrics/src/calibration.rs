use crate::error::MetricError;
use crate::scored::{Scored, Scores};

/// Probabilities of one label over some images, with the truth: what calibration takes.
///
/// A [`Scored`] whose scores all lie in [0, 1]. Logits go through a sigmoid first.
#[derive(Clone, Copy, Debug)]
pub struct Forecast<'a>(Scored<'a>);

impl<'a> Forecast<'a> {
    /// Pairs probabilities with labels.
    ///
    /// # Errors
    /// As for [`Scored::new`], and [`MetricError::NotAProbability`] outside [0, 1].
    pub fn new(
        probabilities: impl Into<Scores<'a>>,
        labels: &'a [bool],
    ) -> Result<Self, MetricError> {
        Self::try_from(Scored::new(probabilities, labels)?)
    }

    /// The same as scores to rank.
    pub fn scored(&self) -> Scored<'a> {
        self.0
    }

    pub(crate) fn pairs(self) -> impl Iterator<Item = (f64, bool)> + Clone + 'a {
        let labels = self.0.labels().iter().copied();
        self.0.scores().iter().zip(labels)
    }
}

impl<'a> TryFrom<Scored<'a>> for Forecast<'a> {
    type Error = MetricError;

    fn try_from(scored: Scored<'a>) -> Result<Self, MetricError> {
        let outside = scored
            .scores()
            .iter()
            .position(|p| !(0.0..=1.0).contains(&p));
        match outside {
            Some(index) => Err(MetricError::NotAProbability {
                index,
                value: scored.scores().as_written(index),
            }),
            None => Ok(Self(scored)),
        }
    }
}

/// The mean squared difference between probability and outcome (Brier 1950): 0 is perfect, 0.25
/// is what ½ for everything gives.
pub fn brier(forecast: Forecast<'_>) -> f64 {
    let sum: f64 = forecast
        .pairs()
        .map(|(p, label)| (p - f64::from(u8::from(label))).powi(2))
        .sum();
    sum / forecast.0.len() as f64
}

/// How probabilities are put into bins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Binning {
    /// Bins of equal width: [0, 1/n), [1/n, 2/n) … [1 − 1/n, 1].
    EqualWidth(usize),
    /// Bins of as nearly as possible equally many images; equal probabilities stay together, in
    /// the lower bin.
    EqualMass(usize),
}

/// One bin of a reliability table.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ReliabilityBin {
    /// Images in the bin, at least 1.
    pub count: usize,
    /// The mean of their probabilities.
    pub mean_probability: f64,
    /// The share of them that has the finding.
    pub observed: f64,
}

/// Predicted against observed frequency, bin by bin; empty bins are left out.
///
/// # Errors
/// [`MetricError::OutOfRange`] for no bins at all.
pub fn reliability(
    forecast: Forecast<'_>,
    binning: Binning,
) -> Result<Vec<ReliabilityBin>, MetricError> {
    let (Binning::EqualWidth(n_bins) | Binning::EqualMass(n_bins)) = binning;
    if n_bins == 0 {
        let what = "the number of bins";
        return Err(MetricError::OutOfRange {
            what,
            range: "[1, ∞)",
            value: 0.0,
        });
    }
    let mut bins = vec![Sums::default(); n_bins];
    match binning {
        Binning::EqualWidth(_) => {
            for (p, label) in forecast.pairs() {
                bins[((p * n_bins as f64) as usize).min(n_bins - 1)].add(p, label);
            }
        }
        Binning::EqualMass(_) => {
            let mut pairs: Vec<(f64, bool)> = forecast.pairs().collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut rank = 0;
            for tied in pairs.chunk_by(|a, b| a.0 == b.0) {
                // The bin of the first of equals is the bin of all.
                let bin = &mut bins[bin_of_rank(rank, pairs.len(), n_bins)];
                tied.iter().for_each(|&(p, label)| bin.add(p, label));
                rank += tied.len();
            }
        }
    }
    Ok(bins
        .iter()
        .filter(|bin| bin.count > 0)
        .map(Sums::finish)
        .collect())
}

/// The expected calibration error of the positive class: Σ (images in bin / images) ·
/// |mean probability − observed| (Naeini et al. 2015). The field's habit is 15 bins of equal width.
///
/// # Errors
/// As for [`reliability`].
pub fn expected_calibration_error(
    forecast: Forecast<'_>,
    binning: Binning,
) -> Result<f64, MetricError> {
    let gap = |bin: &ReliabilityBin| bin.count as f64 * (bin.mean_probability - bin.observed).abs();
    let sum: f64 = reliability(forecast, binning)?.iter().map(gap).sum();
    Ok(sum / forecast.0.len() as f64)
}

/// The b for which b·n/bins ≤ rank < (b+1)·n/bins, with the bounds rounded down.
fn bin_of_rank(rank: usize, n: usize, n_bins: usize) -> usize {
    let wide = |value: usize| value as u128;
    (((wide(rank) + 1) * wide(n_bins) - 1) / wide(n)) as usize
}

#[derive(Clone, Default)]
struct Sums {
    count: usize,
    probability: f64,
    positives: f64,
}

impl Sums {
    fn add(&mut self, p: f64, label: bool) {
        self.count += 1;
        self.probability += p;
        self.positives += f64::from(u8::from(label));
    }

    fn finish(&self) -> ReliabilityBin {
        let count = self.count as f64;
        ReliabilityBin {
            count: self.count,
            mean_probability: self.probability / count,
            observed: self.positives / count,
        }
    }
}
