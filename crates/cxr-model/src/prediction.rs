//! The logits of many images: of files, of a prepared store, or of a part of a data set.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use cxr_augment::{View, ViewSet};
use cxr_dataset::{
    ImageAttributes, ImageName, Index, LabelState, Store, decode_radiograph_in, read_image_file,
};
use cxr_metrics::{LabelMean, MultiLabel};
use cxr_run::{Predictions, RunError};
use rayon::prelude::*;

use crate::{ModelError, Predictor, PreparedImage, ValidationAucs, mean_over_views};

/// The logits of some images, one matrix per view.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    names: Vec<ImageName>,
    labels: Vec<String>,
    views: Vec<(View, Vec<f32>)>,
}

impl Prediction {
    /// The logits of these images, `N×L` row by row, in each of some views.
    ///
    /// # Errors
    /// [`ModelError::ImageTwice`], or another number of logits in a view.
    pub fn new(
        names: Vec<ImageName>,
        labels: Vec<String>,
        views: impl IntoIterator<Item = (View, Vec<f32>)>,
    ) -> Result<Self, ModelError> {
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(*name)) {
            let name = twice.to_string();
            return Err(ModelError::ImageTwice { name });
        }
        let views: Vec<(View, Vec<f32>)> = views.into_iter().collect();
        let n_logits = names.len() * labels.len();
        if let Some((view, logits)) = views.iter().find(|(_, logits)| logits.len() != n_logits) {
            let key = format!("logits in the view {view:?}");
            let expected = format!("{n_logits}, one for each image and label");
            return Err(RunError::setting(&key, expected, logits.len()).into());
        }
        Ok(Self {
            names,
            labels,
            views,
        })
    }

    /// The images, in the order of the rows.
    pub fn names(&self) -> &[ImageName] {
        &self.names
    }

    /// The labels, in the order of the columns.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The prediction of some of its images, in the order of `names`.
    ///
    /// # Errors
    /// An image that was not predicted, or one that is named twice.
    pub fn of_images(&self, names: &[ImageName]) -> Result<Self, ModelError> {
        let rows = self.names.iter().enumerate();
        let rows: HashMap<&ImageName, usize> = rows.map(|(row, name)| (name, row)).collect();
        let row = |name: &ImageName| {
            let row = rows.get(name).copied();
            row.ok_or_else(|| ModelError::NotPredicted {
                name: name.to_string(),
            })
        };
        let chosen: Vec<usize> = names.iter().map(row).collect::<Result<_, _>>()?;
        let width = self.labels.len();
        let of_view = |(view, logits): &(View, Vec<f32>)| {
            let rows = chosen
                .iter()
                .filter_map(|row| logits.get(row * width..(row + 1) * width));
            (*view, rows.flatten().copied().collect())
        };
        let views = self.views.iter().map(of_view);
        Self::new(names.to_vec(), self.labels.clone(), views)
    }

    /// The mean logits over the views of `set`, `N×L` row by row.
    ///
    /// # Errors
    /// A view of the set that was not predicted.
    pub fn logits(&self, set: ViewSet) -> Result<Vec<f32>, ModelError> {
        let of_view = |view: &View| {
            let found = self.views.iter().find(|(found, _)| found == view);
            let logits = found.map(|(_, logits)| logits.as_slice());
            logits.ok_or_else(|| {
                let expected = format!("among the predicted ones for `{set}`");
                RunError::setting("views", expected, format!("{view:?}"))
            })
        };
        let views: Vec<&[f32]> = set.views().iter().map(of_view).collect::<Result<_, _>>()?;
        Ok(mean_over_views(&views))
    }

    /// The mean logits of `set` beside what `index` says of the images, for every metric of `cxr-metrics`. Labels go by
    /// their names; those of the index that were not predicted are left out.
    ///
    /// # Errors
    /// [`ModelError::NotInIndex`] for an image or a label of the prediction that the index does not have; a view that was
    /// not predicted; no image.
    pub fn to_multi_label(&self, set: ViewSet, index: &Index) -> Result<MultiLabel, ModelError> {
        let missing = |what, name: &str| ModelError::NotInIndex {
            what,
            name: name.to_owned(),
        };
        let place = |label: &String| {
            let place = index.label_set().index_of(label);
            place.ok_or_else(|| missing("label", label))
        };
        let places: Vec<usize> = self.labels.iter().map(place).collect::<Result<_, _>>()?;
        let mut states = Vec::with_capacity(self.names.len() * places.len());
        for name in &self.names {
            let record = index.get(name);
            let record = record.ok_or_else(|| missing("image", name.as_str()))?;
            let state = |&place: &usize| record.labels.get(place).copied();
            states.extend(
                places
                    .iter()
                    .map(|at| state(at).unwrap_or(LabelState::Unknown)),
            );
        }
        let positive: Vec<bool> = states.iter().map(|state| state.target() > 0.).collect();
        let known: Vec<bool> = states.iter().map(|state| state.is_known()).collect();
        let logits = self.logits(set)?;
        Ok(MultiLabel::new(
            &self.labels,
            &logits,
            &positive,
            Some(&known),
        )?)
    }

    /// Mean AUC over the labels that have both classes, of the mean logits of `set`; `None` when
    /// no label has.
    ///
    /// # Errors
    /// As [`Self::to_multi_label`].
    pub fn macro_auc(&self, set: ViewSet, index: &Index) -> Result<Option<LabelMean>, ModelError> {
        Ok(self.to_multi_label(set, index)?.macro_auc())
    }

    /// What a model file says of predictions of its validation images: the AUC of each label, of the mean logits of
    /// `set`.
    ///
    /// # Errors
    /// As [`Self::to_multi_label`].
    pub fn validation_aucs(
        &self,
        set: ViewSet,
        index: &Index,
    ) -> Result<ValidationAucs, ModelError> {
        let scores = self.to_multi_label(set, index)?;
        Ok(ValidationAucs {
            views: set,
            images: self.names.len(),
            labels: scores.per_label_auc(),
            mean: scores.macro_auc().map(|mean| mean.value),
        })
    }

    /// As [`Self::write`], beside the file's place: it is put there with the others of `staged`.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn stage(
        &self,
        set: ViewSet,
        path: &Path,
        staged: &mut cxr_fs::Staged,
    ) -> Result<(), ModelError> {
        let logits = self.logits(set)?;
        Ok(staged.write(path, |file| self.write_table(&logits, file))?)
    }

    fn write_table(&self, logits: &[f32], file: &mut File) -> std::io::Result<()> {
        let rows = self
            .names
            .iter()
            .zip(logits.chunks(self.labels.len().max(1)));
        Predictions::write_logits(file, &self.labels, rows)
    }

    /// Writes the mean logits of `set` as a table: `Image Index`, then `logit_<label>`.
    ///
    /// # Errors
    /// A view that was not predicted, or a file that cannot be written.
    pub fn write(&self, set: ViewSet, path: &Path) -> Result<(), ModelError> {
        let logits = self.logits(set)?;
        Ok(cxr_fs::write_with(path, |file| {
            self.write_table(&logits, file)
        })?)
    }
}

