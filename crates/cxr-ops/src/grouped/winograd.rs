//! Winograd's convolution F(4×4, 3×3): four by four outputs of a 3×3 convolution from 36 products instead
//! of 144 (Lavin & Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016, for the points
//! 0, ±1, ±2, ∞).
//!
//! With `y` = 4×4 outputs, `d` = 6×6 inputs and `g` = 3×3 weights,
//! `y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`, and for the weight's gradient `dg = Gᵀ[(A dy Aᵀ) ⊙ (Bᵀ d B)]G`. The sum
//! over maps stands between the transforms, so that each of the 36 places is one product of matrices.

use super::{Group, LANES, ZERO};
use crate::simd::Vectors;

/// Places of a transformed tile.
pub(super) const POINTS: usize = 36;
/// Rows and columns of outputs of a tile.
pub(super) const STEP: usize = 4;
/// Rows and columns of inputs of a tile.
const SIDE: usize = 6;

/// The rows of G.
const G: [[f32; 3]; SIDE] = [
    [1. / 4., 0., 0.],
    [-1. / 6., -1. / 6., -1. / 6.],
    [-1. / 6., 1. / 6., -1. / 6.],
    [1. / 24., 1. / 12., 1. / 6.],
    [1. / 24., -1. / 12., 1. / 6.],
    [0., 0., 1.],
];

/// `G g Gᵀ` of 32 kernels at once.
pub(super) fn transform_weights<S: Vectors>(
    simd: S,
    kernels: [&Group; 9],
    mut write: impl FnMut(usize, Group),
) {
    let mut transformed = [ZERO; POINTS];
    simd.within(
        #[inline(always)]
        || {
            let mut halfway = [[ZERO; 3]; SIDE];
            for (g, halfway) in G.iter().zip(&mut halfway) {
                for (column, halfway) in halfway.iter_mut().enumerate() {
                    for (row, &g) in g.iter().enumerate() {
                        for lane in 0..LANES {
                            halfway[lane] += g * kernels[3 * row + column][lane];
                        }
                    }
                }
            }
            for (halfway, out) in halfway.iter().zip(transformed.chunks_exact_mut(SIDE)) {
                for (g, out) in G.iter().zip(out) {
                    for (halfway, &g) in halfway.iter().zip(g) {
                        for lane in 0..LANES {
                            out[lane] += g * halfway[lane];
                        }
                    }
                }
            }
        },
    );
    for (point, group) in transformed.into_iter().enumerate() {
        write(point, group);
    }
}

/// `Gᵀ s G` of 32 sums of products at once: nine gradients.
pub(super) fn transform_sums<S: Vectors>(simd: S, sums: &[Group; POINTS]) -> [Group; 9] {
    let mut kernels = [ZERO; 9];
    simd.within(
        #[inline(always)]
        || {
            let mut halfway = [[ZERO; SIDE]; 3];
            for (g, sums) in G.iter().zip(sums.chunks_exact(SIDE)) {
                for (&g, halfway) in g.iter().zip(&mut halfway) {
                    for (sum, halfway) in sums.iter().zip(halfway) {
                        for lane in 0..LANES {
                            halfway[lane] += g * sum[lane];
                        }
                    }
                }
            }
            for (halfway, out) in halfway.iter().zip(kernels.chunks_exact_mut(3)) {
                for (halfway, g) in halfway.iter().zip(&G) {
                    for (&g, out) in g.iter().zip(&mut *out) {
                        for lane in 0..LANES {
                            out[lane] += g * halfway[lane];
                        }
                    }
                }
            }
        },
    );
    kernels
}

/// Tiles of a strip: `columns` next to each other, `rows` below.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Tiles that the transformed maps have room for: place `p` of tile `t` is at `p * room + t`.
    pub(super) room: usize,
}

/// `Bᵀ d B` of every tile of one group: `padded` is a strip with lines of `line` pixels.
pub(super) fn transform_inputs<S: Vectors>(
    simd: S,
    tiles: Tiles,
    padded: &[Group],
    line: usize,
    out: &mut [Group],
) {
    simd.within(|| {
        for row in 0..tiles.rows {
            for column in 0..tiles.columns {
                let corner = row * STEP * line + column * STEP;
                let tile = row * tiles.columns + column;
                for vector in 0..LANES / S::F32_LANES {
                    let d = Columns {
                        pixels: &padded[corner..],
                        next_row: line,
                        vector,
                    };
                    // Not from zeros: filling six by six vectors would be a call for each tile.
                    let halfway = [
                        inputs(simd, d.column(simd, 0)),
                        inputs(simd, d.column(simd, 1)),
                        inputs(simd, d.column(simd, 2)),
                        inputs(simd, d.column(simd, 3)),
                        inputs(simd, d.column(simd, 4)),
                        inputs(simd, d.column(simd, 5)),
                    ];
                    for y in 0..SIDE {
                        let row = inputs(simd, row_of(simd, &halfway, y));
                        for (x, value) in row.into_iter().enumerate() {
                            let place = (y * SIDE + x) * tiles.room + tile;
                            S::as_mut_simd_f32s(&mut out[place]).0[vector] = value;
                        }
                    }
                }
            }
        }
    });
}

