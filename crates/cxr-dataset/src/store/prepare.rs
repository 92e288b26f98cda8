//! Files to store, on all cores.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::insert::file_len;
use super::{Store, StoreBuilder, StoreSettings};
use crate::{DatasetError, ImageName, ImageWarning};

/// How far a preparation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Images done: prepared, taken over, or failed.
    pub done: usize,
    /// Images asked for.
    pub total: usize,
}

/// Who watches a preparation, and who may stop it.
#[derive(Clone, Copy, Default)]
pub struct PrepareOptions<'a> {
    /// Called once at the start and after every image, from the thread that prepared it.
    pub observer: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Checked before every image; when set, [`prepare`] ends with
    /// [`DatasetError::Interrupted`], and the next call resumes.
    pub stop: Option<&'a AtomicBool>,
}

impl PrepareOptions<'_> {
    pub(super) fn observe(&self, done: usize, total: usize) {
        if let Some(observer) = self.observer {
            observer(Progress { done, total });
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }
}

/// A preparation that has gone through all its images; the caller decides what becomes of it.
#[derive(Debug)]
#[must_use = "commit it to its place, or discard it"]
pub struct Prepared {
    outcome: Outcome,
    failures: Vec<(ImageName, DatasetError)>,
    warnings: Vec<(ImageName, ImageWarning)>,
    n_reused: usize,
    n_prepared: usize,
}

#[derive(Debug)]
enum Outcome {
    Built(StoreBuilder),
    /// The store at the target holds just these images already.
    Unchanged(Store),
}

impl Prepared {
    /// Images that could not be read, decoded or resized, sorted by name.
    pub fn failures(&self) -> &[(ImageName, DatasetError)] {
        &self.failures
    }

    /// The same, where nothing else of the preparation is wanted.
    pub(crate) fn into_failures(self) -> Vec<(ImageName, DatasetError)> {
        self.failures
    }

    /// What the owner of the images that this call prepared should know of them, sorted by name.
    pub fn warnings(&self) -> &[(ImageName, ImageWarning)] {
        &self.warnings
    }

    /// Images that were prepared by this call.
    pub fn n_prepared(&self) -> usize {
        self.n_prepared
    }

    /// Images that an earlier call, or an earlier store, had prepared.
    pub fn n_reused(&self) -> usize {
        self.n_reused
    }

    /// Puts the store in its place, without the images that failed.
    ///
    /// # Errors
    /// As [`StoreBuilder::commit`].
    pub fn commit(self) -> Result<Store, DatasetError> {
        match self.outcome {
            Outcome::Built(builder) => builder.commit(),
            Outcome::Unchanged(store) => Ok(store),
        }
    }

    /// Removes what was prepared. Dropping keeps it, so that the next call resumes.
    ///
    /// # Errors
    /// [`DatasetError::Io`].
    pub fn discard(self) -> Result<(), DatasetError> {
        match self.outcome {
            Outcome::Built(builder) => builder.discard(),
            Outcome::Unchanged(_) => Ok(()),
        }
    }
}

/// Decodes and resizes image files into a store at `target`, on all threads of rayon's current
/// pool. The store's bytes do not depend on their number.
///
/// A file that cannot be used does not stop the others: it is reported by
/// [`Prepared::failures`]. Images that are already there, from an earlier call or store, made from
/// a file of the same length, are not made again.
///
/// # Errors
/// An image given twice, a store that cannot be written, or a set stop flag.
pub fn prepare(
    sources: &[(ImageName, PathBuf)],
    target: impl AsRef<Path>,
    settings: StoreSettings,
    options: PrepareOptions<'_>,
) -> Result<Prepared, DatasetError> {
    let total = sources.len();
    if let Some(store) = finished_store(sources, target.as_ref(), settings) {
        options.observe(total, total);
        return Ok(Prepared {
            outcome: Outcome::Unchanged(store),
            failures: Vec::new(),
            warnings: Vec::new(),
            n_reused: total,
            n_prepared: 0,
        });
    }
    let names: Vec<ImageName> = sources.iter().map(|(name, _)| name.clone()).collect();
    let builder = StoreBuilder::create_or_resume(target, &names, settings)?;
    let inserted = builder.insert_files(sources, options)?;
    Ok(Prepared {
        outcome: Outcome::Built(builder),
        n_prepared: inserted.n_prepared,
        n_reused: inserted.n_reused,
        failures: inserted.failures,
        warnings: inserted.warnings,
    })
}

/// The store at `target`, if it holds just these images, made from files of the same lengths.
fn finished_store(
    sources: &[(ImageName, PathBuf)],
    target: &Path,
    settings: StoreSettings,
) -> Option<Store> {
    let store = Store::open(target).ok()?;
    let same = store.settings() == settings
        && store.len() == sources.len()
        && sources.iter().all(|(name, path)| {
            let length = store.source_len(name);
            length.is_some() && length == file_len(path)
        });
    same.then_some(store)
}
