//! Every loss overfits thirty-two phantoms: an example of `cxr-train`, which trains and judges.

use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let mut command = workspace.cargo();
    command.args(["run", "--quiet", "--release", "--package", "cxr-train"]);
    command.args(["--example", "overfit"]);
    Ok(interrupt.run(&mut command)?.ending)
}
