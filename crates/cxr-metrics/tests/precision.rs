//! Scores that `f32` cannot tell apart, beside scikit-learn: see `golden/make_precision.py`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{
    BootstrapConfig, Confusion, Forecast, MultiLabel, OperatingRule, Scored, average_precision,
    bootstrap, brier, delong, paired_delong, roc_auc, roc_curve,
};
use serde_json::Value;

struct Case {
    name: String,
    scores: Vec<f64>,
    labels: Vec<bool>,
    expected: Value,
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

fn cases() -> Vec<Case> {
    let file: Vec<Value> = serde_json::from_str(include_str!("golden/precision.json")).unwrap();
    let read = |expected: Value| Case {
        name: expected["name"].as_str().unwrap().to_owned(),
        scores: numbers(&expected["scores"]),
        labels: numbers(&expected["labels"])
            .iter()
            .map(|&label| label == 1.0)
            .collect(),
        expected,
    };
    file.into_iter().map(read).collect()
}

#[track_caller]
fn check(what: &str, ours: Option<f64>, theirs: &Value) {
    let (ours, theirs) = (ours.unwrap(), theirs.as_f64().unwrap());
    assert!((ours - theirs).abs() < 1e-12, "{what}: {ours}, {theirs}");
}

/// An AUC of 15/16 was 1/2 where scores were kept in `f32`, and 1e39 was refused as infinite.
#[test]
fn rankings_equal_scikit_learn() {
    for case in cases() {
        let (scored, expected) = (
            Scored::new(&case.scores, &case.labels).unwrap(),
            &case.expected,
        );
        check(&case.name, roc_auc(scored), &expected["auc"]);
        check(
            &case.name,
            average_precision(scored),
            &expected["average_precision"],
        );
        check(
            &case.name,
            Some(delong(scored).unwrap().auc),
            &expected["auc"],
        );
        let data = MultiLabel::new(["one"], &case.scores, &case.labels, None).unwrap();
        check(&case.name, data.per_label_auc()[0], &expected["auc"]);
        check(&case.name, data.micro_auc(), &expected["auc"]);
        let curve = roc_curve(scored).unwrap();
        let thresholds: Vec<f64> = curve.points[1..]
            .iter()
            .map(|point| point.threshold)
            .collect();
        assert_eq!(
            thresholds,
            numbers(&expected["thresholds"]),
            "{}",
            case.name
        );
        let rates = numbers(&expected["false_positive_rates"]);
        for (point, rate) in curve.points.iter().zip(rates) {
            assert!(
                (point.false_positive_rate - rate).abs() < 1e-12,
                "{}",
                case.name
            );
        }
        let youden = OperatingRule::Youden.choose(scored).unwrap().unwrap();
        assert_eq!(
            Some(youden.threshold),
            expected["youden"].as_f64(),
            "{}",
            case.name
        );
        assert_eq!(Confusion::at(scored, youden.threshold), youden.chosen_on);
        if expected["brier"].is_number() {
            let forecast = Forecast::new(&case.scores, &case.labels).unwrap();
            check(&case.name, Some(brier(forecast)), &expected["brier"]);
        }
    }
}

#[test]
fn two_models_that_differ_beyond_f32_differ() {
    let case = &cases()[1];
    let rounded: Vec<f32> = case.scores.iter().map(|&score| score as f32).collect();
    let test = paired_delong(&case.labels, &case.scores, &rounded, None)
        .unwrap()
        .unwrap();
    check("f64", Some(test.auc_a), &case.expected["auc"]);
    check("f32", Some(test.auc_b), &case.expected["auc_in_f32"]);
    assert!(test.p_value.unwrap() < 1e-9);
}

/// The same numbers in either type give the same bits.
#[test]
fn the_type_of_exact_scores_does_not_matter() {
    let singles: Vec<f32> = (0..4000).map(|at| ((at * 37 % 101) as f32).sin()).collect();
    let doubles: Vec<f64> = singles.iter().map(|&score| score.into()).collect();
    let labels: Vec<bool> = (0..4000).map(|at| at % 7 == 0).collect();
    let (single, double) = (
        Scored::new(&singles, &labels).unwrap(),
        Scored::new(&doubles, &labels).unwrap(),
    );
    assert_eq!(delong(single), delong(double));
    assert_eq!(roc_curve(single), roc_curve(double));
}

#[test]
fn replicates_count_decisions_as_rows_written_out_do() {
    let case = &cases()[1];
    let (scores, labels) = (&case.scores[..300], &case.labels[..300]);
    let data = MultiLabel::new(["one"], scores, labels, None).unwrap();
    let threshold = scores[11];
    let config = BootstrapConfig {
        replicates: 50,
        ..Default::default()
    };
    let rules = [
        OperatingRule::Youden,
        OperatingRule::BestF1,
        OperatingRule::SensitivityAtSpecificity(0.9),
        OperatingRule::PpvAtLeast(0.5),
    ];
    let estimate = bootstrap(&data, None, &config, |resample| {
        let written_out = resample.to_multi_label();
        let scored = written_out.scored("one").unwrap();
        let counts = resample.confusion(0, threshold).unwrap();
        assert_eq!(counts, Confusion::at(scored, threshold));
        for rule in rules {
            assert_eq!(resample.operating_point(0, rule), rule.choose(scored));
        }
        assert_eq!(
            resample.confusion(0, f64::NAN),
            Some(Confusion::at(scored, f64::NAN))
        );
        assert_eq!(resample.confusion(1, threshold), None);
        counts.f1()
    });
    assert!(estimate.unwrap().unwrap().interval.is_some());
}

/// A mask and patients together: rows of the label, not of the table.
#[test]
fn known_rows_lead_from_a_label_to_the_table() {
    let scores = [0.9, 0.3, 0.8, 0.2, 0.4, 0.9, 0.3, 0.6];
    let labels = [true, false, true, false, false, true, false, true];
    let mask = [true, true, false, true, true, false, true, true];
    let data = MultiLabel::new(["a", "b"], &scores, &labels, Some(&mask)).unwrap();
    assert_eq!(data.known_rows("a").unwrap(), [0, 2, 3]);
    assert_eq!(data.known_rows("b").unwrap(), [0, 1, 3]);
    // Rows 3, 1, 3: the first label is unknown in row 1.
    let chosen = data.rows(&[3, 1, 3]).unwrap();
    assert_eq!(chosen.n_images(), 3);
    assert_eq!(chosen.known_rows("a").unwrap(), [0, 2]);
    assert!(chosen.scored("a").unwrap().scores().iter().eq([0.3, 0.3]));
    assert!(
        chosen
            .scored("b")
            .unwrap()
            .scores()
            .iter()
            .eq([0.6, 0.2, 0.6])
    );
    assert_eq!(
        data.rows(&[4]).unwrap_err().to_string(),
        "expected a row below 4, got 4"
    );
    // All rows are the data as they were.
    let all = data.rows(&[0, 1, 2, 3]).unwrap();
    assert_eq!(all.per_label(), data.per_label());
    assert!(all.paired_per_label(&data, None).is_ok());
}
