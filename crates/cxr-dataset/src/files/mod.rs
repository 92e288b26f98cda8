//! Image files below folders: one walk for everything that looks for images, and one way to match what it finds with
//! the names of a table.

mod naming;
mod walk;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

pub use naming::Naming;

use crate::archive::{has_image_extension, is_archive};
use crate::{DatasetError, ImageFormat, ImageName, Index};

/// Files that were passed over are named up to this number, and counted beyond it.
const NAMED: usize = 100;

/// The image files of some folders, with what was found beside them.
///
/// Folders are read to the bottom, their entries in the order of their names. An image is what ends as images do
/// (`.png`, `.jpg`, `.jpeg`, `.dcm`, `.dicom`), and whatever else begins as PNG, JPEG and DICOM files do. Symbolic
/// links are followed, each folder is read once, and a link to a folder above itself ends there. Files that systems
/// add (`._x.png`, `.DS_Store`, `__MACOSX/`), hidden folders and `DICOMDIR` are passed over. Whatever is passed over
/// is counted and named.
#[derive(Debug, Default)]
pub struct ImageFiles {
    files: Vec<ImageFile>,
    by_file_name: HashMap<String, Vec<usize>>,
    /// By the file name without the extension of an image.
    by_stem: HashMap<String, Vec<usize>>,
    passed_over: PassedOver,
    refused: Vec<Refusal>,
}

/// An image file.
#[derive(Clone, Debug)]
pub struct ImageFile {
    path: PathBuf,
    /// Its path as text from the root of the file system, where it is known.
    whole: String,
    file_name: ImageName,
    /// Its path below the folder that was named.
    relative: Option<ImageName>,
}

impl ImageFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file name.
    pub fn file_name(&self) -> &ImageName {
        &self.file_name
    }

    /// Its path below the folder in which it was looked for; its file name where the file itself was named. `None`
    /// when one of the folders has a name that no image can have.
    pub fn relative(&self) -> Option<&ImageName> {
        self.relative.as_ref()
    }

    /// Whether `name` is the end of its path, folder by folder.
    fn fits(&self, name: &str) -> bool {
        let rest = self.whole.strip_suffix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    }

    /// The same for its path without the extension of an image.
    fn fits_without_extension(&self, name: &str) -> bool {
        let rest = (self.file_name.stem())
            .and_then(|stem| {
                self.whole
                    .rsplit_once('/')
                    .map(|(folder, _)| (folder, stem))
            })
            .map(|(folder, stem)| format!("{folder}/{stem}"));
        rest.is_some_and(|whole| {
            let rest = whole.strip_suffix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
        })
    }
}

/// A file, folder or link that cannot be used though it may be an image or hold some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it is.
    pub path: PathBuf,
    /// Why it cannot be used.
    pub reason: String,
}

/// What is no image: counted, and named up to the hundredth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    count: usize,
    named: Vec<(PathBuf, &'static str)>,
}

impl PassedOver {
    /// How many files, folders and links there were.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first of them, with the reason.
    pub fn named(&self) -> &[(PathBuf, &'static str)] {
        &self.named
    }

    fn add(&mut self, path: PathBuf, reason: &'static str) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push((path, reason));
        }
    }
}

/// Whether a file of the name `found` may be meant by `name`: with an extension where the name has none, with another
/// extension, with other cases.
pub(crate) fn is_similar(name: &ImageName, found: &ImageName) -> bool {
    let stem = |text: &str| {
        let stem = text.rsplit_once('.').map_or(text, |(stem, _)| stem);
        stem.to_lowercase()
    };
    let (name, found) = (name.file_name(), found.file_name());
    stem(found) == name.to_lowercase()
        || found.to_lowercase() == name.to_lowercase()
        || stem(found) == stem(name)
}

