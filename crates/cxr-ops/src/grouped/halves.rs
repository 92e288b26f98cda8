//! The products of [`kernels`](super::kernels) on pairs of bf16: half the steps, and the same sums of single
//! precision.

use pulp::Simd;

use super::kernels::out_of_bounds;
use super::norm::Affine;
use super::rows::relu;
use super::{Group, LANES, ZERO};
use crate::bf16::{F32s, PairKernel, PairProducts, U32s};
use crate::simd::Vectors;

/// The 32 maps of a pixel in bf16: a lane has the maps `m` and `m + 16`.
pub(crate) type MapPairs = [u32; LANES / 2];

/// The 32 maps of two neighbouring pixels in bf16: a lane has both pixels of one map.
pub(crate) type PixelPairs = [u32; LANES];

/// Groups as [`MapPairs`], two in the room of each.
pub(crate) fn map_pairs(groups: &[Group]) -> &[MapPairs] {
    pulp::bytemuck::cast_slice(groups)
}

/// As [`map_pairs`].
pub(crate) fn map_pairs_mut(groups: &mut [Group]) -> &mut [MapPairs] {
    pulp::bytemuck::cast_slice_mut(groups)
}

/// Groups as [`PixelPairs`], one in the room of each.
pub(crate) fn pixel_pairs(groups: &[Group]) -> &[PixelPairs] {
    pulp::bytemuck::cast_slice(groups)
}

/// As [`pixel_pairs`].
pub(crate) fn pixel_pairs_mut(groups: &mut [Group]) -> &mut [PixelPairs] {
    pulp::bytemuck::cast_slice_mut(groups)
}

/// Rounds every pixel.
pub(crate) fn pair_maps<S: Vectors>(simd: S, x: &[Group], out: &mut [MapPairs]) {
    simd.with_pair_products(PairMaps { x, out });
}

struct PairMaps<'a> {
    x: &'a [Group],
    out: &'a mut [MapPairs],
}

impl PairKernel for PairMaps<'_> {
    fn run<P: PairProducts>(self, products: P) {
        products.within(
            #[inline(always)]
            || {
                for (out, x) in self.out.iter_mut().zip(self.x) {
                    let (low, high) = x.split_at(LANES / 2);
                    pair_lanes(products, low, high, out);
                }
            },
        );
    }
}

/// `relu(scale·x + shift)`, rounded.
pub(crate) fn normalise_relu_pairs<S: Vectors>(
    simd: S,
    affine: &Affine,
    x: &[Group],
    out: &mut [MapPairs],
) {
    simd.with_pair_products(NormaliseRelu { affine, x, out });
}

struct NormaliseRelu<'a> {
    affine: &'a Affine,
    x: &'a [Group],
    out: &'a mut [MapPairs],
}

impl PairKernel for NormaliseRelu<'_> {
    fn run<P: PairProducts>(self, products: P) {
        products.within(
            #[inline(always)]
            || {
                let affine = self.affine;
                for (out, x) in self.out.iter_mut().zip(self.x) {
                    let mut activated = ZERO;
                    for lane in 0..LANES {
                        activated[lane] = relu(x[lane] * affine.scale[lane] + affine.shift[lane]);
                    }
                    let (low, high) = activated.split_at(LANES / 2);
                    pair_lanes(products, low, high, out);
                }
            },
        );
    }
}

/// Rounds every two pixels; a last single one gets 0 for a neighbour.
pub(crate) fn pair_pixels<S: Vectors>(simd: S, x: &[Group], out: &mut [PixelPairs]) {
    simd.with_pair_products(PairPixels { x, out });
}

struct PairPixels<'a> {
    x: &'a [Group],
    out: &'a mut [PixelPairs],
}

impl PairKernel for PairPixels<'_> {
    fn run<P: PairProducts>(self, products: P) {
        products.within(
            #[inline(always)]
            || {
                let (pairs, single) = self.x.as_chunks::<2>();
                for (out, [first, second]) in self.out.iter_mut().zip(pairs) {
                    pair_lanes(products, first, second, out);
                }
                if let (Some(out), [first]) = (self.out.get_mut(pairs.len()), single) {
                    pair_lanes(products, first, &ZERO, out);
                }
            },
        );
    }
}

/// Weights for [`convolve`] from those for [`super::kernels::convolve`]: line `k` of a block has the input maps `k`
/// and `k + 16`.
pub(crate) fn pair_weights<S: Vectors>(
    simd: S,
    weights: &[[Group; LANES]],
    out: &mut [[PixelPairs; LANES / 2]],
) {
    simd.with_pair_products(PairWeights { weights, out });
}

struct PairWeights<'a> {
    weights: &'a [[Group; LANES]],
    out: &'a mut [[PixelPairs; LANES / 2]],
}

impl PairKernel for PairWeights<'_> {
    fn run<P: PairProducts>(self, products: P) {
        products.within(
            #[inline(always)]
            || {
                for (out, weights) in self.out.iter_mut().zip(self.weights) {
                    let (low, high) = weights.split_at(LANES / 2);
                    for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                        pair_lanes(products, low, high, out);
                    }
                }
            },
        );
    }
}

