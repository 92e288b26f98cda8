//! What Python's `huggingface_hub` has downloaded already: looked up, never written to.
//!
//! A repository is a folder there, `models--OWNER--NAME`: `refs/REVISION` names a commit,
//! `snapshots/COMMIT/PATH` is a link to `blobs/DIGEST`, or the file itself where a file system has no
//! links. A digest is a SHA-256 for large files and the name of a git object for small ones.

use std::path::{Path, PathBuf};

use hf_hub::Cache;

use crate::repository::is_commit;
use crate::{Digest, HubFile, Repository};

pub(crate) struct HubCache<'a>(&'a Path);

impl<'a> HubCache<'a> {
    pub(crate) fn at(folder: &'a Path) -> Self {
        Self(folder)
    }

    fn cache(&self) -> Cache {
        Cache::new(self.0.to_owned())
    }

    /// Where a file with this digest would be, and the file at its commit, if that is known. What
    /// is there still has to be verified.
    pub(crate) fn places(&self, file: &HubFile, digest: &Digest) -> Vec<PathBuf> {
        let repository = file.repository();
        let cached = self.cache().repo(repository.for_cache());
        let digits = digest.to_string();
        let blob = match digest {
            Digest::Md5(_) => None,
            Digest::Sha256(_) | Digest::GitBlob(_) => digits.split_once(':'),
        };
        let blob = blob.map(|(_, digits)| cached.blob_path(digits));
        let snapshot = self.commit(repository);
        let snapshot = snapshot.map(|commit| cached.pointer_path(&commit).join(file.path()));
        blob.into_iter().chain(snapshot).collect()
    }

    /// The commit that the revision is, or was when Python last asked.
    pub(crate) fn commit(&self, repository: &Repository) -> Option<String> {
        if repository.is_pinned() {
            return Some(repository.revision().to_owned());
        }
        let folder = self.0.join(repository.for_cache().folder_name());
        let reference = folder.join("refs").join(repository.revision());
        let text = cxr_fs::read_regular(&reference, 1000).ok()?;
        Some(String::from_utf8(text).ok()?.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The digest that the hub gave Python for a file in a commit: the name of the blob that the
    /// snapshot links to.
    pub(crate) fn digest(&self, file: &HubFile, commit: &str) -> Option<Digest> {
        let cached = self.cache().repo(file.repository().for_cache());
        let link = cached.pointer_path(commit).join(file.path());
        let blob = std::fs::read_link(link).ok()?;
        let digits = blob.file_name()?.to_str()?;
        let algorithm = match digits.len() {
            64 => "sha256",
            40 => "git-blob",
            _ => return None,
        };
        format!("{algorithm}:{digits}").parse().ok()
    }
}