/// `A dy Aᵀ` of every tile of one group; `inside` begins at the first output's pixel of a padded strip.
pub(super) fn transform_gradients<S: Vectors>(
    simd: S,
    tiles: Tiles,
    inside: &[Group],
    line: usize,
    out: &mut [Group],
) {
    simd.within(|| {
        for row in 0..tiles.rows {
            for column in 0..tiles.columns {
                let corner = row * STEP * line + column * STEP;
                let tile = row * tiles.columns + column;
                for vector in 0..LANES / S::F32_LANES {
                    let dy = Columns {
                        pixels: &inside[corner..],
                        next_row: line,
                        vector,
                    };
                    let halfway = [
                        gradients(simd, dy.column(simd, 0)),
                        gradients(simd, dy.column(simd, 1)),
                        gradients(simd, dy.column(simd, 2)),
                        gradients(simd, dy.column(simd, 3)),
                    ];
                    for y in 0..SIDE {
                        let row = gradients(simd, row_of(simd, &halfway, y));
                        for (x, value) in row.into_iter().enumerate() {
                            let place = (y * SIDE + x) * tiles.room + tile;
                            S::as_mut_simd_f32s(&mut out[place]).0[vector] = value;
                        }
                    }
                }
            }
        }
    });
}

/// `Aᵀ m A` of every tile of one group, written to `out`, rows of `width` pixels: what lies beyond is
/// dropped.
pub(super) fn transform_outputs<S: Vectors>(
    simd: S,
    tiles: Tiles,
    products: &[Group],
    width: usize,
    out: &mut [Group],
) {
    simd.within(|| {
        for row in 0..tiles.rows {
            for column in 0..tiles.columns {
                let tile = row * tiles.columns + column;
                for vector in 0..LANES / S::F32_LANES {
                    let m = Columns {
                        pixels: &products[tile..],
                        next_row: SIDE * tiles.room,
                        vector,
                    };
                    let halfway = [
                        outputs(simd, m.column(simd, 0)),
                        outputs(simd, m.column(simd, tiles.room)),
                        outputs(simd, m.column(simd, 2 * tiles.room)),
                        outputs(simd, m.column(simd, 3 * tiles.room)),
                        outputs(simd, m.column(simd, 4 * tiles.room)),
                        outputs(simd, m.column(simd, 5 * tiles.room)),
                    ];
                    let lines = out.chunks_exact_mut(width).skip(row * STEP).take(STEP);
                    for (y, line) in lines.enumerate() {
                        let pixels = line[column * STEP..].iter_mut();
                        let values = outputs(simd, row_of(simd, &halfway, y));
                        for (pixel, value) in pixels.zip(values) {
                            S::as_mut_simd_f32s(pixel).0[vector] = value;
                        }
                    }
                }
            }
        }
    });
}

/// One vector of the pixels of a tile that stands somewhere in a larger image.
#[derive(Clone, Copy)]
struct Columns<'a> {
    pixels: &'a [Group],
    /// From a row to the one below.
    next_row: usize,
    vector: usize,
}

impl Columns<'_> {
    /// The column that begins at pixel `first`.
    #[inline(always)]
    fn column<S: Vectors, const ROWS: usize>(self, simd: S, first: usize) -> [S::f32s; ROWS] {
        let mut column = [simd.splat_f32s(0.); ROWS];
        for (y, value) in column.iter_mut().enumerate() {
            *value = S::as_simd_f32s(&self.pixels[first + y * self.next_row]).0[self.vector];
        }
        column
    }
}

/// Row `y` of tiles that stand column by column. Loops, here and above, rather than closures: a closure is
/// compiled for the instruction set only if all around it is inlined.
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

/// `factor·a + b`.
#[inline(always)]
fn times<S: Vectors>(simd: S, factor: f32, a: S::f32s, b: S::f32s) -> S::f32s {
    simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b)
}

/// `Bᵀ d`.
#[inline(always)]
fn inputs<S: Vectors>(simd: S, d: [S::f32s; SIDE]) -> [S::f32s; SIDE] {
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

/// `Aᵀ m`.
#[inline(always)]
fn outputs<S: Vectors>(simd: S, m: [S::f32s; SIDE]) -> [S::f32s; STEP] {
    let (sum1, difference1) = (simd.add_f32s(m[1], m[2]), simd.sub_f32s(m[1], m[2]));
    let (sum2, difference2) = (simd.add_f32s(m[3], m[4]), simd.sub_f32s(m[3], m[4]));
    [
        simd.add_f32s(m[0], simd.add_f32s(sum1, sum2)),
        times(simd, 2., difference2, difference1),
        times(simd, 4., sum2, sum1),
        simd.add_f32s(m[5], times(simd, 8., difference2, difference1)),
    ]
}

/// `A y`.
#[inline(always)]
fn gradients<S: Vectors>(simd: S, y: [S::f32s; STEP]) -> [S::f32s; SIDE] {
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
