//! Laws that hold for any scores and labels.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{
    BootstrapConfig, Level, MultiLabel, Scored, average_precision, bootstrap, clustered_delong,
    delong, paired_delong, partial_auc, roc_auc, roc_curve,
};
use proptest::prelude::*;

/// Scores with and without ties, labels with at least one of each class, patients.
fn examples() -> impl Strategy<Value = (Vec<f32>, Vec<bool>, Vec<u64>)> {
    let score = prop_oneof![
        (-6_i8..6).prop_map(|score| f32::from(score) / 2.0),
        -3.0_f32..3.0
    ];
    prop::collection::vec((score, any::<bool>(), 0_u64..12), 2..120).prop_map(|rows| {
        let scores = rows.iter().map(|row| row.0).collect();
        let mut labels: Vec<bool> = rows.iter().map(|row| row.1).collect();
        labels[0] = true;
        labels[1] = false;
        (scores, labels, rows.iter().map(|row| row.2).collect())
    })
}

fn auc(scores: &[f32], labels: &[bool]) -> f64 {
    roc_auc(Scored::new(scores, labels).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn auc_sees_order_only((scores, labels, _) in examples()) {
        // Increasing, and exact in f32, as powers of two are, so that no tie is made or broken.
        let bent: Vec<f32> = scores.iter().map(|&x| if x > 0.0 { 64.0 * x } else { 2.0 * x }).collect();
        prop_assert_eq!(auc(&scores, &labels), auc(&bent, &labels));
    }

    #[test]
    fn auc_is_one_minus_itself_under_a_label_flip((scores, labels, patients) in examples()) {
        let flipped: Vec<bool> = labels.iter().map(|label| !label).collect();
        prop_assert!((auc(&scores, &labels) + auc(&scores, &flipped) - 1.0).abs() < 1e-15);
        // And so is its error the same.
        let error = |labels: &[bool]| {
            clustered_delong(Scored::new(&scores, labels).unwrap(), &patients).unwrap().unwrap().standard_error
        };
        match (error(&labels), error(&flipped)) {
            (Some(a), Some(b)) => prop_assert!((a - b).abs() < 1e-12),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    #[test]
    fn auc_is_one_minus_itself_under_a_score_flip((scores, labels, _) in examples()) {
        let negated: Vec<f32> = scores.iter().map(|x| -x).collect();
        prop_assert!((auc(&scores, &labels) + auc(&negated, &labels) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn the_order_of_examples_does_not_matter((scores, labels, patients) in examples()) {
        let data = MultiLabel::new(["a"], &scores, &labels, None).unwrap();
        let mut rows: Vec<usize> = (0..scores.len()).collect();
        rows.sort_by_key(|row| row * 7919 % 127);
        let pick = |row: &usize| (scores[*row], labels[*row], patients[*row]);
        let (scores, (labels, patients_2)): (Vec<f32>, (Vec<bool>, Vec<u64>)) =
            rows.iter().map(pick).map(|(s, l, p)| (s, (l, p))).unzip();
        let shuffled = MultiLabel::new(["a"], &scores, &labels, None).unwrap();
        prop_assert_eq!(data.per_label_auc(), shuffled.per_label_auc());
        prop_assert_eq!(data.macro_average_precision(), shuffled.macro_average_precision());
        let config = BootstrapConfig { replicates: 10, seed: 3, ..Default::default() };
        let interval = |data, patients| bootstrap(data, Some(patients), &config, |r| r.macro_auc()).unwrap();
        prop_assert_eq!(interval(&data, &patients), interval(&shuffled, &patients_2));
    }

    #[test]
    fn average_precision_lies_between_its_bounds((scores, labels, _) in examples()) {
        let scored = Scored::new(&scores, &labels).unwrap();
        let (m, n) = (scored.positives(), scored.len());
        // The worst ranking puts every positive last: the i-th of m is met at place n − m + i. Ties
        // can only come out better than the worst order of their members.
        let worst: f64 = (1..=m).map(|i| i as f64 / (n - m + i) as f64).sum::<f64>() / m as f64;
        let value = average_precision(scored).unwrap();
        prop_assert!(value >= worst - 1e-12 && value <= 1.0, "{worst} {value}");
    }

    #[test]
    fn a_model_against_itself_has_p_one((scores, labels, patients) in examples()) {
        let doubled: Vec<f32> = scores.iter().map(|x| x * 2.0).collect();
        for clusters in [None, Some(patients.as_slice())] {
            let test = paired_delong(&labels, &scores, &doubled, clusters).unwrap().unwrap();
            prop_assert_eq!(test.difference, 0.0);
            if let Some(error) = test.standard_error {
                prop_assert_eq!((error, test.p_value), (0.0, Some(1.0)));
            }
        }
    }

    #[test]
    fn paired_tests_are_antisymmetric((scores, labels, patients) in examples()) {
        let other: Vec<f32> = scores.iter().enumerate().map(|(at, x)| x + (at % 5) as f32).collect();
        let test = |a, b| paired_delong(&labels, a, b, Some(&patients)).unwrap().unwrap();
        let (one, two) = (test(&scores, &other), test(&other, &scores));
        prop_assert_eq!(one.difference, -two.difference);
        prop_assert_eq!(one.p_value, two.p_value);
    }

    /// A report that says "p = 0.03" and an interval with 0 inside contradicts itself.
    #[test]
    fn zero_is_in_the_interval_exactly_when_the_p_value_is_not_small((scores, labels, patients) in examples()) {
        let other: Vec<f32> = scores.iter().enumerate().map(|(at, x)| x + (at % 5) as f32).collect();
        for clusters in [None, Some(patients.as_slice())] {
            let test = paired_delong(&labels, &scores, &other, clusters).unwrap().unwrap();
            let Some(p_value) = test.p_value.filter(|_| test.hypothesis.is_some()) else { continue };
            prop_assert!(p_value > 0.0 && p_value <= 1.0);
            for level in [0.5, 0.9, 0.95, 0.99] {
                let interval = test.interval(Level::new(level).unwrap()).unwrap();
                prop_assert!(interval.lower >= -1.0 && interval.upper <= 1.0 && interval.contains(test.difference));
                if (p_value - (1.0 - level)).abs() > 1e-9 {
                    prop_assert_eq!(interval.contains(0.0), p_value > 1.0 - level, "{:?} at {}", test, level);
                }
            }
        }
    }

    #[test]
    fn one_image_per_patient_makes_the_clustered_error_the_plain_one((scores, labels, _) in examples()) {
        let scored = Scored::new(&scores, &labels).unwrap();
        let alone: Vec<u64> = (0..scores.len() as u64).rev().collect();
        match (delong(scored).unwrap().standard_error, clustered_delong(scored, &alone).unwrap().unwrap().standard_error) {
            (Some(plain), Some(clustered)) => prop_assert!((plain - clustered).abs() < 1e-12),
            (plain, clustered) => prop_assert_eq!(plain, clustered),
        }
    }

    #[test]
    fn the_curve_holds_the_area_and_never_falls((scores, labels, _) in examples()) {
        let scored = Scored::new(&scores, &labels).unwrap();
        let curve = roc_curve(scored).unwrap();
        prop_assert!((curve.area() - auc(&scores, &labels)).abs() < 1e-12);
        prop_assert!((curve.corners().area() - curve.area()).abs() < 1e-12);
        prop_assert!((partial_auc(scored, 1.0).unwrap().unwrap() - curve.area()).abs() < 1e-12);
        for pair in curve.points.windows(2) {
            prop_assert!(pair[0].threshold > pair[1].threshold);
            prop_assert!(pair[0].true_positive_rate <= pair[1].true_positive_rate);
            prop_assert!(pair[0].false_positive_rate <= pair[1].false_positive_rate);
        }
    }

    #[test]
    fn weights_say_the_same_as_repeated_rows((scores, labels, patients) in examples()) {
        let mask: Vec<bool> = (0..scores.len()).map(|at| at % 7 != 3).collect();
        let data = MultiLabel::new(["a"], &scores, &labels, Some(&mask)).unwrap();
        let config = BootstrapConfig { replicates: 5, ..Default::default() };
        let worst = bootstrap(&data, Some(&patients), &config, |resample| {
            let repeated = resample.to_multi_label();
            let n_images: usize = resample.weights().iter().map(|&weight| usize::from(weight)).sum();
            assert_eq!(repeated.n_images(), n_images);
            assert_eq!(resample.auc(0), repeated.per_label_auc()[0]);
            match (resample.average_precision(0), repeated.per_label_average_precision()[0]) {
                (Some(a), Some(b)) => assert!((a - b).abs() < 1e-12, "{a} {b}"),
                (a, b) => assert_eq!(a, b),
            }
            Some(0.0)
        });
        prop_assert!(worst.unwrap().is_some());
    }
}

/// The threads of the pool must not show in the result.
#[cfg(feature = "rayon")]
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let scores: Vec<f32> = (0..400).map(|at| (at * 37 % 101) as f32).collect();
    let labels: Vec<bool> = (0..400).map(|at| at * 53 % 19 < 5).collect();
    let data = MultiLabel::new(["a", "b"], &scores, &labels, None).unwrap();
    let config = BootstrapConfig {
        replicates: 200,
        seed: 1,
        ..Default::default()
    };
    let with_threads = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| bootstrap(&data, None, &config, |resample| resample.macro_auc()).unwrap())
    };
    let one = with_threads(1);
    assert!(one.is_some());
    assert_eq!(one, with_threads(2));
    assert_eq!(one, with_threads(5));
}
