//! What was run, on what, with which result, and what is not there.

use super::headline;
use super::words::count;
use super::{Material, Section};
use crate::document::{Block, Document, plain as escape};
use crate::figures::Figure;
use crate::report::Report;
use crate::tables::{AucTable, IntervalMethod};
use cxr_run::DataFacts;

/// Warnings, and the summary.
pub(super) struct Summary;

impl Section for Summary {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        for warning in warnings(from.report) {
            page.add(Block::Warning(warning));
        }
        add_summary(page, from.report, &from.figures, &from.tables);
    }
}

/// What a report of the whole paper has and this one has not, and why.
fn not_there(report: &Report, figures: &[Figure], tables: &[AucTable]) -> Vec<String> {
    let mut lines = Vec::new();
    let evidence = &report.evidence;
    if !evidence.without_predictions.is_empty() {
        let names: Vec<String> = (evidence.without_predictions.iter())
            .map(|variant| format!("`{variant}`"))
            .collect();
        lines.push(format!(
            "**Not in the curves and tests**: {}, whose folders lack predictions or labels; \
             `cxr evaluate` writes them again.",
            names.join(", ")
        ));
    }
    let mut absent = Vec::new();
    for number in 1..=4 {
        if !tables.iter().any(|table| table.number == number) {
            absent.push(format!("Table {number}"));
        }
    }
    for (name, words) in [
        ("figure3", "Figure 3 (label frequencies)"),
        ("figure4", "Figure 4 (sample images: `cxr explain`)"),
        ("figure5", "Figure 5 (ROC curves)"),
        ("figure6", "Figure 6 (τ against τ = 1)"),
        ("figure7", "Figure 7 (Grad-CAM: `cxr explain`)"),
    ] {
        if !figures.iter().any(|figure| figure.name == name) {
            absent.push(words.to_owned());
        }
    }
    if !report.runs.is_empty() && !absent.is_empty() {
        lines.push(format!(
            "**Not here, as no run has what it needs**: {}.",
            absent.join(", ")
        ));
    }
    if report.methods_table().is_none() && report.runs.iter().any(|run| !run.data.is_comparable()) {
        lines.push(
            "**Not here**: Table 5, which sets published methods on ChestX-ray14 beside FZLPR(0.2); these \
             labels are not ChestX-ray14's."
                .to_owned(),
        );
    }
    lines
}

/// What a reader must know before any figure.
fn warnings(report: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let data = report.runs.iter().map(|run| &run.data);
    if data.clone().any(|data| data.phantom) {
        warnings.push(
            "**Phantom data.** The images are drawn, not taken of patients. The figures say that the \
             path from images to report works, nothing about chest X-rays or the paper; no published \
             figure stands beside them."
                .to_owned(),
        );
    }
    if let Some(data) = data.clone().find(|data| data.is_sample()) {
        let (at_hand, absent) = (data.images.total(), data.absent.total());
        let mut warning = format!(
            "**A sample of {} images.** The lists name {}; {} were missing (training {}, \
             validation {}, test {}).",
            count(at_hand),
            count(at_hand + absent),
            count(absent),
            count(data.absent.train),
            count(data.absent.validation),
            count(data.absent.test),
        );
        if data.is_comparable() {
            warning.push_str(
                " The published figures are of the complete data: beside a sample's they are an \
                 orientation only.",
            );
        }
        warnings.push(warning);
    }
    if data
        .clone()
        .any(|data| data.is_comparable() && !data.has_the_papers_labels())
    {
        warnings.push(
            "**Not the paper's labels.** These are of the first release of ChestX-ray14, 60,412 images \
             without a finding; the paper has those of 2020, 60,361. The published figures beside ours \
             are of the other labels."
                .to_owned(),
        );
    }
    // Test images that a system held out for itself are named where the systems are.
    let mut of_lists = data.clone().filter(|data| data.hold_out.is_none());
    let first = of_lists.next();
    if of_lists.any(|other| Some(other) != first) {
        warnings.push(
            "**Not the same data.** The runs were not trained and tested on the same images: their \
             figures are not comparable with each other."
                .to_owned(),
        );
    }
    warnings
}

