//! 3×3 convolutions of padded strips, and their weight's gradient: directly, or by Winograd's transform
//! where maps are large enough for it to pay.

use rayon::prelude::*;

use super::halves::{self, MapPairs, pixel_pairs};
use super::kernels::{Rows, convolve, outer_sums};
use super::pointwise::ready_weights;
use super::rows::pad_strip;
use super::weights::Convolution;
use super::winograd::{
    POINTS, STEP, Tiles, transform_gradients, transform_inputs, transform_outputs, transform_sums,
    transform_weights,
};
use super::{Buffer, Extent, Group, LANES, Pool, ZERO};
use crate::Precision;
use crate::simd::Vectors;

/// Taps of a 3×3 convolution.
pub(super) const TAPS: usize = 9;

/// Padded groups of pixels of a strip: half a megabyte, which stays in a second-level cache.
const STRIP_GROUPS: usize = 4096;
/// Tiles of a strip: the transformed maps of a bottleneck of four groups are half a megabyte then.
const STRIP_TILES: usize = 28;
/// Below this width or height too much of the tiles lies outside the image.
const LEAST_SIDE: usize = 12;

/// How convolutions over images of one extent are computed, and the strips of rows in which they go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strips {
    pub(super) extent: Extent,
    /// Rows of a strip.
    pub(super) height: usize,
    is_winograd: bool,
    precision: Precision,
}

/// What a convolution may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Sums in the order of their definition, of products in this precision.
    Direct(Precision),
    /// Winograd's transform where it pays, at three to four times the rounding error of direct sums.
    Fast,
}

impl Strips {
    /// Strips for padded maps of `groups` groups.
    pub(super) fn new(extent: Extent, groups: usize, method: Method) -> Self {
        let is_large = extent.width >= LEAST_SIDE && extent.height >= LEAST_SIDE;
        let is_winograd = is_large && method == Method::Fast;
        let height = if is_winograd {
            STEP * (STRIP_TILES / extent.width.div_ceil(STEP)).max(1)
        } else {
            let lines = STRIP_GROUPS / (groups * (extent.width + 2));
            lines.saturating_sub(2)
        };
        Self {
            extent,
            height: height.clamp(1, extent.height.next_multiple_of(STEP)),
            is_winograd,
            precision: match method {
                Method::Direct(precision) => precision,
                Method::Fast => Precision::Single,
            },
        }
    }

    /// `(first row, rows)` of each strip.
    pub(super) fn rows(self) -> impl Iterator<Item = (usize, usize)> {
        let (height, all) = (self.height, self.extent.height);
        (0..all)
            .step_by(height)
            .map(move |first| (first, height.min(all - first)))
    }

    /// Pixels of a padded line.
    pub(super) fn line(self) -> usize {
        2 + if self.is_winograd {
            self.extent.width.next_multiple_of(STEP)
        } else {
            self.extent.width
        }
    }

    /// Pixels of a padded strip of one group.
    pub(super) fn plane(self) -> usize {
        (self.height + 2) * self.line()
    }

    /// Pixels of a padded strip of all groups.
    pub(super) fn padded(self, groups: usize) -> usize {
        groups * self.plane()
    }

    /// How far tap `tap` is from the first.
    fn tap(self, tap: usize) -> usize {
        tap / 3 * self.line() + tap % 3
    }

    /// Fills the padded strip of every group; `write(group, row, line)` fills the inside of a line.
    pub(super) fn pad<T: pulp::bytemuck::Zeroable + Copy>(
        self,
        first: usize,
        padded: &mut [T],
        write: impl Fn(usize, usize, &mut [T]),
    ) {
        let Extent { height, width, .. } = self.extent;
        for (group, padded) in padded.chunks_exact_mut(self.plane()).enumerate() {
            pad_strip(first, height, width, self.line(), padded, |y, line| {
                write(group, y, line);
            });
        }
    }

    fn tiles(self, rows: usize) -> Tiles {
        let columns = self.extent.width.div_ceil(STEP);
        Tiles {
            rows: rows.div_ceil(STEP),
            columns,
            room: self.height.div_ceil(STEP) * columns,
        }
    }

    /// Room for the transformed maps of `groups` groups of a strip.
    fn transformed(self, groups: usize) -> usize {
        groups * POINTS * self.tiles(self.height).room
    }
}

/// A 3×3 convolution with its weights in the kernels' order.
#[derive(Debug)]
pub(super) struct Conv3x3 {
    strips: Strips,
    inputs: usize,
    outputs: usize,
    /// Directly: per output group, tap and input group, in the strips' precision; transformed: per output
    /// group, point and input group.
    weights: Buffer,
    taps: Vec<usize>,
}

