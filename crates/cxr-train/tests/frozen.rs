//! Frozen extractors as the backbone of an experiment file.

#![cfg(feature = "transformers")]
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../examples/own_data/images.rs"]
mod images;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Tensor};
use cxr_train::{
    Classifier, Experiment, ModelCard, RunFolder, TrainOutcome, Trainer, TrainingData,
    check_experiment, load_model,
};

const EXPERIMENT: &str = r#"
name = "frozen"
[data]
validation = { patient-fold = { fold = 0, of = 4 } }
[model]
backbone = { dinov2 = { depth = 1, width = 8, heads = 2 } }
weights = "WEIGHTS"
head = { linear = {} }
[augmentation]
image_size = 48
crop_size = 42
[training]
batch_size = 12
[[training.stages]]
name = "head"
epochs = 2
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-2 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// Random weights of an experiment's backbone, as published.
fn weights(experiment: &str, path: &Path) {
    let variant = Experiment::parse(experiment)
        .unwrap()
        .variant("bce")
        .unwrap();
    let card = ModelCard::new(&variant, &["A", "B"]).unwrap();
    let classifier = Classifier::new(&card, 0, &Device::Cpu).unwrap();
    let names = classifier.parameters().tensors("features.").into_iter();
    let tensors: HashMap<String, Tensor> = names
        .map(|(name, tensor)| {
            let random = Tensor::randn(0f32, 0.2, tensor.shape(), &Device::Cpu).unwrap();
            (name.strip_prefix("features.").unwrap().to_owned(), random)
        })
        .collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

#[test]
fn an_experiment_trains_a_head_on_frozen_features() {
    let folder = tempfile::tempdir().unwrap();
    images::write(folder.path()).unwrap();
    let path = folder.path().join("weights.safetensors");
    let text = EXPERIMENT.replace("WEIGHTS", path.to_str().unwrap());
    weights(&text, &path);
    let experiment = Experiment::parse(&text).unwrap();
    let variant = experiment.variant("bce").unwrap();
    let table = folder.path().join("labels.csv");
    let data = TrainingData::from_table(&table, folder.path(), 4, &experiment).unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let outcome = trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
    assert!(matches!(outcome, TrainOutcome::Finished { .. }));

    // The model file stands alone, its backbone is the published one.
    let (_, classifier) = load_model(&run.model_file(), &Device::Cpu).unwrap();
    let published = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let values = |tensor: &Tensor| -> Vec<f32> { tensor.flatten_all().unwrap().to_vec1().unwrap() };
    let loaded = classifier.parameters().tensors("features.");
    assert_eq!(loaded.len(), published.len());
    for (name, tensor) in &published {
        assert_eq!(
            values(tensor),
            values(&loaded[&format!("features.{name}")]),
            "{name}"
        );
    }
}

/// Reads an experiment and checks all of it.
fn check(text: &str) -> Result<(), String> {
    let experiment = Experiment::parse(text).map_err(|error| error.to_string())?;
    check_experiment(&experiment).map_err(|error| error.to_string())
}

#[test]
fn what_a_frozen_backbone_cannot_do_is_refused_with_the_reason() {
    let convnext = r#"{ convnext = { size = "tiny" } }"#;
    let dino = "{ dinov2 = { depth = 1, width = 8, heads = 2 } }";
    for (changes, expected) in [
        (
            vec![(r#"frozen = ["features."]"#, "")],
            "`training.stages[0].frozen` of the experiment must be such that it has `features.`: DINOv2 (1 layers, 8 features, 2 heads) is a frozen feature extractor",
        ),
        (
            vec![(r#"["features."]"#, r#"["features.blocks"]"#)],
            "is a frozen feature extractor, whose layers give no gradients",
        ),
        (
            vec![("weights = \"WEIGHTS\"\n", "")],
            "`model.weights` of the experiment must be a file of weights",
        ),
        (vec![("= 42", "= 40")], "must be a multiple of 14"),
        (
            vec![
                (dino, convnext),
                ("= 42", "= 32"),
                ("head = { linear = {} }", ""),
            ],
            "`model.head` of the experiment must be `{ linear = {} }`",
        ),
        (vec![("\"head\"", "\"head\"\nfrozn = 1")], "frozn"),
        (
            vec![("linear = {}", "linear = { dropout = 1.0 }")],
            "in [0, 1)",
        ),
    ] {
        let mut text = EXPERIMENT.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let error = check(&text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    // What is refused is only that.
    let text = EXPERIMENT.replace(dino, convnext).replace("= 42", "= 32");
    check(&text).unwrap();
    check(&EXPERIMENT.replace(dino, r#"{ dinov2 = "small" }"#)).unwrap();
}
