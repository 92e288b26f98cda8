//! One optimiser step, and what it must not do.
//!
//! Steps that are looked at one by one, as on a CPU, change nothing when they go wrong. A GPU is not waited for: its
//! steps are looked at some at a time, later, and what went wrong is still said of the step in which it did.

use std::time::Instant;

use candle_core::{Tensor, Var};
use cxr_dataset::ImageName;
use cxr_model::BACKBONE_PREFIX;
use cxr_ops::{GradientSink, Parameters, Phase};

use super::Trainer;
use crate::experiment::precision;
use crate::gradients::Size;
use crate::loader::{Batch, Batches, image_keys};
use cxr_run::Event;

use crate::{Gradients, MeanGradients, Observer, Stage, TrainError, Trained};

/// A step that was made, or that a device is still at.
pub(super) struct Made {
    step: usize,
    rate: f64,
    batches: Vec<MadeBatch>,
    /// Of the mean over the batches but for its divisor, before it was clipped.
    gradients: Size,
    /// One over that divisor.
    factor: f64,
    /// Of the network and its loss, after the step.
    weights: Size,
    /// Whose they are.
    names: Vec<String>,
}

struct MadeBatch {
    loss: Tensor,
    gradients: Size,
    names: Vec<ImageName>,
}

impl Made {
    fn images(&self) -> Vec<ImageName> {
        let batches = self.batches.iter();
        batches.flat_map(|batch| &batch.names).cloned().collect()
    }
}

/// Steps that were not looked at yet.
pub(super) struct Pending {
    steps: Vec<Made>,
    since: Instant,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            steps: Vec::new(),
            since: Instant::now(),
        }
    }

    pub(super) fn push(&mut self, made: Made) {
        self.steps.push(made);
    }

    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }
}

/// Where a stage stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) stage: &'a Stage,
    pub(super) trained: &'a [Trained],
    pub(super) epoch: usize,
    /// Of the epoch.
    pub(super) steps: usize,
}

/// The mean of batches' losses, each weighed by its images; of one batch the very loss.
#[derive(Default)]
struct MeanLoss {
    batches: Vec<(f64, usize)>,
}

impl MeanLoss {
    fn add(&mut self, loss: f64, images: usize) {
        self.batches.push((loss, images));
    }

    fn mean(&self) -> f64 {
        if let [(loss, _)] = self.batches[..] {
            return loss;
        }
        let weighed = self.batches.iter();
        let sum: f64 = weighed.map(|(loss, images)| loss * *images as f64).sum();
        let images: usize = self.batches.iter().map(|(_, images)| images).sum();
        sum / images as f64
    }
}

