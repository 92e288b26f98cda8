//! Splits: the ranking that design and documentation promise, and what filtering reports.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::collections::HashSet;

use cxr_dataset::{
    ImageName, Index, LabelSet, LabelState, OfficialLists, Part, PatientId, Record, Sex, Split,
    Subset, ValidationSplit, ViewPosition,
};

/// 200 images of 80 patients: 160 for training and validation, 40 for the test.
fn data_set() -> (Index, OfficialLists) {
    let labels = LabelSet::new(vec!["Mass".to_owned()]).unwrap();
    let records: Vec<Record> = (0..200)
        .map(|number: usize| {
            let patient = if number < 160 {
                number % 60
            } else {
                60 + number % 20
            };
            let name = ImageName::new(&format!("{patient:08}_{number:03}.png")).unwrap();
            let state = if number.is_multiple_of(7) {
                LabelState::Positive
            } else {
                LabelState::Negative
            };
            Record {
                patient: Some(PatientId::from_chest_x_ray14(&name).unwrap()),
                ..Record::new(name, [state])
            }
        })
        .collect();
    let names: Vec<ImageName> = records.iter().map(|record| record.name.clone()).collect();
    let lists = OfficialLists::new(names[..160].to_vec(), names[160..].to_vec()).unwrap();
    (Index::new(labels, records).unwrap(), lists)
}

#[test]
fn the_validation_images_are_those_that_rank_first() {
    // import hashlib
    // names = [f"{i % 60:08}_{i:03}.png" for i in range(160)]
    // rank = lambda name: hashlib.sha256((7).to_bytes(8, "little") + name.encode()).digest()
    // chosen = set(sorted(names, key=rank)[:16]); [name[-7:-4] for name in names if name in chosen]
    let expected = [
        "010", "017", "022", "051", "055", "064", "086", "091", "092", "099", "100", "105", "106",
        "117", "124", "131",
    ];
    let (index, lists) = data_set();
    let split = Split::new(&index, &lists, ValidationSplit::Paper, 7).unwrap();
    let numbers: Vec<&str> = split
        .validation()
        .iter()
        .map(|name| &name.as_str()[9..12])
        .collect();
    assert_eq!(numbers, expected);
    assert_eq!((split.train().len(), split.test().len()), (144, 40));
}

/// Iterative stratification of groups, written down once more without regard for speed: the
/// patients of each fold, in the order of their rank.
fn stratified(index: &Index, names: &[ImageName], seed: u64, n_folds: usize) -> Vec<Vec<String>> {
    use sha2::{Digest, Sha256};
    let patient = |name: &ImageName| name.as_str()[..8].to_owned();
    let mut patients: Vec<String> = names.iter().map(patient).collect();
    patients.sort();
    patients.dedup();
    patients.sort_by_key(|patient| {
        let mut key = seed.to_le_bytes().to_vec();
        key.extend(patient.as_bytes());
        Sha256::digest(key).to_vec()
    });
    // How many images of these patients have the label; the label past the last one is any image.
    let n_labels = index.label_set().len();
    let count = |of: &[String], label: usize| {
        let images = names.iter().filter(|name| of.contains(&patient(name)));
        images
            .filter(|name| {
                let labels = &index.get(name).unwrap().labels;
                label == n_labels || labels[label] == LabelState::Positive
            })
            .count()
    };
    let mut folds = vec![Vec::new(); n_folds];
    while !patients.is_empty() {
        let label = (0..n_labels)
            .filter(|&label| count(&patients, label) > 0)
            .min_by_key(|&label| count(&patients, label))
            .unwrap_or(n_labels);
        // All that have this label, the one with most of it first.
        while let Some(next) = (0..patients.len())
            .rev()
            .max_by_key(|&at| count(&patients[at..=at], label))
            .filter(|&at| count(&patients[at..=at], label) > 0)
        {
            let neediest = (0..n_folds)
                .min_by_key(|&fold| (count(&folds[fold], label), count(&folds[fold], n_labels)))
                .unwrap();
            folds[neediest].push(patients.remove(next));
        }
    }
    folds
}

