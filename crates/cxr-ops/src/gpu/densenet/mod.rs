//! A DenseNet with a backward pass by hand, on rows (N×H×W×C).
//!
//! As [`crate::grouped`] does it on the CPU: a block is one buffer to whose rows each layer appends its maps; only
//! outputs of convolutions are kept, normalisation and ReLU are recomputed; a channel's statistics are
//! taken once; what a normalisation's statistics add to the gradient of its input waits per channel until
//! that gradient is read. 1×1 convolutions are products over all rows.

mod backward;
mod forward;

use std::ops::Deref;

use super::machine::{Convolution, View, pack};
use super::rows::{ChannelStatistics, Grid, Scales, WeightShape};
use crate::Precision;

pub(super) use backward::backward;
pub(super) use forward::forward;

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
    /// Whether the kernels take it, which move 16 bytes at once: channels come by fours, in bf16 by eights.
    pub fn is_fitting(&self, precision: Precision) -> bool {
        let blocks = self.blocks(Grid::PIXEL);
        [self.stem_maps, self.growth, self.narrow]
            .into_iter()
            .chain(blocks.iter().map(|block| block.first))
            .all(|channels| channels > 0 && channels.is_multiple_of(pack(precision)))
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

    /// Values of all parameters.
    pub(super) fn n_parameters(&self) -> usize {
        let shapes = self.parameter_shapes();
        shapes
            .iter()
            .map(|shape| shape.iter().product::<usize>())
            .sum()
    }

    /// Maps out of the last block.
    pub(super) fn feature_maps(&self) -> usize {
        let blocks = self.blocks(Grid::PIXEL);
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

    fn stem_weight(&self, precision: Precision) -> WeightShape {
        WeightShape {
            outputs: self.stem_maps,
            inputs: 3,
            taps: 49,
            packed_inputs: pack(precision),
        }
    }

    /// The images' three channels are padded to one pack.
    fn stem(&self, images: Grid, precision: Precision) -> Convolution {
        Convolution {
            images: images.images,
            height: images.height,
            width: images.width,
            inputs: pack(precision),
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
pub(super) enum Statistics<'a, M: ?Sized> {
    /// The batch's own.
    OfBatch,
    /// Mean and variance of every normalisation, from images to features.
    Running(&'a [[View<'a, M>; 2]]),
}

/// What the backward pass needs.
pub(super) struct Tape<O> {
    images: Grid,
    image_rows: O,
    stem: O,
    stem_statistics: ChannelStatistics<O>,
    stem_scales: Scales<O>,
    /// Where the windows of the stem's pooling have their maxima.
    stem_places: O,
    blocks: Vec<BlockTape<O>>,
    tail_scales: Scales<O>,
}

struct BlockTape<O> {
    block: Block,
    maps: O,
    statistics: ChannelStatistics<O>,
    layers: Vec<LayerTape<O>>,
    /// Behind every block but the last: the normalisation, and the weight as activations.
    transition: Option<(Scales<O>, O)>,
}

struct LayerTape<O> {
    /// Channels of the bottleneck.
    narrow: usize,
    scales1: Scales<O>,
    bottleneck: O,
    statistics2: ChannelStatistics<O>,
    scales2: Scales<O>,
    /// Both weights as activations.
    weights: [O; 2],
}

/// Mean and variance of a normalisation, the number of its channels, and of the values behind each.
pub(super) type NormStatistics<'a, M> = ([View<'a, M>; 2], usize, usize);

impl<O: Deref> Tape<O> {
    /// Those of every normalisation, from images to features.
    pub(super) fn statistics(&self) -> Vec<NormStatistics<'_, O::Target>> {
        fn of<O: Deref>(statistics: &ChannelStatistics<O>) -> [View<'_, O::Target>; 2] {
            [&statistics.mean, &statistics.variance].map(|values| View::from(&**values))
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
