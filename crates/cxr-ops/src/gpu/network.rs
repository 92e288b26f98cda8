//! A DenseNet of a CUDA device as one operation of candle's autograd.

use std::sync::Arc;

use candle_core::{Result, Storage, Tensor, bail};

use super::calls::{self, Moving};
use super::cuda::{self, Gpu, Values};
use super::densenet::{self, DenseNetPlan, Statistics, Tape};
use super::graph::{self, Repeated};
use super::machine::Machine as _;
use super::memory::{Lot, Pool};
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
    let gpu = gpu(images, Precision::current())?;
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
        let mut features = feature_memory(&gpu, plan, grid)?;
        let images = (own[0], grid);
        densenet::forward(&gpu, plan, images, &own[1..], statistics, &mut features)?;
        Ok(features)
    })?;
    cuda::tensor(features, &gpu, feature_shape(plan, images)?)
}

/// The device of the images, whose passes share a pool that has grown to what they need.
fn gpu(images: &Tensor, precision: Precision) -> Result<Gpu> {
    let device = images.device().as_cuda_device()?;
    let pool = Pool::of(device);
    if let Some(pool) = &pool {
        pool.fit()?;
    }
    Ok(Gpu::new(device, precision)?.with_pool(pool))
}

/// Memory for the features, which outlives the pass.
fn feature_memory(gpu: &Gpu, plan: &DenseNetPlan, grid: Grid) -> Result<Lot> {
    let values = plan.feature_grid(grid).rows() * plan.feature_maps();
    gpu.without_pool().alloc(values)
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
        gpu(images, self.precision)
    }

    /// Moves the running averages towards the batch's statistics; the unbiased variance enters.
    fn record(&self, gpu: &Gpu, tape: &Tape<Lot>) -> Result<()> {
        crate::running::RunningUpdates::refuse_device()?;
        let running: Vec<Tensor> = (self.norms.iter())
            .flat_map(|norm| [norm.running_mean().clone(), norm.running_var().clone()])
            .collect();
        with_all(&running, |running| {
            let (running, _) = running.as_chunks::<2>();
            let all = self.norms.iter().zip(running).zip(tape.statistics());
            let all = all.map(|((norm, running), (batch, channels, count))| Moving {
                // As an operation in place: the running averages are what is meant to change.
                running: running.map(|values| gpu.address(values)),
                batch,
                channels,
                momentum: norm.config().momentum,
                factor: count as f64 / (count as f64 - 1.),
            });
            calls::update_all_running(gpu, &all.collect::<Vec<_>>())
        })
    }
}

/// What a forward pass leaves for its backward pass.
enum Left {
    Tape(Box<Tape<Lot>>),
    /// In the memory of graphs.
    Repeated(Repeated),
}

impl TensorOp for Training {
    type Tape = Left;

    fn name(&self) -> &'static str {
        OP
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Left)> {
        let gpu = self.gpu(inputs)?;
        let grid = grid(&inputs[0])?;
        let (features, left) = with_all(inputs, |views| {
            let (images, parameters) = ((views[0], grid), &views[1..]);
            let see = |tape: &Tape<_>| self.record(&gpu, tape);
            if let Some((features, repeated)) =
                graph::forward(&gpu, &self.plan, images, parameters, see)?
            {
                return Ok((features, Left::Repeated(repeated)));
            }
            let statistics = Statistics::OfBatch;
            let mut features = feature_memory(&gpu, &self.plan, grid)?;
            let tape = densenet::forward(
                &gpu,
                &self.plan,
                images,
                parameters,
                statistics,
                &mut features,
            )?;
            self.record(&gpu, &tape)?;
            Ok((features, Left::Tape(Box::new(tape))))
        })?;
        let shape = feature_shape(&self.plan, &inputs[0])?;
        Ok((cuda::tensor(features, &gpu, shape)?, left))
    }

    fn backward(
        &self,
        inputs: &[Tensor],
        left: &Left,
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let gpu = self.gpu(inputs)?;
        let all = cuda::with_values([gradient], OP, |_, [gradient]| match left {
            Left::Repeated(repeated) => graph::backward(repeated, gradient),
            Left::Tape(tape) => {
                let mut all = gpu.without_pool().alloc(self.plan.n_parameters())?;
                densenet::backward(&gpu, &self.plan, tape, gradient, &mut all)?;
                Ok(all)
            }
        })?;
        let all = cuda::tensor(all, &gpu, self.plan.n_parameters())?;
        let mut begin = 0;
        let gradients = (inputs[1..].iter())
            .map(|parameter| {
                let values = parameter.elem_count();
                let gradient = all.narrow(0, begin, values)?.reshape(parameter.shape());
                begin += values;
                gradient
            })
            .collect::<Result<Vec<_>>>()?;
        let gradients = gradients.into_iter().map(Some);
        Ok(std::iter::once(None).chain(gradients).collect())
    }
}
