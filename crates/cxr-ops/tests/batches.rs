//! What evaluation gives of an image is the same bits in a batch of any size: a table of predictions must not depend on
//! how its images were cut into batches. The matrix kernel sums in an order that depends on the sizes of a product.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use candle_core::{Device, Tensor};
use cxr_ops::{Conv2dConfig, conv2d, linear_by_row};

/// Values in [−1, 1) that are not all alike.
fn values(shape: &[usize], seed: u64) -> Tensor {
    let count = shape.iter().product();
    let mut state = seed;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.
    };
    let values: Vec<f32> = (0..count).map(|_| draw()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Calls `f` on all rows at once and on batches of several sizes.
fn assert_batches_agree(what: &str, inputs: &Tensor, f: impl Fn(&Tensor) -> Tensor) {
    let rows = inputs.dims()[0];
    let together = flat(&f(inputs));
    let values_a_row = together.len() / rows;
    for batch_size in [1, 2, 3, 4, 5, 18, 19, 63, 64, 65] {
        let mut found = Vec::new();
        for first in (0..rows).step_by(batch_size) {
            let batch = inputs
                .narrow(0, first, batch_size.min(rows - first))
                .unwrap();
            found.extend(flat(&f(&batch.contiguous().unwrap())));
        }
        let differing = found.iter().zip(&together).position(|(a, b)| a != b);
        let row = differing.map(|at| at / values_a_row);
        assert_eq!(row, None, "{what}, batches of {batch_size}");
    }
}

#[test]
fn a_row_of_a_dense_layer_does_not_depend_on_the_others() {
    for width in [2, 3, 64, 576, 1152] {
        for outputs in [1, 2, 3, 4, 5, 14, 63, 64, 65, 256, 300] {
            let weight = values(&[outputs, width], 1);
            let bias = values(&[outputs], 2);
            let inputs = values(&[90, width], 3);
            let what = format!("{width} to {outputs}");
            assert_batches_agree(&what, &inputs, |inputs| {
                linear_by_row(inputs, &weight, Some(&bias)).unwrap()
            });
        }
    }
}

#[test]
fn an_image_of_a_convolution_does_not_depend_on_the_others() {
    for (in_channels, out_channels, side, kernel) in [
        (8, 4, 6, 3),
        (8, 5, 6, 3),
        (16, 33, 9, 1),
        // As the paper's top network: few pixels, sums of many values.
        (160, 256, 7, 3),
        (128, 66, 5, 3),
        (600, 130, 1, 1),
        (600, 130, 3, 3),
        (64, 128, 14, 3),
    ] {
        let weight = values(&[out_channels, in_channels, kernel, kernel], 1);
        let images = values(&[7, in_channels, side, side], 2);
        let what = format!("{in_channels} to {out_channels} channels on {side}×{side}");
        assert_batches_agree(&what, &images, |images| {
            conv2d(images, &weight, None, Conv2dConfig::default()).unwrap()
        });
    }
}
