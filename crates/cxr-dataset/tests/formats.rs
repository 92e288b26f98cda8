//! Tables of published data sets, made up here in their form, and the real ones against counts by pandas.

#![expect(clippy::unwrap_used, reason = "a test stops at what it cannot read")]

use std::path::{Path, PathBuf};

use cxr_dataset::{
    DatasetError, ImageFiles, ImageName, Index, LabelState, Part, ReadOptions, ReaderRule, Sex,
    ViewPosition,
};

use proptest::prelude::*;

mod common;

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

const CHEXPERT: &str = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices";

fn chexpert_rows(root: &str, part: &str) -> String {
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

const METADATA: &str = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n\
    a0-1,10000032,50414267,\"CHEST, PA\",PA,3056,2544,21800506,213014.531,x,y,Erect\n\
    a0-2,10000032,50414267,\"CHEST, PA\",LATERAL,3056,2544,21800506,213014.531,x,y,Erect\n\
    b1-1,10000032,53189527,x,LL,2544,3056,21800626,165500.312,x,y,Erect\n\
    c2-1,10000764,57375967,x,,2705,2539,21830125,82900.0,x,y,\n\
    d3-1,10000898,50771383,x,SWIMMERS,2705,2539,21880323,1.0,x,y,Erect\n";
const MIMIC_LABELS: &str = "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n\
    10000032,50414267,,,,,,,,,1.0,,,,,\n\
    10000032,53189527,,-1.0,,0.0,,,,1.0,,,,,,\n\
    10000764,57375967,1.0,,,,,,,,,,,,,\n\
    10000935,50578979,,,,,,,,,1.0,,,,,\n";
const MIMIC_SPLIT: &str = "dicom_id,study_id,subject_id,split\n\
    a0-1,50414267,10000032,train\na0-2,50414267,10000032,train\nb1-1,53189527,10000032,train\n\
    c2-1,57375967,10000764,validate\nd3-1,50771383,10000898,test\n";

fn mimic() -> Folder {
    let folder = Folder::of(&[(
        "mimic-cxr-2.0.0-negbio.csv",
        &MIMIC_LABELS.replace("-1.0,,0.0", "1.0,,1.0"),
    )]);
    for (name, text) in [
        ("mimic-cxr-2.0.0-metadata.csv.gz", METADATA),
        ("mimic-cxr-2.0.0-chexpert.csv.gz", MIMIC_LABELS),
        ("mimic-cxr-2.0.0-split.csv.gz", MIMIC_SPLIT),
    ] {
        folder.write(name, &common::archives::gzip(text.as_bytes()));
    }
    folder
}

/// RoentGen-v2#3: joining labels must not lose the images of studies without.
#[test]
fn mimic_s_four_tables_are_joined() {
    let folder = mimic();
    let whole = folder.read("").unwrap();
    assert_eq!(whole.release().name(), "mimic-cxr-jpg");
    assert_eq!(sizes(&whole), (5, 3, 4));
    // Every image of a study has the labels of the study.
    assert_eq!(counts(&whole, "No Finding"), [2, 0, 0, 3]);
    assert_eq!(counts(&whole, "Cardiomegaly"), [0, 0, 1, 4]);
    assert_eq!(counts(&whole, "Edema"), [0, 1, 0, 4]);
    let parts = Part::ALL.map(|part| whole.official(part).len());
    assert_eq!(parts, [3, 1, 1]);
    assert_eq!(n_of_view(&whole, ViewPosition::Lateral), 2);
    let name = "files/p10/p10000898/s50771383/d3-1.jpg";
    let record = whole.get(&ImageName::new(name).unwrap()).unwrap();
    assert_eq!(record.view, Some(ViewPosition::Other));
    assert_eq!(record.view_code.as_deref(), Some("SWIMMERS"));
    assert!(
        record
            .labels
            .iter()
            .all(|state| *state == LabelState::Unknown)
    );
    assert_eq!(record.original_size, Some((2539, 2705)));
    for (fragment, count) in [
        ("studies that the table of labels does not have", 1),
        ("studies with labels and without images", 1),
        ("negbio.csv` has labels too", 1),
    ] {
        assert_eq!(warns(&whole, fragment), count, "{fragment}");
    }
    // A table that is named is joined with those beside it; NegBio's labels are taken when they are named.
    for name in [
        "mimic-cxr-2.0.0-chexpert.csv.gz",
        "mimic-cxr-2.0.0-metadata.csv.gz",
        "mimic-cxr-2.0.0-split.csv.gz",
    ] {
        let index = folder.read(name).unwrap();
        assert_eq!(index.records(), whole.records(), "{name}");
    }
    let negbio = folder.read("mimic-cxr-2.0.0-negbio.csv").unwrap();
    assert_eq!(counts(&negbio, "Edema"), [1, 0, 0, 4]);
}

#[test]
fn mimic_s_tables_that_do_not_fit_name_their_row() {
    let with = |name: &str, text: &str| {
        let folder = mimic();
        folder.write(name, text.as_bytes());
        folder.read("").unwrap_err().to_string()
    };
    let chexpert = "mimic-cxr-2.0.0-chexpert.csv.gz";
    for (name, text, fragment) in [
        (
            chexpert,
            MIMIC_LABELS.replace("10000764,57375967", "10000765,57375967"),
            "line 5: the study 57375967 is of the subject 10000765",
        ),
        (
            chexpert,
            format!("{MIMIC_LABELS}10000764,57375967,1.0,,,,,,,,,,,,,\n"),
            "line 6: the study 57375967 has labels on line 4 already",
        ),
        (
            chexpert,
            MIMIC_LABELS.replace("-1.0", "2.0"),
            "line 3: expected 1, 0, −1 or nothing in `Cardiomegaly`, got `2.0`",
        ),
        (
            "mimic-cxr-2.0.0-metadata.csv.gz",
            METADATA.replace("a0-2", "a0-1"),
            "line 3: the image `files/p10/p10000032/s50414267/a0-1.jpg` is listed twice",
        ),
        (
            "mimic-cxr-2.0.0-metadata.csv.gz",
            METADATA.replace("a0-2", "../../a0-2"),
            "line 3: expected letters, digits and `-` in `dicom_id`",
        ),
        (
            "mimic-cxr-2.0.0-split.csv.gz",
            MIMIC_SPLIT.replace("validate", "later"),
            "line 5: expected `train`, `validate` or `test` in `split`, got `later`",
        ),
    ] {
        let error = with(name, &text);
        assert!(error.contains(fragment), "{error} lacks {fragment}");
    }
    let alone = Folder::of(&[("mimic-cxr-2.0.0-chexpert.csv", MIMIC_LABELS)]);
    let error = alone.read("mimic-cxr-2.0.0-chexpert.csv").unwrap_err();
    assert!(
        error.to_string().contains("mimic-cxr-2.0.0-metadata.csv"),
        "{error}"
    );
}

#[test]
fn cxr_lt_s_columns_are_labels_by_name() {
    let facts = "dicom_id,subject_id,study_id,ViewPosition,ViewCodeSequence_CodeMeaning";
    let row = |dicom: &str, study: u32, view: &str, labels: &str| {
        format!(
            "{dicom},10000032,{study},{view},x,files/p10/p10000032/s{study}/{dicom}.jpg,{labels}\n"
        )
    };
    let train = format!(
        "{facts},fpath,Normal,Nodule,Round(ed) Atelectasis\n{}{}",
        row("a-1", 50414267, "PA", "1,0,0"),
        row("a-2", 50414267, "LATERAL", "1,0,0")
    );
    let dev = format!(
        "{facts},path,Nodule,Normal,Tuberculosis\n{}",
        row("b-1", 53189527, "AP", "1,0,1")
    );
    let folder = Folder::of(&[
        ("train_labeled.csv", &train),
        ("development_labeled_task1.csv", &dev),
    ]);
    let index = folder.read("").unwrap();
    assert_eq!(index.release().name(), "cxr-lt");
    assert_eq!(sizes(&index), (3, 1, 2));
    assert_eq!(counts(&index, "Normal"), [2, 1, 0, 0]);
    assert_eq!(counts(&index, "Nodule"), [1, 2, 0, 0]);
    assert_eq!(counts(&index, "Tuberculosis"), [1, 0, 0, 2]);
    assert_eq!(counts(&index, "Round(ed) Atelectasis"), [0, 2, 0, 1]);
    let parts = Part::ALL.map(|part| index.official(part).len());
    assert_eq!(parts, [2, 1, 0]);
    // Two tasks list the same images with other labels.
    folder.write("development_labeled_task2.csv", dev.as_bytes());
    let error = folder.read("").unwrap_err().to_string();
    assert!(
        error.contains("task2.csv`, line 2") && error.contains("listed twice (first in"),
        "{error}"
    );
    // Labels of all parts in one table, which says the part itself.
    let split = format!(
        "{facts},fpath,Nodule,split\n{}",
        row("a-1", 50414267, "PA", "1,test")
    );
    let index = read(&split).unwrap();
    assert_eq!(index.official(Part::Test).len(), 1);
    assert_eq!(index.label_set().names(), ["Nodule"]);
}

const PADCHEST: &str = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,MethodLabel,Labels,labelCUIS\n\
    0,1_a.png,0,20140915,20536686640136348236148679891455886468,839860488694292331637988235681460987,1930.0,F,PA,x,Physician,\"['normal']\",['C0']\n\
    1,1_b.png,0.0,20140915,20536686640136348236148679891455886468,839860488694292331637988235681460987,1930.0,F,L,x,Physician,\"['normal']\",\"['C0'\n 'C1']\"\n\
    3,2_a.png,54,20121231,2,7,1890.0,M,AP_horizontal,x,RNN_model,\"['cardiomegaly', ' pneumonia', '', 'pneumonia']\",\"['C1' 'C2']\"\n\
    4,3_a.png,54,20121231,3,8,2013.0,O,COSTAL,x,RNN_model,\"['exclude', \"\"nurse's note\"\"]\",x\n\
    5,4_a.png,54,20121231,4,9,,,PA,x,RNN_model,,x\n";

#[test]
fn padchest_s_lists_are_positive_labels_and_the_rest_negative() {
    let index = read(PADCHEST).unwrap();
    assert_eq!(index.release().name(), "padchest");
    assert_eq!(sizes(&index), (5, 4, 4));
    assert_eq!(
        index.label_set().names(),
        [
            "cardiomegaly",
            "exclude",
            "normal",
            "nurse's note",
            "pneumonia"
        ]
    );
    assert_eq!(counts(&index, "normal"), [2, 2, 0, 1]);
    assert_eq!(counts(&index, "pneumonia"), [1, 3, 0, 1]);
    let names: Vec<&str> = index
        .records()
        .iter()
        .map(|record| record.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "0/1_a.png",
            "0/1_b.png",
            "54/2_a.png",
            "54/3_a.png",
            "54/4_a.png"
        ]
    );
    let ages: Vec<_> = index
        .records()
        .iter()
        .map(|record| record.age_years)
        .collect();
    assert_eq!(ages, [Some(84), Some(84), Some(122), None, None]);
    assert_eq!(
        index.records()[2].view,
        Some(ViewPosition::AnteroPosteriorSupine)
    );
    assert_eq!(index.records()[3].view_code.as_deref(), Some("COSTAL"));
    assert_eq!(
        index.records()[0].patient.as_ref().unwrap().as_str().len(),
        36
    );
    for (fragment, count) in [
        ("without `Labels`", 1),
        ("labelled `exclude`", 1),
        ("older than their patient", 1),
    ] {
        assert_eq!(warns(&index, fragment), count, "{fragment}");
    }
    for (from, to, fragment) in [
        (
            "\"['normal']\",['C0']",
            "normal,['C0']",
            "line 2: expected a list such as",
        ),
        (
            "1_b.png",
            "1_A.png",
            "line 3: `0/1_A.png` and `0/1_a.png` (first in",
        ),
        (
            "2_a.png",
            "../2_a.png",
            "line 5: `54/../2_a.png` is not an image name",
        ),
        (
            "1890.0",
            "old",
            "line 5: expected a whole number in `PatientBirth`, got `old`",
        ),
    ] {
        let error = read(&PADCHEST.replacen(from, to, 1))
            .unwrap_err()
            .to_string();
        assert!(error.contains(fragment), "{error} lacks {fragment}");
    }
}

