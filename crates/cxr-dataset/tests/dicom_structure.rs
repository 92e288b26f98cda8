//! How DICOM files are put together: what the standard allows and what programs leave behind is read.

#![cfg(feature = "dicom")]

use cxr_dataset::{ImageFormat, ImageWarning, inspect_image_bytes};

mod common;

use common::dicom::*;

const TABLES: (u16, u16) = (0x28, 0x3010);

/// pydicom#1312 and dicom-rs#169: a gateway that does not know an attribute writes it as UN, its sequence without
/// representations (CP-246).
#[test]
fn unknown_sequences_are_walked_over_or_read() {
    let inner = || {
        DataSet::default()
            .text((0x9, 0x1001), "LO", "inner")
            .text(WINDOW_CENTER, "DS", "7")
    };
    for declared in [true, false] {
        let nested = DataSet::default().with(
            (0x9, 0x1002),
            "UN",
            Value::Items(vec![inner(), inner()], declared),
        );
        let private = windowed().text((0x9, 0x10), "LO", "A CREATOR").with(
            (0x9, 0x1003),
            "UN",
            Value::Items(vec![nested.clone(), inner()], declared),
        );
        for form in FORMS {
            is_shown_as("window", "a private sequence", &file(&private, form));
        }
        let before = windowed().with((0x8, 0x2112), "SQ", Value::Items(vec![nested], declared));
        is_shown_as("window", "in a known one", &file(&before, Form::Explicit));
        // A known sequence that came through as unknown is what it was.
        let item = table("US", 4096, 0, 12, words(curve(4096, 12)));
        let table =
            radiograph(12, &pattern(12)).with(TABLES, "UN", Value::Items(vec![item], declared));
        for form in [Form::Explicit, Form::BigEndian] {
            is_shown_as(
                "table",
                "a table of an unknown representation",
                &file(&table, form),
            );
        }
    }
    let icon = DataSet::default().with(
        PIXEL_DATA,
        "OB",
        Value::Undefined(
            b"\xfe\xff\0\xe0\0\0\0\0\xfe\xff\0\xe0\x04\0\0\0icon\xfe\xff\xdd\xe0\0\0\0\0".to_vec(),
        ),
    );
    let preview = windowed().with((0x88, 0x200), "SQ", Value::Items(vec![icon], false));
    is_shown_as(
        "window",
        "compressed pixels of an icon",
        &file(&preview, Form::Explicit),
    );
    // Nothing of other programs' attributes matters, whatever characters they are in.
    let foreign = windowed()
        .text((0x8, 5), "CS", "\\ISO 2022 IR 87")
        .with(
            (0x10, 0x10),
            "PN",
            Value::Bytes(b"\x1b$B;3ED\xff\xfe".to_vec()),
        )
        .with((0x29, 0x1010), "OB", Value::Bytes(vec![0xff; 333]));
    is_shown_as("window", "private bytes", &file(&foreign, Form::Explicit));
}

/// vtk-dicom#201 and pydicom#796: PS3.5 section 8.1.1 and what programs leave behind.
#[test]
fn bytes_behind_the_pixels_cost_no_image() {
    let sound = file(&windowed(), Form::Explicit);
    for n_zeros in [1, 2, 7, 64, 5000] {
        let bytes = [sound.as_slice(), &vec![0; n_zeros]].concat();
        is_shown_as("window", "zeros", &bytes);
        assert!(
            inspect_image_bytes(&bytes, "x")
                .unwrap()
                .warnings
                .is_empty()
        );
    }
    let padding = windowed().with((0xfffc, 0xfffc), "OB", Value::Bytes(vec![0; 100]));
    for form in FORMS {
        let bytes = file(&padding, form);
        is_shown_as("window", "data set trailing padding", &bytes);
        is_shown_as("window", "and zeros", &[bytes.as_slice(), &[0; 9]].concat());
    }
    let mut pixels = pattern(12);
    pixels.extend([0; 20]);
    let padded = windowed().with(PIXEL_DATA, "OW", Value::Words(pixels.clone()));
    is_shown_as(
        "window",
        "padding in the pixels",
        &file(&padded, Form::Explicit),
    );
    // As much as a second frame is no padding.
    pixels.extend([0; 15]);
    let double = windowed().with(PIXEL_DATA, "OW", Value::Words(pixels));
    assert!(refusal(&file(&double, Form::Explicit)).contains("expected 35 pixels"));
    let short = windowed().with(PIXEL_DATA, "OW", Value::Words(vec![0; 34]));
    assert!(refusal(&file(&short, Form::Explicit)).contains("got 68 bytes"));
    // Other bytes are told.
    let bytes = [sound.as_slice(), b"\xfe\xff\xdd\xe0 and more"].concat();
    is_shown_as("window", "other bytes", &bytes);
    assert_eq!(
        inspect_image_bytes(&bytes, "x").unwrap().warnings,
        [ImageWarning::TrailingBytes { n_bytes: 13 }]
    );
}

/// vtk-dicom#158, pydicom#109, #150 and #2231.
#[test]
fn files_are_read_without_preamble_and_whatever_their_meta_group_says() {
    let explicit = "1.2.840.10008.1.2.1";
    let data_set = windowed().bytes(Form::Explicit);
    let prefix = [&[0; 128], &b"DICM"[..]].concat();
    for length in [MetaLength::Right, MetaLength::Wrong, MetaLength::Missing] {
        let meta = meta_group(explicit, length);
        is_shown_as(
            "window",
            "a meta group",
            &[&prefix[..], &meta, &data_set].concat(),
        );
        let bare = [&meta[..], &data_set].concat();
        assert_eq!(ImageFormat::sniff(&bare), Some(ImageFormat::Dicom));
        is_shown_as("window", "a meta group without preamble", &bare);
    }
    for form in FORMS {
        let bare = windowed().bytes(form);
        assert_eq!(ImageFormat::sniff(&bare), Some(ImageFormat::Dicom));
        is_shown_as("window", "a data set alone", &bare);
        is_shown_as(
            "window",
            "a preamble without meta group",
            &[&prefix[..], &bare].concat(),
        );
    }
    // Declared with representations and written without, and the other way round.
    let meta = meta_group(explicit, MetaLength::Right);
    let implicit = windowed().bytes(Form::Implicit);
    is_shown_as(
        "window",
        "implicit, not explicit",
        &[&prefix[..], &meta, &implicit].concat(),
    );
    let meta = meta_group("1.2.840.10008.1.2", MetaLength::Right);
    is_shown_as(
        "window",
        "explicit, not implicit",
        &[&prefix[..], &meta, &data_set].concat(),
    );
    // A TIFF header in the preamble is for other programs.
    let mut dual = file(&windowed(), Form::Explicit);
    dual[..4].copy_from_slice(b"II*\0");
    is_shown_as("window", "a preamble in use", &dual);
    assert!(refusal(&prefix).contains("ends behind its preamble"));
    assert!(refusal(&[&prefix[..], b"anything else"].concat()).contains("transfer syntax"));
}
