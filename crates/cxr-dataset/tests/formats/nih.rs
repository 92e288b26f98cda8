//! Tables of ChestX-ray14's images: Google's and NIH's own.

use cxr_dataset::{Index, LabelState, Part, ReadOptions, ReaderRule, Sex};

use super::{Folder, counts, read, sizes, warns};

pub(crate) const NIH: &str = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]";

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
