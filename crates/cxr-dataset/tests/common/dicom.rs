//! A writer of DICOM files for tests, among them those that no honest program would write, and what such a file must
//! be shown as.

use std::collections::HashMap;
use std::path::Path;

use cxr_dataset::{DatasetError, ImageWarning, decode_gray_bytes, inspect_image_bytes};

/// Where a data set is written to, and how.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Implicit,
    Explicit,
    BigEndian,
}

impl Form {
    fn two(self, number: u16) -> [u8; 2] {
        match self {
            Self::BigEndian => number.to_be_bytes(),
            _ => number.to_le_bytes(),
        }
    }

    fn four(self, number: u32) -> [u8; 4] {
        match self {
            Self::BigEndian => number.to_be_bytes(),
            _ => number.to_le_bytes(),
        }
    }
}

/// The value of an element.
#[derive(Clone)]
pub(crate) enum Value {
    Text(String),
    /// 16-bit numbers, in the order of bytes of their data set.
    Words(Vec<u16>),
    Bytes(Vec<u8>),
    /// Items of a sequence, and whether lengths are declared.
    Items(Vec<DataSet>, bool),
    /// Bytes behind a length that says undefined, up to a delimiter that they hold.
    Undefined(Vec<u8>),
}

/// Elements in the order in which they are written.
#[derive(Clone, Default)]
pub(crate) struct DataSet(Vec<((u16, u16), [u8; 2], Value)>);

impl DataSet {
    /// Adds an element at its place by tag, or replaces it.
    pub(crate) fn with(mut self, tag: (u16, u16), vr: &str, value: Value) -> Self {
        self.0.retain(|(held, _, _)| *held != tag);
        let at = self.0.partition_point(|(held, _, _)| *held < tag);
        let letters: [u8; 2] = vr.as_bytes().try_into().unwrap();
        self.0.insert(at, (tag, letters, value));
        self
    }

    pub(crate) fn text(self, tag: (u16, u16), vr: &str, text: &str) -> Self {
        self.with(tag, vr, Value::Text(text.to_owned()))
    }

    pub(crate) fn number(self, tag: (u16, u16), number: u16) -> Self {
        self.with(tag, "US", Value::Words(vec![number]))
    }

    pub(crate) fn without(mut self, tag: (u16, u16)) -> Self {
        self.0.retain(|(held, _, _)| *held != tag);
        self
    }

    pub(crate) fn bytes(&self, form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        let two = |number: u16| form.two(number);
        let four = |number: u32| form.four(number);
        for ((group, number), vr, value) in &self.0 {
            out.extend(two(*group));
            out.extend(two(*number));
            let (mut content, length) = match value {
                Value::Text(text) => (text.as_bytes().to_vec(), None),
                Value::Words(words) => (words.iter().flat_map(|&word| two(word)).collect(), None),
                Value::Bytes(bytes) => (bytes.clone(), None),
                Value::Undefined(bytes) => (bytes.clone(), Some(u32::MAX)),
                Value::Items(items, declared) => {
                    // An unknown sequence is written without representations.
                    let form = if vr == b"UN" { Form::Implicit } else { form };
                    let two = |number: u16| form.two(number);
                    let four = |number: u32| form.four(number);
                    let mut content = Vec::new();
                    for item in items {
                        let bytes = item.bytes(form);
                        content.extend(two(0xfffe));
                        content.extend(two(0xe000));
                        let length = if *declared {
                            bytes.len() as u32
                        } else {
                            u32::MAX
                        };
                        content.extend(four(length));
                        content.extend(bytes);
                        if !declared {
                            content.extend([two(0xfffe), two(0xe00d)].concat());
                            content.extend(four(0));
                        }
                    }
                    if !declared {
                        content.extend([two(0xfffe), two(0xe0dd)].concat());
                        content.extend(four(0));
                    }
                    (content, (!declared).then_some(u32::MAX))
                }
            };
            if content.len() % 2 == 1 {
                content.push(if vr == b"UI" || vr == b"OB" { 0 } else { b' ' });
            }
            let length = length.unwrap_or(content.len() as u32);
            let is_long = matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" | b"OF");
            match form {
                Form::Implicit => out.extend(four(length)),
                _ if is_long => {
                    out.extend(vr);
                    out.extend([0, 0]);
                    out.extend(four(length));
                }
                _ => {
                    out.extend(vr);
                    out.extend(two(length as u16));
                }
            }
            out.extend(content);
        }
        out
    }
}

/// What a file's meta group says of its own length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaLength {
    Right,
    Wrong,
    Missing,
}

pub(crate) const SOP_CLASS: (u16, u16) = (0x0008, 0x0016);
pub(crate) const MODALITY: (u16, u16) = (0x0008, 0x0060);
pub(crate) const PHOTOMETRIC: (u16, u16) = (0x0028, 0x0004);
pub(crate) const WINDOW_CENTER: (u16, u16) = (0x0028, 0x1050);
pub(crate) const WINDOW_WIDTH: (u16, u16) = (0x0028, 0x1051);
pub(crate) const PIXEL_DATA: (u16, u16) = (0x7fe0, 0x0010);

