//! The kernels on rows (N×H×W×C), one function each.

use std::ops::{Deref, DerefMut};

use candle_core::{Result, bail};

use super::calls::int;
use super::machine::{Argument, Blocks, Machine, THREADS, View, pack};

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
pub(super) struct Rows<'a, M: ?Sized> {
    pub(super) memory: &'a M,
    pub(super) channels: usize,
    /// Values from one row to the next.
    pub(super) pitch: usize,
}

impl<M: ?Sized> Clone for Rows<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: ?Sized> Copy for Rows<'_, M> {}

impl<'a, M: ?Sized> Rows<'a, M> {
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
pub(super) struct ChannelStatistics<O> {
    pub(super) mean: O,
    pub(super) variance: O,
}

impl<O: Deref> ChannelStatistics<O> {
    pub(super) fn mean_view(&self) -> View<'_, O::Target> {
        View::from(&*self.mean)
    }
}

/// A normalisation as `scale·x + shift`.
pub(super) struct Scales<O> {
    pub(super) scale: O,
    pub(super) shift: O,
    /// 1/√(variance + ε).
    pub(super) inverse: O,
}

impl<O> Scales<O> {
    fn alloc<N: Machine<Owned = O>>(machine: &N, channels: usize) -> Result<Self> {
        Ok(Self {
            scale: machine.alloc(channels)?,
            shift: machine.alloc(channels)?,
            inverse: machine.alloc(channels)?,
        })
    }
}

/// What is to be added to the gradient of channels x besides what is there: `of_x·x + constant`.
pub(super) struct Corrections<O> {
    pub(super) of_x: O,
    pub(super) constant: O,
}

impl<O> Corrections<O> {
    pub(super) fn alloc<N: Machine<Owned = O>>(machine: &N, channels: usize) -> Result<Self> {
        Ok(Self {
            of_x: machine.alloc(channels)?,
            constant: machine.alloc(channels)?,
        })
    }
}

/// Parts of Σ g and Σ g·(x − mean), or of Σ x and Σ x².
pub(super) struct Parts<O> {
    memory: O,
    number: u32,
}

/// How a sum over rows is cut: `lanes` packs of channels by so many rows a block, `blocks.y` parts.
#[derive(Debug, Clone, Copy)]
struct Cut {
    lanes: usize,
    blocks: Blocks,
}

impl Cut {
    fn new(rows: usize, packs: usize) -> Self {
        /// Rows that a thread takes at least.
        const ROWS_A_THREAD: usize = 4;
        /// Blocks that keep a large GPU busy.
        const BLOCKS: usize = 1024;
        const MOST_PARTS: usize = 512;
        // Neighbouring lanes read neighbouring memory, but a lane without channels does nothing.
        let wasted = |lanes: usize| packs.next_multiple_of(lanes) - packs;
        let lanes = [32, 16, 8, 4, 2].into_iter();
        let lanes = lanes.filter(|&lanes| 8 * wasted(lanes) <= packs);
        let lanes = lanes.max().unwrap_or(1);
        let x = packs.div_ceil(lanes);
        let parts = (BLOCKS / x).clamp(1, MOST_PARTS);
        let parts = parts.min(rows.div_ceil(ROWS_A_THREAD * (THREADS / lanes)));
        let blocks = Blocks {
            x: x as u32,
            y: parts.max(1) as u32,
        };
        Self { lanes, blocks }
    }
}

impl<O> Parts<O> {
    /// Starts a kernel that sums over rows. Its arguments are `first`, the parts, the numbers of rows, of channels and of
    /// lanes, and `sizes`.
    fn sum<N: Machine<Owned = O>>(
        machine: &N,
        kernel: &'static str,
        (rows, channels): (usize, usize),
        first: Vec<Argument<'_, N::Memory, N::Table>>,
        sizes: &[usize],
    ) -> Result<Self>
    where
        O: DerefMut<Target = N::Memory>,
    {
        let Cut { lanes, blocks } = Cut::new(rows, channels / pack(machine.precision()));
        let mut memory = machine.alloc(4 * channels * blocks.y as usize)?;
        let mut arguments = first;
        arguments.push((&mut *memory).into());
        for &size in [rows, channels, lanes].iter().chain(sizes) {
            arguments.push(int(size)?);
        }
        machine.launch(kernel, blocks, &mut arguments)?;
        drop(arguments);
        Ok(Self {
            memory,
            number: blocks.y,
        })
    }
}

