//! DenseNet (Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks, CVPR 2017).
//!
//! ```text
//! images ─ conv0 7×7/2 ─ norm0 ─ relu ─ pool0 3×3/2 ─┐
//!   ┌────────────────────────────────────────────────┘
//!   ├─ denseblock1 ─ transition1 ─ denseblock2 ─ transition2 ─ denseblock3 ─ transition3 ─ denseblock4 ─┐
//!   └─ features ─ relu ─ norm5 ─────────────────────────────────────────────────────────────────────────┘
//!
//! denselayer: all maps so far ─ norm1 ─ relu ─ conv1 1×1 ─ norm2 ─ relu ─ conv2 3×3 ─ `growth_rate` new maps
//! transition: norm ─ relu ─ conv 1×1, half the maps ─ mean of 2×2 pixels
//! ```

mod description;
mod entry;
mod grouped;

pub(crate) use entry::{DENSENET, DENSENET121, DENSENET169, DENSENET201};

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use cxr_ops::grouped::Extent;
use cxr_ops::{
    Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, Init, NormStatistics, OpsError,
    ParameterPath, Phase, avg_pool2d, concat_maps, max_pool2d,
};

use crate::Backbone;

/// The sizes of a DenseNet.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseNetConfig {
    /// Channels out of the stem, 2·`growth_rate` in the paper; torchvision's `num_init_features`.
    pub stem_channels: usize,
    /// New channels per dense layer, *k* in the paper.
    pub growth_rate: usize,
    /// The 1×1 convolution of a dense layer has this many times `growth_rate` channels, 4 in the paper; torchvision's
    /// `bn_size`.
    pub bottleneck_size: usize,
    /// Dense layers of each block.
    pub block_layers: Vec<usize>,
    /// Constants of every batch normalisation.
    pub norm: BatchNormConfig,
}

impl DenseNetConfig {
    /// DenseNet-121: 7,037,504 values with running statistics, 1024 feature maps.
    pub fn densenet121() -> Self {
        Self::imagenet(&[6, 12, 24, 16])
    }

    /// DenseNet-169: 1664 feature maps.
    pub fn densenet169() -> Self {
        Self::imagenet(&[6, 12, 32, 32])
    }

    /// DenseNet-201: 1920 feature maps.
    pub fn densenet201() -> Self {
        Self::imagenet(&[6, 12, 48, 32])
    }

    fn imagenet(block_layers: &[usize]) -> Self {
        Self {
            stem_channels: 64,
            growth_rate: 32,
            bottleneck_size: 4,
            block_layers: block_layers.to_vec(),
            norm: BatchNormConfig::default(),
        }
    }

    /// Maps out of the last block.
    pub fn feature_maps(&self) -> usize {
        let blocks = self.block_layers.iter().enumerate();
        blocks.fold(self.stem_channels, |maps, (index, layers)| {
            let in_channels = if index == 0 { maps } else { maps / 2 };
            in_channels + layers * self.growth_rate
        })
    }

    /// `(C, h, w)` of the feature maps of images of `height`×`width` pixels.
    pub fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        let side = |pixels: usize| {
            let stem = (pixels + 2 * 3).saturating_sub(7) / 2 + 1;
            let pooled = (stem + 2).saturating_sub(3) / 2 + 1;
            pooled >> self.block_layers.len().saturating_sub(1)
        };
        (self.feature_maps(), side(height), side(width))
    }
}

/// The sizes as the operations of CUDA devices take them, if they do.
#[cfg(feature = "cuda")]
fn cuda_plan(config: &DenseNetConfig) -> Option<cxr_ops::DenseNetPlan> {
    let plan = cxr_ops::DenseNetPlan {
        stem_maps: config.stem_channels,
        growth: config.growth_rate,
        narrow: config.bottleneck_size * config.growth_rate,
        block_layers: config.block_layers.clone(),
        eps: config.norm.eps,
    };
    // In bf16 fewer fit; which it is shows when images come.
    plan.is_fitting(cxr_ops::Precision::Single).then_some(plan)
}

/// A DenseNet without its classifier: it ends in the ReLU after `norm5`.
#[derive(Debug)]
pub struct DenseNet {
    conv0: Conv2d,
    norm0: BatchNorm,
    blocks: Vec<Vec<DenseLayer>>,
    transitions: Vec<Transition>,
    norm5: BatchNorm,
    config: DenseNetConfig,
    /// The fast path, where there is one.
    plan: Option<Arc<grouped::Plan>>,
    /// That of CUDA devices.
    #[cfg(feature = "cuda")]
    cuda_plan: Option<Arc<cxr_ops::DenseNetPlan>>,
}

