//! `cxr prepare`: images of any folder or archive to a store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    DatasetError, ImageFiles, ImageName, ImageWarning, Index, Inserted, PrepareOptions, Progress,
    Refusal, Store, StoreBuilder, StoreSettings, Tone, WarningKind, archived_paths, is_archive,
    is_image_file,
};
use serde_json::{Value, json};

use crate::data_folder::{chain, first_lines, passed_over, say_passed_over, say_refused};
use crate::output::{ForceArg, is_store};
use crate::progress::{Bar, say};
use crate::train::{interrupted, set_threads, stop_flag};
use crate::{SOME_FAILED, scoring};

/// Prepare images: decode, make grey, resize to a square, and keep them in one file
///
/// Training reads such a store instead of image files: pass it with `--store`, or keep it in the
/// data folder as images-SIDE.store. What was done is kept through Ctrl-C and kills; the same
/// command goes on from there. An image that cannot be read does not stop the others: it is named,
/// the store holds the rest, and the exit code is 3.
///
/// An image is called by its file name. Where two different images of the sources have the same, all are called by
/// their paths below the folders that were named. With --labels they are called as the table calls them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folders (searched to the bottom, links included), archives (ZIP, TAR, gzip-compressed TAR; never unpacked) or
    /// image files (PNG, JPEG, DICOM). In folders and archives images are known by their file name extensions or by
    /// their contents
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<PathBuf>,

    /// The store to write
    #[arg(long, short, value_name = "FILE.store")]
    out: PathBuf,

    /// Width and height of the prepared images, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = StoreSettings::default().side())]
    side: u32,

    /// Stretch the grey levels of each image: the darkest value in use becomes black, the brightest
    /// white. For images whose values use a part of their range, such as 12 bits stored in 16, which
    /// come out nearly black. A store holds images of one kind; without the option levels stay as the
    /// files say
    #[arg(long)]
    stretch: bool,

    /// Only the images that this label table lists; the others are counted
    #[arg(long, value_name = "LABELS.csv")]
    labels: Option<PathBuf>,

    /// Keep the images that the store holds already beside the new ones
    #[arg(long)]
    append: bool,

    #[command(flatten)]
    force: ForceArg,

    /// Print what became of the images as JSON
    #[arg(long)]
    json: bool,

    /// Threads to decode with; the store does not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  cxr prepare data/nih/images --out data/nih/images-256.store
  cxr prepare images_001.tar.gz images_002.tar.gz --out images-256.store
  cxr prepare new/ --append --out images-256.store
  cxr prepare twelve-bit/ --stretch --out images-256.store";

