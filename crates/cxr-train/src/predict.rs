//! The images of a part of the data to logits, view by view.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;
use cxr_augment::{Normalization, ViewSet};
use cxr_dataset::{ImageName, Part};
use cxr_model::{Prediction, check_finite};
use cxr_ops::Phase;
use cxr_run::Event;

use crate::loader::{Pixels, images, non_image};
use crate::{Classifier, ModelCard, Observer, TrainError, TrainingData};

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
    let device = classifier.parameters().device();
    for (index, names_of_batch) in names.chunks(batch_size.max(1)).enumerate() {
        let non_image = non_image(data, names_of_batch, &card.inputs, device)?;
        for (at, &view) in views.views().iter().enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let pixels = Pixels::View {
                view,
                size: card.crop_size,
            };
            let images = images(data, names_of_batch, pixels, &normalization, device)?;
            let batch = classifier.forward_with(&images, non_image.as_ref(), Phase::Evaluate)?;
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
    let views = views.zip(logits);
    Ok(Some(Prediction::new(
        names.to_vec(),
        card.labels.clone(),
        views,
    )?))
}
