//! Described networks of every kind of layer against PyTorch in double precision: values and gradients.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use cxr_ops::{
    BatchNormConfig, ConvLayer, Init, InstructionSet, NetworkBuilder, NetworkDescription, Node,
    Nonlinearity, NormStatistics, OpsError, Parameters, Phase, Role,
};
use serde_json::Value;

/// The bound of a relative error where PyTorch's own is smaller.
const FLOOR: f64 = 1e-5;
/// A bias before a normalisation has no gradient; single precision leaves this much of one.
const ZERO: f64 = 1e-4;

#[test]
fn layers_agree_with_pytorch() {
    let golden = golden::read("layers.json");
    for set in InstructionSet::available() {
        let mut failures = Vec::new();
        for case in golden["cases"].as_array().unwrap() {
            let mut found = set.scope(|| run(case));
            let expected = case["expected"].as_object().unwrap();
            if !expected.keys().any(|name| name.ends_with(BY_RUNNING)) {
                found.retain(|name, _| !name.ends_with(BY_RUNNING));
            }
            assert_eq!(found.len(), expected.len() + 1, "{}", case["case"]);
            for (name, expected) in expected {
                let full_name = format!("{} {name}", case["case"].as_str().unwrap());
                failures
                    .extend(golden::compare(&full_name, &found[name], expected, FLOOR, ZERO).err());
            }
            // With a gradient towards the images evaluation goes another way.
            let plain = format!("{} output in evaluation", case["case"].as_str().unwrap());
            let expected = &expected["output in evaluation"];
            let found = &found["output in evaluation without gradients"];
            failures.extend(golden::compare(&plain, found, expected, FLOOR, ZERO).err());
        }
        assert!(
            failures.is_empty(),
            "{}:\n{}",
            set.name(),
            failures.join("\n")
        );
    }
}

fn describe(case: &Value) -> NetworkDescription {
    let channels = case["images"][1].as_u64().unwrap() as usize;
    let mut net = NetworkBuilder::new(channels).with_norm(BatchNormConfig {
        eps: 1e-3,
        momentum: 0.1,
    });
    let mut nodes = BTreeMap::from([("images".to_owned(), net.images())]);
    let mut last = net.images();
    for step in case["steps"].as_array().unwrap() {
        let text = |key: &str| step[key].as_str().unwrap();
        let number = |key: &str| step[key].as_u64().unwrap() as usize;
        let numbers = |key: &str| -> Vec<usize> {
            let all = step[key].as_array().unwrap().iter();
            all.map(|value| value.as_u64().unwrap() as usize).collect()
        };
        let inputs: Vec<Node> = (step["in"].as_array().unwrap().iter())
            .map(|name| nodes[name.as_str().unwrap()])
            .collect();
        let input = inputs[0];
        last = match text("op") {
            "conv" => {
                let layer = ConvLayer {
                    out_channels: number("maps"),
                    kernel: numbers("kernel").try_into().unwrap(),
                    stride: number("stride"),
                    padding: numbers("padding").try_into().unwrap(),
                    groups: number("groups"),
                    bias: step["bias"].as_bool().unwrap(),
                    init: Init::KaimingFanOut,
                };
                net.conv(text("name"), input, layer)
            }
            "linear" => net.linear(text("name"), input, number("outputs"), Init::Normal(0.02)),
            "norm" => net.norm(text("name"), input),
            "layer_norm" => net.layer_norm(text("name"), input, 1e-6),
            "response_norm" => net.response_norm(text("name"), input, 1e-6),
            "log_sum_exp_pool" => {
                net.log_sum_exp_pool(input, step["sharpness"].as_f64().unwrap() as f32)
            }
            "layer_scale" => net.layer_scale(text("name"), input, 1e-6),
            "squeeze_excite" => net.squeeze_excite(text("name"), input, number("squeezed")),
            "max_pool" | "average_pool" => {
                let window = numbers("window");
                let [side, stride, padding] = window.try_into().unwrap();
                if text("op") == "max_pool" {
                    net.max_pool(input, side, stride, padding)
                } else {
                    net.average_pool(input, side, stride, padding)
                }
            }
            "global_pool" => net.global_pool(input),
            "add" => net.add(input, inputs[1]),
            "concat" => net.concat(&inputs),
            "relu" => net.activation(input, Nonlinearity::Relu),
            "relu6" => net.activation(input, Nonlinearity::Relu6),
            "silu" => net.activation(input, Nonlinearity::Silu),
            "gelu" => net.activation(input, Nonlinearity::Gelu),
            "hard_swish" => net.activation(input, Nonlinearity::HardSwish),
            "sigmoid" => net.activation(input, Nonlinearity::Sigmoid),
            "hard_sigmoid" => net.activation(input, Nonlinearity::HardSigmoid),
            op => panic!("unknown layer {op}"),
        };
        nodes.insert(text("out").to_owned(), last);
    }
    net.finish(last).unwrap()
}

