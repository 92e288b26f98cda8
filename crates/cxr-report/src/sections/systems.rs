//! The published systems that were run, side by side: each by the variant of it that validates best, against FZLPR(0.2) and
//! against its own untrained network.

use cxr_run::{Part, RunMetrics, ViewSet};
use cxr_table::csv_line as line;

use super::paired_tests::{self, with_interval};
use super::words::{auc, dash, signed};
use super::{Material, Section, auc_table};
use crate::document::{Block, Document, Table, TableCell};
use crate::evidence::LossTest;
use crate::paper::{SYSTEMS, TABLE_5, is_of_a_system, published_system, title_of_system};
use crate::report::Report;
use crate::tables::{
    AucTable, Interval, PHANTOM_LABEL, Source, Subject, assemble, by_seed, or_empty,
};

/// The published systems.
pub(super) struct Systems;

impl Section for Systems {
    fn table(&self, runs: &[RunMetrics]) -> Option<AucTable> {
        let systems = system_runs(runs);
        let sources = systems.iter().filter_map(|system| {
            let published = published_system(system.name).and_then(|known| known.table_5);
            let title = title_of_system(system.name).to_owned();
            let views = ViewSet::HorizontalFlipZoom;
            let published = published.unwrap_or_default();
            Source::new(system.chosen(), Part::Test, views, title, published)
        });
        let title = "Test AUC of published systems here, flip and zoom averaged";
        assemble(5, title, &TABLE_5, sources.collect())
    }

    fn add(&self, page: &mut Document, from: &Material<'_>) {
        if let Some(table) = from.report.systems_table() {
            add(page, from, &table);
        }
    }

    fn files(&self, from: &Material<'_>) -> Vec<(&'static str, String)> {
        let here = auc_table::file(from, 5, "table5-here.csv");
        let systems = (from.report.systems_table()).map(|table| ("systems.csv", table.to_csv()));
        let tests = &from.report.evidence.system_tests;
        let tests = paired_tests::file(tests, "tests-systems.csv");
        here.into_iter().chain(systems).chain(tests).collect()
    }

    fn file_names(&self) -> &'static [&'static str] {
        &["table5-here.csv", "systems.csv", "tests-systems.csv"]
    }
}

/// The runs of one published system.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemRuns<'a> {
    /// Its name in experiment files.
    pub name: &'a str,
    /// Its variants, each with its seeds; the one that validates best is the first.
    pub variants: Vec<Vec<&'a RunMetrics>>,
}

impl<'a> SystemRuns<'a> {
    /// The seeds of the variant with the highest mean AUC of the validation images, single view: what stands for the
    /// system. Test images have no part in the choice.
    pub fn chosen(&self) -> &[&'a RunMetrics] {
        self.variants.first().map_or(&[], Vec::as_slice)
    }
}

/// The published systems among some runs, those that this crate knows first, in its order.
pub fn system_runs(runs: &[RunMetrics]) -> Vec<SystemRuns<'_>> {
    let mut systems: Vec<SystemRuns<'_>> = Vec::new();
    for seeds in by_seed(runs.iter().filter(|run| is_of_a_system(run))) {
        let Some(name) = seeds.first().and_then(|run| run.system.as_deref()) else {
            continue;
        };
        match systems.iter_mut().find(|system| system.name == name) {
            Some(system) => system.variants.push(seeds),
            None => systems.push(SystemRuns {
                name,
                variants: vec![seeds],
            }),
        }
    }
    for system in &mut systems {
        let validates = |seeds: &Vec<&RunMetrics>| {
            let means = seeds.iter().map(|run| validation_mean(run));
            let means: Option<Vec<f64>> = means.collect();
            means.map_or(f64::NEG_INFINITY, |means| {
                means.iter().sum::<f64>() / means.len().max(1) as f64
            })
        };
        // Stable: of equals the first.
        (system.variants).sort_by(|a, b| validates(b).total_cmp(&validates(a)));
    }
    let place = |name: &str| SYSTEMS.iter().position(|known| known.name == name);
    let last = SYSTEMS.len();
    systems.sort_by_key(|system| (place(system.name).unwrap_or(last), system.name));
    systems
}

