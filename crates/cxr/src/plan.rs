//! `cxr plan`: what an experiment will take, measured and reckoned before anything starts.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use candle_core::Device;
use cxr_augment::Augmentation;
use cxr_dataset::{
    ImageName, Part, PrepareOptions, StoreSettings, Survey, TEST_LIST, prepare, read_boxes,
};
use cxr_phantom::{Cohort, Finding, Labels, List, ListSize, PhantomConfig, write_dataset};
use cxr_train::{Experiment, Rehearsal, VariantExperiment, rehearse};
use serde::Serialize;

use crate::data_folder::{DataArgs, image_files};
use crate::device::DeviceArgs;
use crate::experiments::ExperimentSource;
use crate::progress::say;
use crate::train::set_threads;

/// Estimate the time, memory and disk of an experiment
///
/// It measures for some seconds: training steps of each stage and predictions with the experiment's own
/// network and loss, and the preparing (and, of an experiment on phantoms, the drawing) of a few images;
/// and multiplies by images, epochs and views. Nothing of it is kept.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An experiment that comes with the program, or a path that ends in .toml
    #[arg(long, value_name = "EXPERIMENT")]
    experiment: ExperimentSource,

    /// The data set, as of `cxr train`; without it the numbers of images are those of the experiment's
    /// phantoms, or of the complete ChestX-ray14
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Where label table and lists are, if not in DIR
    #[arg(long, value_name = "DIR", requires = "data")]
    metadata: Option<PathBuf>,

    /// Go on with the listed images that are there
    #[arg(long, requires = "data")]
    allow_missing: bool,

    /// Print it as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    device: DeviceArgs,

    /// Threads to measure with [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

/// Images of the parts of ChestX-ray14, the official lists with a tenth taken out for validation.
const CHEST_X_RAY14: [usize; 3] = [77_872, 8_652, 25_596];
/// Rows of its list of boxes.
const CHEST_X_RAY14_BOXES: usize = 984;
/// Images that are drawn and prepared to see how fast that goes.
const TRIED: usize = 16;
/// For each of the rates.
const BUDGET: Duration = Duration::from_millis(500);
/// A rate is measured on at most so many images at once, as the step must be short.
const BUDGET_OF_A_STEP: Duration = Duration::from_millis(400);
/// Views of a test image, and those of the network before each stage.
const VIEWS: usize = 4;
/// A logit with its comma in a table of predictions, in bytes.
const BYTES_OF_A_LOGIT: usize = 12;
const SETS_OF_VIEWS: usize = 3;
/// Seconds that metrics take for each image, label and table of predictions.
const SCORING: f64 = 2.2e-5;

/// What it will take. Seconds, and bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    pub(crate) images: Images,
    pub(crate) phantoms: Option<Cost>,
    pub(crate) prepare: Cost,
    /// Of a backbone that is described.
    pub(crate) network: Option<NetworkCost>,
    /// Each run.
    pub(crate) stages: Vec<StageCost>,
    pub(crate) predict_seconds: f64,
    pub(crate) run_bytes: f64,
    /// The most memory of a run; `None` where the system does not tell.
    pub(crate) run_memory: Option<f64>,
    pub(crate) explain_seconds: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Images {
    pub(crate) train: usize,
    pub(crate) validation: usize,
    pub(crate) test: usize,
    pub(crate) boxes: usize,
    /// Where these numbers are from.
    pub(crate) from: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) bytes: f64,
}

/// What a backbone costs, counted from its description.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkCost {
    pub(crate) name: String,
    /// Multiplications with an addition, of an image's forward pass; a backward pass has twice as many.
    pub(crate) multiply_adds: u64,
    /// Values, running statistics included.
    pub(crate) parameters: u64,
    /// What training keeps of a batch from the forward to the backward pass.
    pub(crate) kept_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct StageCost {
    pub(crate) name: String,
    pub(crate) seconds: f64,
    pub(crate) images_per_second: f64,
}

