//! A DICOM file around a fuzzed stream, so that the fuzzer's bytes reach the decoder and not the parser before it.

use cxr_dataset::{MAX_PIXELS, decode_gray_bytes};

/// Decodes `input`, four bytes of size and depth and a compressed frame, as a file of this transfer syntax.
pub fn decode(syntax: &str, input: &[u8]) {
    let Some((&[width, height, bits, kind], stream)) = input.split_first_chunk() else {
        return;
    };
    let (width, height) = (u16::from(width) + 1, u16::from(height) + 1);
    let stored = u16::from(bits % 16) + 1;
    let allocated = if stored > 8 || kind & 2 != 0 {
        16_u16
    } else {
        8
    };
    let mut file = vec![0; 128];
    file.extend(b"DICM");
    let mut element = |group: u16, number: u16, vr: &[u8; 2], value: &[u8]| {
        file.extend(group.to_le_bytes());
        file.extend(number.to_le_bytes());
        file.extend(vr);
        let padded = value.len() + value.len() % 2;
        file.extend((padded as u16).to_le_bytes());
        file.extend(value);
        file.resize(file.len() + padded - value.len(), 0);
    };
    element(2, 0x10, b"UI", syntax.as_bytes());
    element(8, 0x60, b"CS", b"DX");
    element(0x28, 2, b"US", &1_u16.to_le_bytes());
    element(0x28, 4, b"CS", b"MONOCHROME2 ");
    element(0x28, 0x10, b"US", &height.to_le_bytes());
    element(0x28, 0x11, b"US", &width.to_le_bytes());
    element(0x28, 0x100, b"US", &allocated.to_le_bytes());
    element(0x28, 0x101, b"US", &stored.to_le_bytes());
    element(0x28, 0x102, b"US", &(stored - 1).to_le_bytes());
    element(0x28, 0x103, b"US", &u16::from(kind & 1).to_le_bytes());
    file.extend(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff");
    file.extend(b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0");
    file.extend((stream.len() as u32).to_le_bytes());
    file.extend(stream);
    file.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
    if let Ok(image) = decode_gray_bytes(&file, "fuzzed") {
        assert!(image.pixels().len() as u64 <= MAX_PIXELS);
        assert_eq!(
            image.pixels().len(),
            usize::from(width) * usize::from(height)
        );
    }
}
