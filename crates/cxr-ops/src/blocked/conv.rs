//! Convolutions of any window, stride and number of groups, and their two gradients.

use std::ops::Range;

use rayon::prelude::*;

use super::kernels::{Kernels, Outer, Rows};
use super::packing::{Packing, Phase, Strip, Window};
use super::panels::{Panels, connected, needed, panels};
use super::{Block, Extent, LANES, Sums, View, ZERO};
use crate::simd::Vectors;

/// Pixels × blocks of a packed strip: half a megabyte, which stays in a second-level cache.
const STRIP_BLOCKS: usize = 1 << 13;
/// Pixels of a packed strip of a single block, for the weight's gradient: what stays in a first-level cache.
const GRADIENT_PIXELS: usize = 384;
/// Work is cut into this many parts at least, where there are as many blocks.
const PARTS: usize = 16;

/// A convolution over maps of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    window: Window,
    groups: usize,
    input: Extent,
    output: Extent,
}

/// What is done to pixels of a block as soon as they are computed: `(image, block, first pixel, pixels)`.
pub(crate) type Finish<'a> = &'a (dyn Fn(usize, usize, usize, &mut [Block]) + Sync);

/// What is done with a convolution's output besides.
#[derive(Default)]
pub(crate) struct Epilogue<'a> {
    /// Added to every pixel, one value per map.
    pub(crate) bias: Option<&'a [Block]>,
    /// One per image and block: get Σ y and Σ y².
    pub(crate) sums: Option<&'a mut [Sums]>,
    pub(crate) finish: Option<Finish<'a>>,
}

impl Conv {
    /// `input` is not smaller than the window.
    pub(crate) fn new(window: Window, groups: usize, input: Extent, output: Extent) -> Self {
        let flat = |extent: Extent| Extent {
            height: 1,
            width: extent.pixels(),
            ..extent
        };
        // Pixel by pixel: rows are of no meaning.
        let is_pointwise = window.is_pointwise();
        Self {
            window,
            groups,
            input: if is_pointwise { flat(input) } else { input },
            output: if is_pointwise { flat(output) } else { output },
        }
    }

    /// The weights of the forward pass from `O×I×K×L`, each output map's multiplied by its `scale`.
    pub(crate) fn forward_panels(&self, weight: &[f32], scale: Option<&[f32]>) -> Panels {
        let plane = self.forward_packing().plane(self.forward_rows());
        let packing = self.forward_packing();
        let [height, width] = self.window.kernel;
        let taps: Vec<(usize, usize)> = (0..height * width)
            .map(|tap| (tap, packing.tap(tap / width, tap % width)))
            .collect();
        let inputs = self.input.maps / self.groups;
        let outputs = self.output.maps / self.groups;
        let all = self.window.taps();
        let factor = |output: usize| scale.map_or(1., |scale| scale[output]);
        if self.groups == 1 {
            // Without the divisions below, of which there would be one for each weight.
            return panels(
                self.output,
                self.input,
                1,
                plane,
                &taps,
                |output, input, tap| weight[(output * inputs + input) * all + tap] * factor(output),
            );
        }
        let groups = self.groups;
        panels(
            self.output,
            self.input,
            groups,
            plane,
            &taps,
            |output, input, tap| {
                if output / outputs == input / inputs {
                    weight[(output * inputs + input % inputs) * all + tap] * factor(output)
                } else {
                    0.
                }
            },
        )
    }