/// What the arguments name.
struct Sources {
    files: Vec<(ImageName, PathBuf)>,
    archives: Vec<PathBuf>,
    /// Images of the archives.
    archived: Vec<ImageName>,
    n_unlisted: usize,
    /// Images that `--labels` lists and the sources have not: how many, and what the first may be called.
    n_absent: usize,
    similar: Option<String>,
    /// Images that are the same as others of their names.
    n_copies: usize,
    /// What cannot be used, though it may be an image.
    refused: Vec<Refusal>,
    n_passed_over: usize,
    passed_over: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    set_threads(args.threads)?;
    let settings = StoreSettings::new(args.side)?.in_tone(tone(args.stretch));
    let sources = collect(args)?;
    let out = check_output(args, &sources)?;
    let stop = stop_flag()?;
    let new: HashSet<&ImageName> = (sources.files.iter().map(|(name, _)| name))
        .chain(&sources.archived)
        .collect();
    if new.is_empty() {
        say_refused(&sources.refused);
        say_passed_over(sources.n_passed_over, &sources.passed_over);
        bail!(
            "the sources hold no images{}{}",
            match sources.n_unlisted {
                0 => String::new(),
                n_unlisted => format!(" that `--labels` lists, and {n_unlisted} others"),
            },
            match &sources.similar {
                None => String::new(),
                Some(similar) => format!("\nhint: {similar}"),
            }
        );
    }
    let existing = existing(args, settings)?;
    let kept: Vec<ImageName> = (existing.iter().flat_map(Store::names))
        .filter(|name| !new.contains(name))
        .collect();
    if let (Some(first), false) = (kept.first(), args.append) {
        bail!(
            "`{}` holds {} images that the sources do not, the first is `{first}`\nhint: keep them with `--append`, or delete the store",
            args.out.display(),
            kept.len()
        );
    }
    if let Some(store) = &existing
        && is_up_to_date(store, &sources)
    {
        say("every image is prepared already");
        let inserted = vec![Inserted::default()];
        return report(args, store, new.len(), &sources, &inserted);
    }
    drop(existing);
    let mut names: Vec<ImageName> = new.into_iter().cloned().collect();
    let n_asked = names.len();
    names.extend(kept);

    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    let builder = StoreBuilder::create_or_resume(&out, &names, settings)?;
    let watched = |what: &str, total: usize, insert: &dyn Fn(PrepareOptions<'_>) -> _| {
        let bar = Bar::new(what, "images", total);
        let observer = |progress: Progress| bar.set(progress.done);
        let options = PrepareOptions {
            observer: Some(&observer),
            stop: Some(&stop),
        };
        let inserted: Result<Inserted, DatasetError> = insert(options);
        bar.finish();
        inserted
    };
    let mut inserted = Vec::new();
    if !sources.files.is_empty() {
        let insert = |options: PrepareOptions<'_>| builder.insert_files(&sources.files, options);
        inserted.push(watched("preparing", sources.files.len(), &insert));
    }
    for archive in &sources.archives {
        if matches!(inserted.last(), Some(Err(_))) {
            break;
        }
        let what = archive.file_name().unwrap_or_default().to_string_lossy();
        let insert = |options: PrepareOptions<'_>| builder.insert_archive(archive, options);
        inserted.push(watched(&what, builder.n_expected(), &insert));
    }
    let inserted: Vec<Inserted> = match inserted.into_iter().collect() {
        Err(DatasetError::Interrupted { .. }) => return Ok(interrupted()),
        other => other?,
    };
    let store = match builder.n_present() {
        0 => {
            let failures = inserted.iter().flat_map(|inserted| &inserted.failures);
            let lines: Vec<String> = failures.map(|(_, error)| chain(error)).collect();
            builder.discard()?;
            bail!(
                "none of the {n_asked} images can be used:\n{}",
                first_lines(lines.into_iter()).trim_end()
            );
        }
        _ => builder.commit()?,
    };
    report(args, &store, n_asked, &sources, &inserted)
}

/// Makes sure that the store may be written, and what becomes it. Returns its path without links.
fn check_output(args: &Args, sources: &Sources) -> anyhow::Result<PathBuf> {
    let output = |path| {
        let output = args.force.output(path).inputs(&args.labels);
        let output = output.inputs(&sources.archives);
        output.inputs(sources.files.iter().map(|(_, file)| file))
    };
    let place = output(&args.out).ours(is_store).check()?;
    anyhow::ensure!(
        !place.exists() || place.is_file(),
        "`{}` is no regular file, and a store is read back where it is written",
        args.out.display()
    );
    // Killed as soon as it was made, it is empty or all zeros.
    let is_begun = |start: &[u8]| is_store(start) || start.iter().all(|&byte| byte == 0);
    output(&partial_store(&place)).ours(is_begun).check()?;
    Ok(place)
}

