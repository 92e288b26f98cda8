//! Backbone and head as one.

use candle_core::{Device, Result, Tensor};
use cxr_backbone::Backbone;
use cxr_ops::{Parameters, Phase};
use cxr_top::{Head, NonImageInput};

use crate::{ModelCard, ModelError, OwnNetwork};

/// Whether logits `N×L` are all finite; `image` names the one of a row.
///
/// # Errors
/// [`ModelError::LogitNotFinite`] for the first that is not.
pub fn check_finite(
    logits: &[f32],
    labels: &[String],
    image: impl Fn(usize) -> String,
) -> std::result::Result<(), ModelError> {
    let Some(at) = logits.iter().position(|logit| !logit.is_finite()) else {
        return Ok(());
    };
    let n_labels = labels.len().max(1);
    Err(ModelError::LogitNotFinite {
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
    ) -> std::result::Result<Self, ModelError> {
        OwnNetwork::new().classifier(card, seed, device)
    }

    /// A network of other parts. Their parameters are in `parameters`, under `features.` and
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

    /// The shape `(C, h, w)` that the backbone says its feature maps have, of images of `height`×`width` pixels.
    pub fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        self.backbone.feature_shape(height, width)
    }

    /// The backbone, whose [layers](Backbone::layers) have names.
    pub fn backbone(&self) -> &dyn Backbone {
        &*self.backbone
    }

    /// Feature maps `N×C×h×w` of images `N×3×H×W`.
    ///
    /// # Errors
    /// Images that the backbone cannot take.
    pub fn features(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.backbone.forward_t(images, phase)
    }

    /// What the head asks for beside the images, in the order of its columns.
    pub fn inputs(&self) -> &[NonImageInput] {
        self.head.inputs()
    }

    /// Logits `N×L` of feature maps.
    ///
    /// # Errors
    /// Maps that the head cannot take, or a head that asks for [`Self::inputs`].
    pub fn logits(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.logits_with(features, None, phase)
    }

    /// Logits `N×L` of feature maps and of what the head asks for beside them, `N×2K` as
    /// [`encode_inputs`](crate::encode_inputs) makes it.
    ///
    /// # Errors
    /// Maps or inputs that the head cannot take.
    pub fn logits_with(
        &self,
        features: &Tensor,
        non_image: Option<&Tensor>,
        phase: Phase<'_>,
    ) -> Result<Tensor> {
        match non_image {
            None => self.head.forward_t(features, phase),
            Some(non_image) => self.head.forward_with_inputs(features, non_image, phase),
        }
    }

    /// The logits of one image `1×3×H×W`, and of what the head asks for beside it, in evaluation, one for each of `labels`;
    /// `image` says in an error which it is.
    ///
    /// # Errors
    /// An image or inputs that the network cannot take, or [`ModelError::LogitNotFinite`].
    pub fn logits_of_image(
        &self,
        pixels: &Tensor,
        non_image: Option<&Tensor>,
        labels: &[String],
        image: &str,
    ) -> std::result::Result<Vec<f32>, ModelError> {
        let logits = self.forward_with(pixels, non_image, Phase::Evaluate)?;
        let logits = logits.flatten_all()?.to_vec1::<f32>()?;
        check_finite(&logits, labels, |_| image.to_owned())?;
        Ok(logits)
    }

    /// Logits `N×L` of images `N×3×H×W`.
    ///
    /// # Errors
    /// Images that the network cannot take, or a head that asks for [`Self::inputs`].
    pub fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.forward_with(images, None, phase)
    }

    /// Logits `N×L` of images `N×3×H×W` and of what the head asks for beside them, as [`Self::logits_with`] takes it.
    ///
    /// # Errors
    /// Images or inputs that the network cannot take.
    pub fn forward_with(
        &self,
        images: &Tensor,
        non_image: Option<&Tensor>,
        phase: Phase<'_>,
    ) -> Result<Tensor> {
        self.logits_with(&self.features(images, phase)?, non_image, phase)
    }
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n_tensors = self.parameters.tensors("").len();
        formatter
            .debug_struct("Classifier")
            .field("n_tensors", &n_tensors)
            .finish_non_exhaustive()
    }
}
