//! Files as the whole workspace writes them.
//!
//! What it does: writes files whole or not at all ([`write`], [`write_with`], [`Staged`]), makes file names
//! from text ([`FileName`]), takes digests of files ([`sha256`]), and keeps other processes away ([`Lock`]). What it never does: know anything of
//! radiographs, parse a format, or decide what a command may overwrite.
//!
//! ```
//! let folder = tempfile::tempdir()?;
//! let name = cxr_fs::FileName::from_text("../Nodule/Mass").with_suffix(".png");
//! assert_eq!(name.as_str(), "%2E.%2FNodule%2FMass.png");
//!
//! let path = folder.path().join(&name);
//! cxr_fs::write(&path, b"a picture")?;
//! assert_eq!(std::fs::read(&path)?, b"a picture");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod digest;
mod error;
mod lock;
mod name;
mod staged;
mod write;

pub use digest::sha256;
pub use error::FsError;
pub use lock::{Lock, is_at};
pub use name::FileName;
pub use staged::Staged;
pub use write::{remove_unfinished, rename, write, write_unsynced, write_with};
