//! From a predictions table and labels to the numbers of a report.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_metrics::{Scored, clustered_delong, delong, paired_delong};
use cxr_run::{
    Comparison, ComparisonOptions, Evaluation, LeftOut, Predictions, Resampling, RunError, Summary,
    SummaryOptions, Truth, Unscorable,
};

fn read(csv: &str, unscorable: Unscorable) -> Result<Predictions, RunError> {
    Predictions::from_reader(csv.as_bytes(), "p.csv", unscorable)
}

fn strict(csv: &str) -> Predictions {
    read(csv, Unscorable::Refuse).unwrap()
}

/// One label; images, states and patients.
fn truth(rows: &[(&str, Option<bool>, &str)]) -> Truth {
    let mut truth = Truth::new(["Mass"]);
    for &(image, state, patient) in rows {
        truth.add(image, [state], Some(patient)).unwrap();
    }
    truth
}

const FIVE: [(&str, Option<bool>, &str); 5] = [
    ("a1", Some(true), "a"),
    ("a2", Some(false), "a"),
    ("b1", Some(true), "b"),
    ("b2", Some(true), "b"),
    ("c1", Some(false), "c"),
];

const FIVE_SCORES: [f32; 5] = [0.9, 0.4, 0.3, 0.8, 0.1];
const FIVE_CSV: &str = "image,Mass\na1,0.9\na2,0.4\nb1,0.3\nb2,0.8\nc1,0.1\n";

fn summary(csv: &str, rows: &[(&str, Option<bool>, &str)], options: &SummaryOptions) -> Summary {
    let evaluation = Evaluation::join(&strict(csv), &truth(rows), &[], Unscorable::Refuse).unwrap();
    Summary::new(&evaluation, options).unwrap()
}

#[test]
fn malformed_tables_are_errors_that_name_the_place() {
    let message = |csv: &str| read(csv, Unscorable::Refuse).unwrap_err().to_string();
    assert_eq!(
        message("image,Mass\n1,0.5\n2,high\n"),
        "`p.csv`, line 3, column `Mass`: expected a finite number, got `high`"
    );
    for text in ["NaN", "inf", "-inf", "", "1e999"] {
        let csv = format!("image,logit_Mass\n1,{text}\n");
        let expected =
            format!("`p.csv`, line 2, column `logit_Mass`: expected a finite number, got `{text}`");
        assert_eq!(message(&csv), expected);
    }
    assert_eq!(
        message("image,Mass\n1,0.5\n2,0.5\n1,0.6\n"),
        "`p.csv`, line 4: image `1` stands already on line 2"
    );
    assert_eq!(
        message("image,prob_Mass,logit_Mass\n"),
        "`p.csv`: expected one column for `Mass`, got `prob_Mass` and `logit_Mass`"
    );
    assert_eq!(
        message("image\n1\n"),
        "`p.csv`: expected an image column and at least one label column, got 1 columns"
    );
    let ragged = read("image,Mass\n1,0.5,0.6\n", Unscorable::Count).unwrap_err();
    assert!(matches!(ragged, RunError::Table(_)), "{ragged}");
    assert!(
        ragged.to_string().contains("line 2: expected 2 cells"),
        "{ragged}"
    );
}

#[test]
fn rows_and_columns_that_do_not_fit_are_errors_that_name_the_place() {
    let message = |csv: &str| {
        let joined = Evaluation::join(&strict(csv), &truth(&FIVE), &[], Unscorable::Refuse);
        joined.unwrap_err().to_string()
    };
    assert_eq!(
        message("image,Mass\na1,0.5\nz9,0.5\n"),
        "`p.csv`, line 3: image `z9` has no row in the label table"
    );
    assert_eq!(
        message("image,Mass,logit_Hernia\na1,0.5,1\n"),
        "`p.csv`: column `logit_Hernia` is about none of the labels `Mass`"
    );
    assert_eq!(
        message("image,Mass\n"),
        "`p.csv`: expected at least one image of the label table, found none"
    );
    let mut two = Truth::new(["Mass", "Hernia"]);
    two.add("a1", [Some(true), Some(false)], None).unwrap();
    let predictions = strict("image,Mass\na1,0.5\n");
    let joined =
        |optional: &[String]| Evaluation::join(&predictions, &two, optional, Unscorable::Refuse);
    assert_eq!(
        joined(&[]).unwrap_err().to_string(),
        "`p.csv`: expected a column `Hernia`, `prob_Hernia` or `logit_Hernia`, found none"
    );
    assert!(joined(&["Hernia".to_owned()]).is_ok());
    let error = two.add("a1", [None, None], None).unwrap_err();
    assert!(matches!(error, RunError::TruthTwice { .. }));
    let error = two.add("a2", [None], None).unwrap_err();
    assert_eq!(error.to_string(), "expected 2 labels of image `a2`, got 1");
    // What was refused has left no trace.
    two.add("a2", [Some(false), None], None).unwrap();
    let predictions = strict("image,Mass,Hernia\na1,0.5,0.1\na2,0.4,0.1\n");
    let evaluation = Evaluation::join(&predictions, &two, &[], Unscorable::Refuse).unwrap();
    assert_eq!(
        evaluation.data().scored("Mass").unwrap().labels(),
        [true, false]
    );
    assert_eq!(
        evaluation.data().scored("Hernia").unwrap().labels(),
        [false]
    );
}

