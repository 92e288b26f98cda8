//! Batch normalisation, with a ReLU fused in on request.
//!
//! `y = γ·(x − μ)/√(σ² + ε) + β` per channel (Ioffe & Szegedy 2015, algorithm 1), where μ and σ²
//! are either the batch's own (training) or running averages (evaluation). The biased variance
//! normalises; the unbiased one enters the running average, as PyTorch does it.

use std::borrow::Cow;
use std::cell::Cell;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, Var, bail};
use rayon::prelude::*;

use crate::cpu::{values, with_values};
use crate::error::OpsError;
use crate::layers::Phase;
use crate::parameters::{Init, ParameterPath};
use crate::running::{RunningUpdate, RunningUpdates};

/// What follows the normalisation in the same pass over the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(y, 0)`; its gradient at 0 is 0.
    Relu,
}

/// Constants of a [`BatchNorm`]; the defaults are PyTorch's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormConfig {
    /// ε, added to the variance.
    pub eps: f64,
    /// Share of the new value in a running average: `r ← (1 − momentum)·r + momentum·batch`.
    /// Keras names the complement, so its 0.99 is 0.01 here.
    pub momentum: f64,
}

impl Default for BatchNormConfig {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            momentum: 0.1,
        }
    }
}

/// What batch normalisations normalise by in [`Phase::Train`].
///
/// Networks have a way of their own through a batch's statistics. By the running ones a DenseNet is computed layer by
/// layer, on the CPU and on a CUDA device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NormStatistics {
    /// The statistics of the batch, towards which the running ones move.
    #[default]
    Batch,
    /// The running statistics, which stay as they are, while γ and β train: Keras' layers called with `training=False`.
    Running,
}

thread_local! {
    static CURRENT: Cell<NormStatistics> = const { Cell::new(NormStatistics::Batch) };
}

impl NormStatistics {
    /// What layers called on this thread use: the batch's, unless [`Self::scope`] says otherwise.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Calls `f`; layers that it calls on this thread use these statistics, in their backward pass too, wherever that is
    /// called.
    ///
    /// ```
    /// use cxr_ops::NormStatistics;
    ///
    /// NormStatistics::Running.scope(|| {
    ///     assert_eq!(NormStatistics::current(), NormStatistics::Running);
    /// });
    /// assert_eq!(NormStatistics::current(), NormStatistics::Batch);
    /// ```
    pub fn scope<T>(self, f: impl FnOnce() -> T) -> T {
        struct Restore(NormStatistics);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _restore = Restore(CURRENT.replace(self));
        f()
    }
}

/// A batch normalisation layer with parameters `weight` (γ), `bias` (β), `running_mean` and `running_var`. A
/// clone has the same parameters.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Var,
    running_var: Var,
    config: BatchNormConfig,
}

impl BatchNorm {
    /// A layer for `channels` channels under `path`: γ = 1, β = 0, running mean 0, running variance 1.
    ///
    /// # Errors
    /// The path already holds a parameter of one of the four names.
    pub fn new(
        channels: usize,
        config: BatchNormConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        Ok(Self {
            weight: path.trainable("weight", channels, Init::Ones)?,
            bias: path.trainable("bias", channels, Init::Zeros)?,
            running_mean: path.running("running_mean", channels, Init::Zeros)?,
            running_var: path.running("running_var", channels, Init::Ones)?,
            config,
        })
    }

    /// In evaluation normalises with the running statistics and takes γ and β as constants: a
    /// gradient flows to the input alone. In training normalises with the batch's statistics and
    /// moves the running ones towards them, once per call: call it once per training step. Within
    /// [`NormStatistics::Running`]'s scope training normalises with the running ones and leaves them as they are.
    ///
    /// # Errors
    /// As [`batch_norm`] and [`batch_norm_train`].
    pub fn forward_t(
        &self,
        input: &Tensor,
        activation: Activation,
        phase: Phase<'_>,
    ) -> Result<Tensor> {
        let eps = self.config.eps;
        match phase {
            Phase::Evaluate => batch_norm(
                input,
                &self.weight.detach(),
                &self.bias.detach(),
                &self.running_mean.detach(),
                &self.running_var.detach(),
                eps,
                activation,
            ),
            Phase::Train { .. } if NormStatistics::current() == NormStatistics::Running => {
                batch_norm(
                    input,
                    &self.weight,
                    &self.bias,
                    &self.running_mean.detach(),
                    &self.running_var.detach(),
                    eps,
                    activation,
                )
            }
            #[cfg(feature = "cuda")]
            Phase::Train { .. } if input.device().is_cuda() => {
                let extent = Extent::new_in_training(input)?;
                RunningUpdates::refuse_device()?;
                let (weight, bias) = (&self.weight, &self.bias);
                let (output, statistics) =
                    crate::gpu::batch_norm_train(input, weight, bias, extent, eps, activation)?;
                let momentum = self.config.momentum;
                statistics.record(&self.running_mean, &self.running_var, momentum)?;
                Ok(output)
            }
            Phase::Train { .. } => {
                let (output, statistics) =
                    batch_norm_train(input, &self.weight, &self.bias, eps, activation)?;
                self.record(&statistics)?;
                Ok(output)
            }
        }
    }

