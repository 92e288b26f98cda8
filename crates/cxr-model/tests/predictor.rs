//! Logits and features of a model file, whatever images they are computed with.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use candle_core::{Device, Tensor};
use cxr_model::{Classifier, GrayImage, ModelCard, Predictor, PreparedImage, ViewSet};
use serde_json::{Value, json};

fn card(backbone: Value, head: Value, crop_size: usize, labels: &[&str]) -> ModelCard {
    let description = json!({
        "experiment": "tiny", "variant": "bce", "loss": "bce", "loss_parameters": {},
        "labels": labels, "image_size": 96, "crop_size": crop_size,
        "backbone": backbone, "head": head,
        "normalization_mean": [0.485, 0.456, 0.406], "normalization_std": [0.229, 0.224, 0.225],
        "logit_thresholds": vec![0.0; labels.len()],
    });
    ModelCard::parse(&description.to_string()).unwrap()
}

fn predictor(card: ModelCard) -> Predictor {
    let classifier = Classifier::new(&card, 5, &Device::Cpu).unwrap();
    Predictor::new(card, classifier).unwrap()
}

/// Images that are all different, of different sizes.
fn images(predictor: &Predictor, count: usize) -> Vec<PreparedImage> {
    let image = |index: usize| {
        let (width, height) = (100 + 7 * index, 130 + 3 * index);
        let pixel = |at: usize| ((at * (2 * index + 3)) % 251) as u8;
        let pixels = (0..width * height).map(pixel).collect();
        let image = GrayImage::new(width, height, pixels).unwrap();
        predictor.prepare(&image).unwrap()
    };
    (0..count).map(image).collect()
}

/// Backbones that take the grouped way and the layer-wise one, with both heads.
fn predictors() -> Vec<(&'static str, Predictor)> {
    let small = json!({"densenet": {"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 2]}});
    let grouped = json!({"densenet": {
        "stem_channels": 32, "growth_rate": 32, "bottleneck_size": 1, "block_layers": [1, 2],
    }});
    let top = json!({"top-network": {"conv_channels": [64, 64], "hidden": 64}});
    let linear = json!({"linear": {}});
    let three: &[&str] = &["A", "B", "C"];
    vec![
        (
            "small",
            predictor(card(small.clone(), linear.clone(), 80, three)),
        ),
        (
            "grouped",
            predictor(card(grouped.clone(), top.clone(), 96, three)),
        ),
        (
            "linear",
            predictor(card(grouped.clone(), linear.clone(), 80, three)),
        ),
        (
            "one label",
            predictor(card(grouped.clone(), top, 96, &["A"])),
        ),
        (
            "one label, linear",
            predictor(card(grouped, linear.clone(), 80, &["A"])),
        ),
        (
            "densenet121",
            predictor(card(json!("densenet121"), linear, 64, three)),
        ),
    ]
}

/// `cxr predict` may cut its images into batches, and a stopped call goes on with others: a row of its table must not
/// depend on that.
#[test]
fn a_logit_does_not_depend_on_the_images_beside_it() {
    for (name, predictor) in predictors() {
        // More than a product of the dense layer takes at once.
        let images = images(&predictor, if name == "densenet121" { 17 } else { 70 });
        let together = predictor.logits(&images, ViewSet::Single).unwrap();
        assert_ne!(together[0], together[1], "{name}");
        let features = predictor.features(&images).unwrap();
        for batch_size in [1, 2, 3, 8, 16, 64] {
            let batches = || images.chunks(batch_size);
            let logits =
                batches().flat_map(|batch| predictor.logits(batch, ViewSet::Single).unwrap());
            assert_eq!(logits.collect::<Vec<_>>(), together, "{name}, {batch_size}");
            let means = batches().flat_map(|batch| predictor.features(batch).unwrap());
            assert_eq!(means.collect::<Vec<_>>(), features, "{name}, {batch_size}");
        }
        let backwards: Vec<PreparedImage> = images.iter().rev().cloned().collect();
        let mut logits = predictor.logits(&backwards, ViewSet::Single).unwrap();
        logits.reverse();
        assert_eq!(logits, together, "{name}");
    }
}

#[test]
fn a_set_of_views_is_the_mean_of_its_views() {
    let (_, predictor) = predictors().remove(1);
    let images = images(&predictor, 3);
    let logits = |set| predictor.logits(&images, set).unwrap();
    let flipped: Vec<PreparedImage> = images
        .iter()
        .map(|image| {
            let rows = image.pixels().chunks(image.side());
            let pixels = rows.flat_map(|row| row.iter().rev().copied()).collect();
            predictor.prepared(pixels).unwrap()
        })
        .collect();
    let of_flipped = predictor.logits(&flipped, ViewSet::Single).unwrap();
    let (single, both) = (logits(ViewSet::Single), logits(ViewSet::HorizontalFlip));
    for ((single, flipped), both) in single.iter().zip(&of_flipped).zip(&both) {
        for ((single, flipped), both) in single.iter().zip(flipped).zip(both) {
            assert_eq!((single + flipped) / 2., *both);
        }
    }
}

#[test]
fn images_of_another_size_and_numbers_that_are_none_are_refused() {
    let (_, predictor) = predictors().remove(0);
    let error = predictor
        .prepared(vec![0; 95 * 96])
        .unwrap_err()
        .to_string();
    assert!(error.contains("96×96"), "{error}");
    assert_eq!(
        predictor
            .logits(&[] as &[PreparedImage], ViewSet::Single)
            .unwrap(),
        Vec::<Vec<f32>>::new()
    );

    let parameters = predictor.classifier().parameters();
    let mut tensors = parameters.tensors("");
    for tensor in tensors.values_mut() {
        *tensor = tensor.copy().unwrap();
    }
    let bias = Tensor::new(&[0f32, f32::INFINITY, 0.], &Device::Cpu).unwrap();
    tensors.insert("top.dense.bias".to_owned(), bias);
    parameters.load("", &tensors).unwrap();
    let error = predictor.logits(&images(&predictor, 2), ViewSet::Single);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("the logit of `B` for image 0 of the call is inf"),
        "{error}"
    );
}
