//! What happens during a download.

use std::path::Path;
use std::time::Duration;

use crate::HubError;

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A set was looked through, before anything is transferred.
    Planned {
        /// Its files.
        files: usize,
        /// How many of them are here and verified.
        present: usize,
        /// Bytes that are here: of those, and of unfinished ones.
        here: u64,
        /// Bytes still to come, as far as sizes are known.
        missing: u64,
        /// Whether all sizes are known.
        complete: bool,
    },
    /// A file is here already and verified.
    Present {
        /// Its name.
        file: &'a str,
        /// Its length.
        bytes: u64,
    },
    /// A transfer begins or goes on.
    Started {
        /// The file's name.
        file: &'a str,
        /// Where it comes from.
        url: &'a str,
        /// Bytes that are here already.
        from: u64,
        /// Its length, if known.
        bytes: Option<u64>,
    },
    /// Bytes arrived.
    Received {
        /// The file's name.
        file: &'a str,
        /// Bytes that are here now.
        position: u64,
        /// Its length, if known.
        bytes: Option<u64>,
    },
    /// What was received earlier is of no use, and the file is fetched from its beginning.
    StartedOver {
        /// The file's name.
        file: &'a str,
        /// Why.
        reason: &'a str,
    },
    /// An attempt failed; another one follows.
    Retrying {
        /// The file's name.
        file: &'a str,
        /// Why it failed.
        reason: &'a str,
        /// The pause before the next one.
        pause: Duration,
    },
    /// A source was given up, and the next one is tried. The last one's error is the call's own.
    SourceFailed {
        /// The file's name.
        file: &'a str,
        /// Why.
        error: &'a HubError,
    },
    /// Bytes that lie on disk are read and hashed.
    Hashing {
        /// The file's name.
        file: &'a str,
        /// Bytes hashed.
        position: u64,
        /// Bytes in all.
        bytes: u64,
    },
    /// A file under the final name was not the expected one, and was renamed to `NAME.rejected`.
    Rejected {
        /// The file's name.
        file: &'a str,
    },
    /// A file was found in the cache of Python's `huggingface_hub`, verified and copied.
    Cached {
        /// Its name.
        file: &'a str,
        /// Where it was found.
        path: &'a Path,
        /// Its length.
        bytes: u64,
    },
    /// What lies in that cache is not the expected file, and is left alone.
    CacheIgnored {
        /// The file's name.
        file: &'a str,
        /// What lies there.
        path: &'a Path,
    },
    /// A file is sent to the hub.
    Sending {
        /// Its path in the repository.
        file: &'a str,
        /// Its length.
        bytes: u64,
    },
    /// The hub has a file, whether it was sent or known there already.
    Sent {
        /// Its path in the repository.
        file: &'a str,
        /// Its length.
        bytes: u64,
    },
    /// The file was verified and has its final name.
    Finished {
        /// Its name.
        file: &'a str,
        /// Its length.
        bytes: u64,
    },
}

/// Hears what happens. `()` ignores it.
pub trait Observer {
    /// Called between two pieces of a file: it should return soon.
    fn on(&mut self, event: &Event<'_>);
}

impl Observer for () {
    fn on(&mut self, _event: &Event<'_>) {}
}

impl<F: FnMut(&Event<'_>)> Observer for F {
    fn on(&mut self, event: &Event<'_>) {
        self(event);
    }
}
