//! Class activation maps: which places of the last feature maps speak for a label.
//!
//! `A` are the feature maps, `G` the gradients of the label's logit with respect to them; a map is what is left of a sum over
//! the feature maps where it is above zero.
//!
//! | method | the sum | from |
//! |---|---|---|
//! | Grad-CAM | `Σ mean(G) · A` | Selvaraju et al.: Grad-CAM, ICCV 2017, equations 1 and 2 |
//! | Grad-CAM++ | `Σ w · A`, `w` the sum of `max(G, 0) · G² / (2 G² + sum(A) G³)` | Chattopadhyay et al.: Grad-CAM++, WACV 2018, equation 19 |
//! | Layer-CAM | `Σ max(G, 0) · A` | Jiang et al.: LayerCAM, IEEE TIP 2021, equations 5 and 6 |
//! | class activation | `Σ W · A`, `A` the maps that the head pools, `W` its last layer's weights, no gradient | Zhou et al., CVPR 2016; Wang et al.: ChestX-ray8, CVPR 2017 |
//! | HiRes-CAM | `Σ G · A` | Draelos & Carin: Use HiResCAM instead of Grad-CAM, arXiv 2011.08891 |

use candle_core::{Device, Tensor, Var};
use cxr_model::{Backbone, Classifier, Phase, Predictor, PreparedImage, View};

use crate::{ExplainError, HeatMap};

/// How a heat map is made of the feature maps and their gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CamMethod {
    /// Each map counts by the mean of its gradient.
    #[default]
    GradCam,
    /// Each map counts by its positive gradients, weighted so that several places may speak for a label.
    GradCamPlusPlus,
    /// Each place of a map counts by its own positive gradient.
    LayerCam,
    /// Each place of a map counts by its own gradient: where the head is a mean and a dense layer, exactly what the logit
    /// is made of.
    HiResCam,
    /// The head's own weights on the maps that it pools, with a head that has them:
    /// [`Head::class_maps`](cxr_model::Head::class_maps).
    ClassActivation,
}

/// Keeps the quotient of Grad-CAM++ defined, as pytorch-grad-cam does it.
const EPS: f64 = 1e-6;

impl CamMethod {
    /// The methods for any head: all but [`Self::ClassActivation`].
    pub const ALL: [Self; 4] = [
        Self::GradCam,
        Self::GradCamPlusPlus,
        Self::LayerCam,
        Self::HiResCam,
    ];

    /// Its name in files and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Self::GradCam => "grad-cam",
            Self::GradCamPlusPlus => "grad-cam++",
            Self::LayerCam => "layer-cam",
            Self::HiResCam => "hires-cam",
            Self::ClassActivation => "class-activation",
        }
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::GradCam => "Grad-CAM",
            Self::GradCamPlusPlus => "Grad-CAM++",
            Self::LayerCam => "Layer-CAM",
            Self::HiResCam => "HiRes-CAM",
            Self::ClassActivation => "Class activation",
        }
    }

    /// What a feature map and its gradient add to the sum.
    fn add(self, map: &[f32], gradient: &[f32], sum: &mut [f64]) {
        let values = || {
            map.iter()
                .zip(gradient)
                .map(|(&a, &g)| (f64::from(a), f64::from(g)))
        };
        let weight = match self {
            Self::GradCam => values().map(|(_, g)| g).sum::<f64>() / map.len() as f64,
            Self::GradCamPlusPlus => {
                let total: f64 = values().map(|(a, _)| a).sum();
                let share = |(_, g): (f64, f64)| match g > 0. {
                    true => g * (g * g) / (2. * g * g + total * g * g * g + EPS),
                    false => 0.,
                };
                values().map(share).sum()
            }
            // Class activation is no sum over gradients, and never comes here.
            Self::LayerCam | Self::HiResCam | Self::ClassActivation => 1.,
        };
        for (sum, (a, g)) in sum.iter_mut().zip(values()) {
            *sum += match self {
                Self::GradCam | Self::GradCamPlusPlus => weight * a,
                Self::LayerCam => g.max(0.) * a,
                Self::HiResCam | Self::ClassActivation => g * a,
            };
        }
    }
}

/// The heat map of one label of an image as a model takes it: of the central view, made as for the model's own
/// predictions.
///
/// # Errors
/// An image that was prepared for a model of another size, or as [`FeatureMaps::heat_map`].
pub fn explain(
    predictor: &Predictor,
    image: &PreparedImage,
    label: usize,
    method: CamMethod,
) -> Result<HeatMap, ExplainError> {
    let batch = predictor.batch(&[image], View::Center)?;
    FeatureMaps::new(predictor.classifier(), &batch)?.heat_map(label, method)
}

