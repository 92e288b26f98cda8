//! The example of parts from outside this workspace, and what a run knows of them.

#[expect(dead_code, reason = "its `main` is for whoever runs the example")]
#[path = "../examples/own_data/main.rs"]
mod own_data;

#[expect(clippy::duplicate_mod, reason = "the example keeps its own to itself")]
#[path = "../examples/own_data/images.rs"]
mod images;

use candle_core::Device;
use cxr_train::{
    Component, Experiment, ModelCard, OwnParts, RunFolder, TrainError, TrainOutcome, Trainer,
    TrainingData, check_experiment, load_model,
};

#[test]
fn the_example_learns_and_its_run_is_known_by_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    images::write(folder.path()).unwrap();
    let TrainOutcome::Finished { history, best } = own_data::train(folder.path()).unwrap() else {
        panic!("nothing stops it")
    };
    assert!(
        history[5].mean_loss < 0.5 * history[0].mean_loss,
        "{history:?}"
    );
    // Chance is 0.5.
    assert!(best.unwrap().validation_auc > 0.9);

    let run = folder.path().join("run");
    let text = std::fs::read_to_string(run.join("experiment.toml")).unwrap();
    let names = "# not of this file: head `max`, loss `brier`, transform `exposure`\n";
    assert!(text.ends_with(names), "{text}");
    assert!(
        text.contains("[model.head]\ncustom = \"max\"\n") && text.contains("loss = \"brier\""),
        "{text}"
    );
    let card = ModelCard::read(&run.join("model.safetensors")).unwrap();
    assert_eq!(card.head, Component::custom("max"));
    assert_eq!(card.loss, "brier");
    let error = load_model(&run.join("model.safetensors"), &Device::Cpu)
        .err()
        .unwrap();
    assert!(error.to_string().contains("head `max`"), "{error}");

    // Without its parts it is no run of this program.
    let experiment = Experiment::parse(&text).unwrap();
    let error = check_experiment(&experiment).unwrap_err().to_string();
    assert!(
        error.contains("got `max`, which is its author's own"),
        "{error}"
    );
    let variant = experiment.variant("own").unwrap();
    let table = folder.path().join("labels.csv");
    let data = TrainingData::from_table(&table, folder.path(), 4, &experiment).unwrap();
    let run = RunFolder::open(&run).unwrap();
    let error = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &OwnParts::new()).err();
    let error = error.unwrap().to_string();
    assert!(
        error.contains("head `max`, which is its author's own"),
        "{error}"
    );
    // With another head it is another run.
    let experiment = Experiment::parse(include_str!("../examples/own_data/own.toml")).unwrap();
    let variant = experiment.variant("own").unwrap();
    let other = OwnParts::new().head("mean", |(maps, ..), labels, path| {
        cxr_top::LinearHead::new(maps, labels, &Default::default(), path)
    });
    let error = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &other).err();
    let error = error.unwrap();
    assert!(
        matches!(&error, TrainError::AnotherRun { what, .. } if what.contains("max")),
        "{error}"
    );
}

/// The network that a model file with own parts is read into.
#[test]
fn weights_load_into_a_network_that_was_built_before() {
    use cxr_top::LinearHeadConfig;
    use cxr_train::{ModelCard, OwnNetwork, load_weights, save_model};
    let text = include_str!("../examples/own_data/own.toml");
    let experiment = Experiment::parse(text).unwrap();
    let variant = experiment.variant("own").unwrap();
    let card = ModelCard::new(&variant, &["A", "B"]).unwrap();
    let parts = OwnNetwork::new().head("linear", |(maps, ..), labels, path| {
        cxr_top::LinearHead::new(
            maps,
            labels,
            &LinearHeadConfig {
                dropout: 0.5,
                ..LinearHeadConfig::default()
            },
            path,
        )
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let saved = parts.classifier(&card, 1, &Device::Cpu).unwrap();
    save_model(&path, &card, &saved).unwrap();
    let loaded = parts.classifier(&card, 2, &Device::Cpu).unwrap();
    let values = |network: &cxr_train::Classifier| -> Vec<Vec<f32>> {
        let tensors = network.parameters().tensors("").into_values();
        tensors
            .map(|tensor| tensor.flatten_all().unwrap().to_vec1().unwrap())
            .collect()
    };
    assert_ne!(values(&saved), values(&loaded));
    assert_eq!(load_weights(&path, &loaded).unwrap(), card);
    assert_eq!(values(&saved), values(&loaded));
    // The experiment's own head has other tensors.
    let other = OwnNetwork::new()
        .classifier(&card, 2, &Device::Cpu)
        .unwrap();
    let error = load_weights(&path, &other).unwrap_err().to_string();
    assert!(error.contains("`top.conv1.bias` is missing"), "{error}");
}

#[test]
fn another_seed_trains_validates_and_tests_on_the_same_images_of_an_own_table() {
    let folder = tempfile::tempdir().unwrap();
    images::write(folder.path()).unwrap();
    let experiment = Experiment::parse(include_str!("../examples/own_data/own.toml")).unwrap();
    let table = folder.path().join("labels.csv");
    let split = |experiment: &Experiment| {
        let data = TrainingData::from_table(&table, folder.path(), 4, experiment).unwrap();
        data.split().clone()
    };
    let of_seed = |seed| experiment.variant_with_seed("own", seed).unwrap();
    let first = split(&experiment);
    assert_eq!(split(of_seed(experiment.seed + 1).experiment()), first);
    // The seed of the split, where it is said, is what decides.
    let mut other = experiment.clone();
    other.data.split_seed = Some(experiment.seed + 1);
    assert_ne!(split(&other), first);
}
