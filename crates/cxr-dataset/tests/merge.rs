//! Several data sets as one index.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use cxr_dataset::{ImageName, Index, LabelSet, LabelState, MergeSource, PatientId, Record};

use LabelState::{Negative, Positive, Unknown};

/// An index of images with a patient each.
fn index<const L: usize>(labels: [&str; L], rows: &[(&str, &str, [LabelState; L])]) -> Index {
    let labels = LabelSet::new(labels.map(str::to_owned).to_vec()).unwrap();
    let record = |(name, patient, states): &(&str, &str, [LabelState; L])| Record {
        patient: Some(PatientId::new(patient).unwrap()),
        age_years: Some(50),
        ..Record::new(ImageName::new(name).unwrap(), *states)
    };
    Index::new(labels, rows.iter().map(record).collect()).unwrap()
}

#[test]
fn labels_are_renamed_joined_and_unknown_where_a_data_set_lacks_them() {
    let first = index(
        ["Effusion", "Infiltration", "Pneumonia"],
        &[
            ("1.png", "1", [Positive, Negative, Negative]),
            ("2.png", "2", [Negative, Unknown, Negative]),
            ("3.png", "3", [Negative, Unknown, Positive]),
        ],
    );
    let second = index(
        ["Support Devices", "Pleural Effusion"],
        &[
            ("1.png", "1", [Positive, Unknown]),
            ("9.png", "1", [Positive, Positive]),
        ],
    );
    let merged = Index::merge(&[
        MergeSource::new(&first)
            .in_folder("a")
            .patient_prefix("a-")
            .rename_label("Infiltration", "Opacity")
            .rename_label("Pneumonia", "Opacity"),
        MergeSource::new(&second)
            .in_folder("b/images")
            .patient_prefix("b-")
            .rename_label("Pleural Effusion", "Effusion")
            .without_label("Support Devices"),
    ])
    .unwrap();
    assert_eq!(merged.label_set().names(), ["Effusion", "Opacity"]);
    let found: Vec<_> = (merged.records().iter())
        .map(|record| {
            let patient = record.patient.as_ref().unwrap().as_str();
            (record.name.as_str(), patient, record.labels.to_vec())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("a/1.png", "a-1", vec![Positive, Negative]),
            ("a/2.png", "a-2", vec![Negative, Unknown]),
            ("a/3.png", "a-3", vec![Negative, Positive]),
            ("b/images/1.png", "b-1", vec![Unknown, Unknown]),
            ("b/images/9.png", "b-1", vec![Positive, Unknown]),
        ]
    );
    // What else is known of an image stays.
    assert!(
        merged
            .records()
            .iter()
            .all(|record| record.age_years == Some(50))
    );
    assert_eq!(merged.n_patients(), 4);
}

#[test]
fn one_alone_is_as_it_was() {
    let only = index(["A", "B"], &[("1.png", "1", [Positive, Unknown])]);
    let merged = Index::merge(&[MergeSource::new(&only)]).unwrap();
    assert_eq!(merged.records(), only.records());
    assert_eq!(merged.fingerprint(), only.fingerprint());
}

/// Number 1 of one hospital is not number 1 of another: a split by patient would move both together, and intervals by
/// patient would take them for one.
#[test]
fn patients_of_two_data_sets_are_never_one_by_chance() {
    let first = index(["A"], &[("1.png", "1", [Positive])]);
    let second = index(["A"], &[("2.png", "1", [Positive])]);
    let merge = |a: Option<&str>, b: Option<&str>| {
        let source = |index, prefix: Option<&str>| match prefix {
            Some(prefix) => MergeSource::new(index).patient_prefix(prefix),
            None => MergeSource::new(index),
        };
        Index::merge(&[source(&first, a), source(&second, b)])
    };
    for (a, b) in [(None, None), (Some(""), None), (None, Some(""))] {
        let error = merge(a, b).unwrap_err().to_string();
        assert!(
            error.contains("its patient `1` is in another data set too"),
            "{error}"
        );
    }
    assert_eq!(merge(None, Some("b-")).unwrap().n_patients(), 2);
    assert_eq!(merge(Some(""), Some("")).unwrap().n_patients(), 1);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let first = index(["A"], &[("1.png", "1", [Positive])]);
    let second = index(["A"], &[("1.png", "2", [Positive])]);
    let error = |sources: &[MergeSource<'_>]| Index::merge(sources).unwrap_err().to_string();
    let both = [MergeSource::new(&first), MergeSource::new(&second)];
    assert!(error(&both).contains("the image `1.png` is listed twice"));
    let unknown = error(&[MergeSource::new(&first).rename_label("B", "A")]);
    assert!(
        unknown.contains("`B`") && unknown.contains("the labels A"),
        "{unknown}"
    );
    assert!(error(&[MergeSource::new(&first).without_label("A")]).contains("at least one label"));
    assert!(error(&[]).contains("at least one label"));
    for folder in ["..", "/", "a\\b", ""] {
        let source = MergeSource::new(&first).in_folder(folder);
        assert!(Index::merge(&[source]).is_err(), "`{folder}` was accepted");
    }
}
