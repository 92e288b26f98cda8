//! Attributes of DICOM files that people report trouble with: shown as pydicom shows them
//! (`golden/make_dicom_cases.py`), or refused with the attribute's name.

#![cfg(feature = "dicom")]

use cxr_dataset::{ImageWarning, Tone, decode_radiograph_in};

mod common;

use common::dicom::*;

const TABLES: (u16, u16) = (0x28, 0x3010);
const MODALITY_TABLES: (u16, u16) = (0x28, 0x3000);
const SLOPE: (u16, u16) = (0x28, 0x1053);
const INTERCEPT: (u16, u16) = (0x28, 0x1052);
const FUNCTION: (u16, u16) = (0x28, 0x1056);
const PADDING: (u16, u16) = (0x28, 0x120);
const PADDING_LIMIT: (u16, u16) = (0x28, 0x121);

/// fo-dicom#1062, dcm4che#1521 and others: tables of every size and sign.
#[test]
fn voi_tables_are_shown_as_pydicom_shows_them() {
    let plain = || table("US", 4096, 0, 12, words(curve(4096, 12)));
    let twelve = || radiograph(12, &pattern(12));
    let high: Vec<u16> = pattern(13)
        .into_iter()
        .map(|value| value + 40_000)
        .collect();
    let second = table("US", 4096, 0, 12, words(vec![0; 4096]));
    let cases = [
        ("table", twelve().with(TABLES, "SQ", sequence(plain()))),
        (
            "mono1 table",
            twelve()
                .text(PHOTOMETRIC, "CS", "MONOCHROME1")
                .with(TABLES, "SQ", sequence(plain())),
        ),
        (
            // 65,536 does not fit the number of entries, which is 0 then.
            "table of 65536",
            radiograph(16, &pattern(16)).with(
                TABLES,
                "SQ",
                sequence(table("US", 0, 0, 16, words(curve(65_536, 16)))),
            ),
        ),
        (
            "table of 10 bits",
            twelve().with(
                TABLES,
                "SQ",
                sequence(table("US", 4096, 0, 10, words(curve(4096, 10)))),
            ),
        ),
        (
            "table from 40000",
            radiograph(16, &high).with(
                TABLES,
                "SQ",
                sequence(table("US", 8192, 40_000, 16, words(curve(8192, 16)))),
            ),
        ),
        (
            "table from -2048",
            signed(12).with(
                TABLES,
                "SQ",
                sequence(table("SS", 4096, 63_488, 12, words(curve(4096, 12)))),
            ),
        ),
        (
            // Signed by its bits, though not by its representation.
            "table from -2048",
            signed(12).with(
                TABLES,
                "SQ",
                sequence(table("US", 4096, 63_488, 12, words(curve(4096, 12)))),
            ),
        ),
        (
            "part of a table",
            twelve().with(
                TABLES,
                "SQ",
                sequence(table("US", 1000, 1500, 12, words(curve(1000, 12)))),
            ),
        ),
        (
            "rescaled table",
            twelve()
                .text(INTERCEPT, "DS", "-1000")
                .text(SLOPE, "DS", "1")
                .with(
                    TABLES,
                    "SQ",
                    sequence(table("SS", 4096, 64_536, 12, words(curve(4096, 12)))),
                ),
        ),
        (
            "table and window",
            windowed().with(TABLES, "SQ", sequence(plain())),
        ),
        (
            "table",
            twelve().with(
                TABLES,
                "SQ",
                Value::Items(vec![plain(), second.clone()], true),
            ),
        ),
        (
            "table",
            twelve().with(TABLES, "SQ", Value::Items(vec![plain(), second], false)),
        ),
        (
            "table",
            twelve().with(
                TABLES,
                "SQ",
                sequence(table(
                    "US",
                    4096,
                    0,
                    12,
                    ("US", Value::Words(curve(4096, 12))),
                )),
            ),
        ),
        // Empty, which is as good as absent.
        (
            "window",
            windowed().with(TABLES, "SQ", Value::Items(Vec::new(), true)),
        ),
        (
            "modality table",
            radiograph(8, &pattern(8)).with(
                MODALITY_TABLES,
                "SQ",
                sequence(table("US", 256, 0, 16, words(curve(256, 16)))),
            ),
        ),
        (
            "modality table and window",
            radiograph(8, &pattern(8))
                .with(
                    MODALITY_TABLES,
                    "SQ",
                    sequence(table("US", 256, 0, 16, words(curve(256, 16)))),
                )
                .text(WINDOW_CENTER, "DS", "20000")
                .text(WINDOW_WIDTH, "DS", "30000"),
        ),
    ];
    for (case, data_set) in cases {
        for form in FORMS {
            is_shown_as(case, "a table", &file(&data_set, form));
        }
    }
}

