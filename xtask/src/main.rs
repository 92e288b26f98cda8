//! The project's own commands, called as `cargo xtask COMMAND`.
//!
//! - `fetch`, `reproduce` and `report` build the `cxr` binary and hand over to it;
//! - `bench` runs the crates' benchmark binaries, and their Python peers in turn;
//! - `gpu-kit` puts together what a borrowed machine with a GPU needs to say how it does;
//! - `verify` checks what is too slow for every day: the report's page in a browser, training that is
//!   killed and resumed, every loss on a few images, the demo's sameness and its figures;
//! - `ci` checks what a change must pass, cheapest first.
//!
//! It trains nothing itself and links no tensor library, so that it compiles in seconds.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads; cxr-terminal does not"
)]

mod bench;
mod ci;
mod cuda;
mod gpu_kit;
mod pass_on;
mod verify;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cxr_terminal::say;

use crate::workspace::Workspace;
use cxr_terminal::Ending;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The project's own commands"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build `cxr` and call `cxr fetch`: data and weights, verified
    #[command(disable_help_flag = true)]
    Fetch(PassedOn),
    /// Build `cxr` and call `cxr reproduce`: every variant of an experiment, then its report
    #[command(disable_help_flag = true)]
    Reproduce(PassedOn),
    /// Build `cxr` and call `cxr report`: the report of an experiment, from its run folders alone
    #[command(disable_help_flag = true)]
    Report(PassedOn),
    /// Measure our throughput, and that of the usual Python tools where they are installed
    Bench(bench::Arguments),
    /// Put together a folder for a machine with an NVIDIA GPU and no Rust: a program, a script of 15 minutes, and the
    /// Python peer
    GpuKit(gpu_kit::Arguments),
    /// Check what is too slow, or needs too much, for every day: the demo's sameness, the finished demo beside a
    /// linear probe, the report's page in a browser, runs that are killed and resumed, every loss on a few images
    Verify(verify::Arguments),
    /// Check what a change must pass, cheapest first
    Ci(ci::Arguments),
}

/// Arguments that are another program's business.
#[derive(clap::Args)]
struct PassedOn {
    /// What `cxr` takes; `--help` lists it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> anyhow::Result<ExitCode> {
        let workspace = Workspace::find()?;
        let pass_on =
            |command, passed: PassedOn| pass_on::run(&workspace, command, &passed.arguments);
        let ending = match arguments.command {
            Command::Fetch(passed) => return pass_on("fetch", passed),
            Command::Reproduce(passed) => return pass_on("reproduce", passed),
            Command::Report(passed) => return pass_on("report", passed),
            Command::Bench(arguments) => bench::run(&workspace, &arguments)?,
            Command::GpuKit(arguments) => gpu_kit::run(&workspace, &arguments)?,
            Command::Verify(arguments) => verify::run(&workspace, &arguments)?,
            Command::Ci(arguments) => ci::run(&workspace, &arguments)?,
        };
        Ok(ending.into())
    };
    let code = run().unwrap_or_else(|error| {
        say!("error: {error:#}");
        Ending::Failed.into()
    });
    if cxr_terminal::was_lost() {
        say!("error: standard output could not be written");
        return Ending::Failed.into();
    }
    code
}
