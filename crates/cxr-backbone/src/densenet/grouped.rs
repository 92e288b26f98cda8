//! A DenseNet on grouped maps, in one operation: the fast path of the network in the module above.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor};
use cxr_ops::grouped::{
    Buffer, ChannelStatistics, Correction, DenseLayer, DenseLayerGradients, DenseLayerKernels,
    DenseLayerTape, DenseLayerWeights, Extent, Grouping, NormGradients, NormWeights, Pass, Pool,
    RunningStatistics, Stem, StemTape, StemWeights, Tail, Transition, TransitionWeights,
};
use cxr_ops::{BatchNorm, BatchStatistics, Fused, Precision, apply_fused};

use super::{DenseNet, DenseNetConfig};

/// Unused lanes cost as much as used ones. Where they would multiply the work by more than this, single
/// operations on candle's own layout are faster.
const LARGEST_WASTE: f64 = 4.;

/// How the maps of a DenseNet are grouped.
#[derive(Debug)]
pub(super) struct Plan {
    stem: Stem,
    blocks: Vec<Block>,
    tail: Tail,
    eps: f64,
    pool: Pool,
}

#[derive(Debug)]
struct Block {
    layers: Vec<DenseLayer>,
    /// Behind every block but the last.
    transition: Option<Transition>,
}

impl Block {
    fn kernels(
        &self,
        weights: &BlockWeights<'_>,
        extent: Extent,
        pass: Pass,
        pool: &Pool,
    ) -> Vec<DenseLayerKernels> {
        DenseLayer::kernels(&self.layers, &weights.layers, extent, pass, pool)
    }

    fn groups(&self) -> usize {
        self.layers
            .last()
            .map_or(0, |layer| layer.input.groups() + layer.output.groups())
    }
}

impl Plan {
    /// The plan for a network, if it pays.
    pub(super) fn new(config: &DenseNetConfig) -> Option<Self> {
        let bottleneck = Grouping::of(config.bottleneck_size * config.growth_rate);
        let output = Grouping::of(config.growth_rate);
        let mut maps = Grouping::of(config.stem_channels);
        let stem = Stem {
            output: maps.clone(),
        };
        let mut blocks = Vec::new();
        for (index, &layers) in config.block_layers.iter().enumerate() {
            let layers = (0..layers)
                .map(|_| {
                    let layer = DenseLayer {
                        input: maps.clone(),
                        bottleneck: bottleneck.clone(),
                        output: output.clone(),
                    };
                    maps.append(config.growth_rate);
                    layer
                })
                .collect();
            let is_last = index + 1 == config.block_layers.len();
            let transition = (!is_last).then(|| {
                let output = Grouping::of(maps.maps() / 2);
                let input = std::mem::replace(&mut maps, output.clone());
                Transition { input, output }
            });
            blocks.push(Block { layers, transition });
        }
        let plan = Self {
            stem,
            blocks,
            tail: Tail { input: maps },
            eps: config.norm.eps,
            pool: Pool::default(),
        };
        (plan.waste() <= LARGEST_WASTE).then_some(plan)
    }

    /// The weights of the dense layers with those of unused lanes, by those without.
    fn waste(&self) -> f64 {
        let (mut padded, mut used) = (0., 0.);
        for layer in self.blocks.iter().flat_map(|block| &block.layers) {
            let weights = |maps: fn(&Grouping) -> usize| {
                let (input, narrow) = (maps(&layer.input), maps(&layer.bottleneck));
                (input * narrow + 9 * narrow * maps(&layer.output)) as f64
            };
            padded += weights(|grouping| 32 * grouping.groups());
            used += weights(Grouping::maps);
        }
        padded / used
    }

    /// Whether images of this extent leave every layer something to work on, and in training more than
    /// one value per map.
    pub(super) fn takes(&self, extent: Extent) -> bool {
        let last = self.blocks[1..]
            .iter()
            .fold(Stem::pooled(extent), |extent, _| extent.halved());
        last.images * last.pixels() > 1
    }

    /// Room for the maps of a block.
    fn buffer(&self, block: usize, extent: Extent) -> Buffer {
        let groups = self.blocks[block].groups();
        self.pool.take(extent.images * groups * extent.pixels())
    }

    /// The shape of the features, where those of the last block are of `extent`.
    fn feature_shape(&self, extent: Extent) -> Shape {
        let maps = self.tail.input.maps();
        (extent.images, maps, extent.height, extent.width).into()
    }

