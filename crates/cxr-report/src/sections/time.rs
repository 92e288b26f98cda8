//! How long the runs took.

use super::words::{cells, dash, duration};
use super::{Material, Section};
use crate::document::{Block, Document, Table, TableCell};
use crate::paper::{TRAINING_MINUTES, paper_variant};
use crate::report::Report;
use cxr_run::RunMetrics;
use cxr_table::csv_line as line;

/// Wall time.
pub(super) struct Time;

impl Section for Time {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        if !from.report.runs.is_empty() {
            page.heading("Time");
            add_time(page, from.report);
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        vec![("time.csv", time_csv(from.report))]
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["time.csv"]
    }
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
    header.extend(stages.iter().map(|stage| format!("train, {stage}").into()));
    header.extend(cells(&["predict", "together"]));
    if with_published {
        header.push("published training, one GTX 1080 Ti".into());
    }
    let mut rows = vec![header];
    for run in &report.runs {
        let mut row = vec![
            TableCell::code(&run.variant),
            duration(run.seconds.prepare).into(),
        ];
        row.extend(stages.iter().map(|&stage| {
            let seconds = run.seconds.train.get(stage).copied();
            seconds.map_or_else(dash, |seconds| duration(seconds).into())
        }));
        row.push(duration(run.seconds.predict).into());
        row.push(duration(run.seconds.total()).into());
        if with_published {
            row.push(published(run).map_or_else(dash, TableCell::from));
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

fn time_csv(report: &Report) -> String {
    let mut text = line(["variant", "part", "seconds"]);
    for run in &report.runs {
        let mut add = |part: &str, seconds: f64| {
            text.push_str(&line([
                run.variant.clone(),
                part.to_owned(),
                seconds.to_string(),
            ]));
        };
        add("prepare", run.seconds.prepare);
        for (stage, &seconds) in &run.seconds.train {
            add(&format!("train {stage}"), seconds);
        }
        add("predict", run.seconds.predict);
    }
    text
}
