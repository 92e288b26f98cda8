//! What the images of some files and archives are called when no table says so.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::{ImageFiles, Refusal, is_copy};
use crate::{DatasetError, ImageName};

/// Images with their names: file names where each is that of one image, else all are called by their paths below the
/// folders that were named, or within their archives.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Naming {
    /// Files by name, sorted.
    pub files: Vec<(ImageName, PathBuf)>,
    /// The names of the images of archives, in their order.
    pub archived: Vec<ImageName>,
    /// Why images are called by their paths: a file name that two different images have.
    pub shared_file_name: Option<ImageName>,
    /// Files that have the name and the content of another, and were left out.
    pub n_copies: usize,
    /// Files that cannot be called by their paths.
    pub refused: Vec<Refusal>,
}

impl ImageFiles {
    /// Names these files and the images of archives, whose paths within their archives are `archived`.
    ///
    /// # Errors
    /// [`DatasetError::Record`] for two images of one path, in different folders or archives that were named; and a
    /// file that cannot be read to be compared with another of its name.
    pub fn name_all(&self, archived: &[ImageName]) -> Result<Naming, DatasetError> {
        let mut in_archives = HashSet::new();
        let twice = (archived.iter()).find(|path| {
            let name = path.file_name();
            !in_archives.insert(name) || self.by_file_name.contains_key(name)
        });
        let shared = match twice {
            Some(path) => Some(ImageName::trusted(path.file_name())),
            None => self.shared_file_name()?,
        };
        match shared {
            None => Ok(self.by_file_name(archived)),
            Some(shared) => self.by_path(archived, shared),
        }
    }

    /// A file name that two files of different content have.
    fn shared_file_name(&self) -> Result<Option<ImageName>, DatasetError> {
        let mut firsts = HashMap::new();
        for file in &self.files {
            if let Some(first) = firsts.insert(&file.file_name, &file.path)
                && !is_copy(first, &file.path)?
            {
                return Ok(Some(file.file_name.clone()));
            }
        }
        Ok(None)
    }

    fn by_file_name(&self, archived: &[ImageName]) -> Naming {
        let mut files: Vec<(ImageName, PathBuf)> = (self.files.iter())
            .map(|file| (file.file_name.clone(), file.path.clone()))
            .collect();
        files.sort();
        let n_all = files.len();
        files.dedup_by(|second, first| second.0 == first.0);
        Naming {
            n_copies: n_all - files.len(),
            files,
            archived: (archived.iter())
                .map(|path| ImageName::trusted(path.file_name()))
                .collect(),
            ..Naming::default()
        }
    }

    fn by_path(&self, archived: &[ImageName], shared: ImageName) -> Result<Naming, DatasetError> {
        let mut naming = Naming {
            archived: archived.to_vec(),
            shared_file_name: Some(shared),
            ..Naming::default()
        };
        for file in &self.files {
            match &file.relative {
                Some(name) => naming.files.push((name.clone(), file.path.clone())),
                None => naming.refused.push(Refusal {
                    path: file.path.clone(),
                    reason: "one of its folders has a name that no image can have; rename it"
                        .to_owned(),
                }),
            }
        }
        naming.files.sort();
        for ((name, first), (other, second)) in naming.files.iter().zip(naming.files.iter().skip(1))
        {
            if name == other {
                return Err(DatasetError::Record {
                    name: name.to_string(),
                    problem: format!(
                        "both `{}` and `{}` would be called so; name the folder that holds both",
                        first.display(),
                        second.display()
                    ),
                });
            }
        }
        let named: HashSet<&ImageName> = naming.files.iter().map(|(name, _)| name).collect();
        if let Some(name) = archived.iter().find(|path| named.contains(path)) {
            return Err(DatasetError::Record {
                name: name.to_string(),
                problem: "a file and an image of an archive would be called so; leave one out"
                    .to_owned(),
            });
        }
        Ok(naming)
    }
}
