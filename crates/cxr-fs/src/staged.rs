//! Several files that are replaced together.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::FsError;
use crate::write::{Destination, Durability, destination, folder_of, sync_folder, write_beside};

/// Files that are written beside their places, may be read back and checked there, and are then moved into place
/// together.
///
/// [`commit`](Self::commit) moves them in the order in which they were written, so the one that says that all are there
/// is written last. Dropped without a commit, nothing has changed. A process that dies within a commit leaves some
/// files new and some old: the marker is old then, and whoever believes it compares digests.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let [model, marker] = ["model", "finished"].map(|name| folder.path().join(name));
/// let mut staged = cxr_fs::Staged::new();
/// staged.write(&model, |file| std::io::Write::write_all(file, b"weights"))?;
/// assert_eq!(std::fs::read(staged.path_of(&model).expect("it was written"))?, b"weights");
/// assert!(!model.exists());
/// staged.write(&marker, |_| Ok(()))?;
/// staged.commit()?;
/// assert!(model.exists() && marker.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Staged {
    files: Vec<StagedFile>,
}

#[derive(Debug)]
struct StagedFile {
    beside: NamedTempFile,
    place: PathBuf,
    wanted: PathBuf,
}

impl Staged {
    /// Nothing staged yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a file beside its place and syncs it. The folder has to exist.
    ///
    /// # Errors
    /// The file cannot be written, or what is in its place is no regular file.
    pub fn write(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), FsError> {
        let Destination::File { place, before } = destination(path)? else {
            let error = io::Error::other("it is a device or a pipe");
            return Err(FsError::at("replace", path)(error));
        };
        let beside = write_beside(&place, before.as_ref(), Durability::Synced, write)?;
        self.files.push(StagedFile {
            beside,
            place,
            wanted: path.to_owned(),
        });
        Ok(())
    }

    /// Where the bytes that are to be at `path` are now: the last that were written for it.
    pub fn path_of(&self, path: &Path) -> Option<&Path> {
        let found = self.files.iter().rev().find(|file| file.wanted == path);
        found.map(|file| file.beside.path())
    }

    /// Moves all files to their places, in the order in which they were written; the last one only after the
    /// others are safe on the disk.
    ///
    /// # Errors
    /// A file cannot be moved; those before it have been.
    pub fn commit(self) -> Result<(), FsError> {
        let n_files = self.files.len();
        let mut folders: Vec<PathBuf> = Vec::new();
        for (at, file) in self.files.into_iter().enumerate() {
            if at + 1 == n_files {
                sync_all(&folders)?;
            }
            let StagedFile { beside, place, .. } = file;
            beside
                .persist(&place)
                .map_err(|error| FsError::at("write", &place)(error.error))?;
            let folder = folder_of(&place).to_owned();
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        sync_all(&folders)
    }
}

fn sync_all(folders: &[PathBuf]) -> Result<(), FsError> {
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn without_a_commit_nothing_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        crate::write(&path, b"old").unwrap();
        let mut staged = Staged::new();
        staged.write(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(
            std::fs::read(staged.path_of(&path).unwrap()).unwrap(),
            b"new"
        );
        drop(staged);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_commit_moves_all_files_even_one_written_twice() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        let [first, second] = ["first", "deep/second"].map(|name| folder.path().join(name));
        let mut staged = Staged::new();
        for (path, text) in [(&first, "1"), (&second, "2"), (&first, "3")] {
            staged
                .write(path, |file| file.write_all(text.as_bytes()))
                .unwrap();
        }
        staged.commit().unwrap();
        assert_eq!(std::fs::read(&first).unwrap(), b"3");
        assert_eq!(std::fs::read(&second).unwrap(), b"2");
    }
}