/// Single view.
fn validation_mean(run: &RunMetrics) -> Option<f64> {
    run.validation.get(&ViewSet::Single)?.means.auc
}

/// Every run of a published system.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemsTable {
    /// Whether a run in it is on images that are drawn, not taken.
    pub is_phantom: bool,
    /// One row per run, systems together, the chosen variant of each first.
    pub rows: Vec<SystemRow>,
}

/// One run of a published system.
#[derive(Clone, Debug, PartialEq)]
pub struct SystemRow {
    /// The system's name in experiment files.
    pub system: String,
    /// The run.
    pub variant: String,
    /// Whether it is of the variant that stands for the system.
    pub is_chosen: bool,
    /// Its seed.
    pub seed: u64,
    /// Its loss.
    pub loss: String,
    /// One in so many images held out for the test, where those are not the official ones.
    pub hold_out: Option<usize>,
    /// Mean AUC of the validation images, single view: what the variant is chosen by.
    pub validation: Option<f64>,
    /// Mean AUC of the test images by the network before training, single view.
    pub untrained: Option<f64>,
    /// Mean AUC of the test images, single view.
    pub single: Option<f64>,
    /// Its 95 % interval.
    pub single_interval: Option<[f64; 2]>,
    /// Mean AUC of the test images, flip and zoom averaged.
    pub averaged: Option<f64>,
    /// Its 95 % interval.
    pub averaged_interval: Option<[f64; 2]>,
    /// The published mean.
    pub published: Option<f64>,
    /// The mean minus that of FZLPR(0.2) here, on the same test images, flip and zoom averaged.
    pub difference: Option<f64>,
    /// Its 95 % interval.
    pub difference_interval: Option<[f64; 2]>,
    /// The p-value of the difference.
    pub p_value: Option<f64>,
    /// The same after Holm's correction for the systems that are compared.
    pub p_value_holm: Option<f64>,
}

impl SystemRow {
    /// Whether the test mean is above that of the untrained network by more than its interval: the lower end is above it.
    /// `None` where one of them is not known.
    pub fn is_above_untrained(&self) -> Option<bool> {
        let [lower, _] = self.single_interval?;
        Some(lower > self.untrained?)
    }
}

/// The runs of published systems with what `tests` say of them, and the corrected p-values of the tests' means, in the same
/// order; `None` where there is none.
pub fn systems_table(
    runs: &[RunMetrics],
    tests: &[LossTest],
    corrected: &[Option<f64>],
) -> Option<SystemsTable> {
    let mut rows = Vec::new();
    for system in system_runs(runs) {
        for (at, seeds) in system.variants.iter().enumerate() {
            rows.extend(seeds.iter().map(|run| {
                let tested = tests.iter().position(|test| test.a == run.variant);
                let means = tested.and_then(|at| Some(&tests.get(at)?.comparison.means));
                row(
                    run,
                    system.name,
                    at == 0,
                    means,
                    tested.and_then(|at| *corrected.get(at)?),
                )
            }));
        }
    }
    (!rows.is_empty()).then(|| SystemsTable {
        is_phantom: runs
            .iter()
            .any(|run| is_of_a_system(run) && run.data.phantom),
        rows,
    })
}

fn row(
    run: &RunMetrics,
    system: &str,
    is_chosen: bool,
    test: Option<&cxr_run::MacroComparison>,
    p_value_holm: Option<f64>,
) -> SystemRow {
    let of_test = |views| run.test.get(&views).map(|summary| &summary.means);
    let (single, averaged) = (
        of_test(ViewSet::Single),
        of_test(ViewSet::HorizontalFlipZoom),
    );
    let known = published_system(system).filter(|_| run.data.is_comparable());
    let column = known.and_then(|known| TABLE_5.column(known.table_5?));
    SystemRow {
        system: system.to_owned(),
        variant: run.variant.clone(),
        is_chosen,
        seed: run.seed,
        loss: run.loss.clone(),
        hold_out: run.data.hold_out,
        validation: validation_mean(run),
        untrained: run.stages.first().and_then(|stage| stage.test.auc),
        single: single.and_then(|means| means.auc),
        single_interval: single.and_then(|means| means.auc_interval),
        averaged: averaged.and_then(|means| means.auc),
        averaged_interval: averaged.and_then(|means| means.auc_interval),
        published: column.and_then(|column| TABLE_5.averages.get(column).copied()),
        difference: test.and_then(|test| test.difference),
        difference_interval: test.and_then(|test| test.interval),
        p_value: test.and_then(|test| test.p_value),
        p_value_holm,
    }
}

