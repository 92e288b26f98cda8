//! Convolutions as products of patches, against their definition; and what is looked for in results.

use candle_core::{Result, Var};

use super::{assert_close, difference, flat, noise, tensor};
use crate::conv::Geometry;
use crate::gpu::convolution::{Layout, Sizes, Worst, by_product, worst};
use crate::gpu::emulator::Emulator;
use crate::gpu::machine::{Machine as _, Pass, View};
use crate::{Conv2dConfig, Precision, conv2d};

/// `(images, inputs, height, width, outputs, kernel, stride, padding)`: a stem, windows that do not reach the last row,
/// a kernel with gaps between its windows, one that is no square, one pixel.
type Case = (usize, usize, usize, usize, usize, [usize; 2], usize, usize);
const CASES: [Case; 5] = [
    (3, 8, 9, 11, 8, [7, 7], 2, 3),
    (2, 8, 6, 5, 16, [3, 3], 1, 1),
    (2, 8, 8, 7, 8, [2, 2], 3, 0),
    (1, 16, 5, 6, 8, [1, 3], 2, 1),
    (2, 8, 1, 1, 8, [1, 1], 1, 0),
];

fn sizes(layout: Layout, case: Case) -> Sizes {
    let (images, inputs, height, width, outputs, kernel, stride, padding) = case;
    let out = |size: usize, kernel: usize| (size + 2 * padding - kernel) / stride + 1;
    Sizes {
        layout,
        images,
        inputs,
        height,
        width,
        outputs,
        kernel,
        height_out: out(height, kernel[0]),
        width_out: out(width, kernel[1]),
        stride,
        padding,
    }
}

/// Activations out of numbers.
fn activations(machine: &Emulator, values: &[f32]) -> Result<Vec<f32>> {
    let mut memory = machine.alloc_activations(values.len())?;
    machine.write(&mut memory, values);
    Ok(memory)
}

#[test]
fn a_convolution_as_a_product_in_both_layouts_and_precisions() -> Result<()> {
    for precision in Precision::ALL {
        let Some(machine) = Emulator::with(precision) else {
            return Ok(());
        };
        for (layout, case) in [Layout::Nchw, Layout::Nhwc]
            .into_iter()
            .flat_map(|layout| CASES.map(|case| (layout, case)))
        {
            // Maps are single precision.
            if layout == Layout::Nchw && precision == Precision::Bf16 {
                continue;
            }
            let s = sizes(layout, case);
            let input = activations(&machine, &noise(s.n_input(), 1))?;
            let weight = activations(&machine, &noise(s.n_weight(), 2))?;
            let gradient = activations(&machine, &noise(s.n_output(), 3))?;
            let [x, w, g] = [&input, &weight, &gradient].map(View::from);
            for pass in [
                Pass::Forward {
                    input: x,
                    weight: w,
                },
                Pass::OfInput {
                    gradient: g,
                    weight: w,
                },
                Pass::OfWeight {
                    gradient: g,
                    input: x,
                },
            ] {
                let (n, _) = s.n_of(&pass);
                let (mut found, mut expected) =
                    (machine.alloc_activations(n)?, machine.alloc_activations(n)?);
                by_product(&machine, &s, pass, &mut found)?;
                machine.convolve_sizes(&s, pass, &mut expected);
                let [found, expected] =
                    [found, expected].map(|memory| machine.activations(&memory, n));
                let (distance, size) = difference(&found, &expected);
                // In bf16 patches' gradients are rounded before they are added up.
                let bound = match precision {
                    Precision::Single => 1e-6,
                    Precision::Bf16 => 1e-2,
                };
                let what = format!("{precision:?} {} {layout:?} {case:?}", pass.name());
                assert!(distance <= bound * size, "{what}: {distance:e} of {size:e}");
            }
        }
    }
    Ok(())
}

/// Runs that go on read their choices by these words.
#[test]
fn convolutions_are_told_apart_in_words() {
    let s = sizes(Layout::Nhwc, CASES[0]);
    assert_eq!(s.words("bf16"), "NHWC bf16 3×9×11×8 by 8×7×7/2+3");
    let s = sizes(Layout::Nchw, CASES[3]);
    assert_eq!(s.words("TF32"), "NCHW TF32 1×5×6×16 by 8×1×3/2+1");
}

/// More patches than are laid out at once, so that a weight's gradient is a sum over several products.
#[test]
fn images_are_taken_in_groups() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let s = sizes(Layout::Nchw, (4, 3, 6, 7, 5, [3, 3], 1, 1));
    let g = Geometry {
        images: 4,
        maps_in: 3,
        height: 6,
        width: 7,
        maps_out: 5,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        padding: 1,
        height_out: 6,
        width_out: 7,
    };
    assert_eq!(Sizes::from(&g), s);
    // Behind other values of the same memory, as tensors are.
    let behind = |n: usize, seed| [vec![f32::NAN; 3], noise(n, seed)].concat();
    let input = behind(s.n_input(), 1);
    let gradient = behind(s.n_output(), 2);
    let view = |memory| View { memory, offset: 3 };
    let x = Var::from_tensor(&tensor(&input[3..], &[4, 3, 6, 7]))?;
    let weight = Var::from_tensor(&tensor(&noise(s.n_weight(), 3), &[5, 3, 3, 3]))?;
    let config = Conv2dConfig {
        stride: 1,
        padding: 1,
    };
    let y = conv2d(&x, &weight, None, config)?;
    let gradients = (&y * tensor(&gradient[3..], y.dims()))?
        .sum_all()?
        .backward()?;
    let pass = Pass::OfWeight {
        gradient: view(&gradient[..]),
        input: view(&input[..]),
    };
    let mut found = machine.alloc(s.n_weight())?;
    by_product(&machine, &s, pass, &mut found)?;
    assert_close("weight", &found, &flat(gradients.get(&weight).unwrap()));
    Ok(())
}

#[test]
fn the_worst_of_some_activations() -> Result<()> {
    for precision in Precision::ALL {
        let Some(machine) = Emulator::with(precision) else {
            return Ok(());
        };
        // An odd number, over several blocks.
        let n = 3_001;
        let worst = |wrong: &[(usize, f32)]| {
            let mut values = noise(n, 1);
            for &(at, value) in wrong {
                values[at] = value;
            }
            let memory = activations(&machine, &values)?;
            worst(&machine, View::from(&memory), n)
        };
        assert_eq!(worst(&[])?, Worst::Finite);
        assert_eq!(worst(&[(3_000, f32::NEG_INFINITY)])?, Worst::Infinite);
        assert_eq!(worst(&[(3_000, f32::NAN)])?, Worst::Nan);
        let both = [(0, f32::INFINITY), (2_000, f32::NAN)];
        assert_eq!(worst(&both)?, Worst::Nan);
    }
    Ok(())
}
