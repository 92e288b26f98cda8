//! DICOM files to grey pixels, and which of them are refused.
//!
//! Stored values pass through the modality's rescale, then a window (or the VOI table that stands
//! for one) to 0 … 255, then, for `MONOCHROME1`, inversion: PS3.3 sections C.11.1 and C.11.2 of the
//! DICOM standard. Without a window the whole range of the stored bits is shown, so that an 8-bit
//! image comes back as it is.

mod structure;

use std::io::Cursor;
use std::path::Path;

use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, Tag};
use dicom_pixeldata::{DecodedPixelData, PixelDecoder, PixelRepresentation};

use crate::decode::check_size;
use crate::name::excerpt;
use crate::{DatasetError, GrayImage};

/// Transfer syntaxes that are read: uncompressed, and JPEG baseline, extended and lossless.
const READ: [&str; 6] = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
];

/// The image, and how its pixels are stored.
pub(crate) fn decode(bytes: &[u8], origin: &Path) -> Result<(GrayImage, String), DatasetError> {
    let syntax = structure::transfer_syntax(bytes).map_err(|problem| damaged(origin, problem))?;
    if !READ.contains(&syntax.as_str()) {
        let name = match syntax.as_str() {
            "1.2.840.10008.1.2.2" => "big-endian",
            "1.2.840.10008.1.2.1.99" => "deflated",
            "1.2.840.10008.1.2.4.80" | "1.2.840.10008.1.2.4.81" => "JPEG-LS",
            "1.2.840.10008.1.2.4.90" | "1.2.840.10008.1.2.4.91" => "JPEG 2000",
            "1.2.840.10008.1.2.5" => "run lengths",
            _ => "unknown",
        };
        return Err(DatasetError::ImageFormat {
            path: origin.to_owned(),
            found: format!(
                "a DICOM file of the transfer syntax `{}` ({name}), which is not read: convert it to an uncompressed one",
                excerpt(&syntax)
            ),
        });
    }
    let structure = structure::check(bytes).map_err(|problem| damaged(origin, problem))?;
    let object = dicom_object::from_reader(Cursor::new(bytes));
    let object = object.map_err(|error| damaged(origin, error))?;
    let file = File { origin, object };
    file.refuse_other_than_frontal_radiographs()?;
    let (width, height) = (file.number(tags::COLUMNS)?, file.number(tags::ROWS)?);
    check_size(u64::from(width), u64::from(height), origin)?;
    let mut frames = structure.frames.iter();
    if let Some((frame_height, frame_width)) = frames.find(|&&frame| frame != (height, width)) {
        return Err(file.damaged(format!(
            "expected a frame of {width}×{height} pixels, got {frame_width}×{frame_height}"
        )));
    }
    let decoded = file
        .object
        .decode_pixel_data()
        .map_err(|error| file.damaged(error))?;
    let stored = file.stored_values(&decoded, width as usize * height as usize)?;
    let shown = file.shading(&decoded)?;
    let pixels = stored.into_iter().map(|value| shown.gray(value)).collect();
    let mode = format!(
        "{} {} of {} bits",
        file.text(tags::PHOTOMETRIC_INTERPRETATION)?
            .unwrap_or_default(),
        decoded.bits_stored(),
        decoded.bits_allocated()
    );
    Ok((
        GrayImage::new(width as usize, height as usize, pixels)?,
        mode,
    ))
}

fn damaged(
    origin: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> DatasetError {
    DatasetError::ImageDamaged {
        path: origin.to_owned(),
        format: "DICOM",
        source: source.into(),
    }
}

struct File<'a> {
    origin: &'a Path,
    object: DefaultDicomObject,
}

