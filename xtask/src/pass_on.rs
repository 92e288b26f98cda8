//! What a user of an installed `cxr` does too: builds the binary and hands over to it.

use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};

use crate::cuda;
use crate::workspace::{BUILD_CXR, Workspace, executable_of};

/// Builds `cxr` and becomes it: signals, standard streams and the exit code are its own.
pub(crate) fn run(
    workspace: &Workspace,
    command: &str,
    arguments: &[OsString],
) -> anyhow::Result<ExitCode> {
    let mut build = workspace.cargo();
    build.args(BUILD_CXR);
    if is_for_cuda(arguments) {
        cuda::find_driver()?;
        build.args(["--features", "cxr/cuda"]);
    }
    build.arg("--message-format=json-render-diagnostics");
    let output = build.stderr(Stdio::inherit()).output();
    let output = output.context("cannot start cargo")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = (messages.lines())
        .filter_map(|line| executable_of(line, "cxr"))
        .next_back();
    let Some(executable) = executable.filter(|_| output.status.success()) else {
        bail!("cannot build `cxr`: {}", output.status);
    };
    let mut cxr = Command::new(executable);
    cxr.arg(command)
        .args(arguments)
        .env("CXR_CALLED_AS", "cargo xtask");
    if std::env::var_os("CXR_HOME").is_none() {
        cxr.env("CXR_HOME", workspace.root());
    }
    become_process(&mut cxr)
}

/// Whether `--device cuda` or `cuda:N` is among them.
fn is_for_cuda(arguments: &[OsString]) -> bool {
    let is_cuda = |text: &OsStr| text.to_string_lossy().starts_with("cuda");
    let after = arguments.iter().skip(1);
    let apart =
        (arguments.iter().zip(after)).any(|(flag, value)| flag == "--device" && is_cuda(value));
    let joined = |argument: &OsString| argument.to_string_lossy().starts_with("--device=cuda");
    apart || arguments.iter().any(joined)
}

#[cfg(unix)]
fn become_process(command: &mut Command) -> anyhow::Result<ExitCode> {
    let error = std::os::unix::process::CommandExt::exec(command);
    Err(error).context("cannot start `cxr`")
}

/// Elsewhere a process cannot become another one, and the console tells both of Ctrl-C.
#[cfg(not(unix))]
fn become_process(command: &mut Command) -> anyhow::Result<ExitCode> {
    let status = command.status().context("cannot start `cxr`")?;
    Ok(ExitCode::from(status.code().map_or(1, |code| code as u8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_asked_for_in_two_ways() {
        let is_for_cuda = |text: &str| {
            let arguments: Vec<OsString> = text.split(' ').map(OsString::from).collect();
            is_for_cuda(&arguments)
        };
        for yes in [
            "demo --device cuda",
            "--device=cuda:1 demo",
            "--device cuda:0",
        ] {
            assert!(is_for_cuda(yes), "{yes}");
        }
        for no in [
            "demo",
            "--device cpu",
            "--device",
            "--data cuda",
            "--device=cpu",
        ] {
            assert!(!is_for_cuda(no), "{no}");
        }
    }
}
