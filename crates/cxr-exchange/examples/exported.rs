//! A network with random weights, exported, and its logits of random images: what `cargo xtask verify export` compares.
//!
//! `exported --list` prints the networks, one `BACKBONE HEAD` a line; where the head ends in `:multi-class`, some labels
//! have three outputs.
//! `exported BACKBONE HEAD DIR IMAGES` writes into DIR `model.safetensors`, `network.onnx`, `whole.onnx` (with the resizing
//! and the probabilities inside), `torch/`, and what they must give: `images.f32` and `logits.f32`; of three images of
//! different sizes `films.json`, their bytes `film-N.u8` and what is expected of `whole.onnx`.

#![expect(
    clippy::print_stdout,
    reason = "an example prints what it is asked for"
)]

use std::error::Error;
use std::path::Path;

use candle_core::{Device, Tensor};
use cxr_backbone::BACKBONES;
use cxr_exchange::{OnnxInput, OnnxOptions, onnx_bytes, torch_files};
use cxr_model::{
    Calibration, Classifier, GrayImage, LabelCalibration, ModelCard, Origin, Phase, Predictor,
    ViewSet, save_model,
};
use cxr_top::HEADS;
use serde_json::{Value, json};

const SIDE: usize = 224;
const LABELS: usize = 6;
/// Behind the name of a head: some labels have three outputs.
const MULTI_CLASS: &str = ":multi-class";
/// Passes in training, on so many images, after which running statistics are those of the images.
const PASSES: usize = 25;
const BATCH: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            for backbone in BACKBONES {
                let options = options(backbone.name);
                if backbone.parse(&options)?.description().is_some() {
                    for head in HEADS {
                        let parsed = head.parse(&Value::Null)?;
                        if parsed.describe((8, 7, 7), LABELS).is_ok() {
                            println!("{} {}", backbone.name, head.name);
                            if backbone.name == "resnet18" {
                                println!("{} {}{MULTI_CLASS}", backbone.name, head.name);
                            }
                        }
                    }
                }
            }
            Ok(())
        }
        [backbone, head, folder, images] => {
            write(backbone, head, Path::new(folder), images.parse()?)
        }
        _ => Err("exported --list, or exported BACKBONE HEAD DIR IMAGES".into()),
    }
}

fn options(backbone: &str) -> Value {
    match backbone {
        "densenet" => json!({"stem_channels": 12, "growth_rate": 6, "block_layers": [2, 3, 1]}),
        "convnext" => json!({"size": "tiny"}),
        "dinov2" => json!("small"),
        _ => json!({}),
    }
}

/// Values in [0, 1), the same everywhere (SplitMix64).
fn uniform(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
    })
}

/// Images that are smooth at some scale and noisy at another, normalised.
fn images(seed: u64, count: usize) -> Result<Tensor, Box<dyn Error>> {
    let mut draws = uniform(seed);
    let mut values = Vec::with_capacity(count * 3 * SIDE * SIDE);
    for _ in 0..count {
        let waves: Vec<f32> = draws.by_ref().take(6).collect();
        for channel in 0..3 {
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let (x, y) = (x as f32 / SIDE as f32, y as f32 / SIDE as f32);
                    let wave = (20. * waves[channel] * x + 15. * waves[3 + channel] * y).sin();
                    let noise = draws.next().unwrap_or(0.);
                    values.push(1.2 * wave + noise - 0.5);
                }
            }
        }
    }
    Ok(Tensor::from_vec(
        values,
        (count, 3, SIDE, SIDE),
        &Device::Cpu,
    )?)
}