/// Rounds as many numbers as `out` has lanes, a multiple of every vector's.
#[inline(always)]
fn pair_lanes<P: PairProducts>(products: P, low: &[f32], high: &[f32], out: &mut [u32]) {
    let (low, _) = P::Vectors::as_simd_f32s(low);
    let (high, _) = P::Vectors::as_simd_f32s(high);
    let (out, _) = P::Vectors::as_mut_simd_u32s(out);
    for (out, (&low, &high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *out = products.pair(low, high);
    }
}

/// As [`super::kernels::convolve`].
pub(crate) fn convolve<S: Vectors>(
    simd: S,
    x: &[MapPairs],
    taps: &[usize],
    weights: &[[PixelPairs; LANES / 2]],
    out: &mut [Group],
) {
    simd.with_pair_products(Convolve {
        x,
        taps,
        weights,
        out,
    });
}

struct Convolve<'a> {
    x: &'a [MapPairs],
    taps: &'a [usize],
    weights: &'a [[PixelPairs; LANES / 2]],
    out: &'a mut [Group],
}

impl PairKernel for Convolve<'_> {
    fn run<P: PairProducts>(self, products: P) {
        products.within(
            #[inline(always)]
            || {
                let mut all = self;
                if P::Vectors::REGISTER_COUNT >= 32 {
                    all.tiles::<P, 14>(products);
                    all.tiles::<P, 7>(products);
                } else {
                    all.tiles::<P, 4>(products);
                }
                all.tiles::<P, 2>(products);
                all.tiles::<P, 1>(products);
            },
        );
    }
}

impl Convolve<'_> {
    /// As many tiles of `T` pixels as there are left; what is done is taken off.
    #[inline(always)]
    fn tiles<P: PairProducts, const T: usize>(&mut self, products: P) {
        while self.out.len() >= T {
            let Some((out, rest)) = std::mem::take(&mut self.out).split_first_chunk_mut::<T>()
            else {
                return;
            };
            self.tile(products, out);
            self.x = &self.x[T..];
            self.out = rest;
        }
    }

    #[inline(always)]
    fn tile<P: PairProducts, const T: usize>(&self, products: P, out: &mut [Group; T]) {
        let simd = products.vectors();
        for vector in 0..vector_pairs::<P>() {
            let mut sums = [[simd.splat_f32s(0.); 2]; T];
            for (&tap, weights) in self.taps.iter().zip(self.weights) {
                let Some(pixels) = self.x[tap..].first_chunk::<T>() else {
                    out_of_bounds();
                };
                for (line, weights) in weights.iter().enumerate() {
                    let [first, second] = vector_pair::<P>(weights, vector);
                    for (sums, pixel) in sums.iter_mut().zip(pixels) {
                        let value = simd.splat_u32s(pixel[line]);
                        sums[0] = products.add(value, first, sums[0]);
                        sums[1] = products.add(value, second, sums[1]);
                    }
                }
            }
            for (out, sums) in out.iter_mut().zip(sums) {
                store::<P>(out, vector, sums);
            }
        }
    }
}

/// As [`super::kernels::outer_sums`], over one row of pixels.
pub(crate) fn outer_sums<S: Vectors>(
    simd: S,
    a: &[PixelPairs],
    d: &[PixelPairs],
    sums: &mut [Group; LANES],
) {
    simd.with_pair_products(OuterSums { a, d, sums });
}

struct OuterSums<'a> {
    a: &'a [PixelPairs],
    d: &'a [PixelPairs],
    sums: &'a mut [Group; LANES],
}

impl PairKernel for OuterSums<'_> {
    fn run<P: PairProducts>(self, products: P) {
        products.within(
            #[inline(always)]
            || {
                if P::Vectors::REGISTER_COUNT >= 32 {
                    self.tiles::<P, 8>(products);
                } else {
                    self.tiles::<P, 4>(products);
                }
            },
        );
    }
}

impl OuterSums<'_> {
    #[inline(always)]
    fn tiles<P: PairProducts, const I: usize>(self, products: P) {
        let simd = products.vectors();
        let (tiles, _) = self.sums.as_chunks_mut::<I>();
        for (tile, sums) in tiles.iter_mut().enumerate() {
            for vector in 0..vector_pairs::<P>() {
                let mut totals = [[simd.splat_f32s(0.); 2]; I];
                for (totals, sums) in totals.iter_mut().zip(&*sums) {
                    let (vectors, _) = P::Vectors::as_simd_f32s(sums);
                    *totals = [vectors[2 * vector], vectors[2 * vector + 1]];
                }
                for (a, d) in self.a.iter().zip(self.d) {
                    let [first, second] = vector_pair::<P>(d, vector);
                    for (map, totals) in totals.iter_mut().enumerate() {
                        let value = simd.splat_u32s(a[tile * I + map]);
                        totals[0] = products.add(value, first, totals[0]);
                        totals[1] = products.add(value, second, totals[1]);
                    }
                }
                for (sums, totals) in sums.iter_mut().zip(totals) {
                    store::<P>(sums, vector, totals);
                }
            }
        }
    }
}

