//! Errors, degrees of freedom, intervals and tests by patient beside an independent computation: see
//! `golden/make_intervals.py`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{
    AucEstimate, ClusteredProportion, ClusteredRates, Interval, Level, MultiLabel, PairedTest,
    Scored, clustered_delong, delong, paired_delong,
};
use serde_json::Value;

fn golden(section: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("golden/intervals.json")).unwrap();
    file[section].as_array().unwrap().clone()
}

fn floats(value: &Value) -> Vec<f32> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|x| x.as_f64().unwrap() as f32).collect()
}

fn flags(value: &Value) -> Vec<bool> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|x| x.as_u64().unwrap() == 1).collect()
}

fn identifiers(value: &Value) -> Vec<u64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|x| x.as_u64().unwrap()).collect()
}

fn name(case: &Value) -> &str {
    case["name"].as_str().unwrap()
}

/// Equal to a relative 1e-9; `None` where the other says `null`.
#[track_caller]
fn check(what: &str, ours: Option<f64>, theirs: &Value) {
    match (ours, theirs.as_f64()) {
        (None, None) => {}
        (Some(ours), Some(theirs)) => {
            let near = (ours - theirs).abs() <= 1e-9 * theirs.abs() + 1e-13;
            assert!(near, "{what}: ours {ours}, expected {theirs}");
        }
        (ours, theirs) => panic!("{what}: ours {ours:?}, expected {theirs:?}"),
    }
}

#[track_caller]
fn check_interval(what: &str, ours: Option<Interval>, theirs: &Value) {
    check(what, ours.map(|interval| interval.lower), &theirs[0]);
    check(what, ours.map(|interval| interval.upper), &theirs[1]);
}

#[track_caller]
fn check_estimate(what: &str, ours: AucEstimate, theirs: &Value) {
    check(what, Some(ours.auc), &theirs["auc"]);
    check(what, ours.standard_error, &theirs["standard_error"]);
    check(what, ours.degrees_of_freedom, &theirs["degrees_of_freedom"]);
    check(
        what,
        ours.logit_standard_error,
        &theirs["logit_standard_error"],
    );
    check_interval(what, ours.interval(Level::P95), &theirs["interval"]);
    check_interval(what, ours.interval(Level::P99), &theirs["interval_99"]);
}

#[track_caller]
fn check_test(what: &str, ours: PairedTest, theirs: &Value) {
    check(what, Some(ours.auc_a), &theirs["auc_a"]);
    check(what, Some(ours.auc_b), &theirs["auc_b"]);
    check(what, ours.standard_error, &theirs["standard_error"]);
    check(what, ours.degrees_of_freedom, &theirs["degrees_of_freedom"]);
    check(what, ours.statistic, &theirs["statistic"]);
    check(what, ours.p_value, &theirs["p_value"]);
    check_interval(what, ours.interval(Level::P95), &theirs["interval"]);
}

#[test]
fn aucs_by_patient_and_by_image() {
    for case in golden("one_label") {
        let (scores, labels) = (floats(&case["scores"]), flags(&case["labels"]));
        let clusters = identifiers(&case["clusters"]);
        let scored = Scored::new(&scores, &labels).unwrap();
        let by_cluster = clustered_delong(scored, &clusters).unwrap().unwrap();
        check_estimate(name(&case), by_cluster, &case["by_cluster"]);
        let by_image = delong(scored).unwrap();
        check_estimate(name(&case), by_image, &case["by_image"]);
        // One image per patient is DeLong, degrees of freedom and interval included.
        let alone: Vec<u64> = (0..labels.len() as u64).map(|image| 7 * image).collect();
        let one_each = clustered_delong(scored, &alone).unwrap().unwrap();
        assert_eq!(one_each, by_image, "{}", name(&case));
    }
}

