//! The unfinished file: `NAME.part`, and `NAME.part.toml`, which tells what its bytes are of.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::manifest::{PART, PART_STATE};
use crate::{Digest, FileName, Hasher, HubError};

/// What a file must turn out to be, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) digest: Digest,
    pub(crate) digest_from: String,
    pub(crate) bytes: Option<u64>,
}

/// Which file of which server the bytes of a part are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) digest: Digest,
    pub(crate) url: String,
    pub(crate) bytes: Option<u64>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
}

impl Origin {
    /// What to make a range request depend on. A weak ETag does not promise the same bytes.
    pub(crate) fn validator(&self) -> Option<&str> {
        let strong = |etag: &&str| !etag.starts_with("W/");
        let etag = self.etag.as_deref();
        etag.filter(strong).or(self.last_modified.as_deref())
    }
}

pub(crate) struct Part {
    path: PathBuf,
    origin_path: PathBuf,
    file: File,
    length: u64,
    hasher: Hasher,
    origin: Option<Origin>,
}

impl Part {
    /// Opens the part of `name`, or begins a new one. Bytes that belong to another digest are
    /// dropped; the others still have to be hashed: see [`Part::hash_on_disk`].
    pub(crate) fn open(
        folder: &Path,
        name: &FileName,
        expected: &Expected,
    ) -> Result<Self, HubError> {
        let path = folder.join(name.with_ending(PART));
        let origin_path = folder.join(name.with_ending(PART_STATE));
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(HubError::io("open", &path))?;
        let length = file.metadata().map_err(HubError::io("read", &path))?.len();
        let origin = std::fs::read_to_string(&origin_path)
            .ok()
            .and_then(|text| toml::from_str::<Origin>(&text).ok())
            .filter(|origin| origin.digest == expected.digest);
        let mut part = Self {
            path,
            origin_path,
            file,
            length,
            hasher: new_hasher(expected),
            origin,
        };
        let too_long = expected.bytes.is_some_and(|bytes| part.length > bytes);
        if part.origin.is_none() || too_long {
            part.clear(expected)?;
        }
        Ok(part)
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Where the bytes are from; `None` where there are none.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref().filter(|_| self.length > 0)
    }

    /// Hashes what an earlier call left, and goes to its end.
    pub(crate) fn hash_on_disk(
        &mut self,
        mut step: impl FnMut(u64, u64) -> Result<(), HubError>,
    ) -> Result<(), HubError> {
        let length = self.length;
        let hasher = &mut self.hasher;
        let hashed = hash(&mut self.file, &self.path, |bytes, position| {
            hasher.update(bytes);
            step(position, length)
        })?;
        self.length = hashed;
        Ok(())
    }

    /// Remembers where the bytes that follow are from.
    pub(crate) fn set_origin(&mut self, origin: Origin) -> Result<(), HubError> {
        if self.origin.as_ref() != Some(&origin) {
            let text = toml::to_string(&origin).map_err(|error| {
                HubError::io("write", &self.origin_path)(std::io::Error::other(error.to_string()))
            })?;
            cxr_fs::write(&self.origin_path, text.as_bytes())?;
            self.origin = Some(origin);
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file
            .write_all(bytes)
            .map_err(HubError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Drops all bytes, and starts over.
    pub(crate) fn clear(&mut self, expected: &Expected) -> Result<(), HubError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(HubError::io("write", &self.path))?;
        self.length = 0;
        self.hasher = new_hasher(expected);
        self.origin = None;
        Ok(())
    }

    /// The digest of the bytes so far.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Makes sure that the bytes are on the disk.
    pub(crate) fn sync(&self) -> Result<std::fs::Metadata, HubError> {
        self.file
            .sync_all()
            .and_then(|()| self.file.metadata())
            .map_err(HubError::io("write", &self.path))
    }

    /// Gives the bytes their final name.
    pub(crate) fn rename(self, place: &Path) -> Result<(), HubError> {
        cxr_fs::rename(&self.path, place)?;
        // Without its part it means nothing, and the next download would replace it.
        let _ = std::fs::remove_file(&self.origin_path);
        Ok(())
    }

    /// Deletes the bytes and what is known of them.
    pub(crate) fn delete(self) -> Result<(), HubError> {
        let _ = std::fs::remove_file(&self.origin_path);
        std::fs::remove_file(&self.path).map_err(HubError::io("remove", &self.path))
    }
}

fn new_hasher(expected: &Expected) -> Hasher {
    Hasher::for_digest(&expected.digest, expected.bytes.unwrap_or_default())
}

/// Reads an open file to its end; `step` gets every piece and the position after it.
pub(crate) fn hash(
    file: &mut File,
    path: &Path,
    mut step: impl FnMut(&[u8], u64) -> Result<(), HubError>,
) -> Result<u64, HubError> {
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => return Ok(position),
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(HubError::io("read", path)(error)),
        };
        position += length as u64;
        step(buffer.get(..length).unwrap_or_default(), position)?;
    }
}
