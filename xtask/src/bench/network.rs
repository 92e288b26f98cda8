//! DenseNet121 with the top network, by `cxr-train` against PyTorch and ONNX Runtime.

use std::ffi::OsString;
use std::process::Command;

use super::metrics::built;
use super::{Dtype, Program, Work, peer};
use crate::process::Interrupt;
use crate::workspace::Workspace;

/// Steps of a round, of which the median counts.
const STEPS: usize = 5;

/// What is measured.
pub(super) struct Settings {
    pub(super) work: Work,
    pub(super) batch: usize,
    pub(super) threads: usize,
    pub(super) dtype: Dtype,
}

impl Settings {
    /// The kind of work, as ours and the peer name it.
    fn work(&self) -> &'static str {
        match self.work {
            Work::Frozen => "frozen",
            Work::Infer => "infer",
            _ => "train",
        }
    }

    fn dtype(&self) -> &'static str {
        match self.dtype {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
        }
    }
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
    let (work, dtype) = (settings.work(), settings.dtype());
    let numbers = [settings.batch, STEPS].map(|number| number.to_string());
    let [batch, steps] = numbers.clone();
    let ours = Program {
        command: Box::new(move || {
            let mut command = Command::new(&executable);
            command.args([work, &batch, &steps, dtype]);
            command
        }),
        read: peer::read,
    };
    let mut modules = vec!["torch", "torchvision"];
    if settings.work == Work::Infer {
        modules.push("onnx");
        modules.push("onnxruntime");
    }
    let [batch, steps] = numbers;
    let threads = settings.threads.to_string();
    let arguments = [work, &batch, &steps, &threads, dtype];
    let arguments = arguments.map(OsString::from).to_vec();
    let peer = peer::find(workspace, "network.py", &modules, arguments)?;
    Ok(Some((vec![ours], peer)))
}
