//! Every quantity beside the value an independent implementation gives: see `golden/make_golden.py`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{
    AucEstimate, Binning, BootstrapConfig, Confusion, Forecast, Interval, IntervalMethod, Level,
    MultiLabel, OperatingRule, PairedTest, PlattScaling, Proportion, ReliabilityBin, Scored,
    TemperatureScaling, average_precision, bootstrap, brier, clustered_delong, delong,
    expected_calibration_error, holm, paired_delong, partial_auc, pr_curve, reliability, roc_auc,
    roc_curve,
};
use serde_json::Value;

fn golden(section: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("golden/golden.json")).unwrap();
    file[section].as_array().unwrap().clone()
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("expected a number, got {value}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn scores(value: &Value) -> Vec<f32> {
    numbers(value)
        .into_iter()
        .map(|score| score as f32)
        .collect()
}

fn flags(value: &Value) -> Vec<bool> {
    numbers(value).into_iter().map(|flag| flag == 1.0).collect()
}

fn identifiers(value: &Value) -> Vec<u64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect()
}

#[track_caller]
fn assert_near(what: &str, ours: f64, theirs: f64, tolerance: f64) {
    assert!(
        (ours - theirs).abs() <= tolerance,
        "{what}: ours {ours}, expected {theirs}"
    );
}

#[track_caller]
fn check(what: &str, ours: f64, theirs: &Value) {
    assert_near(
        what,
        ours,
        number(theirs),
        1e-12 * number(theirs).abs().max(1.0),
    );
}

#[track_caller]
fn check_all(what: &str, ours: impl IntoIterator<Item = f64>, theirs: &Value) {
    let (ours, theirs) = (ours.into_iter().collect::<Vec<_>>(), numbers(theirs));
    assert_eq!(ours.len(), theirs.len(), "{what}: lengths");
    for (at, (ours, theirs)) in ours.into_iter().zip(theirs).enumerate() {
        assert_near(&format!("{what}[{at}]"), ours, theirs, 1e-12);
    }
}

#[track_caller]
fn check_interval(what: &str, ours: Interval, theirs: &Value) {
    check_all(what, [ours.lower, ours.upper], theirs);
}

#[track_caller]
fn check_paired(what: &str, ours: PairedTest, theirs: &Value) {
    check(
        what,
        ours.standard_error.unwrap(),
        &theirs["standard_error"],
    );
    let t = number(&theirs["t"]);
    let ours = ours.difference / ours.standard_error.unwrap();
    assert_near(what, ours, t, 1e-9 * t.abs().max(1.0));
}

struct OneLabel {
    name: String,
    scores: Vec<f32>,
    other: Vec<f32>,
    labels: Vec<bool>,
    clusters: Vec<u64>,
    expected: Value,
}

impl OneLabel {
    fn all() -> Vec<Self> {
        let read = |case: Value| Self {
            name: case["name"].as_str().unwrap().to_owned(),
            scores: scores(&case["scores"]),
            other: scores(&case["other"]),
            labels: flags(&case["labels"]),
            clusters: identifiers(&case["clusters"]),
            expected: case,
        };
        golden("one_label").into_iter().map(read).collect()
    }

    fn scored(&self) -> Scored<'_> {
        Scored::new(&self.scores, &self.labels).unwrap()
    }
}

#[test]
fn ranking_equals_scikit_learn() {
    for case in OneLabel::all() {
        let (scored, expected) = (case.scored(), &case.expected);
        check(&case.name, roc_auc(scored).unwrap(), &expected["auc"]);
        check(
            &case.name,
            average_precision(scored).unwrap(),
            &expected["average_precision"],
        );
        for limit_and_area in expected["partial_auc"].as_array().unwrap() {
            let ours = partial_auc(scored, number(&limit_and_area[0]))
                .unwrap()
                .unwrap();
            check(&case.name, ours, &limit_and_area[1]);
        }
    }
}

