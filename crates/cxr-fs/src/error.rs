//! What can go wrong with a file.

use std::io;
use std::path::{Path, PathBuf};

/// An operation on a file that failed, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("cannot {action} `{}`", path.display())]
pub struct FsError {
    /// What was tried: `write`, `rename`, `lock`, …
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The I/O error.
    pub source: io::Error,
}

impl FsError {
    /// For `map_err`: names what was tried with which file.
    pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path,
            source,
        }
    }
}
