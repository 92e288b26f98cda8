//! A whole DenseNet.

use candle_core::{Result, Tensor, Var};

use super::{assert_close, difference, flat, noise, tensor};
use crate::gpu::densenet::{self, DenseNetPlan, Statistics};
use crate::gpu::emulator::Emulator;
use crate::gpu::machine::{Machine as _, View};
use crate::gpu::rows::{self, Grid, WeightShape};
use crate::{
    Activation, Conv2dConfig, Precision, avg_pool2d, batch_norm, batch_norm_train, concat_maps,
    conv2d, max_pool2d,
};

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

/// A network whose blocks have one and more layers, and images whose sides are odd at every level. Its channels come by
/// fours, in bf16 by eights.
struct Example {
    plan: DenseNetPlan,
    grid: Grid,
    images: Vec<f32>,
    parameters: Vec<Vec<f32>>,
}

impl Example {
    fn new(precision: Precision) -> Self {
        let plan = match precision {
            Precision::Single => DenseNetPlan {
                stem_maps: 8,
                growth: 4,
                narrow: 12,
                block_layers: vec![2, 2, 1],
                eps: 1e-3,
            },
            Precision::Bf16 => DenseNetPlan {
                stem_maps: 8,
                growth: 8,
                narrow: 24,
                block_layers: vec![3, 2, 1],
                eps: 1e-3,
            },
        };
        assert!(plan.is_fitting(precision));
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

/// The features of an example, its tape, and the gradients of all parameters, each by itself.
fn passes(
    machine: &Emulator,
    example: &Example,
    upstream: &Vec<f32>,
) -> Result<(Vec<f32>, Vec<Vec<f32>>)> {
    let Example {
        plan,
        grid,
        images,
        parameters,
    } = example;
    let views: Vec<_> = parameters.iter().map(View::from).collect();
    let images = (View::from(images), *grid);
    let mut features = machine.alloc(upstream.len())?;
    let statistics = Statistics::OfBatch;
    let tape = densenet::forward(machine, plan, images, &views, statistics, &mut features)?;
    let mut all = machine.alloc(plan.n_parameters())?;
    densenet::backward(machine, plan, &tape, upstream.into(), &mut all)?;
    let mut rest = &all[..];
    let each = parameters.iter().map(|parameter| {
        let (gradient, behind) = rest.split_at(parameter.len());
        rest = behind;
        gradient.to_vec()
    });
    Ok((features, each.collect()))
}

#[test]
fn a_densenet_in_training_and_all_its_gradients() -> Result<()> {
    for (precision, of_features) in [(Precision::Single, 1e-5), (Precision::Bf16, 2e-2)] {
        let Some(machine) = Emulator::with(precision) else {
            return Ok(());
        };
        let example = Example::new(precision);
        let variables = example.variables();
        let expected = densenet(&example.plan, &example.image_tensor(), &variables, None)?;
        let upstream = noise(expected.elem_count(), 3);
        let loss = (&expected * tensor(&upstream, expected.dims()))?.sum_all()?;
        let gradients = loss.backward()?;
        let (features, found) = passes(&machine, &example, &upstream)?;
        let (distance, size) = difference(&features, &flat(&expected));
        assert!(
            distance < of_features * size,
            "{precision:?}, features: {distance:e}"
        );
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
            // norm0's bias has a gradient that is 0 but for rounding: all that reads it subtracts a mean. In bf16 masks
            // flip, which a network of few channels and pixels does not average out: from 1 % in the last layer to 38 %,
            // and more where a gradient is next to nothing.
            let bound = match precision {
                Precision::Single => (1e-4 * size).max(1e-6 * all),
                Precision::Bf16 => 0.45 * size + 4e-3 * all,
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
        let mut back = machine.alloc(54)?;
        rows::unpack_weight(&machine, &packed, shape, (&mut back, 0))?;
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
    let example = Example::new(Precision::Single);
    let Example {
        plan,
        grid,
        images,
        parameters,
    } = &example;
    let views: Vec<_> = parameters.iter().map(View::from).collect();
    let images = (View::from(images), *grid);
    let forward = |statistics: Statistics<'_, [f32]>| {
        let n_features = plan.feature_grid(*grid).rows() * plan.feature_maps();
        let mut features = machine.alloc(n_features)?;
        let tape = densenet::forward(&machine, plan, images, &views, statistics, &mut features)?;
        Result::Ok((features, tape))
    };
    let (of_batch, tape) = forward(Statistics::OfBatch)?;
    // Evaluated with the batch's own statistics, the network does what it did in training.
    let statistics = tape.statistics();
    let running: Vec<_> = statistics.iter().map(|(of, ..)| *of).collect();
    let (features, _) = forward(Statistics::Running(&running))?;
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
    let (features, _) = forward(Statistics::Running(&running))?;
    assert_close("with other statistics", &features, &flat(&expected));
    let of_features = plan.feature_grid(*grid);
    let size = [plan.feature_maps(), of_features.height, of_features.width];
    assert_eq!(expected.dims()[1..], size);
    Ok(())
}
