//! Image files to grey pixels.

use std::io::Cursor;
use std::path::Path;

use serde::Serialize;

use crate::archive::MAX_ARCHIVED_FILE;
use crate::gray::GrayImage;
use crate::tone::{Tone, eight_bit, sixteen_bit};
use crate::{DatasetError, ImageAttributes, ImageFormat, ImageWarning};

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
/// An unreadable file, no regular file, another format, a truncated or damaged image, more than
/// [`MAX_PIXELS`], more bytes than [`MAX_ARCHIVED_FILE`], or a DICOM file that is no frontal radiograph; the message names the path.
pub fn decode_gray(path: impl AsRef<Path>) -> Result<GrayImage, DatasetError> {
    let path = path.as_ref();
    decode_gray_bytes(&read_image_file(path)?, path)
}

/// Decodes the bytes of an image file; `origin` stands for it in messages.
///
/// # Errors
/// As [`decode_gray`].
pub fn decode_gray_bytes(
    bytes: &[u8],
    origin: impl AsRef<Path>,
) -> Result<GrayImage, DatasetError> {
    decode(bytes, origin.as_ref(), Tone::AsStored).map(|decoded| decoded.image)
}

/// As [`decode_gray`], and refuses a colour photograph: [`prepare`](crate::prepare) reads images
/// so.
///
/// # Errors
/// As [`decode_gray`], and [`DatasetError::NotARadiograph`] when the colour channels are further
/// apart than [`MAX_COLOR`] on average.
pub fn decode_radiograph(path: impl AsRef<Path>) -> Result<GrayImage, DatasetError> {
    let path = path.as_ref();
    decode_radiograph_bytes(&read_image_file(path)?, path)
}

/// As [`decode_radiograph`], of bytes; `origin` stands for their file in messages.
///
/// # Errors
/// As [`decode_radiograph`].
pub fn decode_radiograph_bytes(
    bytes: &[u8],
    origin: impl AsRef<Path>,
) -> Result<GrayImage, DatasetError> {
    decode_radiograph_in(bytes, origin, Tone::AsStored).map(|radiograph| radiograph.image)
}

/// A radiograph that was decoded, with what its file says beside the pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Radiograph {
    /// Its pixels.
    pub image: GrayImage,
    /// What the image's owner should know of it.
    pub warnings: Vec<ImageWarning>,
    /// The patient's id, where a DICOM file gives one.
    pub patient: Option<String>,
    /// The UID of the study, where a DICOM file gives one.
    pub study: Option<String>,
    /// Age, sex and view, where a DICOM file gives them.
    pub attributes: ImageAttributes,
}

/// As [`decode_radiograph_bytes`], in a tone of choice, and with what else the file says.
///
/// # Errors
/// As [`decode_radiograph`].
pub fn decode_radiograph_in(
    bytes: &[u8],
    origin: impl AsRef<Path>,
    tone: Tone,
) -> Result<Radiograph, DatasetError> {
    let origin = origin.as_ref();
    let decoded = decode(bytes, origin, tone)?;
    decoded.refuse_colour(origin)?;
    Ok(Radiograph {
        image: decoded.image,
        warnings: decoded.warnings,
        patient: decoded.patient,
        study: decoded.study,
        attributes: decoded.attributes,
    })
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
    /// What the image's owner should know of it.
    pub warnings: Vec<ImageWarning>,
}

/// Decodes an image as [`decode_radiograph`] does, and says what it was.
///
/// # Errors
/// As [`decode_radiograph`]: what this accepts, [`prepare`](crate::prepare) accepts.
pub fn inspect_image(path: impl AsRef<Path>) -> Result<ImageFacts, DatasetError> {
    let path = path.as_ref();
    inspect_image_bytes(&read_image_file(path)?, path)
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
    let decoded = decode(bytes, origin, Tone::AsStored)?;
    decoded.refuse_colour(origin)?;
    Ok(ImageFacts {
        format: decoded.format,
        mode: decoded.mode,
        width: decoded.image.width(),
        height: decoded.image.height(),
        warnings: decoded.warnings,
    })
}

