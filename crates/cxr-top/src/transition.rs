//! A transition layer, pooling between mean and maximum, and one dense layer.

use candle_core::{D, Result, Tensor};
use cxr_ops::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, ConvLayer, Init, Linear,
    NetworkBuilder, NetworkDescription, OpsError, OptionEntry, OptionError, ParameterPath, Phase,
    check_option, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::class_maps::of_each_place;
use crate::{Head, HeadConfig, HeadEntry, HeadError};

/// The sizes and constants of a [`Transition`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TransitionConfig {
    /// Channels out of the transition layer.
    pub channels: usize,
    /// Side of its kernel, an odd number; the maps keep their size.
    pub kernel: usize,
    /// How each map becomes one value.
    pub pooling: Pooling,
    /// r of log-sum-exp pooling, above 0: towards 0 the mean, towards infinity the maximum.
    pub sharpness: f64,
}

/// How a map becomes one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// `1/r log (1/S Σ exp(r x))` over the S places.
    LogSumExp,
    /// The mean.
    Mean,
    /// The maximum.
    Max,
}

impl Default for TransitionConfig {
    fn default() -> Self {
        Self {
            channels: 1024,
            kernel: 3,
            pooling: Pooling::LogSumExp,
            sharpness: 10.,
        }
    }
}

const MOST_CHANNELS: usize = 1 << 16;
const MOST_KERNEL: usize = 31;

/// Wang et al.'s layers.
pub(crate) const TRANSITION: HeadEntry = HeadEntry::new(
    "transition",
    "a transition layer, log-sum-exp pooling and one dense layer (Wang et al. 2017)",
    &[
        OptionEntry::new(
            "channels",
            "channels out of the transition layer, 1024 unless given",
        ),
        OptionEntry::new("kernel", "side of its kernel, odd, 3 unless given"),
        OptionEntry::new(
            "pooling",
            "`log-sum-exp`, `mean` or `max`, log-sum-exp unless given",
        ),
        OptionEntry::new(
            "sharpness",
            "r of log-sum-exp pooling, above 0, 10 unless given",
        ),
    ],
    |options| {
        let config: TransitionConfig = parse_options(options, TRANSITION.options)?;
        config.check()?;
        Ok(Box::new(config))
    },
);

impl TransitionConfig {
    /// Checks that the sizes and constants are in their ranges.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> std::result::Result<(), OptionError> {
        let range = 1..=MOST_CHANNELS;
        let expected = format!("1 to {MOST_CHANNELS}");
        check_option("channels", self.channels, &expected, |n| range.contains(n))?;
        let is_kernel = |side: &usize| side % 2 == 1 && *side <= MOST_KERNEL;
        let expected = format!("an odd number up to {MOST_KERNEL}");
        check_option("kernel", self.kernel, &expected, is_kernel)?;
        let is_sharpness = |r: &f64| r.is_finite() && *r > 0.;
        check_option("sharpness", self.sharpness, "above 0", is_sharpness)
    }
}

impl HeadConfig for TransitionConfig {
    fn options(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    fn build(
        &self,
        (channels, _, _): (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> std::result::Result<Box<dyn Head>, HeadError> {
        Ok(Box::new(Transition::new(channels, labels, self, path)?))
    }

    /// The maximum of maps that are not square is not described.
    fn describe(
        &self,
        (channels, height, width): (usize, usize, usize),
        labels: usize,
    ) -> std::result::Result<NetworkDescription, HeadError> {
        let mut net = NetworkBuilder::new(channels);
        let conv = ConvLayer::new(self.channels, self.kernel).same();
        let maps = net.images();
        let maps = net.conv("transition", maps, conv.init(Init::KaimingNormal));
        let maps = net.norm("norm", maps);
        let maps = net.relu(maps);
        let pooled = match self.pooling {
            Pooling::Mean => net.global_pool(maps),
            Pooling::LogSumExp => net.log_sum_exp_pool(maps, self.sharpness as f32),
            Pooling::Max if height == width => net.max_pool(maps, height, 1, 0),
            Pooling::Max => {
                return Err(HeadError::NotDescribed {
                    head: format!("{self:?}"),
                });
            }
        };
        let logits = net.linear("dense", pooled, labels, Init::GlorotUniform);
        Ok(net.finish(logits)?)
    }
}

/// What Wang et al. put on their networks (ChestX-ray8, CVPR 2017, section 4): maps of the backbone through a transition layer,
/// `convolution ─ batch normalisation ─ relu`, log-sum-exp pooling with r = 10 (their equation 4), and one dense layer.
///
/// The paper does not say the kernel; that and the normalisation are as the first author's later code has them.
#[derive(Debug)]
pub struct Transition {
    conv: Conv2d,
    norm: BatchNorm,
    pooling: Pooling,
    sharpness: f64,
    dense: Linear,
}

impl Transition {
    /// A head with new parameters under `path` for `channels` feature maps and `labels` logits.
    ///
    /// # Errors
    /// `path` already holds parameters of these names.
    pub fn new(
        channels: usize,
        labels: usize,
        config: &TransitionConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let padded = Conv2dConfig {
            padding: config.kernel / 2,
            ..Conv2dConfig::default()
        };
        let (to, kernel) = (config.channels, config.kernel);
        let path_of_conv = path.pp("transition");
        let init = Init::KaimingNormal;
        let constants = BatchNormConfig::default();
        Ok(Self {
            conv: Conv2d::new(channels, to, kernel, padded, init, &path_of_conv)?,
            norm: BatchNorm::new(to, constants, &path.pp("norm"))?,
            pooling: config.pooling,
            sharpness: config.sharpness,
            dense: Linear::new(to, labels, Init::GlorotUniform, &path.pp("dense"))?,
        })
    }
}

impl Transition {
    /// The transition layer's maps.
    fn maps(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let maps = self.conv.forward_t(features, phase)?;
        self.norm.forward_t(&maps, Activation::Relu, phase)
    }
}

impl Head for Transition {
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let maps = self.maps(features, phase)?;
        let places = maps.flatten_from(2)?;
        let pooled = match self.pooling {
            Pooling::Mean => places.mean(D::Minus1)?,
            Pooling::Max => places.max(D::Minus1)?,
            Pooling::LogSumExp => log_mean_exp(&places, self.sharpness)?,
        };
        self.dense.forward_t(&pooled, phase)
    }

    /// Wang et al.: transition activations times prediction weights, their heat maps.
    fn class_maps(&self, features: &Tensor) -> Result<Option<Tensor>> {
        of_each_place(&self.dense, &self.maps(features, Phase::Evaluate)?).map(Some)
    }
}

/// `1/r log (mean exp(r x))` over the last dimension. The largest value is taken off before the exponential and added again,
/// which changes nothing; no gradient passes through it.
fn log_mean_exp(values: &Tensor, sharpness: f64) -> Result<Tensor> {
    let largest = values.detach().max_keepdim(D::Minus1)?;
    let terms = (values.broadcast_sub(&largest)? * sharpness)?.exp()?;
    let log = terms.mean(D::Minus1)?.log()?;
    (log / sharpness)? + largest.squeeze(D::Minus1)?
}