/// The data set that a plan is for; without a folder it is reckoned from the experiment.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) folder: Option<PathBuf>,
    pub(crate) metadata: Option<PathBuf>,
    pub(crate) allow_missing: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    set_threads(args.threads)?;
    let data = Data {
        folder: args.data.clone(),
        metadata: args.metadata.clone(),
        allow_missing: args.allow_missing,
    };
    let mut measured = Measured::default();
    let plan = estimate(
        &args.experiment.read()?,
        data,
        &args.device.open()?,
        &mut measured,
    )?;
    if args.json {
        crate::scoring::print(&(serde_json::to_string_pretty(&plan)? + "\n"))?;
    } else {
        print(&plan)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was measured before, by all of an experiment that decides how long its steps take: variants that share a network are
/// measured once. How a loss, an optimiser or a number of epochs changes a step is too little to measure.
#[derive(Default)]
pub(crate) struct Measured(Vec<(Experiment, Rehearsal, Option<f64>)>);

impl Measured {
    fn of(
        &mut self,
        variant: &VariantExperiment,
        n_labels: usize,
        device: &Device,
    ) -> anyhow::Result<(Rehearsal, Option<f64>)> {
        let experiment = variant.experiment();
        let is_alike = |(other, ..): &&(Experiment, Rehearsal, Option<f64>)| {
            let (a, b) = (&experiment.training, &other.training);
            let is_alike = |(a, b): (&cxr_train::Stage, &cxr_train::Stage)| {
                a.frozen == b.frozen && a.norm_statistics == b.norm_statistics
            };
            experiment.model == other.model
                && experiment.augmentation.crop_size() == other.augmentation.crop_size()
                && (a.batch_size, a.precision) == (b.batch_size, b.precision)
                && a.ema_decay.is_some() == b.ema_decay.is_some()
                && a.stages.len() == b.stages.len()
                && a.stages.iter().zip(&b.stages).all(is_alike)
        };
        if let Some((_, rehearsal, memory)) = self.0.iter().find(is_alike) {
            return Ok((rehearsal.clone(), *memory));
        }
        let (rehearsal, memory) = match smaller(variant)? {
            Some(small) => small.measure(n_labels, device)?,
            None => measure(variant, n_labels, device)?,
        };
        (self.0).push((experiment.clone(), rehearsal.clone(), memory));
        Ok((rehearsal, memory))
    }
}

/// The same network on smaller images, which a step takes seconds for where large ones take minutes.
struct Smaller {
    variant: VariantExperiment,
    /// How many times as long the images that are wanted take, by the products of the backbone.
    times: f64,
    /// What training keeps more of each of them, in bytes.
    bytes: f64,
}

/// Images that are measured as they are.
const LARGEST_SIDE: usize = 256;
/// Where larger ones are measured.
const SMALLER_SIDE: usize = 224;

/// `None` for images of a usual size, and for a network of which it is not known what it costs at another size.
fn smaller(variant: &VariantExperiment) -> anyhow::Result<Option<Smaller>> {
    let experiment = variant.experiment();
    let side = experiment.augmentation.crop_size();
    let backbone = cxr_model::backbone(&experiment.model.backbone)?;
    let Some(description) = backbone.description().filter(|_| side > LARGEST_SIDE) else {
        return Ok(None);
    };
    let (large, small) = (
        description.cost(side, side)?,
        description.cost(SMALLER_SIDE, SMALLER_SIDE)?,
    );
    let augmentation = Augmentation::new(0., 0., SMALLER_SIDE, SMALLER_SIDE)?;
    let experiment = Experiment {
        augmentation,
        ..experiment.clone()
    };
    Ok(Some(Smaller {
        variant: experiment.variant(&variant.chosen().name)?,
        times: large.multiply_adds as f64 / small.multiply_adds.max(1) as f64,
        bytes: large.training_bytes as f64 - small.training_bytes as f64,
    }))
}

impl Smaller {
    fn measure(
        &self,
        n_labels: usize,
        device: &Device,
    ) -> anyhow::Result<(Rehearsal, Option<f64>)> {
        let (mut rehearsal, memory) = measure(&self.variant, n_labels, device)?;
        for rate in rehearsal
            .training
            .iter_mut()
            .chain([&mut rehearsal.predicting])
        {
            *rate /= self.times;
        }
        let batch = self.variant.experiment().training.batch_size;
        Ok((
            rehearsal,
            memory.map(|memory| memory + self.bytes * batch as f64),
        ))
    }
}

/// Measures for some seconds, and multiplies.
pub(crate) fn estimate(
    experiment: &Experiment,
    data: Data,
    device: &Device,
    measured: &mut Measured,
) -> anyhow::Result<Plan> {
    // A plan of phantoms that are not written yet does without them.
    let folder = (data.folder)
        .filter(|data| experiment.data.phantoms.is_none() || data.join(TEST_LIST).is_file());
    let data = folder.map(|folder| DataArgs {
        data: folder,
        metadata: data.metadata,
        store: None,
        allow_missing: data.allow_missing,
    });
    let data = data.as_ref();
    let survey = data.map(|args| args.survey(experiment)).transpose()?;
    let phantoms = (experiment.data.phantoms.as_ref())
        .map(crate::phantoms::config)
        .transpose()?;
    let images = images(experiment, survey.as_ref(), data, phantoms.as_ref())?;
    let n_labels = match (&survey, &phantoms) {
        (Some(survey), _) => survey.index.label_set().len(),
        (None, Some(config)) if config.labels() == Labels::Nuisance => {
            cxr_phantom::NUISANCE_QUESTIONS.len()
        }
        (None, _) => Finding::COUNT,
    };
    let side = u32::try_from(experiment.augmentation.image_size())?;
    let settings = StoreSettings::new(side)?;
    let (drawing, preparing) = try_images(survey.as_ref(), phantoms.as_ref(), settings)?;

    let Some(first) = experiment.variants.first() else {
        anyhow::bail!("experiment `{}` has no variant", experiment.name);
    };
    let variant = experiment.variant(&first.name)?;
    let (rehearsal, run_memory) = measured.of(&variant, n_labels, device)?;
    let n_images = (images.train + images.validation + images.test) as f64;
    Ok(Plan {
        phantoms: drawing.map(|drawn| Cost {
            seconds: n_images * drawn.seconds,
            bytes: n_images * drawn.bytes,
        }),
        prepare: Cost {
            seconds: preparing.map_or(0., |rate| n_images * rate.seconds),
            bytes: preparing.map_or(0., |rate| n_images * rate.bytes),
        },
        network: network_cost(experiment)?,
        stages: stages(experiment, &rehearsal, &images),
        predict_seconds: predicting(experiment, &rehearsal, &images) + scoring(&images, n_labels),
        run_bytes: run_bytes(experiment, &rehearsal, &images, n_labels),
        run_memory,
        // One image at a time, forward and back.
        explain_seconds: images.boxes as f64 * 3. / rehearsal.predicting,
        images,
    })
}

/// What a batch of the experiment costs.
fn network_cost(experiment: &Experiment) -> anyhow::Result<Option<NetworkCost>> {
    let backbone = cxr_model::backbone(&experiment.model.backbone)?;
    let side = experiment.augmentation.crop_size();
    let Some(description) = backbone.description() else {
        return Ok(None);
    };
    let cost = description.cost(side, side)?;
    Ok(Some(NetworkCost {
        name: backbone.to_string(),
        multiply_adds: cost.multiply_adds,
        parameters: cost.parameters,
        kept_bytes: cost.training_bytes * experiment.training.batch_size as u64,
    }))
}

fn images(
    experiment: &Experiment,
    survey: Option<&Survey>,
    data: Option<&DataArgs>,
    phantoms: Option<&PhantomConfig>,
) -> anyhow::Result<Images> {
    if let (Some(survey), Some(data)) = (survey, data) {
        let of = |part| survey.split.part(part).len();
        let boxes = match data.folder().box_list()? {
            Some(path) => {
                let test = survey.split.part(Part::Test);
                let test: std::collections::HashSet<&ImageName> = test.iter().collect();
                let listed = read_boxes(&path)?;
                listed.iter().filter(|b| test.contains(&b.name)).count()
            }
            None => 0,
        };
        return Ok(Images {
            train: of(Part::Train),
            validation: of(Part::Validation),
            test: of(Part::Test),
            boxes,
            from: format!("the lists, of the images in `{}`", data.data.display()),
        });
    }
    if let Some(config) = phantoms {
        let [train_val, test] = [List::TrainVal, List::Test].map(|list| config.list(list).images);
        let boxed = Finding::ALL.iter().map(|finding| finding.box_name());
        let positives = Cohort::plan(config).positives(List::Test);
        let of_boxed = positives
            .iter()
            .zip(boxed)
            .filter(|(_, name)| name.is_some());
        return Ok(Images {
            train: train_val - train_val / 10,
            validation: train_val / 10,
            test,
            boxes: match config.labels() {
                Labels::Findings => of_boxed.map(|(positives, _)| positives).sum(),
                Labels::Nuisance => 0,
            },
            from: "the experiment's [data.phantoms]".to_owned(),
        });
    }
    if !experiment.data.subset.is_everything() {
        say("of all images: without `--data` the subset is not known");
    }
    let [train, validation, test] = CHEST_X_RAY14;
    Ok(Images {
        train,
        validation,
        test,
        boxes: CHEST_X_RAY14_BOXES,
        from: "the complete ChestX-ray14, as no `--data` was named".to_owned(),
    })
}

/// Seconds and bytes for one image.
#[derive(Debug, Clone, Copy)]
struct PerImage {
    seconds: f64,
    bytes: f64,
}

/// Draws some phantoms where the experiment is made on such, and prepares them or some of the images at
/// hand. `None` for what is there already, or cannot be tried.
fn try_images(
    survey: Option<&Survey>,
    phantoms: Option<&PhantomConfig>,
    settings: StoreSettings,
) -> anyhow::Result<(Option<PerImage>, Option<PerImage>)> {
    let folder = tempfile::tempdir().context("cannot make a folder for a trial")?;
    let mut drawing = None;
    let files: Vec<(ImageName, PathBuf)> = match (survey, phantoms) {
        (Some(survey), _) => {
            let all = survey.sources();
            let step = (all.len() / TRIED).max(1);
            all.into_iter().step_by(step).take(TRIED).collect()
        }
        (None, Some(config)) => {
            let some = trial(config)?;
            let begin = Instant::now();
            let place = folder.path().join("phantoms");
            write_dataset(&some, &place, &|_| (), &AtomicBool::new(false))?;
            let seconds = begin.elapsed().as_secs_f64() / TRIED as f64;
            let files = image_files(&place)?.name_all(&[])?.files;
            let sizes = files.iter().map(|(_, path)| std::fs::metadata(path));
            let bytes: u64 = sizes
                .map(|facts| Ok(facts?.len()))
                .sum::<std::io::Result<u64>>()?;
            drawing = Some(PerImage {
                seconds,
                bytes: bytes as f64 / TRIED as f64,
            });
            files
        }
        (None, None) => Vec::new(),
    };
    if files.is_empty() {
        return Ok((drawing, None));
    }
    let begin = Instant::now();
    let target = folder.path().join("trial.store");
    let store = prepare(&files, &target, settings, PrepareOptions::default())?.commit()?;
    let seconds = begin.elapsed().as_secs_f64() / files.len() as f64;
    let bytes = std::fs::metadata(store.path())?.len() as f64 / files.len() as f64;
    Ok((drawing, Some(PerImage { seconds, bytes })))
}

/// A few phantoms of the kind.
fn trial(config: &PhantomConfig) -> anyhow::Result<PhantomConfig> {
    let (train_val, test) = (TRIED - 1, 1);
    let size = |images| ListSize {
        images,
        least_positives: 0,
    };
    let few = match config.labels() {
        Labels::Findings => PhantomConfig::new(config.seed(), size(train_val), size(test)),
        Labels::Nuisance => PhantomConfig::of_nuisance(config.seed(), train_val, test),
    }?;
    Ok(few.with_side(config.side())?)
}

/// Rates, and the memory of a training step at the experiment's batch size. Steps grow until one takes
/// long enough or is as large as the experiment's; what is missing of its size is added in proportion
/// to what the last doubling took.
fn measure(
    variant: &VariantExperiment,
    n_labels: usize,
    device: &Device,
) -> anyhow::Result<(Rehearsal, Option<f64>)> {
    let wanted = variant.experiment().training.batch_size;
    let mut batch = wanted.min(2);
    let mut marks: Vec<(usize, f64)> = Vec::new();
    forget_high_water();
    let rehearsal = loop {
        let begin = Instant::now();
        let quick = rehearse(variant, n_labels, batch, Duration::ZERO, device)?;
        marks.extend(high_water(device)?.map(|bytes| (batch, bytes)));
        let n_steps = 2 * (quick.training.len() + 1);
        let took = begin.elapsed();
        if batch == wanted || took > BUDGET_OF_A_STEP * n_steps as u32 && marks.len() != 1 {
            // One step that takes longer than the budget is as good as several.
            break match took > BUDGET * n_steps as u32 {
                true => quick,
                false => rehearse(variant, n_labels, batch, BUDGET, device)?,
            };
        }
        batch = wanted.min(2 * batch);
    };
    let memory = match marks[..] {
        [.., (_, _), (last, high)] if last == wanted => Some(high),
        [.., (before, low), (last, high)] if last > before => {
            let per_image = (high - low) / (last - before) as f64;
            Some(high + per_image * (wanted - last) as f64)
        }
        [(last, high)] if last == wanted => Some(high),
        _ => None,
    };
    Ok((rehearsal, memory))
}

/// The largest memory in use so far, in bytes: a GPU's own, or the process's, which Linux tells.
fn high_water(device: &Device) -> anyhow::Result<Option<f64>> {
    if device.is_cuda() {
        return Ok(cxr_train::cuda_memory_peak(device)?.map(|bytes| bytes as f64));
    }
    Ok(resident_high_water())
}

/// Linux counts the largest memory from here on again, so that a network that was measured before has no part in it. Where it
/// does not, the estimate is too high.
fn forget_high_water() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn resident_high_water() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024.)
}

