//! `cxr reproduce` as a program: phantoms, trainings, pictures and the report, in their order; what fails, what is left
//! out, and Ctrl-C. Everything is real and small.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

const EXPERIMENT: &str = r#"
name = "made"

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
epochs = EPOCHS
schedule = { constant = { learning_rate = 1e-3 } }
"#;

const PHANTOMS: &str = "[data.phantoms]\nseed = 5\ntrain_val = 30\ntest = 14\nside = 64\n";

/// A folder with an experiment of these variants, on phantoms.
fn made(variants: &[&str]) -> TempDir {
    with_epochs(variants, 1)
}

fn with_epochs(variants: &[&str], epochs: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut text = EXPERIMENT.replace("EPOCHS", &epochs.to_string()) + PHANTOMS;
    for variant in variants {
        text += &format!("[[variants]]\nname = \"{variant}\"\nloss = \"bce\"\n");
    }
    std::fs::write(folder.path().join("made.toml"), text).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.current_dir(folder).env_remove("CXR_HOME");
    command.args(["reproduce", "made.toml"]).args(arguments);
    command
}

fn reproduce(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn run(folder: &Path, name: &str) -> PathBuf {
    folder.join("models/runs/made").join(name)
}

fn report(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("models/runs/made/report.md")).unwrap()
}

