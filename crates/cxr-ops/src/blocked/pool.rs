//! Pooling of blocked maps, and maps side by side.

use rayon::prelude::*;

use super::activation::exp;
use super::packing::Window;
use super::{Block, Extent, LANES, RUN, View, ZERO, in_block, min_chunks, of_block, vectors};
use crate::simd::Vectors;

/// Pooling over maps of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pooling {
    window: Window,
    input: Extent,
    output: Extent,
}

impl Pooling {
    pub(crate) fn new(window: Window, input: Extent, output: Extent) -> Self {
        Self {
            window,
            input,
            output,
        }
    }

    /// The pixels of the input that a window covers, in reading order.
    fn cells(&self, row: usize, column: usize) -> impl Iterator<Item = usize> + use<> {
        let range = |axis: usize, index: usize, side: usize| {
            let start = index * self.window.stride;
            let end = (start + self.window.kernel[axis]).saturating_sub(self.window.padding[axis]);
            start.saturating_sub(self.window.padding[axis])..end.min(side)
        };
        let width = self.input.width;
        let columns = range(1, column, width);
        range(0, row, self.input.height)
            .flat_map(move |y| columns.clone().map(move |x| y * width + x))
    }

    /// Calls `visit` for every block of every image: `(image, block, input plane, output plane)`.
    fn planes<S: Vectors>(
        &self,
        simd: S,
        view: &View<'_>,
        out: &mut [Block],
        plane: usize,
        visit: impl Fn(usize, &[Block], &mut [Block]) + Sync,
    ) {
        let blocks = self.input.blocks();
        let pixels = self.input.pixels();
        out.par_chunks_mut(plane).enumerate().for_each_init(
            || vec![ZERO; if view.is_plain() { 0 } else { pixels }],
            |line, (chunk, out)| {
                let (image, block) = (chunk / blocks, chunk % blocks);
                if view.is_plain() {
                    let stored = &view.stored(image, block, 0)[..pixels];
                    simd.within(
                        #[inline(always)]
                        || visit(chunk, stored, out),
                    );
                } else {
                    view.read(simd, image, block, 0, line);
                    simd.within(
                        #[inline(always)]
                        || visit(chunk, line, out),
                    );
                }
            },
        );
    }

    /// The largest value of every window; a NaN is the largest.
    pub(crate) fn max<S: Vectors>(&self, simd: S, view: &View<'_>, out: &mut [Block]) {
        let width = self.output.width;
        self.planes(
            simd,
            view,
            out,
            self.output.pixels(),
            #[inline(always)]
            |_, input, out| {
                for (at, out) in out.iter_mut().enumerate() {
                    let mut best = [f32::NEG_INFINITY; LANES];
                    for cell in self.cells(at / width, at % width) {
                        let x = &input[cell];
                        for lane in 0..LANES {
                            let beaten = x[lane] > best[lane] || x[lane].is_nan();
                            best[lane] = if beaten { x[lane] } else { best[lane] };
                        }
                    }
                    *out = best;
                }
            },
        );
    }

