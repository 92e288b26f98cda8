//! Grad-CAM against pytorch-grad-cam on the same weights: `tests/golden/grad_cam.py`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use candle_core::Device;
use cxr_explain::{CamMethod, FeatureMaps, HeatMap};
use cxr_model::{Classifier, ModelCard, Phase};
use serde_json::json;

/// The script's network.
fn card(labels: &[String]) -> ModelCard {
    let card = json!({
        "experiment": "grad-cam",
        "variant": "zlpr",
        "loss": "zlpr",
        "loss_parameters": {},
        "labels": labels,
        "backbone": {"densenet": {"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 2, 1, 2]}},
        "head": {"top-network": {"conv_channels": [8, 6], "hidden": 10}},
        "image_size": 256,
        "crop_size": 224,
        "normalization_mean": [0.485, 0.456, 0.406],
        "normalization_std": [0.229, 0.224, 0.225],
        "logit_thresholds": vec![0.; labels.len()],
    });
    ModelCard::parse(&card.to_string()).unwrap()
}

#[test]
fn heat_maps_are_those_of_pytorch_grad_cam() {
    // Debug frames of candle's recursive walk over the graph are large.
    std::thread::Builder::new()
        .stack_size(64 << 20)
        .spawn(check)
        .unwrap()
        .join()
        .unwrap();
}

fn check() {
    let golden = golden::read("grad_cam.json");
    let labels = golden["labels"].as_array().unwrap();
    let names: Vec<String> = (0..labels.len()).map(|label| label.to_string()).collect();
    let card = card(&names);
    let classifier = Classifier::new(&card, 0, &Device::Cpu).unwrap();
    let values = classifier.parameters().tensors("");
    let values = values
        .into_iter()
        .map(|(name, value)| {
            let formula = golden::parameter(&name, value.dims());
            (name, formula)
        })
        .collect();
    classifier.parameters().load("", &values).unwrap();
    let image = golden::tensor("image", &[1, 3, 224, 224], 1., 0.);

    let logits = classifier.forward_t(&image, Phase::Evaluate).unwrap();
    let logits: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    let mut failures = Vec::new();
    for (label, expected) in labels.iter().enumerate() {
        let number = |key: &str| expected[key].as_f64().unwrap();
        let numbers = |key: &str| -> Vec<f64> {
            let values = expected[key].as_array().unwrap().iter();
            values.map(|value| value.as_f64().unwrap()).collect()
        };
        let logit = number("logit");
        assert!((f64::from(logits[label]) - logit).abs() < 1e-4, "{label}");

        let features = FeatureMaps::new(&classifier, &image).unwrap();
        let map = features.heat_map(label, CamMethod::GradCam).unwrap();
        assert_eq!((map.height(), map.width()), (7, 7));
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let error_of = |map: &HeatMap, raw: &[f64]| {
            let size = norm(&mut raw.iter().copied());
            assert!(size > 0., "a map that says nothing checks nothing");
            let found = map.values().iter().map(|&value| f64::from(value));
            norm(&mut found.zip(raw).map(|(found, expected)| found - expected)) / size
        };
        let error = error_of(&map, &numbers("raw"));
        for method in &CamMethod::ALL[1..] {
            let expected = &expected["methods"][method.name()];
            let raw: Vec<f64> = serde_json::from_value(expected["raw"].clone()).unwrap();
            let error = error_of(&features.heat_map(label, *method).unwrap(), &raw);
            let bound = f64::max(1e-4, 3. * expected["torch_f32_error"].as_f64().unwrap());
            println!("label {label}, {}: map {error:.1e}", method.name());
            if error > bound {
                failures.push(format!(
                    "label {label}, {method:?}: {error:.1e} (bound {bound:.1e})"
                ));
            }
        }
        let bound = f64::max(1e-4, 3. * number("torch_f32_error"));

        // What the library returns: as large as the image, then stretched from 0 to 1.
        let large = map.resized(224, 224);
        let least = large.values().iter().copied().fold(f32::INFINITY, f32::min);
        let places = expected["returned_at"].as_array().unwrap().iter();
        let returned_error = places
            .zip(numbers("returned"))
            .map(|(place, expected)| {
                let value = large.values()[place.as_u64().unwrap() as usize];
                (f64::from((value - least) / (large.peak() - least)) - expected).abs()
            })
            .fold(0., f64::max);
        let returned_bound = f64::max(1e-4, 3. * number("torch_f32_returned_error"));
        println!("label {label}: map {error:.1e}, as returned {returned_error:.1e}");
        if error > bound || returned_error > returned_bound {
            failures.push(format!(
                "label {label}: map {error:.1e} (bound {bound:.1e}), as returned \
                 {returned_error:.1e} (bound {returned_bound:.1e})"
            ));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