#[test]
fn what_is_allowed_to_be_missing_is_counted() {
    let csv = "image,Mass,Oddity\na1,0.9,1\nz9,0.5,1\na2,NaN,1\nb1,0.3,x\na1,0.1,1\nc1,0.1,1\n";
    let predictions = read(csv, Unscorable::Count).unwrap();
    let mut truth = Truth::new(["Mass", "Hernia"]);
    for (image, state, patient) in FIVE {
        truth.add(image, [state, state], Some(patient)).unwrap();
    }
    let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Count).unwrap();
    let summary = Summary::new(&evaluation, &SummaryOptions::default()).unwrap();
    assert_eq!(
        summary.left_out,
        LeftOut {
            images_without_labels: 1,
            images_without_scores: 0,
            repeated_rows: 1,
            unreadable_scores: 2,
            labels_without_scores: vec!["Hernia".to_owned()],
            scores_without_label: vec!["Oddity".to_owned()],
        }
    );
    assert_eq!((summary.n_images, summary.labels.len()), (4, 1));
    // a2's only score is unreadable: positives a1, b1; negative c1.
    assert_eq!(
        (summary.labels[0].positives, summary.labels[0].negatives),
        (2, 1)
    );
    assert_eq!(summary.labels[0].auc, Some(1.0));
}

#[test]
fn the_summary_holds_the_metrics_of_the_table() {
    let options = SummaryOptions {
        by_patient: true,
        threshold: Some(0.4),
        resampling: Some(Resampling {
            replicates: 200,
            seed: 3,
        }),
        ..Default::default()
    };
    let summary = summary(FIVE_CSV, &FIVE, &options);
    let labels = FIVE.map(|(_, state, _)| state == Some(true));
    let scored = Scored::new(&FIVE_SCORES, &labels).unwrap();
    let label = &summary.labels[0];
    assert_eq!(label.auc, Some(5.0 / 6.0));
    assert_eq!(label.auc_se, delong(scored).unwrap().standard_error);
    let by_patient = clustered_delong(scored, &[0, 0, 1, 1, 2]).unwrap().unwrap();
    assert_eq!(label.auc_se_clustered, by_patient.standard_error);
    // Places 1, 2 and 4 from the top hold the positives.
    assert!((label.average_precision.unwrap() - (1.0 + 1.0 + 0.75) / 3.0).abs() < 1e-15);
    let squares = [0.1, 0.4, 0.7, 0.2, 0.1].map(|off: f64| off * off);
    assert!((label.brier.unwrap() - squares.iter().sum::<f64>() / 5.0).abs() < 1e-7);
    assert!((label.ece.unwrap() - (0.1 + 0.4 + 0.7 + 0.2 + 0.1) / 5.0).abs() < 1e-7);
    let decision = label.decision.as_ref().unwrap();
    let counts = decision.counts;
    assert_eq!((counts.true_positives, counts.false_positives), (2, 1));
    assert_eq!(
        (decision.sensitivity, decision.specificity),
        (Some(2.0 / 3.0), Some(0.5))
    );
    assert_eq!((summary.n_images, summary.n_patients), (5, Some(3)));
    assert_eq!(summary.means.auc, label.auc);
    let bootstrap = summary.means.bootstrap.as_ref().unwrap();
    assert!(bootstrap.by_patient && bootstrap.skipped > 0 && bootstrap.skipped < 200);
    assert!(summary.means.auc_interval.is_some());
}

