//! Which images are predicted, in which order, and what they are called.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    ArchiveSummary, DatasetError, ImageFiles, ImageName, Refusal, Store, is_archive, visit_archive,
};
use sha2::{Digest as _, Sha256};

use crate::output::is_store;

/// The longest list of paths that is read from standard input.
const MAX_LIST_BYTES: u64 = 1 << 30;

/// All images of the command line.
#[derive(Default)]
pub(super) struct Inputs {
    sources: Vec<Source>,
    /// Every image's source and its place there, in the order of the command line.
    images: Vec<Image>,
    /// What each image is called in the results.
    names: Vec<String>,
    /// What may be an image or hold some, and cannot be used.
    refused: Vec<Refusal>,
    /// What is no image.
    n_passed_over: usize,
    passed_over: Vec<String>,
}

/// Where images are read from.
enum Source {
    Files(Vec<PathBuf>),
    Archive(PathBuf),
    Store(Arc<Store>),
}

/// One image: the number of its source, and its own number among those of the source.
#[derive(Clone, Copy)]
struct Image {
    source: usize,
    number: usize,
}

/// What is read of an image before it is decoded.
pub(super) enum Raw {
    /// A file, to be read by whoever decodes it.
    File(PathBuf),
    /// The bytes of an archive's entry, and what messages call it.
    Bytes(Vec<u8>, PathBuf),
    /// An image of a store.
    Stored(Arc<Store>, ImageName),
    /// It cannot be read.
    Failed(String),
}

impl Inputs {
    /// Finds the images of `paths`: files, folders, archives, patterns, stores, and `-` for a list on standard input.
    ///
    /// # Errors
    /// A path that is not there, a pattern that fits nothing, an archive or a store that cannot be read.
    pub(super) fn find(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let mut inputs = Self::default();
        let mut preferred = Vec::new();
        for path in paths {
            if path.as_os_str() == "-" {
                let list = cxr_fs::read_stream(Path::new("/dev/stdin"), MAX_LIST_BYTES)
                    .context("cannot read the list of images on standard input")?;
                let list = String::from_utf8(list)
                    .context("the list of images on standard input is not UTF-8")?;
                for line in list.lines().filter(|line| !line.trim().is_empty()) {
                    inputs.add(Path::new(line.trim_end_matches('\r')), &mut preferred)?;
                }
            } else {
                for path in expand(path)? {
                    inputs.add(&path, &mut preferred)?;
                }
            }
        }
        inputs.choose_names(preferred);
        Ok(inputs)
    }

    /// Adds the images of one path, with the short names that they would have.
    fn add(&mut self, path: &Path, preferred: &mut Vec<String>) -> anyhow::Result<()> {
        let source = self.sources.len();
        if path.is_file() && starts_as(path, is_store) {
            let store = Store::open(path)?;
            for (number, name) in store.names().enumerate() {
                self.images.push(Image { source, number });
                self.names.push(name.to_string());
                preferred.push(name.to_string());
            }
            self.sources.push(Source::Store(Arc::new(store)));
            return Ok(());
        }
        if path.is_file() && is_archive(path) {
            let mut number = 0;
            let summary = visit_archive(path, |image| {
                let entry = image.path();
                self.images.push(Image { source, number });
                self.names.push(format!("{}/{entry}", path.display()));
                preferred.push(entry.to_string());
                number += 1;
                Ok(())
            })?;
            self.refuse_entries(path, &summary);
            self.n_passed_over += summary.n_other;
            let other = summary.other.iter();
            self.passed_over
                .extend(other.map(|entry| format!("`{}/{entry}` (no image)", path.display())));
            self.sources.push(Source::Archive(path.to_owned()));
            return Ok(());
        }
        let found = ImageFiles::find([path])?;
        self.refused.extend_from_slice(found.refused());
        self.n_passed_over += found.passed_over().count();
        let named = found.passed_over().named().iter();
        self.passed_over
            .extend(named.map(|(path, reason)| format!("`{}` ({reason})", path.display())));
        // Files that are named one by one share a source: a list may have a million of them.
        if !matches!(self.sources.last(), Some(Source::Files(_))) {
            self.sources.push(Source::Files(Vec::new()));
        }
        let source = self.sources.len() - 1;
        if let Some(Source::Files(files)) = self.sources.last_mut() {
            for file in found.files() {
                let number = files.len();
                self.images.push(Image { source, number });
                files.push(file.path().to_owned());
                let path = file.path().display().to_string();
                let short = file.relative().map(ImageName::to_string);
                preferred.push(short.unwrap_or_else(|| path.clone()));
                self.names.push(path);
            }
        }
        Ok(())
    }

