//! A data set in a folder: where its label table, its lists and its images are, and which of the listed images there are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use cxr_fs::Lock;

use crate::files::is_similar;
use crate::formats;
use crate::several;
use crate::{
    Blanks, DataSet, DatasetError, ImageFiles, ImageName, ImageWarning, Index, LabelMap,
    OfficialLists, Part, PrepareOptions, ReadOptions, Release, Split, Store, StoreSettings, Subset,
    ValidationSplit, has_tables, prepare,
};

/// The official list of images for training and validation.
pub const TRAIN_LIST: &str = "train_val_list.txt";
/// The official list of test images.
pub const TEST_LIST: &str = "test_list.txt";
/// ChestX-ray14's list of boxes around findings.
pub const BOX_LIST: &str = "BBox_List_2017.csv";

/// Is in a folder of synthetic images.
const PHANTOM_NOTICE: &str = "PHANTOMS.txt";

/// A folder with a label table (ChestX-ray14's, or an own `labels.csv`) and the two official lists, or with the tables of
/// another published data set, and images in `images/`, in `images_*/images/`, below the folder itself, or in a prepared
/// store `images-SIDE.store`.
///
/// Without lists, the images of the publisher's parts train, validate and test; where there is no part for
/// validation, its images are taken out of those for training by the rule that is asked for.
///
/// ```no_run
/// use cxr_dataset::{DataFolder, PrepareOptions, SurveyOptions};
///
/// let folder = DataFolder::new("data/nih").allow_missing(true);
/// let survey = folder.survey(&SurveyOptions::default(), &mut |_| ())?;
/// println!("{}", survey.split.report(&survey.index)?);
/// let set = survey.prepare("runs/images-256.store", PrepareOptions::default(), || ())?;
/// assert_eq!(set.store.side(), 256);
/// # Ok::<(), cxr_dataset::DatasetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFolder {
    path: PathBuf,
    metadata: Option<PathBuf>,
    store: Option<PathBuf>,
    allow_missing: bool,
    read: ReadOptions,
    /// Whether a store in the folder is its own: not where it is one of several, which share one.
    has_own_store: bool,
}

/// What is wanted of a data set: how it is split, which of its images, and how large.
#[derive(Clone, Debug, PartialEq)]
pub struct SurveyOptions {
    /// How the images that validate are chosen.
    pub validation: ValidationSplit,
    /// One in so many images is for the test in the place of the publisher's lists or parts, as
    /// [`OfficialLists::hold_out`] chooses them.
    pub hold_out: Option<usize>,
    /// Seed of that choice.
    pub seed: u64,
    /// Which images are wanted; the split is made before.
    pub subset: Subset,
    /// The labels that are wanted, where they are not those of the tables.
    pub label_map: Option<LabelMap>,
    /// What empty cells of these labels mean.
    pub blank: Blanks,
    /// The data sets in folders of the folder that are wanted as one; none where the folder has one itself.
    pub sets: Vec<DataSet>,
    /// Side of the prepared images in pixels.
    pub side: u32,
}

impl Default for SurveyOptions {
    /// A tenth of the images validates, all images are wanted, prepared at the usual size.
    fn default() -> Self {
        Self {
            validation: ValidationSplit::Paper,
            hold_out: None,
            seed: 0,
            subset: Subset::default(),
            label_map: None,
            blank: Blanks::default(),
            sets: Vec::new(),
            side: StoreSettings::default().side(),
        }
    }
}

