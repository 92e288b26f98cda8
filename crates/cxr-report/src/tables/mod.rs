//! The paper's tables from our runs, beside the published ones.
//!
//! A table is made where runs for it exist. Its columns are runs, or the view sets of one run; its
//! rows are the labels, then the mean over all labels with a defined AUC, then the same without
//! Hernia: in the paper that one finding, with 86 test images, makes FZLPR's whole gain over BCE and
//! focal. A run on phantoms has no published figures beside it.

mod assemble;
mod csv;

pub(crate) use assemble::{Source, assemble, by_seed, key};
pub(crate) use csv::or_empty;

pub use crate::sections::{
    MethodsRow, MethodsTable, StageRow, StageTable, SystemRow, SystemRuns, SystemsTable,
    methods_table, stage_table, system_runs, systems_table,
};

use cxr_metrics::APPROXIMATE_BELOW;

use crate::ranks::Rank;
use crate::sections::SECTIONS;
use cxr_run::{BootstrapSummary, Part, RunMetrics, ViewSet};

/// What the title of a table of phantoms ends in.
pub(crate) const PHANTOM_LABEL: &str = "; phantom data";

/// Every table of AUCs for which there are runs, in the paper's order: 1 to 4, then 5 of the published systems that were run. Runs that differ in
/// nothing but the seed share a column. Columns are in the order of the
/// runs, which should be that of [`RunFolder::find`](cxr_run::RunFolder::find).
pub fn tables(runs: &[RunMetrics]) -> Vec<AucTable> {
    let of_sections = SECTIONS.iter().filter_map(|section| section.table(runs));
    let mut tables: Vec<AucTable> = of_sections.collect();
    for table in &mut tables {
        let is_in_it = |run: &&RunMetrics| {
            let mut columns = table.columns.iter();
            columns.any(|column| column.variant == run.variant)
        };
        table.is_phantom = runs.iter().filter(is_in_it).any(|run| run.data.phantom);
        if table.is_phantom {
            table.title.push_str(PHANTOM_LABEL);
        }
    }
    tables
}

/// One of the paper's tables, made from our runs.
#[derive(Clone, Debug, PartialEq)]
pub struct AucTable {
    /// The paper's number.
    pub number: u8,
    /// What it shows; it ends in `phantom data` where [`Self::is_phantom`].
    pub title: String,
    /// Whether a run in it is on images that are drawn, not taken.
    pub is_phantom: bool,
    /// What is compared.
    pub columns: Vec<Column>,
    /// The labels, then the means.
    pub rows: Vec<Row>,
}

/// One column: a run's prediction of one part under one view set.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// What a reader is shown, such as `FZLPR (τ = 0.2)`.
    pub heading: String,
    /// The run; of several seeds the first.
    pub variant: String,
    /// The seeds, one per training.
    pub seeds: Vec<u64>,
    /// The views.
    pub views: ViewSet,
    /// The predicted images: `validation` or `test`.
    pub part: Part,
    /// How the interval of the mean was made, if it has one.
    pub bootstrap: Option<BootstrapSummary>,
    /// Whether the paper has this column, and the run is not on phantoms.
    pub is_published: bool,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is about.
    pub subject: Subject,
    /// Images with the finding, where all columns agree on it; `None` for means.
    pub positives: Option<usize>,
    /// Images without it.
    pub negatives: Option<usize>,
    /// One cell per column.
    pub cells: Vec<Cell>,
}

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One label.
    Label(String),
    /// The mean over all labels with a defined AUC.
    Mean,
    /// The mean over all of them but one label.
    MeanWithout(&'static str),
}

/// One AUC, ours and the published one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// Ours; `None` when undefined.
    pub auc: Option<f64>,
    /// Its 95 % interval, where one was computed and the AUC is of one training.
    pub interval: Option<Interval>,
    /// How far the AUCs of several seeds lie apart; their mean is the AUC.
    pub spread: Option<Spread>,
    /// Over how many labels: 1 or 0 for a label's row.
    pub n_labels: usize,
    /// Our place in the row.
    pub rank: Option<Rank>,
    /// The published AUC. Of a mean: over the same labels as ours.
    pub published: Option<f64>,
    /// Its place in the row of the published table.
    pub published_rank: Option<Rank>,
}

/// Several trainings of one loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Sample standard deviation of their AUCs.
    pub sd: f64,
    /// How many there are, at least two.
    pub n: usize,
}

/// A 95 % interval and how it was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// The degrees of freedom of the error it is from; `None` for a bootstrap's.
    pub degrees_of_freedom: Option<f64>,
    /// How it was made.
    pub method: IntervalMethod,
}

/// How an interval was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalMethod {
    /// DeLong's error and Student's t, images taken as independent; of a mean the same in closed form.
    Delong,
    /// The same with the patient as the unit (Obuchowski 1997).
    DelongByPatient,
    /// Bootstrap of images.
    Bootstrap,
    /// Bootstrap of patients.
    BootstrapByPatient,
}

impl Cell {
    /// Ours minus the published.
    pub fn difference(&self) -> Option<f64> {
        Some(self.auc? - self.published?)
    }
}

impl Interval {
    /// Whether fewer than ten degrees of freedom make it approximate.
    pub fn is_approximate(&self) -> bool {
        self.degrees_of_freedom
            .is_some_and(|degrees| degrees < APPROXIMATE_BELOW)
    }
}

impl IntervalMethod {
    /// The name in CSV files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delong => "delong",
            Self::DelongByPatient => "delong-by-patient",
            Self::Bootstrap => "bootstrap",
            Self::BootstrapByPatient => "bootstrap-by-patient",
        }
    }
}

impl Subject {
    /// The name in CSV files.
    pub fn name(&self) -> String {
        match self {
            Self::Label(label) => label.clone(),
            Self::Mean => "mean".to_owned(),
            Self::MeanWithout(label) => format!("mean without {label}"),
        }
    }
}

impl AucTable {
    /// Whether it contains a published figure.
    pub fn has_published(&self) -> bool {
        self.columns.iter().any(|column| column.is_published)
    }
}
