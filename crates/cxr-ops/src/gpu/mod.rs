//! The operations on NVIDIA GPUs.
//!
//! `kernels.cu` and `rows.cu` are compiled at run time by NVRTC, as one text. What calls its kernels (`calls`) is written against a
//! [`Machine`](machine::Machine), of which there are two: a CUDA device, and in the tests an emulator that
//! runs the very same text on the processor, thread for thread. Convolutions are cuDNN's, matrix products
//! cuBLAS's. The memory of a network's passes is one [`arena`].

mod arena;
mod calls;
mod choices;
mod compile;
mod convolution;
#[cfg(feature = "cuda")]
mod cublas;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod cudnn;
mod densenet;
#[cfg(test)]
mod emulator;
#[cfg(feature = "cuda")]
mod graph;
mod images;
mod kept;
mod machine;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(feature = "cuda")]
mod network;
#[cfg(feature = "cuda")]
mod normalise;
#[cfg(feature = "cuda")]
mod nvrtc;
#[cfg(feature = "cuda")]
mod operations;
#[cfg(feature = "cuda")]
mod optimiser;
#[cfg(feature = "cuda")]
mod probe;
#[cfg(feature = "cuda")]
mod profile;
mod rows;
#[cfg(feature = "cuda")]
mod settings;
#[cfg(test)]
mod tests;
mod traffic;

#[cfg(feature = "cuda")]
pub use densenet::DenseNetPlan;
#[cfg(feature = "cuda")]
pub use graph::release_step_memory;
#[cfg(feature = "cuda")]
pub use images::CudaImages;
#[cfg(feature = "cuda")]
pub use network::{cuda_densenet_evaluate, cuda_densenet_train};
#[cfg(feature = "cuda")]
pub(crate) use normalise::{batch_norm, batch_norm_train};
#[cfg(feature = "cuda")]
pub(crate) use operations::{
    average_pool2d, average_pool2d_gradient, conv2d, conv2d_gradients, dropout, max_pool2d,
    max_pool2d_gradient,
};
#[cfg(feature = "cuda")]
pub use optimiser::{CudaSize, CudaValues, cuda_adamw, cuda_lerp, cuda_rmsprop, cuda_sgd};
#[cfg(feature = "cuda")]
pub use probe::{ConvolutionTrial, cuda_probe, cuda_versions};
#[cfg(feature = "cuda")]
pub use profile::{KernelTime, cuda_profile};
#[cfg(feature = "cuda")]
pub use settings::{
    autotuned, cuda_device, cuda_graph_launches, cuda_memory_peak, end_autotune, is_exact_f32,
    set_autotune, set_exact_f32, set_graphs, uses_graphs,
};

pub(crate) use crate::device::{AdamWConstants, RmsPropConstants};
