//! Optimisers and schedules against PyTorch, the average of the weights against a closed form.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../../../tests/golden/golden.rs"]
mod golden;

use candle_core::{DType, Device, Result, Tensor, Var};
use cxr_ops::{Init, Parameters};
use cxr_train::{
    AdamWConfig, Experiment, Gradients, MeanGradients, Optimiser, OptimiserConfig, ParameterGroup,
    RmsPropConfig, Schedule, SgdConfig, StageTime, Trained, WeightAverage,
};
use serde_json::Value;

#[test]
fn fifty_steps_of_adamw_are_pytorchs() -> Result<()> {
    let golden = golden::read("adamw.json");
    for case in golden["cases"].as_array().unwrap() {
        let number = |key: &str| case[key].as_f64().unwrap();
        let config = AdamWConfig {
            beta1: number("beta1"),
            beta2: number("beta2"),
            eps: number("eps"),
            weight_decay: number("weight_decay"),
            decay_vectors: true,
        };
        let shape = [7, 5];
        let parameter = Var::from_tensor(&golden::tensor("parameter", &shape, 1., 0.))?;
        let trained = [Trained::new("parameter", parameter.clone())];
        let mut adamw = Optimiser::new(OptimiserConfig::AdamW(config));
        for step in 0..case["steps"].as_u64().unwrap() {
            // The loss's gradient is the formula's tensor plus a tenth of the parameter.
            let slope = golden::tensor(&format!("slope of step {step}"), &shape, 1., 0.);
            let bowl = (parameter.as_tensor().sqr()? * 0.05)?;
            let loss = ((parameter.as_tensor() * slope)? + bowl)?.sum_all()?;
            let gradients = Gradients::new(&trained, &loss.backward()?).unwrap();
            adamw.step(number("rate"), &trained, &gradients).unwrap();
        }
        golden::compare(
            "parameter after AdamW",
            parameter.as_tensor(),
            &case["expected"],
            1e-5,
            0.,
        )
        .unwrap();
    }
    Ok(())
}

#[test]
fn groups_clipping_and_accumulation_are_pytorchs() {
    let golden = golden::read("optimisers.json");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let worst = fifty_steps(&golden, case).unwrap();
        println!("{}: largest relative error {worst:.1e}", case["name"]);
    }
}

/// Makes the steps of a case; returns the largest error of a parameter relative to its norm.
fn fifty_steps(golden: &Value, case: &Value) -> Result<f64> {
    let config: OptimiserConfig = serde_json::from_value(case["optimiser"].clone()).unwrap();
    let groups: Vec<ParameterGroup> = match case.get("groups") {
        Some(groups) => serde_json::from_value(groups.clone()).unwrap(),
        None => Vec::new(),
    };
    let rate = case["rate"].as_f64().unwrap();
    let batches: Vec<usize> = match case.get("batches") {
        Some(batches) => serde_json::from_value(batches.clone()).unwrap(),
        None => vec![1],
    };
    let shapes = golden["shapes"].as_object().unwrap();
    let mut vars = Vec::new();
    for (name, shape) in shapes {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        vars.push((
            name.clone(),
            Var::from_tensor(&golden::tensor(name, &shape, 1., 0.))?,
        ));
    }
    let trained = Trained::in_groups(vars.clone(), &groups);
    let mut optimiser = Optimiser::new(config);
    for step in 0..golden["steps"].as_u64().unwrap() {
        let mut mean = MeanGradients::default();
        for (batch, &images) in batches.iter().enumerate() {
            let mut loss = Tensor::zeros((), DType::F32, &Device::Cpu)?;
            for parameter in &trained {
                let (name, var) = (&parameter.name, parameter.var.as_tensor());
                let size = 0.2 + 0.4 * (step % 5) as f64;
                let slope = format!("slope of {name} in batch {batch} of step {step}");
                let slope = golden::tensor(&slope, var.dims(), size as f32, 0.);
                let of_parameter = ((var * slope)? + (var.sqr()? * 0.05)?)?;
                loss = (loss + of_parameter.sum_all()?)?;
            }
            let gradients = Gradients::new(&trained, &loss.backward()?).unwrap();
            mean.add(gradients, images).unwrap();
        }
        let mut gradients = mean.finish().unwrap();
        let norm = gradients.norm().unwrap();
        let expected = case["norms"][step as usize].as_f64().unwrap();
        assert!((norm / expected - 1.).abs() < 1e-5, "norm of step {step}");
        if let Some(largest) = case.get("clip_norm") {
            gradients.clip(norm, largest.as_f64().unwrap());
        }
        optimiser.step(rate, &trained, &gradients).unwrap();
    }
    let mut worst = 0f64;
    for (name, var) in &vars {
        let full_name = format!("{name} after {}", case["name"].as_str().unwrap());
        let expected = &case["expected"][name.as_str()];
        let error = golden::compare(&full_name, var.as_tensor(), expected, 1e-5, 0.).unwrap();
        worst = worst.max(error);
    }
    Ok(worst)
}