/// Images that are predicted together, which changes nothing but memory and speed.
const BATCH: usize = 32;

impl Predictor {
    /// Predicts image files, each in every view of `views`. Nothing is known of them but their names, such as those that
    /// [`cxr_dataset::ImageFiles::name_all`] gives them, and what DICOM files say of age, sex and view. Grey levels are read as
    /// the model's card says.
    ///
    /// ```no_run
    /// use candle_core::Device;
    /// use cxr_dataset::ImageFiles;
    /// use cxr_model::{Predictor, ViewSet};
    ///
    /// let predictor = Predictor::open("model.safetensors".as_ref(), &Device::Cpu)?;
    /// let images = ImageFiles::find(["new patients"])?.name_all(&[])?;
    /// let prediction = predictor.predict_files(&images.files, ViewSet::Single)?;
    /// prediction.write(ViewSet::Single, "predictions.csv".as_ref())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first file that cannot be used, an image that is named twice, or as [`Self::logits`].
    pub fn predict_files(
        &self,
        files: &[(ImageName, PathBuf)],
        views: ViewSet,
    ) -> Result<Prediction, ModelError> {
        self.predict_files_with(files, views, |_, of_file| of_file)
    }

    /// The same of files whose age, sex and view `attributes` says, for a model that asks for them: it is given an image's name
    /// and what its file says.
    ///
    /// # Errors
    /// As [`Self::predict_files`].
    pub fn predict_files_with(
        &self,
        files: &[(ImageName, PathBuf)],
        views: ViewSet,
        attributes: impl Fn(&ImageName, ImageAttributes) -> ImageAttributes + Sync,
    ) -> Result<Prediction, ModelError> {
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        self.predict_each(names, views, |at| {
            let (name, path) = &files[at];
            let bytes = read_image_file(path)?;
            let radiograph = decode_radiograph_in(&bytes, path, self.card().tone())?;
            let attributes = attributes(name, radiograph.attributes);
            Ok(self.prepare(&radiograph.image)?.with_attributes(attributes))
        })
    }

