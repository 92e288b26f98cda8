//! Frozen extractors: their tensors' names, strict loading, and the features of candle-transformers
//! itself on the same file.

#![cfg(feature = "transformers")]
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{convnext, dinov2};
use cxr_backbone::{
    Backbone, ConvNextConfig, ConvNextSize, DinoV2Config, FrozenConfig, FrozenExtractor,
    PretrainedError, TransformerSizes, load_extractor,
};
use cxr_ops::{Parameters, Phase, Role};

fn atto() -> FrozenConfig {
    FrozenConfig::ConvNext(ConvNextConfig {
        size: ConvNextSize::Atto,
        v2: true,
    })
}

fn tiny_transformer() -> FrozenConfig {
    FrozenConfig::DinoV2(DinoV2Config::Other(TransformerSizes {
        depth: 2,
        width: 12,
        heads: 3,
    }))
}

fn build(config: &FrozenConfig) -> (Parameters, FrozenExtractor) {
    let parameters = Parameters::new(0, &Device::Cpu);
    let net = FrozenExtractor::new(config, &parameters.root().pp("features")).unwrap();
    (parameters, net)
}

/// A file of random weights as it is published: without our prefix, with what nobody here needs.
fn published(config: &FrozenConfig, path: &Path) -> HashMap<String, Tensor> {
    let names = build(config).0.tensors("").into_iter();
    let mut tensors: HashMap<String, Tensor> = names
        .map(|(name, tensor)| {
            let random = Tensor::randn(0f32, 0.2, tensor.shape(), &Device::Cpu).unwrap();
            (name.strip_prefix("features.").unwrap().to_owned(), random)
        })
        .collect();
    let width = config.feature_shape(224, 224).0;
    let unused: &[(&str, (usize, usize))] = match config {
        FrozenConfig::ConvNext(_) => &[("head.fc.weight", (1000, width))],
        FrozenConfig::DinoV2(_) => &[
            ("head.weight", (1000, 2 * width)),
            ("mask_token", (1, width)),
        ],
    };
    for (name, shape) in unused {
        let zeros = Tensor::zeros(*shape, DType::F32, &Device::Cpu).unwrap();
        tensors.insert((*name).to_owned(), zeros);
    }
    candle_core::safetensors::save(&tensors, path).unwrap();
    tensors
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn convnext_gives_what_candle_transformers_gives_on_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("convnextv2_atto.safetensors");
    let tensors = published(&atto(), &path);
    let (parameters, net) = build(&atto());
    let report = load_extractor(&path, &parameters, "features.").unwrap();
    assert_eq!(report.ignored, ["head.fc.weight"]);
    // timm's convnextv2_atto has 3,708,400 parameters; its head has a norm and a dense layer.
    assert_eq!(parameters.count(""), 3_708_400 - 2 * 320 - 321 * 1000);

    let images = Tensor::randn(0f32, 1., (2, 3, 64, 32), &Device::Cpu).unwrap();
    let features = net.forward_t(&images, Phase::Evaluate).unwrap();
    assert_eq!(features.dims(), [2, 320, 1, 1]);
    assert_eq!(net.feature_shape(64, 32), (320, 1, 1));
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = convnext::convnext_no_final_layer(&convnext::Config::atto(), weights).unwrap();
    let expected = images.apply(&theirs).unwrap();
    assert_eq!(values(&features), values(&expected));
    let spread = values(&expected)
        .iter()
        .map(|value| value.abs())
        .sum::<f32>();
    assert!(spread > 1., "features of random weights are not all 0");
}