#[test]
fn json_has_the_published_names_and_null_for_what_is_undefined() {
    let all_positive = FIVE.map(|(image, _, patient)| (image, Some(true), patient));
    let summary = summary(FIVE_CSV, &all_positive, &SummaryOptions::default());
    let json = serde_json::to_value(&summary).unwrap();
    let label = &json["labels"][0];
    assert_eq!(label["label"], "Mass");
    assert_eq!(
        (&label["positives"], &label["negatives"]),
        (&5.into(), &0.into())
    );
    for key in [
        "auc",
        "auc_se",
        "auc_interval",
        "auc_se_clustered",
        "auc_interval_clustered",
        "decision",
    ] {
        assert!(
            label.get(key).is_some_and(serde_json::Value::is_null),
            "{key}: {}",
            label[key]
        );
    }
    assert_eq!(label["average_precision"], 1.0);
    let means = &json["macro"];
    for key in ["auc", "auc_interval", "average_precision"] {
        assert!(
            means.get(key).is_some_and(serde_json::Value::is_null),
            "{key}: {}",
            means[key]
        );
    }
    assert_eq!(means["n_labels"], 0);
    assert_eq!(
        (&json["n_images"], &json["n_patients"]),
        (&5.into(), &3.into())
    );
    assert_eq!(serde_json::from_value::<Summary>(json).unwrap(), summary);
}

#[test]
fn the_order_of_rows_changes_nothing() {
    let mut lines: Vec<&str> = FIVE_CSV.lines().collect();
    lines[1..].reverse();
    let mut rows = FIVE;
    rows.rotate_left(2);
    let options = SummaryOptions {
        by_patient: true,
        resampling: Some(Resampling {
            replicates: 50,
            seed: 1,
        }),
        ..Default::default()
    };
    let shuffled = summary(&(lines.join("\n") + "\n"), &rows, &options);
    assert_eq!(shuffled, summary(FIVE_CSV, &FIVE, &options));
}

#[test]
fn logits_become_probabilities_and_other_scores_need_not_be_any() {
    // Saturated logits: as probabilities of f32, 20 and 30 would be one score.
    let logits = "image,logit_Mass\na1,30\na2,20\nb1,40\nb2,35\nc1,-50\n";
    let label = &summary(logits, &FIVE, &SummaryOptions::default()).labels[0];
    assert_eq!(label.auc, Some(1.0));
    assert!((label.brier.unwrap() - 0.2).abs() < 1e-7); // a2 is called with certainty, wrongly
    let options = SummaryOptions {
        threshold: Some(0.5),
        ..Default::default()
    };
    let decision = summary(logits, &FIVE, &options).labels[0]
        .decision
        .clone()
        .unwrap();
    assert_eq!(decision.counts.false_positives, 1);

    let ranks = "image,prob_Mass\na1,5\na2,2\nb1,4\nb2,3\nc1,1\n";
    let label = &summary(ranks, &FIVE, &SummaryOptions::default()).labels[0];
    assert_eq!((label.auc, label.brier, label.ece), (Some(1.0), None, None));
}

#[test]
fn differences_beyond_f32_still_rank() {
    let close = "image,Mass\na1,0.50000000003\na2,0.50000000001\nb1,0.50000000004\nb2,0.50000000002\nc1,0.5\n";
    assert_eq!(
        summary(close, &FIVE, &SummaryOptions::default()).labels[0].auc,
        Some(1.0)
    );
    let huge = "image,Mass\na1,3e300\na2,1e300\nb1,4e300\nb2,2e300\nc1,-1e300\n";
    assert_eq!(
        summary(huge, &FIVE, &SummaryOptions::default()).labels[0].auc,
        Some(1.0)
    );
}

#[test]
fn labels_can_be_left_out_of_the_mean() {
    let mut truth = Truth::new(["Mass", "Hernia"]);
    for (image, state, patient) in FIVE {
        truth
            .add(image, [state, state.map(|state| !state)], Some(patient))
            .unwrap();
    }
    let csv = "image,Mass,Hernia\na1,0.9,1\na2,0.4,0\nb1,0.3,1\nb2,0.8,1\nc1,0.1,0\n";
    let evaluation = Evaluation::join(&strict(csv), &truth, &[], Unscorable::Refuse).unwrap();
    let means = |without: &[&str]| {
        let without = without.iter().map(|&label| label.to_owned()).collect();
        let options = SummaryOptions {
            without,
            ..Default::default()
        };
        Summary::new(&evaluation, &options)
            .map(|summary| (summary.means.auc, summary.means.n_labels))
    };
    let (mean, n_labels) = means(&[]).unwrap();
    assert!((mean.unwrap() - 5.0 / 12.0).abs() < 1e-15 && n_labels == 2);
    assert_eq!(means(&["Hernia"]).unwrap(), (Some(5.0 / 6.0), 1));
    assert_eq!(means(&["Mass", "Hernia"]).unwrap(), (None, 0));
    let error = means(&["Hernias"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "expected one of the labels `Mass`, `Hernia`, got `Hernias`"
    );
}

#[test]
fn results_by_patient_need_every_patient() {
    let mut truth = Truth::new(["Mass"]);
    truth.add("a1", [Some(true)], Some("a")).unwrap();
    truth.add("a2", [Some(false)], None).unwrap();
    let predictions = strict("image,Mass\na1,0.5\na2,0.4\n");
    let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse).unwrap();
    let summary = Summary::new(&evaluation, &SummaryOptions::default()).unwrap();
    assert_eq!(summary.n_patients, None);
    let options = SummaryOptions {
        by_patient: true,
        ..Default::default()
    };
    let error = Summary::new(&evaluation, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a patient for every image, got none for `a2`"
    );
}

