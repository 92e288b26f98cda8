//! DICOM files against pydicom (`golden/make_dicom.py`), and the files that are refused.

#![cfg(feature = "dicom")]

use std::path::{Path, PathBuf};

use cxr_dataset::{DatasetError, decode_gray, decode_gray_bytes, resize_bicubic};

mod common;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file)
}

#[test]
fn files_are_shown_as_pydicom_shows_them_or_refused() {
    let mut reader = csv::Reader::from_path(golden("dicom.csv")).unwrap();
    let (mut n_shown, mut n_refused) = (0, 0);
    for row in reader.records() {
        let row = row.unwrap();
        let decoded = decode_gray(golden("dicom").join(&row[0]));
        if &row[1] == "refused" {
            let error = decoded.unwrap_err();
            assert!(
                matches!(error, DatasetError::NotARadiograph { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(&row[0]), "{error}");
            n_refused += 1;
            continue;
        }
        let image = decoded.unwrap();
        assert_eq!((image.width(), image.height()), (7, 5));
        let expected: Vec<u8> = row[1]
            .split(' ')
            .map(|pixel| pixel.parse().unwrap())
            .collect();
        // JPEG decoders may differ by one where they round the inverse cosine transform.
        let tolerance = u8::from(&row[0] == "jpeg.dcm");
        for (position, (&ours, &theirs)) in image.pixels().iter().zip(&expected).enumerate() {
            assert!(
                ours.abs_diff(theirs) <= tolerance,
                "{} pixel {position}: {ours}, pydicom {theirs}",
                &row[0]
            );
        }
        n_shown += 1;
    }
    assert_eq!((n_shown, n_refused), (13, 5));
}

#[test]
fn a_real_dicom_file_and_its_published_png_are_the_same_image() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let published = decode_gray(data.join("nih-sample-256/images/00000002_000.png")).unwrap();
    for file in ["test1.dcm", "test4.dcm"] {
        let image = decode_gray(data.join("dicom").join(file)).unwrap();
        assert_eq!((image.width(), image.height()), (1024, 1024));
        assert_eq!(
            resize_bicubic(&image, 256, 256).unwrap(),
            published,
            "{file}"
        );
    }
    let error = decode_gray(data.join("dicom/test5.dcm")).unwrap_err();
    assert!(error.to_string().contains("modality `CT`"), "{error}");
}

#[test]
fn a_real_compressed_file_shows_the_jpeg_inside_it() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let path = data.join("dicom/rsna-jpeg-cr.dcm");
    let bytes = std::fs::read(&path).unwrap();
    let begin = bytes
        .array_windows()
        .position(|window| *window == [0xff, 0xd8, 0xff])
        .unwrap();
    let image = decode_gray(&path).unwrap();
    let inside = decode_gray_bytes(&bytes[begin..], "inside").unwrap();
    let pairs = || {
        image
            .pixels()
            .iter()
            .zip(inside.pixels())
            .map(|(a, b)| a.abs_diff(*b))
    };
    // Two decoders: they may round the inverse cosine transform differently.
    assert!(pairs().max().unwrap() <= 2);
    assert!(pairs().map(u64::from).sum::<u64>() * 20 < image.pixels().len() as u64);
}

#[test]
fn damaged_files_give_an_error_or_pixels() {
    let mut state = 9_u64;
    let mut random = move |bound: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound.max(1)
    };
    let mut n_decoded = 0;
    for file in std::fs::read_dir(golden("dicom")).unwrap() {
        let sound = std::fs::read(file.unwrap().path()).unwrap();
        for _ in 0..150 {
            let mut bytes = sound.clone();
            for _ in 0..=random(3) {
                let at = 132 + random(bytes.len() - 132);
                match random(3) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes[at] ^= 1 << random(8),
                    _ => bytes.truncate(at.max(140)),
                }
            }
            if let Ok(image) = decode_gray_bytes(&bytes, "hostile.dcm") {
                n_decoded += 1;
                assert_eq!(image.pixels().len(), image.width() * image.height());
            }
        }
    }
    assert!(n_decoded > 100, "{n_decoded}");
}

/// Replaces the only occurrence of `from`, a value and what stands before it.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|&at| bytes[at..].starts_with(from))
        .collect();
    assert_eq!(at.len(), 1);
    [&bytes[..at[0]], to, &bytes[at[0] + from.len()..]].concat()
}

#[test]
fn lengths_and_depths_are_bounded_before_anything_is_parsed() {
    let message = |bytes: &[u8]| match decode_gray_bytes(bytes, "hostile.dcm") {
        Ok(_) => panic!("a crafted file was accepted"),
        Err(error) => std::error::Error::source(&error).unwrap().to_string(),
    };
    let implicit = std::fs::read(golden("dicom/8bit_implicit.dcm")).unwrap();
    // Modality, (0008,0060), two bytes: now almost four GiB.
    let modality = [0x08, 0, 0x60, 0, 2, 0, 0, 0];
    let endless = replaced(
        &implicit,
        &modality,
        &[0x08, 0, 0x60, 0, 0xf0, 0xff, 0xff, 0xff],
    );
    assert!(
        message(&endless).contains("expected 4294967280 bytes"),
        "{}",
        message(&endless)
    );

    // A referenced study sequence in a sequence, a hundred thousand times.
    let sequence = [0x08, 0, 0x10, 0x11, 0xff, 0xff, 0xff, 0xff];
    let item = [0xfe, 0xff, 0, 0xe0, 0xff, 0xff, 0xff, 0xff];
    let nested = [sequence, item].concat().repeat(100_000);
    let deep = replaced(
        &implicit,
        &modality,
        &[nested.as_slice(), &modality].concat(),
    );
    assert!(
        message(&deep).contains("nested more than 32"),
        "{}",
        message(&deep)
    );

    // The end of a sequence that never began, before the pixels.
    let ends_nothing = replaced(
        &implicit,
        &modality,
        &[[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0], modality].concat(),
    );
    assert!(
        message(&ends_nothing).contains("ends nothing"),
        "{}",
        message(&ends_nothing)
    );

    // A frame header of 65535 × 65535 pixels in a file of 7 × 5.
    let jpeg = std::fs::read(golden("dicom/jpeg.dcm")).unwrap();
    let bomb = replaced(
        &jpeg,
        &[0xff, 0xc0, 0, 11, 8, 0, 5, 0, 7],
        &[0xff, 0xc0, 0, 11, 8, 255, 255, 255, 255],
    );
    assert!(
        message(&bomb).contains("got 65535×65535"),
        "{}",
        message(&bomb)
    );
}
