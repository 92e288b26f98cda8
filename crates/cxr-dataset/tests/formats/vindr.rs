//! VinDr-CXR's tables and VinBigData's, of several readers.

use cxr_dataset::{Index, Part, ReadOptions, ReaderRule};

use super::{Folder, counts, read, sizes};

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
