//! What one run leaves behind: the facts of `metrics.json` in `RUNS/<experiment>/<variant>/`.
//!
//! `cxr train` and `cxr evaluate` write it, the report reads it. Maps are ordered, so that the same
//! run is the same bytes but for its times. Keys that this version does not know are skipped on
//! reading; a missing one is an error, as a report must not guess.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use cxr_augment::ViewSet;
use cxr_dataset::{Index, Part, PartReport, Split};
use cxr_fs::Staged;
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{json_text, read_run_file};
use crate::folder::{METRICS_FILE, output_files};
use crate::{BestEpoch, EpochRecord, LabelWeights, NetworkPart, RunError, Summary};

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
    /// What each label weighs in the loss, where they are not all alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_weights: Option<LabelWeights>,
    /// The published system that the run is built after, such as `wang-2017`; `None` for one that compares losses on the
    /// experiment's own network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Parts of the run that no experiment file can name, as they are not of this workspace, such as ``head `max` ``.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub custom_components: Vec<String>,
    /// The loss of an image with one positive label, and that label's logit before it, where a report cannot draw it
    /// from a formula; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loss_curve: Vec<[f64; 2]>,
    /// The network from images to logits, part by part; empty where it is not described.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<NetworkPart>,
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// What was trained and tested on.
    pub data: DataFacts,
    /// The metrics of the validation images under each [`ViewSet`] that was predicted.
    pub validation: BTreeMap<ViewSet, Summary>,
    /// The same of the test images.
    pub test: BTreeMap<ViewSet, Summary>,
    /// Of several data sets that were trained on together, the test images of each by itself, by its folder, single view.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub test_by_set: BTreeMap<String, Summary>,
    /// The network as it was before each stage of training, in their order; empty where the run did
    /// not keep it.
    #[serde(default)]
    pub stages: Vec<StageFacts>,
    /// The epoch with the highest validation mean AUC; `None` when none was defined.
    #[serde(deserialize_with = "required")]
    pub best_epoch: Option<BestEpoch>,
    /// Every epoch in the order of training.
    pub history: Vec<EpochRecord>,
    /// How long the parts of the run took.
    pub seconds: Seconds,
    /// SHA-256 of each of [`output_files`](crate::output_files), in hexadecimal, by name: what the metrics are of. Empty in runs of early
    /// versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
}

/// What a run was trained and tested on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFacts {
    /// Which table the labels come from, such as `ChestX-ray14, v2020 release`.
    pub release: String,
    /// How validation images were taken from the training list, such as `paper` or `patient`.
    pub validation_split: String,
    /// One in so many images was held out for the test in the place of the official list: figures on them are not
    /// comparable with those on the official ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,
    /// Images that there are.
    pub images: Parts<usize>,
    /// Listed images that are missing: above zero, the run is of a sample.
    pub absent: Parts<usize>,
    /// Patients of the images that there are; `None` where one is not known.
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
    /// [`RunError::RunUnfinished`] when there is none, [`RunError::RunFile`] when it is not
    /// what this version writes.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let text = read_run_file(path)?.ok_or_else(|| RunError::RunUnfinished {
            path: path.to_owned(),
        })?;
        serde_json::from_str(&text).map_err(|source| RunError::RunFile {
            path: path.to_owned(),
            source,
        })
    }

    /// The metrics of a part under a set of views; `None` where the part was not predicted so, as the training images
    /// never are.
    pub fn summary(&self, part: Part, views: ViewSet) -> Option<&Summary> {
        match part {
            Part::Train => None,
            Part::Validation => self.validation.get(&views),
            Part::Test => self.test.get(&views),
        }
    }

    /// Writes a run's `metrics.json`: whole or not at all.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), RunError> {
        crate::write_json(path, self)
    }

    /// Writes the digests of `staged`'s files into [`Self::files`] and, as the last of them, `metrics.json` into the
    /// run's folder.
    ///
    /// # Errors
    /// [`RunError::Io`], also for one of [`output_files`](crate::output_files) that is not among the staged ones.
    pub fn stage(&mut self, folder: &Path, staged: &mut Staged) -> Result<(), RunError> {
        self.files.clear();
        for name in output_files() {
            let path = folder.join(&name);
            let missing = || RunError::io("write", &path)(std::io::Error::other("it was not made"));
            let beside = staged.path_of(&path).ok_or_else(missing)?;
            self.files.insert(name, cxr_fs::sha256(beside)?);
        }
        let path = folder.join(METRICS_FILE);
        let text = json_text(&path, self)?;
        Ok(staged.write(&path, |file| file.write_all(text.as_bytes()))?)
    }
}

impl DataFacts {
    /// Those of a split of an index, whose test images are the official ones; `phantom` as [`Self::phantom`].
    ///
    /// # Errors
    /// An image of the split that the index does not have.
    pub fn of(index: &Index, split: &Split, phantom: bool) -> Result<Self, RunError> {
        let report = split.report(index)?;
        let part = |part: Part| report.parts.iter().find(|found| found.part == part);
        let of = |pick: fn(&PartReport) -> usize| Parts::of(|of| part(of).map_or(0, pick));
        let between = (Part::Train, Part::Validation);
        let mut shared = report.shared_patients.iter();
        let shared = shared.find(|shared| shared.between == between);
        Ok(Self {
            release: index.release().to_string(),
            validation_split: report.rule.clone(),
            hold_out: None,
            images: of(|part| part.n_images),
            absent: of(|part| part.n_absent),
            patients: Parts::of(|of| part(of).and_then(|found| found.n_patients)),
            shared_patients_train_validation: shared.map(|shared| shared.n_patients),
            phantom,
        })
    }

    /// Whether listed images were missing.
    pub fn is_sample(&self) -> bool {
        self.absent.total() > 0
    }

    /// Whether published figures may stand beside the run's: its images are taken, not drawn, and its
    /// labels are ChestX-ray14's, by the name of the release. Whether they are of the official test images is for each
    /// figure to say, as some published ones are not.
    pub fn is_comparable(&self) -> bool {
        !self.phantom && self.release.starts_with("ChestX-ray14")
    }

    /// Whether the labels are those of the release that the paper counts, which has 60,361 images without a finding, not
    /// those of the first one.
    pub fn has_the_papers_labels(&self) -> bool {
        self.release.starts_with("ChestX-ray14") && !self.release.contains("first release")
    }
}

impl<T> Parts<T> {
    /// The value that `value` has for each part.
    pub fn of(value: impl Fn(Part) -> T) -> Self {
        Self {
            train: value(Part::Train),
            validation: value(Part::Validation),
            test: value(Part::Test),
        }
    }
}

impl Parts<usize> {
    /// The sum over the parts.
    pub fn total(&self) -> usize {
        self.train + self.validation + self.test
    }
}

impl Seconds {
    /// All parts together.
    pub fn total(&self) -> f64 {
        self.prepare + self.train.values().sum::<f64>() + self.predict
    }
}

/// Reads a value that must be there, also where serde would take the absence of the key for `null`.
pub(crate) fn required<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(deserializer)
}