#[test]
fn vindr_s_readers_are_joined_by_the_rule_that_is_named() {
    let labels = "image_id,rad_id,Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Lung Opacity,Other diseases,No finding\n\
        i1,R1,1,0,0,1,0,0,0\ni1,R2,1,0,0,0,0,0,0\ni1,R3,0,0,0,0,0,0,1\n\
        i2,R8,0,0,0,0,0,0,1\ni2,R9,0,0,0,0,0,0,1\ni2,R10,0,0,0,0,0,0,1\n";
    let test = "image_id,Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Lung Opacity,Other disease,No finding\ni3,0,0,1,0,0,1,0\n";
    let boxes = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n\
        i1,R1,Aortic enlargement,10.5,20,30.5,50\ni1,R2,Aortic enlargement,11,20,30,50\ni1,R1,Cardiomegaly,1,2,3,4\ni1,R3,No finding,,,,\n";
    let folder = Folder::of(&[
        ("annotations/image_labels_train.csv", labels),
        ("annotations/image_labels_test.csv", test),
        ("annotations/annotations_train.csv", boxes),
    ]);
    for (readers, aortic, heart, clear) in [
        (ReaderRule::Any, [1, 2], [1, 2], [2, 1]),
        (ReaderRule::Majority, [1, 2], [0, 3], [1, 2]),
        (ReaderRule::All, [0, 3], [0, 3], [1, 2]),
    ] {
        let options = ReadOptions {
            readers,
            ..ReadOptions::default()
        };
        let index = Index::read_with(folder.path(), &options).unwrap();
        assert_eq!(sizes(&index), (3, 0, 0));
        let of = |label| [counts(&index, label)[0], counts(&index, label)[1]];
        assert_eq!(of("Aortic enlargement"), aortic, "{readers}");
        assert_eq!(of("Cardiomegaly"), heart, "{readers}");
        assert_eq!(of("No finding"), clear, "{readers}");
        assert_eq!(of("Other diseases"), [1, 2]);
        assert_eq!(Part::ALL.map(|part| index.official(part).len()), [2, 0, 1]);
        assert_eq!(index.boxes().len(), 3);
        assert_eq!(
            (index.boxes()[0].width, index.boxes()[0].reader.as_deref()),
            (20., Some("R1"))
        );
    }
    // A table of boxes alone says who saw what, too.
    let index = folder.read("annotations/annotations_train.csv").unwrap();
    assert_eq!(sizes(&index), (1, 0, 0));
    assert_eq!(counts(&index, "Aortic enlargement"), [1, 0, 0, 0]);
    assert_eq!(counts(&index, "Cardiomegaly"), [0, 1, 0, 0]);
    assert_eq!(index.label_set().len(), 28);
    for (table, fragment) in [
        (
            labels.replace("i1,R2", "i1,R1"),
            "line 3: the reader `R1` is listed twice",
        ),
        (test.replace("i3,0", "i3,2"), "line 2: expected 1, 0"),
        (boxes.replace("30.5,50", "9,50"), "line 2: expected a box"),
        (
            boxes.replace("Cardiomegaly", "Cardiomegalie"),
            "line 4: expected one of the classes",
        ),
        (
            boxes.replace("R3,No", "R1,No"),
            "line 5: one reader says both",
        ),
    ] {
        let error = read(&table).unwrap_err().to_string();
        assert!(error.contains(fragment), "{error} lacks {fragment}");
    }
}

