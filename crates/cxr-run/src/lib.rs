#![doc = include_str!("../README.md")]

mod comparison;
mod component;
mod description;
mod environment;
mod error;
mod evaluation;
mod events;
mod experiment;
mod external;
mod finish;
mod folder;
mod groups;
mod labels;
mod metrics;
mod model;
mod network;
mod optimiser;
mod predictions;
mod progress;
mod schedule;
mod status;
mod studies;
mod summary;

pub use cxr_augment::ViewSet;
pub use cxr_dataset::{CHEST_X_RAY14_LABELS, Part};
pub use cxr_metrics::APPROXIMATE_BELOW;

pub use comparison::{Comparison, ComparisonOptions, LabelComparison, MacroComparison};
pub use component::Component;
pub use description::{DESCRIPTION_KEY, description_of};
pub use environment::Environment;
pub use error::{RunError, read_run_file, write_json};
pub use evaluation::{Evaluation, LeftOut, Truth};
pub use events::{Decision, Event, EventLog, LastStep, last_step};
pub use experiment::{
    DataConfig, Experiment, LabelWeights, LastBatch, NormStatistics, PhantomLabels,
    PhantomSettings, Precision, Stage, TrainingConfig, UNCERTAIN_CLASS, Uncertainty,
    UncertaintyPolicy, Variant, VariantExperiment,
};
pub use external::{ExternalFacts, ExternalTest, ScoredImages, StudyRule, StudySummary};
pub use finish::Finish;
pub use folder::{
    ENVIRONMENT_FILE, EVENTS_FILE, EXPERIMENT_FILE, LockedRunFolder, METRICS_FILE, MODEL_FILE,
    RunFolder, compare_variants, output_files,
};
pub use groups::ParameterGroup;
pub use labels::{LabelRow, LabelTable};
pub use metrics::{DataFacts, MeanAuc, Parts, RunMetrics, Seconds, StageFacts};
pub use model::{ModelConfig, head_of_keys};
pub use network::NetworkPart;
pub use optimiser::{AdamWConfig, OptimiserConfig, RmsPropConfig, SgdConfig};
pub use predictions::{Predictions, ScoreColumn, ScoreKind, Unscorable};
pub use progress::{BestEpoch, EpochRecord, Position, Progress};
pub use schedule::{Per, Schedule, StageTime};
pub use status::RunStatus;
pub use studies::Studies;
pub use summary::{
    BootstrapSummary, DecisionSummary, LabelSummary, MacroSummary, NoInterval, Resampling, Summary,
    SummaryOptions, ends,
};
