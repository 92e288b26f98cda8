//! A DenseNet of a CUDA device as one operation of candle's autograd.

use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Result, Storage, Tensor, bail};

use super::cuda::{self, Gpu, Values};
use super::densenet::{self, DenseNetPlan, Statistics, Tape};
use super::normalise::record;
use super::rows::Grid;
use crate::fused::{TensorOp, apply_tensor_op};
use crate::{BatchNorm, Precision};

const OP: &str = "densenet";

/// Feature maps N×C×h×w of images N×3×H×W in training: normalised by the batch, whose statistics `norms` record;
/// gradients for every parameter. `parameters` are those of the network from images to features: each
/// convolution's weight, each normalisation's weight and bias, whose layers are `norms`. Activations are of the
/// [current](Precision::current) precision.
///
/// # Errors
/// A plan that does not [fit](DenseNetPlan::is_fitting), parameters of other shapes, or tensors that are not
/// contiguous `f32` of one CUDA device.
pub fn cuda_densenet_train(
    plan: &Arc<DenseNetPlan>,
    images: &Tensor,
    parameters: &[Tensor],
    norms: Vec<BatchNorm>,
) -> Result<Tensor> {
    check(plan, images, parameters)?;
    if plan.feature_grid(grid(images)?).rows() < 2 {
        bail!(
            "{OP}: training needs at least two values per channel; a training batch of one image is too small"
        );
    }
    let op = Training {
        plan: plan.clone(),
        norms,
        precision: Precision::current(),
    };
    let inputs: Vec<Tensor> = (std::iter::once(images).chain(parameters))
        .cloned()
        .collect();
    apply_tensor_op(op, &inputs)
}

/// The same in evaluation: normalised by the running statistics of `norms`, without gradients. Activations are of the
/// current precision here too.
///
/// # Errors
/// As [`cuda_densenet_train`].
pub fn cuda_densenet_evaluate(
    plan: &DenseNetPlan,
    images: &Tensor,
    parameters: &[Tensor],
    norms: &[BatchNorm],
) -> Result<Tensor> {
    check(plan, images, parameters)?;
    let gpu = Gpu {
        device: images.device().as_cuda_device()?.clone(),
        precision: Precision::current(),
    };
    let running = norms
        .iter()
        .flat_map(|norm| [norm.running_mean(), norm.running_var()]);
    let all: Vec<Tensor> = (std::iter::once(images).chain(parameters).chain(running))
        .map(Tensor::contiguous)
        .collect::<Result<_>>()?;
    let features = with_all(&all, |views| {
        let (own, running) = views.split_at(1 + parameters.len());
        let (running, _) = running.as_chunks::<2>();
        let grid = grid(images)?;
        let statistics = Statistics::Running(running);
        Ok(densenet::forward(&gpu, plan, (own[0], grid), &own[1..], statistics)?.0)
    })?;
    Ok(cuda::tensor(features, &gpu, feature_shape(plan, images)?))
}

fn grid(images: &Tensor) -> Result<Grid> {
    let (images, _, height, width) = images.dims4()?;
    Ok(Grid {
        images,
        height,
        width,
    })
}

fn feature_shape(plan: &DenseNetPlan, images: &Tensor) -> Result<(usize, usize, usize, usize)> {
    let of = plan.feature_grid(grid(images)?);
    Ok((of.images, plan.feature_maps(), of.height, of.width))
}

/// The kernels take shapes on trust.
fn check(plan: &DenseNetPlan, images: &Tensor, parameters: &[Tensor]) -> Result<()> {
    let (_, maps, height, width) = images.dims4()?;
    let features = plan.feature_grid(grid(images)?);
    if maps != 3 || features.rows() == 0 {
        bail!(
            "{OP}: expected images of three maps, large enough for features, got {maps}×{height}×{width}"
        );
    }
    let shapes = plan.parameter_shapes();
    if shapes.len() != parameters.len() {
        let (expected, found) = (shapes.len(), parameters.len());
        bail!("{OP}: expected {expected} parameters, got {found}");
    }
    for (at, (shape, parameter)) in shapes.iter().zip(parameters).enumerate() {
        if parameter.dims() != shape {
            let found = parameter.dims();
            bail!("{OP}: expected parameter {at} of shape {shape:?}, got {found:?}");
        }
    }
    Ok(())
}

/// Calls `f` with the values of contiguous tensors of one CUDA device.
fn with_all<T>(tensors: &[Tensor], f: impl FnOnce(&[Values<'_>]) -> Result<T>) -> Result<T> {
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let views = guards
        .iter()
        .map(|(storage, layout)| match &**storage {
            Storage::Cuda(storage) => cuda::values(storage, layout, OP),
            _ => bail!("{OP}: expected all tensors on one CUDA device"),
        })
        .collect::<Result<Vec<_>>>()?;
    f(&views)
}

struct Training {
    plan: Arc<DenseNetPlan>,
    /// From images to features.
    norms: Vec<BatchNorm>,
    precision: Precision,
}

impl Training {
    fn gpu(&self, inputs: &[Tensor]) -> Result<Gpu> {
        let Some(images) = inputs.first() else {
            bail!("{OP}: expected images");
        };
        Ok(Gpu {
            device: images.device().as_cuda_device()?.clone(),
            precision: self.precision,
        })
    }
}

impl TensorOp for Training {
    type Tape = Tape<CudaSlice<f32>>;

    fn name(&self) -> &'static str {
        OP
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Tape)> {
        let gpu = self.gpu(inputs)?;
        let grid = grid(&inputs[0])?;
        let (features, tape) = with_all(inputs, |views| {
            let images = (views[0], grid);
            densenet::forward(&gpu, &self.plan, images, &views[1..], Statistics::OfBatch)
        })?;
        for (norm, (statistics, _, count)) in self.norms.iter().zip(tape.statistics()) {
            let running = [norm.running_mean(), norm.running_var()];
            record(running, statistics, count, norm.config().momentum)?;
        }
        let shape = feature_shape(&self.plan, &inputs[0])?;
        Ok((cuda::tensor(features, &gpu, shape), tape))
    }

    fn backward(
        &self,
        inputs: &[Tensor],
        tape: &Self::Tape,
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let gpu = self.gpu(inputs)?;
        let gradients = cuda::with_values([gradient], OP, |_, [gradient]| {
            densenet::backward(&gpu, &self.plan, tape, gradient)
        })?;
        let of_parameters = gradients.into_iter().zip(&inputs[1..]);
        let of_parameters = of_parameters
            .map(|(gradient, parameter)| Some(cuda::tensor(gradient, &gpu, parameter.shape())));
        Ok(std::iter::once(None).chain(of_parameters).collect())
    }
}