fn write(backbone: &str, head: &str, folder: &Path, count: usize) -> Result<(), Box<dyn Error>> {
    let labels: Vec<String> = (0..LABELS).map(|label| format!("label {label}")).collect();
    let (head, multi_class) = match head.strip_suffix(MULTI_CLASS) {
        Some(head) => (head, vec![labels[1].clone(), labels[4].clone()]),
        None => (head, Vec::new()),
    };
    let card = json!({
        "experiment": "verify", "variant": "random", "loss": "bce", "loss_parameters": {}, "labels": labels, "multi_class": multi_class,
        "backbone": {backbone: options(backbone)}, "head": {head: {}}, "image_size": 256, "crop_size": SIDE,
        "normalization_mean": [0.485, 0.456, 0.406], "normalization_std": [0.229, 0.224, 0.225],
        "logit_thresholds": vec![0.; LABELS],
    });
    let mut card = ModelCard::parse(&card.to_string())?;
    card.calibration = Some(Calibration {
        labels: vec![
            LabelCalibration::None {},
            LabelCalibration::Temperature { temperature: 1.7 },
            LabelCalibration::Platt {
                slope: 0.8,
                intercept: -0.3,
            },
            LabelCalibration::Isotonic {
                logits: vec![-2., -0.5, 0.1, 1.5],
                probabilities: vec![0.01, 0.2, 0.2, 0.9],
            },
            LabelCalibration::OperatingPoint { probability: 0.07 },
            LabelCalibration::Isotonic {
                logits: vec![0.3],
                probabilities: vec![0.4],
            },
        ],
        origin: Origin {
            part: "none".to_owned(),
            images: 0,
            views: ViewSet::Single,
            fingerprint: None,
        },
    });
    let classifier = Classifier::new(&card, 7, &Device::Cpu)?;
    for pass in 0..PASSES {
        let keys: Vec<u64> = (0..BATCH as u64).collect();
        let phase = Phase::Train { image_keys: &keys };
        classifier.forward_t(&images(1000 + pass as u64, BATCH)?, phase)?;
    }
    std::fs::create_dir_all(folder.join("torch"))?;
    save_model(&folder.join("model.safetensors"), &card, &classifier)?;
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes);
    write(
        "network.onnx",
        &onnx_bytes(&card, &classifier, OnnxOptions::default())?,
    )?;
    let whole = OnnxOptions {
        input: OnnxInput::Bytes,
        probabilities: true,
    };
    write("whole.onnx", &onnx_bytes(&card, &classifier, whole)?)?;
    let files = torch_files(&card, &classifier)?;
    write("torch/model.safetensors", &files.weights)?;
    write("torch/model.json", files.card.as_bytes())?;
    write("torch/model.py", files.module.as_bytes())?;

    let (mut pixels, mut logits) = (Vec::new(), Vec::new());
    for image in 0..count {
        let image = images(image as u64, 1)?;
        let its_logits = classifier.logits_of_image(&image, &card.labels, "a random image")?;
        pixels.extend(image.flatten_all()?.to_vec1::<f32>()?);
        logits.extend(its_logits);
    }
    let bytes = |values: &[f32]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    write("images.f32", &bytes(&pixels))?;
    write("logits.f32", &bytes(&logits))?;

    let predictor = Predictor::new(card.clone(), classifier)?;
    let mut films = Vec::new();
    for (at, (width, height)) in [(512, 512), (701, 433), (1024, 850)]
        .into_iter()
        .enumerate()
    {
        let mut noise = uniform(at as u64);
        let pixels: Vec<u8> = (0..width * height)
            .map(|place| {
                let (x, y) = ((place % width) as f32, (place / width) as f32);
                let wave = 0.5 + 0.4 * (x / 37.).sin() * (y / 53.).cos();
                (255. * (wave + 0.1 * noise.next().unwrap_or(0.)).clamp(0., 1.)) as u8
            })
            .collect();
        write(&format!("film-{at}.u8"), &pixels)?;
        let image = GrayImage::new(width, height, pixels)?;
        let prepared = predictor.prepare(&image)?;
        let logits = predictor.logits(&[prepared], ViewSet::Single)?.concat();
        let probabilities: Vec<f64> = (logits.iter().enumerate())
            .map(|(label, &logit)| card.probability(label, logit))
            .collect();
        films.push(json!({"width": width, "height": height, "logits": logits, "probabilities": probabilities}));
    }
    write("films.json", Value::from(films).to_string().as_bytes())?;
    Ok(())
}
