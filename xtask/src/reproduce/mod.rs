//! `cargo xtask reproduce`: every variant of an experiment, then its pictures and its report.
//!
//! One call of `cxr train` per run prepares the images, trains or goes on training, predicts and
//! evaluates; a finished run returns at once. A run that fails does not stop the others. Then `cxr explain`
//! makes what Figures 4 and 7 show. An experiment on phantoms has them written first, by `cxr phantoms`,
//! and is from there on like any other.

mod estimate;
mod parts;
mod runs;
mod work;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use cxr_report::report::Reproduction;
use cxr_terminal::{say, tell};

use self::parts::Parts;
use self::runs::{Run, Shard, State};
use self::work::{Outcome, Work};
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
    /// Run these variants only, or those that a table or figure needs, such as table2 or figure7
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    only: Vec<String>,
    /// Train each variant with so many seeds: the experiment's, the next, and so on; the split stays
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Run so many variants at once, each with its share of the cores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Run one part of the runs, such as 1/4, the first of four; calls on several machines share them out
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// What to compute on
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// The folder of runs; of the workspace: models/runs
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Say what would run, what is done already, and what time, memory and disk it will take; and stop
    #[arg(long)]
    plan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Device {
    Cpu,
    /// An NVIDIA GPU: docs/cuda.md
    Cuda,
}

impl Device {
    /// As `cxr` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Ending> {
    if arguments.device == Device::Cuda {
        crate::cuda::find_driver()?;
    }
    let experiments = workspace.root().join("xtask").join("experiments");
    let experiment = Experiment::find(&experiments, &arguments.experiment)?;
    let variants = experiment.select(&arguments.only)?;
    let mut selected = runs::runs(&experiment, &variants, arguments.seeds);
    if let Some(shard) = arguments.shard {
        selected = shard.take(selected);
    }
    if let Some(name) = runs::name_of_two(&runs::runs(&experiment, &variants, arguments.seeds)) {
        bail!(
            "two runs would be called `{name}`: a variant has the name of another's seed\nhint: rename it in `{}`",
            experiment.path.display()
        );
    }
    if selected.is_empty() {
        tell!("no run is in this part: nothing to do");
        return Ok(Ending::Done);
    }
    let runs = match &arguments.runs {
        Some(runs) => absolute(runs)?,
        None => workspace.root().join("models").join("runs"),
    };
    let folder = runs.join(&experiment.name);
    print_runs(&experiment, &selected, &folder);
    let data = match &arguments.data {
        Some(data) => Some(absolute(data)?),
        None if experiment.has_phantoms => {
            let phantoms = workspace.root().join("data").join("phantoms");
            Some(phantoms.join(&experiment.name))
        }
        None => None,
    };
    let data = match &data {
        Some(data) => data.as_path(),
        // A plan can do without.
        None if arguments.plan => Path::new(""),
        None => bail!(
            "experiment `{}` needs a data set\nhint: name its folder with `--data DIR`; `cargo xtask reproduce demo` needs none",
            experiment.name
        ),
    };

    let interrupt = Interrupt::install()?;
    let mut parts = Parts::default();
    let begin = Instant::now();
    let mut build = vec!["build", "--release", "--package", "cxr"];
    if arguments.device == Device::Cuda {
        build.extend(["--features", "cuda"]);
    }
    let (ended, executable) = workspace.build(&interrupt, &build, "cxr")?;
    parts.add("build", begin.elapsed(), ended.ending);
    if ended.ending == Ending::Interrupted {
        return Ok(told_to_stop());
    }
    let Some(executable) = executable.filter(|_| ended.ending == Ending::Done) else {
        bail!("cannot build `cxr`: {}", ended.status);
    };
    let work = Work {
        workspace,
        interrupt: &interrupt,
        experiment: &experiment,
        executable,
        data,
        metadata: arguments.metadata.as_deref(),
        allow_missing: arguments.allow_missing,
        device: arguments.device,
        runs: &runs,
    };
    if arguments.plan {
        return estimate::print(&work, &selected, arguments.jobs.into());
    }

    std::fs::create_dir_all(&folder)
        .map_err(|error| anyhow::anyhow!("cannot make `{}`: {error}", folder.display()))?;
    let all: Vec<&str> = experiment.variants.iter().map(String::as_str).collect();
    let all = runs::runs(&experiment, &all, arguments.seeds);
    Reproduction {
        command: this_command(),
        variants: all.iter().map(Run::name).collect(),
    }
    .write(&folder)?;
    let ending = do_all(&work, arguments, &selected, &mut parts)?;
    if ending == Ending::Done {
        tell!();
        let begin = Instant::now();
        let report = report::write(&folder);
        let ending = match &report {
            Ok(()) => Ending::Done,
            Err(_) => Ending::Failed,
        };
        if let Err(error) = report {
            say!("error: {error:#}");
        }
        parts.add("report", begin.elapsed(), ending);
    }
    parts.print(begin.elapsed());
    if ending == Ending::Interrupted {
        return Ok(told_to_stop());
    }
    let failed = parts.failed();
    if failed.is_empty() {
        return Ok(Ending::Done);
    }
    say!(
        "failed: {}\nhint: the same command runs again what is not finished",
        failed.join(", ")
    );
    Ok(Ending::Failed)
}

/// Phantoms, trainings, pictures. What fails stands in `parts` and stops nothing but what needs it.
fn do_all(
    work: &Work<'_>,
    arguments: &Arguments,
    selected: &[Run],
    parts: &mut Parts,
) -> anyhow::Result<Ending> {
    let mut note = |outcome: &Outcome| {
        let ending = outcome.ending();
        parts.add(&outcome.name, outcome.time, ending);
        ending
    };
    if arguments.data.is_none() {
        match note(&work.phantoms()?) {
            Ending::Done => {}
            Ending::Failed => bail!("cannot write the phantoms"),
            Ending::Interrupted => return Ok(Ending::Interrupted),
        }
    }
    let unfinished = selected
        .iter()
        .filter(|run| State::of(&work.folder(run)) != State::Finished);
    let jobs = usize::from(arguments.jobs).min(unfinished.count()).max(1);
    let outcomes = work.train(selected, jobs);
    let endings: Vec<Ending> = outcomes.iter().map(&mut note).collect();
    if endings.contains(&Ending::Interrupted) || work.interrupt.is_raised() {
        return Ok(Ending::Interrupted);
    }
    let explained = runs::explained(work.experiment, selected);
    let is_finished = |run: &&Run| State::of(&work.folder(run)) == State::Finished;
    if let Some(run) = explained.filter(is_finished)
        && note(&work.explain(run)?) == Ending::Interrupted
    {
        return Ok(Ending::Interrupted);
    }
    Ok(Ending::Done)
}

fn print_runs(experiment: &Experiment, selected: &[Run], folder: &Path) {
    tell!(
        "experiment `{}` ({}): {} of {} variants, {} runs, into {}",
        experiment.name,
        experiment.path.display(),
        {
            let is_in = |name: &&String| selected.iter().any(|run| run.variant == **name);
            experiment.variants.iter().filter(is_in).count()
        },
        experiment.variants.len(),
        selected.len(),
        folder.display()
    );
    let of_names = selected.iter().map(|run| run.name().len());
    let width = of_names.max().unwrap_or(0);
    for run in selected {
        let name = run.name();
        let state = State::of(&folder.join(&name));
        tell!("  {name:<width$} {}", state.words());
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
    say!("interrupted; the same command goes on from here");
    Ending::Interrupted
}
