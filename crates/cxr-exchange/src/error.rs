//! What cannot be exported or imported.

/// Why a model cannot be written for other programs, or made of what they wrote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A network that is not described, so that nothing can be written from its description.
    #[error(
        "the {part} `{name}` cannot be exported: it is not described as data, as an author's own parts and the frozen \
         networks of candle-transformers are not"
    )]
    NotDescribed {
        /// Backbone or head.
        part: &'static str,
        /// Its name in the model.
        name: String,
    },
    /// A model whose images are prepared in a way that the graph cannot repeat.
    #[error(
        "the resizing cannot be part of the graph: {why}\nhint: leave `resize` out, and prepare images as `cxr predict` does"
    )]
    Preparation {
        /// What is special about it.
        why: String,
    },
    /// A parameter that the network's description names and the model lacks, or of another size.
    #[error("the parameter `{name}` {problem}")]
    Parameter {
        /// Its full name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A name that is not known.
    #[error("there is no {what} `{name}`; {available}")]
    Unknown {
        /// What it would be the name of.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is.
        available: String,
    },
    /// A file whose weights cannot be taken.
    #[error("`{}` cannot be imported: {problem}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Settings of an import that make no model.
    #[error("the settings make no model: {problem}")]
    Settings {
        /// What is wrong.
        problem: String,
    },
    /// A file that would be larger than its format allows.
    #[error(
        "the graph would have {bytes} bytes, more than the {limit} that a file of ONNX can have"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most that it may be.
        limit: usize,
    },
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] cxr_model::ModelError),
    /// An error of the network's description.
    #[error(transparent)]
    Ops(#[from] cxr_ops::OpsError),
    /// A file of weights that cannot be written.
    #[error(transparent)]
    Weights(#[from] safetensors::SafeTensorError),
    /// A description that cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<cxr_backbone::BackboneError> for ExchangeError {
    fn from(error: cxr_backbone::BackboneError) -> Self {
        Self::Model(error.into())
    }
}

impl From<cxr_top::HeadError> for ExchangeError {
    fn from(error: cxr_top::HeadError) -> Self {
        Self::Model(error.into())
    }
}
