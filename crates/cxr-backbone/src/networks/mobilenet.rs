//! MobileNet-V2 (Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR
//! 2018).
//!
//! ```text
//! images ─ 3×3/2, 32 ─ 17 inverted residuals ─ 1×1, 1280 ─ features
//!
//! inverted residual  x ─┬─ 1×1, t times the maps ─ depthwise 3×3/s ─ 1×1 without activation ─ +
//!                       └─ (at stride 1 and with as many maps) ──────────────────────────────┘
//! ```
//!
//! Every convolution is followed by a batch normalisation and, but for the last of a residual, by a ReLU6. The first
//! residual, with t = 1, has no first convolution.

use cxr_ops::{ConvLayer, NetworkBuilder, NetworkDescription, Node, Nonlinearity, OpsError};

use super::Constants;

/// `(t, maps, residuals, stride of the first)`.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// MobileNet-V2, with 1280 feature maps.
pub(super) fn v2(constants: &Constants) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let images = net.images();
    let mut x = convolution(
        &mut net,
        "0",
        images,
        ConvLayer::new(32, 3).stride(2).same(),
    );
    let mut layer = 1;
    for (stage, (expansion, maps, residuals, first_stride)) in STAGES.into_iter().enumerate() {
        for index in 0..residuals {
            let stride = if index == 0 { first_stride } else { 1 };
            x = residual(
                &mut net,
                &format!("{layer}.conv"),
                x,
                expansion,
                maps,
                stride,
            );
            layer += 1;
        }
        net.name(&format!("stage{}", stage + 1), x);
    }
    let x = convolution(&mut net, &layer.to_string(), x, ConvLayer::new(1280, 1));
    net.finish(x)
}

/// A convolution, `0`, with its normalisation, `1`, and a ReLU6.
fn convolution(net: &mut NetworkBuilder, name: &str, x: Node, layer: ConvLayer) -> Node {
    let x = net.conv(&format!("{name}.0"), x, layer);
    let x = net.norm(&format!("{name}.1"), x);
    net.activation(x, Nonlinearity::Relu6)
}

fn residual(
    net: &mut NetworkBuilder,
    name: &str,
    input: Node,
    expansion: usize,
    maps: usize,
    stride: usize,
) -> Node {
    let hidden = expansion * net.channels(input);
    let (mut x, mut part) = (input, 0);
    if expansion != 1 {
        x = convolution(net, &format!("{name}.{part}"), x, ConvLayer::new(hidden, 1));
        part += 1;
    }
    let depthwise = ConvLayer::new(hidden, 3)
        .stride(stride)
        .same()
        .groups(hidden);
    let x = convolution(net, &format!("{name}.{part}"), x, depthwise);
    let x = net.conv(&format!("{name}.{}", part + 1), x, ConvLayer::new(maps, 1));
    let x = net.norm(&format!("{name}.{}", part + 2), x);
    if stride == 1 && net.channels(input) == maps {
        net.add(x, input)
    } else {
        x
    }
}
