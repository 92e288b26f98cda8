//! Published networks, each described in a file of its own, without their classifiers, and how experiment files name
//! them.
//!
//! A description's parameter names are those of the weight files, without the prefix `features.` that some of them have.

mod convnext;
mod efficientnet;
mod inception;
mod mobilenet;
mod regnet;
mod resnet;
mod vgg;
mod xception;

use std::fmt;
use std::path::Path;

use cxr_ops::{
    BatchNormConfig, NetworkBuilder, NetworkDescription, Node, OpsError, OptionEntry, OptionError,
    ParameterPath, Parameters, check_option, parse_options,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Backbone, BackboneConfig, BackboneEntry, BackboneError, PretrainedError, PretrainedReport,
    Torchvision, load_network,
};

/// What an experiment can change about a network: nothing that a parameter depends on.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    norm_eps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    norm_momentum: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stochastic_depth: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_pool_after_layer1: Option<bool>,
}

/// The same for a description. A network does not ask for what it does not have.
#[derive(Debug, Clone, Copy)]
struct Constants {
    norm: BatchNormConfig,
    /// The rate that the last block's stochastic depth tends to; earlier blocks have less.
    stochastic_depth: f64,
    /// Whether a ResNet has a second pool, after its first layer.
    max_pool_after_layer1: bool,
}

impl Constants {
    /// A builder for images of three channels.
    fn builder(&self) -> NetworkBuilder {
        NetworkBuilder::new(3).with_norm(self.norm)
    }
}

const NORM_EPS: OptionEntry = OptionEntry::new(
    "norm_eps",
    "ε of the batch normalisations, above 0; the published network's unless given",
);
const NORM_MOMENTUM: OptionEntry = OptionEntry::new(
    "norm_momentum",
    "momentum of the batch normalisations in PyTorch's convention, in [0, 1]; the published network's unless given",
);
const STOCHASTIC_DEPTH: OptionEntry = OptionEntry::new(
    "stochastic_depth",
    "rate of the last block's stochastic depth, in [0, 1); the published network's unless given",
);

const MAX_POOL_AFTER_LAYER1: OptionEntry = OptionEntry::new(
    "max_pool_after_layer1",
    "`true` for a second 3×3 max pool of stride 2 after the first layer: images of twice the side have maps of the same size (Baltruschat et al. 2019); `false` unless given",
);

/// How torchvision's file of a network names the tensors.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// torchvision has no such network.
    Absent,
    /// Without a prefix, and `fc` after the means of the maps.
    Plain,
    /// With the prefix `features.`, and this dense layer after the means of the maps.
    Features(Option<&'static str>),
}

/// A network that can be trained.
#[derive(Debug, Clone, Copy)]
struct Published {
    /// What people call it.
    title: &'static str,
    /// Those that it has, with its own values.
    own: Options,
    options: &'static [OptionEntry],
    /// What the names of a weight file's other tensors begin with.
    classifiers: &'static [&'static str],
    torchvision: Layout,
    describe: fn(&Constants) -> Result<NetworkDescription, OpsError>,
}

impl Published {
    /// A network with batch normalisations of PyTorch's constants.
    const fn new(
        title: &'static str,
        describe: fn(&Constants) -> Result<NetworkDescription, OpsError>,
    ) -> Self {
        Self {
            title,
            own: Options {
                norm_eps: Some(1e-5),
                norm_momentum: Some(0.1),
                stochastic_depth: None,
                max_pool_after_layer1: None,
            },
            options: &[NORM_EPS, NORM_MOMENTUM],
            classifiers: &["fc.", "classifier."],
            torchvision: Layout::Plain,
            describe,
        }
    }

    /// As torchvision names it.
    const fn layout(self, torchvision: Layout) -> Self {
        Self {
            torchvision,
            ..self
        }
    }

    /// With another ε.
    const fn eps(self, eps: f64) -> Self {
        let own = Options {
            norm_eps: Some(eps),
            ..self.own
        };
        Self { own, ..self }
    }

    /// With stochastic depth.
    const fn depth(self, rate: f64) -> Self {
        let own = Options {
            stochastic_depth: Some(rate),
            ..self.own
        };
        let options = &[NORM_EPS, NORM_MOMENTUM, STOCHASTIC_DEPTH];
        Self {
            own,
            options,
            ..self
        }
    }

    /// A ResNet, which may have a second pool.
    const fn resnet(self) -> Self {
        let options = &[NORM_EPS, NORM_MOMENTUM, MAX_POOL_AFTER_LAYER1];
        Self { options, ..self }
    }