impl DenseNet {
    /// A network with new parameters under `path`, as torchvision initialises them.
    ///
    /// # Errors
    /// `path` already holds parameters of these names, or the configuration does not
    /// [check](DenseNetConfig::check) and a layer would have no maps.
    pub fn new(
        config: &DenseNetConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        config.check().map_err(candle_core::Error::wrap)?;
        let stem = Conv2dConfig {
            stride: 2,
            padding: 3,
        };
        let conv0 = Conv2d::new(
            3,
            config.stem_channels,
            7,
            stem,
            Init::KaimingNormal,
            &path.pp("conv0"),
        )?;
        let norm0 = BatchNorm::new(config.stem_channels, config.norm, &path.pp("norm0"))?;
        let mut maps = config.stem_channels;
        let (mut blocks, mut transitions) = (Vec::new(), Vec::new());
        for (index, &layers) in config.block_layers.iter().enumerate() {
            if index > 0 {
                transitions.push(Transition::new(
                    maps,
                    config.norm,
                    &path.pp(format!("transition{index}")),
                )?);
                maps /= 2;
            }
            let block = path.pp(format!("denseblock{}", index + 1));
            let layer = |layer| {
                let path = block.pp(format!("denselayer{}", layer + 1));
                DenseLayer::new(maps + layer * config.growth_rate, config, &path)
            };
            blocks.push(
                (0..layers)
                    .map(layer)
                    .collect::<std::result::Result<Vec<_>, _>>()?,
            );
            maps += layers * config.growth_rate;
        }
        let norm5 = BatchNorm::new(maps, config.norm, &path.pp("norm5"))?;
        Ok(Self {
            conv0,
            norm0,
            blocks,
            transitions,
            norm5,
            config: config.clone(),
            plan: grouped::Plan::new(config).map(Arc::new),
            #[cfg(feature = "cuda")]
            cuda_plan: cuda_plan(config).map(Arc::new),
        })
    }

    /// The same network without its fast path: every layer an operation of its own, on any size.
    /// It is what the fast path is checked against.
    #[must_use]
    pub fn layer_by_layer(self) -> Self {
        Self {
            plan: None,
            #[cfg(feature = "cuda")]
            cuda_plan: None,
            ..self
        }
    }

    /// Whether the fast paths compute this phase: training by running statistics is the business of single operations.
    fn is_for_plans(phase: Phase<'_>) -> bool {
        matches!(phase, Phase::Evaluate) || NormStatistics::current() == NormStatistics::Batch
    }

    /// The plan of the fast path, if these images can take it. A gradient towards the images is the
    /// business of single operations.
    fn plan_for(&self, images: &Tensor) -> Option<&Arc<grouped::Plan>> {
        let &[count, 3, height, width] = images.dims() else {
            return None;
        };
        let extent = Extent {
            images: count,
            height,
            width,
        };
        let is_plain = images.dtype() == DType::F32 && images.device().is_cpu();
        let plan = self.plan.as_ref()?;
        (is_plain && !images.track_op() && plan.takes(extent)).then_some(plan)
    }

    /// Whether these images can take the plan of CUDA devices.
    #[cfg(feature = "cuda")]
    fn is_for_cuda_plan(&self, images: &Tensor) -> Result<bool> {
        let is_plain = images.dtype() == DType::F32 && images.device().is_cuda();
        if !is_plain || images.track_op() {
            return Ok(false);
        }
        let (count, maps, height, width) = images.dims4()?;
        let (_, height, width) = self.feature_shape(height, width);
        Ok(maps == 3 && count * height * width > 1)
    }

    /// Every normalisation, from images to features.
    fn norms(&self) -> impl Iterator<Item = &BatchNorm> {
        let blocks = self.blocks.iter().enumerate().flat_map(|(index, block)| {
            let layers = block.iter().flat_map(|layer| [&layer.norm1, &layer.norm2]);
            layers.chain(
                self.transitions
                    .get(index)
                    .map(|transition| &transition.norm),
            )
        });
        std::iter::once(&self.norm0)
            .chain(blocks)
            .chain(std::iter::once(&self.norm5))
    }

    /// Every trained parameter, from images to features.
    fn trained(&self) -> impl Iterator<Item = &Tensor> {
        self.parameters(|norm| [norm.weight(), norm.bias()])
    }

    /// Every parameter, from images to features; behind a normalisation's two trained ones its running
    /// statistics.
    fn evaluated(&self) -> impl Iterator<Item = &Tensor> {
        self.parameters(|norm| {
            let (mean, variance) = (norm.running_mean(), norm.running_var());
            [norm.weight(), norm.bias(), mean, variance]
        })
    }

    /// The parameters from images to features, those of a normalisation as `norm` gives them.
    fn parameters<const N: usize>(
        &self,
        norm: fn(&BatchNorm) -> [&Tensor; N],
    ) -> impl Iterator<Item = &Tensor> {
        let blocks = self
            .blocks
            .iter()
            .enumerate()
            .flat_map(move |(index, block)| {
                let layers = block.iter().flat_map(move |layer| {
                    let first = norm(&layer.norm1).into_iter().chain([layer.conv1.weight()]);
                    let second = norm(&layer.norm2).into_iter().chain([layer.conv2.weight()]);
                    first.chain(second)
                });
                let transition = self.transitions.get(index).into_iter();
                layers.chain(transition.flat_map(move |transition| {
                    norm(&transition.norm)
                        .into_iter()
                        .chain([transition.conv.weight()])
                }))
            });
        std::iter::once(self.conv0.weight())
            .chain(norm(&self.norm0))
            .chain(blocks)
            .chain(norm(&self.norm5))
    }
}