    /// The extents of the blocks for images of `extent`.
    fn extents(&self, extent: Extent) -> Vec<Extent> {
        std::iter::successors(Some(Stem::pooled(extent)), |extent| Some(extent.halved()))
            .take(self.blocks.len())
            .collect()
    }
}

/// Feature maps in training: batch statistics, which are recorded, and gradients for every parameter.
pub(super) fn train(network: &DenseNet, plan: &Arc<Plan>, images: &Tensor) -> Result<Tensor> {
    let (count, _, height, width) = images.dims4()?;
    let op = Training {
        plan: plan.clone(),
        extent: Extent {
            images: count,
            height,
            width,
        },
        norms: network.norms().cloned().collect(),
        precision: Precision::current(),
    };
    let inputs: Vec<Tensor> = std::iter::once(images)
        .chain(network.trained())
        .cloned()
        .collect();
    apply_fused(op, &inputs)
}

struct Training {
    plan: Arc<Plan>,
    extent: Extent,
    /// In the order of [`DenseNet::norms`].
    norms: Vec<BatchNorm>,
    precision: Precision,
}

/// What the backward pass needs.
struct Tape {
    stem: StemTape,
    blocks: Vec<BlockTape>,
}

struct BlockTape {
    maps: Buffer,
    statistics: Vec<ChannelStatistics>,
    layers: Vec<DenseLayerTape>,
}

/// Feature maps in evaluation: running statistics, no gradients.
pub(super) fn evaluate(network: &DenseNet, plan: &Arc<Plan>, images: &Tensor) -> Result<Tensor> {
    let (count, _, height, width) = images.dims4()?;
    let op = Evaluation {
        plan: plan.clone(),
        extent: Extent {
            images: count,
            height,
            width,
        },
    };
    let inputs: Vec<Tensor> = std::iter::once(images)
        .chain(network.evaluated())
        .map(Tensor::detach)
        .collect();
    apply_fused(op, &inputs)
}

struct Evaluation {
    plan: Arc<Plan>,
    extent: Extent,
}

impl Fused for Evaluation {
    type Tape = ();

    fn name(&self) -> &'static str {
        "densenet"
    }

    fn forward(&self, inputs: &[&[f32]]) -> Result<(Vec<f32>, Shape, ())> {
        let [images, parameters @ ..] = inputs else {
            candle_core::bail!("densenet: expected images");
        };
        let plan = &*self.plan;
        let (pool, weights) = (&plan.pool, Weights::read(plan, parameters, true)?);
        let extents = plan.extents(self.extent);
        let mut maps = plan.buffer(0, extents[0]);
        plan.stem
            .evaluate(weights.stem, self.extent, images, &mut maps, pool);
        for (index, (block, weights)) in plan.blocks.iter().zip(&weights.blocks).enumerate() {
            let kernels = block.kernels(weights, extents[index], Pass::Evaluate, pool);
            let layers = block.layers.iter().zip(&weights.layers).zip(&kernels);
            for ((layer, weights), kernels) in layers {
                layer.evaluate(*weights, kernels, extents[index], &mut maps, pool);
            }
            if let (Some(transition), Some(weights)) = (&block.transition, weights.transition) {
                let mut next = plan.buffer(index + 1, extents[index + 1]);
                transition.evaluate(weights, extents[index], &maps, &mut next, pool);
                maps = next;
            }
        }
        let extent = extents[extents.len() - 1];
        let features = plan.tail.evaluate(weights.tail, extent, &maps, pool);
        Ok((features, plan.feature_shape(extent), ()))
    }

    fn backward(&self, _: &[&[f32]], (): &(), _: &[f32]) -> Result<Vec<Option<Vec<f32>>>> {
        candle_core::bail!("densenet: evaluation has no gradients")
    }
}

/// The values of the parameters, in the order of [`DenseNet::trained`].
struct Weights<'a> {
    stem: StemWeights<'a>,
    blocks: Vec<BlockWeights<'a>>,
    tail: NormWeights<'a>,
}

struct BlockWeights<'a> {
    layers: Vec<DenseLayerWeights<'a>>,
    transition: Option<TransitionWeights<'a>>,
}

