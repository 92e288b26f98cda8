//! `cxr predict`: what a trained model says of anybody's radiographs.

mod inputs;
mod network;
#[cfg(feature = "parquet")]
mod parquet;
mod part;
mod pipeline;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail, ensure};
use cxr_augment::ViewSet;
use cxr_dataset::{ImageAttributes, Tone};
use cxr_model::InputEncoding;

use crate::SOME_FAILED;
use crate::data_folder::{say_passed_over, say_refused};
use crate::device::DeviceArgs;
use crate::explain::wanted_labels;
use crate::hub;
use crate::non_image::{self, Missing, NonImageArg};
use crate::output::ForceArg;
use crate::progress::{Bar, say};
use crate::train::{interrupted, set_threads, stop_flag};

use inputs::Inputs;
use network::{Average, Network, Threshold};
use part::{Joined, Part, Row, Settings, Shard};
use pipeline::{Decoded, Ready};
use table::{Columns, Form, is_failed_table};

/// Predict findings with a trained model: radiographs in, a table of probabilities and decisions out
///
/// Reads PNG, JPEG and DICOM files, folders (to the bottom), ZIP and TAR archives, patterns such as `'scans/*.dcm'`, stores that
/// `cxr prepare` wrote, and, for `-`, a list of paths on standard input. Each image is one row: its name, patient and study
/// where a DICOM file gives them, then `logit_`, `prob_` and `positive_` of each label. A label is positive where its
/// probability is above its threshold, which the model knows and `--threshold` replaces.
///
/// Of a model that `cxr calibrate --reference` has shown usual radiographs, `distance` says how unlike an image is to those,
/// and `unusual` is 1 above a distance of 1: what the model says of it means little.
///
/// What cannot be read or is no frontal chest radiograph is named on standard error and in FILE's neighbour
/// `….failed.csv`; the rest go on, and the exit code is 3. Images are called by their paths below the folder or archive
/// that was named, or, where two would have one name, by their whole paths.
///
/// With `--out`, answers are kept in FILE.part until all are there: after Ctrl-C, a kill or a full disk the same call goes
/// on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A model: a run's folder, a model.safetensors, or hub:OWNER/NAME@REVISION (or without @REVISION), which is fetched once and verified
    #[arg(value_name = "MODEL", required_unless_present = "merge")]
    model: Option<PathBuf>,

    /// Radiographs: files, folders, archives, patterns, stores, or `-` for a list on standard input
    #[arg(value_name = "PATH", required_unless_present = "merge")]
    paths: Vec<PathBuf>,

    /// A further model of the same labels, whose answers are averaged with the first one's; may be repeated
    #[arg(long = "with", value_name = "MODEL")]
    with: Vec<PathBuf>,

    /// What is averaged where there are several models [default: logits, or probabilities where one is calibrated]
    #[arg(long, value_enum, requires = "with")]
    average: Option<Average>,

    /// Where the table goes, in the form of its ending: .csv, .jsonl or .parquet [default: CSV on standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Average the logits over test-time views: `hflip` with the mirror image, `hflip-zoom` with two zooms as well
    #[arg(
        long,
        value_name = "VIEWS",
        default_value = "single",
        hide_default_value = true
    )]
    tta: ViewSet,

    /// From which probability on a label is positive: one number for all, or LABEL=NUMBER, separated by commas
    #[arg(long, value_name = "NUMBER|LABEL=NUMBER", value_delimiter = ',')]
    threshold: Vec<String>,

    /// Write these labels only, in this order, separated by commas
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    labels: Vec<String>,

    #[command(flatten)]
    non_image: NonImageArg,

    /// Stretch the grey levels of the images, as `cxr prepare --stretch` does it; models say by themselves whether they
    /// were trained so, but for those of early versions
    #[arg(long)]
    stretch: bool,

    /// Predict part I of N, every Nth image, into FILE.part-I-of-N; `--merge` joins the parts. In a job array of Slurm,
    /// SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT say which
    #[arg(long, value_name = "I/N", requires = "out", conflicts_with = "merge")]
    shard: Option<Shard>,

    /// Join the parts that `--shard` made into the FILE of `--out`; refused where one is missing or not finished
    #[arg(long, requires = "out", conflicts_with_all = ["model", "paths", "with", "tta", "stretch", "non_image"])]
    merge: bool,

    /// Images at once in the network; changes speed and memory, no result
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch_size: u16,

    #[command(flatten)]
    force: ForceArg,

    #[command(flatten)]
    device: DeviceArgs,

    /// Threads to compute with; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  cxr predict model.safetensors scans/ --out predictions.csv
  cxr predict models/runs/paper/fzlpr-0.2 film.dcm --labels Pneumothorax,Effusion
  cxr predict hub:somebody/chest-network scans/ --out predictions.csv
  cxr predict a.safetensors --with b.safetensors scans.zip --tta hflip --out both.parquet
  find /archive -name '*.dcm' | cxr predict model.safetensors - --out all.jsonl --shard 1/8
  cxr predict --merge --out all.jsonl";

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, count)| {
            let (number, count) = (number.trim().parse().ok()?, count.trim().parse().ok()?);
            (1..=count)
                .contains(&number)
                .then_some(Self { number, count })
        });
        parts.ok_or_else(|| "expected I/N with I from 1 to N, such as 2/8".to_owned())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.merge {
        return merge(args);
    }
    let (Some(model), Some(_)) = (&args.model, args.paths.first()) else {
        bail!("expected a model and radiographs");
    };
    let form = args.out.as_deref().map(Form::of).transpose()?;
    set_threads(args.threads)?;
    let inputs = Inputs::find(&args.paths)?;
    say_passed_over(inputs.passed_over().0, inputs.passed_over().1);
    say_refused(inputs.refused());
    ensure!(inputs.len() > 0, "there is no image to predict");
    let models = std::iter::once(model).chain(&args.with);
    let models = models.map(|model| hub::model(model));
    let models = models.collect::<anyhow::Result<Vec<PathBuf>>>()?;
    let paths = models.iter().map(PathBuf::as_path);
    let network = Network::open(paths, args.tta, args.average, &args.device.open()?)?;
    let tone = match (args.stretch, network.tone()) {
        (true, _) => Tone::Stretched,
        (false, Some(tone)) => tone,
        (false, None) => bail!(
            "one of the models was trained on stretched images, and another was not\nhint: predict with each"
        ),
    };
    check_stores(&inputs, &network, tone)?;
    let asked = network.inputs();
    let names = (0..inputs.len()).map(|at| inputs.name(at));
    let attributes = args.non_image.of_images(&asked, names)?;
    let columns = Columns {
        has_distance: network.has_reference(),
        has_inputs: !asked.is_empty(),
        labels: columns(args, network.labels(), &network.thresholds())?,
    };
    let shard = match args.shard {
        Some(shard) => shard,
        None if args.out.is_some() => shard_of_slurm()?.unwrap_or(Shard::WHOLE),
        None => Shard::WHOLE,
    };
    let mut settings = Settings::new(network.labels().to_vec(), shard);
    for model in &models {
        settings.models.push(cxr_fs::sha256(model)?);
    }
    args.tta.name().clone_into(&mut settings.views);
    network.average().name().clone_into(&mut settings.average);
    settings.thresholds = network.thresholds();
    settings.has_reference = network.has_reference();
    settings.inputs = asked
        .iter()
        .map(|asked| asked.input().to_string())
        .collect();
    settings.non_image = non_image::digest(&attributes);
    settings.stretch = tone == Tone::Stretched;
    settings.n_images = inputs.len();
    settings.images = inputs.digest();
    let work = Work {
        inputs: &inputs,
        network: &network,
        asked: &asked,
        attributes: &attributes,
        shard,
        tone,
        args,
    };
    match (&args.out, form) {
        (Some(out), Some(form)) => work.to_file(out, form, &columns, &settings, &models),
        _ => work.to_output(&columns),
    }
}