    fn refuse_entries(&mut self, archive: &Path, summary: &ArchiveSummary) {
        for (entry, reason) in &summary.refused {
            self.refused.push(Refusal {
                path: archive.join(entry),
                reason: reason.clone(),
            });
        }
        let n_unnamed = summary.n_refused - summary.refused.len();
        if n_unnamed > 0 {
            self.refused.push(Refusal {
                path: archive.to_owned(),
                reason: format!("{n_unnamed} more of its entries were refused"),
            });
        }
    }

    /// Images are called by their paths below the folder, archive or store that was named, if these differ; else all by
    /// their whole paths. An image that is named twice is predicted once.
    fn choose_names(&mut self, preferred: Vec<String>) {
        let mut seen = HashSet::new();
        let is_first: Vec<bool> = self.names.iter().map(|name| seen.insert(name)).collect();
        let mut keep = is_first.iter();
        self.images.retain(|_| keep.next() == Some(&true));
        let mut keep = is_first.iter();
        let mut preferred = preferred;
        preferred.retain(|_| keep.next() == Some(&true));
        let mut keep = is_first.iter();
        self.names.retain(|_| keep.next() == Some(&true));
        let mut short = HashSet::new();
        if preferred.iter().all(|name| short.insert(name.as_str())) {
            drop(short);
            self.names = preferred;
        }
    }

    /// How many images there are.
    pub(super) fn len(&self) -> usize {
        self.images.len()
    }

    /// What an image is called.
    pub(super) fn name(&self, at: usize) -> &str {
        self.names.get(at).map_or("", String::as_str)
    }

    /// What cannot be used at all.
    pub(super) fn refused(&self) -> &[Refusal] {
        &self.refused
    }

    /// What is no image: how many, and the first of them.
    pub(super) fn passed_over(&self) -> (usize, &[String]) {
        (self.n_passed_over, &self.passed_over)
    }

