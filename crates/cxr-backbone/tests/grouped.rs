//! The fast path of a DenseNet against the same network layer by layer, whose operations are held to
//! PyTorch one by one: on sizes that fill no tile, with unused lanes, with every instruction set.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use cxr_backbone::{Backbone, DenseNet, DenseNetConfig};
use cxr_ops::{
    BatchNormConfig, InstructionSet, NormStatistics, Parameters, Phase, Precision, Role,
};

/// Relative error of a tensor as a whole. Two orders of summation differ by some 1e-6 an operation;
/// a wrong edge, lane or tap by far more than this.
const BOUND: f64 = 1e-4;

fn config(
    stem_channels: usize,
    growth_rate: usize,
    bottleneck_size: usize,
    layers: &[usize],
) -> DenseNetConfig {
    DenseNetConfig {
        stem_channels,
        growth_rate,
        bottleneck_size,
        block_layers: layers.to_vec(),
        norm: BatchNormConfig::default(),
    }
}

/// Every value that one training step and one evaluation make, by name.
fn values(
    config: &DenseNetConfig,
    (images, height, width): (usize, usize, usize),
    is_fast: bool,
) -> BTreeMap<String, Tensor> {
    moved_values(config, (images, height, width), is_fast, 0.)
}

/// As [`values`], with every weight of a convolution moved by up to `epsilon` of it.
fn moved_values(
    config: &DenseNetConfig,
    (images, height, width): (usize, usize, usize),
    is_fast: bool,
    epsilon: f64,
) -> BTreeMap<String, Tensor> {
    let parameters = Parameters::new(3, &Device::Cpu);
    let net = DenseNet::new(config, &parameters.root().pp("features")).unwrap();
    let net = if is_fast { net } else { net.layer_by_layer() };
    // As initialised, with β = 0, the network does not depend on the scale of a map in front of another
    // normalisation, and that scale's gradient is rounding alone.
    let moved = parameters.tensors("").into_iter().map(|(name, tensor)| {
        let by = (formula(tensor.dims(), 0.53) * 0.3).unwrap();
        let moved = match tensor.rank() {
            1 => (tensor + by).unwrap(),
            _ => {
                let noise = formula(tensor.dims(), 0.61).affine(epsilon, 1.).unwrap();
                (tensor * noise).unwrap()
            }
        };
        (name, moved)
    });
    parameters.load("", &moved.collect()).unwrap();
    let input = formula(&[images, 3, height, width], 0.37);
    let keys = vec![0; images];
    let mut found = BTreeMap::new();
    if images > 1 {
        let phase = Phase::Train { image_keys: &keys };
        let features = net.forward_t(&input, phase).unwrap();
        let cotangent = formula(features.dims(), 0.71);
        let loss = (&features * cotangent).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in parameters.select(Role::Trainable, "") {
            found.insert(
                format!("{name} gradient"),
                gradients.get(&var).unwrap().clone(),
            );
        }
        found.insert("features in training".to_owned(), features);
    }
    let features = net.forward_t(&input, Phase::Evaluate).unwrap();
    found.insert("features in evaluation".to_owned(), features);
    for (name, var) in parameters.select(Role::Running, "") {
        found.insert(name, var.as_tensor().copy().unwrap());
    }
    found
}

/// Values in ±1 that look like noise and are the same everywhere.
fn formula(dims: &[usize], frequency: f64) -> Tensor {
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|at| ((at * at % 10007) as f64 * frequency).sin() as f32)
        .collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn norm(tensor: &Tensor) -> f64 {
    let squares = tensor.sqr().unwrap().sum_all().unwrap();
    f64::from(squares.to_scalar::<f32>().unwrap()).sqrt()
}