/// Where a store is while it is being made.
fn partial_store(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

/// Finds the images and names them.
fn collect(args: &Args) -> anyhow::Result<Sources> {
    let listed = args.labels.as_ref().map(Index::read).transpose()?;
    let mut places = Vec::new();
    let mut archives: Vec<(&PathBuf, Vec<ImageName>)> = Vec::new();
    for source in &args.sources {
        let kind = std::fs::metadata(source)
            .with_context(|| format!("cannot read `{}`", source.display()))?;
        if kind.is_file() && is_archive(source) {
            say(&format!("looking through `{}`", source.display()));
            archives.push((source, archived_paths(source)?));
        } else if kind.is_dir() || is_image_file(source) {
            places.push(source);
        } else {
            bail!(
                "`{}` is neither a folder nor an archive nor an image\nhint: images are PNG, JPEG or DICOM files",
                source.display()
            );
        }
    }
    let found = ImageFiles::find(places)?;
    let mut sources = Sources {
        files: Vec::new(),
        archives: archives
            .iter()
            .map(|(archive, _)| (*archive).clone())
            .collect(),
        archived: Vec::new(),
        n_unlisted: 0,
        n_absent: 0,
        similar: None,
        n_copies: 0,
        refused: found.refused().to_vec(),
        n_passed_over: found.passed_over().count(),
        passed_over: passed_over(&found),
    };
    match listed {
        Some(index) => sources.take_listed(&index, &found, &archives)?,
        None => sources.take_all(&found, &archives)?,
    }
    Ok(sources)
}

impl Sources {
    /// The images that a table lists, under its names.
    fn take_listed(
        &mut self,
        index: &Index,
        found: &ImageFiles,
        archives: &[(&PathBuf, Vec<ImageName>)],
    ) -> anyhow::Result<()> {
        self.files.extend(found.of_index(index)?);
        self.files.sort();
        // Two names may mean one file only if both end its path; each counts once.
        let used: HashSet<&Path> = self.files.iter().map(|(_, path)| path.as_path()).collect();
        self.n_unlisted = found.files().len() - used.len();
        let mut first: HashMap<ImageName, &Path> = HashMap::new();
        let files: HashSet<&ImageName> = self.files.iter().map(|(name, _)| name).collect();
        for (archive, paths) in archives {
            for path in paths {
                let Some(record) = index.listed(path) else {
                    self.n_unlisted += 1;
                    continue;
                };
                if files.contains(&record.name) {
                    bail!(
                        "`{}` is both a file and in `{}`\nhint: leave one of them out",
                        record.name,
                        archive.display()
                    );
                }
                match first.insert(record.name.clone(), archive) {
                    // One archive that holds an image twice is reported when it is read.
                    Some(other) if other != archive.as_path() => {
                        return Err(in_both(&record.name, other, archive));
                    }
                    _ => {}
                }
            }
        }
        self.archived = first.into_keys().collect();
        let here: HashSet<&ImageName> = files.into_iter().chain(&self.archived).collect();
        let mut absent = (index.records().iter())
            .map(|record| &record.name)
            .filter(|name| !here.contains(name));
        if let Some(first) = absent.next() {
            self.n_absent = 1 + absent.count();
            self.similar = (found.similar(first)).map(|file| {
                format!(
                    "the table has `{first}`, and there is `{}`",
                    file.file_name()
                )
            });
        }
        Ok(())
    }

    /// All images, by their file names or by their paths.
    fn take_all(
        &mut self,
        found: &ImageFiles,
        archives: &[(&PathBuf, Vec<ImageName>)],
    ) -> anyhow::Result<()> {
        let paths: Vec<ImageName> = archives
            .iter()
            .flat_map(|(_, paths)| paths)
            .cloned()
            .collect();
        let naming = found.name_all(&paths)?;
        if let Some(shared) = &naming.shared_file_name {
            say(&format!(
                "different images are called `{shared}`: all are called by their paths"
            ));
        }
        let holders =
            (archives.iter()).flat_map(|(archive, paths)| paths.iter().map(|_| archive.as_path()));
        let mut first: HashMap<ImageName, &Path> = HashMap::new();
        for (name, archive) in naming.archived.into_iter().zip(holders) {
            match first.insert(name.clone(), archive) {
                Some(other) if other != archive => return Err(in_both(&name, other, archive)),
                _ => {}
            }
        }
        self.archived = first.into_keys().collect();
        self.files = naming.files;
        self.n_copies = naming.n_copies;
        self.refused.extend(naming.refused);
        Ok(())
    }
}

fn in_both(name: &ImageName, first: &Path, second: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "`{name}` is in both `{}` and `{}`\nhint: leave one of them out",
        first.display(),
        second.display()
    )
}

