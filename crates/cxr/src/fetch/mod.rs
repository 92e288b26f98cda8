//! `cxr fetch`: what `data/manifest.toml` and `models/manifest.toml` name, verified.
//!
//! Nothing is unpacked: archives stay as they are, or their images are streamed into a store.

mod prepare;
mod watcher;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, bail};
use cxr_dataset::TableFormat;
use cxr_hub::{Endpoint, FileSet, HubError, Manifest, Options, fetch_all};
use indicatif::DecimalBytes;

use watcher::Watcher;

use crate::SOME_FAILED;
use crate::progress::say;
use crate::scoring::print;
use crate::train::{interrupted, stop_flag};

/// Fetch data and weights, verified; the same command goes on after an interruption
///
/// Files are verified against the digest of the manifest, or that of the hub's listing of one commit,
/// before they get their name, and are not fetched twice; what Python's huggingface_hub has in its
/// cache is copied from there. HF_TOKEN, HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE mean what they mean
/// there. With `--prepare` the images of each archive are decoded,
/// resized and kept in one store, which training reads; `--drop-archives` removes an archive after
/// that, so that about 12 GB of disk are enough for ChestX-ray14.
#[derive(Debug, clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    /// What to fetch: `weights`, `nih-metadata`, `nih`; without any, list what there is
    #[arg(value_name = "SET")]
    sets: Vec<String>,
    /// Whose copy, where there are several: `hub`, `nih`
    #[arg(long, value_name = "MIRROR")]
    mirror: Option<String>,
    /// The hub's address; otherwise that of the environment variable HF_ENDPOINT, or huggingface.co
    #[arg(long, value_name = "URL")]
    endpoint: Option<Endpoint>,
    /// Where to put the files; otherwise data/ and models/ in the home folder
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// The folder that has data/ and models/
    #[arg(long, value_name = "DIR", env = "CXR_HOME", default_value = ".")]
    home: PathBuf,
    /// Another manifest than the two that come with the program; its folders are relative to it
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Put the images of the archives into DIR/images-SIDE.store, without unpacking them
    #[arg(long)]
    prepare: bool,
    /// Remove each archive as soon as all its images are in the store
    #[arg(long, requires = "prepare")]
    drop_archives: bool,
    /// Width and height of the prepared images, in pixels
    #[arg(
        long,
        value_name = "PIXELS",
        default_value_t = 256,
        requires = "prepare"
    )]
    side: u32,
    /// Finish the store although some images of the label table are missing or broken
    #[arg(long, requires = "prepare")]
    allow_missing: bool,
}

const EXAMPLES: &str = "Examples:
  cxr fetch nih-metadata weights
  cxr fetch nih --prepare --drop-archives
  cxr fetch nih --mirror nih --to /big/disk/nih --prepare";

/// The examples, and where the data sets are asked for that nobody may fetch unattended.
fn after_help() -> String {
    let formats = TableFormat::all().filter(|format| !format.access().is_empty());
    let lines = formats.map(|format| format!("\n  {}: {}", format.title(), format.access()));
    format!(
        "{EXAMPLES}\n\nOther data sets that cxr reads are given out on terms that somebody has to accept or sign; they are never\ndownloaded here. Where they are asked for:{}",
        lines.collect::<String>()
    )
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let shelves = match &args.manifest {
        Some(path) => vec![Shelf::read(path)?],
        None => Shelf::built_in(&args.home)?,
    };
    if args.sets.is_empty() {
        for set in shelves.iter().flat_map(|shelf| &shelf.manifest.sets) {
            print(&describe(set))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = args
        .sets
        .iter()
        .map(|name| find(&shelves, name, args.mirror.as_deref()))
        .collect::<anyhow::Result<Vec<_>>>()?;

    let options = Options::from_environment(args.endpoint.clone()).context("HF_ENDPOINT")?;
    if args.prepare && !wanted.iter().any(|(_, set)| prepare::is_of_archives(set)) {
        bail!("`--prepare` is for sets of archives, such as `nih`");
    }
    let stop = stop_flag()?;
    let mut failures = 0;
    for (shelf, set) in wanted {
        say(describe(set).trim_end());
        let outcome = if args.prepare && prepare::is_of_archives(set) {
            prepare::run(&args, shelf, set, &options, &stop)
        } else {
            let folder = (args.to.clone()).unwrap_or_else(|| shelf.folder.join(&set.folder));
            fetch_set(set, &folder, &options, &stop)
        };
        match outcome {
            Err(error) if is_interruption(&error) => {
                return Ok(interrupted());
            }
            failed => failures += failed?,
        }
    }
    match failures {
        0 => Ok(ExitCode::SUCCESS),
        _ => {
            say(&format!("failed: {failures}"));
            Ok(ExitCode::from(SOME_FAILED))
        }
    }
}

/// Brings a set into a folder and prints the files; how many could not be had.
fn fetch_set(
    set: &FileSet,
    folder: &Path,
    options: &Options,
    stop: &AtomicBool,
) -> anyhow::Result<usize> {
    let mut watcher = Watcher::new(set);
    let fetched = fetch_all(set, folder, options, &mut watcher, stop);
    watcher.finish();
    let report = fetched?;
    for (name, error) in &report.failed {
        say(&format!("error: {name}: {}", chain(error)));
    }
    for file in report.fetched {
        print(&format!("{}\n", file.path.display()))?;
    }
    Ok(report.failed.len())
}

/// Whether an error is only that Ctrl-C was pressed.
fn is_interruption(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(HubError::Interrupted))
        || matches!(
            error.downcast_ref(),
            Some(cxr_dataset::DatasetError::Interrupted { .. })
        )
}

/// An error with its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// A manifest and the folder its sets are relative to.
struct Shelf {
    folder: PathBuf,
    manifest: Manifest,
}

impl Shelf {
    fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            folder: path.parent().unwrap_or(Path::new(".")).to_owned(),
            manifest: Manifest::read(path)?,
        })
    }

    /// The manifests that come with the program.
    fn built_in(home: &Path) -> anyhow::Result<Vec<Self>> {
        let manifests = [
            ("models", include_str!("../../../../models/manifest.toml")),
            ("data", include_str!("../../../../data/manifest.toml")),
        ];
        let shelf = |(folder, text)| {
            Ok(Self {
                folder: home.join(folder),
                manifest: Manifest::parse(text, format!("{folder}/manifest.toml"))?,
            })
        };
        manifests.into_iter().map(shelf).collect()
    }
}

