//! `cxr predict`, run as a user runs it, with a model that was trained on phantoms.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod common;
#[path = "common/predictions.rs"]
mod predictions;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use common::{cxr, stderr, trained};
use parquet::record::Field;
use predictions::{
    RUN, ends, logits, own, parquet_rows, predict, rows, test_images, text, text_of,
};

/// With a list on standard input.
fn predict_listed(folder: &Path, list: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.current_dir(folder).args(["predict", RUN, "-"]);
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(list.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn predictions_are_those_of_the_run_to_the_last_bit() {
    let folder = trained();
    let folder = folder.path();
    let names = test_images(folder);
    let single = own(folder, "predictions-test.csv");
    let stdout = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();

    // A folder, in batches of every size, on any number of threads, with and without a file.
    for arguments in [
        &["test"][..],
        &["test", "--batch-size", "1", "--threads", "1"],
        &["test", "--batch-size", "5", "--threads", "3"],
        &["test/*.png"],
    ] {
        let output = predict(folder, arguments);
        ends(&output, 0);
        let found = logits(&stdout(&output));
        let by_file_name: BTreeMap<_, _> = found
            .into_iter()
            .map(|(name, logits)| (name.rsplit('/').next().unwrap().to_owned(), logits))
            .collect();
        assert_eq!(by_file_name, single, "{arguments:?}");
    }
    for (views, file) in [
        ("hflip", "predictions-test-hflip.csv"),
        ("hflip-zoom", "predictions-test-hflip-zoom.csv"),
    ] {
        let output = predict(folder, &["test", "--tta", views, "--out", "out.csv"]);
        ends(&output, 0);
        assert_eq!(logits(&text(&folder.join("out.csv"))), own(folder, file));
        assert_eq!(text(&folder.join("out.failed.csv")), "image,reason\n");
        assert!(!folder.join("out.csv.part").exists());
    }

    // An archive, a list, the prepared store.
    let mut zip = zip::ZipWriter::new(File::create(folder.join("films.zip")).unwrap());
    for name in &names {
        zip.start_file(
            format!("deep/{name}"),
            zip::write::SimpleFileOptions::default(),
        )
        .unwrap();
        zip.write_all(&std::fs::read(folder.join("test").join(name)).unwrap())
            .unwrap();
    }
    zip.finish().unwrap();
    let output = predict(folder, &["films.zip"]);
    ends(&output, 0);
    let expected: BTreeMap<_, _> = (single.iter())
        .map(|(name, logits)| (format!("deep/{name}"), logits.clone()))
        .collect();
    assert_eq!(logits(&stdout(&output)), expected);
    let list: String = names
        .iter()
        .map(|name| format!("test/{name}\r\n"))
        .collect();
    let output = predict_listed(folder, &list, &[]);
    ends(&output, 0);
    assert_eq!(logits(&stdout(&output)), single);
    let store = std::fs::read_dir(folder.join("models/runs/tiny")).unwrap();
    let store = store
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|ending| ending == "store"))
        .unwrap();
    let output = predict(folder, &[store.to_str().unwrap()]);
    ends(&output, 0);
    let found = logits(&stdout(&output));
    assert_eq!(found.len(), 38);
    assert!(single.iter().all(|(name, logits)| found[name] == *logits));

    // Probabilities and decisions follow.
    let output = predict(
        folder,
        &[
            "test",
            "--threshold",
            "0.4,Hernia=0.9",
            "--labels",
            "Mass,Hernia",
        ],
    );
    ends(&output, 0);
    let (header, rows) = rows(&stdout(&output));
    assert_eq!(
        header.join(","),
        "image,patient,study,logit_Mass,logit_Hernia,prob_Mass,prob_Hernia,positive_Mass,positive_Hernia"
    );
    for cells in rows.values() {
        let number = |at: usize| cells[at].parse::<f64>().unwrap();
        for (at, threshold) in [(0, 0.4), (1, 0.9)] {
            // A logit of one model is written as the single-precision number that it is.
            let logit = f64::from(cells[3 + at].parse::<f32>().unwrap());
            let probability = number(5 + at);
            assert!((probability - 1. / (1. + (-logit).exp())).abs() < 1e-12);
            assert_eq!(number(7 + at), f64::from(u8::from(probability > threshold)));
        }
    }
}

