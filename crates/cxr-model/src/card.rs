//! What a model file says of its model.

use std::collections::BTreeMap;

use cxr_augment::{Normalization, ViewSet};
use cxr_dataset::Tone;
use cxr_run::{Component, ModelConfig, UncertaintyPolicy, VariantExperiment, head_of_keys};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::components::complete_network;
use crate::{Calibration, ModelError, ReferenceCard};

/// All that is needed to build a classifier and to use it correctly; every model file contains one.
///
/// What is `Option` is unknown in models of earlier versions, and in those whose author did not say it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// The experiment that trained it.
    pub experiment: String,
    /// Its variant.
    pub variant: String,
    /// The loss it was trained with.
    pub loss: String,
    /// The loss's parameters.
    pub loss_parameters: BTreeMap<String, f64>,
    /// The labels, in the order of the logits.
    pub labels: Vec<String>,
    /// Those of them for which the network has three outputs, absent, present and uncertain (`multi-class` among the
    /// policies for uncertain labels); their logit is that of presence less that of absence. The others have one output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multi_class: Vec<String>,
    /// The feature extractor.
    pub backbone: Component,
    /// What stands between feature maps and logits.
    pub head: Component,
    /// Images are resized to this side, with antialiased bicubic interpolation.
    pub image_size: usize,
    /// The network sees squares of this side.
    pub crop_size: usize,
    /// Whether the grey values of an image are stretched to the whole range before it is resized, as `cxr prepare
    /// --stretch` does it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stretched: bool,
    /// Subtracted from grey values in [0, 1], per channel.
    pub normalization_mean: [f32; 3],
    /// Then divided by this.
    pub normalization_std: [f32; 3],
    /// A label is predicted where its logit, before any calibration, is above this.
    pub logit_thresholds: Vec<f32>,
    /// How the thresholds were chosen.
    #[serde(default, skip_serializing_if = "ThresholdOrigin::is_of_loss")]
    pub threshold_origin: ThresholdOrigin,
    /// How logits become probabilities; without it they are `σ(logit)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What is said of the images that the file has features of, to find those that are unlike them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceCard>,
    /// What it was trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataCard>,
    /// How well it ranks the validation images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationAucs>,
    /// The licence of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// What it may be used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intended_use: Option<String>,
    /// What was not the experiment's: the names of parts of the author's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_parts: Vec<String>,
}

/// Which of a network's outputs are one label's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelOutputs {
    /// That for its presence; of a label with one output, its logit.
    pub present: usize,
    /// Those for its absence and for uncertainty, of a label with three.
    pub absent_and_uncertain: Option<(usize, usize)>,
}

/// The intended use that training writes where the experiment names none: these models were never tested for anything else.
pub const RESEARCH_USE: &str = "research; not a medical device";

/// The images that a model was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataCard {
    /// The data set and its release, or the label table that takes their place.
    pub release: String,
    /// The digest of labels, split and pixels; equal data have equal ones.
    pub fingerprint: String,
    /// How the images were split.
    pub split: String,
    /// The seed of the split.
    pub split_seed: u64,
    /// Images that trained.
    pub train: usize,
    /// Images that validated.
    pub validation: usize,
    /// Images that are for testing.
    pub test: usize,
}

/// How well a model ranks the validation images of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationAucs {
    /// The views whose logits are averaged.
    pub views: ViewSet,
    /// The number of images.
    pub images: usize,
    /// The area under the ROC curve of each label, in the order of the logits; `None` where one class is absent.
    pub labels: Vec<Option<f64>>,
    /// The mean of those that are defined.
    pub mean: Option<f64>,
}

/// The predictions that something was fitted on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Which images, such as `validation`.
    pub part: String,
    /// How many.
    pub images: usize,
    /// The views whose logits were averaged.
    pub views: ViewSet,
    /// The digest of the data or of the file of predictions, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// How the thresholds of a model were chosen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ThresholdOrigin {
    /// The rule.
    pub rule: ThresholdRule,
    /// The predictions that they were chosen on; none for those of the loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fitted_on: Option<Origin>,
}

impl ThresholdOrigin {
    fn is_of_loss(&self) -> bool {
        *self == Self::default()
    }
}

/// A rule by which a threshold is chosen, for each label alone.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ThresholdRule {
    /// The bound that the loss separates present from absent labels by: 0, or what it has learnt.
    #[default]
    Loss,
    /// Sensitivity plus specificity is greatest (Youden 1950).
    Youden,
    /// F1 is greatest.
    BestF1,
    /// The highest threshold with at least this sensitivity.
    Sensitivity(f64),
    /// The lowest threshold with at least this specificity.
    Specificity(f64),
    /// The lowest threshold with at least this share of true positives among positives.
    PositivePredictiveValue(f64),
    /// Chosen by hand.
    Given,
}

