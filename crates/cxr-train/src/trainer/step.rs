//! One optimiser step: forward and backward passes over as many batches as are accumulated, and an update.
//!
//! On a CPU a step is checked before it changes a weight. On a GPU there is no host synchronisation within a step: steps
//! are checked some at a time, later, and what went wrong is still reported of the step in which it did.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use candle_core::{Tensor, Var};
use cxr_dataset::ImageName;
use cxr_losses::MultiLabelLoss;
use cxr_model::BACKBONE_PREFIX;
use cxr_ops::{GradientSink, Parameters, Phase};
use cxr_run::{NormStatistics, TrainingConfig};

use super::exchange::{Exchanged, exchange};
use crate::experiment::{norm_statistics, precision};
use crate::gradients::GradientNorm;
use crate::loader::Batch;
use crate::{
    Classifier, Gradients, MeanGradients, Optimiser, Profile, Ranks, TrainError, Trained,
    WeightAverage,
};

/// Where a step takes its batches from.
pub(crate) type Batches<'a> = dyn Iterator<Item = Result<Batch, TrainError>> + 'a;

/// What a step reads and does not change itself: the network and its loss are changed through their variables.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) classifier: &'a Classifier,
    pub(crate) loss: &'a dyn MultiLabelLoss,
    /// A loss from outside takes targets where the logits are; ours check them on the CPU and send them over themselves.
    pub(crate) loss_is_own: bool,
    pub(crate) loss_variables: &'a [(String, Var)],
    pub(crate) training: &'a TrainingConfig,
    /// What the stage's normalisations of the backbone normalise by.
    pub(crate) norm_statistics: NormStatistics,
    /// What is trained.
    pub(crate) trained: &'a [Trained],
    /// The epoch, counted through the stages from 0.
    pub(crate) epoch: usize,
    /// The step within the epoch, from 0.
    pub(crate) step: usize,
    pub(crate) learning_rate: f64,
    /// The batches that the step is made of, over all ranks.
    pub(crate) n_batches: usize,
    /// Who shares them.
    pub(crate) ranks: &'a dyn Ranks,
    /// Whether this process was asked to stop; the ranks tell each other.
    pub(crate) stop: &'a AtomicBool,
    pub(crate) profile: &'a Profile,
}

/// Something that is not finite: what, and on which images.
pub(crate) struct NotFinite {
    pub(crate) what: String,
    pub(crate) images: Vec<ImageName>,
}

/// Why a step was not made, or is of no use.
pub(crate) enum StepError {
    NotFinite(NotFinite),
    Other(Box<TrainError>),
}

impl<E: Into<TrainError>> From<E> for StepError {
    fn from(error: E) -> Self {
        Self::Other(Box::new(error.into()))
    }
}

/// A step that was made, or that a device is still at.
pub(crate) struct MadeStep {
    pub(crate) step: usize,
    pub(crate) learning_rate: f64,
    batches: Vec<MadeBatch>,
    /// Of the mean over the batches but for its divisor, before it was clipped.
    gradients: GradientNorm,
    /// One over that divisor.
    factor: f64,
    /// Of the network and its loss, after the step.
    weights: GradientNorm,
    weight_names: Vec<String>,
    trained_names: Vec<String>,
    /// Whether one of several ranks was asked to stop before the step was made.
    pub(crate) stop: bool,
}

/// A batch whose gradients are computed.
#[derive(Clone)]
pub(super) struct MadeBatch {
    loss: BatchLoss,
    names: Vec<ImageName>,
}

#[derive(Clone)]
enum BatchLoss {
    /// Not read yet, as little as the norm of its gradients.
    Pending {
        loss: Tensor,
        gradients: GradientNorm,
    },
    /// Of another rank, which has found it and its gradients finite.
    Known(f64),
}