    /// Without batch normalisations.
    const fn without_norms(self) -> Self {
        let own = Options {
            norm_eps: None,
            norm_momentum: None,
            ..self.own
        };
        let options: &[OptionEntry] = match self.own.stochastic_depth {
            Some(_) => &[STOCHASTIC_DEPTH],
            None => &[],
        };
        Self {
            own,
            options,
            ..self
        }
    }

    /// In timm's files, where the classifier is the `head`.
    const fn of_timm(self) -> Self {
        let classifiers = &["head."];
        Self {
            classifiers,
            ..self
        }
    }

    /// With an auxiliary classifier in its files.
    const fn auxiliary(self) -> Self {
        let classifiers = &["fc.", "AuxLogits."];
        Self {
            classifiers,
            ..self
        }
    }

    fn parse(
        self,
        name: &'static str,
        options: &Value,
    ) -> Result<Box<dyn BackboneConfig>, OptionError> {
        let given: Options = parse_options(options, self.options)?;
        let options = Options {
            norm_eps: given.norm_eps.or(self.own.norm_eps),
            norm_momentum: given.norm_momentum.or(self.own.norm_momentum),
            stochastic_depth: given.stochastic_depth.or(self.own.stochastic_depth),
            // A network without it does not say so: it is the published one.
            max_pool_after_layer1: given.max_pool_after_layer1.filter(|has_pool| *has_pool),
        };
        let default = BatchNormConfig::default();
        let constants = Constants {
            norm: BatchNormConfig {
                eps: options.norm_eps.unwrap_or(default.eps),
                momentum: options.norm_momentum.unwrap_or(default.momentum),
            },
            stochastic_depth: options.stochastic_depth.unwrap_or(0.),
            max_pool_after_layer1: options.max_pool_after_layer1.unwrap_or(false),
        };
        let BatchNormConfig { eps, momentum } = constants.norm;
        check_option("norm_eps", eps, "finite and above 0", |eps| {
            eps.is_finite() && *eps > 0.
        })?;
        let is_momentum = |momentum: &f64| (0. ..=1.).contains(momentum);
        check_option("norm_momentum", momentum, "in [0, 1]", is_momentum)?;
        let is_rate = |rate: &f64| (0. ..1.).contains(rate);
        check_option(
            "stochastic_depth",
            constants.stochastic_depth,
            "in [0, 1)",
            is_rate,
        )?;
        let description = (self.describe)(&constants)
            .map_err(|error| OptionError::new("", "those of a network", error.to_string()))?;
        Ok(Box::new(Described {
            name,
            published: self,
            options,
            description,
        }))
    }
}

/// A network with its options.
#[derive(Debug)]
struct Described {
    name: &'static str,
    published: Published,
    options: Options,
    description: NetworkDescription,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.published.title)?;
        match self.options.max_pool_after_layer1 {
            Some(true) => f.write_str(" with a second pool"),
            _ => Ok(()),
        }
    }
}

impl BackboneConfig for Described {
    fn options(&self) -> Value {
        match self.published.options {
            [] => Value::Null,
            _ => serde_json::to_value(self.options).unwrap_or_default(),
        }
    }

    fn build(&self, path: &ParameterPath) -> Result<Box<dyn Backbone>, BackboneError> {
        Ok(Box::new(self.description.build(path)?))
    }

    /// Of images that are too small, no pixels.
    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        let shape = self.description.feature_shape(height, width);
        shape.unwrap_or((self.description.feature_channels(), 0, 0))
    }

    fn description(&self) -> Option<&NetworkDescription> {
        Some(&self.description)
    }

    fn torchvision(&self) -> Option<Torchvision> {
        let (prefix, classifier) = match self.published.torchvision {
            Layout::Absent => return None,
            // torchvision's has no second pool.
            _ if self.options.max_pool_after_layer1 == Some(true) => return None,
            Layout::Plain => ("", Some("fc")),
            Layout::Features(classifier) => ("features.", classifier),
        };
        // Without the auxiliary classifier, and with images as ours takes them.
        let is_inception = self.published.classifiers.contains(&"AuxLogits.");
        let more = match is_inception {
            true => ", aux_logits=False, transform_input=True, init_weights=False",
            false => "",
        };
        // torchvision has the class of a ResNet-38, and no function that makes it.
        let (constructor, arguments) = match self.name {
            "resnet38" => (
                "resnet.ResNet",
                "torchvision.models.resnet.Bottleneck, [2, 3, 5, 2]".to_owned(),
            ),
            name => (name, format!("weights=None{more}")),
        };
        Some(Torchvision {
            constructor: constructor.to_owned(),
            arguments,
            prefix,
            classifier,
        })
    }

    fn load_weights(
        &self,
        path: &Path,
        parameters: &Parameters,
        prefix: &str,
    ) -> Result<PretrainedReport, PretrainedError> {
        load_network(path, parameters, prefix, self.published.classifiers)
    }
}

