//! `cxr calibrate` and `cxr card`, run as a user runs them, with a model that was trained on phantoms.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod common;
#[path = "common/predictions.rs"]
mod predictions;

use std::path::Path;
use std::process::Output;

use common::{cxr, stderr, trained};
use parquet::record::Field;
use predictions::{RUN, ends, logits, parquet_rows, predict, rows, test_images, text, text_of};

/// `cxr calibrate` on the predictions and labels of the run's test images, of which each label has some: the few validation
/// images lack most.
fn calibrate(folder: &Path, more: &[&str]) -> Output {
    let predictions = format!("{RUN}/predictions-test.csv");
    let labels = format!("{RUN}/labels-test.csv");
    let fit = [
        "calibrate",
        RUN,
        "--predictions",
        &predictions,
        "--labels",
        &labels,
    ];
    cxr(folder, &[&fit[..], more].concat())
}

/// What `calibrate` fits is in the model's file, and `predict` uses it.
#[test]
fn a_calibrated_model_says_other_probabilities_of_the_same_logits() {
    let folder = trained();
    let folder = folder.path();
    test_images(folder);
    let plain = String::from_utf8(predict(folder, &["test"]).stdout).unwrap();
    let labels = format!("{RUN}/labels-test.csv");
    let fit = |more: &[&str]| {
        let outputs = ["--json", "fit.json", "--out", "new.safetensors"];
        calibrate(folder, &[&outputs[..], more].concat())
    };
    let sigma = |x: f64| 1. / (1. + (-x).exp());
    for (method, rule) in [
        ("platt", "sensitivity:1"),
        ("temperature", "youden"),
        ("isotonic", "specificity:0.8"),
        ("none", "f1"),
    ] {
        let output = fit(&["--method", method, "--threshold", rule]);
        ends(&output, 0);
        let fitted: serde_json::Value =
            serde_json::from_str(&text(&folder.join("fit.json"))).unwrap();
        let output = cxr(
            folder,
            &["predict", "new.safetensors", "test", "--out", "out.csv"],
        );
        ends(&output, 0);
        let table = text(&folder.join("out.csv"));
        assert_eq!(logits(&table), logits(&plain), "{method}");
        let (header, rows) = rows(&table);
        let mut n_fitted = 0;
        for (at, of_label) in fitted["labels"].as_array().unwrap().iter().enumerate() {
            assert_eq!(
                format!("logit_{}", of_label["label"].as_str().unwrap()),
                header[3 + at]
            );
            let calibration = &of_label["calibration"];
            let value = |key: &str| calibration[key].as_f64().unwrap();
            let threshold = of_label["threshold_logit"].as_f64().unwrap();
            let mut last: Option<(f64, f64)> = None;
            let mut by_logit: Vec<_> = rows.values().collect();
            by_logit.sort_by(|a, b| {
                let logit = |cells: &[String]| cells[3 + at].parse::<f64>().unwrap();
                logit(a).total_cmp(&logit(b))
            });
            for cells in by_logit {
                let logit = f64::from(cells[3 + at].parse::<f32>().unwrap());
                let probability: f64 = cells[17 + at].parse().unwrap();
                match calibration["method"].as_str().unwrap() {
                    "platt" => {
                        let expected = sigma(value("slope") * logit + value("intercept"));
                        assert!((probability - expected).abs() < 1e-12);
                    }
                    "temperature" => {
                        assert!((probability - sigma(logit / value("temperature"))).abs() < 1e-12);
                    }
                    "isotonic" => {
                        assert!((0. ..=1.).contains(&probability));
                        assert!(last.is_none_or(|(_, before)| before <= probability));
                    }
                    _ => assert!((probability - sigma(logit)).abs() < 1e-12),
                }
                last = Some((logit, probability));
                assert_eq!(
                    cells[31 + at] == "1",
                    logit > threshold,
                    "{method}, {}",
                    header[3 + at]
                );
            }
            // What the rule asked for holds where it was chosen.
            if !of_label["not_fitted"].is_null() {
                continue;
            }
            n_fitted += 1;
            match rule {
                "sensitivity:1" => assert_eq!(of_label["sensitivity"], 1.),
                "specificity:0.8" => {
                    assert!(of_label["specificity"].as_f64().unwrap() >= 0.8);
                }
                _ => {}
            }
        }
        // A temperature does not fit logits that point away from the truth, which those of so short a training may.
        let least = if method == "temperature" { 1 } else { 14 };
        assert!(n_fitted >= least, "{method}: {n_fitted} labels were fitted");
    }
    // Calibrated models are averaged by probabilities; a table of one cannot be fitted again.
    ends(&fit(&[]), 0);
    let both = [
        "predict",
        "new.safetensors",
        "test",
        "--with",
        "new.safetensors",
    ];
    ends(
        &cxr(folder, &[&both[..], &["--average", "logits"]].concat()),
        1,
    );
    let output = cxr(folder, &both);
    ends(&output, 0);
    // The mean of a model and itself is what it says alone.
    let alone = cxr(folder, &["predict", "new.safetensors", "test"]);
    let probabilities = |output: &Output| -> Vec<Vec<String>> {
        let (_, rows) = rows(&String::from_utf8(output.stdout.clone()).unwrap());
        rows.into_values()
            .map(|cells| cells[17..31].to_vec())
            .collect()
    };
    assert_eq!(probabilities(&output), probabilities(&alone));
    let again = [
        "calibrate",
        "new.safetensors",
        "--predictions",
        "out.csv",
        "--labels",
        &labels,
        "--out",
        "more.safetensors",
    ];
    ends(
        &cxr(
            folder,
            &["predict", "new.safetensors", "test", "--out", "out.csv"],
        ),
        0,
    );
    let output = cxr(folder, &again);
    ends(&output, 1);
    assert!(
        stderr(&output).contains("calibrated already"),
        "{}",
        stderr(&output)
    );
    // Another prevalence; wrong rules and labels.
    ends(&fit(&["--prevalence", "Mass=0.01"]), 0);
    ends(
        &fit(&["--prevalence", "Mass=0.01", "--method", "isotonic"]),
        1,
    );
    ends(&fit(&["--prevalence", "Nothing=0.01"]), 1);
    ends(&fit(&["--threshold", "sensitivity:2"]), 2);
    // The model itself is not replaced, and the run stays what it was.
    let model = format!("{RUN}/model.safetensors");
    ends(&calibrate(folder, &["--out", &model]), 1);
    assert_eq!(
        String::from_utf8(predict(folder, &["test"]).stdout).unwrap(),
        plain
    );
    // By default it goes beside the model, from the run's validation images.
    let output = cxr(folder, &["calibrate", RUN]);
    ends(&output, 0);
    assert!(
        folder
            .join(RUN)
            .join("model-calibrated.safetensors")
            .is_file()
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("intervals are by patient"), "{shown}");
}

