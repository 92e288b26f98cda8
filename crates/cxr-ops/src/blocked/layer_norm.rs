//! Normalisation of each pixel over its maps (Ba, Kiros & Hinton 2016), as ConvNeXt has it.

use rayon::prelude::*;

use super::maps::Maps;
use super::{Block, Extent, LANES, Sums, View, ZERO, by_block};
use crate::grouped::Pool;
use crate::simd::Vectors;

/// Pixels that are normalised together.
const PART: usize = 64;

/// Mean and 1/√(σ² + ε) of each pixel of an image.
struct Statistics {
    mean: Vec<f32>,
    inverse_deviation: Vec<f32>,
}

/// Lane by lane, 0 beyond the last map.
fn mask(extent: Extent, block: usize) -> Block {
    std::array::from_fn(|lane| if lane < extent.lanes(block) { 1. } else { 0. })
}

/// All blocks of some pixels of an image, one block after the other.
fn read<S: Vectors>(simd: S, view: &View<'_>, image: usize, pixel: usize, lines: &mut [Block]) {
    let blocks = view.extent.blocks();
    let pixels = lines.len() / blocks;
    for (block, line) in lines.chunks_exact_mut(pixels).enumerate() {
        view.read(simd, image, block, pixel, line);
        if view.extent.lanes(block) < LANES {
            let mask = mask(view.extent, block);
            for value in line {
                for lane in 0..LANES {
                    // Not by a product: unused lanes may hold anything.
                    value[lane] = if mask[lane] > 0. { value[lane] } else { 0. };
                }
            }
        }
    }
}

fn statistics(extent: Extent, eps: f64, lines: &[Block]) -> Statistics {
    let blocks = extent.blocks();
    let pixels = lines.len() / blocks;
    let count = extent.maps as f64;
    let (mut mean, mut inverse_deviation) = (Vec::new(), Vec::new());
    for pixel in 0..pixels {
        let of_blocks = || (0..blocks).map(|block| &lines[block * pixels + pixel]);
        let sum: f64 = of_blocks().flatten().map(|&x| f64::from(x)).sum();
        let centre = sum / count;
        let squares: f64 = (of_blocks().enumerate())
            .flat_map(|(block, x)| &x[..extent.lanes(block)])
            .map(|&x| (f64::from(x) - centre).powi(2))
            .sum();
        mean.push(centre as f32);
        inverse_deviation.push((squares / count + eps).sqrt().recip() as f32);
    }
    Statistics {
        mean,
        inverse_deviation,
    }
}

/// `γ·(x − μ)/√(σ² + ε) + β` with each pixel's own mean and variance.
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
    let (weight, bias) = (by_block(weight, 0.), by_block(bias, 0.));
    let mut out = Maps::take(extent, pool);
    out.par_chunks_mut(blocks * plane)
        .enumerate()
        .for_each(|(image, out)| {
            let parts: Vec<usize> = (0..plane).step_by(PART).collect();
            let computed: Vec<Vec<Block>> = parts
                .par_iter()
                .map(|&first| {
                    let pixels = PART.min(plane - first);
                    let mut lines = vec![ZERO; blocks * pixels];
                    read(simd, view, image, first, &mut lines);
                    let of = statistics(extent, eps, &lines);
                    simd.within(
                        #[inline(always)]
                        || {
                            for (block, line) in lines.chunks_exact_mut(pixels).enumerate() {
                                let (weight, bias) = (&weight[block], &bias[block]);
                                for (pixel, value) in line.iter_mut().enumerate() {
                                    let (mean, inverse) =
                                        (of.mean[pixel], of.inverse_deviation[pixel]);
                                    for lane in 0..LANES {
                                        value[lane] = (value[lane] - mean) * inverse * weight[lane]
                                            + bias[lane];
                                    }
                                }
                            }
                        },
                    );
                    lines
                })
                .collect();
            for (block, out) in out.chunks_exact_mut(plane).enumerate() {
                for (first, lines) in parts.iter().zip(&computed) {
                    let pixels = lines.len() / blocks;
                    out[*first..first + pixels]
                        .copy_from_slice(&lines[block * pixels..(block + 1) * pixels]);
                }
            }
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
    let weight = by_block(weight, 0.);
    let count = extent.maps as f64;
    let of_images: Vec<Vec<Sums>> = gradient
        .par_chunks_mut(blocks * plane)
        .enumerate()
        .map(|(image, gradient)| {
            let parts: Vec<usize> = (0..plane).step_by(PART).collect();
            let given = &*gradient;
            let computed: Vec<(Vec<Block>, Vec<Sums>)> = parts
                .par_iter()
                .map(|&first| {
                    let pixels = PART.min(plane - first);
                    let mut lines = vec![ZERO; blocks * pixels];
                    read(simd, view, image, first, &mut lines);
                    let of = statistics(extent, eps, &lines);
                    let mut sums = vec![Sums::ZERO; blocks];
                    // Σ γ·g and Σ γ·g·x̂ of each pixel.
                    let mut totals = vec![[0f64; 2]; pixels];
                    for (block, line) in lines.chunks_exact_mut(pixels).enumerate() {
                        let given = &given[block * plane + first..][..pixels];
                        let (mut plain, mut products) = (ZERO, ZERO);
                        for (pixel, (value, g)) in line.iter_mut().zip(given).enumerate() {
                            for lane in 0..extent.lanes(block) {
                                let normalised =
                                    (value[lane] - of.mean[pixel]) * of.inverse_deviation[pixel];
                                value[lane] = normalised;
                                plain[lane] += g[lane];
                                products[lane] += g[lane] * normalised;
                                let weighted = f64::from(g[lane] * weight[block][lane]);
                                totals[pixel][0] += weighted;
                                totals[pixel][1] += weighted * f64::from(normalised);
                            }
                        }
                        sums[block].add_run(&plain, &products);
                    }
                    for (block, line) in lines.chunks_exact_mut(pixels).enumerate() {
                        let given = &given[block * plane + first..][..pixels];
                        for (pixel, (value, g)) in line.iter_mut().zip(given).enumerate() {
                            let [plain, products] = totals[pixel].map(|sum| (sum / count) as f32);
                            for lane in 0..LANES {
                                value[lane] = of.inverse_deviation[pixel]
                                    * (g[lane] * weight[block][lane]
                                        - plain
                                        - value[lane] * products);
                            }
                        }
                    }
                    (lines, sums)
                })
                .collect();
            let mut total = vec![Sums::ZERO; blocks];
            for (first, (lines, sums)) in parts.iter().zip(&computed) {
                let pixels = lines.len() / blocks;
                for (block, out) in gradient.chunks_exact_mut(plane).enumerate() {
                    out[*first..first + pixels]
                        .copy_from_slice(&lines[block * pixels..(block + 1) * pixels]);
                }
                for (total, sums) in total.iter_mut().zip(sums) {
                    total.add(sums);
                }
            }
            total
        })
        .collect();
    let total = Sums::over_images(&of_images.concat(), blocks);
    let of = |map: usize| &total[map / LANES];
    (
        (0..extent.maps)
            .map(|map| of(map).products[map % LANES] as f32)
            .collect(),
        (0..extent.maps)
            .map(|map| of(map).plain[map % LANES] as f32)
            .collect(),
    )
}
