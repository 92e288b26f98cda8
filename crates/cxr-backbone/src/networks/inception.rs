//! Inception-V3 (Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision,
//! CVPR 2016), without its auxiliary classifier.
//!
//! ```text
//! images ─ 1a 3×3/2 ─ 2a 3×3 ─ 2b 3×3 ─ max pool 3×3/2 ─ 3b 1×1 ─ 4a 3×3 ─ max pool 3×3/2
//!        ─ A 5b ─ A 5c ─ A 5d ─ B 6a ─ C 6b ─ C 6c ─ C 6d ─ C 6e ─ D 7a ─ E 7b ─ E 7c ─ features
//!
//! A  x ─┬─ 1×1, 64 ───────────────────────────────────────────────── concat
//!       ├─ 1×1, 48 ─ 5×5, 64 ────────────────────────────────────────┤
//!       ├─ 1×1, 64 ─ 3×3, 96 ─ 3×3, 96 ──────────────────────────────┤
//!       └─ average pool 3×3 ─ 1×1, 32 or 64 ─────────────────────────┘
//! B  x ─┬─ 3×3/2, 384 ── 1×1, 64 ─ 3×3, 96 ─ 3×3/2, 96 ── max pool 3×3/2
//! C  x ─┬─ 1×1, 192 ── 1×1 ─ 1×7 ─ 7×1, 192 ── 1×1 ─ 7×1 ─ 1×7 ─ 7×1 ─ 1×7, 192 ── average pool ─ 1×1, 192
//! D  x ─┬─ 1×1, 192 ─ 3×3/2, 320 ── 1×1 ─ 1×7 ─ 7×1 ─ 3×3/2, 192 ── max pool 3×3/2
//! E  x ─┬─ 1×1, 320 ── 1×1, 384 ─ (1×3, 384 and 3×1, 384) ── 1×1, 448 ─ 3×3, 384 ─ (1×3 and 3×1) ── average pool ─ 1×1, 192
//! ```
//!
//! Every convolution is followed by a batch normalisation with ε = 0.001 and a ReLU. The weights were trained on pixels
//! in ±1, to which images are brought first, as torchvision's `transform_input` does.

use cxr_ops::{ConvLayer, NetworkBuilder, NetworkDescription, Node, OpsError};

use super::{Constants, between_one};

/// Inception-V3, with 2048 feature maps, for images of at least 75×75 pixels.
pub(super) fn v3(constants: &Constants) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let x = features(&mut net);
    net.finish(x)
}