/// 300 images of 90 patients, one to nine each, with three labels of different frequency.
fn uneven() -> (Index, OfficialLists) {
    let labels = ["Rare", "Usual", "Frequent"].map(str::to_owned).to_vec();
    let mut records = Vec::new();
    let mut patient: usize = 0;
    while records.len() < 300 {
        for image in 0..1 + patient * patient % 9 {
            let name = ImageName::new(&format!("{patient:08}_{image:03}.png")).unwrap();
            let mixed = (patient * 7919 + image * 104_729) % 1009;
            let state = |positive: bool| match positive {
                true => LabelState::Positive,
                false => LabelState::Negative,
            };
            let states = [mixed < 30, mixed.is_multiple_of(5), mixed.is_multiple_of(2)].map(state);
            records.push(Record {
                patient: Some(PatientId::from_chest_x_ray14(&name).unwrap()),
                ..Record::new(name, states)
            });
        }
        patient += 1;
    }
    let names: Vec<ImageName> = records.iter().map(|record| record.name.clone()).collect();
    let n_test = names.len() - 20;
    let lists = OfficialLists::new(names[..n_test].to_vec(), names[n_test..].to_vec()).unwrap();
    let label_set = LabelSet::new(labels).unwrap();
    (Index::new(label_set, records).unwrap(), lists)
}

#[test]
fn the_validation_patients_are_dealt_by_iterative_stratification() {
    for (index, lists) in [data_set(), uneven()] {
        for (rule, fold, of, seed) in [
            (ValidationSplit::Patient, 0, 10, 7),
            (ValidationSplit::Patient, 0, 10, 8),
            (ValidationSplit::PatientFold { fold: 3, of: 4 }, 3, 4, 7),
        ] {
            let split = Split::new(&index, &lists, rule, seed).unwrap();
            let patients = |part: Part| -> HashSet<&str> {
                let names = split.part(part).iter();
                names.map(|name| &name.as_str()[..8]).collect()
            };
            let folds = stratified(&index, lists.train_val(), seed, of);
            let expected: HashSet<&str> = folds[fold].iter().map(String::as_str).collect();
            assert_eq!(patients(Part::Validation), expected);
            assert!(patients(Part::Train).is_disjoint(&expected));
            assert_eq!(
                split.train().len() + split.validation().len(),
                lists.train_val().len()
            );
        }
    }
}

#[test]
fn every_fold_has_its_share_of_images_and_labels() {
    let (index, lists) = uneven();
    for of in [3, 5, 10] {
        for fold in 0..of {
            let rule = ValidationSplit::PatientFold { fold, of };
            let report = Split::new(&index, &lists, rule, 1).unwrap().report(&index);
            let report = report.unwrap();
            let [train, validation, _] = report.parts.as_slice() else {
                panic!()
            };
            let shares = |validation: usize, train: usize| {
                let share = (validation + train) as f64 / of as f64;
                (validation as f64 - share).abs()
            };
            // Patients are not cut: nine images is the most that one has.
            assert!(
                shares(validation.n_images, train.n_images) <= 9.0,
                "{report}"
            );
            let counts = validation.label_counts.iter().zip(&train.label_counts);
            for (validation, train) in counts {
                assert!(
                    shares(validation.positive, train.positive) <= 3.0,
                    "{report}"
                );
            }
        }
    }
}

#[test]
fn the_official_split_validates_nothing() {
    let (index, lists) = data_set();
    let split = Split::new(&index, &lists, ValidationSplit::Official, 7).unwrap();
    assert_eq!(split.train(), lists.train_val());
    assert_eq!(split.validation(), []);
    assert_eq!(split.test(), lists.test());
    let report = split.report(&index).unwrap();
    assert_eq!(report.rule, "official");
    assert_eq!(report.shared_patients[1].n_patients, 0);
}