/// Training with the validation after each epoch.
fn stages(experiment: &Experiment, rehearsal: &Rehearsal, images: &Images) -> Vec<StageCost> {
    let stages = experiment.training.stages.iter().zip(&rehearsal.training);
    let validation = images.validation as f64 / rehearsal.predicting;
    stages
        .map(|(stage, &rate)| StageCost {
            name: stage.name.clone(),
            seconds: stage.epochs as f64 * (images.train as f64 / rate + validation),
            images_per_second: rate,
        })
        .collect()
}

/// All views of both parts with the final network, and one view with that before each stage.
fn predicting(experiment: &Experiment, rehearsal: &Rehearsal, images: &Images) -> f64 {
    let passes = VIEWS + experiment.training.stages.len();
    (passes * (images.validation + images.test)) as f64 / rehearsal.predicting
}

fn scoring(images: &Images, n_labels: usize) -> f64 {
    let tables = SETS_OF_VIEWS * (images.validation + images.test);
    (tables * n_labels) as f64 * SCORING
}

/// The model, the networks before each stage, the latest and the best checkpoint, the latest once more while it
/// is replaced, the predictions.
fn run_bytes(
    experiment: &Experiment,
    rehearsal: &Rehearsal,
    images: &Images,
    n_labels: usize,
) -> f64 {
    let averages = usize::from(experiment.training.ema_decay.is_some());
    let networks = experiment.training.stages.len() + 2 + 2 * (1 + averages);
    let networks = rehearsal.values * networks;
    let moments = 4 * rehearsal.trained.iter().max().copied().unwrap_or(0);
    let rows = SETS_OF_VIEWS * (images.validation + images.test);
    let predictions = rows * n_labels * BYTES_OF_A_LOGIT;
    (4 * (networks + moments) + predictions) as f64
}

