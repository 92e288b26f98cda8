//! From stored values to grey: the modality's rescale or table, then a VOI table or window, then the polarity
//! (PS3.3 sections C.11.1 and C.11.2).
//!
//! Where a file has both a VOI table and a window, the table is taken, as pydicom does: it is the curve that the
//! machine was set to, and the window beside it only a straight line near it.

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;

use super::attributes::{absent, element, hexadecimal, items, number, numbers, text, words};
use super::data_set::DataSet;
use super::fault::Fault;
use super::pixels::Stored;

/// The grey of every word that the pixels may hold.
pub(super) struct Shading {
    pub(super) gray: Vec<f64>,
    pub(super) inverted: bool,
    /// Values that stand for what is no part of the image, from the first to the last.
    pub(super) padding: Option<(i32, i32)>,
}

impl Shading {
    pub(super) fn read(data_set: &DataSet<'_>, stored: &Stored) -> Result<Self, Fault> {
        let modality = Modality::read(data_set, stored)?;
        let curve = Curve::read(data_set, modality.range(stored))?;
        let words = 0..=((1_u32 << stored.bits) - 1) as u16;
        let gray = words.map(|word| curve.gray(modality.value(stored.value(word))));
        Ok(Self {
            gray: gray.collect(),
            inverted: is_inverted(data_set)?,
            padding: padding(data_set, stored)?,
        })
    }
}

/// Whether high values are dark.
fn is_inverted(data_set: &DataSet<'_>) -> Result<bool, Fault> {
    let photometric = text(data_set, tags::PHOTOMETRIC_INTERPRETATION)?;
    let inverted = match photometric.as_deref() {
        Some("MONOCHROME1") => true,
        Some("MONOCHROME2") => false,
        Some(other) => {
            return Err(Fault::attribute(
                tags::PHOTOMETRIC_INTERPRETATION,
                other,
                "`MONOCHROME1` or `MONOCHROME2`",
            ));
        }
        None => return Err(absent(tags::PHOTOMETRIC_INTERPRETATION)),
    };
    if !items(data_set, tags::PRESENTATION_LUT_SEQUENCE)?.is_empty() {
        return Err(Fault::attribute(
            tags::PRESENTATION_LUT_SEQUENCE,
            "a table",
            "none: presentation tables are not read",
        ));
    }
    // It says of DX images what the photometric interpretation says too (PS3.3 section C.8.11.3); where it says the
    // opposite, nobody knows which of the two is true.
    match text(data_set, tags::PRESENTATION_LUT_SHAPE)?.as_deref() {
        None | Some("IDENTITY") => Ok(inverted),
        Some("INVERSE") if inverted => Ok(inverted),
        Some(other) => Err(Fault::attribute(
            tags::PRESENTATION_LUT_SHAPE,
            other,
            format!(
                "`IDENTITY`, or `INVERSE` with `MONOCHROME1`, beside `{}`",
                photometric.unwrap_or_default()
            ),
        )),
    }
}

/// Values that stand for padding (PS3.3 section C.7.5.1.1.2).
fn padding(data_set: &DataSet<'_>, stored: &Stored) -> Result<Option<(i32, i32)>, Fault> {
    let value = |tag: Tag| -> Result<Option<i32>, Fault> {
        let Some(value) = number(data_set, tag)? else {
            return Ok(None);
        };
        // Written as signed or as unsigned, whatever the pixels are: only the bits count.
        let bits = value as i64 as u16;
        let (lowest, highest) = (f64::from(i16::MIN), f64::from(u16::MAX));
        if value.fract() != 0.0 || !(lowest..=highest).contains(&value) {
            return Err(Fault::attribute(tag, &value.to_string(), "a stored value"));
        }
        Ok(Some(if stored.signed {
            i32::from(bits as i16)
        } else {
            i32::from(bits)
        }))
    };
    let first = value(tags::PIXEL_PADDING_VALUE)?;
    let limit = value(tags::PIXEL_PADDING_RANGE_LIMIT)?;
    match (first, limit) {
        (None, None) => Ok(None),
        (Some(first), limit) => {
            let limit = limit.unwrap_or(first);
            Ok(Some((first.min(limit), first.max(limit))))
        }
        (None, Some(limit)) => Err(Fault::attribute(
            tags::PIXEL_PADDING_RANGE_LIMIT,
            &limit.to_string(),
            "a PixelPaddingValue beside it",
        )),
    }
}

