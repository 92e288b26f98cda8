//! A network forwards and backwards, in one operation of candle's autograd.

use std::sync::Arc;

use candle_core::{Result, Shape, Tensor, bail};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::convolution::ConvKind;
use super::description::Operation;
use super::plan::Step;
use super::values::Values;
use super::{Network, Shared};
use crate::blocked::conv::Epilogue;
use crate::blocked::kernels::Kernels;
use crate::blocked::maps::Maps;
use crate::blocked::point::{self, Coefficients, Gradient, Norm};
use crate::blocked::pool::{self, Pooling};
use crate::blocked::winograd::Tile;
use crate::blocked::{
    Affine, Block, Extent, LANES, Nonlinearity, Sums, View, ZERO, by_block, layer_norm,
    response_norm,
};
use crate::fused::{Fused, apply_fused};
use crate::layers::dropout_key;
use crate::norm::{BatchStatistics, NormStatistics};
use crate::simd::with_vectors;

/// Features, with gradients for whatever takes part in autograd.
///
/// `image_keys` are those of a training step; without them batch normalisations use their running statistics, which
/// are constants, and nothing is dropped. With them they do in the scope of [`NormStatistics::Running`].
pub(super) fn forward(
    network: &Network,
    images: &Tensor,
    parameters: Vec<Tensor>,
    image_keys: Option<&[u64]>,
) -> Result<Tensor> {
    let (count, _, height, width) = images.dims4()?;
    if let Some(keys) = image_keys
        && keys.len() != count
    {
        bail!(
            "expected one key for each of {count} images, got {}",
            keys.len()
        );
    }
    let shared = network.shared.clone();
    let extents = shared.description.extents(count, height, width);
    let extents = extents.map_err(candle_core::Error::wrap)?;
    let mut inputs = vec![images.clone()];
    inputs.extend(parameters);
    let tracked: Vec<bool> = inputs.iter().map(Tensor::track_op).collect();
    let by_batch = image_keys.is_some() && NormStatistics::current() == NormStatistics::Batch;
    let running = match by_batch {
        true => None,
        false => Some(network.running_statistics()?),
    };
    let op = Training {
        needs: shared.needs(&tracked),
        tracked,
        running,
        norms: network.norms.clone(),
        image_keys: image_keys.map(<[u64]>::to_vec),
        extents,
        shared,
    };
    apply_fused(op, &inputs)
}

struct Training {
    shared: Arc<Shared>,
    extents: Vec<Extent>,
    /// Which inputs want a gradient.
    tracked: Vec<bool>,
    /// Which nodes' maps need one for that.
    needs: Vec<bool>,
    norms: Vec<Option<crate::BatchNorm>>,
    /// Mean and variance of each normalisation's node; `None` where they are the batch's.
    running: Option<Vec<Option<[Vec<f32>; 2]>>>,
    image_keys: Option<Vec<u64>>,
}

/// What the forward pass keeps.
struct Tape {
    values: Values,
    norms: Vec<Option<Norm>>,
}

impl Shared {
    /// Nodes that a gradient has to come to, where these inputs of the operation want one.
    fn needs(&self, tracked: &[bool]) -> Vec<bool> {
        let mut needs: Vec<bool> = Vec::with_capacity(self.description.nodes.len());
        for (index, node) in self.description.nodes.iter().enumerate() {
            let of_parameters = self.slots[index].clone().any(|slot| tracked[slot]);
            let of_images = index == 0 && tracked[0];
            needs.push(of_parameters || of_images || node.inputs.iter().any(|&input| needs[input]));
        }
        needs
    }
}

impl Training {
    fn view<'a>(&'a self, tape: &'a Tape, node: usize) -> View<'a> {
        tape.values.view(&self.shared.plan, &self.extents, node)
    }

    fn made<'a>(&'a self, tape: &'a Tape, node: usize) -> View<'a> {
        tape.values.made(&self.shared.plan, &self.extents, node)
    }

