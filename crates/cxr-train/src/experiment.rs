//! Experiments as data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cxr_augment::{Augmentation, Pipeline, StandardTransform};
use cxr_dataset::{Subset, ValidationSplit};
use cxr_losses::MultiLabelLoss;
use cxr_ops::Precision;
use cxr_run::ModelConfig;
use serde::{Deserialize, Serialize};

use crate::components::{self, complete_model};
use crate::{LastBatch, ModelCard, OptimiserConfig, ParameterGroup, Schedule, TrainError};

/// An experiment: one model, one data split, one course of training, and the variants in which it
/// is run, each with its own loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The name of its folder under `models/runs`.
    pub name: String,
    /// What it is for, in a sentence.
    #[serde(default)]
    pub description: String,
    /// Seed of the split, the initial weights, the order of images and every draw.
    #[serde(default)]
    pub seed: u64,
    /// Which images validate.
    #[serde(default)]
    pub data: DataConfig,
    /// The network.
    #[serde(default)]
    pub model: ModelConfig,
    /// How training images are varied, and the sizes of images and crops.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Further random variations of training images, such as `{ scaling = { smallest = 0.9, largest
    /// = 1.1 } }`: those of `cxr_augment::StandardTransform`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transforms: Vec<StandardTransform>,
    /// The course of training.
    pub training: TrainingConfig,
    /// What is compared.
    pub variants: Vec<Variant>,
}

/// Which images train, validate and test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// How the validation images are taken out of the official training list: `paper`, a tenth
    /// of the images, or `patient`, a tenth of them in whole patients.
    pub validation: ValidationSplit,
    /// Seed of that choice, where it is not the experiment's: of several trainings that differ in the
    /// seed alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_seed: Option<u64>,
    /// Which images are wanted, such as PA radiographs of adults; the split is made before, and the
    /// others are counted.
    #[serde(skip_serializing_if = "Subset::is_everything")]
    pub subset: Subset,
    /// Synthetic images that the experiment is made on, where it is not made on a data set that is at
    /// hand: what to write, before training, into the folder that is then read like any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phantoms: Option<PhantomSettings>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            validation: ValidationSplit::Paper,
            split_seed: None,
            subset: Subset::default(),
            phantoms: None,
        }
    }
}

/// Which synthetic chest X-rays an experiment is made on. Training never looks at it: whoever calls it
/// has them written, and training reads the folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhantomSettings {
    /// Seed of all that is drawn; another one gives other patients.
    pub seed: u64,
    /// Images in the list for training and validation.
    pub train_val: usize,
    /// Images in the test list.
    pub test: usize,
    /// Images that are recorded with a finding, for each finding at least: in the first list and in
    /// the second.
    #[serde(default)]
    pub least_positives: [usize; 2],
    /// Side of the images in pixels.
    #[serde(default = "side_of_chest_x_ray14")]
    pub side: usize,
    /// What their labels are.
    #[serde(default)]
    pub labels: PhantomLabels,
}

fn side_of_chest_x_ray14() -> usize {
    1024
}

/// What the labels of synthetic chest X-rays are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhantomLabels {
    /// The fourteen findings of ChestX-ray14.
    #[default]
    Findings,
    /// How each image was taken and of what kind of body; no finding is shown.
    Nuisance,
}

/// The course of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// Images a step, at least 2.
    #[serde(default = "paper_batch")]
    pub batch_size: usize,
    /// Whether the last images of an epoch are a batch when they do not fill it: `keep` (the
    /// paper's) or `drop`.
    #[serde(default, skip_serializing_if = "LastBatch::is_keep")]
    pub last_batch: LastBatch,
    /// Images at once in prediction; changes memory and speed, no result.
    #[serde(default = "evaluation_batch")]
    pub evaluation_batch_size: usize,
    /// A checkpoint is written every so many steps, and at the end of each epoch.
    #[serde(default = "checkpoint_steps")]
    pub checkpoint_steps: usize,
    /// So many batches make a step, whose gradient is the mean over all their images. Each batch is
    /// normalised by its own statistics. The last step of an epoch has the batches that are left.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub accumulate: usize,
    /// Gradients are scaled down where their norm over all trained parameters is above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// With a decay in (0, 1), validation, predictions and models are of the exponential moving average
    /// of the weights over the steps ([`crate::WeightAverage`]), which goes on through the stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// What the products in a DenseNet's dense layers are made of in training: `f32`, or `bf16`, which is faster
    /// on processors that have an instruction for it; on a CUDA device it is what a DenseNet's activations are.
    /// Weights, statistics, losses and predictions are `f32` in either case.
    #[serde(
        default,
        with = "precision_by_name",
        skip_serializing_if = "is_single_precision"
    )]
    pub precision: Precision,
    /// The optimiser; its state is fresh in each stage.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// The stages, one after the other. Epochs count through them.
    pub stages: Vec<Stage>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_single_precision(precision: &Precision) -> bool {
    *precision == Precision::Single
}

