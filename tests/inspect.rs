//! `cxr inspect`, run as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not happen")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        let output = command
            .current_dir(self.0.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}\n{stdout}{stderr}"
        );
        assert!(!stderr.contains("panicked"), "{stderr}");
        (stdout, stderr)
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
    assert_eq!(json["labels"]["images"], 44);
    assert_eq!(json["labels"]["counts"].as_object().unwrap().len(), 14);
    let of = |part: usize| json["split"]["parts"][part]["n_images"].as_u64().unwrap();
    assert_eq!((of(0) + of(1), of(2)), (30, 14));
    assert_eq!(json["split"]["shared_patients"][0]["n_patients"], 0);
    assert_eq!(json["images"]["count"], 44);
    assert_eq!(json["images"]["sizes"]["96x96"], 44);
    assert_eq!(json["images"]["absent"], 0);
    assert_eq!(json["images"]["broken"], Value::Array(Vec::new()));
    // The matrix is symmetric, and its diagonal is the counts.
    let matrix = &json["labels"]["co_occurrence"];
    assert_eq!(matrix[2][5], matrix[5][2]);
    assert_eq!(
        matrix[13][13],
        json["labels"]["counts"]["Hernia"]["positive"]
    );

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
    let broken = json["images"]["broken"].as_array().unwrap();
    assert_eq!(broken.len(), 1);
    assert_eq!(
        broken[0]["image"],
        images[0].file_name().unwrap().to_str().unwrap()
    );
    assert_eq!(
        (&json["images"]["absent"], &json["images"]["in_no_part"]),
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
    assert_eq!(json["labels"]["release"], "user-table");
    assert_eq!(json["labels"]["patients"], 20);
    let fracture = &json["labels"]["counts"]["Rib fracture"];
    assert_eq!(
        (
            &fracture["positive"],
            &fracture["negative"],
            &fracture["unknown"]
        ),
        (&15.into(), &15.into(), &30.into())
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
    assert!(stdout.contains("(30 unknown)"), "{stdout}");
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
        assert_eq!(json["images"]["count"], 44, "{path}");
        assert_eq!(json["images"]["sizes"][sizes], 44, "{path}");
    }
    // A damaged pixel of the store.
    let mut bytes = std::fs::read(place.path("alone/a.store")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(place.path("alone/a.store"), bytes).unwrap();
    let json = place.json(&["inspect", "alone/a.store"], 3);
    assert_eq!(json["images"]["broken"].as_array().unwrap().len(), 1);
    // The metadata was found in the folder beside; without it there is no table to split.
    std::fs::rename(place.path("alone/data"), place.path("elsewhere")).unwrap();
    let (_, stderr) = place.ends(&["inspect", "alone/images", "--hold-out", "5"], 1);
    assert!(stderr.contains("--labels"), "{stderr}");
}
