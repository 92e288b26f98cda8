//! Winograd's convolutions F(2×2, 3×3) and F(4×4, 3×3) (Lavin & Gray: Fast Algorithms for Convolutional Neural Networks,
//! CVPR 2016): the outputs of a tile from 16 products instead of 36, and from 36 instead of 144.
//!
//! With `y` = the outputs of a tile, `d` = the inputs that they read and `g` = 3×3 weights, `y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`,
//! and for the weight's gradient `dg = Gᵀ[(A dy Aᵀ) ⊙ (Bᵀ d B)]G`. The sum over maps is between the transforms, so that
//! each place of a transformed tile is one product of matrices, whose pixels are the tiles of a *lot*: some rows of tiles,
//! of one image or of several.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::conv::Epilogue;
use super::kernels::{Kernels, Outer, Products, Rows, Start, Tap};
use super::maps::Room;
use super::packing::{Packing, Strip, Window};
use super::panels::Dense;
use super::tiles::{
    Large, Scheme, Small, TAPS, Tiles, transform_gradients, transform_inputs, transform_outputs,
    transform_sums, transform_weights,
};
use super::{Block, Extent, LANES, Sums, View, ZERO};
use crate::grouped::Pool;
use crate::simd::Vectors;

/// Blocks of a lot's transformed input: a megabyte, which stays in a second-level cache.
const LOT_BLOCKS: usize = 1 << 14;
/// Tiles of a lot: enough that a weight that is loaded serves some tiles of registers, and no more than have short rows of
/// sums.
const LOT_TILES: Range<usize> = 28..113;
/// Parts of a weight's gradient, which are added at the end.
const PARTS: usize = 4;

/// The two sizes of tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tile {
    /// 2×2 outputs: as accurate as direct sums, from 4 products instead of 9.
    Small,
    /// 4×4 outputs: from 2¼ products instead of 9, at three to four times the rounding error of direct sums.
    Large,
}

impl Tile {
    /// Rows and columns of outputs.
    fn step(self) -> usize {
        match self {
            Self::Small => 2,
            Self::Large => 4,
        }
    }

    fn points(self) -> usize {
        (self.step() + 2).pow(2)
    }
}

/// A 3×3 convolution of stride 1 over all maps, by tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Winograd {
    tile: Tile,
    padding: [usize; 2],
    input: Extent,
    output: Extent,
}

/// Transformed weights: for each pair of output blocks and each point, those of every input map.
pub(crate) struct TransformedWeights {
    blocks: Room,
}

/// Evaluates an expression with `$scheme` naming the type of a [`Tile`], and its sizes as constants.
macro_rules! with_scheme {
    ($tile:expr, $scheme:ident, $side:ident, $step:ident => $body:expr) => {
        match $tile {
            Tile::Small => {
                type $scheme = Small;
                const $side: usize = 4;
                const $step: usize = 2;
                $body
            }
            Tile::Large => {
                type $scheme = Large;
                const $side: usize = 6;
                const $step: usize = 4;
                $body
            }
        }
    };
}

/// Rows of tiles of one image.
#[derive(Debug, Clone, Copy)]
struct Segment {
    image: usize,
    first: usize,
    rows: usize,
}

impl Winograd {
    /// Whether tiles pay for a window over maps of these sizes. It is said of one image, so that what is computed of
    /// it does not depend on how many there are.
    pub(crate) fn pays(
        tile: Tile,
        window: Window,
        groups: usize,
        input: Extent,
        output: Extent,
    ) -> bool {
        if window.kernel != [3, 3]
            || window.stride != 1
            || groups != 1
            || window.padding.iter().any(|&p| p > 2)
        {
            return false;
        }
        if input.maps < LANES || output.maps < LANES {
            return false;
        }
        // In vectors of products, for one pair of maps of eight images: of the tiles, of their transforms, and what it
        // costs to have a transformed weight in the cache.
        let tiles =
            8. * (output.height.div_ceil(tile.step()) * output.width.div_ceil(tile.step())) as f64;
        let points = tile.points() as f64;
        let transforms = 6. / input.maps as f64 + 6. / output.maps as f64;
        let of_tiles = points * tiles * (1. + transforms) + 45. * points;
        let direct = (TAPS * 8 * output.pixels()) as f64;
        of_tiles < 0.8 * direct
    }

    pub(crate) fn new(tile: Tile, padding: [usize; 2], input: Extent, output: Extent) -> Self {
        Self {
            tile,
            padding,
            input,
            output,
        }
    }