/// The entries without which no network can be built and used.
const NEEDED: [&str; 11] = [
    "experiment",
    "variant",
    "loss",
    "loss_parameters",
    "labels",
    "backbone",
    "image_size",
    "crop_size",
    "normalization_mean",
    "normalization_std",
    "logit_thresholds",
];

/// The largest side of an image that a store holds.
const LARGEST_SIDE: usize = 8192;

impl ModelCard {
    /// What a model file of this experiment will say of itself, for these labels.
    ///
    /// # Errors
    /// No label, or a network that is not known. A crop that the backbone shrinks to nothing is found when the
    /// classifier is made.
    pub fn new<L: AsRef<str>>(
        variant: &VariantExperiment,
        labels: &[L],
    ) -> Result<Self, ModelError> {
        if labels.is_empty() {
            return Err(ModelError::Card {
                what: "labels",
                expected: "at least one".to_owned(),
                found: "none".to_owned(),
            });
        }
        let (experiment, chosen) = (variant.experiment(), variant.chosen());
        let model = complete_network(&experiment.model)?;
        let labels = labels.iter().map(|label| label.as_ref().to_owned());
        let labels: Vec<String> = labels.collect();
        let uncertain = &experiment.data.uncertain;
        let is_multi_class = |label: &&String| uncertain.of(label) == UncertaintyPolicy::MultiClass;
        let multi_class = labels.iter().filter(is_multi_class).cloned().collect();
        Ok(Self {
            experiment: experiment.name.clone(),
            variant: chosen.name.clone(),
            loss: chosen.loss.clone(),
            loss_parameters: chosen.parameters.clone(),
            backbone: model.backbone,
            head: model.head,
            image_size: experiment.augmentation.image_size(),
            crop_size: experiment.augmentation.crop_size(),
            stretched: false,
            normalization_mean: Normalization::IMAGENET.mean(),
            normalization_std: Normalization::IMAGENET.std(),
            logit_thresholds: vec![0.; labels.len()],
            threshold_origin: ThresholdOrigin::default(),
            calibration: None,
            reference: None,
            data: None,
            validation: None,
            licence: experiment.licence.clone(),
            intended_use: Some(
                (experiment.intended_use.clone()).unwrap_or_else(|| RESEARCH_USE.to_owned()),
            ),
            own_parts: Vec::new(),
            multi_class,
            labels,
        })
    }

