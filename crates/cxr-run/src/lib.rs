#![doc = include_str!("../README.md")]

mod comparison;
mod component;
mod environment;
mod error;
mod evaluation;
mod events;
mod finish;
mod folder;
mod labels;
mod metrics;
mod model;
mod predictions;
mod progress;
mod summary;

pub use cxr_augment::ViewSet;
pub use cxr_dataset::Part;
pub use cxr_metrics::APPROXIMATE_BELOW;

pub use comparison::{Comparison, ComparisonOptions, LabelComparison, MacroComparison};
pub use component::Component;
pub use environment::Environment;
pub use error::{RunError, read_run_file, write_json};
pub use evaluation::{Evaluation, LeftOut, Truth};
pub use events::{Event, EventLog, LastStep, last_step};
pub use finish::Finish;
pub use folder::{
    ENVIRONMENT_FILE, EVENTS_FILE, EXPERIMENT_FILE, LockedRunFolder, METRICS_FILE, MODEL_FILE,
    RunFolder, compare_variants, output_files,
};
pub use labels::{LabelRow, LabelTable};
pub use metrics::{DataFacts, MeanAuc, Parts, RunMetrics, Seconds, StageFacts};
pub use model::{ModelConfig, head_of_keys};
pub use predictions::{Predictions, ScoreColumn, ScoreKind, Unscorable};
pub use progress::{BestEpoch, EpochRecord, Position, Progress};
pub use summary::{
    BootstrapSummary, DecisionSummary, LabelSummary, MacroSummary, NoInterval, Resampling, Summary,
    SummaryOptions, ends,
};