/// Reads the bytes of an image file, to be decoded: of a file that does not begin as an image no more than its first
/// bytes, which show that.
///
/// # Errors
/// An unreadable file, no regular file, or more bytes than [`MAX_ARCHIVED_FILE`].
pub fn read_image_file(path: &Path) -> Result<Vec<u8>, DatasetError> {
    let is_wanted = |start: &[u8]| ImageFormat::sniff(start).is_some();
    Ok(cxr_fs::read_recognised(path, MAX_ARCHIVED_FILE, is_wanted)?)
}

struct Decoded {
    image: GrayImage,
    /// Mean over all pixels of the largest minus the smallest channel; 0 for grey.
    color: f64,
    format: &'static str,
    mode: String,
    warnings: Vec<ImageWarning>,
    patient: Option<String>,
    study: Option<String>,
    attributes: ImageAttributes,
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

fn decode(bytes: &[u8], origin: &Path, tone: Tone) -> Result<Decoded, DatasetError> {
    let format = ImageFormat::sniff(bytes);
    match format {
        Some(ImageFormat::Png) => return decode_png(bytes, origin, tone),
        Some(ImageFormat::Jpeg) => return decode_jpeg(bytes, origin, tone),
        #[cfg(feature = "dicom")]
        Some(ImageFormat::Dicom) => {
            let dicom = crate::dicom::decode(bytes, origin, tone)?;
            return Ok(Decoded {
                image: dicom.image,
                color: 0.0,
                format: ImageFormat::Dicom.name(),
                mode: dicom.mode,
                warnings: dicom.warnings,
                patient: dicom.patient,
                study: dicom.study,
                attributes: dicom.attributes,
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

fn decode_png(bytes: &[u8], origin: &Path, tone: Tone) -> Result<Decoded, DatasetError> {
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
        png::BitDepth::Sixteen => Samples::Sixteen(big_endian_words(&samples)),
        _ => Samples::Eight(samples),
    };
    let n_channels = match color {
        png::ColorType::Grayscale | png::ColorType::Indexed => 1,
        png::ColorType::GrayscaleAlpha => 2,
        png::ColorType::Rgb => 3,
        png::ColorType::Rgba => 4,
    };
    to_gray(width, height, samples, n_channels, tone).map(|gray| gray.of("PNG", mode))
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

fn decode_jpeg(bytes: &[u8], origin: &Path, tone: Tone) -> Result<Decoded, DatasetError> {
    use image::{DynamicImage, ImageDecoder};
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| DatasetError::ImageDamaged {
        path: origin.to_owned(),
        format: "JPEG",
        source,
    };
    if !has_jpeg_end(bytes) {
        return Err(damaged("the file has no end marker".into()));
    }
    let damaged = |error: image::ImageError| damaged(error.into());
    let decoder = image::codecs::jpeg::JpegDecoder::new(Cursor::new(bytes)).map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height), origin)?;
    let (width, height) = (width as usize, height as usize);
    let (mode, samples, n_channels) = match DynamicImage::from_decoder(decoder).map_err(damaged)? {
        DynamicImage::ImageLuma8(image) => ("grey 8-bit", image.into_raw(), 1),
        other => ("RGB 8-bit", other.into_rgb8().into_raw(), 3),
    };
    let samples = Samples::Eight(samples);
    let gray = to_gray(width, height, samples, n_channels, tone)?;
    Ok(gray.of("JPEG", mode.to_owned()))
}

/// Whether a JPEG stream is whole. Decoders fill the missing part of a cut one with grey. Within a scan 0xff is always
/// followed by 0, so a stream whose last end marker is behind its last scan marker is whole.
pub(crate) fn has_jpeg_end(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.array_windows().rposition(|window| *window == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}

fn check_size(width: u64, height: u64, origin: &Path) -> Result<(), DatasetError> {
    match width.checked_mul(height) {
        Some(n_pixels) if n_pixels <= MAX_PIXELS => Ok(()),
        _ => Err(too_large(width, height, origin)),
    }
}

pub(crate) fn too_large(width: u64, height: u64, origin: &Path) -> DatasetError {
    DatasetError::ImageTooLarge {
        path: origin.to_owned(),
        width,
        height,
        limit: MAX_PIXELS,
    }
}

/// Samples of a PNG or a JPEG, channel by channel.
enum Samples {
    Eight(Vec<u8>),
    Sixteen(Vec<u16>),
}

/// Grey pixels, how far the colours were apart, and warnings.
struct Gray {
    image: GrayImage,
    color: f64,
    warnings: Vec<ImageWarning>,
}

impl Gray {
    fn of(self, format: &'static str, mode: String) -> Decoded {
        Decoded {
            image: self.image,
            color: self.color,
            format,
            mode,
            warnings: self.warnings,
            patient: None,
            study: None,
            attributes: ImageAttributes::default(),
        }
    }
}

fn to_gray(
    width: usize,
    height: usize,
    samples: Samples,
    n_channels: usize,
    tone: Tone,
) -> Result<Gray, DatasetError> {
    let is_color = n_channels > 2;
    // Levels are kept where they are going to be stretched. Else colours become 8 bits first, as other programs do it.
    let samples = match samples {
        Samples::Sixteen(words) if is_color && tone == Tone::AsStored => {
            Samples::Eight(words.into_iter().map(to_eight_bits).collect())
        }
        samples => samples,
    };
    let color = match &samples {
        _ if !is_color => 0.0,
        Samples::Eight(samples) => color(samples, n_channels),
        Samples::Sixteen(samples) => color(samples, n_channels) / 257.0,
    };
    let (pixels, warning) = match samples {
        Samples::Eight(samples) => eight_bit(channels_to_gray(samples, n_channels), tone),
        Samples::Sixteen(samples) => sixteen_bit(&channels_to_gray(samples, n_channels), tone),
    };
    Ok(Gray {
        image: GrayImage::new(width, height, pixels)?,
        color,
        warnings: warning.into_iter().collect(),
    })
}

/// One sample for each pixel: the first of one or two channels, the luma of three or four.
fn channels_to_gray<T: Copy + Into<u64> + TryFrom<u64>>(
    samples: Vec<T>,
    n_channels: usize,
) -> Vec<T> {
    let pixels = samples.chunks_exact(n_channels);
    match n_channels {
        1 => samples,
        2 => pixels.filter_map(|pixel| pixel.first().copied()).collect(),
        _ => pixels.filter_map(luma).collect(),
    }
}

/// Rec. 601 luma, 0.299 R + 0.587 G + 0.114 B, in Pillow's 16-bit fixed point. The weights sum to
/// one exactly, so grey stored as colour comes back unchanged.
fn luma<T: Copy + Into<u64> + TryFrom<u64>>(pixel: &[T]) -> Option<T> {
    let (&[red, green, blue], _) = pixel.split_first_chunk()?;
    let [red, green, blue]: [u64; 3] = [red, green, blue].map(Into::into);
    T::try_from((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).ok()
}

/// Mean over all pixels of the largest minus the smallest of three channels.
fn color<T: Copy + Into<u64>>(samples: &[T], n_channels: usize) -> f64 {
    let mut spread = 0;
    let mut n_pixels = 0_u64;
    for pixel in samples.chunks_exact(n_channels) {
        if let Some((&channels, _)) = pixel.split_first_chunk::<3>() {
            let [red, green, blue]: [u64; 3] = channels.map(Into::into);
            spread += red.max(green).max(blue) - red.min(green).min(blue);
            n_pixels += 1;
        }
    }
    spread as f64 / n_pixels.max(1) as f64
}

fn big_endian_words(bytes: &[u8]) -> Vec<u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|&pair| u16::from_be_bytes(pair)).collect()
}

/// 16 bits to 8, rounded: 65535 is 255.
fn to_eight_bits(word: u16) -> u8 {
    ((u32::from(word) + 128) / 257) as u8
}
