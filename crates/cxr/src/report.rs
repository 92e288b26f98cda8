//! `cxr report`: the reports of experiments, written again from their run folders alone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use cxr_report::report::Report;

use crate::progress::say;

/// Write the report of an experiment from its run folders alone
///
/// It needs neither images nor a network: labels, predictions and metrics are in the run folders. The page
/// report.html, report.md, tables/ and figures/ go into each experiment's folder.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The experiments' folders of runs, such as models/runs/paper
    #[arg(required = true, value_name = "RUNS")]
    folders: Vec<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for folder in &args.folders {
        if let Err(error) = write(folder) {
            say(&format!("error: {error:#}"));
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

/// Writes the report beside its runs and says where.
pub(crate) fn write(experiment_folder: &Path) -> anyhow::Result<()> {
    let written = Report::read(experiment_folder)
        .and_then(|report| report.write(experiment_folder))
        .with_context(|| format!("no report of `{}`", experiment_folder.display()))?;
    if let Some((page, others)) = written.split_first() {
        crate::scoring::print(&format!(
            "{} and {} files beside it: report.md, tables, figures\n",
            page.display(),
            others.len()
        ))?;
    }
    Ok(())
}