impl File<'_> {
    fn refuse_other_than_frontal_radiographs(&self) -> Result<(), DatasetError> {
        let refuse = |found: String| {
            Err(DatasetError::NotARadiograph {
                path: self.origin.to_owned(),
                found,
            })
        };
        match self.text(tags::MODALITY)?.as_deref() {
            Some("CR" | "DX" | "RG") => {}
            Some(other) => return refuse(format!("modality `{}`", excerpt(other))),
            None => return refuse("a DICOM file without modality".to_owned()),
        }
        if let Some(frames) = self
            .text(tags::NUMBER_OF_FRAMES)?
            .filter(|frames| frames != "1")
        {
            return refuse(format!("`{}` frames", excerpt(&frames)));
        }
        let view = self
            .text(tags::VIEW_POSITION)?
            .unwrap_or_default()
            .to_ascii_uppercase();
        if matches!(view.as_str(), "LL" | "RL" | "LLD" | "RLD") || view.contains("LAT") {
            return refuse(format!("a lateral view (`{}`)", excerpt(&view)));
        }
        let photometric = self
            .text(tags::PHOTOMETRIC_INTERPRETATION)?
            .unwrap_or_default();
        if !matches!(photometric.as_str(), "MONOCHROME1" | "MONOCHROME2") {
            return refuse(format!("colour (`{}`)", excerpt(&photometric)));
        }
        if self
            .object
            .element_opt(tags::MODALITY_LUT_SEQUENCE)
            .is_ok_and(|found| found.is_some())
        {
            return refuse("a modality table, which is not read".to_owned());
        }
        Ok(())
    }

    /// Sample values with their sign, before any rescale.
    fn stored_values(
        &self,
        decoded: &DecodedPixelData<'_>,
        n_pixels: usize,
    ) -> Result<Vec<i32>, DatasetError> {
        let (allocated, stored) = (decoded.bits_allocated(), decoded.bits_stored());
        let sound = matches!(allocated, 8 | 16)
            && (1..=allocated).contains(&stored)
            && decoded.high_bit() + 1 == stored
            && decoded.samples_per_pixel() == 1;
        if !sound {
            return Err(self.damaged(format!(
                "expected one sample of 8 or 16 bits, got {} of {stored} in {allocated} up to bit {}",
                decoded.samples_per_pixel(),
                decoded.high_bit(),
            )));
        }
        let words: Vec<u16> = match allocated {
            8 => decoded.data().iter().map(|&byte| u16::from(byte)).collect(),
            _ => decoded.data_ow(),
        };
        // A frame of odd length is padded by one byte.
        if !(n_pixels..=n_pixels + 1).contains(&words.len()) {
            return Err(self.damaged(format!("expected {n_pixels} pixels, got {}", words.len())));
        }
        // Bits above the stored ones may hold an overlay; the sign is the highest stored one.
        let unused = 32 - u32::from(stored);
        let signed = decoded.pixel_representation() == PixelRepresentation::Signed;
        let value = |word: u16| {
            let shifted = u32::from(word) << unused;
            if signed {
                (shifted as i32) >> unused
            } else {
                (shifted >> unused) as i32
            }
        };
        Ok(words.into_iter().take(n_pixels).map(value).collect())
    }

    fn shading(&self, decoded: &DecodedPixelData<'_>) -> Result<Shading, DatasetError> {
        let rescale = decoded.rescale().map_err(|error| self.damaged(error))?;
        let (slope, intercept) = match rescale.first() {
            Some(rescale) => (rescale.slope, rescale.intercept),
            None => (1.0, 0.0),
        };
        if !slope.is_finite() || !intercept.is_finite() || slope == 0.0 {
            return Err(self.damaged(format!("its rescale is {slope}, {intercept}")));
        }
        let windows = decoded.window().map_err(|error| self.damaged(error))?;
        let tables = decoded
            .voi_lut_sequence()
            .map_err(|error| self.damaged(error))?;
        let curve = if let Some(window) = windows.and_then(<[_]>::first) {
            self.window(window.center, window.width)?
        } else if let Some(table) = tables.and_then(<[_]>::first) {
            let white = f64::from((1_u32 << u32::from(table.bits_stored).clamp(1, 16)) - 1);
            let grays = table
                .data
                .iter()
                .map(|&entry| 255.0 * f64::from(entry) / white)
                .collect();
            Curve::Table {
                first: f64::from(table.min_pixel_value),
                grays,
            }
        } else {
            let range = f64::from((1_u32 << u32::from(decoded.bits_stored())) - 1);
            let signed = decoded.pixel_representation() == PixelRepresentation::Signed;
            let lowest = if signed { -(range + 1.0) / 2.0 } else { 0.0 };
            let ends = [lowest, lowest + range].map(|value| slope * value + intercept);
            Curve::Line {
                black: ends[0].min(ends[1]),
                white: ends[0].max(ends[1]),
            }
        };
        let inverted =
            self.text(tags::PHOTOMETRIC_INTERPRETATION)?.as_deref() == Some("MONOCHROME1");
        Ok(Shading {
            slope,
            intercept,
            curve,
            inverted,
        })
    }

    fn window(&self, center: f64, width: f64) -> Result<Curve, DatasetError> {
        let function = self.text(tags::VOILUT_FUNCTION)?;
        let least = if matches!(function.as_deref(), None | Some("LINEAR")) {
            1.0
        } else {
            f64::MIN_POSITIVE
        };
        if !(center.is_finite() && width.is_finite() && width >= least) {
            return Err(self.damaged(format!("its window is {center}, {width}")));
        }
        match function.as_deref() {
            None | Some("LINEAR") => {
                let middle = center - 0.5;
                let half = (width - 1.0) / 2.0;
                Ok(Curve::Line {
                    black: middle - half,
                    white: middle + half,
                })
            }
            Some("LINEAR_EXACT") => Ok(Curve::Line {
                black: center - width / 2.0,
                white: center + width / 2.0,
            }),
            Some("SIGMOID") => Ok(Curve::Sigmoid { center, width }),
            Some(other) => Err(self.damaged(format!(
                "its window is of the unknown kind `{}`",
                excerpt(other)
            ))),
        }
    }

    /// An attribute as text without padding; `None` when it is absent or empty.
    fn text(&self, tag: Tag) -> Result<Option<String>, DatasetError> {
        let element = self
            .object
            .element_opt(tag)
            .map_err(|error| self.damaged(error))?;
        let Some(element) = element else {
            return Ok(None);
        };
        let text = element.to_str().map_err(|error| self.damaged(error))?;
        let text = text.trim_matches([' ', '\0']);
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    fn number(&self, tag: Tag) -> Result<u16, DatasetError> {
        let element = self
            .object
            .element(tag)
            .map_err(|error| self.damaged(error))?;
        element.to_int().map_err(|error| self.damaged(error))
    }

    fn damaged(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DatasetError {
        damaged(self.origin, source)
    }
}

/// From stored values to grey.
struct Shading {
    slope: f64,
    intercept: f64,
    curve: Curve,
    inverted: bool,
}

/// From rescaled values to 0 … 255.
enum Curve {
    Line { black: f64, white: f64 },
    Sigmoid { center: f64, width: f64 },
    Table { first: f64, grays: Vec<f64> },
}

impl Shading {
    fn gray(&self, stored: i32) -> u8 {
        let value = self.slope * f64::from(stored) + self.intercept;
        let gray = match &self.curve {
            Curve::Line { black, white } if value <= *black => 0.0,
            Curve::Line { white, .. } if value > *white => 255.0,
            Curve::Line { black, white } => 255.0 * (value - black) / (white - black),
            Curve::Sigmoid { center, width } => {
                255.0 / (1.0 + (-4.0 * (value - center) / width).exp())
            }
            Curve::Table { first, grays } => {
                let last = grays.len().saturating_sub(1) as f64;
                let position = (value - first).round().clamp(0.0, last) as usize;
                grays.get(position).copied().unwrap_or(0.0)
            }
        };
        let gray = gray.round().clamp(0.0, 255.0) as u8;
        if self.inverted { 255 - gray } else { gray }
    }
}
