//! Feature extractors for chest X-rays: DenseNet-121/169/201, every layer trainable, the stem
//! included, under torchvision's parameter names.
//!
//! [`Backbone`] is what a classifier asks of any of them: images in, feature maps out. Implement it
//! for a network of your own, and `cxr-train` trains it.
//! [`FrozenExtractor`]s are ConvNeXt and DINOv2 as candle-transformers has them (feature
//! `transformers`); they turn images into features, and cannot be trained.
//! [`load_pretrained`] reads torchvision's or timm's safetensors strictly: every tensor of the
//! network is set, every tensor of the file is used or named as ignored.
//!
//! [`BACKBONES`] has each by the name that experiment files give it, with its options; [`by_name`] makes it;
//! [`register`] adds one of a program's own.
//!
//! **Never here:** losses, data, downloads.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use cxr_backbone::{Backbone, DenseNet, DenseNetConfig};
//! use cxr_ops::{Parameters, Phase};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let parameters = Parameters::new(0, &Device::Cpu);
//! let net = DenseNet::new(&DenseNetConfig::densenet121(), &parameters.root().pp("features"))?;
//! assert_eq!(parameters.count("features."), 7_037_504); // running statistics included
//!
//! let images = Tensor::zeros((1, 3, 64, 96), DType::F32, &Device::Cpu)?;
//! assert_eq!(net.forward_t(&images, Phase::Evaluate)?.dims(), [1, 1024, 2, 3]);
//! # Ok(()) }
//! ```

mod densenet;
mod downsampled;
mod ensemble;
mod frozen;
mod members;
mod networks;
mod pretrained;
mod registry;

use candle_core::{Result, Tensor, bail};
use cxr_ops::{Network, Phase};

/// The tensor library, in the version that this crate's interface has.
pub use candle_core;

pub use densenet::{DenseNet, DenseNetConfig};
pub use frozen::{
    ConvNextConfig, ConvNextSize, DinoV2Config, FrozenConfig, FrozenError, FrozenExtractor,
    TransformerSizes,
};
pub use pretrained::{
    PretrainedError, PretrainedReport, load_extractor, load_network, load_pretrained,
};
pub use registry::{
    BACKBONES, BackboneConfig, BackboneEntry, BackboneError, Torchvision, by_name, entries,
    register,
};

/// A network from images to feature maps.
pub trait Backbone: Send + Sync {
    /// Images `N×3×H×W` (ImageNet-normalised `f32`) to feature maps `N×C×h×w`, non-negative where
    /// the network ends in a ReLU.
    ///
    /// # Errors
    /// Images that the network cannot take.
    fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor>;

    /// `(C, h, w)` for images of `height`×`width` pixels.
    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize);

    /// Whether a gradient reaches its parameters. One that cannot be trained is refused by a stage
    /// that would train it.
    fn is_trainable(&self) -> bool {
        true
    }

    /// The layers at which [`Self::split`] cuts it, from images to features.
    fn layers(&self) -> Vec<String> {
        Vec::new()
    }

    /// The network in two that share its parameters: from images to the maps of a layer, and from these maps, which it
    /// takes as images, to the features.
    ///
    /// # Errors
    /// A layer that is not among [`Self::layers`].
    fn split(&self, layer: &str) -> Result<[Box<dyn Backbone>; 2]> {
        bail!("this backbone cannot be cut at `{layer}`: its layers have no names")
    }
}

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

impl Backbone for Network {
    fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        Network::forward_t(self, images, phase)
    }

    /// Of images that are too small, no pixels.
    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        let shape = self.description().feature_shape(height, width);
        shape.unwrap_or((self.description().feature_channels(), 0, 0))
    }

    fn layers(&self) -> Vec<String> {
        self.description().names().map(str::to_owned).collect()
    }

    fn split(&self, layer: &str) -> Result<[Box<dyn Backbone>; 2]> {
        let (first, second) = Network::split(self, layer).map_err(candle_core::Error::wrap)?;
        Ok([Box::new(first), Box::new(second)])
    }
}
