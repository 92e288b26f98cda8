//! ResNet (He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition, CVPR 2016) and ResNeXt (Xie et al.:
//! Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017).
//!
//! ```text
//! images ─ conv1 7×7/2, 64 ─ bn1 ─ relu ─ max pool 3×3/2 ─ layer1 ─ layer2 ─ layer3 ─ layer4 ─ features
//!
//! a layer is a row of blocks, of which the first of layer2, layer3 and layer4 has stride 2:
//!
//! basic       x ─┬─ conv1 3×3/s ─ bn1 ─ relu ─ conv2 3×3 ─ bn2 ───────────────────────────── + ─ relu
//!                └─ downsample 1×1/s, norm (where the size or the number of maps changes) ──┘
//!
//! bottleneck  x ─┬─ conv1 1×1 ─ bn1 ─ relu ─ conv2 3×3/s ─ bn2 ─ relu ─ conv3 1×1 ─ bn3 ──── + ─ relu
//!                └─ downsample 1×1/s, norm ─────────────────────────────────────────────────┘
//! ```
//!
//! The stride is on the 3×3 convolution, as in torchvision; the paper has it on the first 1×1. In ResNeXt the 3×3
//! convolution of a bottleneck has groups.
//!
//! Baltruschat et al. (Comparison of Deep Learning Approaches for Multi-Label Chest X-Ray Classification, Scientific Reports 9,
//! 2019) have a ResNet-38, whose layers have 2, 3, 5 and 2 bottlenecks, and for images of 448×448 pixels a second max pool
//! like the first between layer1 and layer2, `max_pool_after_layer1`: later maps keep the sizes that they have of 224×224.

use cxr_ops::{ConvLayer, NetworkBuilder, NetworkDescription, Node, OpsError};

use super::Constants;

/// Maps of the four layers, before a bottleneck's expansion.
const PLANES: [usize; 4] = [64, 128, 256, 512];
/// A bottleneck ends with this many times its layer's maps.
const EXPANSION: usize = 4;

/// ResNet-18 and ResNet-34, with 512 feature maps.
pub(super) fn basic(
    constants: &Constants,
    blocks: [usize; 4],
) -> Result<NetworkDescription, OpsError> {
    network(constants, blocks, |net, name, x, planes, stride| {
        let identity = shortcut(net, name, x, planes, stride);
        let first = ConvLayer::new(planes, 3).stride(stride).same();
        let x = net.conv(&format!("{name}.conv1"), x, first);
        let x = net.norm(&format!("{name}.bn1"), x);
        let x = net.relu(x);
        let x = net.conv(
            &format!("{name}.conv2"),
            x,
            ConvLayer::new(planes, 3).same(),
        );
        let x = net.norm(&format!("{name}.bn2"), x);
        let x = net.add(x, identity);
        net.relu(x)
    })
}

/// ResNet-38, -50, -101, -152 and ResNeXt, with 2048 feature maps.
pub(super) fn bottleneck(
    constants: &Constants,
    blocks: [usize; 4],
    groups: usize,
    base_width: usize,
) -> Result<NetworkDescription, OpsError> {
    network(constants, blocks, |net, name, x, planes, stride| {
        let width = planes * base_width / 64 * groups;
        let identity = shortcut(net, name, x, EXPANSION * planes, stride);
        let x = net.conv(&format!("{name}.conv1"), x, ConvLayer::new(width, 1));
        let x = net.norm(&format!("{name}.bn1"), x);
        let x = net.relu(x);
        let middle = ConvLayer::new(width, 3)
            .stride(stride)
            .same()
            .groups(groups);
        let x = net.conv(&format!("{name}.conv2"), x, middle);
        let x = net.norm(&format!("{name}.bn2"), x);
        let x = net.relu(x);
        let last = ConvLayer::new(EXPANSION * planes, 1);
        let x = net.conv(&format!("{name}.conv3"), x, last);
        let x = net.norm(&format!("{name}.bn3"), x);
        let x = net.add(x, identity);
        net.relu(x)
    })
}

fn network(
    constants: &Constants,
    blocks: [usize; 4],
    block: impl Fn(&mut NetworkBuilder, &str, Node, usize, usize) -> Node,
) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let images = net.images();
    let x = net.conv("conv1", images, ConvLayer::new(64, 7).stride(2).same());
    let x = net.norm("bn1", x);
    let x = net.relu(x);
    let mut x = net.max_pool(x, 3, 2, 1);
    for (layer, (count, planes)) in blocks.into_iter().zip(PLANES).enumerate() {
        let name = format!("layer{}", layer + 1);
        for index in 0..count {
            let stride = if layer > 0 && index == 0 { 2 } else { 1 };
            x = block(&mut net, &format!("{name}.{index}"), x, planes, stride);
        }
        net.name(&name, x);
        if layer == 0 && constants.max_pool_after_layer1 {
            x = net.max_pool(x, 3, 2, 1);
        }
    }
    net.finish(x)
}

/// What a block's result is added to.
fn shortcut(net: &mut NetworkBuilder, name: &str, x: Node, maps: usize, stride: usize) -> Node {
    if stride == 1 && net.channels(x) == maps {
        return x;
    }
    let name = format!("{name}.downsample");
    let x = net.conv(
        &format!("{name}.0"),
        x,
        ConvLayer::new(maps, 1).stride(stride),
    );
    net.norm(&format!("{name}.1"), x)
}
