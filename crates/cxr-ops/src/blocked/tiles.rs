//! The transforms of [Winograd's convolutions](super::winograd), from maps to tiles and back.

use super::kernels::Start;
use super::{Block, LANES, ZERO, in_block, of_block, vectors};
use crate::simd::Vectors;

/// Taps of a window.
pub(super) const TAPS: usize = 9;

/// The transforms of one size of tile: `SIDE` rows and columns of inputs, `STEP` of outputs. Each is of one dimension.
pub(super) trait Scheme<const SIDE: usize, const STEP: usize>: Copy + Send + Sync {
    /// The rows of G.
    const WEIGHTS: [[f32; 3]; SIDE];

    /// `Bᵀ d`.
    fn inputs<S: Vectors>(simd: S, d: [S::f32s; SIDE]) -> [S::f32s; SIDE];

    /// `Aᵀ m`.
    fn outputs<S: Vectors>(simd: S, m: [S::f32s; SIDE]) -> [S::f32s; STEP];

    /// `A y`.
    fn gradients<S: Vectors>(simd: S, y: [S::f32s; STEP]) -> [S::f32s; SIDE];
}

/// F(2×2, 3×3) for the points 0, ±1, ∞.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small;

/// F(4×4, 3×3) for the points 0, ±1, ±2, ∞.
#[derive(Debug, Clone, Copy)]
pub(super) struct Large;

impl Scheme<4, 2> for Small {
    const WEIGHTS: [[f32; 3]; 4] = [
        [1., 0., 0.],
        [0.5, 0.5, 0.5],
        [0.5, -0.5, 0.5],
        [0., 0., 1.],
    ];

    #[inline(always)]
    fn inputs<S: Vectors>(simd: S, d: [S::f32s; 4]) -> [S::f32s; 4] {
        [
            simd.sub_f32s(d[0], d[2]),
            simd.add_f32s(d[1], d[2]),
            simd.sub_f32s(d[2], d[1]),
            simd.sub_f32s(d[3], d[1]),
        ]
    }

    #[inline(always)]
    fn outputs<S: Vectors>(simd: S, m: [S::f32s; 4]) -> [S::f32s; 2] {
        [
            simd.add_f32s(m[0], simd.add_f32s(m[1], m[2])),
            simd.add_f32s(simd.sub_f32s(m[1], m[2]), m[3]),
        ]
    }

    #[inline(always)]
    fn gradients<S: Vectors>(simd: S, y: [S::f32s; 2]) -> [S::f32s; 4] {
        [
            y[0],
            simd.add_f32s(y[0], y[1]),
            simd.sub_f32s(y[0], y[1]),
            y[1],
        ]
    }
}

impl Scheme<6, 4> for Large {
    const WEIGHTS: [[f32; 3]; 6] = [
        [1. / 4., 0., 0.],
        [-1. / 6., -1. / 6., -1. / 6.],
        [-1. / 6., 1. / 6., -1. / 6.],
        [1. / 24., 1. / 12., 1. / 6.],
        [1. / 24., -1. / 12., 1. / 6.],
        [0., 0., 1.],
    ];

    #[inline(always)]
    fn inputs<S: Vectors>(simd: S, d: [S::f32s; 6]) -> [S::f32s; 6] {
        let (even, odd) = (times(simd, -4., d[2], d[4]), times(simd, -4., d[1], d[3]));
        let (near, far) = (simd.sub_f32s(d[4], d[2]), simd.sub_f32s(d[3], d[1]));
        [
            times(simd, 4., d[0], times(simd, -5., d[2], d[4])),
            simd.add_f32s(even, odd),
            simd.sub_f32s(even, odd),
            times(simd, 2., far, near),
            times(simd, -2., far, near),
            times(simd, 4., d[1], times(simd, -5., d[3], d[5])),
        ]
    }

    #[inline(always)]
    fn outputs<S: Vectors>(simd: S, m: [S::f32s; 6]) -> [S::f32s; 4] {
        let (sum1, difference1) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
        let (sum2, difference2) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
        [
            simd.add_f32s(m[0], simd.add_f32s(sum1, sum2)),
            times(simd, 2., difference2, difference1),
            times(simd, 4., sum2, sum1),
            simd.add_f32s(m[5], times(simd, 8., difference2, difference1)),
        ]
    }

