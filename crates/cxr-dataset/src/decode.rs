//! Image files to grey pixels.

use std::io::Cursor;
use std::path::Path;

use serde::Serialize;

use crate::gray::GrayImage;
use crate::{DatasetError, ImageFormat};

/// The most pixels that are decoded. A radiograph straight from the detector has about 20 million;
/// a small file that declares more than this is refused before memory is taken for it.
pub const MAX_PIXELS: u64 = 1 << 26;

/// The formats of this build, for messages.
pub(crate) const FORMATS: &str = if cfg!(feature = "dicom") {
    "a PNG, JPEG or DICOM image"
} else {
    "a PNG or JPEG image"
};

/// Mean distance between an image's most different colour channels above which
/// [`decode_radiograph`] takes it for a colour photograph. Grey stored as colour has 0, and JPEG's
/// colour noise about 1.
pub const MAX_COLOR: f64 = 16.0;

/// Reads and decodes an image file.
///
/// PNG of every colour type and depth, JPEG, and with the feature `dicom` also DICOM, are
/// recognised by their first bytes, not by the file's name. Colour becomes grey by Rec. 601 luma
/// with Pillow's integer weights, which leave a pixel with R = G = B as it is; transparency is
/// dropped; 16 bits of a PNG become 8 by rounding. Of a DICOM file the stored values are rescaled,
/// windowed to 8 bits and, for `MONOCHROME1`, inverted.
///
/// # Errors
/// An unreadable file, another format, a truncated or damaged image, more than [`MAX_PIXELS`], or
/// a DICOM file that is no frontal radiograph; the message names the path.
pub fn decode_gray(path: impl AsRef<Path>) -> Result<GrayImage, DatasetError> {
    let path = path.as_ref();
    decode_gray_bytes(&read(path)?, path)
}

/// Decodes the bytes of an image file; `origin` stands for it in messages.
///
/// # Errors
/// As [`decode_gray`].
pub fn decode_gray_bytes(
    bytes: &[u8],
    origin: impl AsRef<Path>,
) -> Result<GrayImage, DatasetError> {
    decode(bytes, origin.as_ref()).map(|decoded| decoded.image)
}

/// As [`decode_gray`], and refuses a colour photograph: [`prepare`](crate::prepare) reads images
/// so.
///
/// # Errors
/// As [`decode_gray`], and [`DatasetError::NotARadiograph`] when the colour channels are further
/// apart than [`MAX_COLOR`] on average.
pub fn decode_radiograph(path: impl AsRef<Path>) -> Result<GrayImage, DatasetError> {
    let path = path.as_ref();
    decode_radiograph_bytes(&read(path)?, path)
}

/// As [`decode_radiograph`], of bytes; `origin` stands for their file in messages.
///
/// # Errors
/// As [`decode_radiograph`].
pub fn decode_radiograph_bytes(
    bytes: &[u8],
    origin: impl AsRef<Path>,
) -> Result<GrayImage, DatasetError> {
    let origin = origin.as_ref();
    let decoded = decode(bytes, origin)?;
    decoded.refuse_colour(origin)?;
    Ok(decoded.image)
}

/// What an image file is, found by decoding all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageFacts {
    /// `PNG`, `JPEG` or `DICOM`.
    pub format: &'static str,
    /// How its pixels are stored, such as `grey 8-bit` or `RGBA 8-bit`.
    pub mode: String,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Decodes an image as [`decode_radiograph`] does, and says what it was.
///
/// # Errors
/// As [`decode_radiograph`]: what this accepts, [`prepare`](crate::prepare) accepts.
pub fn inspect_image(path: impl AsRef<Path>) -> Result<ImageFacts, DatasetError> {
    let path = path.as_ref();
    inspect_image_bytes(&read(path)?, path)
}

