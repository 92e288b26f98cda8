//! One optimiser step, and what it must not do.

use candle_core::{Tensor, Var};
use cxr_dataset::ImageName;
use cxr_ops::{Parameters, Phase};

use super::Trainer;
use crate::gradients::sums_of_squares;
use crate::groups::BACKBONE;
use crate::loader::{Batch, Batches, image_keys};
use crate::{Gradients, MeanGradients, Stage, TrainError, Trained};

/// What a step was.
pub(super) struct Made {
    /// The mean loss of its images, before it.
    pub(super) loss: f64,
    /// Before it was clipped.
    pub(super) gradient_norm: f64,
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
        stage: &Stage,
        trained: &[Trained],
        batches: &mut Batches,
        epoch: usize,
        rate: f64,
    ) -> Result<Made, TrainError> {
        let training = &self.variant.experiment().training;
        let (mut mean, mut loss) = (MeanGradients::default(), MeanLoss::default());
        let number = self.state.progress.position.step;
        let _span = self.profile.span("step").of_step(epoch, number);
        self.last_images.clear();
        for _ in 0..training.accumulate {
            let waiting = self.profile.span("loader wait").of_step(epoch, number);
            let Some(batch) = batches.next() else {
                break;
            };
            drop(waiting);
            let batch = batch?;
            let (of_batch, gradients) = self.gradients(stage, trained, &batch, epoch)?;
            loss.add(of_batch, batch.names.len());
            mean.add(gradients, batch.names.len())?;
            self.last_images.extend(batch.names);
        }
        let Some(mut gradients) = mean.finish() else {
            let (expected, found) = ("batches to the end of the epoch", "none");
            return Err(TrainError::setting("loader", expected, found));
        };
        let _span = self.profile.span("optimiser");
        let gradient_norm = gradients.norm()?;
        if let Some(largest) = training.clip_norm {
            gradients.clip(gradient_norm, largest);
        }
        self.state.optimiser.step(rate, trained, &gradients)?;
        let parameters = self.classifier.parameters();
        if let Some(name) = first_not_finite(parameters, &self.loss_variables)? {
            let what = format!("`{name}`, after the step,");
            return Err(self.not_finite(what, stage, epoch, &self.last_images));
        }
        if let Some(average) = &mut self.state.average {
            average.update(parameters)?;
        }
        Ok(Made {
            loss: loss.mean(),
            gradient_norm,
        })
    }

    /// Loss and gradients of a batch, both finite.
    fn gradients(
        &self,
        stage: &Stage,
        trained: &[Trained],
        batch: &Batch,
        epoch: usize,
    ) -> Result<(f64, Gradients), TrainError> {
        let seed = self.variant.experiment().seed;
        let keys = image_keys(&batch.names, seed, epoch);
        let phase = Phase::Train { image_keys: &keys };
        let backbone_is_frozen = !trained
            .iter()
            .any(|parameter| parameter.name.starts_with(BACKBONE));
        let span = self.profile.span("forward");
        let precision = self.variant.experiment().training.precision;
        let features = if backbone_is_frozen {
            let frozen = || self.classifier.features(&batch.images, Phase::Evaluate);
            precision.scope(frozen)?.detach()
        } else {
            precision.scope(|| self.classifier.features(&batch.images, phase))?
        };
        let logits = self.classifier.logits(&features, phase)?;
        drop(span);
        let span = self.profile.span("loss");
        let loss = self
            .loss
            .loss(&logits, &batch.targets, batch.mask.as_ref())?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        drop(span);
        if !value.is_finite() {
            return Err(self.not_finite("the loss".to_owned(), stage, epoch, &batch.names));
        }
        let gradients =
            Gradients::new(trained, &self.profile.time("backward", || loss.backward())?)?;
        if let Some(index) = gradients.first_not_finite()? {
            let what = format!("the gradient of `{}`", trained[index].name);
            return Err(self.not_finite(what, stage, epoch, &batch.names));
        }
        Ok((value, gradients))
    }

    pub(super) fn not_finite(
        &self,
        what: String,
        stage: &Stage,
        epoch: usize,
        images: &[ImageName],
    ) -> TrainError {
        let names: Vec<String> = images.iter().map(|name| format!("`{name}`")).collect();
        let latest = self.folder.latest();
        TrainError::NotFinite {
            what,
            stage: stage.name.clone(),
            epoch,
            step: self.state.progress.position.step,
            images: names.join(", "),
            checkpoint: latest.exists().then_some(latest),
        }
    }
}

/// The first tensor of a network or its loss that has a value which is not finite, or whose square is not.
fn first_not_finite(
    parameters: &Parameters,
    of_loss: &[(String, Var)],
) -> Result<Option<String>, TrainError> {
    let of_loss = of_loss.iter();
    let of_loss = of_loss.map(|(name, var)| (name.clone(), var.as_tensor().clone()));
    let (names, tensors): (Vec<String>, Vec<Tensor>) =
        parameters.tensors("").into_iter().chain(of_loss).unzip();
    let squares = sums_of_squares(&tensors)?;
    let mut all = names.into_iter().zip(squares);
    let found = all.find(|(_, square)| !(*square as f32).is_finite());
    Ok(found.map(|(name, _)| name))
}
