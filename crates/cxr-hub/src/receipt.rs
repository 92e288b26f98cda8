//! What is remembered of a fetched file: `NAME.fetched.toml` beside it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::manifest::RECEIPT;
use crate::{Digest, FileName, HubError};

/// Where a file came from and what it was verified against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The address it came from; none for a file that lay there already, or in the hub's cache, and
    /// was verified.
    pub url: Option<String>,
    /// For a file of the hub whose digest the manifest does not give: the repository, revision and
    /// path that it was fetched as. Of another source it says nothing.
    pub source: Option<String>,
    /// What its bytes hash to.
    pub digest: Digest,
    /// Who said so: `manifest`, or the address of the hub's listing.
    pub digest_from: String,
    /// Its length.
    pub bytes: u64,
    /// Its modification time in nanoseconds since 1970, by which a change is noticed; none if the
    /// file system has none.
    pub modified: Option<i64>,
}

impl Receipt {
    /// The receipt of the file `name` in `folder`, or none if it has none that can be read.
    pub fn read(folder: &Path, name: &FileName) -> Option<Self> {
        let text = std::fs::read_to_string(Self::place(folder, name)).ok()?;
        toml::from_str(&text).ok()
    }

    pub(crate) fn place(folder: &Path, name: &FileName) -> PathBuf {
        folder.join(name.with_ending(RECEIPT))
    }

    pub(crate) fn write(&self, folder: &Path, name: &FileName) -> Result<(), HubError> {
        let path = Self::place(folder, name);
        let text = toml::to_string(self).map_err(|error| {
            HubError::io("write", &path)(std::io::Error::other(error.to_string()))
        })?;
        Ok(cxr_fs::write(&path, text.as_bytes())?)
    }

    /// Whether a file with these metadata is, by length and time, the one that was verified.
    pub(crate) fn fits(&self, metadata: &std::fs::Metadata) -> bool {
        self.bytes == metadata.len()
            && self.modified.is_some()
            && self.modified == modified(metadata)
    }
}

pub(crate) fn modified(metadata: &std::fs::Metadata) -> Option<i64> {
    let since: SystemTime = metadata.modified().ok()?;
    i64::try_from(since.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}
