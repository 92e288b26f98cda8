//! Models for and from other programs, held to those programs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use cxr_terminal::{Ending, Interrupt, tell};

use crate::bench::peer;
use crate::workspace::Workspace;

/// The network of the paper is compared on so many images, each other network on fewer.
const IMAGES: usize = 100;
const FEWER_IMAGES: usize = 8;

/// Exports every network with every head, and compares what others make of the files with our logits.
pub(super) fn check_export(
    workspace: &Workspace,
    interrupt: &Interrupt,
    networks: &[String],
) -> anyhow::Result<Ending> {
    let modules = ["torch", "torchvision", "onnx", "onnxruntime", "safetensors"];
    let Some(python) = peer::python(&modules)? else {
        tell!(
            "   skipped: no Python has {} (see CXR_PYTHON)",
            modules.join(", ")
        );
        return Ok(Ending::Done);
    };
    let build = [
        "build",
        "--release",
        "--package",
        "cxr-exchange",
        "--example",
        "exported",
    ];
    let (ended, exported) = workspace.build(interrupt, &build, "exported")?;
    let Some(exported) = exported.filter(|_| ended.ending == Ending::Done) else {
        return Ok(ended.ending);
    };
    let tract_place = workspace
        .root()
        .join("crates/cxr-exchange/tract/Cargo.toml");
    let tract_place = tract_place.to_string_lossy().into_owned();
    let build = ["build", "--release", "--manifest-path", &tract_place];
    let (ended, tract) = workspace.build(interrupt, &build, "cxr-tract")?;
    let Some(tract) = tract.filter(|_| ended.ending == Ending::Done) else {
        return Ok(ended.ending);
    };
    let (ended, listed) = interrupt.output(Command::new(&exported).arg("--list"))?;
    if ended.ending != Ending::Done {
        return Ok(ended.ending);
    }
    let mut failed = Vec::new();
    for line in listed.lines() {
        let (backbone, head) = line
            .split_once(' ')
            .context("expected a backbone and a head")?;
        if !networks.is_empty() && !networks.iter().any(|name| name == backbone) {
            continue;
        }
        // Gone with it: there are gigabytes of weights.
        let folder = tempfile::tempdir()?;
        let images = match backbone {
            "densenet121" => IMAGES,
            _ => FEWER_IMAGES,
        };
        let mut make = Command::new(&exported);
        make.args([backbone, head])
            .arg(folder.path())
            .arg(images.to_string());
        let mut compare = Command::new(&python);
        compare
            .arg(workspace.root().join("tests/golden/exported.py"))
            .arg(folder.path());
        let mut compare_tract = Command::new(&tract);
        compare_tract.arg(folder.path());
        tell!("   {line}");
        for command in [&mut make, &mut compare, &mut compare_tract] {
            let (ended, output) = interrupt.output(command)?;
            output.lines().for_each(|line| tell!("      {line}"));
            match ended.ending {
                Ending::Done => {}
                Ending::Interrupted => return Ok(Ending::Interrupted),
                Ending::Failed => failed.push(line.to_owned()),
            }
        }
    }
    if failed.is_empty() {
        return Ok(Ending::Done);
    }
    tell!("   failed: {}", failed.join(", "));
    Ok(Ending::Failed)
}

/// Has a script of PyTorch's write weights, imports them and compares predictions.
pub(super) fn check_import(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let modules = [
        "torch",
        "torchvision",
        "timm",
        "torchxrayvision",
        "safetensors",
        "PIL",
    ];
    let Some(python) = peer::python(&modules)? else {
        tell!(
            "   skipped: no Python has {} (see CXR_PYTHON)",
            modules.join(", ")
        );
        return Ok(Ending::Done);
    };
    let build = ["build", "--release", "--package", "cxr", "--bin", "cxr"];
    let (ended, cxr) = workspace.build(interrupt, &build, "cxr")?;
    let Some(cxr) = cxr.filter(|_| ended.ending == Ending::Done) else {
        return Ok(ended.ending);
    };
    let folder = tempfile::tempdir()?;
    let mut compare = script(workspace.root(), &python);
    compare.arg(cxr).arg(folder.path());
    Ok(interrupt.run(&mut compare)?.ending)
}

fn script(root: &Path, python: &PathBuf) -> Command {
    let mut command = Command::new(python);
    command.arg(root.join("tests/golden/imported.py"));
    command
}