fn run(case: &Value) -> BTreeMap<String, Tensor> {
    let name = case["case"].as_str().unwrap();
    let shape: Vec<usize> = (case["images"].as_array().unwrap().iter())
        .map(|v| v.as_u64().unwrap() as usize)
        .collect();
    let description = describe(case);
    let parameters = Parameters::new(0, &Device::Cpu);
    let network = description.build(&parameters.root()).unwrap();
    let weights: BTreeMap<String, Tensor> = parameters
        .tensors("")
        .into_iter()
        .map(|(name, tensor)| (name.clone(), golden::parameter(&name, tensor.dims())))
        .collect();
    parameters.load("", &weights).unwrap();

    let images = golden::tensor(&format!("{name} images"), &shape, 2., 0.);
    let mut found = BTreeMap::new();
    let keys: Vec<u64> = (0..shape[0] as u64).collect();
    let phases = [
        ("evaluation", Phase::Evaluate),
        ("training", Phase::Train { image_keys: &keys }),
    ];
    let plain = network.forward_t(&images, Phase::Evaluate).unwrap();
    let (maps, height, width) = description.feature_shape(shape[2], shape[3]).unwrap();
    assert_eq!(plain.dims(), [shape[0], maps, height, width]);
    found.insert("output in evaluation without gradients".to_owned(), plain);
    for (kind, phase) in phases {
        let images = Var::from_tensor(&images).unwrap();
        let output = network.forward_t(&images, phase).unwrap();
        let cotangent = golden::tensor(&format!("{name} cotangent"), output.dims(), 1., 0.);
        let loss = (&output * cotangent).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        found.insert(format!("output in {kind}"), output);
        let of_images = gradients.get(&images).unwrap().clone();
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
    for (name, var) in parameters.select(Role::Running, "") {
        // Their own memory, which is set again below.
        found.insert(name, var.as_tensor().copy().unwrap());
    }
    // By running statistics, which training with them leaves as they are.
    parameters.load("", &weights).unwrap();
    let phase = Phase::Train { image_keys: &keys };
    let output = NormStatistics::Running.scope(|| network.forward_t(&images, phase).unwrap());
    let cotangent = golden::tensor(&format!("{name} cotangent"), output.dims(), 1., 0.);
    let gradients = (output * cotangent).unwrap().sum_all().unwrap();
    let gradients = gradients.backward().unwrap();
    for (name, var) in parameters.select(Role::Trainable, "") {
        let gradient = gradients.get(&var).unwrap().clone();
        found.insert(format!("{name}{BY_RUNNING}"), gradient);
    }
    for (name, var) in parameters.select(Role::Running, "") {
        assert_eq!(bits(&var), bits(&weights[&name]), "{name}");
    }
    found
}

/// What the gradients of a training by running statistics are called.
const BY_RUNNING: &str = " gradient by running statistics";

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Results must not depend on how many threads there are.
#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let golden = golden::read("layers.json");
    for case in golden["cases"].as_array().unwrap() {
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| run(case))
        });
        for (name, tensor) in &one {
            assert_eq!(bits(tensor), bits(&three[name]), "{} {name}", case["case"]);
        }
    }
}