    /// The convolution that takes the gradient of the output to that of the input.
    pub(crate) fn transposed(&self) -> Self {
        Self {
            tile: self.tile,
            padding: self.padding.map(|padding| 2 - padding),
            input: self.output,
            output: self.input,
        }
    }

    /// Rows and columns of tiles of an image.
    fn tiles(&self) -> [usize; 2] {
        [self.output.height, self.output.width].map(|side| side.div_ceil(self.tile.step()))
    }

    /// The rows of tiles of all images in lots of about as many tiles; a lot's transformed maps have `blocks` blocks.
    fn lots(&self, blocks: usize) -> Vec<Vec<Segment>> {
        let [rows, columns] = self.tiles();
        let all = rows * self.output.images;
        let room = LOT_BLOCKS / (self.tile.points() * blocks);
        let most = (room.clamp(LOT_TILES.start, LOT_TILES.end) / columns).max(1);
        // An even number, of which threads have equal shares.
        let count = all.div_ceil(most).next_multiple_of(2);
        let rows_of_lot = all.div_ceil(count).max(1);
        (0..all)
            .step_by(rows_of_lot)
            .map(|first| {
                let end = (first + rows_of_lot).min(all);
                let mut segments = Vec::new();
                let mut row = first;
                while row < end {
                    let (image, first) = (row / rows, row % rows);
                    let here = (rows - first).min(end - row);
                    segments.push(Segment {
                        image,
                        first,
                        rows: here,
                    });
                    row += here;
                }
                segments
            })
            .collect()
    }

    /// The weights, transformed; for a gradient's convolution those of `weight` turned by half a circle.
    pub(super) fn weights<S: Vectors>(
        &self,
        simd: S,
        weight: &Dense<'_>,
        is_turned: bool,
        pool: &Pool,
    ) -> TransformedWeights {
        let points = self.tile.points();
        let (inputs, outputs) = (self.input.maps, self.output.maps);
        let taps: [usize; TAPS] =
            std::array::from_fn(|tap| if is_turned { TAPS - 1 - tap } else { tap });
        let mut blocks = Room::take(self.output.blocks() * inputs * points, pool);
        blocks
            .par_chunks_mut(2 * inputs * points)
            .enumerate()
            .for_each(|(pair, out)| {
                let wide = out.len() / (inputs * points);
                let maps = pair * 2 * LANES..((pair + 1) * 2 * LANES).min(outputs);
                // By tap, input map and block of the pair.
                let mut plain = vec![ZERO; TAPS * LANES * wide];
                for first in (0..inputs).step_by(LANES) {
                    let lanes = (inputs - first).min(LANES);
                    let plain = &mut plain[..TAPS * lanes * wide];
                    let values = plain.as_flattened_mut();
                    weight.lay_out(maps.clone(), first..first + lanes, &taps, wide * LANES, values);
                    for lane in 0..lanes {
                        for w in 0..wide {
                            let kernels: [&Block; TAPS] =
                                std::array::from_fn(|tap| &plain[(tap * lanes + lane) * wide + w]);
                            with_scheme!(self.tile, T, SIDE, STEP => {
                                transform_weights::<S, T, SIDE, STEP>(simd, kernels, |point, block| {
                                    out[(point * inputs + first + lane) * wide + w] = block;
                                });
                            });
                        }
                    }
                }
            });
        TransformedWeights { blocks }
    }

    /// The output of `view`, added to `out` or in its place.
    pub(crate) fn forward<S: Kernels>(
        &self,
        simd: S,
        weights: &TransformedWeights,
        view: &View<'_>,
        epilogue: Epilogue<'_>,
        accumulate: bool,
        out: &mut [Block],
    ) {
        with_scheme!(self.tile, T, SIDE, STEP => self.run::<S, T, SIDE, STEP>(simd, weights, view, epilogue, accumulate, out));
    }

