//! A look at the declared lengths of a DICOM file before it is parsed.
//!
//! The parser takes memory for an element by its declared length, up to 4 GiB, before it notices
//! that the file ends; and a compressed frame may declare another size than the file. So every
//! length is compared with the bytes there are, and the frame's size with the file's, first. The
//! parser also descends into sequences by recursion: how deep they go is bounded here.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::StandardDataDictionary;

const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);
const PIXEL_DATA: Tag = Tag(0x7fe0, 0x0010);
const ITEM: Tag = Tag(0xfffe, 0xe000);
/// Real files nest three or four sequences and their items.
const DEEPEST: usize = 32;
const UNDEFINED: u32 = u32::MAX;
const IMPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";

/// What the walk over a file's elements found.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Structure {
    /// Height and width that the compressed frames declare.
    pub(super) frames: Vec<(u16, u16)>,
}

/// What the file's meta group says of how the rest is written.
pub(super) fn transfer_syntax(bytes: &[u8]) -> Result<String, String> {
    Walk { bytes, at: 132 }.meta_group()
}

/// Walks over all elements, nested ones too, and checks that none is longer than what follows. The
/// file must be little-endian.
pub(super) fn check(bytes: &[u8]) -> Result<Structure, String> {
    let mut walk = Walk { bytes, at: 132 };
    let syntax = walk.meta_group()?;
    let implicit = syntax == IMPLICIT_LITTLE_ENDIAN;
    let mut structure = Structure::default();
    // Where the sequences and items around the walk end; `None` if a delimiter tells.
    let mut around: Vec<Option<usize>> = Vec::new();
    while walk.at < bytes.len() {
        while around
            .last()
            .is_some_and(|end| end.is_some_and(|end| end <= walk.at))
        {
            around.pop();
        }
        let element = walk.element(implicit)?;
        if element.tag == PIXEL_DATA && element.length == UNDEFINED {
            // The image's own pixels come last; an icon's may come before.
            structure.frames.clear();
            walk.fragments(&mut structure)?;
        } else if element.is_delimiter() {
            // A parser may take the length of a delimiter for that of a value.
            if around.pop().is_none() || element.length > 0 {
                return Err(format!("{} ends nothing", element.tag));
            }
        } else if element.is_nested() {
            // Its content is a chain of elements like any other: the walk goes on inside.
            let end = walk.at.checked_add(element.length as usize);
            around.push(if element.length == UNDEFINED {
                None
            } else {
                end
            });
            if around.len() > DEEPEST {
                return Err(format!("sequences are nested more than {DEEPEST} deep"));
            }
        } else if element.length == UNDEFINED {
            return Err(format!("the length of {} is undefined", element.tag));
        } else {
            walk.value(element.length)?;
        }
    }
    Ok(structure)
}

struct Element {
    tag: Tag,
    vr: Option<VR>,
    length: u32,
}

impl Element {
    /// The end of an item or of a sequence whose length is undefined.
    fn is_delimiter(&self) -> bool {
        self.tag.group() == ITEM.group() && self.tag != ITEM
    }

    /// Sequences and items hold elements, not a value; so does an element that no dictionary
    /// knows when its length is undefined.
    fn is_nested(&self) -> bool {
        self.tag == ITEM
            || self.vr == Some(VR::SQ)
            || (self.vr.is_none() && self.length == UNDEFINED)
    }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// Reads the group that every file begins with; returns the transfer syntax.
    fn meta_group(&mut self) -> Result<String, String> {
        let group_length = self.element(false)?;
        if group_length.tag != Tag(0x0002, 0x0000) || group_length.length != 4 {
            return Err("expected the length of the file's meta group first".to_owned());
        }
        let declared_end = self.u32()? as usize + self.at;
        let mut syntax = None;
        while self.peek_group() == Some(0x0002) {
            let element = self.element(false)?;
            let value = self.value(element.length)?;
            if element.tag == TRANSFER_SYNTAX {
                let text = String::from_utf8_lossy(value);
                syntax = Some(text.trim_end_matches(['\0', ' ']).to_owned());
            }
        }
        if self.at != declared_end {
            return Err("the meta group has another length than it declares".to_owned());
        }
        syntax.ok_or_else(|| "expected a transfer syntax, got none".to_owned())
    }

    fn element(&mut self, implicit: bool) -> Result<Element, String> {
        let tag = Tag(self.u16()?, self.u16()?);
        if tag.group() == ITEM.group() {
            return Ok(Element {
                tag,
                vr: None,
                length: self.u32()?,
            });
        }
        if implicit {
            let vr = StandardDataDictionary
                .by_tag(tag)
                .map(|entry| entry.vr().relaxed());
            return Ok(Element {
                tag,
                vr,
                length: self.u32()?,
            });
        }
        let vr = self.value(2)?;
        let vr = <[u8; 2]>::try_from(vr).ok().and_then(VR::from_binary);
        let length = match vr {
            None => return Err(format!("{tag} has no known value representation")),
            Some(
                VR::OB
                | VR::OD
                | VR::OF
                | VR::OL
                | VR::OV
                | VR::OW
                | VR::SQ
                | VR::SV
                | VR::UC
                | VR::UN
                | VR::UR
                | VR::UT
                | VR::UV,
            ) => {
                self.value(2)?;
                self.u32()?
            }
            Some(_) => u32::from(self.u16()?),
        };
        Ok(Element { tag, vr, length })
    }

    /// The items of compressed pixel data: an offset table, fragments, and an end.
    fn fragments(&mut self, structure: &mut Structure) -> Result<(), String> {
        loop {
            let item = self.element(true)?;
            if item.tag.group() != ITEM.group() {
                return Err(format!("expected a fragment of pixels, got {}", item.tag));
            }
            let fragment = self.value(item.length)?;
            if item.tag != ITEM {
                return Ok(());
            }
            structure.frames.extend(jpeg_size(fragment));
        }
    }

    fn value(&mut self, length: u32) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let value = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length));
        let value = value.ok_or_else(|| {
            format!(
                "expected {length} bytes at byte {}, got {}",
                self.at,
                rest.len()
            )
        })?;
        self.at += value.len();
        Ok(value)
    }

    fn peek_group(&self) -> Option<u16> {
        let group = self.bytes.get(self.at..)?.first_chunk()?;
        Some(u16::from_le_bytes(*group))
    }

    fn u16(&mut self) -> Result<u16, String> {
        let [low, high] = [0, 1].map(|at| self.bytes.get(self.at + at).copied());
        self.value(2)?;
        Ok(u16::from_le_bytes([low.unwrap_or(0), high.unwrap_or(0)]))
    }

    fn u32(&mut self) -> Result<u32, String> {
        let low = self.u16()?;
        Ok(u32::from(low) | u32::from(self.u16()?) << 16)
    }
}

/// Height and width that the first frame header of a JPEG stream declares.
fn jpeg_size(stream: &[u8]) -> Option<(u16, u16)> {
    let mut rest = stream.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let (&[first, marker, high, low], after) = rest.split_first_chunk()?;
        if first != 0xff {
            return None;
        }
        // Frame headers are C0 … CF but for tables (C4), extensions (C8) and conditioning (CC).
        if (0xc0..=0xcf).contains(&marker) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let (&[_, height_high, height_low, width_high, width_low], _) =
                after.split_first_chunk()?;
            let height = u16::from_be_bytes([height_high, height_low]);
            return Some((height, u16::from_be_bytes([width_high, width_low])));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = after.get(length.checked_sub(2)?..)?;
    }
}
