//! What one run leaves behind: the facts of `metrics.json` in `RUNS/<experiment>/<variant>/`.
//!
//! `cxr train` and `cxr evaluate` write it, the report reads it. Maps are ordered, so that the same
//! run is the same bytes but for its times. Keys that this version does not know are skipped on
//! reading; a missing one is an error, as a report must not guess.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cxr_fs::Staged;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{ReportError, read_text};
use crate::predictions::{Predictions, Unscorable};
use crate::summary::Summary;

/// The name of the file in a run's folder that holds its [`RunMetrics`].
pub const METRICS_FILE: &str = "metrics.json";
/// The name of the trained model in a run's folder.
pub const MODEL_FILE: &str = "model.safetensors";
/// The name of the file in a run's folder that says on what the run was made: any JSON object.
pub const ENVIRONMENT_FILE: &str = "environment.json";
/// The name of the file in a run's folder that holds the complete experiment of the run.
pub const EXPERIMENT_FILE: &str = "experiment.toml";

/// All that a report needs to know of one finished run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunMetrics {
    /// The experiment's name, such as `paper`.
    pub experiment: String,
    /// The variant's name, such as `fzlpr-0.2`: the name of the run's folder.
    pub variant: String,
    /// The loss's name, such as `fzlpr`.
    pub loss: String,
    /// The loss's parameters, such as `tau`.
    pub loss_parameters: BTreeMap<String, f64>,
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// What was trained and tested on.
    pub data: DataFacts,
    /// The metrics of the validation images under each [`ViewSet`] that was predicted.
    pub validation: BTreeMap<ViewSet, Summary>,
    /// The same of the test images.
    pub test: BTreeMap<ViewSet, Summary>,
    /// The network as it was before each stage of training, in their order; empty where the run did
    /// not keep it.
    #[serde(default)]
    pub stages: Vec<StageFacts>,
    /// The epoch with the highest validation mean AUC; `None` when none was defined.
    #[serde(deserialize_with = "required")]
    pub best_epoch: Option<BestEpoch>,
    /// Every epoch in the order of training.
    pub history: Vec<EpochFacts>,
    /// How long the parts of the run took.
    pub seconds: Seconds,
    /// SHA-256 of each of [`output_files`], in hexadecimal, by name: what the metrics are of. Empty in runs of early
    /// versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// The names of the files that a finished run has beside its `metrics.json`, which is written after them and says what
/// they hold: the model, the predictions and the labels.
pub fn output_files() -> Vec<String> {
    let predictions = ["validation", "test"]
        .into_iter()
        .flat_map(|part| ViewSet::ALL.map(|views| predictions_file(part, views)));
    let labels = ["train", "validation", "test"].map(|part| format!("labels-{part}.csv"));
    std::iter::once(MODEL_FILE.to_owned())
        .chain(predictions)
        .chain(labels)
        .collect()
}

fn predictions_file(part: &str, views: ViewSet) -> String {
    match views {
        ViewSet::Single => format!("predictions-{part}.csv"),
        ViewSet::Hflip | ViewSet::HflipZoom => format!("predictions-{part}-{}.csv", views.name()),
    }
}

/// Whether a run is finished, and still what it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// There is no `metrics.json`.
    Unfinished,
    /// There is one, and all files are as it says.
    Finished,
    /// There is one of an early version, which does not say what the files were.
    Unverified,
    /// Files are not as the `metrics.json` says, each with what happened to it: ``"`labels-test.csv` is missing"``.
    Changed(Vec<String>),
}

impl Finish {
    /// What happened to the files since the run was finished, in words; `None` where nothing is known to have.
    pub fn changes(&self) -> Option<String> {
        match self {
            Self::Changed(changes) => Some(changes.join(", ")),
            _ => None,
        }
    }
}

/// What a run was trained and tested on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFacts {
    /// Which table the labels come from, such as `ChestX-ray14, v2020 release`.
    pub release: String,
    /// How validation images were taken from the training list, such as `paper` or `patient`.
    pub validation_split: String,
    /// Images at hand.
    pub images: Parts<usize>,
    /// Listed images that are not at hand: above zero, the run is of a sample.
    pub absent: Parts<usize>,
    /// Patients of the images at hand; `None` where one is not known.
    pub patients: Parts<Option<usize>>,
    /// Patients with images in training and in validation; `None` where one is not known.
    #[serde(deserialize_with = "required")]
    pub shared_patients_train_validation: Option<usize>,
    /// Whether the images are drawn, not taken: such a run is never set against published numbers.
    pub phantom: bool,
}

/// One value for each part of a split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Parts<T> {
    /// Of the images that fit the weights.
    #[serde(deserialize_with = "required")]
    pub train: T,
    /// Of those that choose an epoch.
    #[serde(deserialize_with = "required")]
    pub validation: T,
    /// Of those that are only predicted.
    #[serde(deserialize_with = "required")]
    pub test: T,
}

