//! Text files, read whole: plain or gzip, in the encodings that spreadsheets write, never without a bound.

use std::io::Read;
use std::path::Path;

use crate::TableError;

/// No table of a data set comes near this size; a compressed file that grows past it is refused.
pub const LARGEST_TEXT: u64 = 1 << 30;

const AS_UTF8: &str = "save the table as UTF-8 text";

/// The text of a file, as [`decode_text`] has it.
///
/// # Errors
/// A file that cannot be read, and those of [`decode_text`].
pub fn read_text(path: &Path) -> Result<String, TableError> {
    let bytes = cxr_fs::read_stream(path, LARGEST_TEXT);
    decode_text(
        bytes.map_err(|error| TableError::io("read", path)(error.source))?,
        path,
    )
}

/// The whole lines at the beginning of a file, of at most 64 KiB.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn read_beginning(path: &Path) -> Result<String, TableError> {
    const LENGTH: u64 = 1 << 16;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(TableError::io("open", path))?;
    (&file)
        .take(LENGTH)
        .read_to_end(&mut bytes)
        .map_err(TableError::io("read", path))?;
    let mut is_cut = bytes.len() as u64 == LENGTH;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        let read = flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .take(LENGTH)
            .read_to_end(&mut plain);
        // The end of what was read is not the end of what was compressed.
        if let Err(error) = read
            && !(is_cut && error.kind() == std::io::ErrorKind::UnexpectedEof)
        {
            return Err(TableError::io("decompress", path)(error));
        }
        is_cut |= plain.len() as u64 == LENGTH;
        bytes = plain;
    }
    if is_cut {
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        // In UTF-16 an end is two bytes, and a line begins at an even one.
        let whole = (bytes.iter().rposition(is_end)).map_or(bytes.len(), |at| at + 1);
        let is_wide =
            bytes.iter().take(4).any(|byte| *byte == 0) || bytes.starts_with(&[0xff, 0xfe]);
        bytes.truncate(if is_wide { whole & !1 } else { whole });
    }
    decode_text(bytes, path)
}

/// The text of a file's bytes, without a byte-order mark. Gzip is recognised by its first bytes, UTF-16 by its
/// byte-order mark or by the zeros of its first letters; everything else has to be UTF-8. `path` names the file in
/// errors.
///
/// # Errors
/// Damaged gzip, more than [`LARGEST_TEXT`] bytes, or bytes of another encoding; the message names the likely one.
pub fn decode_text(mut bytes: Vec<u8>, path: &Path) -> Result<String, TableError> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes.as_slice())
            .take(LARGEST_TEXT + 1)
            .read_to_end(&mut plain)
            .map_err(TableError::io("decompress", path))?;
        bytes = plain;
    }
    if bytes.len() as u64 > LARGEST_TEXT {
        return Err(TableError::table(
            path,
            format!("expected at most {LARGEST_TEXT} bytes of text, got more"),
            "name the table itself",
        ));
    }
    match bytes.as_slice() {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            return Err(TableError::table(
                path,
                "expected UTF-8 text, got UTF-32",
                AS_UTF8,
            ));
        }
        [0xff, 0xfe, units @ ..] => return utf16(units, u16::from_le_bytes, path),
        [0xfe, 0xff, units @ ..] => return utf16(units, u16::from_be_bytes, path),
        // No text in UTF-8 has a zero among its first letters.
        &[first, 0, second, 0, ..] if first > 0 && second > 0 => {
            return utf16(&bytes, u16::from_le_bytes, path);
        }
        &[0, first, 0, second, ..] if first > 0 && second > 0 => {
            return utf16(&bytes, u16::from_be_bytes, path);
        }
        _ => {}
    }
    if let Some((found, repair)) = known_binary(&bytes) {
        let problem = format!("expected text, got {found}");
        return Err(TableError::table(path, problem, repair));
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(&error, path))
}

/// Files that are taken for tables by mistake.
fn known_binary(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const EXPORT: &str = "export the sheet as CSV";
    if bytes.starts_with(b"PK\x03\x04") {
        Some(("a ZIP archive or an Excel workbook", EXPORT))
    } else if bytes.starts_with(&[0xd0, 0xcf, 0x11, 0xe0]) {
        Some(("an old Excel workbook", EXPORT))
    } else if bytes.starts_with(b"PAR1") {
        Some(("a Parquet file", "export the table as CSV"))
    } else if bytes.starts_with(b"CXRSTORE") {
        Some(("a prepared store", "name a table"))
    } else {
        None
    }
}

