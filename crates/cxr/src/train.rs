//! `cxr train`: one variant of an experiment, from images to metrics.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use cxr_dataset::Survey;
use cxr_run::{LockedRunFolder, RunFolder};
use cxr_train::{
    Observer, OwnParts, Profile, Ranks, TrainOutcome, Trainer, TrainingData, VariantExperiment,
};

use crate::data_folder::{DataArgs, prepare};
use crate::device::DeviceArgs;
use crate::experiments::{ExperimentSource, provide_weights};
use crate::output::{ForceArg, is_trace};
use crate::progress::say;
use crate::ranks::Job;
use crate::watcher::Watcher;
use crate::{environment, evaluate};

/// Train one variant of an experiment: prepare, train, predict, evaluate
///
/// Everything goes to RUNS/EXPERIMENT/VARIANT: checkpoints while it trains, then the model,
/// predictions of the validation and test images under each set of test-time views, and
/// metrics.json. Images are prepared once for all variants, into RUNS/EXPERIMENT, unless there is a store
/// already. Stop it at any time with Ctrl-C; the same command goes on where it stood, and a
/// finished run returns at once.
///
/// Several processes share a training where `mpirun -n N cxr train …` or `srun --mpi=… cxr train …` starts them and `cxr` was
/// built with the feature `mpi`: the batches that a step accumulates (`training.gradient_accumulation_steps`, at least N)
/// are dealt to them in turn. The result is, byte for byte, that of one process, and a stopped run goes on with another
/// number of them: docs/clusters.md.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An experiment that comes with the program, such as `paper`, or a path that ends in .toml
    #[arg(long, value_name = "EXPERIMENT")]
    experiment: ExperimentSource,

    /// Which of its variants, such as fzlpr-0.2
    #[arg(long, value_name = "NAME")]
    variant: String,

    /// Train with this seed and not the experiment's, on the same split; the run is VARIANT-seedN
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    #[command(flatten)]
    data: DataArgs,

    /// Where run folders are kept
    #[arg(long, value_name = "DIR", default_value = "models/runs")]
    runs: PathBuf,

    #[command(flatten)]
    device: DeviceArgs,

    /// Threads to compute with, in each of several processes; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Prepare the images into RUNS/EXPERIMENT, where no store has them, and train nothing: a job of its own, before many
    /// that train
    #[arg(long, conflicts_with = "profile")]
    prepare_only: bool,

    /// Write a trace of each step's parts to FILE: it opens in ui.perfetto.dev
    #[arg(long, value_name = "FILE.json")]
    profile: Option<PathBuf>,

    #[command(flatten)]
    force: ForceArg,
}

const EXAMPLES: &str = "Example:
  cxr train --experiment nih-sample --variant fzlpr-0.2 --data DIR --allow-missing
  mpirun -n 4 cxr train --experiment mine.toml --variant bce --data DIR --threads 8";

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let job = Job::join()?;
    let done = train(args, &job);
    job.end(done)
}

