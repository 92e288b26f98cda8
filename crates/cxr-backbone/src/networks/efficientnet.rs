//! EfficientNet (Tan, Le: EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019) and
//! EfficientNet-V2 (Tan, Le: EfficientNetV2: Smaller Models and Faster Training, ICML 2021).
//!
//! ```text
//! images ─ 3×3/2 ─ stages of blocks ─ 1×1 ─ features
//!
//! MBConv   x ─┬─ 1×1, t times the maps ─ depthwise k×k/s ─ squeeze-excite ─ 1×1 without activation ─ depth ─ +
//!             └─ (at stride 1 and with as many maps) ───────────────────────────────────────────────────────┘
//! fused    x ─┬─ k×k/s, t times the maps ─ 1×1 without activation ─ depth ─ +
//!             └────────────────────────────────────────────────────────────┘
//! ```
//!
//! Every convolution but those of squeeze-excite is followed by a batch normalisation and, but for the last of a block,
//! by SiLU. With t = 1 an MBConv has no first convolution and a fused block only its first. `depth` is stochastic
//! depth, whose rate grows from 0 to 0.2 over the blocks.

use cxr_ops::{ConvLayer, NetworkBuilder, NetworkDescription, Node, Nonlinearity, OpsError};

use super::{Constants, rounded_maps};

#[derive(Debug, Clone, Copy)]
struct Stage {
    is_fused: bool,
    expansion: usize,
    kernel: usize,
    stride: usize,
    maps: usize,
    blocks: usize,
}

const fn mb(expansion: usize, kernel: usize, stride: usize, maps: usize, blocks: usize) -> Stage {
    Stage {
        is_fused: false,
        expansion,
        kernel,
        stride,
        maps,
        blocks,
    }
}

const fn fused(expansion: usize, stride: usize, maps: usize, blocks: usize) -> Stage {
    Stage {
        is_fused: true,
        expansion,
        kernel: 3,
        stride,
        maps,
        blocks,
    }
}

/// B0's, which the others scale.
const B: [Stage; 7] = [
    mb(1, 3, 1, 16, 1),
    mb(6, 3, 2, 24, 2),
    mb(6, 5, 2, 40, 2),
    mb(6, 3, 2, 80, 3),
    mb(6, 5, 1, 112, 3),
    mb(6, 5, 2, 192, 4),
    mb(6, 3, 1, 320, 1),
];

const V2_S: [Stage; 6] = [
    fused(1, 1, 24, 2),
    fused(4, 2, 48, 4),
    fused(4, 2, 64, 4),
    mb(4, 3, 2, 128, 6),
    mb(6, 3, 1, 160, 9),
    mb(6, 3, 2, 256, 15),
];

/// EfficientNet-B, with `width` times B0's maps and `depth` times its blocks.
pub(super) fn b(
    constants: &Constants,
    width: f64,
    depth: f64,
) -> Result<NetworkDescription, OpsError> {
    let stages = B.map(|stage| Stage {
        maps: rounded_maps(stage.maps as f64 * width, 8),
        blocks: (stage.blocks as f64 * depth).ceil() as usize,
        ..stage
    });
    let stem = rounded_maps(32. * width, 8);
    network(constants, stem, &stages, 4 * stages[6].maps)
}

/// EfficientNet-V2-S, with 1280 feature maps.
pub(super) fn v2_s(constants: &Constants) -> Result<NetworkDescription, OpsError> {
    network(constants, 24, &V2_S, 1280)
}

fn network(
    constants: &Constants,
    stem: usize,
    stages: &[Stage],
    features: usize,
) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let images = net.images();
    let mut x = convolution(
        &mut net,
        "0",
        images,
        ConvLayer::new(stem, 3).stride(2).same(),
    );
    let all: usize = stages.iter().map(|stage| stage.blocks).sum();
    let mut done = 0_usize;
    for (index, &stage) in stages.iter().enumerate() {
        for block in 0..stage.blocks {
            let stage = Stage {
                stride: if block == 0 { stage.stride } else { 1 },
                ..stage
            };
            let name = format!("{}.{block}", index + 1);
            let rate = constants.stochastic_depth * done as f64 / all as f64;
            x = residual(&mut net, &name, x, stage, rate);
            done += 1;
        }
        net.name(&format!("stage{}", index + 1), x);
    }
    let last = (stages.len() + 1).to_string();
    let x = convolution(&mut net, &last, x, ConvLayer::new(features, 1));
    net.finish(x)
}

/// A convolution, `0`, with its normalisation, `1`, and SiLU.
fn convolution(net: &mut NetworkBuilder, name: &str, x: Node, layer: ConvLayer) -> Node {
    let x = linear_convolution(net, name, x, layer);
    net.activation(x, Nonlinearity::Silu)
}

fn linear_convolution(net: &mut NetworkBuilder, name: &str, x: Node, layer: ConvLayer) -> Node {
    let x = net.conv(&format!("{name}.0"), x, layer);
    net.norm(&format!("{name}.1"), x)
}

fn residual(net: &mut NetworkBuilder, name: &str, input: Node, stage: Stage, rate: f64) -> Node {
    let maps_in = net.channels(input);
    let hidden = stage.expansion * maps_in;
    let part = |index: usize| format!("{name}.block.{index}");
    let window = |maps: usize| {
        ConvLayer::new(maps, stage.kernel)
            .stride(stage.stride)
            .same()
    };
    let project = ConvLayer::new(stage.maps, 1);
    let x = match (stage.is_fused, stage.expansion) {
        (true, 1) => convolution(net, &part(0), input, window(stage.maps)),
        (true, _) => {
            let x = convolution(net, &part(0), input, window(hidden));
            linear_convolution(net, &part(1), x, project)
        }
        (false, expansion) => {
            let (mut x, mut index) = (input, 0);
            if expansion != 1 {
                x = convolution(net, &part(0), x, ConvLayer::new(hidden, 1));
                index += 1;
            }
            let x = convolution(net, &part(index), x, window(hidden).groups(hidden));
            let x = net.squeeze_excite(&part(index + 1), x, (maps_in / 4).max(1));
            linear_convolution(net, &part(index + 2), x, project)
        }
    };
    if stage.stride == 1 && maps_in == stage.maps {
        let x = net.stochastic_depth(&format!("{name}.stochastic_depth"), x, rate);
        net.add(x, input)
    } else {
        x
    }
}