    /// γ, per channel.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// β, per channel.
    pub fn bias(&self) -> &Tensor {
        &self.bias
    }

    /// The running mean, per channel.
    pub fn running_mean(&self) -> &Tensor {
        self.running_mean.as_tensor()
    }

    /// The running variance, per channel.
    pub fn running_var(&self) -> &Tensor {
        self.running_var.as_tensor()
    }

    /// ε and momentum.
    pub fn config(&self) -> BatchNormConfig {
        self.config
    }

    /// Moves the running statistics towards a batch's, or leaves that to the [`RunningUpdates`] in whose scope this is.
    /// [`Self::forward_t`] does it itself; this is for who normalises with [`Self::weight`] and [`Self::bias`] by other
    /// means.
    ///
    /// # Errors
    /// Statistics of another number of channels.
    pub fn record(&self, statistics: &BatchStatistics) -> Result<()> {
        for (running, batch) in [
            (&self.running_mean, &statistics.mean),
            (&self.running_var, &statistics.unbiased_variance),
        ] {
            RunningUpdates::hand_in(RunningUpdate {
                running: running.clone(),
                batch: batch.clone(),
                momentum: self.config.momentum,
            })?;
        }
        Ok(())
    }
}

/// A batch's statistics, per channel.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchStatistics {
    /// Mean over images and positions.
    pub mean: Vec<f64>,
    /// Variance with divisor n: what normalises.
    pub biased_variance: Vec<f64>,
    /// Variance with divisor n − 1: what enters the running average.
    pub unbiased_variance: Vec<f64>,
}

/// Batch normalisation with given statistics: `input` is `N×C` or `N×C×…`, the other four have `C` values.
///
/// Gradients flow to `input`, `weight` and `bias`; the statistics are constants.
///
/// # Errors
/// Shapes that do not fit, another type than `f32`, or a device that is neither the CPU nor, with
/// the feature `cuda`, a CUDA device.
pub fn batch_norm(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<Tensor> {
    let extent = Extent::new(input)?;
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        extent.check_per_channel(mean, "mean")?;
        extent.check_per_channel(variance, "variance")?;
        return crate::gpu::batch_norm(
            input, weight, bias, mean, variance, extent, eps, activation,
        );
    }
    let mean = extent
        .per_channel(mean, "mean")?
        .iter()
        .map(|&m| f64::from(m))
        .collect();
    let inverse_deviation = extent
        .per_channel(variance, "variance")?
        .iter()
        .map(|&v| (f64::from(v) + eps).sqrt().recip())
        .collect();
    let op = Normalise {
        extent,
        mean,
        inverse_deviation,
        of_batch: false,
        activation,
    };
    input
        .contiguous()?
        .apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

/// Batch normalisation with the batch's own statistics, which are returned too.
///
/// Gradients flow to `input`, `weight` and `bias`, through the statistics as well.
///
/// # Errors
/// As [`batch_norm`], and a batch with a single value per channel, whose variance is undefined.
pub fn batch_norm_train(
    input: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    activation: Activation,
) -> Result<(Tensor, BatchStatistics)> {
    let extent = Extent::new_in_training(input)?;
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        let (output, statistics) =
            crate::gpu::batch_norm_train(input, weight, bias, extent, eps, activation)?;
        return Ok((output, statistics.read()?));
    }
    let input = input.contiguous()?;
    let statistics = with_values(&input, "batch_norm", |input| extent.statistics(input))?;
    let op = Normalise {
        extent,
        mean: statistics.mean.clone(),
        inverse_deviation: statistics
            .biased_variance
            .iter()
            .map(|v| (v + eps).sqrt().recip())
            .collect(),
        of_batch: true,
        activation,
    };
    Ok((
        input.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)?,
        statistics,
    ))
}

/// Images, channels and positions of a tensor `N×C×…`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) positions: usize,
}

