//! DICOM files of the kinds that people report trouble with, made here, with the pixels that pydicom gives
//! (`golden/make_dicom_cases.py`), or refused with the attribute's name.

#![cfg(feature = "dicom")]
#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::collections::HashMap;
use std::path::Path;

use cxr_dataset::{
    DatasetError, ImageFormat, ImageWarning, Tone, decode_gray_bytes, decode_radiograph_in,
    inspect_image_bytes,
};

mod common;

use common::dicom::*;

const TABLES: (u16, u16) = (0x28, 0x3010);
const MODALITY_TABLES: (u16, u16) = (0x28, 0x3000);
const SLOPE: (u16, u16) = (0x28, 0x1053);
const INTERCEPT: (u16, u16) = (0x28, 0x1052);
const FUNCTION: (u16, u16) = (0x28, 0x1056);
const PADDING: (u16, u16) = (0x28, 0x120);
const PADDING_LIMIT: (u16, u16) = (0x28, 0x121);
const VIEW_POSITION: (u16, u16) = (0x18, 0x5101);
const VIEW_CODES: (u16, u16) = (0x54, 0x220);

/// pydicom's pixels of a case.
fn expected(case: &str) -> Vec<u8> {
    let csv = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/dicom_cases.csv");
    let mut reader = csv::Reader::from_path(csv).unwrap();
    let cases: HashMap<String, String> = (reader.deserialize::<(String, String)>())
        .map(|row| row.unwrap())
        .collect();
    let gray = cases
        .get(case)
        .unwrap_or_else(|| panic!("no case `{case}`"));
    gray.split(' ').map(|gray| gray.parse().unwrap()).collect()
}

