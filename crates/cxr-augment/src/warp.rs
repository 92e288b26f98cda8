//! One affine resampling from bytes to normalised floats.
//!
//! Bilinear, with the image continued beyond its border by reflection that repeats the edge
//! (dcba|abcd|dcba). The part of the plane that the map can reach is laid out first, each pixel
//! followed by the one below it: then the four neighbours of any position are four adjacent bytes,
//! and no position needs a border check. Positions are 16.16 fixed-point sums of one term for the column
//! and one for the row, so nothing accumulates and no pixel depends on another; an unrotated
//! position on the grid gives its pixel exactly.

use crate::image::Line;
use crate::{Affine, AugmentError, GrayImageRef, MAX_SIDE, Normalization};

const FRACTION_BITS: u32 = 16;
const ONE: f64 = (1 << FRACTION_BITS) as f64;

/// Writes the image that `map` shows, `width × height` pixels, as three normalised channels into
/// `output`: 3×`height`×`width`, channel by channel, row by row.
///
/// # Errors
/// [`AugmentError::OutputShape`] for a buffer of another length; [`AugmentError::MapTooFar`] when
/// a corner of the output lies further from the image than the image is long.
pub fn warp(
    image: GrayImageRef<'_>,
    map: &Affine,
    (width, height): (usize, usize),
    normalization: &Normalization,
    output: &mut [f32],
) -> Result<(), AugmentError> {
    warp_lines(image, map, (width, height), normalization.lines(), output)
}

/// [`warp`] with any line from grey to each channel.
pub(crate) fn warp_lines(
    image: GrayImageRef<'_>,
    map: &Affine,
    (width, height): (usize, usize),
    lines: [Line; 3],
    output: &mut [f32],
) -> Result<(), AugmentError> {
    let shape = AugmentError::OutputShape {
        width,
        height,
        found: output.len(),
    };
    let sides = 1..=MAX_SIDE;
    if !(sides.contains(&width) && sides.contains(&height)) || output.len() != 3 * width * height {
        return Err(shape);
    }
    let plane = Plane::around(image, map, (width, height))?;
    let mut row_of = RowOfPositions::new(map, width);
    let (red, rest) = output.split_at_mut(width * height);
    let (green, blue) = rest.split_at_mut(width * height);
    let channels = red
        .chunks_exact_mut(width)
        .zip(green.chunks_exact_mut(width))
        .zip(blue.chunks_exact_mut(width));
    for (row, ((red, green), blue)) in channels.enumerate() {
        let x = map.xy * row as f64 + map.x0;
        let y = map.yy * row as f64 + map.y0;
        warp_row(
            &plane,
            (fixed_from(x, plane.left), fixed_from(y, plane.top)),
            &mut row_of,
            lines,
            [red, green, blue],
        );
    }
    Ok(())
}

/// A position or a part of one, 16 bits behind the point.
fn fixed(position: f64) -> i32 {
    (position * ONE).round() as i32
}

/// The same counted from pixel `first` on. Rounded before `first` is taken off, as on a GPU, which has no plane.
fn fixed_from(position: f64, first: i64) -> i32 {
    ((position * ONE).round() as i64 - (first << FRACTION_BITS)) as i32
}

/// What one output row needs, one value for each column.
struct RowOfPositions {
    /// What the column adds to the position of the row.
    x: Vec<i32>,
    y: Vec<i32>,
    /// Where the four neighbours begin in the plane.
    begins: Vec<u32>,
    /// The four neighbours: upper left, lower left, upper right, lower right.
    quads: Vec<u32>,
    /// How far to the right and below the upper left neighbour, from 0 to 1.
    right: Vec<f32>,
    below: Vec<f32>,
}

impl RowOfPositions {
    fn new(map: &Affine, width: usize) -> Self {
        let column = |step: f64| {
            (0..width)
                .map(|column| fixed(step * column as f64))
                .collect()
        };
        Self {
            x: column(map.xx),
            y: column(map.yx),
            begins: vec![0; width],
            quads: vec![0; width],
            right: vec![0.0; width],
            below: vec![0.0; width],
        }
    }
}