/// A meta group with a transfer syntax.
pub(crate) fn meta_group(syntax: &str, length: MetaLength) -> Vec<u8> {
    let rest = DataSet::default()
        .with((2, 1), "OB", Value::Bytes(vec![0, 1]))
        .text((2, 2), "UI", "1.2.840.10008.5.1.4.1.1.1.1")
        .text((2, 0x10), "UI", syntax)
        .text((2, 0x13), "SH", "TEST")
        .bytes(Form::Explicit);
    let declared = match length {
        MetaLength::Right => rest.len() as u32,
        MetaLength::Wrong => rest.len() as u32 + 38,
        MetaLength::Missing => return rest,
    };
    let length = Value::Bytes(declared.to_le_bytes().to_vec());
    let first = DataSet::default().with((2, 0), "UL", length);
    [first.bytes(Form::Explicit), rest].concat()
}

/// A file of a data set, as honest programs write it.
pub(crate) fn file(data_set: &DataSet, form: Form) -> Vec<u8> {
    let syntax = match form {
        Form::Implicit => "1.2.840.10008.1.2",
        Form::Explicit => "1.2.840.10008.1.2.1",
        Form::BigEndian => "1.2.840.10008.1.2.2",
    };
    let meta = meta_group(syntax, MetaLength::Right);
    [&[0; 128], &b"DICM"[..], &meta, &data_set.bytes(form)].concat()
}

/// The golden script's formula: 7×5 values of so many bits.
pub(crate) fn pattern(bits: u32) -> Vec<u16> {
    let value = |x: u64, y: u64| x * x * 977 + x * y * 613 + y * y * 389 + (x ^ y) * 55;
    (0..5)
        .flat_map(|y| (0..7).map(move |x| (value(x, y) % (1 << bits)) as u16))
        .collect()
}

/// The same, as two's complement of signed values.
pub(crate) fn signed_pattern(bits: u32) -> Vec<u16> {
    let mask = ((1_u32 << bits) - 1) as u16;
    let half = 1_u16 << (bits - 1);
    pattern(bits)
        .into_iter()
        .map(|value| value.wrapping_sub(half) & mask)
        .collect()
}

/// A frontal radiograph of these values; 8 bits are stored in bytes, more in words.
pub(crate) fn radiograph(bits: u16, values: &[u16]) -> DataSet {
    let allocated = if bits > 8 { 16 } else { 8 };
    let pixels = match allocated {
        8 => Value::Bytes(values.iter().map(|&value| value as u8).collect()),
        _ => Value::Words(values.to_vec()),
    };
    DataSet::default()
        .text(SOP_CLASS, "UI", "1.2.840.10008.5.1.4.1.1.1.1")
        .text(MODALITY, "CS", "DX")
        .number((0x28, 2), 1)
        .text(PHOTOMETRIC, "CS", "MONOCHROME2")
        .number((0x28, 0x10), 5)
        .number((0x28, 0x11), 7)
        .number((0x28, 0x100), allocated)
        .number((0x28, 0x101), bits)
        .number((0x28, 0x102), bits - 1)
        .number((0x28, 0x103), 0)
        .with(PIXEL_DATA, if allocated == 8 { "OB" } else { "OW" }, pixels)
}

/// Values of 12 bits in the window that the golden script calls `window`.
pub(crate) fn windowed() -> DataSet {
    radiograph(12, &pattern(12))
        .text(WINDOW_CENTER, "DS", "2000")
        .text(WINDOW_WIDTH, "DS", "3000")
}

/// The golden script's bent curve.
pub(crate) fn curve(n_entries: u64, bits: u32) -> Vec<u16> {
    let (last, white) = (n_entries - 1, (1 << bits) - 1);
    (0..n_entries)
        .map(|i| (i * i * white / (last * last)) as u16)
        .collect()
}

/// An item of a table; `first` in the representation `vr`.
pub(crate) fn table(
    vr: &str,
    n_entries: u16,
    first: u16,
    bits: u16,
    data: (&str, Value),
) -> DataSet {
    DataSet::default()
        .with(
            (0x28, 0x3002),
            vr,
            Value::Words(vec![n_entries, first, bits]),
        )
        .with((0x28, 0x3006), data.0, data.1)
}

/// pydicom's pixels of a case.
pub(crate) fn expected(case: &str) -> Vec<u8> {
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

pub(crate) fn text_of(error: &DatasetError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

pub(crate) fn is_shown_as(case: &str, what: &str, bytes: &[u8]) {
    match decode_gray_bytes(bytes, "case.dcm") {
        Ok(image) => assert_eq!(image.pixels(), expected(case), "{what}, expected `{case}`"),
        Err(error) => panic!("{what}: {}", text_of(&error)),
    }
}

pub(crate) fn refusal(bytes: &[u8]) -> String {
    match decode_gray_bytes(bytes, "case.dcm") {
        Ok(_) => panic!("it was read"),
        Err(error) => text_of(&error),
    }
}

pub(crate) fn warnings(data_set: &DataSet) -> Vec<ImageWarning> {
    let bytes = file(data_set, Form::Explicit);
    match inspect_image_bytes(&bytes, "case.dcm") {
        Ok(facts) => facts.warnings,
        Err(error) => panic!("{}", text_of(&error)),
    }
}

pub(crate) const FORMS: [Form; 3] = [Form::Explicit, Form::Implicit, Form::BigEndian];

pub(crate) fn sequence(item: DataSet) -> Value {
    Value::Items(vec![item], true)
}

pub(crate) fn words(entries: Vec<u16>) -> (&'static str, Value) {
    ("OW", Value::Words(entries))
}

pub(crate) fn signed(bits: u16) -> DataSet {
    radiograph(bits, &signed_pattern(u32::from(bits))).number((0x28, 0x103), 1)
}