#[test]
fn an_experiment_on_phantoms_runs_from_nothing_to_a_report_and_only_once() {
    let folder = made(&["bce", "fzlpr-0.2"]);
    let output = reproduce(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let order = [
        "phantoms",
        "bce",
        "fzlpr-0.2",
        "explain fzlpr-0.2",
        "wall time",
    ];
    let places = order.map(|part| told.find(&format!("{part}\n")));
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{told}"
    );
    assert!(
        folder
            .path()
            .join("data/phantoms/made/PHANTOMS.txt")
            .is_file()
    );
    let explanations = run(folder.path(), "fzlpr-0.2").join("explanations");
    assert!(explanations.join("explanations.json").is_file());
    let text = report(folder.path());
    assert!(
        text.contains("2 finished runs: `bce`, `fzlpr-0.2`"),
        "{text}"
    );
    assert!(text.contains("cxr reproduce made.toml"), "{text}");

    let model = run(folder.path(), "bce").join("model.safetensors");
    let written = modified(&model);
    let output = reproduce(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert_eq!(modified(&model), written);
}

fn modified(path: &Path) -> SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn the_home_folder_has_data_and_runs_and_other_paths_are_the_caller_s() {
    let folder = made(&["bce"]);
    let here = folder.path().join("here");
    std::fs::create_dir(&here).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.current_dir(&here);
    command.args(["reproduce", "../made.toml", "--home", "../there"]);
    std::fs::create_dir(folder.path().join("there")).unwrap();
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let there = folder.path().join("there");
    assert!(there.join("data/phantoms/made").is_dir());
    assert!(run(&there, "bce").join("metrics.json").is_file());
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0);

    // A data set that is named is read as it is, and the runs go where they are told to.
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.current_dir(&here);
    command.args([
        "reproduce",
        "../made.toml",
        "--runs",
        "runs",
        "--home",
        "../there",
    ]);
    command.args(["--data", "../there/data/phantoms/made", "--jobs", "8"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!told.contains("phantoms\n"), "{told}");
    let predictions = "predictions-test.csv";
    assert_eq!(
        std::fs::read(here.join("runs/made/bce").join(predictions)).unwrap(),
        std::fs::read(run(&there, "bce").join(predictions)).unwrap()
    );
}

#[test]
fn without_phantoms_nothing_is_trained() {
    let folder = made(&["bce"]);
    let place = folder.path().join("data/phantoms/made");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("mine.txt"), "not a phantom").unwrap();
    let output = reproduce(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = errors(&output);
    assert!(told.contains("cannot write the phantoms"), "{told}");
    assert!(!run(folder.path(), "bce").exists());
    assert!(place.join("mine.txt").is_file());
}

#[test]
fn an_experiment_on_images_says_that_it_needs_them() {
    let folder = made(&["bce"]);
    let path = folder.path().join("made.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(PHANTOMS, "")).unwrap();
    let output = reproduce(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = errors(&output);
    assert!(told.contains("--data DIR"), "{told}");
    assert!(!folder.path().join("models").exists());
}

#[test]
fn only_runs_what_it_names_and_the_report_says_what_was_not_run() {
    let folder = made(&["bce", "focal"]);
    let output = reproduce(folder.path(), &["--only", "focal"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(!run(folder.path(), "bce").exists());
    let text = report(folder.path());
    assert!(text.contains("**Not run**: `bce`"), "{text}");
}

#[test]
fn a_part_without_runs_is_nothing_to_do() {
    let folder = made(&["bce", "zlpr"]);
    // The third of three parts of two runs.
    let output = reproduce(folder.path(), &["--shard", "3/3"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(errors(&output).contains("nothing to do"));
    assert!(!folder.path().join("models").exists());
}

#[test]
fn a_plan_runs_nothing() {
    let folder = made(&["bce", "zlpr"]);
    let output = reproduce(folder.path(), &["--plan"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in ["phantoms", "zlpr", "report", "together"] {
        assert!(told.contains(&format!("\n  {line} ")), "{line}: {told}");
    }
    assert!(!folder.path().join("models").exists());
}

#[test]
fn a_variant_that_fails_does_not_stop_the_others_and_is_named() {
    let folder = made(&["fails", "bce"]);
    // A file where the run's folder should be.
    let in_the_way = run(folder.path(), "fails");
    std::fs::create_dir_all(in_the_way.parent().unwrap()).unwrap();
    std::fs::write(&in_the_way, "").unwrap();
    let output = reproduce(folder.path(), &["--jobs", "2"]);
    assert_eq!(output.status.code(), Some(1));
    let told = errors(&output);
    assert!(told.contains("failed: fails"), "{told}");
    assert!(run(folder.path(), "bce").join("metrics.json").is_file());
    let text = report(folder.path());
    assert!(text.contains("One finished run: `bce`"), "{text}");
}

#[test]
fn ctrl_c_reaches_the_training_ends_with_130_and_starts_nothing_more() {
    let folder = with_epochs(&["long", "bce"], 1_000_000);
    let mut command = command(folder.path(), &[]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap();
    let events = run(folder.path(), "long").join("events.jsonl");
    wait_for(&child, || {
        std::fs::read_to_string(&events).is_ok_and(|text| text.contains("\"step\""))
    });
    let kill = format!("kill -s INT {}", child.id());
    let killed = Command::new("sh").args(["-c", &kill]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(130), "{told}");
    let checkpoint = run(folder.path(), "long").join("checkpoints/latest.safetensors");
    assert!(checkpoint.is_file(), "{told}");
    assert!(!run(folder.path(), "bce").exists());
    assert!(!folder.path().join("models/runs/made/report.md").exists());
}

fn wait_for(child: &Child, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "process {} never came so far",
            child.id()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_experiments_that_come_with_the_program_are_listed_and_printed() {
    let cxr = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        let output = command.arg("experiments").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let list = cxr(&[]);
    assert!(list.contains("\npatient-split\n  As `paper`"), "{list}");
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/demo.toml");
    assert_eq!(cxr(&["demo"]), std::fs::read_to_string(demo).unwrap());
}

/// The scripts themselves are run by `cargo xtask verify cluster`, in a real Slurm.
#[test]
fn scripts_for_slurm_name_every_run_once_and_a_dry_run_writes_nothing() {
    let folder = made(&["bce", "focal"]);
    let dry = reproduce(folder.path(), &["--seeds", "2", "--slurm", "--dry-run"]);
    assert!(dry.status.success(), "{}", errors(&dry));
    assert!(!folder.path().join("models").exists());
    let printed = String::from_utf8(dry.stdout).unwrap();
    let options = [
        "--seeds",
        "2",
        "--slurm",
        "--cpus",
        "3",
        "--sbatch=--partition=long",
    ];
    let written = reproduce(folder.path(), &options);
    assert!(written.status.success(), "{}", errors(&written));
    let scripts = folder.path().join("models/runs/made/slurm");
    let read = |name: &str| std::fs::read_to_string(scripts.join(name)).unwrap();
    for name in [
        "1-data.sh",
        "2-prepare.sh",
        "3-train.sh",
        "4-explain.sh",
        "5-report.sh",
        "submit.sh",
    ] {
        assert!(printed.contains(&format!("== {name}\n")), "{name}");
        let checked = Command::new("sh")
            .arg("-n")
            .arg(scripts.join(name))
            .status();
        assert!(checked.unwrap().success(), "{name} is a script");
        assert!(
            name == "submit.sh" || read(name).contains("\n#SBATCH --partition=long\n"),
            "{name}"
        );
    }
    assert_eq!(read("tasks.json").matches('"').count(), 2 * 4);
    let train = read("3-train.sh");
    assert!(train.contains("\n#SBATCH --array=0-3\n"), "{train}");
    for (task, (variant, seed)) in [
        ("bce", ""),
        ("focal", ""),
        ("bce", "--seed 1"),
        ("focal", "--seed 1"),
    ]
    .iter()
    .enumerate()
    {
        let lines: Vec<&str> = train
            .lines()
            .filter(|line| line.starts_with(&format!("{task}) ")))
            .collect();
        let [line] = lines[..] else { panic!("{train}") };
        assert!(
            line.contains(&format!("--variant {variant} {seed}").trim_end().to_owned()),
            "{line}"
        );
        assert!(line.contains("--threads 3"), "{line}");
    }
    let submit = read("submit.sh");
    assert!(submit.contains("--dependency=afterok:$prepare"), "{submit}");
    assert!(
        submit.contains("--dependency=afterany:$train:$explain"),
        "{submit}"
    );
}
