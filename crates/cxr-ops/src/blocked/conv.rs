//! Convolutions of any window, stride and number of groups, and their two gradients.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::kernels::{Kernels, Outer, Rows, Start, Tap};
use super::maps::Room;
use super::packing::{Packing, Phase, Strip, Window};
use super::panels::{Dense, Panels, connected, dense_panels, needed, panels};
use super::winograd::{Tile, TransformedWeights, Winograd};
use super::{Block, Extent, LANES, Sums, View, ZERO};
use crate::grouped::Pool;
use crate::simd::Vectors;

/// Pixels × blocks of a strip: half a megabyte, which stays in a second-level cache.
const STRIP_BLOCKS: usize = 1 << 13;
/// Pixels of a packed strip of a single block, for the weight's gradient: what stays in a first-level cache.
const GRADIENT_PIXELS: usize = 384;
/// Work is cut into this many parts at least, where it is large enough.
const PARTS: usize = 16;
/// Blocks of a part at least: below, laying out what they read would cost too much.
const PART_BLOCKS: usize = 8;
/// Pixels that the kernels compute together.
const TILE: usize = 14;

/// A convolution over maps of one size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    window: Window,
    groups: usize,
    input: Extent,
    output: Extent,
}

/// What is done to pixels of a block as soon as they are computed: `(image, block, first pixel, pixels, sums)`.
pub(crate) type Finish<'a> = &'a (dyn Fn(usize, usize, usize, &mut [Block], &mut Sums) + Sync);

/// What is done with a convolution's output, or an input's gradient, besides.
#[derive(Default)]
pub(crate) struct Epilogue<'a> {
    /// Added to every pixel, one value per map.
    pub(crate) bias: Option<&'a [Block]>,
    /// One per image and block: get Σ y and Σ y², or what `finish` adds to them.
    pub(crate) sums: Option<&'a mut [Sums]>,
    pub(crate) finish: Option<Finish<'a>>,
}

impl Epilogue<'_> {
    /// What is done to pixels of a block, and to their sums.
    pub(super) fn finish<S: Vectors>(
        finish: Option<Finish<'_>>,
        with_sums: bool,
        simd: S,
        (image, block, pixel): (usize, usize, usize),
        out: &mut [Block],
        sums: &mut Sums,
    ) {
        match finish {
            Some(finish) => finish(image, block, pixel, out, sums),
            None if with_sums => sums.add_squares(simd, out),
            None => {}
        }
    }
}

/// A convolution's weights in the order in which one way to compute it reads them.
pub(crate) enum Weights {
    /// For sums in the order of their definition.
    Direct(Panels),
    /// For Winograd's tiles.
    Tiles(Winograd, TransformedWeights),
}

/// The same of a backward pass.
pub(crate) enum BackwardWeights {
    /// Phase by phase.
    Direct(Vec<Panels>),
    Tiles(Winograd, TransformedWeights),
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

    /// Winograd's way, if it pays.
    fn by_tiles(&self, tile: Tile) -> Option<Winograd> {
        Winograd::pays(tile, self.window, self.groups, self.input, self.output)
            .then(|| Winograd::new(tile, self.window.padding, self.input, self.output))
    }

    /// The weights of the forward pass from `O×I×K×L`, each output map's multiplied by its `scale`, for tiles of this size
    /// where they pay.
    pub(crate) fn forward_weights<S: Vectors>(
        &self,
        simd: S,
        weight: &[f32],
        scale: Option<&[f32]>,
        tile: Tile,
        pool: &Pool,
    ) -> Weights {
        let [inputs, outputs] = [self.input.maps, self.output.maps].map(|maps| maps / self.groups);
        let all = self.window.taps();
        let dense = Dense {
            values: weight,
            strides: [inputs * all, all],
            scale,
        };
        if let Some(winograd) = self.by_tiles(tile) {
            let weights = winograd.weights(simd, &dense, false, pool);
            return Weights::Tiles(winograd, weights);
        }
        let taps: Vec<usize> = (0..all).collect();
        let (to, from) = (self.output.maps, self.input.maps);
        Weights::Direct(if self.groups == 1 {
            dense_panels(to, from, &taps, &dense, pool)
        } else {
            panels(to, from, self.groups, &taps, pool, |output, input, tap| {
                if output / outputs == input / inputs {
                    let factor = scale.map_or(1., |scale| scale[output]);
                    weight[(output * inputs + input % inputs) * all + tap] * factor
                } else {
                    0.
                }
            })
        })
    }

