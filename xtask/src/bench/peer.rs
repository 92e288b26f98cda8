//! The Python that runs the peers.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::{Program, Read, Throughput};
use crate::workspace::Workspace;

/// Names a Python that has the peers' packages.
const VARIABLE: &str = "CXR_PYTHON";

/// The program that runs a script of `xtask/peers`. `None` when no Python has the modules that it
/// imports; a Python that was named and lacks them is an error.
pub(super) fn find(
    workspace: &Workspace,
    script: &str,
    modules: &[&str],
    arguments: Vec<OsString>,
) -> anyhow::Result<Option<Program>> {
    let Some(python) = python(modules)? else {
        return Ok(None);
    };
    let script = workspace.root().join("xtask").join("peers").join(script);
    Ok(Some(Program {
        command: Box::new(move || {
            let mut command = Command::new(&python);
            command.arg(&script).args(&arguments);
            command
        }),
        read: Read::Output(read),
    }))
}

/// The Python that has these modules, as [`find`] looks for it.
pub(crate) fn python(modules: &[&str]) -> anyhow::Result<Option<PathBuf>> {
    let named = std::env::var_os(VARIABLE);
    let python = named.clone().unwrap_or_else(|| "python3".into());
    let imported = Command::new(&python)
        .args(["-c", &format!("import {}", modules.join(", "))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let has_modules = imported.is_ok_and(|status| status.success());
    match (has_modules, named) {
        (true, _) => Ok(Some(python.into())),
        (false, None) => Ok(None),
        (false, Some(named)) => bail!(
            "{VARIABLE} is `{}`: expected a Python that can `import {}`",
            named.display(),
            modules.join(", ")
        ),
    }
}

/// A peer prints one JSON object: name and images per second.
pub(super) fn read(output: &str) -> anyhow::Result<Throughput> {
    let measured: std::collections::BTreeMap<String, f64> = serde_json::from_str(output.trim())
        .with_context(|| format!("a benchmark printed `{}`", output.trim()))?;
    Ok(measured.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_is_read_and_anything_else_shown() {
        let measured = read("{\"train\": 12.3}\n").unwrap();
        assert_eq!(measured, [("train".to_owned(), 12.3)]);
        let error = read("Killed").unwrap_err();
        assert!(error.to_string().contains("Killed"), "{error}");
    }
}
