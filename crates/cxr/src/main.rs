//! Multi-label chest X-ray classification from the command line.
//!
//! One module per command. A command parses its arguments, calls the crates and prints; what it
//! computes is in them.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads; cxr-terminal does not"
)]

mod backbone;
mod blank;
mod calibrate;
mod card;
mod compare;
mod data_folder;
mod device;
mod environment;
mod evaluate;
mod experiments;
mod explain;
mod export;
mod external;
mod fetch;
mod hub;
mod import;
mod inspect;
mod non_image;
mod output;
mod phantoms;
mod plan;
mod predict;
mod prepare;
mod progress;
mod ranks;
mod report;
mod reproduce;
mod runs;
mod score;
mod scoring;
mod train;
mod watcher;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// A training step frees and takes gigabytes; the system's allocator would give the pages back and
/// fault them in again.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Multi-label chest X-ray classification
#[derive(Parser)]
#[command(name = "cxr", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Reproduce(reproduce::Args),
    Experiments(experiments::Args),
    Fetch(fetch::Args),
    Inspect(inspect::Args),
    Prepare(prepare::Args),
    Train(train::Args),
    Runs(runs::Args),
    Evaluate(evaluate::Args),
    Predict(predict::Args),
    Calibrate(calibrate::Args),
    Card(card::Args),
    Publish(hub::Args),
    Explain(explain::Args),
    Import(import::Args),
    Export(export::Args),
    Score(score::Args),
    Compare(compare::Args),
    Report(report::Args),
    Phantoms(phantoms::Args),
    Backbone(backbone::Args),
    Plan(plan::Args),
}

const EXIT_CODES: &str =
    "Exit codes: 0 done, 1 error, 2 wrong usage, 3 some inputs failed, 130 interrupted.
CXR_LOG=debug in the environment logs what goes on inside.
Not a medical device, not for clinical use.";

/// The arguments are not those of any command.
const WRONG_USAGE: u8 = 2;
/// Some inputs failed, and there are results for the others.
const SOME_FAILED: u8 = 3;

fn main() -> ExitCode {
    progress::start_log();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(help) => return explain_usage(&help),
    };
    let done = match command {
        Command::Reproduce(args) => reproduce::run(&args),
        Command::Experiments(args) => experiments::run(&args),
        Command::Fetch(args) => fetch::run(args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Prepare(args) => prepare::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Card(args) => card::run(&args),
        Command::Publish(args) => hub::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Score(args) => score::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Report(args) => report::run(&args),
        Command::Phantoms(args) => phantoms::run(&args),
        Command::Backbone(args) => backbone::run(&args),
        Command::Plan(args) => plan::run(&args),
    };
    done.unwrap_or_else(|error| {
        progress::say_error(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Prints `--help`, which is a result, or what is wrong with the arguments.
fn explain_usage(help: &clap::Error) -> ExitCode {
    let is_wanted = !help.use_stderr();
    match help.print() {
        Err(error) if is_wanted && error.kind() != std::io::ErrorKind::BrokenPipe => {
            progress::say(&format!("error: cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
        _ if is_wanted => ExitCode::SUCCESS,
        _ => ExitCode::from(WRONG_USAGE),
    }
}
