//! What stands between feature maps and logits: the paper's top network.
//!
//! [`TopNetwork`] shrinks DenseNet's 1024×7×7 maps with two unpadded 3×3 convolutions instead of
//! averaging them, and normalises the logits themselves (Hanif et al. 2025, section 3.2).
//! [`LinearHead`] is the usual one, the mean of each map and a dense layer.
//! [`Head`] is what a classifier asks of any such network. Implement it for one of your own, and
//! `cxr-train` trains it.
//!
//! **Never here:** backbones, losses, data.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use cxr_ops::{Parameters, Phase};
//! use cxr_top::{Head, TopNetwork, TopNetworkConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let parameters = Parameters::new(0, &Device::Cpu);
//! let top = TopNetwork::new((1024, 7, 7), 14, &TopNetworkConfig::default(), &parameters.root().pp("top"))?;
//! assert_eq!(parameters.count("top."), 2_731_142); // biases and running statistics included
//!
//! let features = Tensor::zeros((2, 1024, 7, 7), DType::F32, &Device::Cpu)?;
//! assert_eq!(top.forward_t(&features, Phase::Evaluate)?.dims(), [2, 14]);
//! # Ok(()) }
//! ```

mod linear_head;

pub use linear_head::{LinearHead, LinearHeadConfig};

use candle_core::{Result, Tensor};
use cxr_ops::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Init, Linear, OpsError,
    ParameterPath, Phase, dropout,
};
use serde::{Deserialize, Serialize};

/// A network from feature maps to logits.
pub trait Head: Send + Sync {
    /// Feature maps `N×C×h×w` to logits `N×L`.
    ///
    /// # Errors
    /// Maps of another shape than the network was made for.
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor>;
}

/// The sizes and constants of a [`TopNetwork`]; the defaults are the paper's, and Keras's where
/// the paper is silent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopNetworkConfig {
    /// Maps of the two 3×3 convolutions.
    pub conv_maps: [usize; 2],
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
            conv_maps: [256, 128],
            hidden: 64,
            dropout: 0.1,
            norm_eps: 1e-3,
            norm_momentum: 0.01,
        }
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
        if height < 5 || width < 5 {
            return Err(TopNetworkError::MapsTooSmall { height, width });
        }
        let [maps1, maps2] = config.conv_maps;
        let flat = maps2 * (height - 4) * (width - 4);
        let (unpadded, init) = (Conv2dConfig::default(), Init::GlorotUniform);
        let conv = |maps_in, maps_out, path: ParameterPath| {
            Conv2d::new(maps_in, maps_out, 3, unpadded, init, &path)?.with_bias(&path)
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
