//! `cargo xtask reproduce`: every variant of an experiment, then its report.
//!
//! One call of `cxr train` per variant prepares the images, trains or goes on training, predicts and
//! evaluates; a finished run returns at once. A variant that fails does not stop the others. An
//! experiment on phantoms has them written first, by `cxr phantoms`, and is from there on like any other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use cxr_report::report::Reproduction;
use cxr_report::run::{EXPERIMENT_FILE, METRICS_FILE};

use crate::experiment::Experiment;
use crate::process::{Ending, Interrupt};
use crate::report;
use crate::workspace::{Workspace, absolute};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// An experiment of xtask/experiments, or a path that ends in .toml
    #[arg(default_value = "paper")]
    experiment: String,
    /// The data set: a folder with images/, the label table and the official lists; an experiment on
    /// phantoms, such as `demo`, needs none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where label table and lists are, if not there
    #[arg(long, value_name = "DIR")]
    metadata: Option<PathBuf>,
    /// Go on without listed images that are not at hand, and say how many
    #[arg(long)]
    allow_missing: bool,
    /// Run these variants only
    #[arg(long, value_name = "VARIANT", value_delimiter = ',')]
    only: Vec<String>,
    /// The folder of runs; of the workspace: models/runs
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Say what would run and what is done already, and stop
    #[arg(long)]
    plan: bool,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Ending> {
    let experiments = workspace.root().join("xtask").join("experiments");
    let experiment = Experiment::find(&experiments, &arguments.experiment)?;
    let variants = experiment.select(&arguments.only)?;
    let runs = match &arguments.runs {
        Some(runs) => absolute(runs)?,
        None => workspace.root().join("models").join("runs"),
    };
    let folder = runs.join(&experiment.name);
    print_plan(&experiment, &variants, &folder);
    if arguments.plan {
        return Ok(Ending::Done);
    }
    let data = match &arguments.data {
        Some(data) => absolute(data)?,
        None if experiment.has_phantoms => {
            let phantoms = workspace.root().join("data").join("phantoms");
            phantoms.join(&experiment.name)
        }
        None => bail!(
            "experiment `{}` needs a data set\nhint: name its folder with `--data DIR`; `cargo xtask reproduce demo` needs none",
            experiment.name
        ),
    };

    let interrupt = Interrupt::install()?;
    let mut parts = Parts::default();
    let begin = Instant::now();
    let build = ["build", "--release", "--package", "cxr"];
    let (ended, executable) = workspace.build(&interrupt, &build, "cxr")?;
    parts.add("build", begin.elapsed(), ended.ending);
    if ended.ending == Ending::Interrupted {
        return Ok(told_to_stop());
    }
    let Some(executable) = executable.filter(|_| ended.ending == Ending::Done) else {
        bail!("cannot build `cxr`: {}", ended.status);
    };

    std::fs::create_dir_all(&folder)
        .map_err(|error| anyhow::anyhow!("cannot make `{}`: {error}", folder.display()))?;
    Reproduction {
        command: this_command(),
        variants: experiment.variants.clone(),
    }
    .write(&folder)?;
    if arguments.data.is_none() {
        println!("\n== {} / phantoms", experiment.name);
        let begin = Instant::now();
        let mut command = phantoms(workspace, &executable, &experiment, &data)?;
        let ended = interrupt.run(&mut command)?;
        parts.add("phantoms", begin.elapsed(), ended.ending);
        match ended.ending {
            Ending::Done => {}
            Ending::Failed => bail!("cannot write the phantoms: {}", ended.status),
            Ending::Interrupted => {
                parts.print();
                return Ok(told_to_stop());
            }
        }
    }
    for variant in variants {
        println!("\n== {} / {variant}", experiment.name);
        let begin = Instant::now();
        let mut command = train(
            workspace,
            arguments,
            &executable,
            &experiment,
            variant,
            (&data, &runs),
        )?;
        let ended = interrupt.run(&mut command)?;
        parts.add(variant, begin.elapsed(), ended.ending);
        match ended.ending {
            Ending::Done => {}
            Ending::Failed => eprintln!("`{variant}` failed ({}); going on", ended.status),
            Ending::Interrupted => {
                parts.print();
                return Ok(told_to_stop());
            }
        }
    }

    println!();
    let begin = Instant::now();
    let report = report::write(&folder);
    let ending = match &report {
        Ok(()) => Ending::Done,
        Err(_) => Ending::Failed,
    };
    if let Err(error) = report {
        eprintln!("error: {error:#}");
    }
    parts.add("report", begin.elapsed(), ending);
    parts.print();
    let failed = parts.failed();
    if failed.is_empty() {
        return Ok(Ending::Done);
    }
    eprintln!(
        "failed: {}\nhint: the same command runs again what is not finished",
        failed.join(", ")
    );
    Ok(Ending::Failed)
}