#[test]
fn vinbigdata_s_readers_are_those_with_a_row() {
    let table = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n\
        a,No finding,14,R11,,,,\na,No finding,14,R7,,,,\na,No finding,14,R10,,,,\n\
        b,Cardiomegaly,3,R8,691,1375,1653,1831\nb,Aortic enlargement,0,R9,1,2,3,4\nb,Cardiomegaly,3,R9,691,1375,1653,1831\nb,Pleural effusion,10,R10,1,2,3,4\nb,Cardiomegaly,3,R8,5,5,9,9\n";
    let index = read(table).unwrap();
    assert_eq!(index.release().name(), "vinbigdata");
    assert_eq!((index.records().len(), index.label_set().len()), (2, 15));
    assert_eq!(counts(&index, "Cardiomegaly"), [1, 1, 0, 0]);
    assert_eq!(counts(&index, "Aortic enlargement"), [0, 2, 0, 0]);
    assert_eq!(counts(&index, "No finding"), [1, 1, 0, 0]);
    assert_eq!(index.n_without_finding(), 1);
    assert_eq!(index.boxes().len(), 5);
    let error = read(&table.replace("Cardiomegaly,3,R9", "Cardiomegaly,4,R9")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("line 7: expected the number of `Cardiomegaly`"),
        "{error}"
    );
}