    /// The weights of the backward pass, phase by phase.
    pub(crate) fn backward_panels(&self, weight: &[f32]) -> Vec<Panels> {
        let (phases, least, _) = Phase::all(self.window);
        let packing = self.backward_packing();
        let plane = packing.plane(self.backward_rows());
        let width = self.window.kernel[1];
        let inputs = self.input.maps / self.groups;
        let outputs = self.output.maps / self.groups;
        let all = self.window.taps();
        phases
            .iter()
            .map(|phase| {
                let taps: Vec<(usize, usize)> = (phase.taps.iter())
                    .map(|&(y, x, rows, columns)| {
                        let [row, column] = [rows - least[0], columns - least[1]];
                        (
                            y * width + x,
                            packing.tap(row as usize, 0) + column as usize,
                        )
                    })
                    .collect();
                if self.groups == 1 {
                    return panels(
                        self.input,
                        self.output,
                        1,
                        plane,
                        &taps,
                        |input, output, tap| weight[(output * inputs + input) * all + tap],
                    );
                }
                let groups = self.groups;
                panels(
                    self.input,
                    self.output,
                    groups,
                    plane,
                    &taps,
                    |input, output, tap| {
                        if output / outputs == input / inputs {
                            weight[(output * inputs + input % inputs) * all + tap]
                        } else {
                            0.
                        }
                    },
                )
            })
            .collect()
    }

    fn forward_packing(&self) -> Packing {
        let source = [self.input.height, self.input.width];
        Packing::of_window(self.window, source, self.forward_width())
    }

    /// The widest strip.
    fn forward_width(&self) -> usize {
        if self.window.is_pointwise() {
            flat_part(self.input.blocks()).min(self.output.width)
        } else {
            self.output.width
        }
    }

    fn forward_rows(&self) -> usize {
        let source = [self.input.height, self.input.width];
        let packing = Packing::of_window(self.window, source, self.forward_width());
        rows_within(
            packing,
            STRIP_BLOCKS / self.input.blocks(),
            self.output.height,
        )
    }

    fn forward_strips(&self) -> Vec<Strip> {
        if self.window.is_pointwise() {
            Strip::parts_of(self.output.width, self.forward_width()).collect()
        } else {
            let size = [self.output.height, self.output.width];
            Strip::rows_of(size, self.forward_rows()).collect()
        }
    }

    /// Rows and columns of the input by remainder, rounded up.
    fn phase_size(&self) -> [usize; 2] {
        [self.input.height, self.input.width].map(|side| side.div_ceil(self.window.stride))
    }

    fn backward_packing(&self) -> Packing {
        let (_, least, most) = Phase::all(self.window);
        let source = [self.output.height, self.output.width];
        Packing::of_neighbours(source, self.backward_width(), least, most)
    }

    fn backward_width(&self) -> usize {
        if self.window.is_pointwise() {
            flat_part(self.output.blocks()).min(self.input.width)
        } else {
            self.phase_size()[1]
        }
    }

    fn backward_rows(&self) -> usize {
        let budget = STRIP_BLOCKS / self.output.blocks();
        rows_within(self.backward_packing(), budget, self.phase_size()[0])
    }

    fn backward_strips(&self) -> Vec<Strip> {
        if self.window.is_pointwise() {
            Strip::parts_of(self.input.width, self.backward_width()).collect()
        } else {
            Strip::rows_of(self.phase_size(), self.backward_rows()).collect()
        }
    }

