//! The elements of a data set, read with every declared length checked against the bytes there are.
//!
//! Only the attributes that this crate looks at are kept, as slices of the file; all others are walked over. Nothing
//! is allocated by a declared length, and sequences are followed to a bounded depth.

use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry, VirtualVr};
use dicom_core::{Tag, VR};
use dicom_dictionary_std::{StandardDataDictionary, tags};

use super::fault::Fault;

const ITEM: Tag = Tag(0xfffe, 0xe000);
const ITEM_END: Tag = Tag(0xfffe, 0xe00d);
const SEQUENCE_END: Tag = Tag(0xfffe, 0xe0dd);
const UNDEFINED: u32 = u32::MAX;
/// Real files nest three or four sequences and their items.
const DEEPEST: usize = 32;
/// Of a sequence that is kept, the first items: views have one or two, frames other than the first are never shown.
const KEPT_ITEMS: usize = 16;

/// The attributes that are kept. Everything else in a file is not looked at.
const KEPT: [Tag; 51] = [
    tags::SOP_CLASS_UID,
    tags::MODALITY,
    tags::SERIES_DESCRIPTION,
    tags::CODE_VALUE,
    tags::CODING_SCHEME_DESIGNATOR,
    tags::CODE_MEANING,
    tags::PATIENT_ID,
    tags::PATIENT_AGE,
    tags::PATIENT_SEX,
    tags::BODY_PART_EXAMINED,
    tags::PROTOCOL_NAME,
    tags::ACQUISITION_DEVICE_PROCESSING_DESCRIPTION,
    tags::VIEW_POSITION,
    tags::STUDY_INSTANCE_UID,
    tags::PATIENT_ORIENTATION,
    tags::VIEW_CODE_SEQUENCE,
    tags::VIEW_MODIFIER_CODE_SEQUENCE,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::PIXEL_PADDING_VALUE,
    tags::PIXEL_PADDING_RANGE_LIMIT,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::VOILUT_FUNCTION,
    tags::RESCALE_SLOPE,
    tags::RESCALE_INTERCEPT,
    tags::MODALITY_LUT_SEQUENCE,
    tags::VOILUT_SEQUENCE,
    tags::LUT_DESCRIPTOR,
    tags::LUT_DATA,
    tags::PRESENTATION_LUT_SHAPE,
    tags::PRESENTATION_LUT_SEQUENCE,
    tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    tags::FRAME_VOILUT_SEQUENCE,
    tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    tags::PIXEL_DATA,
    tags::FLOAT_PIXEL_DATA,
    tags::DOUBLE_FLOAT_PIXEL_DATA,
    tags::PIXEL_DATA_PROVIDER_URL,
    tags::LONG_CODE_VALUE,
    tags::URN_CODE_VALUE,
    tags::MEDIA_STORAGE_SOP_CLASS_UID,
    tags::TRANSFER_SYNTAX_UID,
];

/// How elements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// With their value representations.
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
}

impl Encoding {
    pub(super) const IMPLICIT: Self = Self {
        explicit: false,
        big_endian: false,
    };
    pub(super) const EXPLICIT: Self = Self {
        explicit: true,
        big_endian: false,
    };
    pub(super) const BIG_ENDIAN: Self = Self {
        explicit: true,
        big_endian: true,
    };
}

/// The attributes of a file, of an item, or of a meta group that are looked at.
#[derive(Debug, Default)]
pub(super) struct DataSet<'a>(Vec<(Tag, Element<'a>)>);

#[derive(Debug)]
pub(super) struct Element<'a> {
    /// As the file says, or as the dictionary does where the file says nothing or `UN`.
    pub(super) vr: Option<VR>,
    pub(super) big_endian: bool,
    pub(super) value: Value<'a>,
}

#[derive(Debug)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    Items(Vec<DataSet<'a>>),
    /// Compressed pixels: an offset table and the pieces of the frames.
    Fragments(Vec<&'a [u8]>),
}

impl<'a> DataSet<'a> {
    /// Reads all of `bytes`, and says how many bytes behind the pixels are no elements.
    ///
    /// Behind a data set PS3.5 section 8.1.1 allows zeros; elements that are cut off or none at all before the pixels
    /// are an error, but behind them they cost nothing: attributes stand in the order of their tags.
    pub(super) fn read(bytes: &'a [u8], encoding: Encoding) -> Result<(Self, usize), Fault> {
        let mut reader = Reader {
            bytes,
            at: 0,
            encoding,
        };
        let mut elements = Vec::new();
        let mut pixels_end = None;
        while reader.at < bytes.len() {
            let rest = bytes.get(reader.at..).unwrap_or(&[]);
            let begin = reader.at;
            if pixels_end.is_some() && rest.iter().all(|&byte| byte == 0) {
                break;
            }
            match reader.element(0, true) {
                Ok((tag, element)) => {
                    if tag == tags::PIXEL_DATA {
                        pixels_end = Some(reader.at);
                    }
                    keep(&mut elements, tag, element)?;
                }
                Err(_) if pixels_end.is_some() => {
                    return Ok((Self(elements), bytes.len() - begin));
                }
                Err(problem) => return Err(Fault::Damaged(problem)),
            }
        }
        Ok((Self(elements), 0))
    }