impl Step<'_> {
    /// Makes the step on the next batches. With `check` every batch and the weights are checked at once, so that a step
    /// that goes wrong changes no weight and no average; several ranks check in any case.
    ///
    /// # Errors
    /// What is not finite, where it is checked; no batch; what the network or its loss cannot compute.
    pub(crate) fn make(
        &self,
        optimiser: &mut Optimiser,
        average: Option<&mut WeightAverage>,
        batches: &mut Batches<'_>,
        check: bool,
    ) -> Result<MadeStep, StepError> {
        let span = || self.profile.span("step").of_step(self.epoch, self.step);
        let _span = span();
        let is_shared = self.ranks.size() > 1;
        let check = check || is_shared;
        let Exchanged {
            batches: made,
            gradients,
            stop,
        } = match is_shared {
            true => exchange(self, batches)?,
            false => self.accumulate(batches, check)?,
        };
        let Some(mut gradients) = gradients else {
            return Err(no_batch().into());
        };
        let _span = self.profile.span("optimiser");
        let norm = match &made[..] {
            // The mean of one batch is that batch's.
            [
                MadeBatch {
                    loss: BatchLoss::Pending { gradients, .. },
                    ..
                },
            ] => gradients.clone(),
            _ => gradients.norm_on_device()?,
        };
        let factor = gradients.scale();
        if let Some(largest) = self.training.clip_norm {
            gradients.clip_to(&norm, largest)?;
        }
        optimiser.step(self.learning_rate, self.trained, &gradients)?;
        let parameters = self.classifier.parameters();
        let (weight_names, weights) = norm_of_weights(parameters, self.loss_variables)?;
        let names = self.trained.iter();
        let made = MadeStep {
            step: self.step,
            learning_rate: self.learning_rate,
            batches: made,
            gradients: norm,
            factor,
            weights,
            weight_names,
            trained_names: match check {
                // They were checked.
                true => Vec::new(),
                false => names.map(|trained| trained.name.clone()).collect(),
            },
            stop,
        };
        if check {
            made.check_weights()?;
        }
        if let Some(average) = average {
            average.update(parameters)?;
        }
        Ok(made)
    }

    /// Loss and gradients of all batches of the step, one after the other.
    fn accumulate(&self, batches: &mut Batches<'_>, check: bool) -> Result<Exchanged, StepError> {
        let (mut mean, mut made) = (MeanGradients::default(), Vec::new());
        for _ in 0..self.n_batches {
            let (batch, gradients) = self.gradients(self.next(batches)?)?;
            if check {
                batch.check(&|index| self.name(index))?;
            }
            mean.add(gradients, batch.names.len())?;
            made.push(batch);
        }
        Ok(Exchanged {
            batches: made,
            gradients: mean.finish(),
            stop: false,
        })
    }

    /// The next batch of this process.
    pub(super) fn next(&self, batches: &mut Batches<'_>) -> Result<Batch, TrainError> {
        let waiting = self.profile.span("loader wait");
        let _waiting = waiting.of_step(self.epoch, self.step);
        batches.next().unwrap_or_else(|| Err(no_batch()))
    }

    /// The name of a trained parameter.
    pub(super) fn name(&self, index: usize) -> String {
        let trained = self.trained.get(index);
        trained.map_or_else(String::new, |trained| trained.name.clone())
    }

    /// Loss and gradients of a batch.
    pub(super) fn gradients(&self, batch: Batch) -> Result<(MadeBatch, Gradients), TrainError> {
        let phase = batch.phase();
        let backbone_is_frozen = !self
            .trained
            .iter()
            .any(|parameter| parameter.name.starts_with(BACKBONE_PREFIX));
        let span = self.profile.span("forward");
        let precision = precision(self.training.precision);
        let sink = GradientSink::new();
        let features = if backbone_is_frozen {
            let frozen = || self.classifier.features(&batch.images, Phase::Evaluate);
            precision.scope(frozen)?.detach()
        } else {
            let features = || self.classifier.features(&batch.images, phase);
            let statistics = norm_statistics(self.norm_statistics);
            sink.scope(|| statistics.scope(|| precision.scope(features)))?
        };
        let non_image = batch.non_image.as_ref();
        let outputs = (self.classifier).outputs(&features, non_image, phase)?;
        drop(span);
        let span = self.profile.span("loss");
        let (mut targets, mut mask) = (batch.targets, batch.mask);
        if self.loss_is_own {
            let device = outputs.device();
            targets = targets.to_device(device)?;
            mask = mask.map(|mask| mask.to_device(device)).transpose()?;
        }
        let loss = self.loss.loss(&outputs, &targets, mask.as_ref())?;
        drop(span);
        let backward = || Gradients::backward(self.trained, &loss, &sink);
        let gradients = self.profile.time("backward", backward)?;
        let made = MadeBatch {
            loss: BatchLoss::Pending {
                loss: loss.detach(),
                gradients: gradients.norm_on_device()?,
            },
            names: batch.names,
        };
        Ok((made, gradients))
    }
}

