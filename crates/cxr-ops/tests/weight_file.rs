//! Weight files: every changed byte is found, and what no network can compute with is refused.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use cxr_ops::{Init, OpsError, Parameters, WeightFile, check_weights};

const DESCRIPTION: &str = r#"{"experiment":"tiny","labels":["Mass","Nodule"]}"#;

fn tensors() -> BTreeMap<String, Tensor> {
    let weight = Tensor::new(&[[0.25f32, -1.5], [3e-8, 7.]], &Device::Cpu).unwrap();
    let variance = Tensor::new(&[1f32, 0.5], &Device::Cpu).unwrap();
    BTreeMap::from([
        ("conv.weight".to_owned(), weight),
        ("norm.running_var".to_owned(), variance),
    ])
}

fn values(tensors: &BTreeMap<String, Tensor>) -> Vec<(&str, Vec<usize>, Vec<f32>)> {
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    let all = tensors.iter();
    all.map(|(name, tensor)| (name.as_str(), tensor.dims().to_vec(), values(tensor)))
        .collect()
}

#[test]
fn a_file_gives_back_what_was_written() {
    let bytes = WeightFile::to_bytes(DESCRIPTION, &tensors()).unwrap();
    assert_eq!(
        bytes,
        WeightFile::to_bytes(DESCRIPTION, &tensors()).unwrap()
    );
    let file = WeightFile::parse(&bytes).unwrap();
    assert!(file.has_digest);
    assert_eq!(file.description.as_deref(), Some(DESCRIPTION));
    assert_eq!(values(&file.tensors), values(&tensors()));
    // Anybody's reader takes it.
    let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
    assert_eq!(values(&read.into_iter().collect()), values(&tensors()));
    let empty = WeightFile::to_bytes("{}", &tensors()).unwrap();
    let empty = WeightFile::parse(&empty).unwrap();
    assert_eq!(empty.description.as_deref(), Some("{}"));
}

/// A flipped bit of a weight was another model, one of the description other labels.
#[test]
fn no_flipped_bit_changes_what_is_read() {
    let sound = WeightFile::to_bytes(DESCRIPTION, &tensors()).unwrap();
    let mut found = 0;
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            match WeightFile::parse(&bytes) {
                Err(_) => found += 1,
                Ok(file) => {
                    assert_eq!(
                        values(&file.tensors),
                        values(&tensors()),
                        "byte {at}, bit {bit}"
                    );
                    // The name of our own key or of the digest: then the file is one from elsewhere, or has a
                    // description that says more than it should.
                    assert!(!file.has_digest || file.description.is_none(), "byte {at}");
                }
            }
        }
    }
    // The two names have 9 letters, and JSON's blanks have no meaning.
    assert!(
        found > 8 * (sound.len() - 20),
        "{found} of {}",
        8 * sound.len()
    );
    let cut = WeightFile::parse(&sound[..sound.len() - 1]);
    assert!(matches!(cut, Err(OpsError::NoWeightFile(_))));
}

#[test]
fn files_from_elsewhere_are_read_in_the_types_that_networks_have() {
    let half = |dtype| tensors()["conv.weight"].to_dtype(dtype).unwrap();
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let tensors = HashMap::from([("conv.weight", half(dtype))]);
        let bytes = safetensors::serialize(tensors, None).unwrap();
        let file = WeightFile::parse(&bytes).unwrap();
        assert!(!file.has_digest && file.description.is_none());
        let read = &file.tensors["conv.weight"];
        assert_eq!(read.dtype(), DType::F32);
        let expected = half(dtype).to_dtype(DType::F32).unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(read), flat(&expected));
        check_weights(&file.tensors).unwrap();
    }
}

/// Integers were converted; NaN, infinities and the roots of negative variances went through the whole network.
#[test]
fn what_no_network_can_compute_with_is_named() {
    let with = |name: &str, tensor: Tensor| {
        let mut tensors = tensors();
        tensors.insert(name.to_owned(), tensor);
        check_weights(&tensors).unwrap_err().to_string()
    };
    let new = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let found = with("a", new(&[1., f32::NAN, f32::INFINITY]));
    assert_eq!(found, "`a` holds 2 of 3 values that are not finite");
    let found = with("norm.running_var", new(&[0., -1e-6]));
    assert!(found.starts_with("`norm.running_var` holds the negative variance -"));
    let integers = Tensor::new(&[0x3f80_0000_i64], &Device::Cpu).unwrap();
    assert!(with("a", integers.clone()).contains("holds I64"));
    // Twice the largest `f32`.
    let large = Tensor::new(&[6.8e38_f64], &Device::Cpu).unwrap();
    assert!(with("a", large).contains("not finite"));

    let parameters = Parameters::new(0, &Device::Cpu);
    parameters.root().trainable("a", 1, Init::Zeros).unwrap();
    let offered = BTreeMap::from([("a".to_owned(), integers)]);
    let found = parameters.load("", &offered).unwrap_err().to_string();
    assert!(
        found.contains("`a` holds I64, expected floating-point"),
        "{found}"
    );
}

#[test]
fn a_parameter_without_memory_is_an_error() {
    let parameters = Parameters::new(0, &Device::Cpu);
    for shape in [vec![usize::MAX, 2], vec![1 << 40, 1 << 20]] {
        let found = parameters.root().trainable("a", shape, Init::Zeros);
        assert!(matches!(found, Err(OpsError::TooLarge { .. })));
    }
}
