//! How to repeat the runs, and what they are not for.

use super::environment;
use super::words::shell_line;
use super::{Material, Section};
use crate::document::{Block, Document};
use crate::report::Report;
use cxr_run::RunMetrics;

/// The commands that made the runs.
pub(super) struct Repeat;

impl Section for Repeat {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        page.heading("To repeat it");
        add_commands(page, from.report);
    }
}

/// What this is not, and where the images are from.
pub(super) struct Disclaimer;

impl Section for Disclaimer {
    fn add(&self, page: &mut Document, from: &Material<'_>) {
        page.heading("What this is not");
        page.text(
            "Research software: not a medical device, not for clinical use, and no figure here says how \
             a model does on another hospital's images.",
        );
        if from.report.runs.iter().any(|run| run.data.is_comparable()) {
            page.text(
                "The images are of NIH ChestX-ray14, provided by the NIH Clinical Center \
                 (<https://nihcc.app.box.com/v/ChestXray-NIHCC>): Wang et al., CVPR 2017. Published \
                 figures: Hanif et al., Bioengineering 2025, 12(6), 593, doi 10.3390/bioengineering12060593.",
            );
        }
    }
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
