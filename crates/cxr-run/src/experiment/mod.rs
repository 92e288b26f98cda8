//! What an experiment says.
//!
//! Reading one checks its form and its numbers. What its network and its losses mean is known where they are built.

mod check;
mod label_weights;
mod old_names;
mod uncertain;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cxr_augment::{Augmentation, Pipeline, StandardTransform};
use cxr_dataset::{Blanks, DataSet, LabelMap, Subset, SurveyOptions, ValidationSplit};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use label_weights::LabelWeights;
pub use uncertain::{UNCERTAIN_CLASS, Uncertainty, UncertaintyPolicy};

use crate::{ModelConfig, OptimiserConfig, ParameterGroup, RunError, Schedule};

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
    /// The licence of the models that it trains, by its SPDX name in lower case, such as `cc-by-4.0`; model files say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What they may be used for, if not for research alone; model files say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intended_use: Option<String>,
    /// Seed of the split, the initial weights, the order of images and every draw.
    #[serde(default)]
    pub seed: u64,
    /// With how many seeds, this one and those after it, each variant is meant to be trained: `cxr reproduce` does it unless
    /// it is asked for another number. At least 1.
    #[serde(default = "one_seed", skip_serializing_if = "is_one_seed")]
    pub seeds: u64,
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
    /// One in so many images, at least 2, is for the test in the place of the official list, in whole patients with their
    /// share of each label where patients are known; the others train and validate. Figures on such images are not comparable
    /// with those on the official ones, and reports say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,
    /// Which images are wanted, such as PA radiographs of adults; the split is made before, and the
    /// others are counted.
    #[serde(skip_serializing_if = "Subset::is_everything")]
    pub subset: Subset,
    /// The labels that are trained, where they are not those of the data set's tables: a map that is shipped
    /// (`common-18`), or the path of one, as [`cxr_dataset::LabelMap`] reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_map: Option<String>,
    /// Data sets that are trained on together, each in a folder below the data folder, as `[[data.sets]]` with `folder` and
    /// `weight`. A label that one does not have is unknown on its images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<DataSet>,
    /// What an empty cell of a label means, by the names of the labels that are trained: unknown, or negative.
    #[serde(skip_serializing_if = "Blanks::are_unknown")]
    pub blank: Blanks,
    /// What the loss makes of labels that the source calls uncertain.
    #[serde(skip_serializing_if = "Uncertainty::is_ignore")]
    pub uncertain: Uncertainty,
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
            hold_out: None,
            subset: Subset::default(),
            label_map: None,
            sets: Vec::new(),
            blank: Blanks::default(),
            uncertain: Uncertainty::default(),
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
    /// So many batches make an optimiser step, whose gradient is the mean over all their images. Each batch is
    /// normalised by its own statistics. The last step of an epoch has the batches that are left.
    #[serde(default = "one", alias = "accumulate", skip_serializing_if = "is_one")]
    pub gradient_accumulation_steps: usize,
    /// Gradients are scaled down where their norm over all trained parameters is above this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// With a decay in (0, 1), validation, predictions and models are of the exponential moving average
    /// of the weights over the steps, which goes on through the stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f64>,
    /// What the products in a DenseNet's dense layers are made of in training: `f32`, or `bf16`, which is faster
    /// on processors that have an instruction for it; on a CUDA device it is what a DenseNet's activations are.
    /// Weights, statistics, losses and predictions are `f32` in either case.
    #[serde(default, skip_serializing_if = "Precision::is_single")]
    pub precision: Precision,
    /// The optimiser; its state is fresh in each stage.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// The stages, one after the other. Epochs count through them.
    pub stages: Vec<Stage>,
}

/// What the factors of a DenseNet's products are in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Precision {
    /// `f32`: single precision.
    #[default]
    #[serde(rename = "f32")]
    Single,
    /// `bf16`: eight bits of mantissa, and the range of single precision.
    #[serde(rename = "bf16")]
    Bf16,
}

impl Precision {
    fn is_single(&self) -> bool {
        *self == Self::Single
    }
}

/// What becomes of the last images of an epoch when they do not fill a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LastBatch {
    /// They are a smaller batch: every image is seen in every epoch.
    #[default]
    Keep,
    /// They are left out of this epoch; as the order changes, others are in the next.
    Drop,
}

impl LastBatch {
    fn is_keep(&self) -> bool {
        *self == Self::Keep
    }

