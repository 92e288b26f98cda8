//! From 1024×1024 PNG files to a table: `cxr predict` against Pillow and ONNX Runtime.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use cxr_terminal::{Ending, Interrupt};

use super::metrics::built;
use super::{Program, Read, peer};
use crate::workspace::{BUILD_CXR, Workspace};

/// The fewest phantoms that `cxr phantoms` draws.
const IMAGES: usize = 336;
const NAME: &str = "predict, 1024×1024 PNG to CSV";

/// Ours and the peer, with all that they read in `scratch`; `None` when interrupted.
pub(super) fn programs(
    workspace: &Workspace,
    interrupt: &Interrupt,
    scratch: &Path,
    batch: usize,
    threads: usize,
) -> anyhow::Result<Option<(Vec<Program>, Option<Program>)>> {
    // As the README's commands build it: the profile `dev` has the kernels of `release`.
    let Some(cxr) = built(workspace, interrupt, &BUILD_CXR, "cxr")? else {
        return Ok(None);
    };
    let build = ["build", "--example", "untrained"];
    let Some(untrained) = built(workspace, interrupt, &build, "untrained")? else {
        return Ok(None);
    };
    let (data, model) = (scratch.join("data"), scratch.join("model.safetensors"));
    let mut make_model = Command::new(untrained);
    make_model.arg(&model);
    let mut draw = Command::new(&cxr);
    draw.arg("phantoms").arg("--data").arg(&data);
    draw.args(["--images", &IMAGES.to_string()]);
    for command in [&mut make_model, &mut draw] {
        let ended = interrupt.run(command)?;
        if ended.ending == Ending::Interrupted {
            return Ok(None);
        }
        ensure!(
            ended.ending == Ending::Done,
            "cannot make what is predicted: {}",
            ended.status
        );
    }
    let images = data.join("images");
    let n_images = std::fs::read_dir(&images)
        .with_context(|| format!("cannot read `{}`", images.display()))?
        .count();
    let read = || Read::Wall {
        name: NAME.to_owned(),
        n_images,
    };
    let out = scratch.join("ours.csv");
    let (batch, threads) = (batch.to_string(), threads.to_string());
    let ours_images = images.clone();
    let ours = {
        let (batch, threads) = (batch.clone(), threads.clone());
        Program {
            command: Box::new(move || {
                let mut command = Command::new(&cxr);
                command.arg("predict").arg(&model).arg(&ours_images);
                command.arg("--out").arg(&out);
                command.args(["--batch-size", &batch, "--threads", &threads]);
                command
            }),
            read: read(),
        }
    };
    let peer = peer(workspace, interrupt, scratch, images, &batch, &threads)?;
    let peer = peer.map(|command| Program {
        command,
        read: read(),
    });
    Ok(Some((vec![ours], peer)))
}

type MakeCommand = Box<dyn Fn() -> Command>;

/// Exports the network, and says how the peer is called.
fn peer(
    workspace: &Workspace,
    interrupt: &Interrupt,
    scratch: &Path,
    images: PathBuf,
    batch: &str,
    threads: &str,
) -> anyhow::Result<Option<MakeCommand>> {
    let modules = ["torch", "torchvision", "onnx", "onnxruntime", "PIL"];
    let Some(python) = peer::python(&modules)? else {
        return Ok(None);
    };
    let script = workspace.root().join("xtask/peers/predict.py");
    let network = scratch.join("network.onnx");
    let mut export = Command::new(&python);
    export.arg(&script).arg("export").arg(&network);
    let (ended, _) = interrupt.output(&mut export)?;
    ensure!(
        ended.ending == Ending::Done,
        "cannot export the peer's network: {}",
        ended.status
    );
    let out = scratch.join("peer.csv");
    let (batch, threads) = (batch.to_owned(), threads.to_owned());
    Ok(Some(Box::new(move || {
        let mut command = Command::new(&python);
        command.arg(&script).arg("run").arg(&network).arg(&images);
        command.arg(&out).args([&batch, &threads]);
        command
    })))
}