impl Trainer<'_> {
    /// One optimiser step, on as many batches as the experiment says.
    pub(super) fn step(
        &mut self,
        place: Place<'_>,
        batches: &mut Batches,
        rate: f64,
    ) -> Result<Made, TrainError> {
        let training = &self.variant.experiment().training;
        let Place { trained, epoch, .. } = place;
        let (mut mean, mut made) = (MeanGradients::default(), Vec::new());
        let step = self.state.progress.position.step;
        let _span = self.profile.span("step").of_step(epoch, step);
        for _ in 0..training.gradient_accumulation_steps {
            let waiting = self.profile.span("loader wait").of_step(epoch, step);
            let Some(batch) = batches.next() else {
                break;
            };
            drop(waiting);
            let (batch, gradients) = self.gradients(place, batch?)?;
            if self.looking_every == 1 {
                self.look_at_batch(place, step, &batch)?;
            }
            mean.add(gradients, batch.names.len())?;
            made.push(batch);
        }
        let Some(mut gradients) = mean.finish() else {
            let (expected, found) = ("batches to the end of the epoch", "none");
            return Err(TrainError::setting("loader", expected, found));
        };
        let _span = self.profile.span("optimiser");
        let size = match &made[..] {
            // The mean of one batch is that batch's.
            [only] => only.gradients.clone(),
            _ => gradients.size()?,
        };
        let factor = gradients.scale();
        if let Some(largest) = training.clip_norm {
            gradients.clip_to(&size, largest)?;
        }
        self.state.optimiser.step(rate, trained, &gradients)?;
        let parameters = self.classifier.parameters();
        let (names, weights) = size_of_weights(parameters, &self.loss_variables)?;
        let made = Made {
            step,
            rate,
            batches: made,
            gradients: size,
            factor,
            weights,
            names,
        };
        if self.looking_every == 1 {
            self.look_at_weights(place, &made)?;
        }
        if let Some(average) = &mut self.state.average {
            average.update(parameters)?;
        }
        Ok(made)
    }

    /// Looks at the steps that are pending, and counts and tells of each.
    pub(super) fn settle(
        &mut self,
        place: Place<'_>,
        pending: &mut Pending,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let steps = std::mem::take(&mut pending.steps);
        let mut losses = Vec::with_capacity(steps.len());
        for made in &steps {
            let mut loss = MeanLoss::default();
            for batch in &made.batches {
                let of_batch = self.look_at_batch(place, made.step, batch)?;
                loss.add(of_batch, batch.names.len());
            }
            self.look_at_weights(place, made)?;
            let (norm, _) = made.gradients.read()?;
            losses.push((loss.mean(), made.factor * norm));
        }
        let seconds = pending.since.elapsed().as_secs_f64() / steps.len().max(1) as f64;
        pending.since = Instant::now();
        for (made, (loss, gradient_norm)) in steps.iter().zip(losses) {
            self.state.progress.loss_sum += loss;
            self.state.progress.seconds += seconds;
            observer.on(&Event::Step {
                stage: &place.stage.name,
                epoch: place.epoch,
                step: made.step,
                steps: place.steps,
                loss,
                rate: made.rate,
                gradient_norm,
                images: made.batches.iter().map(|batch| batch.names.len()).sum(),
                seconds,
            });
        }
        Ok(())
    }

    /// Loss and gradients of a batch.
    fn gradients(
        &self,
        place: Place<'_>,
        batch: Batch,
    ) -> Result<(MadeBatch, Gradients), TrainError> {
        let Place { trained, epoch, .. } = place;
        let seed = self.variant.experiment().seed;
        let keys = image_keys(&batch.names, seed, epoch);
        let phase = Phase::Train { image_keys: &keys };
        let backbone_is_frozen = !trained
            .iter()
            .any(|parameter| parameter.name.starts_with(BACKBONE_PREFIX));
        let span = self.profile.span("forward");
        let precision = precision(self.variant.experiment().training.precision);
        let sink = GradientSink::new();
        let features = if backbone_is_frozen {
            let frozen = || self.classifier.features(&batch.images, Phase::Evaluate);
            precision.scope(frozen)?.detach()
        } else {
            let features = || self.classifier.features(&batch.images, phase);
            sink.scope(|| precision.scope(features))?
        };
        let logits = self.classifier.logits(&features, phase)?;
        drop(span);
        let span = self.profile.span("loss");
        let (mut targets, mut mask) = (batch.targets, batch.mask);
        if self.loss_is_own {
            // Those of this workspace check them on the CPU and send them over themselves.
            let device = logits.device();
            targets = targets.to_device(device)?;
            mask = mask.map(|mask| mask.to_device(device)).transpose()?;
        }
        let loss = self.loss.loss(&logits, &targets, mask.as_ref())?;
        drop(span);
        let backward = || Gradients::backward(trained, &loss, &sink);
        let gradients = self.profile.time("backward", backward)?;
        let made = MadeBatch {
            loss: loss.detach(),
            gradients: gradients.size()?,
            names: batch.names,
        };
        Ok((made, gradients))
    }

    /// The loss of a batch, which is finite, as are its gradients.
    fn look_at_batch(
        &self,
        place: Place<'_>,
        step: usize,
        batch: &MadeBatch,
    ) -> Result<f64, TrainError> {
        let loss = f64::from(batch.loss.to_scalar::<f32>()?);
        let what = if loss.is_finite() {
            let (_, first) = batch.gradients.read()?;
            first.map(|index| format!("the gradient of `{}`", place.trained[index].name))
        } else {
            Some("the loss".to_owned())
        };
        match what {
            None => Ok(loss),
            Some(what) => {
                let images = quoted(&batch.names);
                Err(self.not_finite(what, place.stage, place.epoch, step, images))
            }
        }
    }

    /// Whether all weights are finite after a step.
    fn look_at_weights(&self, place: Place<'_>, made: &Made) -> Result<(), TrainError> {
        let (_, first) = made.weights.read()?;
        let Some(name) = first.and_then(|index| made.names.get(index)) else {
            return Ok(());
        };
        let what = format!("`{name}`, after the step,");
        let images = quoted(&made.images());
        Err(self.not_finite(what, place.stage, place.epoch, made.step, images))
    }

    pub(super) fn not_finite(
        &self,
        what: String,
        stage: &Stage,
        epoch: usize,
        step: usize,
        images: String,
    ) -> TrainError {
        let latest = self.folder.latest_checkpoint();
        TrainError::NotFinite {
            what,
            stage: stage.name.clone(),
            epoch,
            step,
            images,
            checkpoint: latest.exists().then_some(latest),
        }
    }
}

fn quoted(images: &[ImageName]) -> String {
    let names: Vec<String> = images.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// How large all tensors of a network and its loss are, and their names.
fn size_of_weights(
    parameters: &Parameters,
    of_loss: &[(String, Var)],
) -> Result<(Vec<String>, Size), TrainError> {
    let of_loss = of_loss.iter();
    let of_loss = of_loss.map(|(name, var)| (name.clone(), var.as_tensor().clone()));
    let all = parameters.tensors("").into_iter().chain(of_loss);
    let (names, tensors): (Vec<String>, Vec<Tensor>) = all.unzip();
    Ok((names, Size::of(&tensors)?))
}
