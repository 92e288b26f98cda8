//! Files in repositories of the hub: what a manifest, or a person, may call one.

use std::fmt;

use hf_hub::{Repo, RepoType};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::HubError;

/// What a repository of the hub holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RepositoryKind {
    /// A model.
    Model,
    /// A data set.
    Dataset,
}

/// A repository of the hub in one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    kind: RepositoryKind,
    id: String,
    revision: String,
}

/// Everything but RFC 3986's unreserved characters and the slash is written as `%XX`.
const IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

pub(crate) fn encoded(path: &str) -> String {
    utf8_percent_encode(path, IN_PATHS).to_string()
}

impl Repository {
    /// The repository `id` (`owner/name`) in `revision`, a branch, tag or commit.
    ///
    /// # Errors
    /// [`HubError::Address`] for an id that is not `owner/name` of letters, digits, `-`, `_` and
    /// `.`, and for a revision that is no name of git's.
    pub fn new(kind: RepositoryKind, id: &str, revision: &str) -> Result<Self, HubError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let is_id = id.split('/').count() == 2
            && id.chars().all(plain)
            && id.split('/').all(|part| !part.starts_with(['.', '-']))
            && parts_are_plain(id);
        if !is_id {
            return Err(wrong(id, "a repository such as `owner/name`"));
        }
        if !parts_are_plain(revision) {
            return Err(wrong(revision, "a branch, tag or commit"));
        }
        Ok(Self {
            kind,
            id: id.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// What it holds.
    pub fn kind(&self) -> RepositoryKind {
        self.kind
    }

    /// `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Whether the revision is a commit, which never moves, and not a branch or tag.
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The same repository in another revision.
    pub(crate) fn at(&self, revision: &str) -> Self {
        Self {
            revision: revision.to_owned(),
            ..self.clone()
        }
    }

    /// `models/owner/name` or `datasets/owner/name`: as the hub's API calls it.
    pub(crate) fn name_in_api(&self) -> String {
        let kind = match self.kind {
            RepositoryKind::Model => "models",
            RepositoryKind::Dataset => "datasets",
        };
        format!("{kind}/{}", self.id)
    }

    /// The revision as one part of an address, whatever slashes it has.
    pub(crate) fn revision_in_addresses(&self) -> String {
        encoded(&self.revision).replace('/', "%2F")
    }

    /// As `hf-hub` addresses it, which leaves all but slashes to us.
    pub(crate) fn for_addresses(&self) -> Repo {
        self.with_revision(encoded(&self.revision))
    }

    /// As `hf-hub` finds it in the cache.
    pub(crate) fn for_cache(&self) -> Repo {
        self.with_revision(self.revision.clone())
    }

    fn with_revision(&self, revision: String) -> Repo {
        let kind = match self.kind {
            RepositoryKind::Model => RepoType::Model,
            RepositoryKind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.id.clone(), kind, revision)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.name_in_api(), self.revision)
    }
}

/// A file in a repository of the hub.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubFile {
    repository: Repository,
    path: String,
}

impl HubFile {
    /// The file at `path` of a repository.
    ///
    /// # Errors
    /// [`HubError::Address`] for a path with empty parts, `.` or `..`, a backslash, a colon or
    /// control characters.
    pub fn new(repository: Repository, path: &str) -> Result<Self, HubError> {
        match parts_are_plain(path) {
            true => Ok(Self {
                repository,
                path: path.to_owned(),
            }),
            false => Err(wrong(path, "a path in a repository")),
        }
    }

    /// Where it is.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Its path there.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same file in another revision.
    pub(crate) fn at(&self, revision: &str) -> Self {
        Self {
            repository: self.repository.at(revision),
            path: self.path.clone(),
        }
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.repository, self.path)
    }
}

fn wrong(text: &str, expected: &'static str) -> HubError {
    HubError::Address {
        text: text.escape_debug().to_string(),
        expected,
    }
}

/// Whether no part of a path or revision means anything but a name, on any system: both are looked
/// up in the cache.
pub(crate) fn parts_are_plain(text: &str) -> bool {
    text.split('/').all(|part| {
        !matches!(part, "" | "." | "..")
            && !part.contains(|c: char| c.is_control() || c == '\\' || c == ':')
    })
}

pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        let repository = |id: &str, revision: &str| {
            Repository::new(RepositoryKind::Model, id, revision).map(|found| found.to_string())
        };
        assert_eq!(
            repository("a/b.c-1_x", "refs/pr/1").unwrap(),
            "models/a/b.c-1_x@refs/pr/1"
        );
        for id in [
            "b", "a/b/c", "a/..", "../b", "a/b?x", "a/b c", "a\\b/c", "/b", "a/", "a/-b",
        ] {
            assert!(repository(id, "main").is_err(), "{id}");
        }
        for revision in ["", "..", "a//b", "../../x", "a\\b", "c:", "a\nb"] {
            assert!(repository("a/b", revision).is_err(), "{revision:?}");
        }
        let place = Repository::new(RepositoryKind::Dataset, "a/b", "main").unwrap();
        for path in ["", "/x", "x/", "../x", "x/../y", "x\\y", "c:x", "x\0"] {
            assert!(HubFile::new(place.clone(), path).is_err(), "{path:?}");
        }
    }
}