#[test]
fn curves_equal_scikit_learns_point_by_point() {
    for case in OneLabel::all() {
        let Some([fpr, tpr, thresholds]) = case.expected["roc"].as_array().map(Vec::as_slice)
        else {
            continue;
        };
        let roc = roc_curve(case.scored()).unwrap();
        check_all(
            &case.name,
            roc.points.iter().map(|point| point.false_positive_rate),
            fpr,
        );
        check_all(
            &case.name,
            roc.points.iter().map(|point| point.true_positive_rate),
            tpr,
        );
        assert_eq!(roc.points[0].threshold, f64::INFINITY);
        check_all(
            &case.name,
            roc.points[1..].iter().map(|point| point.threshold),
            thresholds,
        );
        check(&case.name, roc.area(), &case.expected["auc"]);
        check(&case.name, roc.corners().area(), &case.expected["auc"]);
        assert!(roc.corners().points.len() < roc.points.len() || roc.points.len() < 13);

        // scikit-learn stops at full recall; the points after it are ours alone.
        let [recall, precision] = case.expected["pr"].as_array().unwrap().as_slice() else {
            panic!("{}: a curve is two lists", case.name)
        };
        let pr = pr_curve(case.scored()).unwrap();
        check_all(
            &case.name,
            pr.points.iter().map(|point| point.recall),
            recall,
        );
        check_all(
            &case.name,
            pr.points.iter().map(|point| point.precision),
            precision,
        );
    }
}

#[test]
fn standard_errors_equal_the_pairwise_definition() {
    for case in OneLabel::all() {
        let (scored, expected) = (case.scored(), &case.expected);
        let plain: AucEstimate = delong(scored).unwrap();
        check(&case.name, plain.auc, &expected["auc"]);
        check(
            &case.name,
            plain.standard_error.unwrap(),
            &expected["standard_error"],
        );
        let wald = plain.wald_interval(Level::P95).unwrap();
        check_interval(&case.name, wald, &expected["wald_interval"]);
        let clustered = clustered_delong(scored, &case.clusters).unwrap().unwrap();
        check(&case.name, clustered.auc, &expected["auc"]);
        let error = clustered.standard_error.unwrap();
        check(&case.name, error, &expected["standard_error_clustered"]);
    }
}

#[test]
fn paired_tests_equal_the_covariance_definition() {
    for case in OneLabel::all() {
        let test = |clusters| {
            paired_delong(&case.labels, &case.scores, &case.other, clusters)
                .unwrap()
                .unwrap()
        };
        check(&case.name, test(None).auc_b, &case.expected["auc_other"]);
        check_paired(&case.name, test(None), &case.expected["paired"]);
        check_paired(
            &case.name,
            test(Some(&case.clusters)),
            &case.expected["paired_clustered"],
        );
    }
}

#[test]
fn decisions_equal_scikit_learn_and_scipy() {
    for case in OneLabel::all() {
        let (name, expected) = (&case.name, &case.expected["decision"]);
        let counts = Confusion::at(case.scored(), number(&expected["threshold"]) as f32);
        let [tp, fp, tn, fn_] = [
            counts.true_positives,
            counts.false_positives,
            counts.true_negatives,
            counts.false_negatives,
        ];
        check_all(
            name,
            [tp, fp, tn, fn_].map(|count| count as f64),
            &expected["counts"],
        );
        let wilson = |rate: Option<Proportion>| rate.unwrap().wilson(Level::P95);
        check_interval(name, wilson(counts.sensitivity()), &expected["sensitivity"]);
        check_interval(name, wilson(counts.specificity()), &expected["specificity"]);
        check_interval(name, wilson(counts.ppv()), &expected["ppv"]);
        check_interval(name, wilson(counts.npv()), &expected["npv"]);
        check(name, counts.f1().unwrap(), &expected["f1"]);
        check(name, counts.mcc().unwrap(), &expected["mcc"]);
        check(
            name,
            counts.accuracy().unwrap().value(),
            &expected["accuracy"],
        );
        check(
            name,
            counts.balanced_accuracy().unwrap(),
            &expected["balanced_accuracy"],
        );
    }
}