#[test]
fn vectors_can_be_left_out_of_the_decay() -> Result<()> {
    let adamw = OptimiserConfig::AdamW(AdamWConfig {
        decay_vectors: false,
        weight_decay: 0.5,
        ..AdamWConfig::default()
    });
    let sgd = OptimiserConfig::Sgd(SgdConfig {
        decay_vectors: false,
        weight_decay: 0.5,
        ..SgdConfig::default()
    });
    // Where the decay is part of the gradient, what it takes away is not a share of the weight.
    let adam = OptimiserConfig::Adam(AdamWConfig {
        decay_vectors: false,
        weight_decay: 0.5,
        ..AdamWConfig::adam()
    });
    let rmsprop = OptimiserConfig::RmsProp(RmsPropConfig {
        decay_vectors: false,
        weight_decay: 0.5,
        ..RmsPropConfig::default()
    });
    for (config, takes_a_share) in [(adamw, true), (sgd, true), (adam, false), (rmsprop, false)] {
        let vector = Var::from_tensor(&golden::tensor("vector", &[4], 1., 2.))?;
        let matrix = Var::from_tensor(&golden::tensor("vector", &[1, 4], 1., 2.))?;
        let before = vector.to_vec1::<f32>()?;
        // A gradient of zero leaves the decay alone.
        let nothing = vector.zeros_like()?;
        let loss = ((&nothing * vector.as_tensor())?.sum_all()?
            + matrix.broadcast_mul(&nothing)?.sum_all()?)?;
        let trained = [
            Trained::new("matrix", matrix.clone()),
            Trained::new("vector", vector.clone()),
        ];
        let gradients = Gradients::new(&trained, &loss.backward()?).unwrap();
        Optimiser::new(config)
            .step(0.1, &trained, &gradients)
            .unwrap();
        assert_eq!(vector.to_vec1::<f32>()?, before);
        let after = matrix.flatten_all()?.to_vec1::<f32>()?;
        for (after, before) in after.into_iter().zip(before) {
            let share = before * 0.95;
            match takes_a_share {
                true => assert!((after - share).abs() < 1e-6, "{config:?}"),
                false => assert!(after < before && after != share, "{config:?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn a_parameter_without_gradient_is_an_error() -> Result<()> {
    let used = Var::from_tensor(&golden::tensor("used", &[3], 1., 0.))?;
    let unused = Var::from_tensor(&golden::tensor("unused", &[3], 1., 0.))?;
    let gradients = used.sum_all()?.backward()?;
    let trained = [Trained::new("unused", unused)];
    let error = Gradients::new(&trained, &gradients).unwrap_err();
    assert!(
        error.to_string().contains("`unused` got no gradient"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_is_found() -> Result<()> {
    let vars = ["first", "second"].map(|name| {
        let values = golden::tensor(name, &[3, 70_000], 1., 0.);
        Trained::new(name, Var::from_tensor(&values).unwrap())
    });
    // In the last value of the second, and so large that its square overflows.
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        let mut values = vec![1f32; 210_000];
        *values.last_mut().unwrap() = bad;
        let slope = Tensor::from_vec(values, (3, 70_000), &Device::Cpu)?;
        let loss = (vars[0].var.sum_all()? + (vars[1].var.as_tensor() * slope)?.sum_all()?)?;
        let gradients = Gradients::new(&vars, &loss.backward()?).unwrap();
        assert_eq!(gradients.first_not_finite().unwrap(), Some(1), "{bad}");
    }
    let loss = (vars[0].var.sum_all()? + vars[1].var.sum_all()?)?;
    let gradients = Gradients::new(&vars, &loss.backward()?).unwrap();
    assert_eq!(gradients.first_not_finite().unwrap(), None);
    assert!((gradients.norm().unwrap() - 420_000f64.sqrt()).abs() < 1e-9);
    Ok(())
}

#[test]
fn schedules_are_pytorchs() {
    let golden = golden::read("schedules.json");
    let count = |key: &str| golden[key].as_u64().unwrap() as usize;
    let (epochs, steps) = (count("epochs"), count("steps"));
    for case in golden["cases"].as_array().unwrap() {
        let schedule: Schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
        let expected: Vec<f64> = serde_json::from_value(case["rates"].clone()).unwrap();
        // A schedule by the epoch has one expected rate for all steps of an epoch.
        let repeat = epochs * steps / expected.len();
        assert_eq!(repeat * expected.len(), epochs * steps);
        for index in 0..epochs * steps {
            let found = schedule.learning_rate(StageTime {
                epoch: index / steps,
                epochs,
                step: index % steps,
                steps_per_epoch: steps,
            });
            let expected = expected[index / repeat];
            // PyTorch multiplies its rates up step by step.
            assert!(
                (found - expected).abs() <= 1e-12 * expected,
                "{schedule:?} at {index}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn the_cosine_is_the_papers() {
    let at = |step: usize| StageTime {
        epoch: step / 10,
        epochs: 10,
        step: step % 10,
        steps_per_epoch: 10,
    };
    let schedule = Schedule::cosine(1e-5, 1e-7);
    assert_eq!(schedule.learning_rate(at(0)), 1e-5);
    assert!((schedule.learning_rate(at(50)) - (1e-5 + 1e-7) / 2.).abs() < 1e-18);
    let last = 1e-7 + 0.5 * (1e-5 - 1e-7) * (1. + (std::f64::consts::PI * 0.99).cos());
    assert!((schedule.learning_rate(at(99)) - last).abs() < 1e-18);
    assert_eq!(Schedule::constant(1e-3).learning_rate(at(7)), 1e-3);
}

#[test]
fn the_average_of_the_weights_has_its_closed_form() {
    let decay = 0.9;
    let parameters = Parameters::new(0, &Device::Cpu);
    let root = parameters.root();
    root.trainable("weight", 2, Init::Zeros).unwrap();
    root.running("running_mean", 1, Init::Zeros).unwrap();
    let mut average = WeightAverage::new(decay);
    // Weights at update n: 3n and −n/2, their statistic n².
    let n_updates = 40;
    let at = |n: i32| [3. * f64::from(n), -0.5 * f64::from(n), f64::from(n * n)];
    for n in 0..n_updates {
        let [first, second, third] = at(n).map(|value| value as f32);
        let tensors = [
            ("weight", vec![first, second]),
            ("running_mean", vec![third]),
        ];
        let tensors = tensors.map(|(name, values)| {
            let shape = values.len();
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
            (name.to_owned(), tensor)
        });
        parameters.load("", &tensors.into()).unwrap();
        average.update(&parameters).unwrap();
    }
    // The first weighs decay^(n−1), each later one (1−decay)·decay^(n−1−i).
    let weight = |n: i32| {
        let since = decay.powi(n_updates - 1 - n);
        if n == 0 { since } else { (1. - decay) * since }
    };
    let expected = |index: usize| -> f64 { (0..n_updates).map(|n| weight(n) * at(n)[index]).sum() };
    let found = |name: &str| average.tensors()[name].to_vec1::<f32>().unwrap();
    let found = [found("weight"), found("running_mean")].concat();
    for (index, found) in found.into_iter().enumerate() {
        let expected = expected(index);
        let error = (f64::from(found) / expected - 1.).abs();
        assert!(error < 1e-6, "{found}, expected {expected}");
    }
    assert_eq!(average.updates(), 40);
    // The network itself is as it was set last.
    assert_eq!(
        parameters.tensors("")["weight"].to_vec1::<f32>().unwrap(),
        [117., -19.5]
    );
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let experiment = |training: &str, stage: &str| {
        format!(
            "name = 'settings'\n[training]\n{training}\n[[training.stages]]\nname = 'all'\nepochs = 4\n{stage}\n[[variants]]\nname = 'bce'\nloss = 'bce'\n"
        )
    };
    let rate = "schedule = { constant = { learning_rate = 1e-3 } }";
    Experiment::parse(&experiment(
        "gradient_accumulation_steps = 2\nclip_norm = 1.0",
        rate,
    ))
    .unwrap();
    for (training, stage, expected) in [
        (
            "gradient_accumulation_steps = 0",
            rate,
            "`training.gradient_accumulation_steps`",
        ),
        ("clip_norm = 0.0", rate, "`training.clip_norm`"),
        ("ema_decay = 1.0", rate, "`training.ema_decay`"),
        ("optimiser = { kind = 'sdg' }", rate, "sdg"),
        (
            "optimiser = { momentum = 0.9 }",
            rate,
            "`adamw` has no `momentum`",
        ),
        (
            "optimiser = { kind = 'sgd', eps = 1 }",
            rate,
            "`sgd` has no `eps`",
        ),
        (
            "optimiser = { kind = 'sgd', momentum = 1.0 }",
            rate,
            "in [0, 1)",
        ),
        (
            "optimiser = { beta2 = 0.99999999 }",
            rate,
            "in single precision too",
        ),
        (
            "optimiser = { kind = 'sgd', momentum = 0.0, nesterov = true }",
            rate,
            "`training.optimiser.nesterov`",
        ),
        (
            "",
            "patience = 0\nschedule = { constant = { learning_rate = 1 } }",
            "patience",
        ),
        (
            "",
            "schedule = { cosine = { learning_rate = 1e-3, min_learning_rate = 1.0 } }",
            "a minimum",
        ),
        (
            "",
            "schedule = { step = { learning_rate = 1e-3, factor = 1.5, every = 1 } }",
            "a factor",
        ),
        (
            "",
            "schedule = { step = { learning_rate = 1e-3, factor = 0.5, every = 0 } }",
            "`every`",
        ),
        (
            "",
            "groups = [{ parameters = '*.bias', learning_rate_factor = 0.0 }]\nschedule = { constant = { learning_rate = 1 } }",
            "groups[0].learning_rate_factor",
        ),
        (
            "",
            "groups = [{ parameters = '*.bias', frozen = true, weight_decay = 0.0 }]\nschedule = { constant = { learning_rate = 1 } }",
            "groups[0]",
        ),
    ] {
        let error = Experiment::parse(&experiment(training, stage)).unwrap_err();
        let found = error.to_string();
        assert!(found.contains(expected), "{training}{stage}: {found}");
    }
}