/// As [`inspect_image`], of bytes; `origin` stands for their file in messages.
///
/// # Errors
/// As [`decode_radiograph`].
pub fn inspect_image_bytes(
    bytes: &[u8],
    origin: impl AsRef<Path>,
) -> Result<ImageFacts, DatasetError> {
    let origin = origin.as_ref();
    let decoded = decode(bytes, origin)?;
    decoded.refuse_colour(origin)?;
    Ok(ImageFacts {
        format: decoded.format,
        mode: decoded.mode,
        width: decoded.image.width(),
        height: decoded.image.height(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, DatasetError> {
    std::fs::read(path).map_err(DatasetError::io("read", path))
}

struct Decoded {
    image: GrayImage,
    /// Mean over all pixels of the largest minus the smallest channel; 0 for grey.
    color: f64,
    format: &'static str,
    mode: String,
}

impl Decoded {
    fn refuse_colour(&self, origin: &Path) -> Result<(), DatasetError> {
        if self.color > MAX_COLOR {
            return Err(DatasetError::NotARadiograph {
                path: origin.to_owned(),
                found: format!(
                    "a colour image (channels {:.0} levels apart on average)",
                    self.color
                ),
            });
        }
        Ok(())
    }
}

/// Grey pixels, and how far the colours were apart.
type Pixels = (GrayImage, f64);

fn decode(bytes: &[u8], origin: &Path) -> Result<Decoded, DatasetError> {
    let format = ImageFormat::sniff(bytes);
    match format {
        Some(ImageFormat::Png) => return decode_png(bytes, origin),
        Some(ImageFormat::Jpeg) => return decode_jpeg(bytes, origin),
        #[cfg(feature = "dicom")]
        Some(ImageFormat::Dicom) => {
            let (image, mode) = crate::dicom::decode(bytes, origin)?;
            return Ok(Decoded {
                image,
                color: 0.0,
                format: "DICOM",
                mode,
            });
        }
        _ => {}
    }
    let found = match bytes {
        [] => "an empty file".to_owned(),
        _ if format == Some(ImageFormat::Dicom) => {
            "a DICOM file, which needs the feature `dicom`".to_owned()
        }
        _ => {
            let first: String = bytes
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("a file that begins with 0x{first}")
        }
    };
    Err(DatasetError::ImageFormat {
        path: origin.to_owned(),
        found,
    })
}

fn decode_png(bytes: &[u8], origin: &Path) -> Result<Decoded, DatasetError> {
    let damaged = |source: png::DecodingError| DatasetError::ImageDamaged {
        path: origin.to_owned(),
        format: "PNG",
        source: source.into(),
    };
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Palettes and depths below eight bits become eight-bit samples.
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width as u64, height as u64, origin)?;
    // The decoder takes the triples for granted.
    if let Some(palette) = &reader.info().palette
        && !palette.len().is_multiple_of(3)
    {
        return Err(DatasetError::ImageDamaged {
            path: origin.to_owned(),
            format: "PNG",
            source: format!("expected a palette of triples, got {} bytes", palette.len()).into(),
        });
    }
    let Some(size) = reader.output_buffer_size() else {
        return Err(too_large(width as u64, height as u64, origin));
    };
    let mut samples = vec![0; size];
    reader.next_frame(&mut samples).map_err(damaged)?;
    // Reads up to the end, so that a file cut behind its last row is noticed too.
    reader.finish().map_err(damaged)?;
    let (color, depth) = reader.output_color_type();
    let mode = png_mode(reader.info());
    let samples = match depth {
        png::BitDepth::Sixteen => to_eight_bits(&samples),
        _ => samples,
    };
    let (image, color) = match color {
        png::ColorType::Grayscale | png::ColorType::Indexed => gray(width, height, samples),
        png::ColorType::GrayscaleAlpha => {
            let (pixels, _) = samples.as_chunks::<2>();
            gray(
                width,
                height,
                pixels.iter().map(|[gray, _]| *gray).collect(),
            )
        }
        png::ColorType::Rgb => luma::<3>(width, height, &samples),
        png::ColorType::Rgba => luma::<4>(width, height, &samples),
    }?;
    Ok(Decoded {
        image,
        color,
        format: "PNG",
        mode,
    })
}

fn png_mode(info: &png::Info<'_>) -> String {
    let color = match info.color_type {
        png::ColorType::Grayscale => "grey",
        png::ColorType::GrayscaleAlpha => "grey with alpha",
        png::ColorType::Indexed => "palette",
        png::ColorType::Rgb => "RGB",
        png::ColorType::Rgba => "RGBA",
    };
    format!("{color} {}-bit", info.bit_depth as u8)
}

fn decode_jpeg(bytes: &[u8], origin: &Path) -> Result<Decoded, DatasetError> {
    use image::{DynamicImage, ImageDecoder};
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| DatasetError::ImageDamaged {
        path: origin.to_owned(),
        format: "JPEG",
        source,
    };
    // The decoder fills the missing part of a cut file with grey. Within a scan 0xff is always
    // followed by 0, so a file whose last end marker is behind its last scan marker is whole.
    let last = |marker: [u8; 2]| bytes.array_windows().rposition(|window| *window == marker);
    if last([0xff, 0xd9]) <= last([0xff, 0xda]) {
        return Err(damaged("the file has no end marker".into()));
    }
    let damaged = |error: image::ImageError| damaged(error.into());
    let decoder = image::codecs::jpeg::JpegDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height), origin)?;
    let (width, height) = (width as usize, height as usize);
    let (mode, (image, color)) = match DynamicImage::from_decoder(decoder).map_err(damaged)? {
        DynamicImage::ImageLuma8(image) => ("grey 8-bit", gray(width, height, image.into_raw())?),
        other => {
            let rgb = other.into_rgb8();
            ("RGB 8-bit", luma::<3>(width, height, rgb.as_raw())?)
        }
    };
    Ok(Decoded {
        image,
        color,
        format: "JPEG",
        mode: mode.to_owned(),
    })
}

fn gray(width: usize, height: usize, pixels: Vec<u8>) -> Result<Pixels, DatasetError> {
    Ok((GrayImage::new(width, height, pixels)?, 0.0))
}

pub(crate) fn check_size(width: u64, height: u64, origin: &Path) -> Result<(), DatasetError> {
    match width.checked_mul(height) {
        Some(n_pixels) if n_pixels <= MAX_PIXELS => Ok(()),
        _ => Err(too_large(width, height, origin)),
    }
}

fn too_large(width: u64, height: u64, origin: &Path) -> DatasetError {
    DatasetError::ImageTooLarge {
        path: origin.to_owned(),
        width,
        height,
        limit: MAX_PIXELS,
    }
}

/// Big-endian 16-bit samples to 8 bits, rounded: 65535 is 255.
fn to_eight_bits(samples: &[u8]) -> Vec<u8> {
    let (pairs, _) = samples.as_chunks::<2>();
    pairs
        .iter()
        .map(|&pair| ((u32::from(u16::from_be_bytes(pair)) + 128) / 257) as u8)
        .collect()
}

/// Rec. 601 luma, 0.299 R + 0.587 G + 0.114 B, in Pillow's 16-bit fixed point. The weights sum to
/// one exactly, so grey stored as colour comes back unchanged.
fn luma<const CHANNELS: usize>(
    width: usize,
    height: usize,
    samples: &[u8],
) -> Result<Pixels, DatasetError> {
    let (colored, _) = samples.as_chunks::<CHANNELS>();
    let mut pixels = Vec::with_capacity(colored.len());
    let mut spread = 0;
    for pixel in colored {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        pixels.push(((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16) as u8);
        let largest = red.max(green).max(blue);
        spread += u64::from(largest - red.min(green).min(blue));
    }
    let color = spread as f64 / colored.len().max(1) as f64;
    Ok((GrayImage::new(width, height, pixels)?, color))
}