/// Blocks for a thread for every pack of `rows` rows.
fn by_pack<M: Machine>(machine: &M, rows: usize, channels: usize) -> Result<Blocks> {
    let blocks = Blocks::for_values(rows * channels / pack(machine.precision()));
    // Threads count rows in `int`, a step beyond the last included.
    if i32::try_from(rows + blocks.x as usize * THREADS).is_err() {
        bail!("a GPU takes up to two billion pixels at once, got {rows}");
    }
    Ok(blocks)
}

/// Sums of new channels, from which their statistics are made.
pub(super) struct NewChannels<O> {
    shifts: O,
    parts: Parts<O>,
    channels: usize,
    rows: usize,
}

/// The sums of `x`.
pub(super) fn sums<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    rows: usize,
) -> Result<NewChannels<M::Owned>> {
    let channels = x.channels;
    let mut shifts = machine.alloc(channels)?;
    let parts = Parts::sum(
        machine,
        "row_statistics_parts",
        (rows, channels),
        vec![x.memory.into(), (&mut *shifts).into()],
        &[x.pitch],
    )?;
    Ok(NewChannels {
        shifts,
        parts,
        channels,
        rows,
    })
}

/// As [`append`], and the sums of `x`.
pub(super) fn append_and_sum<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    rows: usize,
    (maps, pitch): (&mut M::Memory, usize),
    first: usize,
) -> Result<NewChannels<M::Owned>> {
    let channels = x.channels;
    let mut shifts = machine.alloc(channels)?;
    let parts = Parts::sum(
        machine,
        "append_parts",
        (rows, channels),
        vec![x.memory.into(), maps.into(), (&mut *shifts).into()],
        &[pitch, first],
    )?;
    Ok(NewChannels {
        shifts,
        parts,
        channels,
        rows,
    })
}

