//! Calibration of a published CheXNet's predictions, beside scikit-learn: `golden/calibration.json` is by
//! `cxr-metrics`' `make_calibration.py`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::path::{Path, PathBuf};

use cxr_dataset::Index;
use cxr_metrics::{
    Coefficient, CoxCalibration, IsotonicRegression, OperatingRule, PlattScaling, Scored,
    TemperatureScaling, logit,
};
use cxr_run::{Evaluation, Predictions, Truth, Unscorable};
use serde_json::Value;

/// The folder of real data, or a word that the test is skipped.
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("CXR_SHARED").map_or(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!(
        "skipped: no real data at `{}`; CXR_SHARED names its folder",
        folder.display()
    );
    None
}

#[track_caller]
fn check(what: &str, ours: f64, theirs: &Value) {
    let theirs = theirs.as_f64().unwrap();
    let allowed = 1e-6 * theirs.abs().max(1.0);
    assert!((ours - theirs).abs() <= allowed, "{what}: {ours}, {theirs}");
}

#[test]
fn calibration_of_published_predictions_equals_scikit_learn() {
    let Some(shared) = shared() else { return };
    let golden: Value = serde_json::from_str(include_str!("golden/calibration.json")).unwrap();
    let predictions = shared.join("data/predictions/preds.csv");
    let predictions = Predictions::read(&predictions, Unscorable::Refuse).unwrap();
    let table = shared.join("data/nih-meta/Data_Entry_2017_v2020.csv.gz");
    let truth = Truth::of(&Index::read(&table).unwrap()).unwrap();
    let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse).unwrap();
    let patients = evaluation.patients().unwrap();
    let probes = golden["probes"].as_array().unwrap();
    assert_eq!(
        evaluation.data().n_labels(),
        golden["labels"].as_object().unwrap().len()
    );
    for (at, label) in evaluation.data().label_names().enumerate() {
        let expected = &golden["labels"][label];
        let probabilities = evaluation.data().scored(label).unwrap();
        let logits: Vec<f64> = evaluation.values(at).iter().map(|&p| logit(p)).collect();
        let logits = Scored::new(&logits, probabilities.labels()).unwrap();
        let temperature = TemperatureScaling::fit(logits).unwrap().temperature;
        check(label, temperature, &expected["temperature"]);
        let platt = PlattScaling::fit(logits).unwrap();
        check(label, platt.slope, &expected["platt"][0]);
        check(label, platt.intercept, &expected["platt"][1]);
        let isotonic = IsotonicRegression::fit(probabilities).unwrap();
        let at_probes = expected["isotonic_at_probes"].as_array().unwrap();
        for (probe, theirs) in probes.iter().zip(at_probes) {
            check(label, isotonic.apply(probe.as_f64().unwrap()), theirs);
        }
        for (clusters, section) in [(Some(patients), "cox"), (None, "cox_by_image")] {
            let ours = CoxCalibration::fit(logits, clusters).unwrap().unwrap();
            let check = |what: &str, ours: Coefficient| {
                let theirs = &expected[section];
                check(label, ours.value, &theirs[what]);
                check(
                    label,
                    ours.standard_error.unwrap(),
                    &theirs[format!("{what}_se")],
                );
            };
            check("slope", ours.slope);
            check("intercept", ours.intercept);
            check("in_the_large", ours.in_the_large);
        }
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
            let ours = rule
                .choose(probabilities)
                .unwrap()
                .map(|point| point.chosen_on);
            let ours = ours.map(|counts| [counts.true_positives, counts.false_positives]);
            let theirs: Option<[u64; 2]> =
                serde_json::from_value(expected["called"][name].clone()).unwrap();
            assert_eq!(ours, theirs, "{label}, {name}");
        }
    }
}
