//! The report of an experiment, made from its runs' folders alone: `report.html` and `report.md`, with
//! `tables/*.csv` and `figures/*.{svg,png}` beside them.

use cxr_table::csv_line as line;
use std::path::{Path, PathBuf};

use cxr_fs::FsError;
use cxr_metrics::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ReportError;
use crate::evidence::{Evidence, LossTest};
use crate::explanations::BoxScores;
use crate::figures::figures;
use crate::tables::{
    AucTable, Column, Interval, IntervalMethod, LEFT_OUT_OF_SECOND_MEAN, MethodsTable, StageTable,
    Subject, methods_table, or_empty, stage_table, tables,
};
use crate::{html, markdown, story};
use cxr_run::{RunError, RunFolder, RunMetrics, ends, read_run_file, write_json};

/// The name of the file in an experiment's folder that says what was meant to run: [`Reproduction`].
pub const REPRODUCTION_FILE: &str = "reproduce.json";

const STAGES_FILE: &str = "stages.csv";

/// What a call of `cxr reproduce` was to do, kept so that a report can say what was not run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reproduction {
    /// The command, argument by argument.
    pub command: Vec<String>,
    /// All variants of the experiment, those that were not asked for included.
    pub variants: Vec<String>,
}

impl Reproduction {
    /// Writes it into an experiment's folder.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, experiment_folder: &Path) -> Result<(), ReportError> {
        let path = experiment_folder.join(REPRODUCTION_FILE);
        Ok(write_json(&path, self)?)
    }

    fn read(experiment_folder: &Path) -> Result<Option<Self>, ReportError> {
        let path = experiment_folder.join(REPRODUCTION_FILE);
        let Some(text) = read_run_file(&path)? else {
            return Ok(None);
        };
        match serde_json::from_str(&text) {
            Ok(reproduction) => Ok(Some(reproduction)),
            Err(source) => Err(RunError::RunFile { path, source }.into()),
        }
    }
}

/// All that an experiment's folder holds, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The experiment's name.
    pub experiment: String,
    /// The finished runs, in the paper's order.
    pub runs: Vec<RunMetrics>,
    /// What each finished run was made on; `None` where it did not say.
    pub environments: Vec<Option<Value>>,
    /// The variants that have begun and not ended.
    pub unfinished: Vec<String>,
    /// What was meant to run, where that is known.
    pub reproduction: Option<Reproduction>,
    /// What predictions and labels show beyond the metrics.
    pub evidence: Evidence,
}

impl Report {
    /// Reads an experiment's folder, `RUNS/<experiment>`, and computes what its metrics do not have:
    /// curves and paired tests, which takes seconds where predictions are many.
    ///
    /// # Errors
    /// Those of [`RunFolder::find`], of the first file that cannot be read, and of predictions and
    /// labels that do not belong together.
    pub fn read(experiment_folder: &Path) -> Result<Self, ReportError> {
        let mut report = Self {
            experiment: String::new(),
            runs: Vec::new(),
            environments: Vec::new(),
            unfinished: Vec::new(),
            reproduction: Reproduction::read(experiment_folder)?,
            evidence: Evidence::default(),
        };
        let mut finished = Vec::new();
        for folder in RunFolder::find(experiment_folder)? {
            if let Some(what) = folder.finish_of_tables()?.changes() {
                let path = folder.path().to_owned();
                return Err(RunError::RunChanged { path, what }.into());
            }
            if folder.is_finished() {
                report.runs.push(folder.metrics()?);
                report.environments.push(folder.environment()?);
                finished.push(folder);
            } else {
                report.unfinished.push(folder.variant().to_owned());
            }
        }
        let folder_name = experiment_folder.file_name().and_then(|name| name.to_str());
        report.experiment = match report.runs.first() {
            Some(run) => run.experiment.clone(),
            None => folder_name.unwrap_or("experiment").to_owned(),
        };
        report.evidence = Evidence::of(&finished, &report.runs)?;
        Ok(report)
    }

    /// The variants that were meant to run and have no folder.
    pub fn not_run(&self) -> Vec<&str> {
        let meant = self.reproduction.iter().flat_map(|meant| &meant.variants);
        let has_run = |variant: &str| {
            self.runs.iter().any(|run| run.variant == variant)
                || self.unfinished.iter().any(|begun| begun == variant)
        };
        meant
            .map(String::as_str)
            .filter(|variant| !has_run(variant))
            .collect()
    }

    /// The tables of AUCs for which there are runs, 1 to 4.
    pub fn tables(&self) -> Vec<AucTable> {
        let mut tables = tables(&self.runs);
        for table in &mut tables {
            for row in &mut table.rows {
                let is_without = row.subject == Subject::MeanWithout(LEFT_OUT_OF_SECOND_MEAN);
                for (column, cell) in table.columns.iter().zip(&mut row.cells) {
                    if is_without && cell.interval.is_none() {
                        cell.interval = self.interval_without(column);
                    }
                }
            }
        }
        tables
    }

    fn interval_without(&self, column: &Column) -> Option<Interval> {
        let key = (column.variant.clone(), column.part, column.views);
        let means = &self.evidence.means_without;
        let mean = means.get(&key).filter(|_| column.seeds.len() == 1)?;
        let interval = mean.interval(Level::P95)?;
        Some(Interval {
            lower: interval.lower,
            upper: interval.upper,
            degrees_of_freedom: mean.degrees_of_freedom,
            method: if self.evidence.by_patient {
                IntervalMethod::DelongByPatient
            } else {
                IntervalMethod::Delong
            },
        })
    }

    /// Table 5; `None` where there is no run to set beside the published methods.
    pub fn methods_table(&self) -> Option<MethodsTable> {
        methods_table(&self.runs)
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(&story::document(self))
    }

