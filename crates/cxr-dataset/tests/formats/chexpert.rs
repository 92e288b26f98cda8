//! CheXpert's table.

use cxr_dataset::{Part, ViewPosition};

use super::{Folder, counts, n_of_view, read, sizes, warns};

pub(crate) const CHEXPERT: &str = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices";

pub(crate) fn chexpert_rows(root: &str, part: &str) -> String {
    format!(
        "{root}/{part}/patient00007/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n\
         {root}/{part}/patient00007/study1/view2_lateral.jpg,Female,68,Lateral,,1.0,,,,,,,,,0.0,,,,1.0\n\
         {root}/{part}/patient00007/study2/view1_frontal.jpg,Female,68,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,\n\
         {root}/{part}/patient00009/study1/view1_frontal.jpg,Unknown,0,Frontal,LL,,,,,,,,,,,,,,\n"
    )
}

#[test]
fn chexpert_s_studies_views_and_blanks_are_kept_apart() {
    let table = format!(
        "{CHEXPERT}\n{}",
        chexpert_rows("CheXpert-v1.0-small", "train")
    );
    let index = read(&table).unwrap();
    assert_eq!(index.release().name(), "chexpert");
    assert_eq!(sizes(&index), (4, 2, 3));
    assert_eq!(counts(&index, "No Finding"), [2, 0, 0, 2]);
    assert_eq!(counts(&index, "Cardiomegaly"), [0, 0, 1, 3]);
    assert_eq!(counts(&index, "Pneumothorax"), [0, 2, 0, 2]);
    for (view, count) in [
        (ViewPosition::AnteroPosterior, 1),
        (ViewPosition::PosteroAnterior, 1),
        (ViewPosition::Lateral, 1),
        (ViewPosition::Other, 1),
    ] {
        assert_eq!(n_of_view(&index, view), count, "{view}");
    }
    let last = &index.records()[3];
    assert_eq!((last.age_years, last.sex), (None, None));
    assert_eq!(last.view_code.as_deref(), Some("LL"));
    assert_eq!(index.official(Part::Train).len(), 4);
    for (fragment, count) in [
        ("age 0", 1),
        ("lateral direction", 1),
        ("no label is mentioned", 1),
    ] {
        assert_eq!(warns(&index, fragment), count, "{fragment}");
    }
    assert_eq!(index.n_without_finding(), 2);

    // Other orders of columns, other line ends, the full data set's root, and the same numbers.
    let reordered: String = table
        .lines()
        .map(|line| {
            let mut cells: Vec<&str> = line.split(',').collect();
            cells.reverse();
            format!("{}\r\n", cells.join(","))
        })
        .collect();
    let other = read(&format!("\u{feff}{}", reordered.replace("-small", ""))).unwrap();
    assert_eq!(sizes(&other), sizes(&index));
    assert_eq!(counts(&other, "Cardiomegaly"), [0, 0, 1, 3]);
}

#[test]
fn chexpert_s_parts_are_one_data_set_in_a_folder() {
    let train = format!("{CHEXPERT}\n{}", chexpert_rows("CheXpert-v1.0", "train"));
    let valid = format!(
        "{CHEXPERT}\nCheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n"
    );
    // As CheXlocalize has it: no sex, age or view.
    let test = "Path,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema\n\
                test/patient64741/study1/view1_frontal.jpg,1.0,0.0,0.0,0.0,1.0\n\
                test/patient64741/study1/view2_lateral.jpg,1.0,0.0,0.0,0.0,1.0\n";
    let folder = Folder::of(&[
        ("train.csv", &train),
        ("valid.csv", &valid),
        ("test.csv", test),
    ]);
    let index = folder.read("").unwrap();
    assert_eq!(sizes(&index), (7, 4, 5));
    assert_eq!(index.tables().len(), 3);
    let parts = Part::ALL.map(|part| index.official(part).len());
    assert_eq!(parts, [4, 1, 2]);
    // A label that a table does not have is unknown there.
    assert_eq!(counts(&index, "Pneumothorax"), [0, 3, 0, 4]);
    assert_eq!(n_of_view(&index, ViewPosition::Frontal), 1);
    assert_eq!(n_of_view(&index, ViewPosition::Lateral), 2);
    // One of them alone is read alone.
    assert_eq!(sizes(&folder.read("valid.csv").unwrap()), (1, 1, 1));
}

/// The full data set comes with labels of other labelers for the same images.
#[test]
fn labels_of_chexbert_are_taken_when_they_are_named() {
    let train = format!("{CHEXPERT}\n{}", chexpert_rows("CheXpert-v1.0", "train"));
    // As VisualCheXbert's: no blanks, `No Finding` last.
    let names: Vec<&str> = CHEXPERT.split(',').collect();
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.remove(5);
    order.push(5);
    let other: String = train
        .lines()
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            let cells = order.iter().map(|&at| match (at >= 5, cells[at]) {
                (true, "" | "-1.0") => "1.0",
                (_, cell) => cell,
            });
            cells.collect::<Vec<_>>().join(",") + "\n"
        })
        .collect();
    let folder = Folder::of(&[
        ("train.csv", &train),
        ("train_cheXbert.csv", &train.replace("-1.0", "0.0")),
        ("train_visualCheXbert.csv", &other),
    ]);
    let index = folder.read("").unwrap();
    assert_eq!(sizes(&index), (4, 2, 3));
    assert_eq!(counts(&index, "Cardiomegaly"), [0, 0, 1, 3]);
    assert_eq!(warns(&index, "train_cheXbert.csv` has other labels"), 1);
    assert_eq!(
        warns(&index, "train_visualCheXbert.csv` has other labels"),
        1
    );
    assert_eq!(index.tables().len(), 1);
    let bert = folder.read("train_cheXbert.csv").unwrap();
    assert_eq!(counts(&bert, "Cardiomegaly"), [0, 1, 0, 3]);
    let visual = folder.read("train_visualCheXbert.csv").unwrap();
    assert_eq!(counts(&visual, "Cardiomegaly"), [4, 0, 0, 0]);
}
