//! Tables of published data sets, made up here in their form, and the real ones against counts by pandas.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::path::{Path, PathBuf};

use cxr_dataset::{DatasetError, ImageFiles, Index, ReadOptions, ViewPosition};
use proptest::prelude::*;

use self::chexpert::{CHEXPERT, chexpert_rows};
use self::mimic::{METADATA, MIMIC_SPLIT};
use self::padchest::PADCHEST;

#[path = "../common/mod.rs"]
mod common;

mod challenges;
mod chexpert;
mod mimic;
mod nih;
mod oracle;
mod padchest;
mod vindr;

struct Folder(tempfile::TempDir);

impl Folder {
    fn of(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            folder.write(name, text.as_bytes());
        }
        folder
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read(&self, name: &str) -> Result<Index, DatasetError> {
        Index::read(self.path().join(name))
    }
}

fn read(text: &str) -> Result<Index, DatasetError> {
    Folder::of(&[("table.csv", text)]).read("table.csv")
}

/// Positive, negative, uncertain, unknown.
fn counts(index: &Index, label: &str) -> [usize; 4] {
    let place = index.label_set().index_of(label);
    let place = place.unwrap_or_else(|| panic!("no {label} in {:?}", index.label_set()));
    let count = index.label_counts()[place];
    [
        count.positive,
        count.negative,
        count.uncertain,
        count.unknown,
    ]
}

fn n_of_view(index: &Index, view: ViewPosition) -> usize {
    let records = index.records().iter();
    records.filter(|record| record.view == Some(view)).count()
}

/// Images, patients, studies.
fn sizes(index: &Index) -> (usize, usize, usize) {
    (index.records().len(), index.n_patients(), index.n_studies())
}

fn warns(index: &Index, fragment: &str) -> usize {
    let mut found = (index.warnings().iter()).filter(|warning| warning.message.contains(fragment));
    found.next().map_or(0, |warning| warning.count)
}

/// An id is the file of that name, whatever its extension; an own table names its files itself.
#[test]
fn ids_and_roots_find_their_files() {
    let folder = Folder::of(&[
        (
            "rsna/stage_2_train_labels.csv",
            "patientId,x,y,width,height,Target\na.1,,,,,0\nb,,,,,0\n",
        ),
        ("rsna/images/a.1.dcm", "a"),
        ("rsna/images/b.png", "b"),
        ("mine/labels.csv", "image,Mass\na,1\n"),
        ("mine/a.png", "a"),
        (
            "chexpert/train.csv",
            &format!(
                "{CHEXPERT}\n{}",
                chexpert_rows("CheXpert-v1.0-small", "train")
            ),
        ),
        ("chexpert/train/patient00007/study1/view1_frontal.jpg", "1"),
        ("chexpert/train/patient00007/study2/view1_frontal.jpg", "2"),
    ]);
    let found = |name: &str, table: &str| {
        let index = folder.read(&format!("{name}/{table}")).unwrap();
        let files = ImageFiles::find([folder.path().join(name)]).unwrap();
        let mut found: Vec<(String, String)> = (files.of_index(&index).unwrap().into_iter())
            .map(|(name, path)| {
                let path = path.strip_prefix(folder.path()).unwrap();
                (name.to_string(), path.to_str().unwrap().to_owned())
            })
            .collect();
        found.sort();
        found
    };
    let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
    let rsna = found("rsna", "stage_2_train_labels.csv");
    let dicom = cfg!(feature = "dicom").then(|| pair("a.1", "rsna/images/a.1.dcm"));
    let expected: Vec<_> = dicom
        .into_iter()
        .chain([pair("b", "rsna/images/b.png")])
        .collect();
    assert_eq!(rsna, expected);
    assert_eq!(found("mine", "labels.csv"), []);
    let root = "CheXpert-v1.0-small/train/patient00007";
    let chexpert = ["study1", "study2"].map(|study| {
        let name = format!("{study}/view1_frontal.jpg");
        pair(
            &format!("{root}/{name}"),
            &format!("chexpert/train/patient00007/{name}"),
        )
    });
    assert_eq!(found("chexpert", "train.csv"), chexpert);
}