/// The data set, and the places in functional groups where files of the newer kind keep what holds for all frames and
/// for the first.
fn places<'d, 'a>(data_set: &'d DataSet<'a>, group: Tag) -> Result<Vec<&'d DataSet<'a>>, Fault> {
    let mut places = vec![data_set];
    for groups in [
        tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE,
        tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE,
    ] {
        if let Some(first) = items(data_set, groups)?.first() {
            places.extend(items(first, group)?.first());
        }
    }
    Ok(places)
}

/// From stored values to those that a VOI table or window is for.
enum Modality {
    Rescale { slope: f64, intercept: f64 },
    Table(Table),
}

impl Modality {
    fn read(data_set: &DataSet<'_>, stored: &Stored) -> Result<Self, Fault> {
        let (mut slope, mut intercept) = (None, None);
        for place in places(data_set, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE)? {
            slope = slope.or(number(place, tags::RESCALE_SLOPE)?);
            intercept = intercept.or(number(place, tags::RESCALE_INTERCEPT)?);
        }
        if slope == Some(0.0) {
            return Err(Fault::attribute(tags::RESCALE_SLOPE, "0", "another number"));
        }
        if let Some(item) = items(data_set, tags::MODALITY_LUT_SEQUENCE)?.first() {
            let (lowest, highest) = stored.range();
            let range = (f64::from(lowest), f64::from(highest));
            return Ok(Self::Table(Table::read(item, range)?));
        }
        Ok(Self::Rescale {
            slope: slope.unwrap_or(1.0),
            intercept: intercept.unwrap_or(0.0),
        })
    }

    fn value(&self, stored: i32) -> f64 {
        match self {
            Self::Rescale { slope, intercept } => slope * f64::from(stored) + intercept,
            Self::Table(table) => table.entry(f64::from(stored)),
        }
    }

    /// The least and the largest value that can come out.
    fn range(&self, stored: &Stored) -> (f64, f64) {
        match self {
            Self::Rescale { .. } => {
                let (lowest, highest) = stored.range();
                let (first, last) = (self.value(lowest), self.value(highest));
                (first.min(last), first.max(last))
            }
            Self::Table(table) => (0.0, table.white),
        }
    }
}

/// A lookup table.
struct Table {
    /// The value that the first entry is for.
    first: f64,
    entries: Vec<u16>,
    /// The largest entry that its bits can hold.
    white: f64,
}

impl Table {
    /// Reads an item of a sequence of tables; `range` is where the values lie that it is for.
    fn read(item: &DataSet<'_>, range: (f64, f64)) -> Result<Self, Fault> {
        let descriptor = element(item, tags::LUT_DESCRIPTOR)?;
        let (descriptor, bytes) = descriptor.ok_or_else(|| absent(tags::LUT_DESCRIPTOR))?;
        let invalid =
            |expected: &str| Fault::attribute(tags::LUT_DESCRIPTOR, &hexadecimal(bytes), expected);
        let words_of = |bytes| words(bytes, descriptor.big_endian);
        let Some(&[n_entries, first, bits]) = words_of(bytes).as_deref() else {
            return Err(invalid("three numbers of 16 bits"));
        };
        if !(1..=16).contains(&bits) {
            return Err(invalid("entries of 1 to 16 bits"));
        }
        // 65,536 does not fit (PS3.3 section C.11.1.1.1).
        let n_entries = match n_entries {
            0 => 1 << 16,
            n_entries => usize::from(n_entries),
        };
        // The value representation gives the sign; implicit files do not have one and others have it wrong: a first value
        // above all that can come is meant as a negative one, where values can be negative.
        let is_signed =
            descriptor.vr == Some(VR::SS) || (range.0 < 0.0 && f64::from(first) > range.1);
        let first = match is_signed {
            true => f64::from(first as i16),
            false => f64::from(first),
        };
        let (data, bytes) = element(item, tags::LUT_DATA)?.ok_or_else(|| absent(tags::LUT_DATA))?;
        let invalid = |expected: String| {
            Fault::attribute(
                tags::LUT_DATA,
                &format!("{} bytes, {}", bytes.len(), hexadecimal(bytes)),
                expected,
            )
        };
        let entries: Vec<u16> = if bytes.len() == 2 * n_entries {
            words(bytes, data.big_endian).unwrap_or_default()
        } else if bits <= 8 && (n_entries..=n_entries + 1).contains(&bytes.len()) {
            // Two entries in a word, the lower half first (PS3.3 section C.11.1.1.1): bytes in their order, unless
            // words were swapped.
            let bytes = match data.big_endian && data.vr != Some(VR::OB) {
                true => words(bytes, true)
                    .unwrap_or_default()
                    .into_iter()
                    .flat_map(u16::to_le_bytes)
                    .collect(),
                false => bytes.to_vec(),
            };
            bytes.into_iter().take(n_entries).map(u16::from).collect()
        } else {
            return Err(invalid(format!("{n_entries} entries of {bits} bits")));
        };
        let white = (1_u32 << bits) - 1;
        if let Some(entry) = entries.iter().find(|&&entry| u32::from(entry) > white) {
            return Err(invalid(format!("entries of {bits} bits, not {entry}")));
        }
        Ok(Self {
            first,
            entries,
            white: f64::from(white),
        })
    }

