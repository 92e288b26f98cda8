//! The kernels on rows (N×H×W×C), one function each.

use candle_core::{Result, bail};

use super::calls::{int, long};
use super::machine::{Argument, Blocks, Machine, THREADS, View};

/// Rows of an image batch: images × height × width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Grid {
    /// One pixel, where only channels matter.
    pub(super) const PIXEL: Self = Self {
        images: 1,
        height: 1,
        width: 1,
    };

    pub(super) fn rows(self) -> usize {
        self.images * self.height * self.width
    }

    /// Half the size, odd rows and columns dropped.
    pub(super) fn halved(self) -> Self {
        Self {
            height: self.height / 2,
            width: self.width / 2,
            ..self
        }
    }

    /// What windows two pixels apart leave of an image.
    pub(super) fn strided(self) -> Self {
        Self {
            height: self.height.div_ceil(2),
            width: self.width.div_ceil(2),
            ..self
        }
    }
}

/// Activations of rows, from channel 0 of each on.
pub(super) struct Rows<'a, M> {
    pub(super) memory: &'a M,
    pub(super) channels: usize,
    /// Values from one row to the next.
    pub(super) pitch: usize,
}

impl<M> Clone for Rows<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Rows<'_, M> {}

impl<'a, M> Rows<'a, M> {
    /// Without gaps.
    pub(super) fn packed(memory: &'a M, channels: usize) -> Self {
        Self {
            memory,
            channels,
            pitch: channels,
        }
    }
}

/// Mean and variance (divisor n) of channels.
pub(super) struct ChannelStatistics<M> {
    pub(super) mean: M,
    pub(super) variance: M,
}

impl<M> ChannelStatistics<M> {
    pub(super) fn mean_view(&self) -> View<'_, M> {
        (&self.mean).into()
    }
}

/// A normalisation as `scale·x + shift`.
pub(super) struct Scales<M> {
    pub(super) scale: M,
    pub(super) shift: M,
    /// 1/√(variance + ε).
    pub(super) inverse: M,
}

/// What is to be added to the gradient of channels x besides what stands there: `of_x·x + constant`.
pub(super) struct Corrections<M> {
    pub(super) of_x: M,
    pub(super) constant: M,
}

impl<M> Corrections<M> {
    pub(super) fn alloc<N: Machine<Memory = M>>(machine: &N, channels: usize) -> Result<Self> {
        Ok(Self {
            of_x: machine.alloc(channels)?,
            constant: machine.alloc(channels)?,
        })
    }
}

/// Parts of Σ g and Σ g·(x − mean), or of Σ x and Σ x².
pub(super) struct Parts<M> {
    memory: M,
    number: u32,
}

impl<M> Parts<M> {
    /// Starts a kernel that sums over rows. Its arguments are `first`, the parts, the numbers of rows and channels, and
    /// `sizes`.
    fn sum<N: Machine<Memory = M>>(
        machine: &N,
        kernel: &'static str,
        (rows, channels): (usize, usize),
        first: Vec<Argument<'_, M, N::Table>>,
        sizes: &[usize],
    ) -> Result<Self> {
        const ROWS_A_PART: usize = 256;
        const LANES: usize = 32;
        let number = rows.div_ceil(ROWS_A_PART).clamp(1, 256) as u32;
        let mut memory = machine.alloc(4 * channels * number as usize)?;
        let blocks = Blocks {
            x: channels.div_ceil(LANES) as u32,
            y: number,
        };
        let mut arguments = first;
        arguments.push((&mut memory).into());
        for &size in [rows, channels].iter().chain(sizes) {
            arguments.push(int(size)?);
        }
        machine.launch(kernel, blocks, &mut arguments)?;
        drop(arguments);
        Ok(Self { memory, number })
    }
}

/// Blocks for a thread for every four of `n` values.
fn by_four(n: usize) -> Blocks {
    Blocks::for_values(n / 4)
}

