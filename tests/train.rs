//! `cxr train` and `cxr evaluate`, run as a user runs them, on phantoms.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::AtomicBool;

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use serde_json::Value;
use tempfile::TempDir;

const EXPERIMENT: &str = r#"
name = "tiny"

[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56

[training]
batch_size = 6

[[training.stages]]
name = "top network"
epochs = 1
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-3 } }

[[training.stages]]
name = "all layers"
epochs = 2
schedule = { cosine = { learning_rate = 1e-3, min_learning_rate = 1e-5 } }

[[variants]]
name = "fzlpr-0.2"
loss = "fzlpr"
tau = 0.2
"#;

/// A folder with phantoms in `data/`, an experiment file, and runs in `runs/`.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let size = |images| ListSize {
            images,
            least_positives: 1,
        };
        let config = PhantomConfig::new(5, size(30), size(14))
            .unwrap()
            .with_side(96)
            .unwrap();
        write_dataset(
            &config,
            &bench.path("data"),
            &|_| (),
            &AtomicBool::new(false),
        )
        .unwrap();
        std::fs::write(bench.path("experiment.toml"), EXPERIMENT).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run_folder(&self, runs: &str) -> PathBuf {
        self.path(runs).join("tiny/fzlpr-0.2")
    }

    fn train(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command.current_dir(self.0.path());
        command.args([
            "train",
            "--experiment",
            "experiment.toml",
            "--variant",
            "fzlpr-0.2",
        ]);
        command.args(["--data", "data"]).args(arguments);
        command
    }

    /// An image that is trained on.
    fn listed_image(&self) -> PathBuf {
        let list = std::fs::read_to_string(self.path("data/train_val_list.txt")).unwrap();
        self.path("data/images").join(list.lines().next().unwrap())
    }

    /// Training must fail so, and leave nothing of the run behind.
    fn fails(&self, arguments: &[&str], expected: &[&str]) {
        let output = self.train(arguments).output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        for part in expected {
            assert!(message.contains(part), "expected {part:?} in:\n{message}");
        }
        assert!(!message.contains("panicked"), "{message}");
        let run = self.run_folder("models/runs");
        for file in ["metrics.json", "model.safetensors", "predictions-test.csv"] {
            assert!(!run.join(file).exists(), "{file} was written");
        }
        assert_eq!(temporary_files(self.0.path()), Vec::<PathBuf>::new());
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn temporary_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(temporary_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "tmp") {
            found.push(path);
        }
    }
    found
}

/// Jobs of an array begin at once and want the same prepared images: one makes them, the others wait for it or find them.
#[test]
fn jobs_that_prepare_the_same_images_at_once_end_with_one_good_store() {
    let bench = Bench::new();
    let prepare = |runs: &str| {
        let mut command = bench.train(&["--runs", runs, "--prepare-only", "--threads", "1"]);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let alone = prepare("alone").wait_with_output().unwrap();
    assert!(alone.status.success(), "{}", stderr(&alone));
    let jobs: Vec<Child> = (0..3).map(|_| prepare("shared")).collect();
    let mut prepared = Vec::new();
    for job in jobs {
        let output = job.wait_with_output().unwrap();
        let message = stderr(&output);
        assert!(output.status.success(), "{message}");
        let line = message
            .lines()
            .find(|line| line.starts_with("images: ") && line.contains("prepared"));
        prepared.push(line.unwrap().to_owned());
    }
    prepared.sort();
    let none = "images: 0 prepared, 44 were prepared before";
    let all = "images: 44 prepared, 0 were prepared before";
    assert_eq!(prepared, [none, none, all]);
    let store = |runs: &str| std::fs::read(bench.path(runs).join("tiny/images-64.store")).unwrap();
    assert!(store("alone") == store("shared"));
    assert!(!bench.run_folder("shared").exists(), "nothing is trained");
    assert_eq!(temporary_files(bench.0.path()), Vec::<PathBuf>::new());
}

/// Each process of a launcher would train the whole run, and all but the first would fail because the folder is in use.
#[cfg(not(feature = "mpi"))]
#[test]
fn ranks_of_a_launcher_are_refused_by_a_program_without_mpi() {
    let bench = Bench::new();
    for variable in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"] {
        let mut train = bench.train(&[]);
        let output = train.env(variable, "4").output().unwrap();
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        for expected in ["4 processes", "built without MPI", "--features mpi"] {
            assert!(message.contains(expected), "{message}");
        }
        assert!(!bench.path("models").exists());
    }
}