impl Conv3x3 {
    /// From weights per output group, tap and input group, as [`Convolution::forward`] and
    /// [`Convolution::backward`] give them.
    pub(super) fn new<S: Vectors>(
        simd: S,
        strips: Strips,
        (inputs, outputs): (usize, usize),
        packed: Buffer,
        pool: &Pool,
    ) -> Self {
        let room = strips.tiles(strips.height).room;
        let taps = if strips.is_winograd {
            (0..inputs).map(|group| group * POINTS * room).collect()
        } else {
            (0..TAPS)
                .flat_map(|tap| {
                    (0..inputs).map(move |group| group * strips.plane() + strips.tap(tap))
                })
                .collect()
        };
        let weights = if strips.is_winograd {
            let mut transformed = pool.take(outputs * POINTS * inputs * LANES);
            transformed
                .par_chunks_mut(POINTS * inputs * LANES)
                .zip(packed.par_chunks(TAPS * inputs * LANES))
                .for_each(|(transformed, packed)| {
                    for line in 0..inputs * LANES {
                        let kernels =
                            std::array::from_fn(|tap| &packed[tap * inputs * LANES + line]);
                        transform_weights(simd, kernels, |point, group| {
                            transformed[point * inputs * LANES + line] = group;
                        });
                    }
                });
            transformed
        } else {
            ready_weights(simd, strips.precision, packed, pool)
        };
        Self {
            strips,
            inputs,
            outputs,
            weights,
            taps,
        }
    }

    /// Room that [`Self::transform`] and [`Self::write`] work in.
    pub(super) fn scratch(&self, pool: &Pool) -> Scratch {
        let groups = |groups| match self.strips.is_winograd {
            true => self.strips.transformed(groups),
            false => 0,
        };
        Scratch {
            inputs: pool.take(groups(self.inputs)),
            products: pool.take(groups(1)),
        }
    }

    /// Readies a padded strip of all input groups for [`Self::write`].
    pub(super) fn transform<S: Vectors>(
        &self,
        simd: S,
        padded: &[Group],
        rows: usize,
        scratch: &mut Scratch,
    ) {
        if self.strips.is_winograd {
            transform_all(simd, self.strips, padded, rows, &mut scratch.inputs);
        }
    }

    /// One output group of a padded strip in bf16.
    pub(super) fn write_pairs<S: Vectors>(
        &self,
        simd: S,
        group: usize,
        padded: &[MapPairs],
        out: &mut [Group],
    ) {
        debug_assert!(group < self.outputs && self.strips.precision == Precision::Bf16);
        let (blocks, _) = pixel_pairs(&self.weights).as_chunks();
        let of_group = blocks.len() / self.outputs;
        let weights = &blocks[group * of_group..][..of_group];
        let rows = out.chunks_exact_mut(self.strips.extent.width);
        for (row, out) in rows.enumerate() {
            let padded = &padded[row * self.strips.line()..];
            halves::convolve(simd, padded, &self.taps, weights, out);
        }
    }

    /// One output group of a strip that was readied: `rows` rows of the image's width.
    pub(super) fn write<S: Vectors>(
        &self,
        simd: S,
        group: usize,
        padded: &[Group],
        scratch: &mut Scratch,
        out: &mut [Group],
    ) {
        debug_assert!(group < self.outputs);
        let width = self.strips.extent.width;
        let (blocks, _) = self.weights.as_chunks::<LANES>();
        let of_group = blocks.len() / self.outputs;
        let weights = &blocks[group * of_group..][..of_group];
        if !self.strips.is_winograd {
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                convolve(
                    simd,
                    &padded[row * self.strips.line()..],
                    &self.taps,
                    weights,
                    out,
                );
            }
            return;
        }
        let tiles = self.strips.tiles(out.len() / width);
        let count = tiles.rows * tiles.columns;
        let points = weights.chunks_exact(self.inputs).enumerate();
        for ((point, weights), products) in
            points.zip(scratch.products.chunks_exact_mut(tiles.room))
        {
            let inputs = &scratch.inputs[point * tiles.room..];
            convolve(simd, inputs, &self.taps, weights, &mut products[..count]);
        }
        transform_outputs(simd, tiles, &scratch.products, width, out);
    }
}

/// See [`Conv3x3::scratch`].
pub(super) struct Scratch {
    inputs: Buffer,
    products: Buffer,
}

/// `Bᵀ d B` of all groups of a padded strip.
fn transform_all<S: Vectors>(
    simd: S,
    strips: Strips,
    padded: &[Group],
    rows: usize,
    out: &mut [Group],
) {
    let tiles = strips.tiles(rows);
    let planes = padded.chunks_exact(strips.plane());
    for (padded, out) in planes.zip(out.chunks_exact_mut(POINTS * tiles.room)) {
        transform_inputs(simd, tiles, padded, strips.line(), out);
    }
}

