//! The stem: conv 7×7/2 ─ norm ─ relu ─ max pool 3×3/2, from `N×3×H×W` images to the first block's maps.

use rayon::prelude::*;

use super::norm::{Affine, Combination, Norm, Sums, TileSums};
use super::rows::combine;
use super::{
    Buffer, ChannelStatistics, Correction, Extent, Group, Grouping, LANES, NormGradients,
    NormWeights, Pool, ZERO,
};
use crate::simd::{Vectors, with_vectors};

/// Colour planes of an image.
const PLANES: usize = 3;
/// Rows and columns of the convolution's kernel.
const KERNEL: usize = 7;
/// Values of one row of the kernel's window, pixel after pixel: neighbours in a padded line.
const WINDOW: usize = KERNEL * PLANES;
/// From one window to the next.
const STEP: usize = 2 * PLANES;
/// Zeros around the image.
const PADDING: usize = 3;
/// Rows of output that are worked on together.
const STRIP_ROWS: usize = 8;

/// The weights of one output group: per kernel row and value of the window, its maps.
type Packed = [[Group; WINDOW]; KERNEL];

/// The shape of a stem: how its maps are grouped.
#[derive(Debug, Clone)]
pub struct Stem {
    /// The maps that it makes.
    pub output: Grouping,
}

/// The trained values of a stem, as torchvision names them.
#[derive(Debug, Clone, Copy)]
pub struct StemWeights<'a> {
    /// 7×7, output × 3 × 7 × 7.
    pub conv: &'a [f32],
    /// Normalises the convolution's output.
    pub norm: NormWeights<'a>,
}

/// Their gradients.
#[derive(Debug, Clone)]
pub struct StemGradients {
    /// Of [`StemWeights::conv`].
    pub conv: Vec<f32>,
    /// Of [`StemWeights::norm`].
    pub norm: NormGradients,
}

/// What the backward pass needs of the forward pass, beside images and maps.
#[derive(Debug)]
pub struct StemTape {
    norm: Norm,
    /// The convolution's output: `N × groups × pixels`.
    convolved: Buffer,
    /// Which of the nine values of its window a pooled value is, from 0, row by row.
    winners: Vec<[u8; LANES]>,
    /// The statistics of the convolution's output, for the running averages.
    pub statistics: Vec<ChannelStatistics>,
}

impl Stem {
    /// The extent of the convolution's output for images of `extent`.
    fn convolved(extent: Extent) -> Extent {
        Self::strided(extent)
    }

    /// The extent of the stem's output for images of `extent`.
    pub fn pooled(extent: Extent) -> Extent {
        Self::strided(Self::convolved(extent))
    }

    /// Both of its strided operations have a window of `2·padding + 1`.
    fn strided(extent: Extent) -> Extent {
        Extent {
            height: extent.height.div_ceil(2),
            width: extent.width.div_ceil(2),
            ..extent
        }
    }

    /// The first groups of the first block in training, written to `maps` (`N × its groups × pixels`), their
    /// statistics, and what the backward pass needs. `images` is `N×3×H×W`.
    pub fn forward(
        &self,
        weights: StemWeights<'_>,
        extent: Extent,
        images: &[f32],
        maps: &mut [Group],
        pool: &Pool,
    ) -> (Vec<ChannelStatistics>, StemTape) {
        let (convolved_extent, pooled_extent) = (Self::convolved(extent), Self::pooled(extent));
        let of_pixels = |sums: &[Sums], extent: Extent| -> Vec<ChannelStatistics> {
            let count = extent.images * extent.pixels();
            (sums.iter())
                .map(|sums| ChannelStatistics::of(sums, count))
                .collect()
        };
        with_vectors!(simd => {
            let groups = self.output.groups();
            let mut convolved =
                pool.take(extent.images * groups * convolved_extent.pixels());
            let sums = self.convolve(simd, weights.conv, extent, images, &mut convolved, pool);
            let statistics = of_pixels(&sums, convolved_extent);
            let norm = Norm::new(weights.norm, &self.output, &statistics);
            let image_winners = groups * pooled_extent.pixels();
            let mut winners = vec![[0u8; LANES]; extent.images * image_winners];
            let parts: Vec<Vec<Sums>> = maps
                .par_chunks_mut(maps.len() / extent.images)
                .zip(convolved.par_chunks(convolved.len() / extent.images))
                .zip(winners.par_chunks_mut(image_winners))
                .map(|((maps, convolved), winners)| {
                    max_pool(simd, &norm.affine, convolved_extent, convolved, maps, winners)
                })
                .collect();
            let sums = Sums::total(groups, parts.iter().map(Vec::as_slice));
            let tape = StemTape { norm, convolved, winners, statistics };
            (of_pixels(&sums, pooled_extent), tape)
        })
    }

