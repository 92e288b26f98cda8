//! What comes out where a quantity is undefined, degenerate or the input malformed.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{
    Binning, BootstrapConfig, ClusteredRates, Confusion, Forecast, IntervalMethod, Level,
    MetricError, MultiLabel, OperatingRule, PlattScaling, Scored, TemperatureScaling, Undefined,
    average_precision, bootstrap, clustered_delong, delong, expected_calibration_error, holm,
    paired_bootstrap, paired_delong, partial_auc, pr_curve, reliability, roc_auc, roc_curve,
};

fn scored<'a>(scores: &'a [f32], labels: &'a [bool]) -> Scored<'a> {
    Scored::new(scores, labels).unwrap()
}

#[test]
fn malformed_scores_are_errors_that_name_the_place() {
    assert_eq!(
        Scored::new(&[0.0_f32; 0], &[]).unwrap_err(),
        MetricError::Empty
    );
    let error = Scored::new(&[0.1, 0.2], &[true]).unwrap_err();
    assert_eq!(error.to_string(), "expected 2 labels, got 1");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        match Scored::new(&[0.1, bad], &[true, false]) {
            Err(MetricError::NotFinite { index: 1, value }) => {
                assert_eq!(value.to_bits(), f64::from(bad).to_bits());
            }
            other => panic!("`{bad}` gave {other:?}"),
        }
    }
    let error = Forecast::new(&[0.1, 1.5], &[true, false]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a probability in [0, 1], got `1.5` at position 1"
    );
}

#[test]
fn one_class_alone_has_no_auc() {
    let scores = [0.1, 0.7, 0.3];
    for class in [false, true] {
        let labels = [class; 3];
        let one = scored(&scores, &labels);
        assert_eq!(roc_auc(one), None);
        assert_eq!(roc_curve(one), None);
        assert_eq!(delong(one), None);
        assert_eq!(clustered_delong(one, &[1, 2, 3]).unwrap(), None);
        assert_eq!(partial_auc(one, 0.5).unwrap(), None);
        assert_eq!(
            paired_delong(&labels, &scores, &scores, None).unwrap(),
            None
        );
        assert_eq!(PlattScaling::fit(one), None);
        assert_eq!(TemperatureScaling::fit(one), None);
        for rule in [
            OperatingRule::Youden,
            OperatingRule::BestF1,
            OperatingRule::PpvAtLeast(0.1),
        ] {
            assert_eq!(rule.choose(one).unwrap(), None);
        }
        let counts = Confusion::at(one, 0.5);
        assert_eq!(
            (counts.balanced_accuracy(), counts.mcc(), counts.youden()),
            (None, None, None)
        );
        let precision = class.then_some(1.0);
        assert_eq!(average_precision(one), precision);
        assert_eq!(pr_curve(one).is_some(), class);
    }
}

#[test]
fn one_example_is_enough_for_what_needs_no_second() {
    let one = scored(&[0.4], &[true]);
    assert_eq!(roc_auc(one), None);
    assert_eq!(average_precision(one), Some(1.0));
    let counts = Confusion::at(one, 0.4);
    assert_eq!(counts.sensitivity().unwrap().value(), 1.0);
    assert_eq!(counts.specificity(), None);
    let forecast = Forecast::try_from(one).unwrap();
    let ece = expected_calibration_error(forecast, Binning::EqualMass(15)).unwrap();
    assert!((ece - 0.6).abs() < 1e-7);
}

#[test]
fn one_positive_has_an_auc_and_no_standard_error() {
    let one = scored(&[0.1, 0.7, 0.3, 0.9], &[false, true, false, false]);
    let estimate = delong(one).unwrap();
    assert_eq!(estimate.auc, 2.0 / 3.0);
    assert_eq!(estimate.standard_error, None);
    assert_eq!(estimate.interval(Level::P95), None);
    assert_eq!(estimate.undefined(), Some(Undefined::OneCluster));
    assert_eq!(estimate.degrees_of_freedom, None);
    assert_eq!(estimate.wald_interval(Level::P95), None);
    let test = paired_delong(one.labels(), one.scores(), &[0.0, 0.0, 0.0, 1.0], None);
    assert_eq!(test.unwrap().unwrap().p_value, None);
}

