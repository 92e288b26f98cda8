//! The report of an experiment, made from its runs' folders alone: `report.html` and `report.md`, with
//! `tables/*.csv` and `figures/*.{svg,png}` beside them.

use std::path::{Path, PathBuf};

use cxr_fs::FsError;
use cxr_metrics::Level;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ReportError;
use crate::evidence::Evidence;
use crate::figures;
use crate::paper::LEFT_OUT_OF_SECOND_MEAN;
use crate::sections::{Material, SECTIONS};
use crate::tables::{
    AucTable, Column, Interval, IntervalMethod, MethodsTable, StageTable, Subject, SystemsTable,
    methods_table, stage_table, systems_table, tables,
};
use crate::{html, markdown};
use cxr_run::{ExternalTest, RunError, RunFolder, RunMetrics, read_run_file, write_json};

/// The name of the file in an experiment's folder that says what was meant to run: [`Reproduction`].
pub const REPRODUCTION_FILE: &str = "reproduce.json";

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
    /// What each finished run's model is worth on other data sets.
    pub external: Vec<Vec<ExternalTest>>,
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
            external: Vec::new(),
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
                report.external.push(ExternalTest::read_all(folder.path())?);
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

    /// Every variant of the published systems that were run; `None` where there is none.
    pub fn systems_table(&self) -> Option<SystemsTable> {
        let evidence = &self.evidence;
        systems_table(&self.runs, &evidence.system_tests, &evidence.system_p_holm)
    }

    /// The report as Markdown.
    pub fn markdown(&self) -> String {
        markdown::render(&Material::of(self).document())
    }

    /// Mean AUC untrained and after each stage, of the runs that kept it.
    pub fn stage_table(&self) -> Option<StageTable> {
        stage_table(&self.runs)
    }

    /// The report as one page, which needs no other file and no network.
    pub fn html(&self) -> String {
        let from = Material::of(self);
        html::render(self, &from.document(), from.files())
    }

    /// Writes `report.html`, `report.md`, `tables/*.csv` and `figures/*` into `folder`, each whole or
    /// not at all, and gives back their paths, the page first. A table or figure that an earlier report
    /// had and this one has not is taken away.
    ///
    /// # Errors
    /// A file that cannot be written, and [`ReportError::Draw`] for a figure.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
        let from = Material::of(self);
        let document = from.document();
        let tables = from.files();
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        for (name, text) in &tables {
            files.push((format!("tables/{name}"), text.clone().into_bytes()));
        }
        for figure in &from.figures {
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
        for known in known_files() {
            if !files.iter().any(|(name, _)| *name == known) {
                remove(&folder.join(known))?;
            }
        }
        // Last, so that a report never speaks of tables that are not there.
        files.push((
            "report.md".to_owned(),
            markdown::render(&document).into_bytes(),
        ));
        let page = html::render(self, &document, tables);
        files.push(("report.html".to_owned(), page.into_bytes()));
        let mut written = Vec::with_capacity(files.len());
        for (name, bytes) in &files {
            let path = folder.join(name);
            cxr_fs::write(&path, bytes)?;
            written.push(path);
        }
        written.reverse();
        Ok(written)
    }
}

/// All that this or an earlier version may have written.
fn known_files() -> impl Iterator<Item = String> {
    let tables = SECTIONS.iter().flat_map(|section| section.file_names());
    let tables = tables.map(|name| format!("tables/{name}"));
    let figures = figures::NAMES.into_iter();
    let figures =
        figures.flat_map(|name| ["svg", "png"].map(|end| format!("figures/{name}.{end}")));
    tables.chain(figures)
}

fn remove(path: &Path) -> Result<(), ReportError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FsError::at("remove", path)(error).into())
        }
        _ => Ok(()),
    }
}