#[test]
fn a_run_ends_with_everything_a_report_needs_and_a_second_call_returns_at_once() {
    let bench = Bench::new();
    let output = bench.train(&["--runs", "runs"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let run = bench.run_folder("runs");
    for file in [
        "experiment.toml",
        "environment.json",
        "events.jsonl",
        "checkpoints/latest.safetensors",
        "model.safetensors",
        "predictions-validation.csv",
        "predictions-validation-hflip.csv",
        "predictions-validation-hflip-zoom.csv",
        "predictions-test.csv",
        "predictions-test-hflip.csv",
        "predictions-test-hflip-zoom.csv",
    ] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let metrics = std::fs::read_to_string(run.join("metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["data"]["phantom"], true);
    assert_eq!(metrics["data"]["images"]["test"], 14);
    assert_eq!(metrics["test"]["hflip-zoom"]["n_images"], 14);
    assert_eq!(metrics["history"].as_array().unwrap().len(), 3);
    // The model file says the same of the validation images.
    let card = cxr_model::ModelCard::read(&run.join("model.safetensors")).unwrap();
    let (of_card, of_metrics) = (card.validation.unwrap(), &metrics["validation"]["single"]);
    let labels = of_metrics["labels"].as_array().unwrap();
    let aucs: Vec<Option<f64>> = labels.iter().map(|label| label["auc"].as_f64()).collect();
    assert_eq!(of_card.labels, aucs);
    assert_eq!(of_card.mean, of_metrics["means"]["auc"].as_f64());
    assert_eq!(
        of_card.images as u64,
        of_metrics["n_images"].as_u64().unwrap()
    );
    let events = std::fs::read_to_string(run.join("events.jsonl")).unwrap();
    let steps = events
        .lines()
        .filter(|line| line.contains(r#""event":"step""#))
        .count();
    // 27 training images in batches of 6, three epochs.
    assert_eq!(steps, 15);
    // Anybody's tool gets the same numbers from the files.
    let score = Command::new(env!("CARGO_BIN_EXE_cxr"))
        .current_dir(bench.0.path())
        .arg("score")
        .arg(run.join("predictions-test.csv"))
        .args([
            "--labels",
            "data/Data_Entry_2017_v2020.csv",
            "--json",
            "score.json",
        ])
        .output()
        .unwrap();
    assert!(score.status.success(), "{}", stderr(&score));
    let score = std::fs::read_to_string(bench.path("score.json")).unwrap();
    let score: Value = serde_json::from_str(&score).unwrap();
    let auc = |value: &Value| value["macro"]["auc"].as_f64();
    assert_eq!(auc(&score), auc(&metrics["test"]["single"]));

    let again = bench.train(&["--runs", "runs"]).output().unwrap();
    assert!(again.status.success());
    assert!(stderr(&again).contains("is finished"), "{}", stderr(&again));

    let predictions = std::fs::read(run.join("predictions-test.csv")).unwrap();
    std::fs::remove_file(run.join("predictions-test.csv")).unwrap();
    let evaluate = Command::new(env!("CARGO_BIN_EXE_cxr"))
        .current_dir(bench.0.path())
        .arg("evaluate")
        .arg(&run)
        .args(["--data", "data"])
        .output()
        .unwrap();
    assert!(evaluate.status.success(), "{}", stderr(&evaluate));
    assert_eq!(
        std::fs::read(run.join("predictions-test.csv")).unwrap(),
        predictions
    );
}

/// Runs `cxr` and expects it to succeed; returns what it told.
fn cxr(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cxr"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_backbone_trained_on_nuisance_begins_a_run_on_findings() {
    let bench = Bench::new();
    let folder = bench.0.path();
    let phantoms = |name: &str, data: &str| {
        let text = EXPERIMENT.replace("[model]", &format!("[data.phantoms]\n{data}\n[model]"));
        let text = text.replace("\"tiny\"", &format!("\"{name}\""));
        std::fs::write(bench.path(&format!("{name}.toml")), text).unwrap();
    };
    let nuisance = "seed = 8\ntrain_val = 30\ntest = 10\nside = 64\nlabels = \"nuisance\"";
    phantoms("nuisance", nuisance);
    let write = [
        "phantoms",
        "--experiment",
        "nuisance.toml",
        "--data",
        "other",
    ];
    let told = cxr(folder, &write);
    assert!(told.contains("40 drawn"), "{told}");
    let told = cxr(folder, &write);
    assert!(told.contains("all were there"), "{told}");
    // Other settings are refused, or take the place of the earlier.
    phantoms("nuisance", &nuisance.replace("seed = 8", "seed = 9"));
    let refused = Command::new(env!("CARGO_BIN_EXE_cxr"))
        .current_dir(folder)
        .args(write)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("phantoms of another configuration"));
    let told = cxr(folder, &[&write[..], &["--replace"]].concat());
    assert!(
        told.contains("were removed") && told.contains("40 drawn"),
        "{told}"
    );

    let train = |experiment: &str, data: &str| {
        let variant = ["train", "--variant", "fzlpr-0.2", "--runs", "runs"];
        let of = ["--experiment", experiment, "--data", data];
        cxr(folder, &[&variant[..], &of].concat())
    };
    train("nuisance.toml", "other");
    let model = "runs/nuisance/fzlpr-0.2/model.safetensors";
    cxr(
        folder,
        &[
            "backbone",
            model,
            "--out",
            "weights.safetensors",
            "--licence",
            "MIT",
        ],
    );

    let text = EXPERIMENT.replace("[model]", "[model]\nweights = \"weights.safetensors\"");
    std::fs::write(bench.path("experiment.toml"), text).unwrap();
    train("experiment.toml", "data");
    let load = |path: PathBuf| candle_core::safetensors::load(path, &candle_core::Device::Cpu);
    let pretrained = load(bench.path("weights.safetensors")).unwrap();
    assert!(pretrained.keys().all(|name| name.starts_with("features.")));
    let values = |tensor: &candle_core::Tensor| {
        let flat = tensor.flatten_all().unwrap();
        flat.to_vec1::<f32>().unwrap()
    };
    let checkpoints = bench.run_folder("runs").join("checkpoints");
    let [first, second] = [0, 1]
        .map(|stage| load(checkpoints.join(format!("before-stage-{stage}.safetensors"))).unwrap());
    for (name, weights) in &pretrained {
        // The first stage trains the top network alone.
        assert_eq!(values(&first[name]), values(weights), "{name}");
        assert_eq!(values(&second[name]), values(weights), "{name}");
    }
    let top = "top.dense2.weight";
    assert_ne!(values(&first[top]), values(&second[top]));

    let metrics = std::fs::read_to_string(bench.run_folder("runs").join("metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&metrics).unwrap();
    let stages = metrics["stages"].as_array().unwrap();
    let before: Vec<&str> = stages
        .iter()
        .filter_map(|stage| stage["before"].as_str())
        .collect();
    assert_eq!(before, ["top network", "all layers"]);
    // The last epoch of the first stage was validated with the same network.
    assert_eq!(
        stages[1]["validation"]["auc"],
        metrics["history"][0]["validation_auc"]
    );
    for stage in stages {
        let auc = stage["test"]["auc"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&auc), "{stage}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_exits_with_130_and_goes_on_to_the_same_bits() {
    let bench = Bench::new();
    assert!(
        bench
            .train(&["--runs", "whole"])
            .output()
            .unwrap()
            .status
            .success()
    );
    let mut interrupted = 0;
    loop {
        let mut child: Child = bench
            .train(&["--runs", "cut", "--threads", "1"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let events = bench.run_folder("cut").join("events.jsonl");
        let before = std::fs::read_to_string(&events)
            .unwrap_or_default()
            .lines()
            .count();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            let now = std::fs::read_to_string(&events)
                .unwrap_or_default()
                .lines()
                .count();
            if interrupted < 3 && now > before + 2 {
                let pid = child.id().to_string();
                Command::new("kill").args(["-INT", &pid]).status().unwrap();
                break child.wait().unwrap();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        };
        match status.code() {
            Some(0) => break,
            Some(130) => interrupted += 1,
            other => panic!("exit code {other:?}"),
        }
    }
    assert!(
        interrupted > 0,
        "the run was over before it could be interrupted"
    );
    for file in ["model.safetensors", "predictions-test-hflip-zoom.csv"] {
        let read = |runs: &str| std::fs::read(bench.run_folder(runs).join(file)).unwrap();
        assert!(read("cut") == read("whole"), "{file} differs");
    }
}

/// A checkpoint that does not fit: writing fails as on a full disk, with another error number.
#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_last_one_whole() {
    let bench = Bench::new();
    let whole = bench.train(&["--runs", "whole"]).output().unwrap();
    assert!(whole.status.success(), "{}", stderr(&whole));
    // Interrupted after its first step, a run has a checkpoint.
    let mut child = bench
        .train(&["--runs", "cut"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let events = bench.run_folder("cut").join("events.jsonl");
    while !std::fs::read_to_string(&events).is_ok_and(|text| text.contains("\"step\"")) {
        assert!(child.try_wait().unwrap().is_none(), "over too early");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let pid = child.id().to_string();
    Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let checkpoint = bench
        .run_folder("cut")
        .join("checkpoints/latest.safetensors");
    let before = std::fs::read(&checkpoint).unwrap();

    // No file may become as large as that; the signal that would end the process is ignored, so that
    // writing fails.
    let mut limited = Command::new("sh");
    let limit = format!(
        "trap '' XFSZ; ulimit -f {}; exec \"$@\"",
        before.len() / 1024 / 2
    );
    let command = bench.train(&["--runs", "cut"]);
    limited.current_dir(bench.0.path());
    limited
        .args(["-c", &limit, "sh"])
        .arg(command.get_program());
    let output = limited.args(command.get_args()).output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write `"), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    assert!(std::fs::read(&checkpoint).unwrap() == before);
    assert_eq!(temporary_files(bench.0.path()), Vec::<PathBuf>::new());

    let output = bench.train(&["--runs", "cut"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for file in ["model.safetensors", "predictions-test.csv"] {
        let read = |runs: &str| std::fs::read(bench.run_folder(runs).join(file)).unwrap();
        assert!(read("cut") == read("whole"), "{file} differs");
    }
}

#[test]
fn a_missing_image_is_an_error_unless_that_is_allowed() {
    let bench = Bench::new();
    let image = bench.listed_image();
    let name = image.file_name().unwrap().to_str().unwrap().to_owned();
    std::fs::remove_file(&image).unwrap();
    bench.fails(
        &[],
        &[
            "1 of 44 listed images are missing",
            &name,
            "--allow-missing",
        ],
    );
    let output = bench.train(&["--allow-missing"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("1 of 44 listed images are missing"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_truncated_image_is_named() {
    let bench = Bench::new();
    let image = bench.listed_image();
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let name = image.file_name().unwrap().to_str().unwrap();
    bench.fails(&[], &["1 of 44 images cannot be used", name]);
    assert!(!bench.path("models/runs/tiny/images-64.store").exists());
}

#[test]
fn a_label_outside_the_fourteen_is_named_with_its_row() {
    let bench = Bench::new();
    let path = bench.path("data/Data_Entry_2017_v2020.csv");
    let table = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    let fields: Vec<&str> = lines[3].split(',').collect();
    let changed = [&[fields[0], "Scoliosis"], &fields[2..]].concat().join(",");
    lines[3] = changed;
    std::fs::write(&path, lines.join("\n")).unwrap();
    bench.fails(&[], &["Data_Entry_2017_v2020.csv", "Scoliosis", "4"]);
}

#[test]
fn an_unknown_key_of_an_experiment_file_is_named() {
    let bench = Bench::new();
    let text = EXPERIMENT.replace("batch_size", "batchsize");
    std::fs::write(bench.path("experiment.toml"), text).unwrap();
    bench.fails(
        &[],
        &[
            "experiment.toml",
            "batchsize",
            "expected one of",
            "batch_size",
        ],
    );
}

#[test]
#[cfg(not(feature = "cuda"))]
fn a_gpu_is_refused_by_a_build_without_cuda_before_anything_is_made() {
    let bench = Bench::new();
    bench.fails(
        &["--device", "cuda"],
        &["built without CUDA", "--features cuda", "docs/cuda.md"],
    );
    assert!(!bench.path("models").exists());
}

#[test]
fn weights_of_another_network_are_refused_tensor_by_tensor() {
    use candle_core::{DType, Device, Tensor};
    use std::collections::HashMap;

    let bench = Bench::new();
    assert!(
        bench
            .train(&["--runs", "first"])
            .output()
            .unwrap()
            .status
            .success()
    );
    let model = bench.run_folder("first").join("model.safetensors");
    let trained = candle_core::safetensors::load(&model, &Device::Cpu).unwrap();
    let features: HashMap<String, Tensor> = trained
        .into_iter()
        .filter(|(name, _)| name.starts_with("features."))
        .collect();
    let text = EXPERIMENT.replace("[model]", "[model]\nweights = \"weights.safetensors\"");
    std::fs::write(bench.path("experiment.toml"), text).unwrap();
    let stem = "features.conv0.weight";
    let mut missing = features.clone();
    missing.remove(stem);
    let mut extra = features.clone();
    extra.insert("features.conv1.weight".to_owned(), features[stem].clone());
    let mut reshaped = features.clone();
    let other = Tensor::zeros((8, 3, 5, 5), DType::F32, &Device::Cpu).unwrap();
    reshaped.insert(stem.to_owned(), other);
    for (weights, expected) in [
        (missing, "`features.conv0.weight` is missing"),
        (extra, "`features.conv1.weight` is not part of the network"),
        (
            reshaped,
            "`features.conv0.weight` has shape [8, 3, 5, 5], expected [8, 3, 7, 7]",
        ),
    ] {
        candle_core::safetensors::save(&weights, bench.path("weights.safetensors")).unwrap();
        bench.fails(&[], &["weights.safetensors", expected]);
    }
    candle_core::safetensors::save(&features, bench.path("weights.safetensors")).unwrap();
    let output = bench.train(&[]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
