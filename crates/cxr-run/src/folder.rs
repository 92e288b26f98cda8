//! Where a run keeps its files, whether it is finished, and who may write there.

use std::cmp::Ordering;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cxr_augment::ViewSet;
use cxr_dataset::Part;
use cxr_fs::Lock;

use crate::error::read_run_file;
use crate::{Experiment, Finish, LabelTable, Predictions, RunError, RunMetrics, Unscorable};

/// The name of the file in a run's folder that holds its [`RunMetrics`].
pub const METRICS_FILE: &str = "metrics.json";
/// The name of the trained model in a run's folder.
pub const MODEL_FILE: &str = "model.safetensors";
/// The name of the file in a run's folder that says on what the run was made: any JSON object.
pub const ENVIRONMENT_FILE: &str = "environment.json";
/// The name of the file in a run's folder that holds the complete experiment of the run.
pub const EXPERIMENT_FILE: &str = "experiment.toml";
/// The name of the file in a run's folder that says what happened, line by line.
pub const EVENTS_FILE: &str = "events.jsonl";

const CHECKPOINTS: &str = "checkpoints";
const LOCK: &str = ".lock";

/// Whoever only looks at a run holds its lock for an instant.
const PATIENCE: Duration = Duration::from_millis(200);

/// A run's folder: where each of its files is, and what they say. Nothing need be there yet.
///
/// ```
/// use cxr_run::{Part, RunFolder, ViewSet};
/// let run = RunFolder::at("models/runs/paper/bce");
/// assert_eq!(run.variant(), "bce");
/// let flipped = run.predictions_file(Part::Test, ViewSet::HorizontalFlip);
/// assert_eq!(flipped, run.path().join("predictions-test-hflip.csv"));
/// assert!(!run.is_finished());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
}

/// A run's folder that this process alone writes in, until it is dropped; or one that it shares with the process that
/// does.
#[derive(Debug)]
pub struct LockedRunFolder {
    folder: RunFolder,
    /// Held as long as the folder is used; `None` where another rank holds it.
    lock: Option<Lock>,
}

impl RunFolder {
    /// The folder of a run at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes the folder where there is none, and keeps other processes out of it until it is dropped. What a killed
    /// process left half-written is removed.
    ///
    /// # Errors
    /// The folder cannot be made, or [`RunError::InUse`].
    pub fn open(path: impl Into<PathBuf>) -> Result<LockedRunFolder, RunError> {
        let folder = Self::at(path);
        let checkpoints = folder.path.join(CHECKPOINTS);
        std::fs::create_dir_all(&checkpoints).map_err(RunError::io("open", &folder.path))?;
        let Some(lock) = Lock::try_acquire_for(&folder.path.join(LOCK), PATIENCE)? else {
            return Err(RunError::InUse { path: folder.path });
        };
        cxr_fs::remove_unfinished(&folder.path)?;
        cxr_fs::remove_unfinished(&checkpoints)?;
        Ok(LockedRunFolder {
            folder,
            lock: Some(lock),
        })
    }

    /// The folder as a further rank of a training sees it, whose rank 0 has it [open](Self::open): nothing is made, locked
    /// or removed. Only rank 0 writes there.
    pub fn of_first_rank(path: impl Into<PathBuf>) -> LockedRunFolder {
        LockedRunFolder {
            folder: Self::at(path),
            lock: None,
        }
    }

