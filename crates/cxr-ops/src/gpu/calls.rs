//! The operations as sequences of kernels.

use candle_core::{Result, bail};

use super::machine::{Argument, Blocks, Machine, THREADS, View};
use super::{AdamWConstants, RmsPropConstants};
use crate::norm::{Activation, Extent};
use crate::pool::Windows;

/// A count that a kernel takes as an `int`.
pub(super) fn int<'a, M: ?Sized, T>(value: usize) -> Result<Argument<'a, M, T>> {
    match i32::try_from(value) {
        Ok(value) => Ok(Argument::Int(value)),
        Err(_) => bail!(
            "a GPU takes at most {} values of a channel at once, got {value}",
            i32::MAX
        ),
    }
}

pub(super) fn long<'a, M: ?Sized, T>(value: usize) -> Argument<'a, M, T> {
    Argument::Long(value as i64)
}

fn is_relu<'a, M: ?Sized, T>(activation: Activation) -> Argument<'a, M, T> {
    Argument::Int(i32::from(activation == Activation::Relu))
}

/// What normalises a channel.
#[derive(Debug)]
pub(super) struct Statistics<M> {
    pub(super) mean: M,
    /// With divisor n.
    pub(super) variance: M,
    /// 1/√(variance + ε).
    pub(super) inverse: M,
}

/// Parts in which a sum over a channel's values is taken: enough blocks to keep a GPU busy.
fn parts(count: usize) -> u32 {
    const VALUES_A_THREAD: usize = 16;
    count.div_ceil(VALUES_A_THREAD * THREADS).clamp(1, 64) as u32
}

/// A batch's statistics, per channel.
pub(super) fn statistics<M: Machine>(
    machine: &M,
    x: View<'_, M::Memory>,
    extent: Extent,
    eps: f64,
) -> Result<Statistics<M::Owned>> {
    let (channels, count) = (extent.channels, extent.values_per_channel());
    let n_parts = parts(count);
    let mut sums = machine.alloc(4 * channels * n_parts as usize)?;
    let mut shifts = machine.alloc(channels)?;
    let blocks = Blocks {
        x: channels as u32,
        y: n_parts,
    };
    machine.launch(
        "statistics_parts",
        blocks,
        &mut [
            x.into(),
            (&mut *shifts).into(),
            (&mut *sums).into(),
            int(count)?,
            int(channels)?,
            int(extent.positions)?,
        ],
    )?;
    let [mut mean, mut variance, mut inverse] = [
        machine.alloc(channels)?,
        machine.alloc(channels)?,
        machine.alloc(channels)?,
    ];
    machine.launch(
        "statistics",
        Blocks::for_channels(channels),
        &mut [
            (&*shifts).into(),
            (&*sums).into(),
            (&mut *mean).into(),
            (&mut *variance).into(),
            (&mut *inverse).into(),
            Argument::Int(n_parts as i32),
            int(count)?,
            int(channels)?,
            Argument::Float(eps as f32),
        ],
    )?;
    Ok(Statistics {
        mean,
        variance,
        inverse,
    })
}

/// 1/√(variance + ε).
pub(super) fn inverse_deviation<M: Machine>(
    machine: &M,
    variance: View<'_, M::Memory>,
    channels: usize,
    eps: f64,
) -> Result<M::Owned> {
    let mut inverse = machine.alloc(channels)?;
    machine.launch(
        "inverse_deviation",
        Blocks::for_each(channels),
        &mut [
            variance.into(),
            (&mut *inverse).into(),
            int(channels)?,
            Argument::Float(eps as f32),
        ],
    )?;
    Ok(inverse)
}

/// `running ← (1 − momentum)·running + momentum·factor·batch`, from `running.1` on.
pub(super) fn update_running<M: Machine>(
    machine: &M,
    running: (&mut M::Memory, usize),
    batch: View<'_, M::Memory>,
    channels: usize,
    momentum: f64,
    factor: f64,
) -> Result<()> {
    machine.launch(
        "update_running",
        Blocks::for_each(channels),
        &mut [
            Argument::Write(running.0, running.1),
            batch.into(),
            int(channels)?,
            Argument::Float(momentum as f32),
            Argument::Float(factor as f32),
        ],
    )
}

