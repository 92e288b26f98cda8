//! MIMIC-CXR-JPG's four tables, and CXR-LT's with more labels.

use cxr_dataset::{DataFolder, ImageName, LabelState, Part, ViewPosition};

use super::{Folder, common, counts, n_of_view, read, sizes, warns};

pub(crate) const METADATA: &str = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n\
    a0-1,10000032,50414267,\"CHEST, PA\",PA,3056,2544,21800506,213014.531,x,y,Erect\n\
    a0-2,10000032,50414267,\"CHEST, PA\",LATERAL,3056,2544,21800506,213014.531,x,y,Erect\n\
    b1-1,10000032,53189527,x,LL,2544,3056,21800626,165500.312,x,y,Erect\n\
    c2-1,10000764,57375967,x,,2705,2539,21830125,82900.0,x,y,\n\
    d3-1,10000898,50771383,x,SWIMMERS,2705,2539,21880323,1.0,x,y,Erect\n";
pub(crate) const MIMIC_LABELS: &str = "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices\n\
    10000032,50414267,,,,,,,,,1.0,,,,,\n\
    10000032,53189527,,-1.0,,0.0,,,,1.0,,,,,,\n\
    10000764,57375967,1.0,,,,,,,,,,,,,\n\
    10000935,50578979,,,,,,,,,1.0,,,,,\n";
pub(crate) const MIMIC_SPLIT: &str = "dicom_id,study_id,subject_id,split\n\
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
        error.contains("the tasks 1, 2") && error.contains("name one table"),
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

/// The labels of each edition under the names of its files: 26, 40 and 45.
#[test]
fn every_edition_of_cxr_lt_has_its_labels() {
    const OF_2023: &str = "Atelectasis,Calcification of the Aorta,Cardiomegaly,Consolidation,Edema,Emphysema,Enlarged Cardiomediastinum,Fibrosis,Fracture,Hernia,Infiltration,Lung Lesion,Lung Opacity,Mass,No Finding,Nodule,Pleural Effusion,Pleural Other,Pleural Thickening,Pneumomediastinum,Pneumonia,Pneumoperitoneum,Pneumothorax,Subcutaneous Emphysema,Support Devices,Tortuous Aorta";
    const OF_2024: &str = "Adenopathy,Atelectasis,Azygos Lobe,Calcification of the Aorta,Cardiomegaly,Clavicle Fracture,Consolidation,Edema,Emphysema,Enlarged Cardiomediastinum,Fibrosis,Fissure,Fracture,Granuloma,Hernia,Hydropneumothorax,Infarction,Infiltration,Kyphosis,Lobar Atelectasis,Lung Lesion,Lung Opacity,Mass,Nodule,Normal,Pleural Effusion,Pleural Other,Pleural Thickening,Pneumomediastinum,Pneumonia,Pneumoperitoneum,Pneumothorax,Pulmonary Embolism,Pulmonary Hypertension,Rib Fracture,Round(ed) Atelectasis,Subcutaneous Emphysema,Support Devices,Tortuous Aorta,Tuberculosis";
    const MORE_OF_2024: &str = "Bulla,Cardiomyopathy,Hilum,Osteopenia,Scoliosis";
    let facts = "dicom_id,subject_id,study_id,ViewPosition,ViewCodeSequence_CodeMeaning";
    let table = |labels: &str, path: &str, more: &str, ids: &[(&str, &str)]| {
        let mut text = format!("{facts},{path},{labels}");
        text += match more {
            "" => "\n",
            _ => ",split\n",
        };
        let n_labels = labels.split(',').count();
        for (at, (id, part)) in ids.iter().enumerate() {
            let cells: Vec<&str> = (0..n_labels)
                .map(|label| if label % ids.len() == at { "1" } else { "0" })
                .collect();
            text += &format!(
                "{id},10000032,50414267,AP,antero-posterior,files/p10/p10000032/s50414267/{id}.jpg,{}",
                cells.join(",")
            );
            text += &match more {
                "" => "\n".to_owned(),
                _ => format!(",{part}\n"),
            };
        }
        text
    };
    let ids = [("a-1", "train"), ("a-2", "development"), ("a-3", "test")];
    for (labels, path, count) in [
        (OF_2023.to_owned(), "path", 26),
        (OF_2023.to_owned(), "fpath", 26),
        (OF_2024.to_owned(), "fpath", 40),
        (format!("{OF_2024},{MORE_OF_2024}"), "fpath", 45),
    ] {
        for (name, split) in [("train.csv", ""), ("labels.csv", "split")] {
            let folder = Folder::of(&[(name, &table(&labels, path, split, &ids))]);
            // In a folder `labels.csv` is usually somebody's own.
            let index = folder.read("").unwrap();
            assert_eq!(index.release().name(), "cxr-lt");
            assert_eq!(index.label_set().len(), count);
            assert_eq!(index.label_set().names().join(","), labels);
            let positives = index.label_counts().into_iter();
            assert!(positives.into_iter().all(|count| count.positive == 1));
            // CXR-LT's `labels.csv` says the parts, an own one needs lists.
            let data = DataFolder::new(folder.path());
            assert_eq!(data.metadata_folder().unwrap(), folder.path());
            let parts = Part::ALL.map(|part| index.official(part).len());
            assert_eq!(
                parts,
                if split.is_empty() {
                    [3, 0, 0]
                } else {
                    [1, 1, 1]
                }
            );
        }
    }
}

