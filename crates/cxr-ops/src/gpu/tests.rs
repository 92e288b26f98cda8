//! Every call on the emulator against the operation of the processor.

use candle_core::{Device, Result, Tensor, Var};

use super::AdamWConstants;
use super::calls::{self, Affine, Updated};
use super::densenet::{self, DenseNetPlan, Statistics};
use super::emulator::Emulator;
use super::machine::View;
use super::rows::{self, Grid, WeightShape};
use crate::norm::Extent;
use crate::pool::Windows;
use crate::{
    Activation, Conv2dConfig, Precision, avg_pool2d, batch_norm, batch_norm_train, concat_maps,
    conv2d, max_pool2d,
};

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

/// `(images, channels, positions)`: one value a channel in two images, odd sizes, one channel, one image, more values
/// than one part of a sum takes.
const EXTENTS: [(usize, usize, usize); 6] = [
    (2, 3, 1),
    (3, 5, 7),
    (4, 1, 49),
    (1, 300, 12),
    (2, 2, 5_000),
    (9, 33, 81),
];

#[test]
fn normalisation_by_the_batch_and_its_gradients() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    for (images, channels, positions) in EXTENTS {
        let extent = Extent {
            images,
            channels,
            positions,
        };
        let (n, eps, dims) = (
            images * channels * positions,
            1e-5,
            [images, channels, positions],
        );
        // Channel means of up to fourteen deviations.
        let values: Vec<f32> = (noise(n, 1).iter().enumerate())
            .map(|(at, v)| v + (at / positions % channels % 5) as f32 * 2.5)
            .collect();
        let (weight, bias) = (noise(channels, 2), noise(channels, 3));
        let upstream = noise(n, 4);
        for activation in [Activation::Identity, Activation::Relu] {
            let what = format!("{images}×{channels}×{positions}, {activation:?}");
            let x = Var::from_tensor(&tensor(&values, &dims))?;
            let w = Var::from_tensor(&tensor(&weight, &[channels]))?;
            let b = Var::from_tensor(&tensor(&bias, &[channels]))?;
            let (y, of_batch) = batch_norm_train(&x, &w, &b, eps, activation)?;
            let gradients = (&y * tensor(&upstream, &dims))?.sum_all()?.backward()?;

            let found = calls::statistics(&machine, (&values).into(), extent, eps)?;
            let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
            assert_close(
                &format!("{what}, mean"),
                &found.mean,
                &single(&of_batch.mean),
            );
            let variance = single(&of_batch.biased_variance);
            assert_close(&format!("{what}, variance"), &found.variance, &variance);

            let affine = Affine {
                mean: (&found.mean).into(),
                inverse: (&found.inverse).into(),
                weight: (&weight).into(),
                bias: (&bias).into(),
                activation,
            };
            let output = calls::normalise(&machine, (&values).into(), &affine, extent)?;
            let expected = exact(&values, &weight, &bias, extent, eps, activation);
            assert_close(&format!("{what}, output"), &output, &expected);

            // With the processor's output, so that both take the same side of each ReLU.
            let y = flat(&y);
            let views = [&upstream, &y, &values].map(View::from);
            let [g, y, x_view] = views;
            let found =
                calls::normalise_gradients(&machine, g, y, x_view, &affine, extent, true, true)?;
            let of = |var: &Var| flat(gradients.get(var).unwrap());
            assert_close(&format!("{what}, weight"), &found.of_weight, &of(&w));
            assert_close(&format!("{what}, bias"), &found.of_bias, &of(&b));
            if images * positions > 2 {
                // Of two values a channel it is all rounding: x̂ is ±1 whatever x is.
                let of_input = found.of_input.unwrap();
                assert_close(&format!("{what}, input"), &of_input, &of(&x));
            }
        }
    }
    Ok(())
}

