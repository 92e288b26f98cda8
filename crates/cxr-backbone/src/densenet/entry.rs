//! DenseNets as experiment files name them.

use std::fmt;
use std::path::Path;

use cxr_ops::{
    BatchNormConfig, NetworkDescription, OptionEntry, OptionError, ParameterPath, Parameters,
    check_option, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DenseNet, DenseNetConfig};
use crate::{
    Backbone, BackboneConfig, BackboneEntry, BackboneError, PretrainedError, PretrainedReport,
    Torchvision, load_pretrained,
};

const NORM_EPS: OptionEntry = OptionEntry::new(
    "norm_eps",
    "ε of the batch normalisations, above 0; 1e-5 unless given (Keras has 1.001e-5)",
);
const NORM_MOMENTUM: OptionEntry = OptionEntry::new(
    "norm_momentum",
    "momentum of the batch normalisations in PyTorch's convention, 0.1 unless given (Keras' 0.99 is 0.01 here)",
);
const NORM: [OptionEntry; 2] = [NORM_EPS, NORM_MOMENTUM];

/// DenseNet-121, as in the paper.
pub(crate) const DENSENET121: BackboneEntry = BackboneEntry::new(
    "densenet121",
    "DenseNet-121, 1024 channels",
    &NORM,
    |options| published(options, "DenseNet-121", DenseNetConfig::densenet121()),
);

/// DenseNet-169.
pub(crate) const DENSENET169: BackboneEntry = BackboneEntry::new(
    "densenet169",
    "DenseNet-169, 1664 channels",
    &NORM,
    |options| published(options, "DenseNet-169", DenseNetConfig::densenet169()),
);

/// DenseNet-201.
pub(crate) const DENSENET201: BackboneEntry = BackboneEntry::new(
    "densenet201",
    "DenseNet-201, 1920 channels",
    &NORM,
    |options| published(options, "DenseNet-201", DenseNetConfig::densenet201()),
);

/// A DenseNet of other sizes.
pub(crate) const DENSENET: BackboneEntry = BackboneEntry::new(
    "densenet",
    "a DenseNet of other sizes",
    &[
        OptionEntry::new("stem_channels", "channels out of the stem, at least 2")
            .once_called("stem_maps"),
        OptionEntry::new("growth_rate", "new channels of a dense layer, at least 1")
            .once_called("growth"),
        OptionEntry::new(
            "bottleneck_size",
            "channels of a dense layer's 1×1 convolution over `growth_rate`, 4 unless given",
        )
        .once_called("bottleneck"),
        OptionEntry::new("block_layers", "dense layers of each block"),
        NORM_EPS,
        NORM_MOMENTUM,
    ],
    |options| {
        let sizes: Sizes = parse_options(options, DENSENET.options)?;
        let config = DenseNetConfig {
            stem_channels: sizes.stem_channels,
            growth_rate: sizes.growth_rate,
            bottleneck_size: sizes.bottleneck_size,
            block_layers: sizes.block_layers,
            norm: BatchNormConfig {
                eps: sizes.norm_eps,
                momentum: sizes.norm_momentum,
            },
        };
        config.check()?;
        Ok(Box::new(Named::new(None, config)?))
    },
);

fn published(
    options: &Value,
    name: &'static str,
    config: DenseNetConfig,
) -> Result<Box<dyn BackboneConfig>, OptionError> {
    let constants: NormConstants = parse_options(options, &NORM)?;
    let config = DenseNetConfig {
        norm: BatchNormConfig {
            eps: constants.norm_eps,
            momentum: constants.norm_momentum,
        },
        ..config
    };
    config.check()?;
    Ok(Box::new(Named::new(Some(name), config)?))
}

#[derive(Serialize, Deserialize)]
struct NormConstants {
    #[serde(default = "eps")]
    norm_eps: f64,
    #[serde(default = "momentum")]
    norm_momentum: f64,
}

#[derive(Serialize, Deserialize)]
struct Sizes {
    stem_channels: usize,
    growth_rate: usize,
    #[serde(default = "four")]
    bottleneck_size: usize,
    block_layers: Vec<usize>,
    #[serde(default = "eps")]
    norm_eps: f64,
    #[serde(default = "momentum")]
    norm_momentum: f64,
}

fn four() -> usize {
    4
}

fn eps() -> f64 {
    BatchNormConfig::default().eps
}