    fn conv(&self, node: usize) -> Option<ConvKind> {
        let Operation::Conv { layer, .. } = &self.shared.description.nodes[node].layer else {
            return None;
        };
        let input = self.shared.description.nodes[node].inputs[0];
        let (from, to) = (self.extents[input], self.extents[node]);
        Some(ConvKind::new(
            self.shared.description.window(node)?,
            layer.groups,
            from,
            to,
        ))
    }

    fn pooling(&self, node: usize) -> Option<Pooling> {
        let input = self.shared.description.nodes[node].inputs[0];
        let window = self.shared.description.window(node)?;
        Some(Pooling::new(
            window,
            self.extents[input],
            self.extents[node],
        ))
    }

    /// The affine map of a node, recorded where it is a batch's own.
    fn affine<S: Kernels>(
        &self,
        simd: S,
        node: usize,
        inputs: &[&[f32]],
        sums: &mut Option<Vec<Sums>>,
        tape: &mut Tape,
    ) -> Result<()> {
        let slots = self.shared.slots[node].clone();
        match &self.shared.description.nodes[node].layer {
            Operation::BatchNorm(config) => {
                let input = self.shared.description.nodes[node].inputs[0];
                let [weight, bias] = [inputs[slots.start], inputs[slots.start + 1]];
                let norm = if let Some(running) = &self.running {
                    let Some(Some([mean, variance])) = running.get(node) else {
                        bail!("a normalisation has no running statistics");
                    };
                    let [mean, variance] = [mean, variance]
                        .map(|values| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
                    Norm::new(&mean, &variance, weight, bias, config.eps, None)
                } else {
                    let extent = self.extents[input];
                    let count = extent.images * extent.pixels();
                    if count < 2 {
                        bail!(
                            "batch_norm: training needs at least two values per channel, got {count}; a training batch of one image is too small"
                        );
                    }
                    let sums = match sums.take() {
                        Some(sums) => sums,
                        None => point::statistics(simd, &self.view(tape, input)),
                    };
                    let statistics = batch_statistics(extent.maps, count, &sums);
                    if let Some(norm) = &self.norms[node] {
                        norm.record(&statistics)?;
                    }
                    let variance = &statistics.biased_variance;
                    let count = Some(count as f64);
                    Norm::new(&statistics.mean, variance, weight, bias, config.eps, count)
                };
                tape.values.affines[node] = Some(norm.affine.clone());
                tape.norms[node] = Some(norm);
            }
            Operation::LayerScale { .. } => {
                tape.values.affines[node] = Some(scaled(inputs[slots.start], None));
            }
            Operation::Rescale { scale, shift } => {
                tape.values.affines[node] = Some(scaled(scale, Some(shift)));
            }
            _ => {}
        }
        Ok(())
    }

    fn run<S: Kernels>(&self, simd: S, inputs: &[&[f32]]) -> Result<(Vec<f32>, Shape, Tape)> {
        let nodes = &self.shared.description.nodes;
        let pool = &self.shared.pool;
        let mut tape = Tape {
            values: Values::of(nodes.len()),
            norms: vec![None; nodes.len()],
        };
        // Of the outputs of convolutions that are normalised.
        let mut sums: Vec<Option<Vec<Sums>>> = vec![None; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            let extent = self.extents[index];
            let slots = self.shared.slots[index].clone();
            let first = node.inputs.first().copied().unwrap_or(0);
            let value = match &self.shared.plan.steps[index] {
                Step::Absorbed => None,
                Step::Images => Some(Maps::from_nchw(inputs[0], extent, pool)),
                Step::Conv => {
                    let Some(conv) = self.conv(index) else {
                        bail!("`{}` is no convolution", node.name);
                    };
                    let weight = inputs[slots.start];
                    let bias = inputs[slots].get(1).map(|bias| by_block(bias, 0.));
                    let mut out = Maps::take(extent, pool);
                    let mut of_images = (self.running.is_none()
                        && self.shared.is_normalised[index])
                        .then(|| vec![Sums::ZERO; extent.images * extent.blocks()]);
                    conv.forward(
                        simd,
                        (weight, None),
                        Tile::Small,
                        &self.view(&tape, first),
                        Epilogue {
                            bias: bias.as_deref(),
                            sums: of_images.as_deref_mut(),
                            finish: None,
                        },
                        pool,
                        &mut out,
                    );
                    sums[index] = of_images.map(|sums| Sums::over_images(&sums, extent.blocks()));
                    Some(out)
                }
                &Step::Point { input, affine, .. } => {
                    if let Some(affine) = affine {
                        self.affine(simd, affine, inputs, &mut sums[input], &mut tape)?;
                    }
                    self.copied(simd, &tape, index)
                }
                &Step::Gate { factors, .. } => {
                    tape.values.gates[index] = match (factors, &node.layer) {
                        (Some(factors), _) => {
                            tape.values.maps[factors].as_ref().map(|v| v.to_vec())
                        }
                        (None, Operation::StochasticDepth(rate)) => self
                            .image_keys
                            .as_ref()
                            .filter(|_| *rate > 0.)
                            .map(|keys| image_factors(keys, &node.name, *rate, extent.blocks())),
                        _ => None,
                    };
                    self.copied(simd, &tape, index)
                }
                &Step::Sum {
                    inputs: [a, b],
                    relu,
                } => {
                    let mut out = Maps::take(extent, pool);
                    let (a, b) = (self.view(&tape, a), self.view(&tape, b));
                    point::add(simd, &a, &b, relu, &mut out);
                    Some(out)
                }
                Step::LayerNorm => {
                    let Operation::LayerNorm { eps } = node.layer else {
                        bail!("`{}` is no normalisation of pixels", node.name);
                    };
                    let view = self.view(&tape, first);
                    let [weight, bias] = [inputs[slots.start], inputs[slots.start + 1]];
                    Some(layer_norm::forward(simd, &view, weight, bias, eps, pool))
                }
                Step::ResponseNorm => {
                    let Operation::ResponseNorm { eps } = node.layer else {
                        bail!("`{}` is no normalisation of responses", node.name);
                    };
                    let view = self.view(&tape, first);
                    let [weight, bias] = [inputs[slots.start], inputs[slots.start + 1]];
                    Some(response_norm::forward(simd, &view, weight, bias, eps, pool))
                }
                Step::Dropout => {
                    let mut out = Maps::take(extent, pool);
                    self.view(&tape, first).store(simd, &mut out);
                    self.drop_values(index, &mut out);
                    Some(out)
                }
                Step::Concat => {
                    let mut out = Maps::take(extent, pool);
                    let mut map = 0;
                    for &input in &node.inputs {
                        let view = self.view(&tape, input);
                        pool::place(simd, &view, map, extent, &mut out);
                        map += view.extent.maps;
                    }
                    Some(out)
                }
                Step::MaxPool | Step::AveragePool => {
                    let Some(pooling) = self.pooling(index) else {
                        bail!("`{}` is no pooling", node.name);
                    };
                    let mut out = Maps::take(extent, pool);
                    let view = self.view(&tape, first);
                    if self.shared.plan.steps[index] == Step::MaxPool {
                        pooling.max(simd, &view, &mut out);
                    } else {
                        pooling.average(simd, &view, &mut out);
                    }
                    Some(out)
                }
                Step::GlobalPool => {
                    let mut out = Maps::take(extent, pool);
                    pool::global_average(simd, &self.view(&tape, first), &mut out);
                    Some(out)
                }
                Step::LogSumExpPool => {
                    let Operation::LogSumExpPool(sharpness) = node.layer else {
                        bail!("`{}` is no pooling", node.name);
                    };
                    let mut out = Maps::take(extent, pool);
                    pool::log_sum_exp(simd, &self.view(&tape, first), sharpness, &mut out);
                    Some(out)
                }
            };
            tape.values.maps[index] = value;
        }
        let output = self.view(&tape, self.shared.description.output);
        let e = output.extent;
        let shape = (e.images, e.maps, e.height, e.width).into();
        Ok((output.to_nchw(simd), shape, tape))
    }

    /// The maps of a node that is made when read, stored if somebody needs that.
    fn copied<S: Kernels>(&self, simd: S, tape: &Tape, node: usize) -> Option<Maps> {
        self.shared.plan.is_stored(node).then(|| {
            let mut out = Maps::take(self.extents[node], &self.shared.pool);
            self.made(tape, node).store(simd, &mut out);
            out
        })
    }

    /// Multiplies maps by the mask of a dropout.
    fn drop_values(&self, node: usize, maps: &mut Maps) {
        let node = &self.shared.description.nodes[node];
        let (Operation::Dropout(rate), Some(keys)) = (&node.layer, &self.image_keys) else {
            return;
        };
        let (kept, threshold) = ((1. / (1. - rate)) as f32, (rate * 2f64.powi(32)) as u32);
        let extent = maps.extent();
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        for (maps, &key) in maps.chunks_exact_mut(blocks * plane).zip(keys) {
            let mut draws = ChaCha8Rng::from_seed(dropout_key(key, &node.name));
            // In the order of `N×C×H×W`.
            for map in 0..extent.maps {
                for pixel in &mut maps[map / LANES * plane..][..plane] {
                    let factor = if draws.next_u32() < threshold {
                        0.
                    } else {
                        kept
                    };
                    pixel[map % LANES] *= factor;
                }
            }
        }
    }

    fn back<S: Kernels>(
        &self,
        simd: S,
        inputs: &[&[f32]],
        tape: &Tape,
        gradient: &[f32],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let nodes = &self.shared.description.nodes;
        let pool = &self.shared.pool;
        let output = self.shared.description.output;
        let mut found: Vec<Option<Vec<f32>>> = vec![None; inputs.len()];
        let mut gradients: Vec<Option<Gradient>> = nodes.iter().map(|_| None).collect();
        let of_output = Maps::from_nchw(gradient, self.extents[output], pool);
        gradients[output] = Some(Gradient::new(of_output));
        for (index, node) in nodes.iter().enumerate().rev() {
            let Some(mut gradient) = gradients[index].take().filter(|_| self.needs[index]) else {
                continue;
            };
            let slots = self.shared.slots[index].clone();
            let first = node.inputs.first().copied().unwrap_or(0);
            match self.shared.plan.steps[index] {
                Step::Absorbed => {}
                Step::Images => {
                    gradient.settle(simd);
                    found[0] = Some(gradient.maps.view().to_nchw(simd));
                }
                Step::Conv => {
                    gradient.settle(simd);
                    let Some(conv) = self.conv(index) else {
                        bail!("`{}` is no convolution", node.name);
                    };
                    let of_output = gradient.maps.view();
                    if self.tracked[slots.start] {
                        let view = self.view(tape, first);
                        found[slots.start] =
                            Some(conv.weight_gradient(simd, &view, &of_output, pool));
                    }
                    if slots.len() > 1 && self.tracked[slots.start + 1] {
                        let sums = point::statistics(simd, &of_output);
                        let plain = |map: usize| sums[map / LANES].plain[map % LANES] as f32;
                        found[slots.start + 1] = Some((0..node.maps).map(plain).collect());
                    }
                    if self.needs[first] {
                        let (target, accumulate) = self.target(simd, first, &mut gradients);
                        // Where nothing is added later, it goes back through the activation while it is in the cache.
                        let is_last = self.shared.first_readers[first] == index;
                        let is_point = matches!(self.shared.plan.steps[first], Step::Point { .. });
                        let extent = self.extents[first];
                        let mut sums = (is_last && is_point)
                            .then(|| vec![Sums::ZERO; extent.images * extent.blocks()]);
                        let view = self.made(tape, first);
                        let finish = |image: usize,
                                      block: usize,
                                      pixel: usize,
                                      out: &mut [Block],
                                      sums: &mut Sums| {
                            point::behind(simd, &view, (image, block, pixel), out, sums);
                        };
                        conv.input_gradient(
                            simd,
                            inputs[slots.start],
                            &of_output,
                            Epilogue {
                                bias: None,
                                finish: sums.is_some().then_some(&finish),
                                sums: sums.as_deref_mut(),
                            },
                            accumulate,
                            pool,
                            &mut target.maps,
                        );
                        target.behind = sums.map(|sums| Sums::over_images(&sums, extent.blocks()));
                    }
                }
                Step::Point { input, affine, .. } => {
                    let mut view = self.made(tape, index);
                    // A slope that takes long is computed once.
                    if affine.is_some()
                        && view.nonlinearity.is_costly()
                        && gradient.behind.is_none()
                    {
                        gradient.behind = Some(gradient.take_behind(simd, &view));
                    }
                    let sums = gradient.behind.take();
                    let is_behind = sums.is_some();
                    if is_behind {
                        view.nonlinearity = Nonlinearity::Identity;
                    }
                    let coefficients = affine.and_then(|affine| {
                        let sums = || sums.unwrap_or_else(|| gradient.sums(simd, &view));
                        self.affine_gradients(affine, inputs, tape, sums, &mut found)
                    });
                    if self.needs[input] {
                        if coefficients.is_some() || !is_behind {
                            gradient.through(simd, &view, coefficients.as_deref());
                        }
                        contribute(simd, &mut gradients[input], gradient);
                    }
                }
                Step::Gate { input, factors } => {
                    if let Some(factors) = factors.filter(|&factors| self.needs[factors]) {
                        let of_gate = gradient.of_gate(simd, &self.view(tape, input));
                        let mut maps = Maps::take(self.extents[factors], pool);
                        maps.copy_from_slice(&of_gate);
                        contribute(simd, &mut gradients[factors], Gradient::new(maps));
                    }
                    if self.needs[input] {
                        if let Some(factors) = &tape.values.gates[index] {
                            gradient.scale(factors);
                        }
                        contribute(simd, &mut gradients[input], gradient);
                    }
                }
                Step::Sum {
                    inputs: [a, b],
                    relu,
                } => {
                    let output = tape.values.maps[index].as_deref().filter(|_| relu);
                    // Normalisations that nothing else reads take their gradient at once.
                    let is_point = |node: &usize| {
                        let is_plain = matches!(
                            self.shared.plan.steps[*node],
                            Step::Point {
                                affine: Some(_),
                                nonlinearity: Nonlinearity::Identity,
                                ..
                            }
                        );
                        let is_last = self.shared.first_readers[*node] == index;
                        is_plain
                            && is_last
                            && self.needs[*node]
                            && gradients[*node].is_none()
                            && a != b
                    };
                    let (points, rest): (Vec<usize>, Vec<usize>) =
                        [a, b].into_iter().partition(is_point);
                    let views: Vec<View<'_>> =
                        points.iter().map(|&node| self.made(tape, node)).collect();
                    let all_sums = gradient.through_sum(simd, output, &views);
                    for ((node, view), sums) in points.into_iter().zip(&views).zip(all_sums) {
                        let Step::Point {
                            input,
                            affine: Some(affine),
                            ..
                        } = self.shared.plan.steps[node]
                        else {
                            continue;
                        };
                        let coefficients =
                            self.affine_gradients(affine, inputs, tape, || sums, &mut found);
                        if self.needs[input] {
                            let behind =
                                gradient.through_copy(simd, view, coefficients.as_deref(), pool);
                            contribute(simd, &mut gradients[input], behind);
                        }
                    }
                    // What has a gradient already is added to; the last takes this one.
                    let mut rest: Vec<usize> =
                        rest.into_iter().filter(|&node| self.needs[node]).collect();
                    rest.sort_by_key(|&node| gradients[node].is_none());
                    if let Some(take) = rest.pop() {
                        if let Some(add) = rest.pop() {
                            match &mut gradients[add] {
                                Some(before) => {
                                    before.settle(simd);
                                    before.maps.add(simd, &gradient.maps);
                                }
                                none => *none = Some(Gradient::new(gradient.maps.copy(pool))),
                            }
                        }
                        contribute(simd, &mut gradients[take], gradient);
                    }
                }
                Step::LayerNorm => {
                    gradient.settle(simd);
                    let Operation::LayerNorm { eps } = node.layer else {
                        bail!("`{}` is no normalisation of pixels", node.name);
                    };
                    let view = self.view(tape, first);
                    let weight = inputs[slots.start];
                    let (of_weight, of_bias) =
                        layer_norm::backward(simd, &view, weight, eps, &mut gradient.maps);
                    found[slots.start] = Some(of_weight);
                    found[slots.start + 1] = Some(of_bias);
                    if self.needs[first] {
                        contribute(simd, &mut gradients[first], gradient);
                    }
                }
                Step::ResponseNorm => {
                    gradient.settle(simd);
                    let Operation::ResponseNorm { eps } = node.layer else {
                        bail!("`{}` is no normalisation of responses", node.name);
                    };
                    let view = self.view(tape, first);
                    let weight = inputs[slots.start];
                    let (of_weight, of_bias) =
                        response_norm::backward(simd, &view, weight, eps, &mut gradient.maps);
                    found[slots.start] = Some(of_weight);
                    found[slots.start + 1] = Some(of_bias);
                    if self.needs[first] {
                        contribute(simd, &mut gradients[first], gradient);
                    }
                }
                Step::Dropout => {
                    gradient.settle(simd);
                    self.drop_values(index, &mut gradient.maps);
                    contribute(simd, &mut gradients[first], gradient);
                }
                Step::Concat => {
                    gradient.settle(simd);
                    let mut map = 0;
                    for &input in &node.inputs {
                        let extent = self.extents[input];
                        if self.needs[input] {
                            let mut part = Maps::take(extent, pool);
                            pool::pick(&gradient.maps, self.extents[index], map, extent, &mut part);
                            contribute(simd, &mut gradients[input], Gradient::new(part));
                        }
                        map += extent.maps;
                    }
                }
                Step::MaxPool | Step::AveragePool => {
                    gradient.settle(simd);
                    let Some(pooling) = self.pooling(index) else {
                        bail!("`{}` is no pooling", node.name);
                    };
                    let (target, accumulate) = self.target(simd, first, &mut gradients);
                    if !accumulate {
                        target.maps.fill(ZERO);
                    }
                    if self.shared.plan.steps[index] == Step::MaxPool {
                        let view = self.view(tape, first);
                        pooling.max_gradient(simd, &view, &gradient.maps, &mut target.maps);
                    } else {
                        pooling.average_gradient(&gradient.maps, &mut target.maps);
                    }
                }
                Step::LogSumExpPool => {
                    gradient.settle(simd);
                    let (Operation::LogSumExpPool(sharpness), Some(pooled)) =
                        (&node.layer, &tape.values.maps[index])
                    else {
                        bail!("`{}` is no pooling", node.name);
                    };
                    let (target, accumulate) = self.target(simd, first, &mut gradients);
                    if !accumulate {
                        target.maps.fill(ZERO);
                    }
                    pool::log_sum_exp_gradient(
                        simd,
                        &self.view(tape, first),
                        *sharpness,
                        pooled,
                        &gradient.maps,
                        &mut target.maps,
                    );
                }
                Step::GlobalPool => {
                    gradient.settle(simd);
                    let extent = self.extents[first];
                    let share = 1. / extent.pixels() as f32;
                    let shift: Vec<Block> = gradient
                        .maps
                        .iter()
                        .map(|block| block.map(|g| g * share))
                        .collect();
                    match &mut gradients[first] {
                        Some(before) => before.shift(shift),
                        none => *none = Some(Gradient::constant(extent, shift, pool)),
                    }
                }
            }
        }
        // Parameters that the output does not depend on have none.
        for (found, input) in found.iter_mut().zip(inputs).skip(1) {
            found.get_or_insert_with(|| vec![0.; input.len()]);
        }
        Ok(found)
    }

    /// Where a node's gradient is added up, and whether there is something already.
    fn target<'a, S: Kernels>(
        &self,
        simd: S,
        node: usize,
        gradients: &'a mut [Option<Gradient>],
    ) -> (&'a mut Gradient, bool) {
        let accumulate = gradients[node].is_some();
        let target = gradients[node].get_or_insert_with(|| {
            Gradient::new(Maps::take(self.extents[node], &self.shared.pool))
        });
        target.settle(simd);
        (target, accumulate)
    }