    /// Reads the description in a model file, of this or of an earlier version. Components have all their
    /// options then, by the names of today.
    ///
    /// # Errors
    /// What is missing or wrong, and what to do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let Value::Object(mut keys) = value else {
            return Err("its description is no JSON object".to_owned());
        };
        let missing: Vec<String> = (NEEDED.iter())
            .filter(|key| !keys.contains_key(**key))
            .map(|key| format!("`{key}`"))
            .collect();
        if !missing.is_empty() {
            return Err(describe_missing(&keys, &missing));
        }
        // Options of the top network once stood beside the head.
        let top = keys.remove("top");
        let given = keys.remove("head").map(serde_json::from_value).transpose();
        let given: Option<Component> = given.map_err(|error| format!("its `head`: {error}"))?;
        let head_component = head_of_keys(given, top)?;
        let head_component = serde_json::to_value(head_component);
        keys.insert("head".to_owned(), head_component.unwrap_or_default());
        let card: Self =
            serde_json::from_value(Value::Object(keys)).map_err(|error| error.to_string())?;
        let card = card.completed().map_err(|error| error.to_string())?;
        card.check().map_err(|error| error.to_string())?;
        Ok(card)
    }

    /// The same with all options of backbone and head.
    fn completed(self) -> Result<Self, ModelError> {
        let model = ModelConfig {
            backbone: self.backbone.clone(),
            weights: None,
            head: self.head.clone(),
        };
        let ModelConfig { backbone, head, .. } = complete_network(&model)?;
        Ok(Self {
            backbone,
            head,
            ..self
        })
    }

    /// Whether its entries go together: there are labels, each with a threshold and, where there is a calibration, with
    /// one; and images have a size.
    ///
    /// # Errors
    /// The first entry that does not fit.
    pub fn check(&self) -> Result<(), ModelError> {
        let wrong = |what: &'static str, expected: String, found: String| ModelError::Card {
            what,
            expected,
            found,
        };
        let n_labels = self.labels.len();
        if n_labels == 0 {
            let expected = "at least one".to_owned();
            return Err(wrong("labels", expected, "none".to_owned()));
        }
        let one_each = |what, found: usize| match found == n_labels {
            true => Ok(()),
            false => {
                let expected = format!("{n_labels}, one for each label");
                Err(wrong(what, expected, found.to_string()))
            }
        };
        for (at, label) in self.multi_class.iter().enumerate() {
            let is_twice = self.multi_class.iter().take(at).any(|other| other == label);
            if is_twice || !self.labels.contains(label) {
                let expected = "labels of the model, each once".to_owned();
                return Err(wrong(
                    "labels with three outputs",
                    expected,
                    format!("`{label}`"),
                ));
            }
        }
        one_each("thresholds", self.logit_thresholds.len())?;
        if let Some(nan) = self.logit_thresholds.iter().find(|value| value.is_nan()) {
            return Err(wrong("thresholds", "numbers".to_owned(), nan.to_string()));
        }
        if let Some(calibration) = &self.calibration {
            one_each("calibrated labels", calibration.labels.len())?;
            for (label, of_label) in self.labels.iter().zip(&calibration.labels) {
                of_label.check().map_err(|expected| {
                    let expected = format!("{expected} for `{label}`");
                    wrong("calibration", expected, format!("{of_label:?}"))
                })?;
            }
        }
        if let Some(validation) = &self.validation {
            one_each("validation AUCs", validation.labels.len())?;
        }
        if !(1..=LARGEST_SIDE).contains(&self.image_size) {
            let expected = format!("1 to {LARGEST_SIDE}");
            return Err(wrong("image size", expected, self.image_size.to_string()));
        }
        if !(1..=self.image_size).contains(&self.crop_size) {
            let expected = format!("1 to the image size, {}", self.image_size);
            return Err(wrong("crop size", expected, self.crop_size.to_string()));
        }
        self.normalization()?;
        Ok(())
    }

    /// The network's outputs for each label, in the order of the labels: one after the other from 0, those of a label with
    /// three in the order absent, present, uncertain.
    pub fn outputs(&self) -> Vec<LabelOutputs> {
        let mut next = 0;
        let outputs = self.labels.iter().map(|label| {
            let first = next;
            match self.multi_class.contains(label) {
                true => {
                    next += 3;
                    LabelOutputs {
                        present: first + 1,
                        absent_and_uncertain: Some((first, first + 2)),
                    }
                }
                false => {
                    next += 1;
                    LabelOutputs {
                        present: first,
                        absent_and_uncertain: None,
                    }
                }
            }
        });
        outputs.collect()
    }

    /// The number of the network's outputs: one for each label, and two more for those with three.
    pub fn n_outputs(&self) -> usize {
        self.labels.len() + 2 * self.multi_class.len()
    }

    /// The normalisation of images.
    ///
    /// # Errors
    /// A mean that is not finite, or a standard deviation that is not above 0.
    pub fn normalization(&self) -> Result<Normalization, ModelError> {
        let normalization = Normalization::new(self.normalization_mean, self.normalization_std);
        Ok(normalization?)
    }

    /// How the values of an image become grey levels before it is prepared.
    pub fn tone(&self) -> Tone {
        match self.stretched {
            true => Tone::Stretched,
            false => Tone::AsStored,
        }
    }

    /// The probability of a logit of the label at `index`: calibrated where the card says how, `σ(logit)` else.
    pub fn probability(&self, index: usize, logit: f32) -> f64 {
        let calibration = self.calibration.as_ref();
        let of_label = calibration.and_then(|calibration| calibration.labels.get(index));
        let none = crate::LabelCalibration::None {};
        of_label.unwrap_or(&none).probability(f64::from(logit))
    }
}

/// What a description lacks, and what the file probably is instead.
fn describe_missing(keys: &Map<String, Value>, missing: &[String]) -> String {
    if keys.contains_key("trained_as") {
        return "it holds a backbone alone, without a head\nhint: name it as `model.weights` of an experiment, \
                or use the `model.safetensors` that it was taken from"
            .to_owned();
    }
    if keys.contains_key("progress") && keys.contains_key("optimiser_steps") {
        return "it is a checkpoint of a training\nhint: the model is `model.safetensors` of the run folder, \
                which is written when the training is done"
            .to_owned();
    }
    let missing = missing.join(", ");
    format!(
        "its description lacks {missing}\nhint: a model file is written by training; weights of other programs \
         have no description, and begin an experiment as its `model.weights`"
    )
}
