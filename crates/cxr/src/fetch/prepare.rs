//! `cxr fetch nih --prepare`: archive after archive, fetched, verified, and its images
//! streamed into one store.
//!
//! What is done survives a kill at any moment: images are in the unfinished store, and archives
//! whose images are all there are listed in a ledger beside it, so that they need not be fetched again
//! after they were dropped.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    ImageName, Index, Inserted, PrepareOptions, Progress, Store, StoreBuilder, StoreSettings,
};
use cxr_hub::{Digest, FileSet, HubError, Options, RemoteFile, check_space, fetch};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::watcher::Watcher;
use super::{Args, Shelf, chain, fetch_set};
use crate::progress::say;
use crate::scoring::print;

/// The set with the label table, which says what images there are.
const METADATA: &str = "nih-metadata";
const LABEL_TABLE: &str = "Data_Entry_2017_v2020.csv";
/// Failures that are named; the others are counted.
const SHOWN: usize = 20;

/// Whether all files of a set are archives by their names.
pub(super) fn is_of_archives(set: &FileSet) -> bool {
    let is_archive = |file: &RemoteFile| {
        let name = file.name.as_str();
        [".zip", ".tar", ".tar.gz", ".tgz"]
            .iter()
            .any(|ending| name.ends_with(ending))
    };
    !set.files.is_empty() && set.files.iter().all(is_archive)
}

/// Which archives have given all their images to the store; it stays as the record of where the
/// store's images come from.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Ledger {
    #[serde(default, rename = "archive")]
    archives: Vec<Settled>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settled {
    name: String,
    /// What the archive was verified against.
    digest: Digest,
    bytes: u64,
    /// Images that it gave.
    images: usize,
}

impl Ledger {
    /// An unreadable ledger is an empty one: its archives are read again, and lose nothing.
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        toml::from_str(&text).unwrap_or_default()
    }

    fn has(&self, file: &RemoteFile) -> bool {
        self.archives.iter().any(|settled| {
            settled.name == file.name.as_str()
                && file.digest.is_none_or(|digest| digest == settled.digest)
        })
    }

    fn n_images(&self) -> usize {
        self.archives.iter().map(|settled| settled.images).sum()
    }

    fn add(&mut self, settled: Settled, path: &Path) -> anyhow::Result<()> {
        self.archives.retain(|other| other.name != settled.name);
        self.archives.push(settled);
        self.archives
            .sort_by(|first, second| first.name.cmp(&second.name));
        Ok(cxr_fs::write(path, toml::to_string(self)?.as_bytes())?)
    }
}

/// Fetches and prepares; how many archives or images failed.
pub(super) fn run(
    args: &Args,
    shelf: &Shelf,
    set: &FileSet,
    options: &Options,
    stop: &AtomicBool,
) -> anyhow::Result<usize> {
    let metadata = shelf.manifest.set(METADATA, None)?;
    let (folder, archives) = match &args.to {
        Some(folder) => (folder.clone(), folder.join("archives")),
        None => (
            shelf.folder.join(&metadata.folder),
            shelf.folder.join(&set.folder),
        ),
    };
    fetch_set(metadata, &folder, options, stop)?;
    let table = folder.join(LABEL_TABLE);
    let index = Index::read(&table)
        .context("the label table says which images there are, and it cannot be had")?;
    let names: Vec<ImageName> = (index.records().iter())
        .map(|record| record.name.clone())
        .collect();
    let settings = StoreSettings::new(args.side)?;
    let target = folder.join(format!("images-{}.store", args.side));
    if let Ok(store) = Store::open(&target)
        && store.settings() == settings
        && names.iter().all(|name| store.contains(name))
    {
        say(&format!("all {} images are prepared", store.len()));
        print(&format!("{}\n", target.display()))?;
        return Ok(0);
    }
    let builder = StoreBuilder::create_or_resume(&target, &names, settings)?;
    let preparation = Preparation {
        args,
        set,
        archives,
        ledger_path: target.with_extension("store.archives.toml"),
        options,
        stop,
    };
    let n_failed = preparation.fill(&builder)?;
    finish(args, builder, n_failed)
}

struct Preparation<'a> {
    args: &'a Args,
    set: &'a FileSet,
    /// The folder of the archives.
    archives: PathBuf,
    ledger_path: PathBuf,
    options: &'a Options,
    stop: &'a AtomicBool,
}

