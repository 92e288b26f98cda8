//! Backbone and head as one.

use candle_core::{Device, Result, Tensor};
use cxr_backbone::Backbone;
use cxr_ops::{Parameters, Phase};
use cxr_top::Head;

use crate::{LabelOutputs, ModelCard, ModelError, OwnNetwork};

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
    /// How outputs become logits, where they are not the logits.
    differences: Option<Differences>,
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
            differences: None,
        }
    }

    /// The same, whose head has these outputs for each label: one, its logit, or three. Without this every output is a
    /// label's logit.
    ///
    /// # Errors
    /// A device that cannot keep the outputs' numbers.
    pub fn with_outputs(self, labels: &[LabelOutputs]) -> std::result::Result<Self, ModelError> {
        let device = self.parameters.device();
        let differences = Differences::new(labels, device)?;
        Ok(Self {
            differences,
            ..self
        })
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

    /// What the head makes of feature maps, `N×K`: what a loss is computed of. Where every label has one output they are
    /// the logits, and K is L.
    ///
    /// # Errors
    /// Maps that the head cannot take.
    pub fn outputs(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.head.forward_t(features, phase)
    }

    /// Logits `N×L` of feature maps. That of a label with three outputs is that of presence less that of absence, whose
    /// sigmoid is the softmax of these two.
    ///
    /// # Errors
    /// Maps that the head cannot take.
    pub fn logits(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let outputs = self.outputs(features, phase)?;
        match &self.differences {
            Some(differences) => differences.of(&outputs),
            None => Ok(outputs),
        }
    }

    /// What each place of feature maps `N×C×h×w` says of each label by the head's own weights, `N×L×h×w`; `None` for a head
    /// that has no such maps.
    ///
    /// # Errors
    /// Maps that the head cannot take.
    pub fn class_maps(&self, features: &Tensor) -> Result<Option<Tensor>> {
        self.head.class_maps(features)
    }

    /// The logits of one image `1×3×H×W` in evaluation, one for each of `labels`; `image` says in an error which it is.
    ///
    /// # Errors
    /// An image that the network cannot take, or [`ModelError::LogitNotFinite`].
    pub fn logits_of_image(
        &self,
        pixels: &Tensor,
        labels: &[String],
        image: &str,
    ) -> std::result::Result<Vec<f32>, ModelError> {
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

/// The outputs whose differences are logits, by their numbers.
struct Differences {
    present: Tensor,
    /// That of a label with one output is one behind all, which is 0.
    absent: Tensor,
}

impl Differences {
    /// `None` where every label has one output.
    fn new(labels: &[LabelOutputs], device: &Device) -> Result<Option<Self>> {
        let n_three = (labels.iter())
            .filter(|label| label.absent_and_uncertain.is_some())
            .count();
        if n_three == 0 {
            return Ok(None);
        }
        let nothing = labels.len() + 2 * n_three;
        let numbers = |number: &dyn Fn(&LabelOutputs) -> usize| {
            let numbers: Vec<u32> = labels.iter().map(|label| number(label) as u32).collect();
            Tensor::new(numbers, device)
        };
        Ok(Some(Self {
            present: numbers(&|label| label.present)?,
            absent: numbers(&|label| {
                let others = label.absent_and_uncertain;
                others.map_or(nothing, |(absent, _)| absent)
            })?,
        }))
    }

    /// Logits `N×L` of outputs `N×K`. Every one is computed by itself, so that its bits do not depend on the others.
    fn of(&self, outputs: &Tensor) -> Result<Tensor> {
        let zeros = outputs.narrow(1, 0, 1)?.zeros_like()?;
        let padded = Tensor::cat(&[outputs, &zeros], 1)?;
        let of = |numbers| padded.index_select(numbers, 1);
        of(&self.present)? - of(&self.absent)?
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
