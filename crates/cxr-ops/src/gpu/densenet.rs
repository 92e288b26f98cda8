//! A DenseNet with a backward pass by hand, on rows (N×H×W×C).
//!
//! As [`crate::grouped`] does it on the CPU: a block is one buffer to whose rows each layer appends its maps; only
//! outputs of convolutions are kept, normalisation and ReLU are recomputed; a channel's statistics are
//! taken once; what a normalisation's statistics add to the gradient of its input waits per channel until
//! that gradient is read. 1×1 convolutions are products over all rows.

use candle_core::{Result, bail};

use super::machine::{Convolution, Machine, Matrix, Pass, Product, View};
use super::rows::{
    self, ChannelStatistics, Corrections, Grid, Rows, Scales, WeightShape, activate,
    norm_gradients, pack_weight, unpack_weight,
};

/// The sizes of a DenseNet.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseNetPlan {
    /// Maps out of the stem.
    pub stem_maps: usize,
    /// New maps of each layer.
    pub growth: usize,
    /// Maps between a layer's two convolutions.
    pub narrow: usize,
    /// Layers of each block.
    pub block_layers: Vec<usize>,
    /// ε of all normalisations.
    pub eps: f64,
}

/// A block's channels and the grid of its rows.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// Channels before its first layer.
    first: usize,
    layers: usize,
    /// All of them.
    channels: usize,
    grid: Grid,
}

impl DenseNetPlan {
    /// Whether the kernels, which move four channels at once, take it.
    pub fn is_fitting(&self) -> bool {
        let blocks = self.blocks(Grid {
            images: 1,
            height: 1,
            width: 1,
        });
        [self.stem_maps, self.growth, self.narrow]
            .into_iter()
            .chain(blocks.iter().map(|block| block.first))
            .all(|channels| channels > 0 && channels.is_multiple_of(4))
    }

    /// The shapes of the parameters, from images to features: each convolution's weight, each normalisation's weight
    /// and bias.
    pub fn parameter_shapes(&self) -> Vec<Vec<usize>> {
        let norm = |channels: usize| [vec![channels], vec![channels]];
        let mut shapes = vec![vec![self.stem_maps, 3, 7, 7]];
        shapes.extend(norm(self.stem_maps));
        let mut maps = self.stem_maps;
        for (index, &layers) in self.block_layers.iter().enumerate() {
            if index > 0 {
                shapes.extend(norm(maps));
                shapes.push(vec![maps / 2, maps, 1, 1]);
                maps /= 2;
            }
            for _ in 0..layers {
                shapes.extend(norm(maps));
                shapes.push(vec![self.narrow, maps, 1, 1]);
                shapes.extend(norm(self.narrow));
                shapes.push(vec![self.growth, self.narrow, 3, 3]);
                maps += self.growth;
            }
        }
        shapes.extend(norm(maps));
        shapes
    }

    fn blocks(&self, pooled: Grid) -> Vec<Block> {
        let (mut first, mut grid) = (self.stem_maps, pooled);
        let each = self.block_layers.iter();
        each.map(|&layers| {
            let channels = first + layers * self.growth;
            let block = Block {
                first,
                layers,
                channels,
                grid,
            };
            (first, grid) = (channels / 2, grid.halved());
            block
        })
        .collect()
    }

    /// Maps out of the last block.
    pub(super) fn feature_maps(&self) -> usize {
        let blocks = self.blocks(Grid {
            images: 1,
            height: 1,
            width: 1,
        });
        blocks.last().map_or(self.stem_maps, |block| block.channels)
    }

    /// The grid of the features.
    pub(super) fn feature_grid(&self, images: Grid) -> Grid {
        let blocks = self.blocks(images.strided().strided());
        blocks.last().map_or(images, |block| block.grid)
    }

    fn narrow_weight(&self, inputs: usize) -> WeightShape {
        WeightShape {
            outputs: self.narrow,
            inputs,
            taps: 1,
            packed_inputs: inputs,
        }
    }

    fn grow_weight(&self) -> WeightShape {
        WeightShape {
            outputs: self.growth,
            inputs: self.narrow,
            taps: 9,
            packed_inputs: self.narrow,
        }
    }