/// The statistics of `x`, written to channels `first` and after of `into`.
pub(super) fn statistics<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    rows: usize,
    into: &mut ChannelStatistics<M::Memory>,
    first: usize,
) -> Result<()> {
    let channels = x.channels;
    let (mut shifts, mut inverse) = (machine.alloc(channels)?, machine.alloc(channels)?);
    let parts = Parts::sum(
        machine,
        "row_statistics_parts",
        (rows, channels),
        vec![x.memory.into(), (&mut shifts).into()],
        &[x.pitch],
    )?;
    machine.launch(
        "statistics",
        Blocks::for_each(channels),
        &mut [
            (&shifts).into(),
            (&parts.memory).into(),
            Argument::Write(&mut into.mean, first),
            Argument::Write(&mut into.variance, first),
            (&mut inverse).into(),
            Argument::Int(parts.number as i32),
            int(rows)?,
            int(channels)?,
            Argument::Float(0.),
        ],
    )
}

/// A normalisation of the first `channels` channels.
pub(super) fn scales<M: Machine>(
    machine: &M,
    [mean, variance, weight, bias]: [View<'_, M::Memory>; 4],
    channels: usize,
    eps: f64,
) -> Result<Scales<M::Memory>> {
    let [mut scale, mut shift, mut inverse] = [
        machine.alloc(channels)?,
        machine.alloc(channels)?,
        machine.alloc(channels)?,
    ];
    machine.launch(
        "affine",
        Blocks::for_each(channels),
        &mut [
            mean.into(),
            variance.into(),
            weight.into(),
            bias.into(),
            (&mut scale).into(),
            (&mut shift).into(),
            (&mut inverse).into(),
            int(channels)?,
            Argument::Float(eps as f32),
        ],
    )?;
    Ok(Scales {
        scale,
        shift,
        inverse,
    })
}

/// `relu(scale·x + shift)`, without gaps.
pub(super) fn activate<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    rows: usize,
    scales: &Scales<M::Memory>,
) -> Result<M::Memory> {
    let n = rows * x.channels;
    let mut out = machine.alloc_activations(n)?;
    machine.launch(
        "activate",
        by_four(n),
        &mut [
            x.memory.into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            (&mut out).into(),
            long(n),
            int(x.channels)?,
            int(x.pitch)?,
        ],
    )?;
    Ok(out)
}

/// Copies `x`, which has no gaps, to channels `first` and after of rows of a block.
pub(super) fn append<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    rows: usize,
    (maps, pitch): (&mut M::Memory, usize),
    first: usize,
) -> Result<()> {
    let n = rows * x.channels;
    machine.launch(
        "append",
        by_four(n),
        &mut [
            x.memory.into(),
            maps.into(),
            long(n),
            int(x.channels)?,
            int(pitch)?,
            int(first)?,
        ],
    )
}

/// The complete gradient of `channels` channels from `first` on, without gaps.
pub(super) fn take_gradient<M: Machine>(
    machine: &M,
    gradient: &M::Memory,
    maps: Rows<'_, M::Memory>,
    rows: usize,
    corrections: &Corrections<M::Memory>,
    (first, channels): (usize, usize),
) -> Result<M::Memory> {
    let n = rows * channels;
    let mut out = machine.alloc_activations(n)?;
    let from = |memory| View {
        memory,
        offset: first,
    };
    machine.launch(
        "take_gradient",
        by_four(n),
        &mut [
            gradient.into(),
            maps.memory.into(),
            from(&corrections.of_x).into(),
            from(&corrections.constant).into(),
            (&mut out).into(),
            long(n),
            int(channels)?,
            int(maps.pitch)?,
            int(first)?,
        ],
    )?;
    Ok(out)
}

/// `g ← scale·g + of_x·x + constant`, both without gaps.
pub(super) fn combine<M: Machine>(
    machine: &M,
    gradient: &mut M::Memory,
    x: Rows<'_, M::Memory>,
    rows: usize,
    scales: &Scales<M::Memory>,
    corrections: &Corrections<M::Memory>,
) -> Result<()> {
    let n = rows * x.channels;
    machine.launch(
        "combine",
        by_four(n),
        &mut [
            gradient.into(),
            x.memory.into(),
            (&scales.scale).into(),
            (&corrections.of_x).into(),
            (&corrections.constant).into(),
            long(n),
            int(x.channels)?,
        ],
    )
}

