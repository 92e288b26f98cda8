//! What each stage of training adds: the mean AUC untrained, with the top network alone, fully tuned.

use super::words::auc;
use super::{Material, Section};
use crate::document::{Block, Document, Table, TableCell};
use crate::paper::{is_of_a_system, loss_heading};
use crate::tables::{PHANTOM_LABEL, or_empty};
use cxr_run::{MeanAuc, Part, RunMetrics, ViewSet};
use cxr_table::csv_line as line;

/// What each stage adds.
pub(super) struct Stages;

impl Section for Stages {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        if let Some(stages) = from.report.stage_table() {
            add_stages(page, &stages);
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let table = from.report.stage_table();
        let file = table.map(|table| ("stages.csv", table.to_csv()));
        file.into_iter().collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["stages.csv"]
    }
}

/// Test and validation mean AUC of each run before training and after each of its stages.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTable {
    /// What it shows; it ends in `phantom data` where [`Self::is_phantom`].
    pub title: String,
    /// Whether a run in it is on images that are drawn, not taken.
    pub is_phantom: bool,
    /// `untrained`, then one heading per stage, such as ``after `top network` ``.
    pub headings: Vec<String>,
    /// One row per run.
    pub rows: Vec<StageRow>,
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct StageRow {
    /// The run.
    pub variant: String,
    /// What a reader is shown, such as `FZLPR (τ = 0.2)`.
    pub heading: String,
    /// Validation and test mean AUC, single view, one pair for each of [`StageTable::headings`].
    pub means: Vec<[MeanAuc; 2]>,
}

/// The table of the runs that kept what it needs; `None` where none has. Runs whose stages are named
/// otherwise than the first one's are left out, and published systems, whose table has their untrained networks.
pub fn stage_table(runs: &[RunMetrics]) -> Option<StageTable> {
    let kept_them = |run: &&RunMetrics| !run.stages.is_empty() && !is_of_a_system(run);
    let with_stages = runs.iter().filter(kept_them);
    let names = |run: &RunMetrics| -> Vec<String> {
        let names = run.stages.iter().map(|stage| stage.before.clone());
        names.collect()
    };
    let stages = names(with_stages.clone().next()?);
    let alike: Vec<&RunMetrics> = with_stages.filter(|run| names(run) == stages).collect();
    let is_phantom = alike.iter().any(|run| run.data.phantom);
    let mut title = "Mean AUC untrained and after each stage, single view".to_owned();
    if is_phantom {
        title.push_str(PHANTOM_LABEL);
    }
    let mut headings = vec!["untrained".to_owned()];
    headings.extend(stages.iter().map(|stage| format!("after `{stage}`")));
    Some(StageTable {
        title,
        is_phantom,
        headings,
        rows: alike.into_iter().map(row).collect(),
    })
}

fn row(run: &RunMetrics) -> StageRow {
    let before = run
        .stages
        .iter()
        .map(|stage| [stage.validation, stage.test]);
    let at_the_end = [&run.validation, &run.test].map(|summaries| {
        let means = summaries
            .get(&ViewSet::Single)
            .map(|summary| &summary.means);
        MeanAuc {
            auc: means.and_then(|means| means.auc),
            n_labels: means.map_or(0, |means| means.n_labels),
        }
    });
    StageRow {
        variant: run.variant.clone(),
        heading: loss_heading(run),
        means: before.chain([at_the_end]).collect(),
    }
}

impl StageTable {
    /// The table as CSV: one line per run, stage and part. Undefined means are empty.
    pub fn to_csv(&self) -> String {
        let header = [
            "variant",
            "trained",
            "part",
            "mean_auc",
            "n_labels",
            "is_phantom",
        ];
        let mut text = line(header.map(str::to_owned));
        for row in &self.rows {
            for (heading, means) in self.headings.iter().zip(&row.means) {
                for (part, mean) in [Part::Validation, Part::Test].into_iter().zip(means) {
                    text.push_str(&line([
                        row.variant.clone(),
                        heading.clone(),
                        part.to_string(),
                        or_empty(mean.auc),
                        mean.n_labels.to_string(),
                        self.is_phantom.to_string(),
                    ]));
                }
            }
        }
        text
    }
}

/// What each stage of training adds, test images.
fn add_stages(page: &mut Document, table: &StageTable) {
    let of_what = if table.is_phantom {
        "; phantom data"
    } else {
        ""
    };
    page.heading(format!("What each stage adds{of_what}"));
    page.text(format!("**{}.**", table.title));
    let mut header: Vec<TableCell> = vec!["loss".into()];
    header.extend((table.headings.iter()).map(|heading| heading.as_str().into()));
    let mut rows = vec![header];
    for row in &table.rows {
        let mut cells = vec![row.heading.as_str().into()];
        cells.extend(row.means.iter().map(|[_, test]| auc(test.auc)));
        rows.push(cells);
    }
    page.add(Block::Table(Table {
        rows,
        feet: 0,
        file: Some("stages.csv".to_owned()),
    }));
    page.text(
        "Test images. Untrained: the backbone has the weights it began with, the top network random \
         ones. Those of the validation images are in `tables/stages.csv`.",
    );
}
