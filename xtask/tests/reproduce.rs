//! `cargo xtask reproduce` as a program: the order of its children, failures and Ctrl-C. Cargo and the
//! trainer are shell scripts here, as what is tested is how they are called and what becomes of their
//! endings; the end-to-end tests of the workspace train with the real ones.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Says where the trainer lies, as cargo does.
const CARGO: &str = r#"#!/bin/sh
echo "build $*" >> "$MADE/calls"
printf '{"reason":"compiler-artifact","target":{"name":"cxr"},"executable":"%s/cxr"}\n' "$MADE"
"#;

/// Finishes a run, fails, or waits until it is told to stop. Phantoms it only notes, unless they fail.
const TRAINER: &str = r#"#!/bin/sh
echo "$*" >> "$MADE/calls"
if [ "$1" = phantoms ]; then
    test ! -e "$MADE/no-phantoms"
    exit
fi
while [ $# -gt 0 ]; do
    case $1 in
        --variant) variant=$2 ;;
        --runs) runs=$2 ;;
    esac
    shift
done
mkdir -p "$runs/made/$variant"
case $variant in
    fails) exit 1 ;;
    waits)
        trap 'echo told >> "$MADE/calls"; exit 130' INT
        touch "$MADE/waiting"
        for _ in 1 2 3 4 5 6 7 8 9 10; do sleep 1; done
        ;;
esac
sed "s/VARIANT/$variant/" "$MADE/metrics.json" > "$runs/made/$variant/metrics.json"
"#;

/// A folder with the scripts and an experiment of these variants.
fn made(variants: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("cargo", CARGO), ("cxr", TRAINER)] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut experiment = "name = \"made\"\nanything = \"else\"\n".to_owned();
    for variant in variants {
        experiment.push_str(&format!("[[variants]]\nname = \"{variant}\"\n"));
    }
    std::fs::write(folder.path().join("made.toml"), experiment).unwrap();
    let parts = serde_json::json!({"train": 4, "validation": 2, "test": 2});
    let metrics = serde_json::json!({
        "experiment": "made", "variant": "VARIANT", "loss": "bce", "loss_parameters": {}, "seed": 0,
        "data": {
            "release": "a user's table", "validation_split": "paper", "images": parts,
            "absent": {"train": 0, "validation": 0, "test": 0}, "patients": parts,
            "shared_patients_train_validation": 0, "phantom": false,
        },
        "validation": {}, "test": {}, "best_epoch": null, "history": [],
        "seconds": {"prepare": 0.0, "train": {}, "predict": 0.0},
    });
    std::fs::write(folder.path().join("metrics.json"), metrics.to_string()).unwrap();
    folder
}

fn reproduce(folder: &Path, arguments: &[&str]) -> Child {
    reproduce_without_data(folder, &[&["--data", "images"], arguments].concat())
}