    /// Reads the elements of group 2 at the beginning of `bytes`; returns where they end. Whatever their declared
    /// length says: it is often missing or wrong, and the group's own elements show where it ends.
    pub(super) fn read_meta_group(bytes: &'a [u8]) -> Result<(Self, usize), Fault> {
        let encoding = Encoding::of_first_element(bytes);
        let mut reader = Reader {
            bytes,
            at: 0,
            encoding,
        };
        let mut elements = Vec::new();
        while reader.peek_group() == Some(2) {
            let (tag, element) = reader.element(0, true).map_err(Fault::Damaged)?;
            keep(&mut elements, tag, element)?;
        }
        Ok((Self(elements), reader.at))
    }

    pub(super) fn get(&self, tag: Tag) -> Option<&Element<'a>> {
        let found = self.0.iter().find(|(held, _)| *held == tag);
        found.map(|(_, element)| element)
    }
}

fn keep<'a>(
    elements: &mut Vec<(Tag, Element<'a>)>,
    tag: Tag,
    element: Option<Element<'a>>,
) -> Result<(), Fault> {
    let Some(element) = element else {
        return Ok(());
    };
    if elements.iter().any(|(held, _)| *held == tag) {
        return Err(Fault::Damaged(format!(
            "{} occurs twice",
            super::fault::attribute(tag)
        )));
    }
    elements.push((tag, element));
    Ok(())
}

impl Encoding {
    /// Little-endian, with value representations if two capital letters follow the first tag: the length of a first
    /// element without them is short, so that its bytes are no letters.
    pub(super) fn of_first_element(bytes: &[u8]) -> Self {
        let letters = bytes.get(4..6);
        Self {
            explicit: letters.is_some_and(|letters| letters.iter().all(u8::is_ascii_uppercase)),
            big_endian: false,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    encoding: Encoding,
}

struct Head {
    tag: Tag,
    vr: Option<VR>,
    length: u32,
}

impl<'a> Reader<'a> {
    /// Reads an element; of one that is not kept, only how long it is.
    fn element(
        &mut self,
        depth: usize,
        wanted: bool,
    ) -> Result<(Tag, Option<Element<'a>>), String> {
        let head = self.head()?;
        let tag = head.tag;
        if tag.group() == ITEM.group() {
            return Err(format!("{tag} ends nothing"));
        }
        let wanted = wanted && KEPT.contains(&tag);
        let in_dictionary = || {
            match StandardDataDictionary.by_tag(tag)?.vr() {
                VirtualVr::Exact(vr) => Some(vr),
                // Signed or not as the pixels are: 16 bits in any case.
                VirtualVr::Xs => Some(VR::US),
                _ => None,
            }
        };
        let is_unknown = head.vr == Some(VR::UN);
        let vr = match head.vr {
            None | Some(VR::UN) => in_dictionary(),
            known => known,
        };
        let encoding = self.encoding;
        let value = if head.length == UNDEFINED {
            if tag == tags::PIXEL_DATA {
                Value::Fragments(self.fragments()?)
            } else {
                let is_sequence = matches!(head.vr, None | Some(VR::SQ | VR::UN));
                if !is_sequence {
                    return Err(format!("the length of {tag} is undefined"));
                }
                // An element that a program did not know keeps the form in which it came, without value
                // representations (PS3.5 section 6.2.2, note 4; CP-246).
                if is_unknown {
                    self.encoding = Encoding::IMPLICIT;
                }
                let items = self.items(None, depth + 1, wanted);
                self.encoding = encoding;
                Value::Items(items?)
            }
        } else if wanted && vr == Some(VR::SQ) {
            let end = self.end_of(head.length)?;
            if is_unknown {
                self.encoding = Encoding::IMPLICIT;
            }
            let items = self.items(Some(end), depth + 1, wanted);
            self.encoding = encoding;
            Value::Items(items?)
        } else {
            Value::Bytes(self.value(head.length)?)
        };
        let element = Element {
            vr,
            big_endian: encoding.big_endian && !is_unknown,
            value,
        };
        Ok((tag, wanted.then_some(element)))
    }

    fn head(&mut self) -> Result<Head, String> {
        let tag = Tag(self.u16()?, self.u16()?);
        if tag.group() == ITEM.group() || !self.encoding.explicit {
            return Ok(Head {
                tag,
                vr: None,
                length: self.u32()?,
            });
        }
        let letters = <[u8; 2]>::try_from(self.value(2)?).unwrap_or_default();
        let vr = match VR::from_binary(letters) {
            Some(vr) => vr,
            // Representations that the standard may add have long lengths.
            None if letters.iter().all(u8::is_ascii_uppercase) => VR::UN,
            None => return Err(format!("{tag} has no known value representation")),
        };
        let length = match vr {
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
            | VR::UV => {
                self.value(2)?;
                self.u32()?
            }
            _ => u32::from(self.u16()?),
        };
        Ok(Head {
            tag,
            vr: Some(vr),
            length,
        })
    }

    /// The items of a sequence that ends at `end`, or where its delimiter says.
    fn items(
        &mut self,
        end: Option<usize>,
        depth: usize,
        wanted: bool,
    ) -> Result<Vec<DataSet<'a>>, String> {
        if depth > DEEPEST {
            return Err(format!("sequences are nested more than {DEEPEST} deep"));
        }
        let mut items = Vec::new();
        while end.is_none_or(|end| self.at < end) {
            let head = self.head()?;
            match head.tag {
                ITEM => {}
                SEQUENCE_END if head.length == 0 => return Ok(items),
                other => return Err(format!("expected an item of a sequence, got {other}")),
            }
            let item_end = match head.length {
                UNDEFINED => None,
                length => Some(self.end_of(length)?),
            };
            let item = self.item(item_end, depth, wanted && items.len() < KEPT_ITEMS)?;
            if wanted && items.len() < KEPT_ITEMS {
                items.push(item);
            }
        }
        self.ends_at(end)?;
        Ok(items)
    }

    fn item(
        &mut self,
        end: Option<usize>,
        depth: usize,
        wanted: bool,
    ) -> Result<DataSet<'a>, String> {
        let mut elements = Vec::new();
        while end.is_none_or(|end| self.at < end) {
            if end.is_none() && self.peek_group() == Some(ITEM.group()) {
                let head = self.head()?;
                if head.tag == ITEM_END && head.length == 0 {
                    return Ok(DataSet(elements));
                }
                return Err(format!("expected the end of an item, got {}", head.tag));
            }
            let (tag, element) = self.element(depth, wanted)?;
            elements.extend(element.map(|element| (tag, element)));
        }
        self.ends_at(end)?;
        Ok(DataSet(elements))
    }