/// The reachable part of the reflected image. Behind each pixel stands the one below it.
struct Plane {
    bytes: Vec<u8>,
    /// Position of the first pixel in the image.
    left: i64,
    top: i64,
    /// Pixels in a row.
    stride: usize,
}

impl Plane {
    fn around(
        image: GrayImageRef<'_>,
        map: &Affine,
        (width, height): (usize, usize),
    ) -> Result<Self, AugmentError> {
        let (last_column, last_row) = ((width - 1) as f64, (height - 1) as f64);
        let corners = [
            (0.0, 0.0),
            (last_column, 0.0),
            (0.0, last_row),
            (last_column, last_row),
        ]
        .map(|(column, row)| map.at(column, row));
        let too_far = AugmentError::MapTooFar {
            width: image.width(),
            height: image.height(),
        };
        let (left, right) = reach(corners.map(|(x, _)| x), image.width()).ok_or(too_far.clone())?;
        let (top, bottom) = reach(corners.map(|(_, y)| y), image.height()).ok_or(too_far)?;

        let stride = (right - left + 1) as usize;
        let n_rows = (bottom - top + 1) as usize;
        let mut reflected = Vec::with_capacity(stride * (n_rows + 1));
        for row in top..=bottom + 1 {
            reflect_row(image, row, (left, right), &mut reflected);
        }
        let below = reflected.get(stride..).unwrap_or(&[]);
        let mut bytes = vec![0; 2 * below.len()];
        let (pairs, _) = bytes.as_chunks_mut::<2>();
        for (pair, (upper, lower)) in pairs.iter_mut().zip(reflected.iter().zip(below)) {
            *pair = [*upper, *lower];
        }
        Ok(Self {
            bytes,
            left,
            top,
            stride,
        })
    }
}

/// Appends the pixels from the first to the last of `columns` in a row of the mirrored image.
fn reflect_row(
    image: GrayImageRef<'_>,
    row: i64,
    (first, last): (i64, i64),
    reflected: &mut Vec<u8>,
) {
    let begin = mirrored(row, image.height()) * image.width();
    let pixels = image
        .pixels()
        .get(begin..begin + image.width())
        .unwrap_or(&[]);
    let width = image.width() as i64;
    let inside = first.clamp(0, width)..(last + 1).clamp(0, width);
    let outside = |x: i64| pixels.get(mirrored(x, image.width())).copied().unwrap_or(0);
    reflected.extend((first..inside.start.min(last + 1)).map(outside));
    let middle = pixels.get(inside.start as usize..inside.end as usize);
    reflected.extend_from_slice(middle.unwrap_or(&[]));
    reflected.extend((inside.end.max(first)..=last).map(outside));
}

/// First and last pixel that positions between `corners` can touch.
fn reach(corners: [f64; 4], n_pixels: usize) -> Option<(i64, i64)> {
    let first = corners.into_iter().fold(f64::INFINITY, f64::min);
    let last = corners.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let limit = n_pixels as f64;
    // Written so that a position that is no number is refused.
    if !(corners.iter().all(|corner| corner.is_finite()) && first >= -limit && last <= 2.0 * limit)
    {
        return None;
    }
    // One more on each side, because fixed-point positions may round across a pixel.
    Some((first.floor() as i64 - 1, last.floor() as i64 + 2))
}

/// The pixel that stands at `position` when the image is mirrored at its edges without end.
fn mirrored(position: i64, n_pixels: usize) -> usize {
    let n_pixels = n_pixels as i64;
    let period = position.rem_euclid(2 * n_pixels);
    (if period < n_pixels {
        period
    } else {
        2 * n_pixels - 1 - period
    }) as usize
}

