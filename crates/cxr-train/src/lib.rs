//! Training and prediction: the loader, the classifier, the optimiser, schedules and stages,
//! checkpoints, prediction with test-time views.
//!
//! An [`Experiment`] (a TOML file) says what to train; [`TrainingData`] what on; [`Trainer`] does
//! it in stages, tells an [`Observer`] what happens, looks at a stop flag between steps, and
//! resumes from its own checkpoints; [`predict`] turns images into logits, view by view.
//!
//! **Same bits.** A run is a function of its experiment and its data: draws are keyed by (seed,
//! epoch, image), sums have a fixed order, and a checkpoint's position is (stage, epoch, step).
//! Neither the number of threads nor being stopped and resumed changes a weight; another
//! [`InstructionSet`] does.
//!
//! **Never here:** command lines, the network, the terminal.
//!
//! ```
//! use candle_core::{Device, DType, Tensor};
//! use cxr_train::{Classifier, Experiment, ModelCard, Phase};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let experiment = Experiment::parse(r#"
//!     name = "tiny"
//!     [model]
//!     backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 1] } }
//!     [augmentation]
//!     image_size = 64
//!     crop_size = 48
//!     [[training.stages]]
//!     name = "all layers"
//!     epochs = 1
//!     schedule = { cosine = { learning_rate = 1e-3, min_learning_rate = 1e-5 } }
//!     [[variants]]
//!     name = "zlpr"
//!     loss = "zlpr"
//! "#)?;
//! let variant = experiment.variant("zlpr")?;
//! let card = ModelCard::new(&variant, &["Edema", "Hernia"])?;
//! let classifier = Classifier::new(&card, 0, &Device::Cpu)?;
//! let images = Tensor::zeros((2, 3, 48, 48), DType::F32, &Device::Cpu)?;
//! assert_eq!(classifier.forward_t(&images, Phase::Evaluate)?.dims(), [2, 2]);
//! # Ok(()) }
//! ```

mod algorithms;
mod average;
mod checkpoint;
mod compute;
mod data;
mod dry_pass;
mod error;
mod experiment;
mod gradients;
mod groups;
mod loader;
mod observer;
mod optimiser;
mod own_parts;
mod predict;
pub mod prelude;
mod profile;
mod ranks;
mod rehearsal;
mod sampler;
mod trainer;

/// The tensor library, in the version that this crate's interface has.
pub use candle_core;
pub use cxr_backbone::Backbone;
pub use cxr_losses::{Granularity, LabelCounts, MultiLabelLoss, known};
pub use cxr_model::{
    Classifier, ModelCard, OwnNetwork, Prediction, load_model, load_model_with, load_weights,
    save_backbone, save_model,
};
pub use cxr_ops::{DeviceOptions, cuda_device, cuda_memory_peak};
pub use cxr_ops::{GradientSink, InstructionSet, ParameterPath, Phase, Precision};
pub use cxr_run::{
    AdamWConfig, BestEpoch, Component, DataConfig, Decision, EpochRecord, Event, EventLog,
    Experiment, LastBatch, LastStep, LockedRunFolder, ModelConfig, OptimiserConfig, ParameterGroup,
    Per, PhantomLabels, PhantomSettings, Position, RmsPropConfig, RunError, RunFolder, RunStatus,
    Schedule, SgdConfig, Stage, StageTime, TrainingConfig, Uncertainty, UncertaintyPolicy, Variant,
    VariantExperiment, ViewSet,
};
pub use cxr_top::Head;

pub use algorithms::record_algorithms;
pub use average::WeightAverage;
pub use data::TrainingData;
pub use dry_pass::dry_pass;
pub use error::TrainError;
pub use experiment::{
    check_experiment, complete, is_written_as, label_counts, loss, loss_for, read_experiment,
};
pub use gradients::{Gradients, MeanGradients};
pub use groups::Trained;
pub use loader::{Batch, Batches, Loader, epoch_order};
pub use observer::{EpochEnd, Observer, at_epoch_end, on_event};
pub use optimiser::Optimiser;
pub use own_parts::OwnParts;
pub use predict::predict;
pub use profile::{Profile, Span};
#[cfg(feature = "mpi")]
pub use ranks::MpiRanks;
pub use ranks::{Alone, Ranks, RanksError, ThreadRanks};
pub use rehearsal::{Rehearsal, rehearse};
pub use sampler::{Sampler, Shuffled, WeightedSampler};
pub use trainer::{TrainOutcome, Trainer};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
