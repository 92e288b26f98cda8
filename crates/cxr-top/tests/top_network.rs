//! Sizes, what cannot be built, and dropout. Values and gradients are tested with the backbone's.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use candle_core::{DType, Device, Tensor};
use cxr_ops::{Parameters, Phase, Role};
use cxr_top::{HEADS, Head, HeadError, TopNetwork, TopNetworkConfig, TopNetworkError};
use serde_json::Value;

#[path = "../../../tests/golden/golden.rs"]
mod golden;

fn build(maps: (usize, usize, usize)) -> Result<(Parameters, TopNetwork), TopNetworkError> {
    let parameters = Parameters::new(0, &Device::Cpu);
    let config = TopNetworkConfig::default();
    let network = TopNetwork::new(maps, 14, &config, &parameters.root().pp("top"))?;
    Ok((parameters, network))
}

#[test]
fn the_papers_network_has_the_papers_size() {
    let (parameters, _) = build((1024, 7, 7)).unwrap();
    assert_eq!(parameters.count("top."), 2_731_142);
    let trained = parameters.select(Role::Trainable, "top.");
    let trained: usize = trained.iter().map(|(_, var)| var.elem_count()).sum();
    // Two running statistics for each of 256 + 128 + 64 + 14 channels.
    assert_eq!(trained, 2_731_142 - 2 * 462);
}

#[test]
fn maps_that_two_unpadded_convolutions_eat_up_are_refused() {
    for maps in [(8, 4, 7), (8, 7, 4), (8, 1, 1)] {
        assert!(
            matches!(build(maps), Err(TopNetworkError::MapsTooSmall { .. })),
            "{maps:?}"
        );
    }
    let (_, network) = build((8, 5, 6)).unwrap();
    let maps = Tensor::ones((2, 8, 5, 6), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(
        network.forward_t(&maps, Phase::Evaluate).unwrap().dims(),
        [2, 14]
    );
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    let (parameters, _) = build((8, 7, 7)).unwrap();
    let config = TopNetworkConfig::default();
    let again = TopNetwork::new((8, 7, 7), 14, &config, &parameters.root().pp("top"));
    assert!(
        again
            .unwrap_err()
            .to_string()
            .contains("`top.conv1.weight` exists twice")
    );
}

/// What a head is exported by is what its layers compute, under the same names.
#[test]
fn a_head_is_its_description() {
    for entry in HEADS {
        let config = entry.parse(&Value::Null).unwrap();
        let shape = (12, 6, 7);
        let by_hand = Parameters::new(0, &Device::Cpu);
        let described = Parameters::new(1, &Device::Cpu);
        let head = config.build(shape, 5, &by_hand.root().pp("top")).unwrap();
        let description = match config.describe(shape, 5) {
            Err(HeadError::NotDescribed { .. }) => {
                assert!(["csra", "cral"].contains(&entry.name), "{}", entry.name);
                continue;
            }
            described => described.unwrap(),
        };
        let other = description.build(&described.root().pp("top")).unwrap();
        let weights = (by_hand.tensors("").into_iter())
            .map(|(name, tensor)| (name.clone(), golden::parameter(&name, tensor.dims())))
            .collect();
        by_hand.load("", &weights).unwrap();
        described.load("", &weights).unwrap();
        let features = golden::tensor("features", &[3, 12, 6, 7], 1., 0.5);
        let expected = head.forward_t(&features, Phase::Evaluate).unwrap();
        let found = other.forward_t(&features, Phase::Evaluate).unwrap();
        assert_eq!(found.dims(), [3, 5, 1, 1], "{}", entry.name);
        let difference = (found.flatten_from(1).unwrap() - &expected).unwrap();
        let largest = difference.abs().unwrap().max_all().unwrap();
        let largest = largest.to_scalar::<f32>().unwrap();
        assert!(largest < 1e-5, "{}: {largest}", entry.name);
    }
}
