//! The tables of RSNA's and SIIM's challenges.

use super::{Folder, counts, read, sizes};

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

/// Kaggle's examples of a submission have the header of SIIM's truth, and say that no image has the finding.
#[test]
fn an_example_of_a_submission_is_no_table_of_labels() {
    let truth = "ImageId, EncodedPixels\na, -1\nb,10 3\n";
    let folder = Folder::of(&[
        ("train-rle.csv", truth),
        (
            "sample_submission.csv",
            "ImageId,EncodedPixels\nc,-1\nd,-1\n",
        ),
        (
            "stage_2_sample_submission.csv",
            "ImageId,EncodedPixels\ne,-1\n",
        ),
    ]);
    let index = folder.read("").unwrap();
    assert_eq!(sizes(&index), (2, 0, 0));
    assert_eq!(counts(&index, "Pneumothorax"), [1, 1, 0, 0]);
    let error = folder.read("sample_submission.csv").unwrap_err();
    assert!(error.to_string().contains("submission"), "{error}");
    // Those of the other challenges have no labels; the classes of RSNA's images are a table of labels beside them.
    let folder = Folder::of(&[
        (
            "stage_2_detailed_class_info.csv",
            "patientId,class\na,Normal\n",
        ),
        (
            "stage_2_sample_submission.csv",
            "patientId,PredictionString\nb,0.5 0 0 100 100\n",
        ),
    ]);
    assert_eq!(sizes(&folder.read("").unwrap()), (1, 0, 0));
}

/// VinBigData's fifteen classes, with the columns that resized copies of the competition's images add.
#[test]
fn vinbigdata_has_fifteen_classes_and_copies_of_it_more_columns() {
    let classes = [
        "Aortic enlargement",
        "Atelectasis",
        "Calcification",
        "Cardiomegaly",
        "Consolidation",
        "ILD",
        "Infiltration",
        "Lung Opacity",
        "Nodule/Mass",
        "Other lesion",
        "Pleural effusion",
        "Pleural thickening",
        "Pneumothorax",
        "Pulmonary fibrosis",
    ];
    let mut table =
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max,width,height\n".to_owned();
    for (number, class) in classes.iter().enumerate() {
        for reader in ["R8", "R9", "R10"] {
            table +=
                &format!("sick{number},{class},{number},{reader},1.0,2.0,30.5,40.0,2336,2836\n");
        }
    }
    for reader in ["R1", "R2", "R17"] {
        table += &format!("well,No finding,14,{reader},,,,,2880,2304\n");
    }
    let folder = Folder::of(&[
        ("train.csv", &table),
        (
            "sample_submission.csv",
            "image_id,PredictionString\nt,14 1 0 0 1 1\n",
        ),
    ]);
    let index = folder.read("").unwrap();
    assert_eq!(index.release().name(), "vinbigdata");
    assert_eq!(sizes(&index), (15, 0, 0));
    assert_eq!(index.label_set().len(), 15);
    for class in classes.iter().chain(&["No finding"]) {
        assert_eq!(counts(&index, class), [1, 14, 0, 0], "{class}");
    }
    assert_eq!(index.boxes().len(), 42);
}
