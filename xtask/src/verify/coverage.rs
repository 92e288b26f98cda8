//! Intervals hold and tests keep their level on test sets whose truth is known: an example of `cxr-metrics`, which
//! simulates and judges, and prints the tables of docs/statistics.md.

use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--release", "--package", "cxr-metrics"]);
    command.args(["--example", "coverage"]);
    Ok(interrupt.run(&mut command)?.ending)
}
