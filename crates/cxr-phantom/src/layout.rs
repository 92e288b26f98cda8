//! The files of published data sets, for phantoms: how images are called in each, and its tables.

use std::fmt::Write as _;

use crate::finding::FindingSet;
use crate::random::Draws;
use crate::{Cohort, Finding, List, PhantomConfig, Study};

/// Whose files a set of phantoms is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// NIH ChestX-ray14: one folder of images, one table, two lists.
    #[default]
    ChestXRay14,
    /// CheXpert v1.0: `train/patient00001/study1/view1_frontal.jpg`; `train.csv` with uncertain and blank cells,
    /// `valid.csv` and `test.csv` without.
    CheXpert,
    /// MIMIC-CXR-JPG 2.0.0: `files/p10/…`; labels by study from two labellers, metadata, split.
    Mimic,
    /// PadChest: `0/….png` of 16 bits; one table with a list of labels in a cell. It has no official parts.
    PadChest,
    /// VinDr-CXR: `train/` and `test/`; labels of three readers, boxes.
    VinDr,
    /// RSNA Pneumonia Detection: boxes and detailed classes. It has no official parts and names no patients.
    Rsna,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 6] = [
        Self::ChestXRay14,
        Self::CheXpert,
        Self::Mimic,
        Self::PadChest,
        Self::VinDr,
        Self::Rsna,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChestXRay14 => "chest-x-ray14",
            Self::CheXpert => "chexpert",
            Self::Mimic => "mimic",
            Self::PadChest => "padchest",
            Self::VinDr => "vindr",
            Self::Rsna => "rsna",
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::ChestXRay14 => "NIH ChestX-ray14",
            Self::CheXpert => "CheXpert",
            Self::Mimic => "MIMIC-CXR-JPG",
            Self::PadChest => "PadChest",
            Self::VinDr => "VinDr-CXR",
            Self::Rsna => "RSNA Pneumonia Detection",
        }
    }

    /// How its images are encoded.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::ChestXRay14 => Encoding::AsDrawn,
            Self::CheXpert | Self::Mimic => Encoding::Jpeg,
            Self::PadChest => Encoding::Deep,
            Self::VinDr | Self::Rsna => Encoding::Grey,
        }
    }
}

/// How an image is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// PNG, a few of them with an alpha channel, as in ChestX-ray14.
    AsDrawn,
    /// PNG of 8 bits.
    Grey,
    /// PNG of 16 bits.
    Deep,
    /// JPEG of 8 bits.
    Jpeg,
}

/// The parts that a publisher makes of patients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Validation,
    Test,
}

/// An image in its examination. Two successive images of a patient with the same labels are one examination's.
struct Placed<'a> {
    study: &'a Study,
    part: Part,
    /// The examination of the patient, from 1.
    exam: u32,
    /// The image of the examination, from 1.
    view: u32,
}

fn place(cohort: &Cohort) -> Vec<Placed<'_>> {
    let mut placed: Vec<Placed<'_>> = Vec::with_capacity(cohort.studies().len());
    for study in cohort.studies() {
        let before = placed
            .last()
            .filter(|before| before.study.patient_id() == study.patient_id());
        let (exam, view) = match before {
            None => (1, 1),
            Some(before) if before.view == 1 && before.study.labels() == study.labels() => {
                (before.exam, 2)
            }
            Some(before) => (before.exam + 1, 1),
        };
        placed.push(Placed {
            study,
            // One patient in eight validates.
            part: match study.list() {
                List::Test => Part::Test,
                List::TrainVal if study.patient_id() % 8 == 0 => Part::Validation,
                List::TrainVal => Part::Train,
            },
            exam,
            view,
        });
    }
    placed
}

/// The path of each image below the folder, in the order of the cohort.
pub(crate) fn image_paths(config: &PhantomConfig, cohort: &Cohort) -> Vec<String> {
    let placed = place(cohort);
    let placed = placed.iter();
    placed.map(|image| image_path(config, image)).collect()
}