#[test]
fn several_models_are_averaged_and_only_of_the_same_labels() {
    let folder = trained();
    let folder = folder.path();
    test_images(folder);
    let seeded = [
        "train",
        "--experiment",
        "tiny.toml",
        "--variant",
        "bce",
        "--data",
        "data",
        "--seed",
        "7",
    ];
    ends(&cxr(folder, &seeded), 0);
    let other = "models/runs/tiny/bce-seed7";
    let of = |model: &str, more: &[&str]| {
        let output = cxr(folder, &[&["predict", model, "test"][..], more].concat());
        ends(&output, 0);
        rows(&String::from_utf8(output.stdout).unwrap())
    };
    let (header, one) = of(RUN, &[]);
    let (_, two) = of(other, &[]);
    let single = |rows: &BTreeMap<String, Vec<String>>, name: &str, at: usize| match header[at]
        .starts_with("logit_")
    {
        true => f64::from(rows[name][at].parse::<f32>().unwrap()),
        false => rows[name][at].parse().unwrap(),
    };
    let number = |rows: &BTreeMap<String, Vec<String>>, name: &str, at: usize| {
        rows[name][at].parse::<f64>().unwrap()
    };
    for (average, kind) in [("logits", "logit_"), ("probabilities", "prob_")] {
        let (_, both) = of(RUN, &["--with", other, "--average", average]);
        for name in one.keys() {
            for at in (0..header.len()).filter(|&at| header[at].starts_with(kind)) {
                let mean = f64::midpoint(single(&one, name, at), single(&two, name, at));
                // Seven digits of a mean that is a single-precision number by chance.
                let difference = number(&both, name, at) - mean;
                assert!(difference.abs() <= 1e-7 * mean.abs(), "{average}, {name}");
            }
            // The one follows from the other.
            for at in 0..14 {
                let (logit, probability) =
                    (number(&both, name, 3 + at), number(&both, name, 17 + at));
                assert!((probability - 1. / (1. + (-logit).exp())).abs() < 1e-8);
            }
        }
    }
}

/// A radiograph of 64×64 pixels as a DICOM file, with a patient and a study.
fn dicom(view: &str, modality: &str) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    bytes.extend(b"DICM");
    let mut short = |group: u16, element: u16, vr: &[u8; 2], value: &[u8]| {
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == b"UI" { 0 } else { b' ' });
        }
        bytes.extend(group.to_le_bytes());
        bytes.extend(element.to_le_bytes());
        bytes.extend(vr);
        if vr == b"OW" || vr == b"OB" {
            bytes.extend([0, 0]);
            bytes.extend((value.len() as u32).to_le_bytes());
        } else {
            bytes.extend((value.len() as u16).to_le_bytes());
        }
        bytes.extend(value);
    };
    short(2, 0x10, b"UI", b"1.2.840.10008.1.2.1");
    short(8, 0x60, b"CS", modality.as_bytes());
    short(0x10, 0x20, b"LO", b"P, 7");
    short(0x18, 0x5101, b"CS", view.as_bytes());
    short(0x20, 0xd, b"UI", b"1.2.3.4");
    short(0x28, 2, b"US", &1u16.to_le_bytes());
    short(0x28, 4, b"CS", b"MONOCHROME2");
    short(0x28, 0x10, b"US", &64u16.to_le_bytes());
    short(0x28, 0x11, b"US", &64u16.to_le_bytes());
    for (element, value) in [(0x100, 16u16), (0x101, 12), (0x102, 11), (0x103, 0)] {
        short(0x28, element, b"US", &value.to_le_bytes());
    }
    let pixels: Vec<u8> = (0..64 * 64u16)
        .flat_map(|at| (at % 4096).to_le_bytes())
        .collect();
    short(0x7fe0, 0x10, b"OW", &pixels);
    bytes
}

