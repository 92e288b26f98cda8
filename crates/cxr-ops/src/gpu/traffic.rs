//! How much a launch moves and multiplies at least: what a profile compares its time with.

use super::machine::{Argument, Product, pack};
use crate::Precision;

/// The least that a piece of work has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Least {
    /// Bytes read and written.
    pub(super) bytes: f64,
    /// Floating-point operations of products.
    pub(super) operations: f64,
}

/// Activations that a kernel on rows reads and writes for each of its rows and channels, which are its first two numbers.
/// What it has per channel counts for nothing beside them.
const OF_ROWS: [(&str, f64); 13] = [
    ("activate", 2.),
    // Four pixels for each of the result.
    ("activate_pool", 5.),
    ("add_masked_parts", 4.),
    ("append", 2.),
    ("append_parts", 2.),
    ("combine", 3.),
    // The gradient that it reads is single precision, of few rows.
    ("feature_gradient_parts", 3.),
    ("mask_parts", 3.),
    ("row_statistics_parts", 1.),
    // Four pixels for each of the result, whose place is a byte.
    ("stem_pool", 5.25),
    // A quarter of a gradient and of a place for each pixel.
    ("stem_unpool_parts", 2.3),
    ("take_gradient", 3.),
    ("unpool_parts", 2.25),
];

fn bytes_an_activation(precision: Precision) -> f64 {
    16. / pack(precision) as f64
}

/// Of a kernel; `None` where nothing is known of it.
pub(super) fn of_kernel<M: ?Sized, T>(
    kernel: &str,
    arguments: &[Argument<'_, M, T>],
    precision: Precision,
) -> Option<Least> {
    let (_, activations) = OF_ROWS.iter().find(|(name, _)| *name == kernel)?;
    let mut numbers = arguments.iter().filter_map(|argument| match argument {
        Argument::Int(number) => Some(f64::from(*number)),
        _ => None,
    });
    let (rows, channels) = (numbers.next()?, numbers.next()?);
    Some(Least {
        bytes: activations * rows * channels * bytes_an_activation(precision),
        operations: 0.,
    })
}

/// Of a product of matrices.
pub(super) fn of_product<M: ?Sized>(product: &Product<'_, M>, precision: Precision) -> Least {
    let [rows, columns, inner] =
        [product.rows, product.columns, product.inner].map(|size| size as f64);
    let of_activation = bytes_an_activation(precision);
    let of_out = if product.is_out_single {
        4.
    } else {
        of_activation
    };
    Least {
        bytes: of_activation * (rows + columns) * inner + of_out * rows * columns,
        operations: 2. * rows * columns * inner,
    }
}

/// Of a pass of a convolution that reads and writes so many activations, with so many products.
pub(super) fn of_convolution(activations: usize, products: usize, precision: Precision) -> Least {
    Least {
        bytes: activations as f64 * bytes_an_activation(precision),
        operations: 2. * products as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::compile::{KERNELS, kernel_names};
    use crate::gpu::machine::Matrix;

    #[test]
    fn estimates_are_of_kernels_that_begin_with_rows_and_channels() {
        for (name, _) in OF_ROWS {
            assert!(kernel_names().any(|kernel| kernel == name), "{name}");
            let definition = KERNELS.split(&format!("\nKERNEL {name}(")).nth(1);
            let (parameters, _) = definition.unwrap().split_once(')').unwrap();
            let parameters = parameters.split(',').map(str::trim);
            let numbers = parameters.filter_map(|text| text.strip_prefix("int "));
            let numbers: Vec<&str> = numbers.take(2).collect();
            assert_eq!(numbers, ["rows", "channels"], "{name}");
        }
    }

    #[test]
    fn what_is_moved_at_least() {
        let sizes: [Argument<'_, [f32], ()>; 3] =
            [Argument::Int(10), Argument::Int(64), Argument::Int(96)];
        let of = |kernel, precision| of_kernel(kernel, &sizes, precision).map(|least| least.bytes);
        assert_eq!(of("activate", Precision::Single), Some(2. * 640. * 4.));
        assert_eq!(of("combine", Precision::Bf16), Some(3. * 640. * 2.));
        assert_eq!(of("affine", Precision::Bf16), None);
        let (left, right, mut out) = ([0f32; 0], [0f32; 0], [0f32; 0]);
        let product = Product {
            rows: 10,
            columns: 3,
            inner: 4,
            left: Matrix::plain(&left[..], 4),
            right: Matrix::plain(&right[..], 3),
            out: &mut out[..],
            out_offset: 0,
            out_pitch: 3,
            is_out_single: true,
        };
        let least = of_product(&product, Precision::Bf16);
        assert_eq!(least.bytes, 2. * (40. + 12.) + 4. * 30.);
        assert_eq!(least.operations, 240.);
        let least = of_convolution(100, 50, Precision::Single);
        assert_eq!((least.bytes, least.operations), (400., 100.));
    }
}
