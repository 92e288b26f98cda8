//! Table 3: the test images under sets of views.

use super::{Material, Section, auc_table};
use crate::document::Document;
use crate::paper::{TABLE_3, is_of_a_system, is_proposal, loss_heading};
use crate::tables::{AucTable, Source, assemble, key};
use cxr_run::{Part, RunMetrics, ViewSet};

/// Table 3.
pub(super) struct Views;

impl Section for Views {
    fn table(&self, runs: &[RunMetrics]) -> Option<AucTable> {
        table(runs)
    }

    fn add(&self, page: &mut Document, from: &Material<'_>) {
        auc_table::add(page, from, 3);
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let table = auc_table::file(from, 3, "table3.csv");
        table.into_iter().collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["table3.csv"]
    }
}

/// Test-time augmentation of FZLPR(0.2), or of the first run that has any.
fn table(runs: &[RunMetrics]) -> Option<AucTable> {
    let has_views = |run: &&RunMetrics| run.test.len() > 1 && !is_of_a_system(run);
    let mut with_views = runs.iter().filter(has_views);
    let is_paper = |run: &&RunMetrics| is_proposal(run);
    let run = with_views.clone().find(is_paper).or(with_views.next())?;
    let is_same = |other: &&RunMetrics| key(other) == key(run);
    let seeds: Vec<&RunMetrics> = runs.iter().filter(is_same).collect();
    let sources = ViewSet::ALL.into_iter().filter_map(|views| {
        let heading = match views {
            ViewSet::Single => "single view",
            ViewSet::HorizontalFlip => "+ flip",
            ViewSet::HorizontalFlipZoom => "+ flip + zoom",
        };
        let name = if is_paper(&run) { views.name() } else { "" };
        Source::new(&seeds, Part::Test, views, heading.to_owned(), name)
    });
    let title = format!(
        "Test AUC with test-time augmentation, {}",
        loss_heading(run)
    );
    assemble(3, &title, &TABLE_3, sources.collect())
}
