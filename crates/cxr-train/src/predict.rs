//! Images to logits, view by view.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use cxr_augment::{Normalization, View, ViewSet};
use cxr_dataset::{ImageName, Part};
use cxr_metrics::{LabelMean, MultiLabel};
use cxr_model::{ValidationAucs, check_finite, mean_over_views};
use cxr_ops::Phase;
use cxr_run::{Event, Predictions};

use crate::loader::{Pixels, images};
use crate::{Classifier, ModelCard, Observer, TrainError, TrainingData};

/// The logits of some images, one matrix per view.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    names: Vec<ImageName>,
    labels: Vec<String>,
    views: Vec<(View, Vec<f32>)>,
}

/// Predicts the images of a part of the data, each in every view of `views`, `batch_size` at once.
///
/// `None` when `stop` was set before the end.
///
/// # Errors
/// An image that cannot be read, a network that does not take it, or [`cxr_model::ModelError::LogitNotFinite`].
#[expect(
    clippy::too_many_arguments,
    reason = "each is one noun of the sentence above"
)]
pub fn predict(
    classifier: &Classifier,
    card: &ModelCard,
    data: &TrainingData,
    part: Part,
    views: ViewSet,
    batch_size: usize,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Option<Prediction>, TrainError> {
    let names = data.split().part(part);
    let normalization = Normalization::new(card.normalization_mean, card.normalization_std)?;
    let mut logits = vec![Vec::new(); views.views().len()];
    // Read when a device is at work on the next.
    let mut waiting = VecDeque::new();
    let mut read = |waiting: &mut VecDeque<(usize, &[ImageName], Tensor)>, most: usize| {
        while waiting.len() > most {
            if let Some((view, names, batch)) = waiting.pop_front() {
                let batch = batch.flatten_all()?.to_vec1::<f32>()?;
                let image = |row: usize| names.get(row).map(|name| format!("`{name}`"));
                check_finite(&batch, &card.labels, |row| image(row).unwrap_or_default())?;
                logits[view].extend(batch);
            }
        }
        Ok::<_, TrainError>(())
    };
    for (index, names_of_batch) in names.chunks(batch_size.max(1)).enumerate() {
        for (at, &view) in views.views().iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let pixels = Pixels::View {
                view,
                size: card.crop_size,
            };
            let device = classifier.parameters().device();
            let images = images(data, names_of_batch, pixels, &normalization, device)?;
            let batch = classifier.forward_t(&images, Phase::Evaluate)?;
            waiting.push_back((at, names_of_batch, batch));
            read(&mut waiting, 1)?;
        }
        let done = index * batch_size + names_of_batch.len();
        observer.on(&Event::Predicting {
            part: part.name(),
            done,
            total: names.len(),
        });
    }
    read(&mut waiting, 0)?;
    let views = views.views().iter().copied();
    Ok(Some(Prediction {
        names: names.to_vec(),
        labels: card.labels.clone(),
        views: views.zip(logits).collect(),
    }))
}

impl Prediction {
    /// The images, in the order of the rows.
    pub fn names(&self) -> &[ImageName] {
        &self.names
    }

    /// The mean logits over the views of `set`, `N×L` row by row.
    ///
    /// # Errors
    /// A view of the set that was not predicted.
    pub fn logits(&self, set: ViewSet) -> Result<Vec<f32>, TrainError> {
        let of_view = |view: &View| {
            let found = self.views.iter().find(|(found, _)| found == view);
            let logits = found.map(|(_, logits)| logits.as_slice());
            logits.ok_or_else(|| {
                let expected = format!("among the predicted ones for `{set}`");
                TrainError::setting("views", expected, format!("{view:?}"))
            })
        };
        let views: Vec<&[f32]> = set.views().iter().map(of_view).collect::<Result<_, _>>()?;
        Ok(mean_over_views(&views))
    }

    /// Mean AUC over the labels that have both classes, of the mean logits of `set`; `None` when
    /// no label has.
    ///
    /// # Errors
    /// A view that was not predicted, or logits that are not finite.
    pub fn macro_auc(
        &self,
        set: ViewSet,
        data: &TrainingData,
    ) -> Result<Option<LabelMean>, TrainError> {
        Ok(self.scores(set, data)?.macro_auc())
    }

    /// What a model file says of predictions of its validation images: the AUC of each label, of the mean logits of
    /// `set`.
    ///
    /// # Errors
    /// As [`Self::macro_auc`].
    pub fn validation_aucs(
        &self,
        set: ViewSet,
        data: &TrainingData,
    ) -> Result<ValidationAucs, TrainError> {
        let scores = self.scores(set, data)?;
        Ok(ValidationAucs {
            views: set,
            images: self.names.len(),
            labels: scores.per_label_auc(),
            mean: scores.macro_auc().map(|mean| mean.value),
        })
    }

    fn scores(&self, set: ViewSet, data: &TrainingData) -> Result<MultiLabel, TrainError> {
        let states = || self.names.iter().flat_map(|name| data.label_states(name));
        let positive: Vec<bool> = states().map(|state| state.target() > 0.).collect();
        let known: Vec<bool> = states().map(|state| state.is_known()).collect();
        let logits = self.logits(set)?;
        Ok(MultiLabel::new(
            &self.labels,
            &logits,
            &positive,
            Some(&known),
        )?)
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
    ) -> Result<(), TrainError> {
        let logits = self.logits(set)?;
        Ok(staged.write(path, |file| self.write_table(&logits, file))?)
    }

    fn write_table(&self, logits: &[f32], file: &mut File) -> std::io::Result<()> {
        let rows = self.names.iter().zip(logits.chunks(self.labels.len()));
        Predictions::write_logits(file, &self.labels, rows)
    }

    /// Writes the mean logits of `set` as a table: `Image Index`, then `logit_<label>`.
    ///
    /// # Errors
    /// A view that was not predicted, or a file that cannot be written.
    pub fn write(&self, set: ViewSet, path: &Path) -> Result<(), TrainError> {
        let logits = self.logits(set)?;
        Ok(cxr_fs::write_with(path, |file| {
            self.write_table(&logits, file)
        })?)
    }
}