/// The gradient of a 3×3 convolution's weight, as partial sums over strips.
#[derive(Clone, Copy)]
pub(super) struct Conv3x3Gradient {
    strips: Strips,
    inputs: usize,
    outputs: usize,
}

impl Conv3x3Gradient {
    pub(super) fn new(strips: Strips, (inputs, outputs): (usize, usize)) -> Self {
        Self {
            strips,
            inputs,
            outputs,
        }
    }

    fn places(self) -> usize {
        if self.strips.is_winograd {
            POINTS
        } else {
            TAPS
        }
    }

    /// Groups of one partial sum.
    pub(super) fn part(self) -> usize {
        self.places() * self.inputs * self.outputs * LANES
    }

    /// Room that [`Self::add`] works in.
    pub(super) fn scratch(self, pool: &Pool) -> GradientScratch {
        let groups = |groups| match self.strips.is_winograd {
            true => self.strips.transformed(groups),
            false => 0,
        };
        GradientScratch {
            inputs: pool.take(groups(self.inputs)),
            gradients: pool.take(groups(self.outputs)),
        }
    }

    /// Adds a strip, given the convolution's input and its output's gradient, both padded.
    pub(super) fn add<S: Vectors>(
        self,
        simd: S,
        rows: usize,
        input: &[Group],
        of_output: &[Group],
        scratch: &mut GradientScratch,
        part: &mut [Group],
    ) {
        let (blocks, _) = part.as_chunks_mut::<LANES>();
        let strips = self.strips;
        let (plane, inside) = (strips.plane(), strips.line() + 1);
        if !strips.is_winograd {
            let lines = Rows {
                rows,
                width: strips.extent.width,
                strides: [strips.line(); 2],
            };
            self.for_each_block(blocks, |tap, group, out, block| {
                let input = &input[plane * group + strips.tap(tap)..];
                let of_output = &of_output[plane * out + inside..];
                outer_sums(simd, lines, input, of_output, block);
            });
            return;
        }
        let tiles = strips.tiles(rows);
        transform_all(simd, strips, input, rows, &mut scratch.inputs);
        let gradients = scratch.gradients.chunks_exact_mut(POINTS * tiles.room);
        for (of_output, gradients) in of_output.chunks_exact(plane).zip(gradients) {
            let of_output = &of_output[inside..];
            transform_gradients(simd, tiles, of_output, strips.line(), gradients);
        }
        let lines = Rows {
            rows: 1,
            width: tiles.rows * tiles.columns,
            strides: [0; 2],
        };
        self.for_each_block(blocks, |point, group, out, block| {
            let input = &scratch.inputs[(group * POINTS + point) * tiles.room..];
            let of_output = &scratch.gradients[(out * POINTS + point) * tiles.room..];
            outer_sums(simd, lines, input, of_output, block);
        });
    }

    /// Visits the blocks of a partial sum: place, input group, output group.
    fn for_each_block(
        self,
        blocks: &mut [[Group; LANES]],
        mut visit: impl FnMut(usize, usize, usize, &mut [Group; LANES]),
    ) {
        let places = blocks.chunks_exact_mut(self.inputs * self.outputs);
        for (place, blocks) in places.enumerate() {
            for (group, blocks) in blocks.chunks_exact_mut(self.outputs).enumerate() {
                for (out, block) in blocks.iter_mut().enumerate() {
                    visit(place, group, out, block);
                }
            }
        }
    }

    /// The gradient in the weight's own order: the partial sums of `parts`, added in order.
    pub(super) fn finish<S: Vectors>(
        self,
        simd: S,
        convolution: &Convolution<'_, TAPS>,
        parts: &[Group],
        pool: &Pool,
    ) -> Vec<f32> {
        if !self.strips.is_winograd {
            return convolution.gradient(parts);
        }
        let lines = self.inputs * self.outputs * LANES;
        let mut gradient = pool.take(TAPS * lines);
        // Lines of all nine taps have to be written at once, which lie apart.
        let kernels: Vec<[Group; TAPS]> = (0..lines)
            .into_par_iter()
            .with_min_len(LANES)
            .map(|line| {
                let mut sums = [ZERO; POINTS];
                for part in parts.chunks_exact(self.part()) {
                    for (point, sums) in sums.iter_mut().enumerate() {
                        let part = &part[point * lines + line];
                        for lane in 0..LANES {
                            sums[lane] += part[lane];
                        }
                    }
                }
                transform_sums(simd, &sums)
            })
            .collect();
        for (line, kernel) in kernels.iter().enumerate() {
            for (tap, group) in kernel.iter().enumerate() {
                gradient[tap * lines + line] = *group;
            }
        }
        convolution.gradient(&gradient)
    }
}

/// See [`Conv3x3Gradient::scratch`].
pub(super) struct GradientScratch {
    inputs: Buffer,
    gradients: Buffer,
}
