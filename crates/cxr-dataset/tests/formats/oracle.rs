//! Real tables against counts by pandas.

use cxr_dataset::{BlankPolicy, Blanks, Index, Part, ViewPosition};

use super::{common, counts, n_of_view, sizes, warns};

/// Counted by pandas from the real tables: positive, negative, uncertain, blank.
#[test]
fn real_tables_have_the_counts_of_the_oracle() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let formats = data.join("formats");
    let chexpert = Index::read(formats.join("chexpert_train.csv.gz")).unwrap();
    assert_eq!(sizes(&chexpert), (223_414, 64_540, 187_641));
    for (label, expected) in [
        ("No Finding", [22_381, 0, 0, 201_033]),
        (
            "Enlarged Cardiomediastinum",
            [10_798, 21_638, 12_403, 178_575],
        ),
        ("Cardiomegaly", [27_000, 11_116, 8_087, 177_211]),
        ("Lung Opacity", [105_581, 6_599, 5_598, 105_636]),
        ("Lung Lesion", [9_186, 1_270, 1_488, 211_470]),
        ("Edema", [52_246, 20_726, 12_984, 137_458]),
        ("Consolidation", [14_783, 28_097, 27_742, 152_792]),
        ("Pneumonia", [6_039, 2_799, 18_770, 195_806]),
        ("Atelectasis", [33_376, 1_328, 33_739, 154_971]),
        ("Pneumothorax", [19_448, 56_341, 3_145, 144_480]),
        ("Pleural Effusion", [86_187, 35_396, 11_628, 90_203]),
        ("Pleural Other", [3_523, 316, 2_653, 216_922]),
        ("Fracture", [9_040, 2_512, 642, 211_220]),
        ("Support Devices", [116_001, 6_137, 1_079, 100_197]),
    ] {
        assert_eq!(counts(&chexpert, label), expected, "{label}");
    }
    for (view, count) in [
        (ViewPosition::AnteroPosterior, 161_590),
        (ViewPosition::PosteroAnterior, 29_420),
        (ViewPosition::Lateral, 32_387),
        (ViewPosition::Other, 17),
    ] {
        assert_eq!(n_of_view(&chexpert, view), count, "{view}");
    }
    for (fragment, count) in [
        ("age 0", 3),
        ("no label is mentioned", 12),
        ("labels differ from those of another image", 0),
        ("both `No Finding` and a finding", 0),
        ("file name and `Frontal/Lateral` differ", 0),
    ] {
        assert_eq!(warns(&chexpert, fragment), count, "{fragment}");
    }
    // Cells that pandas keeps where a blank is 0 and −1 is left out.
    let blanks = Blanks {
        default: BlankPolicy::Negative,
        ..Blanks::default()
    };
    let chexpert = chexpert.with_blanks(&blanks).unwrap();
    for (label, kept) in [
        ("No Finding", 223_414),
        ("Enlarged Cardiomediastinum", 211_011),
        ("Edema", 210_430),
        ("Consolidation", 195_672),
        ("Atelectasis", 189_675),
        ("Support Devices", 222_335),
    ] {
        let [positive, negative, uncertain, unknown] = counts(&chexpert, label);
        assert_eq!((positive + negative, unknown), (kept, 0), "{label}");
        assert_eq!(uncertain, 223_414 - kept, "{label}");
    }

    let google = formats.join("google-nih");
    let four = Index::read(formats.join("google2019_nih-chest-xray-labels.csv.gz")).unwrap();
    assert_eq!((four.records().len(), four.n_patients()), (4_376, 1_695));
    assert_eq!(
        Part::ALL.map(|part| four.official(part).len()),
        [0, 2_414, 1_962]
    );
    for (label, yes) in [
        ("Fracture", 186),
        ("Pneumothorax", 238),
        ("Airspace opacity", 2_166),
        ("Nodule or mass", 605),
    ] {
        assert_eq!(counts(&four, label), [yes, 4_376 - yes, 0, 0], "{label}");
    }
    for (file, images, patients, ap, yes) in [
        (
            "four_findings_expert_labels_test_labels.csv",
            1_962,
            860,
            1_126,
            [72, 195, 1_135, 295],
        ),
        (
            "four_findings_expert_labels_validation_labels.csv",
            2_414,
            835,
            2_118,
            [114, 43, 1_031, 310],
        ),
    ] {
        let index = Index::read(google.join(file)).unwrap();
        assert_eq!(
            (index.records().len(), index.n_patients()),
            (images, patients)
        );
        assert_eq!(n_of_view(&index, ViewPosition::AnteroPosterior), ap);
        let found: Vec<usize> = index
            .label_counts()
            .iter()
            .map(|count| count.positive)
            .collect();
        assert_eq!(found, yes, "{file}");
    }
    let all = Index::read(google.join("all_findings_expert_labels_test_labels.csv")).unwrap();
    assert_eq!((all.records().len(), all.n_patients()), (810, 532));
    for (label, yes) in [
        ("Abnormal", 578),
        ("Atelectasis", 303),
        ("Cardiomegaly", 81),
        ("Effusion", 226),
        ("Infiltration", 61),
        ("Mass", 99),
        ("Nodule", 130),
        ("Pneumonia", 2),
        ("Pneumothorax", 136),
        ("Consolidation", 83),
        ("Edema", 23),
        ("Emphysema", 7),
        ("Fibrosis", 13),
        ("Pleural Thickening", 49),
        ("Hernia", 5),
        ("Other", 58),
    ] {
        assert_eq!(counts(&all, label), [yes, 810 - yes, 0, 0], "{label}");
    }
    let readers =
        Index::read(google.join("four_findings_expert_labels_individual_readers.csv")).unwrap();
    assert_eq!(
        (readers.records().len(), readers.n_patients()),
        (4_376, 1_695)
    );
    let readers =
        Index::read(google.join("all_findings_expert_labels_test_individual_readers.csv")).unwrap();
    assert_eq!(readers.records().len(), 810);
}
