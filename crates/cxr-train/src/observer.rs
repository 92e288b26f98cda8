//! What happens during a run.

use serde::Serialize;

use crate::TrainError;

/// Something that happened; also a line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage begins, or goes on after a resume.
    Stage {
        /// Its name.
        stage: &'a str,
        /// Epochs before it.
        first_epoch: usize,
        /// Its epochs.
        epochs: usize,
        /// Steps of an epoch.
        steps: usize,
        /// The epoch and step at which this process takes it up.
        from: (usize, usize),
        /// Values that are trained.
        trained_values: usize,
    },
    /// An optimiser step was made.
    Step {
        /// The stage's name.
        stage: &'a str,
        /// The epoch, counted through the stages from 0.
        epoch: usize,
        /// The step within the epoch, from 0.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
        /// The mean loss of the step's images.
        loss: f64,
        /// The learning rate it was made with.
        rate: f64,
        /// Euclidean norm of the gradient, before it was clipped.
        gradient_norm: f64,
        /// The step's images.
        images: usize,
        /// Seconds since the step before.
        seconds: f64,
    },
    /// An epoch ended and the validation images were scored.
    Epoch {
        /// The stage's name.
        stage: &'a str,
        /// The epoch, counted through the stages from 0.
        epoch: usize,
        /// Mean loss over its steps.
        mean_loss: f64,
        /// Mean AUC of the validation images over the labels that have both classes.
        validation_auc: Option<f64>,
        /// Over how many labels.
        validation_labels: usize,
        /// Whether this is the best mean so far.
        best: bool,
        /// Seconds it took, validation included.
        seconds: f64,
    },
    /// A stage ended early: its validation mean had not risen for as many epochs as its patience.
    EarlyStop {
        /// The stage's name.
        stage: &'a str,
        /// The last epoch, counted through the stages from 0.
        epoch: usize,
        /// The stage's patience.
        patience: usize,
    },
    /// A checkpoint is written now: what was told before this is not told again when the run goes on
    /// from it.
    Checkpoint {
        /// The epoch it resumes in.
        epoch: usize,
        /// The step it resumes at.
        step: usize,
        /// Whether every run writes it, stopped here or not.
        #[serde(skip)]
        scheduled: bool,
    },
    /// Some images were predicted.
    Predicting {
        /// What is predicted: `validation`, `test`.
        part: &'a str,
        /// Images done.
        done: usize,
        /// Images in all.
        total: usize,
    },
}

/// Who is told what happens. `()` does not care.
pub trait Observer {
    /// Called from the training thread, between steps: it should return soon.
    fn on(&mut self, event: &Event<'_>);

    /// Called before a checkpoint is written, after its event. An error ends the run with the
    /// checkpoint before: a run never goes on from one whose past was not kept.
    ///
    /// # Errors
    /// What was told could not be kept.
    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Ok(())
    }
}

impl Observer for () {
    fn on(&mut self, _event: &Event<'_>) {}
}
