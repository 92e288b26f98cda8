//! What can go wrong with a model.

use std::path::PathBuf;

/// Why a model cannot be made, read, written or predicted with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file that is not whole, or not what it should be.
    #[error("`{}` is not a usable {kind}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A description of a model that describes none.
    #[error("the model's {what} must be {expected}, got {found}")]
    Card {
        /// The entry of the card.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A network whose output is not a number.
    #[error(
        "the logit of `{label}` for {image} is {value}: the weights are damaged, or too large to compute with"
    )]
    LogitNotFinite {
        /// The label.
        label: String,
        /// The image: its name in backticks, or what else it is.
        image: String,
        /// NaN or an infinity.
        value: f32,
    },
    /// A network whose features are not numbers.
    #[error(
        "a feature of {image} is {value}: the weights are damaged, or too large to compute with"
    )]
    FeatureNotFinite {
        /// Which image of those that were given.
        image: String,
        /// NaN or an infinity.
        value: f32,
    },
    /// An image that was prepared for a model of another size.
    #[error(
        "expected an image of {expected}×{expected} pixels, as the model takes them, got {found} pixels"
    )]
    PreparedSize {
        /// The side that the model takes.
        expected: usize,
        /// The number of pixels that there are.
        found: usize,
    },
    /// An image that is predicted twice.
    #[error("`{name}` is predicted twice; give every image once, by a name of its own")]
    ImageTwice {
        /// Its name.
        name: String,
    },
    /// An image that is asked for and was not predicted.
    #[error("`{name}` was not predicted")]
    NotPredicted {
        /// Its name.
        name: String,
    },
    /// An image or a label of a prediction of which a label table says nothing.
    #[error("the {what} `{name}` was predicted, and the label table does not have it")]
    NotInIndex {
        /// `image` or `label`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Memory that the system did not give.
    #[error("cannot have {bytes} bytes of memory for {what}; choose fewer")]
    Memory {
        /// What it is for.
        what: String,
        /// How much.
        bytes: usize,
    },
    /// A value of an experiment that a network cannot have.
    #[error(transparent)]
    Run(#[from] cxr_run::RunError),
    /// A backbone that is unknown or cannot be built.
    #[error(transparent)]
    Backbone(#[from] cxr_backbone::BackboneError),
    /// A head that is unknown or cannot be built.
    #[error(transparent)]
    Head(#[from] cxr_top::HeadError),
    /// An error of the network's parameters.
    #[error(transparent)]
    Parameters(#[from] cxr_ops::OpsError),
    /// An error of an image.
    #[error(transparent)]
    Dataset(#[from] cxr_dataset::DatasetError),
    /// Predictions that no metric can be of.
    #[error(transparent)]
    Metric(#[from] cxr_metrics::MetricError),
    /// An error of a view.
    #[error(transparent)]
    Augment(#[from] cxr_augment::AugmentError),
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// For backbones of one's own that are made of ours.
impl From<cxr_backbone::FrozenError> for ModelError {
    fn from(error: cxr_backbone::FrozenError) -> Self {
        Self::Backbone(error.into())
    }
}

/// For heads of one's own that are made of ours.
impl From<cxr_top::TopNetworkError> for ModelError {
    fn from(error: cxr_top::TopNetworkError) -> Self {
        Self::Head(error.into())
    }
}

impl From<cxr_fs::FsError> for ModelError {
    fn from(error: cxr_fs::FsError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}
