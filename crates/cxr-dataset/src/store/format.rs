//! The bytes of a prepared store, all numbers little-endian.
//!
//! ```text
//! 0       header, 192 bytes (see `Header`), the last four its own CRC-32
//! 192     where each name begins among the names, n + 1 times u32; then the names, sorted
//! (8)     entries, n times 24 bytes (see `Entry`), aligned to 8
//! (4096)  pixels, n times side × side bytes, aligned to 4096, in the order of the names
//! ```
//!
//! Each image has its place from the start, so the bytes do not depend on which thread finished
//! first, and a stopped preparation continues where it was. A place whose image could not be
//! prepared stays empty, and its entry says so.

use crate::{
    Fingerprint, ImageAttributes, ImageName, Sex, StoreSettings, Tone, ViewPosition, WarningKind,
};

pub(super) const MAGIC: &[u8; 8] = b"CXRSTORE";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_LEN: usize = 192;
pub(super) const ENTRY_LEN: usize = 24;
const HEADER_CRC_AT: usize = HEADER_LEN - 4;
const PAGE: u64 = 4096;
/// The one resizing there is: antialiased bicubic, a = −0.5.
const BICUBIC: u32 = 1;
/// How values became grey levels.
const AS_STORED: u32 = 0;
const STRETCHED: u32 = 1;

/// Where things lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) n_images: u64,
    pub(super) names_len: u64,
    pub(super) side: u32,
}

impl Layout {
    pub(super) fn names_at(&self) -> Option<u64> {
        let offsets = self.n_images.checked_add(1)?.checked_mul(4)?;
        offsets.checked_add(HEADER_LEN as u64)
    }

    pub(super) fn entries_at(&self) -> Option<u64> {
        self.names_at()?
            .checked_add(self.names_len)?
            .checked_next_multiple_of(8)
    }

    pub(super) fn pixels_at(&self) -> Option<u64> {
        let entries = self.n_images.checked_mul(ENTRY_LEN as u64)?;
        self.entries_at()?
            .checked_add(entries)?
            .checked_next_multiple_of(PAGE)
    }

    pub(super) fn image_len(&self) -> u64 {
        u64::from(self.side) * u64::from(self.side)
    }

    pub(super) fn file_len(&self) -> Option<u64> {
        let pixels = self.n_images.checked_mul(self.image_len())?;
        self.pixels_at()?.checked_add(pixels)
    }
}

/// The first bytes of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// False while images are still being added.
    pub(super) complete: bool,
    pub(super) settings: StoreSettings,
    pub(super) layout: Layout,
    /// CRC-32 of everything between header and pixels.
    pub(super) index_crc: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) source_fingerprint: Fingerprint,
}

impl Header {
    pub(super) fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut fields = Vec::with_capacity(HEADER_LEN);
        fields.extend_from_slice(MAGIC);
        fields.extend(VERSION.to_le_bytes());
        fields.extend(u32::from(self.complete).to_le_bytes());
        fields.extend(self.settings.side().to_le_bytes());
        fields.extend(BICUBIC.to_le_bytes());
        fields.extend(self.layout.n_images.to_le_bytes());
        fields.extend(self.layout.names_len.to_le_bytes());
        fields.extend(self.index_crc.to_le_bytes());
        let tone = match self.settings.tone() {
            Tone::AsStored => AS_STORED,
            Tone::Stretched => STRETCHED,
        };
        fields.extend(tone.to_le_bytes());
        fields.extend(self.fingerprint.as_bytes());
        fields.extend(self.source_fingerprint.as_bytes());
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        let (covered, crc) = bytes.split_at_mut(HEADER_CRC_AT);
        crc.copy_from_slice(&crc32fast::hash(covered).to_le_bytes());
        bytes
    }

    /// The header, or what is wrong with it.
    pub(super) fn parse(file: &[u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "it is shorter than its header";
        if !file.starts_with(MAGIC) {
            return Err("it is not a prepared store");
        }
        let header = file.get(..HEADER_LEN).ok_or(SHORT)?;
        let covered = header.get(..HEADER_CRC_AT).ok_or(SHORT)?;
        if u32_at(header, HEADER_CRC_AT) != Some(crc32fast::hash(covered)) {
            return Err("its header is damaged");
        }
        if u32_at(header, 8) != Some(VERSION) {
            return Err("it has another version of the format");
        }
        let complete = match u32_at(header, 12) {
            Some(0) => false,
            Some(1) => true,
            _ => return Err("its header is damaged"),
        };
        let side = u32_at(header, 16).ok_or(SHORT)?;
        if u32_at(header, 20) != Some(BICUBIC) {
            return Err("its images were resized in an unknown way");
        }
        let tone = match u32_at(header, 44) {
            Some(AS_STORED) => Tone::AsStored,
            Some(STRETCHED) => Tone::Stretched,
            _ => return Err("its grey levels were made in an unknown way"),
        };
        let digest = |at: usize| -> Option<Fingerprint> {
            Some(Fingerprint(header.get(at..at + 32)?.try_into().ok()?))
        };
        Ok(Self {
            complete,
            settings: StoreSettings::new(side)
                .map_err(|_| "its image size is out of range")?
                .in_tone(tone),
            layout: Layout {
                n_images: u64_at(header, 24).ok_or(SHORT)?,
                names_len: u64_at(header, 32).ok_or(SHORT)?,
                side,
            },
            index_crc: u32_at(header, 40).ok_or(SHORT)?,
            fingerprint: digest(48).ok_or(SHORT)?,
            source_fingerprint: digest(80).ok_or(SHORT)?,
        })
    }
}