/// Something that a survey found, for whoever watches it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Found<'a> {
    /// Label table and lists are in another folder, which was not named.
    Metadata(&'a Path),
    /// The label table.
    Labels {
        /// Where it is.
        path: &'a Path,
        /// Whose it is.
        release: Release,
    },
    /// The images are prepared already.
    Store(&'a Store),
    /// The images are files.
    Files(&'a ImageFiles),
    /// Listed images are missing, which is allowed.
    Missing {
        /// How many.
        missing: usize,
        /// Of how many.
        listed: usize,
    },
    /// A subset of the images is wanted.
    Subset(&'a Subset),
}

/// A data set as it is found: its labels, its split without missing and unwanted images, and where the images are.
#[derive(Debug)]
pub struct Survey {
    /// Labels and patients.
    pub index: Index,
    /// Which image is for what.
    pub split: Split,
    /// How the images are to be prepared.
    pub settings: StoreSettings,
    /// The images, where they are prepared already.
    pub ready: Option<Store>,
    /// The file of each image of the index that has one, where they are not.
    pub files: HashMap<ImageName, PathBuf>,
    /// What was read: the label table, the lists, and the store.
    pub read: Vec<PathBuf>,
    /// Whether the images are synthetic.
    pub is_phantom: bool,
}

/// A data set whose images are prepared.
#[derive(Debug)]
pub struct PreparedSet {
    /// Labels and patients.
    pub index: Index,
    /// Which image is for what.
    pub split: Split,
    /// The images.
    pub store: Store,
    /// Whether the images are synthetic.
    pub is_phantom: bool,
    /// Seconds that preparing the images took.
    pub seconds: f64,
    /// Images that were prepared now, where any were to be.
    pub n_prepared: usize,
    /// Images that had been prepared before, likewise.
    pub n_reused: usize,
    /// What the owner of the images that were prepared now should know of them, sorted by name.
    pub warnings: Vec<(ImageName, ImageWarning)>,
}

impl DataFolder {
    /// The data set in a folder.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            metadata: None,
            store: None,
            allow_missing: false,
            read: ReadOptions::default(),
            has_own_store: true,
        }
    }

    /// With tables that are read so: of a format that is named, with several readers joined by another rule.
    #[must_use]
    pub fn read_with(self, read: ReadOptions) -> Self {
        Self { read, ..self }
    }

    /// With label table and lists in another folder. Without this they are in the folder itself, or in the only folder
    /// beside it that has them.
    #[must_use]
    pub fn with_metadata(self, folder: Option<PathBuf>) -> Self {
        Self {
            metadata: folder,
            ..self
        }
    }

    /// With images in this prepared store, wherever it is.
    #[must_use]
    pub fn with_store(self, store: Option<PathBuf>) -> Self {
        Self { store, ..self }
    }

    /// Whether listed images may be missing. They are then counted as absent.
    #[must_use]
    pub fn allow_missing(self, allow_missing: bool) -> Self {
        Self {
            allow_missing,
            ..self
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its images are synthetic, by the notice that those who draw them put there.
    pub fn is_phantom(&self) -> bool {
        self.path.join(PHANTOM_NOTICE).is_file()
    }

    /// Where label table and lists are.
    ///
    /// # Errors
    /// [`DatasetError::NoMetadata`].
    pub fn metadata_folder(&self) -> Result<PathBuf, DatasetError> {
        let is_complete = |folder: &Path| match has_lists(folder) {
            true => label_table(folder).is_some() || has_tables(folder),
            false => formats::says_its_parts(folder),
        };
        let named = self.metadata.as_ref().unwrap_or(&self.path);
        if is_complete(named) {
            return Ok(named.clone());
        }
        let other = match self.metadata {
            Some(_) => None,
            None => only_folder_beside(&self.path, &|folder| {
                label_table(folder).is_some() && has_lists(folder)
            }),
        };
        other.ok_or_else(|| DatasetError::NoMetadata {
            path: named.clone(),
        })
    }

    /// Where its tables are, whether or not there are lists beside them.
    fn tables_folder(&self) -> PathBuf {
        let named = || self.metadata.clone().unwrap_or_else(|| self.path.clone());
        self.metadata_folder().unwrap_or_else(|_| named())
    }

    /// What its tables say, whether or not there are lists or images.
    ///
    /// # Errors
    /// Tables that cannot be read, and [`DatasetError::NoMetadata`].
    pub fn index(&self) -> Result<Index, DatasetError> {
        let folder = self.tables_folder();
        let table = label_table(&folder).or_else(|| has_tables(&folder).then(|| folder.clone()));
        let table = table.ok_or(DatasetError::NoMetadata { path: folder })?;
        Index::read_with(table, &self.read)
    }

    /// The official lists, where it has some.
    ///
    /// # Errors
    /// Lists that cannot be read.
    pub fn lists(&self) -> Result<Option<OfficialLists>, DatasetError> {
        let folder = match self.metadata_folder() {
            Ok(folder) if has_lists(&folder) => folder,
            _ => return Ok(None),
        };
        OfficialLists::read(folder.join(TRAIN_LIST), folder.join(TEST_LIST)).map(Some)
    }

    /// The list of boxes beside images or labels, if there is one.
    ///
    /// # Errors
    /// As [`Self::metadata_folder`].
    pub fn box_list(&self) -> Result<Option<PathBuf>, DatasetError> {
        let beside = [
            self.path.join(BOX_LIST),
            self.metadata_folder()?.join(BOX_LIST),
        ];
        Ok(beside.into_iter().find(|path| path.is_file()))
    }

    /// Every image below `images/`, below the folders of NIH's unpacked archives (`images_001/images/` …), or below the
    /// folder itself. There may be none.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn image_files(&self) -> Result<ImageFiles, DatasetError> {
        let unreadable = || DatasetError::io("read the data folder", &self.path);
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(unreadable())? {
            let path = entry.map_err(unreadable())?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.unwrap_or_default();
            if name == "images" && path.is_dir() {
                folders.push(path);
            } else if name.starts_with("images_") && path.join("images").is_dir() {
                folders.push(path.join("images"));
            }
        }
        if folders.is_empty() {
            folders.push(self.path.clone());
        }
        folders.sort();
        ImageFiles::find(&folders)
    }

    /// Reads labels and lists, and splits; looks for the images and reads none. `found` sees what was found as soon as
    /// it was, before any error.
    ///
    /// # Errors
    /// Tables, lists or a store that cannot be read, a store of another size ([`DatasetError::StoreSide`]), a folder
    /// without images ([`DatasetError::NoImages`]), and images that are missing and may not be, or all of them
    /// ([`DatasetError::Missing`]).
    pub fn survey(
        &self,
        options: &SurveyOptions,
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<Survey, DatasetError> {
        if !options.sets.is_empty() {
            return several::survey(self, options, found);
        }
        let metadata = match options.hold_out {
            Some(_) => self.tables_folder(),
            None => self.metadata_folder()?,
        };
        let named = self.metadata.as_ref().unwrap_or(&self.path);
        if metadata != *named {
            found(Found::Metadata(&metadata));
        }
        let table = label_table(&metadata).unwrap_or_else(|| metadata.clone());
        let index = Index::read_with(&table, &self.read)?;
        found(Found::Labels {
            path: &table,
            release: index.release(),
        });
        let index = match &options.label_map {
            Some(map) => map.apply(&index)?,
            None => index,
        };
        let index = index.with_blanks(&options.blank)?;
        let lists = match options.hold_out.is_none() && has_lists(&metadata) {
            true => vec![metadata.join(TRAIN_LIST), metadata.join(TEST_LIST)],
            false => Vec::new(),
        };
        let split = match (options.hold_out, lists.as_slice()) {
            (Some(one_in), _) => {
                let own = OfficialLists::hold_out(&index, options.seed, one_in)?;
                Split::new(&index, &own, options.validation, options.seed)?
            }
            (None, [train_val, test]) => {
                let official = OfficialLists::read(train_val, test)?;
                Split::new(&index, &official, options.validation, options.seed)?
            }
            _ => published_split(&index, options)?,
        };
        let settings = StoreSettings::new(options.side)?;
        let ready = self.ready_store(settings)?;
        let (split, files) = match &ready {
            Some(store) => {
                found(Found::Store(store));
                (
                    self.without_missing_in(&split, store, found)?,
                    HashMap::new(),
                )
            }
            None => {
                let images = self.image_files()?;
                found(Found::Files(&images));
                if images.files().is_empty() {
                    let path = self.path.clone();
                    return Err(DatasetError::NoImages { path });
                }
                let files = images.of_index(&index)?;
                let is_here = |name: &ImageName| files.contains_key(name);
                let similar = |name: &ImageName| {
                    let file = images.similar(name)?;
                    Some(file.file_name().clone())
                };
                let split = self.without_missing(&split, &self.path, &is_here, &similar, found)?;
                (split, files)
            }
        };
        let split = match options.subset.is_everything() {
            true => split,
            false => {
                found(Found::Subset(&options.subset));
                split.select(&index, &options.subset)?
            }
        };
        let store_file = ready.as_ref().map(|store| store.path().to_owned());
        let tables = index.tables().iter().cloned().chain(lists);
        Ok(Survey {
            read: tables.chain(store_file).collect(),
            index,
            split,
            settings,
            ready,
            files,
            is_phantom: self.is_phantom(),
        })
    }

    /// One of several data sets in it, whose images are files.
    pub(crate) fn set(&self, folder: &ImageName) -> Self {
        Self {
            path: self.path.join(folder),
            metadata: None,
            store: None,
            has_own_store: false,
            ..self.clone()
        }
    }

    /// The store with images of all sets, if there is one.
    pub(crate) fn store_of(&self, options: &SurveyOptions) -> Result<Option<Store>, DatasetError> {
        self.ready_store(StoreSettings::new(options.side)?)
    }

    /// The split without images that a store does not hold, if that is allowed.
    pub(crate) fn without_missing_in(
        &self,
        split: &Split,
        store: &Store,
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<Split, DatasetError> {
        let is_here = |name: &ImageName| store.contains(name);
        let similar = |name: &ImageName| {
            let mut names = store.names();
            names.find(|other| is_similar(name, other))
        };
        self.without_missing(split, store.path(), &is_here, &similar, found)
    }

    /// The split without images that are not there, if that is allowed.
    fn without_missing(
        &self,
        split: &Split,
        place: &Path,
        is_here: &dyn Fn(&ImageName) -> bool,
        similar: &dyn Fn(&ImageName) -> Option<ImageName>,
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<Split, DatasetError> {
        let listed = || Part::ALL.into_iter().flat_map(|part| split.part(part));
        let mut absent = listed().filter(|name| !is_here(name));
        let Some(first) = absent.next() else {
            return Ok(split.clone());
        };
        let (missing, listed) = (1 + absent.count(), listed().count());
        if !self.allow_missing || missing == listed {
            return Err(DatasetError::Missing {
                path: place.to_owned(),
                missing,
                listed,
                first: first.to_string(),
                similar: similar(first).map(|name| name.to_string()),
            });
        }
        found(Found::Missing { missing, listed });
        Ok(split.keep_present(is_here))
    }

    /// The store that was named, or the one that is in the folder.
    fn ready_store(&self, settings: StoreSettings) -> Result<Option<Store>, DatasetError> {
        let side = settings.side();
        if !self.has_own_store {
            return Ok(None);
        }
        let path = match &self.store {
            Some(path) => path.clone(),
            None => self.path.join(store_file(side)),
        };
        if self.store.is_none() && !path.is_file() {
            return Ok(None);
        }
        let store = Store::open(&path)?;
        // Levels that were stretched are as good as those that were not.
        match store.side() == side as usize {
            true => Ok(Some(store)),
            false => Err(DatasetError::StoreSide {
                found: store.side(),
                wanted: side as usize,
                path,
            }),
        }
    }
}

impl Survey {
    /// The images of the split with their files.
    pub fn sources(&self) -> Vec<(ImageName, PathBuf)> {
        let names = Part::ALL.into_iter().flat_map(|part| self.split.part(part));
        names
            .filter_map(|name| Some((name.clone(), self.files.get(name)?.clone())))
            .collect()
    }

    /// The images in a store: the one there is, or one that is made at `target`. Of several processes at once the first
    /// prepares for all, and the others wait for it; `on_wait` is called once before that.
    ///
    /// # Errors
    /// A store that cannot be written, images that cannot be used ([`DatasetError::Unusable`]; the others are kept for
    /// the next call), and [`DatasetError::Interrupted`].
    pub fn prepare(
        self,
        target: impl AsRef<Path>,
        options: PrepareOptions<'_>,
        on_wait: impl FnOnce(),
    ) -> Result<PreparedSet, DatasetError> {
        let begin = Instant::now();
        let sources = self.sources();
        let Self {
            index,
            split,
            settings,
            ready,
            is_phantom,
            ..
        } = self;
        let mut set = match ready {
            Some(store) => PreparedSet {
                index,
                split,
                store,
                is_phantom,
                seconds: 0.,
                n_prepared: 0,
                n_reused: 0,
                warnings: Vec::new(),
            },
            None => {
                let target = target.as_ref();
                let never = AtomicBool::new(false);
                let stop = options.stop.unwrap_or(&never);
                let Some(_lock) = Lock::acquire_beside(target, stop, on_wait)? else {
                    return Err(DatasetError::Interrupted {
                        path: target.to_owned(),
                        done: 0,
                        total: sources.len(),
                    });
                };
                let prepared = prepare(&sources, target, settings, options)?;
                if !prepared.failures().is_empty() {
                    return Err(DatasetError::Unusable {
                        of: sources.len(),
                        images: prepared.into_failures(),
                    });
                }
                PreparedSet {
                    index,
                    split,
                    is_phantom,
                    seconds: 0.,
                    n_prepared: prepared.n_prepared(),
                    n_reused: prepared.n_reused(),
                    warnings: prepared.warnings().to_vec(),
                    store: prepared.commit()?,
                }
            }
        };
        set.seconds = begin.elapsed().as_secs_f64();
        Ok(set)
    }
}

/// The split that a data set's publisher made, with validation images by the rule that is asked for where he names none.
fn published_split(index: &Index, options: &SurveyOptions) -> Result<Split, DatasetError> {
    let [train, validation, test] = Part::ALL.map(|part| index.official(part));
    if train.is_empty() || test.is_empty() {
        let lacking = if train.is_empty() {
            "training"
        } else {
            "testing"
        };
        return Err(DatasetError::Split {
            problem: format!("{} names no images for {lacking}", index.release()),
            repair: format!(
                "make `{TRAIN_LIST}` and `{TEST_LIST}` beside the tables, such as with `cxr inspect --hold-out 5 --write-lists DIR`"
            ),
        });
    }
    if validation.is_empty() {
        let lists = OfficialLists::new(train, test)?;
        return Split::new(index, &lists, options.validation, options.seed);
    }
    Split::from_lists(index, train, validation, test)
}

/// The only folder beside `folder` that is what is looked for.
pub fn only_folder_beside(folder: &Path, is_it: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let place = folder.canonicalize().ok()?;
    let entries = std::fs::read_dir(place.parent()?).ok()?;
    let mut found = (entries.flatten())
        .map(|entry| entry.path())
        .filter(|path| is_it(path));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Whether a folder has both official lists.
pub fn has_lists(folder: &Path) -> bool {
    folder.join(TRAIN_LIST).is_file() && folder.join(TEST_LIST).is_file()
}

/// The name of a prepared store in a data folder: `images-256.store`.
pub fn store_file(side: u32) -> String {
    format!("images-{side}.store")
}

/// The label table of a folder, if there is one: ChestX-ray14's, or an own `labels.csv`.
pub fn label_table(folder: &Path) -> Option<PathBuf> {
    crate::formats::LABEL_TABLES
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}
