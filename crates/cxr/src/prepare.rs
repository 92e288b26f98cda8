//! `cxr prepare`: images of any folder or archive to a store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    DatasetError, ImageName, ImageWarning, Index, Inserted, PrepareOptions, Progress, Store,
    StoreBuilder, StoreSettings, Tone, WarningKind, archived_names, is_archive,
};
use serde_json::{Value, json};

use crate::data_folder::{add_image, chain, first_lines};
use crate::output::{ForceArg, is_store};
use crate::progress::{Bar, say};
use crate::train::{interrupted, set_threads, stop_flag};
use crate::{SOME_FAILED, scoring};

/// Prepare images: decode, make grey, resize to a square, and keep them in one file
///
/// Training reads such a store instead of image files: pass it with `--store`, or keep it in the
/// data folder as images-SIDE.store. What was done is kept through Ctrl-C and kills; the same
/// command goes on from there. An image that cannot be read does not stop the others: it is named,
/// the store holds the rest, and the exit code is 3. An image's name is its file name, wherever it
/// lies.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Folders (searched to the bottom), archives (ZIP, TAR, gzip-compressed TAR; never unpacked) or
    /// image files (PNG, JPEG, DICOM)
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
        bail!(
            "the sources hold no images{}",
            match sources.n_unlisted {
                0 => String::new(),
                n_unlisted => format!(" that `--labels` lists, and {n_unlisted} others"),
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

/// Finds the images; two of one name are an error.
fn collect(args: &Args) -> anyhow::Result<Sources> {
    let listed = args.labels.as_ref().map(Index::read).transpose()?;
    let mut files = HashMap::new();
    let mut archives = Vec::new();
    let mut archived: HashMap<ImageName, PathBuf> = HashMap::new();
    for source in &args.sources {
        let kind = std::fs::metadata(source)
            .with_context(|| format!("cannot read `{}`", source.display()))?;
        if kind.is_dir() {
            walk(source, &mut files)?;
        } else if is_archive(source) {
            say(&format!("looking through `{}`", source.display()));
            for name in archived_names(source)? {
                // One archive that holds an image twice is told when it is read.
                if let Some(other) = archived.insert(name.clone(), source.clone())
                    && other != *source
                {
                    bail!(
                        "`{name}` is in both `{}` and `{}`",
                        other.display(),
                        source.display()
                    );
                }
            }
            archives.push(source.clone());
        } else {
            let before = files.len();
            add_image(&mut files, source.clone())?;
            if files.len() == before {
                bail!(
                    "`{}` is neither a folder nor an archive nor an image\nhint: images end in .png, .jpg, .jpeg, .dcm or .dicom",
                    source.display()
                );
            }
        }
    }
    if let Some((name, path)) = files.iter().find(|(name, _)| archived.contains_key(*name)) {
        bail!(
            "`{}` and an image of an archive are both called `{name}`",
            path.display()
        );
    }
    let n_found = files.len() + archived.len();
    let is_listed = |name: &ImageName| {
        listed
            .as_ref()
            .is_none_or(|index| index.get(name).is_some())
    };
    let mut files: Vec<(ImageName, PathBuf)> = files.into_iter().collect();
    files.retain(|(name, _)| is_listed(name));
    files.sort();
    let mut archived: Vec<ImageName> = archived.into_keys().collect();
    archived.retain(is_listed);
    Ok(Sources {
        n_unlisted: n_found - files.len() - archived.len(),
        files,
        archives,
        archived,
    })
}

/// Adds the images below a folder.
fn walk(folder: &Path, files: &mut HashMap<ImageName, PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder `{}`", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        // Not through links: they may lead in a circle.
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            add_image(files, entry.path())?;
        }
    }
    Ok(())
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
            "unlisted": sources.n_unlisted,
            "fingerprint": store.fingerprint().to_string(),
            "source_fingerprint": store.source_fingerprint().to_string(),
        });
        scoring::print(&format!("{report:#}\n"))?;
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
    match failures.len() + n_refused {
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
