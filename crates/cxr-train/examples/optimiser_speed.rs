//! Milliseconds of one AdamW step on the parameters of the paper's network, ours and Candle's in turn; one
//! line of JSON with the medians.
//!
//! `cargo run --release -p cxr-train --example optimiser_speed -- [ROUNDS]`

use std::error::Error;
use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_nn::{Optimizer, ParamsAdamW};
use cxr_ops::Role;
use cxr_train::{
    Classifier, Experiment, Gradients, ModelCard, Optimiser, OptimiserConfig, Trained,
};

/// As the `cxr` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXPERIMENT: &str = r#"
name = "optimiser-speed"
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-5 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 20,
    };
    let variant = Experiment::parse(EXPERIMENT)?.variant("bce")?;
    let labels: Vec<String> = (0..14).map(|label| label.to_string()).collect();
    let classifier = Classifier::new(&ModelCard::new(&variant, &labels)?, 0, &Device::Cpu)?;
    let parameters = classifier.parameters().select(Role::Trainable, "");
    let vars: Vec<_> = parameters.iter().map(|(_, var)| var.clone()).collect();
    let n_values: usize = vars.iter().map(|var| var.elem_count()).sum();
    // Its gradient is twice the weights.
    let mut loss = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?;
    for var in &vars {
        loss = (loss + var.sqr()?.sum_all()?)?;
    }
    let store = loss.backward()?;
    let trained = Trained::all(parameters);
    let gradients = Gradients::new(&trained, &store)?;
    let rate = 1e-5;
    let mut ours = Optimiser::new(OptimiserConfig::default());
    let mut candles = candle_nn::AdamW::new(
        vars,
        ParamsAdamW {
            lr: rate,
            weight_decay: 4e-3,
            ..ParamsAdamW::default()
        },
    )?;
    let (mut our_times, mut candle_times, mut norm_times) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds.max(1) {
        let our_time = milliseconds(|| Ok(ours.step(rate, &trained, &gradients)?))?;
        let candle_time = milliseconds(|| Ok(candles.step(&store)?))?;
        let norm_time = milliseconds(|| Ok(gradients.norm().map(drop)?))?;
        // The first makes the state.
        if round > 0 {
            our_times.push(our_time);
            candle_times.push(candle_time);
            norm_times.push(norm_time);
        }
    }
    let (ours, candle) = (median(our_times), median(candle_times));
    println!(
        r#"{{"values":{n_values},"threads":{},"ours_ms":{ours:.2},"candle_ms":{candle:.2},"ratio":{:.2},"gradient_norm_ms":{:.2}}}"#,
        rayon::current_num_threads(),
        candle / ours,
        median(norm_times)
    );
    Ok(())
}

fn milliseconds(work: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1000.)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
