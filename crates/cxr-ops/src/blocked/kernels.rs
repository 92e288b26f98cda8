//! The products that convolutions are made of, on blocks of 16 maps.
//!
//! [`convolve`] keeps a tile of pixels × output maps in registers and walks over taps and input maps;
//! [`outer_sums`] keeps a tile of input × output maps and walks over pixels; the depthwise ones work
//! map by map. A tap is an offset into packed maps, so that one kernel serves every shape of window.

use super::{Block, LANES};
use crate::simd::Vectors;

/// Where a convolution reads: an offset, in pixels, into the packed maps, and how many maps of the
/// block there count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) offset: usize,
    pub(super) lanes: usize,
}

/// Rows of pixels to compute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// Pixels from one row to the next in what is read.
    pub(super) stride: usize,
}

/// `out[w][p] (+)= Σ_t Σ_i x[taps[t] + p][i] · weights[t][i][w]` for every pixel `p` of `rows`; the rows of `out`
/// follow each other without gaps. `weights` has the lanes of the first tap, then those of the second, and so on.
pub(super) fn convolve<S: Vectors, const W: usize>(
    simd: S,
    rows: Rows,
    x: &[Block],
    taps: &[Tap],
    weights: &[[Block; W]],
    accumulate: bool,
    out: &mut [&mut [Block]; W],
) {
    simd.within(
        #[inline(always)]
        || {
            let mut area = Area {
                rows,
                x,
                taps,
                weights,
                accumulate,
                column: 0,
            };
            if S::REGISTER_COUNT >= 32 {
                area.columns::<S, 1, 14>(simd, out);
                area.columns::<S, 2, 7>(simd, out);
                area.columns::<S, 2, 4>(simd, out);
                area.columns::<S, 4, 1>(simd, out);
            } else {
                area.columns::<S, 1, 6>(simd, out);
                area.columns::<S, 2, 3>(simd, out);
                area.columns::<S, 4, 1>(simd, out);
            }
        },
    );
}

struct Area<'a, const W: usize> {
    rows: Rows,
    x: &'a [Block],
    taps: &'a [Tap],
    weights: &'a [[Block; W]],
    accumulate: bool,
    /// Columns before this one are done.
    column: usize,
}

impl<const W: usize> Area<'_, W> {
    /// Does as many columns as there are in tiles of `R` rows by `Q` columns.
    #[inline(always)]
    fn columns<S: Vectors, const R: usize, const Q: usize>(
        &mut self,
        simd: S,
        out: &mut [&mut [Block]; W],
    ) {
        while self.rows.width - self.column >= Q {
            let mut row = 0;
            while self.rows.rows - row >= R {
                self.tile::<S, R, Q>(simd, row, out);
                row += R;
            }
            while R > 1 && row < self.rows.rows {
                self.tile::<S, 1, Q>(simd, row, out);
                row += 1;
            }
            self.column += Q;
        }
    }

    #[inline(always)]
    fn tile<S: Vectors, const R: usize, const Q: usize>(
        &self,
        simd: S,
        row: usize,
        out: &mut [&mut [Block]; W],
    ) {
        // One vector at a time where a single block is one; two otherwise.
        if W * LANES == S::F32_LANES {
            self.vectors::<S, R, Q, 1>(simd, row, out);
        } else {
            self.vectors::<S, R, Q, 2>(simd, row, out);
        }
    }

    #[inline(always)]
    fn vectors<S: Vectors, const R: usize, const Q: usize, const V: usize>(
        &self,
        simd: S,
        row: usize,
        out: &mut [&mut [Block]; W],
    ) {
        let per_block = LANES / S::F32_LANES;
        let first = row * self.rows.stride + self.column;
        let target = row * self.rows.width + self.column;
        for pass in 0..W * per_block / V {
            let mut sums = [[[simd.splat_f32s(0.); V]; Q]; R];
            if self.accumulate {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (q, sums) in sums.iter_mut().enumerate() {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            let at = pass * V + v;
                            let pixel = &out[at / per_block][target + r * self.rows.width + q];
                            *sum = S::as_simd_f32s(pixel).0[at % per_block];
                        }
                    }
                }
            }
            let mut weights = self.weights;
            for tap in self.taps {
                let lanes = tap.lanes.min(LANES);
                let (now, rest) = weights.split_at(lanes);
                weights = rest;
                let x = &self.x[first + tap.offset..];
                let mut pixels = [[&[0f32; LANES]; Q]; R];
                for (r, pixels) in pixels.iter_mut().enumerate() {
                    let Some(line) = x[r * self.rows.stride..].first_chunk::<Q>() else {
                        out_of_bounds();
                    };
                    for (pixel, line) in pixels.iter_mut().zip(line) {
                        *pixel = line;
                    }
                }
                for lane in 0..lanes {
                    let row = S::as_simd_f32s(now[lane].as_flattened()).0;
                    let mut factors = [simd.splat_f32s(0.); V];
                    for (v, factor) in factors.iter_mut().enumerate() {
                        *factor = row[pass * V + v];
                    }
                    for (pixels, sums) in pixels.iter().zip(&mut sums) {
                        for (pixel, sums) in pixels.iter().zip(sums) {
                            let value = simd.splat_f32s(pixel[lane]);
                            for (factor, sum) in factors.iter().zip(sums) {
                                *sum = simd.mul_add_e_f32s(value, *factor, *sum);
                            }
                        }
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (q, sums) in sums.iter().enumerate() {
                    for (v, sum) in sums.iter().enumerate() {
                        let at = pass * V + v;
                        let pixel = &mut out[at / per_block][target + r * self.rows.width + q];
                        S::as_mut_simd_f32s(pixel).0[at % per_block] = *sum;
                    }
                }
            }
        }
    }
}

