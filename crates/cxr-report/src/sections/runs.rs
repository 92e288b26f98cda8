//! Each run with its loss, its epochs and its means.

use std::collections::BTreeMap;

use super::words::{auc, cells, dash};
use super::{Material, Section};
use crate::document::{Document, TableCell};
use crate::report::Report;
use crate::tables::or_empty;
use cxr_run::{Summary, ViewSet};
use cxr_table::csv_line as line;

/// The table of runs, with every epoch and every seed as files.
pub(super) struct Runs;

impl Section for Runs {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        if !from.report.runs.is_empty() {
            page.heading("Runs");
            page.table(runs_table(from.report));
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let seeds = seeds_csv(from.report);
        let seeds = (!seeds.is_empty()).then_some(("seeds.csv", seeds));
        let history = ("history.csv", history_csv(from.report));
        [history].into_iter().chain(seeds).collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["history.csv", "seeds.csv"]
    }
}

fn runs_table(report: &Report) -> Vec<Vec<TableCell>> {
    let mut rows = vec![cells(&[
        "variant",
        "loss",
        "parameters",
        "seed",
        "epochs",
        "last mean loss",
        "validation mean AUC",
        "best epoch",
        "test mean AUC",
    ])];
    for run in &report.runs {
        let parameters: Vec<String> = run
            .loss_parameters
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let mean = |summaries: &BTreeMap<ViewSet, Summary>| {
            auc(summaries
                .get(&ViewSet::Single)
                .and_then(|summary| summary.means.auc))
        };
        rows.push(vec![
            TableCell::code(&run.variant).leading_to(format!("{}/metrics.json", run.variant)),
            run.loss.clone().into(),
            parameters.join(", ").into(),
            run.seed.to_string().into(),
            run.history.len().to_string().into(),
            run.history
                .last()
                .map_or_else(dash, |epoch| format!("{:.4}", epoch.mean_loss).into()),
            mean(&run.validation),
            run.best_epoch.as_ref().map_or_else(dash, |best| {
                let cell = TableCell::from(best.epoch.to_string());
                cell.aside(format!("{}, {:.4}", best.stage, best.validation_auc))
            }),
            mean(&run.test),
        ]);
    }
    rows
}

/// Every test AUC of every run, where several differ in the seed alone; else empty.
fn seeds_csv(report: &Report) -> String {
    let mut seeds: Vec<u64> = report.runs.iter().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    if seeds.len() < 2 {
        return String::new();
    }
    let mut text = line(["variant", "seed", "views", "row", "auc"]);
    for run in &report.runs {
        for (views, summary) in &run.test {
            let mut add = |row: &str, auc: Option<f64>| {
                let (seed, auc) = (run.seed.to_string(), or_empty(auc));
                text.push_str(&line([&run.variant, &seed, views.name(), row, &auc]));
            };
            for label in &summary.labels {
                add(&label.label, label.auc);
            }
            add("mean", summary.means.auc);
        }
    }
    text
}

fn history_csv(report: &Report) -> String {
    let mut text = line([
        "variant",
        "stage",
        "epoch",
        "steps",
        "mean_loss",
        "validation_auc",
        "validation_labels",
    ]);
    for run in &report.runs {
        for epoch in &run.history {
            text.push_str(&line([
                run.variant.clone(),
                epoch.stage.clone(),
                epoch.epoch.to_string(),
                epoch.steps.to_string(),
                epoch.mean_loss.to_string(),
                or_empty(epoch.validation_auc),
                epoch.validation_labels.to_string(),
            ]));
        }
    }
    text
}