/// A normalisation of all channels up to the new ones, whose statistics are made of their sums and written to `into`,
/// behind those of the `first` channels before them.
pub(super) fn new_scales<M: Machine>(
    machine: &M,
    new: &NewChannels<M::Owned>,
    into: &mut ChannelStatistics<M::Owned>,
    first: usize,
    [weight, bias]: [View<'_, M::Memory>; 2],
    eps: f64,
) -> Result<Scales<M::Owned>> {
    let channels = first + new.channels;
    let mut scales = Scales::alloc(machine, channels)?;
    machine.launch(
        "statistics_affine",
        Blocks::for_channels(channels),
        &mut [
            (&*new.shifts).into(),
            (&*new.parts.memory).into(),
            (&mut *into.mean).into(),
            (&mut *into.variance).into(),
            weight.into(),
            bias.into(),
            (&mut *scales.scale).into(),
            (&mut *scales.shift).into(),
            (&mut *scales.inverse).into(),
            Argument::Int(new.parts.number as i32),
            int(new.rows)?,
            int(first)?,
            int(channels)?,
            Argument::Float(eps as f32),
        ],
    )?;
    Ok(scales)
}

/// A normalisation of the first `channels` channels.
pub(super) fn scales<M: Machine>(
    machine: &M,
    [mean, variance, weight, bias]: [View<'_, M::Memory>; 4],
    channels: usize,
    eps: f64,
) -> Result<Scales<M::Owned>> {
    let mut scales = Scales::alloc(machine, channels)?;
    machine.launch(
        "affine",
        Blocks::for_each(channels),
        &mut [
            mean.into(),
            variance.into(),
            weight.into(),
            bias.into(),
            (&mut *scales.scale).into(),
            (&mut *scales.shift).into(),
            (&mut *scales.inverse).into(),
            int(channels)?,
            Argument::Float(eps as f32),
        ],
    )?;
    Ok(scales)
}

/// `relu(scale·x + shift)`, without gaps.
pub(super) fn activate<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    rows: usize,
    scales: &Scales<M::Owned>,
) -> Result<M::Owned> {
    let mut out = machine.alloc_activations(rows * x.channels)?;
    machine.launch(
        "activate",
        by_pack(machine, rows, x.channels)?,
        &mut [
            x.memory.into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
            (&mut *out).into(),
            int(rows)?,
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
    machine.launch(
        "append",
        by_pack(machine, rows, x.channels)?,
        &mut [
            x.memory.into(),
            maps.into(),
            int(rows)?,
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
    corrections: &Corrections<M::Owned>,
    (first, channels): (usize, usize),
) -> Result<M::Owned> {
    let mut out = machine.alloc_activations(rows * channels)?;
    let from = |memory| View {
        memory,
        offset: first,
    };
    machine.launch(
        "take_gradient",
        by_pack(machine, rows, channels)?,
        &mut [
            gradient.into(),
            maps.memory.into(),
            from(&*corrections.of_x).into(),
            from(&*corrections.constant).into(),
            (&mut *out).into(),
            int(rows)?,
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
    scales: &Scales<M::Owned>,
    corrections: &Corrections<M::Owned>,
) -> Result<()> {
    machine.launch(
        "combine",
        by_pack(machine, rows, x.channels)?,
        &mut [
            gradient.into(),
            x.memory.into(),
            (&*scales.scale).into(),
            (&*corrections.of_x).into(),
            (&*corrections.constant).into(),
            int(rows)?,
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
    scales: &Scales<M::Owned>,
    mean: View<'_, M::Memory>,
) -> Result<Parts<M::Owned>> {
    let parts = Parts::sum(
        machine,
        "mask_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
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
    scales: &Scales<M::Owned>,
    mean: View<'_, M::Memory>,
    sum: &mut M::Memory,
) -> Result<Parts<M::Owned>> {
    let parts = Parts::sum(
        machine,
        "add_masked_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            sum.into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
            mean.into(),
        ],
        &[x.pitch],
    )?;
    Ok(parts)
}

/// Gradients of a normalisation's weight and, behind it, bias, to `gradients` from `first` on; what its statistics add to
/// the gradient of x goes to `corrections`, to what is there where `is_added`.
#[expect(
    clippy::too_many_arguments,
    reason = "the inputs and outputs of an operation"
)]
pub(super) fn norm_gradients<M: Machine>(
    machine: &M,
    parts: &Parts<M::Owned>,
    mean: View<'_, M::Memory>,
    scales: &Scales<M::Owned>,
    (channels, count): (usize, usize),
    corrections: &mut Corrections<M::Owned>,
    is_added: bool,
    (gradients, first): (&mut M::Memory, usize),
) -> Result<()> {
    machine.launch(
        "norm_gradients",
        Blocks::for_channels(channels),
        &mut [
            (&*parts.memory).into(),
            mean.into(),
            (&*scales.inverse).into(),
            (&*scales.scale).into(),
            Argument::Write(gradients, first),
            (&mut *corrections.of_x).into(),
            (&mut *corrections.constant).into(),
            Argument::Int(parts.number as i32),
            int(channels)?,
            int(count)?,
            Argument::Int(i32::from(is_added)),
        ],
    )
}

/// The mean over 2×2 pixels of `relu(scale·x + shift)`, without gaps.
pub(super) fn activate_pool<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Owned>,
) -> Result<M::Owned> {
    let rows = grid.halved().rows();
    let mut out = machine.alloc_activations(rows * x.channels)?;
    machine.launch(
        "activate_pool",
        by_pack(machine, rows, x.channels)?,
        &mut [
            x.memory.into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
            (&mut *out).into(),
            int(rows)?,
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
    scales: &Scales<M::Owned>,
    mean: View<'_, M::Memory>,
) -> Result<(M::Owned, Parts<M::Owned>)> {
    let rows = grid.rows();
    let mut out = machine.alloc_activations(rows * x.pitch)?;
    let parts = Parts::sum(
        machine,
        "unpool_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            (&mut *out).into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
            mean.into(),
        ],
        &[x.pitch, grid.height, grid.width],
    )?;
    Ok((out, parts))
}

/// Images N×3×H×W, single precision, as rows of one pack, zeros behind the three channels.
pub(super) fn image_rows<M: Machine>(
    machine: &M,
    images: View<'_, M::Memory>,
    grid: Grid,
) -> Result<M::Owned> {
    let positions = grid.height * grid.width;
    let mut out = machine.alloc_activations(pack(machine.precision()) * grid.rows())?;
    machine.launch(
        "image_rows",
        Blocks::for_images(positions, grid.images)?,
        &mut [images.into(), (&mut *out).into(), int(positions)?],
    )?;
    Ok(out)
}

/// The stem's pooling of `relu(scale·x + shift)`, to the first channels of a block's rows; which pixel of each window has
/// its maximum, a byte for each, is what the backward pass needs.
pub(super) fn stem_pool<M: Machine>(
    machine: &M,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Owned>,
    (maps, pitch): (&mut M::Memory, usize),
) -> Result<M::Owned> {
    let rows = grid.strided().rows();
    let mut places = machine.alloc((rows * x.channels).div_ceil(size_of::<f32>()))?;
    machine.launch(
        "stem_pool",
        by_pack(machine, rows, x.channels)?,
        &mut [
            x.memory.into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
            maps.into(),
            (&mut *places).into(),
            int(rows)?,
            int(x.channels)?,
            int(pitch)?,
            int(grid.height)?,
            int(grid.width)?,
        ],
    )?;
    Ok(places)
}

/// The gradient of [`stem_pool`] in front of the ReLU, without gaps.
pub(super) fn stem_unpool<M: Machine>(
    machine: &M,
    gradient: &M::Memory,
    places: &M::Memory,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    mean: View<'_, M::Memory>,
) -> Result<(M::Owned, Parts<M::Owned>)> {
    let rows = grid.rows();
    let mut out = machine.alloc_activations(rows * x.channels)?;
    let parts = Parts::sum(
        machine,
        "stem_unpool_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            places.into(),
            x.memory.into(),
            (&mut *out).into(),
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
    scales: &Scales<M::Owned>,
    out: &mut M::Memory,
) -> Result<()> {
    let positions = grid.height * grid.width;
    let n = positions * x.channels;
    machine.launch(
        "feature_maps",
        Blocks::for_images(n, grid.images)?,
        &mut [
            x.memory.into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
            out.into(),
            int(n)?,
            int(x.pitch)?,
            int(positions)?,
        ],
    )
}

/// The gradient of [`feature_maps`] as that of a block, which it fills.
pub(super) fn feature_gradient<M: Machine>(
    machine: &M,
    gradient: View<'_, M::Memory>,
    x: Rows<'_, M::Memory>,
    grid: Grid,
    scales: &Scales<M::Owned>,
    mean: View<'_, M::Memory>,
) -> Result<(M::Owned, Parts<M::Owned>)> {
    let rows = grid.rows();
    let mut out = machine.alloc_activations(rows * x.pitch)?;
    let parts = Parts::sum(
        machine,
        "feature_gradient_parts",
        (rows, x.channels),
        vec![
            gradient.into(),
            x.memory.into(),
            (&mut *out).into(),
            (&*scales.scale).into(),
            (&*scales.shift).into(),
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
) -> Result<M::Owned> {
    let n = shape.outputs * shape.taps * shape.packed_inputs;
    let mut out = machine.alloc_activations(n)?;
    pack_weight_to(machine, weight, shape, &mut out)?;
    Ok(out)
}

/// The same to a memory that is there.
pub(super) fn pack_weight_to<M: Machine>(
    machine: &M,
    weight: View<'_, M::Memory>,
    shape: WeightShape,
    out: &mut M::Memory,
) -> Result<()> {
    let n = shape.outputs * shape.taps * shape.packed_inputs;
    machine.launch(
        "pack_weight",
        blocks_for_weight(n)?,
        &mut [
            weight.into(),
            out.into(),
            int(n)?,
            int(shape.inputs)?,
            int(shape.taps)?,
            int(shape.packed_inputs)?,
        ],
    )
}

/// The gradient of such a weight as the weight was, to `out` from `first` on.
pub(super) fn unpack_weight<M: Machine>(
    machine: &M,
    gradient: &M::Memory,
    shape: WeightShape,
    (out, first): (&mut M::Memory, usize),
) -> Result<()> {
    let n = shape.outputs * shape.taps * shape.inputs;
    machine.launch(
        "unpack_weight",
        blocks_for_weight(n)?,
        &mut [
            gradient.into(),
            Argument::Write(out, first),
            int(n)?,
            int(shape.inputs)?,
            int(shape.taps)?,
            int(shape.packed_inputs)?,
        ],
    )
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