#[test]
fn a_data_set_without_lists_gets_its_own() {
    let (index, _) = uneven();
    let lists = OfficialLists::hold_out(&index, 3, 5).unwrap();
    let patients = |names: &[ImageName]| -> HashSet<String> {
        names
            .iter()
            .map(|name| name.as_str()[..8].to_owned())
            .collect()
    };
    assert!(patients(lists.train_val()).is_disjoint(&patients(lists.test())));
    assert_eq!(
        lists.train_val().len() + lists.test().len(),
        index.records().len()
    );
    assert!(lists.test().len().abs_diff(index.records().len() / 5) <= 9);

    let folder = tempfile::tempdir().unwrap();
    let [train_val, test] = ["a.txt", "b.txt"].map(|name| folder.path().join(name));
    lists.write(&train_val, &test).unwrap();
    assert_eq!(OfficialLists::read(&train_val, &test).unwrap(), lists);

    // Without patients a fifth of the images, and a test that depends on the seed.
    let anonymous: Vec<Record> = (index.records().iter())
        .map(|record| Record {
            patient: None,
            ..record.clone()
        })
        .collect();
    let mut half_known = anonymous.clone();
    half_known[0].patient = index.records()[0].patient.clone();
    let index_of = |records| Index::new(index.label_set().clone(), records).unwrap();
    let anonymous = index_of(anonymous);
    let lists = |seed| OfficialLists::hold_out(&anonymous, seed, 5).unwrap();
    assert_eq!(lists(1).test().len(), anonymous.records().len() / 5);
    assert_ne!(lists(1).test(), lists(2).test());
    for (index, of) in [
        (&anonymous, 1),
        (&anonymous, 0),
        (&anonymous, 1000),
        (&index_of(half_known), 5),
    ] {
        assert!(
            OfficialLists::hold_out(index, 1, of).is_err(),
            "one in {of}"
        );
    }
}

#[test]
fn parts_keep_the_order_of_the_lists_and_follow_the_seed() {
    let (index, lists) = data_set();
    let split = |seed| Split::new(&index, &lists, ValidationSplit::Paper, seed).unwrap();
    let order = |names: &[ImageName]| -> Vec<String> {
        names
            .iter()
            .map(|name| name.as_str()[9..].to_owned())
            .collect()
    };
    for part in Part::ALL {
        assert!(order(split(1).part(part)).is_sorted());
    }
    assert_eq!(split(1), split(1));
    assert_ne!(split(1).validation(), split(2).validation());
}

#[test]
fn absent_images_are_counted_and_the_others_keep_their_part() {
    let (index, lists) = data_set();
    let whole = Split::new(&index, &lists, ValidationSplit::Paper, 7).unwrap();
    let is_present = |name: &ImageName| name.as_str().ends_with("5.png");
    let kept = whole.keep_present(is_present);
    for part in Part::ALL {
        let expected: Vec<_> = whole
            .part(part)
            .iter()
            .filter(|name| is_present(name))
            .cloned()
            .collect();
        assert_eq!(kept.part(part), expected);
        assert_eq!(kept.n_absent(part), whole.part(part).len() - expected.len());
    }
    let report = kept.report(&index).unwrap();
    assert_eq!(report.n_images_in_no_part, 180);
    assert!(report.to_string().contains("absent"));
}

/// A chosen subset was once counted as absent, and a report said that its images were missing.
#[test]
fn images_that_are_not_wanted_are_not_absent() {
    let (index, lists) = data_set();
    let whole = Split::new(&index, &lists, ValidationSplit::Paper, 7).unwrap();
    let kept = whole.keep(|name| name.as_str().ends_with("5.png"));
    let both = kept.keep_present(|name| name.as_str() < "00000040");
    for part in Part::ALL {
        let n_excluded = whole.part(part).len() - kept.part(part).len();
        assert_eq!(
            (kept.n_absent(part), kept.n_excluded(part)),
            (0, n_excluded)
        );
        let n_absent = kept.part(part).len() - both.part(part).len();
        assert_eq!(
            (both.n_absent(part), both.n_excluded(part)),
            (n_absent, n_excluded)
        );
    }
    let excluded: Vec<usize> = (both.report(&index).unwrap().parts.iter())
        .map(|part| part.n_excluded)
        .collect();
    assert_eq!(excluded, Part::ALL.map(|part| kept.n_excluded(part)));
}

