//! The products that convolutions are made of, on blocks of 16 maps.
//!
//! [`convolve`] keeps a tile of pixels × output maps in registers and walks over taps and input maps;
//! [`outer_sums`] keeps a tile of input × output maps and walks over pixels; the depthwise ones work
//! map by map. A tap is an offset into packed maps, so that one kernel serves every shape of window.

use super::{Block, LANES, in_block, of_block};
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

/// Products that are summed up before the sum is added to those before it. The error of a sum grows with the root of its
/// length; of a thousand products this takes off two thirds, for two loads and stores in a hundred products.
const PRODUCTS: usize = 128;

/// What sums are added to.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    Zero,
    /// What the output has.
    Output,
    /// The same for every pixel, one for each block.
    Bias(&'a [Block]),
}

impl<'a> Start<'a> {
    /// That of some blocks of a bias.
    pub(super) fn of_bias(bias: Option<&'a [Block]>, blocks: std::ops::Range<usize>) -> Self {
        bias.map_or(Self::Zero, |bias| Self::Bias(&bias[blocks]))
    }

    /// The output, if the sums are added to it.
    pub(super) fn of_output(accumulate: bool) -> Self {
        if accumulate { Self::Output } else { Self::Zero }
    }
}

/// `out[w][p] (+)= Σ_t Σ_i x[taps[t] + p][i] · weights[t][i][w]` for every pixel `p` of `rows`; the rows of `out`
/// follow each other without gaps. `weights` has the lanes of the first tap, then those of the second, and so on.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a, const W: usize> {
    pub(super) rows: Rows,
    pub(super) x: &'a [Block],
    pub(super) taps: &'a [Tap],
    pub(super) weights: &'a [[Block; W]],
    pub(super) start: Start<'a>,
}