impl Extent {
    fn new(input: &Tensor) -> Result<Self> {
        match input.dims() {
            [images, channels, rest @ ..] if input.elem_count() > 0 => Ok(Self {
                images: *images,
                channels: *channels,
                positions: rest.iter().product(),
            }),
            dims => {
                bail!("batch_norm: expected a tensor N×C×… with at least one value, got {dims:?}")
            }
        }
    }

    /// As [`Self::new`], for a batch whose own statistics are taken.
    fn new_in_training(input: &Tensor) -> Result<Self> {
        let extent = Self::new(input)?;
        if extent.values_per_channel() < 2 {
            bail!(
                "batch_norm: training needs at least two values per channel, got {}; a training batch of one image is too small",
                extent.values_per_channel()
            );
        }
        Ok(extent)
    }

    pub(crate) fn values_per_channel(&self) -> usize {
        self.images * self.positions
    }

    fn per_channel(&self, tensor: &Tensor, what: &str) -> Result<Vec<f32>> {
        self.check_per_channel(tensor, what)?;
        tensor.to_vec1()
    }

    fn check_per_channel(&self, tensor: &Tensor, what: &str) -> Result<()> {
        if tensor.dims() != [self.channels] {
            bail!(
                "batch_norm: expected {what} of {} values, got {:?}",
                self.channels,
                tensor.dims()
            );
        }
        Ok(())
    }

    /// The planes of one channel, image after image.
    fn planes<'a>(
        &self,
        values: &'a [f32],
        channel: usize,
    ) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let (channels, positions) = (self.channels, self.positions);
        values
            .chunks_exact(positions)
            .skip(channel)
            .step_by(channels)
    }

    fn statistics(&self, input: &[f32]) -> BatchStatistics {
        let count = self.values_per_channel() as f64;
        let (mean, squares): (Vec<f64>, Vec<f64>) = (0..self.channels)
            .into_par_iter()
            .map(|channel| {
                let (mut sum, mut sum_of_squares) = (0f64, 0f64);
                for plane in self.planes(input, channel) {
                    let (s, q) = sums(plane, plane);
                    sum += s;
                    sum_of_squares += q;
                }
                let mean = sum / count;
                // In double precision the difference keeps what single-precision inputs carry.
                (mean, (sum_of_squares - sum * mean).max(0.))
            })
            .unzip();
        BatchStatistics {
            mean,
            biased_variance: squares.iter().map(|q| q / count).collect(),
            unbiased_variance: squares.iter().map(|q| q / (count - 1.)).collect(),
        }
    }
}

