//! Variants that differ from their experiment in more than the loss.

use cxr_run::{Experiment, LabelWeights, OptimiserConfig, UncertaintyPolicy};

const TEXT: &str = r#"
name = "systems"
[model]
backbone = "densenet121"
[augmentation]
image_size = 256
crop_size = 224
[training]
batch_size = 64
[[training.stages]]
name = "all"
epochs = 2
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "ours"
loss = "fzlpr"
tau = 0.2
[[variants]]
name = "theirs"
loss = "focal"
gamma = 1.5
transforms = [{ rand-augment = { magnitude = 5 } }]
[variants.model]
backbone = "resnet50"
head = { csra = { lambda = 0.3 } }
[variants.augmentation]
image_size = 512
crop_size = 448
[variants.training]
batch_size = 16
optimiser = { kind = "adam" }
[[variants.training.stages]]
name = "all at once"
epochs = 7
schedule = { constant = { learning_rate = 1e-4 } }
"#;

#[test]
fn a_variant_says_its_system_its_test_images_its_policy_and_its_weights() {
    let text = TEXT.replace(
        "transforms = [{",
        "system = \"theirs-2020\"\nhold_out = 5\nuncertain = { default = \"ones\" }\n\
         label_weights = { effective-number = 0.99 }\ntransforms = [{",
    );
    let experiment = Experiment::parse(&text).unwrap();
    let ours = experiment.variant("ours").unwrap();
    assert_eq!(ours.chosen().system, None);
    assert_eq!(ours.experiment().survey_options().unwrap().hold_out, None);
    let theirs = experiment.variant("theirs").unwrap();
    assert_eq!(theirs.chosen().system.as_deref(), Some("theirs-2020"));
    let weights = Some(LabelWeights::EffectiveNumber(0.99));
    assert_eq!(theirs.chosen().label_weights, weights);
    let own = theirs.experiment();
    assert_eq!(own.survey_options().unwrap().hold_out, Some(5));
    assert_eq!(own.data.uncertain.default, UncertaintyPolicy::Ones);
    // The run's own file says all of it, and is read as the same run.
    let written = theirs.to_toml().unwrap();
    let again = Experiment::parse(&written).unwrap();
    assert_eq!(again.variant("theirs").unwrap(), theirs);

    for (good, bad, key) in [
        ("hold_out = 5", "hold_out = 1", "data.hold_out"),
        ("theirs-2020", "theirs 2020", "variants[1].system"),
        (
            "= 0.99 ",
            "= 1.0 ",
            "variants[1].label_weights.effective-number",
        ),
    ] {
        let error = Experiment::parse(&text.replace(good, bad))
            .unwrap_err()
            .to_string();
        assert!(error.contains(key), "{bad}: {error}");
    }
}

#[test]
fn so_many_seeds_are_the_experiment_s_and_not_a_run_s() {
    let text = TEXT.replace("name = \"systems\"", "name = \"systems\"\nseeds = 3");
    let experiment = Experiment::parse(&text).unwrap();
    assert_eq!(experiment.seeds, 3);
    let run = experiment.variant("ours").unwrap();
    assert!(!run.to_toml().unwrap().contains("seeds"));
    let error = Experiment::parse(&text.replace("seeds = 3", "seeds = 0")).unwrap_err();
    assert!(error.to_string().contains("seeds"), "{error}");
}

#[test]
fn a_variant_s_tables_take_the_place_of_the_experiment_s() {
    let experiment = Experiment::parse(TEXT).unwrap();
    let ours = experiment.variant("ours").unwrap();
    assert_eq!(ours.experiment().model.backbone.name(), "densenet121");
    assert_eq!(ours.experiment().training.batch_size, 64);
    assert!(ours.experiment().transforms.is_empty());

    let theirs = experiment.variant("theirs").unwrap();
    let own = theirs.experiment();
    assert_eq!(own.model.backbone.name(), "resnet50");
    assert_eq!(own.model.head.name(), "csra");
    assert_eq!(own.augmentation.image_size(), 512);
    assert_eq!(own.transforms.len(), 1);
    assert_eq!(own.training.batch_size, 16);
    assert_eq!(own.training.stages[0].name, "all at once");
    assert!(matches!(own.training.optimiser, OptimiserConfig::Adam(_)));
    assert_eq!(theirs.chosen().parameters["gamma"], 1.5);
    assert_eq!(theirs.chosen().parameters.len(), 1);
    assert!(!theirs.chosen().has_tables());
    // Other seeds are of the same network.
    let again = experiment.variant_with_seed("theirs", 9).unwrap();
    assert_eq!(again.experiment().model, own.model);
}

/// The file in a run folder is an ordinary experiment, and means the same run.
#[test]
fn a_run_s_file_has_the_tables_in_their_usual_place() {
    let experiment = Experiment::parse(TEXT).unwrap();
    let theirs = experiment.variant("theirs").unwrap();
    let text = theirs.to_toml().unwrap();
    assert!(!text.contains("variants.model"), "{text}");
    let read = Experiment::parse(&text).unwrap();
    assert_eq!(read.variant("theirs").unwrap(), theirs);
    // So is the whole file's.
    let whole = toml::to_string(&experiment).unwrap();
    assert_eq!(Experiment::parse(&whole).unwrap(), experiment);
}

#[test]
fn what_is_wrong_in_a_variant_is_named_by_its_place() {
    for (old, new, words) in [
        (
            "batch_size = 16",
            "batch_size = 1",
            "variants[1].training.batch_size",
        ),
        (
            "epochs = 7",
            "epochs = 0",
            "variants[1].training.stages[0].epochs",
        ),
        ("[variants.model]", "[variants.modle]", "modle"),
        ("crop_size = 448", "crop_size = 640", "crop_size"),
        ("gamma = 1.5", "gamma = \"high\"", "gamma"),
    ] {
        assert!(TEXT.contains(old), "{old}");
        let error = Experiment::parse(&TEXT.replace(old, new)).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
