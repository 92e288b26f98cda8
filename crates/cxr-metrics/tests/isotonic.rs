//! Isotonic regression beside scikit-learn's: see `golden/make_isotonic.py`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{IsotonicRegression, Scored};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

#[test]
fn curves_are_those_of_scikit_learn() {
    let cases: Value = serde_json::from_str(include_str!("golden/isotonic.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let scores: Vec<f32> = numbers(&case["scores"])
            .iter()
            .map(|&score| score as f32)
            .collect();
        let labels: Vec<bool> = (case["labels"].as_array().unwrap().iter())
            .map(|label| label.as_bool().unwrap())
            .collect();
        let fitted = IsotonicRegression::fit(Scored::new(&scores, &labels).unwrap()).unwrap();
        assert!(fitted.scores.is_sorted_by(|a, b| a < b));
        assert!(fitted.probabilities.is_sorted());
        for (score, expected) in numbers(&case["at"])
            .into_iter()
            .zip(numbers(&case["expected"]))
        {
            let found = fitted.apply(score);
            assert!(
                (found - expected).abs() < 1e-6,
                "at {score}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn one_class_has_no_curve() {
    let scored = Scored::new(&[0.1, 0.2], &[true, true]).unwrap();
    assert_eq!(IsotonicRegression::fit(scored), None);
}