#[test]
fn positives_of_a_single_patient_have_no_clustered_error() {
    let two = scored(&[0.1, 0.7, 0.3, 0.9], &[false, true, false, true]);
    assert!(delong(two).unwrap().standard_error.is_some());
    let clustered = clustered_delong(two, &[1, 2, 3, 2]).unwrap().unwrap();
    assert_eq!((clustered.auc, clustered.standard_error), (1.0, None));
}

#[test]
fn constant_scores_are_chance_with_no_spread() {
    let labels = [true, false, true, false, false];
    let constant = scored(&[0.3; 5], &labels);
    assert_eq!(roc_auc(constant), Some(0.5));
    assert_eq!(average_precision(constant), Some(0.4));
    assert_eq!(partial_auc(constant, 0.3).unwrap(), Some(0.5));
    let estimate = delong(constant).unwrap();
    assert_eq!((estimate.auc, estimate.standard_error), (0.5, Some(0.0)));
    assert_eq!(estimate.interval(Level::P95), None);
    assert_eq!(estimate.undefined(), Some(Undefined::NoSpread));
    let thresholds: Vec<f64> = roc_curve(constant)
        .unwrap()
        .points
        .iter()
        .map(|point| point.threshold)
        .collect();
    assert_eq!(thresholds, [f64::INFINITY, 0.3_f32.into()]);
    let platt = PlattScaling::fit(constant).unwrap();
    assert_eq!(platt.slope, 0.0);
    let softened = (2.0 * 0.75 + 3.0 * 0.2) / 5.0; // Platt's targets, averaged
    assert!((platt.apply(0.3) - softened).abs() < 1e-12);
}

#[test]
fn both_zeros_are_one_score() {
    assert_eq!(roc_auc(scored(&[0.0, -0.0], &[true, false])), Some(0.5));
}

#[test]
fn perfect_separation_claims_no_interval() {
    let perfect = scored(&[0.1, 0.2, 0.8, 0.9], &[false, false, true, true]);
    let estimate = delong(perfect).unwrap();
    assert_eq!((estimate.auc, estimate.standard_error), (1.0, Some(0.0)));
    assert_eq!(estimate.interval(Level::P95), None);
    assert_eq!(estimate.undefined(), Some(Undefined::NoSpread));
    assert_eq!(
        TemperatureScaling::fit(scored(&[-1.0, 0.5], &[false, true])),
        None
    );
    assert!(PlattScaling::fit(perfect).unwrap().slope > 0.0);
    // Perfect against upside down: the difference is 1, its estimated error 0, the test undefined.
    let test = paired_delong(
        perfect.labels(),
        perfect.scores(),
        &[0.9, 0.8, 0.2, 0.1],
        None,
    );
    let test = test.unwrap().unwrap();
    assert_eq!(
        (test.difference, test.standard_error, test.p_value),
        (1.0, Some(0.0), None)
    );
    // An interval from 1 to 1 beside an undefined p-value claimed certainty.
    assert_eq!(test.interval(Level::P95), None);
    assert_eq!(test.undefined(), Some(Undefined::NoSpread));
    let itself = paired_delong(perfect.labels(), perfect.scores(), perfect.scores(), None);
    let itself = itself.unwrap().unwrap();
    let interval = itself.interval(Level::P95).unwrap();
    assert_eq!((interval.lower, interval.upper), (0.0, 0.0));
    assert_eq!((itself.p_value, itself.undefined()), (Some(1.0), None));
}

