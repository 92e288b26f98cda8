//! From images to feature maps, in training and in evaluation.

use candle_core::{Result, bail};

use super::{BlockTape, DenseNetPlan, LayerTape, Statistics, Tape};
use crate::gpu::machine::{Machine, Matrix, Pass, Product, View};
use crate::gpu::rows::{
    self, ChannelStatistics, Grid, NewChannels, Rows, Scales, WeightShape, activate, pack_weight,
};

/// Parameters in the order in which the network has them.
struct Reader<'a, M: ?Sized> {
    parameters: std::slice::Iter<'a, View<'a, M>>,
}

impl<'a, M: ?Sized> Reader<'a, M> {
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

/// What is new in front of a normalisation: the sums of its last channels, where the batch's count.
type New<O> = Option<NewChannels<O>>;

impl<N: Machine> Forward<'_, N> {
    fn is_of_batch(&self) -> bool {
        matches!(self.statistics, Statistics::OfBatch)
    }

    fn channel_statistics(&self, channels: usize) -> Result<ChannelStatistics<N::Owned>> {
        let channels = if self.is_of_batch() { channels } else { 1 };
        Ok(ChannelStatistics {
            mean: self.machine.alloc(channels)?,
            variance: self.machine.alloc(channels)?,
        })
    }

    /// The sums of new channels.
    fn sums(&self, x: Rows<'_, N::Memory>, rows: usize) -> Result<New<N::Owned>> {
        match self.is_of_batch() {
            true => Ok(Some(rows::sums(self.machine, x, rows)?)),
            false => Ok(None),
        }
    }

    /// Appends new channels to a block's rows, with their sums.
    fn append(
        &self,
        x: Rows<'_, N::Memory>,
        rows: usize,
        maps: (&mut N::Memory, usize),
        first: usize,
    ) -> Result<New<N::Owned>> {
        if self.is_of_batch() {
            let new = rows::append_and_sum(self.machine, x, rows, maps, first)?;
            return Ok(Some(new));
        }
        rows::append(self.machine, x, rows, maps, first)?;
        Ok(None)
    }

    /// The next normalisation, of all channels up to the new ones from `first` on, whose statistics go to `of_batch`.
    fn scales(
        &mut self,
        of_batch: &mut ChannelStatistics<N::Owned>,
        new: &New<N::Owned>,
        (first, channels): (usize, usize),
    ) -> Result<Scales<N::Owned>> {
        let (weight, bias) = (self.reader.next()?, self.reader.next()?);
        let index = self.norms;
        self.norms += 1;
        match (&self.statistics, new) {
            (Statistics::OfBatch, Some(new)) => {
                let affine = [weight, bias];
                rows::new_scales(self.machine, new, of_batch, first, affine, self.eps)
            }
            (Statistics::OfBatch, None) => bail!("a normalisation by the batch has no sums"),
            (Statistics::Running(all), _) => {
                let Some(&[mean, variance]) = all.get(index) else {
                    bail!("a DenseNet's running statistics end early");
                };
                let values = [mean, variance, weight, bias];
                rows::scales(self.machine, values, channels, self.eps)
            }
        }
    }

    /// The next parameter, as activations.
    fn weight(&mut self, shape: WeightShape) -> Result<N::Owned> {
        pack_weight(self.machine, self.reader.next()?, shape)
    }
}

