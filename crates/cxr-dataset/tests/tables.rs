//! Tables, lists and boxes: real ones with their published counts, and broken ones.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::path::{Path, PathBuf};

use cxr_dataset::{
    DatasetError, ImageName, Index, LabelCount, LabelSet, LabelState, OfficialLists, Release, Sex,
    Split, ValidationSplit, ViewPosition, read_boxes,
};

mod common;

const V2020_HEADER: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn read(text: &str) -> Result<Index, DatasetError> {
    Index::read(Folder::new().write("table.csv", text))
}

fn name(text: &str) -> ImageName {
    ImageName::new(text).unwrap()
}

#[test]
fn the_v2020_form_is_read_whole() {
    let index = read(&format!(
        "{V2020_HEADER}\n00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143\n00000001_001.png,No Finding,1,1,58,F,AP,2894,2729,0.143,0.15\n"
    ))
    .unwrap();
    assert_eq!(index.release(), Release::CHEST_X_RAY14_V2020);
    assert_eq!(
        (
            index.records().len(),
            index.n_patients(),
            index.n_without_finding()
        ),
        (2, 1, 1)
    );
    let record = index.get(&name("00000001_000.png")).unwrap();
    assert_eq!(record.labels[1], LabelState::Positive);
    assert_eq!(
        record
            .labels
            .iter()
            .filter(|state| **state == LabelState::Positive)
            .count(),
        1
    );
    assert_eq!(
        (record.age_years, record.sex, record.view),
        (
            Some(57),
            Some(Sex::Male),
            Some(ViewPosition::PosteroAnterior)
        )
    );
    assert_eq!(
        (record.original_size, record.original_spacing_mm),
        (Some((2682, 2749)), Some((0.143, 0.143)))
    );
    assert_eq!(index.records()[1].follow_up, Some(1));
}

#[test]
fn the_first_release_is_told_apart() {
    let row = |age: &str| {
        format!(
            "{V2020_HEADER},\n00000001_000.png,Hernia|Mass,0,1,{age},M,PA,2682,2749,0.143,0.143,\n"
        )
    };
    for (age, years) in [("058Y", 58), ("013M", 1), ("003D", 0), ("58", 58)] {
        let index = read(&row(age)).unwrap();
        assert_eq!(index.release(), Release::CHEST_X_RAY14_FIRST);
        assert_eq!(index.records()[0].age_years, Some(years));
    }
    // The form of v2020 with an age of the first release is a converted first release.
    let converted = row("058Y").replace(",\n", "\n");
    assert_eq!(
        read(&converted).unwrap().release(),
        Release::CHEST_X_RAY14_FIRST
    );
}

#[test]
fn a_users_table_knows_positive_negative_and_unknown() {
    let index = read("file,Patient_ID,age,View Position,Edema,Device\r\na.png,p1,61,lateral,1,0\r\nb.jpg,p1,,,-1.0,\r\n\"c,d.png\",p2,7,PA,0.0,1.0\r\n").unwrap();
    assert_eq!(index.release(), Release::OWN_TABLE);
    assert_eq!(index.label_set().names(), ["Edema", "Device"]);
    assert_eq!(index.n_patients(), 2);
    let count = |positive, negative, uncertain, unknown| LabelCount {
        positive,
        negative,
        uncertain,
        unknown,
        blank: unknown,
    };
    assert_eq!(index.label_counts(), [count(1, 1, 1, 0), count(1, 1, 0, 1)]);
    assert_eq!(index.co_occurrence(), [[1, 0], [0, 1]]);
    let names: Vec<ImageName> = ["c,d.png", "b.jpg", "a.png"].map(name).into();
    assert_eq!(index.patient_clusters(&names), Some(vec![0, 1, 1]));
    assert_eq!(index.patient_clusters(&[name("z.png")]), None);
    let record = index.get(&name("c,d.png")).unwrap();
    assert_eq!(
        record.labels.as_ref(),
        [LabelState::Negative, LabelState::Positive]
    );
    assert_eq!(
        (record.age_years, record.view),
        (Some(7), Some(ViewPosition::PosteroAnterior))
    );
    assert_eq!(index.records()[1].age_years, None);
}