/// MONAI#7391 and others: one broken file of a thousand ended the whole work.
#[test]
fn what_cannot_be_used_is_named_and_the_rest_go_on() {
    let folder = trained();
    let folder = folder.path();
    let names = test_images(folder);
    let whole = std::fs::read(folder.join("test").join(&names[0])).unwrap();
    let mut colour = Vec::new();
    {
        let mut encoder = png::Encoder::new(&mut colour, 8, 8);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        let pixels: Vec<u8> = (0..64).flat_map(|_| [250, 10, 10]).collect();
        writer.write_image_data(&pixels).unwrap();
    }
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let broken: [(&str, Vec<u8>, &str); 10] = [
        ("a-empty.png", Vec::new(), "empty"),
        (
            "b-cut.png",
            whole[..whole.len() / 2].to_vec(),
            "truncated or damaged PNG",
        ),
        ("c-flipped.png", flipped, "truncated or damaged PNG"),
        ("d-text.jpg", b"<html>404</html>".to_vec(), "expected a PNG"),
        ("e-photograph.png", colour, "colour"),
        ("f-lateral.dcm", dicom("LL", "DX"), "lateral"),
        ("g-slice.dcm", dicom("PA", "CT"), "modality `CT`"),
        ("h-zeros.png", vec![0; 5000], "expected a PNG"),
        ("i-cut.dcm", dicom("PA", "DX")[..400].to_vec(), ""),
        ("j-start.jpg", vec![0xff, 0xd8, 0xff, 0xe0, 0, 16], "JPEG"),
    ];
    for (name, bytes, _) in &broken {
        std::fs::write(folder.join("test").join(name), bytes).unwrap();
    }
    std::fs::write(folder.join("test/film.dcm"), dicom("PA", "DX")).unwrap();
    let output = predict(folder, &["test", "--out", "out.csv", "--batch-size", "3"]);
    ends(&output, 3);
    let found = logits(&text(&folder.join("out.csv")).replace("\"P, 7\"", "P 7"));
    let single = own(folder, "predictions-test.csv");
    assert_eq!(found.len(), single.len() + 1);
    assert!(single.iter().all(|(name, logits)| found[name] == *logits));
    let table = text(&folder.join("out.csv"));
    assert!(table.contains("film.dcm,\"P, 7\",1.2.3.4,"), "{table}");
    let failed = text(&folder.join("out.failed.csv"));
    assert_eq!(failed.lines().count(), 1 + broken.len());
    for (name, _, reason) in &broken {
        let line = failed
            .lines()
            .find(|line| line.starts_with(&format!("{name},")));
        let line = line.unwrap_or_else(|| panic!("{name}: {failed}"));
        assert!(
            line.contains(reason) && line.len() > name.len() + 8,
            "{line}"
        );
        assert!(
            stderr(&output).contains(&format!("`{name}`: ")),
            "{}",
            stderr(&output)
        );
    }
    // Nothing but failures is a result too, and so is a folder without images an error.
    let output = predict(folder, &["test/a-empty.png", "--out", "none.jsonl"]);
    ends(&output, 3);
    assert_eq!(text(&folder.join("none.jsonl")), "");
    std::fs::create_dir(folder.join("empty")).unwrap();
    ends(&predict(folder, &["empty"]), 1);
    ends(&predict(folder, &["nowhere/*.png"]), 1);
    ends(&predict(folder, &["nowhere.png"]), 1);
}

