//! `cxr evaluate`: predictions and metrics of a trained run, made again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use candle_core::Device;
use cxr_fs::Staged;
use cxr_run::{
    BestEpoch, DataFacts, EpochRecord, Evaluation, LabelTable, LockedRunFolder, MeanAuc, Part,
    Predictions, RunFolder, RunMetrics, Seconds, StageFacts, Summary, SummaryOptions, Truth,
    Unscorable, ViewSet,
};
use cxr_train::{
    Experiment, TrainOutcome, Trainer, TrainingData, VariantExperiment, load_model, predict,
};

use crate::data_folder::{DataArgs, Prepared};
use crate::device::DeviceArgs;
use crate::progress::say;
use crate::train::{interrupted, set_threads, stop_flag};
use crate::watcher::Watcher;

/// Predict and score again with the model of a finished run
///
/// Reads experiment.toml and checkpoints/latest.safetensors of the run folder, and makes its model, predictions,
/// labels and metrics.json again. They are checked first and then replaced together: where anything fails, the run is
/// left as it was.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run's folder, RUNS/EXPERIMENT/VARIANT
    #[arg(value_name = "RUN")]
    run: PathBuf,

    #[command(flatten)]
    data: DataArgs,

    #[command(flatten)]
    device: DeviceArgs,

    /// Threads to compute with; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    set_threads(args.threads)?;
    let experiment = Experiment::read(&RunFolder::at(&args.run).experiment_file())
        .with_context(|| format!("`{}` is no run folder", args.run.display()))?;
    let [variant] = experiment.variants.as_slice() else {
        bail!(
            "`{}` does not hold the experiment of one variant",
            args.run.display()
        );
    };
    let variant = experiment.variant(&variant.name)?;
    let device = args.device.open()?;
    let survey = args.data.survey(&experiment)?;
    let stop = stop_flag()?;
    let experiment_folder = args.run.parent().unwrap_or(Path::new("."));
    let store = store_path(experiment_folder, &experiment);
    let Some(prepared) = args.data.prepare(survey, &store, &stop)? else {
        return Ok(interrupted());
    };
    let folder = RunFolder::open(&args.run)?;
    let mut trainer = Trainer::new(&variant, &prepared.data, &folder, &device)?;
    if trainer.position().stage < experiment.training.stages.len() {
        bail!(
            "`{}` is not trained to its end\nhint: `cxr train` goes on with it",
            args.run.display()
        );
    }
    let mut watcher = Watcher::new(trainer.event_log()?);
    let TrainOutcome::Finished { history, best } = trainer.train(&mut watcher, &stop)? else {
        return Ok(interrupted());
    };
    let made = metrics(
        &trainer,
        &variant,
        &prepared,
        &folder,
        (history, best),
        &device,
        &mut watcher,
        &stop,
    )
    .with_context(|| format!("`{}` is left as it was", args.run.display()))?;
    watcher.finish()?;
    let Some(made) = made else {
        return Ok(interrupted());
    };
    print(&made, &args.run);
    Ok(ExitCode::SUCCESS)
}

/// The prepared images of an experiment, shared by its variants.
pub(crate) fn store_path(experiment_folder: &Path, experiment: &Experiment) -> PathBuf {
    experiment_folder.join(format!(
        "images-{}.store",
        experiment.augmentation.image_size()
    ))
}

/// Makes all that a finished run has: model, predictions, labels and `metrics.json`. They are made and checked beside
/// their places, and moved there together once all are good. `None` when `stop` was set; nothing is changed then.
#[expect(
    clippy::too_many_arguments,
    reason = "what a finished training leaves, and who watches"
)]
pub(crate) fn metrics(
    trainer: &Trainer<'_>,
    variant: &VariantExperiment,
    prepared: &Prepared,
    folder: &LockedRunFolder,
    trained: (Vec<EpochRecord>, Option<BestEpoch>),
    device: &Device,
    watcher: &mut Watcher,
    stop: &AtomicBool,
) -> anyhow::Result<Option<RunMetrics>> {
    // If the folder is gone, so is the reason for any other failure.
    folder.outcome(make_metrics(
        trainer, variant, prepared, folder, trained, device, watcher, stop,
    ))
}

