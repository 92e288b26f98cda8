//! What image files, archives and stores hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cxr_dataset::{
    DatasetError, ImageFacts, ImageFiles, ImageName, ImageWarning, Index, Part, Split, Store,
    WarningKind, inspect_image, inspect_image_bytes, is_archive, store_file, visit_archive,
};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::counts;
use crate::data_folder::{NoImages, chain, first_lines, image_files, passed_over, say_passed_over};
use crate::prepare::{warning_lines, warnings_json};
use crate::progress::Bar;

/// The images of one place.
pub(super) struct Found {
    path: PathBuf,
    names: HashSet<ImageName>,
    sizes: BTreeMap<(usize, usize), usize>,
    modes: BTreeMap<String, usize>,
    /// What is wrong with which images.
    broken: Vec<(String, String)>,
    /// What the owner of which images should know of them; the text is gone once they are in a store.
    warnings: Vec<(ImageName, WarningKind)>,
    details: Vec<(ImageName, ImageWarning)>,
    /// What is no image: how many, and the first hundred.
    n_passed_over: usize,
    passed_over: Vec<String>,
    /// Digest of a store's pixels.
    fingerprint: Option<String>,
}

/// `None` when `stop` was set. Images that `index` lists are called as it calls them.
pub(super) fn look(
    path: &Path,
    index: Option<&Index>,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Found>> {
    let mut found = Found {
        path: path.to_owned(),
        names: HashSet::new(),
        sizes: BTreeMap::new(),
        modes: BTreeMap::new(),
        broken: Vec::new(),
        warnings: Vec::new(),
        details: Vec::new(),
        n_passed_over: 0,
        passed_over: Vec::new(),
        fingerprint: None,
    };
    let finished = if path.is_dir() {
        match image_files(path) {
            Ok(files) => {
                let named = found.take(&files, index)?;
                found.look_at_files(named, stop)
            }
            Err(error) => {
                let stores = [224, 256, 320, 384, 448, 512].map(|side| path.join(store_file(side)));
                match stores.into_iter().find(|store| store.is_file()) {
                    Some(store) => found.look_at_store(&store, stop)?,
                    // Tables are looked at without their images.
                    None if index.is_some() && error.is::<NoImages>() => true,
                    None => return Err(error),
                }
            }
        }
    } else if is_archive(path) {
        found.look_at_archive(path, index, stop)?
    } else if Store::open(path).is_ok() || path.extension().is_some_and(|end| end == "store") {
        found.look_at_store(path, stop)?
    } else {
        let named = found.take(&ImageFiles::find([path])?, index)?;
        found.look_at_files(named, stop)
    };
    found.broken.sort();
    found.warnings.sort();
    Ok(finished.then_some(found))
}

impl Found {
    pub(super) fn n_broken(&self) -> usize {
        self.broken.len()
    }

    fn add(&mut self, name: ImageName, facts: Result<ImageFacts, String>) {
        match facts {
            Ok(facts) => {
                *self.sizes.entry((facts.width, facts.height)).or_default() += 1;
                let mode = format!("{} {}", facts.format, facts.mode);
                *self.modes.entry(mode).or_default() += 1;
                for warning in facts.warnings {
                    self.warnings.push((name.clone(), warning.kind()));
                    self.details.push((name.clone(), warning));
                }
            }
            Err(error) => self.broken.push((name.to_string(), error)),
        }
        self.names.insert(name);
    }

    /// The files with their names; notes what cannot be used and what is no image.
    fn take(
        &mut self,
        files: &ImageFiles,
        index: Option<&Index>,
    ) -> anyhow::Result<Vec<(ImageName, PathBuf)>> {
        let refused = files.refused().iter();
        self.broken.extend(refused.map(|refusal| {
            let path = refusal.path.display().to_string();
            (path.clone(), format!("`{path}`: {}", refusal.reason))
        }));
        self.n_passed_over = files.passed_over().count();
        self.passed_over = passed_over(files);
        let Some(index) = index else {
            return Ok(files.name_all(&[])?.files);
        };
        let listed: HashMap<PathBuf, ImageName> = files
            .of_index(index)?
            .into_iter()
            .map(|(name, path)| (path, name))
            .collect();
        let named = files.files().iter().map(|file| {
            let own = || file.relative().unwrap_or(file.file_name());
            let name = listed.get(file.path()).unwrap_or_else(own);
            (name.clone(), file.path().to_owned())
        });
        Ok(named.collect())
    }

    /// False when stopped.
    fn look_at_files(&mut self, files: Vec<(ImageName, PathBuf)>, stop: &AtomicBool) -> bool {
        let bar = Bar::new("decoding", "images", files.len());
        let done = AtomicUsize::new(0);
        let found = Mutex::new(Vec::with_capacity(files.len()));
        let finished = files
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|(name, path)| {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                let facts = inspect_image(&path).map_err(|error| chain(&error));
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((name, facts));
                bar.set(done.fetch_add(1, Ordering::Relaxed) + 1);
                Some(())
            });
        bar.finish();
        let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (name, facts) in found {
            self.add(name, facts);
        }
        finished.is_some()
    }

    fn look_at_archive(
        &mut self,
        path: &Path,
        index: Option<&Index>,
        stop: &AtomicBool,
    ) -> anyhow::Result<bool> {
        let bar = Bar::new("decoding", "images", 0);
        let mut n_seen = 0;
        let visited = visit_archive(path, |image| {
            if stop.load(Ordering::Relaxed) {
                return Err(DatasetError::Interrupted {
                    path: path.to_owned(),
                    done: n_seen,
                    total: n_seen,
                });
            }
            let origin = path.join(image.path().as_str());
            let listed = index.and_then(|index| index.listed(image.path()));
            let name = listed.map_or(image.path(), |record| &record.name).clone();
            let facts = match image.read() {
                Ok(bytes) => inspect_image_bytes(&bytes, &origin).map_err(|error| chain(&error)),
                Err(error) => Err(format!("`{}`: {error}", origin.display())),
            };
            self.add(name, facts);
            n_seen += 1;
            bar.set(n_seen);
            Ok(())
        });
        bar.finish();
        match visited {
            Ok(summary) => {
                self.broken.extend(summary.refused);
                self.n_passed_over = summary.n_other;
                let other = summary.other.iter();
                self.passed_over = other.map(|path| format!("`{path}` (no image)")).collect();
                Ok(true)
            }
            Err(DatasetError::Interrupted { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn look_at_store(&mut self, path: &Path, stop: &AtomicBool) -> anyhow::Result<bool> {
        let store = Store::open(path)?;
        self.path = path.to_owned();
        self.fingerprint = Some(store.fingerprint().to_string());
        self.warnings = store.warnings();
        let bar = Bar::new("verifying", "images", store.len());
        for (position, name) in store.names().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let facts = store
                .image(&name)
                .map(|_| ())
                .map_err(|error| chain(&error));
            if let Err(error) = facts {
                self.broken.push((name.to_string(), error));
            }
            self.names.insert(name);
            bar.set(position + 1);
        }
        bar.finish();
        let n_sound = self.names.len() - self.broken.len();
        self.sizes.insert((store.side(), store.side()), n_sound);
        self.modes.insert("prepared grey 8-bit".to_owned(), n_sound);
        Ok(true)
    }

    pub(super) fn tell(&self, split: Option<&Split>, text: &mut String, json: &mut Value) {
        let _ = writeln!(
            text,
            "\n{}: {} images",
            self.path.display(),
            self.names.len()
        );
        for ((width, height), count) in &self.sizes {
            let _ = writeln!(text, "{count:>9} of {width}×{height}");
        }
        for (mode, count) in &self.modes {
            let _ = writeln!(text, "{count:>9} {mode}");
        }
        let details: Vec<_> = self.details.iter().collect();
        let sizes = self.sizes.iter();
        json["image_files"] = json!({
            "path": self.path,
            "count": self.names.len(),
            "sizes": counts(sizes.map(|((width, height), count)| (format!("{width}x{height}"), *count))),
            "modes": counts(self.modes.iter().map(|(mode, count)| (mode.clone(), *count))),
            "broken": self.broken.iter()
                .map(|(image, error)| json!({"image": image, "error": error}))
                .collect::<Vec<_>>(),
            "warnings": warnings_json(&self.warnings, &details),
            "passed_over": self.passed_over,
            "passed_over_count": self.n_passed_over,
            "fingerprint": self.fingerprint,
        });
        if let Some(split) = split {
            let listed: Vec<&ImageName> = Part::ALL
                .into_iter()
                .flat_map(|part| split.part(part))
                .collect();
            let n_here = listed
                .iter()
                .filter(|name| self.names.contains(**name))
                .count();
            let (n_absent, n_unlisted) = (listed.len() - n_here, self.names.len() - n_here);
            let _ = writeln!(
                text,
                "{n_here} images of the split are here, {n_absent} are not; {n_unlisted} images here are in no part"
            );
            json["image_files"]["of_the_split"] = json!(n_here);
            json["image_files"]["absent"] = json!(n_absent);
            json["image_files"]["in_no_part"] = json!(n_unlisted);
        }
        for (heading, lines) in warning_lines(&self.warnings, &details) {
            let _ = write!(text, "{heading}\n{}", first_lines(lines.into_iter()));
        }
        say_passed_over(self.n_passed_over, &self.passed_over);
        match self.broken.len() {
            0 => *text += "none is broken\n",
            n_broken => {
                let lines = self.broken.iter().map(|(_, error)| error.clone());
                let _ = write!(text, "{n_broken} cannot be used:\n{}", first_lines(lines));
            }
        }
    }
}
