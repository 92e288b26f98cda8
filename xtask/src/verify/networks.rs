//! Every described network against torchvision and timm: PyTorch makes the expected values in double precision, a test of
//! `cxr-backbone` compares.

use std::process::Command;

use anyhow::Context as _;
use cxr_terminal::tell;

use crate::bench::peer;
use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let Some(python) = peer::python(&["torch", "torchvision", "timm"])? else {
        tell!("   skipped: no Python has torch, torchvision and timm; CXR_PYTHON may name one");
        return Ok(Ending::Done);
    };
    let place = workspace
        .root()
        .join("target")
        .join("verify")
        .join("networks");
    std::fs::create_dir_all(&place)
        .with_context(|| format!("cannot make `{}`", place.display()))?;
    let expected = place.join("expected.json");
    let mut oracle = Command::new(python);
    let script = workspace.root().join("tests/golden/networks.py");
    oracle.arg(script).arg("--check").arg(&expected);
    let ended = interrupt.run(&mut oracle)?;
    if ended.ending != Ending::Done {
        return Ok(ended.ending);
    }
    let mut test = workspace.cargo();
    // What `cargo test --workspace` has built: the kernels are optimised as in a release.
    test.args(["test", "--quiet", "--locked", "--workspace"]);
    test.args(["--test", "networks", "--", "--nocapture"]);
    test.arg("all_networks_agree_with_their_libraries");
    test.env("CXR_NETWORKS", &expected);
    Ok(interrupt.run(&mut test)?.ending)
}
