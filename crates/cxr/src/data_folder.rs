//! Where images, labels and lists are, and which of the listed images are at hand.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail};
use cxr_dataset::{
    ImageFiles, ImageName, Index, OfficialLists, Part, PrepareOptions, Refusal, Split, Store,
    StoreSettings, prepare,
};
use cxr_train::{Experiment, TrainingData};

use crate::{lock, progress};

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

    /// A store that `cxr prepare` or `cargo xtask fetch nih --prepare` wrote, to be read instead of
    /// image files
    #[arg(long, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,

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

/// A data set as it is at hand.
pub(crate) struct Survey {
    pub(crate) index: Index,
    pub(crate) split: Split,
    /// How the images are to be prepared.
    pub(crate) settings: StoreSettings,
    /// The images, where they are prepared already.
    pub(crate) ready: Option<Store>,
    /// The file of each image of the index that has one, where they are not.
    pub(crate) files: HashMap<ImageName, PathBuf>,
}

/// The images of a split with their files.
pub(crate) fn sources(
    split: &Split,
    files: &HashMap<ImageName, PathBuf>,
) -> Vec<(ImageName, PathBuf)> {
    (Part::ALL.into_iter())
        .flat_map(|part| split.part(part))
        .filter_map(|name| Some((name.clone(), files.get(name)?.clone())))
        .collect()
}

/// The file of each image of an index that has one.
pub(crate) fn files_of(
    index: &Index,
    found: &ImageFiles,
) -> anyhow::Result<HashMap<ImageName, PathBuf>> {
    let mut files = HashMap::with_capacity(index.records().len());
    for record in index.records() {
        if let Some(file) = found.get(&record.name)? {
            files.insert(record.name.clone(), file.path().to_owned());
        }
    }
    Ok(files)
}

/// Whether a name may be meant by another: they differ in extension or case, or one is a path.
fn is_similar(name: &ImageName, other: &ImageName) -> bool {
    let stem = |name: &ImageName| {
        let name = name.file_name().to_lowercase();
        name.rsplit_once('.')
            .map_or(name.clone(), |(stem, _)| stem.to_owned())
    };
    stem(name) == stem(other) || name.file_name().to_lowercase() == stem(other)
}

const LABEL_TABLES: [&str; 6] = [
    "Data_Entry_2017_v2020.csv",
    "Data_Entry_2017_v2020.csv.gz",
    "Data_Entry_2017.csv",
    "Data_Entry_2017.csv.gz",
    "labels.csv",
    "labels.csv.gz",
];
/// Stands in a folder that `cxr-phantom` wrote.
const PHANTOM_NOTICE: &str = "PHANTOMS.txt";
pub(crate) const BOX_LIST: &str = "BBox_List_2017.csv";
pub(crate) const TRAIN_LIST: &str = "train_val_list.txt";
pub(crate) const TEST_LIST: &str = "test_list.txt";

