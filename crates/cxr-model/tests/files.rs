//! Model files: written and read back, and what is said of files that are none.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use cxr_model::{
    Calibration, Classifier, DataCard, LabelCalibration, ModelCard, Origin, OwnNetwork,
    ThresholdOrigin, ThresholdRule, ValidationAucs, ViewSet, load_model, load_model_with,
    save_backbone, save_model, write_weight_file,
};
use cxr_ops::{Init, Linear, OpsError, Phase};
use serde_json::{Value, json};

fn description() -> Value {
    json!({
        "experiment": "tiny", "variant": "bce", "loss": "bce", "loss_parameters": {},
        "labels": ["Edema", "Hernia"], "image_size": 64, "crop_size": 48,
        "backbone": {"densenet": {"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 1]}},
        "head": {"linear": {}},
        "normalization_mean": [0.485, 0.456, 0.406], "normalization_std": [0.229, 0.224, 0.225],
        "logit_thresholds": [0.0, 0.5],
    })
}

fn card() -> ModelCard {
    ModelCard::parse(&description().to_string()).unwrap()
}

fn network(card: &ModelCard) -> Classifier {
    Classifier::new(card, 3, &Device::Cpu).unwrap()
}

fn problem(path: &Path) -> String {
    load_model(path, &Device::Cpu).unwrap_err().to_string()
}

#[test]
fn a_complete_card_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let origin = Origin {
        part: "validation".to_owned(),
        images: 150,
        views: ViewSet::HorizontalFlip,
        fingerprint: Some("ab12".to_owned()),
    };
    let full = ModelCard {
        stretched: true,
        threshold_origin: ThresholdOrigin {
            rule: ThresholdRule::Sensitivity(0.9),
            fitted_on: Some(origin.clone()),
        },
        calibration: Some(Calibration {
            labels: vec![
                LabelCalibration::Platt {
                    slope: 1.1,
                    intercept: -0.25,
                },
                LabelCalibration::None {},
            ],
            origin,
        }),
        data: Some(DataCard {
            release: "own table".to_owned(),
            fingerprint: "cd34".to_owned(),
            split: "by patient".to_owned(),
            split_seed: 7,
            train: 100,
            validation: 20,
            test: 30,
        }),
        validation: Some(ValidationAucs {
            views: ViewSet::Single,
            images: 20,
            labels: vec![Some(0.75), None],
            mean: Some(0.75),
        }),
        licence: Some("CC-BY-4.0".to_owned()),
        intended_use: Some("research".to_owned()),
        ..card()
    };
    for card in [card(), full] {
        let network = network(&card);
        save_model(&path, &card, &network).unwrap();
        let (found, again) = load_model(&path, &Device::Cpu).unwrap();
        assert_eq!(found, card);
        assert_eq!(ModelCard::read(&path).unwrap(), card);
        let images = Tensor::ones((1, 3, 48, 48), DType::F32, &Device::Cpu).unwrap();
        let logits = |network: &Classifier| -> Vec<Vec<f32>> {
            let logits = network.forward_t(&images, Phase::Evaluate).unwrap();
            logits.to_vec2().unwrap()
        };
        assert_eq!(logits(&again), logits(&network));
    }
}

#[test]
fn an_entry_that_does_not_fit_the_others_is_named() {
    for (key, value, expected) in [
        ("labels", json!([]), "labels must be at least one"),
        (
            "logit_thresholds",
            json!([0.0]),
            "thresholds must be 2, one for each label, got 1",
        ),
        ("image_size", json!(0), "image size must be 1 to 8192"),
        (
            "crop_size",
            json!(65),
            "crop size must be 1 to the image size, 64",
        ),
        (
            "normalization_std",
            json!([0.0, 1.0, 1.0]),
            "`std`: expected a positive number",
        ),
        ("backbone", json!("resnet"), "must be one of `densenet121`,"),
        (
            "backbone",
            json!({"densenet": {"stem_channels": 8, "growth_rate": 0, "block_layers": [1]}}),
            "growth_rate` of the experiment must be at least 1",
        ),
        ("head", json!({"linear": {"dropuot": 0.1}}), "got `dropuot`"),
        (
            "calibration",
            json!({
                "labels": [{"method": "temperature", "temperature": -1.0}, {"method": "none"}],
                "origin": {"part": "validation", "images": 1, "views": "single"},
            }),
            "a temperature above 0 for `Edema`",
        ),
        (
            "calibration",
            json!({
                "labels": [{"method": "none"}],
                "origin": {"part": "validation", "images": 1, "views": "single"},
            }),
            "calibrated labels must be 2",
        ),
    ] {
        let mut description = description();
        description[key] = value;
        let error = ModelCard::parse(&description.to_string()).unwrap_err();
        assert!(error.contains(expected), "{key}: {error}");
    }
}

#[test]
fn what_is_no_model_file_says_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let tensors = BTreeMap::from([(
        "conv1.weight".to_owned(),
        Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap(),
    )]);

    // Weights as other programs write them.
    let map: std::collections::HashMap<_, _> = tensors.clone().into_iter().collect();
    candle_core::safetensors::save(&map, &path).unwrap();
    for error in [
        problem(&path),
        ModelCard::read(&path).unwrap_err().to_string(),
    ] {
        assert!(
            error.contains("is not a usable model: it does not say what it is of")
                && error.contains("`model.weights`"),
            "{error}"
        );
    }

    // A description of something else.
    let mut description = description();
    description.as_object_mut().unwrap().remove("labels");
    description.as_object_mut().unwrap().remove("crop_size");
    write_weight_file(&path, &description, &tensors).unwrap();
    let error = problem(&path);
    assert!(
        error.contains("its description lacks `labels`, `crop_size`"),
        "{error}"
    );

    let checkpoint = json!({"experiment": "", "progress": {}, "optimiser_steps": 3});
    write_weight_file(&path, &checkpoint, &tensors).unwrap();
    let error = problem(&path);
    assert!(
        error.contains("it is a checkpoint of a training"),
        "{error}"
    );

    save_backbone(&path, &card(), &network(&card()), None).unwrap();
    let error = problem(&path);
    assert!(error.contains("it holds a backbone alone"), "{error}");

    std::fs::write(&path, b"no such file").unwrap();
    assert!(problem(&path).contains("weights.safetensors"));
}