fn add_summary(page: &mut Document, report: &Report, figures: &[Figure], tables: &[AucTable]) {
    page.heading("Summary");
    let mut items = vec![what_was_run(report)];
    items.extend((report.runs.first()).map(|run| format!("**Data.** {}", on_what(&run.data))));
    items.extend(custom_components(report));
    page.list(items);
    headline::add(page, report, tables);
    let mut items = Vec::new();
    if !report.runs.is_empty() {
        items.push(how_sure(report, tables));
    }
    items.extend(not_there(report, figures, tables));
    page.list(items);
}

/// Which runs have parts that no experiment file can name.
fn custom_components(report: &Report) -> Option<String> {
    let runs = report.runs.iter();
    let with_own = runs.filter(|run| !run.custom_components.is_empty());
    let named: Vec<String> = with_own
        .map(|run| {
            let names: Vec<String> = run.custom_components.iter().map(|c| escape(c)).collect();
            format!("`{}` has {}", escape(&run.variant), names.join(", "))
        })
        .collect();
    (!named.is_empty()).then(|| {
        format!(
            "**Custom components**, which are not of this program and take the place of the experiment's: {}.",
            named.join("; ")
        )
    })
}

fn what_was_run(report: &Report) -> String {
    let names = |variants: Vec<&str>| {
        let quoted: Vec<String> = variants.iter().map(|name| format!("`{name}`")).collect();
        quoted.join(", ")
    };
    let finished: Vec<&str> = report.runs.iter().map(|run| run.variant.as_str()).collect();
    let mut text = match finished.len() {
        0 => "No run has finished.".to_owned(),
        1 => format!("One finished run: {}.", names(finished)),
        n => format!("{n} finished runs: {}.", names(finished)),
    };
    if !report.unfinished.is_empty() {
        let variants = report.unfinished.iter().map(String::as_str).collect();
        text.push_str(&format!(" **Begun, not finished**: {}.", names(variants)));
    }
    if !report.not_run().is_empty() {
        text.push_str(&format!(" **Not run**: {}.", names(report.not_run())));
    }
    text
}

fn on_what(data: &DataFacts) -> String {
    let parts = [
        ("training", data.images.train, data.patients.train),
        (
            "validation",
            data.images.validation,
            data.patients.validation,
        ),
        ("test", data.images.test, data.patients.test),
    ];
    let parts: Vec<String> = parts
        .iter()
        .map(|(part, images, patients)| match patients {
            Some(patients) => format!(
                "{} {part} images of {} patients",
                count(*images),
                count(*patients)
            ),
            None => format!("{} {part} images", count(*images)),
        })
        .collect();
    let mut text = format!(
        "{}, validation split `{}`: {}.",
        data.release,
        data.validation_split,
        parts.join(", ")
    );
    match data.shared_patients_train_validation {
        Some(0) => text.push_str(" No patient has images in both training and validation."),
        Some(shared) => text.push_str(&format!(
            " {} patients have images in both training and validation, so validation AUCs are too \
             high for new patients; the test images are of other patients by the official lists.",
            count(shared)
        )),
        None => {}
    }
    text
}

fn how_sure(report: &Report, tables: &[AucTable]) -> String {
    let methods = |wanted: IntervalMethod| {
        tables
            .iter()
            .flat_map(|table| &table.rows)
            .flat_map(|row| &row.cells)
            .filter_map(|cell| cell.interval)
            .any(|interval| interval.method == wanted)
    };
    let mut text = String::new();
    if methods(IntervalMethod::Delong) {
        text.push_str(
            "The 95 % intervals take images as independent, which is too narrow where a patient has \
             several.",
        );
    } else if methods(IntervalMethod::DelongByPatient) {
        text.push_str("The 95 % intervals take the patient as the unit.");
    }
    let mut seeds: Vec<u64> = report.runs.iter().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    match seeds[..] {
        [seed] => text.push_str(&format!(
            " Each variant was trained once (seed {seed}): intervals and tests are about other test \
             images of the same kind, and how far another seed's figures would be is not measured."
        )),
        _ => text.push_str(
            " Where a variant was trained with several seeds the tables give mean ± standard deviation \
             over them; tests and curves are of its first seed.",
        ),
    }
    format!("**How sure.** {}", text.trim_start())
}
