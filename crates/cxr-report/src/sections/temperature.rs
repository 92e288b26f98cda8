//! Table 4: FZLPR by τ, with paired tests against τ = 1.

use super::paired_tests;
use super::{Material, Section, auc_table};
use crate::document::Document;
use crate::paper::{TABLE_4, is_of_tau_only, tau};
use crate::tables::{AucTable, Source, assemble, by_seed};
use cxr_run::{Part, RunMetrics, ViewSet};

/// Table 4, Figure 6, the means by τ, and the tests against τ = 1.
pub(super) struct Temperature;

impl Section for Temperature {
    fn table(&self, runs: &[RunMetrics]) -> Option<AucTable> {
        table(runs)
    }

    fn add(&self, page: &mut Document, from: &Material<'_>) {
        auc_table::add(page, from, 4);
        if from.table(4).is_some() {
            page.figure(&from.figures, "figure-tau");
            page.figure(&from.figures, "figure6");
            paired_tests::add_tau(page, from.report);
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let table = auc_table::file(from, 4, "table4.csv");
        let tests = paired_tests::file(&from.report.evidence.tau_tests, "tests-tau.csv");
        table.into_iter().chain(tests).collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["table4.csv", "tests-tau.csv"]
    }
}

/// FZLPR by τ, ZLPR being τ = 1; only when a run is there that Table 2 does not show already.
fn table(runs: &[RunMetrics]) -> Option<AucTable> {
    if !runs.iter().any(is_of_tau_only) {
        return None;
    }
    let with_tau = runs.iter().filter(|run| tau(run).is_some());
    let mut by_tau: Vec<(f64, Vec<&RunMetrics>)> = by_seed(with_tau)
        .into_iter()
        .filter_map(|runs| Some((tau(runs.first()?)?, runs)))
        .collect();
    by_tau.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let sources = by_tau.into_iter().filter_map(|(tau, runs)| {
        let name = format!("{tau:?}");
        let heading = format!("τ = {name}");
        Source::new(&runs, Part::Test, ViewSet::Single, heading, &name)
    });
    let title = "Test AUC of FZLPR by τ, single view";
    assemble(4, title, &TABLE_4, sources.collect())
}