#[expect(
    clippy::too_many_arguments,
    reason = "what a finished training leaves, and who watches"
)]
fn make_metrics(
    trainer: &Trainer<'_>,
    variant: &VariantExperiment,
    prepared: &Prepared,
    folder: &LockedRunFolder,
    (history, best): (Vec<EpochRecord>, Option<BestEpoch>),
    device: &Device,
    watcher: &mut Watcher,
    stop: &AtomicBool,
) -> anyhow::Result<Option<RunMetrics>> {
    let experiment = variant.experiment();
    let data = &prepared.data;
    let mut staged = Staged::new();
    trainer.stage_model(&mut staged, None)?;
    // The network that is predicted with is the one in the file.
    let (card, classifier) = load_model(beside(&staged, &folder.model_file())?, device)?;
    let start = Instant::now();
    let mut validation = None;
    for part in [Part::Validation, Part::Test] {
        let batch_size = experiment.training.evaluation_batch_size;
        let views = ViewSet::HorizontalFlipZoom;
        let prediction = predict(
            &classifier,
            &card,
            data,
            part,
            views,
            batch_size,
            watcher,
            stop,
        )?;
        let Some(prediction) = prediction else {
            return Ok(None);
        };
        if part == Part::Validation {
            validation = Some(prediction.validation_aucs(ViewSet::Single, data)?);
        }
        for views in ViewSet::ALL {
            prediction.stage(views, &folder.predictions_file(part, views), &mut staged)?;
        }
    }
    // Now the file can say how good the network is.
    trainer.stage_model(&mut staged, validation)?;
    let Some(stages) = stages(experiment, data, folder, device, watcher, stop)? else {
        return Ok(None);
    };
    let predict_seconds = start.elapsed().as_secs_f64();
    for part in Part::ALL {
        let table = LabelTable::of(data.index(), data.split().part(part));
        table.stage(&folder.labels_file(part), &mut staged)?;
    }
    let mut train_seconds = BTreeMap::new();
    for epoch in &history {
        *train_seconds.entry(epoch.stage.clone()).or_default() += epoch.seconds;
    }
    let chosen = variant.chosen();
    let mut metrics = RunMetrics {
        experiment: experiment.name.clone(),
        variant: chosen.name.clone(),
        loss: chosen.loss.clone(),
        loss_parameters: chosen.parameters.clone(),
        seed: experiment.seed,
        data: DataFacts::of(data.index(), data.split(), prepared.phantom)?,
        validation: summaries(folder, &staged, data, Part::Validation)?,
        test: summaries(folder, &staged, data, Part::Test)?,
        stages,
        best_epoch: best,
        history,
        seconds: Seconds {
            prepare: prepared.seconds,
            train: train_seconds,
            predict: predict_seconds,
        },
        files: BTreeMap::new(),
    };
    metrics.stage(folder.path(), &mut staged)?;
    folder.check()?;
    staged.commit()?;
    Ok(Some(metrics))
}

/// Where a staged file is now.
fn beside<'a>(staged: &'a Staged, path: &Path) -> anyhow::Result<&'a Path> {
    let staged = staged.path_of(path);
    staged.with_context(|| format!("`{}` was not made", path.display()))
}

/// Mean AUCs of the network as it was before each stage: what pretraining alone is worth, and the top
/// network alone. `None` when `stop` was set.
fn stages(
    experiment: &Experiment,
    data: &TrainingData,
    folder: &LockedRunFolder,
    device: &Device,
    watcher: &mut Watcher,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Vec<StageFacts>>> {
    let stages = &experiment.training.stages;
    let mut facts = Vec::with_capacity(stages.len());
    for (index, stage) in stages.iter().enumerate() {
        let path = folder.before_stage(index);
        if !path.is_file() {
            // A run of an earlier version; what it did not keep is not guessed.
            return Ok(Some(Vec::new()));
        }
        let (card, classifier) = load_model(&path, device)?;
        let mut mean_of = |part| -> anyhow::Result<Option<MeanAuc>> {
            let batch_size = experiment.training.evaluation_batch_size;
            let views = ViewSet::Single;
            let prediction = predict(
                &classifier,
                &card,
                data,
                part,
                views,
                batch_size,
                watcher,
                stop,
            )?;
            let Some(prediction) = prediction else {
                return Ok(None);
            };
            let mean = prediction.macro_auc(views, data)?;
            Ok(Some(MeanAuc {
                auc: mean.map(|mean| mean.value),
                n_labels: mean.map_or(0, |mean| mean.n_labels),
            }))
        };
        let (Some(validation), Some(test)) = (mean_of(Part::Validation)?, mean_of(Part::Test)?)
        else {
            return Ok(None);
        };
        facts.push(StageFacts {
            before: stage.name.clone(),
            validation,
            test,
        });
    }
    Ok(Some(facts))
}

/// Scores the predictions as they will stand in the run folder, so that anybody can do it again.
fn summaries(
    folder: &LockedRunFolder,
    staged: &Staged,
    data: &TrainingData,
    part: Part,
) -> anyhow::Result<BTreeMap<ViewSet, Summary>> {
    let truth = Truth::of(data.index())?;
    let mut summaries = BTreeMap::new();
    for views in ViewSet::ALL {
        let path = folder.predictions_file(part, views);
        let predictions = Predictions::read(beside(staged, &path)?, Unscorable::Refuse)?;
        let (rows, images) = (predictions.images().len(), data.split().part(part).len());
        ensure!(
            rows == images,
            "`{}` would have {rows} rows for {images} images",
            path.display()
        );
        let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse)?;
        let options = SummaryOptions {
            by_patient: evaluation.patients().is_ok(),
            ..SummaryOptions::default()
        };
        summaries.insert(views, Summary::new(&evaluation, &options)?);
    }
    Ok(summaries)
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
