//! The test images of each of several data sets that a run was trained on together.

use super::words::auc;
use super::{Material, Section};
use crate::document::{Block, Document, Table, TableCell};
use crate::paper::loss_heading;
use cxr_run::{RunMetrics, Summary};
use cxr_table::csv_line as line;

/// Test AUCs by data set.
pub(super) struct BySet;

impl Section for BySet {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        let runs = with_sets(from);
        if runs.is_empty() {
            return;
        }
        page.add(Block::Heading("By data set".to_owned()));
        page.add(Block::Text(
            "Test AUC of each data set's images, single view, and how many of them are known to have the finding and not to \
             have it. A dash is a label that is not known on images of both kinds there."
                .to_owned(),
        ));
        for run in runs {
            page.add(Block::Text(format!("{}:", loss_heading(run))));
            page.add(Block::Table(table(run)));
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let runs = with_sets(from);
        if runs.is_empty() {
            return Vec::new();
        }
        let mut text = line([
            "variant",
            "data_set",
            "label",
            "positives",
            "negatives",
            "auc",
        ]);
        for run in runs {
            for (set, summary) in &run.test_by_set {
                for label in &summary.labels {
                    text += &line([
                        run.variant.clone(),
                        set.clone(),
                        label.label.clone(),
                        label.positives.to_string(),
                        label.negatives.to_string(),
                        label.auc.map_or(String::new(), |auc| auc.to_string()),
                    ]);
                }
            }
        }
        vec![("by-set.csv", text)]
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["by-set.csv"]
    }
}

fn with_sets<'a>(from: &'a Material<'_>) -> Vec<&'a RunMetrics> {
    let runs = from.report.runs.iter();
    runs.filter(|run| !run.test_by_set.is_empty()).collect()
}

fn table(run: &RunMetrics) -> Table {
    let sets: Vec<&Summary> = run.test_by_set.values().collect();
    let mut header = vec!["label".into()];
    header.extend(
        run.test_by_set
            .keys()
            .map(|set| TableCell::from(set.as_str())),
    );
    let mut rows = vec![header];
    let labels = sets.first().map_or(&[][..], |summary| &summary.labels);
    for (at, label) in labels.iter().enumerate() {
        let mut row: Vec<TableCell> = vec![label.label.clone().into()];
        for summary in &sets {
            if let Some(label) = summary.labels.get(at) {
                let known = format!("{} / {}", label.positives, label.negatives);
                row.push(auc(label.auc).aside(known));
            }
        }
        rows.push(row);
    }
    let mut foot: Vec<TableCell> = vec!["mean".into()];
    foot.extend(sets.iter().map(|summary| auc(summary.means.auc)));
    rows.push(foot);
    Table {
        rows,
        feet: 1,
        file: Some("by-set.csv".to_owned()),
    }
}
