//! Calibration maps, slopes and thresholds beside scikit-learn and plain numpy: see
//! `golden/make_calibration.py`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{
    Coefficient, CoxCalibration, IsotonicRegression, Level, MetricError, OperatingRule,
    PlattScaling, PrevalenceShift, Scored, TemperatureScaling, logit,
};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

struct Case {
    name: String,
    probabilities: Vec<f64>,
    logits: Vec<f64>,
    labels: Vec<bool>,
    clusters: Vec<u64>,
    expected: Value,
}

fn cases() -> Vec<Case> {
    let file: Vec<Value> = serde_json::from_str(include_str!("golden/calibration.json")).unwrap();
    let read = |expected: Value| {
        let probabilities = numbers(&expected["probabilities"]);
        let clusters = expected["clusters"].as_array().unwrap().iter();
        Case {
            name: expected["name"].as_str().unwrap().to_owned(),
            logits: probabilities.iter().map(|&p| logit(p)).collect(),
            probabilities,
            labels: numbers(&expected["labels"])
                .iter()
                .map(|&label| label == 1.0)
                .collect(),
            clusters: clusters.map(|id| id.as_u64().unwrap()).collect(),
            expected,
        }
    };
    file.into_iter().map(read).collect()
}

#[track_caller]
fn check(what: &str, ours: f64, theirs: &Value, tolerance: f64) {
    let theirs = theirs.as_f64().unwrap();
    let allowed = tolerance * theirs.abs().max(1.0);
    assert!((ours - theirs).abs() <= allowed, "{what}: {ours}, {theirs}");
}

#[test]
fn temperature_and_platt_scaling_equal_an_independent_fit() {
    for case in cases() {
        let logits = Scored::new(&case.logits, &case.labels).unwrap();
        let temperature = TemperatureScaling::fit(logits).unwrap().temperature;
        check(
            &case.name,
            temperature,
            &case.expected["temperature"],
            1e-10,
        );
        let platt = PlattScaling::fit(logits).unwrap();
        check(&case.name, platt.slope, &case.expected["platt"][0], 1e-9);
        check(
            &case.name,
            platt.intercept,
            &case.expected["platt"][1],
            1e-9,
        );
    }
}

#[test]
fn isotonic_regression_equals_scikit_learn() {
    for case in cases() {
        let scored = Scored::new(&case.probabilities, &case.labels).unwrap();
        let map = IsotonicRegression::fit(scored).unwrap();
        let theirs = &case.expected["isotonic"];
        assert_eq!(map.scores, numbers(&theirs["scores"]), "{}", case.name);
        for (ours, theirs) in map
            .probabilities
            .iter()
            .zip(numbers(&theirs["probabilities"]))
        {
            assert!((ours - theirs).abs() < 1e-12, "{}", case.name);
        }
        let probes = numbers(&case.expected["probes"]);
        let at_probes = case.expected["isotonic_at_probes"].as_array().unwrap();
        for (probe, theirs) in probes.into_iter().zip(at_probes) {
            check(
                &format!("{} at {probe}", case.name),
                map.apply(probe),
                theirs,
                1e-12,
            );
        }
    }
}

#[test]
fn calibration_slopes_and_their_errors_equal_matrices_written_out() {
    for case in cases() {
        let logits = Scored::new(&case.logits, &case.labels).unwrap();
        for (clusters, section) in [(Some(&case.clusters[..]), "cox"), (None, "cox_by_image")] {
            let ours = CoxCalibration::fit(logits, clusters).unwrap().unwrap();
            let theirs = &case.expected[section];
            let check = |what: &str, ours: Coefficient| {
                let name = format!("{}, {section}, {what}", case.name);
                check(&name, ours.value, &theirs[what], 1e-9);
                let error = ours.standard_error.unwrap();
                check(&name, error, &theirs[format!("{what}_se")], 1e-9);
                assert!(ours.interval(Level::P95).unwrap().contains(ours.value));
            };
            check("slope", ours.slope);
            check("intercept", ours.intercept);
            check("in_the_large", ours.in_the_large);
        }
    }
}