    /// The runs of an experiment in the order of [`compare_variants`]. A folder is a run's when it holds an
    /// `experiment.toml` or a `metrics.json`.
    ///
    /// # Errors
    /// The folder cannot be listed, or [`RunError::NoRuns`].
    pub fn find(experiment_folder: &Path) -> Result<Vec<Self>, RunError> {
        let unreadable = || RunError::io("read", experiment_folder);
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(experiment_folder).map_err(unreadable())? {
            let run = Self::at(entry.map_err(unreadable())?.path());
            let is_run = run.experiment_file().is_file() || run.is_finished();
            if is_run
                && run
                    .path
                    .file_name()
                    .is_some_and(|name| name.to_str().is_some())
            {
                runs.push(run);
            }
        }
        if runs.is_empty() {
            return Err(RunError::NoRuns {
                path: experiment_folder.to_owned(),
            });
        }
        runs.sort_by(|a, b| compare_variants(a.variant(), b.variant()));
        Ok(runs)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The variant's name, which is the folder's.
    pub fn variant(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.unwrap_or_default()
    }

    /// `experiment.toml`.
    pub fn experiment_file(&self) -> PathBuf {
        self.path.join(EXPERIMENT_FILE)
    }

    /// `environment.json`.
    pub fn environment_file(&self) -> PathBuf {
        self.path.join(ENVIRONMENT_FILE)
    }

    /// `events.jsonl`.
    pub fn events_file(&self) -> PathBuf {
        self.path.join(EVENTS_FILE)
    }

    /// `metrics.json`, which is written last and says that the run is finished.
    pub fn metrics_file(&self) -> PathBuf {
        self.path.join(METRICS_FILE)
    }

    /// `model.safetensors`, the trained model.
    pub fn model_file(&self) -> PathBuf {
        self.path.join(MODEL_FILE)
    }

    /// The predictions of a part under a set of views: `predictions-test.csv`, `predictions-test-hflip.csv`, …
    pub fn predictions_file(&self, part: Part, views: ViewSet) -> PathBuf {
        self.path.join(predictions_file(part, views))
    }

    /// The labels of a part's images: `labels-test.csv`, …
    pub fn labels_file(&self, part: Part) -> PathBuf {
        self.path.join(labels_file(part))
    }

    /// The checkpoint that a training goes on from.
    pub fn latest_checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINTS).join("latest.safetensors")
    }

    /// The model of the best validation mean so far.
    pub fn best_checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINTS).join("best.safetensors")
    }

    /// The network as it was before a stage, counted from 0: before stage 0 it is untrained but for the weights it
    /// began with.
    pub fn before_stage(&self, stage: usize) -> PathBuf {
        let file = format!("before-stage-{stage}.safetensors");
        self.path.join(CHECKPOINTS).join(file)
    }

    /// Whether a process is working in the folder. Asking disturbs none.
    pub fn is_in_use(&self) -> bool {
        Lock::is_held(&self.path.join(LOCK))
    }

    /// Whether the run has its metrics; [`Self::finish`] says whether they are still those of its files.
    pub fn is_finished(&self) -> bool {
        self.metrics_file().is_file()
    }

    /// Whether the run is finished and its files are still what they were then. Reads all of them.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn finish(&self) -> Result<Finish, RunError> {
        Finish::of(self, &|_| true)
    }

    /// As [`Self::finish`], of the tables alone: what a report needs of a run, whose model may be elsewhere.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_of_tables(&self) -> Result<Finish, RunError> {
        Finish::of(self, &|name| name != MODEL_FILE)
    }

    /// The complete experiment of the run, whichever version wrote it.
    ///
    /// # Errors
    /// Those of [`Experiment::read`].
    pub fn experiment(&self) -> Result<Experiment, RunError> {
        Experiment::read_silently(&self.experiment_file())
    }

    /// The run's metrics.
    ///
    /// # Errors
    /// Those of [`RunMetrics::read`].
    pub fn metrics(&self) -> Result<RunMetrics, RunError> {
        RunMetrics::read(&self.metrics_file())
    }

    /// The predictions of a part under a set of views; `None` when the run has none.
    ///
    /// # Errors
    /// Those of [`Predictions::read`].
    pub fn predictions(&self, part: Part, views: ViewSet) -> Result<Option<Predictions>, RunError> {
        let path = self.predictions_file(part, views);
        if !path.is_file() {
            return Ok(None);
        }
        Predictions::read(&path, Unscorable::Refuse).map(Some)
    }

    /// The labels of a part's images; `None` when the run has none.
    ///
    /// # Errors
    /// Those of [`LabelTable::read`].
    pub fn labels(&self, part: Part) -> Result<Option<LabelTable>, RunError> {
        LabelTable::read(&self.labels_file(part))
    }

    /// What the run was made on, as written by the run; `None` when it did not say.
    ///
    /// # Errors
    /// A file that cannot be read, and [`RunError::RunFile`].
    pub fn environment(&self) -> Result<Option<serde_json::Value>, RunError> {
        let path = self.environment_file();
        let Some(text) = read_run_file(&path)? else {
            return Ok(None);
        };
        match serde_json::from_str(&text) {
            Ok(environment) => Ok(Some(environment)),
            Err(source) => Err(RunError::RunFile { path, source }),
        }
    }
}

