//! RegNet (Radosavovic, Kosaraju, Girshick, He, Dollár: Designing Network Design Spaces, CVPR 2020).
//!
//! ```text
//! images ─ stem 3×3/2, 32 ─ four stages ─ features
//!
//! block   x ─┬─ a 1×1 ─ relu ─ b 3×3/s in groups ─ relu ─ (Y: squeeze-excite) ─ c 1×1 ─ + ─ relu
//!            └─ proj 1×1/s (where the size or the number of maps changes) ────────────┘
//! ```
//!
//! Every convolution but those of squeeze-excite is followed by a batch normalisation. The first block of each stage
//! has stride 2. A squeeze-excite has a quarter of the maps that come into its block.

use cxr_ops::{ConvLayer, NetworkBuilder, NetworkDescription, Node, Nonlinearity, OpsError};

use super::Constants;

/// RegNet-X, without squeeze-excite.
pub(super) fn x(
    constants: &Constants,
    blocks: [usize; 4],
    maps: [usize; 4],
    group_maps: usize,
) -> Result<NetworkDescription, OpsError> {
    network(constants, blocks, maps, group_maps, false)
}

/// RegNet-Y, with squeeze-excite.
pub(super) fn y(
    constants: &Constants,
    blocks: [usize; 4],
    maps: [usize; 4],
    group_maps: usize,
) -> Result<NetworkDescription, OpsError> {
    network(constants, blocks, maps, group_maps, true)
}

fn network(
    constants: &Constants,
    blocks: [usize; 4],
    maps: [usize; 4],
    group_maps: usize,
    has_gates: bool,
) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let images = net.images();
    let x = convolution(
        &mut net,
        "stem",
        images,
        ConvLayer::new(32, 3).stride(2).same(),
    );
    let mut x = net.relu(x);
    for (stage, (blocks, maps)) in (1..).zip(blocks.into_iter().zip(maps)) {
        for block in 0..blocks {
            let name = format!("trunk_output.block{stage}.block{stage}-{block}");
            let stride = if block == 0 { 2 } else { 1 };
            x = residual(&mut net, &name, x, maps, stride, group_maps, has_gates);
        }
        net.name(&format!("stage{stage}"), x);
    }
    net.finish(x)
}

/// A convolution, `0`, with its normalisation, `1`.
fn convolution(net: &mut NetworkBuilder, name: &str, x: Node, layer: ConvLayer) -> Node {
    let x = net.conv(&format!("{name}.0"), x, layer);
    net.norm(&format!("{name}.1"), x)
}

fn residual(
    net: &mut NetworkBuilder,
    name: &str,
    input: Node,
    maps: usize,
    stride: usize,
    group_maps: usize,
    has_gates: bool,
) -> Node {
    let maps_in = net.channels(input);
    let identity = if stride == 1 && maps_in == maps {
        input
    } else {
        let project = ConvLayer::new(maps, 1).stride(stride);
        convolution(net, &format!("{name}.proj"), input, project)
    };
    let x = convolution(net, &format!("{name}.f.a"), input, ConvLayer::new(maps, 1));
    let x = net.relu(x);
    let groups = maps / group_maps.min(maps);
    let middle = ConvLayer::new(maps, 3).stride(stride).same().groups(groups);
    let x = convolution(net, &format!("{name}.f.b"), x, middle);
    let mut x = net.relu(x);
    if has_gates {
        let squeezed = (0.25 * maps_in as f64).round_ties_even() as usize;
        let (inner, outer) = (Nonlinearity::Relu, Nonlinearity::Sigmoid);
        x = net.squeeze_excite_with(&format!("{name}.f.se"), x, squeezed, inner, outer);
    }
    let x = convolution(net, &format!("{name}.f.c"), x, ConvLayer::new(maps, 1));
    let x = net.add(x, identity);
    net.relu(x)
}
