//! Every described network against torchvision (Xception: timm) in double precision, and its weight files.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use cxr_backbone::{BACKBONES, BackboneConfig, by_name};
use cxr_ops::{Parameters, Phase, Role};
use serde_json::{Value, json};

/// The bound of a relative error where PyTorch's own is smaller.
const FLOOR: f64 = 1e-4;
/// Biases before a normalisation have no gradient; single precision leaves this much of one.
const ZERO: f64 = 1e-3;

/// As the golden has it: nothing is dropped.
fn config(name: &str) -> Box<dyn BackboneConfig> {
    let entry = BACKBONES.iter().find(|entry| entry.name == name).unwrap();
    let has_depth = entry
        .options
        .iter()
        .any(|option| option.name == "stochastic_depth");
    let options = match has_depth {
        true => json!({"stochastic_depth": 0.}),
        false => Value::Null,
    };
    by_name(name, &options).unwrap()
}

/// Networks that are described.
fn described() -> impl Iterator<Item = &'static str> {
    let parse =
        |name: &&str| by_name(name, &Value::Null).is_ok_and(|net| net.description().is_some());
    BACKBONES.iter().map(|entry| entry.name).filter(parse)
}

#[test]
fn networks_agree_with_torchvision() {
    let golden = golden::read("networks.json");
    let golden = golden["networks"].as_object().unwrap();
    let mut failures = Vec::new();
    for name in described() {
        match golden.get(name) {
            Some(golden) => failures.extend(check(name, golden)),
            None => failures.push(format!("{name}: not in the golden file")),
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn check(name: &str, golden: &Value) -> Vec<String> {
    let shape: Vec<usize> = (golden["images"].as_array().unwrap().iter())
        .map(|v| v.as_u64().unwrap() as usize)
        .collect();
    let parameters = Parameters::new(0, &Device::Cpu);
    let config = config(name);
    let network = config.build(&parameters.root().pp("features")).unwrap();
    let trained: usize = parameters
        .select(Role::Trainable, "")
        .iter()
        .map(|(_, var)| var.elem_count())
        .sum();
    assert_eq!(
        trained as u64,
        golden["trained"].as_u64().unwrap(),
        "{}",
        name
    );
    let cost = config
        .description()
        .unwrap()
        .cost(shape[2], shape[3])
        .unwrap();
    assert_eq!(cost.parameters, parameters.count("") as u64, "{}", name);
    let weights = parameters
        .tensors("")
        .into_iter()
        .map(|(name, tensor)| (name.clone(), golden::parameter(&name, tensor.dims())))
        .collect();
    parameters.load("", &weights).unwrap();

    let images = golden::tensor(&format!("{} images", name), &shape, 2., 0.);
    let mut found = BTreeMap::new();
    let keys: Vec<u64> = (0..shape[0] as u64).collect();
    let plain = network.forward_t(&images, Phase::Evaluate).unwrap();
    let (maps, height, width) = network.feature_shape(shape[2], shape[3]);
    assert_eq!(plain.dims(), [shape[0], maps, height, width]);
    found.insert("features in evaluation without gradients", plain);
    let phases = [
        ("evaluation", Phase::Evaluate),
        ("training", Phase::Train { image_keys: &keys }),
    ];
    let mut found: BTreeMap<String, Tensor> = (found.into_iter())
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .collect();
    for (kind, phase) in phases {
        let images = Var::from_tensor(&images).unwrap();
        let features = network.forward_t(&images, phase).unwrap();
        let cotangent = golden::tensor(&format!("{} cotangent", name), features.dims(), 1., 0.);
        let loss = (&features * cotangent).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        found.insert(format!("features in {kind}"), features);
        let of_images = gradients
            .get(&images)
            .expect("images are asked for")
            .clone();
        found.insert(format!("images gradient in {kind}"), of_images);
        if kind == "training" {
            for (name, var) in parameters.select(Role::Trainable, "") {
                let gradient = gradients.get(&var).expect("every parameter is trained");
                found.insert(format!("{name} gradient"), gradient.clone());
            }
        }
    }
    for (name, var) in parameters.select(Role::Running, "") {
        found.insert(name, var.as_tensor().clone());
    }
    let expected = golden["expected"].as_object().unwrap();
    assert_eq!(found.len(), expected.len() + 1, "{}", name);
    let mut failures = Vec::new();
    let (mut largest, mut errors) = ((0., String::new()), Vec::new());
    let both = "features in evaluation";
    let plain = (both, &found["features in evaluation without gradients"]);
    let all = expected.keys().map(|name| (name.as_str(), &found[name]));
    for (what, tensor) in all.chain([plain]) {
        let full_name = format!("{name} {what}");
        match golden::compare(&full_name, tensor, &expected[what], FLOOR, ZERO) {
            Ok(error) => {
                errors.push(error);
                if error > largest.0 {
                    largest = (error, what.to_owned());
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    errors.sort_by(f64::total_cmp);
    println!(
        "{}: {trained} trained values, {} tensors, error {:.1e} in the median, at most {:.1e} ({}), {} above the bound",
        name,
        expected.len(),
        errors.get(errors.len() / 2).copied().unwrap_or(f64::NAN),
        largest.0,
        largest.1,
        failures.len()
    );
    failures
}

/// Counts of torchvision's documentation, less the classifier of a thousand classes.
#[test]
fn parameter_counts_are_the_published_ones() {
    let published = [
        ("resnet18", 11_689_512, 512),
        ("resnet50", 25_557_032, 2048),
        ("resnet152", 60_192_808, 2048),
        ("resnext50_32x4d", 25_028_904, 2048),
        ("mobilenet_v2", 3_504_872, 1280),
        ("efficientnet_b0", 5_288_548, 1280),
        ("efficientnet_b4", 19_341_616, 1792),
        ("efficientnet_v2_s", 21_458_488, 1280),
        ("inception_v3", 23_834_568, 2048),
        ("regnet_x_400mf", 5_495_976, 400),
        ("regnet_y_3_2gf", 19_436_338, 1512),
    ];
    for (name, with_classifier, features) in published {
        let config = config(name);
        let parameters = Parameters::new(0, &Device::Cpu);
        config.build(&parameters.root()).unwrap();
        let trained: usize = parameters
            .select(Role::Trainable, "")
            .iter()
            .map(|(_, var)| var.elem_count())
            .sum();
        assert_eq!(config.feature_shape(224, 224).0, features, "{name}");
        assert_eq!(trained + 1000 * (features + 1), with_classifier, "{name}");
    }
}

/// A file as torchvision writes it: with a classifier and counters of steps, and names with or without `features.`.
#[test]
fn files_of_torchvision_load_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for (name, prefix, classifier) in [
        ("resnet18", "", "fc.weight"),
        ("mobilenet_v2", "features.", "classifier.1.weight"),
    ] {
        let config = config(name);
        let build = || {
            let parameters = Parameters::new(1, &Device::Cpu);
            config.build(&parameters.root().pp("features")).unwrap();
            parameters
        };
        let parameters = build();
        let mut tensors: std::collections::HashMap<String, Tensor> = parameters
            .tensors("features.")
            .into_iter()
            .map(|(name, tensor)| {
                let short = name.strip_prefix("features.").unwrap();
                (format!("{prefix}{short}"), (tensor + 1.).unwrap())
            })
            .collect();
        let count = tensors.len();
        let counter = format!("{prefix}bn1.num_batches_tracked");
        tensors.insert(counter.clone(), Tensor::new(7i64, &Device::Cpu).unwrap());
        tensors.insert(
            classifier.to_owned(),
            Tensor::new(&[1f32], &Device::Cpu).unwrap(),
        );
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let report = config
            .load_weights(&path, &parameters, "features.")
            .unwrap();
        assert_eq!(report.loaded, count);
        assert_eq!(report.ignored.len(), 2);
        assert!(report.ignored.contains(&counter));

        let missing = tensors
            .keys()
            .find(|name| name.ends_with("running_var"))
            .unwrap()
            .clone();
        tensors.remove(&missing);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let fresh = build();
        let error = config.load_weights(&path, &fresh, "features.").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("running_var` is missing"), "{source}");
    }
}
