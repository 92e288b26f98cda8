//! Described networks against torchvision (Xception: timm) in double precision, and their weight files. Of networks that
//! differ in sizes alone some are computed; of all, names and shapes are compared.

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
use cxr_ops::{Nonlinearity, Parameters, Phase, Role};
use serde_json::{Value, json};

/// The bound of a relative error where PyTorch's own is smaller.
const FLOOR: f64 = 1e-4;
/// Biases before a normalisation have no gradient; single precision leaves this much of one.
const ZERO: f64 = 1e-3;

/// As the golden has it: nothing is dropped.
fn config(name: &str) -> Box<dyn BackboneConfig> {
    if let Some(name) = name.strip_suffix("-pooled") {
        return by_name(name, &json!({"max_pool_after_layer1": true})).unwrap();
    }
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

/// Features of the networks as they are; gradients with SiLU in place of ReLU on both sides. In a small batch one unit
/// that rounding takes across a ReLU's corner changes every gradient before it by a hundredth, in PyTorch too.
#[test]
fn networks_agree_with_torchvision() {
    let golden = golden::read("networks.json");
    let mut failures = Vec::new();
    for (name, golden) in golden["networks"].as_object().unwrap() {
        failures.extend(check(name, golden));
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// All networks, at sizes from 64 to 1024 pixels, with one thread and with two: `cargo xtask verify networks`, which has
/// PyTorch make the expected values first.
#[test]
fn all_networks_agree_with_their_libraries() {
    let Ok(path) = std::env::var("CXR_NETWORKS") else {
        println!("skipped: `cargo xtask verify networks` makes the expected values");
        return;
    };
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut failures = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for case in expected["cases"].as_array().unwrap() {
        let name = case["network"].as_str().unwrap();
        names.insert(name.to_owned());
        failures.extend(check(name, case));
        failures.extend(check_threads(name, case));
    }
    let described: std::collections::BTreeSet<String> = described()
        .filter(|name| !name.starts_with("densenet"))
        .map(str::to_owned)
        .collect();
    assert_eq!(names, described);
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// Whether a training step has the same bits with one thread and with two.
fn check_threads(name: &str, case: &Value) -> Option<String> {
    let shape: Vec<usize> = (case["images"].as_array().unwrap().iter())
        .map(|v| v.as_u64().unwrap() as usize)
        .collect();
    let bits = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let parameters = Parameters::new(0, &Device::Cpu);
            let network = config(name).build(&parameters.root()).unwrap();
            let images = golden::tensor(&format!("{name} images"), &shape, 2., 0.);
            let keys: Vec<u64> = (0..shape[0] as u64).collect();
            let training = Phase::Train { image_keys: &keys };
            let features = network.forward_t(&images, training).unwrap();
            let gradients = features
                .sqr()
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            let mut found = vec![features];
            for (_, var) in parameters.select(Role::Trainable, "") {
                found.push(gradients.get(&var).unwrap().clone());
            }
            let values = found.iter().flat_map(|tensor| {
                let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                values.into_iter().map(f32::to_bits)
            });
            values.collect::<Vec<u32>>()
        })
    };
    (bits(1) != bits(2)).then(|| format!("{name} at {shape:?}: other bits with two threads"))
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
        "{name}"
    );
    let cost = config
        .description()
        .unwrap()
        .cost(shape[2], shape[3])
        .unwrap();
    assert_eq!(cost.parameters, parameters.count("") as u64, "{name}");
    let weights = parameters
        .tensors("")
        .into_iter()
        .map(|(name, tensor)| (name.clone(), golden::parameter(&name, tensor.dims())))
        .collect();
    parameters.load("", &weights).unwrap();
    let images = golden::tensor(&format!("{name} images"), &shape, 2., 0.);
    let keys: Vec<u64> = (0..shape[0] as u64).collect();
    let training = Phase::Train { image_keys: &keys };
    let mut found = BTreeMap::new();
    let features = network.forward_t(&images, Phase::Evaluate).unwrap();
    let (channels, height, width) = network.feature_shape(shape[2], shape[3]);
    assert_eq!(features.dims(), [shape[0], channels, height, width]);
    found.insert("features in evaluation".to_owned(), features);
    let features = network.forward_t(&images, training).unwrap();
    found.insert("features in training".to_owned(), features);
    for (name, var) in parameters.select(Role::Running, "") {
        found.insert(name, var.as_tensor().clone());
    }

    let smooth = config
        .description()
        .unwrap()
        .with_nonlinearities(|own| match own {
            Nonlinearity::Relu | Nonlinearity::Relu6 => Nonlinearity::Silu,
            other => other,
        });
    let parameters = Parameters::new(0, &Device::Cpu);
    let network = smooth.build(&parameters.root().pp("features")).unwrap();
    parameters.load("", &weights).unwrap();
    for (kind, phase) in [("evaluation", Phase::Evaluate), ("training", training)] {
        let images = Var::from_tensor(&images).unwrap();
        let features = network.forward_t(&images, phase).unwrap();
        let cotangent = golden::tensor(&format!("{name} cotangent"), features.dims(), 1., 0.);
        let loss = (&features * cotangent).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        found.insert(format!("smooth features in {kind}"), features);
        let of_images = gradients
            .get(&images)
            .expect("images are asked for")
            .clone();
        found.insert(format!("images gradient in {kind}"), of_images);
        for (name, var) in parameters.select(Role::Trainable, "") {
            match gradients.get(&var) {
                Some(gradient) => {
                    found.insert(format!("{name} gradient"), gradient.clone());
                }
                None => assert_eq!(kind, "evaluation", "{name}"),
            }
        }
    }
    let expected = golden["expected"].as_object().unwrap();
    assert_eq!(found.len(), expected.len(), "{name}");
    let mut failures = Vec::new();
    let (mut largest, mut errors) = ((0., String::new()), Vec::new());
    for (what, tensor) in &found {
        let full_name = format!("{name} {what}");
        // A gradient that is zero is held to what PyTorch leaves of it.
        let number = |key: &str| expected[what][key].as_f64().unwrap();
        let zero = match number("norm") < ZERO * ZERO {
            true => ZERO.max(3. * number("norm") * number("torch_f32_error")),
            false => ZERO,
        };
        match golden::compare(&full_name, tensor, &expected[what], FLOOR, zero) {
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
        "{name}: {trained} trained values, {} tensors, error {:.1e} in the median, at most {:.1e} ({}), {} above the bound",
        expected.len(),
        errors.get(errors.len() / 2).copied().unwrap_or(f64::NAN),
        largest.0,
        largest.1,
        failures.len()
    );
    failures
}

/// Every network has the tensors that torchvision's has: the same names, the same shapes.
#[test]
fn names_and_shapes_are_those_of_torchvision() {
    let golden = golden::read("network_tensors.json");
    let golden = golden["networks"].as_object().unwrap();
    // DenseNet's are compared in `torchvision.rs`.
    let named = || described().filter(|name| !name.starts_with("densenet"));
    assert_eq!(golden.len(), named().count());
    for name in named() {
        let parameters = Parameters::new(0, &Device::Cpu);
        config(name)
            .build(&parameters.root().pp("features"))
            .unwrap();
        let mut lines: Vec<String> = parameters
            .tensors("")
            .iter()
            .map(|(name, tensor)| {
                let sides: Vec<String> = tensor.dims().iter().map(ToString::to_string).collect();
                format!("{name} {}\n", sides.join("x"))
            })
            .collect();
        lines.sort();
        let hash = lines
            .concat()
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
            });
        let trained: usize = (parameters.select(Role::Trainable, "").iter())
            .map(|(_, var)| var.elem_count())
            .sum();
        let found =
            json!({"tensors": lines.len(), "trained": trained, "hash": format!("{hash:016x}")});
        assert_eq!(found, golden[name], "{name}");
    }
}