#[test]
fn rates_of_one_patient_have_no_interval_and_rates_of_0_and_1_have_one() {
    let labels = [true, true, true, false, false];
    let called = [true, true, true, false, true];
    let rates = ClusteredRates::of_calls(&called, &labels, &[1, 1, 2, 3, 3]).unwrap();
    let sensitivity = rates.sensitivity.unwrap();
    assert_eq!(sensitivity.proportion.value(), 1.0);
    // Two patients with two films and one: Kish's 9/5.
    assert!((sensitivity.effective_n.unwrap() - 1.8).abs() < 1e-12);
    let interval = sensitivity.wilson(Level::P95).unwrap();
    assert!(interval.lower > 0.0 && interval.lower < 0.1 && interval.upper == 1.0);
    let specificity = rates.specificity.unwrap();
    assert_eq!(specificity.wilson(Level::P95), None);
    assert!(specificity.proportion.wilson(Level::P95).contains(0.5));
    let nobody = ClusteredRates::of_calls(&[false; 2], &[false; 2], &[1, 2]).unwrap();
    assert_eq!((nobody.sensitivity, nobody.ppv), (None, None));
    let error = ClusteredRates::of_calls(&called, &labels, &[1, 2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected 5 clusters, one per example, got 2"
    );
}

#[test]
fn a_mean_with_a_label_of_one_patient_has_no_error() {
    let scores = [0.9, 0.2, 0.8, 0.7, 0.3, 0.6, 0.1, 0.4];
    let labels = [true, false, true, true, false, false, false, false];
    let data = MultiLabel::new(["a", "b"], &scores, &labels, None).unwrap();
    let mean = data.macro_auc_estimate(None).unwrap().unwrap();
    assert_eq!(mean.mean.n_labels, 2);
    assert_eq!((mean.standard_error, mean.degrees_of_freedom), (None, None));
    assert_eq!(mean.interval(Level::P95), None);
    let test = data.paired_macro_auc(&data, None).unwrap().unwrap();
    assert_eq!((test.n_labels, test.test.standard_error), (2, None));
    let no_labels = data.select(&["a"]).unwrap();
    let perfect = no_labels.macro_auc_estimate(None).unwrap().unwrap();
    assert_eq!(
        (perfect.mean.value, perfect.interval(Level::P95)),
        (1.0, None)
    );
}

#[test]
fn operating_points_may_call_nothing_positive() {
    let upside_down = scored(&[0.1, 0.9], &[true, false]);
    let point = OperatingRule::Youden.choose(upside_down).unwrap().unwrap();
    assert_eq!(point.threshold, f64::INFINITY);
    assert_eq!(
        OperatingRule::PpvAtLeast(0.9).choose(upside_down).unwrap(),
        None
    );
    let error = OperatingRule::PpvAtLeast(1.5)
        .choose(upside_down)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected the rate to reach in [0, 1], got `1.5`"
    );
}

#[test]
fn parameters_out_of_range_are_errors() {
    let two = scored(&[0.1, 0.9], &[true, false]);
    for limit in [0.0, -0.1, 1.1, f64::NAN] {
        assert!(
            matches!(partial_auc(two, limit), Err(MetricError::OutOfRange { .. })),
            "{limit}"
        );
    }
    for level in [0.0, 1.0, f64::NAN] {
        assert!(Level::new(level).is_err(), "{level}");
    }
    let forecast = Forecast::try_from(two).unwrap();
    assert!(reliability(forecast, Binning::EqualWidth(0)).is_err());
    assert!(holm(&[0.5, f64::NAN]).is_err());
    assert_eq!(holm(&[]).unwrap(), []);
    assert!(matches!(
        clustered_delong(two, &[1]),
        Err(MetricError::Length { .. })
    ));
}

