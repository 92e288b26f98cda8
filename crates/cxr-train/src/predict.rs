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
use crate::ranks::RanksError;
use crate::{Alone, Classifier, ModelCard, Observer, Ranks, TrainError, TrainingData};

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
    predict_on(
        &Alone, classifier, card, data, part, views, batch_size, observer, stop,
    )
}

/// As [`predict`], by several ranks that deal the batches out in turn; each has all logits in the end.
///
/// # Errors
/// As [`predict`], and those of other ranks.
#[expect(
    clippy::too_many_arguments,
    reason = "as of `predict`, and who shares the work"
)]
pub(crate) fn predict_on(
    ranks: &dyn Ranks,
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
    let batches: Vec<&[ImageName]> = names.chunks(batch_size.max(1)).collect();
    let own = |at: &usize| at % ranks.size() == ranks.rank();
    let own: Vec<usize> = (0..batches.len()).filter(own).collect();
    let computed = logits_of(
        classifier, card, data, part, &batches, &own, views, observer, stop,
    );
    if ranks.size() == 1 {
        let logits = computed?.map(|logits| views.views().iter().copied().zip(logits));
        let prediction =
            logits.map(|logits| Prediction::new(names.to_vec(), card.labels.clone(), logits));
        return Ok(prediction.transpose()?);
    }
    let message = computed.map(|logits| match logits {
        // A stop of one rank is that of all.
        None => vec![STOPPED],
        Some(logits) => {
            let values = logits.iter().flatten();
            let bytes = values.flat_map(|logit| logit.to_le_bytes());
            std::iter::once(FINISHED).chain(bytes).collect()
        }
    });
    let all = ranks.agree(message)?;
    if all.iter().any(|message| message.first() != Some(&FINISHED)) {
        return Ok(None);
    }
    let done = names.len();
    observer.on(&Event::Predicting {
        part: part.name(),
        done,
        total: done,
    });
    let n_labels = card.labels.len();
    let mut of_ranks: Vec<_> = (all.iter())
        .map(|message| {
            let (values, _) = message.get(1..).unwrap_or(&[]).as_chunks::<4>();
            values.iter().map(|&value| f32::from_le_bytes(value))
        })
        .collect();
    let mut logits = Vec::new();
    for &view in views.views() {
        let mut of_view = Vec::with_capacity(names.len() * n_labels);
        for (at, batch) in batches.iter().enumerate() {
            if let Some(values) = of_ranks.get_mut(at % ranks.size()) {
                of_view.extend(values.take(batch.len() * n_labels));
            }
        }
        if of_view.len() != names.len() * n_labels {
            return Err(RanksError::Transport {
                action: "gather predictions",
                problem: "a rank sent fewer logits than its images have".to_owned(),
            }
            .into());
        }
        logits.push((view, of_view));
    }
    let prediction = Prediction::new(names.to_vec(), card.labels.clone(), logits)?;
    Ok(Some(prediction))
}

/// How a rank's message begins: that it was stopped, or that its logits follow, view by view.
const STOPPED: u8 = 0;
const FINISHED: u8 = 1;

/// The logits of the batches with the numbers `own`, one list for each view; `None` when `stop` was set.
#[expect(
    clippy::too_many_arguments,
    reason = "as of `predict`, and which batches"
)]
fn logits_of(
    classifier: &Classifier,
    card: &ModelCard,
    data: &TrainingData,
    part: Part,
    batches: &[&[ImageName]],
    own: &[usize],
    views: ViewSet,
    observer: &mut dyn Observer,
    stop: &AtomicBool,
) -> Result<Option<Vec<Vec<f32>>>, TrainError> {
    let n_images = batches.iter().map(|batch| batch.len()).sum();
    let mut done = 0;
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
    for (number, &index) in own.iter().enumerate() {
        let names_of_batch = batches.get(index).copied().unwrap_or_default();
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
        done += names_of_batch.len();
        // Of several ranks this one has done its part only.
        let is_last_of_many = number + 1 == own.len() && own.len() < batches.len();
        if !is_last_of_many {
            observer.on(&Event::Predicting {
                part: part.name(),
                done: (done * batches.len() / own.len().max(1)).min(n_images),
                total: n_images,
            });
        }
    }
    read(&mut waiting, 0)?;
    Ok(Some(logits))
}