    fn run<S: Kernels, T: Scheme<SIDE, STEP>, const SIDE: usize, const STEP: usize>(
        &self,
        simd: S,
        weights: &TransformedWeights,
        view: &View<'_>,
        Epilogue { bias, sums, finish }: Epilogue<'_>,
        accumulate: bool,
        out: &mut [Block],
    ) {
        let lots = self.lots(self.input.blocks());
        let columns = self.tiles()[1];
        let width = self.output.width;
        let (inputs, blocks) = (self.input.blocks(), self.output.blocks());
        let points = SIDE * SIDE;
        let packing = self.packing(self.padding);
        let with_sums = sums.is_some();
        let parts = cut(out, self.output, &lots, STEP);
        let found: Vec<Vec<Sums>> = lots
            .par_iter()
            .zip(parts)
            .map(|(lot, mut parts)| {
                Scratch::with(|scratch, _| {
                    let tiles: usize = lot.iter().map(|segment| segment.rows * columns).sum();
                    scratch.transform::<S, T, SIDE, STEP, false>(
                        simd,
                        packing,
                        view,
                        0..inputs,
                        lot,
                        columns,
                    );
                    scratch.products.resize(2 * points * tiles, ZERO);
                    let taps: Vec<Tap> = (0..inputs)
                        .map(|block| Tap {
                            offset: block * tiles,
                            lanes: self.input.lanes(block),
                        })
                        .collect();
                    let rows = Rows {
                        rows: 1,
                        width: tiles,
                        stride: tiles,
                    };
                    let mut found = vec![Sums::ZERO; lot.len() * blocks];
                    let mut rest = &weights.blocks[..];
                    for first in (0..blocks).step_by(2) {
                        let wide = (blocks - first).min(2);
                        let (of_pair, later) = rest.split_at(wide * self.input.maps * points);
                        rest = later;
                        for (point, weights) in
                            of_pair.chunks_exact(wide * self.input.maps).enumerate()
                        {
                            let x = &scratch.input[point * inputs * tiles..];
                            let products =
                                &mut scratch.products[point * wide * tiles..][..wide * tiles];
                            if wide == 2 {
                                let (first, second) = products.split_at_mut(tiles);
                                let products = products_of(rows, x, &taps, weights.as_chunks().0);
                                simd.convolve_two(products, &mut [first, second]);
                            } else {
                                simd.convolve_one(
                                    products_of(rows, x, &taps, weights.as_chunks().0),
                                    &mut [products],
                                );
                            }
                        }
                        for w in 0..wide {
                            let block = first + w;
                            let mut tile = 0;
                            for (index, segment) in lot.iter().enumerate() {
                                let out = &mut *parts[index * blocks + block];
                                let tiles = Tiles {
                                    first: tile,
                                    rows: segment.rows,
                                    columns,
                                    // From one point to the next.
                                    room: wide * tiles,
                                };
                                tile += segment.rows * columns;
                                let products = &scratch.products[w * tiles_of(lot, columns)..];
                                // A gradient, which may be added to another, has no bias.
                                let start = match accumulate {
                                    true => Start::Output,
                                    false => Start::of_bias(bias, block..block + 1),
                                };
                                transform_outputs::<S, T, SIDE, STEP>(
                                    simd, tiles, products, width, start, out,
                                );
                                let place = (segment.image, block, segment.first * STEP * width);
                                let sums = &mut found[index * blocks + block];
                                Epilogue::finish(finish, with_sums, simd, place, out, sums);
                            }
                        }
                    }
                    found
                })
            })
            .collect();
        if let Some(sums) = sums {
            for (lot, found) in lots.iter().zip(&found) {
                for (segment, found) in lot.iter().zip(found.chunks_exact(blocks)) {
                    let of_image = &mut sums[segment.image * blocks..][..blocks];
                    for (sums, found) in of_image.iter_mut().zip(found) {
                        sums.add(found);
                    }
                }
            }
        }
    }

