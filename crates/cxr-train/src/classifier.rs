//! Backbone and top network as one.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use cxr_backbone::Backbone;
use cxr_ops::{Parameters, Phase};
use cxr_run::{Component, head_of_keys};
use cxr_top::Head;
use serde::{Deserialize, Serialize};

use crate::{OwnParts, TrainError, components};

/// All that is needed to build a classifier and to use it rightly; stands in every model file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "CardKeys")]
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
    /// The feature extractor.
    pub backbone: Component,
    /// What stands between feature maps and logits.
    pub head: Component,
    /// Images are resized to this side, with antialiased bicubic interpolation.
    pub image_size: usize,
    /// The network sees squares of this side.
    pub crop_size: usize,
    /// Subtracted from grey values in [0, 1], per channel.
    pub normalization_mean: [f32; 3],
    /// Then divided by this.
    pub normalization_std: [f32; 3],
    /// A label is predicted where its logit is above this.
    pub logit_thresholds: Vec<f32>,
    /// What was not the experiment's: the names of [`OwnParts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub own_parts: Vec<String>,
}

/// The keys of a model card, those of earlier versions included.
#[derive(Deserialize)]
struct CardKeys {
    experiment: String,
    variant: String,
    loss: String,
    loss_parameters: BTreeMap<String, f64>,
    labels: Vec<String>,
    backbone: Component,
    head: Option<Component>,
    top: Option<serde_json::Value>,
    image_size: usize,
    crop_size: usize,
    normalization_mean: [f32; 3],
    normalization_std: [f32; 3],
    logit_thresholds: Vec<f32>,
    #[serde(default)]
    own_parts: Vec<String>,
}

/// Backbone and head are known and have all their options.
impl TryFrom<CardKeys> for ModelCard {
    type Error = String;

    fn try_from(keys: CardKeys) -> std::result::Result<Self, String> {
        let (backbone, head) = (keys.backbone, head_of_keys(keys.head, keys.top)?);
        let backbone_options = components::backbone(&backbone)
            .map_err(|error| error.to_string())?
            .options();
        let head_options = components::head(&head)
            .map_err(|error| error.to_string())?
            .options();
        Ok(Self {
            experiment: keys.experiment,
            variant: keys.variant,
            loss: keys.loss,
            loss_parameters: keys.loss_parameters,
            labels: keys.labels,
            backbone: components::complete(&backbone, backbone_options),
            head: components::complete(&head, head_options),
            image_size: keys.image_size,
            crop_size: keys.crop_size,
            normalization_mean: keys.normalization_mean,
            normalization_std: keys.normalization_std,
            logit_thresholds: keys.logit_thresholds,
            own_parts: keys.own_parts,
        })
    }
}

/// Whether logits `N×L` are all finite; `image` names the one of a row.
pub(crate) fn check_finite(
    logits: &[f32],
    labels: &[String],
    image: impl Fn(usize) -> String,
) -> std::result::Result<(), TrainError> {
    let Some(at) = logits.iter().position(|logit| !logit.is_finite()) else {
        return Ok(());
    };
    let n_labels = labels.len().max(1);
    Err(TrainError::LogitNotFinite {
        label: labels.get(at % n_labels).cloned().unwrap_or_default(),
        image: image(at / n_labels),
        value: logits[at],
    })
}

/// A backbone and a head with the parameters of both: `features.…` and `top.…`.
pub struct Classifier {
    parameters: Parameters,
    backbone: Box<dyn Backbone>,
    head: Box<dyn Head>,
}

impl Classifier {
    /// The network that a model card describes, with initial weights from `seed`.
    ///
    /// # Errors
    /// Sizes that leave the top network without feature maps.
    pub fn new(
        card: &ModelCard,
        seed: u64,
        device: &Device,
    ) -> std::result::Result<Self, TrainError> {
        OwnParts::new().classifier(card, seed, device)
    }

    /// A network of other parts. Their parameters stand in `parameters`, under `features.` and
    /// `top.` if stages are to freeze the one or the other.
    pub fn from_parts(
        parameters: Parameters,
        backbone: Box<dyn Backbone>,
        head: Box<dyn Head>,
    ) -> Self {
        Self {
            parameters,
            backbone,
            head,
        }
    }

    /// All parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Whether a gradient reaches the backbone's parameters.
    pub fn backbone_is_trainable(&self) -> bool {
        self.backbone.is_trainable()
    }

    /// Feature maps `N×C×h×w` of images `N×3×H×W`.
    ///
    /// # Errors
    /// Images that the backbone cannot take.
    pub fn features(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.backbone.forward_t(images, phase)
    }

    /// Logits `N×L` of feature maps.
    ///
    /// # Errors
    /// Maps that the head cannot take.
    pub fn logits(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.head.forward_t(features, phase)
    }

    /// The logits of one image `1×3×H×W` in evaluation, one for each of `labels`; `image` says in an error which it is.
    ///
    /// # Errors
    /// An image that the network cannot take, or [`TrainError::LogitNotFinite`].
    pub fn logits_of_image(
        &self,
        pixels: &Tensor,
        labels: &[String],
        image: &str,
    ) -> std::result::Result<Vec<f32>, TrainError> {
        let logits = self.forward_t(pixels, Phase::Evaluate)?;
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        check_finite(&logits, labels, |_| image.to_owned())?;
        Ok(logits)
    }

    /// Logits `N×L` of images `N×3×H×W`.
    ///
    /// # Errors
    /// Images that the network cannot take.
    pub fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.logits(&self.features(images, phase)?, phase)
    }
}
