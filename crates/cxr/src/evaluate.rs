//! `cxr evaluate`: predictions and metrics of a trained run, made again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use cxr_run::{Experiment, Part, RunFolder, RunMetrics, ViewSet};
use cxr_train::{OwnParts, Trainer};

use crate::data_folder::DataArgs;
use crate::device::DeviceArgs;
use crate::external::{self, ExternalArgs};
use crate::progress::say;
use crate::ranks::Job;
use crate::train::{interrupted, observer_of, open_run, prepare_on_ranks, set_threads, stop_flag};
use crate::watcher::Watcher;

/// Predict and score again with the model of a finished run, or on another data set
///
/// Reads experiment.toml and checkpoints/latest.safetensors of the run folder, and makes its model, predictions,
/// labels and metrics.json again. They are checked first and then replaced together: where anything fails, the run is
/// left as it was.
///
/// Where --data is another data set than the run's own, its images are predicted, the labels that both have are scored, by
/// name or by --label-map, and everything goes to RUN/external/NAME; the run itself is left as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The run's folder, RUNS/EXPERIMENT/VARIANT
    #[arg(value_name = "RUN")]
    run: PathBuf,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    external: ExternalArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// Threads to compute with; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  cxr evaluate models/runs/mine/bce --data data/nih
  cxr evaluate models/runs/mine/bce --data data/padchest --by-study max";

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let job = Job::join()?;
    let done = evaluate(args, &job);
    job.end(done)
}

fn evaluate(args: &Args, job: &Job) -> anyhow::Result<ExitCode> {
    let ranks = job.ranks();
    set_threads(args.threads)?;
    let experiment = RunFolder::at(&args.run)
        .experiment()
        .with_context(|| format!("`{}` is no run folder", args.run.display()))?;
    let [variant] = experiment.variants.as_slice() else {
        bail!(
            "`{}` does not hold the experiment of one variant",
            args.run.display()
        );
    };
    let variant = experiment.variant(&variant.name)?;
    let device = args.device.open()?;
    let data = args.data.folder();
    if let Some(index) = external::other_index(&RunFolder::at(&args.run), &data)? {
        ensure!(
            ranks.size() == 1,
            "another data set than the run's own is predicted by one process\nhint: start one, or share its images out with `cxr predict --shard`"
        );
        let folder = RunFolder::open(&args.run)?;
        let stop = stop_flag()?;
        let allow_missing = args.data.allow_missing;
        return external::run(
            &args.external,
            &folder,
            &data,
            &index,
            allow_missing,
            &device,
            &stop,
        );
    }
    args.external.check_none(&args.run)?;
    let survey = args.data.survey(&experiment)?;
    let stop = stop_flag()?;
    let experiment_folder = args.run.parent().unwrap_or(Path::new("."));
    let store = store_path(experiment_folder, &experiment);
    let Some(data) = prepare_on_ranks(job, survey, &store, &stop)? else {
        return Ok(interrupted());
    };
    let folder = open_run(&args.run, ranks)?;
    let own_parts = OwnParts::new();
    let trainer = Trainer::on_ranks(&variant, &data, &folder, &device, &own_parts, ranks)?;
    if trainer.position().stage < experiment.training.stages.len() {
        bail!(
            "`{}` is not trained to its end\nhint: `cxr train` goes on with it",
            args.run.display()
        );
    }
    let mut watcher = match ranks.is_first() {
        true => Some(Watcher::new(trainer.event_log()?)),
        false => None,
    };
    let made = trainer
        .evaluate(&mut *observer_of(&mut watcher), &stop)
        .with_context(|| format!("`{}` is left as it was", args.run.display()))?;
    if let Some(watcher) = watcher {
        watcher.finish()?;
    }
    let Some(made) = made else {
        return Ok(interrupted());
    };
    if ranks.is_first() {
        print(&made, &args.run);
    }
    Ok(ExitCode::SUCCESS)
}

/// The prepared images of an experiment, shared by its variants.
pub(crate) fn store_path(experiment_folder: &Path, experiment: &Experiment) -> PathBuf {
    experiment_folder.join(format!(
        "images-{}.store",
        experiment.augmentation.image_size()
    ))
}

/// Prints the test AUCs.
pub(crate) fn print(metrics: &RunMetrics, path: &Path) {
    let Some(summary) = metrics.summary(Part::Test, ViewSet::Single) else {
        return;
    };
    let auc = |auc: Option<f64>| auc.map_or("undefined".to_owned(), |auc| format!("{auc:.4}"));
    let mut text = format!("test AUC of {} images, single view\n", summary.n_images);
    for label in &summary.labels {
        text += &format!("  {:<20} {}\n", label.label, auc(label.auc));
    }
    let means = &summary.means;
    text += &format!(
        "  {:<20} {}\n",
        format!("mean of {}", means.n_labels),
        auc(means.auc)
    );
    crate::scoring::summarise(&text);
    say(&format!("everything is in `{}`", path.display()));
}