    fn stem_weight(&self) -> WeightShape {
        WeightShape {
            outputs: self.stem_maps,
            inputs: 3,
            taps: 49,
            packed_inputs: 4,
        }
    }

    fn stem(&self, images: Grid) -> Convolution {
        Convolution {
            images: images.images,
            height: images.height,
            width: images.width,
            inputs: 4,
            outputs: self.stem_maps,
            kernel: 7,
            stride: 2,
            padding: 3,
        }
    }

    fn grow(&self, grid: Grid) -> Convolution {
        Convolution {
            images: grid.images,
            height: grid.height,
            width: grid.width,
            inputs: self.narrow,
            outputs: self.growth,
            kernel: 3,
            stride: 1,
            padding: 1,
        }
    }
}

/// With what a pass normalises.
pub(super) enum Statistics<'a, M> {
    /// The batch's own.
    OfBatch,
    /// Mean and variance of every normalisation, from images to features.
    Running(&'a [[View<'a, M>; 2]]),
}

/// What the backward pass needs.
pub(super) struct Tape<M> {
    images: Grid,
    image_rows: M,
    stem: M,
    stem_statistics: ChannelStatistics<M>,
    stem_scales: Scales<M>,
    blocks: Vec<BlockTape<M>>,
    tail_scales: Scales<M>,
}

struct BlockTape<M> {
    block: Block,
    maps: M,
    statistics: ChannelStatistics<M>,
    layers: Vec<LayerTape<M>>,
    /// Behind every block but the last: the normalisation, and the weight as activations.
    transition: Option<(Scales<M>, M)>,
}

struct LayerTape<M> {
    /// Channels of the bottleneck.
    narrow: usize,
    scales1: Scales<M>,
    bottleneck: M,
    statistics2: ChannelStatistics<M>,
    scales2: Scales<M>,
    /// Both weights as activations.
    weights: [M; 2],
}

/// Parameters in the order in which the network has them.
struct Reader<'a, M> {
    parameters: std::slice::Iter<'a, View<'a, M>>,
}

impl<'a, M> Reader<'a, M> {
    fn next(&mut self) -> Result<View<'a, M>> {
        match self.parameters.next() {
            Some(view) => Ok(*view),
            None => bail!("a DenseNet's parameters end early"),
        }
    }
}

/// One forward pass at work.
struct Forward<'a, N: Machine> {
    machine: &'a N,
    reader: Reader<'a, N::Memory>,
    statistics: Statistics<'a, N::Memory>,
    norms: usize,
    eps: f64,
}

impl<N: Machine> Forward<'_, N> {
    fn is_of_batch(&self) -> bool {
        matches!(self.statistics, Statistics::OfBatch)
    }

    fn channel_statistics(&self, channels: usize) -> Result<ChannelStatistics<N::Memory>> {
        let channels = if self.is_of_batch() { channels } else { 1 };
        Ok(ChannelStatistics {
            mean: self.machine.alloc(channels)?,
            variance: self.machine.alloc(channels)?,
        })
    }

    /// Takes the statistics of new channels, where the batch's count.
    fn take(
        &self,
        x: Rows<'_, N::Memory>,
        rows: usize,
        into: &mut ChannelStatistics<N::Memory>,
        first: usize,
    ) -> Result<()> {
        if self.is_of_batch() {
            rows::statistics(self.machine, x, rows, into, first)?;
        }
        Ok(())
    }

    /// The next normalisation, whose weight and bias are the next parameters.
    fn scales(
        &mut self,
        of_batch: &ChannelStatistics<N::Memory>,
        channels: usize,
    ) -> Result<Scales<N::Memory>> {
        let (weight, bias) = (self.reader.next()?, self.reader.next()?);
        let index = self.norms;
        self.norms += 1;
        let [mean, variance] = match self.statistics {
            Statistics::OfBatch => [(&of_batch.mean).into(), (&of_batch.variance).into()],
            Statistics::Running(all) => match all.get(index) {
                Some(statistics) => *statistics,
                None => bail!("a DenseNet's running statistics end early"),
            },
        };
        rows::scales(
            self.machine,
            [mean, variance, weight, bias],
            channels,
            self.eps,
        )
    }

    /// The next parameter, as activations.
    fn weight(&mut self, shape: WeightShape) -> Result<N::Memory> {
        pack_weight(self.machine, self.reader.next()?, shape)
    }
}

