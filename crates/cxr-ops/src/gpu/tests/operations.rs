//! Normalisation, pooling and dropout.

use candle_core::{Result, Var};

use super::{assert_close, flat, noise, tensor};
use crate::gpu::calls::{self, Affine, Moving};
use crate::gpu::emulator::Emulator;
use crate::gpu::machine::View;
use crate::norm::Extent;
use crate::pool::Windows;
use crate::{
    Activation, Phase, avg_pool2d, batch_norm, batch_norm_train, dropout, layers, max_pool2d,
};

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

#[test]
fn running_averages_of_many_normalisations_move_at_once() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let sizes = [300, 1, 64];
    let values = |seed: usize| -> Vec<Vec<f32>> {
        (seed..)
            .zip(sizes)
            .map(|(seed, n)| noise(n, seed))
            .collect()
    };
    let [mut means, mut variances, new_means, new_variances] = [1, 4, 7, 10].map(values);
    let before = [means.clone(), variances.clone()];
    let all: Vec<Moving<'_, [f32]>> = (0..sizes.len())
        .map(|at| Moving {
            running: [
                means[at].as_mut_ptr() as u64,
                variances[at].as_mut_ptr() as u64,
            ],
            batch: [(&new_means[at]).into(), (&new_variances[at]).into()],
            channels: sizes[at],
            momentum: 0.1 * (at + 1) as f64,
            factor: 1. + at as f64,
        })
        .collect();
    calls::update_all_running(&machine, &all)?;
    for (at, moving) in all.iter().enumerate() {
        let (momentum, factor) = (moving.momentum as f32, moving.factor as f32);
        let moved = |old: &[f32], new: &[f32], factor: f32| -> Vec<f32> {
            let both = old.iter().zip(new);
            both.map(|(old, new)| (1. - momentum) * old + momentum * factor * new)
                .collect()
        };
        assert_close(
            "means",
            &means[at],
            &moved(&before[0][at], &new_means[at], 1.),
        );
        let expected = moved(&before[1][at], &new_variances[at], factor);
        assert_close("variances", &variances[at], &expected);
    }
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

#[test]
fn dropout_draws_as_the_processor_does() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    // Fewer values than a block of draws has, whole blocks, and a part of one.
    for values_an_image in [1, 15, 16, 64, 1_000] {
        let keys = [3u64, u64::MAX, 0];
        let x: Vec<f32> = noise(3 * values_an_image, 5);
        let phase = Phase::Train { image_keys: &keys };
        let input = tensor(&x, &[3, values_an_image]);
        let expected = flat(&dropout(&input, 0.3, "layer", phase)?);
        let keys = keys.map(|key| layers::words(layers::dropout_key(key, "layer")));
        let threshold = (0.3 * 2f64.powi(32)) as u32;
        let view = View::from(&x);
        let kept = (1. / 0.7) as f32;
        let found = calls::dropout(&machine, view, values_an_image, &keys, threshold, kept)?;
        assert_eq!(found, expected, "{values_an_image}");
    }
    Ok(())
}