    /// The output of `view`, into `out`.
    pub(crate) fn forward<S: Kernels>(
        &self,
        simd: S,
        panels: &Panels,
        view: &View<'_>,
        Epilogue { bias, sums, finish }: Epilogue<'_>,
        out: &mut [Block],
    ) {
        let packing = self.forward_packing();
        let block_plane = packing.plane(self.forward_rows());
        let strips = self.forward_strips();
        let blocks = self.output.blocks();
        let plane = self.output.pixels();
        let part = part_blocks(self.output.images, blocks);
        let no_sums = &mut vec![Sums::ZERO; self.output.images * blocks][..];
        let with_sums = sums.is_some();
        let sums = sums.unwrap_or(no_sums);
        out.par_chunks_mut(blocks * plane)
            .zip(sums.par_chunks_mut(blocks))
            .enumerate()
            .for_each(|(image, (out, sums))| {
                out.par_chunks_mut(part * plane)
                    .zip(sums.par_chunks_mut(part))
                    .enumerate()
                    .for_each_init(Scratch::default, |scratch, (index, (out, sums))| {
                        let first = index * part;
                        let here = panels.of_blocks(first..first + sums.len());
                        let from = needed(here);
                        scratch.packed.resize(from.len() * block_plane, ZERO);
                        for &strip in &strips {
                            let planes = scratch.packed.chunks_exact_mut(block_plane);
                            for (block, packed) in from.clone().zip(planes) {
                                let row = &mut scratch.row;
                                packing.fill(simd, view, (image, block), strip, row, packed);
                            }
                            let pixel = strip.row * self.output.width + strip.column;
                            let rows = Rows {
                                rows: strip.rows,
                                width: strip.width,
                                stride: packing.row_stride(),
                            };
                            for panel in here {
                                let x = (panel.from.start - from.start) * block_plane;
                                let x = &scratch.packed[x..];
                                let local = panel.to.start - first;
                                let run = pixel..pixel + strip.pixels();
                                let out = &mut out[local * plane..][..panel.to.len() * plane];
                                if let Some(bias) = bias {
                                    for (out, bias) in
                                        out.chunks_exact_mut(plane).zip(&bias[panel.to.clone()])
                                    {
                                        out[run.clone()].fill(*bias);
                                    }
                                }
                                let with_bias = bias.is_some();
                                panels.run(
                                    simd,
                                    panel,
                                    rows,
                                    x,
                                    with_bias,
                                    plane,
                                    run.clone(),
                                    out,
                                );
                                for (at, out) in out.chunks_exact_mut(plane).enumerate() {
                                    let out = &mut out[run.clone()];
                                    if with_sums {
                                        sums[local + at].add_squares(simd, out);
                                    }
                                    if let Some(finish) = finish {
                                        finish(image, panel.to.start + at, pixel, out);
                                    }
                                }
                            }
                        }
                    });
            });
    }

    /// The gradient of the input from that of the output, added to `out` or in its place.
    pub(crate) fn input_gradient<S: Kernels>(
        &self,
        simd: S,
        panels: &[Panels],
        gradient: &View<'_>,
        accumulate: bool,
        out: &mut [Block],
    ) {
        let packing = self.backward_packing();
        let block_plane = packing.plane(self.backward_rows());
        let strips = self.backward_strips();
        let (phases, ..) = Phase::all(self.window);
        let blocks = self.input.blocks();
        let plane = self.input.pixels();
        let part = part_blocks(self.input.images, blocks);
        let stride = self.window.stride;
        let Some(first_panels) = panels.first() else {
            return;
        };
        out.par_chunks_mut(blocks * plane)
            .enumerate()
            .for_each(|(image, out)| {
                out.par_chunks_mut(part * plane).enumerate().for_each_init(
                    Scratch::default,
                    |scratch, (index, out)| {
                        let first = index * part;
                        let last = first + out.len() / plane;
                        let from = needed(first_panels.of_blocks(first..last));
                        scratch.packed.resize(from.len() * block_plane, ZERO);
                        for &strip in &strips {
                            let planes = scratch.packed.chunks_exact_mut(block_plane);
                            for (block, packed) in from.clone().zip(planes) {
                                let row = &mut scratch.row;
                                packing.fill(simd, gradient, (image, block), strip, row, packed);
                            }
                            for (phase, panels) in phases.iter().zip(panels) {
                                // Rows and columns of the strip that this phase has.
                                let [height, width] = [
                                    (self.input.height, phase.remainder[0], strip.row, strip.rows),
                                    (
                                        self.input.width,
                                        phase.remainder[1],
                                        strip.column,
                                        strip.width,
                                    ),
                                ]
                                .map(
                                    |(side, remainder, first, count)| {
                                        let all = side.saturating_sub(remainder).div_ceil(stride);
                                        all.saturating_sub(first).min(count)
                                    },
                                );
                                if height * width == 0 {
                                    continue;
                                }
                                let rows = Rows {
                                    rows: height,
                                    width,
                                    stride: packing.row_stride(),
                                };
                                for panel in panels.of_blocks(first..last) {
                                    let x = (panel.from.start - from.start) * block_plane;
                                    let x = &scratch.packed[x..];
                                    let local = panel.to.start - first;
                                    let out = &mut out[local * plane..][..panel.to.len() * plane];
                                    if stride == 1 {
                                        let pixel = strip.row * self.input.width + strip.column;
                                        let run = pixel..pixel + height * width;
                                        panels
                                            .run(simd, panel, rows, x, accumulate, plane, run, out);
                                        continue;
                                    }
                                    let count = height * width;
                                    scratch.phase.resize(2 * count, ZERO);
                                    let computed = &mut scratch.phase[..panel.to.len() * count];
                                    if panel.taps.is_empty() {
                                        computed.fill(ZERO);
                                    } else {
                                        panels.run(
                                            simd,
                                            panel,
                                            rows,
                                            x,
                                            false,
                                            count,
                                            0..count,
                                            computed,
                                        );
                                    }
                                    for (computed, out) in computed
                                        .chunks_exact(count)
                                        .zip(out.chunks_exact_mut(plane))
                                    {
                                        for (row, computed) in
                                            computed.chunks_exact(width).enumerate()
                                        {
                                            let y = (strip.row + row) * stride + phase.remainder[0];
                                            let x = strip.column * stride + phase.remainder[1];
                                            let line = &mut out[y * self.input.width + x..];
                                            scatter(simd, computed, stride, accumulate, line);
                                        }
                                    }
                                }
                            }
                        }
                    },
                );
            });
    }

