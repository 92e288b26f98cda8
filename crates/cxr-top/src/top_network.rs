//! The paper's top network.

use candle_core::{Result, Tensor};
use cxr_ops::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, ConvLayer, Init, Linear,
    NetworkBuilder, NetworkDescription, OpsError, OptionEntry, OptionError, ParameterPath, Phase,
    check_option, dropout, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::registry::check_dropout;
use crate::{Head, HeadConfig, HeadEntry, HeadError};

/// The sizes and constants of a [`TopNetwork`]; the defaults are the paper's, and Keras's where
/// the paper is silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopNetworkConfig {
    /// Channels out of the two 3×3 convolutions.
    pub conv_channels: [usize; 2],
    /// Width of the hidden dense layer.
    pub hidden: usize,
    /// Share of the flattened maps dropped in training, in [0, 1).
    pub dropout: f64,
    /// ε of the batch normalisations.
    pub norm_eps: f64,
    /// Momentum of the batch normalisations in PyTorch's convention (Keras's 0.99 is 0.01 here).
    pub norm_momentum: f64,
}

impl Default for TopNetworkConfig {
    fn default() -> Self {
        Self {
            conv_channels: [256, 128],
            hidden: 64,
            dropout: 0.1,
            norm_eps: 1e-3,
            norm_momentum: 0.01,
        }
    }
}

/// The paper's top network.
pub(crate) const TOP_NETWORK: HeadEntry = HeadEntry::new(
    "top-network",
    "the paper's top network: two 3×3 convolutions and two dense layers, all normalised",
    &[
        OptionEntry::new(
            "conv_channels",
            "channels of the two 3×3 convolutions, [256, 128] unless given",
        )
        .once_called("conv_maps"),
        OptionEntry::new("hidden", "width of the hidden dense layer, 64 unless given"),
        OptionEntry::new(
            "dropout",
            "share of the flattened maps dropped in training, in [0, 1), 0.1 unless given",
        ),
        OptionEntry::new(
            "norm_eps",
            "ε of the batch normalisations, 1e-3 unless given",
        ),
        OptionEntry::new(
            "norm_momentum",
            "their momentum in PyTorch's convention, 0.01 unless given",
        ),
    ],
    |options| {
        let config: TopNetworkConfig = parse_options(options, TOP_NETWORK.options)?;
        config.check()?;
        Ok(Box::new(config))
    },
);

/// A bound that no network comes near: above it sizes overflow or memory runs out.
const MOST_CHANNELS: usize = 1 << 16;

/// Two unpadded 3×3 convolutions take four rows and columns away.
const LEAST_SIDE: usize = 5;

impl TopNetworkConfig {
    /// Checks that every layer has channels to work on, and that constants are in their ranges.
    ///
    /// # Errors
    /// The first option that is out of its range.
    pub fn check(&self) -> std::result::Result<(), OptionError> {
        let [first, second] = self.conv_channels;
        for (key, size) in [
            ("conv_channels[0]", first),
            ("conv_channels[1]", second),
            ("hidden", self.hidden),
        ] {
            let expected = format!("1 to {MOST_CHANNELS}");
            let range = 1..=MOST_CHANNELS;
            check_option(key, size, &expected, |size| range.contains(size))?;
        }
        check_dropout(self.dropout)?;
        let is_eps = |eps: &f64| eps.is_finite() && *eps > 0.;
        check_option("norm_eps", self.norm_eps, "above 0", is_eps)?;
        let is_momentum = |momentum: &f64| (0. ..=1.).contains(momentum);
        check_option(
            "norm_momentum",
            self.norm_momentum,
            "in [0, 1]",
            is_momentum,
        )
    }
}