/// cornerstone3D#2856: entries of 8 bits, two in a word.
#[test]
fn entries_that_are_packed_in_words_are_unpacked() {
    let entries = curve(256, 8);
    let bytes: Vec<u8> = entries.iter().map(|&entry| entry as u8).collect();
    let packed: Vec<u16> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&pair| u16::from_le_bytes(pair))
        .collect();
    for (vr, data) in [
        ("OW", Value::Words(entries)),
        ("OW", Value::Words(packed.clone())),
        ("US", Value::Words(packed)),
        ("OB", Value::Bytes(bytes)),
    ] {
        let item = table("US", 256, 0, 8, (vr, data));
        let data_set = radiograph(8, &pattern(8)).with(TABLES, "SQ", sequence(item));
        for form in FORMS {
            is_shown_as("8-bit table", vr, &file(&data_set, form));
        }
    }
}

#[test]
fn windows_and_rescales_are_shown_as_pydicom_shows_them() {
    let two =
        windowed()
            .text(WINDOW_CENTER, "DS", "2000\\100")
            .text(WINDOW_WIDTH, "DS", "3000\\10");
    let rescaled = windowed()
        .text(SLOPE, "DS", "0.5")
        .text(INTERCEPT, "DS", "1000");
    let groups = DataSet::default()
        .with(
            (0x28, 0x9132),
            "SQ",
            sequence(DataSet::default().text(WINDOW_CENTER, "DS", "2000").text(
                WINDOW_WIDTH,
                "DS",
                "3000",
            )),
        )
        .with(
            (0x28, 0x9145),
            "SQ",
            sequence(
                DataSet::default()
                    .text(SLOPE, "DS", "0.5")
                    .text(INTERCEPT, "DS", "1000"),
            ),
        );
    let grouped = radiograph(12, &pattern(12)).with((0x5200, 0x9229), "SQ", sequence(groups));
    for (case, data_set) in [
        ("no window", radiograph(12, &pattern(12))),
        ("window", windowed()),
        (
            "mono1 window",
            windowed().text(PHOTOMETRIC, "CS", "MONOCHROME1"),
        ),
        ("two windows", two),
        (
            "exact window",
            windowed().text(FUNCTION, "CS", "LINEAR_EXACT"),
        ),
        ("sigmoid", windowed().text(FUNCTION, "CS", "SIGMOID")),
        ("sigmoid", windowed().text(FUNCTION, "CS", "Sigmoid ")),
        ("rescaled window", rescaled),
        ("rescaled window", grouped),
        ("10 bits signed", signed(10)),
        ("14 bits signed", signed(14)),
        ("16 bits signed", signed(16)),
        // Empty is as good as absent.
        (
            "no window",
            windowed()
                .text(WINDOW_CENTER, "DS", "")
                .text(WINDOW_WIDTH, "DS", ""),
        ),
        (
            "window",
            windowed()
                .text(SLOPE, "DS", "")
                .text(FUNCTION, "CS", "")
                .text((0x28, 8), "IS", "1 "),
        ),
    ] {
        for form in FORMS {
            is_shown_as(case, "a window", &file(&data_set, form));
        }
    }
}

/// fo-dicom#1296 and others. PS3.5 section 6.2 has decimal strings of 16 characters with a point.
#[test]
fn number_strings_are_read_to_the_last_character_or_refused() {
    for center in [
        "2000",
        " 2000 ",
        "2000\0",
        "+2000",
        "2.0E3",
        "2.0e+03",
        "2000.",
        "2000.0000000000000000001",
        "2000\\",
        "2000\\ ",
        "02000",
    ] {
        let data_set = windowed().text(WINDOW_CENTER, "DS", center);
        is_shown_as("window", center, &file(&data_set, Form::Explicit));
    }
    let binary = windowed().with(
        WINDOW_CENTER,
        "FD",
        Value::Bytes(2000_f64.to_le_bytes().to_vec()),
    );
    is_shown_as("window", "binary", &file(&binary, Form::Explicit));
    let odd = windowed().with(WINDOW_CENTER, "UN", Value::Bytes(b"2000".to_vec()));
    is_shown_as("window", "unknown", &file(&odd, Form::Explicit));
    for center in [
        "2000,0", "2 000", "2000 HU", "0x7d0", "nan", "inf", "1e999", "\\2000", "-", "200O",
    ] {
        let message = refusal(&file(
            &windowed().text(WINDOW_CENTER, "DS", center),
            Form::Explicit,
        ));
        assert!(message.contains("WindowCenter (0028,1050)"), "{message}");
        assert!(
            message.contains(&center.escape_debug().to_string()),
            "{message}"
        );
    }
}