    #[inline(always)]
    fn gradients<S: Vectors>(simd: S, y: [S::f32s; 4]) -> [S::f32s; 6] {
        let (even, odd) = (simd.add_f32s(y[0], y[2]), simd.add_f32s(y[1], y[3]));
        let even2 = times(simd, 4., y[2], y[0]);
        let odd2 = times(simd, 8., y[3], simd.mul_f32s(simd.splat_f32s(2.), y[1]));
        [
            y[0],
            simd.add_f32s(even, odd),
            simd.sub_f32s(even, odd),
            simd.add_f32s(even2, odd2),
            simd.sub_f32s(even2, odd2),
            y[3],
        ]
    }
}

/// `factor·a + b`.
#[inline(always)]
fn times<S: Vectors>(simd: S, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
    simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b)
}

/// Tiles next to each other and below: place `p` of the first is at `first + p·room` of the transformed maps, and that of
/// the next one behind it.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) room: usize,
}

/// `G g Gᵀ` of 16 kernels at once; `write` gets each point's.
#[inline(always)]
pub(super) fn transform_weights<
    S: Vectors,
    T: Scheme<SIDE, STEP>,
    const SIDE: usize,
    const STEP: usize,
>(
    simd: S,
    kernels: [&Block; TAPS],
    mut write: impl FnMut(usize, Block),
) {
    let mut transformed = [[ZERO; SIDE]; SIDE];
    simd.within(
        #[inline(always)]
        || {
            for vector in 0..vectors::<S>() {
                let zero = simd.splat_f32s(0.);
                let mut halfway = [[zero; 3]; SIDE];
                for (g, halfway) in T::WEIGHTS.iter().zip(&mut halfway) {
                    for (column, halfway) in halfway.iter_mut().enumerate() {
                        for (row, &g) in g.iter().enumerate() {
                            let kernel = of_block::<S>(kernels[3 * row + column], vector);
                            *halfway = times(simd, g, kernel, *halfway);
                        }
                    }
                }
                for (halfway, out) in halfway.iter().zip(&mut transformed) {
                    for (g, out) in T::WEIGHTS.iter().zip(out) {
                        let mut sum = zero;
                        for (&halfway, &g) in halfway.iter().zip(g) {
                            sum = times(simd, g, halfway, sum);
                        }
                        *in_block::<S>(out, vector) = sum;
                    }
                }
            }
        },
    );
    for (point, block) in transformed.as_flattened().iter().enumerate() {
        write(point, *block);
    }
}

/// `Gᵀ s G` of 16 sums of products at once: nine gradients.
pub(super) fn transform_sums<
    S: Vectors,
    T: Scheme<SIDE, STEP>,
    const SIDE: usize,
    const STEP: usize,
>(
    simd: S,
    sums: &[[Block; SIDE]; SIDE],
) -> [Block; TAPS] {
    let mut kernels = [ZERO; TAPS];
    simd.within(
        #[inline(always)]
        || {
            for vector in 0..vectors::<S>() {
                let zero = simd.splat_f32s(0.);
                let mut halfway = [[zero; SIDE]; 3];
                for (g, sums) in T::WEIGHTS.iter().zip(sums) {
                    for (&g, halfway) in g.iter().zip(&mut halfway) {
                        for (sum, halfway) in sums.iter().zip(halfway) {
                            *halfway = times(simd, g, of_block::<S>(sum, vector), *halfway);
                        }
                    }
                }
                for (halfway, out) in halfway.iter().zip(kernels.chunks_exact_mut(3)) {
                    for (column, out) in out.iter_mut().enumerate() {
                        let mut sum = zero;
                        for (&halfway, g) in halfway.iter().zip(&T::WEIGHTS) {
                            sum = times(simd, g[column], halfway, sum);
                        }
                        *in_block::<S>(out, vector) = sum;
                    }
                }
            }
        },
    );
    kernels
}

/// `Bᵀ d B` of every tile of one block: `padded` is a strip with lines of `line` pixels.
pub(super) fn transform_inputs<
    S: Vectors,
    T: Scheme<SIDE, STEP>,
    const SIDE: usize,
    const STEP: usize,
>(
    simd: S,
    tiles: Tiles,
    padded: &[Block],
    line: usize,
    out: &mut [Block],
) {
    simd.within(
        #[inline(always)]
        || {
            for row in 0..tiles.rows {
                for column in 0..tiles.columns {
                    let corner = &padded[(row * line + column) * STEP..];
                    let tile = tiles.first + row * tiles.columns + column;
                    for vector in 0..LANES / S::F32_LANES {
                        let mut halfway = [[simd.splat_f32s(0.); SIDE]; SIDE];
                        for (x, halfway) in halfway.iter_mut().enumerate() {
                            *halfway = T::inputs(simd, column_of(simd, corner, x, line, vector));
                        }
                        for y in 0..SIDE {
                            let row = T::inputs(simd, row_of(simd, &halfway, y));
                            for (x, value) in row.into_iter().enumerate() {
                                let place = (y * SIDE + x) * tiles.room + tile;
                                S::as_mut_simd_f32s(&mut out[place]).0[vector] = value;
                            }
                        }
                    }
                }
            }
        },
    );
}

