//! The report as Markdown: the summary first, then the tables, the times and how to repeat it.

mod environment;
mod table;

use std::collections::BTreeMap;

use crate::published::TRAINING_MINUTES;
use crate::report::Report;
use crate::run::{DataFacts, RunMetrics, ViewSet};
use crate::summary::Summary;
use crate::tables::{AucTable, Cell, Column, IntervalMethod, Subject, loss_heading, paper_variant};

pub(crate) fn page(report: &Report) -> String {
    let mut page = Page::default();
    page.line(&format!("# `{}`: what the runs gave", report.experiment));
    for warning in warnings(report) {
        page.line(&format!("> {warning}"));
    }
    page.line("## Summary");
    page.list(&summary(report));
    if !report.runs.is_empty() {
        page.line("## Runs");
        page.table(&runs_table(report));
        for table in report.tables() {
            table::add(&mut page, &table, &report.runs);
        }
        if let Some(stages) = report.stage_table() {
            table::add_stages(&mut page, &stages);
        }
        page.line("## Time");
        add_time(&mut page, report);
    }
    environment::add(&mut page, report);
    page.line("## To repeat it");
    add_commands(&mut page, report);
    page.line("## What this is not");
    page.line(
        "Research software: not a medical device, not for clinical use, and no figure here says how \
         a model does on another hospital's images.",
    );
    if report.runs.iter().any(|run| run.data.is_comparable()) {
        page.line(
            "The images are of NIH ChestX-ray14, provided by the NIH Clinical Center \
             (<https://nihcc.app.box.com/v/ChestXray-NIHCC>): Wang et al., CVPR 2017. Published \
             figures: Hanif et al., Bioengineering 2025, 12(6), 593, doi 10.3390/bioengineering12060593.",
        );
    }
    page.text
}

/// Markdown in the making: blocks with an empty line between.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, line: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn list(&mut self, items: &[String]) {
        let lines: Vec<String> = items.iter().map(|item| format!("- {item}")).collect();
        self.line(&lines.join("\n"));
    }

    /// The first row is the header; the first column is aligned left, the others right.
    fn table(&mut self, rows: &[Vec<String>]) {
        let Some(header) = rows.first() else { return };
        let row = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let ruler: Vec<String> = (0..header.len())
            .map(|column| if column == 0 { ":--" } else { "--:" }.to_owned())
            .collect();
        let mut lines = vec![row(header), row(&ruler)];
        lines.extend(rows.iter().skip(1).map(|cells| row(cells)));
        self.line(&lines.join("\n"));
    }

    fn code(&mut self, lines: &[String]) {
        self.line(&format!("```sh\n{}\n```", lines.join("\n")));
    }
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

fn summary(report: &Report) -> Vec<String> {
    let mut items = vec![what_was_run(report)];
    if let Some(run) = report.runs.first() {
        items.push(format!("Data: {}", on_what(&run.data)));
        items.extend(means(report));
        items.extend(how_sure(report));
    }
    items
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

/// One sentence per view set with every run's test mean, and the published one where the run is of
/// the complete data.
fn means(report: &Report) -> Vec<String> {
    let tables = report.tables();
    let mut sentences = Vec::new();
    for (views, words) in [
        (ViewSet::Single, "single view"),
        (ViewSet::HflipZoom, "flip and zoom averaged"),
    ] {
        let of_run = |run: &RunMetrics| {
            let means = &run.test.get(&views)?.means;
            let mut text = format!("{} {:.4}", loss_heading(run), means.auc?);
            if let Some([lower, upper]) = means.auc_interval {
                text.push_str(&format!(" ({lower:.4}–{upper:.4})"));
            }
            text.push_str(&format!(" over {} labels", means.n_labels));
            let cell = mean_cell(&tables, &run.variant, views).filter(|_| !run.data.is_sample());
            if let Some(published) = cell.and_then(|cell| cell.published) {
                text.push_str(&format!(", published {published:.4}"));
            }
            Some(text)
        };
        let means: Vec<String> = report.runs.iter().filter_map(of_run).collect();
        if !means.is_empty() {
            sentences.push(format!("Test mean AUC, {words}: {}.", means.join("; ")));
        }
    }
    sentences
}

/// The cell of a run's test mean over all labels, in the first table that has it.
fn mean_cell<'a>(tables: &'a [AucTable], variant: &str, views: ViewSet) -> Option<&'a Cell> {
    let mut cells = tables.iter().filter_map(|table| {
        let is_it = |column: &Column| {
            column.part == "test" && column.variant == variant && column.views == views
        };
        let at = table.columns.iter().position(is_it)?;
        let mean = table.rows.iter().find(|row| row.subject == Subject::Mean)?;
        mean.cells.get(at)
    });
    cells.next()
}

fn how_sure(report: &Report) -> Vec<String> {
    let tables = report.tables();
    let methods = |wanted: &[IntervalMethod]| {
        tables
            .iter()
            .flat_map(|table| &table.rows)
            .flat_map(|row| &row.cells)
            .filter_map(|cell| cell.interval)
            .any(|interval| wanted.contains(&interval.method))
    };
    let mut sure = Vec::new();
    if methods(&[IntervalMethod::Delong]) {
        sure.push(
            "How sure: the 95 % intervals of single labels take images as independent, which is too \
             narrow where a patient has several."
                .to_owned(),
        );
    } else if methods(&[IntervalMethod::DelongByPatient]) {
        sure.push(
            "How sure: the 95 % intervals of single labels take the patient as the unit."
                .to_owned(),
        );
    }
    let mut seeds: Vec<u64> = report.runs.iter().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    if let [seed] = seeds[..] {
        sure.push(format!(
            "Each variant was trained once (seed {seed}): how far another seed's figures would be is \
             not measured, and the differences between losses were not tested."
        ));
    }
    sure
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

fn add_time(page: &mut Page, report: &Report) {
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
    page.table(&rows);
    page.line("Wall time. The prepared images are shared: the first run pays for them.");
}

fn add_commands(page: &mut Page, report: &Report) {
    let experiment = &report.experiment;
    let mut commands: Vec<String> = match &report.reproduction {
        Some(reproduction) => vec![shell_line(&reproduction.command)],
        None => vec![format!(
            "cargo xtask reproduce {experiment} --data FOLDER_OF_IMAGES"
        )],
    };
    commands.extend(environment::commands(report));
    page.code(&commands);
    page.line(
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
fn count(n: usize) -> String {
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

/// Text that stands in a table's cell without ending it.
fn escape(text: &str) -> String {
    text.replace('|', r"\|")
        .replace('<', "&lt;")
        .replace(['\n', '\r'], " ")
}