/// MIMIC-CXR has lists of records and studies, with ids and paths of DICOM files: they are no tables of CXR-LT, and no
/// second data set beside MIMIC-CXR-JPG's.
#[test]
fn lists_of_mimic_cxr_s_dicom_files_are_no_labels() {
    let folder = mimic();
    let whole = folder.read("").unwrap();
    for (name, text) in [
        (
            "cxr-record-list.csv.gz",
            "subject_id,study_id,dicom_id,path\n10000032,50414267,a0-1,files/p10/p10000032/s50414267/a0-1.dcm\n",
        ),
        (
            "cxr-study-list.csv.gz",
            "subject_id,study_id,path\n10000032,50414267,files/p10/p10000032/s50414267.txt\n",
        ),
    ] {
        folder.write(name, &common::archives::gzip(text.as_bytes()));
    }
    let beside = folder.read("").unwrap();
    assert_eq!(beside.release().name(), "mimic-cxr-jpg");
    assert_eq!(beside.records(), whole.records());
    let labels = folder.read("mimic-cxr-2.0.0-chexpert.csv.gz").unwrap();
    assert_eq!(labels.records(), whole.records());
}

/// The labels of one radiologist for the test set (2.1.0): by study alone, with another word for opacities, −1 kept.
#[test]
fn the_radiologist_s_labels_are_joined_by_study() {
    let folder = mimic();
    let text = "study_id,Airspace Opacity,Atelectasis,Cardiomegaly,Consolidation,Edema,No Finding\n50771383,1,0,-1,,1,0\n";
    let path = folder.write("mimic-cxr-2.1.0-test-set-labeled.csv", text.as_bytes());
    let whole = folder.read("").unwrap();
    assert_eq!(counts(&whole, "Edema"), [0, 1, 0, 4]);
    let index = folder.read("mimic-cxr-2.1.0-test-set-labeled.csv").unwrap();
    assert_eq!(sizes(&index), (5, 3, 4));
    assert_eq!(counts(&index, "Airspace Opacity"), [1, 0, 0, 4]);
    assert_eq!(counts(&index, "Cardiomegaly"), [0, 0, 1, 4]);
    // Four images are of other studies, one cell is blank.
    assert_eq!(counts(&index, "Consolidation"), [0, 0, 0, 5]);
    let blank = index.label_set().index_of("Consolidation").unwrap();
    assert_eq!(index.label_counts()[blank].blank, 1);
    assert!(index.tables().contains(&path));
}
