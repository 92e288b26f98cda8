//! Whole trainings on phantoms: how long the paper's would take, and whether a GPU ends where the CPU does.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use cxr_augment::ViewSet;
use cxr_dataset::Part;
use cxr_ops::{Precision, cuda_memory_peak};
use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use cxr_train::{
    Event, Experiment, Observer, RunFolder, TrainOutcome, Trainer, TrainingData, predict,
};
use serde::Serialize;

use super::{Result, phantoms};

const SIDE: u32 = 256;

/// Phantoms in a folder, prepared; a tenth of `images` validates.
pub(super) fn data(folder: &Path, images: usize, test: usize) -> Result<TrainingData> {
    let size = |images| ListSize {
        images,
        least_positives: (images / 60).min(30),
    };
    let config = PhantomConfig::new(1, size(images), size(test))?.with_side(2 * SIDE as usize)?;
    write_dataset(&config, folder, &|_| (), &AtomicBool::new(false))?;
    phantoms::prepared(folder, SIDE, 0)
}

/// The paper's training: stages, and epochs of each, which `run` replaces.
const PAPER: [(&str, usize); 2] = [("top network", 5), ("all layers", 20)];
const PAPER_TRAINING_IMAGES: usize = 77_872;
const PAPER_VALIDATION_IMAGES: usize = 8_652;
const PAPER_BATCH: usize = 64;

fn paper(precision: Precision, epochs: [usize; 2]) -> String {
    let [(top, _), (all, _)] = PAPER;
    let [top_epochs, all_epochs] = epochs;
    let precision = precision.name();
    format!(
        r#"
name = "course"
[data]
validation = "paper"
[augmentation]
flip_probability = 0.5
max_rotation = 0.4
image_size = 256
crop_size = 224
[training]
batch_size = {PAPER_BATCH}
precision = "{precision}"
[[training.stages]]
name = "{top}"
epochs = {top_epochs}
frozen = ["features."]
schedule = {{ constant = {{ learning_rate = 1e-3 }} }}
[[training.stages]]
name = "{all}"
epochs = {all_epochs}
schedule = {{ cosine = {{ learning_rate = 1e-5, min_learning_rate = 1e-7 }} }}
[[variants]]
name = "fzlpr-0.2"
loss = "fzlpr"
tau = 0.2
"#
    )
}

/// When what was seen in a stage.
#[derive(Debug, Default, Clone, Copy)]
struct StageSeen {
    steps: usize,
    seconds: f64,
    /// Of validation and what else is done once in an epoch.
    epochs: usize,
    between: f64,
}

#[derive(Default)]
struct Seen {
    stages: [StageSeen; 2],
    /// The steps of the current epoch, and their seconds.
    epoch: Vec<f64>,
    /// Seconds of the first steps, in which what is needed once is done.
    beginnings: f64,
}

impl Observer for Seen {
    fn on(&mut self, event: &Event<'_>) {
        /// Steps of a stage that are its beginning: as many as are queued on a device at once.
        const BEGINNING: usize = 16;
        let stage = |name: &str| PAPER.iter().position(|(stage, _)| *stage == name);
        match *event {
            Event::Step { seconds, .. } => self.epoch.push(seconds),
            Event::Epoch {
                stage: name,
                seconds,
                ..
            } => {
                let steps = std::mem::take(&mut self.epoch);
                let Some(seen) = stage(name).map(|at| &mut self.stages[at]) else {
                    return;
                };
                let is_first = seen.epochs == 0;
                let begin = if is_first {
                    BEGINNING.min(steps.len() / 2)
                } else {
                    0
                };
                let (beginning, rest) = steps.split_at(begin);
                self.beginnings += beginning.iter().sum::<f64>();
                seen.steps += rest.len();
                seen.seconds += rest.iter().sum::<f64>();
                seen.epochs += 1;
                seen.between += seconds - steps.iter().sum::<f64>();
            }
            _ => {}
        }
    }
}

#[derive(Serialize)]
pub(super) struct Course {
    steps: usize,
    frozen_img_s: f64,
    train_img_s: f64,
    validation_img_s: f64,
    /// Of the whole training that the paper describes, validation after each epoch.
    projected_minutes: f64,
    peak_mib: Option<f64>,
}

