//! Which extractor, of which size.

use std::fmt;

use cxr_ops::{OptionError, check_option};
use serde::{Deserialize, Serialize};

/// A frozen feature extractor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrozenConfig {
    /// See [`ConvNextConfig`].
    ConvNext(ConvNextConfig),
    /// See [`DinoV2Config`].
    DinoV2(DinoV2Config),
}

/// ConvNeXt (Liu et al. 2022) or ConvNeXt V2 (Woo et al. 2023), under timm's parameter names. Its
/// features are the means of the last maps, `C×1×1`, before the last normalisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvNextConfig {
    /// The size.
    pub size: ConvNextSize,
    /// The second version, with normalisation of responses in place of layer scales.
    #[serde(default)]
    pub v2: bool,
}

/// The sizes of ConvNeXt; up to `Nano` its blocks are made of 1×1 convolutions, as timm's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvNextSize {
    /// 320 features.
    Atto,
    /// 384 features.
    Femto,
    /// 512 features.
    Pico,
    /// 640 features.
    Nano,
    /// 768 features.
    Tiny,
    /// 768 features, more blocks.
    Small,
    /// 1024 features.
    Base,
    /// 1536 features.
    Large,
}

/// DINOv2 (Oquab et al. 2023), a vision transformer on patches of 14×14 pixels trained without
/// labels, under its authors' parameter names. Its features are the normalised patch tokens, as maps
/// `C×h×w` with a place for each patch. As candle-transformers has it: position embeddings are
/// interpolated to the nearest neighbour, not bicubically.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DinoV2Config {
    /// ViT-S/14: 12 layers, 384 features.
    Small,
    /// ViT-B/14: 12 layers, 768 features.
    Base,
    /// ViT-L/14: 24 layers, 1024 features.
    Large,
    /// Other sizes.
    #[serde(untagged)]
    Other(TransformerSizes),
}

/// The sizes of a transformer that is none of the published ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerSizes {
    /// Layers.
    pub depth: usize,
    /// Features of a token.
    pub width: usize,
    /// Heads of attention; the width is a multiple of it.
    pub heads: usize,
}

impl TransformerSizes {
    /// Whether there are layers, and each head has as many features as the others.
    ///
    /// # Errors
    /// The size that is none.
    pub fn check(&self) -> Result<(), OptionError> {
        check_option("depth", self.depth, "at least 1", |&depth| depth > 0)?;
        check_option("heads", self.heads, "at least 1", |&heads| heads > 0)?;
        let is_multiple = |width: &usize| *width > 0 && width.is_multiple_of(self.heads);
        let expected = format!("a multiple of the {} heads", self.heads);
        check_option("width", self.width, &expected, is_multiple)
    }
}

/// Side of DINOv2's patches in pixels.
pub(super) const PATCH: usize = 14;

impl FrozenConfig {
    /// `(C, h, w)` of the features of images of `height`×`width` pixels.
    pub fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        match self {
            Self::ConvNext(config) => (config.features(), 1, 1),
            Self::DinoV2(config) => (config.sizes().width, height / PATCH, width / PATCH),
        }
    }

    /// The number that height and width of images must be multiples of.
    pub fn patch(&self) -> usize {
        match self {
            Self::ConvNext(_) => 32,
            Self::DinoV2(_) => PATCH,
        }
    }
}

impl ConvNextConfig {
    fn features(&self) -> usize {
        match self.size {
            ConvNextSize::Atto => 320,
            ConvNextSize::Femto => 384,
            ConvNextSize::Pico => 512,
            ConvNextSize::Nano => 640,
            ConvNextSize::Tiny | ConvNextSize::Small => 768,
            ConvNextSize::Base => 1024,
            ConvNextSize::Large => 1536,
        }
    }
}

impl DinoV2Config {
    /// Layers, features and heads.
    pub fn sizes(&self) -> TransformerSizes {
        let of = |depth, width, heads| TransformerSizes {
            depth,
            width,
            heads,
        };
        match self {
            Self::Small => of(12, 384, 6),
            Self::Base => of(12, 768, 12),
            Self::Large => of(24, 1024, 16),
            Self::Other(sizes) => sizes.clone(),
        }
    }
}

impl fmt::Display for FrozenConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConvNext(ConvNextConfig { size, v2 }) => {
                let version = if *v2 { " V2" } else { "" };
                write!(formatter, "ConvNeXt{version} ({size:?})")
            }
            Self::DinoV2(config) => {
                let TransformerSizes {
                    depth,
                    width,
                    heads,
                } = config.sizes();
                write!(
                    formatter,
                    "DINOv2 ({depth} layers, {width} features, {heads} heads)"
                )
            }
        }
    }
}