/// The running averages of a normalisation, and a batch's statistics towards which they move.
pub(super) struct Moving<'a, M: ?Sized> {
    /// Addresses of mean and variance: they are written to.
    pub(super) running: [u64; 2],
    pub(super) batch: [View<'a, M>; 2],
    pub(super) channels: usize,
    pub(super) momentum: f64,
    /// What a variance with divisor n is multiplied by.
    pub(super) factor: f64,
}

/// As [`update_running`], for many normalisations at once.
pub(super) fn update_all_running<M: Machine>(
    machine: &M,
    all: &[Moving<'_, M::Memory>],
) -> Result<()> {
    let bits = |value: f64| u64::from((value as f32).to_bits());
    let rows = all.iter().flat_map(|moving| {
        let [mean, variance] = moving.batch.map(|values| machine.address(values));
        let (channels, momentum) = (moving.channels as u64, bits(moving.momentum));
        let [running_mean, running_variance] = moving.running;
        let factor = bits(moving.factor);
        [
            running_mean,
            running_variance,
            mean,
            variance,
            channels,
            momentum,
            factor,
        ]
    });
    let table = machine.upload(&rows.collect::<Vec<_>>())?;
    let blocks = Blocks {
        x: 1,
        ..blocks_for_tensors(all.len())?
    };
    machine.launch("update_all_running", blocks, &mut [Argument::Table(&table)])
}

/// What a normalisation reads besides its input.
pub(super) struct Affine<'a, M: ?Sized> {
    pub(super) mean: View<'a, M>,
    pub(super) inverse: View<'a, M>,
    pub(super) weight: View<'a, M>,
    pub(super) bias: View<'a, M>,
    pub(super) activation: Activation,
}

/// The normalised values.
pub(super) fn normalise<M: Machine>(
    machine: &M,
    x: View<'_, M::Memory>,
    affine: &Affine<'_, M::Memory>,
    extent: Extent,
) -> Result<M::Owned> {
    let n = extent.images * extent.channels * extent.positions;
    let mut out = machine.alloc(n)?;
    machine.launch(
        "normalise",
        Blocks::for_values(n),
        &mut [
            x.into(),
            affine.mean.into(),
            affine.inverse.into(),
            affine.weight.into(),
            affine.bias.into(),
            (&mut *out).into(),
            long(n),
            int(extent.channels)?,
            int(extent.positions)?,
            is_relu(affine.activation),
        ],
    )?;
    Ok(out)
}

/// The gradients of a normalisation.
#[derive(Debug)]
pub(super) struct NormaliseGradients<M> {
    /// Where it is wanted.
    pub(super) of_input: Option<M>,
    pub(super) of_weight: M,
    pub(super) of_bias: M,
}

/// From the gradient of the output `y` of [`normalise`]. `of_batch`: the statistics are those of `x`.
#[expect(
    clippy::too_many_arguments,
    reason = "the inputs and output of an operation"
)]
pub(super) fn normalise_gradients<M: Machine>(
    machine: &M,
    gradient: View<'_, M::Memory>,
    y: View<'_, M::Memory>,
    x: View<'_, M::Memory>,
    affine: &Affine<'_, M::Memory>,
    extent: Extent,
    of_batch: bool,
    is_input_wanted: bool,
) -> Result<NormaliseGradients<M::Owned>> {
    let (channels, count, n) = (
        extent.channels,
        extent.values_per_channel(),
        extent.images * extent.channels * extent.positions,
    );
    let n_parts = parts(count);
    let mut sums = machine.alloc(4 * channels * n_parts as usize)?;
    let blocks = Blocks {
        x: channels as u32,
        y: n_parts,
    };
    machine.launch(
        "gradient_parts",
        blocks,
        &mut [
            gradient.into(),
            y.into(),
            x.into(),
            affine.mean.into(),
            (&mut *sums).into(),
            int(count)?,
            int(channels)?,
            int(extent.positions)?,
            is_relu(affine.activation),
        ],
    )?;
    let (mut of_weight, mut of_bias) = (machine.alloc(channels)?, machine.alloc(channels)?);
    machine.launch(
        "gradients",
        Blocks::for_channels(channels),
        &mut [
            (&*sums).into(),
            affine.inverse.into(),
            (&mut *of_weight).into(),
            (&mut *of_bias).into(),
            Argument::Int(n_parts as i32),
            int(channels)?,
        ],
    )?;
    let of_input = if is_input_wanted {
        let mut out = machine.alloc(n)?;
        machine.launch(
            "normalise_gradient",
            Blocks::for_values(n),
            &mut [
                gradient.into(),
                y.into(),
                x.into(),
                affine.mean.into(),
                affine.inverse.into(),
                affine.weight.into(),
                (&*of_weight).into(),
                (&*of_bias).into(),
                (&mut *out).into(),
                long(n),
                int(channels)?,
                int(extent.positions)?,
                int(count)?,
                is_relu(affine.activation),
                Argument::Int(i32::from(of_batch)),
            ],
        )?;
        Some(out)
    } else {
        None
    };
    Ok(NormaliseGradients {
        of_input,
        of_weight,
        of_bias,
    })
}

