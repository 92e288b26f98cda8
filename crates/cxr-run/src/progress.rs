//! How far a training is: its position, and what its epochs gave.

use serde::{Deserialize, Serialize};

use crate::metrics::required;

/// The step that a run makes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// Index of the stage; the number of stages once the run is over.
    pub stage: usize,
    /// The epoch within the stage, from 0.
    pub epoch: usize,
    /// The step within the epoch, from 0.
    pub step: usize,
}

/// A finished epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The stage's name.
    pub stage: String,
    /// The epoch, counted from 0 through all stages.
    pub epoch: usize,
    /// Its optimiser steps.
    pub steps: usize,
    /// Mean training loss over them.
    pub mean_loss: f64,
    /// Mean AUC of the validation images after the epoch, single view; `None` when no label has both classes, or the
    /// epoch was not validated.
    #[serde(deserialize_with = "required")]
    pub validation_auc: Option<f64>,
    /// Over how many labels that mean is.
    pub validation_labels: usize,
    /// Wall time of the epoch with its validation in seconds, over all processes that worked on it.
    pub seconds: f64,
}

/// The epoch with the best validation mean so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// The stage's name.
    pub stage: String,
    /// The epoch, counted from 0 through all stages.
    pub epoch: usize,
    /// Its mean AUC of the validation images, single view.
    pub validation_auc: f64,
}

/// All of a training's state that is not a tensor, as its checkpoints keep it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is to be done next.
    pub position: Position,
    /// Sum of the losses of the epoch's steps so far.
    pub loss_sum: f64,
    /// Seconds spent in the epoch so far.
    pub seconds: f64,
    /// The finished epochs.
    pub history: Vec<EpochRecord>,
    /// The best of them.
    pub best: Option<BestEpoch>,
}