    /// As [`Self::forward`], with running statistics.
    pub fn evaluate(
        &self,
        weights: StemWeights<'_>,
        extent: Extent,
        images: &[f32],
        maps: &mut [Group],
        pool: &Pool,
    ) {
        let norm = Affine::of_running(weights.norm, &self.output);
        let (convolved_extent, pooled_extent) = (Self::convolved(extent), Self::pooled(extent));
        let groups = self.output.groups();
        with_vectors!(simd => {
            let mut convolved = pool.take(extent.images * groups * convolved_extent.pixels());
            self.convolve(simd, weights.conv, extent, images, &mut convolved, pool);
            maps.par_chunks_mut(maps.len() / extent.images)
                .zip(convolved.par_chunks(convolved.len() / extent.images))
                .for_each(|(maps, convolved)| {
                    let mut winners = vec![[0u8; LANES]; groups * pooled_extent.pixels()];
                    max_pool(simd, &norm, convolved_extent, convolved, maps, &mut winners);
                });
        });
    }

    /// The convolution of all images, and the sums of its output.
    pub(crate) fn convolve<S: Vectors>(
        &self,
        simd: S,
        weight: &[f32],
        extent: Extent,
        images: &[f32],
        convolved: &mut [Group],
        pool: &Pool,
    ) -> Vec<Sums> {
        let out_extent = Self::convolved(extent);
        let (pixels, width) = (out_extent.pixels(), out_extent.width);
        let packed = self.pack(weight);
        let strips = Strips::new(extent);
        let parts: Vec<Vec<Sums>> = convolved
            .par_chunks_mut(convolved.len() / extent.images)
            .zip(images.par_chunks(PLANES * extent.pixels()))
            .map(|(convolved, image)| {
                let mut strip = pool.take(strips.groups());
                let strip = strip.as_flattened_mut();
                let mut sums = vec![Sums::ZERO; packed.len()];
                for first in (0..out_extent.height).step_by(STRIP_ROWS) {
                    let rows = STRIP_ROWS.min(out_extent.height - first);
                    strips.fill(image, first, rows, strip);
                    for (group, (packed, sums)) in packed.iter().zip(&mut sums).enumerate() {
                        for row in 0..rows {
                            let out = group * pixels + (first + row) * width;
                            let out = &mut convolved[out..out + width];
                            let lines = strips.window_lines(strip, row);
                            convolve_row(simd, lines, packed, out);
                            sums.add_tile(&TileSums::of(simd, out));
                        }
                    }
                }
                sums
            })
            .collect();
        Sums::total(packed.len(), parts.iter().map(Vec::as_slice))
    }