/// Both stages, on so many images, the second for so many epochs.
pub(super) fn run(
    precision: Precision,
    images: usize,
    epochs: usize,
    device: &Device,
) -> Result<Course> {
    let folder = tempfile::tempdir()?;
    let data = data(folder.path(), images, 64)?;
    let experiment = Experiment::parse(&paper(precision, [epochs.div_ceil(3), epochs]))?;
    let variant = experiment.variant("fzlpr-0.2")?;
    let run = RunFolder::open(folder.path().join("run"))?;
    let mut trainer = Trainer::new(&variant, &data, &run, device)?;
    let mut seen = Seen::default();
    trainer.run(&mut seen, &AtomicBool::new(false))?;
    let (training, validation) = (data.split().train().len(), data.split().validation().len());
    let steps_per_epoch = training.div_ceil(PAPER_BATCH) as f64;
    let images_a_step = training as f64 / steps_per_epoch;
    let mut projected = seen.beginnings;
    for ((_, epochs), stage) in PAPER.into_iter().zip(seen.stages) {
        let an_image = stage.seconds / stage.steps as f64 / images_a_step;
        let between = stage.between / stage.epochs as f64;
        let validated = between / validation as f64 * PAPER_VALIDATION_IMAGES as f64;
        projected += epochs as f64 * (an_image * PAPER_TRAINING_IMAGES as f64 + validated);
    }
    let [frozen, train] = seen.stages;
    let rate = |stage: StageSeen| images_a_step * stage.steps as f64 / stage.seconds;
    let peak = match device {
        Device::Cpu => None,
        _ => cuda_memory_peak(device)?,
    };
    Ok(Course {
        steps: frozen.steps + train.steps,
        frozen_img_s: rate(frozen),
        train_img_s: rate(train),
        validation_img_s: (validation * (frozen.epochs + train.epochs)) as f64
            / (frozen.between + train.between),
        projected_minutes: projected / 60.,
        peak_mib: peak.map(|bytes| bytes as f64 / f64::from(1 << 20)),
    })
}

/// Two epochs, in which the norm is bounded, of a small network that knows phantoms, as `cargo xtask reproduce demo` has it. Weights are read from the
/// working folder.
fn small(seed: u64, rate: f64) -> String {
    format!(
        r#"
name = "parity"
seed = {seed}
[data]
validation = "paper"
[model]
backbone = {{ densenet = {{ stem_channels = 32, growth_rate = 32, bottleneck_size = 1, block_layers = [1, 3, 4, 4] }} }}
weights = "models/demo-backbone.safetensors"
head = {{ top-network = {{ conv_channels = [64, 64], hidden = 256, norm_momentum = 0.1 }} }}

[augmentation]
flip_probability = 0.5
max_rotation = 0.4
image_size = 256
crop_size = 224
[training]
batch_size = 16
clip_norm = 1.0
[training.optimiser]
weight_decay = 4e-3
[[training.stages]]
name = "all layers"
epochs = 2
groups = [{{ parameters = "top.norm4.*", learning_rate_factor = 10 }}]
schedule = {{ cosine = {{ learning_rate = {rate:e}, floor = 1e-5 }} }}
[[variants]]
name = "bce"
loss = "bce"
"#
    )
}

/// The mean test AUC after training.
fn trained(data: &TrainingData, seed: u64, rate: f64, device: &Device) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let experiment = Experiment::parse(&small(seed, rate))?;
    let variant = experiment.variant("bce")?;
    let run = RunFolder::open(folder.path())?;
    let mut trainer = Trainer::new(&variant, data, &run, device)?;
    let stop = AtomicBool::new(false);
    let TrainOutcome::Finished { .. } = trainer.run(&mut (), &stop)? else {
        return Err("training was stopped".into());
    };
    let (network, card) = (trainer.classifier(), trainer.card());
    let views = ViewSet::Single;
    let prediction = predict(network, card, data, Part::Test, views, 64, &mut (), &stop)?;
    let mean = match prediction {
        Some(prediction) => prediction.macro_auc(views, data.index())?,
        None => None,
    };
    Ok(mean.ok_or("no label has a defined AUC")?.value)
}

/// Two epochs on a GPU and on the CPU, for each of some seeds. The means over the seeds are compared: trainings that
/// differ in rounding alone end some thousandths apart.
pub(super) fn parity(seeds: u64, device: &Device) -> Result<ExitCode> {
    const BOUND: f64 = 0.01;
    const RATE: f64 = 2e-3;
    let folder = tempfile::tempdir()?;
    let data = data(folder.path(), 1_500, 500)?;
    // A rate that differs by a millionth stands for rounding where there is no GPU.
    let other_rate = match device {
        Device::Cpu => RATE * (1. + 1e-6),
        _ => RATE,
    };
    let mut sums = [0.; 2];
    for seed in 0..seeds {
        let here = trained(&data, seed, RATE, &Device::Cpu)?;
        let there = trained(&data, seed, other_rate, device)?;
        println!("seed {seed}: mean test AUC {here:.4} on the CPU, {there:.4} on the device");
        sums[0] += here / seeds as f64;
        sums[1] += there / seeds as f64;
    }
    let difference = sums[1] - sums[0];
    println!(
        "means {:.4} and {:.4}: difference {difference:+.4}, bound {BOUND}",
        sums[0], sums[1]
    );
    Ok(match difference.abs() <= BOUND {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