#[test]
fn a_subset_is_taken_after_the_split_and_counted() {
    let (index, lists) = data_set();
    let records = index
        .records()
        .iter()
        .enumerate()
        .map(|(number, record)| Record {
            view: Some(if number.is_multiple_of(3) {
                ViewPosition::AnteroPosterior
            } else {
                ViewPosition::PosteroAnterior
            }),
            age_years: Some(number as u16 % 90),
            sex: Some(Sex::Female),
            ..record.clone()
        });
    let index = Index::new(index.label_set().clone(), records.collect()).unwrap();
    let whole = Split::new(&index, &lists, ValidationSplit::Paper, 7).unwrap();
    let subset = Subset {
        view: Some(ViewPosition::PosteroAnterior),
        min_age: Some(18),
        max_age: Some(80),
        sex: Some(Sex::Female),
        finding: Some("Mass".to_owned()),
    };
    let selected = whole.select(&index, &subset).unwrap();
    for part in Part::ALL {
        let expected: Vec<_> = whole
            .part(part)
            .iter()
            .filter(|name| {
                let number: usize = name.as_str()[9..12].parse().unwrap();
                !number.is_multiple_of(3)
                    && (18..=80).contains(&(number % 90))
                    && number.is_multiple_of(7)
            })
            .cloned()
            .collect();
        assert_eq!(selected.part(part), expected);
        assert_eq!(
            selected.n_excluded(part),
            whole.part(part).len() - expected.len()
        );
        assert_eq!(selected.n_absent(part), 0);
    }
    assert_eq!(whole.select(&index, &Subset::default()).unwrap(), whole);

    let unknown_finding = Subset {
        finding: Some("Covid".to_owned()),
        ..Subset::default()
    };
    let error = whole.select(&index, &unknown_finding).unwrap_err();
    assert!(error.to_string().contains("`Covid`"), "{error}");
    let (nothing_known, _) = data_set();
    let error = whole.select(&nothing_known, &subset).unwrap_err();
    assert!(error.to_string().contains("view position"), "{error}");
}

#[test]
fn folds_share_no_patient_and_cover_every_image_once() {
    let (index, lists) = data_set();
    for of in [2, 5, 7] {
        let mut validated = HashSet::new();
        for fold in 0..of {
            let rule = ValidationSplit::PatientFold { fold, of };
            let split = Split::new(&index, &lists, rule, 7).unwrap();
            let report = split.report(&index).unwrap();
            assert_eq!(report.shared_patients[0].n_patients, 0);
            assert!(report.parts[1].n_images.abs_diff(160 / of) <= 3, "{report}");
            assert_eq!(split.test().len(), 40);
            for name in split.validation() {
                assert!(validated.insert(name.clone()), "{name} is in two folds");
            }
        }
        assert_eq!(validated.len(), 160);
    }
    let split = |rule| Split::new(&index, &lists, rule, 7);
    let tenth = split(ValidationSplit::PatientFold { fold: 0, of: 10 }).unwrap();
    assert_eq!(
        tenth.validation(),
        split(ValidationSplit::Patient).unwrap().validation()
    );
    for (fold, of) in [(0, 0), (0, 1), (5, 5), (0, 61)] {
        assert!(
            split(ValidationSplit::PatientFold { fold, of }).is_err(),
            "fold {fold} of {of}"
        );
    }
}

#[test]
fn the_report_counts_patients_on_both_sides() {
    let (index, lists) = data_set();
    let split = Split::new(&index, &lists, ValidationSplit::Paper, 7).unwrap();
    let report = split.report(&index).unwrap();
    let patient = |name: &ImageName| name.as_str()[..8].to_owned();
    let train: HashSet<_> = split.train().iter().map(patient).collect();
    let shared: Vec<_> = split
        .validation()
        .iter()
        .map(patient)
        .filter(|patient| train.contains(patient))
        .collect();
    let found = &report.shared_patients[0];
    assert_eq!(found.between, (Part::Train, Part::Validation));
    assert_eq!(found.n_images_of_second, shared.len());
    assert_eq!(
        found.n_patients,
        shared.into_iter().collect::<HashSet<_>>().len()
    );
    assert_eq!(
        report.shared_patients[1].n_patients + report.shared_patients[2].n_patients,
        0
    );
}