/// `A dy Aᵀ` of every tile of one block; `inside` has lines of `line` pixels.
pub(super) fn transform_gradients<
    S: Vectors,
    T: Scheme<SIDE, STEP>,
    const SIDE: usize,
    const STEP: usize,
>(
    simd: S,
    tiles: Tiles,
    inside: &[Block],
    line: usize,
    out: &mut [Block],
) {
    simd.within(
        #[inline(always)]
        || {
            for row in 0..tiles.rows {
                for column in 0..tiles.columns {
                    let corner = &inside[(row * line + column) * STEP..];
                    let tile = tiles.first + row * tiles.columns + column;
                    for vector in 0..LANES / S::F32_LANES {
                        let mut halfway = [[simd.splat_f32s(0.); SIDE]; STEP];
                        for (x, halfway) in halfway.iter_mut().enumerate() {
                            *halfway = T::gradients(simd, column_of(simd, corner, x, line, vector));
                        }
                        for y in 0..SIDE {
                            let row = T::gradients(simd, row_of(simd, &halfway, y));
                            for (x, value) in row.into_iter().enumerate() {
                                let place = (y * SIDE + x) * tiles.room + tile;
                                S::as_mut_simd_f32s(&mut out[place]).0[vector] = value;
                            }
                        }
                    }
                }
            }
        },
    );
}

/// `Aᵀ m A` of every tile of one block, written or added to `out` or a bias, rows of `width` pixels: what is beyond is dropped.
pub(super) fn transform_outputs<
    S: Vectors,
    T: Scheme<SIDE, STEP>,
    const SIDE: usize,
    const STEP: usize,
>(
    simd: S,
    tiles: Tiles,
    products: &[Block],
    width: usize,
    start: Start<'_>,
    out: &mut [Block],
) {
    simd.within(
        #[inline(always)]
        || {
            for row in 0..tiles.rows {
                for column in 0..tiles.columns {
                    let m = &products[tiles.first + row * tiles.columns + column..];
                    for vector in 0..LANES / S::F32_LANES {
                        let mut halfway = [[simd.splat_f32s(0.); STEP]; SIDE];
                        for (x, halfway) in halfway.iter_mut().enumerate() {
                            let m = &m[x * tiles.room..];
                            *halfway =
                                T::outputs(simd, column_of(simd, m, 0, SIDE * tiles.room, vector));
                        }
                        let lines = out.chunks_exact_mut(width).skip(row * STEP).take(STEP);
                        for (y, line) in lines.enumerate() {
                            let values = T::outputs(simd, row_of(simd, &halfway, y));
                            for (pixel, value) in line[column * STEP..].iter_mut().zip(values) {
                                let pixel = &mut S::as_mut_simd_f32s(pixel).0[vector];
                                *pixel = match start {
                                    Start::Zero => value,
                                    Start::Output => simd.add_f32s(*pixel, value),
                                    Start::Bias(bias) => {
                                        simd.add_f32s(of_block::<S>(&bias[0], vector), value)
                                    }
                                };
                            }
                        }
                    }
                }
            }
        },
    );
}

/// One vector of a tile's column `x`, whose rows are `next_row` pixels from each other.
#[inline(always)]
fn column_of<S: Vectors, const ROWS: usize>(
    simd: S,
    corner: &[Block],
    x: usize,
    next_row: usize,
    vector: usize,
) -> [S::f32s; ROWS] {
    let mut column = [simd.splat_f32s(0.); ROWS];
    for (y, value) in column.iter_mut().enumerate() {
        *value = S::as_simd_f32s(&corner[x + y * next_row]).0[vector];
    }
    column
}

/// Row `y` of a tile that is stored column by column.
#[inline(always)]
fn row_of<S: Vectors, const ROWS: usize, const COLUMNS: usize>(
    simd: S,
    columns: &[[S::f32s; ROWS]; COLUMNS],
    y: usize,
) -> [S::f32s; COLUMNS] {
    let mut row = [simd.splat_f32s(0.); COLUMNS];
    for (value, column) in row.iter_mut().zip(columns) {
        *value = column[y];
    }
    row
}
