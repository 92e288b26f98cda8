//! Operations of convolutional networks on blocks of 16 maps, each with its backward pass.
//!
//! # The layout
//! Maps are in blocks of 16: `N × blocks × H × W × 16`, so that 16 maps of a pixel are neighbours (one AVX-512 vector)
//! and a block's pixels are one contiguous run. Where a number of maps is no multiple of 16, the last block has unused
//! lanes, whose values nobody reads.
//!
//! # Views
//! What a normalisation, an activation or a gate makes of stored maps is never stored itself: a [`View`] is read line by
//! line, in the forward pass and again in the backward pass.
//!
//! # Same bits
//! Work is cut by image and block, never by the number of threads, and sums are added in the order of images. A sum over
//! pixels is single precision within a run of at most some hundreds and double precision across runs.

pub(crate) mod activation;
pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod kernels;
pub(crate) mod layer_norm;
pub(crate) mod maps;
pub(crate) mod packing;
mod panels;
pub(crate) mod point;
pub(crate) mod pool;
pub(crate) mod response_norm;
mod tiles;
pub(crate) mod winograd;

use rayon::prelude::*;

use crate::simd::Vectors;
pub use activation::Nonlinearity;
use activation::{Curve, with_curve};
pub use packing::Window;

/// Maps of a block.
pub(crate) const LANES: usize = 16;

/// Sixteen maps of one pixel, or of anything that each map has one of.
pub(crate) type Block = [f32; LANES];

pub(crate) const ZERO: Block = [0.; LANES];

/// Pixels whose single-precision sums are added up in double precision.
pub(crate) const RUN: usize = 128;

/// The sizes of a batch of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) images: usize,
    pub(crate) maps: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Extent {
    pub(crate) fn blocks(self) -> usize {
        self.maps.div_ceil(LANES)
    }

    pub(crate) fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Blocks of all pixels of all images.
    pub(crate) fn len(self) -> usize {
        self.images * self.blocks() * self.pixels()
    }

    /// Maps of block `block`.
    pub(crate) fn lanes(self, block: usize) -> usize {
        (self.maps - block * LANES).min(LANES)
    }

    /// The same maps of single pixels.
    pub(crate) fn pooled(self) -> Self {
        Self {
            height: 1,
            width: 1,
            ..self
        }
    }
}

/// `scale·(x − centre) + shift`, per map of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Affine {
    pub(crate) centre: Block,
    pub(crate) scale: Block,
    pub(crate) shift: Block,
}

impl Affine {
    pub(crate) const IDENTITY: Self = Self {
        centre: ZERO,
        scale: [1.; LANES],
        shift: ZERO,
    };

    /// Vector `vector` of each.
    #[inline(always)]
    pub(crate) fn vectors<S: Vectors>(&self, vector: usize) -> AffineVectors<S> {
        AffineVectors {
            centre: of_block::<S>(&self.centre, vector),
            scale: of_block::<S>(&self.scale, vector),
            shift: of_block::<S>(&self.shift, vector),
        }
    }
}

/// One vector of an [`Affine`].
#[derive(Clone, Copy)]
pub(crate) struct AffineVectors<S: Vectors> {
    pub(crate) centre: S::f32s,
    scale: S::f32s,
    shift: S::f32s,
}

impl<S: Vectors> AffineVectors<S> {
    #[inline(always)]
    pub(crate) fn apply(&self, simd: S, x: S::f32s) -> S::f32s {
        simd.mul_add_e_f32s(simd.sub_f32s(x, self.centre), self.scale, self.shift)
    }
}

/// Vectors of a block.
#[inline(always)]
pub(crate) const fn vectors<S: Vectors>() -> usize {
    LANES / S::F32_LANES
}

/// Vector `vector` of a block.
#[inline(always)]
pub(crate) fn of_block<S: Vectors>(block: &Block, vector: usize) -> S::f32s {
    S::as_simd_f32s(block).0[vector]
}

/// The same, to be written.
#[inline(always)]
pub(crate) fn in_block<S: Vectors>(block: &mut Block, vector: usize) -> &mut S::f32s {
    &mut S::as_mut_simd_f32s(block).0[vector]
}

/// What is made of stored maps when they are read: `gate · f(affine(x))`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) maps: &'a [Block],
    pub(crate) extent: Extent,
    /// One per block.
    pub(crate) affine: Option<&'a [Affine]>,
    pub(crate) nonlinearity: Nonlinearity,
    /// One factor per image and map.
    pub(crate) gate: Option<&'a [Block]>,
}

impl<'a> View<'a> {
    /// The maps as they are.
    pub(crate) fn plain(maps: &'a [Block], extent: Extent) -> Self {
        Self {
            maps,
            extent,
            affine: None,
            nonlinearity: Nonlinearity::Identity,
            gate: None,
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.affine.is_none() && self.gate.is_none() && self.nonlinearity == Nonlinearity::Identity
    }

    /// Stored pixels from `pixel` on of one block of an image.
    pub(crate) fn stored(&self, image: usize, block: usize, pixel: usize) -> &'a [Block] {
        let plane = self.extent.pixels();
        let first = (image * self.extent.blocks() + block) * plane;
        &self.maps[first + pixel..first + plane]
    }

