//! The course of a training: where its stages and epochs begin, and when a stage is over.

use cxr_run::{Position, Progress, Stage, StageTime, TrainingConfig};

use crate::TrainError;

/// The stages of an experiment on so many training images.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a> {
    training: &'a TrainingConfig,
    n_images: usize,
}

impl<'a> Course<'a> {
    pub(super) fn new(training: &'a TrainingConfig, n_images: usize) -> Self {
        Self { training, n_images }
    }

    /// Whether every schedule fits the length of its stage.
    ///
    /// # Errors
    /// The key of the first that does not.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        for (index, stage) in self.training.stages.iter().enumerate() {
            let key = format!("training.stages[{index}].schedule.warmup");
            let steps = self.steps_per_epoch();
            stage.schedule.check_length(&key, stage.epochs, steps)?;
        }
        Ok(())
    }

    /// Optimiser steps of an epoch.
    pub(super) fn steps_per_epoch(&self) -> usize {
        let training = self.training;
        let batches = training
            .last_batch
            .batches(self.n_images, training.batch_size);
        batches.div_ceil(training.gradient_accumulation_steps)
    }

    /// The stage that a position is in; `None` at the end.
    pub(super) fn stage(&self, position: Position) -> Option<&'a Stage> {
        self.training.stages.get(position.stage)
    }

    /// Epochs of the stages before that of a position.
    pub(super) fn first_epoch(&self, position: Position) -> usize {
        let before = self.training.stages.iter().take(position.stage);
        before.map(|stage| stage.epochs).sum()
    }

    /// The epoch of a position, counted through the stages from 0.
    pub(super) fn epoch(&self, position: Position) -> usize {
        self.first_epoch(position) + position.epoch
    }

    /// The learning rate of a step.
    pub(super) fn learning_rate(&self, stage: &Stage, position: Position, step: usize) -> f64 {
        stage.schedule.learning_rate(StageTime {
            epoch: position.epoch,
            epochs: stage.epochs,
            step,
            steps_per_epoch: self.steps_per_epoch(),
        })
    }

    /// Whether a checkpoint is written after so many steps of an epoch, before its end.
    pub(super) fn has_checkpoint_after(&self, steps: usize) -> bool {
        steps < self.steps_per_epoch() && steps.is_multiple_of(self.training.checkpoint_steps)
    }

    /// How a stage stands after an epoch.
    pub(super) fn standing(&self, stage: &Stage, progress: &Progress) -> Standing {
        if progress.position.epoch == stage.epochs {
            return Standing::Done;
        }
        let first_epoch = self.first_epoch(progress.position);
        let of_stage = progress.history.iter();
        let of_stage = of_stage.filter(|record| record.epoch >= first_epoch);
        let means: Vec<Option<f64>> = of_stage.map(|record| record.validation_auc).collect();
        match stage.patience.map(EarlyStopping::new) {
            Some(early_stopping) if early_stopping.is_due(&means) => Standing::StoppedEarly {
                patience: early_stopping.patience,
            },
            _ => Standing::GoesOn,
        }
    }
}

/// How a stage stands after an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has further epochs.
    GoesOn,
    /// All its epochs are made.
    Done,
    /// The validation mean has not risen for so many epochs.
    StoppedEarly {
        /// So many.
        patience: usize,
    },
}

/// Ends a stage whose validation mean no longer rises.
#[derive(Debug, Clone, Copy)]
struct EarlyStopping {
    /// Epochs without a new best mean.
    patience: usize,
}

impl EarlyStopping {
    fn new(patience: usize) -> Self {
        Self { patience }
    }

    /// Whether a stage with these means, one for each epoch so far, ends; an undefined mean does not rise.
    fn is_due(self, means: &[Option<f64>]) -> bool {
        let mut best: Option<f64> = None;
        let mut since = 0;
        for mean in means {
            since += 1;
            if let Some(mean) = *mean
                && best.is_none_or(|best| mean > best)
            {
                (best, since) = (Some(mean), 0);
            }
        }
        since >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::EarlyStopping;

    #[test]
    fn patience_counts_from_the_best_epoch() {
        for (means, epochs_without_rise) in [
            (vec![], 0),
            (vec![Some(0.5)], 0),
            (vec![Some(0.5), Some(0.4), Some(0.5)], 2),
            (vec![Some(0.5), Some(0.4), Some(0.6)], 0),
            (vec![None, None], 2),
            (vec![Some(0.5), None], 1),
        ] {
            for patience in 1..4 {
                let is_due = EarlyStopping::new(patience).is_due(&means);
                assert_eq!(is_due, epochs_without_rise >= patience, "{means:?}");
            }
        }
    }
}