#[test]
fn dinov2_gives_its_normalised_patch_tokens_as_maps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dinov2.safetensors");
    let tensors = published(&tiny_transformer(), &path);
    let (parameters, net) = build(&tiny_transformer());
    let report = load_extractor(&path, &parameters, "features.").unwrap();
    assert_eq!(report.ignored, ["head.weight", "mask_token"]);

    let images = Tensor::randn(0f32, 1., (2, 3, 84, 84), &Device::Cpu).unwrap();
    let features = net.forward_t(&images, Phase::Evaluate).unwrap();
    assert_eq!(features.dims(), [2, 12, 6, 6]);
    assert_eq!(net.feature_shape(84, 84), (12, 6, 6));
    let wide = Tensor::zeros((1, 3, 84, 70), DType::F32, &Device::Cpu).unwrap();
    let refused = net.forward_t(&wide, Phase::Evaluate).unwrap_err();
    assert!(
        refused.to_string().contains("square images, got 84×70"),
        "{refused}"
    );
    // Their network needs its head to be there, with a bias.
    let mut tensors = tensors;
    let bias = Tensor::zeros(1000, DType::F32, &Device::Cpu).unwrap();
    tensors.insert("head.bias".to_owned(), bias);
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let theirs = dinov2::DinoVisionTransformer::new(weights, 2, 12, 3).unwrap();
    // Tokens, patch by patch along the rows, 36×12; one image at a time is all that it takes.
    let maps = (0..2).map(|index| {
        let image = images.narrow(0, index, 1).unwrap();
        let tokens = theirs.get_intermediate_layers(&image, &[1], false, false, true);
        tokens.unwrap().squeeze(0).unwrap().transpose(1, 2).unwrap()
    });
    let maps = Tensor::cat(&maps.collect::<Vec<_>>(), 0).unwrap();
    let maps = maps.contiguous().unwrap();
    assert_eq!(values(&features), values(&maps));
}

#[test]
fn published_sizes_have_published_counts() {
    // Without classifier: facebookresearch/dinov2 names 21 M, 86 M and 300 M parameters.
    for (config, millions) in [(DinoV2Config::Small, 21..23), (DinoV2Config::Base, 86..88)] {
        let (parameters, _) = build(&FrozenConfig::DinoV2(config.clone()));
        let count = parameters.count("") / 1_000_000;
        assert!(millions.contains(&count), "{config:?}: {count} M");
    }
    // timm's convnext_tiny has 28,589,128 parameters with a head of norm and dense layer.
    let tiny = FrozenConfig::ConvNext(ConvNextConfig {
        size: ConvNextSize::Tiny,
        v2: false,
    });
    let (parameters, _) = build(&tiny);
    assert_eq!(parameters.count(""), 28_589_128 - 2 * 768 - 769 * 1000);
    let names = parameters.tensors("");
    for name in [
        "stem.0.weight",
        "stages.3.blocks.2.gamma",
        "stages.1.downsample.1.bias",
    ] {
        assert!(names.contains_key(&format!("features.{name}")), "{name}");
    }
}

#[test]
fn nothing_of_a_frozen_extractor_is_trained_and_no_gradient_leaves_it() {
    let (parameters, net) = build(&tiny_transformer());
    assert!(!net.is_trainable());
    assert!(parameters.select(Role::Trainable, "").is_empty());
    assert!(parameters.select(Role::Running, "").is_empty());
    let images = candle_core::Var::ones((1, 3, 28, 28), DType::F32, &Device::Cpu).unwrap();
    let phase = Phase::Train { image_keys: &[1] };
    let features = net.forward_t(images.as_tensor(), phase).unwrap();
    let gradients = features.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(&images).is_none());
    for (_, var) in parameters.select(Role::Fixed, "") {
        assert!(gradients.get(&var).is_none());
    }
}

#[test]
fn weights_of_another_network_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut tensors = published(&tiny_transformer(), &path);
    tensors.remove("blocks.1.ls1.gamma");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let (parameters, _) = build(&tiny_transformer());
    let error = load_extractor(&path, &parameters, "features.").unwrap_err();
    let PretrainedError::Mismatch { source, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        source.to_string(),
        "the weights do not fit the network: `features.blocks.1.ls1.gamma` is missing"
    );
}
