//! `cxr phantoms`: a data set of synthetic chest X-rays.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use cxr_phantom::{Finding, Labels, Layout, ListSize, PhantomConfig, PhantomError, Summary};
use cxr_train::{PhantomLabels, PhantomSettings};

use crate::experiments::ExperimentSource;
use crate::progress::{self, say};
use crate::train::{interrupted, set_threads, stop_flag};

/// Write synthetic chest X-rays in the files of ChestX-ray14 or another data set
///
/// Every command that reads the original reads them: images/, Data_Entry_2017_v2020.csv,
/// train_val_list.txt, test_list.txt, BBox_List_2017.csv; with `--layout` they have the folders, names, tables, labels and
/// official parts of another data set. (Phantoms that an experiment labels with how they
/// were taken have labels.csv in place of table and boxes.) They show nobody and are for testing software
/// only. The same settings give the same bytes; a folder that is complete is left as it is, and one
/// that was stopped is completed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The folder to write: new, empty, or one with phantoms of the same settings
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Write those that an experiment is made on, its [data.phantoms]
    #[arg(long, value_name = "EXPERIMENT", conflicts_with_all = ["images", "seed", "side"])]
    experiment: Option<ExperimentSource>,

    /// Whose files they are written in: chest-x-ray14, chexpert, mimic, padchest, vindr or rsna. The same seed and number
    /// give the same images in each
    #[arg(long, value_name = "NAME", default_value = "chest-x-ray14", value_parser = layout, conflicts_with = "experiment")]
    layout: Layout,

    /// How many images, at least 336; 22.8 % of them for testing, as in the original
    #[arg(long, value_name = "N", default_value_t = 1200)]
    images: usize,

    /// Seed of all that is drawn
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Width and height of an image in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = PhantomConfig::DEFAULT_SIDE)]
    side: usize,

    /// Remove phantoms of other settings first, if DIR holds such and nothing else: a file that is no
    /// part of them, or a table that was changed, is named and nothing is removed
    #[arg(long)]
    replace: bool,

    /// Threads to draw with; the images do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  cxr phantoms --data data/phantoms/try --images 400
  cxr phantoms --data data/phantoms/chexpert --layout chexpert --images 400
  cxr phantoms --data data/phantoms/demo --experiment demo";

fn layout(name: &str) -> Result<Layout, String> {
    let found = Layout::ALL.into_iter().find(|layout| layout.name() == name);
    let names = Layout::ALL.map(Layout::name);
    found.ok_or_else(|| format!("take one of {}", names.join(", ")))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    set_threads(args.threads)?;
    let config = match &args.experiment {
        Some(source) => of_experiment(source)?,
        None => PhantomConfig::of_images(args.seed, args.images)?
            .with_side(args.side)?
            .with_layout(args.layout)?,
    };
    let stop = stop_flag()?;
    let on_wait = || say("waiting for another process that makes these phantoms");
    let Some(_lock) = cxr_fs::Lock::acquire_beside(&args.data, &stop, on_wait)? else {
        return Ok(interrupted());
    };
    let begin = Instant::now();
    let bar = progress::Bar::new("drawing", "phantoms", config.images());
    let write = || {
        let observer = |progress: cxr_phantom::Progress| bar.set(progress.written);
        cxr_phantom::write_dataset(&config, &args.data, &observer, &stop)
    };
    let written = match write() {
        Err(PhantomError::FolderInUse { .. })
            if args.replace && cxr_phantom::remove_dataset(&args.data)? =>
        {
            say(&format!(
                "phantoms of other settings were removed from `{}`",
                args.data.display()
            ));
            write()
        }
        written => written,
    };
    bar.finish();
    let summary = match written {
        Err(PhantomError::Interrupted { .. }) => return Ok(interrupted()),
        written => written?,
    };
    if config.labels() == Labels::Findings {
        crate::scoring::summarise(&positives(&summary));
    }
    let drawn = summary.images - summary.already_there;
    let seconds = begin.elapsed().as_secs_f64();
    say(&format!(
        "{} phantoms of {} patients in `{}`: {}",
        summary.images,
        summary.patients,
        args.data.display(),
        match drawn {
            0 => "all were there".to_owned(),
            _ => format!(
                "{drawn} drawn in {seconds:.1} s, {:.1} images/s",
                drawn as f64 / seconds
            ),
        }
    ));
    Ok(ExitCode::SUCCESS)
}

fn of_experiment(source: &ExperimentSource) -> anyhow::Result<PhantomConfig> {
    let settings = (source.read()?.data.phantoms).with_context(|| {
        format!("`{source}` has no [data.phantoms]: it is made on images that exist already")
    })?;
    config(&settings).with_context(|| format!("[data.phantoms] of `{source}`"))
}

pub(crate) fn config(settings: &PhantomSettings) -> Result<PhantomConfig, PhantomError> {
    let PhantomSettings {
        seed,
        train_val,
        test,
        least_positives: [least_train_val, least_test],
        side,
        labels,
    } = *settings;
    let size = |images, least_positives| ListSize {
        images,
        least_positives,
    };
    match labels {
        PhantomLabels::Findings => PhantomConfig::new(
            seed,
            size(train_val, least_train_val),
            size(test, least_test),
        ),
        PhantomLabels::Nuisance => PhantomConfig::of_nuisance(seed, train_val, test),
    }?
    .with_side(side)
}

/// How many images of each list are recorded with each finding.
fn positives(summary: &Summary) -> String {
    let mut text = format!("{:<20} {:>9} {:>6}\n", "finding", "train_val", "test");
    let counts = summary
        .train_val_positives
        .iter()
        .zip(summary.test_positives);
    for (finding, (train_val, test)) in Finding::ALL.iter().zip(counts) {
        text += &format!("{:<20} {train_val:>9} {test:>6}\n", finding.name());
    }
    text
}
