//! Batch normalisation of grouped maps: statistics, the affine map that they make, and the backward pass.

use super::{Group, Grouping, LANES};
use crate::simd::Vectors;

/// Sums over pixels of one group: single precision within a tile, double precision across.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    /// Σ x, or Σ g.
    pub(crate) plain: [f64; LANES],
    /// Σ x², or Σ g·x.
    pub(crate) products: [f64; LANES],
}

impl Sums {
    pub(crate) const ZERO: Self = Self {
        plain: [0.; LANES],
        products: [0.; LANES],
    };

    pub(crate) fn add_tile(&mut self, tile: &TileSums) {
        for lane in 0..LANES {
            self.plain[lane] += f64::from(tile.plain[lane]);
            self.products[lane] += f64::from(tile.products[lane]);
        }
    }

    /// Sums the parts of each group in order.
    pub(crate) fn total<'a>(groups: usize, parts: impl Iterator<Item = &'a [Self]>) -> Vec<Self> {
        let mut total = vec![Self::ZERO; groups];
        for part in parts {
            for (total, part) in total.iter_mut().zip(part) {
                for lane in 0..LANES {
                    total.plain[lane] += part.plain[lane];
                    total.products[lane] += part.products[lane];
                }
            }
        }
        total
    }
}

/// [`Sums`] over a tile.
#[derive(Clone, Copy)]
pub(crate) struct TileSums {
    pub(crate) plain: Group,
    pub(crate) products: Group,
}

impl TileSums {
    pub(crate) const ZERO: Self = Self {
        plain: [0.; LANES],
        products: [0.; LANES],
    };

    /// Σ x and Σ x².
    pub(crate) fn of<S: Vectors>(simd: S, x: &[Group]) -> Self {
        Self::of_products(simd, x, x)
    }

    /// Σ g and Σ g·x.
    pub(crate) fn of_products<S: Vectors>(simd: S, g: &[Group], x: &[Group]) -> Self {
        simd.within(|| {
            let mut sums = Self::ZERO;
            for (g, x) in g.iter().zip(x) {
                for lane in 0..LANES {
                    sums.plain[lane] += g[lane];
                    sums.products[lane] += g[lane] * x[lane];
                }
            }
            sums
        })
    }
}

/// A batch's statistics of one group, per map, with the number of values behind them.
#[derive(Debug, Clone, Copy)]
pub struct ChannelStatistics {
    pub(crate) mean: [f64; LANES],
    /// With divisor `count`.
    pub(crate) variance: [f64; LANES],
    pub(crate) count: f64,
}

impl ChannelStatistics {
    pub(crate) fn of(sums: &Sums, count: usize) -> Self {
        let count = count as f64;
        let mean = sums.plain.map(|sum| sum / count);
        let variance = std::array::from_fn(|lane| {
            (sums.products[lane] / count - mean[lane] * mean[lane]).max(0.)
        });
        Self {
            mean,
            variance,
            count,
        }
    }

    /// Mean, biased and unbiased variance of the maps of `grouping`.
    pub fn of_maps(grouping: &Grouping, groups: &[Self]) -> crate::BatchStatistics {
        let all = |of: &dyn Fn(&Self) -> [f64; LANES]| {
            grouping.ungroup(&groups.iter().map(of).collect::<Vec<_>>())
        };
        crate::BatchStatistics {
            mean: all(&|group| group.mean),
            biased_variance: all(&|group| group.variance),
            unbiased_variance: all(&|group| {
                group
                    .variance
                    .map(|variance| variance * group.count / (group.count - 1.))
            }),
        }
    }
}

/// The trained values of one normalisation, γ and β, and its ε.
#[derive(Debug, Clone, Copy)]
pub struct NormWeights<'a> {
    /// γ, one value per map.
    pub weight: &'a [f32],
    /// β, one value per map.
    pub bias: &'a [f32],
    /// ε, added to the variance.
    pub eps: f64,
    /// What normalises in evaluation; training needs none.
    pub running: Option<RunningStatistics<'a>>,
}

/// Running mean and variance of one normalisation, one value per map.
#[derive(Debug, Clone, Copy)]
pub struct RunningStatistics<'a> {
    /// The mean.
    pub mean: &'a [f32],
    /// The variance.
    pub variance: &'a [f32],
}

/// Gradients of one normalisation's γ and β.
#[derive(Debug, Clone)]
pub struct NormGradients {
    /// Of γ, one value per map.
    pub weight: Vec<f32>,
    /// Of β, one value per map.
    pub bias: Vec<f32>,
}

/// A normalisation as `scale·x + shift`, per group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) scale: Group,
    pub(crate) shift: Group,
}

impl Affine {
    /// A normalisation in evaluation. Without running statistics it leaves mean 0 and variance 1 as they are.
    pub(crate) fn of_running(weights: NormWeights<'_>, grouping: &Grouping) -> Vec<Self> {
        let zero = vec![[0.; LANES]; grouping.groups()];
        let (means, variances) = match weights.running {
            Some(running) => (
                grouping.group(running.mean),
                grouping.group(running.variance),
            ),
            None => (zero.clone(), vec![[1.; LANES]; grouping.groups()]),
        };
        let inverse_deviation: Vec<[f64; LANES]> = variances
            .iter()
            .map(|group| group.map(|v| (v + weights.eps).sqrt().recip()))
            .collect();
        affine(weights, grouping, &means, &inverse_deviation).1
    }
}

