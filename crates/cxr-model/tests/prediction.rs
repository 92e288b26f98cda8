//! Logits beside labels.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use cxr_dataset::{ImageName, Index, LabelSet, LabelState, Record};
use cxr_metrics::MultiLabel;
use cxr_model::{ModelError, Prediction, View, ViewSet};

use LabelState::{Negative, Positive, Unknown};

fn names(names: &[&str]) -> Vec<ImageName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn index() -> Index {
    let labels = LabelSet::new(["C", "A", "B"].map(str::to_owned).to_vec()).unwrap();
    let rows = [
        ("1.png", [Unknown, Positive, Negative]),
        ("2.png", [Unknown, Negative, Positive]),
        ("3.png", [Unknown, Negative, Unknown]),
        ("4.png", [Positive, Negative, Negative]),
    ];
    let records = rows.map(|(name, states)| Record::new(name.parse().unwrap(), states));
    Index::new(labels, records.to_vec()).unwrap()
}

fn prediction(images: &[&str], labels: &[&str], logits: &[f32]) -> Result<Prediction, ModelError> {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    Prediction::new(names(images), labels, [(View::Center, logits.to_vec())])
}

/// Labels go by their names, not by their places.
#[test]
fn a_prediction_is_joined_with_labels_by_name() {
    let logits = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
    let images = ["4.png", "2.png", "3.png", "1.png"];
    let prediction = prediction(&images, &["B", "A"], &logits).unwrap();
    let found = prediction
        .to_multi_label(ViewSet::Single, &index())
        .unwrap();
    let expected = MultiLabel::new(
        ["B", "A"],
        &logits,
        &[false, false, true, false, false, false, false, true],
        Some(&[true, true, true, true, false, true, true, true]),
    );
    let expected = expected.unwrap();
    assert_eq!(found.per_label_auc(), expected.per_label_auc());
    assert_eq!(found.per_label_auc(), [Some(0.5), Some(1.)]);
    let mean = prediction
        .macro_auc(ViewSet::Single, &index())
        .unwrap()
        .unwrap();
    assert_eq!((mean.value, mean.n_labels), (0.75, 2));
}

#[test]
fn what_does_not_go_together_is_refused() {
    let joined = |images: &[&str], labels: &[&str]| {
        let logits = vec![0.; images.len() * labels.len()];
        let prediction = prediction(images, labels, &logits).unwrap();
        prediction
            .to_multi_label(ViewSet::Single, &index())
            .unwrap_err()
    };
    let error = joined(&["1.png", "9.png"], &["A"]);
    assert!(matches!(&error, ModelError::NotInIndex { what: "image", name } if name == "9.png"));
    let error = joined(&["1.png"], &["A", "D"]);
    assert!(matches!(&error, ModelError::NotInIndex { what: "label", name } if name == "D"));
    assert!(matches!(
        prediction(&["1.png", "1.png"], &["A"], &[0., 0.]),
        Err(ModelError::ImageTwice { .. })
    ));
    assert!(prediction(&["1.png", "2.png"], &["A"], &[0.]).is_err());
    let single = prediction(&["1.png"], &["A"], &[0.]).unwrap();
    assert!(single.logits(ViewSet::HorizontalFlip).is_err());
}

#[test]
fn some_images_of_a_prediction_are_one() {
    let logits = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    let all = prediction(&["1.png", "2.png", "3.png"], &["A", "B"], &logits).unwrap();
    let some = all.of_images(&names(&["3.png", "1.png"])).unwrap();
    let expected = prediction(&["3.png", "1.png"], &["A", "B"], &[0.5, 0.6, 0.1, 0.2]);
    assert_eq!(some, expected.unwrap());
    let stranger = all.of_images(&names(&["4.png"]));
    assert!(matches!(stranger, Err(ModelError::NotPredicted { name }) if name == "4.png"));
    assert!(all.of_images(&names(&["1.png", "1.png"])).is_err());
}