/// The store that stands at the place of the new one.
fn existing(args: &Args, settings: StoreSettings) -> anyhow::Result<Option<Store>> {
    let is_ours = || {
        let start = cxr_fs::read_recognised(&args.out, u64::MAX, |_| false);
        start.is_ok_and(|start| is_store(&start))
    };
    let is_absent = std::fs::metadata(&args.out)
        .is_ok_and(|file| file.is_file() && file.len() == 0)
        || !args.out.exists();
    // What is no store was looked at before, and is to be replaced.
    if is_absent || args.force.is_given() && !is_ours() {
        return Ok(None);
    }
    let store = Store::open(&args.out)?;
    if store.settings().side() != settings.side() {
        bail!(
            "`{}` holds images of {side}×{side} pixels\nhint: choose another file, or `--side {side}`",
            args.out.display(),
            side = store.side()
        );
    }
    if store.settings() != settings {
        let (holds, hint) = match settings.tone() {
            Tone::Stretched => ("were not stretched", "leave out `--stretch`"),
            _ => ("were stretched", "pass `--stretch`"),
        };
        bail!(
            "`{}` holds images whose grey levels {holds}\nhint: choose another file, or {hint}",
            args.out.display()
        );
    }
    Ok(Some(store))
}

/// Whether the store holds every file as it is. What an archive holds shows when it is read.
fn is_up_to_date(store: &Store, sources: &Sources) -> bool {
    sources.archives.is_empty()
        && (sources.files.iter()).all(|(name, path)| {
            let length = std::fs::metadata(path).ok().map(|file| file.len());
            length.is_some() && store.source_len(name) == length
        })
}

/// The tone that `--stretch` asks for.
pub(crate) fn tone(stretch: bool) -> Tone {
    match stretch {
        true => Tone::Stretched,
        false => Tone::AsStored,
    }
}