fn reproduce_without_data(folder: &Path, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("reproduce")
        .arg("made.toml")
        .args(arguments)
        .args(["--runs", "runs"])
        .current_dir(folder)
        .env("CARGO", folder.join("cargo"))
        .env("MADE", folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The exit code, and what was written to standard error.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn calls(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("calls")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_variant_runs_with_absolute_paths_and_the_report_stands_at_the_end() {
    let folder = made(&["bce", "fzlpr-0.2"]);
    let (code, errors) = end(reproduce(folder.path(), &["--allow-missing"]));
    assert_eq!(code, Some(0), "{errors}");
    let place = folder.path().canonicalize().unwrap();
    let place = place.display();
    let train = |variant: &str| {
        format!(
            "train --experiment {place}/made.toml --variant {variant} --data {place}/images \
             --allow-missing --runs {place}/runs --device cpu"
        )
    };
    let calls = calls(folder.path());
    assert!(
        calls[0].starts_with("build build --release --package cxr "),
        "{calls:?}"
    );
    // The pictures are of the finished run that the paper shows them of.
    let explain = format!(
        "explain {place}/runs/made/fzlpr-0.2 --device cpu --data {place}/images --allow-missing"
    );
    assert_eq!(calls[1..], [train("bce"), train("fzlpr-0.2"), explain]);
    let report = std::fs::read_to_string(folder.path().join("runs/made/report.md")).unwrap();
    assert!(
        report.contains("2 finished runs: `bce`, `fzlpr-0.2`"),
        "{report}"
    );
    assert!(
        report.contains("cargo xtask reproduce made.toml --data images"),
        "{report}"
    );
}

/// The experiment of [`made`] says which phantoms it is made on.
fn on_phantoms(folder: &Path) {
    let path = folder.join("made.toml");
    let experiment = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{experiment}[data.phantoms]\nseed = 1\n")).unwrap();
}

#[test]
fn an_experiment_on_phantoms_needs_no_data_and_has_them_written_first() {
    let folder = made(&["bce"]);
    on_phantoms(folder.path());
    let (code, errors) = end(reproduce_without_data(folder.path(), &[]));
    assert_eq!(code, Some(0), "{errors}");
    let calls = calls(folder.path());
    assert!(
        calls[1].starts_with("phantoms --experiment ") && calls[1].ends_with(" --replace"),
        "{calls:?}"
    );
    let data = |call: &str| {
        let mut words = call.split(' ').skip_while(|word| *word != "--data");
        words.nth(1).map(str::to_owned)
    };
    assert!(
        data(&calls[1]).unwrap().ends_with("data/phantoms/made"),
        "{calls:?}"
    );
    assert_eq!(data(&calls[1]), data(&calls[2]));

    // A folder that is named is read as it is.
    std::fs::remove_file(folder.path().join("calls")).unwrap();
    let (code, errors) = end(reproduce(folder.path(), &[]));
    assert_eq!(code, Some(0), "{errors}");
    let calls = self::calls(folder.path());
    assert!(
        !calls.iter().any(|call| call.starts_with("phantoms")),
        "{calls:?}"
    );
}

#[test]
fn without_phantoms_nothing_is_trained() {
    let folder = made(&["bce"]);
    on_phantoms(folder.path());
    std::fs::write(folder.path().join("no-phantoms"), "").unwrap();
    let (code, errors) = end(reproduce_without_data(folder.path(), &[]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("cannot write the phantoms"), "{errors}");
    assert_eq!(calls(folder.path()).len(), 2);
}

#[test]
fn an_experiment_on_images_says_that_it_needs_them() {
    let folder = made(&["bce"]);
    let (code, errors) = end(reproduce_without_data(folder.path(), &[]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("--data DIR"), "{errors}");
    assert!(!folder.path().join("calls").exists());
}

#[test]
fn only_runs_what_it_names_and_the_report_says_what_was_not_run() {
    let folder = made(&["bce", "focal"]);
    let (code, errors) = end(reproduce(folder.path(), &["--only", "focal"]));
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(calls(folder.path()).len(), 2);
    let report = std::fs::read_to_string(folder.path().join("runs/made/report.md")).unwrap();
    assert!(report.contains("**Not run**: `bce`"), "{report}");
}

#[test]
fn a_part_without_runs_is_nothing_to_do() {
    let folder = made(&["bce", "zlpr"]);
    // The third of three parts of two runs.
    let (code, errors) = end(reproduce(folder.path(), &["--shard", "3/3"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(!folder.path().join("calls").exists());
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn more_jobs_than_runs_leave_each_run_all_the_threads_that_are_there() {
    let folder = made(&["bce"]);
    let (code, errors) = end(reproduce(folder.path(), &["--jobs", "8"]));
    assert_eq!(code, Some(0), "{errors}");
    let calls = calls(folder.path());
    let train = calls
        .iter()
        .find(|call| call.starts_with("train "))
        .unwrap();
    assert!(!train.contains("--threads"), "{train}");
}

#[test]
fn a_variant_that_fails_does_not_stop_the_others_and_is_told() {
    let folder = made(&["fails", "bce"]);
    let (code, errors) = end(reproduce(folder.path(), &[]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("failed: fails"), "{errors}");
    assert!(folder.path().join("runs/made/bce/metrics.json").is_file());
    let report = std::fs::read_to_string(folder.path().join("runs/made/report.md")).unwrap();
    assert!(report.contains("One finished run: `bce`"), "{report}");
}

#[test]
fn ctrl_c_tells_the_child_once_ends_with_130_and_starts_nothing_more() {
    let folder = made(&["waits", "bce"]);
    let child = reproduce(folder.path(), &[]);
    let begin = Instant::now();
    while !folder.path().join("waiting").exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "the trainer never began"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    let kill = format!("kill -s INT {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let (code, errors) = end(child);
    assert_eq!(code, Some(130), "{errors}");
    let calls = calls(folder.path());
    assert_eq!(
        calls.iter().filter(|call| *call == "told").count(),
        1,
        "{calls:?}"
    );
    assert!(
        !calls.iter().any(|call| call.contains("--variant bce")),
        "{calls:?}"
    );
    assert!(!folder.path().join("runs/made/report.md").exists());
}
