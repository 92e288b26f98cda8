//! The gradients of a step: their norm, its bound, and the mean over several batches.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Storage, Tensor};
use cxr_ops::GradientSink;
use rayon::prelude::*;

use crate::{TrainError, Trained, compute};

/// The gradients of the parameters that are trained, in their order.
#[derive(Debug, Clone)]
pub struct Gradients {
    tensors: Vec<Tensor>,
    /// What the optimiser multiplies them by.
    scale: f64,
    /// What it multiplies them by instead, where a CUDA device has bounded their norm.
    on_device: Option<std::sync::Arc<cxr_ops::CudaValues>>,
}

impl Gradients {
    /// Takes the gradients of `trained` out of a backward pass.
    ///
    /// # Errors
    /// [`TrainError::NoGradient`] for a parameter that the loss does not depend on.
    pub fn new(trained: &[Trained], gradients: &GradStore) -> Result<Self, TrainError> {
        let tensors = trained.iter().map(|parameter| {
            let gradient = gradients.get(&parameter.var);
            gradient.cloned().ok_or_else(|| TrainError::NoGradient {
                name: parameter.name.clone(),
            })
        });
        Ok(Self {
            tensors: tensors.collect::<Result<_, _>>()?,
            scale: 1.,
            on_device: None,
        })
    }

    /// The gradients of `trained` from a loss, whose network was called in the scope of `sink`.
    ///
    /// # Errors
    /// As [`Self::new`], and what the backward pass cannot compute.
    pub fn backward(
        trained: &[Trained],
        loss: &Tensor,
        sink: &GradientSink,
    ) -> Result<Self, TrainError> {
        let mut gradients = loss.backward()?;
        sink.add_to(&mut gradients)?;
        Self::new(trained, &gradients)
    }

    /// The loss that `compute` gives, a scalar, and the gradients of `trained` from it: forward and backward pass of a step.
    ///
    /// # Errors
    /// As [`Self::backward`], and those of `compute`.
    pub fn of(
        trained: &[Trained],
        compute: impl FnOnce() -> candle_core::Result<Tensor>,
    ) -> Result<(Tensor, Self), TrainError> {
        let sink = GradientSink::new();
        let loss = sink.scope(compute)?;
        let gradients = Self::backward(trained, &loss, &sink)?;
        Ok((loss.detach(), gradients))
    }

    /// Euclidean norm over all values of all parameters, as PyTorch's `clip_grad_norm_` takes it. Sums
    /// are double precision and in a fixed order.
    ///
    /// # Errors
    /// What a device reports of the work before.
    pub fn norm(&self) -> Result<f64, TrainError> {
        let (norm, _) = self.norm_on_device()?.read()?;
        Ok(self.scale * norm)
    }

    /// Bounds the norm, which is `norm`: gradients are multiplied by `largest / (norm + 10⁻⁶)` where
    /// that is below 1, as PyTorch's `clip_grad_norm_` does it.
    pub fn clip(&mut self, norm: f64, largest: f64) {
        self.scale *= (largest / (norm + 1e-6)).min(1.);
    }

    /// Index of the first parameter whose gradient is not finite, or so large that its square is not.
    ///
    /// # Errors
    /// As [`Self::norm`].
    pub fn first_not_finite(&self) -> Result<Option<usize>, TrainError> {
        let (_, first) = self.norm_on_device()?.read()?;
        Ok(first)
    }

    /// Gradients of parameters in the order of these tensors, which the optimiser multiplies by `scale`.
    pub(crate) fn of_tensors(tensors: Vec<Tensor>, scale: f64) -> Self {
        Self {
            tensors,
            scale,
            on_device: None,
        }
    }