fn report(
    args: &Args,
    store: &Store,
    n_asked: usize,
    sources: &Sources,
    inserted: &[Inserted],
) -> anyhow::Result<ExitCode> {
    let failures: Vec<(&ImageName, String)> = (inserted.iter())
        .flat_map(|inserted| &inserted.failures)
        .map(|(name, error)| (name, chain(error)))
        .collect();
    let refused: Vec<&(String, String)> = (inserted.iter())
        .flat_map(|inserted| &inserted.refused)
        .collect();
    let details: Vec<&(ImageName, ImageWarning)> = (inserted.iter())
        .flat_map(|inserted| &inserted.warnings)
        .collect();
    let warnings = store.warnings();
    let sum = |count: fn(&Inserted) -> usize| -> usize { inserted.iter().map(count).sum() };
    let n_prepared = sum(|inserted| inserted.n_prepared);
    let n_refused = sum(|inserted| inserted.n_refused);
    let n_copies = sources.n_copies + sum(|inserted| inserted.n_copies);
    let n_passed_over = sources.n_passed_over + sum(|inserted| inserted.n_other);
    let in_archives = inserted.iter().flat_map(|inserted| &inserted.other);
    let passed_over: Vec<String> = (sources.passed_over.iter().cloned())
        .chain(in_archives.map(|path| format!("`{path}` (no image)")))
        .collect();
    if args.json {
        let report = json!({
            "store": args.out,
            "side": store.side(),
            "stretched": store.settings().tone() == Tone::Stretched,
            "images": store.len(),
            "asked": n_asked,
            "prepared": n_prepared,
            "failed": failures.iter().map(|(image, error)| {
                json!({"image": image, "error": error})
            }).collect::<Vec<_>>(),
            "refused": refused.iter().map(|(entry, reason)| {
                json!({"entry": entry, "reason": reason})
            }).collect::<Vec<_>>(),
            "refused_count": n_refused,
            "warnings": warnings_json(&warnings, &details),
            "unusable": sources.refused.iter().map(|refusal| {
                json!({"path": refusal.path.to_string_lossy(), "reason": refusal.reason})
            }).collect::<Vec<_>>(),
            "copies": n_copies,
            "passed_over": passed_over,
            "passed_over_count": n_passed_over,
            "unlisted": sources.n_unlisted,
            "absent": sources.n_absent,
            "fingerprint": store.fingerprint().to_string(),
            "source_fingerprint": store.source_fingerprint().to_string(),
        });
        scoring::print_json(&report)?;
    } else {
        let bytes = std::fs::metadata(&args.out).map_or(0, |file| file.len());
        scoring::summarise(&format!(
            "{}: {} images of {side}×{side}, {n_prepared} prepared now, {:.1} MB\n",
            args.out.display(),
            store.len(),
            bytes as f64 / 1e6,
            side = store.side(),
        ));
    }
    if sources.n_unlisted > 0 {
        say(&format!(
            "{} images are not in `--labels` and were left out",
            sources.n_unlisted
        ));
    }
    for (heading, lines) in warning_lines(&warnings, &details) {
        say(&heading);
        say(first_lines(lines.into_iter()).trim_end());
    }
    if sources.n_absent > 0 {
        let similar = sources.similar.as_ref();
        say(&format!(
            "{} images of `--labels` are not in the sources{}",
            sources.n_absent,
            similar.map_or_else(String::new, |similar| format!(": {similar}"))
        ));
    }
    if n_copies > 0 {
        say(&format!(
            "{n_copies} files are copies of others of the same name and were left out"
        ));
    }
    say_passed_over(n_passed_over, &passed_over);
    say_refused(&sources.refused);
    if n_refused > 0 {
        let lines = refused
            .iter()
            .map(|(entry, reason)| format!("`{entry}`: {reason}"));
        say(&format!("{n_refused} entries of archives were refused:"));
        say(first_lines(lines).trim_end());
    }
    if !failures.is_empty() {
        say(&format!(
            "{} of {n_asked} images cannot be used:",
            failures.len()
        ));
        let lines = failures.iter().map(|(_, error)| error.clone());
        say(first_lines(lines).trim_end());
    }
    match failures.len() + n_refused + sources.refused.len() {
        0 => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::from(SOME_FAILED)),
    }
}

/// For each kind of warning how many images have it, and a line for each of them.
pub(crate) fn warning_lines(
    warnings: &[(ImageName, WarningKind)],
    details: &[&(ImageName, ImageWarning)],
) -> Vec<(String, Vec<String>)> {
    let mut by_kind: BTreeMap<WarningKind, Vec<String>> = BTreeMap::new();
    let details = texts(details);
    for (name, kind) in warnings {
        let line = match details.get(&(name, *kind)) {
            Some(text) => format!("`{name}`: {text}"),
            None => format!("`{name}`"),
        };
        by_kind.entry(*kind).or_default().push(line);
    }
    (by_kind.into_iter())
        .map(|(kind, lines)| {
            (
                format!("warning: {} of the images {kind}:", lines.len()),
                lines,
            )
        })
        .collect()
}

/// The same for programs.
pub(crate) fn warnings_json(
    warnings: &[(ImageName, WarningKind)],
    details: &[&(ImageName, ImageWarning)],
) -> Value {
    let details = texts(details);
    let image = |(name, kind): &(ImageName, WarningKind)| {
        let text = details.get(&(name, *kind));
        json!({"image": name, "kind": kind.name(), "text": text})
    };
    warnings.iter().map(image).collect()
}

/// What is known of an image beyond the kind of its warning; of those that were prepared before, nothing is.
fn texts<'a>(
    details: &[&'a (ImageName, ImageWarning)],
) -> BTreeMap<(&'a ImageName, WarningKind), String> {
    (details.iter())
        .map(|(name, warning)| ((name, warning.kind()), warning.to_string()))
        .collect()
}
