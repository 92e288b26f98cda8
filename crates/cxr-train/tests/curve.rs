//! Two hundred steps on phantoms against PyTorch: same weights, batches and loss.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use cxr_augment::{GrayImageRef, Normalization, View};
use cxr_metrics::MultiLabel;
use cxr_ops::{Phase, Role};
use cxr_train::{
    AdamWConfig, Classifier, Experiment, Gradients, ModelCard, Optimiser, OptimiserConfig,
    StageTime, Trained,
};
use serde_json::Value;

#[test]
fn two_hundred_steps_on_phantoms_are_pytorchs() {
    // Debug frames of candle's recursive walk over the graph are large.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let check = || check(&golden::read("curve.json")).unwrap();
    thread.spawn(check).unwrap().join().unwrap();
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Mean losses of ten steps each.
fn windows(losses: &[f64]) -> Vec<f64> {
    let mean = |window: &[f64]| window.iter().sum::<f64>() / window.len() as f64;
    losses.chunks(10).map(mean).collect()
}

fn apart(ours: &[f64], theirs: &[f64]) -> f64 {
    let ratios = windows(ours).into_iter().zip(windows(theirs));
    ratios.map(|(a, b)| (a / b - 1.).abs()).fold(0., f64::max)
}

fn check(golden: &Value) -> Result<()> {
    let losses = |key: &str| numbers(&golden[key]["losses"]);
    let mean_auc = |key: &str| {
        let aucs = numbers(&golden[key]["aucs"]);
        aucs.iter().sum::<f64>() / aucs.len() as f64
    };
    let spread = apart(&losses("f32_one_thread"), &losses("f32_two_threads"));
    let bound = f64::max(0.02, 3. * spread);
    let (ours, auc) = train(golden)?;
    let worst = apart(&ours, &losses("f64"));
    let auc_apart = (auc - mean_auc("f64")).abs();
    println!("loss of ten steps: {worst:.1e} apart, bound {bound:.1e}");
    println!("mean AUC {auc:.4}, {auc_apart:.4} apart");
    assert_eq!(ours.len(), 200);
    assert!(worst <= bound, "{worst:e} above {bound:e}: {ours:?}");
    assert!(auc_apart <= 0.01, "{auc}, expected {}", mean_auc("f64"));
    Ok(())
}

/// The loss of every step, and the mean AUC of the test images.
fn train(golden: &Value) -> Result<(Vec<f64>, f64)> {
    let count = |key: &str| golden[key].as_u64().unwrap() as usize;
    let (side, batch, n_train) = (count("side"), count("batch"), count("n_train"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let experiment = Experiment::read(&folder.join("curve.toml")).unwrap();
    let labels: Vec<Vec<f32>> = (golden["labels"].as_array().unwrap().iter())
        .map(|row| {
            let digits = row.as_str().unwrap().bytes();
            digits.map(|digit| f32::from(digit - b'0')).collect()
        })
        .collect();
    let n_labels = labels[0].len();
    let names: Vec<String> = (0..n_labels).map(|label| label.to_string()).collect();
    let variant = experiment.variant("bce").unwrap();
    let card = ModelCard::new(&variant, &names).unwrap();
    let classifier = Classifier::new(&card, 0, &Device::Cpu).unwrap();
    let parameters = classifier.parameters();
    let weights = parameters.tensors("").into_iter();
    let weights = weights
        .map(|(n, t)| (n.clone(), golden::parameter(&n, t.dims())))
        .collect();
    parameters.load("", &weights).unwrap();

    let images = images(&folder.join("curve.png"), side);
    let picked = |picked: &[usize]| -> Result<(Tensor, Tensor)> {
        let pixels = picked.iter().flat_map(|&image| images[image].clone());
        let targets = picked.iter().flat_map(|&image| labels[image].clone());
        let (pixels, targets): (Vec<f32>, Vec<f32>) = (pixels.collect(), targets.collect());
        let shape = (picked.len(), 3, side, side);
        Ok((
            Tensor::from_vec(pixels, shape, &Device::Cpu)?,
            Tensor::from_vec(targets, (picked.len(), n_labels), &Device::Cpu)?,
        ))
    };
    let trained = Trained::all(parameters.select(Role::Trainable, ""));
    let loss = cxr_train::loss(variant.chosen()).unwrap();
    let stage = &experiment.training.stages[0];
    let mut optimiser = Optimiser::new(OptimiserConfig::AdamW(AdamWConfig::default()));
    let mut losses = Vec::new();
    for step in 0..count("steps") {
        let (epoch, index) = (step / (n_train / batch), step % (n_train / batch));
        let keys: Vec<f64> = golden::uniform(&format!("order of epoch {epoch}"))
            .take(n_train)
            .collect();
        let mut order: Vec<usize> = (0..n_train).collect();
        order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        let (images, targets) = picked(&order[index * batch..(index + 1) * batch])?;
        // There is no dropout to draw for.
        let image_keys = vec![0; batch];
        let phase = Phase::Train {
            image_keys: &image_keys,
        };
        let logits = classifier.forward_t(&images, phase)?;
        let value = loss.loss(&logits, &targets, None)?;
        losses.push(f64::from(value.to_scalar::<f32>()?));
        let gradients = Gradients::new(&trained, &value.backward()?).unwrap();
        let rate = stage.schedule.learning_rate(StageTime {
            epoch,
            epochs: stage.epochs,
            step: index,
            steps_per_epoch: n_train / batch,
        });
        optimiser.step(rate, &trained, &gradients).unwrap();
    }
    let test: Vec<usize> = (n_train..labels.len()).collect();
    let (images, targets) = picked(&test)?;
    let logits = classifier.forward_t(&images, Phase::Evaluate)?;
    let scores: Vec<f32> = logits.flatten_all()?.to_vec1()?;
    let targets: Vec<f32> = targets.flatten_all()?.to_vec1()?;
    let positive: Vec<bool> = targets.into_iter().map(|target| target > 0.).collect();
    let scored = MultiLabel::new(&names, &scores, &positive, None).unwrap();
    let mean = scored.macro_auc().unwrap();
    assert_eq!(mean.n_labels, n_labels);
    Ok((losses, mean.value))
}

/// The phantoms of the picture, one above the other, as the loader makes them: three normalised channels.
fn images(path: &Path, side: usize) -> Vec<Vec<f32>> {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let images = pixels.chunks(side * side).map(|pixels| {
        let mut values = vec![0f32; 3 * side * side];
        let image = GrayImageRef::square(pixels, side).unwrap();
        View::Center
            .apply(image, side, &Normalization::IMAGENET, &mut values)
            .unwrap();
        values
    });
    images.collect()
}
