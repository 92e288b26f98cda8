//! `cargo xtask report`: reports of experiments, anew from their run folders alone.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cxr_report::report::Report;
use cxr_terminal::{say, tell};

use crate::process::Ending;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The experiments' folders of runs, such as models/runs/paper
    #[arg(required = true, value_name = "RUNS")]
    folders: Vec<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut ending = Ending::Done;
    for folder in &arguments.folders {
        if let Err(error) = write(folder) {
            say!("error: {error:#}");
            ending = Ending::Failed;
        }
    }
    Ok(ending)
}

/// Writes the report beside its runs and says where.
pub(crate) fn write(experiment_folder: &Path) -> anyhow::Result<()> {
    let written = Report::read(experiment_folder)
        .and_then(|report| report.write(experiment_folder))
        .with_context(|| format!("no report of `{}`", experiment_folder.display()))?;
    if let Some((page, others)) = written.split_first() {
        tell!(
            "{} and {} files beside it: report.md, tables, figures",
            page.display(),
            others.len()
        );
    }
    Ok(())
}
