//! Table 2: the test images by loss, with paired tests and ROC curves.

use super::paired_tests;
use super::{Material, Section, auc_table};
use crate::document::Document;
use crate::paper::{TABLE_2, is_of_a_system, is_of_tau_only, loss_heading, paper_variant};
use crate::tables::{AucTable, Source, assemble, by_seed};
use cxr_run::{Part, RunMetrics, ViewSet};

/// Table 2, the tests between its losses, and Figure 5.
pub(super) struct TestByLoss;

impl Section for TestByLoss {
    fn table(&self, runs: &[RunMetrics]) -> Option<AucTable> {
        table(runs)
    }

    fn add(&self, page: &mut Document, from: &Material<'_>) {
        auc_table::add(page, from, 2);
        if from.table(2).is_some() {
            paired_tests::add(page, from.report);
        }
        page.figure(&from.figures, "figure5");
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let table = auc_table::file(from, 2, "table2.csv");
        let tests = paired_tests::file(&from.report.evidence.tests, "tests.csv");
        table.into_iter().chain(tests).collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["table2.csv", "tests.csv"]
    }
}

fn table(runs: &[RunMetrics]) -> Option<AucTable> {
    let of_losses = |run: &&RunMetrics| !is_of_tau_only(run) && !is_of_a_system(run);
    let runs = runs.iter().filter(of_losses);
    let sources = by_seed(runs).into_iter().filter_map(|runs| {
        let run = runs.first()?;
        let name = paper_variant(run).unwrap_or_default();
        Source::new(&runs, Part::Test, ViewSet::Single, loss_heading(run), name)
    });
    let title = "Test AUC by loss, single view";
    assemble(2, title, &TABLE_2, sources.collect())
}