#[test]
fn two_models_are_compared_on_the_images_of_both() {
    let a = strict(FIVE_CSV);
    let b = strict("image,logit_Mass\nc1,-3\nb2,-2\na1,2\na2,1\nb1,-1\n");
    let truth = truth(&FIVE);
    let join = |a: &Predictions, b: &Predictions, unscorable| {
        Evaluation::join_all(&[a, b], &truth, &[], unscorable)
    };
    let both = join(&a, &b, Unscorable::Refuse).unwrap();
    let options = ComparisonOptions {
        by_patient: true,
        resampling: Some(Resampling {
            replicates: 100,
            seed: 1,
        }),
        ..Default::default()
    };
    let comparison = Comparison::new(&both[0], &both[1], &options).unwrap();
    let labels = FIVE.map(|(_, state, _)| state == Some(true));
    let patients = [0, 0, 1, 1, 2];
    let test = paired_delong(
        &labels,
        &FIVE_SCORES,
        &[2.0, 1.0, -1.0, -2.0, -3.0],
        Some(&patients),
    );
    let test = test.unwrap().unwrap();
    let label = &comparison.labels[0];
    assert_eq!(
        (label.auc_a, label.auc_b),
        (Some(test.auc_a), Some(test.auc_b))
    );
    assert_eq!(
        (label.difference, label.se),
        (Some(test.difference), test.standard_error)
    );
    assert_eq!(
        (label.p_value, label.p_value_holm),
        (test.p_value, test.p_value)
    );
    assert_eq!(comparison.means.difference, label.difference);
    assert!(comparison.means.interval.is_some());

    let itself = Comparison::new(&both[0], &both[0], &ComparisonOptions::default()).unwrap();
    assert_eq!(itself.labels[0].p_value, Some(1.0));

    let shorter = strict("image,Mass\na1,2\na2,1\nb1,-1\n");
    let error = join(&a, &shorter, Unscorable::Refuse)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "`p.csv`, line 5: image `b2` has no row in `p.csv`");
    let both = join(&a, &shorter, Unscorable::Count).unwrap();
    let comparison = Comparison::new(&both[0], &both[1], &ComparisonOptions::default()).unwrap();
    assert_eq!(
        (
            comparison.n_images,
            comparison.left_out.images_without_scores
        ),
        (3, 2)
    );
}

#[test]
fn a_table_of_scores_is_joined_with_labels_in_one_call() {
    use cxr_dataset::{ImageName, Index, LabelSet, LabelState, Record};
    let labels = LabelSet::new(["Mass", "Hernia"].map(str::to_owned).to_vec()).unwrap();
    let record =
        |name: &str, states: [LabelState; 2]| Record::new(ImageName::new(name).unwrap(), states);
    use LabelState::{Negative, Positive, Unknown};
    let records = vec![
        record("3.png", [Negative, Positive]),
        record("2.png", [Positive, Unknown]),
        record("1.png", [Positive, Negative]),
        record("not predicted.png", [Positive, Positive]),
    ];
    let index = Index::new(labels, records).unwrap();
    // The columns and rows are in another order than the index has them.
    let table = strict("image,logit_Hernia,logit_Mass\n1.png,-1,2\n2.png,5,0.5\n3.png,3,1\n");
    let found = table.to_multi_label(&index).unwrap();
    let expected = cxr_metrics::MultiLabel::new(
        ["Mass", "Hernia"],
        &[2., -1., 0.5, 5., 1., 3.],
        &[true, false, true, false, false, true],
        Some(&[true, true, true, false, true, true]),
    )
    .unwrap();
    assert_eq!(found.per_label_auc(), expected.per_label_auc());
    assert_eq!(found.per_label_auc(), [Some(0.5), Some(1.)]);
    let error = |csv: &str| strict(csv).to_multi_label(&index).unwrap_err();
    let stranger = error("image,Mass,Hernia\n9.png,1,1\n");
    assert!(matches!(stranger, RunError::ImageWithoutLabels { .. }));
    assert!(matches!(
        error("image,Mass\n1.png,1\n"),
        RunError::LabelWithoutScores { .. }
    ));
}