#[test]
fn a_split_survives_its_file() {
    let (index, lists) = data_set();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.csv");
    let split = Split::new(&index, &lists, ValidationSplit::Patient, u64::MAX).unwrap();
    let split = split.keep(|name| !name.as_str().ends_with("9.png"));
    let split = split.keep_present(|name| !name.as_str().ends_with("8.png"));
    split.write(&path).unwrap();
    assert_eq!(Split::read(&path).unwrap(), split);

    let text = std::fs::read_to_string(&path).unwrap();
    let first = split.train()[0].as_str();
    for (from, to) in [
        ("# cxr split 1", "# cxr split 2"),
        ("# rule patient", "# rule luck"),
        ("# seed 18446744073709551615", "# seed -1"),
        ("Image Index,Part", "Image,Part"),
        (",validation", ",dev"),
        (first, "../x.png"),
    ] {
        assert!(text.contains(from));
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        assert!(Split::read(&path).is_err(), "`{to}` was accepted");
    }
    std::fs::write(&path, format!("{text}{first},test\n")).unwrap();
    assert!(
        Split::read(&path).is_err(),
        "an image in two parts was accepted"
    );
}

#[test]
fn lists_and_index_of_different_data_sets_are_refused() {
    let (index, lists) = data_set();
    let strange = vec![ImageName::new("strange.png").unwrap()];
    let other = OfficialLists::new(lists.train_val().to_vec(), strange).unwrap();
    let error = Split::new(&index, &other, ValidationSplit::Paper, 0).unwrap_err();
    assert!(error.to_string().contains("`strange.png`"), "{error}");

    let anonymous: Vec<Record> = index
        .records()
        .iter()
        .map(|record| Record {
            patient: None,
            ..record.clone()
        })
        .collect();
    let anonymous = Index::new(index.label_set().clone(), anonymous).unwrap();
    assert!(Split::new(&anonymous, &lists, ValidationSplit::Paper, 0).is_ok());
    let error = Split::new(&anonymous, &lists, ValidationSplit::Patient, 0).unwrap_err();
    assert!(error.to_string().contains("`patient` column"), "{error}");
}

#[test]
fn rules_are_read_as_they_are_written() {
    for rule in [
        ValidationSplit::Official,
        ValidationSplit::Paper,
        ValidationSplit::Patient,
        ValidationSplit::PatientFold { fold: 3, of: 5 },
        ValidationSplit::Lists,
    ] {
        let text = rule.to_string();
        assert_eq!(text.parse::<ValidationSplit>().unwrap(), rule);
        let hyphens = text.replace(' ', "-");
        assert_eq!(hyphens.parse::<ValidationSplit>().unwrap(), rule);
    }
    for bad in [
        "",
        "Paper",
        "patient-fold",
        "patient-fold-1",
        "patient-fold-x-of-3",
    ] {
        let error = bad.parse::<ValidationSplit>().unwrap_err();
        assert!(error.to_string().contains("patient-fold-0-of-5"), "{error}");
    }
    let subset = Subset {
        view: Some(ViewPosition::PosteroAnterior),
        min_age: Some(18),
        ..Subset::default()
    };
    assert_eq!(subset.to_string(), "view PA, at least 18 years");
    assert_eq!(Subset::default().to_string(), "all images");
}

#[test]
fn three_lists_are_a_split() {
    let (index, lists) = data_set();
    let (train, validation) = lists.train_val().split_at(100);
    let test = lists.test();
    let split = |train: &[ImageName], validation: &[ImageName], test: &[ImageName]| {
        Split::from_lists(&index, train.to_vec(), validation.to_vec(), test.to_vec())
    };
    let found = split(train, validation, test).unwrap();
    assert_eq!(
        (found.train(), found.validation(), found.test()),
        (train, validation, test)
    );
    let report = found.report(&index).unwrap();
    assert_eq!(report.rule, "lists");
    // Patients 40 to 59 have images in the first hundred and behind them.
    assert!(report.shared_patients[0].n_patients > 0);
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("split.csv");
    found.write(&path).unwrap();
    assert_eq!(Split::read(&path).unwrap(), found);

    let error = |train: &[ImageName], validation: &[ImageName]| {
        split(train, validation, test).unwrap_err().to_string()
    };
    assert!(error(train, &train[..1]).contains("is listed twice"));
    assert!(error(&[&train[..1], &train[..1]].concat(), validation).contains("is listed twice"));
    let stranger = ImageName::new("stranger.png").unwrap();
    assert!(error(train, &[stranger]).contains("`stranger.png` is not in the index"));
    // The rule alone does not say which images are meant.
    let error = Split::new(&index, &lists, ValidationSplit::Lists, 0).unwrap_err();
    assert!(error.to_string().contains("from_lists"), "{error}");
}