impl HeadConfig for TopNetworkConfig {
    fn options(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn build(
        &self,
        maps: (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> std::result::Result<Box<dyn Head>, HeadError> {
        Ok(Box::new(TopNetwork::new(maps, labels, self, path)?))
    }

    fn describe(
        &self,
        (channels, height, width): (usize, usize, usize),
        labels: usize,
    ) -> std::result::Result<NetworkDescription, HeadError> {
        if height < LEAST_SIDE || width < LEAST_SIDE {
            return Err(TopNetworkError::MapsTooSmall { height, width }.into());
        }
        let mut net = NetworkBuilder::new(channels).with_norm(BatchNormConfig {
            eps: self.norm_eps,
            momentum: self.norm_momentum,
        });
        let init = Init::GlorotUniform;
        let mut x = net.images();
        for (index, &channels) in self.conv_channels.iter().enumerate() {
            let conv = ConvLayer::new(channels, 3).biased().init(init);
            x = net.conv(&format!("conv{}", index + 1), x, conv);
            x = net.norm(&format!("norm{}", index + 1), x);
            x = net.relu(x);
        }
        let x = net.dropout("dropout", x, self.dropout);
        let x = net.dense("dense1", x, [height - 4, width - 4], self.hidden, init);
        let x = net.norm("norm3", x);
        let x = net.relu(x);
        let x = net.dense("dense2", x, [1, 1], labels, init);
        let logits = net.norm("norm4", x);
        Ok(net.finish(logits)?)
    }

    fn least_side(&self) -> usize {
        LEAST_SIDE
    }
}

/// Why a [`TopNetwork`] cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopNetworkError {
    /// Two unpadded 3×3 convolutions take four rows and columns away.
    #[error(
        "the top network needs feature maps of at least 5×5, got {height}×{width}; use larger images"
    )]
    MapsTooSmall {
        /// Height of the maps.
        height: usize,
        /// Width of the maps.
        width: usize,
    },
    /// A parameter's name is taken.
    #[error(transparent)]
    Parameters(#[from] OpsError),
}

/// The paper's top network:
///
/// ```text
/// maps ─ conv1 3×3 ─ norm1 ─ relu ─ conv2 3×3 ─ norm2 ─ relu ─ flatten ─ dropout ─┐
///   ┌─────────────────────────────────────────────────────────────────────────────┘
///   └─ dense1 ─ norm3 ─ relu ─ dense2 ─ norm4 ─ logits
/// ```
#[derive(Debug)]
pub struct TopNetwork {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    dropout: f64,
    dense1: Linear,
    norm3: BatchNorm,
    dense2: Linear,
    norm4: BatchNorm,
}

impl TopNetwork {
    /// A network with new parameters under `path` for maps of shape `(C, h, w)` and `labels` logits.
    ///
    /// # Errors
    /// Maps smaller than 5×5, or `path` already holds parameters of these names.
    pub fn new(
        (maps, height, width): (usize, usize, usize),
        labels: usize,
        config: &TopNetworkConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, TopNetworkError> {
        if height < LEAST_SIDE || width < LEAST_SIDE {
            return Err(TopNetworkError::MapsTooSmall { height, width });
        }
        let [maps1, maps2] = config.conv_channels;
        let flat = maps2 * (height - 4) * (width - 4);
        let (unpadded, init) = (Conv2dConfig::default(), Init::GlorotUniform);
        let conv = |in_channels, out_channels, path: ParameterPath| {
            Conv2d::new(in_channels, out_channels, 3, unpadded, init, &path)?.with_bias(&path)
        };
        let constants = BatchNormConfig {
            eps: config.norm_eps,
            momentum: config.norm_momentum,
        };
        let norm = |channels, name| BatchNorm::new(channels, constants, &path.pp(name));
        Ok(Self {
            conv1: conv(maps, maps1, path.pp("conv1"))?,
            norm1: norm(maps1, "norm1")?,
            conv2: conv(maps1, maps2, path.pp("conv2"))?,
            norm2: norm(maps2, "norm2")?,
            dropout: config.dropout,
            dense1: Linear::new(flat, config.hidden, init, &path.pp("dense1"))?,
            norm3: norm(config.hidden, "norm3")?,
            dense2: Linear::new(config.hidden, labels, init, &path.pp("dense2"))?,
            norm4: norm(labels, "norm4")?,
        })
    }
}

impl Head for TopNetwork {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let maps = self.conv1.forward_t(features, phase)?;
        let maps = self.norm1.forward_t(&maps, Activation::Relu, phase)?;
        let maps = self.conv2.forward_t(&maps, phase)?;
        let maps = self.norm2.forward_t(&maps, Activation::Relu, phase)?;
        let flat = dropout(&maps.flatten_from(1)?, self.dropout, "top.dropout", phase)?;
        let hidden = self.dense1.forward_t(&flat, phase)?;
        let hidden = self.norm3.forward_t(&hidden, Activation::Relu, phase)?;
        let logits = self.dense2.forward_t(&hidden, phase)?;
        self.norm4.forward_t(&logits, Activation::Identity, phase)
    }
}