    /// Adds to `out` the gradient of [`Self::max`], which goes to the first largest value of a window in reading order.
    pub(crate) fn max_gradient<S: Vectors>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &[Block],
        out: &mut [Block],
    ) {
        let width = self.output.width;
        let plane = self.output.pixels();
        self.planes(
            simd,
            view,
            out,
            self.input.pixels(),
            #[inline(always)]
            |chunk, input, out| {
                let gradient = &gradient[chunk * plane..][..plane];
                for (at, gradient) in gradient.iter().enumerate() {
                    let cells = || (0u32..).zip(self.cells(at / width, at % width));
                    let mut best = [f32::NEG_INFINITY; LANES];
                    let mut place = [u32::MAX; LANES];
                    for (order, cell) in cells() {
                        let x = &input[cell];
                        for lane in 0..LANES {
                            let first_nan = x[lane].is_nan() && !best[lane].is_nan();
                            let beaten =
                                x[lane] > best[lane] || first_nan || place[lane] == u32::MAX;
                            best[lane] = if beaten { x[lane] } else { best[lane] };
                            place[lane] = if beaten { order } else { place[lane] };
                        }
                    }
                    for (order, cell) in cells() {
                        let out = &mut out[cell];
                        for lane in 0..LANES {
                            let here = place[lane] == order;
                            out[lane] += if here { gradient[lane] } else { 0. };
                        }
                    }
                }
            },
        );
    }

    /// 1 / the window's cells, padding included.
    fn share(&self) -> f32 {
        1. / self.window.taps() as f32
    }

    /// The mean of every window; padding counts as zeros.
    pub(crate) fn average<S: Vectors>(&self, simd: S, view: &View<'_>, out: &mut [Block]) {
        let (width, share) = (self.output.width, self.share());
        self.planes(
            simd,
            view,
            out,
            self.output.pixels(),
            #[inline(always)]
            |_, input, out| {
                for (at, out) in out.iter_mut().enumerate() {
                    let mut sum = ZERO;
                    for cell in self.cells(at / width, at % width) {
                        let x = &input[cell];
                        for lane in 0..LANES {
                            sum[lane] += x[lane];
                        }
                    }
                    *out = sum.map(|sum| sum * share);
                }
            },
        );
    }

    /// Adds to `out` the gradient of [`Self::average`].
    pub(crate) fn average_gradient(&self, gradient: &[Block], out: &mut [Block]) {
        let (width, share) = (self.output.width, self.share());
        let plane = self.output.pixels();
        out.par_chunks_mut(self.input.pixels())
            .zip(gradient.par_chunks(plane))
            .for_each(|(out, gradient)| {
                for (at, gradient) in gradient.iter().enumerate() {
                    for cell in self.cells(at / width, at % width) {
                        let out = &mut out[cell];
                        for lane in 0..LANES {
                            out[lane] += gradient[lane] * share;
                        }
                    }
                }
            });
    }
}

/// The mean over all pixels, per image and block.
pub(crate) fn global_average<S: Vectors>(simd: S, view: &View<'_>, out: &mut [Block]) {
    let (blocks, plane) = (view.extent.blocks(), view.extent.pixels());
    out.par_iter_mut()
        .with_min_len(min_chunks(plane))
        .enumerate()
        .for_each_init(
            || vec![ZERO; RUN],
            |line, (chunk, out)| {
                let mut total = [0f64; LANES];
                for pixel in (0..plane).step_by(RUN) {
                    let line = &mut line[..RUN.min(plane - pixel)];
                    view.read(simd, chunk / blocks, chunk % blocks, pixel, line);
                    let mut sum = ZERO;
                    simd.within(
                        #[inline(always)]
                        || {
                            for vector in 0..vectors::<S>() {
                                let zero = simd.splat_f32s(0.);
                                let (mut now, mut next) = (zero, zero);
                                for value in &*line {
                                    let more = simd.add_f32s(now, of_block::<S>(value, vector));
                                    now = std::mem::replace(&mut next, more);
                                }
                                *in_block::<S>(&mut sum, vector) = simd.add_f32s(now, next);
                            }
                        },
                    );
                    for lane in 0..LANES {
                        total[lane] += f64::from(sum[lane]);
                    }
                }
                *out = total.map(|total| (total / plane as f64) as f32);
            },
        );
}

/// `ln(mean of e^(r·x))/r` over all pixels, per image and block, with `r` = `sharpness`: between the mean, to which it tends
/// as r falls, and the maximum, to which it tends as r rises (Wang et al. 2017).
pub(crate) fn log_sum_exp<S: Vectors>(simd: S, view: &View<'_>, sharpness: f32, out: &mut [Block]) {
    let (blocks, plane) = (view.extent.blocks(), view.extent.pixels());
    out.par_iter_mut()
        .with_min_len(min_chunks(plane))
        .enumerate()
        .for_each_init(
            || vec![ZERO; plane],
            |line, (chunk, out)| {
                view.read(simd, chunk / blocks, chunk % blocks, 0, line);
                let mut largest = [f32::NEG_INFINITY; LANES];
                for value in &*line {
                    for lane in 0..LANES {
                        let beaten = value[lane] > largest[lane] || value[lane].is_nan();
                        largest[lane] = if beaten { value[lane] } else { largest[lane] };
                    }
                }
                let mut total = [0f64; LANES];
                for run in line.chunks(RUN) {
                    let mut sum = ZERO;
                    simd.within(
                        #[inline(always)]
                        || {
                            for vector in 0..vectors::<S>() {
                                let sharpness = simd.splat_f32s(sharpness);
                                let largest = of_block::<S>(&largest, vector);
                                let mut total = simd.splat_f32s(0.);
                                for value in run {
                                    let below =
                                        simd.sub_f32s(of_block::<S>(value, vector), largest);
                                    let term = exp(simd, simd.mul_f32s(sharpness, below));
                                    total = simd.add_f32s(total, term);
                                }
                                *in_block::<S>(&mut sum, vector) = total;
                            }
                        },
                    );
                    for lane in 0..LANES {
                        total[lane] += f64::from(sum[lane]);
                    }
                }
                for lane in 0..LANES {
                    let mean = (total[lane] / plane as f64).ln() / f64::from(sharpness);
                    out[lane] = (f64::from(largest[lane]) + mean) as f32;
                }
            },
        );
}