impl<'a> Weights<'a> {
    fn read(plan: &Plan, inputs: &[&'a [f32]], is_evaluation: bool) -> Result<Self> {
        let mut reader = Reader {
            values: inputs.iter(),
            eps: plan.eps,
            is_evaluation,
        };
        let stem = StemWeights {
            conv: reader.next()?,
            norm: reader.norm()?,
        };
        let blocks = plan
            .blocks
            .iter()
            .map(|block| {
                let layers = block.layers.iter().map(|_| reader.dense_layer());
                Ok(BlockWeights {
                    layers: layers.collect::<Result<_>>()?,
                    transition: match block.transition {
                        Some(_) => Some(reader.transition()?),
                        None => None,
                    },
                })
            })
            .collect::<Result<_>>()?;
        let tail = reader.norm()?;
        Ok(Self { stem, blocks, tail })
    }
}

struct Reader<'a, 'b> {
    values: std::slice::Iter<'b, &'a [f32]>,
    eps: f64,
    /// Whether running statistics stand behind each normalisation's weight and bias.
    is_evaluation: bool,
}

impl<'a> Reader<'a, '_> {
    fn next(&mut self) -> Result<&'a [f32]> {
        match self.values.next() {
            Some(values) => Ok(values),
            None => candle_core::bail!("a DenseNet's parameters end early"),
        }
    }

    fn norm(&mut self) -> Result<NormWeights<'a>> {
        Ok(NormWeights {
            weight: self.next()?,
            bias: self.next()?,
            eps: self.eps,
            running: match self.is_evaluation {
                true => Some(RunningStatistics {
                    mean: self.next()?,
                    variance: self.next()?,
                }),
                false => None,
            },
        })
    }

    fn dense_layer(&mut self) -> Result<DenseLayerWeights<'a>> {
        Ok(DenseLayerWeights {
            norm1: self.norm()?,
            conv1: self.next()?,
            norm2: self.norm()?,
            conv2: self.next()?,
        })
    }

    fn transition(&mut self) -> Result<TransitionWeights<'a>> {
        Ok(TransitionWeights {
            norm: self.norm()?,
            conv: self.next()?,
        })
    }
}

impl Training {
    fn run(&self, images: &[f32], weights: &Weights<'_>) -> (Vec<f32>, Tape) {
        let Plan {
            stem,
            blocks,
            tail,
            pool,
            ..
        } = &*self.plan;
        let extents = self.plan.extents(self.extent);
        let mut maps = self.plan.buffer(0, extents[0]);
        let (mut statistics, stem) =
            stem.forward(weights.stem, self.extent, images, &mut maps, pool);
        let mut tapes = Vec::with_capacity(blocks.len());
        for (index, (block, weights)) in blocks.iter().zip(&weights.blocks).enumerate() {
            let extent = extents[index];
            let mut layers = Vec::with_capacity(block.layers.len());
            let kernels = block.kernels(weights, extent, Pass::Forward(self.precision), pool);
            let of_layers = block.layers.iter().zip(&weights.layers).zip(&kernels);
            for ((layer, weights), kernels) in of_layers {
                let (new, tape) =
                    layer.forward(*weights, kernels, extent, &mut maps, &statistics, pool);
                statistics.extend(new);
                layers.push(tape);
            }
            let next = match (&block.transition, weights.transition) {
                (Some(transition), Some(weights)) => {
                    let mut next = self.plan.buffer(index + 1, extents[index + 1]);
                    let known =
                        transition.forward(weights, extent, &maps, &statistics, &mut next, pool);
                    Some((next, known))
                }
                _ => None,
            };
            let (next_maps, next_statistics) = next.unwrap_or_else(|| (pool.take(0), Vec::new()));
            tapes.push(BlockTape {
                maps: std::mem::replace(&mut maps, next_maps),
                statistics: std::mem::replace(&mut statistics, next_statistics),
                layers,
            });
        }
        let features = match (tapes.last(), extents.last()) {
            (Some(last), Some(&extent)) => {
                tail.forward(weights.tail, extent, &last.maps, &last.statistics, pool)
            }
            _ => Vec::new(),
        };
        let tape = Tape {
            stem,
            blocks: tapes,
        };
        (features, tape)
    }

    /// Every normalisation's statistics, in the order of [`DenseNet::norms`].
    fn statistics(&self, tape: &Tape) -> Vec<BatchStatistics> {
        let of = ChannelStatistics::of_maps;
        let mut all = vec![of(&self.plan.stem.output, &tape.stem.statistics)];
        for (block, tape) in self.plan.blocks.iter().zip(&tape.blocks) {
            for (layer, layer_tape) in block.layers.iter().zip(&tape.layers) {
                all.push(of(&layer.input, &tape.statistics));
                all.push(of(&layer.bottleneck, &layer_tape.statistics));
            }
            if let Some(transition) = &block.transition {
                all.push(of(&transition.input, &tape.statistics));
            }
        }
        all.extend(
            tape.blocks
                .last()
                .map(|last| of(&self.plan.tail.input, &last.statistics)),
        );
        all
    }
}

