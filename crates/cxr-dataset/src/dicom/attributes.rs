//! Values of attributes: absent, or read to the last character, or an error that names attribute and value.

use dicom_core::{Tag, VR};

use super::data_set::{DataSet, Element, Value};
use super::fault::{Fault, attribute};

/// An attribute as text without padding; `None` when it is absent or empty. Bytes beyond ASCII, whose character set
/// is not looked up, become marks of replacement: the words that decide anything here are ASCII.
pub(super) fn text(data_set: &DataSet<'_>, tag: Tag) -> Result<Option<String>, Fault> {
    let Some(bytes) = bytes(data_set, tag)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_matches(is_padding);
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// Text is padded to an even length with spaces, or with zeros, which are meant for UIDs.
fn is_padding(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\0'
}

/// The bytes of an attribute; `None` when it is absent or empty.
pub(super) fn bytes<'a>(data_set: &DataSet<'a>, tag: Tag) -> Result<Option<&'a [u8]>, Fault> {
    match data_set.get(tag).map(|element| &element.value) {
        None | Some(Value::Bytes([])) => Ok(None),
        Some(Value::Bytes(bytes)) => Ok(Some(bytes)),
        Some(_) => Err(unexpected(tag, "one value")),
    }
}

fn unexpected(tag: Tag, expected: &str) -> Fault {
    Fault::Damaged(format!(
        "{}: expected {expected}, got a sequence",
        attribute(tag)
    ))
}

/// The items of a sequence; none when it is absent.
pub(super) fn items<'d, 'a>(
    data_set: &'d DataSet<'a>,
    tag: Tag,
) -> Result<&'d [DataSet<'a>], Fault> {
    match data_set.get(tag).map(|element| &element.value) {
        None | Some(Value::Bytes([])) => Ok(&[]),
        Some(Value::Items(items)) => Ok(items),
        Some(_) => Err(Fault::Damaged(format!(
            "{}: expected a sequence, got one value",
            attribute(tag)
        ))),
    }
}

/// The number of an attribute that has one at most; `None` when it is absent or empty.
pub(super) fn number(data_set: &DataSet<'_>, tag: Tag) -> Result<Option<f64>, Fault> {
    let numbers = numbers(data_set, tag)?;
    match numbers.as_slice() {
        [] => Ok(None),
        [number] => Ok(Some(*number)),
        several => {
            let several: Vec<String> = several.iter().map(f64::to_string).collect();
            Err(Fault::attribute(tag, &several.join("\\"), "one number"))
        }
    }
}

/// The numbers of an attribute, decimal strings or binary; none when it is absent or empty.
pub(super) fn numbers(data_set: &DataSet<'_>, tag: Tag) -> Result<Vec<f64>, Fault> {
    let Some(bytes) = bytes(data_set, tag)? else {
        return Ok(Vec::new());
    };
    let (vr, big_endian) = match data_set.get(tag) {
        Some(element) => (element.vr, element.big_endian),
        None => (None, false),
    };
    let binary = |width: usize, read: &dyn Fn(&[u8]) -> Option<f64>| {
        let numbers: Option<Vec<f64>> = match bytes.len().is_multiple_of(width) {
            true => bytes.chunks_exact(width).map(read).collect(),
            false => None,
        };
        let numbers = numbers.filter(|numbers| numbers.iter().all(|number| number.is_finite()));
        numbers.ok_or_else(|| Fault::attribute(tag, &hexadecimal(bytes), "binary numbers"))
    };
    macro_rules! read {
        ($kind:ty) => {
            binary(size_of::<$kind>(), &|bytes| {
                let bytes = *bytes.first_chunk()?;
                Some(f64::from(match big_endian {
                    true => <$kind>::from_be_bytes(bytes),
                    false => <$kind>::from_le_bytes(bytes),
                }))
            })
        };
    }
    match vr {
        Some(VR::US) => read!(u16),
        Some(VR::SS) => read!(i16),
        Some(VR::UL) => read!(u32),
        Some(VR::SL) => read!(i32),
        Some(VR::FL) => read!(f32),
        Some(VR::FD) => read!(f64),
        _ => decimals(tag, &String::from_utf8_lossy(bytes)),
    }
}

/// Numbers as decimal strings, several separated by backslashes. A separator behind the last one is no further value.
fn decimals(tag: Tag, text: &str) -> Result<Vec<f64>, Fault> {
    let text = text.trim_matches(is_padding);
    let trimmed = text.strip_suffix('\\').unwrap_or(text);
    let mut numbers = Vec::new();
    for part in trimmed.split('\\') {
        let part = part.trim_matches(is_padding);
        // Rust also takes `inf` and `nan`, which decimal strings are not.
        let is_decimal = part
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        match part.parse::<f64>() {
            Ok(number) if is_decimal && number.is_finite() => numbers.push(number),
            _ if trimmed.trim_matches(is_padding).is_empty() => {}
            _ => {
                return Err(Fault::attribute(
                    tag,
                    text,
                    "a decimal number such as `2000.5`, with a point",
                ));
            }
        }
    }
    Ok(numbers)
}

/// A whole number from `lowest` to `highest`; `None` when it is absent or empty.
pub(super) fn integer(
    data_set: &DataSet<'_>,
    tag: Tag,
    lowest: u16,
    highest: u16,
) -> Result<Option<u16>, Fault> {
    let Some(number) = number(data_set, tag)? else {
        return Ok(None);
    };
    let range = f64::from(lowest)..=f64::from(highest);
    if number.fract() != 0.0 || !range.contains(&number) {
        return Err(Fault::attribute(
            tag,
            &number.to_string(),
            format!("a whole number from {lowest} to {highest}"),
        ));
    }
    Ok(Some(number as u16))
}

/// As [`integer`], of an attribute that every image has.
pub(super) fn required(
    data_set: &DataSet<'_>,
    tag: Tag,
    lowest: u16,
    highest: u16,
) -> Result<u16, Fault> {
    integer(data_set, tag, lowest, highest)?.ok_or_else(|| absent(tag))
}

pub(super) fn absent(tag: Tag) -> Fault {
    Fault::Damaged(format!("{} is missing", attribute(tag)))
}

/// The 16-bit words of an element, in the machine's order; `None` for an odd number of bytes.
pub(super) fn words(bytes: &[u8], big_endian: bool) -> Option<Vec<u16>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let read = match big_endian {
        true => u16::from_be_bytes,
        false => u16::from_le_bytes,
    };
    rest.is_empty()
        .then(|| pairs.iter().map(|&pair| read(pair)).collect())
}

/// The value of a short binary element, for messages.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(16).map(|byte| format!("{byte:02x}"));
    format!("0x{}", shown.collect::<String>())
}

/// An element and its bytes; `None` when it is absent or empty.
pub(super) fn element<'d, 'a>(
    data_set: &'d DataSet<'a>,
    tag: Tag,
) -> Result<Option<(&'d Element<'a>, &'a [u8])>, Fault> {
    let bytes = bytes(data_set, tag)?;
    Ok(data_set.get(tag).zip(bytes))
}