fn text_of(error: &DatasetError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn is_shown_as(case: &str, what: &str, bytes: &[u8]) {
    match decode_gray_bytes(bytes, "case.dcm") {
        Ok(image) => assert_eq!(image.pixels(), expected(case), "{what}, expected `{case}`"),
        Err(error) => panic!("{what}: {}", text_of(&error)),
    }
}

fn refusal(bytes: &[u8]) -> String {
    match decode_gray_bytes(bytes, "case.dcm") {
        Ok(_) => panic!("it was read"),
        Err(error) => text_of(&error),
    }
}

fn warnings(data_set: &DataSet) -> Vec<ImageWarning> {
    let bytes = file(data_set, Form::Explicit);
    match inspect_image_bytes(&bytes, "case.dcm") {
        Ok(facts) => facts.warnings,
        Err(error) => panic!("{}", text_of(&error)),
    }
}

const FORMS: [Form; 3] = [Form::Explicit, Form::Implicit, Form::BigEndian];

fn sequence(item: DataSet) -> Value {
    Value::Items(vec![item], true)
}

fn words(entries: Vec<u16>) -> (&'static str, Value) {
    ("OW", Value::Words(entries))
}

fn signed(bits: u16) -> DataSet {
    radiograph(bits, &signed_pattern(u32::from(bits))).number((0x28, 0x103), 1)
}

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

/// vindr-cxr keeps 25 attributes, and Modality is not among them (pydicom#1440).
#[test]
fn a_file_without_modality_is_taken_by_its_class_and_says_so() {
    let taken = |class: Option<&str>| {
        let data_set = windowed().without(MODALITY).without(SOP_CLASS);
        let data_set = match class {
            Some(class) => data_set.text(SOP_CLASS, "UI", class),
            None => data_set,
        };
        warnings(&data_set)
    };
    let by = |taken_by: &str| {
        vec![ImageWarning::NoModality {
            taken_by: taken_by.to_owned(),
        }]
    };
    assert_eq!(
        taken(Some("1.2.840.10008.5.1.4.1.1.1")),
        by("its class, computed radiography")
    );
    assert_eq!(
        taken(Some("1.2.840.10008.5.1.4.1.1.1.1")),
        by("its class, digital X-ray")
    );
    assert_eq!(
        taken(Some("1.2.840.10008.5.1.4.1.1.7")),
        by("being one grey secondary capture")
    );
    // The class of the meta group, where the data set has none.
    assert_eq!(taken(None), by("its class, digital X-ray"));
    let bare = windowed()
        .without(MODALITY)
        .without(SOP_CLASS)
        .text((8, 5), "CS", "ISO_IR 100")
        .text((8, 8), "CS", "ORIGINAL")
        .bytes(Form::Implicit);
    let facts = inspect_image_bytes(&bare, "x").unwrap();
    assert_eq!(facts.warnings, by("being one grey image"));
}

#[test]
fn other_modalities_and_classes_are_refused() {
    for (class, name) in [
        ("1.2.840.10008.5.1.4.1.1.2", "CT"),
        ("1.2.840.10008.5.1.4.1.1.1.2", "mammography"),
    ] {
        let data_set = windowed().without(MODALITY).text(SOP_CLASS, "UI", class);
        let message = refusal(&file(&data_set, Form::Explicit));
        assert!(
            message.contains("no modality, and the SOP class"),
            "{name}: {message}"
        );
    }
    for modality in ["CT", "MR", "MG", "OT", "RF", "cr"] {
        let message = refusal(&file(
            &windowed().text(MODALITY, "CS", modality),
            Form::Explicit,
        ));
        assert!(
            message.contains(&format!("modality `{modality}`")),
            "{message}"
        );
    }
    for photometric in ["RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR"] {
        let message = refusal(&file(
            &windowed().text(PHOTOMETRIC, "CS", photometric),
            Form::Explicit,
        ));
        assert!(
            message.contains(&format!("colour (`{photometric}`)")),
            "{message}"
        );
    }
    let float = windowed()
        .without(PIXEL_DATA)
        .with((0x7fe0, 8), "OF", Value::Bytes(vec![0; 140]));
    assert!(refusal(&file(&float, Form::Explicit)).contains("floating-point pixels"));
    assert!(
        refusal(&file(&windowed().without(PIXEL_DATA), Form::Explicit))
            .contains("PixelData (7FE0,0010) is missing")
    );
}

fn view_code(code: &str, meaning: &str) -> DataSet {
    let item = DataSet::default()
        .text((8, 0x100), "SH", code)
        .text((8, 0x102), "SH", "SRT")
        .text((8, 0x104), "LO", meaning);
    windowed().with(VIEW_CODES, "SQ", sequence(item))
}

/// mimic-cxr#15 and mimic-code#1284: the view stands in this attribute or in that one.
#[test]
fn lateral_and_oblique_views_are_refused_whatever_attribute_names_them() {
    let position = |text: &str| windowed().text(VIEW_POSITION, "CS", text);
    let refused = [
        position("LL"),
        position("RL"),
        position("LATERAL"),
        position("LAT"),
        position("XTABLE LATERAL"),
        position("lateral"),
        position("LLO"),
        position("LAO"),
        position("RAO"),
        position("LPO"),
        position("OBLIQUE"),
        position("SWIMMERS"),
        position("DORSAL DECUBITUS"),
        view_code("R-10236", "left lateral"),
        view_code("R-10236", ""),
        view_code("R-102CD", "lateral"),
        view_code("399067008", "lateral"),
        view_code("399198007", "right lateral"),
        view_code("XYZ", "Lateral projection"),
        view_code("399135007", "left anterior oblique"),
        windowed().text((0x20, 0x20), "CS", "A\\F"),
        windowed().text((0x20, 0x20), "CS", "P\\F"),
        windowed().text((0x8, 0x103e), "LO", "Chest lat"),
        windowed().text((0x8, 0x103e), "LO", "THORAX SEITL."),
        windowed().text((0x8, 0x103e), "LO", "W034 Chest Lat."),
        windowed().text((0x18, 0x1030), "LO", "CHEST LATERAL"),
        windowed().text((0x18, 0x1400), "LO", "CHEST,LAT"),
        // One attribute says frontal, another lateral.
        position("PA").with(
            VIEW_CODES,
            "SQ",
            sequence(DataSet::default().text((8, 0x104), "LO", "lateral")),
        ),
        view_code("R-10214", "lateral"),
    ];
    for (number, data_set) in refused.into_iter().enumerate() {
        for form in FORMS {
            match decode_gray_bytes(file(&data_set, form).as_slice(), "view.dcm") {
                Err(DatasetError::NotARadiograph { found, .. }) => {
                    assert!(
                        found.contains("a lateral view") || found.contains("an oblique view"),
                        "{number}: {found}"
                    );
                }
                other => panic!("view {number}: {other:?}"),
            }
        }
    }
}

#[test]
fn frontal_views_are_taken_and_decubitus_is_one_of_them() {
    let position = |text: &str| windowed().text(VIEW_POSITION, "CS", text);
    for data_set in [
        position("PA"),
        position("AP"),
        position("AP AXIAL"),
        position("LORDOTIC"),
        // Lying on a side, the beam from front or back (PS3.3 section C.8.7.1.1.2).
        position("LLD"),
        position("RLD"),
        position("AP LLD"),
        position("LEFT LATERAL DECUBITUS"),
        view_code("R-10214", "postero-anterior"),
        view_code("R-10206", "antero-posterior"),
        view_code("272479007", ""),
        windowed().text((0x20, 0x20), "CS", "L\\F"),
        windowed().text((0x8, 0x103e), "LO", "CHEST PA AND LAT"),
        windowed().text((0x8, 0x103e), "LO", "Chest bilateral flat panel"),
        windowed().text((0x8, 0x103e), "LO", "lateral decubitus"),
        windowed().text((0x18, 0x15), "CS", "CHEST"),
        windowed().text((0x18, 0x15), "CS", "RIBCAGE"),
    ] {
        assert_eq!(warnings(&data_set), []);
    }
    let unknown = ImageWarning::UnknownView {
        view: "SITTING".to_owned(),
    };
    assert_eq!(warnings(&position("SITTING")), [unknown]);
    let knee = ImageWarning::OtherBodyPart {
        part: "KNEE".to_owned(),
    };
    assert_eq!(
        warnings(&windowed().text((0x18, 0x15), "CS", "KNEE")),
        [knee]
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
    let (image, told) = decode_radiograph_in(&bytes, "x", Tone::Stretched).unwrap();
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
    let (image, told) = decode_radiograph_in(&bytes, "x", Tone::Stretched).unwrap();
    assert!(told.is_empty(), "{told:?}");
    assert_eq!((image.pixels()[3], image.pixels()[4]), (0, 0));
    for form in [Form::Implicit, Form::BigEndian] {
        let bytes = file(&padded, form);
        let (same, _) = decode_radiograph_in(&bytes, "x", Tone::Stretched).unwrap();
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
            let (image, _) = decode_radiograph_in(&bytes, "x", Tone::Stretched).unwrap();
            assert_eq!(image.pixels()[3], 0, "{vr}");
            let least = (image.pixels().iter().enumerate()).filter(|(at, _)| *at != 3);
            assert_eq!(least.map(|(_, pixel)| *pixel).min(), Some(0), "{vr}");
        }
    }
    assert_eq!(image.pixels().iter().max(), Some(&255));
    // What a window shows well is left as it is.
    assert_eq!(warnings(&windowed()), []);
}

/// The files themselves, where they are at hand.
#[test]
fn the_field_folder_gives_what_its_readme_says() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let field = data.join("field");
    if !field.is_dir() {
        println!("skipped: no `field` in the real data");
        return;
    }
    let mean = |file: &str| -> Result<f64, String> {
        let image =
            cxr_dataset::decode_radiograph(field.join(file)).map_err(|error| text_of(&error))?;
        let sum: u64 = image.pixels().iter().map(|&pixel| u64::from(pixel)).sum();
        Ok(sum as f64 / image.pixels().len() as f64)
    };
    for (file, gray) in [
        ("voi-lut/a_plain_12bit.dcm", 87.1),
        ("voi-lut/b_agfa_narrow_16declared.dcm", 5.5),
        ("voi-lut/c_65536_entries.dcm", 87.1),
        ("voi-lut/d_first_40000_unsigned.dcm", 87.1),
        ("voi-lut/e_lut_and_window.dcm", 87.1),
        ("voi-lut/f_signed_first.dcm", 87.1),
        ("voi-lut/g_8bit_packed.dcm", 87.0),
        ("voi-lut/h_mono1.dcm", 87.1),
        ("voi-lut/i_implicit.dcm", 87.1),
        ("voi-lut/j_data_as_US.dcm", 87.1),
        ("voi-lut/k_rescale_signed.dcm", 87.1),
        ("voi-lut/l_part.dcm", 81.8),
        ("voi-lut/m_8bit_image_16bit_lut.dcm", 87.0),
        ("voi-lut/o_10bit_lut.dcm", 87.1),
        ("voi-lut/p_two_items.dcm", 87.1),
        ("numbers/exp.dcm", 89.9),
        ("numbers/long_ds.dcm", 89.9),
        ("numbers/nulpad.dcm", 89.9),
        ("numbers/plus.dcm", 89.9),
        ("numbers/trailing_backslash.dcm", 89.9),
        ("un-undefined-length/un_undefined.dcm", 89.9),
        ("un-undefined-length/un_defined.dcm", 89.9),
        ("un-undefined-length/sq_undefined_control.dcm", 89.9),
        ("trailing-padding/trailing_zeros_1.dcm", 89.9),
        ("trailing-padding/trailing_zeros_64.dcm", 89.9),
        ("trailing-padding/dataset_trailing_padding.dcm", 89.9),
        ("meta-group-length/control.dcm", 89.9),
        ("meta-group-length/missing_length.dcm", 89.9),
        ("meta-group-length/wrong_length.dcm", 89.9),
        ("no-preamble/dataset_only_implicit.dcm", 89.9),
        ("no-extension/DICOM/ST000001/SE000001/IM000001", 89.9),
        ("no-extension/one_named/IM000004.ima", 89.9),
        (
            "vindr-no-modality/000434271f63a053c4128a0ba6352c7f.dicom",
            89.9,
        ),
        (
            "vindr-no-modality/00053190460d56c53cc3e57321387478.dicom",
            83.8,
        ),
        ("vindr-no-modality/j2k_with_modality.dicom", 89.9),
        ("views/LLD.dcm", 89.9),
        ("views/viewcode_pa.dcm", 89.9),
        ("twelve-bits-in-sixteen/bitsstored16_values12.dcm", 6.0),
        ("twelve-bits-in-sixteen/values_0_4095.png", 6.0),
        ("twelve-bits-in-sixteen/values_0_65535.png", 96.6),
    ] {
        match mean(file) {
            Ok(found) => assert!(
                (found - gray).abs() <= 1.0,
                "{file}: {found:.1}, expected {gray}"
            ),
            Err(error) => panic!("{file}: {error}"),
        }
    }
    for (file, why) in [
        (
            "numbers/comma_decimal_center.dcm",
            "WindowCenter (0028,1050) is `2000,0`",
        ),
        (
            "numbers/neg_width.dcm",
            "WindowWidth (0028,1051) is `-3000`",
        ),
        ("views/viewcode_lateral_only.dcm", "a lateral view"),
        ("views/LATERO_LATERAL.dcm", "a lateral view"),
        ("views/XTABLE_LATERAL.dcm", "a lateral view"),
        ("views/PatientOrientation_AF.dcm", "a lateral view"),
        ("views/series_lateral.dcm", "a lateral view"),
        ("views/LAO.dcm", "an oblique view"),
    ] {
        let error = mean(file).unwrap_err();
        assert!(error.contains(why), "{file}: {error}");
    }
    for file in [
        "twelve-bits-in-sixteen/values_0_4095.png",
        "twelve-bits-in-sixteen/bitsstored16_values12.dcm",
    ] {
        let facts = cxr_dataset::inspect_image(field.join(file)).unwrap();
        assert!(
            matches!(
                facts.warnings.as_slice(),
                [ImageWarning::NarrowRange { .. }]
            ),
            "{file}"
        );
        let bytes = std::fs::read(field.join(file)).unwrap();
        let (image, _) = decode_radiograph_in(&bytes, file, Tone::Stretched).unwrap();
        let whole =
            cxr_dataset::decode_gray(field.join("twelve-bits-in-sixteen/values_0_65535.png"))
                .unwrap();
        for (ours, theirs) in image.pixels().iter().zip(whole.pixels()) {
            assert!(ours.abs_diff(*theirs) <= 1, "{file}");
        }
    }
}