#[test]
fn rsna_s_boxes_are_not_images_and_its_two_tables_agree() {
    let boxes = "patientId,x,y,width,height,Target\na1,,,,,0\nb2,264.0,152.0,213.0,379.0,1\nb2,562.0,152.0,256.0,453.0,1\nc3,,,,,0\n";
    let classes = "patientId,class\na1,No Lung Opacity / Not Normal\nb2,Lung Opacity\nb2,Lung Opacity\nc3,Normal\n";
    let folder = Folder::of(&[
        ("stage_2_train_labels.csv", boxes),
        ("stage_2_detailed_class_info.csv", classes),
    ]);
    for name in [
        "",
        "stage_2_train_labels.csv",
        "stage_2_detailed_class_info.csv",
    ] {
        let index = folder.read(name).unwrap();
        assert_eq!(index.release().name(), "rsna-pneumonia");
        assert_eq!(sizes(&index), (3, 0, 0));
        for (label, positive) in [
            ("Pneumonia", 1),
            ("Lung Opacity", 1),
            ("No Lung Opacity / Not Normal", 1),
            ("Normal", 1),
        ] {
            assert_eq!(counts(&index, label), [positive, 2, 0, 0], "{label}");
        }
        assert_eq!(index.boxes().len(), 2);
    }
    let alone = read(boxes).unwrap();
    assert_eq!(alone.label_set().names(), ["Pneumonia", "Lung Opacity"]);
    assert_eq!(counts(&read(classes).unwrap(), "Normal"), [1, 2, 0, 0]);
    for (table, fragment) in [
        (
            boxes.replace("c3,,,,,0", "b2,,,,,0"),
            "line 5: the image `b2` has the targets 0 and 1",
        ),
        (
            boxes.replace("c3,", "a1,"),
            "line 5: the image `a1` is listed twice",
        ),
        (
            boxes.replace("c3,,,,,0", "c3,,,,,1"),
            "line 5: expected a box where `Target` is 1",
        ),
        (
            boxes.replace("264.0", "900.0"),
            "line 3: expected a box inside",
        ),
        (
            classes.replace("c3,Normal", "b2,Normal"),
            "line 5: the image `b2` has the classes",
        ),
        (classes.replace("c3,Normal", "c3,Sick"), "got `Sick`"),
    ] {
        let error = read(&table).unwrap_err().to_string();
        assert!(error.contains(fragment), "{error} lacks {fragment}");
    }
    folder.write(
        "stage_2_detailed_class_info.csv",
        classes
            .replace("a1,No Lung Opacity / Not Normal", "a1,Lung Opacity")
            .as_bytes(),
    );
    let error = folder.read("").unwrap_err().to_string();
    assert!(
        error.contains("line 2: the image `a1` is `Lung Opacity` here"),
        "{error}"
    );
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

/// torchxrayvision keeps the last annotation of an image; all of them together say whether it has the finding.
#[test]
fn siim_s_annotations_are_joined_by_or() {
    for header in ["ImageId, EncodedPixels", "ImageId,EncodedPixels"] {
        let index = read(&format!(
            "{header}\n1.2.276.1,-1\n1.2.276.2, 10 3 1016 2\n1.2.276.2,0 5\n1.2.276.3,-1\n"
        ))
        .unwrap();
        assert_eq!(index.release().name(), "siim-pneumothorax");
        assert_eq!(sizes(&index), (3, 0, 0));
        assert_eq!(counts(&index, "Pneumothorax"), [1, 2, 0, 0]);
        assert_eq!(index.boxes().len(), 2);
    }
    let error = read("ImageId,EncodedPixels\na,-1\nb,5 2000000\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 3: the mask in `EncodedPixels` leaves the image"),
        "{error}"
    );
}

