//! The stored values of an image, whatever their encoding.

use std::io::Cursor;

use dicom_core::VR;
use dicom_dictionary_std::tags;

use super::attributes::{absent, integer, required, words};
use super::container::{PixelEncoding, inflate};
use super::data_set::{DataSet, Element, Value};
use super::fault::{Fault, attribute};
use super::{jpeg_2000, jpeg_ls, jpeg_xl, rle};
use crate::MAX_PIXELS;

/// What a compressed stream holds: words of `precision` bits, in two's complement if they are signed.
pub(super) struct Samples {
    pub(super) words: Vec<u16>,
    pub(super) precision: u32,
    pub(super) signed: bool,
}

/// The stored values of an image, one word for each pixel.
pub(super) struct Stored {
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) words: Vec<u16>,
    /// Bits that the words use, 1 to 16.
    pub(super) bits: u32,
    /// The bits that the file says are allocated and stored.
    pub(super) declared_bits: (u16, u16),
    /// Whether words are in two's complement.
    pub(super) signed: bool,
}

impl Stored {
    /// The value that a word stands for.
    pub(super) fn value(&self, word: u16) -> i32 {
        let unused = 32 - self.bits;
        let shifted = u32::from(word) << unused;
        match self.signed {
            true => (shifted as i32) >> unused,
            false => (shifted >> unused) as i32,
        }
    }

    /// The least and the largest value that the bits can hold.
    pub(super) fn range(&self) -> (i32, i32) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    pub(super) fn read(data_set: &DataSet<'_>, encoding: PixelEncoding) -> Result<Self, Fault> {
        let layout = Layout::read(data_set)?;
        let Layout { width, height, .. } = layout;
        let element = data_set
            .get(tags::PIXEL_DATA)
            .ok_or_else(|| no_pixels(data_set))?;
        let n_pixels = layout.n_pixels();
        let samples = match (&element.value, encoding) {
            (Value::Bytes(bytes), PixelEncoding::Native) => {
                return layout.native(bytes, element);
            }
            (Value::Fragments(fragments), encoding) if encoding != PixelEncoding::Native => {
                // The first is the table of offsets of frames; the rest are the pieces of the one frame.
                let pieces = fragments.get(1..).unwrap_or(&[]);
                let frame = match pieces {
                    [piece] => std::borrow::Cow::Borrowed(*piece),
                    pieces => pieces.concat().into(),
                };
                let damaged = |problem: String| Fault::Damaged(problem);
                match encoding {
                    PixelEncoding::Native | PixelEncoding::Encapsulated { deflated: false } => {
                        return layout.native(&frame, element);
                    }
                    PixelEncoding::Encapsulated { deflated: true } => {
                        return layout.native(&inflate(&frame)?, element);
                    }
                    PixelEncoding::RunLength => {
                        let n_bytes = usize::from(layout.allocated / 8);
                        let words = rle::decode(&frame, n_pixels, n_bytes).map_err(damaged)?;
                        return Ok(layout.shifted(words));
                    }
                    PixelEncoding::Jpeg => jpeg(&frame, width, height)?,
                    PixelEncoding::JpegLs => {
                        jpeg_ls::decode(&frame, width, height).map_err(damaged)?
                    }
                    PixelEncoding::Jpeg2000 => jpeg_2000::decode(&frame, width, height)?,
                    PixelEncoding::JpegXl => {
                        jpeg_xl::decode(&frame, width, height).map_err(damaged)?
                    }
                }
            }
            _ => {
                return Err(Fault::Damaged(format!(
                    "{} is not stored as the transfer syntax says",
                    attribute(tags::PIXEL_DATA)
                )));
            }
        };
        Ok(layout.decoded(samples))
    }
}