#[test]
fn operating_points_equal_torchmetrics() {
    for case in OneLabel::all() {
        let expected = &case.expected["operating"];
        let choose = |rule: OperatingRule| rule.choose(case.scored()).unwrap();
        let value = |rate: Option<Proportion>| rate.unwrap().value();
        // torchmetrics counts in f32.
        let near = |ours: f64, key: &str| {
            assert_near(
                &format!("{}, {key}", case.name),
                ours,
                number(&expected[key]),
                1e-6,
            );
        };

        let youden = choose(OperatingRule::Youden).unwrap();
        check(
            &case.name,
            youden.chosen_on.youden().unwrap(),
            &expected["youden"][0],
        );
        if let Some(threshold) = expected["youden"][1].as_f64() {
            assert_eq!(youden.threshold as f32, threshold as f32, "{}", case.name);
        }
        let best_f1 = choose(OperatingRule::BestF1).unwrap();
        check(
            &case.name,
            best_f1.chosen_on.f1().unwrap(),
            &expected["best_f1"],
        );
        let point = choose(OperatingRule::SensitivityAtSpecificity(0.9)).unwrap();
        assert!(value(point.chosen_on.specificity()) >= 0.9);
        near(
            value(point.chosen_on.sensitivity()),
            "sensitivity_at_specificity_0.9",
        );
        let point = choose(OperatingRule::SpecificityAtSensitivity(0.9)).unwrap();
        assert!(value(point.chosen_on.sensitivity()) >= 0.9);
        near(
            value(point.chosen_on.specificity()),
            "specificity_at_sensitivity_0.9",
        );
        match choose(OperatingRule::PpvAtLeast(0.5)) {
            Some(point) => {
                assert!(value(point.chosen_on.ppv()) >= 0.5);
                near(
                    value(point.chosen_on.sensitivity()),
                    "sensitivity_at_ppv_0.5",
                );
                assert_eq!(point.apply(case.scored()), point.chosen_on);
            }
            None => near(0.0, "sensitivity_at_ppv_0.5"),
        }
    }
}

#[test]
fn calibration_equals_scikit_learn_torchmetrics_and_scipy() {
    for case in golden("calibration") {
        let name = case["name"].as_str().unwrap();
        let (labels, logits) = (flags(&case["labels"]), scores(&case["logits"]));
        let probabilities = scores(&case["probabilities"]);
        let forecast = Forecast::new(&probabilities, &labels).unwrap();
        check(name, brier(forecast), &case["brier"]);
        let ece = expected_calibration_error(forecast, Binning::EqualWidth(15)).unwrap();
        assert_near(name, ece, number(&case["ece_15"]), 1e-6); // torchmetrics adds in f32
        for (key, binning) in [
            ("equal_width_15", Binning::EqualWidth(15)),
            ("equal_mass_10", Binning::EqualMass(10)),
        ] {
            let bins: Vec<ReliabilityBin> = reliability(forecast, binning).unwrap();
            check_all(
                name,
                bins.iter().map(|bin| bin.mean_probability),
                &case[key][0],
            );
            check_all(name, bins.iter().map(|bin| bin.observed), &case[key][1]);
        }
        let scored = Scored::new(&logits, &labels).unwrap();
        let scaling = TemperatureScaling::fit(scored).unwrap();
        assert_near(
            name,
            scaling.temperature / number(&case["temperature"]),
            1.0,
            1e-10,
        );
        let platt = PlattScaling::fit(scored).unwrap();
        assert_near(name, platt.slope, number(&case["platt"][0]), 1e-7);
        assert_near(name, platt.intercept, number(&case["platt"][1]), 1e-7);
    }
}