/// The last feature maps of one image (after their final normalisation and ReLU, what the head reads), or those of an earlier
/// layer, to be explained for any label by any method.
pub struct FeatureMaps<'a> {
    classifier: &'a Classifier,
    maps: Tensor,
    /// What makes the last maps of these, where they are an earlier layer's.
    rest: Option<Box<dyn Backbone>>,
}

impl<'a> FeatureMaps<'a> {
    /// Those of `image`, `1×3×H×W`, normalised as the network takes it.
    ///
    /// # Errors
    /// More than one image, or one that the network does not take.
    pub fn new(classifier: &'a Classifier, image: &Tensor) -> Result<Self, ExplainError> {
        check_one(image)?;
        Ok(Self {
            classifier,
            maps: classifier.features(image, Phase::Evaluate)?,
            rest: None,
        })
    }

    /// Those of one of the backbone's [layers](Backbone::layers). Earlier ones are finer, and say less of labels.
    ///
    /// # Errors
    /// As [`Self::new`], or a layer that does not exist.
    pub fn of_layer(
        classifier: &'a Classifier,
        image: &Tensor,
        layer: &str,
    ) -> Result<Self, ExplainError> {
        check_one(image)?;
        let [first, rest] = classifier.backbone().split(layer)?;
        Ok(Self {
            classifier,
            maps: first.forward_t(image, Phase::Evaluate)?,
            rest: Some(rest),
        })
    }

    /// The heat map of a label, with the height and width of the feature maps. It is all zero where nothing speaks for the
    /// label.
    ///
    /// # Errors
    /// A label that does not exist, [`ExplainError::NotFinite`], or [`ExplainError::NoClassMaps`].
    pub fn heat_map(&self, label: usize, method: CamMethod) -> Result<HeatMap, ExplainError> {
        if method == CamMethod::ClassActivation {
            return self.class_map(label);
        }
        let maps = Var::from_tensor(&self.maps)?;
        let last = match &self.rest {
            None => maps.as_tensor().clone(),
            Some(rest) => rest.forward_t(&maps, Phase::Evaluate)?,
        };
        let logits = self.classifier.logits(&last, Phase::Evaluate)?;
        let labels = logits.dim(1)?;
        if label >= labels {
            return Err(ExplainError::Label { label, labels });
        }
        let logit = logits.narrow(1, label, 1)?.sum_all()?;
        let value = logit.to_scalar::<f32>()?;
        if !value.is_finite() {
            let what = "logit";
            return Err(ExplainError::NotFinite { what, label, value });
        }
        let gradients = logit.backward()?;
        let (_, _, height, width) = maps.dims4()?;
        let mut sum = vec![0_f64; height * width];
        // A logit that does not depend on the features has no gradient.
        if let Some(gradient) = gradients.get(&maps) {
            let values = |tensor: &Tensor| -> candle_core::Result<Vec<f32>> {
                tensor.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
            };
            let (maps, gradient) = (values(&maps)?, values(gradient)?);
            let pixels = height * width;
            for (map, gradient) in maps.chunks(pixels).zip(gradient.chunks(pixels)) {
                method.add(map, gradient, &mut sum);
            }
        }
        let sum = sum.into_iter().map(|value| value as f32);
        positive(height, width, label, sum)
    }

    /// The head's own map of a label, with the height and width of the last feature maps.
    fn class_map(&self, label: usize) -> Result<HeatMap, ExplainError> {
        let last = match &self.rest {
            None => self.maps.clone(),
            Some(rest) => rest.forward_t(&self.maps, Phase::Evaluate)?,
        };
        let maps = self.classifier.class_maps(&last)?;
        let maps = maps.ok_or(ExplainError::NoClassMaps)?;
        let (_, labels, height, width) = maps.dims4()?;
        if label >= labels {
            return Err(ExplainError::Label { label, labels });
        }
        let of_label = maps.narrow(1, label, 1)?.to_device(&Device::Cpu)?;
        let values: Vec<f32> = of_label.flatten_all()?.to_vec1()?;
        positive(height, width, label, values)
    }
}

/// What is above zero. The maximum of NaN and 0 would be 0: nothing would speak for the label.
fn positive(
    height: usize,
    width: usize,
    label: usize,
    values: impl IntoIterator<Item = f32>,
) -> Result<HeatMap, ExplainError> {
    let map = values.into_iter().map(|value| match value.is_finite() {
        true => Ok(value.max(0.)),
        false => Err(ExplainError::NotFinite {
            what: "heat map",
            label,
            value,
        }),
    });
    HeatMap::new(height, width, map.collect::<Result<_, _>>()?)
}

fn check_one(image: &Tensor) -> Result<(), ExplainError> {
    match image.dims() {
        [1, _, _, _] => Ok(()),
        found => Err(ExplainError::OneImage {
            found: found.to_vec(),
        }),
    }
}