    /// The weights of the backward pass.
    pub(crate) fn backward_weights<S: Vectors>(
        &self,
        simd: S,
        weight: &[f32],
        pool: &Pool,
    ) -> BackwardWeights {
        let [inputs, outputs] = [self.input.maps, self.output.maps].map(|maps| maps / self.groups);
        let all = self.window.taps();
        let dense = Dense {
            values: weight,
            strides: [all, inputs * all],
            scale: None,
        };
        if let Some(winograd) = self.by_tiles(Tile::Small) {
            let winograd = winograd.transposed();
            let weights = winograd.weights(simd, &dense, true, pool);
            return BackwardWeights::Tiles(winograd, weights);
        }
        let (to, from) = (self.input.maps, self.output.maps);
        let width = self.window.kernel[1];
        let (phases, ..) = Phase::all(self.window);
        let of_phase = |phase: &Phase| {
            let taps: Vec<usize> = (phase.taps.iter())
                .map(|&(y, x, ..)| y * width + x)
                .collect();
            if self.groups == 1 {
                return dense_panels(to, from, &taps, &dense, pool);
            }
            panels(to, from, self.groups, &taps, pool, |input, output, tap| {
                if output / outputs == input / inputs {
                    weight[(output * inputs + input % inputs) * all + tap]
                } else {
                    0.
                }
            })
        };
        BackwardWeights::Direct(phases.iter().map(of_phase).collect())
    }

    /// The output of `view`, into `out`.
    pub(crate) fn forward<S: Kernels>(
        &self,
        simd: S,
        weights: &Weights,
        view: &View<'_>,
        epilogue: Epilogue<'_>,
        out: &mut [Block],
    ) {
        let panels = match weights {
            Weights::Direct(panels) => panels,
            Weights::Tiles(winograd, weights) => {
                winograd.forward(simd, weights, view, epilogue, false, out);
                return;
            }
        };
        let Epilogue { bias, sums, finish } = epilogue;
        let source = Source::of_window(self.window, view, self.input, self.output);
        let [height, width] = self.window.kernel;
        let offsets: Vec<usize> = (0..height * width)
            .map(|tap| source.packing.tap(tap / width, tap % width))
            .collect();
        let with_sums = sums.is_some();
        let tasks = source.tasks(out, self.output, 1);
        let found: Vec<(usize, usize, Vec<Sums>)> = tasks
            .into_par_iter()
            .map(|task| {
                Scratch::with(|scratch| {
                    let (image, first, strip) = (task.image, task.first, task.strip);
                    let here = panels.of_blocks(first..first + task.out.len());
                    let from = needed(here);
                    let Scratch {
                        packed, row, taps, ..
                    } = scratch;
                    let (x, plane) =
                        source.lay_out(simd, view, image, from.clone(), strip, (packed, row));
                    let pixel = strip.row * self.output.width + strip.column;
                    let rows = Rows {
                        rows: strip.rows,
                        width: strip.width,
                        stride: source.packing.row_stride(),
                    };
                    let mut found = vec![Sums::ZERO; task.out.len()];
                    let mut rest = task.out;
                    for panel in here {
                        let x = &x[(panel.from.start - from.start) * plane..];
                        let later = rest.split_off(panel.to.len());
                        let mut out = std::mem::replace(&mut rest, later);
                        panels.taps(panel, plane, &offsets, taps);
                        let start = Start::of_bias(bias, panel.to.clone());
                        panels.run(simd, panel, (rows, taps, x), start, &mut out);
                        for (block, out) in panel.to.clone().zip(out) {
                            let place = (image, block, pixel);
                            let sums = &mut found[block - first];
                            Epilogue::finish(finish, with_sums, simd, place, out, sums);
                        }
                    }
                    (image, first, found)
                })
            })
            .collect();
        add_found(sums, self.output.blocks(), &found);
    }