/// The page of a model has the results of its run, in words and as YAML.
#[test]
fn a_model_has_a_page_with_its_results() {
    let folder = trained();
    let folder = folder.path();
    let output = cxr(folder, &["card", RUN, "--licence", "mit"]);
    ends(&output, 0);
    let page = String::from_utf8(output.stdout).unwrap();
    let (front, body) = page
        .strip_prefix("---\n")
        .unwrap()
        .split_once("\n---\n")
        .unwrap();
    let entry = |key: &str| -> serde_json::Value {
        let line = front
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key}: ")));
        serde_json::from_str(line.unwrap()).unwrap()
    };
    assert_eq!(entry("license"), "mit");
    let metrics: serde_json::Value =
        serde_json::from_str(&text(&folder.join(RUN).join("metrics.json"))).unwrap();
    let summary = &metrics["test"]["single"];
    let index = entry("model-index");
    let results = index[0]["results"][0]["metrics"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(results[0]["value"], summary["macro"]["auc"]);
    let labels = summary["labels"].as_array().unwrap();
    assert_eq!(
        results.len(),
        1 + labels
            .iter()
            .filter(|label| !label["auc"].is_null())
            .count()
    );
    for label in labels {
        let name = format!("AUC of {}", label["label"].as_str().unwrap());
        if let Some(result) = results
            .iter()
            .find(|result| result["name"] == name.as_str())
        {
            assert_eq!(result["value"], label["auc"]);
        }
        assert!(
            body.contains(&format!(
                "| {} | {} |",
                label["label"].as_str().unwrap(),
                label["positives"]
            )),
            "{body}"
        );
    }
    assert!(
        body.contains("Not a medical device") && body.contains("drawn, not taken"),
        "{body}"
    );
    // A model away from its run has a page without results, and says so.
    std::fs::copy(
        folder.join(RUN).join("model.safetensors"),
        folder.join("alone.safetensors"),
    )
    .unwrap();
    let output = cxr(folder, &["card", "alone.safetensors", "--out", "README.md"]);
    ends(&output, 0);
    assert!(
        stderr(&output).contains("no results"),
        "{}",
        stderr(&output)
    );
    assert!(!text(&folder.join("README.md")).contains("model-index"));
}

