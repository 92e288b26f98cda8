//! The head of an ordinary classification network.

use candle_core::{D, Result, Tensor};
use cxr_ops::{
    Init, Linear, NetworkBuilder, NetworkDescription, OpsError, OptionEntry, ParameterPath, Phase,
    dropout, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::class_maps::of_each_place;
use crate::registry::check_dropout;
use crate::{Head, HeadConfig, HeadEntry, HeadError};

/// The constants of a [`LinearHead`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinearHeadConfig {
    /// Share of the means dropped in training, in [0, 1).
    pub dropout: f64,
}

/// The mean of each map and one dense layer.
pub(crate) const LINEAR: HeadEntry = HeadEntry::new(
    "linear",
    "the mean of each map and one dense layer",
    &[OptionEntry::new(
        "dropout",
        "share of the means dropped in training, in [0, 1), 0 unless given",
    )],
    |options| {
        let config: LinearHeadConfig = parse_options(options, LINEAR.options)?;
        check_dropout(config.dropout)?;
        Ok(Box::new(config))
    },
);

impl HeadConfig for LinearHeadConfig {
    fn options(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn build(
        &self,
        (channels, _, _): (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> std::result::Result<Box<dyn Head>, HeadError> {
        Ok(Box::new(LinearHead::new(channels, labels, self, path)?))
    }

    fn describe(
        &self,
        (channels, _, _): (usize, usize, usize),
        labels: usize,
    ) -> std::result::Result<NetworkDescription, HeadError> {
        let mut net = NetworkBuilder::new(channels);
        let maps = net.images();
        let means = net.global_pool(maps);
        let kept = net.dropout("dropout", means, self.dropout);
        let logits = net.linear("dense", kept, labels, Init::GlorotUniform);
        Ok(net.finish(logits)?)
    }
}

/// The mean of each map, dropout, one dense layer: what DenseNet, ConvNeXt and others end in. It
/// takes maps of any size, 1×1 included.
#[derive(Debug)]
pub struct LinearHead {
    dropout: f64,
    dense: Linear,
}

impl LinearHead {
    /// A head with new parameters under `path` for `channels` feature maps and `labels` logits.
    ///
    /// # Errors
    /// `path` already holds parameters of these names.
    pub fn new(
        channels: usize,
        labels: usize,
        config: &LinearHeadConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        Ok(Self {
            dropout: config.dropout,
            dense: Linear::new(channels, labels, Init::GlorotUniform, &path.pp("dense"))?,
        })
    }
}

impl Head for LinearHead {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let means = features.mean((D::Minus2, D::Minus1))?;
        let kept = dropout(&means, self.dropout, "top.dropout", phase)?;
        self.dense.forward_t(&kept, phase)
    }

    /// Zhou et al.: Learning Deep Features for Discriminative Localization, CVPR 2016, equation 2.
    fn class_maps(&self, features: &Tensor) -> Result<Option<Tensor>> {
        of_each_place(&self.dense, features).map(Some)
    }
}