fn image_path(config: &PhantomConfig, image: &Placed<'_>) -> String {
    match config.layout() {
        Layout::ChestXRay14 => format!("images/{}", image.study.file_name()),
        Layout::CheXpert => chexpert_path(image),
        Layout::Mimic => mimic_path(config.seed(), image),
        Layout::PadChest => format!(
            "{}/{}",
            padchest_folder(image.study),
            padchest_name(image.study)
        ),
        Layout::VinDr => {
            let folder = match image.part {
                Part::Test => "test",
                _ => "train",
            };
            format!(
                "{folder}/{}.png",
                hex(config.seed(), "image", image.study.file_name(), 16)
            )
        }
        Layout::Rsna => format!(
            "stage_2_train_images/{}.png",
            rsna_id(config.seed(), image.study)
        ),
    }
}

/// The tables of a layout other than ChestX-ray14's with their text, those that others are joined to last.
pub(crate) fn tables(config: &PhantomConfig, cohort: &Cohort) -> Vec<(&'static str, String)> {
    let placed = place(cohort);
    match config.layout() {
        // `write` has these.
        Layout::ChestXRay14 => Vec::new(),
        Layout::CheXpert => chexpert(config.seed(), &placed),
        Layout::Mimic => mimic(config.seed(), &placed),
        Layout::PadChest => vec![("PADCHEST_chest_x_ray_images_labels.csv", padchest(&placed))],
        Layout::VinDr => vindr(config, &placed),
        Layout::Rsna => rsna(config.seed(), &placed),
    }
}

/// The names of all tables that a layout may have.
pub(crate) const TABLES: [&str; 14] = [
    "train.csv",
    "valid.csv",
    "test.csv",
    "mimic-cxr-2.0.0-chexpert.csv",
    "mimic-cxr-2.0.0-negbio.csv",
    "mimic-cxr-2.0.0-metadata.csv",
    "mimic-cxr-2.0.0-split.csv",
    "PADCHEST_chest_x_ray_images_labels.csv",
    "annotations/image_labels_train.csv",
    "annotations/image_labels_test.csv",
    "annotations/annotations_train.csv",
    "annotations/annotations_test.csv",
    "stage_2_train_labels.csv",
    "stage_2_detailed_class_info.csv",
];

/// So many bytes of a key, in hexadecimal digits.
fn hex(seed: u64, purpose: &str, name: &str, n_bytes: usize) -> String {
    let mut bytes = vec![0; n_bytes];
    Draws::keyed(&format!("layout {purpose}"), seed, name).fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The observations of CheXpert in its order.
const OBSERVATIONS: [&str; 14] = [
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
];

/// Whether a phantom has an observation.
fn observed(labels: FindingSet, observation: &str) -> bool {
    let any = |findings: &[Finding]| findings.iter().any(|finding| labels.contains(*finding));
    match observation {
        "No Finding" => labels.is_empty(),
        "Enlarged Cardiomediastinum" | "Cardiomegaly" => any(&[Finding::Cardiomegaly]),
        "Lung Opacity" => any(&[
            Finding::Atelectasis,
            Finding::Consolidation,
            Finding::Edema,
            Finding::Infiltration,
            Finding::Pneumonia,
        ]),
        "Lung Lesion" => any(&[Finding::Mass, Finding::Nodule]),
        "Edema" => any(&[Finding::Edema]),
        "Consolidation" => any(&[Finding::Consolidation]),
        "Pneumonia" => any(&[Finding::Pneumonia]),
        "Atelectasis" => any(&[Finding::Atelectasis]),
        "Pneumothorax" => any(&[Finding::Pneumothorax]),
        "Pleural Effusion" => any(&[Finding::Effusion]),
        "Pleural Other" => any(&[Finding::PleuralThickening]),
        _ => false,
    }
}

/// What a labeller makes of a report: positives are uncertain now and then, and negatives are mentioned half of the time.
fn mentioned(seed: u64, exam: &str, labels: FindingSet, observation: &str) -> &'static str {
    let is_there = observed(labels, observation);
    if observation == "No Finding" {
        return if is_there { "1.0" } else { "" };
    }
    let draw = Draws::keyed("layout label", seed, &format!("{exam} {observation}")).unit();
    match (is_there, draw) {
        (true, ..0.12) => "-1.0",
        (true, _) => "1.0",
        // A report without a finding mentions none as possible.
        (false, ..0.05) if !labels.is_empty() => "-1.0",
        (false, ..0.5) => "0.0",
        (false, _) => "",
    }
}