/// `sums[i][w] += Σ_p a[p][i] · d[w][p]` over the pixels `p` of `rows`, for the first `lanes` maps `i`: the gradient
/// of the weights of one tap, input block and `W` output blocks. The rows of `d` follow each other without gaps.
pub(super) fn outer_sums<S: Vectors, const W: usize>(
    simd: S,
    rows: Rows,
    lanes: usize,
    a: &[Block],
    d: [&[Block]; W],
    sums: &mut [[Block; W]; LANES],
) {
    simd.within(
        #[inline(always)]
        || {
            if lanes <= 4 {
                outer_tile::<S, W, 4, 0>(simd, rows, a, &d, sums);
            } else if S::REGISTER_COUNT >= 32 && W == 1 {
                outer_tile::<S, W, 16, 0>(simd, rows, a, &d, sums);
            } else if S::REGISTER_COUNT >= 32 {
                outer_tile::<S, W, 8, 0>(simd, rows, a, &d, sums);
                outer_tile::<S, W, 8, 8>(simd, rows, a, &d, sums);
            } else {
                outer_tile::<S, W, 4, 0>(simd, rows, a, &d, sums);
                outer_tile::<S, W, 4, 4>(simd, rows, a, &d, sums);
                outer_tile::<S, W, 4, 8>(simd, rows, a, &d, sums);
                outer_tile::<S, W, 4, 12>(simd, rows, a, &d, sums);
            }
        },
    );
}

/// `I` input maps from map `FIRST`.
#[inline(always)]
fn outer_tile<S: Vectors, const W: usize, const I: usize, const FIRST: usize>(
    simd: S,
    rows: Rows,
    a: &[Block],
    d: &[&[Block]; W],
    sums: &mut [[Block; W]; LANES],
) {
    if W * LANES == S::F32_LANES {
        outer_vectors::<S, W, I, FIRST, 1>(simd, rows, a, d, sums);
    } else {
        outer_vectors::<S, W, I, FIRST, 2>(simd, rows, a, d, sums);
    }
}

#[inline(always)]
fn outer_vectors<S: Vectors, const W: usize, const I: usize, const FIRST: usize, const V: usize>(
    simd: S,
    rows: Rows,
    a: &[Block],
    d: &[&[Block]; W],
    sums: &mut [[Block; W]; LANES],
) {
    let per_block = LANES / S::F32_LANES;
    for pass in 0..W * per_block / V {
        let mut totals = [[simd.splat_f32s(0.); V]; I];
        for (map, totals) in totals.iter_mut().enumerate() {
            let row = S::as_simd_f32s(sums[FIRST + map].as_flattened()).0;
            for (v, total) in totals.iter_mut().enumerate() {
                *total = row[pass * V + v];
            }
        }
        for row in 0..rows.rows {
            let a = &a[row * rows.stride..][..rows.width];
            // The blocks that the vectors of this pass are of.
            let mut lines = [a; V];
            for (v, line) in lines.iter_mut().enumerate() {
                let block = d[(pass * V + v) / per_block];
                *line = &block[row * rows.width..][..rows.width];
            }
            for (pixel, a) in a.iter().enumerate() {
                let mut factors = [simd.splat_f32s(0.); V];
                for (v, factor) in factors.iter_mut().enumerate() {
                    *factor = S::as_simd_f32s(&lines[v][pixel]).0[(pass * V + v) % per_block];
                }
                for (map, totals) in totals.iter_mut().enumerate() {
                    let value = simd.splat_f32s(a[FIRST + map]);
                    for (factor, total) in factors.iter().zip(totals) {
                        *total = simd.mul_add_e_f32s(value, *factor, *total);
                    }
                }
            }
        }
        for (map, totals) in totals.iter().enumerate() {
            let row = S::as_mut_simd_f32s(sums[FIRST + map].as_flattened_mut()).0;
            for (v, total) in totals.iter().enumerate() {
                row[pass * V + v] = *total;
            }
        }
    }
}

