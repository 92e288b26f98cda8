//! Files and archives into a store that is being made, on all cores.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::{PrepareOptions, StoreBuilder};
use crate::{DatasetError, ImageName, ImageWarning, visit_archive};

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
    /// Files of an archive that are no images.
    pub n_other: usize,
    /// Their paths, escaped: the first hundred.
    pub other: Vec<String>,
    /// Images of an archive that have the name and the content of an earlier one.
    pub n_copies: usize,
    /// Images that could not be read, decoded or resized, sorted by name.
    pub failures: Vec<(ImageName, DatasetError)>,
    /// What the owner of the images that this call prepared should know of them, sorted by name.
    pub warnings: Vec<(ImageName, ImageWarning)>,
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
        let reports = Mutex::new(Reports::default());
        (pending.par_iter().with_max_len(1)).try_for_each(|(name, path)| {
            if options.is_stopped() {
                return Err(self.interrupted(done.load(Ordering::Relaxed), total));
            }
            let outcome = crate::read_image_file(path)
                .and_then(|bytes| self.insert_encoded_from(name, &bytes, path));
            self.settle(name, outcome, &reports)?;
            options.observe(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(())
        })?;
        let Reports { failures, warnings } = sorted(reports);
        Ok(Inserted {
            n_prepared: pending.len() - failures.len(),
            n_reused,
            failures,
            warnings,
            ..Inserted::default()
        })
    }

    /// Takes the announced images out of an archive, without unpacking it: this thread reads, as
    /// many threads as rayon's current pool has decode and resize. Progress counts all images of
    /// the store.
    ///
    /// An image is announced by its path in the archive, or by an end of it: of `train/a/1.png`, that is
    /// `train/a/1.png`, `a/1.png` or `1.png`, in this order.
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
        let reports = Mutex::new(Reports::default());
        let fatal = Mutex::new(None);
        let is_over = AtomicBool::new(false);
        let n_prepared = AtomicUsize::new(0);
        let mut inserted = Inserted::default();
        let (mut seen, mut twice) = (HashMap::new(), Vec::new());
        options.observe(self.n_present(), total);
        let summary = std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel::<(ImageName, Vec<u8>)>(n_workers);
            let receiver = std::sync::Arc::new(Mutex::new(receiver));
            for worker in 0..n_workers {
                let receiver = std::sync::Arc::clone(&receiver);
                let (reports, fatal, is_over, n_prepared) =
                    (&reports, &fatal, &is_over, &n_prepared);
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
                        if let Err(error) = self.settle(&name, outcome, reports) {
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
                let path = image.path();
                let expected = (path.tails().chain(path.ids())).find(|name| self.expects(name));
                let Some(name) = expected else {
                    inserted.n_unexpected += 1;
                    return Ok(());
                };
                if let Some(first) = seen.get(&name) {
                    let path = image.path().to_string();
                    match image.read() {
                        Ok(bytes) if Some(source_of(&bytes)) == *first => inserted.n_copies += 1,
                        Ok(_) => twice.push((
                            path,
                            format!("the archive holds another image that is called `{name}`"),
                        )),
                        Err(error) => twice.push((path, error.to_string())),
                    }
                    return Ok(());
                }
                if self.holds(&name, image.source_len()) {
                    seen.insert(name.clone(), self.source_of(&name));
                    inserted.n_reused += 1;
                    return Ok(());
                }
                match image.read() {
                    Ok(bytes) => {
                        seen.insert(name.clone(), Some(source_of(&bytes)));
                        let sent = sender.send((name, bytes));
                        sent.map_err(|_| self.interrupted(self.n_present(), total))
                    }
                    Err(error) => {
                        seen.insert(name.clone(), None);
                        let origin = archive.join(name.as_str());
                        let error = DatasetError::io("read", origin)(error);
                        self.settle(&name, Err(error), &reports)
                    }
                }
            })
        });
        // What stopped the workers is the reason, and not that they were found stopped.
        if let Some(error) = fatal.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let summary = summary?;
        let Reports { failures, warnings } = sorted(reports);
        Ok(Inserted {
            n_prepared: n_prepared.into_inner(),
            n_other: summary.n_other,
            other: summary.other,
            failures,
            warnings,
            n_refused: summary.n_refused + twice.len(),
            refused: summary.refused.into_iter().chain(twice).collect(),
            ..inserted
        })
    }

    /// Keeps warnings or a failure for the report, or returns one that ends the preparation.
    fn settle(
        &self,
        name: &ImageName,
        outcome: Result<Vec<ImageWarning>, DatasetError>,
        reports: &Mutex<Reports>,
    ) -> Result<(), DatasetError> {
        let reports = || reports.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(warnings) if warnings.is_empty() => Ok(()),
            Ok(warnings) => {
                let named = warnings.into_iter().map(|warning| (name.clone(), warning));
                reports().warnings.extend(named);
                Ok(())
            }
            // The store's own file failed, not the image: a full disk ends the preparation.
            Err(
                error @ DatasetError::Io {
                    action: "write", ..
                },
            ) => Err(error),
            Err(error) => {
                self.forget(name)?;
                reports().failures.push((name.clone(), error));
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

/// What the threads say of images.
#[derive(Default)]
struct Reports {
    failures: Vec<(ImageName, DatasetError)>,
    warnings: Vec<(ImageName, ImageWarning)>,
}

fn sorted(reports: Mutex<Reports>) -> Reports {
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failures = &mut reports.failures;
    failures.sort_by(|(first, _), (second, _)| first.cmp(second));
    reports.warnings.sort();
    reports
}

/// What tells a file from others: its length and its checksum.
fn source_of(bytes: &[u8]) -> (u64, u32) {
    (bytes.len() as u64, crc32fast::hash(bytes))
}

pub(super) fn file_len(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
}
