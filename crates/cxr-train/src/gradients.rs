//! The gradients of a step: their norm, its bound, and the mean over several batches.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Storage, Tensor};
use rayon::prelude::*;

use crate::{TrainError, Trained};

/// The gradients of the parameters that are trained, in their order.
#[derive(Debug, Clone)]
pub struct Gradients {
    tensors: Vec<Tensor>,
    /// What the optimiser multiplies them by.
    scale: f64,
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
        })
    }

    /// Euclidean norm over all values of all parameters, as PyTorch's `clip_grad_norm_` takes it. Sums
    /// are double precision and in a fixed order.
    ///
    /// # Errors
    /// None on a CPU.
    pub fn norm(&self) -> Result<f64, TrainError> {
        let squares = sums_of_squares(&self.tensors)?;
        Ok(self.scale * squares.iter().sum::<f64>().sqrt())
    }

    /// Bounds the norm, which is `norm`: gradients are multiplied by `largest / (norm + 10⁻⁶)` where
    /// that is below 1, as PyTorch's `clip_grad_norm_` does it.
    pub fn clip(&mut self, norm: f64, largest: f64) {
        self.scale *= (largest / (norm + 1e-6)).min(1.);
    }

    /// Index of the first parameter whose gradient is not finite, or so large that its square is not.
    ///
    /// # Errors
    /// None on a CPU.
    pub fn first_not_finite(&self) -> Result<Option<usize>, TrainError> {
        let squares = sums_of_squares(&self.tensors)?;
        // The second moment is single precision.
        let is_finite = |square: &f64| (*square as f32).is_finite();
        Ok(squares.iter().position(|square| !is_finite(square)))
    }

    pub(crate) fn scale(&self) -> f64 {
        self.scale
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

/// Of each tensor. All at once: hundreds of small tensors one by one would each wait for other threads.
pub(crate) fn sums_of_squares(tensors: &[Tensor]) -> candle_core::Result<Vec<f64>> {
    #[cfg(feature = "cuda")]
    if tensors.iter().any(|tensor| tensor.device().is_cuda()) {
        // A loss's own variables are on the CPU.
        let is_there = |tensor: &&Tensor| tensor.device().is_cuda();
        let there: Vec<Tensor> = tensors.iter().filter(is_there).cloned().collect();
        let mut there = cxr_ops::cuda_sums_of_squares(&there)?.into_iter();
        let of = |tensor: &Tensor| match is_there(&tensor) {
            true => there.next().map_or_else(|| sum_of_squares(tensor), Ok),
            false => sum_of_squares(tensor),
        };
        return tensors.iter().map(of).collect();
    }
    tensors.par_iter().map(sum_of_squares).collect()
}

/// Double precision, in parts of a fixed size that are added in order.
fn sum_of_squares(tensor: &Tensor) -> candle_core::Result<f64> {
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