/// The gradient in front of a ReLU, in place; both without gaps.
pub(super) fn mask<M: Machine>(
    machine: &M,
    gradient: &mut M::Memory,
    x: Rows<'_, M::Memory>,
    rows: usize,
    scales: &Scales<M::Memory>,
    mean: View<'_, M::Memory>,
) -> Result<Parts<M::Memory>> {
    let parts = Parts::sum(
        machine,
        "mask_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            mean.into(),
        ],
        &[],
    )?;
    Ok(parts)
}

/// Adds `scale` times the gradient in front of a ReLU to the gradient of a block; `gradient` has no gaps.
pub(super) fn add_masked<M: Machine>(
    machine: &M,
    gradient: &M::Memory,
    x: Rows<'_, M::Memory>,
    rows: usize,
    scales: &Scales<M::Memory>,
    mean: View<'_, M::Memory>,
    sum: &mut M::Memory,
) -> Result<Parts<M::Memory>> {
    let parts = Parts::sum(
        machine,
        "add_masked_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            sum.into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            mean.into(),
        ],
        &[x.pitch],
    )?;
    Ok(parts)
}

/// Gradients of a normalisation's weight and bias; what its statistics add to the gradient of x goes to
/// `corrections`, to what is there where `is_added`.
pub(super) fn norm_gradients<M: Machine>(
    machine: &M,
    parts: &Parts<M::Memory>,
    mean: View<'_, M::Memory>,
    scales: &Scales<M::Memory>,
    (channels, count): (usize, usize),
    corrections: &mut Corrections<M::Memory>,
    is_added: bool,
) -> Result<[M::Memory; 2]> {
    let (mut of_weight, mut of_bias) = (machine.alloc(channels)?, machine.alloc(channels)?);
    machine.launch(
        "norm_gradients",
        Blocks::for_each(channels),
        &mut [
            (&parts.memory).into(),
            mean.into(),
            (&scales.inverse).into(),
            (&scales.scale).into(),
            (&mut of_weight).into(),
            (&mut of_bias).into(),
            (&mut corrections.of_x).into(),
            (&mut corrections.constant).into(),
            Argument::Int(parts.number as i32),
            int(channels)?,
            int(count)?,
            Argument::Int(i32::from(is_added)),
        ],
    )?;
    Ok([of_weight, of_bias])
}

/// The mean over 2×2 pixels of `relu(scale·x + shift)`, without gaps.
pub(super) fn activate_pool<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Memory>,
) -> Result<M::Memory> {
    let n = grid.halved().rows() * x.channels;
    let mut out = machine.alloc_activations(n)?;
    machine.launch(
        "activate_pool",
        Blocks::for_values(n),
        &mut [
            x.memory.into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            (&mut out).into(),
            long(n),
            int(x.channels)?,
            int(x.pitch)?,
            int(grid.height)?,
            int(grid.width)?,
        ],
    )?;
    Ok(out)
}

/// The gradient of [`activate_pool`] as that of a block, which it fills.
pub(super) fn unpool<M: Machine>(
    machine: &M,
    gradient: &M::Memory,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Memory>,
    mean: View<'_, M::Memory>,
) -> Result<(M::Memory, Parts<M::Memory>)> {
    let rows = grid.rows();
    let mut out = machine.alloc_activations(rows * x.pitch)?;
    let parts = Parts::sum(
        machine,
        "unpool_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            (&mut out).into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            mean.into(),
        ],
        &[x.pitch, grid.height, grid.width],
    )?;
    Ok((out, parts))
}

/// Images N×3×H×W, single precision, as rows of four channels.
pub(super) fn image_rows<M: Machine>(
    machine: &M,
    images: View<'_, M::Memory>,
    grid: Grid,
) -> Result<M::Memory> {
    let n = grid.rows();
    let mut out = machine.alloc_activations(4 * n)?;
    machine.launch(
        "image_rows",
        Blocks::for_values(n),
        &mut [
            images.into(),
            (&mut out).into(),
            long(n),
            int(grid.height * grid.width)?,
        ],
    )?;
    Ok(out)
}

