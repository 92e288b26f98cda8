//! Every crate by itself, as somebody gets it who depends on it.

use anyhow::Context as _;
use cxr_terminal::{Ending, tell};

use super::manifest::folders;
use crate::workspace::Workspace;

/// Builds every package from what would be published, then its documentation without the rest of the workspace, whose
/// features it would share otherwise.
pub(super) fn check(
    workspace: &Workspace,
    run_cargo: &dyn Fn(&[&str]) -> anyhow::Result<Ending>,
    is_installed: &dyn Fn(&str) -> bool,
) -> anyhow::Result<Ending> {
    let package = ["package", "--workspace", "--exclude", "xtask", "--locked"];
    let mut ending = run_cargo(&package)?;
    for name in names(workspace)? {
        if ending != Ending::Done {
            return Ok(ending);
        }
        ending = run_cargo(&["doc", "--package", &name, "--no-deps", "--locked"])?;
    }
    if ending != Ending::Done {
        return Ok(ending);
    }
    let Some(release) = last_release(workspace)? else {
        tell!("   interfaces not checked: no release is tagged");
        return Ok(Ending::Done);
    };
    if !is_installed("semver-checks") {
        tell!("   interfaces not checked: cargo-semver-checks is not installed");
        return Ok(Ending::Done);
    }
    let since = ["semver-checks", "--workspace", "--baseline-rev"];
    run_cargo(&[&since[..], &[&release]].concat())
}

/// The libraries, which are what others depend on.
fn names(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for folder in folders(workspace.root())? {
        if folder.join("src/lib.rs").is_file() {
            let name = folder.file_name().context("a crate's folder has a name")?;
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The newest tag that this commit comes after.
fn last_release(workspace: &Workspace) -> anyhow::Result<Option<String>> {
    let mut git = std::process::Command::new("git");
    git.args(["describe", "--tags", "--abbrev=0"]);
    let output = git.current_dir(workspace.root()).output();
    let output = output.context("cannot run `git`")?;
    let tag = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Some(tag).filter(|tag| output.status.success() && !tag.is_empty()))
}
