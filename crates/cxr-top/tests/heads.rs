//! The heads of other systems against PyTorch in double precision: values and gradients (`tests/golden/heads.py`).

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use cxr_ops::{Parameters, Phase, Role};
use serde_json::{Value, json};

/// The bound of a relative error where PyTorch's own is smaller.
const FLOOR: f64 = 1e-5;
/// A convolution before a softmax over places has a bias without influence.
const ZERO: f64 = 1e-4;

#[test]
fn heads_agree_with_pytorch() {
    let golden = golden::read("heads.json");
    let mut failures = Vec::new();
    for case in golden["cases"].as_array().unwrap() {
        let found = run(&golden["maps"], case);
        let expected = case["expected"].as_object().unwrap();
        assert_eq!(found.len(), expected.len(), "{}", case["case"]);
        for (name, expected) in expected {
            let full_name = format!("{} {name}", case["case"].as_str().unwrap());
            failures.extend(golden::compare(&full_name, &found[name], expected, FLOOR, ZERO).err());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn run(maps: &Value, case: &Value) -> BTreeMap<String, Tensor> {
    let size = |key: &str| maps[key].as_u64().unwrap() as usize;
    let (channels, height, width) = (size("channels"), size("height"), size("width"));
    let name = case["case"].as_str().unwrap();
    let parameters = Parameters::new(0, &Device::Cpu);
    let config = cxr_top::by_name(case["head"].as_str().unwrap(), &case["options"]).unwrap();
    let built = config.build(
        (channels, height, width),
        size("labels"),
        &parameters.root(),
    );
    let head = built.unwrap();
    let tensors = (parameters.tensors("").into_iter())
        .map(|(name, tensor)| {
            let formula = golden::parameter(&name, tensor.dims());
            (name, formula)
        })
        .collect();
    parameters.load("", &tensors).unwrap();

    let mut found = BTreeMap::new();
    let keys: Vec<u64> = (0..size("images") as u64).collect();
    for (kind, phase) in [
        ("evaluation", Phase::Evaluate),
        ("training", Phase::Train { image_keys: &keys }),
    ] {
        let shape = [size("images"), channels, height, width];
        let maps = golden::tensor(&format!("{name} maps"), &shape, 2., 0.);
        let maps = Var::from_tensor(&maps).unwrap();
        let logits = head.forward_t(&maps, phase).unwrap();
        let cotangent = golden::tensor(&format!("{name} cotangent"), logits.dims(), 1., 0.);
        let total = logits.mul(&cotangent).unwrap().sum_all().unwrap();
        let gradients = total.backward().unwrap();
        let gradient = gradients.get(&maps).unwrap().clone();
        found.insert(format!("maps gradient in {kind}"), gradient);
        found.insert(format!("logits in {kind}"), logits);
        for (name, var) in parameters.select(Role::Trainable, "") {
            match gradients.get(&var) {
                Some(gradient) => {
                    found.insert(format!("{name} gradient"), gradient.clone());
                }
                None => assert_eq!(kind, "evaluation", "{name} has no gradient"),
            }
        }
    }
    found
}

/// What is predicted of an image does not depend on the batch that it is in, to the last bit.
#[test]
fn an_image_s_logits_do_not_depend_on_its_batch() {
    for name in ["csra", "cral", "transition", "linear"] {
        let parameters = Parameters::new(1, &Device::Cpu);
        let head = cxr_top::by_name(name, &Value::Null).unwrap();
        let head = head.build((32, 7, 7), 14, &parameters.root()).unwrap();
        let maps = golden::tensor("maps of a batch", &[5, 32, 7, 7], 2., 0.);
        let all = head.forward_t(&maps, Phase::Evaluate).unwrap();
        for image in 0..5 {
            let alone = maps.narrow(0, image, 1).unwrap().contiguous().unwrap();
            let logits = head.forward_t(&alone, Phase::Evaluate).unwrap();
            let expected = all.narrow(0, image, 1).unwrap();
            let values = |tensor: &Tensor| tensor.to_vec2::<f32>().unwrap();
            assert_eq!(values(&logits), values(&expected), "{name}");
        }
    }
}

/// Maps of one place have nothing to attend to: every pooling is that place.
#[test]
fn maps_of_one_place_are_taken_as_they_are() {
    let logits = |name: &str, options: Value| {
        let parameters = Parameters::new(2, &Device::Cpu);
        let head = cxr_top::by_name(name, &options).unwrap();
        let head = head.build((16, 1, 1), 3, &parameters.root()).unwrap();
        let maps = Tensor::ones((2, 16, 1, 1), DType::F32, &Device::Cpu).unwrap();
        let logits = head.forward_t(&maps, Phase::Evaluate).unwrap();
        logits.to_vec2::<f32>().unwrap()
    };
    let by_pooling = |pooling: &str| logits("transition", json!({"pooling": pooling}));
    assert_eq!(by_pooling("mean"), by_pooling("max"));
    assert_eq!(by_pooling("mean"), by_pooling("log-sum-exp"));
    let without = logits("csra", json!({"lambda": 0.}));
    let with = logits("csra", json!({"lambda": 1.}));
    for (without, with) in without.iter().flatten().zip(with.iter().flatten()) {
        assert!((with - 2. * without).abs() <= 1e-6, "{with} {without}");
    }
}

#[test]
fn options_out_of_range_are_refused() {
    for (name, options, key) in [
        ("csra", json!({"heads": 3}), "heads"),
        ("csra", json!({"lambda": -1.}), "lambda"),
        ("cral", json!({"hidden": 0}), "hidden"),
        ("cral", json!({"attention": "hard"}), "attention"),
        ("transition", json!({"kernel": 2}), "kernel"),
        ("transition", json!({"sharpness": 0.}), "sharpness"),
    ] {
        let error = cxr_top::by_name(name, &options).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
}

/// Where the places are pooled by their mean, the means of the class maps are the logits without their bias.
#[test]
fn class_maps_add_up_to_the_logits() {
    for (name, options) in [
        ("linear", json!({})),
        (
            "transition",
            json!({"channels": 9, "kernel": 3, "pooling": "mean"}),
        ),
    ] {
        let parameters = Parameters::new(0, &Device::Cpu);
        let config = cxr_top::by_name(name, &options).unwrap();
        let head = config.build((6, 5, 4), 3, &parameters.root()).unwrap();
        let tensors = (parameters.tensors("").into_iter())
            .map(|(name, tensor)| {
                let formula = golden::parameter(&name, tensor.dims());
                (name, formula)
            })
            .collect();
        parameters.load("", &tensors).unwrap();
        let maps = golden::tensor("maps", &[2, 6, 5, 4], 2., 0.);
        let logits = head.forward_t(&maps, Phase::Evaluate).unwrap();
        let class_maps = head.class_maps(&maps).unwrap().unwrap();
        assert_eq!(class_maps.dims(), [2, 3, 5, 4]);
        let bias = &parameters.tensors("")["dense.bias"];
        let means = class_maps.mean((2, 3)).unwrap();
        let sums = means.broadcast_add(bias).unwrap();
        let values =
            |tensor: &Tensor| -> Vec<f32> { tensor.flatten_all().unwrap().to_vec1().unwrap() };
        for (found, expected) in values(&sums).into_iter().zip(values(&logits)) {
            assert!(
                (found - expected).abs() < 1e-5,
                "{name}: {found} for {expected}"
            );
        }
    }
    let head = cxr_top::by_name("csra", &json!({})).unwrap();
    let parameters = Parameters::new(0, &Device::Cpu);
    let head = head.build((6, 5, 4), 3, &parameters.root()).unwrap();
    let maps = golden::tensor("maps", &[2, 6, 5, 4], 2., 0.);
    assert!(head.class_maps(&maps).unwrap().is_none());
}