/// Writes the phantoms of an experiment, those that are missing; phantoms of other settings make way.
fn phantoms(
    workspace: &Workspace,
    executable: &Path,
    experiment: &Experiment,
    data: &Path,
) -> anyhow::Result<Command> {
    let mut command = Command::new(executable);
    command.current_dir(workspace.root()).arg("phantoms");
    command.arg("--experiment").arg(absolute(&experiment.path)?);
    command.arg("--data").arg(data).arg("--replace");
    Ok(command)
}

/// It runs in the workspace's root, which an experiment's paths are relative to.
fn train(
    workspace: &Workspace,
    arguments: &Arguments,
    executable: &Path,
    experiment: &Experiment,
    variant: &str,
    (data, runs): (&Path, &Path),
) -> anyhow::Result<Command> {
    let mut command = Command::new(executable);
    command.current_dir(workspace.root()).arg("train");
    command
        .arg("--experiment")
        .arg(absolute(&experiment.path)?)
        .args(["--variant", variant]);
    command.arg("--data").arg(data);
    if let Some(metadata) = &arguments.metadata {
        command.arg("--metadata").arg(absolute(metadata)?);
    }
    if arguments.allow_missing {
        command.arg("--allow-missing");
    }
    command.arg("--runs").arg(runs);
    Ok(command)
}

fn print_plan(experiment: &Experiment, variants: &[&str], folder: &Path) {
    println!(
        "experiment `{}` ({}): {} of {} variants, into {}",
        experiment.name,
        experiment.path.display(),
        variants.len(),
        experiment.variants.len(),
        folder.display()
    );
    for variant in variants {
        println!("  {variant:<16} {}", state(&folder.join(variant)));
    }
}

/// How far a run is, as its folder says.
fn state(run_folder: &Path) -> &'static str {
    if run_folder.join(METRICS_FILE).is_file() {
        "finished"
    } else if run_folder.join(EXPERIMENT_FILE).is_file() {
        "begun: goes on from its last checkpoint"
    } else {
        "to run"
    }
}

/// This call, as it is to be typed.
fn this_command() -> Vec<String> {
    let typed = std::env::args_os().skip(1);
    ["cargo".to_owned(), "xtask".to_owned()]
        .into_iter()
        .chain(typed.map(|argument| argument.to_string_lossy().into_owned()))
        .collect()
}

fn told_to_stop() -> Ending {
    eprintln!("interrupted; the same command goes on from here");
    Ending::Interrupted
}

/// Wall time and ending of each part, in order.
#[derive(Default)]
struct Parts(Vec<(String, Duration, Ending)>);

impl Parts {
    fn add(&mut self, name: &str, time: Duration, ending: Ending) {
        self.0.push((name.to_owned(), time, ending));
    }

    fn failed(&self) -> Vec<&str> {
        let failed = self
            .0
            .iter()
            .filter(|(_, _, ending)| *ending == Ending::Failed);
        failed.map(|(name, _, _)| name.as_str()).collect()
    }

    fn print(&self) {
        println!("\nwall time");
        for (name, time, ending) in &self.0 {
            let ending = match ending {
                Ending::Done => "",
                Ending::Failed => "  failed",
                Ending::Interrupted => "  interrupted",
            };
            println!("  {name:<16} {:>9.1} s{ending}", time.as_secs_f64());
        }
        let all: Duration = self.0.iter().map(|(_, time, _)| time).sum();
        println!("  {:<16} {:>9.1} s", "together", all.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_s_state_is_read_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(state(&folder.path().join("none")), "to run");
        std::fs::write(folder.path().join(EXPERIMENT_FILE), "").unwrap();
        assert!(state(folder.path()).starts_with("begun"));
        std::fs::write(folder.path().join(METRICS_FILE), "{}").unwrap();
        assert_eq!(state(folder.path()), "finished");
    }

    #[test]
    fn failed_parts_are_named_in_order() {
        let mut parts = Parts::default();
        parts.add("build", Duration::ZERO, Ending::Done);
        parts.add("focal", Duration::ZERO, Ending::Failed);
        parts.add("zlpr", Duration::ZERO, Ending::Done);
        parts.add("report", Duration::ZERO, Ending::Failed);
        assert_eq!(parts.failed(), ["focal", "report"]);
    }
}