    /// The backward pass: `maps` and `of_maps` are the first block's maps and their gradient, `corrections` what is
    /// still to be added to it.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    pub fn backward(
        &self,
        weights: StemWeights<'_>,
        tape: &StemTape,
        extent: Extent,
        images: &[f32],
        maps: &[Group],
        of_maps: &[Group],
        corrections: &[Correction],
        pool: &Pool,
    ) -> StemGradients {
        debug_assert_eq!(
            weights.conv.len(),
            self.output.maps() * PLANES * KERNEL * KERNEL
        );
        let groups = self.output.groups();
        let of_maps_combined: Vec<Combination> = corrections[..groups]
            .iter()
            .map(|correction| correction.with_scale([1.; LANES]))
            .collect();
        with_vectors!(simd => {
            let mut of_activated = pool.take(tape.convolved.len());
            let sums = self.unpool(
                simd, tape, extent, maps, of_maps, &of_maps_combined, &mut of_activated, pool,
            );
            let (norm, corrections) = tape.norm.backward(&sums);
            let of_convolved: Vec<Combination> = corrections
                .iter()
                .zip(&tape.norm.affine)
                .map(|(correction, affine)| correction.with_scale(affine.scale))
                .collect();
            let conv = self.weight_gradient(
                simd, tape, extent, images, &of_activated, &of_convolved, pool,
            );
            StemGradients { conv, norm }
        })
    }

    /// From the gradient of the pooled maps to that in front of the ReLU, and its sums.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    fn unpool<S: Vectors>(
        &self,
        simd: S,
        tape: &StemTape,
        extent: Extent,
        maps: &[Group],
        of_maps: &[Group],
        combinations: &[Combination],
        of_activated: &mut [Group],
        pool: &Pool,
    ) -> Vec<Sums> {
        let (wide, pooled) = (Self::convolved(extent), Self::pooled(extent));
        let (pixels, width) = (pooled.pixels(), pooled.width);
        let groups = combinations.len();
        let image_groups = maps.len() / extent.images;
        let parts: Vec<Vec<Sums>> = of_activated
            .par_chunks_mut(groups * wide.pixels())
            .zip(tape.convolved.par_chunks(groups * wide.pixels()))
            .zip(tape.winners.par_chunks(groups * pixels))
            .zip(
                maps.par_chunks(image_groups)
                    .zip(of_maps.par_chunks(image_groups)),
            )
            .map(|(((out, convolved), winners), (maps, of_maps))| {
                let mut line = pool.take(width);
                let mut sums = vec![Sums::ZERO; groups];
                let planes = out.chunks_exact_mut(wide.pixels());
                for ((group, out), sums) in planes.enumerate().zip(&mut sums) {
                    out.fill(ZERO);
                    for row in 0..pooled.height {
                        let run = group * pixels + row * width;
                        let run = run..run + width;
                        let (maps, of_maps) = (&maps[run.clone()], &of_maps[run.clone()]);
                        combine(simd, &combinations[group], of_maps, maps, &mut line);
                        scatter_row(simd, wide, row, &line, maps, &winners[run], out);
                    }
                    let convolved = &convolved[group * wide.pixels()..][..wide.pixels()];
                    for (g, x) in out.chunks(super::TILE).zip(convolved.chunks(super::TILE)) {
                        sums.add_tile(&TileSums::of_products(simd, g, x));
                    }
                }
                sums
            })
            .collect();
        Sums::total(groups, parts.iter().map(Vec::as_slice))
    }

    /// The gradient of the convolution's weight.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    fn weight_gradient<S: Vectors>(
        &self,
        simd: S,
        tape: &StemTape,
        extent: Extent,
        images: &[f32],
        of_activated: &[Group],
        of_convolved: &[Combination],
        pool: &Pool,
    ) -> Vec<f32> {
        let out_extent = Self::convolved(extent);
        let (pixels, width) = (out_extent.pixels(), out_extent.width);
        let groups = of_convolved.len();
        let strips = Strips::new(extent);
        let parts: Vec<Vec<Packed>> = (0..extent.parts())
            .into_par_iter()
            .map(|part| {
                let mut strip = pool.take(strips.groups());
                let strip = strip.as_flattened_mut();
                let mut of_output = pool.take(STRIP_ROWS * width);
                let mut sums = vec![[[ZERO; WINDOW]; KERNEL]; groups];
                let first = part * extent.images_a_part();
                let end = (first + extent.images_a_part()).min(extent.images);
                for index in first..end {
                    let image = &images[index * PLANES * extent.pixels()..];
                    let image = &image[..PLANES * extent.pixels()];
                    for first in (0..out_extent.height).step_by(STRIP_ROWS) {
                        let rows = STRIP_ROWS.min(out_extent.height - first);
                        strips.fill(image, first, rows, strip);
                        for (group, sums) in sums.iter_mut().enumerate() {
                            let run = (index * groups + group) * pixels + first * width;
                            let run = run..run + rows * width;
                            combine(
                                simd,
                                &of_convolved[group],
                                &of_activated[run.clone()],
                                &tape.convolved[run],
                                &mut of_output,
                            );
                            let of_output = &of_output[..rows * width];
                            for (ky, sums) in sums.iter_mut().enumerate() {
                                window_sums(simd, strips, strip, ky, of_output, width, sums);
                            }
                        }
                    }
                }
                sums
            })
            .collect();
        self.unpack(&parts)
    }

    /// A weight `O×3×7×7` in the kernel's order.
    fn pack(&self, weight: &[f32]) -> Vec<Packed> {
        let mut packed = vec![[[ZERO; WINDOW]; KERNEL]; self.output.groups()];
        self.for_each_weight(|at, group, ky, value, lane| {
            packed[group][ky][value][lane] = weight[at];
        });
        packed
    }

    /// The sum of the parts in the weight's order.
    fn unpack(&self, parts: &[Vec<Packed>]) -> Vec<f32> {
        let mut weight = vec![0.; self.output.maps() * PLANES * KERNEL * KERNEL];
        self.for_each_weight(|at, group, ky, value, lane| {
            weight[at] = parts.iter().map(|part| part[group][ky][value][lane]).sum();
        });
        weight
    }

    /// Calls `visit(place in the weight, group, kernel row, value of the window, lane)` for every weight.
    fn for_each_weight(&self, mut visit: impl FnMut(usize, usize, usize, usize, usize)) {
        for (group, (first, used)) in self.output.spans().enumerate() {
            for lane in 0..used {
                for plane in 0..PLANES {
                    for ky in 0..KERNEL {
                        for kx in 0..KERNEL {
                            let map = ((first + lane) * PLANES + plane) * KERNEL + ky;
                            let at = map * KERNEL + kx;
                            visit(at, group, ky, kx * PLANES + plane, lane);
                        }
                    }
                }
            }
        }
    }
}

