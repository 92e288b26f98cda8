//! What a training will take, found out without training.

use std::time::Instant;

use candle_core::{DType, Device, Tensor, Var};
use cxr_losses::MultiLabelLoss;
use cxr_ops::Phase;

use crate::frozen::load_weights;
use crate::trainer::trained;
use crate::{AdamW, Classifier, OwnParts, Stage, TrainError, VariantExperiment};

/// Images of the two batches that are tried; the larger is no larger than the experiment's.
const PROBES: [usize; 2] = [2, 8];

/// How many images each part has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageCounts {
    /// To train on.
    pub train: usize,
    /// To validate after each epoch.
    pub validation: usize,
    /// To predict in the end.
    pub test: usize,
}

/// Sizes of a run, and its time and memory as measured on a few real steps of its network on this
/// machine, scaled to its batches.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Values of the network, running statistics and fixed weights included.
    pub values: usize,
    /// The stages in their order.
    pub stages: Vec<StagePlan>,
    /// Seconds of the predictions after training: four views of the validation and test images, and
    /// one of them for the network before each stage.
    pub prediction_seconds: f64,
    /// Bytes of the images as they are prepared.
    pub store_bytes: u64,
    /// Bytes of the run folder at its largest, while a checkpoint takes the place of another.
    pub run_bytes: u64,
    /// Bytes of memory at the highest; `None` where the system does not tell a process its peak.
    pub memory_bytes: Option<u64>,
    /// Images of the batch that was measured.
    pub measured_batch: usize,
}

/// A stage of a [`Plan`].
#[derive(Debug, Clone, PartialEq)]
pub struct StagePlan {
    /// Its name.
    pub name: String,
    /// Its epochs.
    pub epochs: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// Values that it trains, those of the loss included.
    pub trained: usize,
    /// Values of the network that it does not train.
    pub frozen: usize,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Seconds of all its epochs, validation included.
    pub seconds: f64,
}

impl Plan {
    /// Tries some steps of a variant's training on random images, and one prediction.
    ///
    /// # Errors
    /// A network that cannot be built, weights that do not load, fewer images than a batch.
    pub fn measure(
        variant: &VariantExperiment,
        labels: &[String],
        images: ImageCounts,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let experiment = variant.experiment();
        let training = &experiment.training;
        let card = variant.model_card(labels)?;
        let classifier = OwnParts::new().classifier(&card, experiment.seed, device)?;
        if let Some(path) = &experiment.model.weights {
            load_weights(&experiment.model.backbone, path, classifier.parameters())?;
        }
        let steps = training.last_batch.steps(images.train, training.batch_size);
        if steps == 0 {
            let expected = format!("from 1 to the {} training images", images.train);
            let key = "training.batch_size";
            return Err(TrainError::setting(key, expected, training.batch_size));
        }
        let loss = variant.chosen().loss()?;
        let of_loss = (loss.vars().into_iter().enumerate())
            .map(|(index, var)| (format!("loss.{index}"), var));
        let probe = Probe {
            variant,
            classifier: &classifier,
            of_loss: of_loss.collect(),
            loss,
            side: card.crop_size,
            labels: labels.len(),
        };
        let predicted = images.validation + images.test;
        let values = classifier.parameters().count("");
        let [small, large] = PROBES.map(|size| size.min(training.batch_size));
        // The heaviest stage first: a process can only tell its highest peak so far.
        let mut order: Vec<&Stage> = training.stages.iter().collect();
        order.sort_by_key(|stage| std::cmp::Reverse(probe.trained(stage).0));
        let mut measured = Vec::new();
        for stage in order {
            measured.push((stage, probe.stage(stage, small, large)?));
        }
        let peaks = measured.first().and_then(|(_, heaviest)| heaviest.peaks);
        let memory_bytes = peaks.map(|peaks| at_batch(peaks, training.batch_size));
        let image_seconds = probe.prediction()?;
        let scale = training.batch_size as f64 / large as f64;
        let stage_plan = |stage: &Stage| {
            let found = measured
                .iter()
                .find(|(other, _)| std::ptr::eq(*other, stage));
            let step_seconds = found.map_or(0., |(_, measured)| measured.seconds) * scale;
            let validation_seconds = images.validation as f64 * image_seconds;
            let (trained, of_network) = probe.trained(stage);
            StagePlan {
                name: stage.name.clone(),
                epochs: stage.epochs,
                steps,
                trained,
                frozen: values.saturating_sub(of_network),
                step_seconds,
                seconds: stage.epochs as f64 * (steps as f64 * step_seconds + validation_seconds),
            }
        };
        let stages: Vec<_> = training.stages.iter().map(stage_plan).collect();
        let optimiser_values = stages.iter().map(|stage| stage.trained).max();
        let image = (3 * card.crop_size * card.crop_size * size_of::<f32>()) as u64;
        // Batches that the loader holds: one with each of its two workers.
        let loader = 2 * training.batch_size as u64 * image;
        Ok(Self {
            values,
            prediction_seconds: predicted as f64 * (4 + stages.len()) as f64 * image_seconds,
            store_bytes: (images.train + predicted) as u64 * (card.image_size as u64).pow(2),
            run_bytes: run_bytes(values, optimiser_values.unwrap_or(0), stages.len()),
            memory_bytes: memory_bytes.map(|bytes| bytes + loader),
            measured_batch: large,
            stages,
        })
    }

