//! Where the workspace is and how its programs are built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use cxr_terminal::{Ended, Interrupt};

/// Builds `cxr` in the profile of the tests, and with the features of the whole workspace, which a `--package`
/// would narrow: its dependencies are then those that `cargo test --workspace` uses, compiled once.
pub(crate) const BUILD_CXR: [&str; 3] = ["build", "--bin", "cxr"];

/// The workspace this program was built in.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Cargo names our own folder; without it the place where we were compiled.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let here = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        match here.parent() {
            Some(root) if root.join("crates").is_dir() => Ok(Self {
                root: root.to_owned(),
            }),
            _ => bail!(
                "expected the workspace around `{}`, found none; call this as `cargo xtask`",
                here.display()
            ),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo command in the workspace's root, as a user calls it: without what cargo told this program of its package,
    /// for which some dependencies' build scripts (`ring`'s) would run again, here and at the next call from a shell.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root);
        for (name, _) in std::env::vars_os() {
            if is_of_a_package(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command
    }

    /// Builds with `arguments` and asks cargo where the executable named `target` lies, so that any
    /// `CARGO_TARGET_DIR` and cargo configuration holds. `None` when the build failed.
    pub(crate) fn build(
        &self,
        interrupt: &Interrupt,
        arguments: &[&str],
        target: &str,
    ) -> anyhow::Result<(Ended, Option<PathBuf>)> {
        let mut command = self.cargo();
        command
            .args(arguments)
            .arg("--message-format=json-render-diagnostics");
        let (ended, messages) = interrupt.output(&mut command)?;
        let executable = messages
            .lines()
            .filter_map(|line| executable_of(line, target))
            .next_back();
        Ok((ended, executable))
    }
}

/// Whether an environment variable is one that cargo sets for a program that it runs.
fn is_of_a_package(name: &str) -> bool {
    let names = [
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
    ];
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || names.contains(&name)
}

/// The executable that one of cargo's messages announces, if it is that of `target`.
pub(crate) fn executable_of(message: &str, target: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_target =
        message.get("reason")? == "compiler-artifact" && message.pointer("/target/name")? == target;
    let executable = message.get("executable")?.as_str()?;
    is_target.then(|| executable.into())
}

/// A path of the user's made absolute, so that it holds in a child that runs elsewhere.
pub(crate) fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test is a program that cargo runs, too.
    #[test]
    fn cargo_is_called_as_from_a_shell() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let command = Workspace::find().unwrap().cargo();
        let removed: Vec<_> = (command.get_envs())
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect();
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
            assert!(removed.iter().any(|removed| removed == name), "{removed:?}");
        }
    }

    #[test]
    fn the_executable_is_found_among_cargo_s_messages() {
        let artifact = r#"{"reason":"compiler-artifact","target":{"name":"cxr"},"executable":"/t/release/cxr"}"#;
        let library = r#"{"reason":"compiler-artifact","target":{"name":"cxr"},"executable":null}"#;
        let other = r#"{"reason":"build-finished","success":true}"#;
        let found = |message| executable_of(message, "cxr");
        assert_eq!(found(artifact), Some(PathBuf::from("/t/release/cxr")));
        assert_eq!(found(library), None);
        assert_eq!(found(other), None);
        assert_eq!(executable_of(artifact, "xtask"), None);
    }
}