/// Strips of images with their colour planes interleaved and a border of zeros, so that a window's row
/// is a run of neighbours.
#[derive(Clone, Copy)]
struct Strips {
    extent: Extent,
    /// Values of a padded line.
    line: usize,
}

impl Strips {
    fn new(extent: Extent) -> Self {
        let windows = Stem::convolved(extent).width;
        Self {
            extent,
            line: (windows - 1) * STEP + WINDOW,
        }
    }

    /// Groups that a strip's values fill.
    fn groups(self) -> usize {
        ((2 * STRIP_ROWS + KERNEL) * self.line).div_ceil(LANES)
    }

    /// Fills the lines that output rows `first .. first + rows` read.
    fn fill(self, image: &[f32], first: usize, rows: usize, strip: &mut [f32]) {
        let Extent { height, width, .. } = self.extent;
        let lines = strip
            .chunks_exact_mut(self.line)
            .take(2 * rows + KERNEL - 2);
        for (line, values) in lines.enumerate() {
            values.fill(0.);
            let Some(y) = (2 * first + line)
                .checked_sub(PADDING)
                .filter(|&y| y < height)
            else {
                continue;
            };
            for plane in 0..PLANES {
                let source = &image[(plane * height + y) * width..][..width];
                let inside = values[PADDING * PLANES + plane..]
                    .iter_mut()
                    .step_by(PLANES);
                for (value, &source) in inside.zip(source) {
                    *value = source;
                }
            }
        }
    }

