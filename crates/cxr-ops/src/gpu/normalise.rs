//! Batch normalisation of tensors of a CUDA device. Statistics stay on the device: nothing waits for them.

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp3, InplaceOp1, Layout, Result, Shape, Tensor, bail,
};

use super::calls::{self, Affine};
use super::cuda::{self, Gpu, Values};
use crate::norm::{Activation, BatchStatistics, Extent};

const OP: &str = "batch_norm";

/// A batch's statistics, per channel, on the device.
pub(crate) struct DeviceStatistics {
    pub(crate) mean: Tensor,
    /// With divisor n.
    pub(crate) variance: Tensor,
    count: usize,
}

impl DeviceStatistics {
    /// Reads them back, which waits for the device.
    pub(crate) fn read(&self) -> Result<BatchStatistics> {
        let read = |tensor: &Tensor| -> Result<Vec<f64>> {
            Ok(tensor
                .to_vec1::<f32>()?
                .into_iter()
                .map(f64::from)
                .collect())
        };
        let (count, biased_variance) = (self.count as f64, read(&self.variance)?);
        let unbiased = biased_variance.iter().map(|v| v * count / (count - 1.));
        Ok(BatchStatistics {
            mean: read(&self.mean)?,
            unbiased_variance: unbiased.collect(),
            biased_variance,
        })
    }

    /// Moves running averages towards them; the unbiased variance enters.
    pub(crate) fn record(&self, mean: &Tensor, variance: &Tensor, momentum: f64) -> Result<()> {
        cuda::with_values([&self.mean, &self.variance], OP, |_, statistics| {
            record([mean, variance], statistics, self.count, momentum)
        })
    }
}

/// Moves running mean and variance towards those of a batch of `count` values; the unbiased variance enters.
pub(super) fn record(
    [mean, variance]: [&Tensor; 2],
    [of_mean, of_variance]: [Values<'_>; 2],
    count: usize,
    momentum: f64,
) -> Result<()> {
    let count = count as f64;
    let record = |batch, factor| Record {
        batch,
        momentum,
        factor,
    };
    mean.inplace_op1(&record(of_mean, 1.))?;
    variance.inplace_op1(&record(of_variance, count / (count - 1.)))
}

/// Normalisation by the batch's own statistics, of which there must be two values per channel.
pub(crate) fn batch_norm_train(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    extent: Extent,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, DeviceStatistics)> {
    let input = input.contiguous()?;
    let channels = extent.channels;
    let [mean, variance, inverse] = cuda::with_values([&input], OP, |gpu, [x]| {
        let of = calls::statistics(gpu, x, extent, eps)?;
        let tensor = |memory| cuda::tensor(memory, gpu, channels);
        Ok([tensor(of.mean)?, tensor(of.variance)?, tensor(of.inverse)?])
    })?;
    let op = Normalise {
        extent,
        mean: mean.clone(),
        inverse,
        of_batch: true,
        activation,
    };
    let output = input.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?;
    let count = extent.values_per_channel();
    Ok((
        output,
        DeviceStatistics {
            mean,
            variance,
            count,
        },
    ))
}

/// Normalisation by given statistics.
#[expect(clippy::too_many_arguments, reason = "as `batch_norm` takes them")]
pub(crate) fn batch_norm(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    extent: Extent,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let variance = variance.contiguous()?;
    let inverse = cuda::with_values([&variance], OP, |gpu, [variance]| {
        let inverse = calls::inverse_deviation(gpu, variance, extent.channels, eps)?;
        cuda::tensor(inverse, gpu, extent.channels)
    })?;
    let op = Normalise {
        extent,
        // A copy: running averages move on while this waits for its backward pass.
        mean: mean.copy()?.contiguous()?,
        inverse,
        of_batch: false,
        activation,
    };
    (input.contiguous()?).apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

struct Normalise {
    extent: Extent,
    mean: Tensor,
    /// 1/√(variance + ε).
    inverse: Tensor,
    /// The statistics are functions of the input.
    of_batch: bool,
    activation: Activation,
}

impl Normalise {
    fn affine<'a>(
        &self,
        [mean, inverse, weight, bias]: [Values<'a>; 4],
    ) -> Affine<'a, CudaSlice<f32>> {
        Affine {
            mean,
            inverse,
            weight,
            bias,
            activation: self.activation,
        }
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("{OP}: expected tensors of a CUDA device")
    }

    fn cuda_fwd(
        &self,
        input: &CudaStorage,
        input_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let x = cuda::values(input, input_layout, OP)?;
        let (weight_values, bias_values) = (
            cuda::values(weight, weight_layout, OP)?,
            cuda::values(bias, bias_layout, OP)?,
        );
        let sizes = [weight_layout, bias_layout].map(|layout| layout.shape().elem_count());
        if sizes != [self.extent.channels; 2] {
            let [weights, biases] = sizes;
            let channels = self.extent.channels;
            bail!(
                "{OP}: expected weight and bias of {channels} values, got {weights} and {biases}"
            );
        }
        let statistics = [&self.mean, &self.inverse];
        let output = cuda::with_values(statistics, OP, |gpu, [mean, inverse]| {
            let affine = self.affine([mean, inverse, weight_values, bias_values]);
            let output = calls::normalise(gpu, x, &affine, self.extent)?;
            cuda::storage(output, gpu)
        })?;
        Ok((output, input_layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let tensors = [
            &self.mean,
            &self.inverse,
            weight,
            bias,
            &gradient,
            output,
            input,
        ];
        cuda::with_values(tensors, OP, |gpu, views| {
            let [mean, inverse, weights, biases, g, y, x] = views;
            let affine = self.affine([mean, inverse, weights, biases]);
            let (extent, of_batch) = (self.extent, self.of_batch);
            let is_wanted = input.track_op();
            let of =
                calls::normalise_gradients(gpu, g, y, x, &affine, extent, of_batch, is_wanted)?;
            let tensor = |memory, like: &Tensor| cuda::tensor(memory, gpu, like.shape());
            let (of_weight, of_bias) = (tensor(of.of_weight, weight)?, tensor(of.of_bias, bias)?);
            Ok((
                of.of_input
                    .map(|memory| tensor(memory, input))
                    .transpose()?,
                weight.track_op().then_some(of_weight),
                bias.track_op().then_some(of_bias),
            ))
        })
    }
}

/// A running average moves towards `factor` times a batch's value.
struct Record<'a> {
    batch: Values<'a>,
    momentum: f64,
    factor: f64,
}

impl InplaceOp1 for Record<'_> {
    fn name(&self) -> &'static str {
        OP
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("{OP}: expected running averages on the CUDA device of the input")
    }

    fn cuda_fwd(&self, running: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let offset = cuda::values(running, layout, OP)?.offset;
        let gpu = Gpu::single(&running.device)?;
        let channels = layout.shape().elem_count();
        let running = (running.as_cuda_slice_mut::<f32>()?, offset);
        calls::update_running(
            &gpu,
            running,
            self.batch,
            channels,
            self.momentum,
            self.factor,
        )
    }
}
