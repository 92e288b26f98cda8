//! The two products that a convolutional network spends its time in, on groups of 32 maps.
//!
//! Both keep a small tile of sums in registers and walk over long rows: [`convolve`] a tile of pixels
//! × output maps over taps and input maps, [`outer_sums`] a tile of input × output maps over pixels.
//! Nothing is copied beforehand: a tap is an offset into the maps, an input value is broadcast from
//! where it stands.

use super::Group;
use crate::simd::Vectors;

/// `out[p] = Σ_t Σ_i x[taps[t] + p][i] · weights[t][i]`, for every pixel `p` of `out`.
///
/// With one tap per input group this is a 1×1 convolution; with nine per group, whose offsets are
/// those of the neighbours in a padded image, one row of a 3×3 convolution. `weights[t][i]` has the 32
/// output maps of tap `t` and input map `i`.
pub(crate) fn convolve<S: Vectors>(
    simd: S,
    x: &[Group],
    taps: &[usize],
    weights: &[[Group; 32]],
    out: &mut [Group],
) {
    simd.within(|| convolve_inlined(simd, x, taps, weights, out));
}

#[inline(always)]
fn convolve_inlined<S: Vectors>(
    simd: S,
    x: &[Group],
    taps: &[usize],
    weights: &[[Group; 32]],
    out: &mut [Group],
) {
    let mut rest = Rest { done: 0, out };
    // Tiles as large as the registers hold: two vectors of maps wide, and the more pixels the
    // more often a loaded weight is used.
    if S::REGISTER_COUNT >= 32 {
        rest.tiles::<14>(|done, out| convolve_tile(simd, &x[done..], taps, weights, out));
        rest.tiles::<7>(|done, out| convolve_tile(simd, &x[done..], taps, weights, out));
    } else {
        rest.tiles::<6>(|done, out| convolve_tile(simd, &x[done..], taps, weights, out));
    }
    rest.tiles::<4>(|done, out| convolve_tile(simd, &x[done..], taps, weights, out));
    rest.tiles::<2>(|done, out| convolve_tile(simd, &x[done..], taps, weights, out));
    rest.tiles::<1>(|done, out| convolve_tile(simd, &x[done..], taps, weights, out));
}

/// The pixels not yet computed.
struct Rest<'a> {
    done: usize,
    out: &'a mut [Group],
}

impl Rest<'_> {
    /// Calls `tile` for as many groups of `P` pixels as there are left.
    #[inline(always)]
    fn tiles<const P: usize>(&mut self, mut tile: impl FnMut(usize, &mut [Group; P])) {
        let (tiles, _) = self.out[self.done..].as_chunks_mut::<P>();
        for out in tiles {
            tile(self.done, out);
            self.done += P;
        }
    }
}

#[inline(always)]
fn convolve_tile<S: Vectors, const P: usize>(
    simd: S,
    x: &[Group],
    taps: &[usize],
    weights: &[[Group; 32]],
    out: &mut [Group; P],
) {
    for pair in 0..pairs::<S>() {
        let mut sums = [[simd.splat_f32s(0.); 2]; P];
        for (&tap, weights) in taps.iter().zip(weights) {
            let Some(pixels) = x[tap..].first_chunk::<P>() else {
                out_of_bounds();
            };
            for (map, weights) in weights.iter().enumerate() {
                let [first, second] = vector_pair(simd, weights, pair);
                for (sums, pixel) in sums.iter_mut().zip(pixels) {
                    let value = simd.splat_f32s(pixel[map]);
                    sums[0] = simd.mul_add_e_f32s(value, first, sums[0]);
                    sums[1] = simd.mul_add_e_f32s(value, second, sums[1]);
                }
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            let (vectors, _) = S::as_mut_simd_f32s(out);
            vectors[2 * pair] = sums[0];
            vectors[2 * pair + 1] = sums[1];
        }
    }
}

/// Rows of pixels in two images of possibly different row lengths.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// How many rows.
    pub(crate) rows: usize,
    /// Pixels of each.
    pub(crate) width: usize,
    /// From one row to the next in the first image, in the second.
    pub(crate) strides: [usize; 2],
}

/// `sums[i][o] += Σ_p a[p][i] · d[p][o]` over the pixels `p` of `rows`: a convolution's gradient
/// with respect to the weights of one tap, input group and output group.
pub(crate) fn outer_sums<S: Vectors>(
    simd: S,
    rows: Rows,
    a: &[Group],
    d: &[Group],
    sums: &mut [Group; 32],
) {
    simd.within(|| {
        if S::REGISTER_COUNT >= 32 {
            outer_sums_tiles::<S, 8>(simd, rows, a, d, sums);
        } else {
            outer_sums_tiles::<S, 4>(simd, rows, a, d, sums);
        }
    });
}

/// [`outer_sums`], `I` input maps at a time.
#[inline(always)]
fn outer_sums_tiles<S: Vectors, const I: usize>(
    simd: S,
    rows: Rows,
    a: &[Group],
    d: &[Group],
    sums: &mut [Group; 32],
) {
    let (tiles, _) = sums.as_chunks_mut::<I>();
    for (tile, sums) in tiles.iter_mut().enumerate() {
        for pair in 0..pairs::<S>() {
            let mut totals = [[simd.splat_f32s(0.); 2]; I];
            for (totals, sums) in totals.iter_mut().zip(&*sums) {
                *totals = vector_pair(simd, sums, pair);
            }
            for row in 0..rows.rows {
                let a = &a[row * rows.strides[0]..][..rows.width];
                let d = &d[row * rows.strides[1]..][..rows.width];
                for (a, d) in a.iter().zip(d) {
                    let [first, second] = vector_pair(simd, d, pair);
                    for (map, totals) in totals.iter_mut().enumerate() {
                        let value = simd.splat_f32s(a[tile * I + map]);
                        totals[0] = simd.mul_add_e_f32s(value, first, totals[0]);
                        totals[1] = simd.mul_add_e_f32s(value, second, totals[1]);
                    }
                }
            }
            for (sums, totals) in sums.iter_mut().zip(totals) {
                let (vectors, _) = S::as_mut_simd_f32s(sums);
                vectors[2 * pair] = totals[0];
                vectors[2 * pair + 1] = totals[1];
            }
        }
    }
}

/// A group has this many pairs of vectors.
#[inline(always)]
fn pairs<S: Vectors>() -> usize {
    32 / (2 * S::F32_LANES)
}

#[inline(always)]
fn vector_pair<S: Vectors>(_simd: S, group: &Group, pair: usize) -> [S::f32s; 2] {
    let (vectors, _) = S::as_simd_f32s(group);
    [vectors[2 * pair], vectors[2 * pair + 1]]
}

/// Apart, so that the path that panics takes no room in the loop.
#[cold]
#[inline(never)]
pub(super) fn out_of_bounds() -> ! {
    panic!("a tap reaches beyond the maps")
}