/// Which part of a job array this process is.
///
/// # Errors
/// An array whose tasks are not numbered one after the other.
fn shard_of_slurm() -> anyhow::Result<Option<Shard>> {
    let number = |name: &str| {
        let text = std::env::var(name).ok();
        text.map(|text| {
            text.parse::<usize>()
                .with_context(|| format!("`{name}` is `{text}`"))
        })
        .transpose()
    };
    let (Some(id), Some(count)) = (
        number("SLURM_ARRAY_TASK_ID")?,
        number("SLURM_ARRAY_TASK_COUNT")?,
    ) else {
        return Ok(None);
    };
    let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
    let place = id.checked_sub(first).filter(|&place| place < count);
    let place = place.with_context(|| {
        format!("the tasks of this Slurm array are not {count} numbers one after the other\nhint: say `--shard I/N`")
    })?;
    let shard = Shard {
        number: place + 1,
        count,
    };
    say(&format!(
        "task {id} of Slurm's array: part {} of {count}",
        shard.number
    ));
    Ok(Some(shard))
}

/// Images of a store have the size and tone that they were prepared in.
fn check_stores(inputs: &Inputs, network: &Network, tone: Tone) -> anyhow::Result<()> {
    for store in inputs.stores() {
        let sizes = network.image_sizes();
        if sizes.iter().any(|&size| size != store.side()) {
            let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            bail!(
                "the images of `{}` are {1}×{1} pixels, and the model wants {2}\nhint: give the image files instead",
                store.path().display(),
                store.side(),
                sizes.join(" and ")
            );
        }
        if store.settings().tone() != tone {
            let (is, flag) = match tone {
                Tone::AsStored => ("stretched", "with"),
                _ => ("not stretched", "without"),
            };
            bail!(
                "the images of `{}` are {is}\nhint: call this {flag} `--stretch` if the model was trained so",
                store.path().display()
            );
        }
    }
    Ok(())
}