    /// Batches of so many images.
    pub fn batches(self, n_images: usize, batch_size: usize) -> usize {
        match self {
            Self::Keep => n_images.div_ceil(batch_size),
            Self::Drop => n_images / batch_size,
        }
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

fn one_seed() -> u64 {
    1
}

fn is_one_seed(seeds: &u64) -> bool {
    *seeds == 1
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
    /// What the backbone's batch normalisations normalise by where the stage trains it: `batch`, the statistics of each
    /// batch, or `running`, the running ones, which then stay as they are while the weights train, as in a Keras model
    /// whose backbone is called with `training=False`. The head's always take the batch's.
    #[serde(default, skip_serializing_if = "NormStatistics::is_batch")]
    pub norm_statistics: NormStatistics,
    /// The learning rate.
    pub schedule: Schedule,
    /// Parameters that are trained otherwise than the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParameterGroup>,
}

/// What batch normalisations normalise by in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormStatistics {
    /// The statistics of each batch; running averages follow them, for evaluation.
    #[default]
    Batch,
    /// The running averages, which stay as they are.
    Running,
}

impl NormStatistics {
    fn is_batch(&self) -> bool {
        *self == Self::Batch
    }
}

/// One run of the experiment: a loss, and where it is another system's, its network, images and training. Each such key takes
/// the place of the experiment's own, a table as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The name of its run folder, such as `fzlpr-0.2`.
    pub name: String,
    /// The loss, by the name that `cxr-losses` knows it by.
    pub loss: String,
    /// The published system that it is built after, such as `wang-2017`: a report sets all systems side by side, with the
    /// variant of each that validates best.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What each label weighs in the loss, where they are not all alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_weights: Option<LabelWeights>,
    /// What its loss makes of uncertain labels, where that is not the experiment's `data.uncertain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertain: Option<Uncertainty>,
    /// Its test images, where they are not the experiment's: as `data.hold_out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<usize>,
    /// Its network, where that is not the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// Its augmentation and image sizes, where they are not the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<Augmentation>,
    /// Its further transforms, where they are not the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transforms: Option<Vec<StandardTransform>>,
    /// Its course of training, where that is not the experiment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingConfig>,
    /// The loss's parameters.
    #[serde(flatten, deserialize_with = "numbers")]
    pub parameters: BTreeMap<String, f64>,
}

/// The keys of a variant that are no fields: numbers, as a loss's parameters are.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, toml::Value>::deserialize(deserializer)?;
    let numbers = values.into_iter().map(|(key, value)| {
        let number = match value {
            toml::Value::Float(number) => number,
            toml::Value::Integer(number) => number as f64,
            other => {
                let found = other.type_str();
                return Err(D::Error::custom(format!(
                    "`{key}` of a variant is a {found}; expected a number, a parameter of its loss, or one of the keys `system`, `label_weights`, `uncertain`, `hold_out`, `model`, `augmentation`, `transforms` and `training`"
                )));
            }
        };
        Ok((key, number))
    });
    numbers.collect()
}

impl Variant {
    /// Whether it differs from the experiment in more than the loss.
    pub fn has_tables(&self) -> bool {
        self.uncertain.is_some()
            || self.hold_out.is_some()
            || self.model.is_some()
            || self.augmentation.is_some()
            || self.transforms.is_some()
            || self.training.is_some()
    }
}

/// An experiment with one variant: all that decides a run. With every option of its network filled in it is written to
/// the run folder as `experiment.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct VariantExperiment(Experiment, Variant);

/// The longest experiment file that is read.
const MAX_BYTES: u64 = 1 << 24;

