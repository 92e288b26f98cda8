//! `environment.json`: on what a run was made.

use serde::Serialize;

use crate::{LockedRunFolder, RunError, write_json};

/// On what a run was made. [`RunFolder::environment`](crate::RunFolder::environment) reads it as any JSON object, so
/// that a program of its own may write what else it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// The version of the program.
    pub cxr: String,
    /// The revision of the source tree that it was built from, where that is known.
    pub git_revision: Option<String>,
    /// The device that computed: `CPU`, or a GPU's name.
    pub device: String,
    /// The operating system, as Rust names it.
    pub os: String,
    /// The processor's architecture, as Rust names it.
    pub architecture: String,
    /// The vector instructions in use: results are a function of them.
    pub instruction_set: Vec<String>,
    /// The processor's name, where the system tells.
    pub cpu: Option<String>,
    /// Threads that compute, of each rank.
    pub threads: usize,
    /// Processes that train together when the run was last gone on with.
    pub ranks: usize,
    /// A digest of labels, split and pixels.
    pub data_fingerprint: String,
    /// What was called, argument by argument.
    pub command: Vec<String>,
}

impl Environment {
    /// Writes it into a run folder.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn write(&self, run: &LockedRunFolder) -> Result<(), RunError> {
        write_json(&run.environment_file(), self)
    }
}