/// What is kept of each image beside its pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Whether the pixels are there.
    pub(super) present: bool,
    pub(super) pixels_crc: u32,
    /// CRC-32 and length of the file that was decoded.
    pub(super) source_crc: u32,
    pub(super) source_len: u64,
    /// One bit for each kind of warning.
    pub(super) warnings: u32,
    /// What its file said beside the pixels; `None` where an earlier version prepared it, which did not look.
    pub(super) attributes: Option<ImageAttributes>,
}

/// The second number of an entry: whether there are pixels in bit 0, whether the file's attributes were looked at in bit
/// 1, sex from bit 4, view from bit 8 and age from bit 16, each by one more than its place, and 0 where it is not known.
/// Earlier versions wrote 0 and 1.
mod state {
    pub(super) const PRESENT: u32 = 1;
    pub(super) const LOOKED_AT: u32 = 1 << 1;
    pub(super) const SEX: u32 = 4;
    pub(super) const VIEW: u32 = 8;
    pub(super) const AGE: u32 = 16;
    pub(super) const KNOWN: u32 = 0xffff_0f33;
}

const SEXES: [Sex; 2] = [Sex::Female, Sex::Male];
const VIEWS: [ViewPosition; 6] = [
    ViewPosition::PosteroAnterior,
    ViewPosition::AnteroPosterior,
    ViewPosition::AnteroPosteriorSupine,
    ViewPosition::Frontal,
    ViewPosition::Lateral,
    ViewPosition::Other,
];

/// One more than the place of a value among all, 0 where there is none.
fn place<T: PartialEq>(value: Option<T>, all: &[T]) -> u32 {
    let found = value.and_then(|value| all.iter().position(|other| *other == value));
    found.map_or(0, |place| place as u32 + 1)
}

/// The value at a place that [`place`] gave: `None` for what it never gives.
fn value<T: Copy>(place: u32, all: &[T]) -> Option<Option<T>> {
    match place.checked_sub(1) {
        None => Some(None),
        Some(place) => all.get(place as usize).copied().map(Some),
    }
}

impl Entry {
    pub(super) fn kinds(self) -> impl Iterator<Item = WarningKind> {
        (WarningKind::ALL.into_iter()).filter(move |kind| self.warnings & kind.bit() != 0)
    }

    pub(super) fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        let (numbers, length) = bytes.split_at_mut(16);
        let fields = [
            self.pixels_crc,
            self.state(),
            self.source_crc,
            self.warnings,
        ];
        for (slot, field) in numbers.chunks_exact_mut(4).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        length.copy_from_slice(&self.source_len.to_le_bytes());
        bytes
    }

    fn state(self) -> u32 {
        let mut bits = u32::from(self.present);
        if let Some(attributes) = self.attributes {
            // An age that does not fit is impossible anyway, and as much above what is possible.
            let age = attributes
                .age_years
                .map_or(0, |years| u32::from(years.saturating_add(1)));
            bits |= state::LOOKED_AT
                | place(attributes.sex, &SEXES) << state::SEX
                | place(attributes.view, &VIEWS) << state::VIEW
                | age << state::AGE;
        }
        bits
    }

    /// What [`Self::state`] gave.
    fn attributes(bits: u32) -> Option<Option<ImageAttributes>> {
        if bits & state::LOOKED_AT == 0 {
            return (bits & !state::PRESENT == 0).then_some(None);
        }
        let age = bits >> state::AGE;
        Some(Some(ImageAttributes {
            age_years: match age.checked_sub(1) {
                Some(years) => Some(u16::try_from(years).ok()?),
                None => None,
            },
            sex: value(bits >> state::SEX & 0x3, &SEXES)?,
            view: value(bits >> state::VIEW & 0xf, &VIEWS)?,
        }))
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bits = u32_at(bytes, 4).filter(|bits| bits & !state::KNOWN == 0)?;
        Some(Self {
            pixels_crc: u32_at(bytes, 0)?,
            present: bits & state::PRESENT != 0,
            attributes: Self::attributes(bits)?,
            source_crc: u32_at(bytes, 8)?,
            warnings: u32_at(bytes, 12).filter(|bits| bits >> WarningKind::ALL.len() == 0)?,
            source_len: u64_at(bytes, 16)?,
        })
    }
}

/// Offsets and names as they stand behind the header; `names` are sorted.
pub(super) fn names_table(names: &[ImageName]) -> Option<Vec<u8>> {
    let mut table = Vec::new();
    let mut offset = 0_u32;
    table.extend(offset.to_le_bytes());
    for name in names {
        offset = offset.checked_add(u32::try_from(name.as_str().len()).ok()?)?;
        table.extend(offset.to_le_bytes());
    }
    for name in names {
        table.extend_from_slice(name.as_str().as_bytes());
    }
    Some(table)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}