/// A network and a DenseNet with passes of its own are the same when they are cut.
#[test]
fn a_backbone_is_cut_at_its_layers() {
    let small = json!({"stem_channels": 16, "growth_rate": 8, "block_layers": [2, 2]});
    for (name, options, least) in [("densenet", &small, 2), ("resnet18", &Value::Null, 4)] {
        let parameters = Parameters::new(2, &Device::Cpu);
        let network = by_name(name, options)
            .unwrap()
            .build(&parameters.root())
            .unwrap();
        let layers = network.layers();
        assert!(layers.len() >= least, "{name}: {layers:?}");
        let images = golden::tensor("images", &[2, 3, 64, 71], 1., 0.);
        let whole = network.forward_t(&images, Phase::Evaluate).unwrap();
        for layer in layers {
            let [first, second] = network.split(&layer).unwrap();
            let maps = first.forward_t(&images, Phase::Evaluate).unwrap();
            let cut = second.forward_t(&maps, Phase::Evaluate).unwrap();
            let difference = (cut - &whole).unwrap().abs().unwrap().max_all().unwrap();
            let difference = difference.to_scalar::<f32>().unwrap();
            assert!(difference < 1e-4, "{name} at {layer}: {difference}");
        }
        assert!(network.split("nowhere").is_err(), "{name}");
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

/// What a DenseNet is exported by is what its hand-written passes compute, under the same names.
#[test]
fn a_densenet_is_its_description() {
    let small = json!({"stem_channels": 10, "growth_rate": 6, "block_layers": [2, 1, 3]});
    for (name, options, shape) in [
        ("densenet", &small, [2, 3, 75, 64]),
        ("densenet121", &Value::Null, [1, 3, 96, 64]),
    ] {
        let config = by_name(name, options).unwrap();
        let description = config.description().unwrap();
        let by_hand = Parameters::new(0, &Device::Cpu);
        let described = Parameters::new(1, &Device::Cpu);
        let network = config.build(&by_hand.root().pp("features")).unwrap();
        let other = description.build(&described.root().pp("features")).unwrap();
        let weights = (by_hand.tensors("").into_iter())
            .map(|(name, tensor)| (name.clone(), golden::parameter(&name, tensor.dims())))
            .collect();
        by_hand.load("", &weights).unwrap();
        described.load("", &weights).unwrap();
        let images = golden::tensor("images", &shape, 2., 0.);
        let features = network.forward_t(&images, Phase::Evaluate).unwrap();
        let expected = other.forward_t(&images, Phase::Evaluate).unwrap();
        let (channels, height, width) = description.feature_shape(shape[2], shape[3]).unwrap();
        assert_eq!(features.dims(), [shape[0], channels, height, width]);
        assert_eq!(
            network.feature_shape(shape[2], shape[3]),
            (channels, height, width)
        );
        let scalar = |tensor: &Tensor| tensor.max_all().unwrap().to_scalar::<f32>().unwrap();
        let difference = scalar(&(&features - &expected).unwrap().abs().unwrap());
        assert!(
            difference < 1e-5 * scalar(&expected),
            "{name}: {difference}"
        );
    }
}

/// Baltruschat et al. (2019): 448×448 pixels with the second pool have the maps that 224×224 have without it.
#[test]
fn a_second_pool_keeps_the_sizes_of_later_maps() {
    for name in ["resnet38", "resnet50", "resnet101"] {
        let pooled = by_name(name, &json!({"max_pool_after_layer1": true})).unwrap();
        let plain = by_name(name, &json!({"max_pool_after_layer1": false})).unwrap();
        assert_eq!(
            plain.options(),
            by_name(name, &Value::Null).unwrap().options()
        );
        assert_eq!(pooled.options()["max_pool_after_layer1"], true);
        assert_eq!(pooled.feature_shape(448, 448), (2048, 7, 7), "{name}");
        assert_eq!(plain.feature_shape(224, 224), (2048, 7, 7), "{name}");
        let parameters =
            |config: &dyn BackboneConfig| config.description().unwrap().parameter_shapes();
        assert_eq!(parameters(pooled.as_ref()), parameters(plain.as_ref()));
    }
    let error = by_name("vgg16_bn", &json!({"max_pool_after_layer1": true}));
    assert!(error.unwrap_err().to_string().contains("`norm_eps`"));
}
