//! What a file of a source must turn out to be, and whether it is on this machine already.

use std::path::Path;

use crate::cache::HubCache;
use crate::download::check_space;
use crate::fetch::{Fetcher, known};
use crate::listing::{LONGEST, Listing};
use crate::part::{Expected, Part, hash};
use crate::{Event, Fetched, FileName, HubError, HubFile, RemoteFile, Repository, Source};

impl Fetcher<'_> {
    /// The source, at the commit that is meant, and what its bytes must turn out to be: the manifest
    /// says so, or else the hub's listing of that commit.
    pub(crate) fn resolve(
        &mut self,
        file: &RemoteFile,
        source: &Source,
    ) -> Result<(Source, Expected), HubError> {
        if let Some(expected) = known(file, None) {
            return Ok((source.clone(), expected));
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
        let (at, expected) = match self.session.options.offline {
            true => self.resolve_offline(hub_file)?,
            false => self.resolve_at_the_hub(&file.name, hub_file)?,
        };
        match (file.bytes, expected.bytes) {
            (Some(wanted), Some(found)) if wanted != found => Err(HubError::WrongSize {
                url: expected.digest_from,
                expected: wanted,
                found,
            }),
            _ => Ok((Source::Hub(at), expected)),
        }
    }

    fn resolve_at_the_hub(
        &mut self,
        name: &FileName,
        hub_file: &HubFile,
    ) -> Result<(HubFile, Expected), HubError> {
        let repository = self.pin(name, hub_file.repository())?;
        let url = self.session.client.listing(&repository).url().to_owned();
        let listing = self.listings.get(&repository);
        let Some(listed) = listing.and_then(|listing| listing.files.get(hub_file.path())) else {
            return Err(HubError::NotListed {
                url,
                path: hub_file.path().to_owned(),
            });
        };
        let expected = Expected {
            digest: listed.digest,
            bytes: Some(listed.bytes),
            digest_from: url,
        };
        Ok((hub_file.at(repository.revision()), expected))
    }

    /// The repository at the commit that is meant, whose listing is known afterwards.
    fn pin(&mut self, name: &FileName, repository: &Repository) -> Result<Repository, HubError> {
        let pinned = match repository.is_pinned() {
            true => Some(repository.revision().to_owned()),
            false => self.pins.commit(repository)?,
        };
        if let Some(commit) = pinned {
            let at = repository.at(&commit);
            if !self.listings.contains_key(&at) {
                let (url, listing) = self.listing(name, &at).map_err(|error| match error {
                    HubError::Status {
                        url,
                        status: status @ (404 | 410),
                        ..
                    } if !repository.is_pinned() => HubError::CommitGone {
                        url,
                        status,
                        repository: repository.to_string(),
                        pins: self.pins.path().to_owned(),
                    },
                    error => error,
                })?;
                if let Some(other) = listing.commit.as_ref().filter(|other| **other != commit) {
                    return Err(HubError::Listing {
                        url,
                        problem: format!("it is of the commit {other}"),
                    });
                }
                self.listings.insert(at.clone(), listing);
            }
            return Ok(at);
        }
        let (url, listing) = self.listing(name, repository)?;
        let Some(commit) = listing.commit.clone() else {
            return Err(HubError::NotPinned {
                file: name.to_string(),
                url,
            });
        };
        let pinned = self.pins.pin(repository, &commit)?;
        self.listings.insert(repository.at(&commit), listing);
        match pinned == commit {
            true => Ok(repository.at(&commit)),
            // Another process was a moment earlier, when the branch was elsewhere.
            false => self.pin(name, &repository.at(&pinned)),
        }
    }

    fn listing(
        &mut self,
        name: &FileName,
        repository: &Repository,
    ) -> Result<(String, Listing), HubError> {
        self.session.ask(
            name.as_str(),
            |client| Ok(client.listing(repository)),
            |response, url, stop| match response.status {
                200 => {
                    let text = response.bytes(LONGEST, stop)?;
                    let listing = Listing::parse(&text).map_err(|problem| HubError::Listing {
                        url: url.to_owned(),
                        problem,
                    })?;
                    Ok((url.to_owned(), listing))
                }
                _ => Err(response.failure(url)),
            },
        )
    }

    /// Without a network the cache says which commit a branch was, and which digests the hub gave.
    fn resolve_offline(&mut self, hub_file: &HubFile) -> Result<(HubFile, Expected), HubError> {
        let repository = hub_file.repository();
        let offline = || HubError::Offline {
            url: self.session.client.listing(repository).url().to_owned(),
        };
        let cache = self.session.options.cache.as_deref();
        let cache = HubCache::at(cache.ok_or_else(offline)?);
        let pinned = match repository.is_pinned() {
            true => None,
            false => self.pins.commit(repository)?,
        };
        let commit = pinned.or_else(|| cache.commit(repository));
        let commit = commit.ok_or_else(offline)?;
        let at = hub_file.at(&commit);
        let digest = cache.digest(&at, &commit).ok_or_else(offline)?;
        let places = cache.places(&at, &digest);
        let place = (places.iter()).find_map(|place| std::fs::metadata(place).ok());
        let expected = Expected {
            digest,
            bytes: Some(place.ok_or_else(offline)?.len()),
            digest_from: format!("the cache of huggingface_hub, commit {commit}"),
        };
        if !repository.is_pinned() {
            self.pins.pin(repository, &commit)?;
        }
        Ok((at, expected))
    }

    /// Refuses a file that was uploaded under the name of one that was fetched before: only who
    /// wrote the manifest, or keeps the folder, can know which is meant.
    pub(crate) fn check_not_replaced(
        &self,
        file: &RemoteFile,
        source: &Source,
        expected: &Expected,
    ) -> Result<(), HubError> {
        match (source, self.receipt(file)) {
            (Source::Hub(hub_file), Some(receipt))
                if file.digest.is_none()
                    && !hub_file.repository().is_pinned()
                    && receipt.digest != expected.digest =>
            {
                Err(HubError::Replaced {
                    source_file: hub_file.to_string(),
                    recorded: Box::new(receipt.digest),
                    recorded_from: receipt.digest_from,
                    listing: expected.digest_from.clone(),
                    found: Box::new(expected.digest),
                    receipt: crate::Receipt::place(self.folder, &file.name),
                })
            }
            _ => Ok(()),
        }
    }

    /// The file out of the cache, where the manifest has its digest: then no source has to be asked.
    pub(crate) fn cached_by_digest(
        &mut self,
        file: &RemoteFile,
        place: &Path,
    ) -> Result<Option<Fetched>, HubError> {
        let Some(expected) = known(file, None) else {
            return Ok(None);
        };
        for source in &file.sources {
            if let Source::Hub(hub_file) = source
                && let Some(fetched) = self.cached(file, place, hub_file, &expected, None)?
            {
                return Ok(Some(fetched));
            }
        }
        Ok(None)
    }

    /// The file out of the cache, copied and verified on the way; `source` is for its receipt.
    pub(crate) fn cached(
        &mut self,
        file: &RemoteFile,
        place: &Path,
        hub_file: &HubFile,
        expected: &Expected,
        source: Option<String>,
    ) -> Result<Option<Fetched>, HubError> {
        let Some(cache) = self.session.options.cache.as_deref() else {
            return Ok(None);
        };
        let name = file.name.as_str();
        for path in HubCache::at(cache).places(hub_file, &expected.digest) {
            // What cannot be read there is fetched as if it were not there.
            let Ok(mut opened) = cxr_fs::open_regular(&path) else {
                continue;
            };
            let length = (opened.metadata())
                .map_err(HubError::io("read", &path))?
                .len();
            if expected.bytes.is_none_or(|bytes| bytes == length) {
                check_space(self.folder, length, self.session.options.reserve)?;
                let mut part = Part::open(self.folder, &file.name, expected)?;
                part.clear(expected)?;
                let session = &mut self.session;
                hash(&mut opened, &path, |bytes, position| {
                    part.append(bytes)?;
                    session.observer.on(&Event::Hashing {
                        file: name,
                        position,
                        bytes: length,
                    });
                    session.check_stop()
                })?;
                if part.digest() == expected.digest {
                    let receipt = self.settle(&file.name, place, part, expected, (None, source))?;
                    self.session.observer.on(&Event::Cached {
                        file: name,
                        path: &path,
                        bytes: receipt.bytes,
                    });
                    return Ok(Some(Fetched {
                        path: place.to_owned(),
                        bytes: receipt.bytes,
                        digest: receipt.digest,
                        transferred: 0,
                    }));
                }
                part.delete()?;
            }
            self.session.observer.on(&Event::CacheIgnored {
                file: name,
                path: &path,
            });
        }
        Ok(None)
    }
}