impl Experiment {
    /// Reads and checks an experiment file.
    ///
    /// # Errors
    /// [`RunError::ExperimentFile`] names the file and what in it is unknown, missing or out of range.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        Self::read_by(path, Self::parse)
    }

    /// As [`Self::read`], without a warning of old names: for a file that a program wrote.
    pub(crate) fn read_silently(path: &Path) -> Result<Self, RunError> {
        Self::read_by(path, Self::parse_silently)
    }

    fn read_by(
        path: &Path,
        parse: impl FnOnce(&str) -> Result<Self, RunError>,
    ) -> Result<Self, RunError> {
        let text = cxr_fs::read_text(path, MAX_BYTES)?;
        parse(&text).map_err(|error| RunError::ExperimentFile {
            path: path.to_owned(),
            problem: match error {
                RunError::ExperimentFile { problem, .. } => problem,
                other => other.to_string(),
            },
        })
    }

    /// Parses and checks an experiment. Keys that have a new name are read by their old one too, with a warning.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self, RunError> {
        let experiment = Self::parse_silently(text)?;
        for (old, new) in old_names::of(text) {
            tracing::warn!("the experiment's key `{old}` is an old name: it is now `{new}`");
        }
        Ok(experiment)
    }

    /// As [`Self::parse`], without a warning of old names.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse_silently(text: &str) -> Result<Self, RunError> {
        let experiment: Self = toml::from_str(text).map_err(|error| RunError::ExperimentFile {
            path: PathBuf::from("experiment"),
            problem: error.to_string(),
        })?;
        experiment.check()?;
        Ok(experiment)
    }

    /// The experiment with one of its variants only.
    ///
    /// # Errors
    /// [`RunError::UnknownVariant`] lists those there are; a setting out of its range, of an experiment that
    /// was not read from a file.
    pub fn variant(&self, name: &str) -> Result<VariantExperiment, RunError> {
        self.check()?;
        let Some(variant) = self.variants.iter().find(|variant| variant.name == name) else {
            let known: Vec<_> = self
                .variants
                .iter()
                .map(|v| format!("`{}`", v.name))
                .collect();
            return Err(RunError::UnknownVariant {
                experiment: self.name.clone(),
                name: name.to_owned(),
                known: known.join(", "),
            });
        };
        let experiment = self.with_tables_of(variant);
        let variant = experiment.variants.first().unwrap_or(variant).clone();
        Ok(VariantExperiment(experiment, variant))
    }

    /// The experiment with this variant alone, whose own tables are the experiment's then.
    fn with_tables_of(&self, variant: &Variant) -> Self {
        let Variant {
            uncertain,
            hold_out,
            model,
            augmentation,
            transforms,
            training,
            ..
        } = variant.clone();
        let mut data = self.data.clone();
        data.uncertain = uncertain.unwrap_or(data.uncertain);
        data.hold_out = hold_out.or(data.hold_out);
        Self {
            seeds: 1,
            data,
            model: model.unwrap_or_else(|| self.model.clone()),
            augmentation: augmentation.unwrap_or(self.augmentation),
            transforms: transforms.unwrap_or_else(|| self.transforms.clone()),
            training: training.unwrap_or_else(|| self.training.clone()),
            variants: vec![Variant {
                uncertain: None,
                hold_out: None,
                model: None,
                augmentation: None,
                transforms: None,
                training: None,
                ..variant.clone()
            }],
            ..self.clone()
        }
    }

    /// The same trained with another seed, by the name of `<variant>-seed<seed>`: other initial weights,
    /// order and draws, and the same images in each part. With the experiment's own seed it is
    /// [`Self::variant`].
    ///
    /// # Errors
    /// As [`Self::variant`].
    pub fn variant_with_seed(&self, name: &str, seed: u64) -> Result<VariantExperiment, RunError> {
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

    /// What the experiment wants of a data set's folder.
    ///
    /// # Errors
    /// [`RunError::Setting`] for images larger than any store has; a label map that cannot be read.
    pub fn survey_options(&self) -> Result<SurveyOptions, RunError> {
        let side = self.augmentation.image_size();
        let too_large = |_| {
            let key = "augmentation.image_size";
            RunError::setting(key, "a side of a stored image", side)
        };
        Ok(SurveyOptions {
            validation: self.data.validation,
            hold_out: self.data.hold_out,
            seed: self.split_seed(),
            subset: self.data.subset.clone(),
            label_map: (self.data.label_map.as_deref())
                .map(LabelMap::open)
                .transpose()?,
            blank: self.data.blank.clone(),
            sets: self.data.sets.clone(),
            side: u32::try_from(side).map_err(too_large)?,
        })
    }

    /// How training images are varied: the augmentation and the further transforms.
    ///
    /// # Errors
    /// [`RunError::Augment`] for two transforms of one kind.
    pub fn pipeline(&self) -> Result<Pipeline, RunError> {
        let begin = Pipeline::new(self.augmentation);
        let mut transforms = self.transforms.iter();
        Ok(transforms.try_fold(begin, |pipeline, transform| pipeline.with(*transform))?)
    }
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

    /// The same with another network, such as this one with all its options.
    #[must_use]
    pub fn with_model(self, model: ModelConfig) -> Self {
        let experiment = Experiment { model, ..self.0 };
        Self(experiment, self.1)
    }

    /// The same with validation images that are chosen by another rule.
    #[must_use]
    pub fn with_validation(mut self, validation: ValidationSplit) -> Self {
        self.0.data.validation = validation;
        self
    }

    /// The same with another loss, which has no parameters.
    #[must_use]
    pub fn with_loss(mut self, loss: &str) -> Self {
        self.1.loss = loss.to_owned();
        self.1.parameters.clear();
        self.1.label_weights = None;
        self.0.variants = vec![self.1.clone()];
        self
    }

    /// The experiment file.
    ///
    /// # Errors
    /// A value that TOML cannot write, such as a seed above 2⁶³ − 1.
    pub fn to_toml(&self) -> Result<String, RunError> {
        toml::to_string(&self.0)
            .map_err(|error| RunError::setting("experiment", "writable as TOML", error))
    }
}
