//! Where a run keeps its files, for one process at a time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cxr_augment::ViewSet;
use cxr_dataset::Part;
use cxr_fs::Lock;

use crate::TrainError;

/// Files of a run folder.
pub(crate) const LATEST: &str = "checkpoints/latest.safetensors";
/// The folder of checkpoints.
const CHECKPOINTS: &str = "checkpoints";
pub(crate) const EVENTS: &str = "events.jsonl";
pub(crate) const LOCK: &str = ".lock";

/// Whoever only looks at a run ([`crate::RunStatus`]) holds its lock for an instant.
const PATIENCE: Duration = Duration::from_millis(200);

/// The files of a run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held as long as the folder is used.
    lock: Lock,
}

impl RunFolder {
    /// Opens a run folder for writing, and keeps other processes out of it until it is dropped. What
    /// a killed process left half-written is removed.
    ///
    /// # Errors
    /// The folder cannot be made, or another process is working in it.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let failed = |source| TrainError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path.join(CHECKPOINTS)).map_err(failed)?;
        let Some(lock) = Lock::try_acquire_for(&path.join(LOCK), PATIENCE)? else {
            return Err(TrainError::InUse {
                path: path.to_owned(),
            });
        };
        cxr_fs::remove_unfinished(path)?;
        cxr_fs::remove_unfinished(&path.join(CHECKPOINTS))?;
        Ok(Self {
            path: path.to_owned(),
            lock,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder is still the one that was opened: another one may have taken its place.
    ///
    /// # Errors
    /// [`TrainError::FolderGone`].
    pub fn check(&self) -> Result<(), TrainError> {
        match self.lock.is_in_place() {
            true => Ok(()),
            false => Err(TrainError::FolderGone {
                path: self.path.clone(),
            }),
        }
    }

    /// What became of work in the folder: if that is gone, so is the reason for any other failure.
    pub(crate) fn outcome<T>(&self, outcome: Result<T, TrainError>) -> Result<T, TrainError> {
        outcome.or_else(|error| self.check().and(Err(error)))
    }

    /// The trained model.
    pub fn model(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// A table of predictions.
    pub fn predictions(&self, part: Part, views: ViewSet) -> PathBuf {
        let suffix = match views {
            ViewSet::Single => String::new(),
            other => format!("-{other}"),
        };
        self.path.join(format!("predictions-{part}{suffix}.csv"))
    }

    /// The network as it was before a stage, counted from 0: before stage 0 it is untrained but for
    /// the weights it began with.
    pub fn before_stage(&self, stage: usize) -> PathBuf {
        let file = format!("before-stage-{stage}.safetensors");
        self.path.join(CHECKPOINTS).join(file)
    }

    /// Writes what timing has chosen on a GPU, if it chooses, as every checkpoint does: for who goes on to use the device
    /// after the training.
    ///
    /// # Errors
    /// The file cannot be written.
    #[cfg(feature = "cuda")]
    pub fn record_algorithms(&self) -> Result<(), TrainError> {
        crate::trainer::algorithms::record(&self.path)
    }

    pub(crate) fn latest(&self) -> PathBuf {
        self.path.join(LATEST)
    }

    pub(crate) fn best(&self) -> PathBuf {
        self.path.join(CHECKPOINTS).join("best.safetensors")
    }
}