/// The labels to write, by their positions, with their thresholds.
fn columns(
    args: &Args,
    labels: &[String],
    thresholds: &[Threshold],
) -> anyhow::Result<Vec<(usize, String, Threshold)>> {
    let positions = match args.labels.as_slice() {
        [] => (0..labels.len()).collect(),
        wanted => wanted_labels(wanted, labels)?,
    };
    let mut thresholds = thresholds.to_vec();
    for text in &args.threshold {
        let (label, number) = match text.rsplit_once('=') {
            Some((label, number)) => (Some(label.trim()), number),
            None => (None, text.as_str()),
        };
        let number: f64 = number
            .trim()
            .parse()
            .ok()
            .filter(|n| (0. ..=1.).contains(n))
            .with_context(|| {
                format!(
                    "`--threshold {text}`: expected a probability from 0 to 1, or LABEL=PROBABILITY"
                )
            })?;
        let number = Threshold {
            logit: None,
            probability: number,
        };
        match label {
            None => thresholds.fill(number),
            Some(label) => {
                let at = labels.iter().position(|known| known == label);
                let at = at.with_context(|| {
                    format!(
                        "the model has no label `{label}`\nhint: it has {}",
                        labels.join(", ")
                    )
                })?;
                if let Some(threshold) = thresholds.get_mut(at) {
                    *threshold = number;
                }
            }
        }
    }
    let column = |at: usize| Some((at, labels.get(at)?.clone(), *thresholds.get(at)?));
    Ok(positions.into_iter().filter_map(column).collect())
}

/// What is to be done, from images to rows.
struct Work<'a> {
    inputs: &'a Inputs,
    network: &'a Network,
    /// What the models ask for beside the images.
    asked: &'a [InputEncoding],
    /// What a table says of that, by the images' places; empty without a table.
    attributes: &'a [ImageAttributes],
    shard: Shard,
    tone: Tone,
    args: &'a Args,
}