    /// All values before they are scaled, parameter by parameter, on the CPU.
    pub(crate) fn values(&self) -> candle_core::Result<Vec<f32>> {
        let count = self.tensors.iter().map(Tensor::elem_count).sum();
        let mut values = Vec::with_capacity(count);
        for tensor in &self.tensors {
            values.extend(tensor.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(values)
    }

    /// Their norm before they are scaled, without waiting for a device.
    pub(crate) fn norm_on_device(&self) -> candle_core::Result<GradientNorm> {
        GradientNorm::of(&self.tensors)
    }

    /// As [`Self::clip`] with their [`Self::norm_on_device`], without waiting for a device.
    pub(crate) fn clip_to(&mut self, size: &GradientNorm, largest: f64) -> candle_core::Result<()> {
        match size {
            GradientNorm::Known { norm, .. } => self.clip(self.scale * norm, largest),
            GradientNorm::OnDevice(size) => {
                self.on_device = Some(size.bound(self.scale, largest)?.into());
            }
        }
        Ok(())
    }

    pub(crate) fn scale(&self) -> f64 {
        self.scale
    }

    pub(crate) fn scale_on_device(&self) -> Option<&cxr_ops::CudaValues> {
        self.on_device.as_deref()
    }

    /// Each parameter with its gradient.
    pub(crate) fn pair<'a>(
        &'a self,
        trained: &'a [Trained],
    ) -> Result<impl Iterator<Item = (&'a Trained, &'a Tensor)>, TrainError> {
        if trained.len() != self.tensors.len() {
            let expected = format!("of {} parameters", trained.len());
            let found = self.tensors.len();
            return Err(TrainError::setting("gradients", expected, found));
        }
        Ok(trained.iter().zip(&self.tensors))
    }
}

/// The mean of the gradients of several batches, each weighed by its images: the gradient of the mean
/// loss over all of them, wherever a batch's loss is a mean over its images.
#[derive(Debug, Default)]
pub struct MeanGradients {
    sum: Option<Gradients>,
    images: usize,
    batches: usize,
}

impl MeanGradients {
    /// Adds the gradients of a batch of so many images.
    ///
    /// # Errors
    /// Gradients of other parameters than before.
    pub fn add(&mut self, gradients: Gradients, images: usize) -> Result<(), TrainError> {
        self.sum = Some(match self.sum.take() {
            // Kept as they are: a step of one batch has the very gradients of that batch.
            None => gradients,
            Some(mut sum) => {
                let before = if self.batches == 1 {
                    self.images as f64
                } else {
                    1.
                };
                let both = sum.tensors.iter_mut().zip(&gradients.tensors);
                for (sum, new) in both {
                    *sum = ((&*sum * before)? + (new * images as f64)?)?;
                }
                sum
            }
        });
        self.images += images;
        self.batches += 1;
        Ok(())
    }

    /// The mean; `None` where nothing was added.
    pub fn finish(self) -> Option<Gradients> {
        let mut mean = self.sum?;
        if self.batches > 1 {
            mean.scale /= self.images as f64;
        }
        Some(mean)
    }
}

/// How large some tensors are together. Of tensors on a CUDA device the device knows it, and the host once it asks.
#[derive(Debug, Clone)]
pub(crate) enum GradientNorm {
    /// The Euclidean norm over all values, and the first tensor that has a value which is not finite, or so large that
    /// its square is not.
    Known {
        norm: f64,
        first_not_finite: Option<usize>,
    },
    OnDevice(std::sync::Arc<cxr_ops::CudaSize>),
}

impl GradientNorm {
    /// Waits for no device, but where tensors are on several.
    pub(crate) fn of(tensors: &[Tensor]) -> candle_core::Result<Self> {
        compute::of_tensors(tensors).norm(tensors)
    }

    /// Norm and first tensor that is not finite, for which a device is waited for.
    pub(crate) fn read(&self) -> candle_core::Result<(f64, Option<usize>)> {
        match self {
            Self::Known {
                norm,
                first_not_finite,
            } => Ok((*norm, *first_not_finite)),
            Self::OnDevice(size) => size.read(),
        }
    }
}

/// Double precision, in parts of a fixed size that are added in order.
pub(crate) fn sum_of_squares(tensor: &Tensor) -> candle_core::Result<f64> {
    const PART: usize = 1 << 14;
    const LANES: usize = 8;
    let of_part = |values: &[f32]| {
        let mut sums = [0f64; LANES];
        for values in values.chunks(LANES) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        sums.iter().sum::<f64>()
    };
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    {
        let parts = values[start..end].par_chunks(PART).map(of_part);
        return Ok(parts.collect::<Vec<f64>>().iter().sum());
    }
    drop(storage);
    let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
    Ok(values.chunks(PART).map(of_part).sum())
}
