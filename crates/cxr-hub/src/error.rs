//! What can go wrong, and whose fault it is.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::Digest;

/// Every failure of this crate.
///
/// Whatever it is, nothing unverified lies under a final name; where a part was received and may
/// still be right, it is kept, and the next call goes on from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was attempted: `open`, `read`, `write`, `rename`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A manifest is not TOML of the expected form.
    #[error("`{}` is not a manifest", path.display())]
    ManifestSyntax {
        /// The manifest.
        path: PathBuf,
        /// Where, and what was expected there.
        source: Box<toml::de::Error>,
    },
    /// A manifest is TOML of the expected form, but says something impossible.
    #[error("`{}`, {place}: {problem}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The set or file.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No set of the manifest has this name and mirror.
    #[error("nothing is called {wanted}; there are {known}")]
    UnknownSet {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// A text is not a digest.
    #[error("`{text}` is not a digest: {reason}")]
    Digest {
        /// The text.
        text: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// A text is not a plain file name.
    #[error("`{name}` is not a file name: {reason}")]
    FileName {
        /// The text, escaped.
        name: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A text is not an address of the web, or not a repository or path of the hub.
    #[error("`{text}` is not {expected}")]
    Address {
        /// The text.
        text: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The file has no source.
    #[error("`{file}` has no source to be fetched from")]
    NoSource {
        /// The file.
        file: String,
    },
    /// Neither manifest nor hub says what the file's digest is.
    #[error(
        "`{file}` cannot be verified: neither the manifest nor `{asked}` gives its digest; \
         add `digest = \"sha256:…\"` to the manifest"
    )]
    NoDigest {
        /// The file.
        file: String,
        /// Who might have known.
        asked: String,
    },
    /// The hub's listing cannot be understood.
    #[error("`{url}` is not a listing of the hub: {problem}")]
    Listing {
        /// The listing's address.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The hub's listing does not name the file.
    #[error("`{url}` does not list `{path}`")]
    NotListed {
        /// The listing's address.
        url: String,
        /// The path looked for.
        path: String,
    },
    /// The hub does not say which commit a branch is, so that its listing can change at any time.
    #[error(
        "`{file}` cannot be verified: `{url}` does not say which commit that is; \
         add `revision = \"COMMIT\"` or `digest = \"sha256:…\"` to the manifest"
    )]
    NotPinned {
        /// The file.
        file: String,
        /// The address of the listing.
        url: String,
    },
    /// The hub has lost, or no longer shows, the commit that a branch was pinned to.
    #[error(
        "`{url}` answers with status {status}: the commit that `{repository}` was when it was first \
         fetched is gone; to fetch it as it is now, remove its entry from `{}`",
        pins.display()
    )]
    CommitGone {
        /// The address of the listing.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Repository and branch.
        repository: String,
        /// The file that pins it.
        pins: PathBuf,
    },
    /// Another file was uploaded under the name of one that was fetched before.
    #[error(
        "`{source_file}` is now another file: it was {recorded} when it was fetched ({recorded_from}), \
         and `{listing}` gives {found}; to take the new file, remove `{}`, to keep the old one, add \
         its `digest` or `revision` to the manifest",
        receipt.display()
    )]
    Replaced {
        /// Repository, revision and path.
        source_file: String,
        /// The digest of what was fetched before.
        recorded: Box<Digest>,
        /// Who gave that digest.
        recorded_from: String,
        /// Who gives the other one.
        listing: String,
        /// The other digest.
        found: Box<Digest>,
        /// Where the old one is recorded.
        receipt: PathBuf,
    },
    /// The file of pinned commits cannot be understood.
    #[error("`{}` does not say commits of the hub: {problem}; correct or remove it", path.display())]
    Pins {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Nothing may be asked for over a network.
    #[error(
        "`{url}` is not asked for, because `HF_HUB_OFFLINE` is set; unset it to use the network"
    )]
    Offline {
        /// The address.
        url: String,
    },
    /// Sending to the hub needs a token, and there is none.
    #[error(
        "no token to publish with: set `HF_TOKEN` to one that may write to `{repository}`, or log in \
         with `hf auth login`"
    )]
    NoToken {
        /// The repository.
        repository: String,
    },
    /// What is to be published is not there, or not of a kind that can be.
    #[error("`{}` cannot be published: {problem}", path.display())]
    Unpublishable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The hub's answer to an upload is not what its interface says.
    #[error("`{url}` answers an upload with something unexpected: {problem}")]
    Upload {
        /// The address.
        url: String,
        /// What is unexpected.
        problem: String,
    },
    /// The server refuses, and asking again would not help.
    #[error("`{url}` answers with status {status}; {hint}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What it usually means.
        hint: &'static str,
    },
    /// The request cannot be made at all: an untrusted certificate, endless redirects, a wrong proxy.
    #[error("cannot ask `{url}`")]
    Request {
        /// The address.
        url: String,
        /// The HTTP client's reason.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Attempt after attempt failed without a byte of progress.
    #[error("gave up on `{url}` after {attempts} attempts: {reason}")]
    GaveUp {
        /// The address.
        url: String,
        /// How many attempts were made since the last progress.
        attempts: u32,
        /// Why the last one failed.
        reason: String,
    },
    /// The server's file has another size.
    #[error("`{url}` has {found} bytes, expected {expected}")]
    WrongSize {
        /// The address.
        url: String,
        /// What manifest or listing say.
        expected: u64,
        /// What the server says or sends.
        found: u64,
    },
    /// The received file is not the expected one; it was deleted.
    #[error("`{url}` gave a file with digest {found}, expected {expected}")]
    WrongDigest {
        /// The address.
        url: String,
        /// What manifest or listing say.
        expected: Digest,
        /// The digest of what was received.
        found: Digest,
    },
    /// The volume has too little space.
    #[error(
        "`{}` has {available} bytes free, expected {needed}; free some, or fetch to another volume",
        folder.display()
    )]
    DiskSpace {
        /// The folder.
        folder: PathBuf,
        /// Bytes still to be received, and to be left free.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// Another process is fetching the same file.
    #[error("another process is fetching `{}`", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The stop flag was set; what was received is kept.
    #[error("interrupted")]
    Interrupted,
}

impl From<cxr_fs::FsError> for HubError {
    fn from(error: cxr_fs::FsError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}

impl HubError {
    /// For `map_err`: adds action and path to the system's reason.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether another source might do better: not when the reason lies on this machine.
    pub fn is_the_sources(&self) -> bool {
        matches!(
            self,
            Self::NoDigest { .. }
                | Self::Listing { .. }
                | Self::NotListed { .. }
                | Self::NotPinned { .. }
                | Self::CommitGone { .. }
                | Self::Replaced { .. }
                | Self::Offline { .. }
                | Self::Status { .. }
                | Self::Request { .. }
                | Self::GaveUp { .. }
                | Self::WrongSize { .. }
                | Self::WrongDigest { .. }
        )
    }
}