#[test]
fn own_parts_are_asked_for_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    struct Mean(Linear);
    impl cxr_model::Head for Mean {
        fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> candle_core::Result<Tensor> {
            self.0.forward_t(&features.mean((2, 3))?, phase)
        }
    }
    let own = |name| {
        OwnNetwork::new().head(name, |(channels, ..), labels, path| {
            Ok::<_, OpsError>(Mean(Linear::new(
                channels,
                labels,
                Init::GlorotUniform,
                &path.pp("mean"),
            )?))
        })
    };
    let card = ModelCard {
        own_parts: vec!["head `mean`".to_owned(), "loss `brier`".to_owned()],
        ..card()
    };
    let network = own("mean").classifier(&card, 1, &Device::Cpu).unwrap();
    save_model(&path, &card, &network).unwrap();
    let error = problem(&path);
    assert!(
        error.contains("its head `mean` are the author's own")
            && error.contains("`load_model_with`"),
        "{error}"
    );
    let load = |name| load_model_with(&path, &own(name), &Device::Cpu);
    assert_eq!(load("mean").unwrap().0, card);
    let error = load("other").unwrap_err().to_string();
    assert!(error.contains("its head `mean`"), "{error}");

    // A loss of one's own is no part of the network.
    let card = ModelCard {
        own_parts: vec!["loss `brier`".to_owned()],
        ..self::card()
    };
    save_model(&path, &card, &self::network(&card)).unwrap();
    load_model(&path, &Device::Cpu).unwrap();
    let error = load("mean").unwrap_err().to_string();
    assert!(error.contains("it has no head `mean`"), "{error}");
}

/// A card of a head that asks for inputs says how they are encoded, and a card of another head says nothing of it.
#[test]
fn a_card_encodes_what_its_head_asks_for() {
    let mut asking = description();
    asking["head"] = json!({"linear": {"inputs": ["age", "view"]}});
    let error = ModelCard::parse(&asking.to_string()).unwrap_err();
    assert!(
        error.contains("non-image inputs must be those of its head, `age`, `view`, got none"),
        "{error}"
    );
    asking["inputs"] =
        json!([{"input": "age", "minimum": 0.0, "maximum": 100.0}, {"input": "view"}]);
    let card = ModelCard::parse(&asking.to_string()).unwrap();
    let network = network(&card);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_model(&path, &card, &network).unwrap();
    let (found, again) = load_model(&path, &Device::Cpu).unwrap();
    assert_eq!(found, card);
    let images = Tensor::ones((2, 3, 48, 48), DType::F32, &Device::Cpu).unwrap();
    let error = again.forward_t(&images, Phase::Evaluate).unwrap_err();
    assert!(error.to_string().contains("`age`, `view`"), "{error}");
    let given = Tensor::zeros((2, 4), DType::F32, &Device::Cpu).unwrap();
    let logits = again.forward_with(&images, Some(&given), Phase::Evaluate);
    assert_eq!(logits.unwrap().dims(), [2, 2]);

    let mut plain = description();
    plain["inputs"] = json!([{"input": "sex"}]);
    let error = ModelCard::parse(&plain.to_string()).unwrap_err();
    assert!(
        error.contains("those of its head, none, got `sex`"),
        "{error}"
    );
    asking["inputs"][0]["maximum"] = json!(0.0);
    let error = ModelCard::parse(&asking.to_string()).unwrap_err();
    assert!(error.contains("range of ages"), "{error}");
}