/// A group has this many pairs of vectors.
#[inline(always)]
fn vector_pairs<P: PairProducts>() -> usize {
    LANES / (2 * P::Vectors::F32_LANES)
}

#[inline(always)]
fn vector_pair<P: PairProducts>(values: &PixelPairs, vector: usize) -> [U32s<P>; 2] {
    let (vectors, _) = P::Vectors::as_simd_u32s(values);
    [vectors[2 * vector], vectors[2 * vector + 1]]
}

#[inline(always)]
fn store<P: PairProducts>(out: &mut Group, vector: usize, sums: [F32s<P>; 2]) {
    let (vectors, _) = P::Vectors::as_mut_simd_f32s(out);
    [vectors[2 * vector], vectors[2 * vector + 1]] = sums;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::{Emulated, pair};
    use crate::simd::{InstructionSet, with_vectors};

    /// Groups that look like noise in ±1.
    fn groups(count: usize, frequency: f64) -> Vec<Group> {
        let value = |at: usize| ((at * at % 10_007) as f64 * frequency).sin() as f32;
        (0..count)
            .map(|group| std::array::from_fn(|lane| value(group * LANES + lane)))
            .collect()
    }

    /// The value of the bf16 that `value` is rounded to.
    fn half(value: f32) -> f64 {
        f64::from(f32::from_bits(pair(value, 0.) << 16))
    }

    /// Each instruction set, and what its vectors do without an instruction for pairs.
    fn on_all_sets(mut check: impl FnMut(&str, bool)) {
        for set in InstructionSet::available() {
            set.scope(|| {
                check(set.name(), false);
                check(set.name(), true);
            });
        }
    }

    fn assert_close(what: &str, found: &[Group], expected: &[[f64; LANES]]) {
        for (found, expected) in found.iter().zip(expected) {
            for (&found, &expected) in found.iter().zip(expected) {
                let difference = (f64::from(found) - expected).abs();
                assert!(difference < 2e-5, "{what}: {found} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_convolution_is_the_sum_of_the_products_of_rounded_values() {
        // 33 pixels: tiles of 14, 4, 2 and 1 on one or another instruction set; two taps that overlap.
        let (pixels, taps) = (33, [0, 2]);
        let x = groups(pixels + 2, 0.37);
        let weights: Vec<[Group; LANES]> = groups(2 * LANES, 0.53).as_chunks().0.to_vec();
        let mut expected = vec![[0f64; LANES]; pixels];
        for (pixel, expected) in expected.iter_mut().enumerate() {
            for (tap, weights) in taps.iter().zip(&weights) {
                for (input, weights) in x[pixel + tap].iter().zip(weights) {
                    for (sum, &weight) in expected.iter_mut().zip(weights) {
                        *sum += half(*input) * half(weight);
                    }
                }
            }
        }
        on_all_sets(|name, is_emulated| {
            let mut out = vec![[f32::NAN; LANES]; pixels];
            with_vectors!(simd => {
                let mut paired = vec![[0; LANES / 2]; x.len()];
                pair_maps(simd, &x, &mut paired);
                let mut lines = vec![[[0; LANES]; LANES / 2]; weights.len()];
                pair_weights(simd, &weights, &mut lines);
                if is_emulated {
                    let kernel = Convolve { x: &paired, taps: &taps, weights: &lines, out: &mut out };
                    kernel.run(Emulated(simd));
                } else {
                    convolve(simd, &paired, &taps, &lines, &mut out);
                }
            });
            assert_close(name, &out, &expected);
        });
    }

    #[test]
    fn outer_sums_add_rounded_products_and_a_last_single_pixel() {
        let pixels = 7;
        let (a, d) = (groups(pixels, 0.71), groups(pixels, 0.29));
        let mut expected = vec![[1f64; LANES]; LANES];
        for (a, d) in a.iter().zip(&d) {
            for (&a, sums) in a.iter().zip(&mut expected) {
                for (sum, &d) in sums.iter_mut().zip(d) {
                    *sum += half(a) * half(d);
                }
            }
        }
        on_all_sets(|name, is_emulated| {
            let mut sums = [[1f32; LANES]; LANES];
            with_vectors!(simd => {
                let paired = [&a, &d].map(|x| {
                    let mut paired = vec![[7; LANES]; pixels.div_ceil(2)];
                    pair_pixels(simd, x, &mut paired);
                    paired
                });
                let [a, d] = &paired;
                if is_emulated {
                    OuterSums { a, d, sums: &mut sums }.run(Emulated(simd));
                } else {
                    outer_sums(simd, a, d, &mut sums);
                }
            });
            assert_close(name, &sums, &expected);
        });
    }
}
