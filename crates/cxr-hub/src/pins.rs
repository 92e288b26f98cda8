//! `hub.lock.toml`: which commits the branches of the hub were when a folder was first fetched to.
//!
//! A file without a digest in the manifest is taken at that commit ever after, so that all files of
//! a folder are of one state of the repository, and a file that somebody uploads later under the
//! same name is not taken for the one that is meant.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::manifest::PINS;
use crate::repository::is_commit;
use crate::{HubError, Repository};

const HEAD: &str = "# Branches and tags of the hub are read at these commits. Remove an entry to read one as it is now.\n\n";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPins {
    #[serde(default, rename = "pin")]
    pins: Vec<Pin>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    /// `datasets/owner/name` or `models/owner/name`.
    repository: String,
    revision: String,
    commit: String,
}

impl Pin {
    fn is_of(&self, repository: &Repository) -> bool {
        self.repository == repository.name_in_api() && self.revision == repository.revision()
    }
}

/// The pins of a folder, as its file says them at the moment of each question.
pub(crate) struct Pins {
    path: PathBuf,
}

impl Pins {
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            path: folder.join(PINS),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The commit that the repository's revision is pinned to.
    pub(crate) fn commit(&self, repository: &Repository) -> Result<Option<String>, HubError> {
        let pins = self.read()?.pins;
        let pin = pins.into_iter().find(|pin| pin.is_of(repository));
        Ok(pin.map(|pin| pin.commit))
    }

    /// Pins the repository's revision; a pin that another process made in the meantime stays, and
    /// is the one that counts.
    pub(crate) fn pin(&self, repository: &Repository, commit: &str) -> Result<String, HubError> {
        let mut raw = self.read()?;
        if let Some(pin) = raw.pins.iter().find(|pin| pin.is_of(repository)) {
            return Ok(pin.commit.clone());
        }
        raw.pins.push(Pin {
            repository: repository.name_in_api(),
            revision: repository.revision().to_owned(),
            commit: commit.to_owned(),
        });
        let text = toml::to_string(&raw).map_err(|error| self.wrong(error.to_string()))?;
        cxr_fs::write(&self.path, format!("{HEAD}{text}").as_bytes())?;
        Ok(commit.to_owned())
    }

    fn read(&self) -> Result<RawPins, HubError> {
        let text = match cxr_fs::read_text(&self.path, 1 << 20) {
            Ok(text) => text,
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(RawPins::default());
            }
            Err(error) => return Err(error.into()),
        };
        let raw: RawPins = toml::from_str(&text).map_err(|error| self.wrong(error.to_string()))?;
        match raw.pins.iter().find(|pin| !is_commit(&pin.commit)) {
            Some(pin) => Err(self.wrong(format!(
                "expected the 40 digits of a commit, got `{}`",
                pin.commit.escape_debug()
            ))),
            None => Ok(raw),
        }
    }

    fn wrong(&self, problem: String) -> HubError {
        HubError::Pins {
            path: self.path.clone(),
            problem,
        }
    }
}
