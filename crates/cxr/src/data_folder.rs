//! The arguments that name a data set, and what is said of it while it is read and prepared.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cxr_dataset::{DataFolder, DatasetError, Found, ImageFiles, PrepareOptions, Refusal, Survey};
use cxr_run::Experiment;
use cxr_train::TrainingData;

use crate::prepare::warning_lines;
use crate::progress::{self, say};

/// The arguments of every command that reads a data set.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// The data set: a folder with the label table, the official lists, and images in `images/` or
    /// a prepared store such as `images-256.store`
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// Where label table and lists are, if not in DIR: without this, a folder beside DIR that has
    /// them is used and named
    #[arg(long, value_name = "DIR")]
    pub(crate) metadata: Option<PathBuf>,

    /// A store that `cxr prepare` or `cxr fetch nih --prepare` wrote, to be read instead of
    /// image files
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,

    /// Go on with the listed images that are there, and say how many are not
    #[arg(long)]
    pub(crate) allow_missing: bool,
}

impl DataArgs {
    /// The data set that they name.
    pub(crate) fn folder(&self) -> DataFolder {
        DataFolder::new(&self.data)
            .with_metadata(self.metadata.clone())
            .with_store(self.store.clone())
            .allow_missing(self.allow_missing)
    }

    /// Reads labels and lists, and splits; looks for the images and reads none.
    pub(crate) fn survey(&self, experiment: &Experiment) -> anyhow::Result<Survey> {
        let options = experiment.survey_options()?;
        let survey = self.folder().survey(&options, &mut say_found);
        survey.map_err(|error| match error {
            DatasetError::NoMetadata { .. } if self.metadata.is_some() => error.into(),
            error => with_hint(error),
        })
    }
}

/// Prepares the images of a survey into `store`. `None` when `stop` was set.
pub(crate) fn prepare(
    survey: Survey,
    store: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Option<TrainingData>> {
    say(&survey.split.report(&survey.index)?.to_string());
    let is_ready = survey.ready.is_some();
    let bar = match is_ready {
        true => None,
        false => Some(progress::Bar::new(
            "preparing",
            "images",
            survey.sources().len(),
        )),
    };
    let observer = |progress: cxr_dataset::Progress| {
        if let Some(bar) = &bar {
            bar.set(progress.done);
        }
    };
    let options = PrepareOptions {
        observer: Some(&observer),
        stop: Some(stop),
    };
    let on_wait = || say("waiting for another process that makes the prepared images");
    let set = survey.prepare(store, options, on_wait);
    let set = match set {
        Err(DatasetError::Interrupted { .. }) => return Ok(None),
        set => {
            if let Some(bar) = bar {
                bar.finish();
            }
            set.map_err(with_hint)?
        }
    };
    if !is_ready {
        let details: Vec<_> = set.warnings.iter().collect();
        for (heading, lines) in warning_lines(&set.store.warnings(), &details) {
            say(&heading);
            say(first_lines(lines.into_iter()).trim_end());
        }
        say(&format!(
            "images: {} prepared, {} were prepared before",
            set.n_prepared, set.n_reused
        ));
    }
    Ok(Some(TrainingData::of(set)?))
}

/// Says what a survey finds.
fn say_found(found: Found<'_>) {
    match found {
        Found::Metadata(folder) => say(&format!(
            "label table and lists are taken from `{}`",
            folder.display()
        )),
        Found::Labels { path, release } => say(&format!("labels: {} ({release})", path.display())),
        Found::Store(store) => say(&format!(
            "images: {} in `{}`",
            store.len(),
            store.path().display()
        )),
        Found::Files(files) => {
            say_refused(files.refused());
            say_passed_over(files.passed_over().count(), &passed_over(files));
        }
        Found::Missing { missing, listed } => {
            say(&format!("{missing} of {listed} listed images are missing"));
        }
        Found::Subset(subset) => say(&format!("subset: {subset}")),
        _ => {}
    }
}

/// What the options of a command can do about an error.
fn with_hint(error: DatasetError) -> anyhow::Error {
    let hint = match &error {
        DatasetError::NoMetadata { .. } => {
            "say with `--metadata DIR` where they are".to_owned()
        }
        DatasetError::NoImages { .. } => NO_IMAGES.to_owned(),
        DatasetError::StoreSide { wanted, .. } => {
            format!("prepare them again with `cxr prepare --side {wanted}`")
        }
        DatasetError::Missing {
            similar: Some(found),
            ..
        } => format!(
            "there is `{found}`; write the names in the label table and the lists as the files have them"
        ),
        DatasetError::Missing {
            missing, listed, ..
        } if missing == listed => "check that table, lists and images belong together".to_owned(),
        DatasetError::Missing { .. } => "get the missing images (`cxr prepare --append` adds some to a store), or go on without them with `--allow-missing`".to_owned(),
        DatasetError::Unusable { images, of } => {
            let lines = images.iter().map(|(_, error)| chain(error));
            return anyhow::anyhow!(
                "{} of {of} images cannot be used:\n{}hint: replace these files, or remove them and pass `--allow-missing`",
                images.len(),
                first_lines(lines)
            );
        }
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}\nhint: {hint}")
}

const NO_IMAGES: &str =
    "images are looked for in `images/`, in `images_*/images/`, or in the folder itself";

/// Every image of a data folder. What cannot be used is named, and what is no image counted.
pub(crate) fn image_files(data: &Path) -> anyhow::Result<ImageFiles> {
    let files = DataFolder::new(data).image_files()?;
    if files.files().is_empty() {
        say_refused(files.refused());
        return Err(NoImages(data.to_owned()).into());
    }
    Ok(files)
}

/// A folder without images.
#[derive(Debug)]
pub(crate) struct NoImages(PathBuf);

impl std::fmt::Display for NoImages {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(folder) = self;
        write!(
            formatter,
            "`{}` holds no images\nhint: {NO_IMAGES}",
            folder.display()
        )
    }
}

impl std::error::Error for NoImages {}

/// Names what may be an image and cannot be used.
pub(crate) fn say_refused(refused: &[Refusal]) {
    if refused.is_empty() {
        return;
    }
    say(&format!(
        "{} files or folders cannot be used:",
        refused.len()
    ));
    let lines = refused
        .iter()
        .map(|refusal| format!("`{}`: {}", refusal.path.display(), refusal.reason));
    say(first_lines(lines).trim_end());
}

/// Counts what is no image, and names the first.
pub(crate) fn say_passed_over(count: usize, named: &[String]) {
    if let Some(first) = named.first() {
        let others = match count - 1 {
            0 => String::new(),
            n_others => format!(" and {n_others} more"),
        };
        say(&format!("passed over: {first}{others}"));
    }
}

/// What a walk passed over, with the reasons.
pub(crate) fn passed_over(files: &ImageFiles) -> Vec<String> {
    (files.passed_over().named().iter())
        .map(|(path, reason)| format!("`{}` ({reason})", path.display()))
        .collect()
}

/// The first twenty of many lines, indented.
pub(crate) fn first_lines(lines: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 20;
    let n_hidden = lines.len().saturating_sub(SHOWN);
    let mut text: String = (lines.take(SHOWN))
        .map(|line| format!("  {line}\n"))
        .collect();
    if n_hidden > 0 {
        text += &format!("  … and {n_hidden} more\n");
    }
    text
}

/// An error with its sources on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