/// The stem's pooling of `relu(scale·x + shift)`, to the first channels of a block's rows.
pub(super) fn stem_pool<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Memory>,
    (maps, pitch): (&mut M::Memory, usize),
) -> Result<()> {
    let n = grid.strided().rows() * x.channels;
    machine.launch(
        "stem_pool",
        Blocks::for_values(n),
        &mut [
            x.memory.into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            maps.into(),
            long(n),
            int(x.channels)?,
            int(pitch)?,
            int(grid.height)?,
            int(grid.width)?,
        ],
    )
}

/// The gradient of [`stem_pool`] in front of the ReLU, without gaps.
pub(super) fn stem_unpool<M: Machine>(
    machine: &M,
    gradient: &M::Memory,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Memory>,
    mean: View<'_, M::Memory>,
) -> Result<(M::Memory, Parts<M::Memory>)> {
    let rows = grid.rows();
    let mut out = machine.alloc_activations(rows * x.channels)?;
    let parts = Parts::sum(
        machine,
        "stem_unpool_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            (&mut out).into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            mean.into(),
        ],
        &[grid.height, grid.width],
    )?;
    Ok((out, parts))
}

/// `relu(scale·x + shift)` as maps N×C×H×W of single precision.
pub(super) fn feature_maps<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Memory>,
) -> Result<M::Memory> {
    let n = grid.rows() * x.channels;
    let mut out = machine.alloc(n)?;
    machine.launch(
        "feature_maps",
        Blocks::for_values(n),
        &mut [
            x.memory.into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            (&mut out).into(),
            long(n),
            int(x.channels)?,
            int(x.pitch)?,
            int(grid.height * grid.width)?,
        ],
    )?;
    Ok(out)
}

/// The gradient of [`feature_maps`] as that of a block, which it fills.
pub(super) fn feature_gradient<M: Machine>(
    machine: &M,
    gradient: View<'_, M::Memory>,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Memory>,
    mean: View<'_, M::Memory>,
) -> Result<(M::Memory, Parts<M::Memory>)> {
    let rows = grid.rows();
    let mut out = machine.alloc_activations(rows * x.pitch)?;
    let parts = Parts::sum(
        machine,
        "feature_gradient_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            (&mut out).into(),
            (&scales.scale).into(),
            (&scales.shift).into(),
            mean.into(),
        ],
        &[x.pitch, grid.height * grid.width],
    )?;
    Ok((out, parts))
}

/// A weight of single precision and its shape: outputs, inputs, taps of the kernel, inputs when packed.
#[derive(Debug, Clone, Copy)]
pub(super) struct WeightShape {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) taps: usize,
    pub(super) packed_inputs: usize,
}

/// A weight as activations O×K²×J.
pub(super) fn pack_weight<M: Machine>(
    machine: &M,
    weight: View<'_, M::Memory>,
    shape: WeightShape,
) -> Result<M::Memory> {
    let n = shape.outputs * shape.taps * shape.packed_inputs;
    let mut out = machine.alloc_activations(n)?;
    machine.launch(
        "pack_weight",
        blocks_for_weight(n)?,
        &mut [
            weight.into(),
            (&mut out).into(),
            int(n)?,
            int(shape.inputs)?,
            int(shape.taps)?,
            int(shape.packed_inputs)?,
        ],
    )?;
    Ok(out)
}

/// The gradient of such a weight as the weight was.
pub(super) fn unpack_weight<M: Machine>(
    machine: &M,
    gradient: &M::Memory,
    shape: WeightShape,
) -> Result<M::Memory> {
    let n = shape.outputs * shape.taps * shape.inputs;
    let mut out = machine.alloc(n)?;
    machine.launch(
        "unpack_weight",
        blocks_for_weight(n)?,
        &mut [
            gradient.into(),
            (&mut out).into(),
            int(n)?,
            int(shape.inputs)?,
            int(shape.taps)?,
            int(shape.packed_inputs)?,
        ],
    )?;
    Ok(out)
}

/// The kernels of weights count in `int`, strides included.
fn blocks_for_weight(n: usize) -> Result<Blocks> {
    let blocks = Blocks::for_values(n);
    let last = n + blocks.x as usize * THREADS;
    if i32::try_from(last).is_err() {
        bail!("a GPU takes weights of up to two billion values, got {n}");
    }
    Ok(blocks)
}