/// The normalisation by the batch, in double precision.
fn exact(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    extent: Extent,
    eps: f64,
    activation: Activation,
) -> Vec<f32> {
    let Extent {
        channels,
        positions,
        ..
    } = extent;
    let channel = |at: usize| at / positions % channels;
    let count = extent.values_per_channel() as f64;
    let mut mean = vec![0f64; channels];
    for (at, &x) in x.iter().enumerate() {
        mean[channel(at)] += f64::from(x) / count;
    }
    let mut variance = vec![0f64; channels];
    for (at, &x) in x.iter().enumerate() {
        variance[channel(at)] += (f64::from(x) - mean[channel(at)]).powi(2) / count;
    }
    (x.iter().enumerate())
        .map(|(at, &x)| {
            let c = channel(at);
            let x_hat = (f64::from(x) - mean[c]) / (variance[c] + eps).sqrt();
            let y = (x_hat * f64::from(weight[c]) + f64::from(bias[c])) as f32;
            if activation == Activation::Relu {
                y.max(0.)
            } else {
                y
            }
        })
        .collect()
}

#[test]
fn normalisation_by_given_statistics_and_its_gradients() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    for (images, channels, positions) in EXTENTS {
        let extent = Extent {
            images,
            channels,
            positions,
        };
        let (n, eps, dims) = (
            images * channels * positions,
            1e-3,
            [images, channels, positions],
        );
        let values = noise(n, 1);
        let (weight, bias, mean) = (noise(channels, 2), noise(channels, 3), noise(channels, 5));
        let variance: Vec<f32> = noise(channels, 6).iter().map(|v| v.abs()).collect();
        let upstream = noise(n, 4);
        let x = Var::from_tensor(&tensor(&values, &dims))?;
        let [w, b, m, v] = [&weight, &bias, &mean, &variance].map(|v| tensor(v, &[channels]));
        let y = batch_norm(&x, &w, &b, &m, &v, eps, Activation::Relu)?;
        let gradients = (&y * tensor(&upstream, &dims))?.sum_all()?.backward()?;

        let inverse = calls::inverse_deviation(&machine, (&variance).into(), channels, eps)?;
        let affine = Affine {
            mean: (&mean).into(),
            inverse: (&inverse).into(),
            weight: (&weight).into(),
            bias: (&bias).into(),
            activation: Activation::Relu,
        };
        let output = calls::normalise(&machine, (&values).into(), &affine, extent)?;
        let y = flat(&y);
        assert_close("output", &output, &y);
        let [g, y, x_view] = [&upstream, &y, &values].map(View::from);
        let found =
            calls::normalise_gradients(&machine, g, y, x_view, &affine, extent, false, true)?;
        let expected = flat(gradients.get(&x).unwrap());
        assert_close("input", &found.of_input.unwrap(), &expected);
    }
    Ok(())
}

#[test]
fn running_averages_move_by_their_momentum() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let (mut running, batch) = (noise(300, 1), noise(297, 2));
    let before = running.clone();
    calls::update_running(&machine, (&mut running, 2), (&batch).into(), 297, 0.1, 1.25)?;
    assert_eq!((&running[..2], running[299]), (&before[..2], before[299]));
    let expected: Vec<f32> = (before[2..299].iter().zip(&batch))
        .map(|(old, new)| 0.9 * old + 0.1 * 1.25 * new)
        .collect();
    assert_close("running", &running[2..299], &expected);
    Ok(())
}

/// `(images × channels, height, width, kernel, stride, padding)`.
const POOLINGS: [(usize, usize, usize, usize, usize, usize); 6] = [
    (3, 9, 7, 3, 2, 1),
    (2, 8, 8, 2, 2, 0),
    (1, 5, 11, 3, 1, 1),
    (2, 7, 5, 3, 4, 0),
    (1, 1, 1, 2, 1, 1),
    (4, 33, 30, 5, 3, 2),
];

