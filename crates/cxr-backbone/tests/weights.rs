//! Sizes, names and strict loading.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use cxr_backbone::{Backbone, DenseNet, DenseNetConfig, PretrainedError, load_pretrained};
use cxr_ops::{Parameters, Phase, Role};

/// A small network whose layers are named as DenseNet121's.
fn small(seed: u64) -> (Parameters, DenseNet) {
    let parameters = Parameters::new(seed, &Device::Cpu);
    let config = DenseNetConfig {
        stem_channels: 6,
        growth_rate: 4,
        bottleneck_size: 2,
        block_layers: vec![2, 1],
        ..DenseNetConfig::densenet121()
    };
    let net = DenseNet::new(&config, &parameters.root().pp("features")).unwrap();
    (parameters, net)
}

/// The weights of a network of another seed, as torchvision would publish them.
fn published() -> HashMap<String, Tensor> {
    let mut tensors: HashMap<_, _> = small(1).0.tensors("").into_iter().collect();
    let count = Tensor::new(7i64, &Device::Cpu).unwrap();
    tensors.insert("features.norm0.num_batches_tracked".to_owned(), count);
    let classifier = Tensor::zeros((1000, 11), DType::F32, &Device::Cpu).unwrap();
    tensors.insert("classifier.weight".to_owned(), classifier);
    tensors
}

fn load_into(
    parameters: &Parameters,
    tensors: &HashMap<String, Tensor>,
) -> Result<cxr_backbone::PretrainedReport, PretrainedError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    candle_core::safetensors::save(tensors, &path).unwrap();
    load_pretrained(&path, parameters, "features.")
}

fn values(parameters: &Parameters) -> Vec<(String, Vec<f32>)> {
    let tensors = parameters.tensors("").into_iter();
    tensors
        .map(|(n, t)| (n, t.flatten_all().unwrap().to_vec1().unwrap()))
        .collect()
}

#[test]
fn the_three_densenets_have_the_published_sizes() {
    for (config, count, maps) in [
        (DenseNetConfig::densenet121(), 7_037_504, 1024),
        // torchvision's parameters without the ImageNet classifier, and two running statistics
        // for each normalised channel
        (
            DenseNetConfig::densenet169(),
            14_149_480 - 1665 * 1000 + 158_400,
            1664,
        ),
        (
            DenseNetConfig::densenet201(),
            20_013_928 - 1921 * 1000 + 229_056,
            1920,
        ),
    ] {
        let parameters = Parameters::new(0, &Device::Cpu);
        let net = DenseNet::new(&config, &parameters.root().pp("features")).unwrap();
        assert_eq!(parameters.count("features."), count);
        assert_eq!(config.feature_maps(), maps);
        assert_eq!(net.feature_shape(224, 224), (maps, 7, 7));
    }
}

#[test]
fn feature_shape_is_what_forward_gives() {
    let (_, net) = small(0);
    for (height, width) in [(64, 48), (33, 50), (31, 31), (15, 16)] {
        let images = Tensor::zeros((1, 3, height, width), DType::F32, &Device::Cpu).unwrap();
        let features = net.forward_t(&images, Phase::Evaluate).unwrap();
        let (c, h, w) = net.feature_shape(height, width);
        assert_eq!(features.dims(), [1, c, h, w], "{height}×{width}");
    }
}

#[test]
fn initial_weights_depend_on_the_seed_and_the_name_alone() {
    assert_eq!(values(&small(3).0), values(&small(3).0));
    assert_ne!(values(&small(3).0), values(&small(4).0));
    let weights = small(3)
        .0
        .tensors("features.denseblock1.denselayer1.conv2.weight");
    let [weight] = weights.values().collect::<Vec<_>>()[..] else {
        panic!("one tensor")
    };
    let weight = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let variance = weight.iter().map(|v| v * v).sum::<f32>() / weight.len() as f32;
    // 288 draws of variance 2 / (8·9): the estimate's own deviation is 8 %
    assert!((variance / (2. / 72.) - 1.).abs() < 0.35, "{variance}");
}

