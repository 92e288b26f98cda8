//! A user's own table and folder, trained on through an experiment file, without Rust; and the
//! commands that plan and list runs.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const EXPERIMENT: &str = r#"
name = "own"

[data]
validation = "patient"

[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 8, block_layers = [1, 1] } }
head = { linear = {} }

[augmentation]
image_size = 40
crop_size = 32

[training]
batch_size = 8
last_batch = "drop"

[[training.stages]]
name = "all layers"
epochs = 4
schedule = { cosine = { learning_rate = 1e-2, min_learning_rate = 1e-4 } }

[[variants]]
name = "zlpr"
loss = "zlpr"
"#;

/// 120 pictures of 40 patients: bright or dark on the left, striped or not; a label is unknown in
/// some rows.
fn write_images(folder: &Path) {
    let images = folder.join("images");
    std::fs::create_dir_all(&images).unwrap();
    let mut table = String::from("image,patient,Bright left,Stripes\n");
    for number in 0..120usize {
        let (bright, stripes) = (number % 2, number / 2 % 2);
        let known = if number % 10 == 0 {
            String::new()
        } else {
            stripes.to_string()
        };
        table += &format!("{number:03}.png,{},{bright},{known}\n", number / 3);
        let noise = |place: usize| ((place * (number + 7) * 2_654_435_761) >> 7) % 40;
        let pixels: Vec<u8> = (0..48 * 48)
            .map(|place| {
                let (x, y) = (place % 48, place / 48);
                let left = if x < 24 { 80 * bright } else { 0 };
                let stripe = if y % 8 < 4 { 60 * stripes } else { 0 };
                (40 + left + stripe + noise(place)) as u8
            })
            .collect();
        let file = File::create(images.join(format!("{number:03}.png"))).unwrap();
        let mut png = png::Encoder::new(file, 48, 48);
        png.set_color(png::ColorType::Grayscale);
        png.write_header()
            .unwrap()
            .write_image_data(&pixels)
            .unwrap();
    }
    std::fs::write(folder.join("labels.csv"), table).unwrap();
}

fn cxr(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap()
}

/// Standard output of a call that must succeed.
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = cxr(folder, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// Images, table and lists in `mine`, and the experiment `own.toml`.
fn write_data(folder: &Path, experiment: &str) {
    write_images(&folder.join("mine"));
    std::fs::write(folder.join("own.toml"), experiment).unwrap();
    printed(
        folder,
        &[
            "inspect",
            "mine/labels.csv",
            "--hold-out",
            "4",
            "--write-lists",
            "mine",
        ],
    );
}

#[test]
fn an_own_table_is_split_planned_trained_and_listed_without_a_line_of_rust() {
    let bench = tempfile::tempdir().unwrap();
    let folder = bench.path();
    write_data(folder, EXPERIMENT);

    let train = [
        "train",
        "--experiment",
        "own.toml",
        "--variant",
        "zlpr",
        "--data",
        "mine",
    ];
    let plan = [
        "plan",
        "--experiment",
        "own.toml",
        "--data",
        "mine",
        "--json",
    ];
    let plan: Value = serde_json::from_str(&printed(folder, &plan)).unwrap();
    assert_eq!(
        ["train", "validation", "test"].map(|part| plan["images"][part].as_u64()),
        [81, 9, 30].map(Some)
    );
    assert_eq!(plan["stages"][0]["name"], "all layers");
    assert!(!folder.join("models").exists(), "a plan writes nothing");
    let none = String::from_utf8(cxr(folder, &["runs", "mine"]).stderr).unwrap();
    assert!(none.contains("no run in `mine`"), "{none}");

    let profile = [&train[..], &["--profile", "trace.json"]].concat();
    printed(folder, &profile);
    let trace = std::fs::read_to_string(folder.join("trace.json")).unwrap();
    let trace: Vec<Value> = serde_json::from_str(&trace).unwrap();
    assert_eq!(
        trace.iter().filter(|event| event["name"] == "step").count(),
        40
    );

    let runs: Value = serde_json::from_str(&printed(folder, &["runs", "--json"])).unwrap();
    let run = &runs.as_array().unwrap()[0];
    assert_eq!(run["state"], "finished");
    assert_eq!(run["stage"], Value::Null);
    let metrics =
        std::fs::read_to_string(folder.join("models/runs/own/zlpr/metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(
        run["best"]["validation_auc"],
        metrics["best_epoch"]["validation_auc"]
    );
    assert_eq!(run["loss"], metrics["history"][3]["mean_loss"]);
    // Anything but chance: brightness and stripes are plain to see.
    assert!(run["test_auc"].as_f64().unwrap() > 0.9, "{run}");
    let table = printed(folder, &["runs"]);
    assert!(
        table.contains("own/zlpr") && table.contains("finished"),
        "{table}"
    );
}

#[cfg(unix)]
#[test]
fn a_stopped_run_is_listed_with_its_place_and_a_running_one_as_running() {
    let bench = tempfile::tempdir().unwrap();
    let folder = bench.path();
    write_data(folder, &EXPERIMENT.replace("epochs = 4", "epochs = 400"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_cxr"))
        .current_dir(folder)
        .args([
            "train",
            "--experiment",
            "own.toml",
            "--variant",
            "zlpr",
            "--data",
            "mine",
        ])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let events = folder.join("models/runs/own/zlpr/events.jsonl");
    let lines = || {
        std::fs::read_to_string(&events)
            .unwrap_or_default()
            .lines()
            .count()
    };
    while lines() < 15 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let listed = || -> Value {
        let runs: Value = serde_json::from_str(&printed(folder, &["runs", "--json"])).unwrap();
        runs[0].clone()
    };
    let running = listed();
    assert_eq!(running["state"], "running", "{running}");
    assert_eq!(running["stage"], "all layers");
    let pid = child.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let stopped = listed();
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    // It goes on behind the last step that was made.
    let text = std::fs::read_to_string(&events).unwrap();
    let mut events = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let last = events.rfind(|event| event["event"] == "step").unwrap();
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
    let made = 10 * number(&last, "epoch") + number(&last, "step") + 1;
    assert_eq!(
        10 * number(&stopped, "epoch") + number(&stopped, "step"),
        made
    );
    let table = printed(folder, &["runs"]);
    assert!(table.contains("stopped: `all layers`, epoch"), "{table}");
}
