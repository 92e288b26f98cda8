//! Images kept on a device, resampled and normalised.

use candle_core::Result;

use crate::StoredImage;
use crate::gpu::emulator::Emulator;
use crate::gpu::images::Residents;

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

/// The same in the arithmetic of the CPU's warp: positions in 16.16 fixed point, rounded term by term, and greys in single
/// precision, no product and sum in one.
fn warped_bits(
    pixels: &[u8],
    side: usize,
    map: &[f64; 6],
    size: usize,
    [factor, summand]: [f32; 2],
) -> Vec<u32> {
    let fixed = |position: f64| (position * 65536.).round() as i32;
    let at = |x: i32, y: i32| {
        let mirrored = |position: i32| {
            let period = position.rem_euclid(2 * side as i32) as usize;
            period.min(2 * side - 1 - period)
        };
        f32::from(pixels[mirrored(y) * side + mirrored(x)])
    };
    let mut out = Vec::new();
    for (row, column) in (0..size).flat_map(|row| (0..size).map(move |column| (row, column))) {
        let (row, column) = (row as f64, column as f64);
        let x = fixed(map[0] * column) + fixed(map[1] * row + map[2]);
        let y = fixed(map[3] * column) + fixed(map[4] * row + map[5]);
        let (left, above) = (x >> 16, y >> 16);
        let part = |position: i32| (position & 65535) as f32 * (1. / 65536.);
        let (right, below) = (part(x), part(y));
        let line = |x: i32| at(x, above) + below * (at(x, above + 1) - at(x, above));
        let grey = line(left) + right * (line(left + 1) - line(left));
        out.push((grey * factor + summand).to_bits());
    }
    out
}

const LINES: [[f32; 2]; 3] = [[0.017, -2.1], [0.0175, -2.], [1., 0.]];

#[test]
fn images_are_resampled_beyond_their_borders_too() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let (side, size) = (24, 19);
    let pixels: Vec<u8> = (0..3 * side * side)
        .map(|at| (at * at / 3 % 256) as u8)
        .collect();
    let (sin, cos) = 0.4f64.sin_cos();
    let maps = [
        [1., 0., 2., 0., 1., 3.],
        [-1., 0., 23., 0., 1., 0.],
        [cos, -sin, -7.3, sin, cos, 11.9],
    ];
    let images: Vec<StoredImage<'_>> = (0..)
        .zip(pixels.chunks_exact(side * side).zip(maps))
        .map(|(number, (pixels, map))| StoredImage {
            number,
            pixels,
            map,
        })
        .collect();
    let found = Residents::new(side, 3, 3).warp(&machine, &images, LINES, size)?;
    let expected: Vec<f32> = (images.iter())
        .flat_map(|image| LINES.map(|line| warped(image.pixels, side, &image.map, size, line)))
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

/// A compiler that contracts products and sums moves positions by a 65536th of a pixel here and there.
#[test]
fn resampled_images_have_the_bits_of_the_cpus() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let (side, size) = (24, 31);
    let pixels: Vec<u8> = (0..side * side)
        .map(|at| (at * at / 3 % 256) as u8)
        .collect();
    for turn in 0..12 {
        let (sin, cos) = (0.53 * f64::from(turn)).sin_cos();
        // Positions on both sides of 0, some of them half a step of fixed point from one.
        let tie = 1. / 131_072. - f64::from(turn);
        let map = [cos, -sin, tie, sin, cos, 11.9 - 1.7 * f64::from(turn)];
        let image = StoredImage {
            number: 0,
            pixels: &pixels,
            map,
        };
        let found = Residents::new(side, 0, 1).warp(&machine, &[image], LINES, size)?;
        let found: Vec<u32> = found.iter().map(|value| value.to_bits()).collect();
        let expected = LINES.map(|line| warped_bits(&pixels, side, &map, size, line));
        assert_eq!(found, expected.concat(), "{turn}");
    }
    Ok(())
}

#[test]
fn which_images_stay_makes_no_difference() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    // An odd number of bytes: images do not begin at whole values.
    let (side, size) = (5, 4);
    let pixels: Vec<u8> = (0..12 * side * side)
        .map(|at| (at * 37 % 251) as u8)
        .collect();
    let image = |number: usize| StoredImage {
        number,
        pixels: &pixels[number * side * side..][..side * side],
        map: [1., 0.1, 0.3 * number as f64, 0., -1., 3.],
    };
    // Some twice in a batch, some again, more than there is room for, and all of them known.
    let batches: [&[usize]; 5] = [
        &[3, 3, 0],
        &[7, 1, 3, 11],
        &[2, 5, 2, 4, 8, 0],
        &[9, 10, 9],
        &[3, 7, 6],
    ];
    for (most, of_slab) in [(0, 4), (1, 1), (3, 2), (6, 4), (12, 5), (100, 100)] {
        let mut residents = Residents::new(side, most, of_slab);
        for batch in batches {
            let images: Vec<_> = batch.iter().map(|&number| image(number)).collect();
            let found = residents.warp(&machine, &images, LINES, size)?;
            let alone = images
                .iter()
                .map(|&image| Residents::new(side, 0, 1).warp(&machine, &[image], LINES, size));
            let alone: Vec<Vec<f32>> = alone.collect::<Result<_>>()?;
            assert_eq!(found, alone.concat(), "{batch:?}, {most} may stay");
        }
        assert_eq!(residents.len(), most.min(12));
    }
    Ok(())
}

#[test]
fn images_that_cannot_be_warped_are_named() {
    let Some(machine) = Emulator::new() else {
        return;
    };
    let pixels = [0; 16];
    let image = |n_pixels: usize, map| StoredImage {
        number: 0,
        pixels: &pixels[..n_pixels],
        map,
    };
    let whole = [1., 0., 0., 0., 1., 0.];
    let far = [1., 0., 40_000., 0., 1., 0.];
    let endless = [f64::NAN, 0., 0., 0., 1., 0.];
    for (images, size, expected) in [
        (vec![], 4, "expected images"),
        (vec![image(16, whole)], 0, "a size above 0"),
        (
            vec![image(15, whole)],
            4,
            "expected 16 pixels of an image, got 15",
        ),
        (vec![image(16, far)], 4, "leads too far"),
        (vec![image(16, endless)], 4, "leads too far"),
    ] {
        let error = Residents::new(4, 1, 1).warp(&machine, &images, LINES, size);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
