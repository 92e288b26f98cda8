//! Twenty optimiser steps of the whole classifier against PyTorch: same weights, batches, loss.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use candle_core::{Device, Result, Tensor};
use cxr_losses::{Fzlpr, MultiLabelLoss};
use cxr_ops::{Phase, Role};
use cxr_train::{
    AdamWConfig, Classifier, Experiment, Gradients, ModelCard, Optimiser, OptimiserConfig, Trained,
};
use serde_json::Value;

const LABELS: usize = 14;

#[test]
fn the_loss_curve_of_twenty_steps_is_pytorchs() {
    // Debug frames of candle's recursive walk over the graph are large.
    let check = || check(&golden::read("twenty_steps.json")).unwrap();
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(check)
        .unwrap()
        .join()
        .unwrap();
}

fn check(golden: &Value) -> Result<()> {
    let curve = |key: &str| -> Vec<f64> {
        golden[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect()
    };
    let (one, two, exact) = (
        curve("f32_one_thread"),
        curve("f32_two_threads"),
        curve("f64"),
    );
    let spread = one
        .iter()
        .zip(&two)
        .map(|(a, b)| (a - b).abs() / b)
        .fold(0., f64::max);
    let bound = f64::max(1e-3, 3. * spread);
    let found = train(golden)?;
    let worst = found
        .iter()
        .zip(&exact)
        .map(|(a, b)| (a - b).abs() / b)
        .fold(0., f64::max);
    println!("largest relative difference {worst:.2e}, bound {bound:.2e}");
    assert_eq!(found.len(), exact.len());
    assert!(
        worst <= bound,
        "{worst:e} above {bound:e}\nours {found:?}\nPyTorch {exact:?}"
    );
    Ok(())
}

fn train(golden: &Value) -> Result<Vec<f64>> {
    let number = |value: &Value| value.as_f64().unwrap();
    let steps = golden["steps"].as_u64().unwrap() as usize;
    let batch = golden["batch"].as_u64().unwrap() as usize;
    let optimiser = &golden["optimiser"];
    let config = AdamWConfig {
        beta1: number(&optimiser["betas"][0]),
        beta2: number(&optimiser["betas"][1]),
        eps: number(&optimiser["eps"]),
        weight_decay: number(&optimiser["weight_decay"]),
        decay_vectors: true,
    };
    let experiment = Experiment::parse(
        r#"
        name = "twenty-steps"
        [model]
        head = { top-network = { dropout = 0.0 } }
        [[training.stages]]
        name = "all layers"
        epochs = 1
        schedule = { constant = { learning_rate = 1e-4 } }
        [[variants]]
        name = "fzlpr-0.2"
        loss = "fzlpr"
        tau = 0.2
        "#,
    )
    .unwrap();
    let labels: Vec<String> = (0..LABELS).map(|label| label.to_string()).collect();
    let variant = experiment.variant("fzlpr-0.2").unwrap();
    let card = ModelCard::new(&variant, &labels).unwrap();
    let classifier = Classifier::new(&card, 0, &Device::Cpu).unwrap();
    let parameters = classifier.parameters();
    let weights = parameters.tensors("").into_iter();
    let weights = weights
        .map(|(n, t)| (n.clone(), golden::parameter(&n, t.dims())))
        .collect();
    parameters.load("", &weights).unwrap();
    let trained = Trained::all(parameters.select(Role::Trainable, ""));
    let loss = Fzlpr::new(number(&golden["loss"]["tau"])).unwrap();
    let mut adamw = Optimiser::new(OptimiserConfig::AdamW(config));
    let keys: Vec<u64> = (0..batch as u64).collect();
    let mut losses = Vec::new();
    let batches = golden["batches"].as_u64().unwrap() as usize;
    for step in (0..steps).map(|step| step % batches) {
        let images = golden::tensor(
            &format!("images of batch {step}"),
            &[batch, 3, 224, 224],
            2.,
            0.,
        );
        let targets = golden::tensor(
            &format!("targets of batch {step}"),
            &[batch, LABELS],
            1.,
            0.,
        )
        .gt(0.7)?
        .to_dtype(candle_core::DType::F32)?;
        let logits: Tensor = classifier.forward_t(&images, Phase::Train { image_keys: &keys })?;
        let value = loss.loss(&logits, &targets, None)?;
        losses.push(f64::from(value.to_scalar::<f32>()?));
        let gradients = Gradients::new(&trained, &value.backward()?).unwrap();
        adamw
            .step(number(&optimiser["lr"]), &trained, &gradients)
            .unwrap();
    }
    Ok(losses)
}