#[test]
fn the_fast_path_is_the_same_network() {
    let cases = [
        // A small side, so that only the last block is below Winograd's least size.
        (config(64, 32, 4, &[2, 2]), (2, 64, 64)),
        // Odd, not square: tiles, strips and pools end in the middle.
        (config(64, 32, 1, &[2, 1, 1]), (3, 75, 106)),
        // Groups with unused lanes before, between and behind whole ones.
        (config(40, 24, 2, &[2, 2]), (2, 60, 92)),
        (config(32, 48, 1, &[1, 2]), (2, 33, 47)),
        // One image, in evaluation alone; images so wide that one row fills tiles.
        (config(32, 32, 1, &[1, 1]), (1, 21, 530)),
        // Eight values per map at the end.
        (config(64, 32, 2, &[1, 1]), (2, 16, 18)),
    ];
    let mut failures = Vec::new();
    for (config, size) in cases {
        let expected = values(&config, size, false);
        for set in InstructionSet::available() {
            let found = set.scope(|| values(&config, size, true));
            assert_eq!(found.len(), expected.len());
            for (name, expected) in &expected {
                let difference = norm(&(&found[name] - expected).unwrap());
                let length = norm(expected);
                if difference > BOUND * length {
                    let error = difference / length;
                    failures.push(format!("{size:?} {}: {name}: {error:.1e}", set.name()));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What rounding a weight to bf16 can do to it, relatively: as much as the last of its bits.
const BF16_EPSILON: f64 = 1. / 256.;

/// A ReLU that an error switches multiplies it, so that a bound has to come from the network itself: it is
/// what happens when every weight is moved by as much as bf16 may. A wrong map, pixel or tap is wrong by
/// more than half.
#[test]
fn bf16_is_the_same_network_but_for_its_rounding() {
    let cases = [
        (config(64, 32, 4, &[2, 2]), (2, 64, 64)),
        (config(40, 24, 2, &[2, 2]), (2, 60, 92)),
        (config(64, 32, 1, &[2, 1, 1]), (3, 75, 106)),
    ];
    let mut failures = Vec::new();
    for (config, size) in cases {
        let expected = values(&config, size, false);
        let moved = moved_values(&config, size, false, BF16_EPSILON);
        let error = |found: &BTreeMap<String, Tensor>, name: &str| {
            norm(&(&found[name] - &expected[name]).unwrap()) / norm(&expected[name])
        };
        for set in InstructionSet::available() {
            let found = set.scope(|| Precision::Bf16.scope(|| values(&config, size, true)));
            for name in expected.keys().filter(|name| !name.contains("evaluation")) {
                let (bf16, bound) = (error(&found, name), 2. * error(&moved, name));
                let is_rounded = name != "features in training" || bf16 > BOUND;
                if bf16 > bound.min(0.3) || !is_rounded {
                    let set = set.name();
                    failures.push(format!("{size:?} {set}: {name}: {bf16:.1e} of {bound:.1e}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn one_two_and_four_threads_give_the_same_bits() {
    for precision in Precision::ALL {
        precision.scope(|| threads_give_the_same_bits(precision));
    }
}

fn threads_give_the_same_bits(precision: Precision) {
    let config = config(64, 32, 2, &[2, 2]);
    let with_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let values = || precision.scope(|| values(&config, (5, 70, 58), true));
        pool.build().unwrap().install(|| {
            values()
                .into_iter()
                .map(|(name, tensor)| {
                    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    let bits: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
                    (name, bits)
                })
                .collect::<BTreeMap<_, _>>()
        })
    };
    let one = with_threads(1);
    for threads in [2, 4] {
        let many = with_threads(threads);
        let differing: Vec<_> = one
            .keys()
            .filter(|name| one[*name] != many[*name])
            .collect();
        let precision = precision.name();
        assert!(
            differing.is_empty(),
            "{precision}, {threads} threads: {differing:?}"
        );
    }
}

#[test]
fn a_gradient_towards_the_images_takes_single_operations() {
    let parameters = Parameters::new(3, &Device::Cpu);
    let config = config(64, 32, 1, &[1, 1]);
    let net = DenseNet::new(&config, &parameters.root()).unwrap();
    let images = candle_core::Var::from_tensor(&formula(&[2, 3, 40, 40], 0.37)).unwrap();
    for phase in [
        Phase::Evaluate,
        Phase::Train {
            image_keys: &[0, 1],
        },
    ] {
        let features = net.forward_t(images.as_tensor(), phase).unwrap();
        let gradients = features.sum_all().unwrap().backward().unwrap();
        assert!(norm(gradients.get(&images).unwrap()) > 0.);
    }
}

/// Keras' `training=False`: the weights of normalisations train, and their running statistics are constants.
#[test]
fn by_running_statistics_training_computes_what_evaluation_does() {
    let parameters = Parameters::new(3, &Device::Cpu);
    let config = config(64, 32, 1, &[1, 1]);
    let net = DenseNet::new(&config, &parameters.root()).unwrap();
    let images = formula(&[2, 3, 40, 40], 0.37);
    let phase = Phase::Train {
        image_keys: &[0, 1],
    };
    // Away from 0 and 1, so that the batch's would be others.
    net.forward_t(&images, phase).unwrap();
    let running = |name: &str| parameters.tensors(name)[name].clone();
    let names: Vec<String> = (parameters.select(Role::Running, "").into_iter())
        .map(|(name, _)| name)
        .collect();
    let before: Vec<Tensor> = names
        .iter()
        .map(|name| running(name).copy().unwrap())
        .collect();
    let evaluated = net.forward_t(&images, Phase::Evaluate).unwrap();
    let trained = NormStatistics::Running.scope(|| net.forward_t(&images, phase).unwrap());
    let difference = norm(&(&trained - &evaluated).unwrap()) / norm(&evaluated);
    assert!(difference < BOUND, "{difference:e}");
    let gradients = trained
        .sqr()
        .unwrap()
        .sum_all()
        .unwrap()
        .backward()
        .unwrap();
    for (name, var) in parameters.select(Role::Trainable, "") {
        assert!(norm(gradients.get(&var).unwrap()) > 0., "{name}");
    }
    for (name, before) in names.iter().zip(before) {
        assert_eq!(norm(&(running(name) - before).unwrap()), 0., "{name}");
    }
    let by_batch = net.forward_t(&images, phase).unwrap();
    assert!(norm(&(by_batch - evaluated).unwrap()) > 0.01);
}

#[test]
fn a_second_backward_pass_gives_the_same_gradients() {
    let parameters = Parameters::new(3, &Device::Cpu);
    let config = config(64, 32, 1, &[1, 1]);
    let net = DenseNet::new(&config, &parameters.root()).unwrap();
    let images = formula(&[2, 3, 40, 40], 0.37);
    let phase = Phase::Train {
        image_keys: &[0, 1],
    };
    let loss = net.forward_t(&images, phase).unwrap().sqr().unwrap();
    let loss = loss.sum_all().unwrap();
    let (first, second) = (loss.backward().unwrap(), loss.backward().unwrap());
    for (name, var) in parameters.select(Role::Trainable, "") {
        let (first, second) = (first.get(&var).unwrap(), second.get(&var).unwrap());
        assert_eq!(norm(&(first - second).unwrap()), 0., "{name}");
    }
}