#[test]
fn two_spellings_of_one_name_are_an_error_of_the_second_row() {
    for (first, second) in [
        ("a/X.png", "a/x.png"),
        ("ä.png", "Ä.png"),
        // One letter, and a letter with an accent behind it.
        ("é.png", "e\u{301}.png"),
    ] {
        let error = read(&format!("image,Mass\n{first},1\nb.png,0\n{second},1\n")).unwrap_err();
        assert!(
            matches!(error, DatasetError::Line { line: 4, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("two spellings"), "{error}");
    }
    for bad in [
        "./a.png",
        "a//b.png",
        "a/../b.png",
        "/a.png",
        "C:a.png",
        "a\\b.png",
        "a/",
        "a\u{0}b.png",
    ] {
        let table = format!("{CHEXPERT}\n{bad},,,,,,,,,,,,,,,,,,\n");
        let error = read(&table).unwrap_err();
        assert!(
            matches!(error, DatasetError::Line { line: 2, .. }),
            "{bad}: {error}"
        );
    }
}

#[test]
fn a_folder_with_tables_of_two_data_sets_is_not_guessed_at() {
    let folder = Folder::of(&[
        (
            "train.csv",
            &format!("{CHEXPERT}\n{}", chexpert_rows("C", "train")),
        ),
        ("padchest.csv", PADCHEST),
        ("notes.csv", "day,what\n1,lunch\n"),
    ]);
    let error = folder.read("").unwrap_err().to_string();
    assert!(
        error.contains("PadChest (padchest) and of CheXpert (chexpert)"),
        "{error}"
    );
    let options = ReadOptions {
        format: Some("padchest".parse().unwrap()),
        ..ReadOptions::default()
    };
    assert_eq!(
        Index::read_with(folder.path(), &options)
            .unwrap()
            .records()
            .len(),
        5
    );
    let options = ReadOptions {
        format: Some("siim-pneumothorax".parse().unwrap()),
        ..ReadOptions::default()
    };
    let error = Index::read_with(folder.path(), &options)
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected tables of SIIM"), "{error}");
    let error = Index::read_with(folder.path().join("padchest.csv"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the column `EncodedPixels` is missing")
            || error.contains("`ImageId` is missing"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Damaged rows are an error or an index that holds together.
    #[test]
    fn no_row_breaks_a_reader(
        table in 0..8_usize,
        at in 0..400_usize,
        insert in "[-0-9a-z,;'\"\\[\\]\n./ ]{0,6}",
        n_removed in 0..8_usize,
    ) {
        let chexpert = format!("{CHEXPERT}\n{}", chexpert_rows("C", "train"));
        let boxes = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\na,Cardiomegaly,3,R1,1,1,9,9\nb,No finding,14,R2,,,,\n";
        let rsna = "patientId,x,y,width,height,Target\na1,,,,,0\nb2,264.0,152.0,213.0,379.0,1\n";
        let siim = "ImageId, EncodedPixels\n1.2,-1\n1.3,10 3 1016 2\n";
        let readers = "Patient ID,Image ID,Reader ID,Fracture,Pneumothorax,Airspace opacity,Nodule/mass,Set ID\n13,00000013_008.png,1,NO,YES,YES,HEDGE,test\n";
        let tables = [&chexpert, METADATA, MIMIC_SPLIT, PADCHEST, boxes, rsna, siim, readers];
        let mut text: Vec<char> = tables[table].chars().collect();
        // The header stays, so that the format is the one that is meant.
        let first = text.iter().position(|&character| character == '\n').unwrap() + 1;
        let at = first + at % (text.len() - first);
        let end = (at + n_removed).min(text.len());
        text.splice(at..end, insert.chars());
        let text: String = text.into_iter().collect();
        if let Ok(index) = read(&text) {
            for record in index.records() {
                prop_assert_eq!(record.labels.len(), index.label_set().len());
                prop_assert_eq!(index.get(&record.name), Some(record));
            }
            for found in index.boxes() {
                prop_assert!(index.get(&found.name).is_some());
            }
        }
    }
}