#[test]
fn probability_one_belongs_to_the_last_bin() {
    let forecast = Forecast::new(&[0.0, 0.95, 1.0], &[false, true, true]).unwrap();
    let counts: Vec<usize> = reliability(forecast, Binning::EqualWidth(10))
        .unwrap()
        .iter()
        .map(|bin| bin.count)
        .collect();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn equal_probabilities_share_a_bin_of_equal_mass() {
    let forecast = Forecast::new(&[0.5, 0.1, 0.5, 0.5], &[false, true, true, false]).unwrap();
    let counts: Vec<usize> = reliability(forecast, Binning::EqualMass(2))
        .unwrap()
        .iter()
        .map(|bin| bin.count)
        .collect();
    assert_eq!(counts, [4]); // the first of the tied ones falls into the lower half
    let apart = Forecast::new(&[0.5, 0.1, 0.6, 0.7], &[false, true, true, false]).unwrap();
    let counts: Vec<usize> = reliability(apart, Binning::EqualMass(2))
        .unwrap()
        .iter()
        .map(|bin| bin.count)
        .collect();
    assert_eq!(counts, [2, 2]);
}

#[test]
fn malformed_tables_are_errors() {
    let new = |names: &[&str], scores: &[f32], labels: &[bool], mask: Option<&[bool]>| {
        MultiLabel::new(names.iter().copied(), scores, labels, mask)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        new(&[], &[0.1], &[true], None),
        "expected at least one example, got none"
    );
    assert_eq!(
        new(&["a"], &[], &[], None),
        "expected at least one example, got none"
    );
    assert_eq!(
        new(&["a", "a"], &[0.1; 2], &[true; 2], None),
        "expected every label once, got `a` twice"
    );
    assert_eq!(
        new(&["a", "b"], &[0.1; 3], &[true; 3], None),
        "expected 2 scores, one per image and label, got 3"
    );
    assert_eq!(
        new(&["a", "b"], &[0.1], &[true], None),
        "expected 2 scores, one per image and label, got 1"
    );
    assert_eq!(
        new(&["a"], &[0.1], &[true; 2], None),
        "expected 1 labels, one per score, got 2"
    );
    assert_eq!(
        new(&["a"], &[0.1], &[true], Some(&[])),
        "expected 1 mask entries, one per score, got 0"
    );
    assert_eq!(
        new(&["a"], &[f32::NAN], &[true], None),
        "expected a finite score, got `NaN` at position 0"
    );
}

#[test]
fn unknown_labels_leave_images_out_of_that_label_only() {
    let scores = [0.9, f32::NAN, 0.1, 0.6, 0.5, 0.3];
    let labels = [true, true, false, true, false, false];
    let mask = [true, false, true, true, true, true];
    let data = MultiLabel::new(["a", "b"], &scores, &labels, Some(&mask)).unwrap();
    assert_eq!(data.scored("a").unwrap().len(), 3);
    let scores: Vec<f64> = data.scored("b").unwrap().scores().iter().collect();
    assert_eq!(scores, [0.6, 0.3].map(|score: f32| f64::from(score)));
    assert_eq!(data.per_label_auc(), [Some(1.0), Some(1.0)]);
    assert_eq!(data.micro_auc(), Some(1.0));
    // The first image knows only `a` and is right about it; the third calls `a` at its threshold.
    assert_eq!(data.subset_accuracy(&[0.5, 0.5]).unwrap(), Some(2.0 / 3.0));
    assert_eq!(data.hamming_loss(&[0.2, 0.7]).unwrap(), Some(2.0 / 5.0));

    let nothing = MultiLabel::new(["a"], &[0.5], &[true], Some(&[false])).unwrap();
    assert_eq!(nothing.scored("a").unwrap_err(), MetricError::Empty);
    assert_eq!(nothing.macro_auc(), None);
    assert_eq!(nothing.micro_auc(), None);
    assert_eq!(nothing.hamming_loss(&[0.5]).unwrap(), None);
    assert_eq!(nothing.ranking_loss(), None);
    assert_eq!(nothing.per_label()[0].average_precision, None);
}

#[test]
fn subsets_of_labels_keep_their_order_and_refuse_strangers() {
    let data = MultiLabel::new(["a", "b", "c"], &[0.1; 3], &[true; 3], None).unwrap();
    let names = |data: MultiLabel| data.label_names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names(data.select(&["c", "a"]).unwrap()), ["c", "a"]);
    assert_eq!(names(data.without(&["b"]).unwrap()), ["a", "c"]);
    let error = data.without(&["d"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected one of the labels `a`, `b`, `c`, got `d`"
    );
    assert_eq!(
        data.without(&["a", "b", "c"]).unwrap_err(),
        MetricError::Empty
    );
}

#[test]
fn a_replicate_without_a_class_is_skipped_and_counted() {
    let data = MultiLabel::new(["a"], &[0.9, 0.2, 0.3], &[true, false, false], None).unwrap();
    let config = BootstrapConfig {
        replicates: 1000,
        ..Default::default()
    };
    let auc = bootstrap(&data, None, &config, |resample| resample.macro_auc())
        .unwrap()
        .unwrap();
    // All three draws miss the positive, or all hit it: (2/3)³ + (1/3)³ = 1/3.
    assert!(
        (auc.skipped as f64 / 1000.0 - 1.0 / 3.0).abs() < 5.0 * 0.015,
        "{}",
        auc.skipped
    );
    assert_eq!(auc.replicates + auc.skipped, 1000);

    let one_class = data.select(&["a"]).unwrap();
    let undefined = bootstrap(&one_class, None, &config, |_| None).unwrap();
    assert_eq!(undefined, None);
    let none = BootstrapConfig {
        replicates: 0,
        ..config
    };
    let auc = bootstrap(&data, None, &none, |resample| resample.auc(0))
        .unwrap()
        .unwrap();
    assert_eq!(
        (auc.interval, auc.standard_error, auc.estimate),
        (None, None, 1.0)
    );
    assert!(bootstrap(&data, Some(&[1]), &none, |resample| resample.auc(0)).is_err());
}

#[test]
fn a_label_that_lacks_a_class_does_not_void_the_mean_of_the_others() {
    let scores = [0.9, 0.1, 0.2, 0.1, 0.6, 0.1, 0.3, 0.1];
    let labels = [true, false, false, false, true, false, false, false];
    let data = MultiLabel::new(["a", "never"], &scores, &labels, None).unwrap();
    let config = BootstrapConfig {
        replicates: 50,
        ..Default::default()
    };
    let auc = bootstrap(&data, None, &config, |resample| resample.macro_auc())
        .unwrap()
        .unwrap();
    assert_eq!(auc.estimate, 1.0);
    assert!(auc.replicates > 0);
}

#[test]
fn bca_is_undefined_when_replicates_never_reach_the_estimate() {
    let labels: Vec<bool> = (0..40).map(|at| at % 2 == 0).collect();
    let data = MultiLabel::new(["a"], &[0.5; 40], &labels, None).unwrap();
    let config = BootstrapConfig {
        replicates: 20,
        method: IntervalMethod::Bca,
        ..Default::default()
    };
    // The share of images that are drawn at all is 1 for the data and less for every replicate.
    let share_drawn = |resample: &cxr_metrics::Resample<'_>| {
        let drawn = resample
            .weights()
            .iter()
            .filter(|&&weight| weight > 0)
            .count();
        Some(drawn as f64 / 40.0)
    };
    let estimate = bootstrap(&data, None, &config, share_drawn)
        .unwrap()
        .unwrap();
    assert_eq!((estimate.estimate, estimate.interval), (1.0, None));
}

#[test]
fn a_model_does_not_differ_from_itself() {
    let scores = [0.9, 0.2, 0.3, 0.5];
    let labels = [true, false, false, true];
    let data = MultiLabel::new(["a"], &scores, &labels, None).unwrap();
    let config = BootstrapConfig {
        replicates: 50,
        ..Default::default()
    };
    let difference = paired_bootstrap(&data, &data, None, &config, |resample| resample.macro_auc());
    let difference = difference.unwrap().unwrap();
    let interval = difference.interval.unwrap();
    assert_eq!(
        (difference.estimate, interval.lower, interval.upper),
        (0.0, 0.0, 0.0)
    );

    let other_truth = MultiLabel::new(["a"], &scores, &[true; 4], None).unwrap();
    let error = data.paired_per_label(&other_truth, None).unwrap_err();
    assert_eq!(
        error,
        MetricError::Mismatch {
            label: "a".to_owned()
        }
    );
}
