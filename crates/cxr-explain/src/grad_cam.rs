//! Grad-CAM (Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based
//! Localization, ICCV 2017, equations 1 and 2).

use candle_core::{Tensor, Var};
use cxr_model::{Classifier, Phase, Predictor, PreparedImage, View};

use crate::{ExplainError, HeatMap};

/// The heat map of one label of an image as a model takes it, by [`grad_cam`]: of the central view, made as for the
/// model's own predictions.
///
/// # Errors
/// An image that was prepared for a model of another size, or as [`grad_cam`].
pub fn explain(
    predictor: &Predictor,
    image: &PreparedImage,
    label: usize,
    layer: Option<&str>,
) -> Result<HeatMap, ExplainError> {
    let batch = predictor.batch(&[image], View::Center)?;
    grad_cam(predictor.classifier(), &batch, label, layer)
}

/// The heat map of one label: the feature maps, each weighted by the mean gradient of the label's
/// logit with respect to it, summed and cut at zero.
///
/// `image` is `1×3×H×W`, normalised as the network takes it. The feature maps are the backbone's
/// last (after its final normalisation and ReLU), what the top network reads, or those of one of its
/// [layers](cxr_model::Backbone::layers); the heat map has their height and width. It is all zero where nothing speaks for
/// the label.
///
/// # Errors
/// More than one image, a label or a layer that does not exist, an image that the network does not take, or
/// [`ExplainError::NotFinite`].
pub fn grad_cam(
    classifier: &Classifier,
    image: &Tensor,
    label: usize,
    layer: Option<&str>,
) -> Result<HeatMap, ExplainError> {
    if image.rank() != 4 || image.dims()[0] != 1 {
        return Err(ExplainError::OneImage {
            found: image.dims().to_vec(),
        });
    }
    let rest;
    let maps = match layer {
        None => {
            rest = None;
            classifier.features(image, Phase::Evaluate)?
        }
        Some(layer) => {
            let [first, second] = classifier.backbone().split(layer)?;
            rest = Some(second);
            first.forward_t(image, Phase::Evaluate)?
        }
    };
    let features = Var::from_tensor(&maps)?;
    let last = match rest {
        None => features.as_tensor().clone(),
        Some(rest) => rest.forward_t(&features, Phase::Evaluate)?,
    };
    let logits = classifier.logits(&last, Phase::Evaluate)?;
    let labels = logits.dim(1)?;
    if label >= labels {
        return Err(ExplainError::Label { label, labels });
    }
    let logit = logits.narrow(1, label, 1)?.sum_all()?;
    let check = |what, value: f32| match value.is_finite() {
        true => Ok(value),
        false => Err(ExplainError::NotFinite { what, label, value }),
    };
    check("logit", logit.to_scalar::<f32>()?)?;
    let gradients = logit.backward()?;
    let (_, _, height, width) = features.dims4()?;
    let map = match gradients.get(&features) {
        Some(gradient) => {
            let weights = gradient.mean_keepdim((2, 3))?;
            features
                .broadcast_mul(&weights)?
                .sum((0, 1))?
                .flatten_all()?
                .to_vec1::<f32>()?
        }
        // A logit that does not depend on the features.
        None => vec![0.; height * width],
    };
    // The maximum of NaN and 0 would be 0: nothing would speak for the label.
    let map = map
        .into_iter()
        .map(|value| Ok(check("heat map", value)?.max(0.)))
        .collect::<Result<_, ExplainError>>()?;
    HeatMap::new(height, width, map)
}
