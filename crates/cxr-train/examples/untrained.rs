//! A model file with initial weights: DenseNet121 with the top network, for benchmarks of what comes after training.
//!
//! `cargo run --example untrained -- FILE.safetensors`

use candle_core::Device;
use cxr_train::{Classifier, Experiment, ModelCard, save_model};

const EXPERIMENT: &str = r#"
name = "untrained"
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-5 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or("untrained FILE.safetensors")?;
    let labels: Vec<String> = (0..14).map(|label| format!("label {label}")).collect();
    let card = ModelCard::new(&Experiment::parse(EXPERIMENT)?.variant("bce")?, &labels)?;
    let classifier = Classifier::new(&card, 0, &Device::Cpu)?;
    save_model(path.as_ref(), &card, &classifier)?;
    Ok(())
}
