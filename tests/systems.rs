//! Published systems beside FZLPR in one experiment, by the program itself: variants with networks, images, test images and
//! label weights of their own, from phantoms to the report's tables. Everything is real and small.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

const EXPERIMENT: &str = r#"
name = "made"
[data]
validation = "patient"
[data.phantoms]
seed = 5
train_val = 90
test = 40
least_positives = [5, 3]
side = 64
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 1] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 9
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }

[[variants]]
name = "fzlpr-0.2"
loss = "fzlpr"
tau = 0.2

[[variants]]
name = "wang"
system = "wang-2017"
loss = "weighted-bce"
[variants.model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 1] } }
head = { transition = { channels = 8 } }
[variants.augmentation]
image_size = 40
crop_size = 32

[[variants]]
name = "wang-weighted"
system = "wang-2017"
loss = "weighted-bce"
of_training_set = 1
label_weights = { effective-number = 0.9 }
[variants.model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 1] } }
head = { transition = { channels = 8 } }

[[variants]]
name = "mine"
system = "of-my-own"
loss = "bce"
hold_out = 3
[variants.model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 1] } }
head = { dense = { hidden = [6] } }
"#;

fn cxr(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.current_dir(folder).env_remove("CXR_HOME");
    command.args(arguments).output().unwrap()
}

fn reproduce(folder: &Path, arguments: &[&str]) {
    let output = cxr(folder, &[&["reproduce", "made.toml"], arguments].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
}

/// The tables of a report but for the times.
fn tables(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder.join("models/runs/made/tables")).unwrap();
    let read = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        (name, text)
    };
    let mut tables: BTreeMap<String, String> = entries.map(|entry| read(entry.unwrap())).collect();
    tables.remove("time.csv");
    tables
}

#[test]
fn systems_with_networks_images_and_splits_of_their_own_end_in_one_report() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("made.toml"), EXPERIMENT).unwrap();
    // One system, by its name, is all of its variants.
    reproduce(folder.path(), &["--only", "wang-2017"]);
    let run = |name: &str| folder.path().join("models/runs/made").join(name);
    for (name, is_there) in [("wang", true), ("wang-weighted", true), ("mine", false)] {
        assert_eq!(run(name).join("metrics.json").is_file(), is_there, "{name}");
    }
    reproduce(folder.path(), &[]);
    assert!(run("images-40.store").is_file() && run("images-64.store").is_file());

    let tables = tables(folder.path());
    let systems = &tables["systems.csv"];
    let lines: Vec<Vec<&str>> = systems
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    let column = |name: &str| lines[0].iter().position(|head| *head == name).unwrap();
    let (chosen, hold_out) = (column("is_chosen"), column("hold_out"));
    let of = |variant: &str| lines.iter().find(|line| line[1] == variant).unwrap();
    let wang = ["wang", "wang-weighted"].map(|name| of(name)[chosen]);
    assert!(
        wang == ["true", "false"] || wang == ["false", "true"],
        "{systems}"
    );
    assert_eq!((of("mine")[hold_out], of("wang")[hold_out]), ("3", ""));
    for variant in ["wang", "wang-weighted", "mine"] {
        assert!(
            !of(variant)[column("untrained_single")].is_empty(),
            "{systems}"
        );
        assert!(
            !of(variant)[column("test_flip_zoom")].is_empty(),
            "{systems}"
        );
    }
    // Other test images: a third in whole patients, not those of the list.
    let labels = |name: &str| std::fs::read_to_string(run(name).join("labels-test.csv")).unwrap();
    assert_ne!(labels("mine"), labels("wang"));
    assert_eq!(labels("wang"), labels("fzlpr-0.2"));
    // Against FZLPR the system whose test images are the same, and no other.
    let tests = &tables["tests-systems.csv"];
    assert!(
        tests.contains(",fzlpr-0.2,Effusion,") && !tests.contains("mine"),
        "{tests}"
    );

    let report = std::fs::read_to_string(folder.path().join("models/runs/made/report.md")).unwrap();
    assert!(report.contains("Wang et al. 2017, here") && report.contains("of-my-own, here"));
    assert!(
        report.contains("**Not the official test images**: `mine`"),
        "{report}"
    );
    let model = run("mine").join("model.safetensors");
    let card = cxr(folder.path(), &["card", model.to_str().unwrap()]);
    let card = String::from_utf8_lossy(&card.stdout).into_owned();
    assert!(card.contains("one in 3 held out"), "{card}");
    let explained = cxr(
        folder.path(),
        &[
            "explain",
            run("wang").to_str().unwrap(),
            "--data",
            "data/phantoms/made",
            "--method",
            "grad-cam,class-activation",
        ],
    );
    let errors = String::from_utf8_lossy(&explained.stderr).into_owned();
    assert_eq!(explained.status.code(), Some(0), "{errors}");
    let scores = run("wang").join("explanations/explanations.json");
    let scores = std::fs::read_to_string(scores).unwrap();
    assert!(scores.contains("Class activation"), "{scores}");
}

#[test]
fn the_same_experiment_twice_has_the_same_tables() {
    let only = ["--only", "fzlpr-0.2,of-my-own"];
    let made = || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("made.toml"), EXPERIMENT).unwrap();
        reproduce(folder.path(), &only);
        tables(folder.path())
    };
    let (first, second) = (made(), made());
    assert!(first.contains_key("systems.csv"), "{:?}", first.keys());
    assert_eq!(first, second);
}

#[test]
fn weights_of_a_label_that_there_is_not_are_an_error_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let text = EXPERIMENT.replace("{ effective-number = 0.9 }", "{ given = { Hernai = 3.0 } }");
    std::fs::write(folder.path().join("made.toml"), text).unwrap();
    let output = cxr(
        folder.path(),
        &["reproduce", "made.toml", "--only", "wang-weighted"],
    );
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        errors.contains("Hernai") && errors.contains("Hernia"),
        "{errors}"
    );
}
