//! Xception (Chollet: Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017), as timm has it.
//!
//! ```text
//! images ─ conv1 3×3/2, 32 ─ relu ─ conv2 3×3, 64 ─ relu ─ block1 … block12 ─ conv3, 1536 ─ relu ─ conv4, 2048 ─ relu
//!
//! block   x ─┬─ (relu ─ separable 3×3 ─ norm) two or three times ─ max pool 3×3/2 ─ + ─
//!            └─ skip 1×1/2 ─ norm ─────────────────────────────────────────────────┘
//! ```
//!
//! A separable convolution is a depthwise 3×3 and a 1×1, with nothing between. Blocks 4 to 11 keep size and maps and add
//! their input itself; block 1 begins without a ReLU; conv3 and conv4 are separable. The weights were trained on
//! pixels in ±1, to which images are brought first.

use cxr_ops::{ConvLayer, NetworkBuilder, NetworkDescription, Node, OpsError};

use super::{Constants, between_one};

/// Xception, with 2048 feature maps.
pub(super) fn xception(constants: &Constants) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let x = between_one(&mut net);
    let x = net.conv("conv1", x, ConvLayer::new(32, 3).stride(2));
    let x = net.norm("bn1", x);
    let x = net.relu(x);
    let x = net.conv("conv2", x, ConvLayer::new(64, 3));
    let x = net.norm("bn2", x);
    let mut x = net.relu(x);
    for block in 1..=12 {
        let name = format!("block{block}");
        let maps: &[usize] = match block {
            1 => &[128, 128],
            2 => &[256, 256],
            3 => &[728, 728],
            12 => &[728, 1024],
            _ => &[728, 728, 728],
        };
        x = residual(&mut net, &name, x, maps, block > 1);
        net.name(&name, x);
    }
    let x = separable(&mut net, "conv3", x, 1536);
    let x = net.norm("bn3", x);
    let x = net.relu(x);
    let x = separable(&mut net, "conv4", x, 2048);
    let x = net.norm("bn4", x);
    let x = net.relu(x);
    net.finish(x)
}

fn separable(net: &mut NetworkBuilder, name: &str, x: Node, maps: usize) -> Node {
    let x = net.depthwise(&format!("{name}.conv1"), x, 3, 1);
    net.conv(&format!("{name}.pointwise"), x, ConvLayer::new(maps, 1))
}

/// Blocks of two repetitions halve the size.
fn residual(
    net: &mut NetworkBuilder,
    name: &str,
    input: Node,
    maps: &[usize],
    begins_with_relu: bool,
) -> Node {
    let is_halving = maps.len() == 2;
    let mut x = input;
    // Layers are numbered with their ReLUs.
    let mut layer = 0;
    for (repetition, &maps) in maps.iter().enumerate() {
        if repetition > 0 || begins_with_relu {
            x = net.relu(x);
            layer += 1;
        }
        x = separable(net, &format!("{name}.rep.{layer}"), x, maps);
        x = net.norm(&format!("{name}.rep.{}", layer + 1), x);
        layer += 2;
    }
    if !is_halving {
        return net.add(x, input);
    }
    let x = net.max_pool(x, 3, 2, 1);
    let maps = net.channels(x);
    let skip = net.conv(
        &format!("{name}.skip"),
        input,
        ConvLayer::new(maps, 1).stride(2),
    );
    let skip = net.norm(&format!("{name}.skipbn"), skip);
    net.add(x, skip)
}
