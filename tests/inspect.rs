//! `cxr inspect`, run as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not happen")]

#[path = "common/ended.rs"]
mod ended;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use ended::ends_in;
use serde_json::Value;
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A folder with phantoms in `data/`.
    fn new() -> Self {
        let place = Self::empty();
        let size = |images| ListSize {
            images,
            least_positives: 1,
        };
        let config = PhantomConfig::new(5, size(30), size(14)).unwrap();
        let config = config.with_side(96).unwrap();
        let stop = AtomicBool::new(false);
        write_dataset(&config, &place.path("data"), &|_| (), &stop).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs, and must end so.
    fn ends(&self, arguments: &[&str], code: i32) -> (String, String) {
        ends_in(self.0.path(), arguments, code)
    }

    fn json(&self, arguments: &[&str], code: i32) -> Value {
        let (stdout, _) = self.ends(&[arguments, &["--json"]].concat(), code);
        serde_json::from_str(&stdout).unwrap()
    }
}

#[test]
fn a_data_folder_is_told_whole() {
    let place = Place::new();
    let json = place.json(&["inspect", "data", "--split", "patient"], 0);
    assert_eq!(json["images"], 44);
    assert_eq!(json["labels"].as_object().unwrap().len(), 14);
    let of = |part: usize| json["split"]["parts"][part]["n_images"].as_u64().unwrap();
    assert_eq!((of(0) + of(1), of(2)), (30, 14));
    assert_eq!(json["split"]["shared_patients"][0]["n_patients"], 0);
    assert_eq!(json["image_files"]["count"], 44);
    assert_eq!(json["image_files"]["sizes"]["96x96"], 44);
    assert_eq!(json["image_files"]["absent"], 0);
    assert_eq!(json["image_files"]["broken"], Value::Array(Vec::new()));
    // The matrix is symmetric, and its diagonal is the counts.
    let matrix = &json["co_occurrence"];
    assert_eq!(matrix[2][5], matrix[5][2]);
    assert_eq!(matrix[13][13], json["labels"]["Hernia"]["positives"]);

    let (stdout, _) = place.ends(&["inspect", "data"], 0);
    for part in [
        "█",
        "(no finding)",
        "images with both",
        "patients in both train and validation",
        "44 of 96×96",
        "none is broken",
    ] {
        assert!(stdout.contains(part), "{part} is missing in\n{stdout}");
    }
}

