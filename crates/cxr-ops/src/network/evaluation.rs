//! A network in evaluation: nothing is kept, and what follows a convolution is done while its output is in the cache.

use candle_core::{Result, Storage, Tensor, bail};

use super::convolution::ConvKind;
use super::description::Operation;
use super::plan::{Fold, Step};
use super::training::scaled;
use super::values::Values;
use super::{Network, Shared};
use crate::blocked::activation::{Curve, with_curve};
use crate::blocked::conv::Epilogue;
use crate::blocked::kernels::Kernels;
use crate::blocked::maps::Maps;
use crate::blocked::point::{self, Norm};
use crate::blocked::pool::{self, Pooling};
use crate::blocked::winograd::Tile;
use crate::blocked::{
    Affine, Block, Extent, Nonlinearity, RUN, Sums, View, ZERO, by_block, in_block, layer_norm,
    response_norm, vectors,
};
use crate::cpu::{values, with_values};
use crate::simd::with_vectors;

/// Features, as constants.
pub(super) fn forward(network: &Network, images: &Tensor) -> Result<Tensor> {
    let (count, _, height, width) = images.dims4()?;
    let extents = network.shared.description.extents(count, height, width);
    let extents = extents.map_err(candle_core::Error::wrap)?;
    let guards: Vec<_> = (network.parameters.iter())
        .map(Tensor::storage_and_layout)
        .collect();
    let parameters = (guards.iter())
        .map(|(storage, layout)| match &**storage {
            Storage::Cpu(storage) => values(storage, layout, "network"),
            _ => bail!("network: expected parameters on the CPU"),
        })
        .collect::<Result<Vec<&[f32]>>>()?;
    let running = network.running_statistics()?;
    let pass = Pass {
        shared: &network.shared,
        extents,
        parameters,
        running,
    };
    let images = images.contiguous()?;
    let features = with_values(
        &images,
        "network",
        |images| with_vectors!(simd => pass.run(simd, images)),
    )??;
    let e = pass.extents[network.shared.description.output];
    Tensor::from_vec(
        features,
        (e.images, e.maps, e.height, e.width),
        images.device(),
    )
}

struct Pass<'a> {
    shared: &'a Shared,
    extents: Vec<Extent>,
    parameters: Vec<&'a [f32]>,
    running: Vec<Option<[Vec<f32>; 2]>>,
}

