//! The project's own commands, called as `cargo xtask COMMAND`.
//!
//! - `fetch` brings data and weights, verified;
//! - `reproduce` builds the `cxr` binary, runs every variant of an experiment and writes its report;
//! - `report` writes a report anew from run folders;
//! - `bench` runs the crates' benchmark binaries, and their Python peers in turn;
//! - `verify` checks what is too slow for every day: the report's page in a browser, training that is
//!   killed and resumed, every loss on a few images, the demo's sameness and its figures;
//! - `ci` checks what a change must pass, cheapest first.
//!
//! It trains nothing itself and links no tensor library, so that it compiles in seconds: training is
//! the `cxr` binary's business.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads; cxr-terminal does not"
)]

mod bench;
mod ci;
mod cuda;
mod experiment;
mod fetch;
mod items;
mod process;
mod report;
mod reproduce;
mod verify;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cxr_terminal::say;

use crate::process::Ending;
use crate::workspace::Workspace;

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
    Fetch(fetch::Args),
    /// Run every variant of an experiment that is not finished, then write its report
    Reproduce(reproduce::Arguments),
    /// Write the report of an experiment anew from its run folders alone
    Report(report::Arguments),
    /// Measure our throughput, and that of the usual Python tools where they are installed
    Bench(bench::Arguments),
    /// Check what is too slow, or needs too much, for every day: the demo's sameness, the finished demo beside a
    /// linear probe, the report's page in a browser, runs that are killed and resumed, every loss on a few images
    Verify(verify::Arguments),
    /// Check what a change must pass, cheapest first
    Ci(ci::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || -> anyhow::Result<ExitCode> {
        let ending = match arguments.command {
            Command::Fetch(arguments) => return fetch::run(arguments),
            Command::Reproduce(arguments) => reproduce::run(&Workspace::find()?, &arguments)?,
            Command::Report(arguments) => report::run(&arguments)?,
            Command::Bench(arguments) => bench::run(&Workspace::find()?, &arguments)?,
            Command::Verify(arguments) => verify::run(&Workspace::find()?, &arguments)?,
            Command::Ci(arguments) => ci::run(&Workspace::find()?, &arguments)?,
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
