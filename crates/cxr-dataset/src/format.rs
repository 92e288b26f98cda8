//! What an image file is by its first bytes, whatever its name says.

/// The formats of image files that are read. DICOM needs the feature `dicom`; without it such a file is recognised
/// and refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImageFormat {
    /// Portable Network Graphics.
    Png,
    /// JPEG, by its start marker.
    Jpeg,
    /// DICOM: behind a preamble of 128 bytes and `DICM`, or a bare data set or meta group, which archives and scanners
    /// write without them.
    Dicom,
}

impl ImageFormat {
    /// As many first bytes of a file as [`Self::sniff`] needs to recognise every format.
    pub const SNIFFED_BYTES: usize = 512;

    /// The format of a file that begins with these bytes; `None` for any other file. Fewer than
    /// [`Self::SNIFFED_BYTES`] are enough where the file is shorter.
    pub fn sniff(start: &[u8]) -> Option<Self> {
        if start.get(128..132) == Some(b"DICM") {
            // The preamble is free for other programs, such as viewers of TIFF.
            Some(Self::Dicom)
        } else if start.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if start.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Self::Jpeg)
        } else {
            DataSetStart::of(start).map(|_| Self::Dicom)
        }
    }

    /// Its name: `PNG`, `JPEG` or `DICOM`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Dicom => "DICOM",
        }
    }
}

/// How a DICOM file without preamble is written, judged by its first elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataSetStart {
    /// The meta group comes first and says how the rest is written.
    MetaGroup,
    /// A data set alone, little-endian without value representations.
    Implicit,
    /// A data set alone, with value representations.
    Explicit { big_endian: bool },
}

impl DataSetStart {
    /// No magic number marks such a file, so its first two elements must both be plausible: tags that ascend from
    /// group 2 or 8, known value representations, and lengths that lead from one to the other.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        let group = u16::from_le_bytes(*start.first_chunk()?);
        match group {
            0x0002 if is_chain(start, true, false) => Some(Self::MetaGroup),
            0x0008 if is_chain(start, true, false) => Some(Self::Explicit { big_endian: false }),
            0x0008 if is_chain(start, false, false) => Some(Self::Implicit),
            0x0800 if is_chain(start, true, true) => Some(Self::Explicit { big_endian: true }),
            _ => None,
        }
    }
}

/// Whether the bytes begin with two elements of ascending tags.
fn is_chain(start: &[u8], explicit: bool, big_endian: bool) -> bool {
    let two = |at: usize| -> Option<u16> {
        let bytes = *start.get(at..)?.first_chunk()?;
        Some(match big_endian {
            true => u16::from_be_bytes(bytes),
            false => u16::from_le_bytes(bytes),
        })
    };
    let four = |at: usize| -> Option<u32> {
        let (first, second) = (u32::from(two(at)?), u32::from(two(at + 2)?));
        Some(match big_endian {
            true => first << 16 | second,
            false => second << 16 | first,
        })
    };
    let tag = |at: usize| Some((two(at)?, two(at + 2)?));
    // The place behind the element at `at`, if it is one with a value of plausible length.
    let behind = |at: usize| -> Option<usize> {
        let (header, length) = if explicit {
            match start.get(at + 4..at + 6)? {
                b"OB" | b"OW" | b"UN" | b"UT" | b"UC" | b"UR" => (12, four(at + 8)?),
                b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FD" | b"FL" | b"IS"
                | b"LO" | b"LT" | b"PN" | b"SH" | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL"
                | b"US" => (8, u32::from(two(at + 6)?)),
                _ => return None,
            }
        } else {
            (8, four(at + 4)?)
        };
        // The first attributes of a file are short: a character set, an image type, identifiers.
        (length <= 0x100).then_some(at + header + length as usize)
    };
    let second = || -> Option<bool> {
        let next = behind(0)?;
        let ascends = tag(0)? < tag(next)? && two(next)? <= 0x0010;
        Some(ascends && behind(next).is_some())
    };
    second().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (0008,0005) and (0008,0008) as an implicit, an explicit and a big-endian data set begin.
    const IMPLICIT: &[u8] = b"\x08\0\x05\0\x02\0\0\0XX\x08\0\x08\0\x04\0\0\0AXIS";
    const EXPLICIT: &[u8] = b"\x08\0\x05\0CS\x02\0XX\x08\0\x08\0CS\x04\0AXIS";
    const BIG: &[u8] = b"\0\x08\0\x05CS\0\x02XX\0\x08\0\x08CS\0\x04AXIS";
    const META: &[u8] = b"\x02\0\0\0UL\x04\0\xb0\0\0\0\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01";

    #[test]
    fn formats_are_recognised_by_their_first_bytes() {
        let mut preamble = b"II*\0".to_vec();
        preamble.resize(128, 0);
        preamble.extend(b"DICM\x02\0\0\0UL");
        for (bytes, format) in [
            (preamble.as_slice(), Some(ImageFormat::Dicom)),
            (IMPLICIT, Some(ImageFormat::Dicom)),
            (EXPLICIT, Some(ImageFormat::Dicom)),
            (BIG, Some(ImageFormat::Dicom)),
            (META, Some(ImageFormat::Dicom)),
            (b"\x89PNG\r\n\x1a\n\0\0", Some(ImageFormat::Png)),
            (b"\xff\xd8\xff\xe0", Some(ImageFormat::Jpeg)),
            (b"", None),
            (b"\x08", None),
            (b"image,patient\na.png,1\n", None),
            (b"\x00\x05\x16\x07\0\x02\0\0Mac OS X        ", None),
            // The first element alone proves nothing, nor do tags that descend.
            (&IMPLICIT[..10], None),
            (b"\x08\0\x05\0\x02\0\0\0XX\x08\0\x04\0\x04\0\0\0AXIS", None),
            (b"\x08\0\x05\0\xff\xff\xff\xffXX", None),
        ] {
            assert_eq!(ImageFormat::sniff(bytes), format, "{bytes:?}");
        }
    }

    #[test]
    fn a_data_set_without_preamble_shows_how_it_is_written() {
        for (bytes, start) in [
            (IMPLICIT, DataSetStart::Implicit),
            (EXPLICIT, DataSetStart::Explicit { big_endian: false }),
            (BIG, DataSetStart::Explicit { big_endian: true }),
            (META, DataSetStart::MetaGroup),
        ] {
            assert_eq!(DataSetStart::of(bytes), Some(start));
        }
    }
}
