//! The finished demo against a linear probe, which is an example of the crate `cxr`.

use std::path::Path;

use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

/// `demo` is the finished experiment's folder.
pub(super) fn check(
    workspace: &Workspace,
    interrupt: &Interrupt,
    demo: &Path,
) -> anyhow::Result<Ending> {
    let mut command = workspace.cargo();
    command.args(["run", "--example", "probe", "--"]);
    Ok(interrupt.run(command.arg(demo))?.ending)
}