#[test]
fn bad_tables_say_where_and_what() {
    let nih = |row: &str| {
        format!("{V2020_HEADER}\n00000001_000.png,Mass,0,1,57,M,PA,1,1,0.1,0.1\n{row}\n")
    };
    let cases = [
        (String::new(), 0, "empty file"),
        ("a,b\n".to_owned(), 0, "expected rows"),
        ("a\nx.png\n".to_owned(), 0, "at least one label column"),
        ("a,b,b\nx.png,1,1\n".to_owned(), 0, "named twice"),
        (
            "a,patient,Patient ID,b\nx.png,1,1,1\n".to_owned(),
            0,
            "say the same",
        ),
        (
            "a,b\nx.png,2\n".to_owned(),
            2,
            "expected 1, 0, −1 or nothing in `b`, got `2`",
        ),
        (
            "a,b\nx.png,0\ny.png,1,1\n".to_owned(),
            3,
            "expected 2 cells, got 3",
        ),
        (
            "a,b\nx.png,0\ny.png,1\nx.png,1\n".to_owned(),
            4,
            "listed twice",
        ),
        ("a,b\n../x.png,0\n".to_owned(), 2, "climbs out"),
        ("a,b\n/etc/x.png,0\n".to_owned(), 2, "begins at a root"),
        ("a,b\nC:\\x.png,0\n".to_owned(), 2, "separate folders by"),
        ("a,b\r\nx.png,1\r\ny.png,2\r\n".to_owned(), 3, "got `2`"),
        (
            "a,note,b\nx.png,\"1\n\",1\ny.png,1,7\n".to_owned(),
            4,
            "got `7`",
        ),
        (
            "a,patient,b\nx.png,,0\n".to_owned(),
            2,
            "expected a patient",
        ),
        (
            nih("00000001_000.png,Mass,0,1,57,M,PA,1,1,0.1,0.1"),
            3,
            "listed twice",
        ),
        (
            nih("00000002_000.png,Mass|Covid,0,2,57,M,PA,1,1,0.1,0.1"),
            3,
            "`Covid` is none of the fourteen",
        ),
        (
            nih("00000002_000.png,Mass|Mass,0,2,57,M,PA,1,1,0.1,0.1"),
            3,
            "named twice",
        ),
        (
            nih("00000002_000.png,No Finding|Mass,0,2,57,M,PA,1,1,0.1,0.1"),
            3,
            "`No Finding` is none",
        ),
        (
            nih("00000002_000.png,,0,2,57,M,PA,1,1,0.1,0.1"),
            3,
            "none of the fourteen",
        ),
        (
            nih("00000002_000.png,Mass,0,3,57,M,PA,1,1,0.1,0.1"),
            3,
            "expected the patient",
        ),
        (
            nih("chest.png,Mass,0,3,57,M,PA,1,1,0.1,0.1"),
            3,
            "eight digits",
        ),
        (
            nih("00000002_000.png,Mass,0,2,old,M,PA,1,1,0.1,0.1"),
            3,
            "in `Patient Age`, got `old`",
        ),
        (
            nih("00000002_000.png,Mass,0,2,57,X,PA,1,1,0.1,0.1"),
            3,
            "in `Patient Gender`",
        ),
        (
            nih("00000002_000.png,Mass,0,2,57,M,PA,1,1,NaN,0.1"),
            3,
            "millimetres",
        ),
        (
            nih("00000002_000.png,Mass,0,2,57,M,PA"),
            3,
            "expected 11 cells, got 7",
        ),
        (
            nih("").replace("View Position,", ""),
            0,
            "the column `View Position` is missing",
        ),
    ];
    for (text, line, fragment) in cases {
        let error = read(&text).expect_err(fragment);
        let message = error.to_string();
        assert!(
            message.contains("table.csv") && message.contains(fragment),
            "{message} lacks `{fragment}`"
        );
        let at = match error {
            DatasetError::Line { line, .. } => line,
            DatasetError::Table { .. } => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!(at, line, "{message}");
    }
}

#[test]
fn bytes_that_are_no_text_are_an_error() {
    let folder = Folder::new();
    let path = folder.0.path().join("table.csv");
    std::fs::write(&path, b"a,b\nx.png,1\n\xff\xfe,1\n").unwrap();
    assert!(matches!(
        Index::read(&path),
        Err(DatasetError::Line { line: 3, .. })
    ));
    assert!(matches!(
        Index::read(folder.0.path().join("absent.csv")),
        Err(DatasetError::Io { .. })
    ));
}

#[test]
fn the_fingerprint_follows_labels_and_not_the_order_of_rows() {
    let fingerprint = |text: &str| read(text).unwrap().fingerprint();
    let first = fingerprint("a,b\nx.png,1\ny.png,0\n");
    assert_eq!(first, fingerprint("a,b\ny.png,0\nx.png,1\n"));
    assert_ne!(first, fingerprint("a,b\nx.png,1\ny.png,\n"));
    assert_ne!(first, fingerprint("a,c\nx.png,1\ny.png,0\n"));
    assert_eq!(first.to_string().parse(), Ok(first));
    // Runs that were begun before −1 had a meaning of its own go on.
    let (uncertain, unknown) = ("a,b\nx.png,1\ny.png,-1\n", "a,b\nx.png,1\ny.png,\n");
    assert_eq!(fingerprint(uncertain), fingerprint(unknown));
    let whole = |text: &str| read(text).unwrap().fingerprint_with_uncertain();
    assert_ne!(whole(uncertain), whole(unknown));
}

#[test]
fn lists_are_read_and_overlaps_refused() {
    let folder = Folder::new();
    let train = folder.write("train.txt", "a.png\r\nb.png\r\n\r\n");
    let test = folder.write("test.txt", "c.png");
    let lists = OfficialLists::read(&train, &test).unwrap();
    assert_eq!(
        (lists.train_val().len(), lists.test()),
        (2, [name("c.png")].as_slice())
    );
    for (bad, line) in [
        ("c.png\nc.png", 2),
        ("c.png\nb.png", 2),
        ("c.png\n../d.png", 2),
    ] {
        let test = folder.write("bad.txt", bad);
        let error = OfficialLists::read(&train, &test).unwrap_err();
        assert!(
            matches!(error, DatasetError::Line { line: at, .. } if at == line),
            "{error}"
        );
    }
    let empty = folder.write("empty.txt", "\n");
    assert!(matches!(
        OfficialLists::read(&train, &empty),
        Err(DatasetError::Table { .. })
    ));
}

#[test]
fn boxes_are_read_under_the_name_of_their_finding() {
    let folder = Folder::new();
    let header = "Image Index,Finding Label,Bbox [x,y,w,h],,,";
    let path = folder.write(
        "boxes.csv",
        &format!("{header}\na.png,Infiltrate,225.5,547,86.75,79,,,\n"),
    );
    let boxes = read_boxes(&path).unwrap();
    assert_eq!(
        (boxes[0].finding.as_str(), boxes[0].x, boxes[0].height),
        ("Infiltration", 225.5, 79.0)
    );
    for bad in [
        "a.png,Covid,1,1,1,1,,,",
        "a.png,Mass,1000,1,100,1,,,",
        "a.png,Mass,NaN,1,1,1,,,",
        "a.png,Mass,1,1,0,1,,,",
    ] {
        let path = folder.write("bad.csv", &format!("{header}\n{bad}\n"));
        assert!(
            matches!(read_boxes(&path), Err(DatasetError::Line { line: 2, .. })),
            "{bad}"
        );
    }
}

/// Images and patients of train_val and test, then each label's images: the published counts.
const PUBLISHED: [(&str, usize, usize); 14] = [
    ("Atelectasis", 8_280, 3_279),
    ("Cardiomegaly", 1_707, 1_069),
    ("Effusion", 8_659, 4_658),
    ("Infiltration", 13_782, 6_112),
    ("Mass", 4_034, 1_748),
    ("Nodule", 4_708, 1_623),
    ("Pneumonia", 876, 555),
    ("Pneumothorax", 2_637, 2_665),
    ("Consolidation", 2_852, 1_815),
    ("Edema", 1_378, 925),
    ("Emphysema", 1_423, 1_093),
    ("Fibrosis", 1_251, 435),
    ("Pleural_Thickening", 2_242, 1_143),
    ("Hernia", 141, 86),
];

fn real(data: &Path) -> (Index, OfficialLists) {
    let meta = data.join("nih-meta");
    let index = Index::read(meta.join("Data_Entry_2017_v2020.csv.gz")).unwrap();
    let lists = OfficialLists::read(meta.join("train_val_list.txt"), meta.join("test_list.txt"));
    (index, lists.unwrap())
}

#[test]
fn the_real_table_has_its_published_counts() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let (index, lists) = real(&data);
    assert_eq!(index.release(), Release::CHEST_X_RAY14_V2020);
    assert_eq!(
        (
            index.records().len(),
            index.n_patients(),
            index.n_without_finding()
        ),
        (112_120, 30_805, 60_361)
    );
    for rule in [ValidationSplit::Paper, ValidationSplit::Patient] {
        let report = Split::new(&index, &lists, rule, 0)
            .unwrap()
            .report(&index)
            .unwrap();
        let [train, validation, test] = report.parts.as_slice() else {
            panic!()
        };
        assert_eq!(
            (train.n_images + validation.n_images, test.n_images),
            (86_524, 25_596)
        );
        assert_eq!(
            (
                train.n_without_finding + validation.n_without_finding,
                test.n_without_finding
            ),
            (50_500, 9_861)
        );
        assert_eq!(test.n_patients, Some(2_797));
        assert_eq!(report.labels, LabelSet::chest_x_ray14().names());
        for (position, (label, in_train_val, in_test)) in PUBLISHED.into_iter().enumerate() {
            assert_eq!(report.labels[position], label);
            let positive = |part: &cxr_dataset::PartReport| part.label_counts[position].positive;
            assert_eq!(
                (positive(train) + positive(validation), positive(test)),
                (in_train_val, in_test),
                "{label}"
            );
        }
        let shared: Vec<usize> = report
            .shared_patients
            .iter()
            .map(|shared| shared.n_patients)
            .collect();
        assert_eq!(
            shared[1..],
            [0, 0],
            "patients of the test are in no other part"
        );
        println!("{report}");
        match rule {
            ValidationSplit::Paper => {
                assert_eq!((train.n_images, validation.n_images), (77_872, 8_652));
                assert!(
                    shared[0] > 3_000,
                    "a random tenth of the images shares most of its patients"
                );
            }
            _ => {
                assert_eq!(shared[0], 0);
                // Whole patients of up to 180 images, and yet a tenth of the images and of every
                // label, to the image or nearly so.
                assert!(validation.n_images.abs_diff(8_652) <= 1);
                let counts = validation.label_counts.iter().zip(&train.label_counts);
                for (label, (inside, outside)) in report.labels.iter().zip(counts) {
                    let tenth = (inside.positive + outside.positive) as f64 / 10.0;
                    let off = (inside.positive as f64 - tenth).abs();
                    println!("{label}: {} of a tenth of {tenth}", inside.positive);
                    assert!(off <= 1.0 + 0.01 * tenth, "{label}: {off} from {tenth}");
                }
            }
        }
    }
}

