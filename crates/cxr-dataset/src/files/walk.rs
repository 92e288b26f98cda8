//! Through folders to the bottom, links included, without going round in circles.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

use super::{Content, ImageFiles, look_into};
use crate::DatasetError;
use crate::archive::{has_image_extension, is_added_by_a_system};

/// Which folders have been read.
#[derive(Default)]
pub(super) struct Walk {
    seen: HashSet<PathBuf>,
}

struct Folder {
    path: PathBuf,
    /// Where it really is, links resolved.
    canonical: PathBuf,
    /// Its path from the root of the file system by the way that was taken.
    absolute: PathBuf,
    /// Its path below the folder that was named; `None` where that is no text.
    relative: Option<String>,
}

impl Folder {
    fn below(&self, name: &std::ffi::OsStr, canonical: PathBuf) -> Self {
        let relative = self.relative.as_ref().and_then(|folder| {
            let name = name.to_str()?;
            Some(match folder.as_str() {
                "" => name.to_owned(),
                folder => format!("{folder}/{name}"),
            })
        });
        Self {
            path: self.path.join(name),
            canonical,
            absolute: self.absolute.join(name),
            relative,
        }
    }
}

impl Walk {
    /// Adds what is below `root`.
    ///
    /// # Errors
    /// The root cannot be read.
    pub(super) fn read(&mut self, root: &Path, found: &mut ImageFiles) -> Result<(), DatasetError> {
        let canonical = root
            .canonicalize()
            .map_err(DatasetError::io("read", root))?;
        std::fs::read_dir(root).map_err(DatasetError::io("read the folder", root))?;
        let mut folders = vec![Folder {
            path: root.to_owned(),
            canonical,
            absolute: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()),
            relative: Some(String::new()),
        }];
        // Links come last: a folder belongs where it is, and is only then found through a link.
        let mut links = VecDeque::new();
        let before = found.files.len();
        loop {
            if let Some(folder) = folders.pop() {
                if self.seen.insert(folder.canonical.clone()) {
                    read_folder(&folder, found, &mut folders, &mut links);
                } else {
                    found
                        .passed_over
                        .add(folder.path, "a folder that was read already");
                }
            } else if let Some(link) = links.pop_front() {
                folders.push(link);
            } else {
                break;
            }
        }
        if let Some(files) = found.files.get_mut(before..) {
            files.sort_by(|a, b| a.path.cmp(&b.path));
        }
        found.by_file_name.clear();
        for (at, file) in found.files.iter().enumerate() {
            let name = file.file_name.as_str().to_owned();
            found.by_file_name.entry(name).or_default().push(at);
        }
        Ok(())
    }
}

fn read_folder(
    folder: &Folder,
    found: &mut ImageFiles,
    folders: &mut Vec<Folder>,
    links: &mut VecDeque<Folder>,
) {
    let entries = std::fs::read_dir(&folder.path);
    let entries = entries.and_then(|entries| entries.collect::<std::io::Result<Vec<_>>>());
    let mut entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            found.refuse(folder.path.clone(), format!("it cannot be read: {error}"));
            return;
        }
    };
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut below = Vec::new();
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        let text = name.to_string_lossy();
        if is_added_by_a_system(&text) {
            found.passed_over.add(path, "a file that a system adds");
            continue;
        }
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => {
                found.refuse(path, format!("it cannot be read: {error}"));
                continue;
            }
        };
        let target = match kind.is_symlink() {
            false => None,
            true => match std::fs::metadata(&path) {
                Ok(target) => Some(target),
                Err(error) if has_image_extension(&text) => {
                    found.refuse(path, format!("a link that leads nowhere: {error}"));
                    continue;
                }
                Err(_) => {
                    found.passed_over.add(path, "a link that leads nowhere");
                    continue;
                }
            },
        };
        if target
            .as_ref()
            .map_or(kind.is_dir(), std::fs::Metadata::is_dir)
        {
            if text.starts_with('.') {
                found.passed_over.add(path, "a hidden folder");
            } else if target.is_none() {
                below.push(folder.below(&name, folder.canonical.join(&name)));
            } else {
                match path.canonicalize() {
                    Ok(canonical) if folder.canonical.starts_with(&canonical) => {
                        found.passed_over.add(path, "a link to a folder above it");
                    }
                    Ok(canonical) => links.push_back(folder.below(&name, canonical)),
                    Err(error) => found.refuse(path, format!("it cannot be read: {error}")),
                }
            }
        } else if !target.map_or(kind.is_file(), |target| target.is_file()) {
            // Called an image, it is one that cannot be read, and not something else.
            match cxr_fs::open_regular(&path) {
                Err(error) if has_image_extension(&text) => {
                    found.refuse(path, format!("it cannot be read: {}", error.source));
                }
                _ => found.passed_over.add(path, "no regular file"),
            }
        } else if has_image_extension(&text) {
            found.add(path, &folder.absolute, folder.relative.clone());
        } else {
            match look_into(&path) {
                Ok(Content::Image) => found.add(path, &folder.absolute, folder.relative.clone()),
                Ok(Content::Archive) => {
                    found
                        .passed_over
                        .add(path, "an archive, which is read where it is named itself");
                }
                Ok(Content::Other) => found.passed_over.add(path, "no image"),
                Err(error) => found.refuse(path, format!("it cannot be read: {error}")),
            }
        }
    }
    // The last is taken first.
    folders.extend(below.into_iter().rev());
}