fn warp_row(
    plane: &Plane,
    begin: (i32, i32),
    row: &mut RowOfPositions,
    lines: [Line; 3],
    channels: [&mut [f32]; 3],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2. Measured on an AMD EPYC, a 224×224 output takes 70 µs
        // instead of 96.
        return unsafe { warp_row_avx2(plane, begin, row, lines, channels) };
    }
    warp_row_portable(plane, begin, row, lines, channels);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn warp_row_avx2(
    plane: &Plane,
    begin: (i32, i32),
    row: &mut RowOfPositions,
    lines: [Line; 3],
    channels: [&mut [f32]; 3],
) {
    warp_row_portable(plane, begin, row, lines, channels);
}

/// Three loops, because the middle one, which looks pixels up, is the only one that vectors cannot
/// run. Multiplication and addition stay separate operations: the same bits on every processor.
#[inline(always)]
fn warp_row_portable(
    plane: &Plane,
    begin: (i32, i32),
    row: &mut RowOfPositions,
    [red_line, green_line, blue_line]: [Line; 3],
    [red, green, blue]: [&mut [f32]; 3],
) {
    const MASK: i32 = (1 << FRACTION_BITS) - 1;
    let stride = plane.stride as i32;
    let places = row
        .begins
        .iter_mut()
        .zip(&mut row.right)
        .zip(&mut row.below);
    for (((first, right), below), (x, y)) in places.zip(row.x.iter().zip(&row.y)) {
        let (x, y) = (begin.0.wrapping_add(*x), begin.1.wrapping_add(*y));
        let pixel = (y >> FRACTION_BITS)
            .wrapping_mul(stride)
            .wrapping_add(x >> FRACTION_BITS);
        *first = pixel as u32;
        *right = (x & MASK) as f32 * (1.0 / ONE as f32);
        *below = (y & MASK) as f32 * (1.0 / ONE as f32);
    }
    for (quad, &first) in row.quads.iter_mut().zip(&row.begins) {
        let begin = 2 * first as usize;
        let four = plane.bytes.get(begin..begin + 4);
        *quad = four
            .and_then(|four| four.try_into().ok())
            .map_or(0, u32::from_le_bytes);
    }
    let byte = |quad: u32, shift: u32| ((quad >> shift) & 255) as i32 as f32;
    let places = row.quads.iter().zip(row.right.iter().zip(&row.below));
    for ((((quad, (right, below)), red), green), blue) in places.zip(red).zip(green).zip(blue) {
        let (upper_left, lower_left) = (byte(*quad, 0), byte(*quad, 8));
        let (upper_right, lower_right) = (byte(*quad, 16), byte(*quad, 24));
        let left_gray = upper_left + below * (lower_left - upper_left);
        let right_gray = upper_right + below * (lower_right - upper_right);
        let gray = left_gray + right * (right_gray - left_gray);
        *red = red_line.at(gray);
        *green = green_line.at(gray);
        *blue = blue_line.at(gray);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type WarpRow = fn(&Plane, (i32, i32), &mut RowOfPositions, [Line; 3], [&mut [f32]; 3]);

    #[test]
    fn vectors_give_the_bits_of_the_portable_loop() {
        let pixels: Vec<u8> = (0..40 * 40_usize)
            .map(|at| (at * at / 3 % 256) as u8)
            .collect();
        let map = Affine::rotation(0.3, 19.5, 19.5);
        let run = |row_warp: WarpRow| {
            let image = GrayImageRef::square(&pixels, 40)?;
            let plane = Plane::around(image, &map, (37, 40))?;
            let mut row_of = RowOfPositions::new(&map, 37);
            let begin = (
                fixed_from(map.x0, plane.left),
                fixed_from(map.y0, plane.top),
            );
            let mut output = vec![0.0; 3 * 37];
            let (red, rest) = output.split_at_mut(37);
            let (green, blue) = rest.split_at_mut(37);
            row_warp(
                &plane,
                begin,
                &mut row_of,
                Normalization::IMAGENET.lines(),
                [red, green, blue],
            );
            Ok::<_, AugmentError>(output)
        };
        assert_eq!(run(warp_row).unwrap(), run(warp_row_portable).unwrap());
    }
}
