//! The encodings of DICOM files against independent decoders (`golden/make_dicom_codecs.py`), and streams that lie.

#![cfg(feature = "dicom")]

use std::path::{Path, PathBuf};

use cxr_dataset::{DatasetError, decode_gray, decode_gray_bytes};

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file)
}

#[expect(clippy::unwrap_used, reason = "a helper of tests")]
fn read(file: &str) -> Vec<u8> {
    std::fs::read(golden("dicom_codecs").join(file)).unwrap()
}

/// What a file that must be refused is said to be.
fn message(bytes: &[u8]) -> String {
    match decode_gray_bytes(bytes, "crafted.dcm") {
        Ok(_) => panic!("a crafted file was accepted"),
        Err(error) => match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}

/// Replaces the only occurrence of `from`.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at: Vec<usize> = (0..bytes.len() - from.len())
        .filter(|&at| bytes[at..].starts_with(from))
        .collect();
    assert_eq!(at.len(), 1);
    [&bytes[..at[0]], to, &bytes[at[0] + from.len()..]].concat()
}

/// vindr-cxr's and VinBigData's files are JPEG 2000; archives send run lengths, JPEG-LS and deflated files.
#[test]
fn every_encoding_gives_the_pixels_of_its_reference_decoder() {
    let mut reader = csv::Reader::from_path(golden("dicom_codecs.csv")).unwrap();
    let mut n_files = 0;
    for row in reader.records() {
        let row = row.unwrap();
        let image = match decode_gray(golden("dicom_codecs").join(&row[0])) {
            Ok(image) => image,
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        };
        let number = |column: usize| -> usize { row[column].parse().unwrap() };
        assert_eq!((image.width(), image.height()), (number(1), number(2)));
        let tolerance = number(3) as u8;
        let expected: Vec<u8> = row[4]
            .split(' ')
            .map(|gray| gray.parse().unwrap())
            .collect();
        assert_eq!(image.pixels().len(), expected.len());
        for (position, (&ours, &theirs)) in image.pixels().iter().zip(&expected).enumerate() {
            assert!(
                ours.abs_diff(theirs) <= tolerance,
                "{} pixel {position}: {ours}, the reference {theirs}",
                &row[0]
            );
        }
        n_files += 1;
    }
    assert_eq!(n_files, 32);
}

/// Lossy JPEG of 12 bits and high-throughput JPEG 2000 have no decoder in Rust that is kept up; nothing decodes them
/// as something else.
#[test]
fn encodings_that_are_not_read_are_named() {
    let sound = read("jpeg_xl_8.dcm");
    for (uid, name) in [
        ("1.2.840.10008.1.2.4.201\0", "high-throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.103\0", "a video"),
        ("1.2.840.10008.1.2.4.92\0\0", "JPEG 2000 part 2"),
        ("1.2.840.10008.1.2.4.94\0\0", "pixels on a server"),
        ("1.2.840.10008.1.2.4.55\0\0", "a rare form of JPEG"),
        ("1.2.840.113619.5.2\0\0\0\0\0\0", "mixed byte order"),
        ("1.2.840.10008.1.2.9.9\0\0\0", "unknown"),
    ] {
        let bytes = replaced(&sound, b"1.2.840.10008.1.2.4.110\0", uid.as_bytes());
        let error = decode_gray_bytes(&bytes, "other.dcm").unwrap_err();
        assert!(matches!(error, DatasetError::ImageFormat { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_stream_that_is_larger_than_its_file_says_is_refused_before_it_is_decoded() {
    // JPEG-LS: the frame header's height and width.
    let bytes = replaced(
        &read("jpeg_ls_12.dcm"),
        &[0xff, 0xf7, 0, 11, 12, 0, 35, 0, 41],
        &[0xff, 0xf7, 0, 11, 12, 255, 255, 255, 255],
    );
    assert!(message(&bytes).contains("got 65535×65535"));
    // JPEG 2000: the width of the reference grid, and the width of tiles.
    let sound = read("jpeg_2000_12.dcm");
    let size = sound
        .array_windows()
        .position(|two| *two == [0xff, 0x51])
        .unwrap();
    let mut bytes = sound.clone();
    bytes[size + 6..size + 10].copy_from_slice(&[0, 255, 255, 255]);
    assert!(
        message(&bytes).contains("got 16777215×35"),
        "{}",
        message(&bytes)
    );
    let mut bytes = sound.clone();
    bytes[size + 22..size + 30].fill(0);
    assert!(message(&bytes).contains("tiles"), "{}", message(&bytes));
    // Deflated: 64 MiB of zeros and more become a few kilobytes.
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
    for _ in 0..300 {
        std::io::Write::write_all(&mut encoder, &vec![0; 1 << 20]).unwrap();
    }
    let sound = read("deflated_12.dcm");
    // The meta group says how long it is, behind preamble, prefix and that element's own header.
    let meta_len = u32::from_le_bytes(sound[140..144].try_into().unwrap());
    let meta_end = 144 + meta_len as usize;
    let bytes = [&sound[..meta_end], &encoder.finish().unwrap()].concat();
    assert!(
        message(&bytes).contains("grow to more"),
        "{}",
        message(&bytes)
    );
}

#[test]
fn a_stream_that_is_cut_off_is_an_error_and_not_grey() {
    for file in [
        "rle_12.dcm",
        "jpeg_ls_12.dcm",
        "jpeg_2000_12.dcm",
        "jpeg_xl_12.dcm",
        "deflated_frame_12.dcm",
    ] {
        let sound = read(file);
        let delimiter = [0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0];
        // The last fragment's length, and a third of its bytes away.
        let end = sound.len() - delimiter.len();
        assert_eq!(sound[end..], delimiter);
        let item = [0xfe, 0xff, 0x00, 0xe0];
        let begin = sound
            .array_windows()
            .rposition(|window| *window == item)
            .unwrap();
        let length = u32::from_le_bytes(sound[begin + 4..begin + 8].try_into().unwrap());
        assert_eq!(begin + 8 + length as usize, end, "{file}");
        for share in [3, 10] {
            let kept = (length - length / share) & !1;
            let bytes = [
                &sound[..begin + 4],
                &kept.to_le_bytes(),
                &sound[begin + 8..begin + 8 + kept as usize],
                &delimiter,
            ]
            .concat();
            assert!(message(&bytes).contains("truncated or damaged"), "{file}");
        }
    }
}

#[test]
fn damaged_streams_give_an_error_or_pixels() {
    let mut state = 17_u64;
    let mut random = move |bound: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound.max(1)
    };
    let mut n_decoded = 0;
    let mut files: Vec<PathBuf> = std::fs::read_dir(golden("dicom_codecs"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let sound = std::fs::read(file).unwrap();
        for _ in 0..60 {
            let mut bytes = sound.clone();
            for _ in 0..=random(3) {
                let at = sound.len() / 3 + random(bytes.len() * 2 / 3);
                match random(2) {
                    0 => bytes[at] = random(256) as u8,
                    _ => bytes[at] ^= 1 << random(8),
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
