//! The head of an ordinary classification network.

use candle_core::{D, Result, Tensor};
use cxr_ops::{Init, Linear, OpsError, ParameterPath, Phase, dropout};
use serde::{Deserialize, Serialize};

use crate::Head;

/// The constants of a [`LinearHead`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearHeadConfig {
    /// Share of the means dropped in training, in [0, 1).
    pub dropout: f64,
}

/// The mean of each map, dropout, one dense layer: what DenseNet, ConvNeXt and others end in. It
/// takes maps of any size, 1×1 included.
#[derive(Debug)]
pub struct LinearHead {
    dropout: f64,
    dense: Linear,
}

impl LinearHead {
    /// A head with new parameters under `path` for `maps` feature maps and `labels` logits.
    ///
    /// # Errors
    /// `path` already holds parameters of these names.
    pub fn new(
        maps: usize,
        labels: usize,
        config: &LinearHeadConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        Ok(Self {
            dropout: config.dropout,
            dense: Linear::new(maps, labels, Init::GlorotUniform, &path.pp("dense"))?,
        })
    }
}

impl Head for LinearHead {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let means = features.mean((D::Minus2, D::Minus1))?;
        let kept = dropout(&means, self.dropout, "top.dropout", phase)?;
        self.dense.forward_t(&kept, phase)
    }
}
