//! Decoding and resizing against Pillow; `golden/make_golden.py` made the expected values.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::path::{Path, PathBuf};

use cxr_dataset::{
    DatasetError, GrayImage, decode_gray, decode_gray_bytes, decode_radiograph, resize_bicubic,
};
use sha2::{Digest, Sha256};

mod common;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file)
}

fn rows(file: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(golden(file)).unwrap();
    reader
        .records()
        .map(|row| row.unwrap().iter().map(str::to_owned).collect())
        .collect()
}

fn digest(image: &GrayImage) -> String {
    Sha256::digest(image.pixels())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The formula of `make_golden.py`.
fn pattern(width: usize, height: usize) -> GrayImage {
    let mut pixels = Vec::with_capacity(width * height);
    for y in 0..height {
        for x in 0..width {
            pixels.push(((x * x * 7 + x * y * 13 + y * y * 3 + (x ^ y) * 5) % 256) as u8);
        }
    }
    GrayImage::new(width, height, pixels).unwrap()
}

#[test]
fn every_kind_of_file_gives_pillows_grey() {
    for row in rows("decode.csv") {
        let image = decode_gray(golden("decode").join(&row[0])).unwrap();
        assert_eq!(
            (image.width().to_string(), image.height().to_string()),
            (row[1].clone(), row[2].clone())
        );
        let expected: Vec<u8> = row[3]
            .split(' ')
            .map(|pixel| pixel.parse().unwrap())
            .collect();
        // JPEG decoders may differ by one where they round the inverse cosine transform.
        let tolerance = if row[0].ends_with(".jpg") { 1 } else { 0 };
        for (position, (&ours, &theirs)) in image.pixels().iter().zip(&expected).enumerate() {
            assert!(
                ours.abs_diff(theirs) <= tolerance,
                "{} pixel {position}: {ours}, Pillow {theirs}",
                row[0]
            );
        }
    }
}

#[test]
fn resizing_gives_pillows_bytes() {
    for row in rows("resize.csv") {
        let sizes: Vec<usize> = row[..4].iter().map(|size| size.parse().unwrap()).collect();
        let resized = resize_bicubic(&pattern(sizes[0], sizes[1]), sizes[2], sizes[3]).unwrap();
        assert_eq!((resized.width(), resized.height()), (sizes[2], sizes[3]));
        assert_eq!(
            digest(&resized),
            row[4],
            "{}×{} to {}×{}",
            sizes[0],
            sizes[1],
            sizes[2],
            sizes[3]
        );
    }
}

#[test]
fn real_radiographs_are_prepared_as_by_pillow() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let expected = rows("nih_1024.csv");
    assert_eq!(expected.len(), 96);
    for row in expected {
        let image = decode_gray(data.join("nih-sample-1024/images").join(&row[0])).unwrap();
        assert_eq!((image.width(), image.height()), (1024, 1024));
        assert_eq!(
            digest(&resize_bicubic(&image, 256, 256).unwrap()),
            row[1],
            "{}",
            row[0]
        );
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error_that_names_it() {
    for file in ["gray.png", "rgba_colour.png", "gray16.png", "gray.jpg"] {
        let bytes = std::fs::read(golden("decode").join(file)).unwrap();
        for length in 0..bytes.len() {
            match decode_gray_bytes(&bytes[..length], "folder/cut.png") {
                Ok(_) => panic!(
                    "{file} cut to {length} of {} bytes was accepted",
                    bytes.len()
                ),
                Err(error) => assert!(error.to_string().contains("folder/cut.png"), "{error}"),
            }
        }
    }
}

#[test]
fn a_small_file_that_declares_a_huge_image_is_refused_before_decoding() {
    let mut bytes = std::fs::read(golden("decode/gray.png")).unwrap();
    bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = decode_gray_bytes(&bytes, "bomb.png").unwrap_err();
    assert!(
        matches!(
            error,
            DatasetError::ImageTooLarge {
                width: 65536,
                height: 65536,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_colour_photograph_is_no_radiograph() {
    let read = |file: &str| decode_radiograph(golden("decode").join(file));
    for gray in ["gray.png", "rgba_equal.png", "gray.jpg", "rgb16.png"] {
        assert!(read(gray).is_ok(), "{gray}");
    }
    for colour in ["rgb.png", "rgba_colour.png"] {
        let error = read(colour).unwrap_err();
        assert!(
            matches!(error, DatasetError::NotARadiograph { .. }),
            "{error}"
        );
    }
}

#[test]
fn other_files_are_named_for_what_they_begin_with() {
    let message = |bytes: &[u8]| decode_gray_bytes(bytes, "x").unwrap_err().to_string();
    assert!(message(b"").contains("an empty file"));
    assert!(message(b"GIF89a..").contains("0x474946383961"));
}

#[test]
fn impossible_sizes_are_refused() {
    let image = pattern(4, 4);
    assert!(resize_bicubic(&image, 0, 4).is_err());
    assert!(resize_bicubic(&image, 4, 1 << 20).is_err());
    assert!(GrayImage::new(4, 0, vec![]).is_err());
    assert!(GrayImage::new(usize::MAX, 2, vec![0; 4]).is_err());
}

#[test]
fn files_are_said_to_be_what_they_are() {
    for (file, format, mode) in [
        ("bilevel.png", "PNG", "grey 1-bit"),
        ("gray.jpg", "JPEG", "grey 8-bit"),
        ("gray.png", "PNG", "grey 8-bit"),
        ("gray16.png", "PNG", "grey 16-bit"),
        ("gray_alpha.png", "PNG", "grey with alpha 8-bit"),
        ("rgba_equal.png", "PNG", "RGBA 8-bit"),
    ] {
        let path = golden("decode").join(file);
        match cxr_dataset::inspect_image(&path) {
            Ok(facts) => {
                assert_eq!(
                    (facts.format, facts.mode.as_str()),
                    (format, mode),
                    "{file}"
                );
                let image = decode_gray(&path).unwrap();
                assert_eq!((facts.width, facts.height), (image.width(), image.height()));
            }
            Err(error) => panic!("{file}: {error}"),
        }
    }
    let error = cxr_dataset::inspect_image(golden("decode/rgba_colour.png")).unwrap_err();
    assert!(error.to_string().contains("a colour image"), "{error}");
}
