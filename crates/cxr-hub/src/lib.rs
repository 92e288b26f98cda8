//! Verified, resumable downloads.
//!
//! A [`Manifest`] says what can be fetched: files with their sources, sizes, digests and licences.
//! [`fetch`] brings one file into a folder, [`fetch_all`] a whole set:
//!
//! - bytes arrive in `NAME.part`, and what was received is kept through errors, Ctrl-C and kills:
//!   the next call asks the server for the rest only. A server that has no ranges, or whose file
//!   changed in between, makes it start over;
//! - the file gets its name in one rename, after its size and [`Digest`] were found right. What
//!   cannot be verified is refused before a byte of it is asked for;
//! - a digest that the manifest does not know is read from the hub's own listing of one commit: the
//!   one that the manifest names, or the one that the branch was when the folder was first fetched
//!   to, which `hub.lock.toml` keeps. A file that is uploaded later under the same name is an error;
//! - what a file was verified against is recorded in `NAME.fetched.toml`. A file so recorded needs no
//!   network and no second hashing;
//! - what Python's `huggingface_hub` has in its cache is verified, copied and not fetched again;
//! - overload (429), server errors and lost connections are tried again, later each time, or when
//!   the server says; a source that fails for good gives way to the next one;
//! - free disk space is looked at before anything is transferred.
//!
//! [`publish`] sends a model the other way, and [`fetch_model`] brings one that `hub:OWNER/NAME` names.
//!
//! It never opens what it fetched (archives stay archives), sends a token to the hub's own address
//! only, and never prints: progress goes to an [`Observer`].
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use cxr_hub::{Options, RemoteFile, Source, fetch};
//!
//! # use std::io::{Read, Write};
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let address = listener.local_addr()?;
//! # std::thread::spawn(move || {
//! #     let (mut stream, _) = listener.accept().unwrap();
//! #     let _ = stream.read(&mut [0; 4096]).unwrap();
//! #     stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").unwrap();
//! # });
//! # let scratch = tempfile::tempdir()?;
//! # let folder = scratch.path();
//! // A server on this machine serves the five bytes `hello`.
//! let file = RemoteFile {
//!     name: "greeting.txt".parse()?,
//!     bytes: Some(5),
//!     digest: Some("md5:5d41402abc4b2a76b9719d911017c592".parse()?),
//!     sources: vec![Source::url(&format!("http://{address}/greeting"))?],
//! };
//! let fetched = fetch(&file, folder, &Options::default(), &mut (), &AtomicBool::new(false))?;
//! assert_eq!(fetched.transferred, 5);
//! assert_eq!(std::fs::read_to_string(folder.join("greeting.txt"))?, "hello");
//! // The server is gone, and nobody misses it.
//! let again = fetch(&file, folder, &Options::default(), &mut (), &AtomicBool::new(false))?;
//! assert_eq!(again.transferred, 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod digest;
mod download;
mod environment;
mod error;
mod fetch;
mod http;
mod lfs;
mod listing;
mod manifest;
mod model;
mod observer;
mod options;
mod part;
mod pins;
mod publish;
mod receipt;
mod repository;
mod sources;

pub use digest::{Digest, Hasher};
pub use download::check_space;
pub use environment::{Endpoint, Token};
pub use error::HubError;
pub use fetch::{Fetched, SetReport, fetch, fetch_all};
pub use manifest::{FileName, FileSet, Manifest, RemoteFile, Source};
pub use model::{ModelReference, fetch_model};
pub use observer::{Event, Observer};
pub use options::Options;
pub use publish::{Content, Publication, Published, Upload, publish};
pub use receipt::Receipt;
pub use repository::{HubFile, Repository, RepositoryKind};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