impl Backbone for DenseNet {
    fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let (Some(plan), true) = (
            &self.cuda_plan,
            Self::is_for_plans(phase) && self.is_for_cuda_plan(images)?,
        ) && plan.is_fitting(cxr_ops::Precision::current())
        {
            let norms: Vec<BatchNorm> = self.norms().cloned().collect();
            let parameters: Vec<Tensor> = self.trained().cloned().collect();
            return match phase {
                Phase::Train { .. } => {
                    cxr_ops::cuda_densenet_train(plan, images, &parameters, norms)
                }
                Phase::Evaluate => {
                    cxr_ops::cuda_densenet_evaluate(plan, images, &parameters, &norms)
                }
            };
        }
        if let Some(plan) = self.plan_for(images).filter(|_| Self::is_for_plans(phase)) {
            return match phase {
                Phase::Train { .. } => grouped::train(self, plan, images),
                Phase::Evaluate => grouped::evaluate(self, plan, images),
            };
        }
        let maps = self.conv0.forward_t(images, phase)?;
        let maps = self.norm0.forward_t(&maps, Activation::Relu, phase)?;
        let mut maps = max_pool2d(&maps, 3, 2, 1)?;
        for (index, block) in self.blocks.iter().enumerate() {
            if index > 0 {
                maps = self.transitions[index - 1].forward_t(&maps, phase)?;
            }
            for layer in block {
                let new_maps = layer.forward_t(&maps, phase)?;
                maps = concat_maps(&maps, &new_maps)?;
            }
        }
        self.norm5.forward_t(&maps, Activation::Relu, phase)
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        self.config.feature_shape(height, width)
    }

    fn layers(&self) -> Vec<String> {
        let description = self.config.describe();
        description.map_or(Vec::new(), |net| net.names().map(str::to_owned).collect())
    }

    /// Both parts are computed as their description says, on the CPU.
    fn split(&self, layer: &str) -> Result<[Box<dyn Backbone>; 2]> {
        let parameters = self.trained().cloned().collect();
        let norms = self.norms().cloned().collect();
        let network = self
            .config
            .describe()
            .and_then(|description| description.with_parameters(parameters, norms))
            .map_err(candle_core::Error::wrap)?;
        Backbone::split(&network, layer)
    }
}

#[derive(Debug)]
struct DenseLayer {
    norm1: BatchNorm,
    conv1: Conv2d,
    norm2: BatchNorm,
    conv2: Conv2d,
}

impl DenseLayer {
    fn new(
        in_channels: usize,
        config: &DenseNetConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let bottleneck = config.bottleneck_size * config.growth_rate;
        let pointwise = Conv2dConfig::default();
        let same = Conv2dConfig {
            stride: 1,
            padding: 1,
        };
        let init = Init::KaimingNormal;
        Ok(Self {
            norm1: BatchNorm::new(in_channels, config.norm, &path.pp("norm1"))?,
            conv1: Conv2d::new(
                in_channels,
                bottleneck,
                1,
                pointwise,
                init,
                &path.pp("conv1"),
            )?,
            norm2: BatchNorm::new(bottleneck, config.norm, &path.pp("norm2"))?,
            conv2: Conv2d::new(
                bottleneck,
                config.growth_rate,
                3,
                same,
                init,
                &path.pp("conv2"),
            )?,
        })
    }

    fn forward_t(&self, maps: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let maps = self.norm1.forward_t(maps, Activation::Relu, phase)?;
        let maps = self.conv1.forward_t(&maps, phase)?;
        let maps = self.norm2.forward_t(&maps, Activation::Relu, phase)?;
        self.conv2.forward_t(&maps, phase)
    }
}

#[derive(Debug)]
struct Transition {
    norm: BatchNorm,
    conv: Conv2d,
}

impl Transition {
    fn new(
        in_channels: usize,
        norm: BatchNormConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let (config, init) = (Conv2dConfig::default(), Init::KaimingNormal);
        Ok(Self {
            norm: BatchNorm::new(in_channels, norm, &path.pp("norm"))?,
            conv: Conv2d::new(
                in_channels,
                in_channels / 2,
                1,
                config,
                init,
                &path.pp("conv"),
            )?,
        })
    }

    fn forward_t(&self, maps: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let maps = self.norm.forward_t(maps, Activation::Relu, phase)?;
        avg_pool2d(&self.conv.forward_t(&maps, phase)?, 2)
    }
}
