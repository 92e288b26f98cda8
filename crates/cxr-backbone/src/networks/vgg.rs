//! VGG-16 (Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015).
//!
//! ```text
//! images ─ 2 × 64 ─ pool ─ 2 × 128 ─ pool ─ 3 × 256 ─ pool ─ 3 × 512 ─ pool ─ 3 × 512 ─ pool ─ features
//!
//! n × m: n times a 3×3 convolution with bias to m maps, a batch normalisation in `vgg16_bn`, and a ReLU
//! pool: max pool 2×2/2
//! ```
//!
//! Layers are numbered as in torchvision, where ReLUs and pools count.

use cxr_ops::{ConvLayer, NetworkDescription, OpsError};

use super::Constants;

/// Convolutions and their maps, between pools.
const STAGES: [(usize, usize); 5] = [(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)];

/// VGG-16 to its last pool, with 512 feature maps.
pub(super) fn vgg16(
    constants: &Constants,
    is_normalised: bool,
) -> Result<NetworkDescription, OpsError> {
    let mut net = constants.builder();
    let mut x = net.images();
    let mut layer = 0;
    for (stage, (convolutions, maps)) in STAGES.into_iter().enumerate() {
        for _ in 0..convolutions {
            x = net.conv(
                &layer.to_string(),
                x,
                ConvLayer::new(maps, 3).same().biased(),
            );
            if is_normalised {
                layer += 1;
                x = net.norm(&layer.to_string(), x);
            }
            x = net.relu(x);
            layer += 2;
        }
        net.name(&format!("stage{}", stage + 1), x);
        x = net.max_pool(x, 2, 2, 0);
        layer += 1;
    }
    net.finish(x)
}
