//! Differentiable operations for training convolutional networks on candle.
//!
//! Candle is the tensor, autograd and device layer; the operations here are the ones a DenseNet
//! needs in training and that candle lacks (a padded max pool with a gradient, a ReLU whose
//! gradient at zero is zero) or does slowly on a CPU (convolution gradients, batch
//! normalisation). Every operation takes and returns contiguous `f32` tensors in candle's own
//! `N×C×H×W` order and joins candle's autograd, so it mixes freely with candle's operations:
//!
//! * [`conv2d`] computes only the gradients somebody will read: none for the images, none for a
//!   detached weight.
//! * [`batch_norm_train`] and [`batch_norm`] normalise with the batch's or with given statistics,
//!   with a ReLU fused in on request.
//! * [`max_pool2d`], [`avg_pool2d`], [`linear`], [`concat_maps`] and
//!   [`dropout`] complete the set.
//! * [`Conv2d`], [`BatchNorm`] and [`Linear`] are the same as layers with named parameters; a
//!   [`Phase`] tells them whether they train.
//! * [`Parameters`] holds a network's named tensors: initial values from (seed, name), strict
//!   loading, sorted order.
//! * [`parse_options`] reads the options of a network's part, as an experiment file gives them.
//!
//! [`grouped`] is a faster way for a whole DenseNet: its parts as forward and backward passes on groups of 32
//! maps, made one operation of candle's autograd by [`apply_fused`]. [`Precision`] says whether its
//! products are rounded to bf16, [`InstructionSet`] which vectors its kernels use.
//!
//! [`NetworkBuilder`] describes a whole network, and [`Network`] trains and evaluates it on the CPU, storing little more
//! than the outputs of its convolutions.
//!
//! **Same bits.** All work is cut into parts by shape, never by thread count, and partial sums
//! are added in a fixed order: a result does not depend on how many threads computed it. That of [`grouped`]
//! depends on the instruction set.
//!
//! **On a GPU.** With the feature `cuda` every operation takes tensors of a CUDA device; a DenseNet goes through
//! hand-written passes there too. Without the feature such tensors are refused with an error.
//!
//! **Never here:** models, losses, data, files.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use cxr_ops::{
//!     Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Init, Parameters, Phase,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let parameters = Parameters::new(7, &Device::Cpu);
//! let root = parameters.root();
//! let config = Conv2dConfig { stride: 2, padding: 1 };
//! let conv = Conv2d::new(3, 8, 3, config, Init::KaimingNormal, &root.pp("conv"))?;
//! let norm = BatchNorm::new(8, BatchNormConfig::default(), &root.pp("norm"))?;
//!
//! let images = Tensor::randn(0f32, 1., (2, 3, 15, 11), &Device::Cpu)?;
//! let phase = Phase::Train { image_keys: &[1, 2] };
//! let maps = norm.forward_t(&conv.forward_t(&images, phase)?, Activation::Relu, phase)?;
//! assert_eq!(maps.dims(), [2, 8, 8, 6]);
//! let gradients = maps.sqr()?.mean_all()?.backward()?;
//! assert!(gradients.get(conv.weight()).is_some());
//! # Ok(()) }
//! ```

mod bf16;
mod blocked;
mod concat;
mod conv;
mod cpu;
mod device;
mod entry;
mod error;
mod fused;
#[cfg(any(feature = "cuda", test))]
#[cfg_attr(
    not(feature = "cuda"),
    expect(unreachable_pub, reason = "without the feature only the tests see it")
)]
mod gpu;
pub mod grouped;
mod layers;
mod linear;
mod network;
mod norm;
mod options;
mod parameters;
mod pool;
mod registry;
mod running;
mod simd;
mod weight_file;
#[cfg(not(feature = "cuda"))]
mod without_cuda;

/// The tensor library, in the version that this crate's interface has.
pub use candle_core;

pub use bf16::Precision;
pub use blocked::{Nonlinearity, Window};
pub use concat::concat_maps;
pub use conv::{Conv2dConfig, conv2d};
pub use device::{
    AdamWConstants, Algorithms, CudaUpdate, DeviceOptions, RmsPropConstants, StoredImage,
};
pub use entry::{Entry, EntryError};
pub use error::{OpsError, TensorDifference};
pub use fused::{Fused, GradientSink, apply_fused};
#[cfg(feature = "cuda")]
pub use gpu::{
    ConvolutionTrial, CudaImages, CudaSize, CudaValues, DenseNetPlan, KernelTime, autotuned,
    cuda_adamw, cuda_densenet_evaluate, cuda_densenet_train, cuda_device, cuda_graph_launches,
    cuda_lerp, cuda_memory_peak, cuda_probe, cuda_profile, cuda_rmsprop, cuda_sgd, cuda_versions,
    end_autotune, is_exact_f32, release_step_memory, set_autotune, set_exact_f32, set_graphs,
    uses_graphs,
};
pub use layers::{Conv2d, Linear, Phase, dropout};
pub use linear::{linear, linear_by_row};
pub use network::{
    ConvLayer, Layer, Network, NetworkBuilder, NetworkCost, NetworkDescription, NetworkPart, Node,
    Operation,
};
pub use norm::{
    Activation, BatchNorm, BatchNormConfig, BatchStatistics, NormStatistics, batch_norm,
    batch_norm_train,
};
pub use options::{OptionEntry, OptionError, check_option, old_names, parse_options};
pub use parameters::{Init, ParameterPath, Parameters, Role};
pub use pool::{avg_pool2d, max_pool2d};
pub use registry::Registry;
pub use running::{RunningUpdate, RunningUpdates};
pub use simd::InstructionSet;
pub use weight_file::{WeightFile, check_weights};
#[cfg(not(feature = "cuda"))]
pub use without_cuda::{
    CudaImages, CudaSize, CudaValues, autotuned, cuda_adamw, cuda_device, cuda_lerp,
    cuda_memory_peak, cuda_rmsprop, cuda_sgd, release_step_memory, set_autotune,
};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
