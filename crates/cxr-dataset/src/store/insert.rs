//! Files and archives into a store that is being made, on all cores.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{PrepareOptions, StoreBuilder};
use crate::{DatasetError, ImageName, visit_archive};

/// What became of the images of some files or of an archive.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Inserted {
    /// Images that this call decoded, resized and kept.
    pub n_prepared: usize,
    /// Images that were there already, from a file of the same length.
    pub n_reused: usize,
    /// Images of an archive that the store was not begun for.
    pub n_unexpected: usize,
    /// Files of an archive that are no images by their name.
    pub n_other: usize,
    /// Images that could not be read, decoded or resized, sorted by name.
    pub failures: Vec<(ImageName, DatasetError)>,
    /// Entries of an archive that were refused, and why: the first hundred.
    pub refused: Vec<(String, String)>,
    /// How many entries were refused.
    pub n_refused: usize,
}

impl StoreBuilder {
    /// Decodes, resizes and keeps image files, on all threads of rayon's current pool. A file that
    /// cannot be used does not stop the others.
    ///
    /// # Errors
    /// An image that was not announced, a store that cannot be written, or
    /// [`DatasetError::Interrupted`] once the stop flag is set.
    pub fn insert_files(
        &self,
        sources: &[(ImageName, PathBuf)],
        options: PrepareOptions<'_>,
    ) -> Result<Inserted, DatasetError> {
        let total = sources.len();
        let pending: Vec<&(ImageName, PathBuf)> = (sources.iter())
            .filter(|(name, path)| !file_len(path).is_some_and(|length| self.holds(name, length)))
            .collect();
        let n_reused = total - pending.len();
        let done = AtomicUsize::new(n_reused);
        options.observe(n_reused, total);
        let failures = Mutex::new(Vec::new());
        (pending.par_iter().with_max_len(1)).try_for_each(|(name, path)| {
            if options.is_stopped() {
                return Err(self.interrupted(done.load(Ordering::Relaxed), total));
            }
            let outcome = std::fs::read(path)
                .map_err(DatasetError::io("read", path))
                .and_then(|bytes| self.insert_encoded_from(name, &bytes, path));
            self.settle(name, outcome, &failures)?;
            options.observe(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(())
        })?;
        let failures = sorted(failures);
        Ok(Inserted {
            n_prepared: pending.len() - failures.len(),
            n_reused,
            failures,
            ..Inserted::default()
        })
    }

    /// Takes the announced images out of an archive, without unpacking it: this thread reads, as
    /// many threads as rayon's current pool has decode and resize. Progress counts all images of
    /// the store.
    ///
    /// # Errors
    /// [`DatasetError::Archive`] for a damaged or hostile archive, a store that cannot be written,
    /// or [`DatasetError::Interrupted`] once the stop flag is set. What was done is kept.
    pub fn insert_archive(
        &self,
        archive: impl AsRef<Path>,
        options: PrepareOptions<'_>,
    ) -> Result<Inserted, DatasetError> {
        let archive = archive.as_ref();
        let total = self.n_expected();
        let n_workers = rayon::current_num_threads();
        let failures = Mutex::new(Vec::new());
        let fatal = Mutex::new(None);
        let is_over = AtomicBool::new(false);
        let n_prepared = AtomicUsize::new(0);
        let mut inserted = Inserted::default();
        let (mut seen, mut twice) = (HashSet::new(), Vec::new());
        options.observe(self.n_present(), total);
        let summary = std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<(ImageName, Vec<u8>)>(n_workers);
            let receiver = std::sync::Arc::new(Mutex::new(receiver));
            for worker in 0..n_workers {
                let receiver = std::sync::Arc::clone(&receiver);
                let (failures, fatal, is_over, n_prepared) =
                    (&failures, &fatal, &is_over, &n_prepared);
                let work = move || {
                    loop {
                        let next = receiver
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .recv();
                        let Ok((name, bytes)) = next else { return };
                        let origin = archive.join(name.as_str());
                        let outcome = self.insert_encoded_from(&name, &bytes, &origin);
                        n_prepared.fetch_add(usize::from(outcome.is_ok()), Ordering::Relaxed);
                        if let Err(error) = self.settle(&name, outcome, failures) {
                            is_over.store(true, Ordering::Relaxed);
                            *fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            return;
                        }
                        options.observe(self.n_present(), total);
                    }
                };
                match std::thread::Builder::new().spawn_scoped(scope, work) {
                    Ok(_) => {}
                    // Fewer threads are slower; the archive is not read without any.
                    Err(_) if worker > 0 => break,
                    Err(error) => {
                        return Err(DatasetError::io("start a thread for", archive)(error));
                    }
                }
            }
            // Only the workers hold it now: when the last one has failed, sending fails.
            drop(receiver);
            visit_archive(archive, |image| {
                if options.is_stopped() || is_over.load(Ordering::Relaxed) {
                    return Err(self.interrupted(self.n_present(), total));
                }
                let name = image.name().clone();
                if !self.expects(&name) {
                    inserted.n_unexpected += 1;
                    return Ok(());
                }
                if !seen.insert(name.clone()) {
                    twice.push((name.to_string(), "the archive holds it twice".to_owned()));
                    return Ok(());
                }
                if self.holds(&name, image.source_len()) {
                    inserted.n_reused += 1;
                    return Ok(());
                }
                match image.read() {
                    Ok(bytes) => {
                        let sent = sender.send((name, bytes));
                        sent.map_err(|_| self.interrupted(self.n_present(), total))
                    }
                    Err(error) => {
                        let origin = archive.join(name.as_str());
                        let error = DatasetError::io("read", origin)(error);
                        self.settle(&name, Err(error), &failures)
                    }
                }
            })
        });
        // What stopped the workers is the reason, and not that they were found stopped.
        if let Some(error) = fatal.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let summary = summary?;
        Ok(Inserted {
            n_prepared: n_prepared.into_inner(),
            n_other: summary.n_other,
            failures: sorted(failures),
            n_refused: summary.n_refused + twice.len(),
            refused: summary.refused.into_iter().chain(twice).collect(),
            ..inserted
        })
    }

    /// Keeps a failure for the report, or returns one that ends the preparation.
    fn settle(
        &self,
        name: &ImageName,
        outcome: Result<(), DatasetError>,
        failures: &Mutex<Vec<(ImageName, DatasetError)>>,
    ) -> Result<(), DatasetError> {
        match outcome {
            Ok(()) => Ok(()),
            // The store's own file failed, not the image: a full disk ends the preparation.
            Err(
                error @ DatasetError::Io {
                    action: "write", ..
                },
            ) => Err(error),
            Err(error) => {
                self.forget(name)?;
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push((name.clone(), error));
                Ok(())
            }
        }
    }

    fn interrupted(&self, done: usize, total: usize) -> DatasetError {
        DatasetError::Interrupted {
            path: self.target().to_owned(),
            done,
            total,
        }
    }
}

fn sorted(failures: Mutex<Vec<(ImageName, DatasetError)>>) -> Vec<(ImageName, DatasetError)> {
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort_by(|(first, _), (second, _)| first.cmp(second));
    failures
}

pub(super) fn file_len(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
}
