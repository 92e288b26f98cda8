//! Images resampled and normalised.

use candle_core::Result;

use crate::gpu::calls;
use crate::gpu::emulator::Emulator;

/// The warp by its definition, in double precision, one channel: bilinear in an image mirrored at its edges.
fn warped(
    pixels: &[u8],
    side: usize,
    map: &[f64; 6],
    size: usize,
    [factor, summand]: [f32; 2],
) -> Vec<f32> {
    let mirrored = |position: f64| {
        let period = position.rem_euclid(2. * side as f64);
        let pixel = if period < side as f64 {
            period
        } else {
            2. * side as f64 - 1. - period
        };
        pixel as usize
    };
    let at = |x: f64, y: f64| f64::from(pixels[mirrored(y) * side + mirrored(x)]);
    let mut out = Vec::new();
    for (row, column) in (0..size).flat_map(|row| (0..size).map(move |column| (row, column))) {
        let (row, column) = (row as f64, column as f64);
        let (x, y) = (
            map[0] * column + map[1] * row + map[2],
            map[3] * column + map[4] * row + map[5],
        );
        let (left, above) = (x.floor(), y.floor());
        let (right, below) = (x - left, y - above);
        let line = |x: f64| at(x, above) * (1. - below) + at(x, above + 1.) * below;
        let grey = line(left) * (1. - right) + line(left + 1.) * right;
        out.push((grey * f64::from(factor) + f64::from(summand)) as f32);
    }
    out
}

#[test]
fn images_are_resampled_beyond_their_borders_too() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let (side, size) = (24, 19);
    let pixels: Vec<u8> = (0..3 * side * side)
        .map(|at| (at * at / 3 % 256) as u8)
        .collect();
    let words = pixels.as_chunks::<4>().0.iter();
    let images: Vec<f32> = words
        .map(|&four| f32::from_bits(u32::from_le_bytes(four)))
        .collect();
    let (sin, cos) = 0.4f64.sin_cos();
    let maps = [
        [1., 0., 2., 0., 1., 3.],
        [-1., 0., 23., 0., 1., 0.],
        [cos, -sin, -7.3, sin, cos, 11.9],
    ];
    let lines = [[0.017, -2.1], [0.0175, -2.], [1., 0.]];
    let warp = calls::Warp {
        side,
        size,
        maps: &maps,
        lines,
    };
    let found = calls::warp(&machine, (&images).into(), &warp)?;
    let expected: Vec<f32> = (maps.iter().zip(pixels.chunks_exact(side * side)))
        .flat_map(|(map, pixels)| lines.map(|line| warped(pixels, side, map, size, line)))
        .flatten()
        .collect();
    // Positions are rounded to a 65536th of a pixel, which is worth at most 255 greys.
    let both = found.iter().zip(&expected);
    let worst = both.map(|(a, b)| (a - b).abs()).fold(0., f32::max);
    assert!(worst <= 2. * 255. / 65536., "{worst}");
    // Whole pixels come out exactly.
    let (first, _) = found.split_at(size * size);
    let red = |at: usize| f32::from(pixels[(at / size + 3) * side + at % size + 2]) * 0.017 - 2.1;
    assert!((0..size * size).all(|at| first[at] == red(at)));
    Ok(())
}