#[test]
fn maxima_of_windows_and_their_gradient_also_among_equals() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    for (planes, height, width, kernel, stride, padding) in POOLINGS {
        let dims = (1, planes, height, width);
        let what = format!("{planes}×{height}×{width}, {kernel}/{stride}+{padding}");
        let w = Windows::new("max_pool2d", dims, kernel, stride, padding)?;
        // Few values, so that most windows have their maximum more than once.
        let coarse: Vec<f32> = (noise(planes * w.pixels(), 1).iter())
            .map(|v| (v * 2.).round())
            .collect();
        let upstream = noise(planes * w.pixels_out(), 2);
        let x = Var::from_tensor(&tensor(&coarse, &[1, planes, height, width]))?;
        let y = max_pool2d(&x, kernel, stride, padding)?;
        let g = tensor(&upstream, y.dims());
        let gradients = (&y * g)?.sum_all()?.backward()?;
        let found = calls::max_pool(&machine, (&coarse).into(), &w)?;
        assert_eq!(found, flat(&y), "{what}");
        let found = calls::max_pool_gradient(&machine, (&coarse).into(), (&upstream).into(), &w)?;
        assert_close(&what, &found, &flat(gradients.get(&x).unwrap()));
    }
    // A NaN is the maximum of its windows.
    let w = Windows::new("max_pool2d", (1, 1, 4, 4), 2, 2, 0)?;
    let mut values = noise(16, 1);
    values[5] = f32::NAN;
    let found = calls::max_pool(&machine, (&values).into(), &w)?;
    assert!(found[0].is_nan() && found[1..].iter().all(|v| v.is_finite()));
    Ok(())
}

#[test]
fn means_of_windows_and_their_gradient_also_beside_them() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    for (planes, height, width, kernel) in [(3, 8, 6, 2), (2, 7, 5, 2), (1, 9, 10, 3), (5, 1, 1, 1)]
    {
        let w = Windows::new("avg_pool2d", (planes, 1, height, width), kernel, kernel, 0)?;
        let values = noise(planes * w.pixels(), 1);
        let upstream = noise(planes * w.pixels_out(), 2);
        let x = Var::from_tensor(&tensor(&values, &[planes, 1, height, width]))?;
        let y = avg_pool2d(&x, kernel)?;
        let gradients = (&y * tensor(&upstream, y.dims()))?.sum_all()?.backward()?;
        let found = calls::average_pool(&machine, (&values).into(), &w)?;
        assert_close("output", &found, &flat(&y));
        let found = calls::average_pool_gradient(&machine, (&upstream).into(), &w)?;
        assert_close("gradient", &found, &flat(gradients.get(&x).unwrap()));
    }
    Ok(())
}

/// Sizes of tensors: fewer and more values than a block has threads, and more than all blocks of a tensor.
const SIZES: [usize; 4] = [1, 200, 3_000, 20_001];

#[test]
fn squares_of_all_tensors_at_once() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let tensors: Vec<Vec<f32>> = (1..).zip(SIZES).map(|(seed, n)| noise(n, seed)).collect();
    let views: Vec<_> = tensors.iter().map(|t| (View::from(t), t.len())).collect();
    let squares = calls::sums_of_squares(&machine, &views)?;
    for (tensor, parts) in tensors
        .iter()
        .zip(squares.parts.chunks_exact(squares.stride))
    {
        let found: f64 = parts.iter().map(|&part| f64::from(part)).sum();
        let expected: f64 = tensor.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert!(
            (found / expected - 1.).abs() < 1e-12,
            "{found} instead of {expected}"
        );
    }
    Ok(())
}

/// Weights, gradients, and one or two states of all tensors in a row.
fn step_inputs() -> ([Vec<Vec<f32>>; 2], [Vec<f32>; 2]) {
    let tensors = |seed: usize| {
        (seed..)
            .zip(SIZES)
            .map(|(seed, n)| noise(n, seed))
            .collect()
    };
    let n = SIZES.iter().sum();
    let second = noise(n, 9).iter().map(|v| v.abs()).collect();
    ([tensors(0), tensors(4)], [noise(n, 8), second])
}

