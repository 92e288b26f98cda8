//! Files to folders: what is here already, who else is at it, and which source serves.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::download::{Download, Session, check_space};
use crate::http::Host;
use crate::listing::Listing;
use crate::manifest::{LOCK, PART, REJECTED};
use crate::part::{Expected, Part, hash};
use crate::pins::Pins;
use crate::receipt::modified;
use crate::{
    Digest, Event, FileName, FileSet, Hasher, HubError, Observer, Options, Receipt, RemoteFile,
    Repository, Source,
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
    Fetcher::new(folder, options, observer, stop)?.fetch(file)
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
    let mut fetcher = Fetcher::new(folder, options, observer, stop)?;
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

pub(crate) struct Fetcher<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) session: Session<'a>,
    pub(crate) pins: Pins,
    /// Listings by the repository at its commit.
    pub(crate) listings: HashMap<Repository, Listing>,
}

impl<'a> Fetcher<'a> {
    fn new(
        folder: &'a Path,
        options: &'a Options,
        observer: &'a mut dyn Observer,
        stop: &'a AtomicBool,
    ) -> Result<Self, HubError> {
        Ok(Self {
            folder,
            session: Session::new(options, observer, stop)?,
            pins: Pins::of(folder),
            listings: HashMap::new(),
        })
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
                match self.resolve(file, source) {
                    Ok((_, expected)) => Ok(expected.bytes),
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
        if let Some(fetched) = self.cached_by_digest(file, &place)? {
            lock.release();
            return Ok(fetched);
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
        let (at, expected) = self.resolve(file, source)?;
        self.check_not_replaced(file, source, &expected)?;
        let said_by = named(file, source);
        if let Some(receipt) =
            self.verify_existing(&file.name, place, &expected, said_by.clone())?
        {
            return Ok(self.present(file, place.to_owned(), &receipt));
        }
        let (host, url) = match &at {
            Source::Url(url) => (Host::Other, url.clone()),
            Source::Hub(hub_file) => {
                if file.digest.is_none()
                    && let Some(fetched) =
                        self.cached(file, place, hub_file, &expected, said_by.clone())?
                {
                    return Ok(fetched);
                }
                (Host::Hub, self.session.client.file_url(hub_file))
            }
        };
        let from = (host, url.as_str());
        let download = Download::open(&mut self.session, self.folder, &file.name, &expected, from)?
            .run(&mut self.session)?;
        let transferred = download.transferred;
        let receipt = self.settle(
            &file.name,
            place,
            download.part,
            &expected,
            (Some(url.clone()), said_by),
        )?;
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

    /// Gives a verified part its name, with a receipt that says its address, if any, and its source.
    pub(crate) fn settle(
        &self,
        name: &FileName,
        place: &Path,
        part: Part,
        expected: &Expected,
        (url, source): (Option<String>, Option<String>),
    ) -> Result<Receipt, HubError> {
        let metadata = part.sync()?;
        // First the receipt: without its file it means nothing, a file without it is hashed again.
        let receipt = Receipt {
            url,
            source,
            digest: expected.digest,
            digest_from: expected.digest_from.clone(),
            bytes: metadata.len(),
            modified: modified(&metadata),
        };
        receipt.write(self.folder, name)?;
        part.rename(place)?;
        Ok(receipt)
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

    /// The receipt of a file that lies there unchanged and is what the manifest wants.
    fn recorded(&self, file: &RemoteFile) -> Option<Receipt> {
        let metadata = std::fs::metadata(self.folder.join(file.name.as_str())).ok()?;
        let receipt = self.receipt(file)?;
        let wanted = metadata.is_file()
            && receipt.fits(&metadata)
            && file.digest.is_none_or(|digest| digest == receipt.digest)
            && file.bytes.is_none_or(|bytes| bytes == receipt.bytes);
        wanted.then_some(receipt)
    }

    /// The receipt that was written for the file; one of a source that the manifest does not name
    /// (any more) says nothing of those that it names.
    pub(crate) fn receipt(&self, file: &RemoteFile) -> Option<Receipt> {
        let receipt = Receipt::read(self.folder, &file.name)?;
        let is_of = |source: &Source| match (&receipt.source, source) {
            // Versions that kept no source wrote the commit into the listing's address.
            (None, Source::Hub(hub_file)) => {
                let repository = hub_file.repository();
                !repository.is_pinned() || receipt.digest_from.contains(repository.revision())
            }
            (recorded, source) => *recorded == named(file, source),
        };
        let counts = file.digest.is_some() || file.sources.iter().any(is_of);
        counts.then_some(receipt)
    }

    /// Verifies a file that lies there against what manifest or receipt say, without the network.
    fn verify_known(
        &mut self,
        file: &RemoteFile,
        place: &Path,
    ) -> Result<Option<Receipt>, HubError> {
        let receipt = self.receipt(file);
        let source = receipt.as_ref().and_then(|receipt| receipt.source.clone());
        match known(file, receipt) {
            Some(expected) => self.verify_existing(&file.name, place, &expected, source),
            None => Ok(None),
        }
    }

    /// Hashes a file that lies there. What it should not be makes way.
    fn verify_existing(
        &mut self,
        name: &FileName,
        place: &Path,
        expected: &Expected,
        source: Option<String>,
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
                    source,
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
        cxr_fs::rename(place, &rejected)?;
        self.session.observer.on(&Event::Rejected {
            file: name.as_str(),
        });
        Ok(None)
    }
}

/// How a receipt names a source whose hub gives the digest; none where the manifest does.
fn named(file: &RemoteFile, source: &Source) -> Option<String> {
    match source {
        Source::Hub(hub_file) if file.digest.is_none() => Some(hub_file.to_string()),
        _ => None,
    }
}

/// What is known of the file without asking anybody.
pub(crate) fn known(file: &RemoteFile, receipt: Option<Receipt>) -> Option<Expected> {
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