impl LockedRunFolder {
    /// Whether the folder is still the one that was opened: another one may have taken its place.
    ///
    /// # Errors
    /// [`RunError::FolderGone`].
    pub fn check(&self) -> Result<(), RunError> {
        match &self.lock {
            None => Ok(()),
            Some(lock) if lock.is_in_place() => Ok(()),
            Some(_) => Err(RunError::FolderGone {
                path: self.folder.path.clone(),
            }),
        }
    }

    /// The outcome of work in the folder: if that is gone, so is the reason for any other failure.
    ///
    /// # Errors
    /// That of the outcome, or [`RunError::FolderGone`].
    pub fn outcome<T, E: From<RunError>>(&self, outcome: Result<T, E>) -> Result<T, E> {
        outcome.or_else(|error| {
            self.check()?;
            Err(error)
        })
    }
}

impl Deref for LockedRunFolder {
    type Target = RunFolder;

    fn deref(&self) -> &RunFolder {
        &self.folder
    }
}

/// The names of the files that a finished run has beside its `metrics.json`, which is written after them and says what
/// they hold: the model, the predictions and the labels.
pub fn output_files() -> Vec<String> {
    let predictions = [Part::Validation, Part::Test]
        .into_iter()
        .flat_map(|part| ViewSet::ALL.map(|views| predictions_file(part, views)));
    std::iter::once(MODEL_FILE.to_owned())
        .chain(predictions)
        .chain(Part::ALL.map(labels_file))
        .collect()
}

fn predictions_file(part: Part, views: ViewSet) -> String {
    match views {
        ViewSet::Single => format!("predictions-{part}.csv"),
        _ => format!("predictions-{part}-{views}.csv"),
    }
}

fn labels_file(part: Part) -> String {
    format!("labels-{part}.csv")
}

/// The order in which variants are shown: the paper's losses first, in the paper's order, `bce`, `focal`, `zlpr`,
/// `fzlpr-τ` by τ; then any other by name; of one loss by seed.
pub fn compare_variants(a: &str, b: &str) -> Ordering {
    let (key_a, key_b) = (VariantKey::of(a), VariantKey::of(b));
    (key_a.place.cmp(&key_b.place))
        .then_with(|| key_a.loss.cmp(key_b.loss))
        .then_with(|| key_a.parameter.total_cmp(&key_b.parameter))
        .then_with(|| key_a.seed.cmp(&key_b.seed))
        .then_with(|| a.cmp(b))
}

/// A variant's name taken apart: `fzlpr-0.2-seed1` is the loss `fzlpr`, 0.2, seed 1.
struct VariantKey<'a> {
    place: usize,
    loss: &'a str,
    parameter: f64,
    seed: Option<u64>,
}

impl<'a> VariantKey<'a> {
    fn of(variant: &'a str) -> Self {
        let (name, seed) = match variant.rsplit_once("-seed") {
            Some((name, seed)) => (name, seed.parse().ok()),
            None => (variant, None),
        };
        let (loss, parameter) = match name.rsplit_once('-') {
            Some((loss, text)) => match text.parse() {
                Ok(parameter) => (loss, parameter),
                Err(_) => (name, f64::NEG_INFINITY),
            },
            None => (name, f64::NEG_INFINITY),
        };
        const PAPER: [&str; 4] = ["bce", "focal", "zlpr", "fzlpr"];
        Self {
            place: PAPER
                .iter()
                .position(|&known| known == loss)
                .unwrap_or(PAPER.len()),
            loss,
            parameter,
            seed,
        }
    }
}