/// The tensors of a step, each with a rate and a decay of its own.
fn updates<'a>(weights: &mut [Vec<f32>], gradients: &'a [Vec<f32>]) -> Vec<Updated<'a, Vec<f32>>> {
    let mut state = 0;
    let each = weights.iter_mut().zip(gradients).enumerate();
    each.map(|(index, (weights, gradient))| {
        state += weights.len();
        Updated {
            weights: weights.as_mut_ptr() as u64,
            gradient: gradient.into(),
            state: state - weights.len(),
            values: weights.len(),
            rate: 1e-2 * (index + 1) as f32,
            decay: 0.9 + 0.01 * index as f32,
        }
    })
    .collect()
}

#[test]
fn a_step_of_adamw_on_all_tensors() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let constants = AdamWConstants {
        beta1: 0.8,
        new_in_first: 0.2,
        beta2: 0.95,
        new_in_second: 0.05,
        second_correction: 1.5,
        eps: 1e-3,
    };
    let ([mut weights, gradients], [mut first, mut second]) = step_inputs();
    let (before, moments) = (weights.clone(), [first.clone(), second.clone()]);
    let updates = updates(&mut weights, &gradients);
    calls::adamw(
        &machine,
        &updates,
        [&mut first, &mut second],
        0.5,
        &constants,
    )?;
    let mut at = 0;
    for (index, update) in updates.iter().enumerate() {
        let mut expected = Vec::new();
        for (w, g) in before[index].iter().zip(&gradients[index]) {
            let [w, g, m, v] = [*w, 0.5 * g, moments[0][at], moments[1][at]].map(f64::from);
            let (m, v) = (0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g);
            let [rate, kept] = [update.rate, update.decay].map(f64::from);
            expected.push((kept * w - rate * m / (v.sqrt() * 1.5 + 1e-3)) as f32);
            assert!(
                (f64::from(first[at]) - m).abs() < 1e-6 && (f64::from(second[at]) - v).abs() < 1e-6
            );
            at += 1;
        }
        assert_close("weights", &weights[index], &expected);
    }
    Ok(())
}

#[test]
fn a_step_of_gradient_descent_on_all_tensors() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    for (momentum, nesterov) in [(0., false), (0.75, false), (0.75, true)] {
        let ([mut weights, gradients], [mut buffer, _]) = step_inputs();
        let (before, buffer_before) = (weights.clone(), buffer.clone());
        let updates = updates(&mut weights, &gradients);
        calls::sgd(&machine, &updates, &mut buffer, 0.5, momentum, nesterov)?;
        let mut at = 0;
        for (index, update) in updates.iter().enumerate() {
            let mut expected = Vec::new();
            for (w, g) in before[index].iter().zip(&gradients[index]) {
                let g = 0.5 * g + update.decay * w;
                let b = momentum * buffer_before[at] + g;
                let direction = if nesterov { g + momentum * b } else { b };
                expected.push(w - update.rate * if momentum == 0. { g } else { direction });
                at += 1;
            }
            assert_close("weights", &weights[index], &expected);
        }
        assert_eq!(momentum == 0., buffer == buffer_before);
    }
    Ok(())
}