/// `f32` and `bf16`, as [`Precision::name`] has them.
mod precision_by_name {
    use cxr_ops::Precision;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(super) fn serialize<S: Serializer>(
        precision: &Precision,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(precision.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Precision, D::Error> {
        let named = String::deserialize(deserializer)?;
        let mut all = Precision::ALL.into_iter();
        all.find(|precision| precision.name() == named)
            .ok_or_else(|| D::Error::custom(format!("expected `f32` or `bf16`, got `{named}`")))
    }
}

fn paper_batch() -> usize {
    64
}

fn evaluation_batch() -> usize {
    32
}

fn checkpoint_steps() -> usize {
    500
}

fn one() -> usize {
    1
}

fn is_one(value: &usize) -> bool {
    *value == 1
}

/// One stage of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What it is called in logs.
    pub name: String,
    /// Passes over the training images, at least 1.
    pub epochs: usize,
    /// Parameters whose name starts so are not trained: `features.` freezes the backbone, whose
    /// batch normalisations then keep and use their running statistics.
    #[serde(default)]
    pub frozen: Vec<String>,
    /// The stage ends early when the mean AUC of the validation images has not risen above its best in
    /// this stage for so many epochs, at least 1. The next stage goes on with the weights of the last
    /// epoch and draws as if all epochs had been made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// The learning rate.
    pub schedule: Schedule,
    /// Parameters that are trained otherwise than the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
}

/// One loss that the experiment is run with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The name of its run folder, such as `fzlpr-0.2`.
    pub name: String,
    /// The loss, by the name that `cxr-losses` knows it by.
    pub loss: String,
    /// The loss's parameters.
    #[serde(flatten)]
    pub parameters: BTreeMap<String, f64>,
}

impl Variant {
    /// The loss.
    ///
    /// # Errors
    /// A name or parameter that `cxr-losses` does not know, or a parameter out of range.
    pub fn loss(&self) -> Result<Box<dyn MultiLabelLoss>, TrainError> {
        Ok(cxr_losses::by_name(&self.loss, &self.parameters)?)
    }
}

/// An experiment with one variant: all that decides a run, defaults filled in. Written to the run
/// folder as `experiment.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantExperiment(Experiment, Variant);

/// The longest experiment file that is read.
const MAX_BYTES: u64 = 1 << 24;