#[test]
fn broken_absent_and_unlisted_images_are_counted_and_named() {
    let place = Place::new();
    let mut images: Vec<PathBuf> = std::fs::read_dir(place.path("data/images"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    images.sort();
    let bytes = std::fs::read(&images[0]).unwrap();
    std::fs::write(&images[0], &bytes[..bytes.len() / 2]).unwrap();
    std::fs::rename(&images[1], place.path("data/images/unlisted.png")).unwrap();
    let json = place.json(&["inspect", "data"], 3);
    let broken = json["image_files"]["broken"].as_array().unwrap();
    assert_eq!(broken.len(), 1);
    assert_eq!(
        broken[0]["image"],
        images[0].file_name().unwrap().to_str().unwrap()
    );
    assert_eq!(
        (
            &json["image_files"]["absent"],
            &json["image_files"]["in_no_part"]
        ),
        (&1.into(), &1.into())
    );
    let (stdout, _) = place.ends(&["inspect", "data"], 3);
    assert!(
        stdout.contains("1 cannot be used") && stdout.contains("truncated"),
        "{stdout}"
    );
    place.ends(&["inspect", "data", "--no-images"], 0);
}

#[test]
fn splits_are_written_read_back_and_filtered() {
    let place = Place::new();
    let split = |more: &[&str]| {
        let base = [
            "inspect",
            "data",
            "--no-images",
            "--split",
            "patient-fold-1-of-3",
            "--seed",
            "4",
        ];
        place.json(&[base.as_slice(), more].concat(), 0)
    };
    let written = split(&["--write-split", "a.csv"]);
    assert_eq!(written["split"]["rule"], "patient-fold 1 of 3");
    split(&["--write-split", "b.csv"]);
    let text = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(text("a.csv"), text("b.csv"));
    let back = place.json(
        &["inspect", "data", "--no-images", "--split-file", "a.csv"],
        0,
    );
    assert_eq!(back["split"], written["split"]);

    // A subset is taken after the split: the others keep their part and are counted.
    let subset = split(&["--view", "pa", "--min-age", "18", "--write-split", "c.csv"]);
    assert_eq!(subset["subset"], "view PA, at least 18 years");
    let parts = |report: &Value, key: &str| -> u64 {
        report["split"]["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| part[key].as_u64().unwrap())
            .sum()
    };
    assert!(parts(&subset, "n_excluded") > 0);
    assert_eq!(
        parts(&subset, "n_images") + parts(&subset, "n_excluded"),
        44
    );
    let lines: Vec<String> = text("a.csv").lines().map(str::to_owned).collect();
    let kept: Vec<String> = text("c.csv").lines().skip(6).map(str::to_owned).collect();
    assert!(kept.iter().all(|line| lines.contains(line)));
    let (_, stderr) = place.ends(&["inspect", "data", "--split", "luck"], 2);
    assert!(stderr.contains("patient-fold-0-of-5"), "{stderr}");
}

#[test]
fn an_own_table_gets_lists_and_a_split() {
    let place = Place::empty();
    let mut table = "image,patient,age,Edema,Rib fracture\n".to_owned();
    for number in 0..60 {
        let state = ["1", "0", "-1", ""][number % 4];
        table += &format!(
            "{number}.png,p{},{},{},{state}\n",
            number / 3,
            number,
            number % 2
        );
    }
    std::fs::create_dir(place.path("mine")).unwrap();
    std::fs::write(place.path("mine/labels.csv"), table).unwrap();
    let arguments = [
        "inspect",
        "mine/labels.csv",
        "--hold-out",
        "5",
        "--split",
        "patient",
        "--write-lists",
        "mine",
    ];
    let json = place.json(&arguments, 0);
    assert_eq!(json["format"], "user-table");
    assert_eq!(json["patients"], 20);
    let fracture = &json["labels"]["Rib fracture"];
    assert_eq!(
        (
            &fracture["positives"],
            &fracture["negatives"],
            &fracture["uncertain"],
            &fracture["unknown"]
        ),
        (&15.into(), &15.into(), &15.into(), &15.into())
    );
    assert_eq!(json["split"]["parts"][2]["n_images"], 12);
    let shared = json["split"]["shared_patients"].as_array().unwrap();
    assert!(
        shared.iter().all(|shared| shared["n_patients"] == 0),
        "{shared:?}"
    );
    // The lists that were written are those of the next call.
    let again = place.json(&["inspect", "mine/labels.csv", "--split", "patient"], 0);
    assert_eq!(again["split"], json["split"]);
    let (stdout, _) = place.ends(&["inspect", "mine/labels.csv"], 0);
    assert!(stdout.contains("(15 uncertain, 15 unknown)"), "{stdout}");
}

#[test]
fn stores_archives_and_folders_without_a_table_are_looked_at_too() {
    let place = Place::new();
    std::fs::create_dir(place.path("alone")).unwrap();
    std::fs::rename(place.path("data/images"), place.path("alone/images")).unwrap();
    std::fs::rename(place.path("data"), place.path("alone/data")).unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(place.path("alone/a.tar")).unwrap());
    tar.append_dir_all("images", place.path("alone/images"))
        .unwrap();
    tar.finish().unwrap();
    place.ends(
        &[
            "prepare",
            "alone/images",
            "--side",
            "32",
            "--out",
            "alone/a.store",
        ],
        0,
    );
    for (path, sizes) in [
        ("alone/images", "96x96"),
        ("alone/a.tar", "96x96"),
        ("alone/a.store", "32x32"),
    ] {
        let json = place.json(&["inspect", path], 0);
        assert_eq!(json["image_files"]["count"], 44, "{path}");
        assert_eq!(json["image_files"]["sizes"][sizes], 44, "{path}");
    }
    // A damaged pixel of the store.
    let mut bytes = std::fs::read(place.path("alone/a.store")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(place.path("alone/a.store"), bytes).unwrap();
    let json = place.json(&["inspect", "alone/a.store"], 3);
    assert_eq!(json["image_files"]["broken"].as_array().unwrap().len(), 1);
    // The metadata was found in the folder beside; without it there is no table to split.
    std::fs::rename(place.path("alone/data"), place.path("elsewhere")).unwrap();
    let (_, stderr) = place.ends(&["inspect", "alone/images", "--hold-out", "5"], 1);
    assert!(stderr.contains("--labels"), "{stderr}");
}

const CHEXPERT: &str = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices
CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0
CheXpert-v1.0/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,1.0,,,,,,,,,0.0,,,,1.0
CheXpert-v1.0/train/patient00002/study1/view1_frontal.jpg,Male,0,Frontal,LL,,,-1.0,,,,,,,,,,,
";

/// Most programs for CheXpert count a blank as 0; here it is so only where somebody says it.
#[test]
fn blank_cells_are_negative_where_that_is_asked_for() {
    let place = Place::empty();
    std::fs::write(place.path("train.csv"), CHEXPERT).unwrap();
    let counts = |json: &serde_json::Value, label: &str| {
        let of = |key: &str| json["labels"][label][key].as_u64().unwrap();
        let counts = ["positives", "negatives", "uncertain", "unknown"].map(of);
        (counts, json["blank"][label].as_u64().unwrap())
    };
    let inspect = |rules: &[&str]| {
        let rules = rules.iter().flat_map(|rule| ["--blank", rule]);
        let arguments: Vec<&str> = ["inspect", "train.csv"].into_iter().chain(rules).collect();
        place.json(&arguments, 0)
    };
    let plain = inspect(&[]);
    assert_eq!(counts(&plain, "Cardiomegaly"), ([0, 0, 1, 2], 2));
    assert_eq!(counts(&plain, "Pneumothorax"), ([0, 2, 0, 1], 1));
    assert_eq!(inspect(&["unknown"]), plain);
    let negative = inspect(&["negative"]);
    assert_eq!(counts(&negative, "Cardiomegaly"), ([0, 2, 1, 0], 0));
    assert_eq!(counts(&negative, "Pneumothorax"), ([0, 3, 0, 0], 0));
    assert_ne!(negative["index_fingerprint"], plain["index_fingerprint"]);
    let warnings = negative["warnings"].as_array().unwrap();
    // Of 42 cells seven are filled.
    assert!(
        warnings.iter().any(|warning| warning["count"] == 42 - 7),
        "{warnings:?}"
    );
    for rules in [
        ["negative", "Cardiomegaly=unknown"],
        ["Cardiomegaly=unknown", "negative"],
    ] {
        let but_one = inspect(&rules);
        assert_eq!(counts(&but_one, "Cardiomegaly"), ([0, 0, 1, 2], 2));
        assert_eq!(counts(&but_one, "Pneumothorax"), ([0, 3, 0, 0], 0));
    }
    let one = inspect(&["Pneumothorax=negative"]);
    assert_eq!(counts(&one, "Pneumothorax"), ([0, 3, 0, 0], 0));
    assert_eq!(counts(&one, "Cardiomegaly"), ([0, 0, 1, 2], 2));
    let arguments = ["inspect", "train.csv", "--blank", "zeros"];
    let (_, stderr) = place.ends(&arguments, 2);
    assert!(stderr.contains("`unknown` or `negative`"), "{stderr}");
    let arguments = ["inspect", "train.csv", "--blank", "Hernia=negative"];
    let (_, stderr) = place.ends(&arguments, 1);
    assert!(stderr.contains("`Hernia`"), "{stderr}");
}

#[test]
fn a_published_table_is_told_without_its_images() {
    let place = Place::empty();
    std::fs::write(place.path("train.csv"), CHEXPERT).unwrap();
    let json = place.json(&["inspect", "train.csv"], 0);
    assert_eq!(json["format"], "chexpert");
    assert_eq!(
        (&json["images"], &json["patients"], &json["studies"]),
        (&3.into(), &2.into(), &2.into())
    );
    assert_eq!(
        json["views"],
        serde_json::json!({"AP": 1, "LL": 1, "lateral": 1})
    );
    let heart = serde_json::json!({"positives": 0, "negatives": 0, "uncertain": 1, "unknown": 2});
    assert_eq!(json["labels"]["Cardiomegaly"], heart);
    assert_eq!(json["official_parts"]["train"]["images"], 3);
    assert_eq!(json["age_years"]["unknown"], 1);
    assert_eq!(json["warnings"].as_array().unwrap().len(), 2);
    let (stdout, _) = place.ends(&["inspect", "."], 0);
    for part in [
        "CheXpert",
        "studies: 2",
        "official parts, in images: train 3",
        "note: frontal images with a lateral direction",
    ] {
        assert!(stdout.contains(part), "{part} is missing in\n{stdout}");
    }
    let (_, stderr) = place.ends(&["inspect", "train.csv", "--format", "padchest"], 1);
    assert!(
        stderr.contains("the column `Labels` is missing"),
        "{stderr}"
    );
    let (_, stderr) = place.ends(&["inspect", "train.csv", "--format", "dicom"], 2);
    assert!(stderr.contains("chexpert, cxr-lt"), "{stderr}");
    let (stdout, _) = place.ends(&["fetch", "--help"], 0);
    assert!(
        stdout.contains("MIMIC-CXR-JPG: credentialed access"),
        "{stdout}"
    );
}

#[test]
fn readers_are_joined_as_the_command_line_says() {
    let place = Place::empty();
    let table = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n\
        a,Cardiomegaly,3,R1,1,1,9,9\na,Cardiomegaly,3,R2,1,1,9,9\na,Pneumothorax,12,R3,1,1,9,9\n";
    std::fs::write(place.path("train.csv"), table).unwrap();
    for (rule, heart, pneumothorax) in [("any", 1, 1), ("majority", 1, 0), ("all", 0, 0)] {
        let json = place.json(&["inspect", "train.csv", "--readers", rule], 0);
        assert_eq!(json["readers"], rule);
        assert_eq!(json["patients"], Value::Null);
        assert_eq!(json["labels"]["Cardiomegaly"]["positives"], heart, "{rule}");
        assert_eq!(
            json["labels"]["Pneumothorax"]["positives"], pneumothorax,
            "{rule}"
        );
    }
    let (_, stderr) = place.ends(&["inspect", "train.csv", "--readers", "two"], 2);
    assert!(stderr.contains("any"), "{stderr}");
}