/// A constant for each network, which [`BACKBONES`](crate::BACKBONES) has.
macro_rules! networks {
    ($($constant:ident $name:literal $summary:literal $published:expr;)*) => {
        $(pub(crate) const $constant: BackboneEntry = {
            const PUBLISHED: Published = $published;
            BackboneEntry::new($name, $summary, PUBLISHED.options, |options| PUBLISHED.parse($name, options))
        };)*
    };
}

networks! {
    RESNET18 "resnet18" "ResNet-18, 512 channels"
        Published::new("ResNet-18", |c| resnet::basic(c, [2, 2, 2, 2])).resnet();
    RESNET34 "resnet34" "ResNet-34, 512 channels"
        Published::new("ResNet-34", |c| resnet::basic(c, [3, 4, 6, 3])).resnet();
    RESNET38 "resnet38" "ResNet-38 with bottlenecks (Baltruschat et al. 2019), 2048 channels"
        Published::new("ResNet-38", |c| resnet::bottleneck(c, [2, 3, 5, 2], 1, 64)).resnet();
    RESNET50 "resnet50" "ResNet-50, 2048 channels"
        Published::new("ResNet-50", |c| resnet::bottleneck(c, [3, 4, 6, 3], 1, 64)).resnet();
    RESNET101 "resnet101" "ResNet-101, 2048 channels"
        Published::new("ResNet-101", |c| resnet::bottleneck(c, [3, 4, 23, 3], 1, 64)).resnet();
    RESNET152 "resnet152" "ResNet-152, 2048 channels"
        Published::new("ResNet-152", |c| resnet::bottleneck(c, [3, 8, 36, 3], 1, 64)).resnet();
    RESNEXT50 "resnext50_32x4d" "ResNeXt-50 with 32 groups of 4 channels, 2048 channels"
        Published::new("ResNeXt-50 32×4d", |c| resnet::bottleneck(c, [3, 4, 6, 3], 32, 4));
    RESNEXT101 "resnext101_32x8d" "ResNeXt-101 with 32 groups of 8 channels, 2048 channels"
        Published::new("ResNeXt-101 32×8d", |c| resnet::bottleneck(c, [3, 4, 23, 3], 32, 8));
    VGG16 "vgg16" "VGG-16 to its last pool, 512 channels"
        Published::new("VGG-16", |c| vgg::vgg16(c, false)).without_norms().layout(Layout::Features(None));
    VGG16_BN "vgg16_bn" "VGG-16 with batch normalisations, 512 channels"
        Published::new("VGG-16 BN", |c| vgg::vgg16(c, true)).layout(Layout::Features(None));
    MOBILENET_V2 "mobilenet_v2" "MobileNet-V2, 1280 channels"
        Published::new("MobileNet-V2", mobilenet::v2).layout(Layout::Features(Some("classifier.1")));
    EFFICIENTNET_B0 "efficientnet_b0" "EfficientNet-B0, 1280 channels"
        Published::new("EfficientNet-B0", |c| efficientnet::b(c, 1.0, 1.0)).depth(0.2).layout(Layout::Features(Some("classifier.1")));
    EFFICIENTNET_B1 "efficientnet_b1" "EfficientNet-B1, 1280 channels"
        Published::new("EfficientNet-B1", |c| efficientnet::b(c, 1.0, 1.1)).depth(0.2).layout(Layout::Features(Some("classifier.1")));
    EFFICIENTNET_B2 "efficientnet_b2" "EfficientNet-B2, 1408 channels"
        Published::new("EfficientNet-B2", |c| efficientnet::b(c, 1.1, 1.2)).depth(0.2).layout(Layout::Features(Some("classifier.1")));
    EFFICIENTNET_B3 "efficientnet_b3" "EfficientNet-B3, 1536 channels"
        Published::new("EfficientNet-B3", |c| efficientnet::b(c, 1.2, 1.4)).depth(0.2).layout(Layout::Features(Some("classifier.1")));
    EFFICIENTNET_B4 "efficientnet_b4" "EfficientNet-B4, 1792 channels"
        Published::new("EfficientNet-B4", |c| efficientnet::b(c, 1.4, 1.8)).depth(0.2).layout(Layout::Features(Some("classifier.1")));
    EFFICIENTNET_V2_S "efficientnet_v2_s" "EfficientNet-V2-S, 1280 channels"
        Published::new("EfficientNet-V2-S", efficientnet::v2_s).eps(1e-3).depth(0.2).layout(Layout::Features(Some("classifier.1")));
    INCEPTION_V3 "inception_v3" "Inception-V3, 2048 channels; images of 75×75 pixels at least"
        Published::new("Inception-V3", inception::v3).eps(1e-3).auxiliary();
    REGNET_X_400MF "regnet_x_400mf" "RegNet-X-400MF, 400 channels"
        Published::new("RegNet-X-400MF", |c| regnet::x(c, [1, 2, 7, 12], [32, 64, 160, 400], 16));
    REGNET_X_800MF "regnet_x_800mf" "RegNet-X-800MF, 672 channels"
        Published::new("RegNet-X-800MF", |c| regnet::x(c, [1, 3, 7, 5], [64, 128, 288, 672], 16));
    REGNET_X_1_6GF "regnet_x_1_6gf" "RegNet-X-1.6GF, 912 channels"
        Published::new("RegNet-X-1.6GF", |c| regnet::x(c, [2, 4, 10, 2], [72, 168, 408, 912], 24));
    REGNET_X_3_2GF "regnet_x_3_2gf" "RegNet-X-3.2GF, 1008 channels"
        Published::new("RegNet-X-3.2GF", |c| regnet::x(c, [2, 6, 15, 2], [96, 192, 432, 1008], 48));
    REGNET_Y_400MF "regnet_y_400mf" "RegNet-Y-400MF, 440 channels"
        Published::new("RegNet-Y-400MF", |c| regnet::y(c, [1, 3, 6, 6], [48, 104, 208, 440], 8));
    REGNET_Y_800MF "regnet_y_800mf" "RegNet-Y-800MF, 784 channels"
        Published::new("RegNet-Y-800MF", |c| regnet::y(c, [1, 3, 8, 2], [64, 144, 320, 784], 16));
    REGNET_Y_1_6GF "regnet_y_1_6gf" "RegNet-Y-1.6GF, 888 channels"
        Published::new("RegNet-Y-1.6GF", |c| regnet::y(c, [2, 6, 17, 2], [48, 120, 336, 888], 24));
    REGNET_Y_3_2GF "regnet_y_3_2gf" "RegNet-Y-3.2GF, 1512 channels"
        Published::new("RegNet-Y-3.2GF", |c| regnet::y(c, [2, 5, 13, 1], [72, 216, 576, 1512], 24));
    CONVNEXT_TINY "convnext_tiny" "ConvNeXt-T, trainable, 768 channels"
        Published::new("ConvNeXt-T", |c| convnext::v1(c, [3, 3, 9, 3], [96, 192, 384, 768])).depth(0.1).without_norms().layout(Layout::Features(None));
    CONVNEXT_SMALL "convnext_small" "ConvNeXt-S, trainable, 768 channels"
        Published::new("ConvNeXt-S", |c| convnext::v1(c, [3, 3, 27, 3], [96, 192, 384, 768])).depth(0.4).without_norms().layout(Layout::Features(None));
    CONVNEXT_BASE "convnext_base" "ConvNeXt-B, trainable, 1024 channels"
        Published::new("ConvNeXt-B", |c| convnext::v1(c, [3, 3, 27, 3], [128, 256, 512, 1024])).depth(0.5).without_norms().layout(Layout::Features(None));
    CONVNEXTV2_TINY "convnextv2_tiny" "ConvNeXt V2-T, trainable, 768 channels"
        Published::new("ConvNeXt V2-T", |c| convnext::v2(c, [3, 3, 9, 3], [96, 192, 384, 768])).depth(0.2).without_norms().of_timm().layout(Layout::Absent);
    CONVNEXTV2_BASE "convnextv2_base" "ConvNeXt V2-B, trainable, 1024 channels"
        Published::new("ConvNeXt V2-B", |c| convnext::v2(c, [3, 3, 27, 3], [128, 256, 512, 1024])).depth(0.1).without_norms().of_timm().layout(Layout::Absent);
    XCEPTION "xception" "Xception, as timm's `legacy_xception`, 2048 channels; images of 71×71 pixels at least"
        Published::new("Xception", xception::xception).layout(Layout::Absent);
}

/// ImageNet's mean and standard deviation, by which images come normalised.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// Images as networks saw them that were trained on values in ±1: `(v − ½) / ½` of a pixel `v` in [0, 1].
fn between_one(net: &mut NetworkBuilder) -> Node {
    let images = net.images();
    let scale = DEVIATION.map(|deviation| deviation / 0.5);
    let shift = MEAN.map(|mean| (mean - 0.5) / 0.5);
    net.rescale(images, &scale, &shift)
}

/// The multiple of `unit` nearest to `maps`, but no more than a tenth below it.
fn rounded_maps(maps: f64, unit: usize) -> usize {
    let half = unit as f64 / 2.;
    let nearest = (((maps + half) as usize) / unit * unit).max(unit);
    if (nearest as f64) < 0.9 * maps {
        nearest + unit
    } else {
        nearest
    }
}