fn no_pixels(data_set: &DataSet<'_>) -> Fault {
    let is_there = |tag| data_set.get(tag).is_some();
    if is_there(tags::FLOAT_PIXEL_DATA) || is_there(tags::DOUBLE_FLOAT_PIXEL_DATA) {
        Fault::NotARadiograph("floating-point pixels".to_owned())
    } else if is_there(tags::PIXEL_DATA_PROVIDER_URL) {
        Fault::NotARadiograph("a file whose pixels are on a server".to_owned())
    } else {
        absent(tags::PIXEL_DATA)
    }
}

/// How pixels are stored, as the attributes say.
struct Layout {
    width: u16,
    height: u16,
    allocated: u16,
    stored: u16,
    high_bit: u16,
    signed: bool,
}

impl Layout {
    fn read(data_set: &DataSet<'_>) -> Result<Self, Fault> {
        let get = |tag, lowest, highest| required(data_set, tag, lowest, highest);
        let (width, height) = (
            get(tags::COLUMNS, 1, u16::MAX)?,
            get(tags::ROWS, 1, u16::MAX)?,
        );
        let (wide, high) = (u64::from(width), u64::from(height));
        if wide * high > MAX_PIXELS {
            return Err(Fault::TooLarge {
                width: wide,
                height: high,
            });
        }
        get(tags::SAMPLES_PER_PIXEL, 1, 1)?;
        let allocated = get(tags::BITS_ALLOCATED, 1, u16::MAX)?;
        if !matches!(allocated, 8 | 16) {
            return Err(Fault::attribute(
                tags::BITS_ALLOCATED,
                &allocated.to_string(),
                "8 or 16",
            ));
        }
        let stored = get(tags::BITS_STORED, 1, allocated)?;
        // The only value that is allowed is the default.
        let high_bit = integer(data_set, tags::HIGH_BIT, stored - 1, allocated - 1)?;
        Ok(Self {
            width,
            height,
            allocated,
            stored,
            high_bit: high_bit.unwrap_or(stored - 1),
            signed: get(tags::PIXEL_REPRESENTATION, 0, 1)? == 1,
        })
    }

    fn n_pixels(&self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }

    /// Uncompressed pixels. Padding behind them, of less than a frame, is left out.
    fn native(self, bytes: &[u8], element: &Element<'_>) -> Result<Stored, Fault> {
        let n_bytes = self.n_pixels() * usize::from(self.allocated / 8);
        if bytes.len() < n_bytes || bytes.len() >= 2 * n_bytes.max(2) {
            return Err(Fault::Damaged(format!(
                "expected {} pixels of {} bits in {n_bytes} bytes, got {} bytes",
                self.n_pixels(),
                self.allocated,
                bytes.len()
            )));
        }
        let is_swapped = element.big_endian && element.vr != Some(VR::OB);
        let values = bytes.get(..n_bytes).unwrap_or(bytes);
        let words: Vec<u16> = match self.allocated {
            // Bytes that are written as words are swapped in pairs.
            8 if is_swapped => {
                let (pairs, _) = bytes.as_chunks::<2>();
                let swapped = pairs.iter().flat_map(|&[first, second]| [second, first]);
                swapped.map(u16::from).take(n_bytes).collect()
            }
            8 => values.iter().copied().map(u16::from).collect(),
            _ => words(values, element.big_endian).unwrap_or_default(),
        };
        if words.len() != self.n_pixels() {
            return Err(Fault::Damaged(format!(
                "expected {} pixels, got {}",
                self.n_pixels(),
                words.len()
            )));
        }
        Ok(self.shifted(words))
    }

    /// Words with the value up to the high bit. Bits above it may hold an overlay.
    fn shifted(self, mut words: Vec<u16>) -> Stored {
        let below = self.high_bit + 1 - self.stored;
        let mask = ((1_u32 << self.stored) - 1) as u16;
        for word in &mut words {
            *word = (*word >> below) & mask;
        }
        let bits = u32::from(self.stored);
        self.stored(words, bits)
    }