impl Work<'_> {
    /// Answers go to a part as they come, and then into the table.
    fn to_file(
        &self,
        out: &Path,
        form: Form,
        columns: &Columns,
        settings: &Settings,
        models: &[PathBuf],
    ) -> anyhow::Result<ExitCode> {
        let failed_path = failed_path(out);
        for (path, is_ours) in [
            (out, &Form::is_ours as &dyn Fn(&[u8]) -> bool),
            (failed_path.as_path(), &is_failed_table),
        ] {
            let output = self.args.force.output(path).inputs(models);
            output.inputs(self.inputs.files()).ours(is_ours).check()?;
        }
        let stop = stop_flag()?;
        let path = self.shard.path(out);
        let mut part = Part::open(&path, settings)?;
        if part.n_done() > 0 && !part.is_finished() {
            say(&format!(
                "`{}` has {} of {} images; going on",
                path.display(),
                part.n_done(),
                self.shard.share(self.inputs.len())
            ));
        }
        let n_done = part.n_done();
        if !part.is_finished() && !self.predict(n_done, &stop, &mut |rows| part.push(&rows))? {
            return Ok(interrupted());
        }
        part.finish()?;
        if self.shard.count > 1 {
            let n_failed = count_failed(&path)?;
            say(&format!(
                "part {} of {} is finished: {} answers, {n_failed} failures\nwhen all are, `cxr predict --merge --out {}` joins them",
                self.shard.number,
                self.shard.count,
                part.n_done() - n_failed,
                out.display()
            ));
            return Ok(self.exit_code(n_failed));
        }
        let (mut joined, _) = Joined::open(std::slice::from_ref(&path))?;
        let (n_rows, n_failed) = write_counted(form, out, &failed_path, columns, &mut joined)?;
        drop(part);
        std::fs::remove_file(&path)
            .with_context(|| format!("cannot delete `{}`", path.display()))?;
        say_written(out, &failed_path, n_rows, n_failed);
        Ok(self.exit_code(n_failed))
    }

    /// Answers go to standard output as they come.
    fn to_output(&self, columns: &Columns) -> anyhow::Result<ExitCode> {
        let stop = stop_flag()?;
        cxr_terminal::print(&columns.header())?;
        let mut n_failed = 0;
        let mut missing = Missing::default();
        let finished = self.predict(0, &stop, &mut |rows| {
            let mut text = String::new();
            for row in rows {
                match &row.failed {
                    Some(_) => n_failed += 1,
                    None => {
                        missing.add(&row.missing);
                        text += &columns.line(&row)?;
                    }
                }
            }
            Ok(cxr_terminal::print(&text)?)
        })?;
        missing.say();
        if !finished {
            say("interrupted; the rest of the images have no answer");
            return Ok(ExitCode::from(cxr_terminal::INTERRUPTED));
        }
        Ok(self.exit_code(n_failed))
    }

    fn exit_code(&self, n_failed: usize) -> ExitCode {
        match n_failed + self.inputs.refused().len() {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(SOME_FAILED),
        }
    }

    /// Hands over rows in the images' order, from the image on that is number `first` of this part; `false` where it was
    /// stopped before the end.
    fn predict(
        &self,
        first: usize,
        stop: &AtomicBool,
        push: &mut dyn FnMut(Vec<Row>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let batch_size = usize::from(self.args.batch_size);
        let (inputs, shard) = (self.inputs, self.shard);
        let begin = shard.number - 1 + first * shard.count;
        let settings = pipeline::Settings {
            network: self.network,
            tone: self.tone,
            attributes: self.attributes,
            n_threads: rayon::current_num_threads(),
            depth: 2 * batch_size,
        };
        let total = shard.share(inputs.len());
        let bar = Bar::with_done("predicting", "images", total, first);
        let outcome = std::thread::scope(|scope| -> anyhow::Result<bool> {
            let is_wanted = move |at: usize| at >= begin && shard.has(at);
            let images = pipeline::start(scope, inputs, is_wanted, settings)
                .context("cannot start a thread")?;
            let mut batch: Vec<Ready> = Vec::with_capacity(batch_size);
            let mut n_done = first;
            let mut images = images.peekable();
            while let Some(image) = images.next() {
                batch.push(image);
                if batch.len() < batch_size && images.peek().is_some() {
                    continue;
                }
                if stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                n_done += batch.len();
                push(self.answer(std::mem::take(&mut batch))?)?;
                bar.set(n_done);
            }
            ensure!(
                n_done == total,
                "expected {total} images, got {n_done}: a thread has died"
            );
            Ok(true)
        });
        bar.finish();
        outcome
    }

    fn answer(&self, batch: Vec<Ready>) -> anyhow::Result<Vec<Row>> {
        let sized = batch
            .iter()
            .filter_map(|ready| Some(&ready.outcome.as_ref().ok()?.sized));
        let sized: Vec<_> = sized.collect();
        let mut answers = match sized.is_empty() {
            true => Vec::new(),
            false => self.network.answers(&sized)?,
        }
        .into_iter();
        let mut rows = Vec::with_capacity(batch.len());
        for Ready { at, outcome } in batch {
            let image = self.inputs.name(at).to_owned();
            let mut row = Row {
                at,
                image,
                patient: None,
                study: None,
                logits: Vec::new(),
                probabilities: Vec::new(),
                distance: None,
                missing: Vec::new(),
                failed: None,
            };
            match outcome {
                Err(reason) => {
                    say(&format!("`{}`: {reason}", row.image));
                    row.failed = Some(reason);
                }
                Ok(Decoded {
                    sized,
                    patient,
                    study,
                    warnings,
                }) => {
                    for warning in warnings {
                        say(&format!("warning: `{}`: {warning}", row.image));
                    }
                    let answer = answers.next().context("an image has no answer")?;
                    (row.patient, row.study) = (patient, study);
                    row.logits = answer.logits;
                    row.probabilities = answer.probabilities;
                    row.distance = answer.distance;
                    row.missing = non_image::missing(self.asked, &sized.attributes());
                }
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

/// The features of the images of `paths`, at most so many, evenly chosen, and the reasons for those that have none;
/// `None` where it was stopped.
pub(crate) fn features(
    model: &Path,
    paths: &[PathBuf],
    most: usize,
    device: &candle_core::Device,
    stop: &AtomicBool,
) -> anyhow::Result<Option<Vec<Vec<f32>>>> {
    const BATCH: usize = 8;
    let inputs = Inputs::find(paths)?;
    say_passed_over(inputs.passed_over().0, inputs.passed_over().1);
    say_refused(inputs.refused());
    let network = Network::open([model], ViewSet::Single, None, device)?;
    let tone = network.tone().unwrap_or_default();
    check_stores(&inputs, &network, tone)?;
    let n_images = inputs.len().min(most);
    let chosen: std::collections::HashSet<usize> = (0..n_images)
        .map(|at| at * inputs.len() / n_images)
        .collect();
    let settings = pipeline::Settings {
        network: &network,
        tone,
        attributes: &[],
        n_threads: rayon::current_num_threads(),
        depth: 2 * BATCH,
    };
    let bar = Bar::new("looking at", "images", n_images);
    let features = std::thread::scope(|scope| -> anyhow::Result<Option<Vec<Vec<f32>>>> {
        let is_wanted = |at: usize| chosen.contains(&at);
        let mut images = pipeline::start(scope, &inputs, is_wanted, settings)
            .context("cannot start a thread")?
            .peekable();
        let (mut features, mut batch) = (Vec::with_capacity(n_images), Vec::new());
        let mut n_done = 0;
        while let Some(Ready { at, outcome }) = images.next() {
            n_done += 1;
            match outcome {
                Ok(decoded) => batch.push(decoded.sized),
                Err(reason) => say(&format!("`{}`: {reason}", inputs.name(at))),
            }
            if batch.len() == BATCH || images.peek().is_none() {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                features.extend(network.features(&batch.iter().collect::<Vec<_>>())?);
                batch.clear();
                bar.set(n_done);
            }
        }
        ensure!(n_done == n_images, "a thread has died");
        Ok(Some(features))
    });
    bar.finish();
    features
}

/// Joins the parts of a file.
fn merge(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(out) = args.out.as_deref() else {
        bail!("expected `--out`, the file whose parts are to be joined");
    };
    let form = Form::of(out)?;
    let paths = parts_of(out)?;
    ensure!(
        !paths.is_empty(),
        "`{}` has no parts beside it\nhint: `cxr predict … --out {0} --shard I/N` makes them",
        out.display()
    );
    let failed_path = failed_path(out);
    for (path, is_ours) in [
        (out, &Form::is_ours as &dyn Fn(&[u8]) -> bool),
        (failed_path.as_path(), &is_failed_table),
    ] {
        args.force
            .output(path)
            .inputs(&paths)
            .ours(is_ours)
            .check()?;
    }
    let (mut joined, settings) = Joined::open(&paths)?;
    let columns = Columns {
        has_distance: settings.has_reference,
        has_inputs: !settings.inputs.is_empty(),
        labels: columns(args, &settings.labels, &settings.thresholds)?,
    };
    let (n_rows, n_failed) = write_counted(form, out, &failed_path, &columns, &mut joined)?;
    say_written(out, &failed_path, n_rows, n_failed);
    say(&format!("its {} parts are no longer needed", paths.len()));
    Ok(match n_failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(SOME_FAILED),
    })
}

/// Writes the table of all rows, and warns of what is not known of images.
fn write_counted(
    form: Form,
    out: &Path,
    failed_path: &Path,
    columns: &Columns,
    joined: &mut Joined,
) -> anyhow::Result<(usize, usize)> {
    let mut missing = Missing::default();
    let written = table::write(form, out, failed_path, columns, || {
        let row = joined.next()?;
        if let Some(row) = row.as_ref().filter(|row| row.failed.is_none()) {
            missing.add(&row.missing);
        }
        Ok(row)
    })?;
    missing.say();
    Ok(written)
}

/// The parts beside a file.
fn parts_of(out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = || format!("cannot read the folder `{}`", folder.display());
    let start = format!(
        "{}.part-",
        out.file_name().unwrap_or_default().to_string_lossy()
    );
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&start) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn count_failed(path: &Path) -> anyhow::Result<usize> {
    let mut n_failed = 0;
    if let Some((mut reader, _)) = part::Reader::open(path)? {
        while let Some(line) = reader.next()? {
            n_failed += usize::from(matches!(line, part::Line::Row(row) if row.failed.is_some()));
        }
    }
    Ok(n_failed)
}

/// Where the table of what has no answer goes.
fn failed_path(out: &Path) -> PathBuf {
    out.with_extension("failed.csv")
}

fn say_written(out: &Path, failed_path: &Path, n_rows: usize, n_failed: usize) {
    say(&format!("{n_rows} images in `{}`", out.display()));
    if n_failed > 0 {
        say(&format!(
            "{n_failed} have no answer: `{}` says why",
            failed_path.display()
        ));
    }
}