fn many_labels(case: &Value, mask: Option<&[bool]>) -> MultiLabel {
    let names = (0..case["n_labels"].as_u64().unwrap()).map(|label| format!("label {label}"));
    MultiLabel::new(
        names,
        &scores(&case["scores"]),
        &flags(&case["labels"]),
        mask,
    )
    .unwrap()
}

#[test]
fn many_labels_equal_scikit_learn() {
    for case in golden("many_labels") {
        let name = case["name"].as_str().unwrap();
        let mask = flags(&case["mask"]);
        let data = many_labels(&case, Some(&mask));
        let per_label = data.per_label();
        for (label, expected) in per_label.iter().zip(case["auc"].as_array().unwrap()) {
            match label.auc {
                Some(estimate) => check(name, estimate.auc, expected),
                None => assert!(expected.is_null(), "{name}: {} has an AUC", label.label),
            }
        }
        let aucs: Vec<Option<f64>> = per_label
            .iter()
            .map(|label| label.auc.map(|estimate| estimate.auc))
            .collect();
        assert_eq!(data.per_label_auc(), aucs);
        let defined = aucs.iter().flatten().count();
        for (key, ours) in [
            ("macro_auc", data.macro_auc()),
            ("weighted_auc", data.weighted_auc()),
            ("macro_average_precision", data.macro_average_precision()),
            (
                "weighted_average_precision",
                data.weighted_average_precision(),
            ),
        ] {
            check(&format!("{name}, {key}"), ours.unwrap().value, &case[key]);
            assert_eq!(ours.unwrap().n_labels, defined, "{name}, {key}");
        }
        check(name, data.micro_auc().unwrap(), &case["micro_auc"]);
        check(
            name,
            data.micro_average_precision().unwrap(),
            &case["micro_average_precision"],
        );
        if case.get("hamming_loss").is_none() {
            continue; // scikit-learn knows no unknown labels
        }
        let half = vec![0.5; data.n_labels()];
        for (key, ours) in [
            (
                "label_ranking_average_precision",
                data.label_ranking_average_precision(),
            ),
            ("coverage_error", data.coverage_error()),
            ("ranking_loss", data.ranking_loss()),
            ("hamming_loss", data.hamming_loss(&half).unwrap()),
            ("subset_accuracy", data.subset_accuracy(&half).unwrap()),
        ] {
            check(&format!("{name}, {key}"), ours.unwrap(), &case[key]);
        }
    }
}

#[test]
fn bootstrap_equals_resampled_rows_and_scipys_bca() {
    for case in golden("bootstrap") {
        let name = case["name"].as_str().unwrap();
        let clusters = identifiers(&case["clusters"]);
        let data = many_labels(&case, None);
        for (key, method) in [
            ("percentile", IntervalMethod::Percentile),
            ("bca", IntervalMethod::Bca),
        ] {
            let config = BootstrapConfig {
                replicates: case["replicates"].as_u64().unwrap() as usize,
                seed: case["seed"].as_u64().unwrap(),
                method,
                ..Default::default()
            };
            let ours = bootstrap(&data, Some(&clusters), &config, |resample| match name {
                "macro_auc" => resample.macro_auc(),
                _ => {
                    resample.macro_auc()?; // the oracle skips replicates that lack a class
                    resample.macro_average_precision()
                }
            });
            let ours = ours.unwrap().unwrap();
            assert_eq!(
                ours.skipped as u64,
                case["skipped"].as_u64().unwrap(),
                "{name}, {key}"
            );
            check(name, ours.estimate, &case["estimate"]);
            check(name, ours.standard_error.unwrap(), &case["standard_error"]);
            check_interval(
                &format!("{name}, {key}"),
                ours.interval.unwrap(),
                &case[key],
            );
        }
    }
}

#[test]
fn holms_correction_equals_its_definition() {
    for case in golden("holm") {
        check_all(
            "Holm",
            holm(&numbers(&case["p_values"])).unwrap(),
            &case["adjusted"],
        );
    }
}
