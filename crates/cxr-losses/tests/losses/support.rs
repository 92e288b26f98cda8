//! What the tests share: losses by golden name, gradients, comparisons.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use cxr_losses::{LOSSES, MultiLabelLoss, by_name};

pub(crate) fn matrix(values: &[f64], n_labels: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / n_labels, n_labels), &Device::Cpu).unwrap()
}

pub(crate) fn make(name: &str, parameters: &[(&str, f64)]) -> Box<dyn MultiLabelLoss> {
    let parameters: BTreeMap<String, f64> = parameters
        .iter()
        .map(|(name, value)| (name.to_string(), *value))
        .collect();
    by_name(name, &parameters).unwrap()
}

/// Every loss with its default parameters, but for BAL, which is not defined for all logits and has tests of its own.
pub(crate) fn all_losses() -> Vec<Box<dyn MultiLabelLoss>> {
    let entries = LOSSES.iter();
    let defined = entries.filter(|entry| entry.name != "balanced-asymmetric");
    defined.map(|entry| make(entry.name, &[])).collect()
}

/// The weights that the golden script gives to the values of an unreduced loss.
pub(crate) fn upstream(count: usize) -> Vec<f64> {
    (0..count).map(|k| 0.5 + 0.25 * (k % 3) as f64).collect()
}

/// Unreduced values, and the gradient of their sum weighted by [`upstream`], both in `f64`.
pub(crate) fn evaluate(
    loss: &dyn MultiLabelLoss,
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
) -> (Vec<f64>, Vec<f64>) {
    let logits = Var::from_tensor(logits).unwrap();
    let (values, gradients) = differentiate(loss, &logits, targets, mask);
    let gradient = gradients.get(&logits).expect("a gradient for the logits");
    assert_eq!(gradient.dtype(), logits.dtype());
    (flat(&values), flat(gradient))
}

/// The same as tensors, with the gradients of the loss's own variables.
pub(crate) fn differentiate(
    loss: &dyn MultiLabelLoss,
    logits: &Var,
    targets: &Tensor,
    mask: Option<&Tensor>,
) -> (Tensor, GradStore) {
    let values = loss.forward(logits, targets, mask).unwrap();
    let weights = upstream(values.elem_count());
    let weights = Tensor::new(weights.as_slice(), &Device::Cpu).unwrap();
    let weights = weights.reshape(values.shape()).unwrap();
    let weights = weights.to_dtype(values.dtype()).unwrap();
    let total = weights.mul(&values).unwrap().sum_all().unwrap();
    let gradients = total.backward().unwrap();
    (values, gradients)
}

pub(crate) fn flat(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Asserts |got − expected| ≤ `relative` · |expected| + `absolute`, entry by entry.
#[track_caller]
pub(crate) fn assert_close(
    got: &[f64],
    expected: &[f64],
    relative: f64,
    absolute: f64,
    what: &str,
) {
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let tolerance = relative * expected.abs() + absolute;
        assert!(
            (got - expected).abs() <= tolerance,
            "{what}: entry {index} is {got}, expected {expected}"
        );
    }
}