/// Starts a kernel of pooling that writes `n` values. Those whose windows may overlap take stride and padding too.
fn pool<M: Machine>(
    machine: &M,
    kernel: &'static str,
    inputs: &[View<'_, M::Memory>],
    n: usize,
    w: &Windows,
    may_overlap: bool,
) -> Result<M::Owned> {
    let mut out = machine.alloc(n)?;
    let mut arguments: Vec<Argument<'_, _, _>> = inputs.iter().map(|&input| input.into()).collect();
    arguments.push((&mut *out).into());
    arguments.push(long(n));
    for size in [w.height, w.width, w.height_out, w.width_out, w.kernel] {
        arguments.push(int(size)?);
    }
    if may_overlap {
        arguments.push(int(w.stride)?);
        arguments.push(int(w.padding)?);
    }
    machine.launch(kernel, Blocks::for_values(n), &mut arguments)?;
    Ok(out)
}

/// The maxima of the windows.
pub(super) fn max_pool<M: Machine>(
    machine: &M,
    input: View<'_, M::Memory>,
    w: &Windows,
) -> Result<M::Owned> {
    let n = w.images * w.channels * w.pixels_out();
    pool(machine, "max_pool", &[input], n, w, true)
}

/// The gradient of [`max_pool`]'s input.
pub(super) fn max_pool_gradient<M: Machine>(
    machine: &M,
    input: View<'_, M::Memory>,
    gradient: View<'_, M::Memory>,
    w: &Windows,
) -> Result<M::Owned> {
    let n = w.images * w.channels * w.pixels();
    pool(machine, "max_pool_gradient", &[input, gradient], n, w, true)
}

/// The means of neighbouring windows.
pub(super) fn average_pool<M: Machine>(
    machine: &M,
    input: View<'_, M::Memory>,
    w: &Windows,
) -> Result<M::Owned> {
    let n = w.images * w.channels * w.pixels_out();
    pool(machine, "average_pool", &[input], n, w, false)
}

/// The gradient of [`average_pool`]'s input.
pub(super) fn average_pool_gradient<M: Machine>(
    machine: &M,
    gradient: View<'_, M::Memory>,
    w: &Windows,
) -> Result<M::Owned> {
    let n = w.images * w.channels * w.pixels();
    pool(machine, "average_pool_gradient", &[gradient], n, w, false)
}

/// Blocks for each tensor of a table: enough for the largest weights of a network.
const BLOCKS_A_TENSOR: u32 = 32;

fn blocks_for_tensors(n: usize) -> Result<Blocks> {
    /// What CUDA takes.
    const MOST: usize = 65_535;
    if n > MOST {
        bail!("a GPU takes at most {MOST} tensors at once, got {n}");
    }
    Ok(Blocks {
        x: BLOCKS_A_TENSOR,
        y: n as u32,
    })
}

/// For each tensor parts of the sum of its squares, each as two values that are to be added in double precision.
pub(super) struct Squares<M> {
    pub(super) parts: M,
    /// Values of each tensor.
    pub(super) stride: usize,
}

/// The sums of the squares of tensors, given with their numbers of values.
pub(super) fn sums_of_squares<M: Machine>(
    machine: &M,
    tensors: &[(View<'_, M::Memory>, usize)],
) -> Result<Squares<M::Owned>> {
    let rows = tensors.iter();
    let table: Vec<u64> = rows
        .flat_map(|&(values, n)| [machine.address(values), n as u64])
        .collect();
    let table = machine.upload(&table)?;
    let stride = 2 * BLOCKS_A_TENSOR as usize;
    let mut parts = machine.alloc(stride * tensors.len())?;
    machine.launch(
        "squares_parts",
        blocks_for_tensors(tensors.len())?,
        &mut [Argument::Table(&table), (&mut *parts).into()],
    )?;
    Ok(Squares { parts, stride })
}

/// Moves tensors by a share of the way towards others, each given as the address that is written to, what it moves to
/// and their number of values.
pub(super) fn lerp<M: Machine>(
    machine: &M,
    pairs: &[(u64, View<'_, M::Memory>, usize)],
    share: f32,
) -> Result<()> {
    let rows = pairs.iter();
    let table: Vec<u64> = rows
        .flat_map(|&(average, values, n)| [average, machine.address(values), n as u64])
        .collect();
    let table = machine.upload(&table)?;
    let blocks = blocks_for_tensors(pairs.len())?;
    let arguments = &mut [Argument::Table(&table), Argument::Float(share)];
    machine.launch("lerp", blocks, arguments)
}

/// From the parts of [`sums_of_squares`] of `n` tensors three values: their norm as two that are to be added in double
/// precision, and the first tensor that has a value which is not finite, or −1.
pub(super) fn size<M: Machine>(
    machine: &M,
    squares: &Squares<M::Owned>,
    n: usize,
) -> Result<M::Owned> {
    let mut out = machine.alloc(3)?;
    machine.launch(
        "size",
        Blocks { x: 1, y: 1 },
        &mut [
            (&*squares.parts).into(),
            (&mut *out).into(),
            int(n)?,
            int(squares.stride / 2)?,
        ],
    )?;
    Ok(out)
}

/// What to multiply gradients by, of which [`size`] told the norm, so that `factor` times that norm is at most `largest`.
pub(super) fn bound<M: Machine>(
    machine: &M,
    size: View<'_, M::Memory>,
    factor: f32,
    largest: f32,
) -> Result<M::Owned> {
    let mut scale = machine.alloc(1)?;
    machine.launch(
        "bound",
        Blocks { x: 1, y: 1 },
        &mut [
            size.into(),
            (&mut *scale).into(),
            Argument::Float(factor),
            Argument::Float(largest),
        ],
    )?;
    Ok(scale)
}

/// One tensor of an optimiser's step.
pub(super) struct Updated<'a, M: ?Sized> {
    /// Their address: they are written to.
    pub(super) weights: u64,
    pub(super) gradient: View<'a, M>,
    /// Where what the optimiser keeps of it begins.
    pub(super) state: usize,
    pub(super) values: usize,
    pub(super) rate: f32,
    /// AdamW: the share of a weight that is kept. SGD: the weight decay.
    pub(super) decay: f32,
}

fn update_table<M: Machine>(machine: &M, updates: &[Updated<'_, M::Memory>]) -> Result<M::Table> {
    let rows = updates.iter();
    let table: Vec<u64> = rows
        .flat_map(|update| {
            [
                update.weights,
                machine.address(update.gradient),
                update.state as u64,
                update.values as u64,
                u64::from(update.rate.to_bits()),
                u64::from(update.decay.to_bits()),
            ]
        })
        .collect();
    machine.upload(&table)
}

/// One step of AdamW, or of Adam, on all tensors. Gradients are multiplied by the one value of `scale`.
pub(super) fn adamw<M: Machine>(
    machine: &M,
    updates: &[Updated<'_, M::Memory>],
    [first, second]: [&mut M::Memory; 2],
    scale: View<'_, M::Memory>,
    constants: &AdamWConstants,
) -> Result<()> {
    let table = update_table(machine, updates)?;
    machine.launch(
        "adamw",
        blocks_for_tensors(updates.len())?,
        &mut [
            Argument::Table(&table),
            first.into(),
            second.into(),
            scale.into(),
            Argument::Float(constants.beta1),
            Argument::Float(constants.new_in_first),
            Argument::Float(constants.beta2),
            Argument::Float(constants.new_in_second),
            Argument::Float(constants.second_correction),
            Argument::Float(constants.eps),
            Argument::Int(i32::from(constants.decay_in_gradient)),
        ],
    )
}

/// One step of RMSprop on all tensors; `scale` as in [`adamw`].
pub(super) fn rmsprop<M: Machine>(
    machine: &M,
    updates: &[Updated<'_, M::Memory>],
    [squares, buffer]: [&mut M::Memory; 2],
    scale: View<'_, M::Memory>,
    constants: &RmsPropConstants,
) -> Result<()> {
    let table = update_table(machine, updates)?;
    machine.launch(
        "rmsprop",
        blocks_for_tensors(updates.len())?,
        &mut [
            Argument::Table(&table),
            squares.into(),
            buffer.into(),
            scale.into(),
            Argument::Float(constants.alpha),
            Argument::Float(constants.new_in_square),
            Argument::Float(constants.eps),
            Argument::Float(constants.momentum),
        ],
    )
}

/// One step of stochastic gradient descent on all tensors; `scale` as in [`adamw`].
pub(super) fn sgd<M: Machine>(
    machine: &M,
    updates: &[Updated<'_, M::Memory>],
    buffer: &mut M::Memory,
    scale: View<'_, M::Memory>,
    momentum: f32,
    nesterov: bool,
) -> Result<()> {
    let table = update_table(machine, updates)?;
    machine.launch(
        "sgd",
        blocks_for_tensors(updates.len())?,
        &mut [
            Argument::Table(&table),
            buffer.into(),
            scale.into(),
            Argument::Float(momentum),
            Argument::Int(i32::from(nesterov)),
        ],
    )
}

/// Dropout by the draws of the images' keys: a value whose draw is below `threshold` becomes 0, others are multiplied by
/// `kept`.
pub(super) fn dropout<M: Machine>(
    machine: &M,
    x: View<'_, M::Memory>,
    values_an_image: usize,
    keys: &[[u64; 4]],
    threshold: u32,
    kept: f32,
) -> Result<M::Owned> {
    /// Values of one block of draws.
    const DRAWS: usize = 16;
    let table = machine.upload(keys.as_flattened())?;
    let mut out = machine.alloc(keys.len() * values_an_image)?;
    let blocks_an_image = values_an_image.div_ceil(DRAWS);
    let blocks = keys.len() * blocks_an_image;
    machine.launch(
        "dropout",
        Blocks::for_values(blocks),
        &mut [
            x.into(),
            Argument::Table(&table),
            (&mut *out).into(),
            long(blocks),
            int(blocks_an_image)?,
            int(values_an_image)?,
            Argument::Long(i64::from(threshold)),
            Argument::Float(kept),
        ],
    )?;
    Ok(out)
}

/// How square images of bytes are resampled and normalised; see the kernel `warp`.
pub(super) struct Warp {
    /// Width and height of the images.
    pub(super) side: usize,
    /// Width and height of what is made of them.
    pub(super) size: usize,
    /// Factor and summand of each channel.
    pub(super) lines: [[f32; 2]; 3],
}

/// `N×3×size×size` from images of one byte for each pixel, each given by its address and its map
/// `xx, xy, x0, yx, yy, y0`.
pub(super) fn warp<M: Machine>(
    machine: &M,
    images: &[(u64, [f64; 6])],
    warp: &Warp,
) -> Result<M::Owned> {
    let size = warp.size;
    let rows = images.iter();
    let table: Vec<u64> = rows
        .flat_map(|(address, map)| std::iter::once(*address).chain(map.map(f64::to_bits)))
        .collect();
    let table = machine.upload(&table)?;
    // The kernel counts an image's pixels in `int`, a step beyond the last included.
    if size > 1 << 15 {
        bail!("a GPU makes images of up to 32,768 pixels a side, got {size}");
    }
    let blocks = Blocks::for_images(size * size, images.len())?;
    let mut out = machine.alloc(3 * images.len() * size * size)?;
    let mut arguments = vec![
        Argument::Table(&table),
        (&mut *out).into(),
        int(warp.side)?,
        int(size)?,
    ];
    arguments.extend(
        warp.lines
            .as_flattened()
            .iter()
            .copied()
            .map(Argument::Float),
    );
    machine.launch("warp", blocks, &mut arguments)?;
    drop(arguments);
    Ok(out)
}
