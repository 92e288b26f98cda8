//! `cargo xtask ci`: what a change must pass, cheapest first. It stops at the first step that fails.

mod arrows;
mod dependencies;
mod manifest;
mod once;
mod package;
mod sources;

use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use cxr_terminal::{say, tell};

use crate::cuda;
use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// These steps only; without any, all but `package`
    #[arg(value_enum)]
    steps: Vec<Step>,
}

/// In the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// Which of our crates depends on which
    Arrows,
    /// What a crate never links
    Never,
    /// Pages, words and `unsafe` in the sources
    Sources,
    /// Formatting
    Fmt,
    /// Lints
    Clippy,
    /// Tests
    Test,
    /// What the tests and the commands are built from is compiled once
    Once,
    /// Documentation
    Doc,
    /// The feature `cuda`, built and linted, where a CUDA toolkit is found
    Cuda,
    /// Licences and sources of dependencies, where cargo-deny is installed
    Deny,
    /// Spelling, where `typos` is installed
    Typos,
    /// Every crate by itself, as others get it: its package is built, its documentation too, and where
    /// cargo-semver-checks is installed its interface is held to the last release. Takes long; only when named
    Package,
}

const ALL: [Step; 12] = [
    Step::Arrows,
    Step::Never,
    Step::Sources,
    Step::Fmt,
    Step::Clippy,
    Step::Test,
    Step::Once,
    Step::Doc,
    Step::Cuda,
    Step::Deny,
    Step::Typos,
    Step::Package,
];

const CLIPPY: [&str; 6] = [
    "clippy",
    "--workspace",
    "--all-targets",
    "--locked",
    "--",
    "--deny=warnings",
];
/// The networks of candle-transformers, which are a feature.
const TRANSFORMERS_TEST: [&str; 7] = [
    "test",
    "--workspace",
    "--locked",
    "--features",
    "cxr-train/transformers",
    "--test",
    "frozen",
];
const CUDA_BUILD: [&str; 6] = [
    "build",
    "--package",
    "cxr",
    "--features",
    "cuda",
    "--locked",
];
const CUDA_CLIPPY: [&str; 11] = [
    "clippy",
    "--package",
    "cxr",
    "--package",
    "cxr-train",
    "--features",
    "cxr/cuda,cxr-train/cuda",
    "--all-targets",
    "--locked",
    "--",
    "--deny=warnings",
];

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Ending> {
    let interrupt = Interrupt::install()?;
    let run_cargo = |arguments: &[&str]| -> anyhow::Result<Ending> {
        Ok(interrupt.run(workspace.cargo().args(arguments))?.ending)
    };
    let is_installed = |subcommand: &str| {
        let mut command = workspace.cargo();
        let output = command.args([subcommand, "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let is_wanted = |step: &Step| match arguments.steps.as_slice() {
        [] => *step != Step::Package,
        steps => steps.contains(step),
    };
    for step in ALL.into_iter().filter(is_wanted) {
        let begin = Instant::now();
        tell!("== {step:?}");
        let ending = match step {
            Step::Arrows => told(&arrows::problems(&manifest::read_all(workspace.root())?)),
            Step::Never => told(&dependencies::problems(&metadata(workspace)?)?),
            Step::Sources => told(&sources::problems(workspace.root())?),
            Step::Fmt => run_cargo(&["fmt", "--all", "--check"])?,
            Step::Clippy => run_cargo(&CLIPPY)?,
            Step::Test => match run_cargo(&["test", "--workspace", "--locked"])? {
                Ending::Done => run_cargo(&TRANSFORMERS_TEST)?,
                ending => ending,
            },
            Step::Once => match run_cargo(&once::TESTS)? {
                Ending::Done => {
                    let mut problems = Vec::new();
                    for arguments in once::COMMANDS {
                        let mut build = workspace.cargo();
                        let (ended, messages) = interrupt.output(build.args(arguments))?;
                        if ended.ending != Ending::Done {
                            return Ok(ended.ending);
                        }
                        problems.extend(once::problems(&messages));
                    }
                    told(&problems)
                }
                ending => ending,
            },
            Step::Doc => {
                let mut doc = workspace.cargo();
                doc.env("RUSTDOCFLAGS", "--deny=warnings");
                doc.args(["doc", "--workspace", "--no-deps", "--locked"]);
                interrupt.run(&mut doc)?.ending
            }
            Step::Cuda if cuda::has_toolkit() => match run_cargo(&CUDA_BUILD)? {
                Ending::Done => run_cargo(&CUDA_CLIPPY)?,
                ending => ending,
            },
            Step::Cuda => {
                tell!("   not checked: no CUDA toolkit was found (`nvcc`; docs/cuda.md)");
                continue;
            }
            Step::Deny if is_installed("deny") => {
                // Not advisories: their list would have to be fetched.
                run_cargo(&[
                    "deny",
                    "--all-features",
                    "check",
                    "licenses",
                    "bans",
                    "sources",
                ])?
            }
            Step::Deny => {
                tell!("   not checked: cargo-deny is not installed");
                continue;
            }
            Step::Typos => {
                let mut typos = Command::new("typos");
                typos.current_dir(workspace.root());
                if typos.arg("--version").output().is_err() {
                    tell!("   not checked: `typos` is not installed");
                    continue;
                }
                let mut typos = Command::new("typos");
                interrupt.run(typos.current_dir(workspace.root()))?.ending
            }
            Step::Package => package::check(workspace, &run_cargo, &is_installed)?,
        };
        if ending != Ending::Done {
            return Ok(ending);
        }
        tell!("   passed in {:.1} s", begin.elapsed().as_secs_f64());
    }
    Ok(Ending::Done)
}

fn told(problems: &[String]) -> Ending {
    for problem in problems {
        say!("error: {problem}");
    }
    match problems {
        [] => Ending::Done,
        _ => Ending::Failed,
    }
}

/// Every package that any feature of ours can bring in.
fn metadata(workspace: &Workspace) -> anyhow::Result<String> {
    let output = workspace
        .cargo()
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--all-features",
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start `cargo metadata`")?;
    if !output.status.success() {
        anyhow::bail!("`cargo metadata` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).context("`cargo metadata` writes no UTF-8")
}