/// What radiologists say, who leave nothing open.
fn decided(labels: FindingSet, observation: &str) -> &'static str {
    if observed(labels, observation) {
        "1.0"
    } else {
        "0.0"
    }
}

fn exam_key(image: &Placed<'_>) -> String {
    format!("{} {}", image.study.patient_id(), image.exam)
}

fn chexpert_path(image: &Placed<'_>) -> String {
    let part = match image.part {
        Part::Train => "train",
        Part::Validation => "valid",
        Part::Test => "test",
    };
    format!(
        "{part}/patient{:05}/study{}/view{}_frontal.jpg",
        image.study.patient_id(),
        image.exam,
        image.view
    )
}

fn chexpert(seed: u64, placed: &[Placed<'_>]) -> Vec<(&'static str, String)> {
    let labels = OBSERVATIONS.join(",");
    let header = format!("Path,Sex,Age,Frontal/Lateral,AP/PA,{labels}\n");
    let (mut train, mut valid) = (header.clone(), header);
    // As CheXlocalize gives the test labels.
    let mut test = format!("Path,{labels}\n");
    for image in placed {
        let study = image.study;
        let path = chexpert_path(image);
        let facts = format!(
            "CheXpert-v1.0/{path},{},{},Frontal,{}",
            match study.sex().code() {
                "F" => "Female",
                _ => "Male",
            },
            study.age(),
            study.nuisance().view.code()
        );
        let exam = exam_key(image);
        let states: Vec<&str> = OBSERVATIONS
            .iter()
            .map(|observation| match image.part {
                Part::Train => mentioned(seed, &exam, study.labels(), observation),
                _ => decided(study.labels(), observation),
            })
            .collect();
        let states = states.join(",");
        // Writing to a string cannot fail.
        let _ = match image.part {
            Part::Train => writeln!(train, "{facts},{states}"),
            Part::Validation => writeln!(valid, "{facts},{states}"),
            Part::Test => writeln!(test, "{path},{states}"),
        };
    }
    vec![
        ("test.csv", test),
        ("valid.csv", valid),
        ("train.csv", train),
    ]
}

/// Subject, study and image of MIMIC-CXR.
fn mimic_ids(seed: u64, image: &Placed<'_>) -> (u32, u32, String) {
    let patient = image.study.patient_id();
    let digits = hex(seed, "dicom", image.study.file_name(), 20);
    let groups = digits.as_bytes().chunks(8).map(String::from_utf8_lossy);
    let dicom = groups.collect::<Vec<_>>().join("-");
    // Patients have far fewer examinations.
    let study = 50_000_000 + (patient * 37 + image.exam) % 10_000_000;
    (10_000_000 + patient, study, dicom)
}

fn mimic_path(seed: u64, image: &Placed<'_>) -> String {
    let (subject, study, dicom) = mimic_ids(seed, image);
    let folder = subject / 1_000_000;
    format!("files/p{folder}/p{subject}/s{study}/{dicom}.jpg")
}

fn mimic(seed: u64, placed: &[Placed<'_>]) -> Vec<(&'static str, String)> {
    let mut names = OBSERVATIONS;
    names.sort_unstable();
    let header = format!("subject_id,study_id,{}\n", names.join(","));
    let (mut chexpert, mut negbio) = (header.clone(), header);
    let mut split = "dicom_id,study_id,subject_id,split\n".to_owned();
    let mut metadata = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning\n".to_owned();
    for image in placed {
        let (subject, study, dicom) = mimic_ids(seed, image);
        let view = image.study.nuisance().view.code();
        let part = match image.part {
            Part::Train => "train",
            Part::Validation => "validate",
            Part::Test => "test",
        };
        let original = image.study.original();
        // Writing to a string cannot fail.
        let _ = writeln!(split, "{dicom},{study},{subject},{part}");
        let _ = writeln!(
            metadata,
            "{dicom},{subject},{study},\"CHEST ({view})\",{view},{},{},2180{:02}06,{}.5,CHEST,,Erect",
            original.height,
            original.width,
            1 + image.exam % 12,
            80_000 + image.view
        );
        if image.view > 1 {
            continue;
        }
        for (table, labeller) in [(&mut chexpert, "chexpert"), (&mut negbio, "negbio")] {
            let exam = format!("{} {labeller}", exam_key(image));
            let states: Vec<&str> = names
                .iter()
                .map(|observation| mentioned(seed, &exam, image.study.labels(), observation))
                .collect();
            let _ = writeln!(table, "{subject},{study},{}", states.join(","));
        }
    }
    vec![
        ("mimic-cxr-2.0.0-negbio.csv", negbio),
        ("mimic-cxr-2.0.0-chexpert.csv", chexpert),
        ("mimic-cxr-2.0.0-split.csv", split),
        ("mimic-cxr-2.0.0-metadata.csv", metadata),
    ]
}

fn padchest_folder(study: &Study) -> u32 {
    study.patient_id() % 4
}

fn padchest_name(study: &Study) -> String {
    format!(
        "{}-{}",
        20_536_686_640_136_u64 + u64::from(study.patient_id()),
        study.file_name()
    )
}

/// PadChest's words for the findings.
fn padchest_word(finding: Finding) -> &'static str {
    match finding {
        Finding::Atelectasis => "atelectasis",
        Finding::Cardiomegaly => "cardiomegaly",
        Finding::Effusion => "pleural effusion",
        Finding::Infiltration => "infiltrates",
        Finding::Mass => "pulmonary mass",
        Finding::Nodule => "nodule",
        Finding::Pneumonia => "pneumonia",
        Finding::Pneumothorax => "pneumothorax",
        Finding::Consolidation => "consolidation",
        Finding::Edema => "pulmonary edema",
        Finding::Emphysema => "emphysema",
        Finding::Fibrosis => "pulmonary fibrosis",
        Finding::PleuralThickening => "pleural thickening",
        Finding::Hernia => "hiatal hernia",
    }
}

fn padchest(placed: &[Placed<'_>]) -> String {
    let mut text = ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS\n".to_owned();
    for (number, image) in placed.iter().enumerate() {
        let study = image.study;
        let words: Vec<&str> = match study.labels().is_empty() {
            true => vec!["normal"],
            false => study.labels().iter().map(padchest_word).collect(),
        };
        // Every other item has a space before it, as in the original.
        let words: Vec<String> = (words.iter().enumerate())
            .map(|(at, word)| match at % 2 {
                0 => format!("'{word}'"),
                _ => format!("' {word}'"),
            })
            .collect();
        let view = study.nuisance().view.code();
        let original = study.original();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{number},{},{},{}0915,{},{},{}.0,{},POSTEROANTERIOR,{view},Manual review of DICOM fields,{},CR,phantom,MONOCHROME2,0,,,12,2047.0,4096.0,{},{},,,,,,{number},none,Physician,\"[{}]\",[],[],\"['C0'\n 'C1']\",[]",
            padchest_name(study),
            padchest_folder(study),
            2010 + image.exam % 8,
            1_000_000_000_000_000_000_u64 + u64::from(study.patient_id() * 64 + image.exam),
            83_986_048_869_429_233_u64 + u64::from(study.patient_id()),
            2010 + image.exam % 8 - study.age().min(2000),
            study.sex().code(),
            if study.age() < 18 { "PED" } else { "No" },
            original.height,
            original.width,
            words.join(", ")
        );
    }
    text
}

/// The labels of VinDr-CXR in the order of its files.
const VINDR: [&str; 28] = [
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
    "No finding",
];

/// VinDr-CXR's word for a finding.
fn vindr_word(finding: Finding) -> &'static str {
    match finding {
        Finding::Atelectasis => "Atelectasis",
        Finding::Cardiomegaly => "Cardiomegaly",
        Finding::Effusion => "Pleural effusion",
        Finding::Infiltration => "Infiltration",
        Finding::Mass | Finding::Nodule => "Nodule/Mass",
        Finding::Pneumonia => "Pneumonia",
        Finding::Pneumothorax => "Pneumothorax",
        Finding::Consolidation => "Consolidation",
        Finding::Edema => "Edema",
        Finding::Emphysema => "Emphysema",
        Finding::Fibrosis => "Pulmonary fibrosis",
        Finding::PleuralThickening => "Pleural thickening",
        Finding::Hernia => "Other lesion",
    }
}

