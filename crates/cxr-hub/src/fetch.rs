//! Files to folders: what is here already, who else is at it, and which source serves.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::download::{Attempts, Download, Session, check_space};
use crate::http::Client;
use crate::hub::{Listed, commit, listing};
use crate::manifest::{LOCK, PART, REJECTED};
use crate::part::{Expected, hash};
use crate::receipt::modified;
use crate::{
    Digest, Event, FileName, FileSet, Hasher, HubError, Observer, Options, Receipt, RemoteFile,
    Source,
};

/// A file that is here and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it was verified against.
    pub digest: Digest,
    /// How many bytes this call received for it; 0 for a file that was here.
    pub transferred: u64,
}

/// What became of the files of a set.
#[derive(Debug)]
#[non_exhaustive]
pub struct SetReport {
    /// Those that are here and verified, in the set's order.
    pub fetched: Vec<Fetched>,
    /// Those that no source gave, each with the last source's error.
    pub failed: Vec<(FileName, HubError)>,
}

/// Brings one file into `folder`, which is made where it does not exist.
///
/// A file that is there and was verified before costs no network and, by length and time in its
/// [`Receipt`], no hashing. One that turns out to be another file is renamed to `NAME.rejected`,
/// and fetched.
///
/// # Errors
/// [`HubError::Interrupted`] soon after `stop` is set; what was received is kept. Otherwise the
/// last source's error, or what this machine refuses.
pub fn fetch(
    file: &RemoteFile,
    folder: &Path,
    options: &Options,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Fetched, HubError> {
    Fetcher::new(folder, options, observer, stop).fetch(file)
}

/// Brings the files of a set into `folder`, one after the other.
///
/// A file that no source gives does not stop the others. Before the first transfer the free space
/// is compared with all that is still missing.
///
/// # Errors
/// As [`fetch`], but only for what concerns all files: a set stop flag, a lack of space, a folder
/// that cannot be written, another process at work.
pub fn fetch_all(
    set: &FileSet,
    folder: &Path,
    options: &Options,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<SetReport, HubError> {
    let mut fetcher = Fetcher::new(folder, options, observer, stop);
    fetcher.plan(set)?;
    let mut report = SetReport {
        fetched: Vec::with_capacity(set.files.len()),
        failed: Vec::new(),
    };
    for file in &set.files {
        match fetcher.fetch(file) {
            Ok(fetched) => report.fetched.push(fetched),
            Err(error) if error.is_the_sources() => {
                report.failed.push((file.name.clone(), error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

struct Fetcher<'a> {
    folder: &'a Path,
    session: Session<'a>,
    listings: HashMap<String, Vec<Listed>>,
    /// Commits of branches and tags, as far as the hub tells.
    commits: HashMap<String, Option<String>>,
}

impl<'a> Fetcher<'a> {
    fn new(
        folder: &'a Path,
        options: &'a Options,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            folder,
            session: Session {
                client: Client::new(options),
                options,
                observer,
                stop,
            },
            listings: HashMap::new(),
            commits: HashMap::new(),
        }
    }

    /// Says how much is missing, and stops where it would not fit.
    fn plan(&mut self, set: &FileSet) -> Result<(), HubError> {
        make_folder(self.folder)?;
        let (mut present, mut here, mut missing, mut complete) = (0, 0_u64, 0_u64, true);
        for file in &set.files {
            if let Some(receipt) = self.recorded(file) {
                present += 1;
                here = here.saturating_add(receipt.bytes);
                continue;
            }
            let part = self.folder.join(file.name.with_ending(PART));
            let received = std::fs::metadata(part).map_or(0, |metadata| metadata.len());
            here = here.saturating_add(received);
            match self.size(file)? {
                Some(bytes) => missing = missing.saturating_add(bytes.saturating_sub(received)),
                None => complete = false,
            }
        }
        self.session.observer.on(&Event::Planned {
            files: set.files.len(),
            present,
            here,
            missing,
            complete,
        });
        if let (false, Some(about)) = (complete, set.about_bytes) {
            missing = missing.max(about.saturating_sub(here));
        }
        match missing {
            0 => Ok(()),
            _ => check_space(self.folder, missing, self.session.options.reserve),
        }
    }

    /// The file's length, from the manifest or from the hub. What cannot be found out now is found
    /// out, or reported, when it is fetched.
    fn size(&mut self, file: &RemoteFile) -> Result<Option<u64>, HubError> {
        if file.bytes.is_some() {
            return Ok(file.bytes);
        }
        match file.sources.first() {
            Some(source @ Source::Hub(_)) if file.digest.is_none() => {
                let pinned = self.pin(file, source);
                match pinned.and_then(|source| self.expect(file, &source)) {
                    Ok(expected) => Ok(expected.bytes),
                    Err(error) if error.is_the_sources() => Ok(None),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(None),
        }
    }

    fn fetch(&mut self, file: &RemoteFile) -> Result<Fetched, HubError> {
        self.session.check_stop()?;
        let place = self.folder.join(file.name.as_str());
        if let Some(receipt) = self.recorded(file) {
            return Ok(self.present(file, place, &receipt));
        }
        make_folder(self.folder)?;
        let lock = Lock::take(self.folder, &file.name)?;
        // Another process may have finished it before the lock was ours.
        let receipt = match self.recorded(file) {
            Some(receipt) => Some(receipt),
            None => self.verify_known(file, &place)?,
        };
        if let Some(receipt) = receipt {
            lock.release();
            return Ok(self.present(file, place, &receipt));
        }
        let mut last_error = None;
        for source in &file.sources {
            if let Some(error) = &last_error {
                self.session.observer.on(&Event::SourceFailed {
                    file: file.name.as_str(),
                    error,
                });
            }
            match self.fetch_from(file, &place, source) {
                Ok(fetched) => {
                    lock.release();
                    return Ok(fetched);
                }
                Err(error) if error.is_the_sources() => last_error = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last_error.unwrap_or_else(|| HubError::NoSource {
            file: file.name.to_string(),
        }))
    }

    fn fetch_from(
        &mut self,
        file: &RemoteFile,
        place: &Path,
        source: &Source,
    ) -> Result<Fetched, HubError> {
        let source = &self.pin(file, source)?;
        let expected = self.expect(file, source)?;
        if let Some(receipt) = self.verify_existing(&file.name, place, &expected)? {
            return Ok(self.present(file, place.to_owned(), &receipt));
        }
        let url = match source {
            Source::Url(url) => url.clone(),
            Source::Hub(hub_file) => hub_file.url(&self.session.options.endpoint),
        };
        let download = Download::open(&mut self.session, self.folder, &file.name, &expected, &url)?
            .run(&mut self.session)?;
        let metadata = download.part.sync()?;
        // First the receipt: without its file it means nothing, a file without it is hashed again.
        let receipt = Receipt {
            url: Some(url.clone()),
            digest: expected.digest,
            digest_from: expected.digest_from.clone(),
            bytes: metadata.len(),
            modified: modified(&metadata),
        };
        receipt.write(self.folder, &file.name)?;
        let transferred = download.transferred;
        download.part.rename(place)?;
        self.session.observer.on(&Event::Finished {
            file: file.name.as_str(),
            bytes: receipt.bytes,
        });
        Ok(Fetched {
            path: place.to_owned(),
            bytes: receipt.bytes,
            digest: receipt.digest,
            transferred,
        })
    }

    fn present(&mut self, file: &RemoteFile, path: PathBuf, receipt: &Receipt) -> Fetched {
        self.session.observer.on(&Event::Present {
            file: file.name.as_str(),
            bytes: receipt.bytes,
        });
        Fetched {
            path,
            bytes: receipt.bytes,
            digest: receipt.digest,
            transferred: 0,
        }
    }

    /// The source in the commit that its branch is now, so that listing and bytes are of one state
    /// and the receipt says which. Where the digest is known it decides, and nobody is asked.
    fn pin(&mut self, file: &RemoteFile, source: &Source) -> Result<Source, HubError> {
        let hub_file = match source {
            Source::Hub(hub_file) if file.digest.is_none() && !hub_file.is_pinned() => hub_file,
            other => return Ok(other.clone()),
        };
        let url = hub_file.revision_url(&self.session.options.endpoint);
        if !self.commits.contains_key(&url) {
            let mut attempts = Attempts::default();
            let found = loop {
                match commit(&self.session.client, &url, self.session.stop) {
                    Ok(found) => break found,
                    Err(failure) => attempts.after(failure, &mut self.session, &file.name, &url)?,
                }
            };
            self.commits.insert(url.clone(), found);
        }
        let found = self.commits.get(&url).and_then(Option::as_deref);
        Ok(Source::Hub(match found {
            Some(commit) => hub_file.at(commit),
            None => hub_file.clone(),
        }))
    }

    /// What the file must turn out to be: the manifest says so, or else the hub.
    fn expect(&mut self, file: &RemoteFile, source: &Source) -> Result<Expected, HubError> {
        if let Some(expected) = known(file, None) {
            return Ok(expected);
        }
        let hub_file = match source {
            Source::Hub(hub_file) => hub_file,
            Source::Url(url) => {
                return Err(HubError::NoDigest {
                    file: file.name.to_string(),
                    asked: url.clone(),
                });
            }
        };
        let url = hub_file.listing_url(&self.session.options.endpoint);
        if !self.listings.contains_key(&url) {
            let files = self.read_listing(&file.name, &url)?;
            self.listings.insert(url.clone(), files);
        }
        let listed = self.listings.get(&url).and_then(|files| {
            let is_it = |listed: &&Listed| listed.path == hub_file.path();
            files.iter().find(is_it)
        });
        let Some(listed) = listed else {
            return Err(HubError::NotListed {
                url,
                path: hub_file.path().to_owned(),
            });
        };
        if let Some(expected) = file.bytes
            && expected != listed.bytes
        {
            return Err(HubError::WrongSize {
                url,
                expected,
                found: listed.bytes,
            });
        }
        Ok(Expected {
            digest: listed.digest,
            bytes: Some(listed.bytes),
            digest_from: url,
        })
    }

    fn read_listing(&mut self, name: &FileName, url: &str) -> Result<Vec<Listed>, HubError> {
        let mut attempts = Attempts::default();
        loop {
            match listing(&self.session.client, url, self.session.stop) {
                Ok(files) => return Ok(files),
                Err(failure) => attempts.after(failure, &mut self.session, name, url)?,
            }
        }
    }

    /// The receipt of a file that lies there unchanged and is what the manifest wants.
    fn recorded(&self, file: &RemoteFile) -> Option<Receipt> {
        let metadata = std::fs::metadata(self.folder.join(file.name.as_str())).ok()?;
        let receipt = Receipt::read(self.folder, &file.name)?;
        let wanted = metadata.is_file()
            && receipt.fits(&metadata)
            && file.digest.is_none_or(|digest| digest == receipt.digest)
            && file.bytes.is_none_or(|bytes| bytes == receipt.bytes);
        wanted.then_some(receipt)
    }

    /// Verifies a file that lies there against what manifest or receipt say, without the network.
    fn verify_known(
        &mut self,
        file: &RemoteFile,
        place: &Path,
    ) -> Result<Option<Receipt>, HubError> {
        let receipt = Receipt::read(self.folder, &file.name);
        match known(file, receipt) {
            Some(expected) => self.verify_existing(&file.name, place, &expected),
            None => Ok(None),
        }
    }

    /// Hashes a file that lies there. What it should not be makes way.
    fn verify_existing(
        &mut self,
        name: &FileName,
        place: &Path,
        expected: &Expected,
    ) -> Result<Option<Receipt>, HubError> {
        let mut opened = match File::open(place) {
            Ok(opened) => opened,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HubError::io("open", place)(error)),
        };
        let metadata = opened.metadata().map_err(HubError::io("read", place))?;
        let length = metadata.len();
        if expected.bytes.is_none_or(|bytes| bytes == length) {
            let mut hasher = Hasher::for_digest(&expected.digest, length);
            let session = &mut self.session;
            hash(&mut opened, place, |bytes, position| {
                hasher.update(bytes);
                session.observer.on(&Event::Hashing {
                    file: name.as_str(),
                    position,
                    bytes: length,
                });
                session.check_stop()
            })?;
            if hasher.finish() == expected.digest {
                let receipt = Receipt {
                    url: None,
                    digest: expected.digest,
                    digest_from: expected.digest_from.clone(),
                    bytes: length,
                    modified: modified(&metadata),
                };
                receipt.write(self.folder, name)?;
                return Ok(Some(receipt));
            }
        }
        let rejected = self.folder.join(name.with_ending(REJECTED));
        std::fs::rename(place, rejected).map_err(HubError::io("rename", place))?;
        self.session.observer.on(&Event::Rejected {
            file: name.as_str(),
        });
        Ok(None)
    }
}

/// What is known of the file without asking anybody.
fn known(file: &RemoteFile, receipt: Option<Receipt>) -> Option<Expected> {
    let from_manifest = file.digest.map(|digest| Expected {
        digest,
        digest_from: "manifest".to_owned(),
        bytes: file.bytes,
    });
    let from_receipt = receipt.map(|receipt| Expected {
        digest: receipt.digest,
        digest_from: receipt.digest_from,
        bytes: Some(receipt.bytes),
    });
    let usable = |expected: &Expected| match expected.bytes {
        Some(bytes) => file.bytes.is_none_or(|wanted| wanted == bytes),
        None => !expected.digest.needs_length(),
    };
    from_manifest.or(from_receipt).filter(usable)
}

/// Makes a folder, and removes what a process that was killed has left of a receipt there.
fn make_folder(folder: &Path) -> Result<(), HubError> {
    std::fs::create_dir_all(folder).map_err(HubError::io("make", folder))?;
    // Elsewhere it cannot be seen whether another process is writing.
    if cfg!(unix) {
        cxr_fs::remove_unfinished(folder)?;
    }
    Ok(())
}

/// Only one process at a time may write a file's part.
struct Lock {
    path: PathBuf,
    held: cxr_fs::Lock,
}

impl Lock {
    fn take(folder: &Path, name: &FileName) -> Result<Self, HubError> {
        let path = folder.join(name.with_ending(LOCK));
        match cxr_fs::Lock::try_acquire(&path)? {
            Some(held) => Ok(Self { path, held }),
            None => Err(HubError::Busy {
                path: folder.join(name.as_str()),
            }),
        }
    }

    /// Removes the lock's file. Only once the download has its final name: whoever opened the lock
    /// before and gets it now finds the file there, and touches nothing.
    fn release(self) {
        let _ = std::fs::remove_file(&self.path);
        drop(self.held);
    }
}
