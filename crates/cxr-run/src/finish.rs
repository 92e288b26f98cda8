//! Whether a run is finished, and still what it was then.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::folder::{METRICS_FILE, output_files};
use crate::{RunError, RunFolder};

/// Whether a run is finished, and still what it was then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// There is no `metrics.json`.
    Unfinished,
    /// There is one, and all files are as it says.
    Finished,
    /// There is one of an early version, which does not say what the files were.
    Unverified,
    /// Files are not as the `metrics.json` says, each with what happened to it: ``"`labels-test.csv` is missing"``.
    Changed(Vec<String>),
}

impl Finish {
    /// What happened to the files since the run was finished, in words; `None` where nothing is known to have.
    pub fn changes(&self) -> Option<String> {
        match self {
            Self::Changed(changes) => Some(changes.join(", ")),
            _ => None,
        }
    }

    /// What became of a run, looking at the files that are wanted.
    pub(crate) fn of(run: &RunFolder, is_wanted: &dyn Fn(&str) -> bool) -> Result<Self, RunError> {
        /// What there is in every version's file, sound or not.
        #[derive(Deserialize)]
        struct Marker {
            #[serde(default)]
            files: BTreeMap<String, String>,
        }
        let path = run.metrics_file();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::Unfinished);
            }
            Err(error) => return Err(RunError::io("read", &path)(error)),
        };
        let Ok(Marker { files }) = serde_json::from_slice(&text) else {
            let change = format!("`{METRICS_FILE}` is damaged");
            return Ok(Self::Changed(vec![change]));
        };
        if files.is_empty() {
            return Ok(Self::Unverified);
        }
        let mut changes = Vec::new();
        // Only names of our own become paths.
        for name in output_files().iter().filter(|name| is_wanted(name)) {
            let path = run.path().join(name);
            let Some(expected) = files.get(name) else {
                changes.push(format!("`{METRICS_FILE}` lacks the digest of `{name}`"));
                continue;
            };
            if !path.is_file() {
                changes.push(format!("`{name}` is missing"));
            } else if cxr_fs::sha256(&path)? != *expected {
                changes.push(format!("`{name}` was changed"));
            }
        }
        Ok(match changes.is_empty() {
            true => Self::Finished,
            false => Self::Changed(changes),
        })
    }
}
