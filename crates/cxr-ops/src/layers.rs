//! Layers: the operations with their named parameters.

use candle_core::{Result, Tensor, bail};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use crate::conv::{Conv2dConfig, conv2d};
use crate::error::OpsError;
use crate::linear::{linear, linear_by_row};
use crate::parameters::{Init, ParameterPath};

/// Whether a forward pass trains the network or uses it.
#[derive(Debug, Clone, Copy)]
pub enum Phase<'a> {
    /// Running statistics, no dropout. Parameters are constants: no gradient is recorded for
    /// them, and memory holds only what the next layer reads. A gradient still flows to an input
    /// that asks for one.
    Evaluate,
    /// Batch statistics (running ones within [`NormStatistics::Running`](crate::NormStatistics)'s scope), dropout,
    /// gradients for every parameter.
    Train {
        /// One key per image of the batch, from which layers draw what is random for that image.
        image_keys: &'a [u64],
    },
}

impl Phase<'_> {
    fn parameter(self, tensor: &Tensor) -> Tensor {
        match self {
            Phase::Evaluate => tensor.detach(),
            Phase::Train { .. } => tensor.clone(),
        }
    }
}

/// A convolution layer: `weight` (`O×C×K×K`) and, if asked for, `bias` (`O`).
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
}

impl Conv2d {
    /// A layer without bias.
    ///
    /// # Errors
    /// The path already holds a parameter of that name.
    pub fn new(
        maps_in: usize,
        maps_out: usize,
        kernel: usize,
        config: Conv2dConfig,
        init: Init,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let weight = path.trainable("weight", (maps_out, maps_in, kernel, kernel), init)?;
        Ok(Self {
            weight,
            bias: None,
            config,
        })
    }

    /// Adds a bias that starts at 0.
    ///
    /// # Errors
    /// The path already holds a parameter of that name.
    pub fn with_bias(self, path: &ParameterPath) -> std::result::Result<Self, OpsError> {
        let bias = path.trainable("bias", self.weight.dims()[0], Init::Zeros)?;
        Ok(Self {
            bias: Some(bias),
            ..self
        })
    }

    /// `N×C×H×W` to `N×O×H'×W'`, as [`conv2d`].
    ///
    /// # Errors
    /// As [`conv2d`].
    pub fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| phase.parameter(bias));
        conv2d(
            images,
            &phase.parameter(&self.weight),
            bias.as_ref(),
            self.config,
        )
    }

    /// The weight, `O×C×K×K`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// A dense layer: `weight` (`O×I`) and `bias` (`O`).
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// A layer whose bias starts at 0.
    ///
    /// # Errors
    /// The path already holds a parameter of one of the two names.
    pub fn new(
        inputs: usize,
        outputs: usize,
        init: Init,
        path: &ParameterPath,
    ) -> std::result::Result<Self, OpsError> {
        let weight = path.trainable("weight", (outputs, inputs), init)?;
        let bias = path.trainable("bias", outputs, Init::Zeros)?;
        Ok(Self { weight, bias })
    }

    /// `N×I` to `N×O`, as [`linear`] in training and [`linear_by_row`] in evaluation.
    ///
    /// # Errors
    /// As [`linear`].
    pub fn forward_t(&self, inputs: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let (weight, bias) = (phase.parameter(&self.weight), phase.parameter(&self.bias));
        match phase {
            Phase::Train { .. } => linear(inputs, &weight, Some(&bias)),
            Phase::Evaluate => linear_by_row(inputs, &weight, Some(&bias)),
        }
    }
}

/// In training sets each value to 0 with probability `rate` and divides the others by
/// `1 − rate`; in evaluation does nothing (Srivastava et al. 2014, in the inverted form).
///
/// The draws of an image depend on its key and on `layer`, a name that keeps two dropouts of one
/// network apart; not on its place in the batch.
///
/// # Errors
/// A rate outside [0, 1), or another number of keys than images.
pub fn dropout(input: &Tensor, rate: f64, layer: &str, phase: Phase<'_>) -> Result<Tensor> {
    if !(0. ..1.).contains(&rate) {
        bail!("dropout: expected a rate in [0, 1), got {rate}");
    }
    let Phase::Train { image_keys } = phase else {
        return Ok(input.clone());
    };
    let images = input.dim(0)?;
    if image_keys.len() != images {
        bail!(
            "dropout: expected one key for each of {images} images, got {}",
            image_keys.len()
        );
    }
    if rate == 0. {
        return Ok(input.clone());
    }
    let kept = (1. / (1. - rate)) as f32;
    // A 32-bit draw below the threshold drops the value.
    let threshold = (rate * 2f64.powi(32)) as u32;
    let keys = image_keys.iter().map(|&key| dropout_key(key, layer));
    #[cfg(feature = "cuda")]
    if input.device().is_cuda() {
        return crate::gpu::dropout(input, keys.map(words).collect(), threshold, kept);
    }
    let values_an_image = input.elem_count() / images;
    let mut mask = Vec::with_capacity(input.elem_count());
    for key in keys {
        let mut draws = ChaCha8Rng::from_seed(key);
        mask.extend((0..values_an_image).map(|_| {
            if draws.next_u32() < threshold {
                0.
            } else {
                kept
            }
        }));
    }
    input * Tensor::from_vec(mask, input.shape(), input.device())?
}

/// From which an image's draws in one layer come.
pub(crate) fn dropout_key(image_key: u64, layer: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dropout\0");
    hash.update(image_key.to_le_bytes());
    hash.update(layer.as_bytes());
    hash.finalize().into()
}

/// Such a key as a device takes it.
#[cfg(any(test, feature = "cuda"))]
pub(crate) fn words(key: [u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(key.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}
