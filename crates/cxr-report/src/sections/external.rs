//! What the runs' models are worth on data sets that they were not trained on.

use super::words::auc;
use super::{Material, Section};
use crate::document::{Block, Document, Table, TableCell};
use crate::paper::loss_heading;
use cxr_run::{ExternalTest, LabelSummary, RunMetrics, Summary};
use cxr_table::csv_line as line;

/// Tests on other data sets.
pub(super) struct External;

impl Section for External {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        let tests = of(from);
        if tests.is_empty() {
            return;
        }
        page.add(Block::Heading("On other data sets".to_owned()));
        page.add(Block::Text(
            "Over the labels that model and data set both have; what a data set does not have is unknown, not negative. \
             In brackets are intervals at 95 %, by patient where patients are known."
                .to_owned(),
        ));
        for (run, test) in tests {
            page.add(Block::Text(sentence(run, test)));
            if test.images_trained_on > 0 {
                page.add(Block::Warning(format!(
                    "{} of the {} images have names that the training had too: this is no test on other images.",
                    test.images_trained_on, test.by_image.n_images
                )));
            }
            page.add(Block::Table(table(test)));
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let tests = of(from);
        if tests.is_empty() {
            return Vec::new();
        }
        let mut text = line([
            "variant",
            "trained_on",
            "tested_on",
            "unit",
            "label",
            "positives",
            "negatives",
            "auc",
            "lower",
            "upper",
            "by_patient",
        ]);
        for (run, test) in tests {
            for (unit, summary) in units(test) {
                for label in &summary.labels {
                    let number = |number: Option<f64>| {
                        number.map_or(String::new(), |number| number.to_string())
                    };
                    let interval = interval(label);
                    text += &line([
                        run.variant.clone(),
                        test.trained_on.clone(),
                        test.tested_on.clone(),
                        unit.clone(),
                        label.label.clone(),
                        label.positives.to_string(),
                        label.negatives.to_string(),
                        number(label.auc),
                        number(interval.map(|[lower, _]| lower)),
                        number(interval.map(|[_, upper]| upper)),
                        label.auc_interval_clustered.is_some().to_string(),
                    ]);
                }
            }
        }
        vec![("external.csv", text)]
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["external.csv"]
    }
}

/// The tests of each run.
fn of<'a>(from: &'a Material<'_>) -> Vec<(&'a RunMetrics, &'a ExternalTest)> {
    let runs = from.report.runs.iter().zip(&from.report.external);
    runs.flat_map(|(run, tests)| tests.iter().map(move |test| (run, test)))
        .collect()
}

fn sentence(run: &RunMetrics, test: &ExternalTest) -> String {
    let of = match test.by_image.n_patients {
        Some(n_patients) => format!(" of {n_patients} patients"),
        None => String::new(),
    };
    let alone = match test.labels_of_the_model_alone.as_slice() {
        [] => String::new(),
        labels => format!(" Not known there: {}.", labels.join(", ")),
    };
    let blank = match test.blank_labels_negative.as_slice() {
        [] => String::new(),
        labels => format!(
            " Empty cells of {} are taken for negative.",
            labels.join(", ")
        ),
    };
    let drawn = if test.phantom {
        " (drawn, not taken)"
    } else {
        ""
    };
    format!(
        "{}: trained on {}, tested on {}{drawn}, {} images{of}; labels joined by `{}`.{alone}{blank}",
        loss_heading(run),
        test.trained_on,
        test.tested_on,
        test.by_image.n_images,
        test.label_map
    )
}

/// Images, and studies where they were scored.
fn units(test: &ExternalTest) -> Vec<(String, &Summary)> {
    let studies = test.by_study.iter();
    let studies = studies.map(|studies| (format!("study, {}", studies.rule), &studies.summary));
    std::iter::once(("image".to_owned(), &test.by_image))
        .chain(studies)
        .collect()
}

fn interval(label: &LabelSummary) -> Option<[f64; 2]> {
    label.auc_interval_clustered.or(label.auc_interval)
}

fn table(test: &ExternalTest) -> Table {
    let units = units(test);
    let mut header = vec!["label".into(), "positives".into()];
    header.extend(
        units
            .iter()
            .map(|(unit, _)| TableCell::from(format!("AUC by {unit}"))),
    );
    let mut rows = vec![header];
    for (at, label) in test.by_image.labels.iter().enumerate() {
        let mut row: Vec<TableCell> = vec![
            label.label.clone().into(),
            label.positives.to_string().into(),
        ];
        for (_, summary) in &units {
            let Some(of_unit) = summary.labels.get(at) else {
                continue;
            };
            let cell = auc(of_unit.auc);
            row.push(match interval(of_unit) {
                Some([lower, upper]) => cell.aside(format!("{lower:.3} to {upper:.3}")),
                None => cell,
            });
        }
        rows.push(row);
    }
    let mut foot: Vec<TableCell> = vec!["mean".into(), "".into()];
    for (_, summary) in &units {
        let cell = auc(summary.means.auc);
        foot.push(match summary.means.auc_interval {
            Some([lower, upper]) => cell.aside(format!("{lower:.3} to {upper:.3}")),
            None => cell,
        });
    }
    rows.push(foot);
    Table {
        rows,
        feet: 1,
        file: Some("external.csv".to_owned()),
    }
}