/// Every optional attribute: there and not understood is an error that names it and its value, never another image.
#[test]
fn what_is_there_and_not_understood_is_refused_by_name() {
    let item = |vr, n_entries, first, bits, entries: Vec<u16>| {
        sequence(table(vr, n_entries, first, bits, words(entries)))
    };
    let twelve = || radiograph(12, &pattern(12));
    let cases = [
        (
            "WindowWidth (0028,1051)",
            "`-3000`",
            windowed().text(WINDOW_WIDTH, "DS", "-3000"),
        ),
        (
            "WindowWidth (0028,1051)",
            "`0`",
            windowed().text(WINDOW_WIDTH, "DS", "0"),
        ),
        (
            "WindowWidth (0028,1051)",
            "`0`",
            windowed()
                .text(WINDOW_WIDTH, "DS", "0")
                .text(FUNCTION, "CS", "SIGMOID"),
        ),
        (
            "WindowCenter (0028,1050)",
            "`2000`",
            windowed().without(WINDOW_WIDTH),
        ),
        (
            "WindowWidth (0028,1051)",
            "`3000`",
            windowed().without(WINDOW_CENTER),
        ),
        (
            "VOILUTFunction (0028,1056)",
            "`CUBIC`",
            windowed().text(FUNCTION, "CS", "CUBIC"),
        ),
        (
            "RescaleSlope (0028,1053)",
            "`0`",
            windowed().text(SLOPE, "DS", "0"),
        ),
        (
            "RescaleSlope (0028,1053)",
            "`1,5`",
            windowed().text(SLOPE, "DS", "1,5"),
        ),
        (
            "RescaleSlope (0028,1053)",
            "`1\\\\2`",
            windowed().text(SLOPE, "DS", "1\\2"),
        ),
        (
            "RescaleIntercept (0028,1052)",
            "`none`",
            windowed().text(INTERCEPT, "DS", "none"),
        ),
        (
            "PresentationLUTShape (2050,0020)",
            "`INVERSE`",
            windowed().text((0x2050, 0x20), "CS", "INVERSE"),
        ),
        (
            "PixelPaddingValue (0028,0120)",
            "`x`",
            windowed().text(PADDING, "IS", "x"),
        ),
        (
            "PixelPaddingRangeLimit (0028,0121)",
            "`7`",
            windowed().number(PADDING_LIMIT, 7),
        ),
        (
            "LUTDescriptor (0028,3002)",
            "entries of 1 to 16 bits",
            twelve().with(TABLES, "SQ", item("US", 2, 0, 17, vec![0, 1])),
        ),
        (
            "LUTDescriptor (0028,3002)",
            "entries of 1 to 16 bits",
            twelve().with(TABLES, "SQ", item("US", 2, 0, 0, vec![0, 1])),
        ),
        (
            "LUTData (0028,3006)",
            "256 entries",
            twelve().with(TABLES, "SQ", item("US", 256, 0, 12, vec![0; 128])),
        ),
        (
            "LUTData (0028,3006)",
            "not 300",
            twelve().with(TABLES, "SQ", item("US", 2, 0, 8, vec![0, 300])),
        ),
        (
            "LUTData (0028,3006)",
            "missing",
            twelve().with(
                TABLES,
                "SQ",
                sequence(DataSet::default().with(
                    (0x28, 0x3002),
                    "US",
                    Value::Words(vec![2, 0, 8]),
                )),
            ),
        ),
        (
            "LUTDescriptor (0028,3002)",
            "missing",
            twelve().with(TABLES, "SQ", sequence(DataSet::default())),
        ),
        (
            "NumberOfFrames (0028,0008)",
            "`one`",
            windowed().text((0x28, 8), "IS", "one"),
        ),
        (
            "BitsAllocated (0028,0100)",
            "`32`",
            windowed().number((0x28, 0x100), 32),
        ),
        (
            "BitsStored (0028,0101)",
            "`17`",
            windowed().number((0x28, 0x101), 17),
        ),
        (
            "HighBit (0028,0102)",
            "`16`",
            windowed().number((0x28, 0x102), 16),
        ),
        (
            "PixelRepresentation (0028,0103)",
            "`2`",
            windowed().number((0x28, 0x103), 2),
        ),
        (
            "PhotometricInterpretation (0028,0004)",
            "missing",
            windowed().without(PHOTOMETRIC),
        ),
    ];
    for (attribute, value, data_set) in cases {
        let message = refusal(&file(&data_set, Form::Explicit));
        assert!(message.contains(attribute), "{message}");
        assert!(message.contains(value), "{value}: {message}");
    }
}

