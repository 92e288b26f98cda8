//! From runs to tables.

use std::collections::BTreeMap;

use super::{AucTable, Cell, Column, Interval, IntervalMethod, Row, Spread, Subject};
use crate::paper::{LEFT_OUT_OF_SECOND_MEAN, PublishedTable, variant_without_seed};
use crate::ranks::ranks;
use cxr_run::{DataFacts, LabelSummary, LabelWeights, Part, RunMetrics, Summary, ViewSet};

/// What tells runs apart that are no repetitions of each other: all but the seed.
#[derive(PartialEq)]
pub(crate) struct Key<'a> {
    loss: &'a str,
    parameters: &'a BTreeMap<String, f64>,
    weights: Option<&'a LabelWeights>,
    data: &'a DataFacts,
    /// Variants of systems differ in more than the loss.
    system: Option<(&'a str, &'a str)>,
}

pub(crate) fn key(run: &RunMetrics) -> Key<'_> {
    let system = run.system.as_deref();
    Key {
        loss: &run.loss,
        parameters: &run.loss_parameters,
        weights: run.label_weights.as_ref(),
        data: &run.data,
        system: system.map(|system| (system, variant_without_seed(run))),
    }
}

/// Runs that differ in nothing but the seed, together, where the first of them stands.
pub(crate) fn by_seed<'a>(runs: impl Iterator<Item = &'a RunMetrics>) -> Vec<Vec<&'a RunMetrics>> {
    let mut groups: Vec<Vec<&RunMetrics>> = Vec::new();
    for run in runs {
        let is_of = |group: &&mut Vec<&RunMetrics>| {
            let is_same = |other: &&RunMetrics| key(other) == key(run);
            // The same seed twice is no repetition.
            group
                .iter()
                .all(|other| is_same(other) && other.seed != run.seed)
        };
        match groups.iter_mut().find(is_of) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    groups
}

/// Where a column's figures come from: one training, or one per seed.
pub(crate) struct Source<'a> {
    column: Column,
    summaries: Vec<&'a Summary>,
    /// The name of the column in the published table.
    published: String,
}

impl<'a> Source<'a> {
    /// `None` when a run did not predict those images with those views.
    pub(crate) fn new(
        runs: &[&'a RunMetrics],
        part: Part,
        views: ViewSet,
        heading: String,
        published: &str,
    ) -> Option<Self> {
        let first = runs.first()?;
        let of_run = |run: &&'a RunMetrics| run.summary(part, views);
        let summaries: Vec<&Summary> = runs.iter().map(of_run).collect::<Option<_>>()?;
        let heading = match runs.len() {
            1 => heading,
            n => format!("{heading}, {n} seeds"),
        };
        let bootstrap = summaries.first()?.means.bootstrap.clone();
        Some(Self {
            column: Column {
                heading,
                variant: first.variant.clone(),
                seeds: runs.iter().map(|run| run.seed).collect(),
                views,
                part,
                bootstrap: bootstrap.filter(|_| runs.len() == 1),
                is_published: first.data.is_comparable(),
            },
            summaries,
            published: published.to_owned(),
        })
    }

    /// One label of each training.
    fn label(&self, name: &str) -> Vec<&'a LabelSummary> {
        let of_summary = |summary: &&'a Summary| {
            let summary: &'a Summary = summary;
            summary.labels.iter().find(|label| label.label == name)
        };
        self.summaries.iter().filter_map(of_summary).collect()
    }

    /// The summary, if there is one training only: intervals are of one.
    fn only(&self) -> Option<&'a Summary> {
        match self.summaries[..] {
            [summary] => Some(summary),
            _ => None,
        }
    }
}

/// Mean of the trainings' AUCs and, of several, their spread; `None` unless all are defined.
fn over_seeds(aucs: &[Option<f64>]) -> (Option<f64>, Option<Spread>) {
    let Some(aucs) = aucs.iter().copied().collect::<Option<Vec<f64>>>() else {
        return (None, None);
    };
    let n = aucs.len();
    match aucs[..] {
        [] => (None, None),
        [auc] => (Some(auc), None),
        _ => {
            let mean = aucs.iter().sum::<f64>() / n as f64;
            let squares: f64 = aucs.iter().map(|auc| (auc - mean).powi(2)).sum();
            let sd = (squares / (n as f64 - 1.0)).sqrt();
            (Some(mean), Some(Spread { sd, n }))
        }
    }
}

/// The table of some columns; `None` where no label is in them.
pub(crate) fn assemble(
    number: u8,
    title: &str,
    published: &PublishedTable,
    mut sources: Vec<Source<'_>>,
) -> Option<AucTable> {
    tell_apart(&mut sources);
    let mut labels: Vec<&str> = Vec::new();
    for label in sources
        .iter()
        .flat_map(|source| &source.summaries)
        .flat_map(|summary| &summary.labels)
    {
        if !labels.contains(&label.label.as_str()) {
            labels.push(&label.label);
        }
    }
    if labels.is_empty() {
        return None;
    }
    for source in &mut sources {
        source.column.is_published &= published.column(&source.published).is_some();
    }
    let mut rows: Vec<Row> = labels
        .iter()
        .map(|label| label_row(label, &sources, published))
        .collect();
    rows.push(mean_row(Subject::Mean, &sources, published));
    if labels.contains(&LEFT_OUT_OF_SECOND_MEAN) {
        let subject = Subject::MeanWithout(LEFT_OUT_OF_SECOND_MEAN);
        rows.push(mean_row(subject, &sources, published));
    }
    Some(AucTable {
        number,
        title: title.to_owned(),
        is_phantom: false,
        columns: sources.into_iter().map(|source| source.column).collect(),
        rows,
    })
}