fn train(args: &Args, job: &Job) -> anyhow::Result<ExitCode> {
    let ranks = job.ranks();
    set_threads(args.threads)?;
    let experiment = args.experiment.read()?;
    let variant = match args.seed {
        Some(seed) => experiment.variant_with_seed(&args.variant, seed)?,
        None => experiment.variant(&args.variant)?,
    };
    let experiment_folder = args.runs.join(&experiment.name);
    let path = experiment_folder.join(&variant.chosen().name);
    if job.decide(|| is_finished(&path, &variant))? {
        say(&format!("`{}` is finished", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let device = args.device.open()?;
    provide_weights(&experiment)?;
    // Its own image size and split, where it has them.
    let survey = args.data.survey(variant.experiment())?;
    if let Some(profile) = &args.profile {
        let output = args.force.output(profile).inputs(args.experiment.file());
        output.inputs(&survey.read).ours(is_trace).check()?;
    }
    let stop = stop_flag()?;
    let store = evaluate::store_path(&experiment_folder, variant.experiment());
    let Some(data) = prepare_on_ranks(job, survey, &store, &stop)? else {
        return Ok(interrupted());
    };
    if args.prepare_only {
        return Ok(ExitCode::SUCCESS);
    }
    let folder = open_run(&path, ranks)?;
    let profile = match &args.profile {
        Some(profile) if ranks.is_first() => Profile::create(profile)?,
        _ => Profile::OFF,
    };
    let own_parts = OwnParts::new();
    let trainer = Trainer::on_ranks(&variant, &data, &folder, &device, &own_parts, ranks)?;
    let mut trainer = trainer.profiled(&profile);
    let mut watcher = None;
    if ranks.is_first() {
        environment::write(&folder, data.fingerprint(), &device, ranks.size())?;
        watcher = Some(Watcher::new(trainer.event_log()?));
    }
    let mut observer = observer_of(&mut watcher);
    let metrics = match trainer.train(&mut *observer, &stop)? {
        TrainOutcome::Finished { .. } => trainer.evaluate(&mut *observer, &stop)?,
        TrainOutcome::Stopped(_) => None,
    };
    drop(observer);
    drop(trainer);
    profile.finish()?;
    if let Some(watcher) = watcher {
        watcher.finish()?;
    }
    let Some(metrics) = metrics else {
        return Ok(interrupted());
    };
    if !ranks.is_first() {
        return Ok(ExitCode::SUCCESS);
    }
    cxr_train::record_algorithms(&folder, &device)?;
    evaluate::print(&metrics, &path);
    Ok(ExitCode::SUCCESS)
}

/// The run's folder, which rank 0 opens and writes in.
pub(crate) fn open_run(path: &Path, ranks: &dyn Ranks) -> anyhow::Result<LockedRunFolder> {
    Ok(match ranks.is_first() {
        true => RunFolder::open(path)?,
        false => RunFolder::of_first_rank(path),
    })
}

/// Rank 0 watches; the others have none.
pub(crate) fn observer_of(watcher: &mut Option<Watcher>) -> Box<dyn Observer + '_> {
    match watcher {
        Some(watcher) => Box::new(watcher),
        None => Box::new(()),
    }
}

/// Images are prepared by rank 0, and then read by all; ranks that see another disk prepare them there. `None` when `stop`
/// was set on any.
pub(crate) fn prepare_on_ranks(
    job: &Job,
    survey: Survey,
    store: &Path,
    stop: &AtomicBool,
) -> anyhow::Result<Option<TrainingData>> {
    let (mut survey, mut data) = (Some(survey), None);
    let mut prepare_now = || match survey.take() {
        Some(survey) => prepare(survey, store, stop),
        None => Ok(None),
    };
    let is_prepared = job.decide(|| {
        data = prepare_now()?;
        Ok(data.is_some())
    })?;
    if !is_prepared {
        return Ok(None);
    }
    if !job.ranks().is_first() {
        data = prepare_now()?;
    }
    let has_data = Ok::<_, anyhow::Error>(vec![u8::from(data.is_some())]);
    let all = job.ranks().agree(has_data)?;
    Ok(data.filter(|_| all.iter().all(|has_data| has_data == &[1])))
}

/// No experiment file is longer.
const MAX_EXPERIMENT_BYTES: u64 = 1 << 24;

/// A finished run has metrics of this very experiment, and the files that they are of.
fn is_finished(path: &Path, variant: &VariantExperiment) -> anyhow::Result<bool> {
    let run = RunFolder::at(path);
    let file = run.experiment_file();
    if !run.is_finished() || !file.is_file() {
        return Ok(false);
    }
    let before = cxr_fs::read_text(&file, MAX_EXPERIMENT_BYTES)?;
    anyhow::ensure!(
        cxr_train::is_written_as(variant, &before),
        "`{}` is a finished run of other settings\nhint: compare its experiment.toml, and choose another `name` or `--runs`, or delete it",
        path.display()
    );
    if let Some(what) = run.finish()?.changes() {
        bail!(
            "`{0}` is finished, but {what} since\nhint: `cxr evaluate {0} --data DIR` makes its files again, from its last checkpoint",
            path.display()
        );
    }
    Ok(true)
}

/// More threads than this are not started: they would only wait for one another, and each takes memory.
const MOST_THREADS: usize = 256;

/// Starts the threads that compute: as many as asked for, or one per core. Here they are counted and a failure is an
/// error; started at their first use, it would be a panic.
pub(crate) fn set_threads(threads: Option<u16>) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Without a wish, `RAYON_NUM_THREADS` or the cores decide.
    let wanted = match threads {
        Some(threads) => usize::from(threads),
        None => match std::env::var("RAYON_NUM_THREADS")
            .ok()
            .and_then(|text| text.parse().ok())
        {
            Some(0) | None => cores,
            Some(threads) => threads,
        },
    };
    let used = wanted.min(MOST_THREADS.max(cores));
    if used < wanted {
        say(&format!(
            "{wanted} threads were asked for; {used} are used, on {cores} cores"
        ));
    } else if used > cores {
        say(&format!(
            "{used} threads share {cores} cores: that is no faster than {cores}"
        ));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(used)
        .build_global()
        .with_context(|| {
            format!("cannot start {used} threads\nhint: choose fewer with `--threads N`")
        })
}

/// A flag that Ctrl-C, SIGTERM and a closed terminal set; the second signal ends the process at once.
///
/// Until this is called a signal ends the process as it ends any other. So it is called when all inputs are read that may
/// keep a command waiting, such as a pipe without a writer.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    cxr_terminal::on_interrupt(cxr_terminal::INTERRUPTED, move || {
        flag.store(true, Ordering::Relaxed);
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}

pub(crate) fn interrupted() -> ExitCode {
    say("interrupted; the same command goes on from here");
    ExitCode::from(cxr_terminal::INTERRUPTED)
}
