//! `cxr reproduce`: every variant of an experiment, then its pictures and its report.
//!
//! One call of `cxr train` per run prepares the images, trains or goes on training, predicts and
//! evaluates; a finished run returns at once. A run that fails does not stop the others. Then `cxr explain`
//! makes what Figures 4 and 7 show. An experiment on phantoms has them written first, by `cxr phantoms`,
//! and is from there on like any other.

mod estimate;
mod items;
mod parts;
mod runs;
pub(crate) mod slurm;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};
use cxr_report::report::Reproduction;
use cxr_train::Experiment;

use self::parts::Parts;
use self::runs::{Run, Shard, State};
use self::slurm::{Jobs, SlurmArgs};
use self::work::{Outcome, Work};
use crate::device::DeviceArgs;
use crate::experiments::{ExperimentSource, absolute, provide_weights};
use crate::progress::say;
use crate::scoring::print;
use crate::{report, train};
use cxr_terminal::{Ending, Interrupt};

/// Run every variant of an experiment that is not finished, then write its report
///
/// From images to a page with every table and figure: `cxr train` for each variant, `cxr explain`, `cxr report`.
/// What is finished is not done again; after Ctrl-C, a kill or a failure the same command goes on.
/// `cxr experiments` lists the experiments that come with the program.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An experiment that comes with the program, or a path that ends in .toml
    #[arg(default_value = "paper")]
    experiment: ExperimentSource,
    /// The data set: a folder with images/, the label table and the official lists; an experiment on
    /// phantoms, such as `demo`, needs none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where label table and lists are, if not there
    #[arg(long, value_name = "DIR", requires = "data")]
    metadata: Option<PathBuf>,
    /// Go on without listed images that are missing, and say how many
    #[arg(long)]
    allow_missing: bool,
    /// The folder that has data/ and models/: paths in an experiment are relative to it
    #[arg(long, value_name = "DIR", env = "CXR_HOME", default_value = ".")]
    home: PathBuf,
    /// Run these variants only, those of a published system, such as wang-2017, or those that a table or
    /// figure needs, such as table2 or figure7
    #[arg(long, value_name = "WHAT", value_delimiter = ',')]
    only: Vec<String>,
    /// Train each variant with so many seeds: the experiment's, the next, and so on; the split stays
    /// [default: what the experiment says, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Run so many variants at once, each with its share of the cores
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    jobs: u16,
    /// Run one part of the runs, such as 1/4, the first of four; calls on several machines share them out
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    #[command(flatten)]
    device: DeviceArgs,
    /// The folder of runs [default: models/runs in the home folder]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Say what would run, what is done already, and what time, memory and disk it will take; and stop
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    slurm: SlurmArgs,
}

const EXAMPLES: &str = "Examples:
  cxr reproduce demo
  cxr reproduce paper --data data/nih --plan
  cxr reproduce related --data data/nih --only wang-2017,cral-2020,fzlpr-0.2
  cxr reproduce mine.toml --data mine --only bce,table4 --seeds 3
  cxr reproduce paper --data data/nih --seeds 3 --slurm --submit --cpus 16 --sbatch=--partition=long";

/// How the caller was called, where `cxr` is not what a person typed.
const CALLED_AS: &str = "CXR_CALLED_AS";

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Ok(match reproduce(args)? {
        Ending::Done => ExitCode::SUCCESS,
        Ending::Failed => ExitCode::FAILURE,
        Ending::Interrupted => train::interrupted(),
    })
}

