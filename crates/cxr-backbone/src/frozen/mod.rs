//! Feature extractors of candle-transformers, trained elsewhere.
//!
//! They are frozen. Their layers are candle's own: normalisation over layers and softmax end the
//! gradient silently (`LayerNorm::forward`, `softmax_last_dim`), and a convolution's gradient is ten
//! times slower than ours. As something that turns images into features once they serve as they are.

mod config;
mod entry;
#[cfg(feature = "transformers")]
mod registered;

use candle_core::{Result, Tensor};
use cxr_ops::{OpsError, OptionError, ParameterPath, Phase};

pub(crate) use entry::{CONVNEXT, DINOV2};

pub use config::{ConvNextConfig, ConvNextSize, DinoV2Config, FrozenConfig, TransformerSizes};

use crate::Backbone;

type Forward = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync>;

/// Why a frozen extractor cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrozenError {
    /// This binary was built without candle-transformers.
    #[error(
        "{name} is not part of this build\nhint: build with the feature `transformers`, as the `cxr` binary is by default"
    )]
    NotBuiltIn {
        /// The extractor.
        name: String,
    },
    /// Sizes that no transformer has.
    #[error("{name}: {source}")]
    Sizes {
        /// The extractor.
        name: String,
        /// The size.
        source: OptionError,
    },
    /// A parameter's name is taken.
    #[error(transparent)]
    Parameters(#[from] OpsError),
}

/// A network of candle-transformers whose weights nothing changes.
pub struct FrozenExtractor {
    config: FrozenConfig,
    forward: Forward,
}

impl FrozenExtractor {
    /// The network, with all its weights 0 under `path` until
    /// [`load_extractor`](crate::load_extractor) sets them.
    ///
    /// # Errors
    /// A build without the feature `transformers`, sizes that do not go together, or `path` already
    /// holds parameters of these names.
    #[cfg(feature = "transformers")]
    pub fn new(
        config: &FrozenConfig,
        path: &ParameterPath,
    ) -> std::result::Result<Self, FrozenError> {
        Ok(Self {
            config: config.clone(),
            forward: registered::build(config, path)?,
        })
    }

    /// The network, with all its weights 0 under `path` until
    /// [`load_extractor`](crate::load_extractor) sets them.
    ///
    /// # Errors
    /// [`FrozenError::NotBuiltIn`]: this is a build without the feature `transformers`.
    #[cfg(not(feature = "transformers"))]
    pub fn new(
        config: &FrozenConfig,
        _path: &ParameterPath,
    ) -> std::result::Result<Self, FrozenError> {
        Err(FrozenError::NotBuiltIn {
            name: config.to_string(),
        })
    }
}

impl Backbone for FrozenExtractor {
    fn forward_t(&self, images: &Tensor, _phase: Phase<'_>) -> Result<Tensor> {
        (self.forward)(&images.detach())
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        self.config.feature_shape(height, width)
    }

    fn is_trainable(&self) -> bool {
        false
    }
}

impl std::fmt::Debug for FrozenExtractor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("FrozenExtractor")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
