//! Steps of optimisers, and sums of squares.

use candle_core::Result;

use super::{assert_close, noise};
use crate::gpu::calls::{self, Updated};
use crate::gpu::emulator::Emulator;
use crate::gpu::machine::View;
use crate::gpu::{AdamWConstants, RmsPropConstants};

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

#[test]
fn averages_move_by_a_share() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    let ([mut averages, values], _) = step_inputs();
    let before = averages.clone();
    let pairs: Vec<_> = (averages.iter_mut().zip(&values))
        .map(|(average, values)| (average.as_mut_ptr() as u64, values.into(), values.len()))
        .collect();
    calls::lerp(&machine, &pairs, 0.25)?;
    for ((average, before), values) in averages.iter().zip(&before).zip(&values) {
        let both = before.iter().zip(values);
        let expected: Vec<f32> = both.map(|(old, new)| 0.75 * old + 0.25 * new).collect();
        assert_close("average", average, &expected);
    }
    Ok(())
}

#[test]
fn a_norm_and_its_bound() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    // More tensors than a block has threads.
    let tensors: Vec<Vec<f32>> = (0..300).map(|seed| noise(1 + seed % 7, seed)).collect();
    let size = |tensors: &[Vec<f32>]| -> Result<(f64, f32, Vec<f32>)> {
        let views: Vec<_> = tensors.iter().map(|t| (View::from(t), t.len())).collect();
        let squares = calls::sums_of_squares(&machine, &views)?;
        let size = calls::size(&machine, &squares, views.len())?;
        Ok((f64::from(size[0]) + f64::from(size[1]), size[2], size))
    };
    let squares = tensors.iter().flatten().map(|&x| f64::from(x).powi(2));
    let expected = squares.sum::<f64>().sqrt();
    let (norm, first, values) = size(&tensors)?;
    assert!((norm / expected - 1.).abs() < 1e-12, "{norm}");
    assert_eq!(first, -1.);

    // Within the bound nothing but the factor is left; beyond it the norm becomes the bound.
    for (factor, largest) in [(1., 1e3), (0.125, 2.), (0.125, 1e3), (1., 2.)] {
        let scale = calls::bound(&machine, (&values).into(), factor, largest)?;
        let (factor, largest) = (f64::from(factor), f64::from(largest));
        let expected = factor * (largest / (factor * norm + 1e-6)).min(1.);
        assert!((f64::from(scale[0]) / expected - 1.).abs() < 1e-7);
    }

    for (wrong, place) in [(f32::NAN, 299), (f32::INFINITY, 270), (1e30, 13)] {
        let mut tensors = tensors.clone();
        tensors[299][0] = f32::NAN;
        tensors[place][0] = wrong;
        let (_, first, _) = size(&tensors)?;
        assert_eq!(first, place as f32, "{wrong}");
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
fn updates<'a>(weights: &mut [Vec<f32>], gradients: &'a [Vec<f32>]) -> Vec<Updated<'a, [f32]>> {
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
    for decay_in_gradient in [false, true] {
        let constants = AdamWConstants {
            beta1: 0.8,
            new_in_first: 0.2,
            beta2: 0.95,
            new_in_second: 0.05,
            second_correction: 1.5,
            eps: 1e-3,
            decay_in_gradient,
        };
        let ([mut weights, gradients], [mut first, mut second]) = step_inputs();
        let (before, moments) = (weights.clone(), [first.clone(), second.clone()]);
        let updates = updates(&mut weights, &gradients);
        calls::adamw(
            &machine,
            &updates,
            [&mut first, &mut second],
            (&vec![0.5]).into(),
            &constants,
        )?;
        let mut at = 0;
        for (index, update) in updates.iter().enumerate() {
            let mut expected = Vec::new();
            for (w, g) in before[index].iter().zip(&gradients[index]) {
                let [w, g, m, v] = [*w, 0.5 * g, moments[0][at], moments[1][at]].map(f64::from);
                let [rate, decay] = [update.rate, update.decay].map(f64::from);
                let (g, kept) = match decay_in_gradient {
                    true => (g + decay * w, 1.),
                    false => (g, decay),
                };
                let (m, v) = (0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g);
                expected.push((kept * w - rate * m / (v.sqrt() * 1.5 + 1e-3)) as f32);
                let close = |got: f32, expected: f64| (f64::from(got) - expected).abs() < 1e-6;
                assert!(close(first[at], m) && close(second[at], v));
                at += 1;
            }
            assert_close("weights", &weights[index], &expected);
        }
    }
    Ok(())
}

#[test]
fn a_step_of_rmsprop_on_all_tensors() -> Result<()> {
    let Some(machine) = Emulator::new() else {
        return Ok(());
    };
    for momentum in [0., 0.75] {
        let constants = RmsPropConstants {
            alpha: 0.9,
            new_in_square: 0.1,
            eps: 1e-2,
            momentum,
        };
        let ([mut weights, gradients], [mut buffer, mut squares]) = step_inputs();
        let (before, squares_before) = (weights.clone(), squares.clone());
        let buffer_before = buffer.clone();
        let updates = updates(&mut weights, &gradients);
        calls::rmsprop(
            &machine,
            &updates,
            [&mut squares, &mut buffer],
            (&vec![0.5]).into(),
            &constants,
        )?;
        let mut at = 0;
        for (index, update) in updates.iter().enumerate() {
            let mut expected = Vec::new();
            for (w, g) in before[index].iter().zip(&gradients[index]) {
                let g = f64::from(0.5 * g + update.decay * w);
                let v = 0.9 * f64::from(squares_before[at]) + 0.1 * g * g;
                let step = g / (v.sqrt() + 1e-2);
                let b = f64::from(momentum) * f64::from(buffer_before[at]) + step;
                expected.push((f64::from(*w) - f64::from(update.rate) * b) as f32);
                at += 1;
            }
            assert_close("weights", &weights[index], &expected);
        }
        assert_eq!(momentum == 0., buffer == buffer_before);
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
        let scale = vec![0.5];
        calls::sgd(
            &machine,
            &updates,
            &mut buffer,
            (&scale).into(),
            momentum,
            nesterov,
        )?;
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
