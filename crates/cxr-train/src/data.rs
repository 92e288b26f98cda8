//! Index, split and store as one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use cxr_dataset::{
    DataFolder, DatasetError, ImageFiles, ImageName, Index, LabelState, OfficialLists, Part,
    PrepareOptions, PreparedSet, Split, Store, StoreSettings, prepare, store_file,
};

use crate::{Experiment, TrainError, Uncertainty};

/// What a run trains, validates and tests on. Every image of the split is in the index and the store.
#[derive(Debug)]
pub struct TrainingData {
    index: Index,
    split: Split,
    store: Store,
    is_phantom: bool,
    seconds_to_prepare: f64,
    /// The pixels again, where a CUDA device has come to have them.
    on_device: std::sync::Mutex<Option<(candle_core::Device, Arc<cxr_ops::CudaImages>)>>,
}

impl TrainingData {
    /// Joins the three.
    ///
    /// # Errors
    /// A part without images, or an image that is not in the index or the store.
    pub fn new(index: Index, split: Split, store: Store) -> Result<Self, TrainError> {
        for part in Part::ALL {
            let names = split.part(part);
            if names.is_empty() {
                return Err(TrainError::EmptyPart {
                    part: part.name(),
                    hint: format!(
                        "of its listed images {} are missing, and {} were left out by a subset",
                        split.n_absent(part),
                        split.n_excluded(part)
                    ),
                });
            }
            for name in names {
                if index.get(name).is_none() {
                    return Err(TrainError::setting(
                        "split",
                        "made of images of the label table",
                        format!("`{name}`, which has no row there"),
                    ));
                }
                if !store.contains(name) {
                    return Err(TrainError::setting(
                        "split",
                        "made of images of the prepared store",
                        format!("`{name}`, which is not in `{}`", store.path().display()),
                    ));
                }
            }
        }
        Ok(Self {
            index,
            split,
            store,
            is_phantom: false,
            seconds_to_prepare: 0.,
            on_device: std::sync::Mutex::default(),
        })
    }