/// Feature maps N×C×H×W, single precision, of images N×3×H×W, to `features`. `parameters` are those of the network from
/// images to features: each convolution's weight, each normalisation's weight and bias.
pub(in crate::gpu) fn forward<N: Machine>(
    machine: &N,
    plan: &DenseNetPlan,
    images: (View<'_, N::Memory>, Grid),
    parameters: &[View<'_, N::Memory>],
    statistics: Statistics<'_, N::Memory>,
    features: &mut N::Memory,
) -> Result<Tape<N::Owned>> {
    let precision = machine.precision();
    if !plan.is_fitting(precision) {
        bail!("a DenseNet on rows needs channels by fours, in bf16 by eights, got {plan:?}");
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
    let weight = pass.weight(plan.stem_weight(precision))?;
    let mut stem = machine.alloc_activations(stem_grid.rows() * plan.stem_maps)?;
    let of_stem = Pass::Forward {
        input: (&*image_rows).into(),
        weight: (&*weight).into(),
    };
    machine.convolve(&plan.stem(image_grid, precision), of_stem, &mut stem)?;
    drop(weight);
    let stem_rows = Rows::packed(&*stem, plan.stem_maps);
    let mut stem_statistics = pass.channel_statistics(plan.stem_maps)?;
    let new = pass.sums(stem_rows, stem_grid.rows())?;
    let channels = (0, plan.stem_maps);
    let stem_scales = pass.scales(&mut stem_statistics, &new, channels)?;

    let blocks = plan.blocks(stem_grid.strided());
    let mut tapes: Vec<BlockTape<N::Owned>> = Vec::with_capacity(blocks.len());
    let mut stem_places = None;
    // The channels that no normalisation has seen yet, and the first of them.
    let (mut new, mut first_new) = (None, 0);
    for block in blocks {
        let (rows, pitch) = (block.grid.rows(), block.channels);
        let mut maps = machine.alloc_activations(rows * pitch)?;
        let mut statistics = pass.channel_statistics(pitch)?;
        match tapes.last_mut() {
            None => {
                let out = (&mut *maps, pitch);
                let places = rows::stem_pool(machine, stem_rows, stem_grid, &stem_scales, out)?;
                stem_places = Some(places);
            }
            Some(before) => {
                let channels = before.block.channels;
                let scales = pass.scales(&mut before.statistics, &new, (first_new, channels))?;
                let of_maps = Rows::packed(&*before.maps, channels);
                let pooled = rows::activate_pool(machine, of_maps, before.block.grid, &scales)?;
                let weight = pass.weight(WeightShape {
                    outputs: block.first,
                    inputs: channels,
                    taps: 1,
                    packed_inputs: channels,
                })?;
                let sizes = (channels, block.first);
                multiply_by_weight(machine, (&pooled, rows), &weight, sizes, (&mut maps, pitch))?;
                before.transition = Some((scales, weight));
            }
        }
        let firsts = Rows {
            memory: &*maps,
            channels: block.first,
            pitch,
        };
        (new, first_new) = (pass.sums(firsts, rows)?, 0);
        let mut layers = Vec::with_capacity(block.layers);
        for layer in 0..block.layers {
            let inputs = block.first + layer * plan.growth;
            let scales1 = pass.scales(&mut statistics, &new, (first_new, inputs))?;
            let weight1 = pass.weight(plan.narrow_weight(inputs))?;
            let mut bottleneck = machine.alloc_activations(rows * plan.narrow)?;
            {
                let x = Rows {
                    memory: &*maps,
                    channels: inputs,
                    pitch,
                };
                let activated = activate(machine, x, rows, &scales1)?;
                let out = (&mut *bottleneck, plan.narrow);
                let sizes = (inputs, plan.narrow);
                multiply_by_weight(machine, (&activated, rows), &weight1, sizes, out)?;
            }
            let narrow = Rows::packed(&*bottleneck, plan.narrow);
            let mut statistics2 = pass.channel_statistics(plan.narrow)?;
            let of_narrow = pass.sums(narrow, rows)?;
            let scales2 = pass.scales(&mut statistics2, &of_narrow, (0, plan.narrow))?;
            let weight2 = pass.weight(plan.grow_weight())?;
            let mut grown = machine.alloc_activations(rows * plan.growth)?;
            {
                let activated = activate(machine, narrow, rows, &scales2)?;
                let grow = Pass::Forward {
                    input: (&*activated).into(),
                    weight: (&*weight2).into(),
                };
                machine.convolve(&plan.grow(block.grid), grow, &mut grown)?;
            }
            let grown = Rows::packed(&*grown, plan.growth);
            first_new = inputs;
            new = pass.append(grown, rows, (&mut *maps, pitch), first_new)?;
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
    let (Some(last), Some(stem_places)) = (tapes.last_mut(), stem_places) else {
        bail!("a DenseNet needs at least one block");
    };
    let channels = last.block.channels;
    let tail_scales = pass.scales(&mut last.statistics, &new, (first_new, channels))?;
    let of_maps = Rows::packed(&*last.maps, channels);
    rows::feature_maps(machine, of_maps, last.block.grid, &tail_scales, features)?;
    Ok(Tape {
        images: image_grid,
        image_rows,
        stem,
        stem_statistics,
        stem_scales,
        stem_places,
        blocks: tapes,
        tail_scales,
    })
}

/// `out = x·weightᵀ`, a 1×1 convolution of so many inputs and outputs.
fn multiply_by_weight<N: Machine>(
    machine: &N,
    (x, rows): (&N::Memory, usize),
    weight: &N::Memory,
    (inputs, outputs): (usize, usize),
    (out, out_pitch): (&mut N::Memory, usize),
) -> Result<()> {
    machine.multiply(Product {
        rows,
        columns: outputs,
        inner: inputs,
        left: Matrix::plain(x, inputs),
        right: Matrix::transposed(weight, inputs),
        out,
        out_offset: 0,
        out_pitch,
        is_out_single: false,
    })
}