fn momentum() -> f64 {
    BatchNormConfig::default().momentum
}

/// Bounds that no network comes near: above them sizes overflow or memory runs out.
const MOST_CHANNELS: usize = 1 << 16;
const MOST_BLOCKS: usize = 16;
const MOST_LAYERS: usize = 4096;

impl DenseNetConfig {
    /// Checks that every layer has channels to work on, and that no size is beyond reason.
    ///
    /// # Errors
    /// The first option that is out of its range.
    pub fn check(&self) -> Result<(), OptionError> {
        for (key, value, least) in [
            ("stem_channels", self.stem_channels, 2),
            ("growth_rate", self.growth_rate, 1),
            ("bottleneck_size", self.bottleneck_size, 1),
        ] {
            let expected = format!("at least {least} and at most {MOST_CHANNELS}");
            let range = least..=MOST_CHANNELS;
            check_option(key, value, &expected, |value| range.contains(value))?;
        }
        let blocks = self.block_layers.len();
        let layers = self.block_layers.iter();
        let layers = layers.fold(0, |sum: usize, &n| sum.saturating_add(n));
        if blocks > MOST_BLOCKS || layers > MOST_LAYERS {
            let expected = format!("at most {MOST_BLOCKS} blocks and {MOST_LAYERS} layers");
            let found = format!("{blocks} blocks and {layers} layers");
            return Err(OptionError::new("block_layers", expected, found));
        }
        if blocks == 0 || self.block_layers.contains(&0) {
            let expected = "one block at least, each with a layer at least";
            let found = format!("{:?}", self.block_layers);
            return Err(OptionError::new("block_layers", expected, found));
        }
        let is_eps = |eps: &f64| eps.is_finite() && *eps > 0.;
        check_option("norm_eps", self.norm.eps, "above 0", is_eps)?;
        let is_momentum = |momentum: &f64| (0. ..=1.).contains(momentum);
        check_option(
            "norm_momentum",
            self.norm.momentum,
            "in [0, 1]",
            is_momentum,
        )
    }
}

/// A DenseNet's sizes, with the name of a published one.
#[derive(Debug)]
struct Named {
    name: Option<&'static str>,
    config: DenseNetConfig,
    description: NetworkDescription,
}

impl Named {
    fn new(name: Option<&'static str>, config: DenseNetConfig) -> Result<Self, OptionError> {
        let description = config
            .describe()
            .map_err(|error| OptionError::new("", "those of a network", error.to_string()))?;
        Ok(Self {
            name,
            config,
            description,
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(f, "{name}"),
            None => write!(f, "DenseNet (layers {:?})", self.config.block_layers),
        }
    }
}

impl BackboneConfig for Named {
    fn options(&self) -> Value {
        let config = &self.config;
        let BatchNormConfig { eps, momentum } = config.norm;
        let options = match self.name {
            Some(_) => serde_json::to_value(NormConstants {
                norm_eps: eps,
                norm_momentum: momentum,
            }),
            None => serde_json::to_value(Sizes {
                stem_channels: config.stem_channels,
                growth_rate: config.growth_rate,
                bottleneck_size: config.bottleneck_size,
                block_layers: config.block_layers.clone(),
                norm_eps: eps,
                norm_momentum: momentum,
            }),
        };
        options.unwrap_or_default()
    }

    fn build(&self, path: &ParameterPath) -> Result<Box<dyn Backbone>, BackboneError> {
        Ok(Box::new(DenseNet::new(&self.config, path)?))
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        self.config.feature_shape(height, width)
    }

    fn description(&self) -> Option<&NetworkDescription> {
        Some(&self.description)
    }

    fn torchvision(&self) -> Option<Torchvision> {
        let config = &self.config;
        let blocks: String = (config.block_layers.iter())
            .map(|layers| format!("{layers}, "))
            .collect();
        Some(Torchvision {
            constructor: "DenseNet".to_owned(),
            arguments: format!(
                "growth_rate={}, block_config=({}), num_init_features={}, bn_size={}",
                config.growth_rate,
                blocks.trim_end(),
                config.stem_channels,
                config.bottleneck_size
            ),
            prefix: "features.",
            classifier: Some("classifier"),
        })
    }

    fn load_weights(
        &self,
        path: &Path,
        parameters: &Parameters,
        prefix: &str,
    ) -> Result<PretrainedReport, PretrainedError> {
        load_pretrained(path, parameters, prefix)
    }
}