/// Which test-time views were averaged into a prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewSet {
    /// The centre crop alone.
    Single,
    /// With its mirror image.
    Hflip,
    /// With its mirror image and both zooms.
    HflipZoom,
}

/// The epoch whose weights did best on the validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// The stage's name.
    pub stage: String,
    /// The epoch, counted from 0 through all stages.
    pub epoch: usize,
    /// Its mean AUC of the validation images, single view.
    pub validation_auc: f64,
}

/// How good the network was before a stage of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageFacts {
    /// The name of the stage that was to come. Before the first one the network is untrained, but for
    /// the weights its backbone began with.
    pub before: String,
    /// Mean AUC of the validation images, single view.
    pub validation: MeanAuc,
    /// The same of the test images.
    pub test: MeanAuc,
}

/// A mean of AUCs and how many it is over.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanAuc {
    /// The mean; `None` when no label has both classes.
    #[serde(deserialize_with = "required")]
    pub auc: Option<f64>,
    /// Over how many labels it is.
    pub n_labels: usize,
}

/// What one epoch gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochFacts {
    /// The stage's name.
    pub stage: String,
    /// The epoch, counted from 0 through all stages.
    pub epoch: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Mean training loss over them.
    pub mean_loss: f64,
    /// Mean AUC of the validation images after the epoch; `None` when no label has both classes, or
    /// the epoch was not validated.
    #[serde(deserialize_with = "required")]
    pub validation_auc: Option<f64>,
    /// Over how many labels that mean is.
    pub validation_labels: usize,
    /// Wall time of the epoch with its validation.
    pub seconds: f64,
}

/// Wall time of a run's parts, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Preparing the images; zero when they were prepared already.
    pub prepare: f64,
    /// Training, by the stage's name; validation after each epoch included.
    pub train: BTreeMap<String, f64>,
    /// Predicting with the final weights, all view sets.
    pub predict: f64,
}

impl RunMetrics {
    /// Reads a run's `metrics.json`.
    ///
    /// # Errors
    /// [`ReportError::RunUnfinished`] when there is none, [`ReportError::RunFile`] when it is not
    /// what this version writes.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let text = read_text(path)?.ok_or_else(|| ReportError::RunUnfinished {
            path: path.to_owned(),
        })?;
        serde_json::from_str(&text).map_err(|source| ReportError::RunFile {
            path: path.to_owned(),
            source,
        })
    }

    /// Writes a run's `metrics.json`: whole or not at all.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        Ok(cxr_fs::write(path, self.text(path)?.as_bytes())?)
    }

    /// Writes the digests of `staged`'s files into [`Self::files`] and, as the last of them, `metrics.json` into the
    /// run's folder.
    ///
    /// # Errors
    /// [`ReportError::Write`], and one of [`output_files`] that has not been staged.
    pub fn stage(&mut self, folder: &Path, staged: &mut Staged) -> Result<(), ReportError> {
        self.files.clear();
        for name in output_files() {
            let path = folder.join(&name);
            let beside = staged.path_of(&path).ok_or_else(|| ReportError::Write {
                path: path.clone(),
                source: std::io::Error::other("it was not made"),
            })?;
            self.files.insert(name, cxr_fs::sha256(beside)?);
        }
        let path = folder.join(METRICS_FILE);
        let text = self.text(&path)?;
        Ok(staged.write(&path, |file| file.write_all(text.as_bytes()))?)
    }

    fn text(&self, path: &Path) -> Result<String, ReportError> {
        let text = serde_json::to_string_pretty(self).map_err(|error| ReportError::Write {
            path: path.to_owned(),
            source: error.into(),
        })?;
        Ok(text + "\n")
    }
}

impl DataFacts {
    /// Whether listed images were not at hand.
    pub fn is_sample(&self) -> bool {
        self.absent.total() > 0
    }

    /// Whether published figures may stand beside the run's: its images are taken, not drawn, and its
    /// labels are ChestX-ray14's, by the name of the release.
    pub fn is_comparable(&self) -> bool {
        !self.phantom && self.release.starts_with("ChestX-ray14")
    }
}

impl Parts<usize> {
    /// The sum over the parts.
    pub fn total(&self) -> usize {
        self.train + self.validation + self.test
    }
}

impl ViewSet {
    /// All view sets, from fewest views to most.
    pub const ALL: [Self; 3] = [Self::Single, Self::Hflip, Self::HflipZoom];

    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Hflip => "hflip",
            Self::HflipZoom => "hflip-zoom",
        }
    }
}

impl Seconds {
    /// All parts together.
    pub fn total(&self) -> f64 {
        self.prepare + self.train.values().sum::<f64>() + self.predict
    }
}

/// A run's folder: finished or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFolder {
    path: PathBuf,
    variant: String,
}

