//! From the bytes of a file to its data set: preamble, meta group, transfer syntax, deflation.

use std::borrow::Cow;

use dicom_dictionary_std::{tags, uids};
use flate2::{Decompress, FlushDecompress, Status};

use super::attributes::text;
use super::data_set::{DataSet, Encoding};
use super::fault::Fault;
use crate::format::DataSetStart;
use crate::name::excerpt;

/// Behind an uncompressed radiograph of the most pixels that are decoded, 16 bits each, there is room for as much of
/// other attributes.
const MAX_INFLATED: usize = 4 * crate::MAX_PIXELS as usize;

/// How the pixels of a transfer syntax are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PixelEncoding {
    Native,
    /// As they are, or deflated, in a fragment of their own.
    Encapsulated {
        deflated: bool,
    },
    RunLength,
    Jpeg,
    JpegLs,
    Jpeg2000,
    JpegXl,
}

/// A file whose data set has not been parsed.
pub(super) struct Container<'a> {
    pub(super) data_set: Cow<'a, [u8]>,
    pub(super) encoding: Encoding,
    pub(super) pixels: PixelEncoding,
    /// The class that the meta group names.
    pub(super) sop_class: Option<String>,
}

impl<'a> Container<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Fault> {
        let bytes = match bytes.get(128..132) {
            Some(b"DICM") => bytes.get(132..).unwrap_or(&[]),
            _ => bytes,
        };
        if bytes.is_empty() {
            return Err(Fault::Damaged("the file ends behind its preamble".into()));
        }
        let (meta, meta_len) = DataSet::read_meta_group(bytes)?;
        let rest = bytes.get(meta_len..).unwrap_or(&[]);
        let sop_class = text(&meta, tags::MEDIA_STORAGE_SOP_CLASS_UID)?;
        let Some(syntax) = text(&meta, tags::TRANSFER_SYNTAX_UID)? else {
            // Without a meta group, or without the syntax in it, the data set shows by itself how it is written.
            let encoding = match DataSetStart::of(rest) {
                Some(DataSetStart::Implicit) => Encoding::IMPLICIT,
                Some(DataSetStart::Explicit { big_endian: false }) => Encoding::EXPLICIT,
                Some(DataSetStart::Explicit { big_endian: true }) => Encoding::BIG_ENDIAN,
                _ => {
                    return Err(Fault::Damaged(
                        "expected a transfer syntax, or a data set that begins with group 8".into(),
                    ));
                }
            };
            return Ok(Self {
                data_set: Cow::Borrowed(rest),
                encoding,
                pixels: PixelEncoding::Native,
                sop_class,
            });
        };
        let (declared, pixels) = transfer_syntax(&syntax)?;
        let data_set = match syntax.as_str() {
            uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => Cow::Owned(inflate(rest)?),
            _ => Cow::Borrowed(rest),
        };
        // Some programs write another form than they declare; the first element shows it.
        let found = Encoding::of_first_element(&data_set);
        let encoding = match found.explicit == declared.explicit || data_set.is_empty() {
            true => declared,
            false => found,
        };
        Ok(Self {
            data_set,
            encoding,
            pixels,
            sop_class,
        })
    }
}

/// How the data set and the pixels of a transfer syntax are written; an error that names those that are not read.
fn transfer_syntax(uid: &str) -> Result<(Encoding, PixelEncoding), Fault> {
    let pixels = match uid {
        uids::IMPLICIT_VR_LITTLE_ENDIAN => return Ok((Encoding::IMPLICIT, PixelEncoding::Native)),
        // Retired from the standard, and still met.
        "1.2.840.10008.1.2.2" => return Ok((Encoding::BIG_ENDIAN, PixelEncoding::Native)),
        uids::EXPLICIT_VR_LITTLE_ENDIAN | uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
            PixelEncoding::Native
        }
        uids::ENCAPSULATED_UNCOMPRESSED_EXPLICIT_VR_LITTLE_ENDIAN => {
            PixelEncoding::Encapsulated { deflated: false }
        }
        uids::DEFLATED_IMAGE_FRAME_COMPRESSION => PixelEncoding::Encapsulated { deflated: true },
        uids::RLE_LOSSLESS => PixelEncoding::RunLength,
        uids::JPEG_BASELINE8_BIT
        | uids::JPEG_EXTENDED12_BIT
        | uids::JPEG_LOSSLESS
        | uids::JPEG_LOSSLESS_SV1 => PixelEncoding::Jpeg,
        uids::JPEGLS_LOSSLESS | uids::JPEGLS_NEAR_LOSSLESS => PixelEncoding::JpegLs,
        uids::JPEG2000_LOSSLESS | uids::JPEG2000 => PixelEncoding::Jpeg2000,
        uids::JPEGXL_LOSSLESS | uids::JPEGXLJPEG_RECOMPRESSION | uids::JPEGXL => {
            PixelEncoding::JpegXl
        }
        _ => {
            let name = match uid {
                _ if uid.starts_with("1.2.840.10008.1.2.4.20") => "high-throughput JPEG 2000",
                uids::JPEG2000MC_LOSSLESS | uids::JPEG2000MC => "JPEG 2000 part 2",
                _ if uid.starts_with("1.2.840.10008.1.2.4.10") => "a video",
                uids::JPIP_REFERENCED | uids::JPIP_REFERENCED_DEFLATE => {
                    "pixels on a server, by JPIP"
                }
                _ if uid.starts_with("1.2.840.10008.1.2.4.") => "a rare form of JPEG",
                "1.2.840.113619.5.2" => "GE's mixed byte order",
                _ => "unknown",
            };
            return Err(Fault::Format(format!(
                "a DICOM file of the transfer syntax `{}` ({name}), which is not read: convert it to an uncompressed one",
                excerpt(uid)
            )));
        }
    };
    Ok((Encoding::EXPLICIT, pixels))
}

/// Decompresses a raw deflate stream, or one with the header of zlib, which some programs write.
pub(super) fn inflate(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    inflate_as(bytes, false).or_else(|problem| {
        inflate_as(bytes, true).map_err(|_| Fault::Damaged(format!("deflated bytes: {problem}")))
    })
}

fn inflate_as(bytes: &[u8], with_header: bool) -> Result<Vec<u8>, String> {
    let mut decompress = Decompress::new(with_header);
    let mut inflated = Vec::new();
    loop {
        inflated.reserve(bytes.len().clamp(1 << 12, 1 << 24));
        let rest = usize::try_from(decompress.total_in()).unwrap_or(usize::MAX);
        let (input, n_before) = (bytes.get(rest..).unwrap_or(&[]), inflated.len());
        let status = decompress.decompress_vec(input, &mut inflated, FlushDecompress::None);
        if inflated.len() > MAX_INFLATED {
            return Err(format!("they grow to more than {MAX_INFLATED} bytes"));
        }
        match status.map_err(|error| error.to_string())? {
            Status::StreamEnd => return Ok(inflated),
            _ if inflated.len() == n_before
                && decompress.total_in() as usize == rest
                && inflated.capacity() > inflated.len() =>
            {
                return Err("they are cut off".to_owned());
            }
            _ => {}
        }
    }
}
