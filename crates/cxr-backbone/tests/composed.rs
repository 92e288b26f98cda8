//! Backbones of backbones: several joined, and one behind convolutions.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use cxr_backbone::{Backbone, by_name};
use cxr_ops::{Parameters, Phase, Role};
use serde_json::{Value, json};

fn tiny() -> Value {
    json!({"densenet": {"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 2]}})
}

fn images(side: usize) -> Tensor {
    let values: Vec<f32> = (0..2 * 3 * side * side)
        .map(|at| (at as f32 * 0.37).sin())
        .collect();
    Tensor::from_vec(values, (2, 3, side, side), &Device::Cpu).unwrap()
}

fn build(name: &str, options: &Value) -> (Parameters, Box<dyn Backbone>) {
    let parameters = Parameters::new(3, &Device::Cpu);
    let config = by_name(name, options).unwrap();
    let network = config.build(&parameters.root().pp("features")).unwrap();
    (parameters, network)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The features are the members' means side by side: built apart with the same parameters they are the same to the last bit.
#[test]
fn an_ensemble_is_its_members_side_by_side() {
    let options = json!({"members": [tiny(), "resnet18"]});
    let config = by_name("ensemble", &options).unwrap();
    assert!(config.to_string().ends_with(" + ResNet-18"), "{config}");
    let (parameters, network) = build("ensemble", &options);
    let images = images(64);
    let features = network.forward_t(&images, Phase::Evaluate).unwrap();
    let (channels, height, width) = config.feature_shape(64, 64);
    assert_eq!(features.dims(), [2, channels, height, width]);
    assert_eq!((height, width), (1, 1));

    let mut parts = Vec::new();
    for (at, member) in [tiny(), json!("resnet18")].iter().enumerate() {
        let (name, options) = match member {
            Value::String(name) => (name.clone(), Value::Null),
            Value::Object(table) => {
                let (name, options) = table.iter().next().unwrap();
                (name.clone(), options.clone())
            }
            other => panic!("{other}"),
        };
        let (alone, network) = build(&name, &options);
        let prefix = format!("features.members.{at}.");
        let tensors: BTreeMap<String, Tensor> = (parameters.tensors(&prefix).into_iter())
            .map(|(name, tensor)| (name.replace(&prefix, "features."), tensor))
            .collect();
        alone.load("features.", &tensors).unwrap();
        let maps = network.forward_t(&images, Phase::Evaluate).unwrap();
        parts.push(maps.mean_keepdim((2, 3)).unwrap());
    }
    let expected = Tensor::cat(&parts, 1).unwrap();
    assert_eq!(values(&features), values(&expected));
}

/// A gradient passes through the network to the convolutions before it.
#[test]
fn convolutions_before_a_network_are_trained() {
    let options = json!({"network": tiny(), "channels": 5});
    let (parameters, network) = build("downsampled", &options);
    let images = images(65);
    let config = by_name("downsampled", &options).unwrap();
    let features = network
        .forward_t(
            &images,
            Phase::Train {
                image_keys: &[1, 2],
            },
        )
        .unwrap();
    let (channels, height, width) = config.feature_shape(65, 65);
    assert_eq!(features.dims(), [2, channels, height, width]);
    let gradients = features
        .sqr()
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    for (name, var) in parameters.select(Role::Trainable, "features.") {
        let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name}"));
        let size = values(&gradient.abs().unwrap()).iter().sum::<f32>();
        assert!(size.is_finite() && size > 0., "{name}: {size}");
    }
    assert!(parameters.count("features.before.") > 0);
}

#[test]
fn what_is_no_list_of_backbones_is_refused_by_its_place() {
    for (name, options, words) in [
        ("ensemble", json!({"members": ["resnet18"]}), "members"),
        (
            "ensemble",
            json!({"members": ["resnet18", "resnet17"]}),
            "members[1]",
        ),
        (
            "ensemble",
            json!({"members": ["resnet18", {"densenet": {"growth": "x"}}]}),
            "members[1]",
        ),
        ("ensemble", json!({"parts": []}), "parts"),
        ("downsampled", json!({"network": 3}), "network"),
        (
            "downsampled",
            json!({"network": "resnet18", "channels": 0}),
            "channels",
        ),
    ] {
        let error = by_name(name, &options).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// Weights of the members in a folder, one file each; where one is missing, nothing has changed.
#[test]
fn an_ensemble_s_weights_are_a_folder_of_its_members_files() {
    let options = json!({"members": [tiny(), tiny()]});
    let folder = tempfile::tempdir().unwrap();
    let (given, _) = build("densenet", &tiny()["densenet"]);
    // As torchvision has them: with the prefix.
    let tensors: std::collections::HashMap<String, Tensor> =
        (given.tensors("features.").into_iter())
            .map(|(name, tensor)| {
                let changed = (tensor + 0.5).unwrap().to_dtype(DType::F32).unwrap();
                (name, changed)
            })
            .collect();
    candle_core::safetensors::save(&tensors, folder.path().join("0.safetensors")).unwrap();
    let config = by_name("ensemble", &options).unwrap();
    let (parameters, _) = build("ensemble", &options);
    let all = |parameters: &Parameters| -> Vec<Vec<f32>> {
        parameters
            .tensors("features.")
            .values()
            .map(values)
            .collect()
    };
    let before = all(&parameters);
    let error = config.load_weights(folder.path(), &parameters, "features.");
    assert!(error.unwrap_err().to_string().contains("1.safetensors"));
    assert_eq!(all(&parameters), before);
    std::fs::copy(
        folder.path().join("0.safetensors"),
        folder.path().join("1.safetensors"),
    )
    .unwrap();
    let report = config
        .load_weights(folder.path(), &parameters, "features.")
        .unwrap();
    assert_eq!(report.loaded, 2 * tensors.len());
    assert_ne!(all(&parameters), before);
}
