//! A convolution of either kind, with its weights as candle has them.

use crate::blocked::conv::{Conv, Epilogue};
use crate::blocked::depthwise::Depthwise;
use crate::blocked::kernels::Kernels;
use crate::blocked::packing::Window;
use crate::blocked::winograd::Tile;
use crate::blocked::{Block, Extent, View};
use crate::grouped::Pool;

/// A convolution of either kind.
pub(super) enum ConvKind {
    Dense(Conv),
    Depthwise(Depthwise),
}

impl ConvKind {
    pub(super) fn new(window: Window, groups: usize, input: Extent, output: Extent) -> Self {
        if groups > 1 && groups == input.maps && groups == output.maps {
            Self::Depthwise(Depthwise::new(window, input, output))
        } else {
            Self::Dense(Conv::new(window, groups, input, output))
        }
    }

    /// `weight` comes with a factor for each output map; `tile` says how a 3×3 convolution may be computed.
    #[expect(clippy::too_many_arguments, reason = "the inside of one loop")]
    pub(super) fn forward<S: Kernels>(
        &self,
        simd: S,
        (weight, scale): (&[f32], Option<&[f32]>),
        tile: Tile,
        view: &View<'_>,
        epilogue: Epilogue<'_>,
        pool: &Pool,
        out: &mut [Block],
    ) {
        match self {
            Self::Dense(conv) => {
                let weights = conv.forward_weights(simd, weight, scale, tile, pool);
                conv.forward(simd, &weights, view, epilogue, out);
            }
            Self::Depthwise(conv) => {
                let weights = conv.weights(weight, scale);
                conv.forward(simd, &weights, view, epilogue, out);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the inside of one loop")]
    pub(super) fn input_gradient<S: Kernels>(
        &self,
        simd: S,
        weight: &[f32],
        gradient: &View<'_>,
        epilogue: Epilogue<'_>,
        accumulate: bool,
        pool: &Pool,
        out: &mut [Block],
    ) {
        match self {
            Self::Dense(conv) => {
                let weights = conv.backward_weights(simd, weight, pool);
                conv.input_gradient(simd, &weights, gradient, epilogue, accumulate, out);
            }
            Self::Depthwise(conv) => {
                let weights = conv.weights(weight, None);
                conv.input_gradient(simd, &weights, gradient, epilogue, accumulate, out);
            }
        }
    }

    pub(super) fn weight_gradient<S: Kernels>(
        &self,
        simd: S,
        view: &View<'_>,
        gradient: &View<'_>,
        pool: &Pool,
    ) -> Vec<f32> {
        match self {
            Self::Dense(conv) => conv.weight_gradient(simd, view, gradient, pool),
            Self::Depthwise(conv) => conv.weight_gradient(simd, view, gradient),
        }
    }
}
