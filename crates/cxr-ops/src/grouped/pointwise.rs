//! 1×1 convolutions of a tile of pixels and their weight's gradient, in single precision or in bf16.

use super::halves::{
    self, map_pairs, map_pairs_mut, normalise_relu_pairs, pixel_pairs, pixel_pairs_mut,
};
use super::kernels::{Rows, convolve, outer_sums};
use super::norm::Affine;
use super::rows::normalise_relu;
use super::{Buffer, Group, LANES, Pool, TILE};
use crate::Precision;
use crate::simd::Vectors;

/// A 1×1 convolution with its weights in the kernels' order.
#[derive(Debug)]
pub(super) struct Pointwise {
    inputs: usize,
    /// Per output group and input group.
    weights: Buffer,
    precision: Precision,
    /// Where the input groups of a tile are, in pixels.
    taps: Vec<usize>,
}

impl Pointwise {
    /// From weights per output group and input group.
    pub(super) fn new<S: Vectors>(
        simd: S,
        precision: Precision,
        inputs: usize,
        packed: Buffer,
        pool: &Pool,
    ) -> Self {
        Self {
            inputs,
            weights: ready_weights(simd, precision, packed, pool),
            precision,
            taps: (0..inputs).map(|group| group * TILE).collect(),
        }
    }

    /// Room for a tile of its input.
    pub(super) fn tile(&self, pool: &Pool) -> Tile {
        Tile {
            values: pool.take(match self.precision {
                Precision::Single => self.inputs * TILE,
                Precision::Bf16 => self.inputs * TILE / 2,
            }),
            precision: self.precision,
        }
    }

    /// Its weights, which are single.
    pub(super) fn single(&self) -> &[Group] {
        debug_assert_eq!(self.precision, Precision::Single);
        &self.weights
    }

    /// One output group of as many pixels as `out` has.
    pub(super) fn write<S: Vectors>(&self, simd: S, group: usize, tile: &Tile, out: &mut [Group]) {
        let groups = group * self.inputs..(group + 1) * self.inputs;
        match self.precision {
            Precision::Single => {
                let weights = &self.weights.as_chunks().0[groups];
                convolve(simd, &tile.values, &self.taps, weights, out);
            }
            Precision::Bf16 => {
                let weights = &pixel_pairs(&self.weights).as_chunks().0[groups];
                halves::convolve(simd, map_pairs(&tile.values), &self.taps, weights, out);
            }
        }
    }
}

/// Weights in blocks of 32 × 32, in the precision in which they are multiplied.
pub(super) fn ready_weights<S: Vectors>(
    simd: S,
    precision: Precision,
    packed: Buffer,
    pool: &Pool,
) -> Buffer {
    match precision {
        Precision::Single => packed,
        Precision::Bf16 => {
            let mut paired = pool.take(packed.len() / 2);
            let lines = pixel_pairs_mut(&mut paired).as_chunks_mut::<{ LANES / 2 }>();
            halves::pair_weights(simd, packed.as_chunks().0, lines.0);
            paired
        }
    }
}

/// The input of a 1×1 convolution: `groups × TILE` pixels.
pub(super) struct Tile {
    values: Buffer,
    precision: Precision,
}

impl Tile {
    /// `relu(scale·x + shift)`, as one group of the tile.
    pub(super) fn normalise_relu<S: Vectors>(
        &mut self,
        simd: S,
        group: usize,
        affine: &Affine,
        x: &[Group],
    ) {
        match self.precision {
            Precision::Single => {
                normalise_relu(simd, affine, x, &mut self.values[group * TILE..][..x.len()]);
            }
            Precision::Bf16 => {
                let out = &mut map_pairs_mut(&mut self.values)[group * TILE..][..x.len()];
                normalise_relu_pairs(simd, affine, x, out);
            }
        }
    }
}

/// What the backward pass of a 1×1 convolution reads, a tile at a time: the gradient of its output, for the
/// gradient of its input and that of its weight, and its input, one group at a time, for the latter.
pub(super) struct BackwardTile {
    precision: Precision,
    /// The gradient in single precision, all groups.
    of_output: Buffer,
    /// In bf16: paired by maps, paired by pixels.
    paired: Option<[Buffer; 2]>,
    /// In bf16: the group of the input that is at work, paired by pixels.
    input: Option<Buffer>,
}

impl BackwardTile {
    /// Room for the gradient of `outputs` groups.
    pub(super) fn new(precision: Precision, outputs: usize, pool: &Pool) -> Self {
        let is_paired = precision == Precision::Bf16;
        Self {
            precision,
            of_output: pool.take(outputs * TILE),
            paired: is_paired.then(|| [(); 2].map(|()| pool.take(outputs * TILE / 2))),
            input: is_paired.then(|| pool.take(TILE / 2)),
        }
    }

    /// Fills the gradient of one output group: `fill` writes its pixels.
    pub(super) fn fill<S: Vectors>(
        &mut self,
        simd: S,
        group: usize,
        pixels: usize,
        fill: impl FnOnce(&mut [Group]),
    ) {
        let of_output = &mut self.of_output[group * TILE..][..pixels];
        fill(of_output);
        if let Some([maps, neighbours]) = &mut self.paired {
            let maps = &mut map_pairs_mut(maps)[group * TILE..];
            halves::pair_maps(simd, of_output, maps);
            let neighbours = &mut pixel_pairs_mut(neighbours)[group * (TILE / 2)..];
            halves::pair_pixels(simd, of_output, neighbours);
        }
    }

    /// The gradient of one input group. `convolution` is the one from output to input groups.
    pub(super) fn of_input<S: Vectors>(
        &self,
        simd: S,
        convolution: &Pointwise,
        group: usize,
        out: &mut [Group],
    ) {
        debug_assert_eq!(convolution.precision, self.precision);
        let groups = group * convolution.inputs..(group + 1) * convolution.inputs;
        let taps = &convolution.taps;
        match &self.paired {
            None => {
                let weights = &convolution.weights.as_chunks().0[groups];
                convolve(simd, &self.of_output, taps, weights, out);
            }
            Some([maps, _]) => {
                let weights = &pixel_pairs(&convolution.weights).as_chunks().0[groups];
                halves::convolve(simd, map_pairs(maps), taps, weights, out);
            }
        }
    }

    /// Adds to the gradient of the weights between one input group, whose pixels are `input`, and every output
    /// group; `block` is where a block of the gradient is.
    pub(super) fn add_of_weight<S: Vectors>(
        &mut self,
        simd: S,
        input: &[Group],
        blocks: &mut [[Group; LANES]],
        block: impl Fn(usize) -> usize,
    ) {
        let outputs = self.of_output.len() / TILE;
        match (&self.paired, &mut self.input) {
            (Some([_, neighbours]), Some(paired)) => {
                let pairs = input.len().div_ceil(2);
                let paired = &mut pixel_pairs_mut(paired)[..pairs];
                halves::pair_pixels(simd, input, paired);
                for out in 0..outputs {
                    let of_output = &pixel_pairs(neighbours)[out * (TILE / 2)..][..pairs];
                    halves::outer_sums(simd, paired, of_output, &mut blocks[block(out)]);
                }
            }
            _ => {
                let run = Rows {
                    rows: 1,
                    width: input.len(),
                    strides: [0; 2],
                };
                for out in 0..outputs {
                    let of_output = &self.of_output[out * TILE..];
                    outer_sums(simd, run, input, of_output, &mut blocks[block(out)]);
                }
            }
        }
    }
}