    /// The gradient of the weight, `O×I×K×L`. `gradient` is stored as it is, `view` what the forward pass read.
    pub(crate) fn weight_gradient<S: Kernels>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &View<'_>,
    ) -> Vec<f32> {
        debug_assert!(gradient.is_plain());
        let inputs = self.input.blocks();
        let tasks: Vec<(usize, Range<usize>)> = (0..inputs)
            .flat_map(|input| {
                let maps = (self.input.maps, self.output.maps);
                let all = connected(input..input + 1, maps.0, maps.1, self.groups);
                let parts = PARTS.div_ceil(inputs).min(all.len().div_ceil(2));
                let part = all.len().div_ceil(parts).next_multiple_of(2);
                let (start, end) = (all.start, all.end);
                all.step_by(part)
                    .map(move |first| (input, first..(first + part).min(end)))
                    .inspect(move |(_, range)| debug_assert!(range.start >= start))
            })
            .collect();
        let taps = self.window.taps();
        let sums: Vec<Vec<Block>> = tasks
            .par_iter()
            .map_init(Scratch::default, |scratch, (input, outputs)| {
                let mut sums = vec![ZERO; outputs.len() * taps * LANES];
                self.add_outer(simd, view, gradient, *input, outputs, scratch, &mut sums);
                sums
            })
            .collect();
        let (of_group, out_group) = (
            self.input.maps / self.groups,
            self.output.maps / self.groups,
        );
        let mut weight = vec![0f32; self.output.maps * of_group * taps];
        weight
            .par_chunks_mut(LANES * of_group * taps)
            .enumerate()
            .for_each(|(output, weight)| {
                for ((input, outputs), sums) in tasks.iter().zip(&sums) {
                    if !outputs.contains(&output) {
                        continue;
                    }
                    let local = output - outputs.start;
                    let pair = local / 2 * 2;
                    let wide = (outputs.len() - pair).min(2);
                    for (lane, weight) in weight.chunks_exact_mut(of_group * taps).enumerate() {
                        // Maps of the input's block that are of this output's group.
                        let group = (output * LANES + lane) / out_group;
                        let maps = (group * of_group).max(input * LANES)
                            ..((group + 1) * of_group).min((input + 1) * LANES);
                        for map in maps {
                            let from =
                                pair * taps * LANES + (map - input * LANES) * wide + local % 2;
                            let values = &mut weight[(map - group * of_group) * taps..][..taps];
                            for (tap, value) in values.iter_mut().enumerate() {
                                *value = sums[from + tap * LANES * wide][lane];
                            }
                        }
                    }
                }
            });
        weight
    }

    /// Sums of products of one input block with some output blocks: in pairs of those, by tap and input map.
    #[expect(clippy::too_many_arguments, reason = "the inside of one loop")]
    fn add_outer<S: Kernels>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &View<'_>,
        input: usize,
        outputs: &Range<usize>,
        scratch: &mut Scratch,
        sums: &mut [Block],
    ) {
        let source = [self.input.height, self.input.width];
        let is_flat = self.window.is_pointwise();
        let width = if is_flat {
            GRADIENT_PIXELS.min(self.output.width)
        } else {
            self.output.width
        };
        let packing = Packing::of_window(self.window, source, width);
        let strips: Vec<Strip> = if is_flat {
            Strip::parts_of(self.output.width, width).collect()
        } else {
            let rows = rows_within(packing, GRADIENT_PIXELS, self.output.height);
            Strip::rows_of([self.output.height, width], rows).collect()
        };
        let [height, width] = self.window.kernel;
        let taps: Vec<usize> = (0..height * width)
            .map(|tap| packing.tap(tap / width, tap % width))
            .collect();
        let lanes = self.input.lanes(input);
        for image in 0..self.output.images {
            for &strip in &strips {
                scratch.packed.resize(packing.plane(strip.rows), ZERO);
                let (row, packed) = (&mut scratch.row, &mut scratch.packed);
                packing.fill(simd, view, (image, input), strip, row, packed);
                let rows = Rows {
                    rows: strip.rows,
                    width: strip.width,
                    stride: packing.row_stride(),
                };
                let pixel = strip.row * self.output.width + strip.column;
                let of_output = |block| &gradient.stored(image, block, pixel)[..strip.pixels()];
                let mut rest = &mut *sums;
                let mut block = outputs.start;
                while block < outputs.end {
                    let wide = (outputs.end - block).min(2);
                    let (now, later) = rest.split_at_mut(wide * taps.len() * LANES);
                    rest = later;
                    if wide == 2 {
                        let d = [of_output(block), of_output(block + 1)];
                        let (lines, _) = now.as_chunks_mut::<2>();
                        for (&tap, sums) in taps.iter().zip(lines.as_chunks_mut::<LANES>().0) {
                            simd.outer_two(outer(&packed[tap..], rows, lanes, d), sums);
                        }
                    } else {
                        let d = [of_output(block)];
                        let (lines, _) = now.as_chunks_mut::<1>();
                        for (&tap, sums) in taps.iter().zip(lines.as_chunks_mut::<LANES>().0) {
                            simd.outer_one(outer(&packed[tap..], rows, lanes, d), sums);
                        }
                    }
                    block += wide;
                }
            }
        }
    }
}

