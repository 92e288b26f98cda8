//! Where images, labels and lists are, and which of the listed images are at hand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    ImageName, Index, OfficialLists, Part, PrepareOptions, Split, Store, StoreSettings, prepare,
};
use cxr_train::{Experiment, TrainingData};

use crate::progress;

/// The arguments of every command that reads a data set.
#[derive(Debug, clap::Args)]
pub(crate) struct DataArgs {
    /// The data set: a folder with `images/`, the label table and the official lists
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,

    /// Where label table and lists are, if not in DIR: without this, a folder beside DIR that has
    /// them is used and named
    #[arg(long, value_name = "DIR")]
    pub(crate) metadata: Option<PathBuf>,

    /// Go on with the listed images that are there, and say how many are not
    #[arg(long)]
    pub(crate) allow_missing: bool,
}

/// A data set, ready to train on.
pub(crate) struct Prepared {
    pub(crate) data: TrainingData,
    /// Seconds that preparing the images took.
    pub(crate) seconds: f64,
    /// The images are drawn, not taken.
    pub(crate) phantom: bool,
}

const LABEL_TABLES: [&str; 5] = [
    "Data_Entry_2017_v2020.csv",
    "Data_Entry_2017_v2020.csv.gz",
    "Data_Entry_2017.csv",
    "Data_Entry_2017.csv.gz",
    "labels.csv",
];
/// Stands in a folder that `cxr-phantom` wrote.
const PHANTOM_NOTICE: &str = "PHANTOMS.txt";
const TRAIN_LIST: &str = "train_val_list.txt";
const TEST_LIST: &str = "test_list.txt";

impl DataArgs {
    /// Reads labels and lists, splits, and prepares the images into `store`. `None` when `stop`
    /// was set.
    pub(crate) fn prepare(
        &self,
        experiment: &Experiment,
        store: &Path,
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Prepared>> {
        let metadata = self.metadata_folder()?;
        let table = label_table(&metadata).context("the label table is gone")?;
        let index = Index::read(&table)?;
        progress::say(&format!(
            "labels: {} ({})",
            table.display(),
            index.release()
        ));
        let lists = OfficialLists::read(metadata.join(TRAIN_LIST), metadata.join(TEST_LIST))?;
        let split = Split::new(&index, &lists, experiment.data.validation, experiment.seed)?;
        let files = image_files(&self.data)?;
        let split = self.at_hand(&split, &files)?;
        progress::say(&split.report(&index)?.to_string());

        let start = Instant::now();
        let sources: Vec<(ImageName, PathBuf)> = (Part::ALL.into_iter())
            .flat_map(|part| split.part(part))
            .filter_map(|name| Some((name.clone(), files.get(name)?.clone())))
            .collect();
        let side = u32::try_from(experiment.augmentation.image_size())?;
        let Some(store) = prepare_images(&sources, store, StoreSettings::new(side)?, stop)? else {
            return Ok(None);
        };
        let seconds = start.elapsed().as_secs_f64();
        let phantom = self.data.join(PHANTOM_NOTICE).is_file();
        let data = TrainingData::new(index, split, store)?;
        Ok(Some(Prepared {
            data,
            seconds,
            phantom,
        }))
    }

    /// The split without images that are not there, if that is allowed.
    fn at_hand(&self, split: &Split, files: &HashMap<ImageName, PathBuf>) -> anyhow::Result<Split> {
        let missing: Vec<_> = (Part::ALL.into_iter())
            .flat_map(|part| split.part(part))
            .filter(|name| !files.contains_key(*name))
            .collect();
        let Some(first) = missing.first() else {
            return Ok(split.clone());
        };
        let listed: usize = Part::ALL
            .into_iter()
            .map(|part| split.part(part).len())
            .sum();
        if !self.allow_missing {
            bail!(
                "{} of {listed} listed images are missing from `{}`, the first is `{first}`\nhint: get the missing images, or go on without them with `--allow-missing`",
                missing.len(),
                self.data.display()
            );
        }
        progress::say(&format!(
            "{} of {listed} listed images are missing",
            missing.len()
        ));
        Ok(split.keep(|name| files.contains_key(name)))
    }

    /// Where label table and lists are.
    pub(crate) fn metadata_folder(&self) -> anyhow::Result<PathBuf> {
        let complete = |folder: &Path| {
            label_table(folder).is_some()
                && folder.join(TRAIN_LIST).is_file()
                && folder.join(TEST_LIST).is_file()
        };
        if let Some(folder) = &self.metadata {
            if complete(folder) {
                return Ok(folder.clone());
            }
            bail!(
                "`{}` does not hold {}, `{TRAIN_LIST}` and `{TEST_LIST}`",
                folder.display(),
                LABEL_TABLES[0]
            );
        }
        if complete(&self.data) {
            return Ok(self.data.clone());
        }
        let mut beside = Vec::new();
        if let Some(parent) = self
            .data
            .canonicalize()
            .ok()
            .as_deref()
            .and_then(Path::parent)
        {
            for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
                if complete(&entry.path()) {
                    beside.push(entry.path());
                }
            }
        }
        match beside.as_slice() {
            [folder] => {
                progress::say(&format!(
                    "label table and lists are taken from `{}`",
                    folder.display()
                ));
                Ok(folder.clone())
            }
            _ => bail!(
                "`{}` does not hold {}, `{TRAIN_LIST}` and `{TEST_LIST}`\nhint: say with `--metadata DIR` where they are",
                self.data.display(),
                LABEL_TABLES[0]
            ),
        }
    }
}

