//! ZIP archives as PyTorch writes them: nothing compressed, nothing encrypted. Field names and numbers are those of
//! PKWARE's APPNOTE 6.3.
//!
//! The checksums of entries are not compared: PyTorch can be asked not to compute them.

use std::collections::BTreeMap;

use crate::PickleError;
use crate::error::shown;

/// The most entries of an archive: one for each storage.
const MOST_ENTRIES: usize = 1 << 17;
/// The end record with the longest comment.
const LONGEST_END: usize = 22 + 0xffff;

/// The entries of an archive, by name.
pub(crate) struct Archive<'a> {
    bytes: &'a [u8],
    entries: BTreeMap<&'a str, Entry>,
    /// How many bytes entries may still have: together they are no longer than the file, or lie over each other.
    bytes_left: usize,
}

struct Entry {
    method: u16,
    flags: u16,
    /// In the file, and unpacked.
    sizes: [u64; 2],
    /// Where its own header is.
    header: u64,
}

fn damaged(problem: impl Into<String>) -> PickleError {
    PickleError::Archive {
        problem: problem.into(),
    }
}

/// Fields of a record, the lowest byte first.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let (taken, rest) =
            (self.0.split_at_checked(count)).ok_or_else(|| PickleError::Truncated {
                what: "its archive's directory".to_owned(),
            })?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, PickleError> {
        let bytes = self.take(bytes)?.iter().rev();
        Ok(bytes.fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }
}

/// The bytes of a file from a place on.
fn at(bytes: &[u8], place: u64) -> Result<Fields<'_>, PickleError> {
    let rest = usize::try_from(place)
        .ok()
        .and_then(|place| bytes.get(place..));
    rest.map(Fields)
        .ok_or_else(|| damaged("a part of it would be behind its end"))
}

impl<'a> Archive<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, PickleError> {
        let (count, mut directory) = directory(bytes)?;
        if count > MOST_ENTRIES as u64 {
            return Err(PickleError::TooMany {
                what: "entries in its archive",
                limit: MOST_ENTRIES,
            });
        }
        let mut entries = BTreeMap::new();
        for _ in 0..count {
            let (name, entry) = entry(&mut directory)?;
            if entries.insert(name, entry).is_some() {
                return Err(damaged(format!("`{}` is in it twice", shown(name))));
            }
        }
        Ok(Self {
            bytes,
            entries,
            bytes_left: bytes.len(),
        })
    }

    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.entries.keys().copied().collect()
    }

    /// The bytes of an entry of at most `limit` bytes.
    pub(crate) fn read(&mut self, name: &str, limit: usize) -> Result<&'a [u8], PickleError> {
        let wrong = |problem: &str| damaged(format!("`{}` {problem}", shown(name)));
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| wrong("is not in it"))?;
        if entry.method != 0 || entry.flags & 1 != 0 {
            return Err(wrong(
                "is compressed or encrypted, which PyTorch never does",
            ));
        }
        let [size, unpacked] = entry.sizes;
        let size = usize::try_from(size)
            .ok()
            .filter(|&size| size as u64 == unpacked && size <= limit);
        let size = size.ok_or_else(|| wrong("has another size than it says, or is too large"))?;
        let mut header = at(self.bytes, entry.header)?;
        if header.take(4)? != b"PK\x03\x04" {
            return Err(wrong("is not where the directory has it"));
        }
        header.take(22)?;
        let (name_length, extra) = (header.number(2)?, header.number(2)?);
        header.take((name_length + extra) as usize)?;
        self.bytes_left =
            (self.bytes_left.checked_sub(size)).ok_or_else(|| wrong("lies over other entries"))?;
        header.take(size).map_err(|_| PickleError::Truncated {
            what: format!("`{}`", shown(name)),
        })
    }
}

/// How many entries there are, and where they are described.
fn directory(bytes: &[u8]) -> Result<(u64, Fields<'_>), PickleError> {
    let begin = bytes.len().saturating_sub(LONGEST_END);
    let tail = bytes.get(begin..).unwrap_or_default();
    let end = tail.windows(4).rposition(|window| window == b"PK\x05\x06");
    let end = end
        .map(|end| begin + end)
        .ok_or_else(|| PickleError::Truncated {
            what: "its archive: the directory at the end is missing".to_owned(),
        })?;
    let mut record = at(bytes, end as u64 + 4)?;
    record.take(6)?;
    let (mut count, _, mut offset) = (record.number(2)?, record.number(4)?, record.number(4)?);
    let comment = record.number(2)?;
    record.take(comment as usize)?;
    // Of large archives another record says it, which one before this one points to.
    if count == 0xffff || offset == 0xffff_ffff {
        let locator = end
            .checked_sub(20)
            .ok_or_else(|| damaged("its directory is not to be found"))?;
        let mut locator = at(bytes, locator as u64)?;
        if locator.take(4)? != b"PK\x06\x07" {
            return Err(damaged("its directory is not to be found"));
        }
        locator.take(4)?;
        let mut record = at(bytes, locator.number(8)?)?;
        if record.take(4)? != b"PK\x06\x06" {
            return Err(damaged("its directory is not to be found"));
        }
        record.take(28)?;
        count = record.number(8)?;
        record.take(8)?;
        offset = record.number(8)?;
    }
    Ok((count, at(bytes, offset)?))
}

/// The next entry of the directory.
fn entry<'a>(directory: &mut Fields<'a>) -> Result<(&'a str, Entry), PickleError> {
    if directory.take(4)? != b"PK\x01\x02" {
        return Err(damaged("its directory lacks an entry"));
    }
    directory.take(4)?;
    let (flags, method) = (directory.number(2)? as u16, directory.number(2)? as u16);
    directory.take(8)?;
    let (mut packed, mut unpacked) = (directory.number(4)?, directory.number(4)?);
    let lengths = [
        directory.number(2)?,
        directory.number(2)?,
        directory.number(2)?,
    ];
    directory.take(8)?;
    let mut header = directory.number(4)?;
    let [name, extra, comment] = lengths.map(|length| length as usize);
    let name = std::str::from_utf8(directory.take(name)?);
    let name = name.map_err(|_| damaged("the name of an entry is not UTF-8"))?;
    let mut extra = Fields(directory.take(extra)?);
    directory.take(comment)?;
    // Of large entries the numbers are among the extra fields, those that do not fit above, in this order.
    while extra.0.len() >= 4 {
        let (kind, length) = (extra.number(2)?, extra.number(2)? as usize);
        let mut field = Fields(extra.take(length.min(extra.0.len()))?);
        if kind == 1 {
            for number in [&mut unpacked, &mut packed, &mut header] {
                if *number == 0xffff_ffff {
                    *number = field.number(8)?;
                }
            }
        }
    }
    let entry = Entry {
        method,
        flags,
        sizes: [packed, unpacked],
        header,
    };
    Ok((name, entry))
}
