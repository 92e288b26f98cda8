//! ConvNeXt (Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s, CVPR 2022) and ConvNeXt V2 (Woo et al.:
//! Co-designing and Scaling ConvNets with Masked Autoencoders, CVPR 2023).
//!
//! ```text
//! images ─ 4×4/4 ─ norm ─ stage ─ (norm ─ 2×2/2 ─ stage) three times ─ features
//!
//! block   x ─┬─ depthwise 7×7 ─ norm ─ linear, 4 times the maps ─ GELU ─ linear ─ layer scale ─ depth ─ +
//!            └─────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! V2      x ─┬─ depthwise 7×7 ─ norm ─ linear, 4 times the maps ─ GELU ─ response norm ─ linear ─ depth ─ +
//!            └────────────────────────────────────────────────────────────────────────────────────────────┘
//!
//! `norm` is a layer normalisation of each pixel, `depth` stochastic depth, whose rate grows from 0 over the blocks. All
//! convolutions have biases.

use cxr_ops::{ConvLayer, Init, NetworkBuilder, NetworkDescription, Node, Nonlinearity, OpsError};

use super::Constants;

const EPS: f64 = 1e-6;
const INIT: Init = Init::Normal(0.02);
/// What layer scales begin with.
const SCALE: f32 = 1e-6;

/// How the files of a version name its layers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    /// By torchvision: `0.0`, `1.0.block.0`, `2.0` and so on.
    One,
    /// By timm: `stem.0`, `stages.0.blocks.0.conv_dw`, `stages.1.downsample.0`.
    Two,
}

impl Version {
    fn stem(self, part: usize) -> String {
        match self {
            Self::One => format!("0.{part}"),
            Self::Two => format!("stem.{part}"),
        }
    }

    /// What halves the size before a stage.
    fn downsample(self, stage: usize, part: usize) -> String {
        match self {
            Self::One => format!("{}.{part}", 2 * stage),
            Self::Two => format!("stages.{stage}.downsample.{part}"),
        }
    }

    fn block(self, stage: usize, block: usize) -> String {
        match self {
            Self::One => format!("{}.{block}", 2 * stage + 1),
            Self::Two => format!("stages.{stage}.blocks.{block}"),
        }
    }

    /// Depthwise convolution, normalisation and the two dense layers of a block.
    fn parts(self) -> [&'static str; 4] {
        match self {
            Self::One => ["block.0", "block.2", "block.3", "block.5"],
            Self::Two => ["conv_dw", "norm", "mlp.fc1", "mlp.fc2"],
        }
    }
}

/// The first version, under torchvision's names.
pub(super) fn v1(
    constants: &Constants,
    blocks: [usize; 4],
    maps: [usize; 4],
) -> Result<NetworkDescription, OpsError> {
    network(constants, Version::One, blocks, maps)
}

/// The second version, under timm's names.
pub(super) fn v2(
    constants: &Constants,
    blocks: [usize; 4],
    maps: [usize; 4],
) -> Result<NetworkDescription, OpsError> {
    network(constants, Version::Two, blocks, maps)
}

fn network(
    constants: &Constants,
    version: Version,
    blocks: [usize; 4],
    maps: [usize; 4],
) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let images = net.images();
    let stem = ConvLayer::new(maps[0], 4).stride(4).biased().init(INIT);
    let x = net.conv(&version.stem(0), images, stem);
    let mut x = net.layer_norm(&version.stem(1), x, EPS);
    let depth = constants.stochastic_depth;
    let all: usize = blocks.iter().sum();
    let mut done = 0_usize;
    for (stage, (blocks, maps)) in blocks.into_iter().zip(maps).enumerate() {
        if stage > 0 {
            x = net.layer_norm(&version.downsample(stage, 0), x, EPS);
            let halve = ConvLayer::new(maps, 2).stride(2).biased().init(INIT);
            x = net.conv(&version.downsample(stage, 1), x, halve);
        }
        for block in 0..blocks {
            let rate = depth * done as f64 / (all - 1) as f64;
            x = residual(&mut net, version, &version.block(stage, block), x, rate);
            done += 1;
        }
        net.name(&format!("stage{}", stage + 1), x);
    }
    net.finish(x)
}

fn residual(
    net: &mut NetworkBuilder,
    version: Version,
    name: &str,
    input: Node,
    rate: f64,
) -> Node {
    let maps = net.channels(input);
    let [depthwise, norm, first, second] = version.parts().map(|part| format!("{name}.{part}"));
    let window = ConvLayer::new(maps, 7)
        .same()
        .groups(maps)
        .biased()
        .init(INIT);
    let x = net.conv(&depthwise, input, window);
    let x = net.layer_norm(&norm, x, EPS);
    let x = net.linear(&first, x, 4 * maps, INIT);
    let mut x = net.activation(x, Nonlinearity::Gelu);
    if version == Version::Two {
        x = net.response_norm(&format!("{name}.mlp.grn"), x, EPS);
    }
    let mut x = net.linear(&second, x, maps, INIT);
    if version == Version::One {
        x = net.layer_scale(&format!("{name}.layer_scale"), x, SCALE);
    }
    let x = net.stochastic_depth(&format!("{name}.stochastic_depth"), x, rate);
    net.add(x, input)
}