fn features(net: &mut NetworkBuilder) -> Node {
    let x = between_one(net);
    let x = convolution(net, "Conv2d_1a_3x3", x, ConvLayer::new(32, 3).stride(2));
    let x = convolution(net, "Conv2d_2a_3x3", x, ConvLayer::new(32, 3));
    let x = convolution(net, "Conv2d_2b_3x3", x, ConvLayer::new(64, 3).same());
    let x = net.max_pool(x, 3, 2, 0);
    let x = convolution(net, "Conv2d_3b_1x1", x, ConvLayer::new(80, 1));
    let x = convolution(net, "Conv2d_4a_3x3", x, ConvLayer::new(192, 3));
    let mut x = net.max_pool(x, 3, 2, 0);
    for (name, pool_maps) in [("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)] {
        x = block_a(net, name, x, pool_maps);
    }
    x = block_b(net, "Mixed_6a", x);
    let middle = [
        ("Mixed_6b", 128),
        ("Mixed_6c", 160),
        ("Mixed_6d", 160),
        ("Mixed_6e", 192),
    ];
    for (name, maps) in middle {
        x = block_c(net, name, x, maps);
    }
    x = block_d(net, "Mixed_7a", x);
    for name in ["Mixed_7b", "Mixed_7c"] {
        x = block_e(net, name, x);
    }
    x
}

fn convolution(net: &mut NetworkBuilder, name: &str, x: Node, layer: ConvLayer) -> Node {
    let x = net.conv(&format!("{name}.conv"), x, layer);
    let x = net.norm(&format!("{name}.bn"), x);
    net.relu(x)
}

/// Convolutions in a row, by the ends of their names.
fn row(net: &mut NetworkBuilder, name: &str, x: Node, layers: &[(&str, ConvLayer)]) -> Node {
    layers.iter().fold(x, |x, (end, layer)| {
        convolution(net, &format!("{name}.{end}"), x, *layer)
    })
}

fn one(maps: usize) -> ConvLayer {
    ConvLayer::new(maps, 1)
}

fn three(maps: usize) -> ConvLayer {
    ConvLayer::new(maps, 3).same()
}

fn halving(maps: usize) -> ConvLayer {
    ConvLayer::new(maps, 3).stride(2)
}

fn line(maps: usize, kernel: [usize; 2]) -> ConvLayer {
    ConvLayer::rectangular(maps, kernel).same()
}

fn pooled(net: &mut NetworkBuilder, name: &str, x: Node, maps: usize) -> Node {
    let x = net.average_pool(x, 3, 1, 1);
    convolution(net, &format!("{name}.branch_pool"), x, one(maps))
}

fn named(net: &mut NetworkBuilder, name: &str, branches: &[Node]) -> Node {
    let x = net.concat(branches);
    net.name(name, x)
}

fn block_a(net: &mut NetworkBuilder, name: &str, x: Node, pool_maps: usize) -> Node {
    let five = ConvLayer::new(64, 5).same();
    let branches = [
        row(net, name, x, &[("branch1x1", one(64))]),
        row(
            net,
            name,
            x,
            &[("branch5x5_1", one(48)), ("branch5x5_2", five)],
        ),
        row(
            net,
            name,
            x,
            &[
                ("branch3x3dbl_1", one(64)),
                ("branch3x3dbl_2", three(96)),
                ("branch3x3dbl_3", three(96)),
            ],
        ),
        pooled(net, name, x, pool_maps),
    ];
    named(net, name, &branches)
}

fn block_b(net: &mut NetworkBuilder, name: &str, x: Node) -> Node {
    let branches = [
        row(net, name, x, &[("branch3x3", halving(384))]),
        row(
            net,
            name,
            x,
            &[
                ("branch3x3dbl_1", one(64)),
                ("branch3x3dbl_2", three(96)),
                ("branch3x3dbl_3", halving(96)),
            ],
        ),
        net.max_pool(x, 3, 2, 0),
    ];
    named(net, name, &branches)
}

fn block_c(net: &mut NetworkBuilder, name: &str, x: Node, maps: usize) -> Node {
    let branches = [
        row(net, name, x, &[("branch1x1", one(192))]),
        row(
            net,
            name,
            x,
            &[
                ("branch7x7_1", one(maps)),
                ("branch7x7_2", line(maps, [1, 7])),
                ("branch7x7_3", line(192, [7, 1])),
            ],
        ),
        row(
            net,
            name,
            x,
            &[
                ("branch7x7dbl_1", one(maps)),
                ("branch7x7dbl_2", line(maps, [7, 1])),
                ("branch7x7dbl_3", line(maps, [1, 7])),
                ("branch7x7dbl_4", line(maps, [7, 1])),
                ("branch7x7dbl_5", line(192, [1, 7])),
            ],
        ),
        pooled(net, name, x, 192),
    ];
    named(net, name, &branches)
}

fn block_d(net: &mut NetworkBuilder, name: &str, x: Node) -> Node {
    let branches = [
        row(
            net,
            name,
            x,
            &[("branch3x3_1", one(192)), ("branch3x3_2", halving(320))],
        ),
        row(
            net,
            name,
            x,
            &[
                ("branch7x7x3_1", one(192)),
                ("branch7x7x3_2", line(192, [1, 7])),
                ("branch7x7x3_3", line(192, [7, 1])),
                ("branch7x7x3_4", halving(192)),
            ],
        ),
        net.max_pool(x, 3, 2, 0),
    ];
    named(net, name, &branches)
}

fn block_e(net: &mut NetworkBuilder, name: &str, x: Node) -> Node {
    let first = row(net, name, x, &[("branch1x1", one(320))]);
    let wide = row(net, name, x, &[("branch3x3_1", one(384))]);
    let deep = row(
        net,
        name,
        x,
        &[("branch3x3dbl_1", one(448)), ("branch3x3dbl_2", three(384))],
    );
    let branches = [
        first,
        row(net, name, wide, &[("branch3x3_2a", line(384, [1, 3]))]),
        row(net, name, wide, &[("branch3x3_2b", line(384, [3, 1]))]),
        row(net, name, deep, &[("branch3x3dbl_3a", line(384, [1, 3]))]),
        row(net, name, deep, &[("branch3x3dbl_3b", line(384, [3, 1]))]),
        pooled(net, name, x, 192),
    ];
    named(net, name, &branches)
}
