//! Images per second of a backbone with a head, as a JSON object of one entry.
//!
//! `cargo run --release -p cxr-train --example throughput -- train|frozen|infer [BATCH [STEPS [f32|bf16 [BACKBONE [wall|processor]]]]]`
//!
//! `train` is a step of training in which everything is trained, `frozen` one in which the backbone is not,
//! `infer` a prediction. The backbone is DenseNet121 with the top network unless another is named, which has a linear
//! head. The median of STEPS calls counts; two before them do not. `RAYON_NUM_THREADS` limits
//! the threads. With `processor` the seconds are those that processors worked for this process, which other work on the
//! machine hardly changes (Linux only).

use std::time::Instant;

use candle_core::{Device, Tensor};
use cxr_ops::{GradientSink, Precision, Role};
use cxr_train::{
    Classifier, Experiment, Gradients, ModelCard, Optimiser, OptimiserConfig, Phase, Trained,
};

/// As the `cxr` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIDE: usize = 224;
const USAGE: &str =
    "throughput train|frozen|infer [BATCH [STEPS [f32|bf16 [BACKBONE [wall|processor]]]]]";
const BACKBONE: &str = "densenet121";

const EXPERIMENT: &str = r#"
name = "throughput"
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-5 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// Which seconds are counted.
enum Clock {
    /// Those since some moment.
    Wall(Instant),
    /// Those that processors worked for this process.
    Processor,
}

impl Clock {
    fn now(&self) -> std::io::Result<f64> {
        match self {
            Self::Wall(start) => Ok(start.elapsed().as_secs_f64()),
            // Each thread's file begins with its nanoseconds on a processor.
            Self::Processor => std::fs::read_dir("/proc/self/task")?
                .map(|thread| {
                    let line = std::fs::read_to_string(thread?.path().join("schedstat"))?;
                    let nanoseconds = line.split(' ').next().and_then(|text| text.parse().ok());
                    let nanoseconds: u64 = nanoseconds.ok_or(std::io::ErrorKind::InvalidData)?;
                    Ok(nanoseconds as f64 / 1e9)
                })
                .sum(),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let work = arguments.next().ok_or(USAGE)?;
    let batch: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let steps: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let named = arguments.next().unwrap_or_else(|| "f32".to_owned());
    let mut all = Precision::ALL.into_iter();
    let precision = all
        .find(|precision| precision.name() == named)
        .ok_or(USAGE)?;

    let backbone = arguments.next().unwrap_or_else(|| BACKBONE.to_owned());
    let clock = match arguments.next().as_deref() {
        None | Some("wall") => Clock::Wall(Instant::now()),
        Some("processor") => Clock::Processor,
        Some(_) => return Err(USAGE.into()),
    };
    let head = match backbone.as_str() {
        BACKBONE => "top-network",
        _ => "linear",
    };
    let model = format!("[model]\nbackbone = \"{backbone}\"\nhead = \"{head}\"\n");
    let variant = Experiment::parse(&format!("{EXPERIMENT}{model}"))?.variant("bce")?;
    let labels: Vec<String> = (0..14).map(|label| label.to_string()).collect();
    let classifier = Classifier::new(&ModelCard::new(&variant, &labels)?, 0, &Device::Cpu)?;
    let loss = cxr_train::loss(variant.chosen())?;
    let images = Tensor::randn(0f32, 1., (batch, 3, SIDE, SIDE), &Device::Cpu)?;
    let targets = Tensor::rand(0f32, 1., (batch, 14), &Device::Cpu)?
        .ge(0.9)?
        .to_dtype(images.dtype())?;
    let keys: Vec<u64> = (0..batch as u64).collect();
    let phase = Phase::Train { image_keys: &keys };
    let trained = match work.as_str() {
        "train" => classifier.parameters().select(Role::Trainable, ""),
        "frozen" => classifier.parameters().select(Role::Trainable, "top."),
        "infer" => Vec::new(),
        _ => return Err(USAGE.into()),
    };
    let trained = Trained::all(trained);
    let mut optimiser = Optimiser::new(OptimiserConfig::default());
    let mut call = || -> Result<(), Box<dyn std::error::Error>> {
        if work == "infer" {
            classifier.forward_t(&images, Phase::Evaluate)?;
            return Ok(());
        }
        let sink = GradientSink::new();
        let features = match work.as_str() {
            "train" => sink.scope(|| precision.scope(|| classifier.features(&images, phase)))?,
            _ => classifier.features(&images, Phase::Evaluate)?.detach(),
        };
        let loss = loss.loss(&classifier.logits(&features, phase)?, &targets, None)?;
        let gradients = Gradients::backward(&trained, &loss, &sink)?;
        optimiser.step(1e-5, &trained, &gradients)?;
        Ok(())
    };

    for _ in 0..2 {
        call()?;
    }
    let mut seconds = Vec::new();
    for _ in 0..steps.max(1) {
        let start = clock.now()?;
        call()?;
        seconds.push(clock.now()? - start);
    }
    seconds.sort_by(f64::total_cmp);
    let rate = batch as f64 / seconds[seconds.len() / 2];
    let mut name = work;
    if precision == Precision::Bf16 {
        name += &format!(" {named}");
    }
    if backbone != BACKBONE {
        name += &format!(" {backbone}");
    }
    println!(r#"{{"{name}": {rate:.3}}}"#);
    Ok(())
}
