//! ConvNeXt (Liu, Mao, Wu, Feichtenhofer, Darrell, Xie: A ConvNet for the 2020s, CVPR 2022).
//!
//! ```text
//! images ─ 4×4/4 ─ norm ─ stage ─ (norm ─ 2×2/2 ─ stage) three times ─ features
//!
//! block   x ─┬─ depthwise 7×7 ─ norm ─ linear, 4 times the maps ─ GELU ─ linear ─ layer scale ─ depth ─ +
//!            └─────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! `norm` is a layer normalisation of each pixel, `depth` stochastic depth, whose rate grows from 0 over the blocks. All
//! convolutions have biases.

use cxr_ops::{ConvLayer, Init, NetworkBuilder, NetworkDescription, Node, Nonlinearity, OpsError};

use super::Constants;

const EPS: f64 = 1e-6;
const INIT: Init = Init::Normal(0.02);
/// What layer scales begin with.
const SCALE: f32 = 1e-6;

/// The first version, under torchvision's names.
pub(super) fn v1(
    constants: &Constants,
    blocks: [usize; 4],
    maps: [usize; 4],
) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let images = net.images();
    let stem = ConvLayer::new(maps[0], 4).stride(4).biased().init(INIT);
    let x = net.conv("0.0", images, stem);
    let mut x = net.layer_norm("0.1", x, EPS);
    let depth = constants.stochastic_depth;
    let all: usize = blocks.iter().sum();
    let mut done = 0_usize;
    for (stage, (blocks, maps)) in blocks.into_iter().zip(maps).enumerate() {
        if stage > 0 {
            let name = 2 * stage;
            x = net.layer_norm(&format!("{name}.0"), x, EPS);
            let halve = ConvLayer::new(maps, 2).stride(2).biased().init(INIT);
            x = net.conv(&format!("{name}.1"), x, halve);
        }
        for block in 0..blocks {
            let rate = depth * done as f64 / (all - 1) as f64;
            x = residual(&mut net, &format!("{}.{block}", 2 * stage + 1), x, rate);
            done += 1;
        }
        net.name(&format!("stage{}", stage + 1), x);
    }
    net.finish(x)
}

fn residual(net: &mut NetworkBuilder, name: &str, input: Node, rate: f64) -> Node {
    let maps = net.channels(input);
    let part = |index: usize| format!("{name}.block.{index}");
    let window = ConvLayer::new(maps, 7)
        .same()
        .groups(maps)
        .biased()
        .init(INIT);
    let x = net.conv(&part(0), input, window);
    let x = net.layer_norm(&part(2), x, EPS);
    let x = net.linear(&part(3), x, 4 * maps, INIT);
    let x = net.activation(x, Nonlinearity::Gelu);
    let x = net.linear(&part(5), x, maps, INIT);
    let x = net.layer_scale(&format!("{name}.layer_scale"), x, SCALE);
    let x = net.stochastic_depth(&format!("{name}.stochastic_depth"), x, rate);
    net.add(x, input)
}