/// A DenseNet out of the processor's operations, with running statistics where they are given: feature maps of
/// images and parameters.
fn densenet(
    plan: &DenseNetPlan,
    images: &Tensor,
    parameters: &[Var],
    running: Option<&[[Tensor; 2]]>,
) -> Result<Tensor> {
    let mut parameters = parameters.iter();
    let mut norms = 0;
    let mut next = || parameters.next().unwrap();
    let conv = |x: &Tensor, weight: &Var, stride, padding| {
        conv2d(x, weight, None, Conv2dConfig { stride, padding })
    };
    let mut norm = |x: &Tensor, weight: &Var, bias: &Var| {
        norms += 1;
        match running {
            None => Ok(batch_norm_train(x, weight, bias, plan.eps, Activation::Relu)?.0),
            Some(running) => {
                let [mean, variance] = &running[norms - 1];
                batch_norm(x, weight, bias, mean, variance, plan.eps, Activation::Relu)
            }
        }
    };
    let stem = conv(images, next(), 2, 3)?;
    let mut maps = max_pool2d(&norm(&stem, next(), next())?, 3, 2, 1)?;
    for (index, &layers) in plan.block_layers.iter().enumerate() {
        if index > 0 {
            let activated = norm(&maps, next(), next())?;
            maps = avg_pool2d(&conv(&activated, next(), 1, 0)?, 2)?;
        }
        for _ in 0..layers {
            let activated = norm(&maps, next(), next())?;
            let narrow = conv(&activated, next(), 1, 0)?;
            let activated = norm(&narrow, next(), next())?;
            maps = concat_maps(&maps, &conv(&activated, next(), 1, 1)?)?;
        }
    }
    norm(&maps, next(), next())
}

/// A network whose blocks have one and more layers, and images whose sides are odd at every level.
struct Example {
    plan: DenseNetPlan,
    grid: Grid,
    images: Vec<f32>,
    parameters: Vec<Vec<f32>>,
}

impl Example {
    fn new() -> Self {
        let plan = DenseNetPlan {
            stem_maps: 8,
            growth: 4,
            narrow: 12,
            block_layers: vec![2, 2, 1],
            eps: 1e-3,
        };
        let grid = Grid {
            images: 3,
            height: 53,
            width: 45,
        };
        let parameters = (plan.parameter_shapes().iter().enumerate())
            .map(|(seed, shape)| {
                let values = noise(shape.iter().product(), seed + 7);
                let fan_in: usize = shape[1..].iter().product();
                match shape.len() {
                    1 => values.iter().map(|v| 0.7 + 0.5 * v).collect(),
                    _ => values
                        .iter()
                        .map(|v| v * (3. / fan_in as f32).sqrt())
                        .collect(),
                }
            })
            .collect();
        let images = noise(grid.rows() * 3, 1);
        Self {
            plan,
            grid,
            images,
            parameters,
        }
    }

    fn image_tensor(&self) -> Tensor {
        tensor(
            &self.images,
            &[self.grid.images, 3, self.grid.height, self.grid.width],
        )
    }

    fn variables(&self) -> Vec<Var> {
        (self.parameters.iter().zip(self.plan.parameter_shapes()))
            .map(|(values, shape)| Var::from_tensor(&tensor(values, &shape)).unwrap())
            .collect()
    }
}