    /// The entry of a value; those outside the table have its first or its last.
    fn entry(&self, value: f64) -> f64 {
        let last = self.entries.len().saturating_sub(1) as f64;
        let position = (value - self.first).round().clamp(0.0, last) as usize;
        self.entries.get(position).copied().map_or(0.0, f64::from)
    }
}

/// From rescaled values to 0 … 255.
enum Curve {
    Line { black: f64, white: f64 },
    Sigmoid { center: f64, width: f64 },
    Table(Table),
}

impl Curve {
    /// Reads table and window; without either, `range`, all that can come, is shown.
    fn read(data_set: &DataSet<'_>, range: (f64, f64)) -> Result<Self, Fault> {
        let places = places(data_set, tags::FRAME_VOILUT_SEQUENCE)?;
        let mut window = None;
        for place in &places {
            let found = Self::window(place)?;
            window = window.or(found);
        }
        for place in &places {
            if let Some(item) = items(place, tags::VOILUT_SEQUENCE)?.first() {
                return Ok(Self::Table(Table::read(item, range)?));
            }
        }
        Ok(window.unwrap_or(Self::Line {
            black: range.0,
            white: range.1,
        }))
    }

    /// The first of the windows.
    fn window(place: &DataSet<'_>) -> Result<Option<Self>, Fault> {
        let named = text(place, tags::VOILUT_FUNCTION)?.unwrap_or_else(|| "LINEAR".to_owned());
        let function = named.to_ascii_uppercase();
        let function = function.as_str();
        if !matches!(function, "LINEAR" | "LINEAR_EXACT" | "SIGMOID") {
            return Err(Fault::attribute(
                tags::VOILUT_FUNCTION,
                &named,
                "`LINEAR`, `LINEAR_EXACT` or `SIGMOID`",
            ));
        }
        let centers = numbers(place, tags::WINDOW_CENTER)?;
        let widths = numbers(place, tags::WINDOW_WIDTH)?;
        let (center, width) = match (centers.first(), widths.first()) {
            (Some(&center), Some(&width)) => (center, width),
            (None, None) => return Ok(None),
            (Some(center), None) => {
                let value = center.to_string();
                return Err(Fault::attribute(
                    tags::WINDOW_CENTER,
                    &value,
                    "a WindowWidth beside it",
                ));
            }
            (None, Some(width)) => {
                let value = width.to_string();
                return Err(Fault::attribute(
                    tags::WINDOW_WIDTH,
                    &value,
                    "a WindowCenter beside it",
                ));
            }
        };
        // PS3.3 section C.11.2.1.2.1 and C.11.2.1.3.2.
        let (least, expected) = match function {
            "LINEAR" => (1.0, "at least 1"),
            _ => (f64::MIN_POSITIVE, "more than 0"),
        };
        if width < least {
            return Err(Fault::attribute(
                tags::WINDOW_WIDTH,
                &width.to_string(),
                expected,
            ));
        }
        Ok(Some(match function {
            "SIGMOID" => Self::Sigmoid { center, width },
            "LINEAR_EXACT" => Self::Line {
                black: center - width / 2.0,
                white: center + width / 2.0,
            },
            _ => Self::Line {
                black: center - 0.5 - (width - 1.0) / 2.0,
                white: center - 0.5 + (width - 1.0) / 2.0,
            },
        }))
    }

    fn gray(&self, value: f64) -> f64 {
        match self {
            Self::Line { black, .. } if value <= *black => 0.0,
            Self::Line { white, .. } if value > *white => 255.0,
            Self::Line { black, white } => 255.0 * (value - black) / (white - black),
            Self::Sigmoid { center, width } => {
                255.0 / (1.0 + (-4.0 * (value - center) / width).exp())
            }
            Self::Table(table) => 255.0 * table.entry(value) / table.white,
        }
    }
}
