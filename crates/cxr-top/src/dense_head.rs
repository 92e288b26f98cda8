//! Hidden dense layers on the means of the maps.

use candle_core::{D, Result, Tensor};
use cxr_ops::{
    Activation, BatchNorm, BatchNormConfig, Init, Linear, NetworkBuilder, NetworkDescription,
    OpsError, OptionEntry, OptionError, ParameterPath, Phase, check_option, dropout, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::registry::check_dropout;
use crate::{Head, HeadConfig, HeadEntry, HeadError};

/// The sizes of a [`DenseHead`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DenseHeadConfig {
    /// Width of each hidden layer, in order, each at least 1.
    pub hidden: Vec<usize>,
    /// Share of the last hidden layer's values dropped in training, in [0, 1).
    pub dropout: f64,
}

impl Default for DenseHeadConfig {
    fn default() -> Self {
        Self {
            hidden: vec![512],
            dropout: 0.,
        }
    }
}

/// Layers and channels that no network comes near.
const MOST_LAYERS: usize = 16;
const MOST_CHANNELS: usize = 1 << 16;

/// Means, hidden layers, logits.
pub(crate) const DENSE: HeadEntry = HeadEntry::new(
    "dense",
    "the mean of each map, hidden dense layers with batch normalisation and ReLU, and one dense layer",
    &[
        OptionEntry::new(
            "hidden",
            "width of each hidden layer, a list, [512] unless given",
        ),
        OptionEntry::new(
            "dropout",
            "share of the last hidden layer dropped in training, in [0, 1), 0 unless given",
        ),
    ],
    |options| {
        let config: DenseHeadConfig = parse_options(options, DENSE.options)?;
        config.check()?;
        Ok(Box::new(config))
    },
);

impl DenseHeadConfig {
    /// Checks that the sizes are in their ranges.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> std::result::Result<(), OptionError> {
        let expected = format!("1 to {MOST_LAYERS} layers");
        let is_few = |layers: &usize| (1..=MOST_LAYERS).contains(layers);
        check_option("hidden", self.hidden.len(), &expected, is_few)?;
        for (at, &width) in self.hidden.iter().enumerate() {
            let expected = format!("1 to {MOST_CHANNELS}");
            let range = 1..=MOST_CHANNELS;
            check_option(&format!("hidden[{at}]"), width, &expected, |width| {
                range.contains(width)
            })?;
        }
        check_dropout(self.dropout)
    }
}

impl HeadConfig for DenseHeadConfig {
    fn options(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn build(
        &self,
        (channels, _, _): (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> std::result::Result<Box<dyn Head>, HeadError> {
        Ok(Box::new(DenseHead::new(channels, labels, self, path)?))
    }

    fn describe(
        &self,
        (channels, _, _): (usize, usize, usize),
        labels: usize,
    ) -> std::result::Result<NetworkDescription, HeadError> {
        let mut net = NetworkBuilder::new(channels).with_norm(BatchNormConfig::default());
        let init = Init::GlorotUniform;
        let mut x = net.images();
        x = net.global_pool(x);
        for (at, &width) in self.hidden.iter().enumerate() {
            x = net.linear(&format!("hidden.{at}.dense"), x, width, init);
            x = net.norm(&format!("hidden.{at}.norm"), x);
            x = net.relu(x);
        }
        let x = net.dropout("dropout", x, self.dropout);
        let logits = net.linear("dense", x, labels, init);
        Ok(net.finish(logits)?)
    }
}

/// ```text
/// maps ─ mean of each ─ (hidden.i.dense ─ hidden.i.norm ─ relu) … ─ dropout ─ dense ─ logits
/// ```
///
/// What Kufel et al. (2023) and Katona et al. (2024) put between a Keras network and its logits: "dense and batch
/// normalisation layers in sequence", whose number and widths they do not publish. It takes maps of any size, 1×1 included.
#[derive(Debug)]
pub struct DenseHead {
    hidden: Vec<(Linear, BatchNorm)>,
    dropout: f64,
    dense: Linear,
}

impl DenseHead {
    /// A head with new parameters under `path` for `channels` feature maps and `labels` logits.
    ///
    /// # Errors
    /// `path` already holds parameters of these names.
    pub fn new(
        channels: usize,
        labels: usize,
        config: &DenseHeadConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let (constants, init) = (BatchNormConfig::default(), Init::GlorotUniform);
        let mut width_before = channels;
        let mut hidden = Vec::with_capacity(config.hidden.len());
        for (at, &width) in config.hidden.iter().enumerate() {
            let path = path.pp("hidden").pp(at);
            hidden.push((
                Linear::new(width_before, width, init, &path.pp("dense"))?,
                BatchNorm::new(width, constants, &path.pp("norm"))?,
            ));
            width_before = width;
        }
        Ok(Self {
            hidden,
            dropout: config.dropout,
            dense: Linear::new(width_before, labels, init, &path.pp("dense"))?,
        })
    }
}

impl Head for DenseHead {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let mut x = features.mean((D::Minus2, D::Minus1))?;
        for (dense, norm) in &self.hidden {
            x = dense.forward_t(&x, phase)?;
            x = norm.forward_t(&x, Activation::Relu, phase)?;
        }
        let x = dropout(&x, self.dropout, "top.dropout", phase)?;
        self.dense.forward_t(&x, phase)
    }
}
