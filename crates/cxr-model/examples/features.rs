//! What a model's backbone knows of images, as CSV: the file, then the mean of each of its last maps.
//!
//! `cargo run --release -p cxr-model --example features -- MODEL.safetensors IMAGE…`

use std::path::Path;

use candle_core::Device;
use cxr_model::Predictor;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .ok_or("features MODEL.safetensors IMAGE…")?;
    let predictor = Predictor::open(Path::new(&model), &Device::Cpu)?;
    for path in arguments {
        let image = predictor.prepare(&cxr_dataset::decode_gray(&path)?)?;
        let features = predictor.features(&[image])?.concat();
        let features: Vec<String> = features.iter().map(ToString::to_string).collect();
        println!("{path},{}", features.join(","));
    }
    Ok(())
}
