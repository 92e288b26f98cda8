//! Table 1: the validation images by loss.

use super::{Material, Section, auc_table};
use crate::document::Document;
use crate::paper::{TABLE_1, is_of_a_system, is_of_tau_only, loss_heading, paper_variant};
use crate::tables::{AucTable, Source, Subject, assemble, by_seed};
use cxr_run::{Part, RunMetrics, ViewSet};

/// Table 1.
pub(super) struct ValidationByLoss;

impl Section for ValidationByLoss {
    fn table(&self, runs: &[RunMetrics]) -> Option<AucTable> {
        table(runs)
    }

    fn add(&self, page: &mut Document, from: &Material<'_>) {
        auc_table::add(page, from, 1);
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let table = auc_table::file(from, 1, "table1.csv");
        table.into_iter().collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["table1.csv"]
    }
}

/// Validation mean AUC by loss: the paper prints no more than that.
fn table(runs: &[RunMetrics]) -> Option<AucTable> {
    let of_losses = |run: &&RunMetrics| !is_of_tau_only(run) && !is_of_a_system(run);
    let runs = runs.iter().filter(of_losses);
    let sources = by_seed(runs).into_iter().filter_map(|runs| {
        let run = runs.first()?;
        let name = paper_variant(run).unwrap_or_default();
        Source::new(
            &runs,
            Part::Validation,
            ViewSet::Single,
            loss_heading(run),
            name,
        )
    });
    let title = "Validation mean AUC by loss, single view";
    let mut table = assemble(1, title, &TABLE_1, sources.collect())?;
    table
        .rows
        .retain(|row| !matches!(row.subject, Subject::Label(_)));
    Some(table)
}
