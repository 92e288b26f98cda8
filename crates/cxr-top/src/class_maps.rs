//! Class activation maps by a head's own weights.

use candle_core::{Result, Tensor};
use cxr_ops::{Linear, Phase};

/// What the last dense layer makes of each place by itself, `N×L×h×w` of maps `N×C×h×w`: `Σ W·A` over the channels, without
/// the bias, which no place adds.
pub(crate) fn of_each_place(dense: &Linear, maps: &Tensor) -> Result<Tensor> {
    let (images, channels, height, width) = maps.dims4()?;
    let places = maps.permute((0, 2, 3, 1))?.contiguous()?;
    let places = places.reshape((images * height * width, channels))?;
    let bias = dense.forward_t(&places.zeros_like()?.narrow(0, 0, 1)?, Phase::Evaluate)?;
    let values = dense.forward_t(&places, Phase::Evaluate)?;
    let values = values.broadcast_sub(&bias)?;
    let labels = values.dim(1)?;
    let values = values.reshape((images, height, width, labels))?;
    values.permute((0, 3, 1, 2))?.contiguous()
}
