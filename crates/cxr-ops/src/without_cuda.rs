//! What training asks of a CUDA device, in a build without the feature `cuda`: the same names, which cannot be made.

use candle_core::{Device, Result, Tensor, bail};

use crate::{AdamWConstants, Algorithms, CudaUpdate, DeviceOptions, RmsPropConstants, StoredImage};

/// A value that there is none of.
#[derive(Debug, Clone, Copy)]
enum Never {}

fn absent<T>() -> Result<T> {
    bail!("this build has no CUDA\nhint: build with the feature `cuda` (docs/cuda.md)")
}

/// Values on a CUDA device.
#[derive(Debug)]
pub struct CudaValues(Never);

impl CudaValues {
    /// # Errors
    /// Always: this build has no CUDA.
    pub fn new(_values: &[f32], _device: &Device) -> Result<Self> {
        absent()
    }

    /// # Errors
    /// None: there are no such values.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        match self.0 {}
    }
}

/// How large tensors on a CUDA device are together.
#[derive(Debug)]
pub struct CudaSize(Never);

impl CudaSize {
    /// # Errors
    /// Always: this build has no CUDA.
    pub fn of(_tensors: &[Tensor]) -> Result<Self> {
        absent()
    }

    /// # Errors
    /// None: there is no such size.
    pub fn read(&self) -> Result<(f64, Option<usize>)> {
        match self.0 {}
    }

    /// # Errors
    /// None: there is no such size.
    pub fn bound(&self, _factor: f64, _largest: f64) -> Result<CudaValues> {
        match self.0 {}
    }
}

/// # Errors
/// None: there are no such values.
pub fn cuda_adamw(
    _updates: &[CudaUpdate<'_>],
    first: &mut CudaValues,
    _second: &mut CudaValues,
    _scale: &CudaValues,
    _constants: &AdamWConstants,
) -> Result<()> {
    match first.0 {}
}

/// # Errors
/// None: there are no such values.
pub fn cuda_rmsprop(
    _updates: &[CudaUpdate<'_>],
    squares: &mut CudaValues,
    _buffer: &mut CudaValues,
    _scale: &CudaValues,
    _constants: &RmsPropConstants,
) -> Result<()> {
    match squares.0 {}
}

/// # Errors
/// None: there are no such values.
pub fn cuda_sgd(
    _updates: &[CudaUpdate<'_>],
    buffer: &mut CudaValues,
    _scale: &CudaValues,
    _momentum: f32,
    _nesterov: bool,
) -> Result<()> {
    match buffer.0 {}
}

/// # Errors
/// Always: this build has no CUDA.
pub fn cuda_lerp(_pairs: &[(&Tensor, &Tensor)], _share: f64) -> Result<()> {
    absent()
}

/// Images that stay on a CUDA device.
#[derive(Debug)]
pub struct CudaImages(Never);

impl CudaImages {
    /// # Errors
    /// Always: this build has no CUDA.
    pub fn new(_side: usize, _device: &Device) -> Result<Self> {
        absent()
    }

    /// # Errors
    /// None: there are no such images.
    pub fn warp(
        &self,
        _images: &[StoredImage<'_>],
        _lines: [[f32; 2]; 3],
        _size: usize,
    ) -> Result<Tensor> {
        match self.0 {}
    }
}

/// # Errors
/// Always: this build has no CUDA.
pub fn cuda_device(_ordinal: usize, _options: DeviceOptions) -> Result<Device> {
    absent()
}

/// # Errors
/// Always: this build has no CUDA.
pub fn cuda_memory_peak(_device: &Device) -> Result<Option<u64>> {
    absent()
}

/// Nothing: passes hold no memory.
pub fn release_step_memory() {}

/// None: nothing is timed.
pub fn autotuned() -> Option<Algorithms> {
    None
}

/// Nothing: nothing is timed.
pub fn set_autotune(_known: Algorithms) {}