/// One normalisation with the batch's statistics, ready for both passes.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    grouping: Grouping,
    statistics: Vec<ChannelStatistics>,
    /// γ/√(σ² + ε).
    scale: Vec<[f64; LANES]>,
    /// 1/√(σ² + ε).
    inverse_deviation: Vec<[f64; LANES]>,
    pub(crate) affine: Vec<Affine>,
}

impl Norm {
    pub(crate) fn new(
        weights: NormWeights<'_>,
        grouping: &Grouping,
        statistics: &[ChannelStatistics],
    ) -> Self {
        let inverse_deviation: Vec<[f64; LANES]> = statistics
            .iter()
            .map(|group| group.variance.map(|v| (v + weights.eps).sqrt().recip()))
            .collect();
        let means: Vec<[f64; LANES]> = statistics.iter().map(|group| group.mean).collect();
        let (scale, affine) = affine(weights, grouping, &means, &inverse_deviation);
        Self {
            grouping: grouping.clone(),
            statistics: statistics.to_vec(),
            scale,
            inverse_deviation,
            affine,
        }
    }

    /// Given Σ g and Σ g·x of the gradient g behind the normalisation: the gradients of γ and β, and
    /// what multiplies x and 1 in the gradient before it; what multiplies g is the scale.
    pub(crate) fn backward(&self, sums: &[Sums]) -> (NormGradients, Vec<Correction>) {
        let mut of_weight = Vec::with_capacity(sums.len());
        let mut corrections = Vec::with_capacity(sums.len());
        for (group, sums) in sums.iter().enumerate() {
            let statistics = &self.statistics[group];
            let (scale, inverse) = (&self.scale[group], &self.inverse_deviation[group]);
            // Σ g·x̂ with x̂ = (x − μ)/√(σ² + ε)
            let normalised: [f64; LANES] = std::array::from_fn(|lane| {
                (sums.products[lane] - statistics.mean[lane] * sums.plain[lane]) * inverse[lane]
            });
            // dx = scale·(g − mean(g) − x̂·mean(g·x̂)), sorted by what multiplies g, x and 1
            let of_x: [f64; LANES] = std::array::from_fn(|lane| {
                -scale[lane] * inverse[lane] * normalised[lane] / statistics.count
            });
            let constant: [f64; LANES] = std::array::from_fn(|lane| {
                -scale[lane] * sums.plain[lane] / statistics.count
                    - of_x[lane] * statistics.mean[lane]
            });
            of_weight.push(normalised.map(|v| v as f32));
            corrections.push(Correction { of_x, constant });
        }
        let of_bias: Vec<Group> = sums.iter().map(|s| s.plain.map(|v| v as f32)).collect();
        let gradients = NormGradients {
            weight: self.grouping.ungroup(&of_weight),
            bias: self.grouping.ungroup(&of_bias),
        };
        (gradients, corrections)
    }
}

/// Scales, and affine maps, of a normalisation with the given means and inverse deviations.
fn affine(
    weights: NormWeights<'_>,
    grouping: &Grouping,
    means: &[[f64; LANES]],
    inverse_deviation: &[[f64; LANES]],
) -> (Vec<[f64; LANES]>, Vec<Affine>) {
    let weight = grouping.group(weights.weight);
    let bias = grouping.group(weights.bias);
    let mut scales = Vec::with_capacity(weight.len());
    let mut affine = Vec::with_capacity(weight.len());
    for (group, weight) in weight.iter().enumerate() {
        let scale: [f64; LANES] =
            std::array::from_fn(|lane| weight[lane] * inverse_deviation[group][lane]);
        let shift: [f64; LANES] =
            std::array::from_fn(|lane| bias[group][lane] - scale[lane] * means[group][lane]);
        scales.push(scale);
        affine.push(Affine {
            scale: scale.map(|v| v as f32),
            shift: shift.map(|v| v as f32),
        });
    }
    (scales, affine)
}

/// What is still to be added to the gradient of a group of maps x: `of_x·x + constant`, from all the
/// normalisations that read it.
#[derive(Debug, Clone, Copy)]
pub struct Correction {
    pub(crate) of_x: [f64; LANES],
    pub(crate) constant: [f64; LANES],
}

impl Correction {
    /// Nothing.
    pub const NONE: Self = Self {
        of_x: [0.; LANES],
        constant: [0.; LANES],
    };

    pub(crate) fn add(&mut self, other: &Self) {
        for lane in 0..LANES {
            self.of_x[lane] += other.of_x[lane];
            self.constant[lane] += other.constant[lane];
        }
    }

    /// `(scale, of_x, constant)` for [`super::rows::combine`].
    pub(crate) fn with_scale(&self, scale: Group) -> Combination {
        Combination {
            of_gradient: scale,
            of_x: self.of_x.map(|v| v as f32),
            constant: self.constant.map(|v| v as f32),
        }
    }
}

/// The coefficients of `of_gradient·g + of_x·x + constant`.
#[derive(Clone, Copy)]
pub(crate) struct Combination {
    pub(crate) of_gradient: Group,
    pub(crate) of_x: Group,
    pub(crate) constant: Group,
}
