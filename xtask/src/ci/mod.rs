//! `cargo xtask ci`: what a change must pass, cheapest first. It stops at the first step that fails.

mod arrows;
mod dependencies;
mod manifest;
mod sources;

use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use cxr_terminal::{say, tell};

use crate::process::{Ending, Interrupt};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// These steps only; without any, all of them
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
    /// Documentation
    Doc,
}

const ALL: [Step; 7] = [
    Step::Arrows,
    Step::Never,
    Step::Sources,
    Step::Fmt,
    Step::Clippy,
    Step::Test,
    Step::Doc,
];

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Ending> {
    let interrupt = Interrupt::install()?;
    let is_wanted = |step: &Step| arguments.steps.is_empty() || arguments.steps.contains(step);
    for step in ALL.into_iter().filter(is_wanted) {
        let begin = Instant::now();
        tell!("== {step:?}");
        let ending = match step {
            Step::Arrows => told(&arrows::problems(&manifest::read_all(workspace.root())?)),
            Step::Never => told(&dependencies::problems(&metadata(workspace)?)?),
            Step::Sources => told(&sources::problems(workspace.root())?),
            Step::Fmt | Step::Clippy | Step::Test | Step::Doc => {
                interrupt.run(&mut cargo_step(workspace, step))?.ending
            }
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

fn cargo_step(workspace: &Workspace, step: Step) -> Command {
    let mut cargo = workspace.cargo();
    match step {
        Step::Fmt => cargo.args(["fmt", "--all", "--check"]),
        Step::Clippy => cargo.args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "--deny=warnings",
        ]),
        Step::Doc => cargo.env("RUSTDOCFLAGS", "--deny=warnings").args([
            "doc",
            "--workspace",
            "--no-deps",
            "--locked",
        ]),
        Step::Arrows | Step::Never | Step::Sources | Step::Test => {
            cargo.args(["test", "--workspace", "--locked"])
        }
    };
    cargo
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
