//! On what a run was made.

use std::process::Command;

use candle_core::Device;
use cxr_run::{Environment, LockedRunFolder};
use cxr_train::{InstructionSet, Precision};

use crate::device;

/// Writes `environment.json` into a run folder.
pub(crate) fn write(
    run: &LockedRunFolder,
    data_fingerprint: String,
    device: &Device,
    ranks: usize,
) -> anyhow::Result<()> {
    let environment = Environment {
        cxr: env!("CARGO_PKG_VERSION").to_owned(),
        git_revision: git_revision(),
        device: device::name(device),
        os: std::env::consts::OS.to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        instruction_set: instruction_set(),
        cpu: cpu(),
        threads: rayon::current_num_threads(),
        ranks,
        data_fingerprint,
        command: std::env::args().collect(),
    };
    Ok(environment.write(run)?)
}

/// The revision of the source tree that the binary was built in, where it is still there.
fn git_revision() -> Option<String> {
    let folder = env!("CARGO_MANIFEST_DIR");
    let output = Command::new("git")
        .args(["-C", folder, "rev-parse", "HEAD"])
        .output()
        .ok()?;
    let revision = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| revision.trim().to_owned())
}

/// The set that kernels are chosen by, and whether bf16 has an instruction.
fn instruction_set() -> Vec<String> {
    let bf16 = Precision::Bf16.is_fast().then_some("avx512bf16");
    std::iter::once(InstructionSet::current().name())
        .chain(bf16)
        .map(str::to_owned)
        .collect()
}

fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
