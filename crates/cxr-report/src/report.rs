//! The report of an experiment, made from its runs' folders alone: `report.md` with `tables/*.csv`
//! beside it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::atomic;
use crate::error::ReportError;
use crate::markdown;
use crate::run::{RunFolder, RunMetrics};
use crate::tables::{AucTable, StageTable, line, or_empty, stage_table, tables};

/// The name of the file in an experiment's folder that says what was meant to run: [`Reproduction`].
pub const REPRODUCTION_FILE: &str = "reproduce.json";

const STAGES_FILE: &str = "stages.csv";

/// What a call of `cargo xtask reproduce` was to do, kept so that a report can say what was not run.
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
    /// [`ReportError::Write`].
    pub fn write(&self, experiment_folder: &Path) -> Result<(), ReportError> {
        let path = experiment_folder.join(REPRODUCTION_FILE);
        match serde_json::to_string_pretty(self) {
            Ok(text) => atomic::write(&path, (text + "\n").as_bytes()),
            Err(error) => Err(ReportError::Write {
                path,
                source: error.into(),
            }),
        }
    }

    fn read(experiment_folder: &Path) -> Result<Option<Self>, ReportError> {
        let path = experiment_folder.join(REPRODUCTION_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReportError::Read { path, source }),
        };
        match serde_json::from_str(&text) {
            Ok(reproduction) => Ok(Some(reproduction)),
            Err(source) => Err(ReportError::RunFile { path, source }),
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
}

impl Report {
    /// Reads an experiment's folder, `RUNS/<experiment>`.
    ///
    /// # Errors
    /// Those of [`RunFolder::find`], and of the first file that cannot be read.
    pub fn read(experiment_folder: &Path) -> Result<Self, ReportError> {
        let mut report = Self {
            experiment: String::new(),
            runs: Vec::new(),
            environments: Vec::new(),
            unfinished: Vec::new(),
            reproduction: Reproduction::read(experiment_folder)?,
        };
        for folder in RunFolder::find(experiment_folder)? {
            if folder.is_finished() {
                report.runs.push(folder.metrics()?);
                report.environments.push(folder.environment()?);
            } else {
                report.unfinished.push(folder.variant().to_owned());
            }
        }
        let folder_name = experiment_folder.file_name().and_then(|name| name.to_str());
        report.experiment = match report.runs.first() {
            Some(run) => run.experiment.clone(),
            None => folder_name.unwrap_or("experiment").to_owned(),
        };
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

    /// The tables for which there are runs.
    pub fn tables(&self) -> Vec<AucTable> {
        tables(&self.runs)
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        markdown::page(self)
    }

    /// Mean AUC untrained and after each stage, of the runs that kept it.
    pub fn stage_table(&self) -> Option<StageTable> {
        stage_table(&self.runs)
    }

    /// Writes `report.md`, `tables/table*.csv`, `tables/stages.csv`, `tables/history.csv` and `tables/time.csv` into
    /// `folder`, each whole or not at all, and gives back their paths, the report first. A table that
    /// an earlier report had and this one has not is taken away.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
        let tables_folder = folder.join("tables");
        std::fs::create_dir_all(&tables_folder).map_err(|source| ReportError::Write {
            path: tables_folder.clone(),
            source,
        })?;
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
        let of_paper = (1..=5).map(|number| format!("table{number}.csv"));
        for name in of_paper.chain([STAGES_FILE.to_owned()]) {
            if !files.iter().any(|(file, _)| *file == name) {
                remove(&tables_folder.join(name))?;
            }
        }
        let mut written = vec![folder.join("report.md")];
        for (name, text) in &files {
            let path = tables_folder.join(name);
            atomic::write(&path, text.as_bytes())?;
            written.push(path);
        }
        // Last, so that a report never speaks of tables that are not there.
        atomic::write(&written[0], self.markdown().as_bytes())?;
        Ok(written)
    }

    fn history_csv(&self) -> String {
        let mut text = line(
            [
                "variant",
                "stage",
                "epoch",
                "steps",
                "mean_loss",
                "validation_auc",
                "validation_labels",
            ]
            .map(str::to_owned),
        );
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
        let mut text = line(["variant", "part", "seconds"].map(str::to_owned));
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

fn remove(path: &Path) -> Result<(), ReportError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(ReportError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