    fn ends_at(&self, end: Option<usize>) -> Result<(), String> {
        if end.is_some_and(|end| end != self.at) {
            return Err(format!(
                "the elements up to byte {} are longer than their sequence",
                self.at
            ));
        }
        Ok(())
    }

    /// The items of compressed pixel data: an offset table, fragments, and an end.
    fn fragments(&mut self) -> Result<Vec<&'a [u8]>, String> {
        let mut fragments = Vec::new();
        loop {
            let head = self.head()?;
            match head.tag {
                ITEM => fragments.push(self.value(head.length)?),
                SEQUENCE_END => return Ok(fragments),
                other => return Err(format!("expected a fragment of pixels, got {other}")),
            }
        }
    }

    fn end_of(&self, length: u32) -> Result<usize, String> {
        let end = self.at.checked_add(length as usize);
        let end = end.filter(|&end| end <= self.bytes.len());
        end.ok_or_else(|| self.too_long(length))
    }

    fn value(&mut self, length: u32) -> Result<&'a [u8], String> {
        let end = self.end_of(length)?;
        let value = self.bytes.get(self.at..end).unwrap_or(&[]);
        self.at = end;
        Ok(value)
    }

    fn too_long(&self, length: u32) -> String {
        let rest = self.bytes.len().saturating_sub(self.at);
        format!("expected {length} bytes at byte {}, got {rest}", self.at)
    }

    fn peek_group(&self) -> Option<u16> {
        let bytes = *self.bytes.get(self.at..)?.first_chunk()?;
        Some(self.word(bytes))
    }

    fn word(&self, bytes: [u8; 2]) -> u16 {
        match self.encoding.big_endian {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        }
    }

    fn u16(&mut self) -> Result<u16, String> {
        let bytes = <[u8; 2]>::try_from(self.value(2)?).unwrap_or_default();
        Ok(self.word(bytes))
    }

    fn u32(&mut self) -> Result<u32, String> {
        let bytes = <[u8; 4]>::try_from(self.value(4)?).unwrap_or_default();
        Ok(match self.encoding.big_endian {
            true => u32::from_be_bytes(bytes),
            false => u32::from_le_bytes(bytes),
        })
    }
}