    /// The gradient of the input from that of the output, added to `out` or in its place. The epilogue has no bias.
    pub(crate) fn input_gradient<S: Kernels>(
        &self,
        simd: S,
        weights: &BackwardWeights,
        gradient: &View<'_>,
        epilogue: Epilogue<'_>,
        accumulate: bool,
        out: &mut [Block],
    ) {
        let panels = match weights {
            BackwardWeights::Direct(panels) => panels,
            BackwardWeights::Tiles(winograd, weights) => {
                winograd.forward(simd, weights, gradient, epilogue, accumulate, out);
                return;
            }
        };
        let Epilogue { sums, finish, .. } = epilogue;
        let with_sums = sums.is_some();
        let stride = self.window.stride;
        let (phases, least, most) = Phase::all(self.window);
        let source = Source::of_neighbours(
            self.window,
            gradient,
            self.output,
            self.input,
            [least, most],
        );
        let offsets: Vec<Vec<usize>> = (phases.iter())
            .map(|phase| {
                let taps = phase.taps.iter().map(|&(_, _, rows, columns)| {
                    let [row, column] = [rows - least[0], columns - least[1]];
                    source.packing.tap(row as usize, 0) + column as usize
                });
                taps.collect()
            })
            .collect();
        let tasks = source.tasks(out, self.input, stride);
        let found: Vec<(usize, usize, Vec<Sums>)> = tasks
            .into_par_iter()
            .map(|mut task| {
                Scratch::with(|scratch| {
                    let (first, strip) = (task.first, task.strip);
                    let blocks = first..first + task.out.len();
                    let Some(from) = panels
                        .first()
                        .map(|panels| needed(panels.of_blocks(blocks.clone())))
                    else {
                        return (task.image, first, Vec::new());
                    };
                    let Scratch {
                        packed,
                        row,
                        taps,
                        phase: computed,
                    } = scratch;
                    let (x, plane) = source.lay_out(
                        simd,
                        gradient,
                        task.image,
                        from.clone(),
                        strip,
                        (packed, row),
                    );
                    for ((phase, panels), offsets) in phases.iter().zip(panels).zip(&offsets) {
                        // Rows and columns of the strip that this phase has.
                        let sides = [
                            (self.input.height, phase.remainder[0], strip.row, strip.rows),
                            (
                                self.input.width,
                                phase.remainder[1],
                                strip.column,
                                strip.width,
                            ),
                        ];
                        let [height, width] = sides.map(|(side, remainder, first, count)| {
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
                            stride: source.packing.row_stride(),
                        };
                        for panel in panels.of_blocks(blocks.clone()) {
                            let x = &x[(panel.from.start - from.start) * plane..];
                            let out = &mut task.out[panel.to.start - first..][..panel.to.len()];
                            panels.taps(panel, plane, offsets, taps);
                            if stride == 1 {
                                let start = Start::of_output(accumulate);
                                panels.run(simd, panel, (rows, taps, x), start, out);
                                continue;
                            }
                            computed.resize(2 * count, ZERO);
                            let mut parts: Vec<&mut [Block]> = computed
                                .chunks_exact_mut(count)
                                .take(panel.to.len())
                                .collect();
                            if taps.is_empty() {
                                for part in &mut parts {
                                    part.fill(ZERO);
                                }
                            } else {
                                panels.run(simd, panel, (rows, taps, x), Start::Zero, &mut parts);
                            }
                            for (computed, out) in parts.iter().zip(out) {
                                for (row, computed) in computed.chunks_exact(width).enumerate() {
                                    let y = row * stride + phase.remainder[0];
                                    let line =
                                        &mut out[y * self.input.width + phase.remainder[1]..];
                                    scatter(simd, computed, stride, accumulate, line);
                                }
                            }
                        }
                    }
                    let pixel = strip.row * stride * self.input.width + strip.column;
                    let mut found = vec![Sums::ZERO; task.out.len()];
                    for (block, (out, sums)) in
                        blocks.clone().zip(task.out.iter_mut().zip(&mut found))
                    {
                        let place = (task.image, block, pixel);
                        Epilogue::finish(finish, with_sums, simd, place, out, sums);
                    }
                    (task.image, first, found)
                })
            })
            .collect();
        add_found(sums, self.input.blocks(), &found);
    }

    /// The gradient of the weight, `O×I×K×L`. `gradient` is stored as it is, `view` what the forward pass read.
    pub(crate) fn weight_gradient<S: Kernels>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &View<'_>,
        pool: &Pool,
    ) -> Vec<f32> {
        debug_assert!(gradient.is_plain());
        if let Some(winograd) = self.by_tiles(Tile::Small) {
            return winograd.weight_gradient(simd, view, gradient, pool);
        }
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
        let sums: Vec<Room> = tasks
            .par_iter()
            .map(|(input, outputs)| {
                let mut sums = Room::take(outputs.len() * taps * LANES, pool);
                sums.fill(ZERO);
                Scratch::with(|scratch| {
                    self.add_outer(simd, view, gradient, *input, outputs, scratch, &mut sums);
                });
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
    taps: Vec<Tap>,
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

/// What a convolution reads, in strips.
struct Source {
    packing: Packing,
    strips: Vec<Strip>,
    /// Blocks that are computed together.
    part: usize,
    /// Pixels of a block, where they are read where they are.
    in_place: Option<usize>,
}

impl Source {
    /// For an output of windows over `input`.
    fn of_window(window: Window, view: &View<'_>, input: Extent, output: Extent) -> Self {
        if window.is_pointwise() {
            return Self::flat(view, input, output);
        }
        let source = [input.height, input.width];
        let packing = Packing::of_window(window, source, output.width);
        Self::of_rows(packing, input, output, [output.height, output.width])
    }

    /// For the gradient of an `input`, each of whose remainders modulo the stride reads the `output` from `least` to `most`
    /// rows and columns away.
    fn of_neighbours(
        window: Window,
        gradient: &View<'_>,
        output: Extent,
        input: Extent,
        [least, most]: [[isize; 2]; 2],
    ) -> Self {
        if window.is_pointwise() {
            return Self::flat(gradient, output, input);
        }
        // Rows and columns by remainder, rounded up.
        let size = [input.height, input.width].map(|side| side.div_ceil(window.stride));
        let source = [output.height, output.width];
        let packing = Packing::of_neighbours(source, size[1], least, most);
        Self::of_rows(packing, output, input, size)
    }

    fn of_rows(packing: Packing, from: Extent, to: Extent, size: [usize; 2]) -> Self {
        let most = rows_within(packing, STRIP_BLOCKS / from.blocks(), size[0]);
        // Some rows at least, as neighbouring strips share what their windows read.
        let fair = (size[0] * to.images).div_ceil(PARTS).max(4);
        let rows = most.min(fair);
        let strips: Vec<Strip> =
            Strip::rows_of(size, size[0].div_ceil(size[0].div_ceil(rows))).collect();
        Self {
            packing,
            part: part_blocks(to, strips.len()),
            strips,
            in_place: None,
        }
    }

    /// Pixel by pixel.
    fn flat(view: &View<'_>, from: Extent, to: Extent) -> Self {
        let window = Window {
            kernel: [1, 1],
            stride: 1,
            padding: [0, 0],
        };
        let most = (STRIP_BLOCKS / from.blocks() / TILE).clamp(4, 16) * TILE;
        let fair = (to.width * to.images)
            .div_ceil(PARTS)
            .next_multiple_of(TILE)
            .max(4 * TILE);
        let width = most.min(fair).min(to.width);
        let strips: Vec<Strip> = Strip::parts_of(to.width, width).collect();
        Self {
            packing: Packing::of_window(window, [1, from.width], width),
            part: part_blocks(to, strips.len()),
            strips,
            in_place: view.is_plain().then_some(from.width),
        }
    }

    /// The work, cut by image, strip and blocks; a strip's rows are `stride` rows of what is computed.
    fn tasks<'a>(&self, out: &'a mut [Block], to: Extent, stride: usize) -> Vec<Task<'a>> {
        let plane = to.pixels();
        let mut tasks = Vec::new();
        for (image, out) in out.chunks_exact_mut(to.blocks() * plane).enumerate() {
            let mut planes: Vec<&mut [Block]> = out.chunks_exact_mut(plane).collect();
            for &strip in &self.strips {
                let rows = (strip.rows * stride).min(to.height - strip.row * stride);
                let count = match self.strips.len() {
                    1 => plane,
                    _ if strip.rows == 1 && to.height == 1 => strip.width,
                    _ => rows * to.width,
                };
                for (part, planes) in planes.chunks_mut(self.part).enumerate() {
                    let out = planes.iter_mut().map(|plane| {
                        let (now, later) = std::mem::take(plane).split_at_mut(count);
                        *plane = later;
                        now
                    });
                    tasks.push(Task {
                        image,
                        strip,
                        first: part * self.part,
                        out: out.collect(),
                    });
                }
            }
        }
        tasks
    }

    /// The blocks `from` of a strip, laid out in `packed` unless they can be read where they are, and the distance from a
    /// block to the next.
    fn lay_out<'a, S: Vectors>(
        &self,
        simd: S,
        view: &View<'a>,
        image: usize,
        from: Range<usize>,
        strip: Strip,
        (packed, row): (&'a mut Vec<Block>, &mut Vec<Block>),
    ) -> (&'a [Block], usize) {
        if let Some(plane) = self.in_place {
            let first = (image * view.extent.blocks() + from.start) * plane + strip.column;
            return (&view.maps[first..], plane);
        }
        let plane = self.packing.plane(strip.rows);
        packed.resize(from.len() * plane, ZERO);
        for (block, packed) in from.zip(packed.chunks_exact_mut(plane)) {
            self.packing
                .fill(simd, view, (image, block), strip, row, packed);
        }
        (packed, plane)
    }
}

/// Adds the sums of tasks, each of an image and its blocks from a first one on, in the order of tasks.
fn add_found(sums: Option<&mut [Sums]>, blocks: usize, found: &[(usize, usize, Vec<Sums>)]) {
    let Some(sums) = sums else {
        return;
    };
    for (image, first, found) in found {
        for (sums, found) in sums[image * blocks + first..].iter_mut().zip(found) {
            sums.add(found);
        }
    }
}

/// Pixels of some blocks of an image.
struct Task<'a> {
    image: usize,
    strip: Strip,
    /// The first block.
    first: usize,
    /// The strip's pixels of each block.
    out: Vec<&'a mut [Block]>,
}

fn outer<'a, const W: usize>(
    a: &'a [Block],
    rows: Rows,
    lanes: usize,
    d: [&'a [Block]; W],
) -> Outer<'a, W> {
    Outer { rows, lanes, a, d }
}

/// As many rows as have `budget` pixels when they are packed.
fn rows_within(packing: Packing, budget: usize, all: usize) -> usize {
    let beyond = packing.plane(1).saturating_sub(packing.row_stride());
    (budget.saturating_sub(beyond) / packing.row_stride()).clamp(1, all.max(1))
}

/// Blocks of one part of a strip's work, an even number: all of them, where there are enough strips.
fn part_blocks(to: Extent, strips: usize) -> usize {
    let blocks = to.blocks();
    let parts = PARTS
        .div_ceil(to.images * strips)
        .min(blocks / PART_BLOCKS)
        .max(1);
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