/// A model that has seen usual radiographs says of others how unlike they are.
#[test]
fn images_that_are_unlike_those_of_the_training_are_marked() {
    let folder = trained();
    let folder = folder.path();
    test_images(folder);
    let plain = String::from_utf8(predict(folder, &["test"]).stdout).unwrap();
    let fit = |more: &[&str]| {
        let keep = [
            "--method",
            "none",
            "--threshold",
            "keep",
            "--out",
            "new.safetensors",
        ];
        calibrate(folder, &[&keep[..], more].concat())
    };
    let output = fit(&["--reference", "data/images"]);
    ends(&output, 0);
    // What no radiograph is: one grey, and noise.
    for (name, value) in [("flat", None), ("noise", Some(7919))] {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 96, 96);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().unwrap();
        let pixels: Vec<u8> = (0..96 * 96u32)
            .map(|at| value.map_or(128, |factor: u32| (at.wrapping_mul(at ^ factor) >> 3) as u8))
            .collect();
        writer.write_image_data(&pixels).unwrap();
        drop(writer);
        std::fs::write(folder.join("test").join(format!("{name}.png")), bytes).unwrap();
    }
    for out in ["out.csv", "out.jsonl", "out.parquet"] {
        let arguments = [
            "predict",
            "new.safetensors",
            "test",
            "--tta",
            "hflip",
            "--out",
            out,
        ];
        ends(&cxr(folder, &arguments), 0);
    }
    let (header, rows) = rows(&text(&folder.join("out.csv")));
    assert_eq!(
        header[..6].join(","),
        "image,patient,study,distance,unusual,logit_Atelectasis"
    );
    for (name, cells) in &rows {
        let distance: f64 = cells[3].parse().unwrap();
        match name.as_str() {
            "flat.png" | "noise.png" => {
                assert!(distance > 1. && cells[4] == "1", "{name}: {distance}");
            }
            // They are among the reference images.
            _ => assert!(distance < 1e-3 && cells[4] == "0", "{name}: {distance}"),
        }
    }
    for line in text(&folder.join("out.jsonl")).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let row = &rows[line["image"].as_str().unwrap()];
        assert_eq!(line["distance"].as_f64().unwrap().to_string(), row[3]);
        assert_eq!(line["unusual"], row[4] == "1");
    }
    for row in parquet_rows(&folder.join("out.parquet")) {
        let cells = &rows[text_of(&row["image"])];
        let Field::Double(distance) = row["distance"] else {
            panic!("{:?}", row["distance"]);
        };
        assert_eq!(distance.to_string(), cells[3]);
    }
    // Nothing else has changed, and the model goes on being one for every command.
    let output = cxr(folder, &["predict", "new.safetensors", "test"]);
    let after = logits(&String::from_utf8(output.stdout).unwrap());
    assert!(
        logits(&plain)
            .iter()
            .all(|(name, logits)| after[name] == *logits)
    );
    ends(
        &cxr(
            folder,
            &["explain", "new.safetensors", "test", "--output", "maps"],
        ),
        0,
    );
    ends(
        &cxr(
            folder,
            &[
                "predict",
                "new.safetensors",
                "test",
                "--out",
                "p.csv",
                "--shard",
                "1/2",
            ],
        ),
        0,
    );
    ends(
        &cxr(
            folder,
            &[
                "predict",
                "new.safetensors",
                "test",
                "--out",
                "p.csv",
                "--shard",
                "2/2",
            ],
        ),
        0,
    );
    ends(&cxr(folder, &["predict", "--merge", "--out", "p.csv"]), 0);
    assert!(text(&folder.join("p.csv")).starts_with("image,patient,study,distance,unusual,"));
    ends(&fit(&["--reference", "test/flat.png"]), 1);
}