impl Experiment {
    /// Reads and checks an experiment file.
    ///
    /// # Errors
    /// [`TrainError::ExperimentFile`] names the file and what in it is unknown, missing or out of range.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let text = cxr_fs::read_text(path, MAX_BYTES)?;
        Self::parse(&text).map_err(|error| TrainError::ExperimentFile {
            path: path.to_owned(),
            problem: match error {
                TrainError::ExperimentFile { problem, .. } => problem,
                other => other.to_string(),
            },
        })
    }

    /// Parses and checks an experiment. Keys that have a new name are read by their old one too, with a warning.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self, TrainError> {
        let experiment = Self::parse_silently(text)?;
        components::warn_of_old_names(text, &experiment.model);
        Ok(experiment)
    }

    /// As [`Self::parse`], whatever names are old.
    fn parse_silently(text: &str) -> Result<Self, TrainError> {
        let experiment: Self =
            toml::from_str(text).map_err(|error| TrainError::ExperimentFile {
                path: PathBuf::from("experiment"),
                problem: error.to_string(),
            })?;
        experiment.check()?;
        Ok(experiment)
    }

    /// The experiment with one of its variants only.
    ///
    /// # Errors
    /// [`TrainError::UnknownVariant`] lists those there are; a setting out of its range, of an experiment that
    /// was not read from a file.
    pub fn variant(&self, name: &str) -> Result<VariantExperiment, TrainError> {
        self.check()?;
        let Some(variant) = self.variants.iter().find(|variant| variant.name == name) else {
            let known: Vec<_> = self
                .variants
                .iter()
                .map(|v| format!("`{}`", v.name))
                .collect();
            return Err(TrainError::UnknownVariant {
                experiment: self.name.clone(),
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        let experiment = Self {
            model: complete_model(&self.model)?,
            variants: vec![variant.clone()],
            ..self.clone()
        };
        Ok(VariantExperiment(experiment, variant.clone()))
    }

    /// The same trained with another seed, by the name of `<variant>-seed<seed>`: other initial weights,
    /// order and draws, and the same images in each part. With the experiment's own seed it is
    /// [`Self::variant`].
    ///
    /// # Errors
    /// As [`Self::variant`].
    pub fn variant_with_seed(
        &self,
        name: &str,
        seed: u64,
    ) -> Result<VariantExperiment, TrainError> {
        let VariantExperiment(mut experiment, mut variant) = self.variant(name)?;
        if seed != self.seed {
            variant.name = format!("{name}-seed{seed}");
            experiment.data.split_seed = Some(self.split_seed());
            experiment.seed = seed;
            experiment.variants = vec![variant.clone()];
        }
        Ok(VariantExperiment(experiment, variant))
    }

    /// The seed of the split.
    pub fn split_seed(&self) -> u64 {
        self.data.split_seed.unwrap_or(self.seed)
    }

    /// How training images are varied: the augmentation and the further transforms.
    ///
    /// # Errors
    /// [`TrainError::Augment`] for two transforms of one kind.
    pub fn pipeline(&self) -> Result<Pipeline, TrainError> {
        let begin = Pipeline::new(self.augmentation);
        let mut transforms = self.transforms.iter();
        Ok(transforms.try_fold(begin, |pipeline, transform| pipeline.with(*transform))?)
    }

    fn check(&self) -> Result<(), TrainError> {
        check_folder_name("name", &self.name)?;
        self.pipeline()?;
        let training = &self.training;
        if training.batch_size < 2 {
            let found = training.batch_size;
            return Err(TrainError::setting(
                "training.batch_size",
                "at least 2",
                found,
            ));
        }
        for (key, value) in [
            (
                "training.evaluation_batch_size",
                training.evaluation_batch_size,
            ),
            ("training.checkpoint_steps", training.checkpoint_steps),
            ("training.accumulate", training.accumulate),
            ("training.stages", training.stages.len()),
            ("variants", self.variants.len()),
        ] {
            if value == 0 {
                return Err(TrainError::setting(key, "at least 1", value));
            }
        }
        training.optimiser.check()?;
        if let Some(norm) = training.clip_norm
            && !(norm.is_finite() && norm > 0.)
        {
            return Err(TrainError::setting("training.clip_norm", "above 0", norm));
        }
        if let Some(decay) = training.ema_decay
            && !(decay > 0. && decay < 1.)
        {
            return Err(TrainError::setting(
                "training.ema_decay",
                "in (0, 1)",
                decay,
            ));
        }
        for (index, stage) in training.stages.iter().enumerate() {
            if !(1..=MOST_EPOCHS).contains(&stage.epochs) {
                let key = format!("training.stages[{index}].epochs");
                let expected = format!("1 to {MOST_EPOCHS}");
                return Err(TrainError::setting(&key, expected, stage.epochs));
            }
            if stage.patience == Some(0) {
                let key = format!("training.stages[{index}].patience");
                return Err(TrainError::setting(&key, "at least 1", 0));
            }
            stage
                .schedule
                .check(&format!("training.stages[{index}].schedule"))?;
            for (group, settings) in stage.groups.iter().enumerate() {
                settings.check(&format!("training.stages[{index}].groups[{group}]"))?;
            }
        }
        components::check(self)?;
        for (index, variant) in self.variants.iter().enumerate() {
            let key = format!("variants[{index}].name");
            check_folder_name(&key, &variant.name)?;
            let name = variant.name.to_ascii_lowercase();
            if is_of_the_experiment(&name) {
                let expected = "another name than those of the files in an experiment's folder";
                return Err(TrainError::setting(&key, expected, &variant.name));
            }
            // Some file systems ignore case.
            let mut earlier = self.variants[..index].iter();
            if earlier.any(|earlier| earlier.name.to_ascii_lowercase() == name) {
                return Err(TrainError::setting(
                    &key,
                    "unlike the others",
                    &variant.name,
                ));
            }
            if let Some((other, _)) = name.rsplit_once("-seed").filter(|(other, seed)| {
                let named = |variant: &Variant| variant.name.to_ascii_lowercase() == *other;
                seed.parse::<u64>().is_ok() && self.variants.iter().any(named)
            }) {
                let expected = format!("unlike the runs of `{other}` with other seeds");
                return Err(TrainError::setting(&key, expected, &variant.name));
            }
            variant.loss()?;
        }
        Ok(())
    }
}

/// A bound that no training comes near.
const MOST_EPOCHS: usize = 1_000_000;

fn check_folder_name(key: &str, name: &str) -> Result<(), TrainError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.chars().all(plain) || cxr_fs::FileName::exactly(name).is_none() {
        let expected = "a folder name of letters, digits, `-`, `_` and `.`";
        let found = cxr_table::excerpt(name);
        return Err(TrainError::setting(key, expected, format!("`{found}`")));
    }
    Ok(())
}

/// Whether a lower-case name is one that an experiment's folder has for something else than a variant's run: prepared
/// images with their locks, the report, what was meant to run.
fn is_of_the_experiment(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        "report.html",
        "report.md",
        "reproduce.json",
        "tables",
        "figures",
    ];
    const ENDINGS: [&str; 5] = [".store", ".partial", ".lock", ".json", ".toml"];
    let is_image_store = name.starts_with("images-") && name.contains(".store");
    NAMES.contains(&name) || is_image_store || ENDINGS.iter().any(|end| name.ends_with(end))
}

