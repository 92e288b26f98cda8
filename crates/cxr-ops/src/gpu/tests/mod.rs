//! Every call on the emulator against the operation of the processor.

mod convolution;
mod graph;
mod images;
mod memory;
mod network;
mod operations;
mod optimiser;

use candle_core::{Device, Tensor};

/// Noise in ±1 from a formula, different for every `seed`.
fn noise(n: usize, seed: usize) -> Vec<f32> {
    let value = |at: usize| ((at * at % 10_007 + 31 * seed) as f64 * 0.37).sin() as f32;
    (0..n).map(value).collect()
}

fn tensor(values: &[f32], dims: &[usize]) -> Tensor {
    Tensor::from_slice(values, dims, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// ‖found − expected‖ ≤ 10⁻⁵·‖expected‖, the bound for single precision.
#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    let (distance, size) = difference(found, expected);
    // A NaN is not below anything.
    assert!(
        distance <= 1e-5 * size + 1e-30,
        "{what}: {distance:e} of {size:e}"
    );
}

/// ‖a − b‖ and ‖b‖.
fn difference(a: &[f32], b: &[f32]) -> (f64, f64) {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let both = a.iter().zip(b);
    let difference = norm(&mut both.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    (difference, norm(&mut b.iter().map(|&b| f64::from(b))))
}
