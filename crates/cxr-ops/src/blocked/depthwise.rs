//! Convolutions of each map with a window of its own, and their two gradients.

use std::cell::RefCell;

use rayon::prelude::*;

use super::conv::Epilogue;
use super::kernels::{Rows, Start, convolve_depthwise, outer_sums_depthwise};
use super::packing::{Packing, Phase, Strip, Window};
use super::{Block, Extent, LANES, Sums, View, ZERO};
use crate::simd::Vectors;

/// Pixels of a packed strip: enough that the rows which two strips share are few, and little enough for a second-level
/// cache.
const STRIP_PIXELS: usize = 2048;

/// A depthwise convolution over maps of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Depthwise {
    window: Window,
    input: Extent,
    output: Extent,
}

impl Depthwise {
    pub(crate) fn new(window: Window, input: Extent, output: Extent) -> Self {
        Self {
            window,
            input,
            output,
        }
    }

    /// Weights `C×1×K×L` by block and tap.
    pub(crate) fn weights(&self, weight: &[f32], scale: Option<&[f32]>) -> Vec<Block> {
        let taps = self.window.taps();
        let maps = self.input.maps;
        let mut blocks = vec![ZERO; self.input.blocks() * taps];
        for (block, blocks) in blocks.chunks_exact_mut(taps).enumerate() {
            for (tap, weights) in blocks.iter_mut().enumerate() {
                let maps = block * LANES..maps.min((block + 1) * LANES);
                for (value, map) in weights.iter_mut().zip(maps) {
                    let factor = scale.map_or(1., |scale| scale[map]);
                    *value = weight[map * taps + tap] * factor;
                }
            }
        }
        blocks
    }

    fn packing(&self) -> (Packing, Vec<Strip>) {
        let source = [self.input.height, self.input.width];
        let packing = Packing::of_window(self.window, source, self.output.width);
        let rows = (STRIP_PIXELS / packing.row_stride()).clamp(1, self.output.height);
        let size = [self.output.height, self.output.width];
        (packing, Strip::rows_of(size, rows).collect())
    }

    fn taps(&self, packing: Packing) -> Vec<usize> {
        let [height, width] = self.window.kernel;
        (0..height * width)
            .map(|tap| packing.tap(tap / width, tap % width))
            .collect()
    }

    /// As [`Conv::forward`](super::conv::Conv::forward).
    pub(crate) fn forward<S: Vectors>(
        &self,
        simd: S,
        weights: &[Block],
        view: &View<'_>,
        Epilogue { bias, sums, finish }: Epilogue<'_>,
        out: &mut [Block],
    ) {
        let (packing, strips) = self.packing();
        let taps = self.taps(packing);
        let blocks = self.output.blocks();
        let no_sums = &mut vec![Sums::ZERO; self.output.images * blocks][..];
        let with_sums = sums.is_some();
        let sums = sums.unwrap_or(no_sums);
        out.par_chunks_mut(self.output.pixels())
            .zip(sums)
            .enumerate()
            .for_each(|(chunk, (out, sums))| {
                Scratch::with(|scratch| {
                    let (image, block) = (chunk / blocks, chunk % blocks);
                    let weights = &weights[block * taps.len()..][..taps.len()];
                    for &strip in &strips {
                        scratch.packed.resize(packing.plane(strip.rows), ZERO);
                        let (row, packed) = (&mut scratch.row, &mut scratch.packed);
                        packing.fill(simd, view, (image, block), strip, row, packed);
                        let rows = Rows {
                            rows: strip.rows,
                            width: strip.width,
                            stride: packing.row_stride(),
                        };
                        let pixel = strip.row * self.output.width;
                        let out = &mut out[pixel..][..strip.pixels()];
                        let start = Start::of_bias(bias, block..block + 1);
                        convolve_depthwise(simd, rows, packed, &taps, weights, start, out);
                        Epilogue::finish(finish, with_sums, simd, (image, block, pixel), out, sums);
                    }
                });
            });
    }