#[test]
fn differences_by_patient_and_by_image() {
    for case in golden("one_label") {
        let (scores, other) = (floats(&case["scores"]), floats(&case["other"]));
        let (labels, clusters) = (flags(&case["labels"]), identifiers(&case["clusters"]));
        let test = |clusters| {
            let test = paired_delong(&labels, &scores, &other, clusters);
            test.unwrap().unwrap()
        };
        check_test(
            name(&case),
            test(Some(&clusters)),
            &case["paired_by_cluster"],
        );
        check_test(name(&case), test(None), &case["paired_by_image"]);
    }
}

#[test]
fn rates_by_patient() {
    for case in golden("one_label") {
        let (scores, labels) = (floats(&case["scores"]), flags(&case["labels"]));
        let threshold = case["threshold"].as_f64().unwrap() as f32;
        let called: Vec<bool> = scores.iter().map(|&score| score >= threshold).collect();
        let clusters = identifiers(&case["clusters"]);
        let rates = ClusteredRates::of_calls(&called, &labels, &clusters).unwrap();
        let of_each: [(&str, Option<ClusteredProportion>); 5] = [
            ("sensitivity", rates.sensitivity),
            ("specificity", rates.specificity),
            ("ppv", rates.ppv),
            ("npv", rates.npv),
            ("accuracy", rates.accuracy),
        ];
        for (rate, ours) in of_each {
            let what = format!("{}, {rate}", name(&case));
            let (ours, theirs) = (ours.unwrap(), &case["rates"][rate]);
            check(&what, Some(ours.proportion.value()), &theirs["share"]);
            check(&what, ours.effective_n, &theirs["effective_n"]);
            check(
                &what,
                ours.degrees_of_freedom,
                &theirs["degrees_of_freedom"],
            );
            check_interval(&what, ours.wilson(Level::P95), &theirs["interval"]);
        }
    }
}

#[test]
fn means_over_labels() {
    for case in golden("means") {
        let n_labels = case["n_labels"].as_u64().unwrap();
        let (labels, mask) = (flags(&case["labels"]), flags(&case["mask"]));
        let clusters = identifiers(&case["clusters"]);
        let data = |scores: &Value| {
            let names = (0..n_labels).map(|label| format!("label {label}"));
            MultiLabel::new(names, &floats(scores), &labels, Some(&mask)).unwrap()
        };
        let (a, b) = (data(&case["scores"]), data(&case["other"]));
        for (unit, clusters) in [("by_cluster", Some(&clusters[..])), ("by_image", None)] {
            let what = format!("{}, {unit}", name(&case));
            let (ours, theirs) = (
                a.macro_auc_estimate(clusters).unwrap().unwrap(),
                &case[unit],
            );
            check(&what, Some(ours.mean.value), &theirs["mean"]);
            assert_eq!(ours.mean, a.macro_auc().unwrap(), "{what}");
            assert_eq!(
                ours.mean.n_labels as u64,
                theirs["n_labels"].as_u64().unwrap()
            );
            check(&what, ours.standard_error, &theirs["standard_error"]);
            check(
                &what,
                ours.degrees_of_freedom,
                &theirs["degrees_of_freedom"],
            );
            check_interval(&what, ours.interval(Level::P95), &theirs["interval"]);
            let theirs = &case[format!("paired_{unit}")];
            if theirs.is_object() {
                let ours = a.paired_macro_auc(&b, clusters).unwrap().unwrap();
                check_test(&what, ours.test, theirs);
                assert_eq!(ours.n_labels as u64, theirs["n_labels"].as_u64().unwrap());
            }
        }
    }
}

/// Of one label the mean is the label.
#[test]
fn a_mean_over_one_label_has_its_error() {
    for case in golden("one_label") {
        let (scores, labels) = (floats(&case["scores"]), flags(&case["labels"]));
        let clusters = identifiers(&case["clusters"]);
        let data = MultiLabel::new(["one"], &scores, &labels, None).unwrap();
        let mean = data.macro_auc_estimate(Some(&clusters)).unwrap().unwrap();
        let theirs = &case["by_cluster"];
        check(name(&case), mean.standard_error, &theirs["standard_error"]);
        check(
            name(&case),
            mean.degrees_of_freedom,
            &theirs["degrees_of_freedom"],
        );
    }
}