fn vindr(config: &PhantomConfig, placed: &[Placed<'_>]) -> Vec<(&'static str, String)> {
    let seed = config.seed();
    let mut train = format!("image_id,rad_id,{}\n", VINDR.join(","));
    let mut test = format!("image_id,{}\n", VINDR.join(","));
    let mut train_boxes = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n".to_owned();
    let mut test_boxes = "image_id,class_name,x_min,y_min,x_max,y_max\n".to_owned();
    for image in placed {
        let study = image.study;
        let id = hex(seed, "image", study.file_name(), 16);
        let drawn = study.boxes(config.side());
        let readers: &[&str] = match image.part {
            Part::Test => &[""],
            _ => &["R8", "R9", "R10"],
        };
        for reader in readers {
            // A reader overlooks a finding now and then.
            let sees = |finding: &Finding| {
                let key = format!("{} {reader} {}", study.file_name(), finding.name());
                reader.is_empty() || !Draws::keyed("layout reader", seed, &key).chance(0.1)
            };
            let seen: Vec<Finding> = study.labels().iter().filter(sees).collect();
            let words: Vec<&str> = seen.iter().map(|finding| vindr_word(*finding)).collect();
            let states: Vec<&str> = VINDR
                .iter()
                .map(|label| {
                    match words.contains(label) || (*label == "No finding" && words.is_empty()) {
                        true => "1",
                        false => "0",
                    }
                })
                .collect();
            let states = states.join(",");
            let (head, labels, boxes) = match reader.is_empty() {
                true => (id.clone(), &mut test, &mut test_boxes),
                false => (format!("{id},{reader}"), &mut train, &mut train_boxes),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(labels, "{head},{states}");
            if words.is_empty() {
                let _ = writeln!(boxes, "{head},No finding,,,,");
            }
            for found in drawn.iter().filter(|found| seen.contains(&found.finding)) {
                // The last labels of the list are of whole images.
                let word = vindr_word(found.finding);
                if word != "Pneumonia" {
                    let _ = writeln!(
                        boxes,
                        "{head},{word},{},{},{},{}",
                        found.x,
                        found.y,
                        found.x + found.width,
                        found.y + found.height
                    );
                }
            }
        }
    }
    vec![
        ("annotations/annotations_train.csv", train_boxes),
        ("annotations/annotations_test.csv", test_boxes),
        ("annotations/image_labels_test.csv", test),
        ("annotations/image_labels_train.csv", train),
    ]
}

/// RSNA's ids have the form of a UUID.
fn rsna_id(seed: u64, study: &Study) -> String {
    let digits = hex(seed, "rsna", study.file_name(), 16);
    let cuts = [0, 8, 12, 16, 20, 32];
    let groups = cuts
        .array_windows()
        .map(|&[begin, end]| digits.get(begin..end).unwrap_or_default());
    groups.collect::<Vec<_>>().join("-")
}

fn rsna(seed: u64, placed: &[Placed<'_>]) -> Vec<(&'static str, String)> {
    /// Boxes are of images of this side, whatever theirs is.
    const SIDE: usize = 1024;
    let mut labels = "patientId,x,y,width,height,Target\n".to_owned();
    let mut classes = "patientId,class\n".to_owned();
    for image in placed {
        let study = image.study;
        let id = rsna_id(seed, study);
        let is_opacity = |finding: Finding| {
            let opacities = [
                Finding::Consolidation,
                Finding::Infiltration,
                Finding::Pneumonia,
            ];
            opacities.contains(&finding) && study.labels().contains(finding)
        };
        let boxes: Vec<_> = (study.boxes(SIDE).into_iter())
            .filter(|found| is_opacity(found.finding))
            .collect();
        let class = match (boxes.is_empty(), study.labels().is_empty()) {
            (false, _) => "Lung Opacity",
            (true, true) => "Normal",
            (true, false) => "No Lung Opacity / Not Normal",
        };
        // Writing to a string cannot fail.
        for found in &boxes {
            let (left, upper) = (found.x.floor(), found.y.floor());
            let (width, height) = (found.width.floor().max(1.), found.height.floor().max(1.));
            let _ = writeln!(labels, "{id},{left:.1},{upper:.1},{width:.1},{height:.1},1");
            let _ = writeln!(classes, "{id},{class}");
        }
        if boxes.is_empty() {
            let _ = writeln!(labels, "{id},,,,,0");
            let _ = writeln!(classes, "{id},{class}");
        }
    }
    vec![
        ("stage_2_detailed_class_info.csv", classes),
        ("stage_2_train_labels.csv", labels),
    ]
}
