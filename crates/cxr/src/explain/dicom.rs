//! A picture as a DICOM file: Secondary Capture Image Storage (PS3.3 A.8.1), explicit VR, little endian, RGB.

use sha2::{Digest as _, Sha256};

/// The manufacturer, by which `explain` knows its own files.
pub(super) const MANUFACTURER: &str = "cxr explain";
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
/// Of this implementation: a UUID of its own.
const IMPLEMENTATION: &str = "2.25.178236407733151204906416838214923714733";
/// The longest text of the value representation LO.
const LONGEST_TEXT: usize = 64;

/// What a picture is of.
pub(super) struct About<'a> {
    /// The patient's id, where the radiograph's file gives one.
    pub(super) patient: Option<&'a str>,
    /// The UID of the radiograph's study, where its file gives one.
    pub(super) study: Option<&'a str>,
    /// The bytes of the radiograph's file, of which the UIDs are made: the same picture again has the same.
    pub(super) source: &'a [u8],
    /// The label and the method.
    pub(super) title: &'a str,
    /// The model's name.
    pub(super) model: &'a str,
    /// Which picture of the radiograph it is, from 1.
    pub(super) number: usize,
}

/// A file with `height`×`width` pixels of three bytes, row by row; `None` for more rows or columns than DICOM can say.
pub(super) fn secondary_capture(
    pixels: &[u8],
    (height, width): (usize, usize),
    about: &About<'_>,
) -> Option<Vec<u8>> {
    let (rows, columns) = (u16::try_from(height).ok()?, u16::try_from(width).ok()?);
    let instance = uid(&["instance", about.model, about.title], about.source);
    let series = uid(&["series", about.model], about.source);
    let study = match about.study {
        Some(study) => study.to_owned(),
        None => uid(&["study"], about.source),
    };
    // Of a series all pictures have one description.
    let description = text(&format!("Heat maps, {}", about.model));
    let title = text(about.title);
    let made = format!("Heat map over the radiograph: {title}");

    let mut meta = Elements::default();
    meta.bytes(0x0002, 0x0001, *b"OB", &[0, 1]);
    meta.uid(0x0002, 0x0002, SECONDARY_CAPTURE);
    meta.uid(0x0002, 0x0003, &instance);
    meta.uid(0x0002, 0x0010, EXPLICIT_LITTLE_ENDIAN);
    meta.uid(0x0002, 0x0012, IMPLEMENTATION);
    let mut head = Elements::default();
    head.element(0x0002, 0x0000, *b"UL", &(meta.0.len() as u32).to_le_bytes());

    let mut set = Elements::default();
    set.text(0x0008, 0x0005, *b"CS", "ISO_IR 192");
    set.text(0x0008, 0x0008, *b"CS", "DERIVED\\SECONDARY");
    set.uid(0x0008, 0x0016, SECONDARY_CAPTURE);
    set.uid(0x0008, 0x0018, &instance);
    set.text(0x0008, 0x0020, *b"DA", "");
    set.text(0x0008, 0x0030, *b"TM", "");
    set.text(0x0008, 0x0050, *b"SH", "");
    set.text(0x0008, 0x0060, *b"CS", "OT");
    set.text(0x0008, 0x0064, *b"CS", "WSD");
    set.text(0x0008, 0x0070, *b"LO", MANUFACTURER);
    set.text(0x0008, 0x0090, *b"PN", "");
    set.text(0x0008, 0x103e, *b"LO", &description);
    set.text(0x0008, 0x2111, *b"ST", &made);
    set.text(0x0010, 0x0010, *b"PN", "");
    set.text(
        0x0010,
        0x0020,
        *b"LO",
        &text(about.patient.unwrap_or_default()),
    );
    set.text(0x0010, 0x0030, *b"DA", "");
    set.text(0x0010, 0x0040, *b"CS", "");
    set.uid(0x0020, 0x000d, &study);
    set.uid(0x0020, 0x000e, &series);
    set.text(0x0020, 0x0010, *b"SH", "");
    set.text(0x0020, 0x0011, *b"IS", "");
    set.text(0x0020, 0x0013, *b"IS", &about.number.to_string());
    set.text(0x0020, 0x0020, *b"CS", "");
    set.text(0x0020, 0x4000, *b"LT", &title);
    set.number(0x0002, 3);
    set.text(0x0028, 0x0004, *b"CS", "RGB");
    for (element, value) in [
        (0x0006, 0),
        (0x0010, rows),
        (0x0011, columns),
        (0x0100, 8),
        (0x0101, 8),
        (0x0102, 7),
        (0x0103, 0),
    ] {
        set.number(element, value);
    }
    set.text(0x0028, 0x0301, *b"CS", "NO");
    set.bytes(0x7fe0, 0x0010, *b"OB", pixels);

    let mut file = vec![0; 128];
    file.extend(b"DICM");
    file.extend([head.0, meta.0, set.0].concat());
    Some(file)
}

/// A value of LO: without what separates values, and no longer than it may be.
fn text(text: &str) -> String {
    let is_plain = |c: &char| !c.is_control() && *c != '\\';
    text.chars().filter(is_plain).take(LONGEST_TEXT).collect()
}

/// A UID of a hash: `2.25.` and a UUID as a decimal number (PS3.5 B.2), of version 8, whose bits are its maker's own.
fn uid(parts: &[&str], source: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in parts.iter().map(|part| part.as_bytes()).chain([source]) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let number = digest
        .iter()
        .take(16)
        .fold(0_u128, |number, &byte| number << 8 | u128::from(byte));
    let version = number & !(0xf << 76) | 8 << 76;
    let variant = version & !(0b11 << 62) | 0b10 << 62;
    format!("2.25.{variant}")
}

/// Data elements, one after the other.
#[derive(Default)]
struct Elements(Vec<u8>);

impl Elements {
    fn tag(&mut self, group: u16, element: u16, vr: [u8; 2]) {
        self.0.extend(group.to_le_bytes());
        self.0.extend(element.to_le_bytes());
        self.0.extend(vr);
    }

    /// A short value of even length.
    fn element(&mut self, group: u16, element: u16, vr: [u8; 2], value: &[u8]) {
        self.tag(group, element, vr);
        self.0.extend((value.len() as u16).to_le_bytes());
        self.0.extend(value);
    }

    /// Padded with a space.
    fn text(&mut self, group: u16, element: u16, vr: [u8; 2], value: &str) {
        let mut value = value.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(b' ');
        }
        self.element(group, element, vr, &value);
    }

    /// Padded with a zero.
    fn uid(&mut self, group: u16, element: u16, value: &str) {
        let mut value = value.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(0);
        }
        self.element(group, element, *b"UI", &value);
    }

    /// Of the image's own group.
    fn number(&mut self, element: u16, value: u16) {
        self.element(0x0028, element, *b"US", &value.to_le_bytes());
    }

    /// A value with a length of four bytes.
    fn bytes(&mut self, group: u16, element: u16, vr: [u8; 2], value: &[u8]) {
        self.tag(group, element, vr);
        self.0.extend([0, 0]);
        let padded = value.len() + value.len() % 2;
        self.0.extend((padded as u32).to_le_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len() + padded - value.len(), 0);
    }
}