/// Adds to `out` the gradient of [`log_sum_exp`], whose output is `pooled`: each pixel's share of it is
/// `e^(r·(x − pooled)) / pixels`.
pub(crate) fn log_sum_exp_gradient<S: Vectors>(
    simd: S,
    view: &View<'_>,
    sharpness: f32,
    pooled: &[Block],
    gradient: &[Block],
    out: &mut [Block],
) {
    let (blocks, plane) = (view.extent.blocks(), view.extent.pixels());
    let share = 1. / plane as f32;
    out.par_chunks_mut(plane)
        .with_min_len(min_chunks(plane))
        .enumerate()
        .for_each_init(
            || vec![ZERO; plane],
            |line, (chunk, out)| {
                view.read(simd, chunk / blocks, chunk % blocks, 0, line);
                let (pooled, gradient) = (&pooled[chunk], &gradient[chunk]);
                simd.within(
                    #[inline(always)]
                    || {
                        for vector in 0..vectors::<S>() {
                            let [sharpness, share] =
                                [sharpness, share].map(|value| simd.splat_f32s(value));
                            let pooled = of_block::<S>(pooled, vector);
                            let gradient = simd.mul_f32s(of_block::<S>(gradient, vector), share);
                            for (out, x) in out.iter_mut().zip(&*line) {
                                let above = simd.sub_f32s(of_block::<S>(x, vector), pooled);
                                let weight = exp(simd, simd.mul_f32s(sharpness, above));
                                let out = in_block::<S>(out, vector);
                                *out = simd.mul_add_e_f32s(gradient, weight, *out);
                            }
                        }
                    },
                );
            },
        );
}

/// Writes the maps of `view` into `out`, which has `all` maps, from map `first` on.
pub(crate) fn place<S: Vectors>(
    simd: S,
    view: &View<'_>,
    first: usize,
    all: Extent,
    out: &mut [Block],
) {
    let (plane, blocks) = (all.pixels(), all.blocks());
    out.par_chunks_mut(blocks * plane)
        .enumerate()
        .for_each_init(
            || vec![ZERO; plane],
            |line, (image, out)| {
                for block in 0..view.extent.blocks() {
                    let map = first + block * LANES;
                    let lanes = view.extent.lanes(block);
                    if map.is_multiple_of(LANES) {
                        // What unused lanes hold is overwritten by the maps that follow.
                        let out = &mut out[map / LANES * plane..][..plane];
                        view.read(simd, image, block, 0, out);
                        continue;
                    }
                    view.read(simd, image, block, 0, line);
                    for lane in 0..lanes {
                        let (to, at) = ((map + lane) / LANES, (map + lane) % LANES);
                        for (out, value) in out[to * plane..][..plane].iter_mut().zip(&*line) {
                            out[at] = value[lane];
                        }
                    }
                }
            },
        );
}

/// The reverse: maps from `first` on of maps of extent `all`, into `out`.
pub(crate) fn pick(maps: &[Block], all: Extent, first: usize, extent: Extent, out: &mut [Block]) {
    let (plane, blocks) = (all.pixels(), all.blocks());
    out.par_chunks_mut(extent.blocks() * plane)
        .zip(maps.par_chunks(blocks * plane))
        .for_each(|(out, maps)| {
            for (block, out) in out.chunks_exact_mut(plane).enumerate() {
                let map = first + block * LANES;
                if map.is_multiple_of(LANES) {
                    out.copy_from_slice(&maps[map / LANES * plane..][..plane]);
                    continue;
                }
                out.fill(ZERO);
                for lane in 0..extent.lanes(block) {
                    let (from, at) = ((map + lane) / LANES, (map + lane) % LANES);
                    for (out, value) in out.iter_mut().zip(&maps[from * plane..][..plane]) {
                        out[lane] = value[at];
                    }
                }
            }
        });
}
