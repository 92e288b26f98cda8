//! Global response normalisation, as ConvNeXt V2 has it (Woo et al.: ConvNeXt V2, CVPR 2023): each map is scaled by its
//! norm over the pixels of an image, relative to the mean of all maps' norms.

use rayon::prelude::*;

use super::maps::Maps;
use super::{Block, Extent, LANES, RUN, View, ZERO};
use crate::grouped::Pool;
use crate::simd::Vectors;

/// Of an image, for each map: `‖x‖`, and that over the mean of all.
struct Responses {
    norms: Vec<f64>,
    relative: Vec<f64>,
    /// The mean, with ε.
    mean: f64,
}

/// Sums over the pixels of each map of an image of what `term` makes of its values, read in runs.
fn sums<S: Vectors>(
    simd: S,
    view: &View<'_>,
    image: usize,
    term: impl Fn(usize, usize, &[Block], &mut Block) + Sync,
) -> Vec<f64> {
    let extent = view.extent;
    let plane = extent.pixels();
    let of_blocks: Vec<[f64; LANES]> = (0..extent.blocks())
        .into_par_iter()
        .map_init(
            || vec![ZERO; RUN],
            |line, block| {
                let mut total = [0f64; LANES];
                for pixel in (0..plane).step_by(RUN) {
                    let line = &mut line[..RUN.min(plane - pixel)];
                    view.read(simd, image, block, pixel, line);
                    let mut sum = ZERO;
                    term(block, pixel, line, &mut sum);
                    for lane in 0..LANES {
                        total[lane] += f64::from(sum[lane]);
                    }
                }
                total
            },
        )
        .collect();
    let mut values = of_blocks.concat();
    values.truncate(extent.maps);
    values
}

fn responses<S: Vectors>(simd: S, view: &View<'_>, image: usize, eps: f64) -> Responses {
    let squares = sums(simd, view, image, |_, _, line, sum| {
        simd.within(
            #[inline(always)]
            || {
                for x in line {
                    for lane in 0..LANES {
                        sum[lane] += x[lane] * x[lane];
                    }
                }
            },
        );
    });
    let norms: Vec<f64> = squares.into_iter().map(f64::sqrt).collect();
    let mean = norms.iter().sum::<f64>() / norms.len() as f64 + eps;
    Responses {
        relative: norms.iter().map(|norm| norm / mean).collect(),
        norms,
        mean,
    }
}

/// What `of` says of each map of a block; 0 for unused lanes.
fn block_of(extent: Extent, block: usize, of: impl Fn(usize) -> f64) -> Block {
    let mut values = ZERO;
    for (lane, value) in values[..extent.lanes(block)].iter_mut().enumerate() {
        *value = of(block * LANES + lane) as f32;
    }
    values
}

/// `x·(1 + γ·n) + β` with `n = ‖x‖ / (mean of all maps' ‖x‖ + ε)`.
pub(crate) fn forward<S: Vectors>(
    simd: S,
    view: &View<'_>,
    weight: &[f32],
    bias: &[f32],
    eps: f64,
    pool: &Pool,
) -> Maps {
    let extent = view.extent;
    let (blocks, plane) = (extent.blocks(), extent.pixels());
    let mut out = Maps::take(extent, pool);
    out.par_chunks_mut(blocks * plane)
        .enumerate()
        .for_each(|(image, out)| {
            let of = responses(simd, view, image, eps);
            out.par_chunks_mut(plane)
                .enumerate()
                .for_each(|(block, out)| {
                    view.read(simd, image, block, 0, out);
                    let factor = block_of(extent, block, |map| {
                        1. + f64::from(weight[map]) * of.relative[map]
                    });
                    let shift = block_of(extent, block, |map| f64::from(bias[map]));
                    simd.within(
                        #[inline(always)]
                        || {
                            for value in out {
                                for lane in 0..LANES {
                                    value[lane] = value[lane] * factor[lane] + shift[lane];
                                }
                            }
                        },
                    );
                });
        });
    out
}

/// The gradients of weight and bias; `gradient` becomes that of the input.
pub(crate) fn backward<S: Vectors>(
    simd: S,
    view: &View<'_>,
    weight: &[f32],
    eps: f64,
    gradient: &mut [Block],
) -> (Vec<f32>, Vec<f32>) {
    let extent = view.extent;
    let (blocks, plane) = (extent.blocks(), extent.pixels());
    let of_images: Vec<[Vec<f64>; 2]> = gradient
        .par_chunks_mut(blocks * plane)
        .enumerate()
        .map(|(image, gradient)| {
            let of = responses(simd, view, image, eps);
            let given = &*gradient;
            // Σ g·x and Σ g over the pixels of each map.
            let products = sums(simd, view, image, |block, pixel, line, sum| {
                let given = &given[block * plane + pixel..][..line.len()];
                simd.within(
                    #[inline(always)]
                    || {
                        for (x, g) in line.iter().zip(given) {
                            for lane in 0..LANES {
                                sum[lane] += g[lane] * x[lane];
                            }
                        }
                    },
                );
            });
            let plain = sums(simd, view, image, |block, pixel, line, sum| {
                for g in &given[block * plane + pixel..][..line.len()] {
                    for lane in 0..LANES {
                        sum[lane] += g[lane];
                    }
                }
            });
            // The gradient of each map's norm goes to it directly, and to all by the mean.
            let of_relative = |map: usize| f64::from(weight[map]) * products[map];
            let through_mean = (0..extent.maps)
                .map(|map| of_relative(map) * of.norms[map])
                .sum::<f64>()
                / (extent.maps as f64 * of.mean * of.mean);
            let of_value = |map: usize| match of.norms[map] {
                0. => 0.,
                norm => (of_relative(map) / of.mean - through_mean) / norm,
            };
            gradient.par_chunks_mut(plane).enumerate().for_each_init(
                || vec![ZERO; RUN],
                |line, (block, gradient)| {
                    let factor = block_of(extent, block, |map| {
                        1. + f64::from(weight[map]) * of.relative[map]
                    });
                    let slope = block_of(extent, block, of_value);
                    for (run, gradient) in gradient.chunks_mut(RUN).enumerate() {
                        let line = &mut line[..gradient.len()];
                        view.read(simd, image, block, run * RUN, line);
                        simd.within(
                            #[inline(always)]
                            || {
                                for (g, x) in gradient.iter_mut().zip(&*line) {
                                    for lane in 0..LANES {
                                        g[lane] = g[lane] * factor[lane] + x[lane] * slope[lane];
                                    }
                                }
                            },
                        );
                    }
                },
            );
            let of_weight = products.iter().zip(&of.relative);
            [
                of_weight.map(|(sum, relative)| sum * relative).collect(),
                plain,
            ]
        })
        .collect();
    let total = |which: usize| {
        let of_map = |map: usize| of_images.iter().map(|sums| sums[which][map]).sum::<f64>() as f32;
        (0..extent.maps).map(of_map).collect()
    };
    (total(0), total(1))
}
