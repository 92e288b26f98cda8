//! The network of a model as data, with its weights.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use cxr_backbone::{BackboneConfig, Torchvision};
use cxr_model::{BACKBONE_PREFIX, Classifier, ModelCard};
use cxr_ops::NetworkDescription;
use cxr_top::HeadError;

use crate::ExchangeError;

/// What the names of a head's parameters begin with.
pub(crate) const HEAD_PREFIX: &str = "top.";

/// A classifier as data.
pub(crate) struct DescribedModel<'a> {
    pub(crate) card: &'a ModelCard,
    backbone: Box<dyn BackboneConfig>,
    pub(crate) head: NetworkDescription,
    /// `(C, h, w)` of the features.
    pub(crate) features: (usize, usize, usize),
    weights: BTreeMap<String, Tensor>,
}

impl<'a> DescribedModel<'a> {
    /// The descriptions of both parts and the weights.
    ///
    /// # Errors
    /// A part that has no description, or is its author's own.
    pub(crate) fn new(card: &'a ModelCard, classifier: &Classifier) -> Result<Self, ExchangeError> {
        let not_described = |part, component: &cxr_model::Component| ExchangeError::NotDescribed {
            part,
            name: (component.custom_name().unwrap_or(component.name())).to_owned(),
        };
        for (part, component) in [("backbone", &card.backbone), ("head", &card.head)] {
            let is_own = |name: &String| name.starts_with(&format!("{part} "));
            if component.custom_name().is_some() || card.own_parts.iter().any(is_own) {
                return Err(not_described(part, component));
            }
        }
        let backbone = cxr_model::backbone(&card.backbone)?;
        let Some(described) = backbone.description() else {
            return Err(not_described("backbone", &card.backbone));
        };
        let features = described.feature_shape(card.crop_size, card.crop_size)?;
        let head = match cxr_model::head(&card.head)?.describe(features, card.n_outputs()) {
            Err(HeadError::NotDescribed { .. }) => return Err(not_described("head", &card.head)),
            described => described?,
        };
        Ok(Self {
            card,
            backbone,
            head,
            features,
            weights: classifier.parameters().tensors(""),
        })
    }

    /// Both descriptions, each with what its parameters' names begin with.
    pub(crate) fn parts(&self) -> Vec<(&'static str, &NetworkDescription)> {
        let backbone = self.backbone.description();
        let backbone = backbone.map(|described| (BACKBONE_PREFIX, described));
        backbone
            .into_iter()
            .chain([(HEAD_PREFIX, &self.head)])
            .collect()
    }

    /// The backbone's description.
    pub(crate) fn backbone(&self) -> Option<&NetworkDescription> {
        self.backbone.description()
    }

    /// How torchvision has the backbone.
    pub(crate) fn torchvision(&self) -> Option<Torchvision> {
        self.backbone.torchvision()
    }

    /// What people call the backbone.
    pub(crate) fn title(&self) -> String {
        self.backbone.to_string()
    }

    /// Whether the head is the mean of each map and a dense layer.
    pub(crate) fn has_linear_head(&self) -> bool {
        self.card.head.name() == "linear"
    }

    /// The values of a parameter.
    ///
    /// # Errors
    /// There is none of this name, or it has another number of values.
    pub(crate) fn values(&self, name: &str, count: usize) -> Result<Vec<f32>, ExchangeError> {
        let wrong = |problem: String| ExchangeError::Parameter {
            name: name.to_owned(),
            problem,
        };
        let tensor = self.weights.get(name);
        let tensor = tensor.ok_or_else(|| wrong("is not in the model".to_owned()))?;
        let values = tensor.to_device(&Device::Cpu)?.flatten_all()?;
        let values = values.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        match values.len() == count {
            true => Ok(values),
            false => Err(wrong(format!(
                "has {} values, expected {count}",
                values.len()
            ))),
        }
    }
}