fn utf16(bytes: &[u8], unit_of: fn([u8; 2]) -> u16, path: &Path) -> Result<String, TableError> {
    let damaged = |line: u64| {
        TableError::line(
            path,
            line,
            "expected UTF-16 text, got half a character",
            AS_UTF8,
        )
    };
    let pairs = bytes.chunks_exact(2);
    let is_cut = !pairs.remainder().is_empty();
    let units = pairs.map(|pair| unit_of([pair[0], pair[1]]));
    let mut text = String::with_capacity(bytes.len() / 2);
    for character in char::decode_utf16(units) {
        match character {
            Ok(character) => text.push(character),
            Err(_) => return Err(damaged(line_ends(text.as_bytes()) + 1)),
        }
    }
    if is_cut {
        return Err(damaged(line_ends(text.as_bytes()) + 1));
    }
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

fn not_utf8(error: &std::string::FromUtf8Error, path: &Path) -> TableError {
    let valid = error.utf8_error().valid_up_to();
    let bytes = error.as_bytes();
    let line = line_ends(bytes.get(..valid).unwrap_or(&[])) + 1;
    let byte = bytes.get(valid).copied().unwrap_or(0);
    // Western European text has no other bytes below a space than tabs and line ends.
    let is_text = (bytes.iter()).all(|&byte| byte >= b' ' || matches!(byte, b'\t' | b'\r' | b'\n'));
    let found = if is_text {
        format!("the byte 0x{byte:02X}, as Latin-1 or Windows-1252 has it")
    } else {
        format!("the byte 0x{byte:02X} of a binary file or another encoding")
    };
    TableError::line(
        path,
        line,
        format!("expected UTF-8 text, got {found}"),
        AS_UTF8,
    )
}

/// How many lines end within `bytes`: at `\n`, `\r\n`, or a `\r` alone.
pub(crate) fn line_ends(bytes: &[u8]) -> u64 {
    let mut count = 0;
    let mut after_return = false;
    for &byte in bytes {
        count += u64::from(byte == b'\r' || (byte == b'\n' && !after_return));
        after_return = byte == b'\r';
    }
    count
}

/// The lines of a text with their numbers from 1, ended by `\n`, `\r\n`, or a `\r` alone.
pub fn numbered_lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut rest = Some(text).filter(|text| !text.is_empty());
    let lines = std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let (line, end) = text.split_at(at);
        let end = (end.strip_prefix("\r\n"))
            .or_else(|| end.get(1..))
            .unwrap_or_default();
        rest = Some(end).filter(|end| !end.is_empty());
        Some(line)
    });
    (1..).zip(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<String, String> {
        decode_text(bytes.to_vec(), Path::new("t.csv")).map_err(|error| error.to_string())
    }

    fn utf16_of(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    #[test]
    fn every_encoding_of_a_spreadsheet_gives_the_same_text() {
        let text = "image,Ödem\na.png,1\n";
        assert_eq!(decode(text.as_bytes()).unwrap(), text);
        assert_eq!(decode(format!("\u{feff}{text}").as_bytes()).unwrap(), text);
        for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
            let marked = utf16_of(&format!("\u{feff}{text}"), to_bytes);
            assert_eq!(decode(&marked).unwrap(), text);
            assert_eq!(decode(&utf16_of(text, to_bytes)).unwrap(), text);
            assert!(
                decode(&marked[..marked.len() - 1])
                    .unwrap_err()
                    .contains("half")
            );
        }
        assert_eq!(decode(b"").unwrap(), "");
    }

    #[test]
    fn other_bytes_are_named_for_what_they_are() {
        for (bytes, expected) in [
            (
                &b"image,\xd6dem\na.png,1\n"[..],
                "line 1: expected UTF-8 text, got the byte 0xD6, as Latin-1",
            ),
            (b"a,b\r\nc,d\r\ne,\xfc\r\n", "line 3"),
            (b"a,b\rc,d\re,\xfc\r", "line 3"),
            (b"a,\x01\xfe", "binary"),
            (b"PK\x03\x04....", "Excel"),
            (b"\xd0\xcf\x11\xe0", "Excel"),
            (b"PAR1", "Parquet"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
            (b"\x1f\x8bnot gzip", "decompress"),
        ] {
            let error = decode(bytes).unwrap_err();
            assert!(error.contains(expected), "{error} lacks {expected}");
        }
    }

    #[test]
    fn lines_end_in_every_way() {
        let lines: Vec<(u64, &str)> = numbered_lines("a\r\nb\rc\n\nd").collect();
        assert_eq!(lines, [(1, "a"), (2, "b"), (3, "c"), (4, ""), (5, "d")]);
        assert_eq!(numbered_lines("a\n").count(), 1);
        assert_eq!(numbered_lines("").count(), 0);
        assert_eq!(line_ends(b"a\r\nb\rc\n\nd"), 4);
    }
}