    /// As [`Conv::input_gradient`](super::conv::Conv::input_gradient).
    pub(crate) fn input_gradient<S: Vectors>(
        &self,
        simd: S,
        weights: &[Block],
        gradient: &View<'_>,
        Epilogue { sums, finish, .. }: Epilogue<'_>,
        accumulate: bool,
        out: &mut [Block],
    ) {
        let no_sums = &mut vec![Sums::ZERO; self.input.images * self.input.blocks()][..];
        let with_sums = sums.is_some();
        let sums = sums.unwrap_or(no_sums);
        let (phases, least, most) = Phase::all(self.window);
        let stride = self.window.stride;
        let [height, width] = [self.input.height, self.input.width].map(|s| s.div_ceil(stride));
        let source = [self.output.height, self.output.width];
        let packing = Packing::of_neighbours(source, width, least, most);
        let rows = (STRIP_PIXELS / packing.row_stride()).clamp(1, height);
        let strips: Vec<Strip> = Strip::rows_of([height, width], rows).collect();
        let columns = self.window.kernel[1];
        // For each phase, offsets of its taps and which weights they have.
        let taps: Vec<(Vec<usize>, Vec<usize>)> = phases
            .iter()
            .map(|phase| {
                let taps = phase.taps.iter().map(|&(y, x, rows, places)| {
                    let [row, place] = [rows - least[0], places - least[1]];
                    let offset = packing.tap(row as usize, 0) + place as usize;
                    (offset, y * columns + x)
                });
                taps.unzip()
            })
            .collect();
        let blocks = self.input.blocks();
        let all = self.window.taps();
        out.par_chunks_mut(self.input.pixels())
            .zip(sums)
            .enumerate()
            .for_each(|(chunk, (out, sums))| {
                Scratch::with(|scratch| {
                    let (image, block) = (chunk / blocks, chunk % blocks);
                    let weights = &weights[block * all..][..all];
                    for &strip in &strips {
                        scratch.packed.resize(packing.plane(strip.rows), ZERO);
                        let (row, packed) = (&mut scratch.row, &mut scratch.packed);
                        packing.fill(simd, gradient, (image, block), strip, row, packed);
                        for (phase, (taps, places)) in phases.iter().zip(&taps) {
                            let [height, width] = [
                                (self.input.height, phase.remainder[0], strip.row, strip.rows),
                                (self.input.width, phase.remainder[1], 0, strip.width),
                            ]
                            .map(|(side, remainder, first, count)| {
                                let all = side.saturating_sub(remainder).div_ceil(stride);
                                all.saturating_sub(first).min(count)
                            });
                            let count = height * width;
                            if count == 0 {
                                continue;
                            }
                            let rows = Rows {
                                rows: height,
                                width,
                                stride: packing.row_stride(),
                            };
                            scratch.weights.clear();
                            scratch
                                .weights
                                .extend(places.iter().map(|&place| weights[place]));
                            if stride == 1 {
                                let out = &mut out[strip.row * self.input.width..][..count];
                                let weights = &scratch.weights;
                                let start = Start::of_output(accumulate);
                                convolve_depthwise(simd, rows, packed, taps, weights, start, out);
                                continue;
                            }
                            scratch.phase.resize(count, ZERO);
                            let computed = &mut scratch.phase[..count];
                            convolve_depthwise(
                                simd,
                                rows,
                                packed,
                                taps,
                                &scratch.weights,
                                Start::Zero,
                                computed,
                            );
                            for (row, computed) in computed.chunks_exact(width).enumerate() {
                                let y = (strip.row + row) * stride + phase.remainder[0];
                                let line = &mut out[y * self.input.width + phase.remainder[1]..];
                                for (to, from) in line.iter_mut().step_by(stride).zip(computed) {
                                    if accumulate {
                                        for lane in 0..LANES {
                                            to[lane] += from[lane];
                                        }
                                    } else {
                                        *to = *from;
                                    }
                                }
                            }
                        }
                        let first = strip.row * stride * self.input.width;
                        let rows =
                            (strip.rows * stride).min(self.input.height - strip.row * stride);
                        let out = &mut out[first..][..rows * self.input.width];
                        Epilogue::finish(finish, with_sums, simd, (image, block, first), out, sums);
                    }
                });
            });
    }

    /// The gradient of the weight, `C×1×K×L`.
    pub(crate) fn weight_gradient<S: Vectors>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &View<'_>,
    ) -> Vec<f32> {
        debug_assert!(gradient.is_plain());
        let (packing, strips) = self.packing();
        let taps = self.taps(packing);
        let blocks: Vec<Vec<f32>> = (0..self.input.blocks())
            .into_par_iter()
            .map(|block| {
                Scratch::with(|scratch| {
                    let mut totals = vec![[0f64; LANES]; taps.len()];
                    let mut sums = vec![ZERO; taps.len()];
                    for image in 0..self.output.images {
                        for &strip in &strips {
                            scratch.packed.resize(packing.plane(strip.rows), ZERO);
                            let (row, packed) = (&mut scratch.row, &mut scratch.packed);
                            packing.fill(simd, view, (image, block), strip, row, packed);
                            let rows = Rows {
                                rows: strip.rows,
                                width: strip.width,
                                stride: packing.row_stride(),
                            };
                            let pixel = strip.row * self.output.width;
                            let d = &gradient.stored(image, block, pixel)[..strip.pixels()];
                            outer_sums_depthwise(simd, rows, packed, &taps, d, &mut sums);
                            for (total, sum) in totals.iter_mut().zip(&sums) {
                                for lane in 0..LANES {
                                    total[lane] += f64::from(sum[lane]);
                                }
                            }
                        }
                    }
                    let lanes = self.input.lanes(block);
                    (0..lanes)
                        .flat_map(|lane| totals.iter().map(move |total| total[lane] as f32))
                        .collect()
                })
            })
            .collect();
        blocks.concat()
    }
}

#[derive(Default)]
struct Scratch {
    packed: Vec<Block>,
    row: Vec<Block>,
    phase: Vec<Block>,
    weights: Vec<Block>,
}

thread_local! {
    /// Kept from call to call: fresh memory would cost page faults.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    /// Calls `f`, which hands nothing to other threads, with what this thread has.
    fn with<T>(f: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(f)
    }
}
