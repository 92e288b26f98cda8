//! What can go wrong in training and prediction.

use std::path::{Path, PathBuf};

/// Why training or prediction stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A part of the data set without images.
    #[error("the {part} part has no images; {hint}")]
    EmptyPart {
        /// Train, validation or test.
        part: &'static str,
        /// What to do.
        hint: String,
    },
    /// The last batch of every epoch would hold one image.
    #[error(
        "{images} training images in batches of {batch} leave a last batch of one image, on which batch normalisation is undefined; choose another `training.batch_size`"
    )]
    LastBatchOfOne {
        /// Training images.
        images: usize,
        /// Batch size.
        batch: usize,
    },
    /// Loss or gradient is not finite.
    #[error(
        "{what} is not finite at step {step} of epoch {epoch} in stage `{stage}`, on the images {images}; {}\nhint: a lower rate or `training.clip_norm`, in a run of another name, may help", last_good(checkpoint.as_deref())
    )]
    NotFinite {
        /// The loss, the gradient of a parameter, or a parameter after the step.
        what: String,
        /// The stage's name.
        stage: String,
        /// The epoch, counted through the stages from 0.
        epoch: usize,
        /// The step within the epoch, from 0.
        step: usize,
        /// Names of the batch's images.
        images: String,
        /// The last good checkpoint, if one was written: all its weights are finite.
        checkpoint: Option<PathBuf>,
    },
    /// A trainable parameter that the loss does not depend on.
    #[error("parameter `{name}` got no gradient: the loss does not depend on it")]
    NoGradient {
        /// The parameter.
        name: String,
    },
    /// A part from outside that does not go with the others, found before anything is trained.
    #[error("{part}: {problem}")]
    Part {
        /// Which part, such as ``head `max` ``.
        part: String,
        /// What it makes, and what is expected of it.
        problem: String,
    },
    /// An observer's own error, which ended the training.
    #[error("an observer ended the training")]
    Observer {
        /// Its error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A checkpoint or model file that is not whole.
    #[error("`{}` is not a usable {kind}: {problem}", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A run folder that belongs to another run.
    #[error(
        "run folder `{}` holds another run: {what} differ; choose another folder, or delete this one", path.display()
    )]
    AnotherRun {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A run that is to be evaluated before it is trained to its end.
    #[error("run `{}` is not trained to its end", path.display())]
    NotTrained {
        /// Its folder.
        path: PathBuf,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An experiment, a setting or a run folder that cannot be used.
    #[error(transparent)]
    Run(#[from] cxr_run::RunError),
    /// An error of the data set.
    #[error(transparent)]
    Dataset(#[from] cxr_dataset::DatasetError),
    /// An error of the augmentation.
    #[error(transparent)]
    Augment(#[from] cxr_augment::AugmentError),
    /// An error of the loss.
    #[error(transparent)]
    Loss(#[from] cxr_losses::LossError),
    /// An error of the network's parameters.
    #[error(transparent)]
    Parameters(#[from] cxr_ops::OpsError),
    /// Weights trained elsewhere that do not load.
    #[error(transparent)]
    Pretrained(#[from] cxr_backbone::PretrainedError),
    /// A network that cannot be made, a model or checkpoint that cannot be read or written, or a logit that is not a
    /// number.
    #[error(transparent)]
    Model(#[from] cxr_model::ModelError),
    /// Several ranks that cannot go on together.
    #[error(transparent)]
    Ranks(#[from] crate::RanksError),
    /// A thread that the system did not start.
    #[error("cannot start a thread for the loader")]
    Thread {
        /// The I/O error.
        source: std::io::Error,
    },
    /// A worker of the loader came to an end before its work did.
    #[error("a worker of the loader stopped: a transform panicked")]
    LoaderPanicked,
    /// An error of the metrics.
    #[error(transparent)]
    Metric(#[from] cxr_metrics::MetricError),
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

fn last_good(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("the last good checkpoint is `{}`", path.display()),
        None => "no checkpoint was written before it".to_owned(),
    }
}

impl From<cxr_fs::FsError> for TrainError {
    fn from(error: cxr_fs::FsError) -> Self {
        Self::Io {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}

impl From<Box<dyn std::error::Error + Send + Sync>> for TrainError {
    /// An error of this crate stays what it is; another is that of an observer.
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(source) => Self::Observer { source },
        }
    }
}

impl TrainError {
    pub(crate) fn setting(key: &str, expected: impl Into<String>, found: impl ToString) -> Self {
        cxr_run::RunError::setting(key, expected, found).into()
    }
}
