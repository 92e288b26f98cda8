//! Paired tests between losses.

use cxr_metrics::Level;

use super::words::{dash, heading_of, signed};
use crate::document::{Block, Document, Table, TableCell, plain as escape};
use crate::evidence::LossTest;
use crate::paper::LEFT_OUT_OF_SECOND_MEAN;
use crate::report::Report;
use crate::tables::or_empty;
use cxr_run::ends;
use cxr_table::csv_line as line;

/// Below this a p-value is shown bold.
pub(super) const SIGNIFICANT: f64 = 0.05;

/// The tests between the losses of Table 2.
pub(super) fn add(page: &mut Document, report: &Report) {
    let tests = &report.evidence.tests;
    if tests.is_empty() {
        return;
    }
    page.text(
        "**Paired tests between losses.** First minus second on the same test images, single view, \
         with the p-value of the paired DeLong test after Holm's correction for the number of findings:",
    );
    add_tests(page, report, tests, "tests.csv");
}

/// The tests of each τ against τ = 1.
pub(super) fn add_tau(page: &mut Document, report: &Report) {
    let tests = &report.evidence.tau_tests;
    if tests.is_empty() {
        return;
    }
    page.text("**Paired tests of each τ against τ = 1.0**, made the same way:");
    add_tests(page, report, tests, "tests-tau.csv");
}

pub(super) fn add_tests(page: &mut Document, report: &Report, tests: &[LossTest], file: &str) {
    let mut header: Vec<TableCell> = vec!["finding".into()];
    header.extend(tests.iter().map(|test| about(report, test).into()));
    let mut rows = vec![header];
    let first = tests.first().map(|test| &test.comparison.labels);
    for label in first.into_iter().flatten() {
        let mut row: Vec<TableCell> = vec![label.label.as_str().into()];
        for test in tests {
            let of_label = test.comparison.labels.iter();
            let found = of_label.clone().find(|other| other.label == label.label);
            row.push(
                match found.and_then(|found| Some((found.difference?, found))) {
                    Some((difference, found)) => {
                        let p = (found.p_value_holm).map_or_else(|| "–".to_owned(), p_value);
                        let is_clear = found.p_value_holm.is_some_and(|p| p < SIGNIFICANT);
                        let cell = TableCell::from(signed(difference)).aside(format!("p {p}"));
                        cell.bold_if(is_clear)
                    }
                    None => dash(),
                },
            );
        }
        rows.push(row);
    }
    let mut mean: Vec<TableCell> = vec!["mean, 95 % interval".into()];
    mean.extend(tests.iter().map(|test| {
        let means = &test.comparison.means;
        means
            .difference
            .map_or_else(dash, |difference| with_interval(difference, means.interval))
    }));
    rows.push(mean);
    let mut feet = 1;
    if tests.iter().any(|test| test.without.is_some()) {
        let subject = format!("mean without {LEFT_OUT_OF_SECOND_MEAN}, 95 % interval");
        let mut row: Vec<TableCell> = vec![subject.into()];
        row.extend(tests.iter().map(|test| {
            test.without.map_or_else(dash, |test| {
                with_interval(test.difference, test.interval(Level::P95).map(ends))
            })
        }));
        rows.push(row);
        feet += 1;
    }
    page.add(Block::Table(Table {
        rows,
        feet,
        file: Some(file.to_owned()),
    }));
    let unit = if report.evidence.by_patient {
        "patients"
    } else {
        "images"
    };
    let mut approximate: Vec<String> = Vec::new();
    for label in tests.iter().flat_map(|test| &test.comparison.labels) {
        let name = escape(&label.label);
        if label.approximate && !approximate.contains(&name) {
            approximate.push(name);
        }
    }
    let approximate = if approximate.is_empty() {
        String::new()
    } else {
        format!(
            " Fewer than ten degrees of freedom, so approximate: {}.",
            approximate.join(", ")
        )
    };
    page.list(vec![format!(
        "Bold: p below {SIGNIFICANT} after Holm's correction, or an interval of the mean without zero. \
         The tests take {unit} as independent. They compare these trained models, \
         not the losses over all trainings.{approximate}"
    )]);
}

pub(super) fn with_interval(difference: f64, interval: Option<[f64; 2]>) -> TableCell {
    let cell = TableCell::from(signed(difference));
    let Some([lower, upper]) = interval else {
        return cell;
    };
    cell.aside(format!("{} to {}", signed(lower), signed(upper)))
        .bold_if(lower > 0.0 || upper < 0.0)
}

/// The pair, as a heading.
fn about(report: &Report, test: &LossTest) -> String {
    let (a, b) = (heading_of(report, &test.a), heading_of(report, &test.b));
    format!("{a} − {b}")
}

pub(super) fn p_value(p: f64) -> String {
    if p < 0.0001 {
        "< 0.0001".to_owned()
    } else {
        format!("{p:.4}")
    }
}

/// The tests as a file, if there are any.
pub(super) fn file(tests: &[LossTest], name: &'static str) -> Option<(&'static str, String)> {
    (!tests.is_empty()).then(|| (name, tests_csv(tests)))
}

fn tests_csv(tests: &[LossTest]) -> String {
    let mut text = line([
        "a",
        "b",
        "row",
        "auc_a",
        "auc_b",
        "difference",
        "lower",
        "upper",
        "p_value",
        "p_value_holm",
        "se",
        "df",
        "approximate",
    ]);
    for test in tests {
        let mut add =
            |row: &str, aucs: [Option<f64>; 3], certainty: Certainty, holm: Option<f64>| {
                let mut cells = vec![test.a.clone(), test.b.clone(), row.to_owned()];
                cells.extend(aucs.map(or_empty));
                cells.extend([0, 1].map(|end| or_empty(certainty.interval.map(|ends| ends[end]))));
                cells.extend([certainty.p_value, holm].map(or_empty));
                cells.extend([certainty.se, certainty.df].map(or_empty));
                cells.push(certainty.approximate.to_string());
                text.push_str(&line(cells));
            };
        for label in &test.comparison.labels {
            let certainty = Certainty {
                se: label.se,
                df: label.df,
                interval: label.interval,
                p_value: label.p_value,
                approximate: label.approximate,
            };
            let aucs = [label.auc_a, label.auc_b, label.difference];
            add(&label.label, aucs, certainty, label.p_value_holm);
        }
        let means = &test.comparison.means;
        let certainty = Certainty {
            se: means.se,
            df: means.df,
            interval: means.interval,
            p_value: means.p_value,
            approximate: means.approximate,
        };
        let aucs = [means.auc_a, means.auc_b, means.difference];
        add("mean", aucs, certainty, None);
        if let Some(without) = test.without {
            let certainty = Certainty {
                se: without.standard_error,
                df: without.degrees_of_freedom,
                interval: without.interval(Level::P95).map(ends),
                p_value: without.p_value,
                approximate: without.is_approximate(),
            };
            let aucs = [without.auc_a, without.auc_b, without.difference].map(Some);
            add(
                &format!("mean without {LEFT_OUT_OF_SECOND_MEAN}"),
                aucs,
                certainty,
                None,
            );
        }
    }
    text
}

/// What a test says beside the difference.
struct Certainty {
    se: Option<f64>,
    df: Option<f64>,
    interval: Option<[f64; 2]>,
    p_value: Option<f64>,
    approximate: bool,
}