    /// The gradients of an affine map's parameters, and how the gradient goes on; `sums` are those of
    /// [`Gradient::sums`].
    fn affine_gradients(
        &self,
        affine: usize,
        inputs: &[&[f32]],
        tape: &Tape,
        sums: impl FnOnce() -> Vec<Sums>,
        found: &mut [Option<Vec<f32>>],
    ) -> Option<Vec<Coefficients>> {
        let slots = self.shared.slots[affine].clone();
        let scaled = |scale: &[f32]| {
            (by_block(scale, 0.).into_iter())
                .map(|gradient| Coefficients {
                    gradient,
                    ..Coefficients::IDENTITY
                })
                .collect()
        };
        match &self.shared.description.nodes[affine].layer {
            Operation::BatchNorm(_) => {
                let norm = tape.norms[affine].as_ref()?;
                let (of_weight, of_bias, coefficients) = norm.backward(&sums());
                found[slots.start] = Some(of_weight);
                found[slots.start + 1] = Some(of_bias);
                Some(coefficients)
            }
            Operation::LayerScale { .. } => {
                let sums = sums();
                let maps = self.extents[affine].maps;
                let products = |map: usize| sums[map / LANES].products[map % LANES] as f32;
                found[slots.start] = Some((0..maps).map(products).collect());
                Some(scaled(inputs[slots.start]))
            }
            Operation::Rescale { scale, .. } => Some(scaled(scale)),
            _ => None,
        }
    }
}