    /// As [`Conv::weight_gradient`](super::conv::Conv::weight_gradient).
    pub(crate) fn weight_gradient<S: Kernels>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &View<'_>,
        pool: &Pool,
    ) -> Vec<f32> {
        with_scheme!(self.tile, T, SIDE, STEP => self.outer::<S, T, SIDE, STEP>(simd, view, gradient, pool))
    }

    fn outer<S: Kernels, T: Scheme<SIDE, STEP>, const SIDE: usize, const STEP: usize>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &View<'_>,
        pool: &Pool,
    ) -> Vec<f32> {
        let (inputs, outputs) = (self.input.blocks(), self.output.blocks());
        let points = SIDE * SIDE;
        // By input blocks where there are many, whose sums are then apart; by lots where there are few.
        let by_inputs = inputs.div_ceil(4).min(PARTS);
        let of_part = inputs.div_ceil(by_inputs);
        let lots = self.lots(of_part + outputs);
        let by_lots = PARTS.div_ceil(by_inputs).min(lots.len());
        let lots_of_part = lots.len().div_ceil(by_lots);
        let columns = self.tiles()[1];
        let packing = self.packing(self.padding);
        let of_gradient = self.packing_of_output();
        let tasks: Vec<(Range<usize>, &[Vec<Segment>])> = (0..inputs)
            .step_by(of_part)
            .flat_map(|first| {
                let range = first..(first + of_part).min(inputs);
                lots.chunks(lots_of_part)
                    .map(move |lots| (range.clone(), lots))
            })
            .collect();
        let line = LANES * outputs;
        let sums: Vec<Room> = tasks
            .par_iter()
            .map(|(range, lots)| {
                Scratch::with(|scratch, of_output| {
                    // By point and input block; then by pair of output blocks, input map and block of the pair.
                    let mut sums = Room::take(points * range.len() * line, pool);
                    sums.fill(ZERO);
                    for lot in *lots {
                        let tiles = tiles_of(lot, columns);
                        scratch.transform::<S, T, SIDE, STEP, false>(
                            simd,
                            packing,
                            view,
                            range.clone(),
                            lot,
                            columns,
                        );
                        of_output.transform::<S, T, SIDE, STEP, true>(
                            simd,
                            of_gradient,
                            gradient,
                            0..outputs,
                            lot,
                            columns,
                        );
                        let rows = Rows {
                            rows: 1,
                            width: tiles,
                            stride: tiles,
                        };
                        for (index, sums) in sums.chunks_exact_mut(line).enumerate() {
                            let (point, input) = (index / range.len(), index % range.len());
                            let a = &scratch.input[index * tiles..][..tiles];
                            let lanes = self.input.lanes(range.start + input);
                            let d = &of_output.input[point * outputs * tiles..][..outputs * tiles];
                            for (sums, d) in sums.chunks_mut(2 * LANES).zip(d.chunks(2 * tiles)) {
                                if let [sums] =
                                    sums.as_chunks_mut::<2>().0.as_chunks_mut::<LANES>().0
                                {
                                    let (first, second) = d.split_at(tiles);
                                    let d = [first, second];
                                    simd.outer_two(Outer { rows, lanes, a, d }, sums);
                                } else if let [sums] =
                                    sums.as_chunks_mut::<1>().0.as_chunks_mut::<LANES>().0
                                {
                                    simd.outer_one(
                                        Outer {
                                            rows,
                                            lanes,
                                            a,
                                            d: [d],
                                        },
                                        sums,
                                    );
                                }
                            }
                        }
                    }
                    sums
                })
            })
            .collect();
        let maps = self.input.maps;
        let mut weight = vec![0f32; self.output.maps * maps * TAPS];
        weight
            .par_chunks_mut(LANES * maps * TAPS)
            .enumerate()
            .for_each(|(output, weight)| {
                let wide = (outputs - output / 2 * 2).min(2);
                for (range, of_range) in tasks_of(&tasks, &sums) {
                    for map in range.start * LANES..(range.end * LANES).min(maps) {
                        let (input, lane) = (map / LANES - range.start, map % LANES);
                        let place = output / 2 * 2 * LANES + lane * wide + output % 2;
                        let mut total = [[ZERO; SIDE]; SIDE];
                        for (point, total) in total.as_flattened_mut().iter_mut().enumerate() {
                            let at = (point * range.len() + input) * line + place;
                            for sums in &of_range {
                                for lane in 0..LANES {
                                    total[lane] += sums[at][lane];
                                }
                            }
                        }
                        let kernels = transform_sums::<S, T, SIDE, STEP>(simd, &total);
                        for (lane, weight) in weight.chunks_exact_mut(maps * TAPS).enumerate() {
                            for (value, kernel) in
                                weight[map * TAPS..][..TAPS].iter_mut().zip(&kernels)
                            {
                                *value = kernel[lane];
                            }
                        }
                    }
                }
            });
        weight
    }

    /// Strips of the input, wide enough for whole tiles.
    fn packing(&self, padding: [usize; 2]) -> Packing {
        let window = Window {
            kernel: [3, 3],
            stride: 1,
            padding,
        };
        let source = [self.input.height, self.input.width];
        Packing::of_window(window, source, self.tiles()[1] * self.tile.step())
    }

    /// The same of the output.
    fn packing_of_output(&self) -> Packing {
        let window = Window {
            kernel: [1, 1],
            stride: 1,
            padding: [0, 0],
        };
        let source = [self.output.height, self.output.width];
        Packing::of_window(window, source, self.tiles()[1] * self.tile.step())
    }
}

