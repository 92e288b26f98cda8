//! Steps of optimisers on a CUDA device: one launch for all tensors.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Device, Layout, Result, Storage, Tensor, bail};

use super::calls::{self, Updated};
use super::cuda::{self, Gpu};
use super::machine::{Machine as _, View};
use super::{AdamWConstants, RmsPropConstants};
use crate::device::CudaUpdate;

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
        let gpu = Gpu::single(device.as_cuda_device()?)?;
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

/// One step of AdamW or Adam on all tensors at once. The one value of `scale` multiplies the gradients; `first` and `second` are
/// the moments.
///
/// # Errors
/// Tensors that are not contiguous `f32` of one CUDA device, or whose gradient or state has another size.
pub fn cuda_adamw(
    updates: &[CudaUpdate<'_>],
    first: &mut CudaValues,
    second: &mut CudaValues,
    scale: &CudaValues,
    constants: &AdamWConstants,
) -> Result<()> {
    let n_state = first.memory.len().min(second.memory.len());
    let gpu = first.gpu.clone();
    with_updates(&gpu, updates, Some(n_state), |updates| {
        let moments = [&mut first.memory, &mut second.memory];
        calls::adamw(&gpu, updates, moments, (&scale.memory).into(), constants)
    })
}

/// One step of RMSprop on all tensors at once. `squares` are the means of squares; `buffer` is only touched where there is
/// momentum.
///
/// # Errors
/// As [`cuda_adamw`].
pub fn cuda_rmsprop(
    updates: &[CudaUpdate<'_>],
    squares: &mut CudaValues,
    buffer: &mut CudaValues,
    scale: &CudaValues,
    constants: &RmsPropConstants,
) -> Result<()> {
    let n_state = match constants.momentum == 0. {
        true => squares.memory.len(),
        false => squares.memory.len().min(buffer.memory.len()),
    };
    let gpu = squares.gpu.clone();
    with_updates(&gpu, updates, Some(n_state), |updates| {
        let kept = [&mut squares.memory, &mut buffer.memory];
        calls::rmsprop(&gpu, updates, kept, (&scale.memory).into(), constants)
    })
}

/// One step of stochastic gradient descent on all tensors at once; `buffer` is only touched where there is momentum.
///
/// # Errors
/// As [`cuda_adamw`].
pub fn cuda_sgd(
    updates: &[CudaUpdate<'_>],
    buffer: &mut CudaValues,
    scale: &CudaValues,
    momentum: f32,
    nesterov: bool,
) -> Result<()> {
    let n_state = (momentum != 0.).then_some(buffer.memory.len());
    let gpu = buffer.gpu.clone();
    with_updates(&gpu, updates, n_state, |updates| {
        calls::sgd(
            &gpu,
            updates,
            &mut buffer.memory,
            (&scale.memory).into(),
            momentum,
            nesterov,
        )
    })
}

/// `average ← average + share·(values − average)` in place, for pairs (average, values) on a CUDA device.
///
/// # Errors
/// Tensors of another size, or that are not contiguous `f32` of one CUDA device.
pub fn cuda_lerp(pairs: &[(&Tensor, &Tensor)], share: f64) -> Result<()> {
    let Some((first, _)) = pairs.first() else {
        return Ok(());
    };
    let gpu = Gpu::single(first.device().as_cuda_device()?)?;
    let guards: Vec<_> = (pairs.iter())
        .map(|(average, values)| [average, values].map(|tensor| tensor.storage_and_layout()))
        .collect();
    let mut all = Vec::with_capacity(pairs.len());
    for [average, values] in &guards {
        let [n, found] = [average.1, values.1].map(|layout| layout.shape().elem_count());
        if n != found {
            bail!("lerp: expected {n} values, got {found}");
        }
        // As an operation in place: the average is what is meant to change.
        let address = gpu.address(view(&average.0, average.1)?);
        all.push((address, view(&values.0, values.1)?, n));
    }
    calls::lerp(&gpu, &all, share as f32)
}

/// How large some tensors of a CUDA device are together. The device knows it; the host does once it asks.
#[derive(Debug)]
pub struct CudaSize {
    memory: CudaSlice<f32>,
    gpu: Gpu,
}

impl CudaSize {
    /// Of all these tensors, without waiting for the device.
    ///
    /// # Errors
    /// No tensors, or some that are not `f32` of one CUDA device.
    pub fn of(tensors: &[Tensor]) -> Result<Self> {
        let Some(first) = tensors.first() else {
            bail!("{OP}: expected tensors");
        };
        let gpu = Gpu::single(first.device().as_cuda_device()?)?;
        let contiguous = (tensors.iter())
            .map(Tensor::contiguous)
            .collect::<Result<Vec<_>>>()?;
        let guards: Vec<_> = contiguous.iter().map(Tensor::storage_and_layout).collect();
        let views = (guards.iter())
            .map(|(storage, layout)| Ok((view(storage, layout)?, layout.shape().elem_count())))
            .collect::<Result<Vec<_>>>()?;
        let squares = calls::sums_of_squares(&gpu, &views)?;
        let memory = calls::size(&gpu, &squares, views.len())?.into_slice()?;
        Ok(Self { memory, gpu })
    }

    /// The Euclidean norm over all values, and the first tensor that has a value which is not finite or whose sum of
    /// squares is not in single precision. Waits for the device.
    ///
    /// # Errors
    /// What the device reports of the work before.
    pub fn read(&self) -> Result<(f64, Option<usize>)> {
        let values = self.gpu.device.clone_dtoh(&self.memory)?;
        let [high, low, first] = values[..] else {
            bail!("{OP}: expected three values, got {}", values.len());
        };
        let first = (first >= 0.).then_some(first as usize);
        Ok((f64::from(high) + f64::from(low), first))
    }

    /// What to multiply the tensors by, so that their norm is `factor` times what it is and at most `largest`, as
    /// PyTorch's `clip_grad_norm_` has it.
    ///
    /// # Errors
    /// What the device reports.
    pub fn bound(&self, factor: f64, largest: f64) -> Result<CudaValues> {
        let size = (&self.memory).into();
        let memory = calls::bound(&self.gpu, size, factor as f32, largest as f32)?;
        let memory = memory.into_slice()?;
        let gpu = self.gpu.clone();
        Ok(CudaValues { memory, gpu })
    }
}