fn print(plan: &Plan) -> anyhow::Result<()> {
    let images = &plan.images;
    let mut text = format!(
        "images: {} training, {} validation, {} test, by {}\n",
        images.train, images.validation, images.test, images.from
    );
    let mib = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
    if let Some(cost) = &plan.phantoms {
        text += &format!(
            "drawing: {:.0} s, {} of disk\n",
            cost.seconds,
            mib(cost.bytes)
        );
    }
    text += &format!(
        "preparing: {:.0} s, {} of disk\n",
        plan.prepare.seconds,
        mib(plan.prepare.bytes)
    );
    if let Some(cost) = &plan.network {
        text += &format!(
            "{}: {:.2} billion products an image, {:.1} million values; a training step keeps {}\n",
            cost.name,
            cost.multiply_adds as f64 / 1e9,
            cost.parameters as f64 / 1e6,
            mib(cost.kept_bytes as f64)
        );
    }
    text += &format!(
        "each run: {} of disk, {} of memory\n",
        mib(plan.run_bytes),
        plan.run_memory.map_or("unknown".to_owned(), mib)
    );
    for stage in &plan.stages {
        text += &format!(
            "  {}: {:.0} s, {:.1} images/s\n",
            stage.name, stage.seconds, stage.images_per_second
        );
    }
    text += &format!("  predicting: {:.0} s\n", plan.predict_seconds);
    text += &format!("explaining: {:.0} s\n", plan.explain_seconds);
    crate::scoring::print(&text)
}