impl Fused for Training {
    type Tape = Tape;

    fn name(&self) -> &'static str {
        "densenet"
    }

    fn forward(&self, inputs: &[&[f32]]) -> Result<(Vec<f32>, Shape, Tape)> {
        let [images, parameters @ ..] = inputs else {
            candle_core::bail!("densenet: expected images");
        };
        let weights = Weights::read(&self.plan, parameters, false)?;
        let (features, tape) = self.run(images, &weights);
        for (norm, statistics) in self.norms.iter().zip(self.statistics(&tape)) {
            norm.record(&statistics)?;
        }
        let extents = self.plan.extents(self.extent);
        let shape = self.plan.feature_shape(extents[extents.len() - 1]);
        Ok((features, shape, tape))
    }

    fn backward(
        &self,
        inputs: &[&[f32]],
        tape: &Tape,
        of_features: &[f32],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let [images, parameters @ ..] = inputs else {
            candle_core::bail!("densenet: expected images");
        };
        let weights = Weights::read(&self.plan, parameters, false)?;
        let Plan {
            stem,
            blocks,
            tail,
            pool,
            ..
        } = &*self.plan;
        let extents = self.plan.extents(self.extent);
        // Gradients from the last parameter to the first.
        let mut gradients: Vec<Vec<f32>> = Vec::with_capacity(parameters.len());
        let push_norm = |gradients: &mut Vec<Vec<f32>>, norm: NormGradients| {
            gradients.push(norm.bias);
            gradients.push(norm.weight);
        };
        let mut behind: Option<(Buffer, Vec<Correction>)> = None;
        for index in (0..blocks.len()).rev() {
            let (block, weights_here, block_tape) =
                (&blocks[index], &weights.blocks[index], &tape.blocks[index]);
            let (maps, statistics) = (&*block_tape.maps, &*block_tape.statistics);
            let extent = extents[index];
            let mut gradient = pool.take(maps.len());
            let mut corrections = match (&block.transition, weights_here.transition, behind) {
                (Some(transition), Some(weights), Some((of_next, corrections))) => {
                    let (of_transition, corrections) = transition.backward(
                        weights,
                        extent,
                        (maps, statistics),
                        (&tape.blocks[index + 1].maps, &of_next),
                        &corrections,
                        &mut gradient,
                        pool,
                    );
                    gradients.push(of_transition.conv);
                    push_norm(&mut gradients, of_transition.norm);
                    corrections
                }
                _ => {
                    let norm = tail.backward(
                        weights.tail,
                        extent,
                        maps,
                        statistics,
                        of_features,
                        &mut gradient,
                        pool,
                    );
                    push_norm(&mut gradients, norm);
                    vec![Correction::NONE; block.groups()]
                }
            };
            let kernels = block.kernels(weights_here, extent, Pass::Backward(self.precision), pool);
            let layers = block.layers.iter().zip(&weights_here.layers);
            let layers = layers.zip(&kernels).zip(&block_tape.layers);
            for (((layer, weights), kernels), layer_tape) in layers.rev() {
                let DenseLayerGradients {
                    norm1,
                    conv1,
                    norm2,
                    conv2,
                } = layer.backward(
                    *weights,
                    kernels,
                    layer_tape,
                    extent,
                    maps,
                    &mut gradient,
                    &mut corrections,
                    pool,
                );
                gradients.push(conv2);
                push_norm(&mut gradients, norm2);
                gradients.push(conv1);
                push_norm(&mut gradients, norm1);
            }
            behind = Some((gradient, corrections));
        }
        if let (Some((of_maps, corrections)), Some(first)) = (behind, tape.blocks.first()) {
            let of_stem = stem.backward(
                weights.stem,
                &tape.stem,
                self.extent,
                images,
                &first.maps,
                &of_maps,
                &corrections,
                pool,
            );
            push_norm(&mut gradients, of_stem.norm);
            gradients.push(of_stem.conv);
        }
        let of_parameters = gradients.into_iter().rev().map(Some);
        Ok(std::iter::once(None).chain(of_parameters).collect())
    }
}