/// What begins the line behind a complete experiment file that names parts which are not the experiment's.
pub(crate) const NOT_OF_THIS_FILE: &str = "# not of this file: ";

/// A complete experiment file as this version writes it; `None` where it is not one.
pub(crate) fn complete(text: &str) -> Option<String> {
    let own_parts = text.rfind(NOT_OF_THIS_FILE).map_or("", |at| &text[at..]);
    let experiment = Experiment::parse_silently(text).ok()?;
    let [variant] = experiment.variants.as_slice() else {
        return None;
    };
    Some(experiment.variant(&variant.name).ok()?.to_toml().ok()? + own_parts)
}

impl VariantExperiment {
    /// The experiment; its only variant is [`Self::chosen`].
    pub fn experiment(&self) -> &Experiment {
        &self.0
    }

    /// The variant.
    pub fn chosen(&self) -> &Variant {
        &self.1
    }

    /// The experiment file, complete.
    ///
    /// # Errors
    /// A value that TOML cannot write, such as a seed above 2⁶³ − 1.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(&self.0)
            .map_err(|error| TrainError::setting("experiment", "writable as TOML", error))
    }

    /// Whether `text`, a complete experiment file of this or an earlier version, is of this very run.
    pub fn is_written_as(&self, text: &str) -> bool {
        let written = self.to_toml().ok();
        written.is_some() && (written.as_deref() == Some(text) || written == complete(text))
    }

    /// What the model file will say of itself, for these labels.
    ///
    /// # Errors
    /// A crop that the backbone shrinks to nothing is found when the classifier is made.
    pub fn model_card<L: AsRef<str>>(&self, labels: &[L]) -> Result<ModelCard, TrainError> {
        if labels.is_empty() {
            return Err(TrainError::setting("labels", "at least one", 0));
        }
        Ok(ModelCard {
            experiment: self.0.name.clone(),
            variant: self.1.name.clone(),
            loss: self.1.loss.clone(),
            loss_parameters: self.1.parameters.clone(),
            labels: labels
                .iter()
                .map(|label| label.as_ref().to_owned())
                .collect(),
            backbone: self.0.model.backbone.clone(),
            head: self.0.model.head.clone(),
            image_size: self.0.augmentation.image_size(),
            crop_size: self.0.augmentation.crop_size(),
            normalization_mean: cxr_augment::Normalization::IMAGENET.mean(),
            normalization_std: cxr_augment::Normalization::IMAGENET.std(),
            logit_thresholds: vec![0.; labels.len()],
            own_parts: Vec::new(),
        })
    }
}