const NIH: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";

#[test]
fn google_s_labels_are_not_those_of_nih() {
    let four = format!(
        "{NIH},Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id\r\n\
         00000013_008.png,No Finding,8,13,60,M,AP,3056,2544,0.139,0.139,NO,NO,YES,NO,test\r\n\
         00000013_026.png,Cardiomegaly|Emphysema,26,13,155,M,PA,2500,2048,0.168,0.168,NO,YES,NO,NO,val"
    );
    let index = read(&four).unwrap();
    assert_eq!(index.release().name(), "google-nih-four-findings");
    assert_eq!(sizes(&index), (2, 1, 2));
    assert_eq!(
        index.label_set().names(),
        [
            "Fracture",
            "Pneumothorax",
            "Airspace opacity",
            "Nodule or mass"
        ]
    );
    assert_eq!(counts(&index, "Airspace opacity"), [1, 1, 0, 0]);
    assert_eq!(Part::ALL.map(|part| index.official(part).len()), [0, 1, 1]);
    assert_eq!(index.records()[0].sex, Some(Sex::Male));
    assert_eq!(warns(&index, "older than 120"), 1);

    let readers = "Patient ID,Image ID,Reader ID,Fracture,Pneumothorax,Airspace opacity,Nodule/mass,Set ID\n\
        13,00000013_008.png,1,NO,YES,YES,HEDGE,test\n13,00000013_008.png,2,NO,YES,NO,HEDGE,test\n13,00000013_008.png,3,YES,HEDGE,NO,NO,test\n";
    let joined = |readers_rule| {
        let folder = Folder::of(&[("readers.csv", readers)]);
        let options = ReadOptions {
            readers: readers_rule,
            ..ReadOptions::default()
        };
        let index = Index::read_with(folder.path().join("readers.csv"), &options).unwrap();
        index.records()[0].labels.to_vec()
    };
    use LabelState::{Negative, Positive, Uncertain};
    assert_eq!(
        joined(ReaderRule::Any),
        [Positive, Positive, Positive, Uncertain]
    );
    assert_eq!(
        joined(ReaderRule::Majority),
        [Negative, Positive, Negative, Uncertain]
    );
    assert_eq!(
        joined(ReaderRule::All),
        [Negative, Uncertain, Negative, Negative]
    );

    let all = "Image ID,Patient ID,Abnormal,Atelectasis,Pleural Thickening,Other\n00000013_008.png,13,YES,NO,YES,NO\n";
    let index = read(all).unwrap();
    assert_eq!(index.release().name(), "google-nih-all-findings");
    assert_eq!(counts(&index, "Pleural Thickening"), [1, 0, 0, 0]);
    assert_eq!(index.official(Part::Test).len(), 1);
    // The two releases disagree on the same images.
    let folder = Folder::of(&[
        ("four.csv", &four),
        ("all.csv", all),
        ("readers.csv", readers),
    ]);
    let error = folder.read("").unwrap_err().to_string();
    assert!(error.contains("they disagree"), "{error}");
    let error = read(&four.replace("NO,NO,YES", "NO,NO,MAYBE"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 2: expected `YES` or `NO` in `Airspace opacity`"),
        "{error}"
    );
}

/// A spreadsheet user moves columns; NIH's reader once went by their positions.
#[test]
fn chest_x_ray14_is_read_by_the_names_of_its_columns() {
    let row = "00000001_000.png,Hernia,3,1,57,M,PA,2682,2749,0.143,0.144";
    let reversed = |line: &str| line.split(',').rev().collect::<Vec<_>>().join(",");
    let table = format!("{}\n{}\n", reversed(NIH), reversed(row));
    let (index, usual) = (
        read(&table).unwrap(),
        read(&format!("{NIH}\n{row}\n")).unwrap(),
    );
    assert_eq!(index.records(), usual.records());
    assert_eq!(index.release(), usual.release());
    assert_eq!(index.n_studies(), 1);
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