impl ImageFiles {
    /// Finds the images of `sources`: those below each folder, and each file, whatever its name.
    ///
    /// # Errors
    /// [`DatasetError::Io`] for a source that cannot be read. What cannot be read below it is one of
    /// [`Self::refused`].
    pub fn find<P: AsRef<Path>>(
        sources: impl IntoIterator<Item = P>,
    ) -> Result<Self, DatasetError> {
        let mut found = Self::default();
        let mut walk = walk::Walk::default();
        for source in sources {
            let source = source.as_ref();
            let kind = std::fs::metadata(source).map_err(DatasetError::io("read", source))?;
            if kind.is_dir() {
                walk.read(source, &mut found)?;
            } else {
                let folder = std::path::absolute(source).unwrap_or_else(|_| source.to_owned());
                let folder = folder.parent().unwrap_or(Path::new("")).to_owned();
                found.add(source.to_owned(), &folder, Some(String::new()));
            }
        }
        Ok(found)
    }

    /// The images, in the order in which they were found.
    pub fn files(&self) -> &[ImageFile] {
        &self.files
    }

    /// What may be an image or hold some, and cannot be used: a name that no image can have, a folder that cannot be
    /// read, a link that leads nowhere.
    pub fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// What is no image.
    pub fn passed_over(&self) -> &PassedOver {
        &self.passed_over
    }

    /// The file that a table calls `name`: the one whose path ends so, folder by folder; where there is none and the
    /// name is an id without the extension of an image, the one whose path without its extension ends so. `None` when
    /// there is none.
    ///
    /// Of several the one at just this path below the folder that was named is meant, else files of the same content
    /// are one.
    ///
    /// # Errors
    /// [`DatasetError::Record`] when several different files fit, or one cannot be read to be compared.
    pub fn get(&self, name: &ImageName) -> Result<Option<&ImageFile>, DatasetError> {
        let called_so = self.at(self.by_file_name.get(name.file_name()));
        let fitting = called_so.filter(|file| file.fits(name.as_str()));
        self.only(fitting.collect(), name)
    }

    /// The same for an id: the file whose path ends so without the extension of an image.
    fn get_by_id(&self, name: &ImageName) -> Result<Option<&ImageFile>, DatasetError> {
        if has_image_extension(name.file_name()) {
            return Ok(None);
        }
        let called_so = self.at(self.by_stem.get(name.file_name()));
        let fitting = called_so.filter(|file| file.fits_without_extension(name.as_str()));
        self.only(fitting.collect(), name)
    }

    fn at<'a>(&'a self, places: Option<&'a Vec<usize>>) -> impl Iterator<Item = &'a ImageFile> {
        (places.into_iter().flatten()).filter_map(|&place| self.files.get(place))
    }

