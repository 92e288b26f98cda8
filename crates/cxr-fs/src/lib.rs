//! Files as the whole workspace reads and writes them.
//!
//! What it does: writes files whole or not at all ([`write()`], [`write_with`], [`Staged`]), looks before a command
//! begins whether it may write where it was asked to ([`Output`]), reads files that are what they should be and no larger
//! than they may be ([`open_regular`], [`read_regular`], [`read_stream`]), takes digests of files ([`sha256`]), makes file
//! names from text ([`FileName`]), and keeps other processes away ([`Lock`]). What it never does: know anything of
//! radiographs, or parse a format.
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
mod input;
mod lock;
mod name;
mod output;
mod staged;
mod write;

pub use digest::sha256;
pub use error::FsError;
pub use input::{open_regular, open_stream, read_recognised, read_regular, read_stream, read_text};
pub use lock::{Lock, is_at};
pub use name::FileName;
pub use output::Output;
pub use staged::Staged;
pub use write::{is_unfinished, remove_unfinished, rename, write, write_unsynced, write_with};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
