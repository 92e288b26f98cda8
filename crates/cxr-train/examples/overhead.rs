//! What loader, `events.jsonl` and checkpoints add to a training step of DenseNet121 (all layers,
//! batches of 8, 224×224), as one line of JSON.
//!
//! `cargo run --release -p cxr-train --example overhead -- [ROUNDS]`
//!
//! In each round six steps alone, on one batch in memory, and six steps of a [`Trainer`] are
//! made in turn; their medians are compared. What a checkpoint takes is spread over the steps between
//! two of them.

#[path = "own_data/images.rs"]
mod images;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use cxr_ops::Role;
use cxr_train::{
    Classifier, Event, EventLog, Experiment, Gradients, Observer, Optimiser, Phase, Profile,
    RunFolder, Trained, Trainer, TrainingData,
};

/// As the `cxr` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 8;
const STEPS: usize = 6;

const EXPERIMENT: &str = r#"
name = "overhead"
[data]
validation = { patient-fold = { fold = 0, of = 23 } }
[training]
batch_size = 8
[[training.stages]]
name = "all layers"
epochs = 40
schedule = { constant = { learning_rate = 1e-5 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// Writes events, adds up the seconds of the steps, and stops after some.
struct Watch<'a> {
    log: &'a mut EventLog,
    seconds: Vec<f64>,
    left: usize,
    stop: &'a AtomicBool,
}

impl Observer for Watch<'_> {
    fn on(&mut self, event: &Event<'_>) {
        self.log.on(event);
        if let Event::Step { seconds, .. } = *event {
            self.seconds.push(seconds);
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(8), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    images::write(folder.path())?;
    let experiment = Experiment::parse(EXPERIMENT)?;
    let variant = experiment.variant("bce")?;
    let table = folder.path().join("labels.csv");
    let data = TrainingData::from_table(&table, folder.path(), 24, &experiment)?;
    let run = RunFolder::open(folder.path().join("run"))?;
    let trace = folder.path().join("trace.json");
    let profile = Profile::create(&trace)?;
    let trainer = Trainer::new(&variant, &data, &run, &Device::Cpu)?;
    let mut trainer = trainer.profiled(&profile);
    let mut log = trainer.event_log()?;

    let classifier = Classifier::new(trainer.card(), 0, &Device::Cpu)?;
    let trained = Trained::all(classifier.parameters().select(Role::Trainable, ""));
    let loss = cxr_train::loss(variant.chosen())?;
    let mut optimiser = Optimiser::new(experiment.training.optimiser);
    let images = Tensor::randn(0f32, 1., (BATCH, 3, 224, 224), &Device::Cpu)?;
    let targets = Tensor::rand(0f32, 1., (BATCH, data.labels().len()), &Device::Cpu)?;
    let targets = targets.ge(0.5)?.to_dtype(images.dtype())?;
    let keys: Vec<u64> = (0..BATCH as u64).collect();
    let phase = Phase::Train { image_keys: &keys };
    let mut alone = || -> Result<f64, Box<dyn std::error::Error>> {
        let begin = Instant::now();
        let loss = loss.loss(&classifier.forward_t(&images, phase)?, &targets, None)?;
        optimiser.step(
            1e-5,
            &trained,
            &Gradients::new(&trained, &loss.backward()?)?,
        )?;
        Ok(begin.elapsed().as_secs_f64())
    };

    let (mut steps_alone, mut steps) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let seconds = (0..STEPS).map(|_| alone()).collect::<Result<Vec<_>, _>>()?;
        let stop = AtomicBool::new(false);
        let mut watch = Watch {
            log: &mut log,
            seconds: Vec::new(),
            left: STEPS,
            stop: &stop,
        };
        trainer.run(&mut watch, &stop)?;
        // The first round warms up.
        if round > 0 {
            steps_alone.extend(seconds);
            steps.extend(watch.seconds);
        }
    }
    drop(trainer);
    log.finish()?;
    profile.finish()?;
    let trace: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(trace)?)?;
    let mean_of_spans = |name: &str| {
        let of_name = trace.iter().filter(|event| event["name"] == name);
        let seconds = of_name.filter_map(|event| Some(event["dur"].as_f64()? / 1e6));
        mean(&seconds.collect::<Vec<_>>())
    };
    let (alone, step) = (median(steps_alone), median(steps));
    let checkpoint = mean_of_spans("checkpoint");
    let every = experiment.training.checkpoint_steps;
    let overhead = (step + checkpoint / every as f64) / alone - 1.;
    println!(
        r#"{{"step_alone_s":{alone:.4},"trainer_step_s":{step:.4},"loader_wait_s":{:.5},"checkpoint_s":{checkpoint:.3},"checkpoint_steps":{every},"overhead":{overhead:.4}}}"#,
        mean_of_spans("loader wait")
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    values.get(middle).copied().unwrap_or(f64::NAN)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
