//! What stands between feature maps and logits: the paper's top network.
//!
//! [`TopNetwork`] shrinks DenseNet's 1024×7×7 maps with two unpadded 3×3 convolutions instead of
//! averaging them, and normalises the logits themselves (Hanif et al. 2025, section 3.2).
//! [`LinearHead`] is the usual one, the mean of each map and a dense layer.
//! [`ClassAttention`], [`ResidualAttention`] and [`Transition`] are those of systems that the paper compares with.
//! [`Head`] is what a classifier asks of any such network. Implement it for one of your own, and
//! `cxr-train` trains it.
//!
//! [`HEADS`] has each by the name that experiment files give it, with its options; [`by_name`] makes it; [`register`] adds
//! one of a program's own.
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

mod class_attention;
mod class_maps;
mod dense_head;
mod linear_head;
mod registry;
mod residual_attention;
mod top_network;
mod transition;

use candle_core::{Result, Tensor};
use cxr_ops::Phase;

/// The tensor library, in the version that this crate's interface has.
pub use candle_core;

pub use class_attention::{ClassAttention, ClassAttentionConfig};
pub use dense_head::{DenseHead, DenseHeadConfig};
pub use linear_head::{LinearHead, LinearHeadConfig};
pub use registry::{HEADS, HeadConfig, HeadEntry, HeadError, by_name, entries, register};
pub use residual_attention::{AttentionForm, ResidualAttention, ResidualAttentionConfig};
pub use top_network::{TopNetwork, TopNetworkConfig, TopNetworkError};
pub use transition::{Pooling, Transition, TransitionConfig};

/// A network from feature maps to logits.
pub trait Head: Send + Sync {
    /// Feature maps `N×C×h×w` to logits `N×L`, as many as the head was made for.
    ///
    /// # Errors
    /// Maps of another shape than the network was made for.
    fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor>;

    /// What each place of feature maps `N×C×h×w` says of each label, `N×L×h×w`, in evaluation: the weights of the head's
    /// last layer on the values that it pools over the places (class activation maps). `None` for a head that does not end
    /// in a pooling and a dense layer.
    ///
    /// # Errors
    /// Maps of another shape than the network was made for.
    fn class_maps(&self, features: &Tensor) -> Result<Option<Tensor>> {
        let _ = features;
        Ok(None)
    }
}

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