/// ‖a − b‖ and ‖b‖.
fn difference(a: &[f32], b: &[f32]) -> (f64, f64) {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let both = a.iter().zip(b);
    let difference = norm(&mut both.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    (difference, norm(&mut b.iter().map(|&b| f64::from(b))))
}

#[test]
fn a_densenet_in_training_and_all_its_gradients() -> Result<()> {
    let example = Example::new();
    let Example {
        plan,
        grid,
        images,
        parameters,
    } = &example;
    let variables = example.variables();
    let expected = densenet(plan, &example.image_tensor(), &variables, None)?;
    let upstream = noise(expected.elem_count(), 3);
    let loss = (&expected * tensor(&upstream, expected.dims()))?.sum_all()?;
    let gradients = loss.backward()?;
    let expected = flat(&expected);
    for (precision, of_features, of_gradients) in [
        (Precision::Single, 1e-5, 1e-4),
        (Precision::Bf16, 2e-2, 0.25),
    ] {
        let Some(machine) = Emulator::with(precision) else {
            return Ok(());
        };
        let views: Vec<_> = parameters.iter().map(View::from).collect();
        let images = (View::from(images), *grid);
        let (features, tape) =
            densenet::forward(&machine, plan, images, &views, Statistics::OfBatch)?;
        let (distance, size) = difference(&features, &expected);
        assert!(
            distance < of_features * size,
            "{precision:?}, features: {distance:e}"
        );
        let found = densenet::backward(&machine, plan, &tape, (&upstream).into())?;
        assert_eq!(found.len(), variables.len());
        let pairs = found.iter().zip(&variables);
        let differences: Vec<(f64, f64)> = pairs
            .map(|(found, variable)| difference(found, &flat(gradients.get(variable).unwrap())))
            .collect();
        let all = differences
            .iter()
            .map(|(_, size)| size * size)
            .sum::<f64>()
            .sqrt();
        for (at, (distance, size)) in differences.iter().enumerate() {
            // In bf16 masks flip, which a network of few channels and pixels does not average out: what is held to a
            // bound is all gradients together. And norm0's bias has a gradient that is 0 but for rounding: all
            // that reads it subtracts a mean.
            let bound = match precision {
                Precision::Single => (of_gradients * size).max(1e-6 * all),
                Precision::Bf16 => of_gradients * all,
            };
            let shape = variables[at].dims();
            assert!(
                *distance < bound,
                "{precision:?}, parameter {at} {shape:?}: {distance:e} of {size:e}"
            );
        }
    }
    Ok(())
}

#[test]
fn activations_are_rounded_to_nearest_and_packed_by_taps() -> Result<()> {
    let shape = WeightShape {
        outputs: 2,
        inputs: 3,
        taps: 9,
        packed_inputs: 4,
    };
    let mut weight = noise(54, 1);
    // Ties in both directions, the largest number, infinity and a NaN.
    let special = [
        1. + 1. / 256.,
        1. + 3. / 256.,
        f32::MAX,
        f32::NEG_INFINITY,
        f32::NAN,
        -0.,
    ];
    weight[..6].copy_from_slice(&special);
    for precision in Precision::ALL {
        let Some(machine) = Emulator::with(precision) else {
            return Ok(());
        };
        let packed = rows::pack_weight(&machine, (&weight).into(), shape)?;
        let values = machine.activations(&packed, 2 * 9 * 4);
        let back = rows::unpack_weight(&machine, &packed, shape)?;
        for (at, &weight) in weight.iter().enumerate() {
            let (output, input, tap) = (at / 27, at / 9 % 3, at % 9);
            let expected = match precision {
                Precision::Single => weight,
                Precision::Bf16 => f32::from_bits(crate::bf16::pair(weight, 0.) << 16),
            };
            let found = values[(output * 9 + tap) * 4 + input];
            assert_eq!(found.to_bits(), expected.to_bits(), "{weight}");
            assert_eq!(back[at].to_bits(), expected.to_bits(), "{weight}");
        }
        assert!(
            values
                .iter()
                .skip(3)
                .step_by(4)
                .all(|&padding| padding == 0.)
        );
    }
    Ok(())
}

#[test]
fn a_densenet_in_evaluation_and_the_statistics_of_a_batch() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let example = Example::new();
    let Example {
        plan,
        grid,
        images,
        parameters,
    } = &example;
    let views: Vec<_> = parameters.iter().map(View::from).collect();
    let images = (View::from(images), *grid);
    let (of_batch, tape) = densenet::forward(&machine, plan, images, &views, Statistics::OfBatch)?;
    // Evaluated with the batch's own statistics, the network does what it did in training.
    let statistics = tape.statistics();
    let running: Vec<_> = statistics.iter().map(|(of, ..)| *of).collect();
    let running = Statistics::Running(&running);
    let (features, _) = densenet::forward(&machine, plan, images, &views, running)?;
    assert_close("with the batch's statistics", &features, &of_batch);
    // And with others what the processor does; each has its own number of channels.
    let other: Vec<[Vec<f32>; 2]> = (statistics.iter().enumerate())
        .map(|(seed, &(_, channels, count))| {
            assert!(count > 1);
            let variance = noise(channels, seed + 50)
                .iter()
                .map(|v| 0.5 + v.abs())
                .collect();
            [noise(channels, seed), variance]
        })
        .collect();
    let tensors: Vec<[Tensor; 2]> = (other.iter())
        .map(|[mean, variance]| [mean, variance].map(|v| tensor(v, &[v.len()])))
        .collect();
    let expected = densenet(
        plan,
        &example.image_tensor(),
        &example.variables(),
        Some(&tensors),
    )?;
    let running: Vec<_> = other.iter().map(|[m, v]| [m.into(), v.into()]).collect();
    let running = Statistics::Running(&running);
    let (features, _) = densenet::forward(&machine, plan, images, &views, running)?;
    assert_close("with other statistics", &features, &flat(&expected));
    let of_features = plan.feature_grid(*grid);
    let size = [plan.feature_maps(), of_features.height, of_features.width];
    assert_eq!(expected.dims()[1..], size);
    Ok(())
}