/// [`Products`] of as many vectors as an instruction set has registers for. Each set is named with what it needs, so
/// that nothing else is compiled for it.
pub(crate) trait Kernels: Vectors {
    /// One block.
    fn convolve_one(self, products: Products<'_, 1>, out: &mut [&mut [Block]; 1]);

    /// Two blocks, of which each value that is read serves both.
    fn convolve_two(self, products: Products<'_, 2>, out: &mut [&mut [Block]; 2]);

    /// [`outer_sums`] of one block.
    fn outer_one(self, outer: Outer<'_, 1>, sums: &mut [[Block; 1]; LANES]);

    /// [`outer_sums`] of two blocks.
    fn outer_two(self, outer: Outer<'_, 2>, sums: &mut [[Block; 2]; LANES]);
}

/// For 32 registers, of `$one` and `$two` vectors for one and for two blocks.
macro_rules! many_registers {
    ($vectors:ty, $one:literal, $two:literal) => {
        impl Kernels for $vectors {
            fn convolve_one(self, products: Products<'_, 1>, out: &mut [&mut [Block]; 1]) {
                self.within(
                    #[inline(always)]
                    || products.in_large_tiles::<Self, $one>(self, out),
                );
            }

            fn convolve_two(self, products: Products<'_, 2>, out: &mut [&mut [Block]; 2]) {
                self.within(
                    #[inline(always)]
                    || products.in_large_tiles::<Self, $two>(self, out),
                );
            }

            fn outer_one(self, outer: Outer<'_, 1>, sums: &mut [[Block; 1]; LANES]) {
                self.within(
                    #[inline(always)]
                    || {
                        if outer.lanes <= 4 {
                            outer.tile::<Self, 4, 0, $one>(self, sums);
                        } else {
                            outer.tile::<Self, 16, 0, $one>(self, sums);
                        }
                    },
                );
            }

            fn outer_two(self, outer: Outer<'_, 2>, sums: &mut [[Block; 2]; LANES]) {
                self.within(
                    #[inline(always)]
                    || {
                        if outer.lanes <= 4 {
                            outer.tile::<Self, 4, 0, $two>(self, sums);
                        } else {
                            outer.tile::<Self, 8, 0, $two>(self, sums);
                            outer.tile::<Self, 8, 8, $two>(self, sums);
                        }
                    },
                );
            }
        }
    };
}

/// For 16 registers.
macro_rules! few_registers {
    ($vectors:ty) => {
        impl Kernels for $vectors {
            fn convolve_one(self, products: Products<'_, 1>, out: &mut [&mut [Block]; 1]) {
                self.within(
                    #[inline(always)]
                    || products.in_small_tiles(self, out),
                );
            }

            fn convolve_two(self, products: Products<'_, 2>, out: &mut [&mut [Block]; 2]) {
                self.within(
                    #[inline(always)]
                    || products.in_small_tiles(self, out),
                );
            }

            fn outer_one(self, outer: Outer<'_, 1>, sums: &mut [[Block; 1]; LANES]) {
                self.within(
                    #[inline(always)]
                    || outer.in_small_tiles(self, sums),
                );
            }

            fn outer_two(self, outer: Outer<'_, 2>, sums: &mut [[Block; 2]; LANES]) {
                self.within(
                    #[inline(always)]
                    || outer.in_small_tiles(self, sums),
                );
            }
        }
    };
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
many_registers!(pulp::x86::V4, 1, 2);
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
few_registers!(pulp::x86::V3);
few_registers!(pulp::Scalar);

impl<const W: usize> Products<'_, W> {
    /// Tiles as large as the registers hold: the more pixels, the more often a loaded weight is used. Rows are cut into equal
    /// tiles, as one for what the largest tiles leave over would keep few registers.
    #[inline(always)]
    fn in_large_tiles<S: Vectors, const V: usize>(self, simd: S, out: &mut [&mut [Block]; W]) {
        const LARGEST: usize = 14;
        let Rows { rows, width, .. } = self.rows;
        if rows > 1 && width <= LARGEST / 2 {
            let column = self.columns::<S, 2, 7, V>(simd, 0, out);
            let column = self.columns::<S, 2, 4, V>(simd, column, out);
            self.columns::<S, 4, 1, V>(simd, column, out);
            return;
        }
        let count = width.div_ceil(LARGEST);
        for tile in 0..count {
            let [column, end] = [tile, tile + 1].map(|tile| tile * width / count);
            macro_rules! of_width {
                ($($width:literal)*) => {
                    match end - column {
                        $($width => {
                            for row in 0..rows {
                                self.tile::<S, 1, $width, V>(simd, row, column, out);
                            }
                        })*
                        _ => out_of_bounds(),
                    }
                };
            }
            of_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        }
    }

    #[inline(always)]
    fn in_small_tiles<S: Vectors>(self, simd: S, out: &mut [&mut [Block]; W]) {
        let column = self.columns::<S, 1, 6, 2>(simd, 0, out);
        self.columns::<S, 4, 1, 2>(simd, column, out);
    }

    /// Does as many columns from `column` on as there are in tiles of `R` rows by `Q` columns; returns the next.
    #[inline(always)]
    fn columns<S: Vectors, const R: usize, const Q: usize, const V: usize>(
        &self,
        simd: S,
        mut column: usize,
        out: &mut [&mut [Block]; W],
    ) -> usize {
        while self.rows.width - column >= Q {
            let mut row = 0;
            while self.rows.rows - row >= R {
                self.tile::<S, R, Q, V>(simd, row, column, out);
                row += R;
            }
            while R > 1 && row < self.rows.rows {
                self.tile::<S, 1, Q, V>(simd, row, column, out);
                row += 1;
            }
            column += Q;
        }
        column
    }

    /// `V` vectors at a time.
    #[inline(always)]
    fn tile<S: Vectors, const R: usize, const Q: usize, const V: usize>(
        &self,
        simd: S,
        row: usize,
        column: usize,
        out: &mut [&mut [Block]; W],
    ) {
        let per_block = LANES / S::F32_LANES;
        let first = row * self.rows.stride + column;
        let target = row * self.rows.width + column;
        for pass in 0..W * per_block / V {
            let (mut taps, mut weights, mut start) = (self.taps, self.weights, self.start);
            // At least once, as what has no taps is zero or a bias.
            loop {
                let mut sums = [[[simd.splat_f32s(0.); V]; Q]; R];
                let mut products = 0;
                while products < PRODUCTS
                    && let Some((tap, later)) = taps.split_first()
                {
                    taps = later;
                    let lanes = tap.lanes.min(LANES);
                    products += lanes;
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
                // Each of the three is a loop that the compiler unrolls, without which sums would not stay in registers.
                match start {
                    Start::Zero => {
                        self.put::<S, R, Q, V>(pass, target, &sums, out, |_, sum, _| sum);
                    }
                    Start::Output => {
                        self.put::<S, R, Q, V>(pass, target, &sums, out, |before, sum, _| {
                            simd.add_f32s(before, sum)
                        });
                    }
                    Start::Bias(bias) => {
                        let mut biases = [simd.splat_f32s(0.); V];
                        for (v, value) in biases.iter_mut().enumerate() {
                            let at = pass * V + v;
                            *value = of_block::<S>(&bias[at / per_block], at % per_block);
                        }
                        self.put::<S, R, Q, V>(pass, target, &sums, out, |_, sum, v| {
                            simd.add_f32s(biases[v], sum)
                        });
                    }
                }
                start = Start::Output;
                if taps.is_empty() {
                    break;
                }
            }
        }
    }

    /// Writes the vectors of pass `pass` of a tile whose first pixel is `target`: `value(before, sum, vector of the pass)`.
    #[inline(always)]
    fn put<S: Vectors, const R: usize, const Q: usize, const V: usize>(
        &self,
        pass: usize,
        target: usize,
        sums: &[[[S::f32s; V]; Q]; R],
        out: &mut [&mut [Block]; W],
        value: impl Fn(S::f32s, S::f32s, usize) -> S::f32s,
    ) {
        let per_block = LANES / S::F32_LANES;
        for (r, sums) in sums.iter().enumerate() {
            for v in 0..V {
                let at = pass * V + v;
                let first = target + r * self.rows.width;
                let Some(line) = out[at / per_block][first..].first_chunk_mut::<Q>() else {
                    out_of_bounds();
                };
                for (pixel, sums) in line.iter_mut().zip(sums) {
                    let pixel = in_block::<S>(pixel, at % per_block);
                    *pixel = value(*pixel, sums[v], v);
                }
            }
        }
    }
}

/// `sums[i][w] += Σ_p a[p][i] · d[w][p]` over the pixels `p` of `rows`, for the first `lanes` maps `i`: the gradient
/// of the weights of one tap, input block and `W` output blocks. The rows of `d` follow each other without gaps.
#[derive(Clone, Copy)]
pub(crate) struct Outer<'a, const W: usize> {
    pub(super) rows: Rows,
    pub(super) lanes: usize,
    pub(super) a: &'a [Block],
    pub(super) d: [&'a [Block]; W],
}

impl<const W: usize> Outer<'_, W> {
    #[inline(always)]
    fn in_small_tiles<S: Vectors>(self, simd: S, sums: &mut [[Block; W]; LANES]) {
        self.tile::<S, 4, 0, 2>(simd, sums);
        if self.lanes > 4 {
            self.tile::<S, 4, 4, 2>(simd, sums);
            self.tile::<S, 4, 8, 2>(simd, sums);
            self.tile::<S, 4, 12, 2>(simd, sums);
        }
    }

    /// `I` input maps from map `FIRST`, `V` vectors at a time.
    #[inline(always)]
    fn tile<S: Vectors, const I: usize, const FIRST: usize, const V: usize>(
        &self,
        simd: S,
        sums: &mut [[Block; W]; LANES],
    ) {
        let rows = self.rows;
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
                let a = &self.a[row * rows.stride..][..rows.width];
                // The blocks that the vectors of this pass are of.
                let mut lines = [a; V];
                for (v, line) in lines.iter_mut().enumerate() {
                    let block = self.d[(pass * V + v) / per_block];
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
}

/// `out[p] (+)= Σ_t x[taps[t] + p] · weights[t]`, map by map.
pub(super) fn convolve_depthwise<S: Vectors>(
    simd: S,
    rows: Rows,
    x: &[Block],
    taps: &[usize],
    weights: &[Block],
    start: Start<'_>,
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
                    depthwise_tile::<S, 8>(simd, x, taps, weights, start, column, out);
                    column += 8;
                }
                while rows.width - column >= 4 {
                    depthwise_tile::<S, 4>(simd, x, taps, weights, start, column, out);
                    column += 4;
                }
                while column < rows.width {
                    depthwise_tile::<S, 1>(simd, x, taps, weights, start, column, out);
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
    start: Start<'_>,
    column: usize,
    out: &mut [Block],
) {
    let Some(out) = out[column..].first_chunk_mut::<P>() else {
        out_of_bounds();
    };
    for vector in 0..LANES / S::F32_LANES {
        let mut sums = [simd.splat_f32s(0.); P];
        match start {
            Start::Zero => {}
            Start::Output => {
                for (sum, out) in sums.iter_mut().zip(&*out) {
                    *sum = S::as_simd_f32s(out).0[vector];
                }
            }
            Start::Bias(bias) => sums = [S::as_simd_f32s(&bias[0]).0[vector]; P],
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