impl MadeStep {
    /// The step's loss and the norm of its gradient, which a device is waited for; all of it is finite.
    pub(crate) fn read(&self) -> Result<(f64, f64), StepError> {
        let mut loss = MeanLoss::default();
        for batch in &self.batches {
            let name = |index: usize| self.trained_names.get(index).cloned().unwrap_or_default();
            loss.add(batch.check(&name)?, batch.names.len());
        }
        self.check_weights()?;
        let (norm, _) = self.gradients.read()?;
        Ok((loss.mean(), self.factor * norm))
    }

    /// Whether all weights are finite after the step.
    fn check_weights(&self) -> Result<(), StepError> {
        let (_, first) = self.weights.read()?;
        let Some(name) = first.and_then(|index| self.weight_names.get(index)) else {
            return Ok(());
        };
        Err(StepError::NotFinite(NotFinite {
            what: format!("`{name}`, after the step,"),
            images: self.images(),
        }))
    }

    /// The number of images.
    pub(crate) fn n_images(&self) -> usize {
        self.batches.iter().map(|batch| batch.names.len()).sum()
    }

    fn images(&self) -> Vec<ImageName> {
        let batches = self.batches.iter();
        batches.flat_map(|batch| &batch.names).cloned().collect()
    }
}

fn no_batch() -> TrainError {
    let (expected, found) = ("batches to the end of the epoch", "none");
    TrainError::setting("loader", expected, found)
}

impl MadeBatch {
    /// A batch that another rank has computed and checked.
    pub(super) fn known(loss: f64, names: Vec<ImageName>) -> Self {
        Self {
            loss: BatchLoss::Known(loss),
            names,
        }
    }

    /// Its images.
    pub(super) fn names(&self) -> &[ImageName] {
        &self.names
    }

    /// The loss of the batch, which is finite, as are its gradients; `name` is that of a trained parameter.
    pub(super) fn check(&self, name: &dyn Fn(usize) -> String) -> Result<f64, StepError> {
        let (loss, gradients) = match &self.loss {
            BatchLoss::Pending { loss, gradients } => (loss, gradients),
            BatchLoss::Known(loss) => return Ok(*loss),
        };
        let loss = f64::from(loss.to_scalar::<f32>()?);
        let what = if loss.is_finite() {
            let (_, first) = gradients.read()?;
            first.map(|index| format!("the gradient of `{}`", name(index)))
        } else {
            Some("the loss".to_owned())
        };
        match what {
            None => Ok(loss),
            Some(what) => Err(StepError::NotFinite(NotFinite {
                what,
                images: self.names.clone(),
            })),
        }
    }
}

/// Steps whose losses and norms were not read yet.
pub(crate) struct PendingSteps {
    steps: Vec<MadeStep>,
    since: Instant,
}

impl PendingSteps {
    pub(crate) fn new() -> Self {
        Self {
            steps: Vec::new(),
            since: Instant::now(),
        }
    }

    pub(crate) fn push(&mut self, made: MadeStep) {
        self.steps.push(made);
    }

    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Takes the steps, with the seconds that each took.
    pub(crate) fn take(&mut self) -> Vec<MadeStep> {
        std::mem::take(&mut self.steps)
    }

    /// The mean seconds of so many steps since the last call.
    pub(crate) fn seconds_a_step(&mut self, steps: usize) -> f64 {
        let seconds = self.since.elapsed().as_secs_f64() / steps.max(1) as f64;
        self.since = Instant::now();
        seconds
    }
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

/// How large all tensors of a network and its loss are, and their names.
fn norm_of_weights(
    parameters: &Parameters,
    of_loss: &[(String, Var)],
) -> Result<(Vec<String>, GradientNorm), TrainError> {
    let of_loss = of_loss.iter();
    let of_loss = of_loss.map(|(name, var)| (name.clone(), var.as_tensor().clone()));
    let all = parameters.tensors("").into_iter().chain(of_loss);
    let (names, tensors): (Vec<String>, Vec<Tensor>) = all.unzip();
    Ok((names, GradientNorm::of(&tensors)?))
}