/// The parts of a range of input blocks, of which tasks come one after the other.
fn tasks_of<'a, T>(
    tasks: &'a [(Range<usize>, T)],
    sums: &'a [Room],
) -> Vec<(&'a Range<usize>, Vec<&'a Room>)> {
    let mut all: Vec<(&Range<usize>, Vec<&Room>)> = Vec::new();
    for ((range, _), sums) in tasks.iter().zip(sums) {
        match all.last_mut() {
            Some((last, parts)) if *last == range => parts.push(sums),
            _ => all.push((range, vec![sums])),
        }
    }
    all
}

fn products_of<'a, const W: usize>(
    rows: Rows,
    x: &'a [Block],
    taps: &'a [Tap],
    weights: &'a [[Block; W]],
) -> Products<'a, W> {
    Products {
        rows,
        x,
        taps,
        weights,
        start: Start::Zero,
    }
}

fn tiles_of(lot: &[Segment], columns: usize) -> usize {
    lot.iter().map(|segment| segment.rows * columns).sum()
}

/// The rows of every block that the segments of each lot compute: by lot, then by segment and block.
fn cut<'a>(
    out: &'a mut [Block],
    extent: Extent,
    lots: &[Vec<Segment>],
    step: usize,
) -> Vec<Vec<&'a mut [Block]>> {
    let blocks = extent.blocks();
    let mut parts: Vec<Vec<&mut [Block]>> = lots.iter().map(|_| Vec::new()).collect();
    let mut planes: Vec<&mut [Block]> = out.chunks_exact_mut(extent.pixels()).collect();
    for (lot, parts) in lots.iter().zip(&mut parts) {
        for segment in lot {
            let rows = (segment.rows * step).min(extent.height - segment.first * step);
            for plane in &mut planes[segment.image * blocks..][..blocks] {
                let whole = std::mem::take(plane);
                let (now, later) = whole.split_at_mut(rows * extent.width);
                *plane = later;
                parts.push(now);
            }
        }
    }
    parts
}

#[derive(Default)]
struct Scratch {
    packed: Vec<Block>,
    row: Vec<Block>,
    /// Transformed tiles, by point and block.
    input: Vec<Block>,
    products: Vec<Block>,
}

thread_local! {
    /// Of inputs and of outputs, kept from call to call: fresh memory would cost page faults.
    static SCRATCH: RefCell<[Scratch; 2]> = RefCell::default();
}

impl Scratch {
    /// Calls `f`, which hands nothing to other threads, with what this thread has for inputs and for outputs.
    fn with<T>(f: impl FnOnce(&mut Self, &mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(|[input, output]| f(input, output))
    }

    /// Transforms the tiles of a lot: inputs by `Bᵀ d B`, or an output's gradients by `A dy Aᵀ`.
    fn transform<
        S: Vectors,
        T: Scheme<SIDE, STEP>,
        const SIDE: usize,
        const STEP: usize,
        const IS_GRADIENT: bool,
    >(
        &mut self,
        simd: S,
        packing: Packing,
        view: &View<'_>,
        blocks: Range<usize>,
        lot: &[Segment],
        columns: usize,
    ) {
        let tiles = tiles_of(lot, columns);
        self.input.resize(SIDE * SIDE * blocks.len() * tiles, ZERO);
        let mut first = 0;
        for segment in lot {
            let strip = Strip {
                row: segment.first * STEP,
                rows: segment.rows * STEP,
                column: 0,
                width: columns * STEP,
            };
            self.packed.resize(packing.plane(strip.rows), ZERO);
            for (index, block) in blocks.clone().enumerate() {
                packing.fill(
                    simd,
                    view,
                    (segment.image, block),
                    strip,
                    &mut self.row,
                    &mut self.packed,
                );
                let of = Tiles {
                    first: index * tiles + first,
                    rows: segment.rows,
                    columns,
                    room: blocks.len() * tiles,
                };
                let line = packing.row_stride();
                if IS_GRADIENT {
                    transform_gradients::<S, T, SIDE, STEP>(
                        simd,
                        of,
                        &self.packed,
                        line,
                        &mut self.input,
                    );
                } else {
                    transform_inputs::<S, T, SIDE, STEP>(
                        simd,
                        of,
                        &self.packed,
                        line,
                        &mut self.input,
                    );
                }
            }
            first += segment.rows * columns;
        }
    }
}
