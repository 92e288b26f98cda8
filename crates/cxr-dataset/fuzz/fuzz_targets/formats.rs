//! The tables of published data sets: an error, or an index that holds together. The first byte chooses the header that the
//! fuzzer's rows are put under, the second the rule for several readers.
#![no_main]

use cxr_dataset::{Index, ReadOptions, ReaderRule};
use libfuzzer_sys::fuzz_target;

const HEADERS: [&str; 12] = [
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly",
    "dicom_id,subject_id,study_id,ViewPosition,Rows,Columns",
    "dicom_id,study_id,subject_id,split",
    "dicom_id,subject_id,study_id,ViewPosition,fpath,Nodule,Mass",
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Labels",
    "image_id,rad_id,Cardiomegaly,Edema,ILD,COPD,Emphysema,No finding",
    "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
    "patientId,x,y,width,height,Target",
    "patientId,class",
    "ImageId, EncodedPixels",
    "Patient ID,Image ID,Reader ID,Fracture,Pneumothorax,Airspace opacity,Nodule/mass,Set ID",
    "Image ID,Patient ID,Abnormal,Mass,Other",
];

fuzz_target!(|bytes: &[u8]| {
    let [kind, rule, rows @ ..] = bytes else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder for the file");
    let path = folder.path().join("train.csv");
    let header = HEADERS[usize::from(*kind) % HEADERS.len()];
    std::fs::write(&path, [header.as_bytes(), b"\n", rows].concat()).expect("the file is written");
    let readers = [ReaderRule::Any, ReaderRule::Majority, ReaderRule::All][usize::from(*rule) % 3];
    let Ok(index) = Index::read_with(&path, &ReadOptions { readers, ..ReadOptions::default() }) else {
        return;
    };
    for record in index.records() {
        assert_eq!(record.labels.len(), index.label_set().len());
        assert_eq!(index.get(&record.name), Some(record));
    }
    for found in index.boxes() {
        assert!(index.get(&found.name).is_some() && found.width > 0. && found.height > 0.);
    }
    assert!(index.warnings().iter().all(|warning| warning.count > 0));
});
