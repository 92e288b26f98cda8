//! PadChest's table.

use cxr_dataset::ViewPosition;

use super::{counts, read, sizes, warns};

pub(crate) const PADCHEST: &str = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report,MethodLabel,Labels,labelCUIS\n\
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
