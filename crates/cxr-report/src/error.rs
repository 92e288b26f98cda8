//! What can go wrong with a report.

use std::path::PathBuf;

use cxr_run::RunError;

/// What stopped a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A run folder, or a table in it, cannot be read or used; or a file cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A figure cannot be made a PNG.
    #[error("cannot draw figure `{figure}`: {problem}")]
    Draw {
        /// The figure's file name.
        figure: String,
        /// The renderer's reason.
        problem: String,
    },
    /// A picture that a run's explanations name is not a PNG file beside them.
    #[error("`{}` names the picture `{picture}`: {problem}; run `cxr explain` again", path.display())]
    Picture {
        /// The explanations.
        path: PathBuf,
        /// The name of the picture, escaped.
        picture: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl From<cxr_fs::FsError> for ReportError {
    fn from(error: cxr_fs::FsError) -> Self {
        RunError::from(error).into()
    }
}

impl From<cxr_metrics::MetricError> for ReportError {
    fn from(error: cxr_metrics::MetricError) -> Self {
        RunError::from(error).into()
    }
}