/// Adds a gradient to what there is.
fn contribute<S: Kernels>(simd: S, slot: &mut Option<Gradient>, gradient: Gradient) {
    match slot {
        None => *slot = Some(gradient),
        Some(before) => before.add(simd, gradient),
    }
}

/// `scale·x + shift`.
pub(super) fn scaled(scale: &[f32], shift: Option<&[f32]>) -> Vec<Affine> {
    let shifts = shift.map(|shift| by_block(shift, 0.));
    by_block(scale, 0.)
        .into_iter()
        .enumerate()
        .map(|(block, scale)| Affine {
            centre: ZERO,
            scale,
            shift: shifts.as_ref().map_or(ZERO, |shifts| shifts[block]),
        })
        .collect()
}

/// 0 or `1 / (1 − rate)` for each image, as many times as it has blocks.
fn image_factors(keys: &[u64], layer: &str, rate: f64, blocks: usize) -> Vec<Block> {
    let (kept, threshold) = ((1. / (1. - rate)) as f32, (rate * 2f64.powi(32)) as u32);
    keys.iter()
        .flat_map(|&key| {
            let draw = ChaCha8Rng::from_seed(dropout_key(key, layer)).next_u32();
            let factor = if draw < threshold { 0. } else { kept };
            std::iter::repeat_n([factor; LANES], blocks)
        })
        .collect()
}

fn batch_statistics(maps: usize, count: usize, sums: &[Sums]) -> BatchStatistics {
    let count = count as f64;
    let of = |map: usize| {
        let sums = &sums[map / LANES];
        let (plain, products) = (sums.plain[map % LANES], sums.products[map % LANES]);
        let mean = plain / count;
        (mean, (products - plain * mean).max(0.))
    };
    BatchStatistics {
        mean: (0..maps).map(|map| of(map).0).collect(),
        biased_variance: (0..maps).map(|map| of(map).1 / count).collect(),
        unbiased_variance: (0..maps).map(|map| of(map).1 / (count - 1.)).collect(),
    }
}

impl Fused for Training {
    type Tape = Tape;

    fn name(&self) -> &'static str {
        "network"
    }

    fn forward(&self, inputs: &[&[f32]]) -> Result<(Vec<f32>, Shape, Tape)> {
        with_vectors!(simd => self.run(simd, inputs))
    }

    fn backward(
        &self,
        inputs: &[&[f32]],
        tape: &Tape,
        gradient: &[f32],
    ) -> Result<Vec<Option<Vec<f32>>>> {
        with_vectors!(simd => self.back(simd, inputs, tape, gradient))
    }
}