/// Feature maps N×C×H×W, single precision, of images N×3×H×W. `parameters` are those of the network from images to
/// features: each convolution's weight, each normalisation's weight and bias.
pub(super) fn forward<N: Machine>(
    machine: &N,
    plan: &DenseNetPlan,
    images: (View<'_, N::Memory>, Grid),
    parameters: &[View<'_, N::Memory>],
    statistics: Statistics<'_, N::Memory>,
) -> Result<(N::Memory, Tape<N::Memory>)> {
    if !plan.is_fitting() {
        bail!("a DenseNet on rows needs channels by fours, got {plan:?}");
    }
    let (images, image_grid) = images;
    let mut pass = Forward {
        machine,
        reader: Reader {
            parameters: parameters.iter(),
        },
        statistics,
        norms: 0,
        eps: plan.eps,
    };
    let stem_grid = image_grid.strided();
    let image_rows = rows::image_rows(machine, images, image_grid)?;
    let weight = pass.weight(plan.stem_weight())?;
    let mut stem = machine.alloc_activations(stem_grid.rows() * plan.stem_maps)?;
    let input = &image_rows;
    let of_stem = Pass::Forward {
        input,
        weight: &weight,
    };
    machine.convolve(&plan.stem(image_grid), of_stem, &mut stem)?;
    let stem_rows = Rows::packed(&stem, plan.stem_maps);
    let mut stem_statistics = pass.channel_statistics(plan.stem_maps)?;
    pass.take(stem_rows, stem_grid.rows(), &mut stem_statistics, 0)?;
    let stem_scales = pass.scales(&stem_statistics, plan.stem_maps)?;

    let mut tapes: Vec<BlockTape<N::Memory>> = Vec::with_capacity(plan.block_layers.len());
    for block in plan.blocks(stem_grid.strided()) {
        let (rows, pitch) = (block.grid.rows(), block.channels);
        let mut maps = machine.alloc_activations(rows * pitch)?;
        let mut statistics = pass.channel_statistics(pitch)?;
        match tapes.last_mut() {
            None => {
                let out = (&mut maps, pitch);
                rows::stem_pool(machine, stem_rows, stem_grid, &stem_scales, out)?;
            }
            Some(before) => {
                let of_maps = Rows::packed(&before.maps, before.block.channels);
                let scales = pass.scales(&before.statistics, before.block.channels)?;
                let pooled = rows::activate_pool(machine, of_maps, before.block.grid, &scales)?;
                let weight = pass.weight(WeightShape {
                    outputs: block.first,
                    inputs: before.block.channels,
                    taps: 1,
                    packed_inputs: before.block.channels,
                })?;
                multiply_by_weight(
                    machine,
                    (&pooled, rows),
                    &weight,
                    before.block.channels,
                    block.first,
                    (&mut maps, pitch),
                )?;
                before.transition = Some((scales, weight));
            }
        }
        let firsts = Rows {
            memory: &maps,
            channels: block.first,
            pitch,
        };
        pass.take(firsts, rows, &mut statistics, 0)?;
        let mut layers = Vec::with_capacity(block.layers);
        for layer in 0..block.layers {
            let inputs = block.first + layer * plan.growth;
            let x = Rows {
                memory: &maps,
                channels: inputs,
                pitch,
            };
            let scales1 = pass.scales(&statistics, inputs)?;
            let weight1 = pass.weight(plan.narrow_weight(inputs))?;
            let mut bottleneck = machine.alloc_activations(rows * plan.narrow)?;
            {
                let activated = activate(machine, x, rows, &scales1)?;
                let out = (&mut bottleneck, plan.narrow);
                multiply_by_weight(
                    machine,
                    (&activated, rows),
                    &weight1,
                    inputs,
                    plan.narrow,
                    out,
                )?;
            }
            let narrow = Rows::packed(&bottleneck, plan.narrow);
            let mut statistics2 = pass.channel_statistics(plan.narrow)?;
            pass.take(narrow, rows, &mut statistics2, 0)?;
            let scales2 = pass.scales(&statistics2, plan.narrow)?;
            let weight2 = pass.weight(plan.grow_weight())?;
            let activated = activate(machine, narrow, rows, &scales2)?;
            let mut new = machine.alloc_activations(rows * plan.growth)?;
            let grow = Pass::Forward {
                input: &activated,
                weight: &weight2,
            };
            machine.convolve(&plan.grow(block.grid), grow, &mut new)?;
            let new = Rows::packed(&new, plan.growth);
            pass.take(new, rows, &mut statistics, inputs)?;
            rows::append(machine, new, rows, (&mut maps, pitch), inputs)?;
            // In evaluation nobody comes back.
            if pass.is_of_batch() {
                layers.push(LayerTape {
                    narrow: plan.narrow,
                    scales1,
                    bottleneck,
                    statistics2,
                    scales2,
                    weights: [weight1, weight2],
                });
            }
        }
        if !pass.is_of_batch() {
            tapes.clear();
        }
        tapes.push(BlockTape {
            block,
            maps,
            statistics,
            layers,
            transition: None,
        });
    }
    let Some(last) = tapes.last() else {
        bail!("a DenseNet needs at least one block");
    };
    let tail_scales = pass.scales(&last.statistics, last.block.channels)?;
    let of_maps = Rows::packed(&last.maps, last.block.channels);
    let features = rows::feature_maps(machine, of_maps, last.block.grid, &tail_scales)?;
    let tape = Tape {
        images: image_grid,
        image_rows,
        stem,
        stem_statistics,
        stem_scales,
        blocks: tapes,
        tail_scales,
    };
    Ok((features, tape))
}

/// `out = x·weightᵀ`: a 1×1 convolution.
fn multiply_by_weight<N: Machine>(
    machine: &N,
    (x, rows): (&N::Memory, usize),
    weight: &N::Memory,
    inputs: usize,
    outputs: usize,
    (out, out_pitch): (&mut N::Memory, usize),
) -> Result<()> {
    machine.multiply(Product {
        rows,
        columns: outputs,
        inner: inputs,
        left: Matrix {
            memory: x,
            pitch: inputs,
            is_transposed: false,
        },
        right: Matrix {
            memory: weight,
            pitch: inputs,
            is_transposed: true,
        },
        out,
        out_pitch,
        is_out_single: false,
    })
}

/// The gradients of a 1×1 convolution `x·weightᵀ`: of x, and of the weight in single precision.
fn multiply_backward<N: Machine>(
    machine: &N,
    gradient: &N::Memory,
    (x, rows): (&N::Memory, usize),
    weight: &N::Memory,
    inputs: usize,
    outputs: usize,
) -> Result<(N::Memory, N::Memory)> {
    let plain = |memory, pitch| Matrix {
        memory,
        pitch,
        is_transposed: false,
    };
    let mut of_weight = machine.alloc(outputs * inputs)?;
    machine.multiply(Product {
        rows: outputs,
        columns: inputs,
        inner: rows,
        left: Matrix {
            is_transposed: true,
            ..plain(gradient, outputs)
        },
        right: plain(x, inputs),
        out: &mut of_weight,
        out_pitch: inputs,
        is_out_single: true,
    })?;
    let mut of_x = machine.alloc_activations(rows * inputs)?;
    machine.multiply(Product {
        rows,
        columns: inputs,
        inner: outputs,
        left: plain(gradient, outputs),
        right: plain(weight, inputs),
        out: &mut of_x,
        out_pitch: inputs,
        is_out_single: false,
    })?;
    Ok((of_x, of_weight))
}

impl<M> Tape<M> {
    /// Mean and variance of every normalisation, from images to features, with the number of its channels and of the
    /// values behind each.
    pub(super) fn statistics(&self) -> Vec<([View<'_, M>; 2], usize, usize)> {
        fn of<M>(statistics: &ChannelStatistics<M>) -> [View<'_, M>; 2] {
            [(&statistics.mean).into(), (&statistics.variance).into()]
        }
        let stem_channels = self.blocks.first().map_or(0, |tape| tape.block.first);
        let stem_count = self.images.strided().rows();
        let mut all = vec![(of(&self.stem_statistics), stem_channels, stem_count)];
        for (index, tape) in self.blocks.iter().enumerate() {
            let count = tape.block.grid.rows();
            let growth = (tape.block.channels - tape.block.first) / tape.block.layers.max(1);
            if let Some(before) = index
                .checked_sub(1)
                .and_then(|index| self.blocks.get(index))
            {
                let channels = before.block.channels;
                all.push((of(&before.statistics), channels, before.block.grid.rows()));
            }
            for (layer, layer_tape) in tape.layers.iter().enumerate() {
                all.push((
                    of(&tape.statistics),
                    tape.block.first + layer * growth,
                    count,
                ));
                all.push((of(&layer_tape.statistics2), layer_tape.narrow, count));
            }
        }
        if let Some(last) = self.blocks.last() {
            all.push((
                of(&last.statistics),
                last.block.channels,
                last.block.grid.rows(),
            ));
        }
        all
    }
}

/// The gradients of all parameters, in their order, from that of the feature maps.
pub(super) fn backward<N: Machine>(
    machine: &N,
    plan: &DenseNetPlan,
    tape: &Tape<N::Memory>,
    gradient: View<'_, N::Memory>,
) -> Result<Vec<N::Memory>> {
    let Some(last) = tape.blocks.last() else {
        bail!("a DenseNet needs at least one block");
    };
    // From the last parameter to the first.
    let mut gradients: Vec<N::Memory> = Vec::new();
    let push_norm = |gradients: &mut Vec<N::Memory>, [weight, bias]: [N::Memory; 2]| {
        gradients.push(bias);
        gradients.push(weight);
    };
    let channels = last.block.channels;
    let of_maps = Rows::packed(&last.maps, channels);
    let mut corrections = Corrections::alloc(machine, channels)?;
    let (grid, scales) = (last.block.grid, &tape.tail_scales);
    let (mut of_block, parts) = rows::feature_gradient(
        machine,
        gradient,
        of_maps,
        grid,
        scales,
        last.statistics.mean_view(),
    )?;
    let count = (channels, grid.rows());
    let mean_of_last = last.statistics.mean_view();
    let norm = norm_gradients(
        machine,
        &parts,
        mean_of_last,
        scales,
        count,
        &mut corrections,
        false,
    )?;
    push_norm(&mut gradients, norm);

    for (index, block_tape) in tape.blocks.iter().enumerate().rev() {
        let (block, maps) = (
            block_tape.block,
            Rows::packed(&block_tape.maps, block_tape.block.channels),
        );
        let (rows, block_mean) = (block.grid.rows(), block_tape.statistics.mean_view());
        for (layer, layer_tape) in block_tape.layers.iter().enumerate().rev() {
            let inputs = block.first + layer * plan.growth;
            let narrow = Rows::packed(&layer_tape.bottleneck, plan.narrow);
            let own = (inputs, plan.growth);
            let of_new = rows::take_gradient(machine, &of_block, maps, rows, &corrections, own)?;
            let grow = plan.grow(block.grid);
            let [weight1, weight2] = &layer_tape.weights;
            let shape2 = plan.grow_weight();
            let of_weight2 = {
                let activated = activate(machine, narrow, rows, &layer_tape.scales2)?;
                let mut packed = machine
                    .alloc_activations(shape2.outputs * shape2.taps * shape2.packed_inputs)?;
                let pass = Pass::OfWeight {
                    gradient: &of_new,
                    input: &activated,
                };
                machine.convolve(&grow, pass, &mut packed)?;
                unpack_weight(machine, &packed, shape2)?
            };
            let mut of_narrow = machine.alloc_activations(rows * plan.narrow)?;
            let pass = Pass::OfInput {
                gradient: &of_new,
                weight: weight2,
            };
            machine.convolve(&grow, pass, &mut of_narrow)?;
            let (scales2, mean2) = (&layer_tape.scales2, layer_tape.statistics2.mean_view());
            let parts = rows::mask(machine, &mut of_narrow, narrow, rows, scales2, mean2)?;
            let mut corrections2 = Corrections::alloc(machine, plan.narrow)?;
            let count = (plan.narrow, rows);
            let norm2 = norm_gradients(
                machine,
                &parts,
                mean2,
                scales2,
                count,
                &mut corrections2,
                false,
            )?;
            rows::combine(
                machine,
                &mut of_narrow,
                narrow,
                rows,
                scales2,
                &corrections2,
            )?;

            let x = Rows {
                channels: inputs,
                ..maps
            };
            let scales1 = &layer_tape.scales1;
            let activated = activate(machine, x, rows, scales1)?;
            let (of_x, of_weight1) = multiply_backward(
                machine,
                &of_narrow,
                (&activated, rows),
                weight1,
                inputs,
                plan.narrow,
            )?;
            drop(activated);
            let parts =
                rows::add_masked(machine, &of_x, x, rows, scales1, block_mean, &mut of_block)?;
            let count = (inputs, rows);
            let norm1 = norm_gradients(
                machine,
                &parts,
                block_mean,
                scales1,
                count,
                &mut corrections,
                true,
            )?;
            gradients.push(of_weight2);
            push_norm(&mut gradients, norm2);
            gradients.push(of_weight1);
            push_norm(&mut gradients, norm1);
        }
        let own = (0, block.first);
        let of_first = rows::take_gradient(machine, &of_block, maps, rows, &corrections, own)?;
        let before = index
            .checked_sub(1)
            .and_then(|index| tape.blocks.get(index));
        let Some((before, (scales, weight))) =
            before.and_then(|before| Some((before, before.transition.as_ref()?)))
        else {
            let stem = Rows::packed(&tape.stem, plan.stem_maps);
            let grid = tape.images.strided();
            let (scales, mean) = (&tape.stem_scales, tape.stem_statistics.mean_view());
            let (mut of_stem, parts) =
                rows::stem_unpool(machine, &of_first, stem, grid, scales, mean)?;
            let mut corrections = Corrections::alloc(machine, plan.stem_maps)?;
            let count = (plan.stem_maps, grid.rows());
            let norm = norm_gradients(
                machine,
                &parts,
                mean,
                scales,
                count,
                &mut corrections,
                false,
            )?;
            rows::combine(
                machine,
                &mut of_stem,
                stem,
                grid.rows(),
                scales,
                &corrections,
            )?;
            let shape = plan.stem_weight();
            let mut packed =
                machine.alloc_activations(shape.outputs * shape.taps * shape.packed_inputs)?;
            let pass = Pass::OfWeight {
                gradient: &of_stem,
                input: &tape.image_rows,
            };
            machine.convolve(&plan.stem(tape.images), pass, &mut packed)?;
            push_norm(&mut gradients, norm);
            gradients.push(unpack_weight(machine, &packed, shape)?);
            break;
        };
        let channels = before.block.channels;
        let of_maps = Rows::packed(&before.maps, channels);
        let pooled = rows::activate_pool(machine, of_maps, before.block.grid, scales)?;
        let (of_pooled, of_weight) = multiply_backward(
            machine,
            &of_first,
            (&pooled, rows),
            weight,
            channels,
            block.first,
        )?;
        drop(pooled);
        let (grid, mean) = (before.block.grid, before.statistics.mean_view());
        let (of_before, parts) = rows::unpool(machine, &of_pooled, of_maps, grid, scales, mean)?;
        let mut next = Corrections::alloc(machine, channels)?;
        let count = (channels, grid.rows());
        let norm = norm_gradients(machine, &parts, mean, scales, count, &mut next, false)?;
        gradients.push(of_weight);
        push_norm(&mut gradients, norm);
        (of_block, corrections) = (of_before, next);
    }
    gradients.reverse();
    Ok(gradients)
}