    /// Mean AUC untrained and after each stage, of the runs that kept it.
    pub fn stage_table(&self) -> Option<StageTable> {
        stage_table(&self.runs)
    }

    /// The report as one page, which needs no other file and no network.
    pub fn html(&self) -> String {
        html::render(self, &story::document(self))
    }

    /// Writes `report.html`, `report.md`, `tables/*.csv` and `figures/*` into `folder`, each whole or
    /// not at all, and gives back their paths, the page first. A table or figure that an earlier report
    /// had and this one has not is taken away.
    ///
    /// # Errors
    /// A file that cannot be written, and [`ReportError::Draw`] for a figure.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, text) in self.csv_files() {
            files.push((format!("tables/{name}"), text.into_bytes()));
        }
        for figure in figures(self) {
            let name = format!("figures/{}", figure.name);
            files.push((format!("{name}.svg"), figure.to_svg().into_bytes()));
            files.push((format!("{name}.png"), figure.to_png()?));
        }
        for kind in ["tables", "figures"] {
            let path = folder.join(kind);
            std::fs::create_dir_all(&path).map_err(FsError::at("make", &path))?;
            // What a call has left that was killed while it wrote.
            cxr_fs::remove_unfinished(&path)?;
        }
        cxr_fs::remove_unfinished(folder)?;
        for known in KNOWN_FILES {
            if !files.iter().any(|(name, _)| name == known) {
                remove(&folder.join(known))?;
            }
        }
        // Last, so that a report never speaks of tables that are not there.
        files.push(("report.md".to_owned(), self.markdown().into_bytes()));
        files.push(("report.html".to_owned(), self.html().into_bytes()));
        let mut written = Vec::with_capacity(files.len());
        for (name, bytes) in &files {
            let path = folder.join(name);
            cxr_fs::write(&path, bytes)?;
            written.push(path);
        }
        written.reverse();
        Ok(written)
    }

    /// Every table as a file's name and its text.
    pub(crate) fn csv_files(&self) -> Vec<(String, String)> {
        let mut files = vec![
            ("history.csv".to_owned(), self.history_csv()),
            ("time.csv".to_owned(), self.time_csv()),
        ];
        for table in self.tables() {
            files.push((format!("table{}.csv", table.number), table.to_csv()));
        }
        if let Some(table) = self.stage_table() {
            files.push((STAGES_FILE.to_owned(), table.to_csv()));
        }
        if let Some(table) = self.methods_table() {
            files.push(("table5.csv".to_owned(), table.to_csv()));
        }
        let evidence = &self.evidence;
        for (name, tests) in [
            ("tests.csv", &evidence.tests),
            ("tests-tau.csv", &evidence.tau_tests),
        ] {
            if !tests.is_empty() {
                files.push((name.to_owned(), tests_csv(tests)));
            }
        }
        if !self.seeds_csv().is_empty() {
            files.push(("seeds.csv".to_owned(), self.seeds_csv()));
        }
        let pictures = evidence.pictures.as_ref();
        if let Some(boxes) = pictures.and_then(|pictures| pictures.explanations.boxes.as_ref()) {
            files.push(("boxes.csv".to_owned(), boxes_csv(boxes)));
        }
        files
    }

    /// Every test AUC of every run, where several differ in the seed alone; else empty.
    fn seeds_csv(&self) -> String {
        let mut seeds: Vec<u64> = self.runs.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() < 2 {
            return String::new();
        }
        let mut text = line(["variant", "seed", "views", "row", "auc"]);
        for run in &self.runs {
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

    fn history_csv(&self) -> String {
        let mut text = line([
            "variant",
            "stage",
            "epoch",
            "steps",
            "mean_loss",
            "validation_auc",
            "validation_labels",
        ]);
        for run in &self.runs {
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

    fn time_csv(&self) -> String {
        let mut text = line(["variant", "part", "seconds"]);
        for run in &self.runs {
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
}

/// All that this or an earlier version may have written.
const KNOWN_FILES: [&str; 25] = [
    "tables/table1.csv",
    "tables/table2.csv",
    "tables/table3.csv",
    "tables/table4.csv",
    "tables/table5.csv",
    "tables/stages.csv",
    "tables/tests.csv",
    "tables/tests-tau.csv",
    "tables/seeds.csv",
    "tables/boxes.csv",
    "tables/history.csv",
    "figures/figure1.svg",
    "figures/figure1.png",
    "figures/figure3.svg",
    "figures/figure3.png",
    "figures/figure4.svg",
    "figures/figure4.png",
    "figures/figure5.svg",
    "figures/figure5.png",
    "figures/figure6.svg",
    "figures/figure6.png",
    "figures/figure7.svg",
    "figures/figure7.png",
    "figures/figure-tau.svg",
    "figures/figure-tau.png",
];

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
            add("mean without Hernia", aucs, certainty, None);
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

fn boxes_csv(boxes: &BoxScores) -> String {
    let mut text = line([
        "finding",
        "boxes",
        "hits",
        "accuracy",
        "mean_box_area",
        "mean_overlap",
        "empty_maps",
    ]);
    for finding in &boxes.findings {
        text.push_str(&line([
            finding.finding.clone(),
            finding.boxes.to_string(),
            finding.hits.to_string(),
            or_empty(finding.accuracy()),
            finding.mean_box_area.to_string(),
            finding.mean_overlap.to_string(),
            finding.empty_maps.to_string(),
        ]));
    }
    text
}

fn remove(path: &Path) -> Result<(), ReportError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FsError::at("remove", path)(error).into())
        }
        _ => Ok(()),
    }
}