/// Adds the variant to headings that occur twice, as those of runs on other data do.
fn tell_apart(sources: &mut [Source<'_>]) {
    let headings: Vec<String> = sources
        .iter()
        .map(|source| source.column.heading.clone())
        .collect();
    for source in sources {
        let column = &mut source.column;
        let same = |heading: &&String| **heading == column.heading;
        if headings.iter().filter(same).count() > 1 {
            column.heading = format!("{}, `{}`", column.heading, column.variant);
        }
    }
}

fn label_row(label: &str, sources: &[Source<'_>], published: &PublishedTable) -> Row {
    let summaries: Vec<Vec<&LabelSummary>> =
        sources.iter().map(|source| source.label(label)).collect();
    let agreed = |count: fn(&LabelSummary) -> usize| {
        let mut all = summaries.iter().flatten().map(|label| count(label));
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    };
    let printed: Vec<Option<f64>> = match published.row(label) {
        Some(aucs) => aucs.iter().copied().map(Some).collect(),
        None => vec![None; published.columns.len()],
    };
    let printed_ranks = ranks(&printed);
    let mut cells = Vec::with_capacity(sources.len());
    for (source, summary) in sources.iter().zip(&summaries) {
        let aucs: Vec<Option<f64>> = summary.iter().map(|label| label.auc).collect();
        let (auc, spread) = over_seeds(&aucs);
        let at = source.published_column(published);
        let only = summary.first().filter(|_| source.only().is_some());
        cells.push(Cell {
            auc,
            interval: only.and_then(|label| label_interval(label)),
            spread,
            n_labels: usize::from(auc.is_some()),
            rank: None,
            published: at.and_then(|at| printed.get(at).copied().flatten()),
            published_rank: at.and_then(|at| printed_ranks.get(at).copied().flatten()),
        });
    }
    rank_cells(&mut cells);
    Row {
        subject: Subject::Label(label.to_owned()),
        positives: agreed(|label| label.positives),
        negatives: agreed(|label| label.negatives),
        cells,
    }
}

fn mean_row(subject: Subject, sources: &[Source<'_>], published: &PublishedTable) -> Row {
    let without: &[&str] = match &subject {
        Subject::MeanWithout(label) => std::slice::from_ref(label),
        Subject::Label(_) | Subject::Mean => &[],
    };
    let mut cells = Vec::with_capacity(sources.len());
    for source in sources {
        let is_in = |label: &&LabelSummary| !without.contains(&label.label.as_str());
        // The labels that every training has an AUC of, and each training's mean over them.
        let labels: Vec<&str> = source
            .summaries
            .first()
            .into_iter()
            .flat_map(|summary| &summary.labels)
            .filter(is_in)
            .map(|label| label.label.as_str())
            .filter(|label| source.label(label).iter().all(|found| found.auc.is_some()))
            .collect();
        let mean_of = |summary: &&Summary| {
            let is_counted = |label: &&LabelSummary| labels.contains(&label.label.as_str());
            let counted = summary.labels.iter().filter(is_counted);
            let sum: f64 = counted.filter_map(|label| label.auc).sum();
            (!labels.is_empty()).then(|| sum / labels.len() as f64)
        };
        let means: Vec<Option<f64>> = source.summaries.iter().map(mean_of).collect();
        let (auc, spread) = over_seeds(&means);
        let printed: Vec<Option<f64>> = (0..published.columns.len())
            .map(|column| published.mean(column, &labels))
            .collect();
        let at = source.published_column(published);
        cells.push(Cell {
            auc,
            interval: source
                .only()
                .and_then(|summary| mean_interval(summary, without)),
            spread,
            n_labels: labels.len(),
            rank: None,
            published: at.and_then(|at| printed.get(at).copied().flatten()),
            published_rank: at.and_then(|at| ranks(&printed).get(at).copied().flatten()),
        });
    }
    rank_cells(&mut cells);
    Row {
        subject,
        positives: None,
        negatives: None,
        cells,
    }
}

impl Source<'_> {
    fn published_column(&self, published: &PublishedTable) -> Option<usize> {
        let is_published = self.column.is_published;
        is_published
            .then(|| published.column(&self.published))
            .flatten()
    }
}

fn rank_cells(cells: &mut [Cell]) {
    let aucs: Vec<Option<f64>> = cells.iter().map(|cell| cell.auc).collect();
    for (cell, rank) in cells.iter_mut().zip(ranks(&aucs)) {
        cell.rank = rank;
    }
}

/// By patient where the summary has it.
fn label_interval(label: &LabelSummary) -> Option<Interval> {
    let made = |ends: Option<[f64; 2]>, degrees_of_freedom, method| {
        let [lower, upper] = ends?;
        Some(Interval {
            lower,
            upper,
            degrees_of_freedom,
            method,
        })
    };
    made(
        label.auc_interval_clustered,
        label.auc_df_clustered,
        IntervalMethod::DelongByPatient,
    )
    .or_else(|| made(label.auc_interval, label.auc_df, IntervalMethod::Delong))
}

/// The mean's, if it is of the same labels.
fn mean_interval(summary: &Summary, without: &[&str]) -> Option<Interval> {
    let means = &summary.means;
    let [lower, upper] = means.auc_interval?;
    let (method, degrees_of_freedom) = match &means.bootstrap {
        Some(bootstrap) if bootstrap.by_patient => (IntervalMethod::BootstrapByPatient, None),
        Some(_) => (IntervalMethod::Bootstrap, None),
        None if means.by_patient => (IntervalMethod::DelongByPatient, means.auc_df),
        None => (IntervalMethod::Delong, means.auc_df),
    };
    (means.without == without).then_some(Interval {
        lower,
        upper,
        degrees_of_freedom,
        method,
    })
}
