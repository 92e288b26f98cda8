//! A backbone with a head, by `cxr-train` against PyTorch and ONNX Runtime.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Context;

use super::metrics::built;
use super::{Clock, Dtype, Program, Read, Work, peer};
use crate::workspace::Workspace;
use cxr_terminal::Interrupt;

/// Steps of a round, of which the median counts.
const STEPS: usize = 5;

/// What is measured.
pub(super) struct Settings {
    pub(super) work: Work,
    pub(super) batch: usize,
    pub(super) threads: usize,
    pub(super) dtype: Dtype,
    pub(super) backbone: String,
    pub(super) clock: Clock,
}

/// What a value is called on the command line, and by ours and the peer.
fn name(value: impl clap::ValueEnum) -> anyhow::Result<String> {
    let value = value.to_possible_value().context("a hidden value")?;
    Ok(value.get_name().to_owned())
}

/// Ours and the peer; `None` when interrupted.
pub(super) fn programs(
    workspace: &Workspace,
    interrupt: &Interrupt,
    settings: &Settings,
) -> anyhow::Result<Option<(Vec<Program>, Option<Program>)>> {
    if settings.dtype == Dtype::Bf16 && settings.work != Work::Train {
        anyhow::bail!(
            "`--dtype bf16` is an option of training\nhint: `frozen` and `infer` do their products in f32"
        );
    }
    let build = [
        "build",
        "--release",
        "--package",
        "cxr-train",
        "--example",
        "throughput",
    ];
    let Some(executable) = built(workspace, interrupt, &build, "throughput")? else {
        return Ok(None);
    };
    let (work, dtype) = (name(settings.work)?, name(settings.dtype)?);
    let clock = name(settings.clock)?;
    let [batch, steps, threads] =
        [settings.batch, STEPS, settings.threads].map(|number| number.to_string());
    let backbone = settings.backbone.clone();
    let arguments = [&work, &batch, &steps, &dtype, &backbone, &clock].map(OsString::from);
    let ours = Program {
        command: Box::new(move || {
            let mut command = Command::new(&executable);
            command.args(&arguments);
            command
        }),
        read: Read::Output(peer::read),
    };
    let mut modules = vec!["torch", "torchvision"];
    if settings.work == Work::Infer {
        modules.push("onnx");
        modules.push("onnxruntime");
    }
    let arguments = [work, batch, steps, threads, dtype, backbone, clock];
    let arguments = arguments.map(OsString::from).to_vec();
    let peer = peer::find(workspace, "network.py", &modules, arguments)?;
    Ok(Some((vec![ours], peer)))
}