impl DataArgs {
    /// Reads labels and lists, splits, and prepares the images into `store`. `None` when `stop`
    /// was set.
    pub(crate) fn prepare(
        &self,
        experiment: &Experiment,
        store: &Path,
        stop: &AtomicBool,
    ) -> anyhow::Result<Option<Prepared>> {
        let Survey {
            index,
            split,
            settings,
            ready,
            files,
        } = self.survey(experiment)?;
        progress::say(&split.report(&index)?.to_string());

        let start = Instant::now();
        let store = match ready {
            Some(store) => store,
            None => {
                let sources = sources(&split, &files);
                match prepare_images(&sources, store, settings, stop)? {
                    Some(store) => store,
                    None => return Ok(None),
                }
            }
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

    /// Reads labels and lists, and splits; looks for the images and reads none.
    pub(crate) fn survey(&self, experiment: &Experiment) -> anyhow::Result<Survey> {
        let metadata = self.metadata_folder()?;
        let table = label_table(&metadata).context("the label table is gone")?;
        let index = Index::read(&table)?;
        progress::say(&format!(
            "labels: {} ({})",
            table.display(),
            index.release()
        ));
        let lists = OfficialLists::read(metadata.join(TRAIN_LIST), metadata.join(TEST_LIST))?;
        let seed = experiment.split_seed();
        let split = Split::new(&index, &lists, experiment.data.validation, seed)?;
        let side = u32::try_from(experiment.augmentation.image_size())?;
        let settings = StoreSettings::new(side)?;
        let ready = self.ready_store(settings)?;
        let (found, files) = match ready {
            Some(_) => (ImageFiles::default(), HashMap::new()),
            None => {
                let found = image_files(&self.data)?;
                say_refused(found.refused());
                say_passed_over(found.passed_over().count(), &passed_over(&found));
                let files = files_of(&index, &found)?;
                (found, files)
            }
        };
        let is_here = |name: &ImageName| match &ready {
            Some(store) => store.contains(name),
            None => files.contains_key(name),
        };
        let place = ready.as_ref().map_or(&*self.data, Store::path);
        let similar = |name: &ImageName| match &ready {
            Some(store) => store.names().find(|other| is_similar(name, other)),
            None => found.similar(name).map(|file| file.file_name().clone()),
        };
        let split = self.at_hand(&split, place, &is_here, &similar)?;
        let subset = &experiment.data.subset;
        let split = match subset.is_everything() {
            true => split,
            false => {
                progress::say(&format!("subset: {subset}"));
                split.select(&index, subset)?
            }
        };
        Ok(Survey {
            index,
            split,
            settings,
            ready,
            files,
        })
    }

    /// The split without images that are not there, if that is allowed.
    fn at_hand(
        &self,
        split: &Split,
        place: &Path,
        is_here: &dyn Fn(&ImageName) -> bool,
        similar: &dyn Fn(&ImageName) -> Option<ImageName>,
    ) -> anyhow::Result<Split> {
        let missing: Vec<_> = (Part::ALL.into_iter())
            .flat_map(|part| split.part(part))
            .filter(|name| !is_here(name))
            .collect();
        let Some(first) = missing.first() else {
            return Ok(split.clone());
        };
        let listed: usize = Part::ALL
            .into_iter()
            .map(|part| split.part(part).len())
            .sum();
        if !self.allow_missing || missing.len() == listed {
            let hint = match similar(first) {
                Some(found) => format!(
                    "there is `{found}`; write the names in the label table and the lists as the files have them"
                ),
                None if missing.len() == listed => "check that table, lists and images belong together".to_owned(),
                None => "get the missing images (`cxr prepare --append` adds some to a store), or go on without them with `--allow-missing`".to_owned(),
            };
            bail!(
                "{} of {listed} listed images are missing from `{}`, the first is `{first}`\nhint: {hint}",
                missing.len(),
                place.display()
            );
        }
        progress::say(&format!(
            "{} of {listed} listed images are missing",
            missing.len()
        ));
        Ok(split.keep(is_here))
    }

    /// The store that was named, or the one that stands in the data folder.
    fn ready_store(&self, settings: StoreSettings) -> anyhow::Result<Option<Store>> {
        let side = settings.side();
        let path = match &self.store {
            Some(path) => path.clone(),
            None => {
                let beside = self.data.join(store_file(side));
                if !beside.is_file() {
                    return Ok(None);
                }
                beside
            }
        };
        let store = Store::open(&path)?;
        if store.settings() != settings {
            bail!(
                "`{}` holds images of {found}×{found} pixels, and the experiment wants {side}×{side}\nhint: prepare them again with `cxr prepare --side {side}`",
                path.display(),
                found = store.side()
            );
        }
        progress::say(&format!("images: {} in `{}`", store.len(), path.display()));
        Ok(Some(store))
    }

    /// The list of boxes beside images or labels, if there is one.
    pub(crate) fn box_list(&self) -> anyhow::Result<Option<PathBuf>> {
        let beside = [
            self.data.join(BOX_LIST),
            self.metadata_folder()?.join(BOX_LIST),
        ];
        Ok(beside.into_iter().find(|path| path.is_file()))
    }

    /// Where label table and lists are.
    pub(crate) fn metadata_folder(&self) -> anyhow::Result<PathBuf> {
        let is_complete = |folder: &Path| label_table(folder).is_some() && has_lists(folder);
        if let Some(folder) = &self.metadata {
            if is_complete(folder) {
                return Ok(folder.clone());
            }
            bail!(
                "`{}` does not hold {}, `{TRAIN_LIST}` and `{TEST_LIST}`",
                folder.display(),
                LABEL_TABLES[0]
            );
        }
        if is_complete(&self.data) {
            return Ok(self.data.clone());
        }
        match beside(&self.data, &is_complete) {
            Some(folder) => {
                progress::say(&format!(
                    "label table and lists are taken from `{}`",
                    folder.display()
                ));
                Ok(folder)
            }
            None => bail!(
                "`{}` does not hold {}, `{TRAIN_LIST}` and `{TEST_LIST}`\nhint: say with `--metadata DIR` where they are",
                self.data.display(),
                LABEL_TABLES[0]
            ),
        }
    }
}

/// The only folder beside `folder` that is what is looked for.
pub(crate) fn beside(folder: &Path, is_it: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let place = folder.canonicalize().ok()?;
    let entries = std::fs::read_dir(place.parent()?).ok()?;
    let mut found = (entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| is_it(path));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Whether both official lists are there.
pub(crate) fn has_lists(folder: &Path) -> bool {
    folder.join(TRAIN_LIST).is_file() && folder.join(TEST_LIST).is_file()
}

/// The name of a prepared store in a data folder.
pub(crate) fn store_file(side: u32) -> String {
    format!("images-{side}.store")
}

/// The label table of a folder, if there is one: ChestX-ray14's, or an own `labels.csv`.
pub(crate) fn label_table(folder: &Path) -> Option<PathBuf> {
    LABEL_TABLES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

/// Every image below `images/`, below the folders of NIH's unpacked archives (`images_001/images/` …), or below the
/// folder itself. What cannot be used is named, and what is no image counted.
pub(crate) fn image_files(data: &Path) -> anyhow::Result<ImageFiles> {
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
    let files = ImageFiles::find(&folders)?;
    if files.files().is_empty() {
        say_refused(files.refused());
        bail!(
            "`{}` holds no images\nhint: images are looked for in `images/`, in `images_*/images/`, or in the folder itself",
            data.display()
        );
    }
    Ok(files)
}

/// Names what may be an image and cannot be used.
pub(crate) fn say_refused(refused: &[Refusal]) {
    if refused.is_empty() {
        return;
    }
    progress::say(&format!(
        "{} files or folders cannot be used:",
        refused.len()
    ));
    let lines = refused
        .iter()
        .map(|refusal| format!("`{}`: {}", refusal.path.display(), refusal.reason));
    progress::say(first_lines(lines).trim_end());
}

/// Counts what is no image, and names the first.
pub(crate) fn say_passed_over(count: usize, named: &[String]) {
    if let Some(first) = named.first() {
        let others = match count - 1 {
            0 => String::new(),
            n_others => format!(" and {n_others} more"),
        };
        progress::say(&format!("passed over: {first}{others}"));
    }
}

/// What a walk passed over, with the reasons.
pub(crate) fn passed_over(files: &ImageFiles) -> Vec<String> {
    (files.passed_over().named().iter())
        .map(|(path, reason)| format!("`{}` ({reason})", path.display()))
        .collect()
}

fn prepare_images(
    sources: &[(ImageName, PathBuf)],
    target: &Path,
    settings: StoreSettings,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Store>> {
    // Of several runs at once the first prepares for all.
    let Some(_lock) = lock::hold(target, "the prepared images", stop)? else {
        return Ok(None);
    };
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
        let lines = failures.iter().map(|(_, error)| chain(error));
        bail!(
            "{} of {} images cannot be used:\n{}hint: replace these files, or remove them and pass `--allow-missing`",
            failures.len(),
            sources.len(),
            first_lines(lines)
        );
    }
    let (new, reused) = (prepared.n_prepared(), prepared.n_reused());
    let store = prepared.commit()?;
    progress::say(&format!(
        "images: {new} prepared, {reused} were prepared before"
    ));
    Ok(Some(store))
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