impl Preparation<'_> {
    fn fill(&self, builder: &StoreBuilder) -> anyhow::Result<usize> {
        let mut ledger = Ledger::read(&self.ledger_path);
        // Somebody removed the store that the ledger is of.
        if ledger.n_images() > builder.n_present() {
            ledger = Ledger::default();
        }
        std::fs::create_dir_all(&self.archives)
            .with_context(|| format!("cannot make the folder `{}`", self.archives.display()))?;
        if let (false, Some(about)) = (self.args.drop_archives, self.set.about_bytes) {
            let here: u64 = (self.set.files.iter())
                .filter_map(|file| std::fs::metadata(self.archives.join(file.name.as_str())).ok())
                .map(|file| file.len())
                .sum();
            let missing = about
                .saturating_sub(here)
                .saturating_add(unwritten(builder));
            check_space(&self.archives, missing, self.options.reserve)
                .context("hint: `--drop-archives` needs less: one archive at a time")?;
        }
        let mut watcher = Watcher::new(self.set);
        watcher.begin();
        let mut n_failed = 0;
        for file in &self.set.files {
            let name = file.name.as_str();
            if ledger.has(file) {
                let settled = ledger.archives.iter().find(|settled| settled.name == name);
                watcher.done(
                    name,
                    settled.map_or(0, |settled| settled.bytes),
                    "in the store",
                );
                continue;
            }
            match self.one(file, builder, &mut watcher) {
                Ok((settled, inserted)) if is_sound(&inserted) => {
                    ledger.add(settled, &self.ledger_path)?;
                    if self.args.drop_archives {
                        self.drop_archive(name, &watcher)?;
                    }
                }
                Ok((_, inserted)) => n_failed += tell(&watcher, name, &inserted),
                Err(error) if is_the_archives(&error) => {
                    n_failed += 1;
                    watcher.say(&format!("error: {name}: {error:#}"));
                }
                Err(error) => {
                    watcher.finish();
                    return Err(error);
                }
            }
        }
        watcher.finish();
        Ok(n_failed)
    }

    /// Fetches an archive and takes the images out of it.
    fn one(
        &self,
        file: &RemoteFile,
        builder: &StoreBuilder,
        watcher: &mut Watcher,
    ) -> anyhow::Result<(Settled, Inserted)> {
        let mut options = self.options.clone();
        options.reserve = options.reserve.saturating_add(unwritten(builder));
        let fetched = fetch(file, &self.archives, &options, watcher, self.stop)?;
        let bar = watcher.add(ProgressBar::new(builder.n_expected() as u64));
        let template = "preparing {bar:30} {pos}/{len} images, {per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let observer = |progress: Progress| bar.set_position(progress.done as u64);
        let watched = PrepareOptions {
            observer: Some(&observer),
            stop: Some(self.stop),
        };
        let inserted = builder.insert_archive(&fetched.path, watched);
        bar.finish_and_clear();
        let inserted = inserted?;
        let images = inserted.n_prepared + inserted.n_reused;
        watcher.say(&format!(
            "{}: {images} images, {} of {} are in the store",
            file.name,
            builder.n_present(),
            builder.n_expected()
        ));
        if inserted.n_unexpected > 0 {
            watcher.say(&format!(
                "{}: {} images are not in the label table and were left out",
                file.name, inserted.n_unexpected
            ));
        }
        let settled = Settled {
            name: file.name.to_string(),
            digest: fetched.digest,
            bytes: fetched.bytes,
            images,
        };
        Ok((settled, inserted))
    }

    fn drop_archive(&self, name: &str, watcher: &Watcher) -> anyhow::Result<()> {
        let path = self.archives.join(name);
        std::fs::remove_file(&path)
            .with_context(|| format!("cannot remove `{}`", path.display()))?;
        // The ledger has the digest that it was verified against.
        let _ = std::fs::remove_file(self.archives.join(format!("{name}.fetched.toml")));
        watcher.say(&format!("{name}: removed"));
        Ok(())
    }
}

/// Bytes that the store will still take of the disk.
fn unwritten(builder: &StoreBuilder) -> u64 {
    let n_missing = builder.n_expected() - builder.n_present();
    builder.file_len() / (builder.n_expected().max(1) as u64) * n_missing as u64
}

fn is_sound(inserted: &Inserted) -> bool {
    inserted.failures.is_empty() && inserted.n_refused == 0
}

/// Whether the other archives may fare better.
fn is_the_archives(error: &anyhow::Error) -> bool {
    let of_hub = error
        .downcast_ref::<HubError>()
        .is_some_and(HubError::is_the_sources);
    let of_archive = matches!(
        error.downcast_ref(),
        Some(cxr_dataset::DatasetError::Archive { .. })
    );
    of_hub || of_archive
}

/// Names what of an archive cannot be used; how much it is.
fn tell(watcher: &Watcher, archive: &str, inserted: &Inserted) -> usize {
    let n_failed = inserted.failures.len() + inserted.n_refused;
    watcher.say(&format!(
        "error: {archive}: {n_failed} of its entries cannot be used"
    ));
    let failures = inserted.failures.iter().map(|(_, error)| chain(error));
    let refused = inserted
        .refused
        .iter()
        .map(|(entry, reason)| format!("`{entry}`: {reason}"));
    for line in failures.chain(refused).take(SHOWN) {
        watcher.say(&format!("  {line}"));
    }
    n_failed
}

/// Puts the store in its place, if it is whole or need not be.
fn finish(args: &Args, builder: StoreBuilder, n_failed: usize) -> anyhow::Result<usize> {
    let missing = builder.missing();
    let n_expected = builder.n_expected();
    if let (Some(first), false) = (missing.first(), args.allow_missing) {
        say(&format!(
            "{} of {n_expected} images of the label table are missing, the first is `{first}`: the store is not finished\nhint: the same command tries again; `--allow-missing` finishes it without them",
            missing.len()
        ));
        return Ok(n_failed.max(1));
    }
    if missing.len() == n_expected {
        bail!("no image could be prepared");
    }
    let store = builder.commit()?;
    say(&format!(
        "{} of {n_expected} images are prepared, fingerprint {}",
        store.len(),
        store.fingerprint()
    ));
    print(&format!("{}\n", store.path().display()))?;
    Ok(n_failed)
}