/// `out[p] (+)= Σ_t x[taps[t] + p] · weights[t]`, map by map.
pub(super) fn convolve_depthwise<S: Vectors>(
    simd: S,
    rows: Rows,
    x: &[Block],
    taps: &[usize],
    weights: &[Block],
    accumulate: bool,
    out: &mut [Block],
) {
    simd.within(
        #[inline(always)]
        || {
            for row in 0..rows.rows {
                let x = &x[row * rows.stride..];
                let out = &mut out[row * rows.width..][..rows.width];
                let mut column = 0;
                while rows.width - column >= 8 {
                    depthwise_tile::<S, 8>(simd, x, taps, weights, accumulate, column, out);
                    column += 8;
                }
                while rows.width - column >= 4 {
                    depthwise_tile::<S, 4>(simd, x, taps, weights, accumulate, column, out);
                    column += 4;
                }
                while column < rows.width {
                    depthwise_tile::<S, 1>(simd, x, taps, weights, accumulate, column, out);
                    column += 1;
                }
            }
        },
    );
}

#[inline(always)]
fn depthwise_tile<S: Vectors, const P: usize>(
    simd: S,
    x: &[Block],
    taps: &[usize],
    weights: &[Block],
    accumulate: bool,
    column: usize,
    out: &mut [Block],
) {
    let Some(out) = out[column..].first_chunk_mut::<P>() else {
        out_of_bounds();
    };
    for vector in 0..LANES / S::F32_LANES {
        let mut sums = [simd.splat_f32s(0.); P];
        if accumulate {
            for (sum, out) in sums.iter_mut().zip(&*out) {
                *sum = S::as_simd_f32s(out).0[vector];
            }
        }
        for (&tap, weights) in taps.iter().zip(weights) {
            let Some(pixels) = x[tap + column..].first_chunk::<P>() else {
                out_of_bounds();
            };
            let factor = S::as_simd_f32s(weights).0[vector];
            for (sum, pixel) in sums.iter_mut().zip(pixels) {
                let value = S::as_simd_f32s(pixel).0[vector];
                *sum = simd.mul_add_e_f32s(value, factor, *sum);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            S::as_mut_simd_f32s(out).0[vector] = sum;
        }
    }
}

/// `sums[t] = Σ_p x[taps[t] + p] · d[p]`, map by map, over the pixels of `rows`.
pub(super) fn outer_sums_depthwise<S: Vectors>(
    simd: S,
    rows: Rows,
    x: &[Block],
    taps: &[usize],
    d: &[Block],
    sums: &mut [Block],
) {
    simd.within(
        #[inline(always)]
        || {
            let (fives, rest) = sums.as_chunks_mut::<5>();
            let (tap_fives, tap_rest) = taps.as_chunks::<5>();
            for (sums, taps) in fives.iter_mut().zip(tap_fives) {
                outer_depthwise_tile::<S, 5>(simd, rows, x, taps, d, sums);
            }
            for (sum, tap) in rest.iter_mut().zip(tap_rest) {
                let sums = std::array::from_mut(sum);
                outer_depthwise_tile::<S, 1>(simd, rows, x, &[*tap], d, sums);
            }
        },
    );
}

#[inline(always)]
fn outer_depthwise_tile<S: Vectors, const T: usize>(
    simd: S,
    rows: Rows,
    x: &[Block],
    taps: &[usize; T],
    d: &[Block],
    sums: &mut [Block; T],
) {
    for vector in 0..LANES / S::F32_LANES {
        // Two runs of sums, as one would wait for its own last product.
        let mut totals = [[simd.splat_f32s(0.); 2]; T];
        for row in 0..rows.rows {
            let d = &d[row * rows.width..][..rows.width];
            let mut lines = [d; T];
            for (line, tap) in lines.iter_mut().zip(taps) {
                *line = &x[row * rows.stride + tap..][..rows.width];
            }
            for (pixel, d) in d.iter().enumerate() {
                let factor = S::as_simd_f32s(d).0[vector];
                for (line, totals) in lines.iter().zip(&mut totals) {
                    let value = S::as_simd_f32s(&line[pixel]).0[vector];
                    totals[pixel % 2] = simd.mul_add_e_f32s(value, factor, totals[pixel % 2]);
                }
            }
        }
        for (sum, [even, odd]) in sums.iter_mut().zip(totals) {
            S::as_mut_simd_f32s(sum).0[vector] = simd.add_f32s(even, odd);
        }
    }
}

/// Apart, so that the path that panics takes no room in the loop.
#[cold]
#[inline(never)]
fn out_of_bounds() -> ! {
    panic!("a tap reaches beyond the packed maps")
}