#[test]
fn values_lie_below_the_high_bit_and_overlays_above_it() {
    let shifted: Vec<u16> = pattern(12).into_iter().map(|value| value << 4).collect();
    let high = windowed()
        .number((0x28, 0x102), 15)
        .with(PIXEL_DATA, "OW", Value::Words(shifted));
    is_shown_as(
        "window",
        "values in the high bits",
        &file(&high, Form::Explicit),
    );
    let drawn: Vec<u16> = (pattern(12).into_iter().zip(0..))
        .map(|(value, at)| value | (at % 16) << 12)
        .collect();
    let overlay = windowed().with(PIXEL_DATA, "OW", Value::Words(drawn));
    is_shown_as(
        "window",
        "an overlay in the unused bits",
        &file(&overlay, Form::Explicit),
    );
    let drawn: Vec<u16> = signed_pattern(10)
        .into_iter()
        .map(|value| value | 0x5400)
        .collect();
    let overlay = signed(10).with(PIXEL_DATA, "OW", Value::Words(drawn));
    is_shown_as(
        "10 bits signed",
        "an overlay beside a sign",
        &file(&overlay, Form::Explicit),
    );
    let odd = windowed().without((0x28, 0x102));
    is_shown_as("window", "no high bit", &file(&odd, Form::Explicit));
    let unknown = windowed().with(PIXEL_DATA, "UN", Value::Words(pattern(12)));
    is_shown_as(
        "window",
        "pixels of an unknown representation",
        &file(&unknown, Form::Explicit),
    );
}

/// imageio#1049, cornerstone#429 and dicom-rs#825: 12 bits in 16 come out nearly black.
#[test]
fn values_that_use_a_part_of_their_range_are_told_and_can_be_stretched() {
    let narrow = radiograph(16, &pattern(12));
    let told = warnings(&narrow);
    assert!(
        matches!(told.as_slice(), [ImageWarning::NarrowRange { darkest: 0, brightest }] if *brightest <= 16),
        "{told:?}"
    );
    // A bright mark of the side, or padding, hides it from a look at the highest value alone.
    let bytes = file(&narrow, Form::Explicit);
    let read = decode_radiograph_in(&bytes, "x", Tone::Stretched).unwrap();
    let (image, told) = (read.image, read.warnings);
    assert!(told.is_empty(), "{told:?}");
    let values = pattern(12);
    let (lowest, highest) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
    for (&pixel, &value) in image.pixels().iter().zip(&values) {
        let expected = 255.0 * f64::from(value - lowest) / f64::from(highest - lowest);
        assert!(
            (f64::from(pixel) - expected).abs() <= 0.5,
            "{pixel}, {expected}"
        );
    }
    // Padding is no value in use, in a range too, and black stays black in the other polarity.
    let mut padded = pattern(12);
    padded[3] = 65_535;
    padded[4] = 65_000;
    let padded = radiograph(16, &padded)
        .number(PADDING, 65_535)
        .number(PADDING_LIMIT, 65_000)
        .text(PHOTOMETRIC, "CS", "MONOCHROME1");
    let bytes = file(&padded, Form::Explicit);
    assert_eq!(warnings(&padded).len(), 1);
    let read = decode_radiograph_in(&bytes, "x", Tone::Stretched).unwrap();
    let (image, told) = (read.image, read.warnings);
    assert!(told.is_empty(), "{told:?}");
    assert_eq!((image.pixels()[3], image.pixels()[4]), (0, 0));
    for form in [Form::Implicit, Form::BigEndian] {
        let bytes = file(&padded, form);
        let same = decode_radiograph_in(&bytes, "x", Tone::Stretched)
            .unwrap()
            .image;
        assert_eq!(same, image);
    }
    // A negative value for padding, written as signed or as the same bits.
    for vr in ["SS", "US"] {
        let mut values = signed_pattern(12);
        values[3] = 0x800;
        let data_set = signed(12)
            .with(PIXEL_DATA, "OW", Value::Words(values))
            .with(PADDING, vr, Value::Words(vec![0xf800]));
        for form in FORMS {
            let bytes = file(&data_set, form);
            let image = decode_radiograph_in(&bytes, "x", Tone::Stretched)
                .unwrap()
                .image;
            assert_eq!(image.pixels()[3], 0, "{vr}");
            let least = (image.pixels().iter().enumerate()).filter(|(at, _)| *at != 3);
            assert_eq!(least.map(|(_, pixel)| *pixel).min(), Some(0), "{vr}");
        }
    }
    assert_eq!(image.pixels().iter().max(), Some(&255));
    // What a window shows well is left as it is.
    assert_eq!(warnings(&windowed()), []);
}