    /// The one that is meant of those that fit a name.
    fn only<'a>(
        &'a self,
        fitting: Vec<&'a ImageFile>,
        name: &ImageName,
    ) -> Result<Option<&'a ImageFile>, DatasetError> {
        let (first, others) = match fitting.split_first() {
            None => return Ok(None),
            Some((only, [])) => return Ok(Some(only)),
            Some((first, others)) => (*first, others),
        };
        let mut exact = (fitting.iter()).filter(|file| file.relative.as_ref() == Some(name));
        if let (Some(file), None) = (exact.next(), exact.next()) {
            return Ok(Some(file));
        }
        for other in others {
            if !is_copy(&first.path, &other.path)? {
                return Err(DatasetError::Record {
                    name: name.to_string(),
                    problem: format!(
                        "both `{}` and `{}` are called so, and they differ",
                        first.path.display(),
                        other.path.display()
                    ),
                });
            }
        }
        Ok(Some(first))
    }

    /// A file that may be meant by a name of which there is none.
    pub fn similar(&self, name: &ImageName) -> Option<&ImageFile> {
        let mut files = self.files.iter();
        files.find(|file| is_similar(name, &file.file_name))
    }

    /// The file of each image of an index that has one. Tables of published data sets may have ids in place of names: an id
    /// is the file whose path ends so without the extension of an image. The folder that a name begins with may be called
    /// otherwise here (`CheXpert-v1.0-small/`): of a name without a file the rest is looked for, where no other name has
    /// that rest.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn of_index(&self, index: &Index) -> Result<HashMap<ImageName, PathBuf>, DatasetError> {
        let mut files = HashMap::with_capacity(index.records().len());
        let mut left = Vec::new();
        for record in index.records() {
            let file = match self.get(&record.name)? {
                None if index.has_ids() => self.get_by_id(&record.name)?,
                file => file,
            };
            match file {
                Some(file) => {
                    files.insert(record.name.clone(), file.path().to_owned());
                }
                // Own tables name files as they are.
                None if index.has_ids() => left.push(&record.name),
                None => {}
            }
        }
        let mut by_rest: HashMap<&str, Option<&ImageName>> = HashMap::new();
        for name in left {
            if let Some(rest) = name.without_root() {
                let known = by_rest.entry(rest);
                known.and_modify(|name| *name = None).or_insert(Some(name));
            }
        }
        let mut used: HashSet<PathBuf> = HashSet::new();
        if !by_rest.is_empty() {
            used.extend(files.values().cloned());
        }
        for (rest, name) in by_rest {
            let Some(name) = name else { continue };
            if let Some(file) = self.get(&ImageName::trusted(rest))?
                && used.insert(file.path().to_owned())
            {
                files.insert(name.clone(), file.path().to_owned());
            }
        }
        Ok(files)
    }

    /// `relative` is the folder below the one that was named, `None` if that has no valid name.
    fn add(&mut self, path: PathBuf, folder: &Path, relative: Option<String>) {
        let name = path.file_name().unwrap_or_default();
        let Some(name) = name.to_str() else {
            self.refuse(path, "its name is not UTF-8; rename it");
            return;
        };
        let file_name = match ImageName::new(name) {
            Ok(name) => name,
            Err(error) => {
                self.refuse(path, error.to_string());
                return;
            }
        };
        let relative = relative.and_then(|folder| match folder.as_str() {
            "" => Some(file_name.clone()),
            folder => ImageName::new(&format!("{folder}/{name}")).ok(),
        });
        let folder = folder.to_string_lossy();
        let folder = match std::path::MAIN_SEPARATOR {
            '/' => folder,
            separator => folder.replace(separator, "/").into(),
        };
        let at = self.files.len();
        if let Some(stem) = file_name.stem() {
            self.by_stem.entry(stem.to_owned()).or_default().push(at);
        }
        self.by_file_name
            .entry(name.to_owned())
            .or_default()
            .push(at);
        self.files.push(ImageFile {
            whole: format!("{}/{name}", folder.trim_end_matches('/')),
            path,
            file_name,
            relative,
        });
    }

    fn refuse(&mut self, path: PathBuf, reason: impl Into<String>) {
        let reason = reason.into();
        self.refused.push(Refusal { path, reason });
    }
}

/// Whether a plain file is an image: it ends as images do, or begins as they do.
pub fn is_image_file(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    has_image_extension(&name) || matches!(look_into(path), Ok(Content::Image))
}

enum Content {
    Image,
    Archive,
    Other,
}

/// What a file is by its first bytes. One that is no plain file, such as a pipe, is not opened.
fn look_into(path: &Path) -> std::io::Result<Content> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(Content::Other);
    }
    let mut start = Vec::new();
    let file = File::open(path)?;
    file.take(ImageFormat::SNIFFED_BYTES as u64)
        .read_to_end(&mut start)?;
    Ok(if ImageFormat::sniff(&start).is_some() {
        Content::Image
    } else if is_archive(path) {
        Content::Archive
    } else {
        Content::Other
    })
}

/// Whether two files have the same bytes.
fn is_copy(first: &Path, second: &Path) -> Result<bool, DatasetError> {
    let length = |path: &Path| {
        let metadata = std::fs::metadata(path).map_err(DatasetError::io("read", path))?;
        Ok::<u64, DatasetError>(metadata.len())
    };
    if length(first)? != length(second)? {
        return Ok(false);
    }
    let open = |path: &Path| {
        let file = File::open(path).map_err(DatasetError::io("open", path))?;
        Ok::<_, DatasetError>(std::io::BufReader::new(file))
    };
    let (mut one, mut other) = (open(first)?, open(second)?);
    loop {
        let (mut a, mut b) = ([0; 1 << 13], [0; 1 << 13]);
        let n_read = read_full(&mut one, &mut a).map_err(DatasetError::io("read", first))?;
        let n_other = read_full(&mut other, &mut b).map_err(DatasetError::io("read", second))?;
        if a.get(..n_read) != b.get(..n_other) {
            return Ok(false);
        }
        if n_read == 0 {
            return Ok(true);
        }
    }
}

fn read_full(reader: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => break,
            n_read => filled += n_read,
        }
    }
    Ok(filled)
}
