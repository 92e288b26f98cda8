//! What a network says of an image does not depend on the images beside it.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use candle_core::{DType, Device, Tensor};
use cxr_train::{Classifier, Experiment, ModelCard, Phase};

fn bits(tensor: &Tensor) -> Vec<Vec<u32>> {
    let rows = tensor.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    let bits = |row: Vec<f32>| row.into_iter().map(f32::to_bits).collect();
    rows.into_iter().map(bits).collect()
}

#[test]
fn logits_do_not_depend_on_the_batch() {
    for (backbone, image, crop) in [
        (
            "{ densenet = { stem_channels = 32, growth_rate = 16, block_layers = [2, 4, 4, 4] } }",
            256,
            224,
        ),
        (
            "{ densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }",
            64,
            56,
        ),
    ] {
        let text = format!(
            r#"
            name = "batches"
            [model]
            backbone = {backbone}
            [augmentation]
            image_size = {image}
            crop_size = {crop}
            [[training.stages]]
            name = "all layers"
            epochs = 1
            schedule = {{ cosine = {{ learning_rate = 1e-3, min_learning_rate = 1e-5 }} }}
            [[variants]]
            name = "bce"
            loss = "bce"
            "#
        );
        let experiment = Experiment::parse(&text).unwrap();
        let labels: Vec<String> = (0..14).map(|label| format!("label {label}")).collect();
        let variant = experiment.variant("bce").unwrap();
        let card = ModelCard::new(&variant, &labels).unwrap();
        let classifier = Classifier::new(&card, 3, &Device::Cpu).unwrap();
        let n_images = 33;
        let values =
            (0..n_images * 3 * crop * crop).map(|at| ((at * 7919) % 1013) as f32 / 500. - 1.);
        let images = Tensor::from_iter(values, &Device::Cpu).unwrap();
        let images = images
            .reshape((n_images, 3, crop, crop))
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        let mut features = Vec::new();
        let mut logits = Vec::new();
        for size in [1, 2, 3, 5, 8, 16, 32, 33] {
            let mut all_features = Vec::new();
            let mut all_logits = Vec::new();
            for first in (0..n_images).step_by(size) {
                let batch = images.narrow(0, first, size.min(n_images - first)).unwrap();
                let maps = classifier.features(&batch, Phase::Evaluate).unwrap();
                all_logits.extend(bits(&classifier.logits(&maps, Phase::Evaluate).unwrap()));
                all_features.extend(bits(&maps));
            }
            features.push((size, all_features));
            logits.push((size, all_logits));
        }
        for (size, found) in &features {
            assert!(
                *found == features[0].1,
                "{backbone}: features in batches of {size}"
            );
        }
        for (size, found) in &logits {
            assert!(
                *found == logits[0].1,
                "{backbone}: logits in batches of {size}"
            );
        }
    }
}
