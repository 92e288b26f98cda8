//! A network behind two convolutions that make large images small.

use std::fmt;
use std::path::Path;

use candle_core::{Result, Tensor};
use cxr_ops::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Init, OptionEntry, OptionError,
    ParameterPath, Parameters, Phase, check_option, parse_options,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::members::Member;
use crate::{
    Backbone, BackboneConfig, BackboneEntry, BackboneError, PretrainedError, PretrainedReport,
};

/// A network behind two convolutions of stride 2.
pub(crate) const DOWNSAMPLED: BackboneEntry = BackboneEntry::new(
    "downsampled",
    "a network behind two trained convolutions that quarter the image's sides (Gündel et al. 2019)",
    &[
        OptionEntry::new(
            "network",
            "the backbone behind them, a name or `{ name = { … } }`",
        ),
        OptionEntry::new("channels", "channels between the two, 16 unless given"),
    ],
    |options| Ok(Box::new(Downsampled::parse(options)?)),
);

const MOST_CHANNELS: usize = 1 << 12;

#[derive(Debug)]
struct Downsampled {
    network: Member,
    channels: usize,
}

#[derive(Deserialize)]
struct Given {
    network: Value,
    #[serde(default = "sixteen")]
    channels: usize,
}

fn sixteen() -> usize {
    16
}

impl Downsampled {
    fn parse(options: &Value) -> std::result::Result<Self, OptionError> {
        let given: Given = parse_options(options, DOWNSAMPLED.options)?;
        let range = 1..=MOST_CHANNELS;
        let expected = format!("1 to {MOST_CHANNELS}");
        check_option("channels", given.channels, &expected, |n| range.contains(n))?;
        Ok(Self {
            network: Member::parse("network", &given.network)?,
            channels: given.channels,
        })
    }
}

impl fmt::Display for Downsampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two convolutions and {}", self.network.config)
    }
}

impl BackboneConfig for Downsampled {
    fn options(&self) -> Value {
        json!({ "network": self.network.value(), "channels": self.channels })
    }

    fn build(&self, path: &ParameterPath) -> std::result::Result<Box<dyn Backbone>, BackboneError> {
        let before = path.pp("before");
        let halving = Conv2dConfig {
            stride: 2,
            padding: 1,
        };
        let conv = |from, to, name: &str| {
            Conv2d::new(from, to, 3, halving, Init::KaimingNormal, &before.pp(name))
        };
        let constants = BatchNormConfig::default();
        Ok(Box::new(DownsampledNetwork {
            conv1: conv(3, self.channels, "conv1")?,
            norm1: BatchNorm::new(self.channels, constants, &before.pp("norm1"))?,
            conv2: conv(self.channels, 3, "conv2")?,
            norm2: BatchNorm::new(3, constants, &before.pp("norm2"))?,
            network: self.network.config.build(&path.pp("network"))?,
        }))
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        let (height, width) = (quarter(height), quarter(width));
        self.network.config.feature_shape(height, width)
    }

    fn is_trainable(&self) -> bool {
        self.network.config.is_trainable()
    }

    fn side_multiple(&self) -> usize {
        4 * self.network.config.side_multiple()
    }

    /// The network's; the two convolutions keep their first weights.
    fn load_weights(
        &self,
        path: &Path,
        parameters: &Parameters,
        prefix: &str,
    ) -> std::result::Result<PretrainedReport, PretrainedError> {
        let prefix = format!("{prefix}network.");
        self.network.config.load_weights(path, parameters, &prefix)
    }
}

/// A side after two padded convolutions of stride 2.
fn quarter(side: usize) -> usize {
    side.div_ceil(2).div_ceil(2)
}

/// ```text
/// images ─ conv1 3×3 / 2 ─ norm1 ─ relu ─ conv2 3×3 / 2 ─ norm2 ─ network
/// ```
///
/// Gündel et al. (2019) say that two convolutions stand before a pretrained DenseNet121, for images of 1024×1024 pixels; their
/// sizes, and the normalisation of what the pretrained network sees, are decisions of this crate.
struct DownsampledNetwork {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
    network: Box<dyn Backbone>,
}

impl Backbone for DownsampledNetwork {
    fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let maps = self.conv1.forward_t(images, phase)?;
        let maps = self.norm1.forward_t(&maps, Activation::Relu, phase)?;
        let maps = self.conv2.forward_t(&maps, phase)?;
        let maps = (self.norm2).forward_t(&maps, Activation::Identity, phase)?;
        self.network.forward_t(&maps, phase)
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        self.network.feature_shape(quarter(height), quarter(width))
    }

    fn is_trainable(&self) -> bool {
        self.network.is_trainable()
    }
}