impl Pass<'_> {
    /// A node's parameter, by its place.
    fn parameter(&self, node: usize, place: usize) -> Option<&[f32]> {
        let slot = self.shared.slots[node].clone().nth(place)?;
        // The images are the operation's first input.
        self.parameters.get(slot - 1).copied()
    }

    fn view<'a>(&'a self, values: &'a Values, node: usize) -> View<'a> {
        values.view(&self.shared.plan, &self.extents, node)
    }

    fn norm(&self, node: usize) -> Result<Norm> {
        let Operation::BatchNorm(config) = &self.shared.description.nodes[node].layer else {
            bail!("a layer is no normalisation");
        };
        let (Some(weight), Some(bias), Some(Some([mean, variance]))) = (
            self.parameter(node, 0),
            self.parameter(node, 1),
            self.running.get(node),
        ) else {
            bail!("a normalisation lacks parameters");
        };
        let [mean, variance] =
            [mean, variance].map(|values| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        Ok(Norm::new(&mean, &variance, weight, bias, config.eps, None))
    }

    fn affine(&self, node: usize) -> Result<Option<Vec<Affine>>> {
        Ok(match &self.shared.description.nodes[node].layer {
            Operation::BatchNorm(_) => Some(self.norm(node)?.affine),
            Operation::LayerScale { .. } => {
                self.parameter(node, 0).map(|scale| scaled(scale, None))
            }
            Operation::Rescale { scale, shift } => Some(scaled(scale, Some(shift))),
            _ => None,
        })
    }

    fn run<S: Kernels>(&self, simd: S, images: &[f32]) -> Result<Vec<f32>> {
        let nodes = &self.shared.description.nodes;
        let pool = &self.shared.pool;
        let mut values = Values::of(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let extent = self.extents[index];
            let first = node.inputs.first().copied().unwrap_or(0);
            // A convolution before it has computed it.
            let is_done = values.maps[index].is_some() || self.shared.is_folded[index];
            let value = match &self.shared.plan.steps[index] {
                _ if is_done => None,
                Step::Absorbed => None,
                Step::Images => Some(Maps::from_nchw(images, extent, pool)),
                Step::Conv => {
                    let fold = self.shared.plan.folds[index];
                    let out = self.convolve(simd, index, fold, &values)?;
                    values.maps[fold.map_or(index, |fold| fold.output)] = Some(out);
                    None
                }
                &Step::Point { affine, .. } => {
                    if let Some(affine) = affine {
                        values.affines[affine] = self.affine(affine)?;
                    }
                    self.copied(simd, &values, index)
                }
                &Step::Gate { factors, .. } => {
                    let factors = factors.and_then(|factors| values.maps[factors].as_ref());
                    values.gates[index] = factors.map(|maps| maps.to_vec());
                    self.copied(simd, &values, index)
                }
                &Step::Sum {
                    inputs: [a, b],
                    relu,
                } => {
                    let mut out = Maps::take(extent, pool);
                    let (a, b) = (self.view(&values, a), self.view(&values, b));
                    point::add(simd, &a, &b, relu, &mut out);
                    Some(out)
                }
                Step::LayerNorm => {
                    let (Operation::LayerNorm { eps }, Some(weight), Some(bias)) = (
                        &node.layer,
                        self.parameter(index, 0),
                        self.parameter(index, 1),
                    ) else {
                        bail!("`{}` is no normalisation of pixels", node.name);
                    };
                    let view = self.view(&values, first);
                    Some(layer_norm::forward(simd, &view, weight, bias, *eps, pool))
                }
                Step::ResponseNorm => {
                    let (Operation::ResponseNorm { eps }, Some(weight), Some(bias)) = (
                        &node.layer,
                        self.parameter(index, 0),
                        self.parameter(index, 1),
                    ) else {
                        bail!("`{}` is no normalisation of responses", node.name);
                    };
                    let view = self.view(&values, first);
                    Some(response_norm::forward(
                        simd, &view, weight, bias, *eps, pool,
                    ))
                }
                Step::Dropout => {
                    let mut out = Maps::take(extent, pool);
                    self.view(&values, first).store(simd, &mut out);
                    Some(out)
                }
                Step::Concat => {
                    let mut out = Maps::take(extent, pool);
                    let mut map = 0;
                    for &input in &node.inputs {
                        let view = self.view(&values, input);
                        pool::place(simd, &view, map, extent, &mut out);
                        map += view.extent.maps;
                    }
                    Some(out)
                }
                step @ (Step::MaxPool | Step::AveragePool) => {
                    let Some(window) = self.shared.description.window(index) else {
                        bail!("`{}` is no pooling", node.name);
                    };
                    let pooling = Pooling::new(window, self.extents[first], extent);
                    let mut out = Maps::take(extent, pool);
                    let view = self.view(&values, first);
                    if *step == Step::MaxPool {
                        pooling.max(simd, &view, &mut out);
                    } else {
                        pooling.average(simd, &view, &mut out);
                    }
                    Some(out)
                }
                Step::GlobalPool => {
                    let mut out = Maps::take(extent, pool);
                    pool::global_average(simd, &self.view(&values, first), &mut out);
                    Some(out)
                }
                Step::LogSumExpPool => {
                    let Operation::LogSumExpPool(sharpness) = node.layer else {
                        bail!("`{}` is no pooling", node.name);
                    };
                    let mut out = Maps::take(extent, pool);
                    pool::log_sum_exp(simd, &self.view(&values, first), sharpness, &mut out);
                    Some(out)
                }
            };
            if value.is_some() {
                values.maps[index] = value;
            }
            for &base in &self.shared.last_reads[index] {
                values.maps[base] = None;
            }
        }
        Ok(self
            .view(&values, self.shared.description.output)
            .to_nchw(simd))
    }

    fn copied<S: Kernels>(&self, simd: S, values: &Values, node: usize) -> Option<Maps> {
        self.shared.plan.is_stored(node).then(|| {
            let mut out = Maps::take(self.extents[node], &self.shared.pool);
            self.view(values, node).store(simd, &mut out);
            out
        })
    }

    /// A convolution with what is folded into it.
    fn convolve<S: Kernels>(
        &self,
        simd: S,
        node: usize,
        fold: Option<Fold>,
        values: &Values,
    ) -> Result<Maps> {
        let nodes = &self.shared.description.nodes;
        let input = nodes[node].inputs[0];
        let (Operation::Conv { layer, .. }, Some(window), Some(weight)) = (
            &nodes[node].layer,
            self.shared.description.window(node),
            self.parameter(node, 0),
        ) else {
            bail!("`{}` is no convolution", nodes[node].name);
        };
        let extent = self.extents[node];
        let conv = ConvKind::new(window, layer.groups, self.extents[input], extent);
        let norm = fold
            .and_then(|fold| fold.norm)
            .map(|norm| self.norm(norm))
            .transpose()?;
        let folded = norm.map(|norm| norm.folded(self.parameter(node, 1)));
        let bias = match &folded {
            Some((_, bias)) => Some(by_block(bias, 0.)),
            None => self.parameter(node, 1).map(|bias| by_block(bias, 0.)),
        };
        let scale = folded.as_ref().map(|(scale, _)| scale.as_slice());
        let mut out = Maps::take(extent, &self.shared.pool);
        let view = self.view(values, input);
        let nonlinearity = fold.map_or(Nonlinearity::Identity, |fold| fold.nonlinearity);
        let sum = fold
            .and_then(|fold| fold.sum)
            .map(|(other, relu)| (self.view(values, other), relu));
        let finish = |image: usize, block: usize, pixel: usize, out: &mut [Block], _: &mut Sums| {
            apply(simd, nonlinearity, out);
            if let Some((other, relu)) = &sum {
                add(simd, other, *relu, (image, block, pixel), out);
            }
        };
        let has_finish = nonlinearity != Nonlinearity::Identity || sum.is_some();
        conv.forward(
            simd,
            (weight, scale),
            Tile::Large,
            &view,
            Epilogue {
                bias: bias.as_deref(),
                sums: None,
                finish: has_finish.then_some(&finish),
            },
            &self.shared.pool,
            &mut out,
        );
        Ok(out)
    }
}

fn apply<S: Kernels>(simd: S, nonlinearity: Nonlinearity, out: &mut [Block]) {
    if nonlinearity == Nonlinearity::Identity {
        return;
    }
    with_curve!(nonlinearity, C => simd.within(
        #[inline(always)]
        || {
            for out in out {
                for vector in 0..vectors::<S>() {
                    let value = in_block::<S>(out, vector);
                    *value = C::value(simd, *value);
                }
            }
        },
    ));
}

/// Adds the same pixels of other maps.
fn add<S: Kernels>(
    simd: S,
    other: &View<'_>,
    relu: bool,
    (image, block, pixel): (usize, usize, usize),
    out: &mut [Block],
) {
    let mut line = [ZERO; RUN];
    for (run, out) in out.chunks_mut(RUN).enumerate() {
        let line = &mut line[..out.len()];
        other.read(simd, image, block, pixel + run * RUN, line);
        simd.within(
            #[inline(always)]
            || {
                point::add_to(simd, line, relu, out);
            },
        );
    }
}