fn reproduce(args: &Args) -> anyhow::Result<Ending> {
    let experiment = args.experiment.read()?;
    let names: Vec<String> = (experiment.variants.iter())
        .map(|variant| variant.name.clone())
        .collect();
    let systems: Vec<Option<String>> = (experiment.variants.iter())
        .map(|variant| variant.system.clone())
        .collect();
    let variants = items::select(&experiment.name, &names, &systems, &args.only)?;
    let seeds = args.seeds.unwrap_or(experiment.seeds);
    let mut selected = runs::runs(experiment.seed, &variants, seeds);
    if let Some(name) = runs::name_of_two(&selected) {
        bail!(
            "two runs would be called `{name}`: a variant has the name of another's seed\nhint: rename it in `{}`",
            args.experiment
        );
    }
    if let Some(shard) = args.shard {
        selected = shard.take(selected);
    }
    if selected.is_empty() {
        say("no run is in this part: nothing to do");
        return Ok(Ending::Done);
    }
    let home = absolute(&args.home)?;
    let runs = match &args.runs {
        Some(runs) => absolute(runs)?,
        None => home.join("models").join("runs"),
    };
    let folder = runs.join(&experiment.name);
    print_runs(args, &experiment, &selected, &folder)?;
    let data = match &args.data {
        Some(data) => Some(absolute(data)?),
        None if experiment.data.phantoms.is_some() => {
            Some(home.join("data").join("phantoms").join(&experiment.name))
        }
        None => None,
    };
    if data.is_none() && !args.plan {
        bail!(
            "experiment `{}` needs a data set\nhint: name its folder with `--data DIR`; `demo` needs none",
            experiment.name
        );
    }
    let metadata = args.metadata.as_deref().map(absolute).transpose()?;
    let source = args.experiment.absolute()?;
    // What the user named is absolute now; what the experiment names is relative to the home folder.
    std::env::set_current_dir(&home)
        .with_context(|| format!("cannot go to the folder `{}`", home.display()))?;
    let planned = crate::plan::Data {
        folder: data.clone(),
        metadata: metadata.clone(),
        allow_missing: args.allow_missing,
    };
    let is_estimated = args.plan || args.slurm.slurm;
    let states: Vec<(String, State)> = (selected.iter())
        .filter(|_| is_estimated)
        .map(|run| (run.name(), State::of(&folder.join(run.name()))))
        .collect();
    let explains = runs::explained(&names, &selected)
        .filter(|run| !runs::is_explained(&folder.join(run.name())));
    if args.plan {
        estimate::print(
            &experiment,
            planned,
            &args.device,
            &states,
            explains.map(Run::name),
            args.jobs,
        )?;
        return Ok(Ending::Done);
    }
    provide_weights(&experiment)?;
    let interrupt = Interrupt::install()?;
    let mut parts = Parts::default();
    let begin = Instant::now();
    let work = Work {
        interrupt: &interrupt,
        experiment: &experiment,
        source: &source,
        executable: std::env::current_exe().context("cannot find this program's own file")?,
        data: data.as_deref().unwrap_or(Path::new("")),
        metadata: metadata.as_deref(),
        allow_missing: args.allow_missing,
        device: &args.device,
        runs: &runs,
    };
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = runs::runs(experiment.seed, &all, seeds);
    let reproduction = Reproduction {
        command: this_command(),
        variants: all.iter().map(Run::name).collect(),
    };
    if args.slurm.slurm {
        let name = explains.map(Run::name);
        let lines = estimate::measure(&experiment, &planned, &args.device, &states, name)?;
        let waiting: Vec<Run> = (selected.iter().zip(&states))
            .filter(|(_, (_, state))| *state != State::Finished)
            .map(|(run, _)| run.clone())
            .collect();
        if waiting.is_empty() {
            bail!(
                "all runs are finished\nhint: `cxr report {}` writes the report again",
                folder.display()
            );
        }
        Jobs {
            work: &work,
            args: &args.slurm,
            folder: &folder,
            home: &home,
            draws: args.data.is_none(),
            runs: &waiting,
            prepared_for: &one_of_each_size(&experiment, &waiting)?,
            explained: explains,
            lines: &lines,
        }
        .make(&reproduction)?;
        return Ok(Ending::Done);
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    reproduction.write(&folder)?;
    let ending = do_all(&work, args, &names, &selected, &mut parts)?;
    if ending == Ending::Done {
        print("\n")?;
        let begin = Instant::now();
        let report = report::write(&folder);
        let ending = match &report {
            Ok(()) => Ending::Done,
            Err(_) => Ending::Failed,
        };
        if let Err(error) = report {
            say(&format!("error: {error:#}"));
        }
        parts.add("report", begin.elapsed(), ending);
    }
    print(&parts.table(begin.elapsed()))?;
    if ending == Ending::Interrupted {
        return Ok(Ending::Interrupted);
    }
    let failed = parts.failed();
    if failed.is_empty() {
        return Ok(Ending::Done);
    }
    say(&format!(
        "failed: {}\nhint: the same command runs again what is not finished",
        failed.join(", ")
    ));
    Ok(Ending::Failed)
}

/// The first run of each size of prepared images.
fn one_of_each_size(experiment: &Experiment, runs: &[Run]) -> anyhow::Result<Vec<Run>> {
    let mut sizes = Vec::new();
    let mut first = Vec::new();
    for run in runs {
        let variant = experiment.variant(&run.variant)?;
        let size = variant.experiment().augmentation.image_size();
        if !sizes.contains(&size) {
            sizes.push(size);
            first.push(run.clone());
        }
    }
    Ok(first)
}

/// Phantoms, trainings, pictures. A failure is recorded in `parts` and stops only what depends on it.
fn do_all(
    work: &Work<'_>,
    args: &Args,
    variants: &[String],
    selected: &[Run],
    parts: &mut Parts,
) -> anyhow::Result<Ending> {
    let mut note = |outcome: &Outcome| {
        let ending = outcome.ending();
        parts.add(&outcome.name, outcome.time, ending);
        ending
    };
    if args.data.is_none() {
        match note(&work.phantoms()) {
            Ending::Done => {}
            Ending::Failed => bail!("cannot write the phantoms"),
            Ending::Interrupted => return Ok(Ending::Interrupted),
        }
    }
    let unfinished = selected
        .iter()
        .filter(|run| State::of(&work.folder(run)) != State::Finished);
    let jobs = usize::from(args.jobs).min(unfinished.count()).max(1);
    let outcomes = work.train(selected, jobs);
    let endings: Vec<Ending> = outcomes.iter().map(&mut note).collect();
    if endings.contains(&Ending::Interrupted) || work.interrupt.is_raised() {
        return Ok(Ending::Interrupted);
    }
    let explained = runs::explained(variants, selected);
    let is_finished = |run: &&Run| State::of(&work.folder(run)) == State::Finished;
    if let Some(run) = explained.filter(is_finished)
        && note(&work.explain(run)) == Ending::Interrupted
    {
        return Ok(Ending::Interrupted);
    }
    Ok(Ending::Done)
}

fn print_runs(
    args: &Args,
    experiment: &Experiment,
    selected: &[Run],
    folder: &Path,
) -> anyhow::Result<()> {
    let is_in = |name: &str| selected.iter().any(|run| run.variant == name);
    let mut text = format!(
        "experiment `{}` ({}): {} of {} variants, {} runs, into {}\n",
        experiment.name,
        args.experiment,
        (experiment.variants.iter())
            .filter(|variant| is_in(&variant.name))
            .count(),
        experiment.variants.len(),
        selected.len(),
        folder.display()
    );
    let of_names = selected.iter().map(|run| run.name().len());
    let width = of_names.max().unwrap_or(0);
    for run in selected {
        let name = run.name();
        let state = State::of(&folder.join(&name));
        text += &format!("  {name:<width$} {}\n", state.words());
    }
    print(&text)
}

/// This call, as it is to be typed.
fn this_command() -> Vec<String> {
    let program = std::env::var(CALLED_AS).unwrap_or_else(|_| "cxr".to_owned());
    let typed = std::env::args_os().skip(1);
    (program.split(' ').map(str::to_owned))
        .chain(typed.map(|argument| argument.to_string_lossy().into_owned()))
        .collect()
}
