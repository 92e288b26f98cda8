//! A model on the hub by its name, `hub:OWNER/NAME`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use crate::{
    Fetched, HubError, HubFile, Observer, Options, RemoteFile, Repository, RepositoryKind, Source,
    fetch,
};

/// What a model file is called in its repository.
pub(crate) const MODEL_FILE: &str = "model.safetensors";
/// The branch that is meant where none is named.
pub(crate) const MAIN: &str = "main";

/// `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`: the file `model.safetensors` of a repository.
///
/// ```
/// use cxr_hub::ModelReference;
///
/// let reference: ModelReference = "hub:somebody/network@v1".parse()?;
/// assert_eq!(reference.repository().id(), "somebody/network");
/// assert_eq!(reference.to_string(), "hub:somebody/network@v1");
/// assert!("models/network.safetensors".parse::<ModelReference>().is_err());
/// # Ok::<(), cxr_hub::HubError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelReference {
    repository: Repository,
}

impl ModelReference {
    /// What such a reference begins with, and no path should.
    pub const PREFIX: &str = "hub:";

    /// The repository, with its revision; `main` where the text has none.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}

impl FromStr for ModelReference {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let Some(rest) = text.strip_prefix(Self::PREFIX) else {
            return Err(HubError::Address {
                text: text.escape_debug().to_string(),
                expected: "a model such as `hub:OWNER/NAME` or `hub:OWNER/NAME@REVISION`",
            });
        };
        let (id, revision) = rest.split_once('@').unwrap_or((rest, MAIN));
        Ok(Self {
            repository: Repository::new(RepositoryKind::Model, id, revision)?,
        })
    }
}

impl fmt::Display for ModelReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, id) = (Self::PREFIX, self.repository.id());
        match self.repository.revision() {
            MAIN => write!(formatter, "{prefix}{id}"),
            revision => write!(formatter, "{prefix}{id}@{revision}"),
        }
    }
}

/// Brings the model that a reference names into a folder of its own below `folder`, and says where
/// it is.
///
/// A model that is there needs no network. A branch or tag stays at the commit that it was when it
/// was first fetched: `hub.lock.toml` beside the model says which, and without its entry the next
/// call asks again.
///
/// # Errors
/// As [`fetch`]: of a repository without a `model.safetensors`, [`HubError::NotListed`].
pub fn fetch_model(
    reference: &ModelReference,
    folder: &Path,
    options: &Options,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Fetched, HubError> {
    let repository = reference.repository();
    let (id, revision) = (repository.id().replace('/', "--"), repository.revision());
    let name = match revision {
        MAIN => cxr_fs::FileName::from_text(&id),
        revision => cxr_fs::FileName::from_text(&format!("{id}@{revision}")),
    };
    let file = RemoteFile {
        name: MODEL_FILE.parse()?,
        bytes: None,
        digest: None,
        sources: vec![Source::Hub(HubFile::new(repository.clone(), MODEL_FILE)?)],
    };
    fetch(&file, &folder.join(name), options, observer, stop)
}
