//! What a program that trains needs most, of this crate and of those that it stands on: `use cxr_train::prelude::*;`.
//!
//! ```no_run
//! use cxr_train::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let experiment = Experiment::read("mine.toml".as_ref())?;
//! let folder = DataFolder::new("data/nih").allow_missing(true);
//! let data = TrainingData::from_folder(&folder, &experiment, "runs/mine/images-256.store")?;
//! let run = RunFolder::open("runs/mine/bce")?;
//! let mut trainer = Trainer::new(&experiment.variant("bce")?, &data, &run, &Device::Cpu)?;
//! trainer.run(&mut trainer.event_log()?, &Default::default())?;
//! # Ok(()) }
//! ```

pub use candle_core::{DType, Device, Tensor};
pub use cxr_augment::{KeyedRng, Pipeline, Transform, View, ViewSet};
pub use cxr_dataset::{
    DataFolder, ImageFiles, ImageName, Index, LabelState, MergeSource, OfficialLists, Part, Record,
    Split, Store, ValidationSplit,
};
pub use cxr_losses::{Bce, Granularity, MultiLabelLoss, known};
pub use cxr_model::{OwnNetwork, Predictor, PreparedImage};
pub use cxr_ops::{GradientSink, ParameterPath, Phase, Role};

pub use crate::{
    Backbone, Batch, Classifier, Decision, EpochEnd, Event, Experiment, Gradients, Head, LastBatch,
    Loader, ModelCard, Observer, Optimiser, OptimiserConfig, OwnParts, Prediction, RunFolder,
    Sampler, TrainError, TrainOutcome, Trained, Trainer, TrainingData, WeightedSampler,
    at_epoch_end, check_experiment, dry_pass, load_model, load_model_with, on_event, predict,
    save_model,
};