    /// The seven lines that output row `row` of a strip reads.
    fn window_lines(self, strip: &[f32], row: usize) -> [&[f32]; KERNEL] {
        std::array::from_fn(|ky| &strip[(2 * row + ky) * self.line..][..self.line])
    }
}

/// One row of the convolution for one group.
fn convolve_row<S: Vectors>(simd: S, lines: [&[f32]; KERNEL], packed: &Packed, out: &mut [Group]) {
    simd.within(|| {
        let mut done = 0;
        if S::REGISTER_COUNT >= 32 {
            convolve_tiles::<S, 14>(simd, lines, packed, out, &mut done);
        } else {
            convolve_tiles::<S, 6>(simd, lines, packed, out, &mut done);
        }
        convolve_tiles::<S, 4>(simd, lines, packed, out, &mut done);
        convolve_tiles::<S, 1>(simd, lines, packed, out, &mut done);
    });
}

/// As many tiles of `P` pixels as there are left.
#[inline(always)]
fn convolve_tiles<S: Vectors, const P: usize>(
    simd: S,
    lines: [&[f32]; KERNEL],
    packed: &Packed,
    out: &mut [Group],
    done: &mut usize,
) {
    let vectors = LANES / S::F32_LANES;
    for out in out[*done..].as_chunks_mut::<P>().0 {
        for pair in 0..vectors / 2 {
            let mut sums = [[simd.splat_f32s(0.); 2]; P];
            for (line, weights) in lines.iter().zip(packed) {
                let line = &line[*done * STEP..][..(P - 1) * STEP + WINDOW];
                for (value, weights) in weights.iter().enumerate() {
                    let (weights, _) = S::as_simd_f32s(weights);
                    for (pixel, sums) in sums.iter_mut().enumerate() {
                        let x = simd.splat_f32s(line[pixel * STEP + value]);
                        sums[0] = simd.mul_add_e_f32s(x, weights[2 * pair], sums[0]);
                        sums[1] = simd.mul_add_e_f32s(x, weights[2 * pair + 1], sums[1]);
                    }
                }
            }
            for (out, sums) in out.iter_mut().zip(sums) {
                let (vectors, _) = S::as_mut_simd_f32s(out);
                vectors[2 * pair] = sums[0];
                vectors[2 * pair + 1] = sums[1];
            }
        }
        *done += P;
    }
}

/// `sums[value] += Σ_p x[p][value] · d[p]` for the values of one kernel row's window.
fn window_sums<S: Vectors>(
    simd: S,
    strips: Strips,
    strip: &[f32],
    ky: usize,
    d: &[Group],
    width: usize,
    sums: &mut [Group; WINDOW],
) {
    /// Values at a time: a third of the window.
    const AT_ONCE: usize = 7;
    simd.within(|| {
        let vectors = LANES / S::F32_LANES;
        for (part, sums) in sums.as_chunks_mut::<AT_ONCE>().0.iter_mut().enumerate() {
            for vector in 0..vectors {
                let mut totals = [simd.splat_f32s(0.); AT_ONCE];
                for (total, sums) in totals.iter_mut().zip(&*sums) {
                    *total = S::as_simd_f32s(sums).0[vector];
                }
                for (row, d) in d.chunks_exact(width).enumerate() {
                    let line = &strip[(2 * row + ky) * strips.line..][..strips.line];
                    let windows = line[part * AT_ONCE..].windows(AT_ONCE).step_by(STEP);
                    for (d, x) in d.iter().zip(windows) {
                        let d = S::as_simd_f32s(d).0[vector];
                        for (total, &x) in totals.iter_mut().zip(x) {
                            *total = simd.mul_add_e_f32s(simd.splat_f32s(x), d, *total);
                        }
                    }
                }
                for (sums, total) in sums.iter_mut().zip(totals) {
                    S::as_mut_simd_f32s(sums).0[vector] = total;
                }
            }
        }
    });
}