impl SystemsTable {
    /// The table as CSV: one line per run; what is not known is empty.
    pub fn to_csv(&self) -> String {
        let mut text = line([
            "system",
            "variant",
            "is_chosen",
            "seed",
            "loss",
            "hold_out",
            "validation_single",
            "untrained_single",
            "test_single",
            "test_single_lower",
            "test_single_upper",
            "is_above_untrained",
            "test_flip_zoom",
            "test_flip_zoom_lower",
            "test_flip_zoom_upper",
            "published",
            "difference_to_fzlpr",
            "difference_lower",
            "difference_upper",
            "p_value",
            "p_value_holm",
            "is_phantom",
        ]);
        for row in &self.rows {
            let end = |ends: Option<[f64; 2]>, at: usize| or_empty(ends.map(|ends| ends[at]));
            let above = row.is_above_untrained();
            text.push_str(&line([
                row.system.clone(),
                row.variant.clone(),
                row.is_chosen.to_string(),
                row.seed.to_string(),
                row.loss.clone(),
                row.hold_out.map_or_else(String::new, |n| n.to_string()),
                or_empty(row.validation),
                or_empty(row.untrained),
                or_empty(row.single),
                end(row.single_interval, 0),
                end(row.single_interval, 1),
                above.map_or_else(String::new, |above| above.to_string()),
                or_empty(row.averaged),
                end(row.averaged_interval, 0),
                end(row.averaged_interval, 1),
                or_empty(row.published),
                or_empty(row.difference),
                end(row.difference_interval, 0),
                end(row.difference_interval, 1),
                or_empty(row.p_value),
                or_empty(row.p_value_holm),
                self.is_phantom.to_string(),
            ]));
        }
        text
    }
}

fn add(page: &mut Document, from: &Material<'_>, table: &SystemsTable) {
    let of_what = if table.is_phantom { PHANTOM_LABEL } else { "" };
    page.heading(format!(
        "Published systems, each built and run here{of_what}"
    ));
    let is_published = table.rows.iter().any(|row| row.published.is_some());
    let is_tested = table.rows.iter().any(|row| row.difference.is_some());
    let mut header: Vec<TableCell> = ["system", "variant", "untrained", "single view"]
        .map(TableCell::from)
        .to_vec();
    header.push("flip and zoom".into());
    if is_published {
        header.push("published".into());
    }
    if is_tested {
        header.push("− FZLPR (τ = 0.2) here".into());
        header.push("p, Holm".into());
    }
    header.push("validation".into());
    let mut rows = vec![header];
    for row in &table.rows {
        let mut title = TableCell::from(title_of_system(&row.system));
        if let Some(one_in) = row.hold_out {
            title = title.after(&format!("one in {one_in} images held out"));
        }
        let trained = within(row.single, row.single_interval);
        let mut cells = vec![
            title,
            TableCell::code(&row.variant).bold_if(row.is_chosen),
            auc(row.untrained),
            trained.bold_if(row.is_above_untrained() == Some(true)),
            within(row.averaged, row.averaged_interval),
        ];
        if is_published {
            cells.push(auc(row.published));
        }
        if is_tested {
            cells.push((row.difference).map_or_else(dash, |difference| {
                with_interval(difference, row.difference_interval)
            }));
            let p = row.p_value_holm;
            cells.push(p.map_or_else(dash, |p| paired_tests::p_value(p).into()));
        }
        cells.push(auc(row.validation));
        rows.push(cells);
    }
    page.add(Block::Table(Table {
        rows,
        feet: 0,
        file: Some("systems.csv".to_owned()),
    }));
    page.list(notes(from.report, table, is_tested));
    // Where Table 5 has no place for them.
    if from.report.methods_table().is_none()
        && let Some(here) = from.table(5)
    {
        page.text(format!("**{}**, by finding:", here.title));
        auc_table::add_ours(page, here, "table5-here.csv");
    }
    let tests = &from.report.evidence.system_tests;
    if !tests.is_empty() {
        page.text(
            "**Paired tests of each system against FZLPR (τ = 0.2)**, system minus FZLPR on the same test images, \
             flip and zoom averaged, made as those between losses:",
        );
        paired_tests::add_tests(page, from.report, tests, "tests-systems.csv");
    }
}