/// Stochastic depth draws by image, not by its place in the batch, and forgets nothing in evaluation.
#[test]
fn stochastic_depth_is_drawn_by_image() {
    let mut net = NetworkBuilder::new(2);
    let images = net.images();
    let x = net.stochastic_depth("block", images, 0.5);
    let network = net
        .finish(x)
        .unwrap()
        .build(&Parameters::new(0, &Device::Cpu).root())
        .unwrap();
    let images = Tensor::ones((64, 2, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let keys: Vec<u64> = (0..64).collect();
    let train = |keys: &[u64]| {
        let phase = Phase::Train { image_keys: keys };
        let output = network.forward_t(&images, phase).unwrap();
        output.mean((1, 2, 3)).unwrap().to_vec1::<f32>().unwrap()
    };
    let means = train(&keys);
    assert!(means.iter().all(|&mean| mean == 0. || mean == 2.));
    let dropped = means.iter().filter(|&&mean| mean == 0.).count();
    assert!((20..=44).contains(&dropped), "{dropped} of 64");
    let reversed: Vec<u64> = keys.iter().rev().copied().collect();
    let mut again = train(&reversed);
    again.reverse();
    assert_eq!(means, again);
    let evaluated = network.forward_t(&images, Phase::Evaluate).unwrap();
    assert_eq!(bits(&evaluated), bits(&images));
}

/// The draws of a dropout within a network are those of the operation, and its gradient is masked as its output.
#[test]
fn dropout_is_that_of_the_operation() {
    let mut net = NetworkBuilder::new(20);
    let images = net.images();
    let x = net.dropout("drop", images, 0.3);
    let network = net
        .finish(x)
        .unwrap()
        .build(&Parameters::new(0, &Device::Cpu).root())
        .unwrap();
    let images = Var::from_tensor(&golden::tensor("images", &[3, 20, 4, 5], 1., 2.)).unwrap();
    let phase = Phase::Train {
        image_keys: &[7, 8, 9],
    };
    let output = network.forward_t(&images, phase).unwrap();
    let expected = cxr_ops::dropout(&images, 0.3, "drop", phase).unwrap();
    assert_eq!(bits(&output), bits(&expected));
    let gradients = output.sum_all().unwrap().backward().unwrap();
    let expected_gradients = expected.sum_all().unwrap().backward().unwrap();
    assert_eq!(
        bits(gradients.get(&images).unwrap()),
        bits(expected_gradients.get(&images).unwrap())
    );
}

/// A network cut at a named node is the same network, and a node that later layers go around is no place to cut.
#[test]
fn a_network_is_cut_at_a_named_node() {
    let mut net = NetworkBuilder::new(3);
    let images = net.images();
    let x = net.conv("conv1", images, ConvLayer::new(24, 3).stride(2).same());
    let x = net.norm("bn1", x);
    let stem = net.relu(x);
    net.name("stem", stem);
    let x = net.conv("conv2", stem, ConvLayer::new(24, 3).same().biased());
    let x = net.norm("bn2", x);
    net.name("inside", x);
    let x = net.add(x, stem);
    let x = net.relu(x);
    net.name("block", x);
    let description = net.finish(x).unwrap();
    assert_eq!(
        description.names().collect::<Vec<_>>(),
        ["stem", "inside", "block"]
    );
    let network = description
        .build(&Parameters::new(4, &Device::Cpu).root())
        .unwrap();
    let images = golden::tensor("images", &[2, 3, 18, 23], 1., 0.);
    let whole = network.forward_t(&images, Phase::Evaluate).unwrap();
    for name in ["stem", "block"] {
        let (first, second) = network.split(name).unwrap();
        let maps = first.forward_t(&images, Phase::Evaluate).unwrap();
        assert_eq!(maps.dims(), [2, 24, 9, 12]);
        let maps = Var::from_tensor(&maps).unwrap();
        let features = second.forward_t(&maps, Phase::Evaluate).unwrap();
        let difference = (&features - &whole)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-5, "{name}");
        let gradients = features.sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&maps).is_some());
    }
    let error = network.split("inside").unwrap_err().to_string();
    assert!(error.contains("from before the node"), "{error}");
    let error = network.split("layer4").unwrap_err().to_string();
    assert!(error.contains("`stem`, `inside`, `block`"), "{error}");

    let parts = description.parts(18, 23).unwrap();
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["stem", "inside", "block"]);
    assert_eq!(parts[0].layers, [("3×3 convolution".to_owned(), 1)]);
    assert_eq!(
        (parts[1].channels, parts[1].height, parts[1].width),
        (24, 9, 12)
    );
    let cost = description.cost(18, 23).unwrap();
    let total = |of: fn(&cxr_ops::NetworkPart) -> u64| parts.iter().map(of).sum::<u64>();
    assert_eq!(total(|part| part.parameters), cost.parameters);
    assert_eq!(total(|part| part.multiply_adds), cost.multiply_adds);
}

/// Only what is asked for has a gradient, and a network whose first layers are frozen still trains the rest.
#[test]
fn costs_names_and_mistakes_are_told_by_the_description() {
    let mut net = NetworkBuilder::new(3);
    let images = net.images();
    let x = net.conv("conv1", images, ConvLayer::new(16, 3).stride(2).same());
    let x = net.norm("bn1", x);
    let x = net.relu(x);
    let x = net.name("stem", x);
    let x = net.conv("conv2", x, ConvLayer::new(32, 1).biased());
    let description = net.finish(x).unwrap();
    let cost = description.cost(32, 64).unwrap();
    // 16·32 pixels, each 27 products for 16 maps and 16 for 32.
    assert_eq!(cost.multiply_adds, 16 * 32 * (27 * 16 + 16 * 32));
    assert_eq!(cost.parameters, 27 * 16 + 4 * 16 + 16 * 32 + 32);
    // Images and the outputs of both convolutions, sixteen maps to a block.
    assert_eq!(
        cost.training_bytes,
        4 * 16 * (32 * 64 + 16 * 32 + 2 * 16 * 32)
    );
    assert_eq!(description.names().collect::<Vec<_>>(), ["stem"]);
    let stem = description.up_to(description.node("stem").unwrap());
    assert_eq!(stem.feature_shape(32, 64).unwrap(), (16, 16, 32));

    let mut net = NetworkBuilder::new(3);
    let images = net.images();
    let x = net.conv("a", images, ConvLayer::new(8, 3));
    net.add(x, images);
    let error = net.finish(x).unwrap_err().to_string();
    assert!(error.contains("cannot add 3 maps to 8"), "{error}");

    let mut net = NetworkBuilder::new(3);
    let images = net.images();
    let x = net.conv("deep", images, ConvLayer::new(8, 5));
    let description = net.finish(x).unwrap();
    let error = description.feature_shape(4, 9).unwrap_err();
    assert!(
        matches!(&error, OpsError::Network { layer, .. } if layer == "deep"),
        "{error}"
    );
}