#[test]
fn thresholds_equal_those_read_off_scikit_learns_curve() {
    for case in cases() {
        let scored = Scored::new(&case.probabilities, &case.labels).unwrap();
        for (rule, name) in [
            (OperatingRule::Youden, "youden"),
            (OperatingRule::BestF1, "best_f1"),
            (
                OperatingRule::SpecificityAtSensitivity(0.9),
                "specificity_at_sensitivity_0.9",
            ),
            (
                OperatingRule::SensitivityAtSpecificity(0.95),
                "sensitivity_at_specificity_0.95",
            ),
            (OperatingRule::PpvAtLeast(0.25), "ppv_at_least_0.25"),
        ] {
            let ours = rule.choose(scored).unwrap().map(|point| point.threshold);
            let theirs = case.expected["thresholds"][name].as_f64();
            assert_eq!(ours, theirs, "{}, {name}", case.name);
        }
    }
}

#[test]
fn another_prevalence_is_bayes_rule() {
    for case in cases() {
        let shift = PrevalenceShift::new(0.3, 0.05).unwrap();
        let theirs = case.expected["prevalence_0.3_to_0.05"].as_array().unwrap();
        for (&p, theirs) in case.probabilities.iter().zip(theirs) {
            check(&case.name, shift.apply(p), theirs, 1e-12);
        }
    }
    let shift = PrevalenceShift::new(0.3, 0.05).unwrap();
    assert_eq!([0.0, 1.0].map(|p| shift.apply(p)), [0.0, 1.0]);
    for (from, to) in [(0.0, 0.5), (0.5, 1.0), (f64::NAN, 0.5)] {
        assert!(PrevalenceShift::new(from, to).is_err(), "{from} to {to}");
    }
}

#[test]
fn what_cannot_be_fitted_is_none() {
    let one_class = Scored::new(&[0.1, 0.2], &[true, true]).unwrap();
    assert_eq!(IsotonicRegression::fit(one_class), None);
    assert_eq!(PlattScaling::fit(one_class), None);
    assert_eq!(CoxCalibration::fit(one_class, None), Ok(None));
    for scores in [
        [-1.0, -0.5, 0.5, 1.0],
        [1.0, 0.5, -0.5, -1.0],
        [0.0, 0.0, 0.0, 0.0],
        [-1.0, 0.5, 0.5, 1.0],
    ] {
        let labels = [false, false, true, true];
        let separated = Scored::new(&scores, &labels).unwrap();
        assert_eq!(CoxCalibration::fit(separated, None), Ok(None), "{scores:?}");
    }
    let overlapping = Scored::new(&[-1.0, 0.6, 0.5, 1.0], &[false, false, true, true]).unwrap();
    let alone = CoxCalibration::fit(overlapping, Some(&[1, 2, 3, 3]))
        .unwrap()
        .unwrap();
    assert_eq!(
        (alone.slope.standard_error, alone.slope.interval(Level::P95)),
        (None, None)
    );
    assert_eq!(
        CoxCalibration::fit(overlapping, Some(&[1]))
            .unwrap_err()
            .to_string(),
        "expected 4 clusters, one per example, got 1"
    );
    let wrong = [
        (vec![], vec![]),
        (vec![0.1], vec![0.1, 0.2]),
        (vec![0.1, f64::NAN], vec![0.1, 0.2]),
        (vec![0.1, 0.2], vec![0.1, 1.2]),
        (vec![0.1, 0.1], vec![0.1, 0.2]),
        (vec![0.1, 0.2], vec![0.2, 0.1]),
    ];
    for (scores, probabilities) in wrong {
        assert!(IsotonicRegression::new(scores, probabilities).is_err());
    }
    let falling = IsotonicRegression::new(vec![0.1, 0.2], vec![0.2, 0.1]);
    assert_eq!(falling.unwrap_err(), MetricError::NotAscending { index: 1 });
}

/// Far scores: the distance of two of 1e308 is beyond f64.
#[test]
fn isotonic_interpolation_does_not_overflow() {
    let map = IsotonicRegression::new(vec![-1e308, 1e308], vec![0.0, 1.0]).unwrap();
    assert_eq!(
        [-1e308, 0.0, 1e308, f64::INFINITY].map(|x| map.apply(x)),
        [0.0, 0.5, 1.0, 1.0]
    );
    assert!(map.apply(f64::NAN).is_nan());
}
