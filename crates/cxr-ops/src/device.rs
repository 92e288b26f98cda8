//! What a device is given: how it computes, and the pieces of its work.

use std::collections::BTreeMap;

use candle_core::Tensor;

/// How a CUDA device computes, chosen where it is opened. On a CPU none of it has a meaning.
///
/// A process has one set of them, that of the device which was opened last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceOptions {
    /// Products are all of single precision. Otherwise their factors are rounded to TF32: ten bits of fraction instead
    /// of 23, summed in single precision, several times as fast.
    pub exact_f32: bool,
    /// Timing chooses how each convolution is computed, the first time that its shape comes.
    pub autotune: bool,
    /// Training steps repeat a DenseNet's passes as CUDA graphs: the same numbers with fewer launches.
    pub graphs: bool,
}

impl DeviceOptions {
    /// What CUDA devices of this process compute with.
    pub fn current() -> Self {
        #[cfg(feature = "cuda")]
        return Self {
            exact_f32: crate::is_exact_f32(),
            autotune: crate::autotuned().is_some(),
            graphs: crate::uses_graphs(),
        };
        #[cfg(not(feature = "cuda"))]
        Self::default()
    }
}

/// By what is to be done, such as `forward NHWC bf16 64×56×56×128 by 32×3×3/1+1`, the name of an algorithm.
pub type Algorithms = BTreeMap<String, String>;

/// One image of a batch, as the host has it.
#[derive(Debug, Clone, Copy)]
pub struct StoredImage<'a> {
    /// What tells it from others: two images with one number are taken to be the same.
    pub number: usize,
    /// One byte for each pixel of a square, row by row.
    pub pixels: &'a [u8],
    /// From a pixel of the batch to a position in the image: `x = xx·column + xy·row + x0`,
    /// `y = yx·column + yy·row + y0`, as `[xx, xy, x0, yx, yy, y0]`.
    pub map: [f64; 6],
}

/// One tensor of a step.
#[derive(Debug, Clone, Copy)]
pub struct CudaUpdate<'a> {
    /// What is changed in place.
    pub weights: &'a Tensor,
    /// Its gradient.
    pub gradient: &'a Tensor,
    /// Where in the [`CudaValues`](crate::CudaValues) its own begin.
    pub state: usize,
    /// The learning rate, for AdamW and Adam over 1 − β₁ᵗ.
    pub rate: f32,
    /// AdamW: the share of a weight that is kept. The others: the weight decay.
    pub decay: f32,
}

/// The constants of a step of RMSprop, `v ← alpha·v + new_in_square·g²`, `b ← momentum·b + g / (√v + eps)`, `w ← w − rate·b`,
/// where g has the weight decay in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsPropConstants {
    /// α.
    pub alpha: f32,
    /// 1 − α.
    pub new_in_square: f32,
    /// ε.
    pub eps: f32,
    /// Without momentum, 0, nothing is kept of b.
    pub momentum: f32,
}

/// The constants of a step of AdamW, `m ← beta1·m + new_in_first·g`, `v ← beta2·v + new_in_second·g²`,
/// `w ← kept·w − rate·m / (√v·second_correction + eps)`, or of Adam, which has the decay in g and keeps all of w.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConstants {
    /// β₁.
    pub beta1: f32,
    /// 1 − β₁.
    pub new_in_first: f32,
    /// β₂.
    pub beta2: f32,
    /// 1 − β₂.
    pub new_in_second: f32,
    /// 1/√(1 − β₂ᵗ) at step t.
    pub second_correction: f32,
    /// ε.
    pub eps: f32,
    /// Whether `decay` of an update times the weight is added to the gradient, as in Adam.
    pub decay_in_gradient: bool,
}