/// Parts join to what one call gives, and to nothing where one is missing, unfinished, or of something else.
#[test]
fn parts_join_to_the_whole() {
    let folder = trained();
    let folder = folder.path();
    test_images(folder);
    std::fs::write(folder.join("test/broken.png"), b"no").unwrap();
    ends(&predict(folder, &["test", "--out", "whole.csv"]), 3);
    let part = |number: usize| {
        let shard = format!("{number}/4");
        predict(folder, &["test", "--out", "out.csv", "--shard", &shard])
    };
    let merge = || cxr(folder, &["predict", "--merge", "--out", "out.csv"]);
    for number in [1, 2, 4] {
        assert!([0, 3].contains(&part(number).status.code().unwrap()));
    }
    let output = merge();
    ends(&output, 1);
    assert!(
        stderr(&output).contains("part 3 of 4 is missing"),
        "{}",
        stderr(&output)
    );
    // By Slurm's own variables.
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command
        .current_dir(folder)
        .args(["predict", RUN, "test", "--out", "out.csv"]);
    command
        .env("SLURM_ARRAY_TASK_ID", "12")
        .env("SLURM_ARRAY_TASK_MIN", "10");
    let output = command.env("SLURM_ARRAY_TASK_COUNT", "4").output().unwrap();
    assert!(
        [0, 3].contains(&output.status.code().unwrap()),
        "{}",
        stderr(&output)
    );

    let third = folder.join("out.csv.part-3-of-4");
    let bytes = std::fs::read(&third).unwrap();
    std::fs::write(&third, &bytes[..bytes.len() - 20]).unwrap();
    let output = merge();
    ends(&output, 1);
    assert!(
        stderr(&output).contains("part 3 of 4 is not finished"),
        "{}",
        stderr(&output)
    );
    // What was cut goes on.
    assert!([0, 3].contains(&part(3).status.code().unwrap()));
    assert_eq!(std::fs::read(&third).unwrap(), bytes);

    ends(&merge(), 3);
    assert_eq!(
        text(&folder.join("out.csv")),
        text(&folder.join("whole.csv"))
    );
    assert_eq!(
        text(&folder.join("out.failed.csv")),
        text(&folder.join("whole.failed.csv"))
    );

    // Of another setting, or of other images.
    let output = predict(
        folder,
        &[
            "test", "--out", "out.csv", "--shard", "3/4", "--tta", "hflip",
        ],
    );
    ends(&output, 1);
    std::fs::remove_file(&third).unwrap();
    let output = predict(
        folder,
        &[
            "test", "--out", "out.csv", "--shard", "3/4", "--tta", "hflip",
        ],
    );
    assert!([0, 3].contains(&output.status.code().unwrap()));
    let output = merge();
    ends(&output, 1);
    assert!(
        stderr(&output).contains("of other images, models or settings"),
        "{}",
        stderr(&output)
    );
}

/// A process that is killed at any moment loses no answer and repeats none.
#[test]
fn a_killed_call_goes_on_where_it_was() {
    let folder = trained();
    let folder = folder.path();
    std::fs::create_dir(folder.join("many")).unwrap();
    let images = std::fs::read_dir(folder.join("data/images")).unwrap();
    let images: Vec<PathBuf> = images.map(|entry| entry.unwrap().path()).collect();
    for round in 0..6 {
        for image in &images {
            let name = format!("{round}-{}", image.file_name().unwrap().to_str().unwrap());
            std::fs::copy(image, folder.join("many").join(name)).unwrap();
        }
    }
    let arguments = ["many", "--batch-size", "2", "--out"];
    ends(
        &predict(folder, &[&arguments[..], &["whole.jsonl"]].concat()),
        0,
    );
    let part = folder.join("out.jsonl.part");
    let mut lines_before = 0;
    for round in 1..=5u64 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command
            .current_dir(folder)
            .args(["predict", RUN])
            .args(arguments)
            .arg("out.jsonl");
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        // As soon as so many lines are there, at whatever it is doing then.
        let wanted = lines_before + 10 + (round as usize * 7) % 5;
        let begin = std::time::Instant::now();
        loop {
            let lines = std::fs::read(&part).unwrap_or_default();
            let n_lines = lines.iter().filter(|&&byte| byte == b'\n').count();
            if n_lines >= wanted {
                break;
            }
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it was killed"
            );
            assert!(begin.elapsed().as_secs() < 120, "it does not go on");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = std::fs::read(&part).unwrap();
        lines_before = lines.iter().filter(|&&byte| byte == b'\n').count();
        assert!(!folder.join("out.jsonl").exists());
        // And a line that the kill has cut, which is rare.
        let mut file = File::options().append(true).open(&part).unwrap();
        file.write_all(br#"{"at":3,"ima"#).unwrap();
    }
    let output = predict(folder, &[&arguments[..], &["out.jsonl"]].concat());
    ends(&output, 0);
    assert!(stderr(&output).contains("going on"), "{}", stderr(&output));
    assert_eq!(
        text(&folder.join("out.jsonl")),
        text(&folder.join("whole.jsonl"))
    );
    assert_eq!(
        text(&folder.join("out.jsonl")).lines().count(),
        6 * images.len()
    );
}