/// The set `name`. A mirror that a set with one copy only does not have is no mistake:
/// `fetch nih-metadata nih --mirror nih` is one command.
fn find<'a>(
    shelves: &'a [Shelf],
    name: &str,
    mirror: Option<&str>,
) -> anyhow::Result<(&'a Shelf, &'a FileSet)> {
    let sets = || {
        shelves
            .iter()
            .flat_map(|shelf| shelf.manifest.sets.iter().map(move |set| (shelf, set)))
    };
    let named: Vec<_> = sets().filter(|(_, set)| set.name == name).collect();
    let fits = |set: &FileSet| match (mirror, set.mirror.as_deref()) {
        (Some(wanted), Some(mirror)) => wanted == mirror,
        _ => true,
    };
    if let Some(found) = named.iter().find(|(_, set)| fits(set)) {
        return Ok(*found);
    }
    let names = |names: Vec<&str>| names.join("`, `");
    if named.is_empty() {
        let mut known: Vec<_> = sets().map(|(_, set)| set.name.as_str()).collect();
        known.dedup();
        bail!("nothing is called `{name}`; there are `{}`", names(known));
    }
    let known = named.iter().filter_map(|(_, set)| set.mirror.as_deref());
    bail!(
        "`{name}` has the mirrors `{}`, not `{}`",
        names(known.collect()),
        mirror.unwrap_or_default()
    );
}

/// Three lines on what a set is and under which terms.
fn describe(set: &FileSet) -> String {
    let mirror = set.mirror.as_ref();
    let mirror = mirror.map_or_else(String::new, |mirror| format!(" --mirror {mirror}"));
    let known: Option<u64> = set.files.iter().map(|file| file.bytes).sum();
    let size = match (known, set.about_bytes) {
        (Some(bytes), _) => format!(", {}", DecimalBytes(bytes)),
        (None, Some(about)) => format!(", about {}", DecimalBytes(about)),
        (None, None) => String::new(),
    };
    let plural = if set.files.len() == 1 { "" } else { "s" };
    format!(
        "{}{mirror}: {} ({} file{plural}{size})\n  terms: {}\n  from:  {}\n",
        set.name,
        set.about,
        set.files.len(),
        set.licence,
        set.home
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelves() -> Vec<Shelf> {
        Shelf::built_in(Path::new("")).unwrap()
    }

    #[test]
    fn the_manifests_name_what_the_experiments_need() {
        let shelves = shelves();
        let names = |name, mirror| -> Vec<String> {
            let (shelf, set) = find(&shelves, name, mirror).unwrap();
            let folder = shelf.folder.file_name().unwrap();
            let folder = Path::new(folder).join(&set.folder);
            let path = |file: &cxr_hub::RemoteFile| folder.join(file.name.as_str());
            let paths = set.files.iter().map(path);
            paths.map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            names("weights", None),
            ["models/densenet121.tv_in1k.safetensors"]
        );
        let experiment = include_str!("../../experiments/paper.toml");
        assert!(experiment.contains(&names("weights", None)[0]));
        assert_eq!(
            names("nih-metadata", Some("nih")),
            [
                "data/nih/Data_Entry_2017_v2020.csv",
                "data/nih/train_val_list.txt",
                "data/nih/test_list.txt",
                "data/nih/BBox_List_2017.csv",
            ]
        );
        for (mirror, ending) in [(None, "zip"), (Some("hub"), "zip"), (Some("nih"), "tar.gz")] {
            let expected: Vec<_> = (1..=12)
                .map(|number| format!("data/nih/archives/images_{number:03}.{ending}"))
                .collect();
            assert_eq!(names("nih", mirror), expected);
        }
    }

    #[test]
    fn a_wrong_name_is_told_what_there_is() {
        let shelves = shelves();
        let told = |name, mirror| match find(&shelves, name, mirror) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(
            told("nhi", None),
            "nothing is called `nhi`; there are `weights`, `nih-metadata`, `nih`"
        );
        assert_eq!(
            told("nih", Some("moon")),
            "`nih` has the mirrors `hub`, `nih`, not `moon`"
        );
    }
}
