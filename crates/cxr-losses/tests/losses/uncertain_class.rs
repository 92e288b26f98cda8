//! U-MultiClass of CheXpert's paper against PyTorch (`tests/golden/make_uncertain_class.py`).

use candle_core::{DType, Device, Tensor, Var};
use cxr_losses::{Bce, LabelColumns, LossError, MultiLabelLoss, UncertainClass};
use serde_json::Value;

use crate::support::{assert_close, evaluate, flat, matrix};

const GOLDENS: &str = include_str!("../golden/uncertain_class.json");
const LABELS: usize = 4;

/// Columns one after the other, in the order absent, present, uncertain.
fn columns(three: &[usize]) -> Vec<LabelColumns> {
    let mut next = 0;
    let labels = (0..LABELS).map(|label| {
        let first = next;
        let is_three = three.contains(&label);
        next += if is_three { 3 } else { 1 };
        LabelColumns {
            present: first + usize::from(is_three),
            absent_and_uncertain: is_three.then_some((first, first + 2)),
        }
    });
    labels.collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn value_and_gradient_are_pytorch_s() {
    let goldens: Value = serde_json::from_str(GOLDENS).unwrap();
    let cases = goldens["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 5);
    for (name, case) in cases {
        let three: Vec<usize> = serde_json::from_value(case["three"].clone()).unwrap();
        let columns = columns(&three);
        let loss = UncertainClass::new(&columns).unwrap();
        let n_logits = case["n_logits"].as_u64().unwrap() as usize;
        assert_eq!(loss.n_logits(), n_logits, "{name}");
        let targets = matrix(&numbers(&case["targets"]), LABELS);
        let mask = (!case["mask"].is_null()).then(|| matrix(&numbers(&case["mask"]), LABELS));
        let logits = matrix(&numbers(&case["logits"]), n_logits);
        for (dtype, tolerance, smallest) in [(DType::F64, 1e-12, 1e-15), (DType::F32, 2e-6, 1e-7)] {
            if dtype == DType::F32 && name == "far apart" {
                // The spacing of f32 itself moves a softmax of such logits by more.
                continue;
            }
            let logits = Var::from_tensor(&logits.to_dtype(dtype).unwrap()).unwrap();
            let value = loss.loss(&logits, &targets, mask.as_ref()).unwrap();
            assert_eq!(value.dtype(), dtype, "{name}");
            let gradients = value.backward().unwrap();
            let gradient = gradients.get(&logits).unwrap();
            assert_eq!(gradient.dtype(), dtype, "{name}");
            let expected = [case["loss"].as_f64().unwrap()];
            assert_close(&flat(&value), &expected, tolerance, smallest, name);
            let expected = numbers(&case["gradient"]);
            assert_close(&flat(gradient), &expected, tolerance, smallest, name);
        }
        // A label's score is the sigmoid of the difference of two of its logits.
        let (rows, scores) = (logits.to_vec2::<f64>().unwrap(), numbers(&case["scores"]));
        for (row, expected) in rows.iter().zip(scores.chunks(LABELS)) {
            let score = |label: &LabelColumns| {
                let absent = label
                    .absent_and_uncertain
                    .map_or(0., |(absent, _)| row[absent]);
                1. / (1. + (absent - row[label.present]).exp())
            };
            let found: Vec<f64> = columns.iter().map(score).collect();
            assert_close(&found, expected, 1e-12, 1e-300, name);
        }
    }
}

#[test]
fn with_one_logit_each_it_is_bce() {
    let logits = matrix(&[0.5, -3., 20., -40., 1e4, -1e4, 0., 1.], LABELS);
    let targets = matrix(&[1., 0., 0.25, 0., 1., 1., 0.9, 0.], LABELS);
    let loss = UncertainClass::new(&columns(&[])).unwrap();
    let (values, gradient) = evaluate(&loss, &logits, &targets, None);
    let (expected_values, expected_gradient) = evaluate(&Bce, &logits, &targets, None);
    assert_close(&values, &expected_values, 1e-12, 1e-15, "values");
    assert_close(&gradient, &expected_gradient, 1e-12, 1e-15, "gradient");
}

#[test]
fn what_is_not_known_is_not_looked_at() {
    let loss = UncertainClass::new(&columns(&[0, 2])).unwrap();
    let n_logits = loss.n_logits();
    let logits: Vec<f64> = (0..2 * n_logits)
        .map(|at| f64::from(at as u32 % 5) - 2.)
        .collect();
    let mask = matrix(&[0., 1., 1., 0., 1., 0., 0.5, 1.], LABELS);
    let targets = [2., 1., 2., 0., 0., 1., 1., 0.];
    let (values, gradient) = evaluate(
        &loss,
        &matrix(&logits, n_logits),
        &matrix(&targets, LABELS),
        Some(&mask),
    );
    let mut disturbed = logits.clone();
    // The columns of the first label of the first image and of the second label of the second.
    for at in [0, 1, 2, n_logits + 3] {
        assert_eq!(gradient[at], 0.);
        disturbed[at] = f64::NAN;
    }
    for value in [0., 1., 5., f64::NAN] {
        let mut targets = targets;
        (targets[0], targets[3], targets[5]) = (value, value, value);
        let found = evaluate(
            &loss,
            &matrix(&disturbed, n_logits),
            &matrix(&targets, LABELS),
            Some(&mask),
        );
        assert_eq!(found, (values.clone(), gradient.clone()));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let error = |labels: &[LabelColumns]| UncertainClass::new(labels).unwrap_err();
    let one = |present| LabelColumns {
        present,
        absent_and_uncertain: None,
    };
    for labels in [&[][..], &[one(1)], &[one(0), one(0)]] {
        assert!(matches!(error(labels), LossError::Columns { .. }));
    }
    let loss = UncertainClass::new(&columns(&[1])).unwrap();
    let fails = |n_logits: usize, targets: [f64; 4]| {
        let logits = Tensor::zeros((1, n_logits), DType::F32, &Device::Cpu).unwrap();
        let error = loss.loss(&logits, &matrix(&targets, LABELS), None);
        error.unwrap_err().to_string()
    };
    assert!(fails(4, [0.; 4]).contains("6 columns"));
    // The second label may be uncertain, the third may not.
    let uncertain = fails(6, [0., 2., 2., 0.]);
    assert!(uncertain.contains("row 0, label 2"), "{uncertain}");
    let strange = fails(6, [0., 1.5, 1., 0.]);
    assert!(strange.contains("`1.5` in row 0, label 1"), "{strange}");
}