/// `(Σ a, Σ a·b)` in double precision, in eight interleaved sums.
fn sums(a: &[f32], b: &[f32]) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut plain, mut products) = ([0f64; LANES], [0f64; LANES]);
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = a_chunks.remainder().iter().zip(b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            plain[lane] += f64::from(a[lane]);
            products[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    for (lane, (&a, &b)) in tail.enumerate() {
        plain[lane] += f64::from(a);
        products[lane] += f64::from(a) * f64::from(b);
    }
    (plain.iter().sum(), products.iter().sum())
}

struct Normalise {
    extent: Extent,
    mean: Vec<f64>,
    inverse_deviation: Vec<f64>,
    /// The statistics are functions of the input.
    of_batch: bool,
    activation: Activation,
}

impl Normalise {
    /// `y = scale·x + shift` for one channel.
    fn affine(&self, channel: usize, weight: &[f32], bias: &[f32]) -> (f32, f32) {
        let scale = f64::from(weight[channel]) * self.inverse_deviation[channel];
        let shift = f64::from(bias[channel]) - scale * self.mean[channel];
        (scale as f32, shift as f32)
    }

    /// Calls `write` for every plane of `result` with its index, in parallel.
    fn for_each_plane(&self, result: &mut [f32], write: impl Fn(usize, &mut [f32]) + Sync) {
        result
            .par_chunks_mut(self.extent.positions)
            .enumerate()
            .for_each(|(plane, values)| write(plane, values));
    }

    /// The gradient where the activation let the value through, 0 elsewhere.
    fn through_activation<'a>(&self, gradient: &'a [f32], output: &[f32]) -> Cow<'a, [f32]> {
        const PART: usize = 1 << 14;
        if self.activation == Activation::Identity {
            return Cow::Borrowed(gradient);
        }
        let mut result = vec![0f32; gradient.len()];
        result
            .par_chunks_mut(PART)
            .zip(gradient.par_chunks(PART).zip(output.par_chunks(PART)))
            .for_each(|(result, (gradient, output))| {
                for ((result, &g), &y) in result.iter_mut().zip(gradient).zip(output) {
                    *result = if y > 0. { g } else { 0. };
                }
            });
        Cow::Owned(result)
    }

    /// Gradients of input (if wanted), weight and bias from that of the value before the activation.
    fn gradients(
        &self,
        input: &[f32],
        weight: &[f32],
        gradient: &[f32],
        of_input: bool,
    ) -> (Option<Vec<f32>>, Vec<f32>, Vec<f32>) {
        let extent = self.extent;
        let (of_bias, of_weight): (Vec<f64>, Vec<f64>) = (0..extent.channels)
            .into_par_iter()
            .map(|channel| {
                let (mut sum, mut products) = (0f64, 0f64);
                let planes = extent
                    .planes(gradient, channel)
                    .zip(extent.planes(input, channel));
                for (gradient, input) in planes {
                    let (s, p) = sums(gradient, input);
                    sum += s;
                    products += p;
                }
                // Σ g·x̂ with x̂ = (x − μ)/√(σ² + ε)
                (
                    sum,
                    (products - self.mean[channel] * sum) * self.inverse_deviation[channel],
                )
            })
            .unzip();
        let input_gradient = of_input.then(|| {
            let mut result = vec![0f32; input.len()];
            let count = extent.values_per_channel() as f64;
            self.for_each_plane(&mut result, |plane, result| {
                let channel = plane % extent.channels;
                let scale = f64::from(weight[channel]) * self.inverse_deviation[channel];
                let here = plane * extent.positions..(plane + 1) * extent.positions;
                let (input, gradient) = (&input[here.clone()], &gradient[here]);
                if self.of_batch {
                    // dx = scale·(g − mean(g) − x̂·mean(g·x̂)), sorted by what multiplies g, x and 1
                    let of_x =
                        -scale * self.inverse_deviation[channel] * of_weight[channel] / count;
                    let constant = -scale * of_bias[channel] / count - of_x * self.mean[channel];
                    // In double precision: the three terms nearly cancel in small batches.
                    for ((result, &x), &g) in result.iter_mut().zip(input).zip(gradient) {
                        *result = (scale * f64::from(g) + of_x * f64::from(x) + constant) as f32;
                    }
                } else {
                    let scale = scale as f32;
                    for (result, &g) in result.iter_mut().zip(gradient) {
                        *result = scale * g;
                    }
                }
            });
            result
        });
        let single = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
        (input_gradient, single(of_weight), single(of_bias))
    }
}

impl CustomOp3 for Normalise {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let extent = self.extent;
        let input_values = values(input, input_layout, self.name())?;
        let weight = values(weight, weight_layout, self.name())?;
        let bias = values(bias, bias_layout, self.name())?;
        if weight.len() != extent.channels || bias.len() != extent.channels {
            bail!(
                "batch_norm: expected weight and bias of {} values, got {} and {}",
                extent.channels,
                weight.len(),
                bias.len()
            );
        }
        let mut output = vec![0f32; input_values.len()];
        self.for_each_plane(&mut output, |plane, output| {
            let (scale, shift) = self.affine(plane % extent.channels, weight, bias);
            let input = &input_values[plane * extent.positions..(plane + 1) * extent.positions];
            match self.activation {
                Activation::Identity => {
                    for (output, &x) in output.iter_mut().zip(input) {
                        *output = scale * x + shift;
                    }
                }
                Activation::Relu => {
                    for (output, &x) in output.iter_mut().zip(input) {
                        let y = scale * x + shift;
                        // A NaN passes, so that a broken training step is noticed.
                        *output = if y <= 0. { 0. } else { y };
                    }
                }
            }
        });
        Ok((CpuStorage::F32(output), input_layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (op, input_wanted) = (self.name(), input.track_op());
        let gradient = gradient.contiguous()?;
        let (of_input, of_weight, of_bias) = with_values(&gradient, op, |gradient| {
            with_values(output, op, |output| {
                let gradient = self.through_activation(gradient, output);
                with_values(input, op, |input| {
                    with_values(weight, op, |weight| {
                        self.gradients(input, weight, &gradient, input_wanted)
                    })
                })
            })
        })????;
        let device = output.device();
        let tensor =
            |values: Vec<f32>, like: &Tensor| Tensor::from_vec(values, like.shape(), device);
        Ok((
            of_input.map(|values| tensor(values, input)).transpose()?,
            weight
                .track_op()
                .then(|| tensor(of_weight, weight))
                .transpose()?,
            bias.track_op().then(|| tensor(of_bias, bias)).transpose()?,
        ))
    }
}