#[derive(Default)]
struct Scratch {
    packed: Vec<Block>,
    row: Vec<Block>,
    phase: Vec<Block>,
}

fn outer<'a, const W: usize>(
    a: &'a [Block],
    rows: Rows,
    lanes: usize,
    d: [&'a [Block]; W],
) -> Outer<'a, W> {
    Outer { rows, lanes, a, d }
}

/// Pixels of a flat strip of `blocks` blocks, a multiple of the kernel's tile.
fn flat_part(blocks: usize) -> usize {
    const TILE: usize = 14;
    (STRIP_BLOCKS / blocks / TILE).clamp(4, 16) * TILE
}

/// As many rows as have `budget` pixels when they are packed.
fn rows_within(packing: Packing, budget: usize, all: usize) -> usize {
    let beyond = packing.plane(1).saturating_sub(packing.row_stride());
    (budget.saturating_sub(beyond) / packing.row_stride()).clamp(1, all.max(1))
}

/// Blocks of one part of an image's work: an even number.
fn part_blocks(images: usize, blocks: usize) -> usize {
    let parts = PARTS.div_ceil(images).min(blocks.div_ceil(2));
    blocks.div_ceil(parts).next_multiple_of(2)
}

/// Writes or adds pixels to every `stride`-th place.
fn scatter<S: Vectors>(simd: S, from: &[Block], stride: usize, accumulate: bool, to: &mut [Block]) {
    simd.within(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().step_by(stride).zip(from) {
                if accumulate {
                    for lane in 0..LANES {
                        to[lane] += from[lane];
                    }
                } else {
                    *to = *from;
                }
            }
        },
    );
}