/// The same numbers in every form.
#[test]
fn forms_agree() {
    let folder = trained();
    let folder = folder.path();
    test_images(folder);
    std::fs::write(folder.join("test/film.dcm"), dicom("PA", "DX")).unwrap();
    for out in ["out.csv", "out.jsonl", "out.parquet"] {
        ends(&predict(folder, &["test", "--out", out]), 0);
    }
    let table = text(&folder.join("out.csv")).replace("\"P, 7\"", "P 7");
    let (header, rows) = rows(&table);
    let lines = text(&folder.join("out.jsonl"));
    assert_eq!(lines.lines().count(), rows.len());
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let row = &rows[line["image"].as_str().unwrap()];
        for (name, cell) in header.iter().zip(row).skip(3) {
            let (kind, label) = name.split_once('_').unwrap();
            let value = &line["labels"][label];
            let number: f64 = cell.parse().unwrap();
            match kind {
                // A single-precision logit is written so in CSV.
                "logit" => assert_eq!(value["logit"].as_f64().unwrap() as f32, number as f32),
                "prob" => assert_eq!(value["probability"].as_f64().unwrap(), number),
                _ => assert_eq!(value["positive"].as_bool().unwrap(), number == 1.),
            }
        }
    }
    assert!(lines.contains(r#""patient":"P, 7","study":"1.2.3.4""#));
    let mut n_rows = 0;
    for row in parquet_rows(&folder.join("out.parquet")) {
        let image = text_of(&row["image"]);
        let cells = &rows[image];
        n_rows += 1;
        for (name, cell) in header.iter().zip(cells).skip(3) {
            let number: f64 = cell.parse().unwrap();
            match &row[name.as_str()] {
                Field::Bool(is_positive) => assert_eq!(f64::from(*is_positive), number),
                Field::Float(value) => assert_eq!(*value, number as f32),
                // A single-precision logit is written so in CSV.
                Field::Double(value) => assert_eq!(*value as f32, number as f32),
                other => panic!("{name}: {other}"),
            }
        }
        let patient = match &row["patient"] {
            Field::Null => None,
            patient => Some(text_of(patient)),
        };
        assert_eq!(patient, (image == "film.dcm").then_some("P, 7"));
    }
    assert_eq!(n_rows, rows.len());
    // What is somebody else's is not replaced.
    std::fs::write(folder.join("mine.csv"), "a,b\n").unwrap();
    ends(&predict(folder, &["test", "--out", "mine.csv"]), 1);
    assert_eq!(text(&folder.join("mine.csv")), "a,b\n");
    ends(&predict(folder, &["test", "--out", "mine.txt"]), 1);
    ends(&predict(folder, &["test", "--out", "out.csv"]), 0);
}

/// What `predict` writes, `score` reads: the figures are those of the run's own predictions.
#[test]
fn predictions_are_scored() {
    let folder = trained();
    let folder = folder.path();
    test_images(folder);
    ends(&predict(folder, &["test", "--out", "out.csv"]), 0);
    let score = |predictions: &str| -> serde_json::Value {
        let labels = "data/Data_Entry_2017_v2020.csv";
        let arguments = [
            "score",
            predictions,
            "--labels",
            labels,
            "--by-patient",
            "--json",
            "out.json",
            "--force",
        ];
        ends(&cxr(folder, &arguments), 0);
        serde_json::from_str(&text(&folder.join("out.json"))).unwrap()
    };
    let (ours, own) = (
        score("out.csv"),
        score(&format!("{RUN}/predictions-test.csv")),
    );
    assert_eq!(ours["labels"].as_array().unwrap().len(), 14);
    for (ours, own) in ours["labels"]
        .as_array()
        .unwrap()
        .iter()
        .zip(own["labels"].as_array().unwrap())
    {
        for key in [
            "label",
            "positives",
            "auc",
            "auc_interval_clustered",
            "average_precision",
        ] {
            assert_eq!(ours[key], own[key], "{key}");
        }
    }
}
