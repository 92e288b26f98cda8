//! Images per second of DenseNet121 with the top network, as one line of JSON per kind of work.
//!
//! `cargo run --release -p cxr-train --example throughput -- [BATCH [STEPS]]`

use std::time::Instant;

use candle_core::{Device, Tensor};
use cxr_ops::Role;
use cxr_train::{Classifier, Experiment, Gradients, Optimiser, OptimiserConfig, Phase, Trained};

/// As the `cxr` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIDE: usize = 224;

const EXPERIMENT: &str = r#"
name = "throughput"
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { rate = 1e-5 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let batch: usize = arguments.next().map_or(Ok(8), |text| text.parse())?;
    let steps: usize = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let variant = Experiment::parse(EXPERIMENT)?.variant("bce")?;
    let labels: Vec<String> = (0..14).map(|label| label.to_string()).collect();
    let classifier = Classifier::new(&variant.model_card(&labels)?, 0, &Device::Cpu)?;
    let loss = variant.chosen().loss()?;
    let images = Tensor::randn(0f32, 1., (batch, 3, SIDE, SIDE), &Device::Cpu)?;
    let targets = Tensor::rand(0f32, 1., (batch, 14), &Device::Cpu)?
        .ge(0.9)?
        .to_dtype(images.dtype())?;
    let keys: Vec<u64> = (0..batch as u64).collect();
    let phase = Phase::Train { image_keys: &keys };

    for (work, trained) in [("train", ""), ("frozen", "top.")] {
        let trained = classifier.parameters().select(Role::Trainable, trained);
        let trained = Trained::all(trained);
        let mut optimiser = Optimiser::new(OptimiserConfig::default());
        report(work, batch, steps, || {
            let features = match work {
                "train" => classifier.features(&images, phase)?,
                _ => classifier.features(&images, Phase::Evaluate)?.detach(),
            };
            let loss = loss.loss(&classifier.logits(&features, phase)?, &targets, None)?;
            let gradients = Gradients::new(&trained, &loss.backward()?)?;
            optimiser.step(1e-5, &trained, &gradients)?;
            Ok(())
        })?;
    }
    report("infer", batch, steps, || {
        classifier.forward_t(&images, Phase::Evaluate)?;
        Ok(())
    })
}

/// Prints the median rate of `steps` calls after one that is not counted.
fn report(
    work: &str,
    batch: usize,
    steps: usize,
    mut call: impl FnMut() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    call()?;
    let mut seconds = Vec::new();
    for _ in 0..steps.max(1) {
        let start = Instant::now();
        call()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let rate = batch as f64 / seconds[seconds.len() / 2];
    let peak = peak_mib().map_or("null".to_owned(), |mib| mib.to_string());
    println!(
        r#"{{"work":"{work}","batch":{batch},"ours_img_s":{rate:.3},"ours_peak_mib":{peak}}}"#
    );
    Ok(())
}

/// The process's largest resident size so far, where the system tells it.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}
