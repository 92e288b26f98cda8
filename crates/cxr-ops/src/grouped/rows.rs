//! Passes over rows of pixels of one group. They are written as loops over the 32 lanes, which the compiler
//! turns into whole vectors of the chosen instruction set.

use super::norm::{Affine, Combination, TileSums};
use super::{Group, LANES, ZERO};
use crate::simd::Vectors;

/// `max(y, 0)` that lets NaN pass, as PyTorch's does.
#[inline(always)]
pub(super) fn relu(value: f32) -> f32 {
    if value < 0. { 0. } else { value }
}

/// `out = relu(scale·x + shift)`.
pub(crate) fn normalise_relu<S: Vectors>(simd: S, affine: &Affine, x: &[Group], out: &mut [Group]) {
    simd.within(|| {
        for (out, x) in out.iter_mut().zip(x) {
            for lane in 0..LANES {
                out[lane] = relu(x[lane] * affine.scale[lane] + affine.shift[lane]);
            }
        }
    });
}

/// `x = relu(x + shift)`.
pub(crate) fn shift_relu<S: Vectors>(simd: S, shift: &Group, x: &mut [Group]) {
    simd.within(|| {
        for x in x {
            for lane in 0..LANES {
                x[lane] = relu(x[lane] + shift[lane]);
            }
        }
    });
}

/// `out = of_gradient·g + of_x·x + constant`.
pub(crate) fn combine<S: Vectors>(
    simd: S,
    combination: &Combination,
    g: &[Group],
    x: &[Group],
    out: &mut [Group],
) {
    simd.within(|| {
        let c = combination;
        for (out, (g, x)) in out.iter_mut().zip(g.iter().zip(x)) {
            for lane in 0..LANES {
                out[lane] =
                    c.of_gradient[lane] * g[lane] + (c.of_x[lane] * x[lane] + c.constant[lane]);
            }
        }
    });
}

/// The gradient in front of a ReLU whose output is `activated`: `out = g` where that is positive, else 0.
/// Returns Σ out and Σ out·x.
pub(crate) fn through_relu<S: Vectors>(
    simd: S,
    g: &[Group],
    activated: &[Group],
    x: &[Group],
    out: &mut [Group],
) -> TileSums {
    simd.within(|| {
        let mut sums = TileSums::ZERO;
        for ((out, g), (activated, x)) in out.iter_mut().zip(g).zip(activated.iter().zip(x)) {
            for lane in 0..LANES {
                let value = if activated[lane] > 0. { g[lane] } else { 0. };
                sums.plain[lane] += value;
                sums.products[lane] += value * x[lane];
                out[lane] = value;
            }
        }
        sums
    })
}

/// As [`through_relu`], but adds `scale` times the result to `out`.
pub(crate) fn add_through_relu<S: Vectors>(
    simd: S,
    g: &[Group],
    activated: &[Group],
    x: &[Group],
    scale: &Group,
    out: &mut [Group],
) -> TileSums {
    simd.within(|| {
        let mut sums = TileSums::ZERO;
        for ((out, g), (activated, x)) in out.iter_mut().zip(g).zip(activated.iter().zip(x)) {
            for lane in 0..LANES {
                let value = if activated[lane] > 0. { g[lane] } else { 0. };
                sums.plain[lane] += value;
                sums.products[lane] += value * x[lane];
                out[lane] += scale[lane] * value;
            }
        }
        sums
    })
}

/// The mean over 2×2 pixels of `relu(scale·x + shift)`: one row of `out` from two rows of `x`, the
/// last pixel of which is dropped if their number is odd.
pub(crate) fn normalise_relu_pool<S: Vectors>(
    simd: S,
    affine: &Affine,
    x: [&[Group]; 2],
    out: &mut [Group],
) {
    simd.within(|| {
        let [above, below] = x.map(|row| row.as_chunks::<2>().0);
        for (out, (above, below)) in out.iter_mut().zip(above.iter().zip(below)) {
            for lane in 0..LANES {
                let value = |x: &Group| relu(x[lane] * affine.scale[lane] + affine.shift[lane]);
                out[lane] = 0.25
                    * ((value(&above[0]) + value(&above[1]))
                        + (value(&below[0]) + value(&below[1])));
            }
        }
    });
}

/// One of the two rows of the gradient of [`normalise_relu_pool`]: `out = scale·g'`, where `g'` is a
/// quarter of the pooled gradient where the ReLU let the value through. Returns Σ g' and Σ g'·x. A
/// pixel that pooling dropped gets 0.
pub(crate) fn unpool_through_relu<S: Vectors>(
    simd: S,
    affine: &Affine,
    g: &[Group],
    x: &[Group],
    out: &mut [Group],
) -> TileSums {
    simd.within(|| {
        let mut sums = TileSums::ZERO;
        let (pairs, dropped) = out.as_chunks_mut::<2>();
        dropped.fill(ZERO);
        for (out, (g, x)) in pairs.iter_mut().zip(g.iter().zip(x.as_chunks::<2>().0)) {
            for (out, x) in out.iter_mut().zip(x) {
                for lane in 0..LANES {
                    let is_through = x[lane] * affine.scale[lane] + affine.shift[lane] > 0.;
                    let value = if is_through { 0.25 * g[lane] } else { 0. };
                    sums.plain[lane] += value;
                    sums.products[lane] += value * x[lane];
                    out[lane] = affine.scale[lane] * value;
                }
            }
        }
        sums
    })
}

/// Rows of an image with a border of zeros around, for the strip of a padded 3×3 convolution that begins at
/// `first_row`: line `l` is row `first_row + l − 1` of the image, its first pixel and those behind the image
/// are 0. `write` fills the inside of a line.
pub(crate) fn pad_strip<T: pulp::bytemuck::Zeroable + Copy>(
    first_row: usize,
    height: usize,
    width: usize,
    line: usize,
    padded: &mut [T],
    mut write: impl FnMut(usize, &mut [T]),
) {
    for (index, padded) in padded.chunks_exact_mut(line).enumerate() {
        match (first_row + index).checked_sub(1).filter(|&y| y < height) {
            None => padded.fill(T::zeroed()),
            Some(y) => {
                padded[0] = T::zeroed();
                padded[width + 1..].fill(T::zeroed());
                write(y, &mut padded[1..=width]);
            }
        }
    }
}