/// The places inside the image of the nine values that pooled pixel `(row, column)` is the largest of, each
/// with its number.
fn window(extent: Extent, row: usize, column: usize) -> impl Iterator<Item = (u8, usize)> {
    let ys = (0..3).filter_map(move |ky| {
        let y = (2 * row + ky).checked_sub(1)?;
        (y < extent.height).then_some((ky, y))
    });
    ys.flat_map(move |(ky, y)| {
        (0..3).filter_map(move |kx| {
            let x = (2 * column + kx).checked_sub(1)?;
            (x < extent.width).then_some(((3 * ky + kx) as u8, y * extent.width + x))
        })
    })
}

/// Normalisation, ReLU and max pool of one image, and the sums of the result.
pub(crate) fn max_pool<S: Vectors>(
    simd: S,
    norm: &[Affine],
    extent: Extent,
    convolved: &[Group],
    maps: &mut [Group],
    winners: &mut [[u8; LANES]],
) -> Vec<Sums> {
    let pooled = Stem::strided(extent);
    let mut sums = vec![Sums::ZERO; norm.len()];
    for (group, (affine, sums)) in norm.iter().zip(&mut sums).enumerate() {
        let convolved = &convolved[group * extent.pixels()..][..extent.pixels()];
        for row in 0..pooled.height {
            let run = group * pooled.pixels() + row * pooled.width;
            let run = run..run + pooled.width;
            let (maps, winners) = (&mut maps[run.clone()], &mut winners[run]);
            max_pool_row(simd, affine, extent, row, convolved, maps, winners);
            sums.add_tile(&TileSums::of(simd, maps));
        }
    }
    sums
}

fn max_pool_row<S: Vectors>(
    simd: S,
    affine: &Affine,
    extent: Extent,
    row: usize,
    convolved: &[Group],
    maps: &mut [Group],
    winners: &mut [[u8; LANES]],
) {
    simd.within(|| {
        for (column, (out, winner)) in maps.iter_mut().zip(winners).enumerate() {
            // Every value is at least 0 or NaN, so that the first beats this.
            let (mut best, mut number) = ([-1f32; LANES], [0u32; LANES]);
            for (candidate, at) in window(extent, row, column) {
                let x = &convolved[at];
                for lane in 0..LANES {
                    let value = x[lane] * affine.scale[lane] + affine.shift[lane];
                    let value = if value < 0. { 0. } else { value };
                    let is_better = (value > best[lane]) | value.is_nan();
                    best[lane] = if is_better { value } else { best[lane] };
                    number[lane] = if is_better {
                        u32::from(candidate)
                    } else {
                        number[lane]
                    };
                }
            }
            *out = best;
            *winner = number.map(|number| number as u8);
        }
    });
}

/// Adds the gradient of one row of pooled maps to that of the values that won. Where the largest value is
/// 0, the ReLU let none through.
#[expect(clippy::too_many_arguments, reason = "one row of each of five images")]
fn scatter_row<S: Vectors>(
    simd: S,
    extent: Extent,
    row: usize,
    g: &[Group],
    maps: &[Group],
    winners: &[[u8; LANES]],
    out: &mut [Group],
) {
    simd.within(|| {
        for (column, (g, (maps, winners))) in g.iter().zip(maps.iter().zip(winners)).enumerate() {
            let mut through = ZERO;
            for lane in 0..LANES {
                through[lane] = if maps[lane] > 0. { g[lane] } else { 0. };
            }
            for (candidate, at) in window(extent, row, column) {
                let out = &mut out[at];
                for lane in 0..LANES {
                    out[lane] += if winners[lane] == candidate {
                        through[lane]
                    } else {
                        0.
                    };
                }
            }
        }
    });
}
