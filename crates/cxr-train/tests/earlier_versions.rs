//! What earlier versions wrote is read: complete experiments, model files, and runs that go on from their checkpoints.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::{DType, Device, Tensor};
use cxr_ops::WeightFile;
use cxr_train::{
    Experiment, Phase, RunFolder, TrainOutcome, Trainer, complete, is_written_as, load_model,
};
use phantoms::{StopAfter, data};
use serde_json::{Value, json};

const EXPERIMENT: &str = include_str!("earlier/experiment.toml");

/// The same experiment as people write it today.
fn today() -> Experiment {
    let at = EXPERIMENT.find("[model.backbone").unwrap();
    let end = EXPERIMENT.find("[augmentation]").unwrap();
    let model = r#"
        [model]
        backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
        head = { top-network = { conv_channels = [8, 8], hidden = 8 } }
    "#;
    let text = format!("{}{model}{}", &EXPERIMENT[..at], &EXPERIMENT[end..]);
    Experiment::parse(&text).unwrap()
}

#[test]
fn a_complete_experiment_is_read_as_the_same_run() {
    let variant = today().variant("fzlpr-0.2").unwrap();
    let earlier = Experiment::parse(EXPERIMENT).unwrap();
    let earlier = earlier.variant("fzlpr-0.2").unwrap();
    assert_eq!(complete(&earlier).unwrap(), complete(&variant).unwrap());
    assert!(is_written_as(&variant, EXPERIMENT));
    assert!(!is_written_as(
        &variant,
        &EXPERIMENT.replace("growth = 4", "growth = 8")
    ));
    assert!(!is_written_as(
        &variant,
        &EXPERIMENT.replace("hidden = 8", "hidden = 16")
    ));
}

#[test]
fn the_options_of_a_top_network_that_is_not_there_are_no_difference() {
    let text = EXPERIMENT.replace("[model.backbone", "[model.head.linear]\n[model.backbone");
    let linear = Experiment::parse(&text).unwrap();
    let linear = linear.variant("fzlpr-0.2").unwrap();
    assert!(is_written_as(&linear, &text));
    let linear = complete(&linear).unwrap();
    assert_eq!(linear.experiment().model.head.name(), "linear");
    assert_eq!(
        linear.experiment().model.head.options(),
        &json!({"dropout": 0.0})
    );
}

#[test]
fn a_model_file_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/earlier/model.safetensors");
    let (card, classifier) = load_model(&path, &Device::Cpu).unwrap();
    let expected = complete(&today().variant("fzlpr-0.2").unwrap()).unwrap();
    assert_eq!(card.backbone, expected.experiment().model.backbone);
    assert_eq!(card.head, expected.experiment().model.head);
    let images = Tensor::zeros((1, 3, 56, 56), DType::F32, &Device::Cpu).unwrap();
    let logits = classifier.forward_t(&images, Phase::Evaluate).unwrap();
    assert_eq!(logits.dims(), [1, 14]);
}

/// Puts another experiment into a checkpoint.
fn rewrite(checkpoint: &Path, experiment: &str) {
    let file = WeightFile::parse(&std::fs::read(checkpoint).unwrap()).unwrap();
    let mut description: Value = serde_json::from_str(&file.description.unwrap()).unwrap();
    description["experiment"] = experiment.into();
    let tensors: BTreeMap<String, Tensor> = file.tensors;
    let bytes = WeightFile::to_bytes(&description.to_string(), &tensors).unwrap();
    std::fs::write(checkpoint, bytes).unwrap();
}

/// A run that stops in the middle, whose checkpoint is then of `experiment`, goes on to the end; or says why not.
fn go_on(folder: &Path, name: &str, experiment: Option<&str>) -> Result<Vec<u8>, String> {
    let data = data(folder);
    let variant = today().variant("fzlpr-0.2").unwrap();
    let run = RunFolder::open(folder.join(name)).unwrap();
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        left: AtomicUsize::new(5),
        stop: &stop,
    };
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let outcome = trainer.run(&mut observer, &stop).unwrap();
    assert!(matches!(outcome, TrainOutcome::Stopped(_)));
    drop(trainer);
    if let Some(experiment) = experiment {
        rewrite(
            &folder.join(name).join("checkpoints/latest.safetensors"),
            experiment,
        );
    }
    let trainer = Trainer::new(&variant, &data, &run, &Device::Cpu);
    let mut trainer = trainer.map_err(|error| error.to_string())?;
    let outcome = trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
    assert!(matches!(outcome, TrainOutcome::Finished { .. }));
    Ok(std::fs::read(run.model_file()).unwrap())
}

#[test]
fn a_run_goes_on_from_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let expected = go_on(path, "today", None).unwrap();
    let found = go_on(path, "earlier", Some(EXPERIMENT)).unwrap();
    assert!(found == expected);
    let other = EXPERIMENT.replace("growth = 4", "growth = 8");
    let error = go_on(path, "other", Some(&other)).unwrap_err();
    assert!(error.contains("holds another run"), "{error}");
}