#[test]
fn a_torchvision_file_loads_whole_and_what_is_ignored_is_named() {
    let (parameters, _) = small(2);
    let report = load_into(&parameters, &published()).unwrap();
    assert_eq!(values(&parameters), values(&small(1).0));
    assert_eq!(report.loaded, parameters.tensors("").len());
    assert_eq!(
        report.ignored,
        ["classifier.weight", "features.norm0.num_batches_tracked"]
    );
}

#[test]
fn the_older_spelling_of_the_names_is_understood() {
    let old = published().into_iter().map(|(name, tensor)| {
        let name = if name.contains("denselayer") {
            name.replace("norm1", "norm.1")
                .replace("norm2", "norm.2")
                .replace("conv1", "conv.1")
                .replace("conv2", "conv.2")
        } else {
            name
        };
        (name, tensor)
    });
    let (parameters, _) = small(2);
    load_into(&parameters, &old.collect()).unwrap();
    assert_eq!(values(&parameters), values(&small(1).0));
}

#[test]
fn half_precision_weights_are_widened() {
    let mut tensors = published();
    let name = "features.conv0.weight";
    tensors.insert(
        name.to_owned(),
        tensors[name].to_dtype(DType::BF16).unwrap(),
    );
    let (parameters, _) = small(2);
    load_into(&parameters, &tensors).unwrap();
    assert_eq!(parameters.tensors(name)[name].dtype(), DType::F32);
}

#[test]
fn a_tensor_missing_extra_or_of_another_shape_is_an_error_and_changes_nothing() {
    let name = "features.denseblock1.denselayer2.conv1.weight";
    let mut missing = published();
    missing.remove(name);
    let mut extra = published();
    extra.insert(
        "features.conv9.weight".to_owned(),
        Tensor::new(1f32, &Device::Cpu).unwrap(),
    );
    let mut reshaped = published();
    reshaped.insert(
        name.to_owned(),
        Tensor::zeros((8, 9, 1, 1), DType::F32, &Device::Cpu).unwrap(),
    );
    for (tensors, expected) in [
        (missing, format!("`{name}` is missing")),
        (
            extra,
            "`features.conv9.weight` is not part of the network".to_owned(),
        ),
        (
            reshaped,
            format!("`{name}` has shape [8, 9, 1, 1], expected [8, 10, 1, 1]"),
        ),
    ] {
        let (parameters, _) = small(2);
        let error = load_into(&parameters, &tensors).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(&expected), "{source}");
        assert_eq!(values(&parameters), values(&small(2).0));
    }
}

#[test]
fn a_file_that_is_no_safetensors_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.safetensors");
    std::fs::write(&path, "<html>not found</html>").unwrap();
    let error = load_pretrained(&path, &small(0).0, "features.").unwrap_err();
    assert!(error.to_string().contains("page.safetensors"), "{error}");
}

/// A small batch through the larger networks: every trained tensor, under torchvision's name for the
/// last layers, gets a gradient.
#[test]
fn densenet169_and_201_train() {
    for (config, last_layers) in [
        (DenseNetConfig::densenet169(), [32, 32]),
        (DenseNetConfig::densenet201(), [48, 32]),
    ] {
        let parameters = Parameters::new(0, &Device::Cpu);
        let net = DenseNet::new(&config, &parameters.root().pp("features")).unwrap();
        let images = Tensor::randn(0f32, 1., (2, 3, 64, 64), &Device::Cpu).unwrap();
        let phase = Phase::Train {
            image_keys: &[1, 2],
        };
        let maps = net.forward_t(&images, phase).unwrap();
        assert_eq!(maps.dims(), [2, config.feature_maps(), 2, 2]);
        let gradients = maps.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        let trained = parameters.select(Role::Trainable, "");
        for (name, var) in &trained {
            let gradient = gradients.get(var).unwrap_or_else(|| panic!("`{name}`"));
            let sum = gradient.sqr().unwrap().sum_all().unwrap();
            let sum = sum.to_scalar::<f32>().unwrap();
            assert!(sum.is_finite() && sum > 0., "`{name}`: {sum}");
        }
        for (block, layers) in [(3, last_layers[0]), (4, last_layers[1])] {
            let layer =
                |layer| format!("features.denseblock{block}.denselayer{layer}.conv2.weight");
            let has = |wanted: &str| trained.iter().any(|(name, _)| name == wanted);
            assert!(has(&layer(layers)) && !has(&layer(layers + 1)));
        }
    }
}