#[test]
fn folds_of_the_real_patients_resemble_each_other() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let (index, lists) = real(&data);
    let mut validated = 0;
    for fold in 0..5 {
        let rule = ValidationSplit::PatientFold { fold, of: 5 };
        let report = Split::new(&index, &lists, rule, 0).unwrap().report(&index);
        let report = report.unwrap();
        let validation = &report.parts[1];
        validated += validation.n_images;
        assert_eq!(report.shared_patients[0].n_patients, 0);
        let hernias = validation.label_counts[13].positive;
        assert!(
            hernias.abs_diff(141 / 5) <= 3,
            "fold {fold}: {hernias} hernias"
        );
    }
    assert_eq!(validated, 86_524);
}

#[test]
fn a_complete_first_release_is_known_by_its_labels_whatever_its_form() {
    let Some(data) = common::shared_data() else {
        return;
    };
    // 51 more images without finding make the first release's number of them.
    let path = data.join("nih-meta/Data_Entry_2017_v2020.csv.gz");
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).unwrap();
    let mut left = 51;
    let changed: Vec<String> = (text.lines())
        .map(|line| {
            let mut cells: Vec<&str> = line.split(',').collect();
            if left > 0 && cells[1] == "Infiltration" {
                left -= 1;
                cells[1] = "No Finding";
            }
            cells.join(",")
        })
        .collect();
    let index = read(&changed.join("\n")).unwrap();
    assert_eq!(
        (index.records().len(), index.n_without_finding()),
        (112_120, 60_412)
    );
    assert_eq!(index.release(), Release::CHEST_X_RAY14_FIRST);
    assert_eq!(index.release().to_string(), "ChestX-ray14, first release");
}

#[test]
fn the_real_boxes_are_on_test_images_that_have_the_finding_named() {
    let Some(data) = common::shared_data() else {
        return;
    };
    let (index, lists) = real(&data);
    let boxes = read_boxes(data.join("nih-meta/BBox_List_2017.csv")).unwrap();
    assert_eq!(boxes.len(), 984);
    let test: std::collections::HashSet<_> = lists.test().iter().collect();
    let images: std::collections::HashSet<_> = boxes.iter().map(|found| &found.name).collect();
    assert_eq!(images.len(), 880);
    assert!(
        images
            .iter()
            .all(|name| test.contains(*name) && index.get(name).is_some())
    );
    assert_eq!(
        boxes
            .iter()
            .filter(|found| found.finding == "Infiltration")
            .count(),
        123
    );
}