    /// Predicts all images of a prepared store, each in every view of `views`, in the order of their names. No labels are
    /// needed; [`Prediction::to_multi_label`] joins them where there are some.
    ///
    /// # Errors
    /// A store of another image size or other grey levels than the model's, an image that cannot be read, or as
    /// [`Self::logits`].
    pub fn predict_store(&self, store: &Store, views: ViewSet) -> Result<Prediction, ModelError> {
        let mut names: Vec<ImageName> = store.names().collect();
        names.sort_unstable();
        self.predict_stored(store, &names, views)
    }

    /// The same for some images of a store, in their order.
    ///
    /// # Errors
    /// As [`Self::predict_store`], and an image that the store does not hold or that is named twice.
    pub fn predict_stored(
        &self,
        store: &Store,
        names: &[ImageName],
        views: ViewSet,
    ) -> Result<Prediction, ModelError> {
        self.predict_stored_with(store, names, views, |_, kept| kept)
    }

    /// The same of images whose age, sex and view `attributes` says, for a model that asks for them: it is given an image's
    /// name and what the store kept of its file.
    ///
    /// # Errors
    /// As [`Self::predict_stored`].
    pub fn predict_stored_with(
        &self,
        store: &Store,
        names: &[ImageName],
        views: ViewSet,
        attributes: impl Fn(&ImageName, ImageAttributes) -> ImageAttributes + Sync,
    ) -> Result<Prediction, ModelError> {
        let (expected, found) = (self.card().tone(), store.settings().tone());
        if expected != found {
            return Err(ModelError::Card {
                what: "grey levels",
                expected: format!("those of `{}`, {found:?}", store.path().display()),
                found: format!("{expected:?}"),
            });
        }
        self.predict_each(names.to_vec(), views, |at| {
            let name = &names[at];
            let kept = store.attributes(name).unwrap_or_default();
            let prepared = self.prepared(store.image(name)?)?;
            Ok(prepared.with_attributes(attributes(name, kept)))
        })
    }

    /// Predicts the images of these names, which `prepare` makes by their places.
    fn predict_each(
        &self,
        names: Vec<ImageName>,
        views: ViewSet,
        prepare: impl Fn(usize) -> Result<PreparedImage, ModelError> + Sync,
    ) -> Result<Prediction, ModelError> {
        let mut logits = vec![Vec::new(); views.views().len()];
        for (number, of_batch) in names.chunks(BATCH).enumerate() {
            let first = number * BATCH;
            let places = first..first + of_batch.len();
            let prepared: Vec<PreparedImage> = places
                .into_par_iter()
                .map(&prepare)
                .collect::<Result<_, _>>()?;
            let image = |row: usize| of_batch.get(row).map(|name| format!("`{name}`"));
            let image = |row: usize| image(row).unwrap_or_default();
            let (of_views, _) = self.view_logits(&prepared, views, false, &image)?;
            for (logits, of_view) in logits.iter_mut().zip(of_views) {
                logits.extend(of_view);
            }
        }
        let views = views.views().iter().copied();
        Prediction::new(names, self.card().labels.clone(), views.zip(logits))
    }
}