    /// Words of a compressed stream, which has a precision of its own: one that the file's bits do not hold wins.
    fn decoded(self, samples: Samples) -> Stored {
        let Samples {
            mut words,
            precision,
            signed,
        } = samples;
        let bits = u32::from(self.stored);
        let unused = 32 - precision;
        let value = |word: u16| {
            let shifted = u32::from(word) << unused;
            match self.signed || signed {
                true => (shifted as i32) >> unused,
                false => (shifted >> unused) as i32,
            }
        };
        let range = match self.signed {
            true => -(1 << (bits - 1))..=(1 << (bits - 1)) - 1,
            false => 0..=(1 << bits) - 1,
        };
        if words.iter().all(|&word| range.contains(&value(word))) {
            let mask = ((1_u32 << bits) - 1) as u16;
            for word in &mut words {
                *word = value(*word) as u16 & mask;
            }
            self.stored(words, bits)
        } else {
            self.stored(words, precision)
        }
    }

    fn stored(self, words: Vec<u16>, bits: u32) -> Stored {
        Stored {
            width: self.width,
            height: self.height,
            words,
            bits,
            declared_bits: (self.allocated, self.stored),
            signed: self.signed,
        }
    }
}

fn jpeg(frame: &[u8], width: u16, height: u16) -> Result<Samples, Fault> {
    use jpeg_decoder::{CodingProcess, Decoder, Error, PixelFormat, UnsupportedFeature};
    if !crate::decode::has_jpeg_end(frame) {
        return Err(Fault::Damaged("the JPEG stream has no end marker".into()));
    }
    let failed = |error: Error| match error {
        Error::Unsupported(UnsupportedFeature::SamplePrecision(bits)) => Fault::Format(format!(
            "a DICOM file of lossy JPEG with {bits} bits, which is not read: convert it to an uncompressed one"
        )),
        error => Fault::Damaged(error.to_string()),
    };
    let mut decoder = Decoder::new(Cursor::new(frame));
    decoder.read_info().map_err(failed)?;
    let info = decoder
        .info()
        .ok_or_else(|| Fault::Damaged("the JPEG stream has no frame".into()))?;
    if (info.width, info.height) != (width, height) {
        return Err(Fault::Damaged(format!(
            "expected a frame of {width}×{height} pixels, got {}×{}",
            info.width, info.height
        )));
    }
    let bytes = decoder.decode().map_err(failed)?;
    let words: Vec<u16> = match info.pixel_format {
        PixelFormat::L8 => bytes.into_iter().map(u16::from).collect(),
        PixelFormat::L16 => {
            let (pairs, _) = bytes.as_chunks::<2>();
            pairs.iter().map(|&pair| u16::from_ne_bytes(pair)).collect()
        }
        other => {
            return Err(Fault::Damaged(format!(
                "expected one component, got {other:?}"
            )));
        }
    };
    if words.len() != usize::from(width) * usize::from(height) {
        return Err(Fault::Damaged(
            "the JPEG stream has another size than it declares".into(),
        ));
    }
    // Lossless streams declare their precision, which the decoder keeps to itself.
    let precision = match (info.coding_process, info.pixel_format) {
        (CodingProcess::Lossless, _) => jpeg_precision(frame).unwrap_or(16),
        _ => 8,
    };
    Ok(Samples {
        words,
        precision: precision.clamp(1, 16),
        signed: false,
    })
}

/// Bits of a sample, from the first frame header of a JPEG stream.
fn jpeg_precision(stream: &[u8]) -> Option<u32> {
    let mut rest = stream.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let (&[first, marker, high, low], after) = rest.split_first_chunk()?;
        if first != 0xff {
            return None;
        }
        // Frame headers are C0 … CF but for tables (C4), extensions (C8) and conditioning (CC).
        if (0xc0..=0xcf).contains(&marker) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return after.first().copied().map(u32::from);
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = after.get(length.checked_sub(2)?..)?;
    }
}