/// The warp by its definition, in double precision, one channel: bilinear in an image mirrored at its edges.
fn warped(
    pixels: &[u8],
    side: usize,
    map: &[f64; 6],
    size: usize,
    [factor, summand]: [f32; 2],
) -> Vec<f32> {
    let mirrored = |position: f64| {
        let period = position.rem_euclid(2. * side as f64);
        let pixel = if period < side as f64 {
            period
        } else {
            2. * side as f64 - 1. - period
        };
        pixel as usize
    };
    let at = |x: f64, y: f64| f64::from(pixels[mirrored(y) * side + mirrored(x)]);
    let mut out = Vec::new();
    for (row, column) in (0..size).flat_map(|row| (0..size).map(move |column| (row, column))) {
        let (row, column) = (row as f64, column as f64);
        let (x, y) = (
            map[0] * column + map[1] * row + map[2],
            map[3] * column + map[4] * row + map[5],
        );
        let (left, above) = (x.floor(), y.floor());
        let (right, below) = (x - left, y - above);
        let line = |x: f64| at(x, above) * (1. - below) + at(x, above + 1.) * below;
        let grey = line(left) * (1. - right) + line(left + 1.) * right;
        out.push((grey * f64::from(factor) + f64::from(summand)) as f32);
    }
    out
}

#[test]
fn images_are_resampled_beyond_their_borders_too() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let (side, size) = (24, 19);
    let pixels: Vec<u8> = (0..3 * side * side)
        .map(|at| (at * at / 3 % 256) as u8)
        .collect();
    let words = pixels.as_chunks::<4>().0.iter();
    let images: Vec<f32> = words
        .map(|&four| f32::from_bits(u32::from_le_bytes(four)))
        .collect();
    let (sin, cos) = 0.4f64.sin_cos();
    let maps = [
        [1., 0., 2., 0., 1., 3.],
        [-1., 0., 23., 0., 1., 0.],
        [cos, -sin, -7.3, sin, cos, 11.9],
    ];
    let lines = [[0.017, -2.1], [0.0175, -2.], [1., 0.]];
    let warp = calls::Warp {
        side,
        size,
        maps: &maps,
        lines,
    };
    let found = calls::warp(&machine, (&images).into(), &warp)?;
    let expected: Vec<f32> = (maps.iter().zip(pixels.chunks_exact(side * side)))
        .flat_map(|(map, pixels)| lines.map(|line| warped(pixels, side, map, size, line)))
        .flatten()
        .collect();
    // Positions are rounded to a 65536th of a pixel, which is worth at most 255 greys.
    let both = found.iter().zip(&expected);
    let worst = both.map(|(a, b)| (a - b).abs()).fold(0., f32::max);
    assert!(worst <= 2. * 255. / 65536., "{worst}");
    // Whole pixels come out exactly.
    let (first, _) = found.split_at(size * size);
    let red = |at: usize| f32::from(pixels[(at / size + 3) * side + at % size + 2]) * 0.017 - 2.1;
    assert!((0..size * size).all(|at| first[at] == red(at)));
    Ok(())
}