impl RunFolder {
    /// The runs of an experiment, in the paper's order of losses: `bce`, `focal`, `zlpr`, `fzlpr-τ`
    /// by τ, then any other by name; of one loss by seed. A folder is a run's when it holds an
    /// `experiment.toml` or a `metrics.json`.
    ///
    /// # Errors
    /// [`ReportError::Read`] when the folder cannot be listed, [`ReportError::NoRuns`] when it holds
    /// no run.
    pub fn find(experiment_folder: &Path) -> Result<Vec<Self>, ReportError> {
        let unreadable = |source| ReportError::Read {
            path: experiment_folder.to_owned(),
            source,
        };
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(experiment_folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let is_run = [EXPERIMENT_FILE, METRICS_FILE]
                .iter()
                .any(|file| path.join(file).is_file());
            if let (true, Some(variant)) = (is_run, path.file_name().and_then(|name| name.to_str()))
            {
                runs.push(Self {
                    variant: variant.to_owned(),
                    path,
                });
            }
        }
        if runs.is_empty() {
            return Err(ReportError::NoRuns {
                path: experiment_folder.to_owned(),
            });
        }
        runs.sort_by(|a, b| compare_variants(&a.variant, &b.variant));
        Ok(runs)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The variant's name, which is the folder's.
    pub fn variant(&self) -> &str {
        &self.variant
    }

    /// One run's folder, whether it holds anything or not.
    pub fn at(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str());
        Self {
            path: path.to_owned(),
            variant: name.unwrap_or_default().to_owned(),
        }
    }

    /// Whether the run has its metrics; [`Self::finish`] says whether they are still those of its files.
    pub fn is_finished(&self) -> bool {
        self.path.join(METRICS_FILE).is_file()
    }

    /// Whether the run is finished and its files are still what they were then. Reads all of them.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn finish(&self) -> Result<Finish, ReportError> {
        self.finish_of(&|_| true)
    }

    /// As [`Self::finish`], of the tables alone: what a report needs of a run, whose model may be elsewhere.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_of_tables(&self) -> Result<Finish, ReportError> {
        self.finish_of(&|name| name != MODEL_FILE)
    }

    fn finish_of(&self, is_wanted: &dyn Fn(&str) -> bool) -> Result<Finish, ReportError> {
        /// What there is in every version's file, sound or not.
        #[derive(Deserialize)]
        struct Marker {
            #[serde(default)]
            files: BTreeMap<String, String>,
        }
        let path = self.path.join(METRICS_FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Finish::Unfinished);
            }
            Err(source) => return Err(ReportError::Read { path, source }),
        };
        let Ok(Marker { files }) = serde_json::from_slice(&text) else {
            let change = format!("`{METRICS_FILE}` is damaged");
            return Ok(Finish::Changed(vec![change]));
        };
        if files.is_empty() {
            return Ok(Finish::Unverified);
        }
        let mut changes = Vec::new();
        // Only names of our own become paths.
        for name in output_files().iter().filter(|name| is_wanted(name)) {
            let path = self.path.join(name);
            let Some(expected) = files.get(name) else {
                changes.push(format!("`{METRICS_FILE}` lacks the digest of `{name}`"));
                continue;
            };
            if !path.is_file() {
                changes.push(format!("`{name}` is missing"));
            } else if cxr_fs::sha256(&path)? != *expected {
                changes.push(format!("`{name}` was changed"));
            }
        }
        Ok(match changes.is_empty() {
            true => Finish::Finished,
            false => Finish::Changed(changes),
        })
    }

    /// The run's metrics.
    ///
    /// # Errors
    /// Those of [`RunMetrics::read`].
    pub fn metrics(&self) -> Result<RunMetrics, ReportError> {
        RunMetrics::read(&self.path.join(METRICS_FILE))
    }

    /// The predictions of a part, `validation` or `test`, under a view set; `None` when the run has
    /// none.
    ///
    /// # Errors
    /// Those of [`Predictions::read`].
    pub fn predictions(
        &self,
        part: &str,
        views: ViewSet,
    ) -> Result<Option<Predictions>, ReportError> {
        let path = self.path.join(predictions_file(part, views));
        if !path.is_file() {
            return Ok(None);
        }
        Predictions::read(&path, Unscorable::Refuse).map(Some)
    }

    /// What the run was made on, as written by the run; `None` when it did not say.
    ///
    /// # Errors
    /// [`ReportError::Read`] and [`ReportError::RunFile`].
    pub fn environment(&self) -> Result<Option<serde_json::Value>, ReportError> {
        let path = self.path.join(ENVIRONMENT_FILE);
        let Some(text) = read_text(&path)? else {
            return Ok(None);
        };
        match serde_json::from_str(&text) {
            Ok(environment) => Ok(Some(environment)),
            Err(source) => Err(ReportError::RunFile { path, source }),
        }
    }
}

/// The order in which variants are shown: the paper's losses first, in the paper's order.
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

/// Reads a value that must be there, also where serde would take the absence of the key for `null`.
fn required<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}