fn label_table(folder: &Path) -> Option<PathBuf> {
    LABEL_TABLES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

/// Every PNG and JPEG of `images/`, of NIH's unpacked archives (`images_001/images/` …), or of the
/// folder itself, by name.
fn image_files(data: &Path) -> anyhow::Result<HashMap<ImageName, PathBuf>> {
    let mut folders = Vec::new();
    let entries = std::fs::read_dir(data)
        .with_context(|| format!("cannot read the data folder `{}`", data.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name == "images" && path.is_dir() {
            folders.push(path);
        } else if name.starts_with("images_") && path.join("images").is_dir() {
            folders.push(path.join("images"));
        }
    }
    if folders.is_empty() {
        folders.push(data.to_owned());
    }
    folders.sort();
    let mut files = HashMap::new();
    for folder in &folders {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let extension = path
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default();
            let is_image = ["png", "jpg", "jpeg"]
                .iter()
                .any(|known| extension.eq_ignore_ascii_case(known));
            let name = path.file_name().and_then(|name| name.to_str());
            if let (true, Some(name)) = (is_image, name) {
                files.insert(ImageName::new(name)?, path.clone());
            }
        }
    }
    if files.is_empty() {
        bail!(
            "`{}` holds no images\nhint: images are looked for in `images/`, in `images_*/images/`, or in the folder itself",
            data.display()
        );
    }
    Ok(files)
}

fn prepare_images(
    sources: &[(ImageName, PathBuf)],
    target: &Path,
    settings: StoreSettings,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Store>> {
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    let bar = progress::Bar::new("preparing", "images", sources.len());
    let observer = |progress: cxr_dataset::Progress| bar.set(progress.done);
    let options = PrepareOptions {
        observer: Some(&observer),
        stop: Some(stop),
    };
    let prepared = match prepare(sources, target, settings, options) {
        Err(cxr_dataset::DatasetError::Interrupted { .. }) => return Ok(None),
        other => other?,
    };
    bar.finish();
    let failures = prepared.failures();
    if !failures.is_empty() {
        const SHOWN: usize = 20;
        let lines: Vec<String> = failures
            .iter()
            .take(SHOWN)
            .map(|(_, error)| format!("  {}", chain(error)))
            .collect();
        bail!(
            "{} of {} images cannot be used:\n{}{}\nhint: replace these files, or remove them and pass `--allow-missing`",
            failures.len(),
            sources.len(),
            lines.join("\n"),
            if failures.len() > SHOWN {
                "\n  …"
            } else {
                ""
            }
        );
    }
    let (new, reused) = (prepared.n_prepared(), prepared.n_reused());
    let store = prepared.commit()?;
    progress::say(&format!(
        "images: {new} prepared, {reused} were prepared before"
    ));
    Ok(Some(store))
}

/// An error with its sources on one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