    /// A data set whose images are prepared.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of(set: PreparedSet) -> Result<Self, TrainError> {
        Ok(Self {
            is_phantom: set.is_phantom,
            seconds_to_prepare: set.seconds,
            ..Self::new(set.index, set.split, set.store)?
        })
    }

    /// What an experiment wants of a folder with label table, official lists and images. Images that are not prepared
    /// yet are kept in the store `target`, such as `images-256.store` in the folder of the experiment's runs.
    ///
    /// ```no_run
    /// use std::path::Path;
    ///
    /// use cxr_dataset::DataFolder;
    /// use cxr_train::{Experiment, TrainingData};
    ///
    /// let experiment = Experiment::read(Path::new("mine.toml"))?;
    /// let folder = DataFolder::new("data/nih").allow_missing(true);
    /// let data = TrainingData::from_folder(&folder, &experiment, "runs/mine/images-256.store")?;
    /// # Ok::<(), cxr_train::TrainError>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`DataFolder::survey`] and [`Survey::prepare`](cxr_dataset::Survey::prepare), and as [`Self::new`].
    pub fn from_folder(
        folder: &DataFolder,
        experiment: &Experiment,
        target: impl AsRef<Path>,
    ) -> Result<Self, TrainError> {
        let survey = folder.survey(&experiment.survey_options()?, &mut |_| ())?;
        Self::of(survey.prepare(target, PrepareOptions::default(), || ())?)
    }

    /// A data set of your own: a label table with 0/1 columns (see [`Index::read`]) and a folder with
    /// its images, searched to the bottom. One in `hold_out` images is for the test, in whole patients where the table knows
    /// them; which validate, how large images are, and the split's seed are the experiment's. The prepared
    /// images stand in `images-SIDE.store` beside the table.
    ///
    /// # Errors
    /// A table, list or image that cannot be used, the first of several.
    pub fn from_table(
        table: &Path,
        images: &Path,
        hold_out: usize,
        experiment: &Experiment,
    ) -> Result<Self, TrainError> {
        let options = experiment.survey_options()?;
        let index = Index::read(table)?;
        let index = match &options.label_map {
            Some(map) => map.apply(&index)?,
            None => index,
        };
        let index = index.with_blanks(&options.blank)?;
        let seed = experiment.split_seed();
        let lists = OfficialLists::hold_out(&index, seed, hold_out)?;
        let split = Split::new(&index, &lists, experiment.data.validation, seed)?;
        let split = split.select(&index, &experiment.data.subset)?;
        let side = options.side;
        let store = table.with_file_name(store_file(side));
        Self::from_files(index, split, &ImageFiles::find([images])?, store, side)
    }

    /// An index and a split of your own, with image files by their names: each name of the split is the end of the path of
    /// one file. The prepared images, `side` pixels wide and high, are kept in the file `store`; those that are there
    /// already are not prepared again.
    ///
    /// # Errors
    /// An image of which there is no file, or several that differ; an image that cannot be used, the first of several; as
    /// [`Self::new`].
    pub fn from_files(
        index: Index,
        split: Split,
        files: &ImageFiles,
        store: impl AsRef<Path>,
        side: u32,
    ) -> Result<Self, TrainError> {
        let names = Part::ALL.into_iter().flat_map(|part| split.part(part));
        let mut sources: Vec<(ImageName, PathBuf)> = Vec::new();
        for name in names {
            let file = files.get(name)?.ok_or_else(|| DatasetError::Record {
                name: name.to_string(),
                problem: match files.similar(name) {
                    Some(similar) => format!(
                        "there is no such image file; did you mean `{}`?",
                        similar.path().display()
                    ),
                    None => "there is no such image file".to_owned(),
                },
            })?;
            sources.push((name.clone(), file.path().to_owned()));
        }
        let settings = StoreSettings::new(side)?;
        let prepared = prepare(&sources, store, settings, PrepareOptions::default())?;
        if let Some((name, error)) = prepared.failures().first() {
            let source = sources.iter().find(|(source, _)| source == name);
            return Err(TrainError::BadFile {
                path: source.map_or_else(PathBuf::new, |(_, path)| path.clone()),
                kind: "image",
                problem: error.to_string(),
            });
        }
        Self::new(index, split, prepared.commit()?)
    }

    /// Whether the images are drawn, not taken.
    pub fn is_phantom(&self) -> bool {
        self.is_phantom
    }

    /// Seconds that preparing the images took; 0 where they had been prepared before.
    pub fn seconds_to_prepare(&self) -> f64 {
        self.seconds_to_prepare
    }

    /// Labels and patients.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Which images train, validate and test.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// The pixels.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The pixels on a CUDA device, for as long as no other device asks.
    pub(crate) fn on_device(
        &self,
        device: &candle_core::Device,
    ) -> candle_core::Result<Arc<cxr_ops::CudaImages>> {
        let mut here = (self.on_device.lock()).unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((of, images)) = &*here
            && of.same_device(device)
        {
            return Ok(Arc::clone(images));
        }
        let images = Arc::new(cxr_ops::CudaImages::new(self.store.side(), device)?);
        *here = Some((device.clone(), Arc::clone(&images)));
        Ok(images)
    }

    /// The labels' names, in the order of the logits.
    pub fn labels(&self) -> &[String] {
        self.index.label_set().names()
    }

    /// One image's labels; empty for an image that is not in the index.
    pub(crate) fn label_states(&self, name: &ImageName) -> &[LabelState] {
        self.index.get(name).map_or(&[], |record| &record.labels)
    }

    /// A digest of the labels, the split and the pixels: two runs on equal data have equal ones.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.index.fingerprint().as_bytes());
        hash.update(self.store.fingerprint().as_bytes());
        for part in Part::ALL {
            let names = self.split.part(part);
            hash.update((names.len() as u64).to_le_bytes());
            for name in names {
                hash.update(name.as_str().as_bytes());
                hash.update([0]);
            }
        }
        hex(hash)
    }

    /// The same, part by part; uncertain labels are told from unknown ones where a policy does.
    pub(crate) fn fingerprints(&self, uncertainty: &Uncertainty) -> DataFingerprints {
        let list = |part| {
            let names = self.split.part(part);
            let mut hash = Sha256::new();
            for name in names {
                hash.update(name.as_str().as_bytes());
                hash.update([0]);
            }
            let (images, digest) = (names.len(), hex(hash));
            ListFingerprint { images, digest }
        };
        DataFingerprints {
            // Early versions knew no difference between uncertain and unknown.
            labels: match uncertainty.is_ignore() {
                true => self.index.fingerprint(),
                false => self.index.fingerprint_with_uncertain(),
            }
            .to_string(),
            images: self.store.fingerprint().to_string(),
            train: list(Part::Train),
            validation: list(Part::Validation),
            test: list(Part::Test),
        }
    }
}

/// Digests of what a run is made on, to tell what has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataFingerprints {
    labels: String,
    images: String,
    train: ListFingerprint,
    validation: ListFingerprint,
    test: ListFingerprint,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ListFingerprint {
    images: usize,
    digest: String,
}

impl DataFingerprints {
    /// The parts in which two differ, in words; `None` where they are equal.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        let mut parts = Vec::new();
        for (what, before, now) in [
            ("the label table", &self.labels, &now.labels),
            ("the prepared images", &self.images, &now.images),
        ] {
            if before != now {
                parts.push(what.to_owned());
            }
        }
        for (part, before, now) in [
            ("training", &self.train, &now.train),
            ("validation", &self.validation, &now.validation),
            ("test", &self.test, &now.test),
        ] {
            if before != now {
                let (before, now) = (before.images, now.images);
                parts.push(format!(
                    "the {part} list (there {before} images, now {now})"
                ));
            }
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

fn hex(hash: Sha256) -> String {
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
