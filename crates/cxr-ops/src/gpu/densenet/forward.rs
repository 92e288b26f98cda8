//! From images to feature maps, in training and in evaluation.

use candle_core::{Result, bail};

use super::{BlockTape, DenseNetPlan, LayerTape, Statistics, Tape};
use crate::gpu::machine::{Machine, Matrix, Pass, Product, View};
use crate::gpu::rows::{
    self, ChannelStatistics, Grid, Rows, Scales, WeightShape, activate, pack_weight,
};

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
pub(in crate::gpu) fn forward<N: Machine>(
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