    pub(crate) fn affine_of(&self, block: usize) -> Affine {
        self.affine.map_or(Affine::IDENTITY, |affine| affine[block])
    }

    pub(crate) fn gate_of(&self, image: usize, block: usize) -> Block {
        self.gate.map_or([1.; LANES], |gate| {
            gate[image * self.extent.blocks() + block]
        })
    }

    /// Reads as many pixels as `out` has.
    pub(crate) fn read<S: Vectors>(
        &self,
        simd: S,
        image: usize,
        block: usize,
        pixel: usize,
        out: &mut [Block],
    ) {
        let stored = &self.stored(image, block, pixel)[..out.len()];
        if self.is_plain() {
            out.copy_from_slice(stored);
            return;
        }
        let affine = self.affine_of(block);
        let gate = self.gate_of(image, block);
        with_curve!(self.nonlinearity, C => {
            simd.within(
                #[inline(always)]
                || {
                    for vector in 0..vectors::<S>() {
                        let affine = affine.vectors::<S>(vector);
                        let gate = of_block::<S>(&gate, vector);
                        for (out, x) in out.iter_mut().zip(stored) {
                            let x = affine.apply(simd, of_block::<S>(x, vector));
                            *in_block::<S>(out, vector) = simd.mul_f32s(C::value(simd, x), gate);
                        }
                    }
                },
            );
        });
    }

    /// Every value read once.
    pub(crate) fn store<S: Vectors>(&self, simd: S, out: &mut [Block]) {
        let (blocks, plane) = (self.extent.blocks(), self.extent.pixels());
        out.par_chunks_mut(plane)
            .with_min_len(min_chunks(plane))
            .enumerate()
            .for_each(|(chunk, out)| self.read(simd, chunk / blocks, chunk % blocks, 0, out));
    }
}

/// How many runs of `len` pixels make a task that is worth a thread's while.
pub(crate) fn min_chunks(len: usize) -> usize {
    (512 / len.max(1)).max(1)
}

/// Sums of one block, map by map, in double precision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums {
    pub(crate) plain: [f64; LANES],
    pub(crate) products: [f64; LANES],
}

impl Sums {
    pub(crate) const ZERO: Self = Self {
        plain: [0.; LANES],
        products: [0.; LANES],
    };

    /// Adds what a run of pixels has in single precision.
    pub(crate) fn add_run(&mut self, plain: &Block, products: &Block) {
        for lane in 0..LANES {
            self.plain[lane] += f64::from(plain[lane]);
            self.products[lane] += f64::from(products[lane]);
        }
    }

    /// Adds others.
    pub(crate) fn add(&mut self, other: &Self) {
        for lane in 0..LANES {
            self.plain[lane] += other.plain[lane];
            self.products[lane] += other.products[lane];
        }
    }

    /// Adds Σ x and Σ x² of some pixels.
    pub(crate) fn add_squares<S: Vectors>(&mut self, simd: S, x: &[Block]) {
        for run in x.chunks(RUN) {
            // Four runs of sums each, as one would wait for its own last addition.
            let (mut plain, mut products) = ([ZERO; 4], [ZERO; 4]);
            simd.within(
                #[inline(always)]
                || {
                    for vector in 0..vectors::<S>() {
                        let mut sums = [[simd.splat_f32s(0.); 2]; 4];
                        let (fours, rest) = run.as_chunks::<4>();
                        for four in fours {
                            for (x, sums) in four.iter().zip(&mut sums) {
                                let x = of_block::<S>(x, vector);
                                sums[0] = simd.add_f32s(sums[0], x);
                                sums[1] = simd.mul_add_e_f32s(x, x, sums[1]);
                            }
                        }
                        for (x, sums) in rest.iter().zip(&mut sums) {
                            let x = of_block::<S>(x, vector);
                            sums[0] = simd.add_f32s(sums[0], x);
                            sums[1] = simd.mul_add_e_f32s(x, x, sums[1]);
                        }
                        for (at, sums) in sums.into_iter().enumerate() {
                            *in_block::<S>(&mut plain[at], vector) = sums[0];
                            *in_block::<S>(&mut products[at], vector) = sums[1];
                        }
                    }
                },
            );
            for (plain, products) in plain.iter().zip(&products) {
                self.add_run(plain, products);
            }
        }
    }

    /// Of every block, the sums of all images, added in their order.
    pub(crate) fn over_images(of_images: &[Self], blocks: usize) -> Vec<Self> {
        let mut total = vec![Self::ZERO; blocks];
        for of_image in of_images.chunks_exact(blocks) {
            for (total, sums) in total.iter_mut().zip(of_image) {
                total.add(sums);
            }
        }
        total
    }
}

/// Values of single maps, by block; unused lanes are `rest`.
pub(crate) fn by_block(values: &[f32], rest: f32) -> Vec<Block> {
    values
        .chunks(LANES)
        .map(|chunk| {
            let mut block = [rest; LANES];
            block[..chunk.len()].copy_from_slice(chunk);
            block
        })
        .collect()
}
