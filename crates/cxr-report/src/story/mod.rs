//! What a report says: the summary first, then figures and tables, the times and how to repeat it.

mod environment;
mod headline;
mod methods;
mod table;
mod tests;

use std::collections::BTreeMap;

use crate::document::{Block, Document, Table, plain as escape};
use crate::explanations::BoxScores;
use crate::figures::{Figure, figures};
use crate::published::TRAINING_MINUTES;
use crate::report::Report;
use crate::tables::{AucTable, IntervalMethod, loss_heading, paper_variant};
use cxr_run::{DataFacts, RunMetrics, Summary, ViewSet};

pub(crate) fn document(report: &Report) -> Document {
    let figures = figures(report);
    let tables = report.tables();
    let mut page = Document::default();
    page.add(Block::Title(format!(
        "Report of the experiment `{}`",
        report.experiment
    )));
    for warning in warnings(report) {
        page.add(Block::Warning(warning));
    }
    add_summary(&mut page, report, &figures, &tables);
    if !report.runs.is_empty() {
        page.heading("Runs");
        page.table(runs_table(report));
        page.heading("Data and losses");
        for name in ["figure1", "figure3", "figure4"] {
            page.figure(&figures, name);
        }
        add_results(&mut page, report, &figures, &tables);
        if let Some(stages) = report.stage_table() {
            table::add_stages(&mut page, &stages);
        }
        page.heading("Time");
        add_time(&mut page, report);
    }
    environment::add(&mut page, report);
    page.heading("To repeat it");
    add_commands(&mut page, report);
    page.heading("What this is not");
    page.text(
        "Research software: not a medical device, not for clinical use, and no figure here says how \
         a model does on another hospital's images.",
    );
    if report.runs.iter().any(|run| run.data.is_comparable()) {
        page.text(
            "The images are of NIH ChestX-ray14, provided by the NIH Clinical Center \
             (<https://nihcc.app.box.com/v/ChestXray-NIHCC>): Wang et al., CVPR 2017. Published \
             figures: Hanif et al., Bioengineering 2025, 12(6), 593, doi 10.3390/bioengineering12060593.",
        );
    }
    page
}

/// The tables in the paper's order, with the figures that belong to them.
fn add_results(page: &mut Document, report: &Report, figures: &[Figure], tables: &[AucTable]) {
    for table in tables {
        table::add(page, table, &report.runs);
        match table.number {
            2 => {
                tests::add(page, report);
                page.figure(figures, "figure5");
            }
            4 => {
                page.figure(figures, "figure-tau");
                page.figure(figures, "figure6");
                tests::add_tau(page, report);
            }
            _ => {}
        }
    }
    if !tables.iter().any(|table| table.number == 2) {
        page.figure(figures, "figure5");
    }
    methods::add(page, report);
    let Some(pictures) = &report.evidence.pictures else {
        return;
    };
    page.heading("Where the model looks");
    page.figure(figures, "figure7");
    page.add(Block::Gallery(pictures.explanations.clone()));
    if let Some(boxes) = &pictures.explanations.boxes {
        add_boxes(page, boxes);
    }
}

fn add_boxes(page: &mut Document, boxes: &BoxScores) {
    let mut rows = vec![cells(&[
        "finding",
        "boxes",
        "peak in the box",
        "share",
        "by chance",
        "mean overlap",
    ])];
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (mut n, mut hits, mut area, mut overlap) = (0, 0, 0.0, 0.0);
    for finding in &boxes.findings {
        rows.push(vec![
            escape(&finding.finding),
            count(finding.boxes),
            count(finding.hits),
            finding.accuracy().map_or_else(dash, percent),
            percent(finding.mean_box_area),
            format!("{:.3}", finding.mean_overlap),
        ]);
        n += finding.boxes;
        hits += finding.hits;
        area += finding.mean_box_area * finding.boxes as f64;
        overlap += finding.mean_overlap * finding.boxes as f64;
    }
    if n > 0 {
        let n_boxes = n as f64;
        rows.push(vec![
            "all boxes".to_owned(),
            count(n),
            count(hits),
            percent(hits as f64 / n_boxes),
            percent(area / n_boxes),
            format!("{:.3}", overlap / n_boxes),
        ]);
    }
    page.text("**Heat maps against boxes.** The heat map of a boxed finding, whatever the model predicts:");
    page.add(Block::Table(Table {
        rows,
        feet: 1,
        file: Some("boxes.csv".to_owned()),
    }));
    let empty: usize = boxes
        .findings
        .iter()
        .map(|finding| finding.empty_maps)
        .sum();
    let mut notes = vec![format!(
        "Peak in the box is the pointing game (Zhang et al. 2018); by chance is the share of the \
         image that the boxes cover. Overlap is intersection over union of the box and the cells of \
         at least {:.0} % of the map's largest value. A map is 7×7 cells, so small boxes overlap little \
         whatever the model does.",
        100.0 * boxes.hot_share
    )];
    for (n, what) in [
        (
            empty,
            "boxes have a map that is zero everywhere: a miss, overlap 0",
        ),
        (
            boxes.boxes_of_other_images,
            "boxes are of images that are not among the test images at hand: not scored",
        ),
        (
            boxes.boxes_outside,
            "boxes lie outside what the network sees: not scored",
        ),
    ] {
        if n > 0 {
            notes.push(format!("{} {what}.", count(n)));
        }
    }
    page.list(notes);
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
             `cxr evaluate` writes them anew.",
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
            "**A sample of {} images.** The lists name {}; {} were not at hand (training {}, \
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
    if data.clone().any(|other| Some(other) != data.clone().next()) {
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

fn heading_of(report: &Report, variant: &str) -> String {
    let run = report.runs.iter().find(|run| run.variant == variant);
    run.map_or_else(|| variant.to_owned(), loss_heading)
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

fn runs_table(report: &Report) -> Vec<Vec<String>> {
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
            format!("[`{0}`]({0}/metrics.json)", escape(&run.variant)),
            escape(&run.loss),
            escape(&parameters.join(", ")),
            run.seed.to_string(),
            run.history.len().to_string(),
            run.history
                .last()
                .map_or_else(dash, |epoch| format!("{:.4}", epoch.mean_loss)),
            mean(&run.validation),
            run.best_epoch.as_ref().map_or_else(dash, |best| {
                format!(
                    "{} ({}, {:.4})",
                    best.epoch,
                    escape(&best.stage),
                    best.validation_auc
                )
            }),
            mean(&run.test),
        ]);
    }
    rows
}