    /// Seconds of training and prediction.
    pub fn seconds(&self) -> f64 {
        let training: f64 = self.stages.iter().map(|stage| stage.seconds).sum();
        training + self.prediction_seconds
    }
}

/// The files of weights: `model`, `best`, one before each stage, and two of `latest`, which holds
/// two moments of every trained value besides.
fn run_bytes(values: usize, optimiser_values: usize, stages: usize) -> u64 {
    let latest = values + 2 * optimiser_values;
    (((2 + stages) * values + 2 * latest) * size_of::<f32>()) as u64
}

/// Peaks of the process with the smaller and the larger probe.
type Peaks = [(usize, u64); 2];

/// The peak on a line through the two that were measured.
fn at_batch([(small, low), (large, high)]: Peaks, batch: usize) -> u64 {
    let an_image = high.saturating_sub(low) / (large - small).max(1) as u64;
    high + an_image * batch.saturating_sub(large) as u64
}

struct Probe<'a> {
    variant: &'a VariantExperiment,
    classifier: &'a Classifier,
    loss: Box<dyn MultiLabelLoss>,
    of_loss: Vec<(String, Var)>,
    side: usize,
    labels: usize,
}

struct Measured {
    seconds: f64,
    peaks: Option<Peaks>,
}

impl Probe<'_> {
    fn images(&self, count: usize) -> candle_core::Result<Tensor> {
        let device = self.classifier.parameters().device();
        Tensor::randn(0f32, 1., (count, 3, self.side, self.side), device)
    }

    /// Seconds that one image takes in prediction.
    fn prediction(&self) -> Result<f64, TrainError> {
        let training = &self.variant.experiment().training;
        let count = PROBES[1].min(training.evaluation_batch_size);
        let images = self.images(count)?;
        self.classifier.forward_t(&images, Phase::Evaluate)?;
        let begin = Instant::now();
        self.classifier.forward_t(&images, Phase::Evaluate)?;
        Ok(begin.elapsed().as_secs_f64() / count as f64)
    }

    /// How many values a stage trains, and how many of them are the network's.
    fn trained(&self, stage: &Stage) -> (usize, usize) {
        let count = |of_loss| -> usize {
            let trained = trained(stage, self.classifier, of_loss);
            trained.iter().map(|(_, var)| var.elem_count()).sum()
        };
        (count(&self.of_loss), count(&[]))
    }

    /// A step on each probe, and one more on the larger that is timed. Their rate is 0.
    fn stage(&self, stage: &Stage, small: usize, large: usize) -> Result<Measured, TrainError> {
        let trained = trained(stage, self.classifier, &self.of_loss);
        let mut optimiser = AdamW::new(self.variant.experiment().training.optimiser);
        let mut step = |size: usize| -> Result<f64, TrainError> {
            let images = self.images(size)?;
            let targets = Tensor::rand(0f32, 1., (size, self.labels), images.device())?;
            let targets = targets.ge(0.5)?.to_dtype(DType::F32)?;
            let keys: Vec<u64> = (0..size as u64).collect();
            let phase = Phase::Train { image_keys: &keys };
            let begin = Instant::now();
            let backbone_is_frozen =
                !(trained.iter()).any(|(name, _)| name.starts_with("features."));
            let features = match backbone_is_frozen {
                true => self.classifier.features(&images, Phase::Evaluate)?.detach(),
                false => self.classifier.features(&images, phase)?,
            };
            let logits = self.classifier.logits(&features, phase)?;
            let gradients = self.loss.loss(&logits, &targets, None)?.backward()?;
            optimiser.step(0., &trained, &gradients)?;
            Ok(begin.elapsed().as_secs_f64())
        };
        step(small)?;
        let low = peak_bytes();
        step(large)?;
        let high = peak_bytes();
        Ok(Measured {
            seconds: step(large)?,
            peaks: low
                .zip(high)
                .map(|(low, high)| [(small, low), (large, high)]),
        })
    }
}

/// The process's largest resident size so far, where the system tells it (Linux).
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_with_the_batch_along_the_line_through_both_probes() {
        let peaks = [(2, 1000), (8, 1600)];
        assert_eq!(at_batch(peaks, 8), 1600);
        assert_eq!(at_batch(peaks, 64), 1600 + 56 * 100);
        // An experiment of batches of two has one probe.
        assert_eq!(at_batch([(2, 1000), (2, 1000)], 2), 1000);
    }

    #[test]
    fn a_run_folder_holds_models_and_two_checkpoints() {
        // model, best, two stages; and twice weights with two moments of half of them
        assert_eq!(run_bytes(100, 50, 2), 4 * (4 * 100 + 2 * 200));
    }
}