fn within(mean: Option<f64>, interval: Option<[f64; 2]>) -> TableCell {
    let cell = auc(mean);
    match interval {
        Some([lower, upper]) => cell.aside(format!("{lower:.4}–{upper:.4}")),
        None => cell,
    }
}

fn notes(report: &Report, table: &SystemsTable, is_tested: bool) -> Vec<String> {
    let mut notes = vec![
        "Mean AUC of the test images; in brackets 95 % intervals. A variant's name is bold where it stands for its \
         system: it has the highest mean AUC of the validation images. A mean of the single view is bold where its interval \
         lies above the mean of the untrained network. What was decided where the authors are silent is in docs/related.md."
            .to_owned(),
    ];
    if is_tested {
        notes.push(
            "Differences are of the chosen variants with their first seed; p-values are of the mean, after Holm's correction \
             for the number of systems. A system on test images of its own has none."
                .to_owned(),
        );
    }
    let unofficial = table.rows.iter().filter(|row| row.hold_out.is_some());
    let names: Vec<String> = unofficial.map(|row| format!("`{}`", row.variant)).collect();
    if !names.is_empty() {
        notes.push(format!(
            "**Not the official test images**: {}. Their figures are not comparable with the others'.",
            names.join(", ")
        ));
    }
    if report.runs.iter().any(|run| run.data.is_comparable()) {
        let mut told: Vec<&str> = Vec::new();
        for row in table.rows.iter().filter(|row| row.published.is_some()) {
            if let Some(known) = published_system(&row.system)
                && !told.contains(&known.name)
            {
                told.push(known.name);
                notes.push(format!(
                    "{}: here and published may differ, as {}.",
                    known.title, known.may_differ
                ));
            }
        }
    }
    notes
}

/// What Table 5 shows of a system here in one of its rows.
pub(super) fn cell_here(table: &AucTable, column: usize, subject: &Subject) -> TableCell {
    let row = table.rows.iter().find(|row| row.subject == *subject);
    let Some(cell) = row.and_then(|row| row.cells.get(column)) else {
        return dash();
    };
    let mut shown = auc(cell.auc);
    if let Some(Interval { lower, upper, .. }) = cell.interval {
        shown = shown.aside(format!("{lower:.4}–{upper:.4}"));
    }
    if let Some(spread) = cell.spread {
        shown = shown.after(&format!("± {:.4}", spread.sd));
    }
    if let Some(difference) = cell.difference() {
        shown = shown.after(&signed(difference));
    }
    shown
}

/// The columns of the table of AUCs whose systems have this column of Table 5; `None` for those that have none.
pub(super) fn columns_here(
    table: &AucTable,
    runs: &[RunMetrics],
    published: Option<&str>,
) -> Vec<usize> {
    let is_its = |&at: &usize| {
        let variant = table.columns.get(at).map(|column| column.variant.as_str());
        let run = runs
            .iter()
            .find(|run| Some(run.variant.as_str()) == variant);
        let system = run.and_then(|run| run.system.as_deref());
        system
            .and_then(published_system)
            .and_then(|known| known.table_5)
            == published
    };
    (0..table.columns.len()).filter(is_its).collect()
}
