//! Steps of optimisers on a CUDA device: one launch for all tensors.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Device, Layout, Result, Storage, Tensor, bail};

use super::AdamWConstants;
use super::calls::{self, Updated};
use super::cuda::{self, Gpu};
use super::machine::{Machine as _, View};

const OP: &str = "optimiser step";

/// Values on a CUDA device that no tensor shares: what an optimiser keeps of all its parameters, in a row.
#[derive(Debug)]
pub struct CudaValues {
    memory: CudaSlice<f32>,
    gpu: Gpu,
}

impl CudaValues {
    /// Copies values to a device.
    ///
    /// # Errors
    /// A device that is no CUDA device, or has too little memory left.
    pub fn new(values: &[f32], device: &Device) -> Result<Self> {
        let gpu = Gpu::single(device.as_cuda_device()?);
        let memory = gpu.device.clone_htod(values)?;
        Ok(Self { memory, gpu })
    }

    /// Copies them back, which waits for the device.
    ///
    /// # Errors
    /// What the device reports of the work before.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        self.gpu.device.clone_dtoh(&self.memory)
    }
}

/// One tensor of a step.
#[derive(Debug, Clone, Copy)]
pub struct CudaUpdate<'a> {
    /// What is changed in place.
    pub weights: &'a Tensor,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// Where in the [`CudaValues`] its own begin.
    pub state: usize,
    /// The learning rate, for AdamW over 1 − β₁ᵗ.
    pub rate: f32,
    /// AdamW: the share of a weight that is kept. SGD: the weight decay.
    pub decay: f32,
}

/// Calls `f` with the tensors of a step, and checks that they and their state fit.
fn with_updates<T>(
    gpu: &Gpu,
    updates: &[CudaUpdate<'_>],
    n_state: Option<usize>,
    f: impl FnOnce(&[Updated<'_, CudaSlice<f32>>]) -> Result<T>,
) -> Result<T> {
    let gradients = (updates.iter())
        .map(|update| update.gradient.contiguous())
        .collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = (updates.iter().zip(&gradients))
        .map(|(update, gradient)| [update.weights, gradient].map(Tensor::storage_and_layout))
        .collect();
    let mut all = Vec::with_capacity(updates.len());
    for (update, [weights, gradient]) in updates.iter().zip(&guards) {
        let values = update.weights.elem_count();
        let fits = n_state.is_none_or(|n| update.state + values <= n);
        if !fits || gradient.1.shape().elem_count() != values {
            bail!("{OP}: expected gradient and state of {values} values");
        }
        all.push(Updated {
            // As an operation in place: the weights' tensor is what is meant to change.
            weights: gpu.address(view(&weights.0, weights.1)?),
            gradient: view(&gradient.0, gradient.1)?,
            state: update.state,
            values,
            rate: update.rate,
            decay: update.decay,
        });
    }
    f(&all)
}

fn view<'a>(storage: &'a Storage, layout: &Layout) -> Result<View<'a, CudaSlice<f32>>> {
    match storage {
        Storage::Cuda(storage) => cuda::values(storage, layout, OP),
        _ => bail!("{OP}: expected tensors of a CUDA device"),
    }
}

/// One step of AdamW on all tensors at once. `scale` multiplies the gradients; `first` and `second` are the moments.
///
/// # Errors
/// Tensors that are not contiguous `f32` of one CUDA device, or whose gradient or state has another size.
pub fn cuda_adamw(
    updates: &[CudaUpdate<'_>],
    first: &mut CudaValues,
    second: &mut CudaValues,
    scale: f32,
    constants: &AdamWConstants,
) -> Result<()> {
    let n_state = first.memory.len().min(second.memory.len());
    let gpu = first.gpu.clone();
    with_updates(&gpu, updates, Some(n_state), |updates| {
        let moments = [&mut first.memory, &mut second.memory];
        calls::adamw(&gpu, updates, moments, scale, constants)
    })
}

/// One step of stochastic gradient descent on all tensors at once; `buffer` is only touched where there is momentum.
///
/// # Errors
/// As [`cuda_adamw`].
pub fn cuda_sgd(
    updates: &[CudaUpdate<'_>],
    buffer: &mut CudaValues,
    scale: f32,
    momentum: f32,
    nesterov: bool,
) -> Result<()> {
    let n_state = (momentum != 0.).then_some(buffer.memory.len());
    let gpu = buffer.gpu.clone();
    with_updates(&gpu, updates, n_state, |updates| {
        calls::sgd(&gpu, updates, &mut buffer.memory, scale, momentum, nesterov)
    })
}

/// The sum of the squares of each tensor, in double precision; waits for the device once.
///
/// # Errors
/// Tensors that are not `f32` of one CUDA device.
pub fn cuda_sums_of_squares(tensors: &[Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else {
        return Ok(Vec::new());
    };
    let gpu = Gpu::single(first.device().as_cuda_device()?);
    let contiguous = (tensors.iter())
        .map(Tensor::contiguous)
        .collect::<Result<Vec<_>>>()?;
    let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
    let views = (guards.iter())
        .map(|(storage, layout)| Ok((view(storage, layout)?, layout.shape().elem_count())))
        .collect::<Result<Vec<_>>>()?;
    let squares = calls::sums_of_squares(&gpu, &views)?;
    let parts = gpu.device.clone_dtoh(&squares.parts)?;
    let of_tensors = parts.chunks_exact(squares.stride);
    Ok(of_tensors
        .map(|parts| parts.iter().map(|&part| f64::from(part)).sum())
        .collect())
}