    /// The files that are read, for who must not write to them.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources
            .iter()
            .flat_map(|source| -> Box<dyn Iterator<Item = &Path>> {
                match source {
                    Source::Files(files) => Box::new(files.iter().map(PathBuf::as_path)),
                    Source::Archive(path) => Box::new(std::iter::once(path.as_path())),
                    Source::Store(store) => Box::new(std::iter::once(store.path())),
                }
            })
    }

    /// The stores among the sources.
    pub(super) fn stores(&self) -> impl Iterator<Item = &Store> {
        self.sources.iter().filter_map(|source| match source {
            Source::Store(store) => Some(&**store),
            _ => None,
        })
    }

    /// A digest of the names, in order: parts of one work have the same.
    pub(super) fn digest(&self) -> String {
        let mut digest = Sha256::new();
        for name in &self.names {
            digest.update((name.len() as u64).to_le_bytes());
            digest.update(name.as_bytes());
        }
        let digest = digest.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Calls `hand_over` with each image for which `is_wanted`, in order, until it returns `false`. Archives are read in
    /// passing; files are not opened here.
    pub(super) fn visit(
        &self,
        is_wanted: impl Fn(usize) -> bool,
        mut hand_over: impl FnMut(usize, Raw) -> bool,
    ) {
        let mut at = 0;
        while let Some(first) = self.images.get(at) {
            let same = |image: &&Image| image.source == first.source;
            let n_images = self.images.iter().skip(at).take_while(same).count();
            let range = at..at + n_images;
            let goes_on = match self.sources.get(first.source) {
                Some(Source::Files(files)) => range.clone().filter(|&at| is_wanted(at)).all(|at| {
                    let file = self
                        .images
                        .get(at)
                        .and_then(|image| files.get(image.number));
                    file.is_none_or(|file| hand_over(at, Raw::File(file.clone())))
                }),
                Some(Source::Store(store)) => {
                    let names: Vec<_> = store.names().collect();
                    range.clone().filter(|&at| is_wanted(at)).all(|at| {
                        let name = self
                            .images
                            .get(at)
                            .and_then(|image| names.get(image.number));
                        name.is_none_or(|name| {
                            hand_over(at, Raw::Stored(Arc::clone(store), name.clone()))
                        })
                    })
                }
                Some(Source::Archive(path)) => {
                    self.visit_archive(path, range.clone(), &is_wanted, &mut hand_over)
                }
                None => true,
            };
            if !goes_on {
                return;
            }
            at = range.end;
        }
    }

    /// Whether to go on after it.
    fn visit_archive(
        &self,
        path: &Path,
        range: std::ops::Range<usize>,
        is_wanted: &dyn Fn(usize) -> bool,
        hand_over: &mut dyn FnMut(usize, Raw) -> bool,
    ) -> bool {
        if !range.clone().any(is_wanted) {
            return true;
        }
        let mut entry = 0;
        let mut next = range.start;
        let mut goes_on = true;
        let visited: Result<ArchiveSummary, _> = visit_archive(path, |image| {
            let number = entry;
            entry += 1;
            if !goes_on {
                // Nobody wants the rest, and reading it may take minutes.
                return Err(DatasetError::Io {
                    action: "read",
                    path: path.to_owned(),
                    source: std::io::ErrorKind::Interrupted.into(),
                });
            }
            // Entries with a name of before are left out, as in the list.
            if next >= range.end
                || self
                    .images
                    .get(next)
                    .is_none_or(|image| image.number != number)
            {
                return Ok(());
            }
            let at = next;
            next += 1;
            if is_wanted(at) {
                let origin = path.join(image.path().as_str());
                let raw = match image.read() {
                    Ok(bytes) => Raw::Bytes(bytes, origin),
                    Err(error) => Raw::Failed(format!("it cannot be read: {error}")),
                };
                goes_on = hand_over(at, raw);
            }
            Ok(())
        });
        let reason = match visited {
            Ok(_) => "the archive was changed while it was read".to_owned(),
            Err(error) => error.to_string(),
        };
        for at in next..range.end {
            if goes_on && is_wanted(at) {
                goes_on = hand_over(at, Raw::Failed(reason.clone()));
            }
        }
        goes_on
    }
}

/// What a path stands for: itself, or, where there is no such file and it has `*`, `?` or `[`, all that fit.
fn expand(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = path.to_string_lossy();
    if path.exists() || !text.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let fitting = glob::glob(&text).with_context(|| format!("`{text}` is no pattern of paths"))?;
    let mut paths = Vec::new();
    for path in fitting {
        paths.push(path.context("cannot read a folder of the pattern")?);
    }
    if paths.is_empty() {
        bail!("no file fits `{text}`");
    }
    Ok(paths)
}

/// Whether a file begins so.
fn starts_as(path: &Path, is_so: impl Fn(&[u8]) -> bool) -> bool {
    use std::io::Read as _;
    let mut start = Vec::new();
    let Ok(file) = cxr_fs::open_regular(path) else {
        return false;
    };
    file.take(64).read_to_end(&mut start).is_ok() && is_so(&start)
}