fn add_time(page: &mut Document, report: &Report) {
    let mut stages: Vec<&str> = Vec::new();
    for epoch in report.runs.iter().flat_map(|run| &run.history) {
        if !stages.contains(&epoch.stage.as_str()) {
            stages.push(&epoch.stage);
        }
    }
    // A sample's time says nothing beside that of the complete data.
    let published = |run: &RunMetrics| {
        let is_whole = run.data.is_comparable() && !run.data.is_sample();
        let variant = paper_variant(run).filter(|_| is_whole)?;
        let (_, minutes) = TRAINING_MINUTES.iter().find(|(name, _)| *name == variant)?;
        Some(format!("{minutes} min"))
    };
    let with_published = report.runs.iter().any(|run| published(run).is_some());
    let mut header = cells(&["variant", "prepare"]);
    header.extend(
        stages
            .iter()
            .map(|stage| format!("train, {}", escape(stage))),
    );
    header.extend(cells(&["predict", "together"]));
    if with_published {
        header.push("published training, one GTX 1080 Ti".to_owned());
    }
    let mut rows = vec![header];
    for run in &report.runs {
        let mut row = vec![
            format!("`{}`", escape(&run.variant)),
            duration(run.seconds.prepare),
        ];
        row.extend(stages.iter().map(|&stage| {
            let seconds = run.seconds.train.get(stage).copied();
            seconds.map_or_else(dash, duration)
        }));
        row.push(duration(run.seconds.predict));
        row.push(duration(run.seconds.total()));
        if with_published {
            row.push(published(run).unwrap_or_else(dash));
        }
        rows.push(row);
    }
    page.add(Block::Table(Table {
        rows,
        feet: 0,
        file: Some("time.csv".to_owned()),
    }));
    page.text("Wall time. The prepared images are shared: the first run pays for them.");
}

fn add_commands(page: &mut Document, report: &Report) {
    let experiment = &report.experiment;
    let is_own = |run: &RunMetrics| !run.custom_components.is_empty();
    if report.runs.iter().any(is_own) {
        page.text(
            "Runs with custom components are repeated by the program that trained them, which has the \
             components; no command of this program can.",
        );
    }
    if !report.runs.is_empty() && report.runs.iter().all(is_own) {
        return;
    }
    let mut commands: Vec<String> = match &report.reproduction {
        Some(reproduction) => vec![shell_line(&reproduction.command)],
        None => vec![format!(
            "cargo xtask reproduce {experiment} --data FOLDER_OF_IMAGES"
        )],
    };
    commands.extend(environment::commands(report));
    page.add(Block::Code(commands));
    page.text(
        "The first line runs everything that is not finished and rewrites this report; \
         `cargo xtask report` with this folder's path rewrites it from the run folders alone. \
         Each run's complete settings are its `experiment.toml`.",
    );
}

/// Arguments as one line for a POSIX shell.
fn shell_line(arguments: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@".contains(c);
    let quoted: Vec<String> = arguments
        .iter()
        .map(|argument| {
            if !argument.is_empty() && argument.chars().all(is_plain) {
                argument.clone()
            } else {
                format!("'{}'", argument.replace('\'', r"'\''"))
            }
        })
        .collect();
    quoted.join(" ")
}

fn cells(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn auc(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.4}"))
}

fn dash() -> String {
    "–".to_owned()
}

/// A count with commas between thousands.
pub(crate) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn duration(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else if seconds < 7_200.0 {
        format!("{:.1} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3_600.0)
    }
}

/// Labels as a reader is shown them.
pub(crate) fn labels_or_none(labels: &[String]) -> String {
    if labels.is_empty() {
        return "no finding".to_owned();
    }
    labels.join(", ").replace('_', " ")
}
