//! What is damaged, changed or taken away under `cxr`: an error that says so, and never other results or a run that is
//! worse than before.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
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
name = "all layers"
epochs = 2
schedule = { constant = { learning_rate = 1e-3 } }

[[variants]]
name = "bce"
loss = "bce"
"#;

/// Anything here takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with phantoms in `data/`, an experiment file, and a finished run in `runs/`.
struct Bench(TempDir);

impl Bench {
    /// A copy of the folder that is made once for all tests.
    fn new() -> Self {
        static MADE: OnceLock<TempDir> = OnceLock::new();
        let made = MADE.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let size = |images| ListSize {
                images,
                least_positives: 1,
            };
            let config = PhantomConfig::new(5, size(30), size(14)).unwrap();
            let config = config.with_side(96).unwrap();
            let stop = AtomicBool::new(false);
            write_dataset(&config, &folder.path().join("data"), &|_| (), &stop).unwrap();
            std::fs::write(folder.path().join("tiny.toml"), EXPERIMENT).unwrap();
            let bench = Self(folder);
            succeeds(&mut bench.train());
            bench.0
        });
        let bench = Self(tempfile::tempdir().unwrap());
        copy(made.path(), bench.0.path());
        bench
    }

    /// The same before the run, with other text in the experiment file.
    fn before(replace: &str, by: &str) -> Self {
        let bench = Self::new();
        std::fs::remove_dir_all(bench.run()).unwrap();
        let text = EXPERIMENT.replace(replace, by);
        assert_ne!(text, EXPERIMENT);
        std::fs::write(bench.path("tiny.toml"), text).unwrap();
        bench
    }

    /// The same with a run of far more epochs than anybody waits for, and that run's process.
    fn long_run() -> (Self, Running) {
        let bench = Self::before("epochs = 2", "epochs = 5000");
        let mut child = Running::start(&mut bench.train());
        let events = bench.run().join("events.jsonl");
        child.wait_until(|| {
            let text = std::fs::read_to_string(&events);
            text.is_ok_and(|text| text.contains("\"epoch\":1"))
        });
        (bench, child)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self) -> PathBuf {
        self.path("runs/tiny/bce")
    }

    fn cxr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command.current_dir(self.0.path()).args(arguments);
        command
    }

    fn train(&self) -> Command {
        let experiment = ["train", "--experiment", "tiny.toml", "--variant", "bce"];
        self.cxr(&[&experiment[..], &["--data", "data", "--runs", "runs"]].concat())
    }

    fn evaluate(&self) -> Command {
        self.cxr(&["evaluate", "runs/tiny/bce", "--data", "data"])
    }

    /// What `cxr runs` says of the run.
    fn row(&self) -> Value {
        let output = succeeds(&mut self.cxr(&["runs", "runs", "--json"]));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        rows[0].clone()
    }

    /// The bytes of all files of the run but its lock.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.run()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), std::fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => _ = std::fs::copy(&path, to.join(name)).unwrap(),
        }
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

/// Must end with exit code 1 and say all of `expected`.
fn fails(output: &Output, expected: &[&str]) {
    let message = stderr(output);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{:?}\n{message}",
        output.status
    );
    for part in expected {
        assert!(message.contains(part), "expected {part:?} in:\n{message}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert!(!message.contains("everything is in"), "{message}");
}

/// A process of which a failing test leaves nothing.
struct Running {
    child: Child,
    /// Reads standard error, which must not fill its pipe.
    reader: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).unwrap();
            text
        });
        Self {
            child,
            reader: Some(reader),
        }
    }

    /// Waits until `is_so`, while the process runs.
    fn wait_until(&mut self, is_so: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is_so() {
            assert!(self.child.try_wait().unwrap().is_none(), "over too early");
            assert!(begin.elapsed() < PATIENCE, "it does not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for its end, but not for ever.
    fn output(mut self) -> Output {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        Output {
            status,
            stdout: Vec::new(),
            stderr: self.reader.take().unwrap().join().unwrap(),
        }
    }

    /// Stops it as Ctrl-C does.
    #[cfg(unix)]
    fn interrupt(self) -> Output {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        let output = self.output();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Changes a weight file's tensors and writes it as early versions did, without a digest: what is wrong is to be seen in
/// the tensors themselves.
fn change_tensors(path: &Path, change: impl Fn(&mut String, &mut Dtype, &mut Vec<u8>)) {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut description: Value =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cxr"]).unwrap();
    description.as_object_mut().unwrap().remove("sha256");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = (file.iter())
        .map(|(name, view)| {
            let (mut name, mut dtype) = (name.to_owned(), view.dtype());
            let mut data = view.data().to_vec();
            change(&mut name, &mut dtype, &mut data);
            (name, dtype, view.shape().to_vec(), data)
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name, view)
    });
    let metadata = HashMap::from([("cxr".to_owned(), description.to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Writes `value` over the first value of the first tensor whose name ends so, or over all of them.
fn set(path: &Path, ending: &str, value: f32, all: bool) {
    change_tensors(path, |name, _, data| {
        if name.ends_with(ending) {
            let n_values = if all { data.len() / 4 } else { 1 };
            for bytes in data.chunks_exact_mut(4).take(n_values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
    });
}

const STEM: &str = "features.conv0.weight";

/// The first kind overwrote the model and all predictions with NaN and left the old `metrics.json` to call that
/// finished; integers were converted; a negative variance was a NaN; huge weights were NaN in the predictions.
#[test]
fn an_evaluation_of_bad_weights_leaves_a_finished_run_as_it_was() {
    let bench = Bench::new();
    let checkpoint = bench.run().join("checkpoints/latest.safetensors");
    let sound = std::fs::read(&checkpoint).unwrap();
    type Change = fn(&Path);
    let kinds: [(&str, Change, &[&str]); 6] = [
        (
            "NaN",
            |path| set(path, STEM, f32::NAN, false),
            &["not finite", STEM],
        ),
        (
            "infinity",
            |path| set(path, STEM, f32::INFINITY, false),
            &["not finite", STEM],
        ),
        (
            "huge weights",
            |path| set(path, "top.dense1.weight", 3e38, true),
            &[
                "the logit of",
                "too large to compute with",
                "left as it was",
            ],
        ),
        (
            "a negative variance",
            |path| set(path, "norm0.running_var", -0.5, false),
            &["negative variance -0.5", "norm0.running_var"],
        ),
        (
            "integers",
            |path| {
                change_tensors(path, |name, dtype, _| {
                    if name.ends_with(STEM) {
                        *dtype = Dtype::I32;
                    }
                });
            },
            &["I32", "floating-point", STEM],
        ),
        (
            "a tensor that nobody knows",
            |path| {
                change_tensors(path, |name, _, _| {
                    if name.ends_with(STEM) {
                        name.insert_str(0, "other.");
                    }
                });
            },
            &["`other.parameters.features.conv0.weight` is not part of a checkpoint"],
        ),
    ];
    for (kind, change, expected) in kinds {
        change(&checkpoint);
        let before = bench.files();
        fails(&bench.evaluate().output().unwrap(), expected);
        assert!(bench.files() == before, "{kind}: the run was changed");
        std::fs::write(&checkpoint, &sound).unwrap();
    }
    assert_eq!(bench.row()["state"], "finished");
}

/// A run that was killed while its outputs were replaced, and one whose files somebody changed, were "finished".
#[test]
fn a_finished_run_whose_files_were_changed_says_so_and_how_to_repair_it() {
    let bench = Bench::new();
    let before = bench.files();
    assert_eq!(bench.row()["state"], "finished");
    let said = stderr(&succeeds(&mut bench.train()));
    assert!(said.contains("is finished"), "{said}");
    let predictions = bench.run().join("predictions-test.csv");
    let hflip = bench.run().join("predictions-test-hflip.csv");
    let changes: [(&dyn Fn(), &str); 3] = [
        (
            &|| {
                let text = std::fs::read_to_string(&predictions).unwrap();
                std::fs::write(&predictions, text.replacen("0.", "1.", 1)).unwrap();
            },
            "`predictions-test.csv` was changed",
        ),
        (
            &|| std::fs::remove_file(bench.run().join("model.safetensors")).unwrap(),
            "`model.safetensors` is missing",
        ),
        (
            &|| _ = std::fs::copy(&predictions, &hflip).unwrap(),
            "`predictions-test-hflip.csv` was changed",
        ),
    ];
    for (change, what) in changes {
        change();
        fails(
            &bench.train().output().unwrap(),
            &["is finished, but", what, "cxr evaluate runs/tiny/bce"],
        );
        let row = bench.row();
        assert_eq!(row["state"], "changed");
        assert!(row["changes"].as_str().unwrap().contains(what), "{row}");
        let listed = succeeds(&mut bench.cxr(&["runs", "runs"]));
        assert!(stderr(&listed).contains(what));
        succeeds(&mut bench.evaluate());
        assert_eq!(bench.row()["state"], "finished");
        let times = |files: BTreeMap<PathBuf, Vec<u8>>| {
            let kept = files
                .into_iter()
                .filter(|(path, _)| !path.ends_with("metrics.json"));
            kept.collect::<BTreeMap<_, _>>()
        };
        assert!(
            times(bench.files()) == times(before.clone()),
            "{what}: not repaired"
        );
    }
    // A marker that is no JSON is no marker.
    std::fs::write(bench.run().join("metrics.json"), "{").unwrap();
    fails(
        &bench.train().output().unwrap(),
        &["`metrics.json` is damaged"],
    );

    // As early versions wrote it: believed, as there is nothing to compare.
    let text = before[&bench.run().join("metrics.json")].clone();
    let mut metrics: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(metrics["files"].as_object().unwrap().len(), 10);
    metrics.as_object_mut().unwrap().remove("files");
    std::fs::write(bench.run().join("metrics.json"), metrics.to_string()).unwrap();
    succeeds(&mut bench.train());
    assert_eq!(bench.row()["state"], "finished");
}

/// A flipped bit of a weight was another model; `explain` and `backbone` printed NaN and ended well.
#[test]
fn a_model_that_was_changed_is_not_used() {
    let bench = Bench::new();
    let model = bench.run().join("model.safetensors");
    let sound = std::fs::read(&model).unwrap();
    let image = std::fs::read_dir(bench.path("data/images"))
        .unwrap()
        .next()
        .unwrap();
    let image = image.unwrap().path();
    let model_argument = model.to_str().unwrap();
    let explain = || {
        let arguments = ["explain", model_argument, image.to_str().unwrap()];
        bench
            .cxr(&[&arguments[..], &["--output", "maps"]].concat())
            .output()
            .unwrap()
    };
    let backbone = || {
        let arguments = ["backbone", model_argument, "--out", "weights.safetensors"];
        bench.cxr(&arguments).output().unwrap()
    };
    assert!(explain().status.success(), "{}", stderr(&explain()));
    assert!(backbone().status.success());
    std::fs::remove_file(bench.path("weights.safetensors")).unwrap();

    let mut bytes = sound.clone();
    let last = bytes.len() - 4;
    bytes[last] ^= 1;
    std::fs::write(&model, &bytes).unwrap();
    fails(&explain(), &["model.safetensors", "digest"]);
    fails(&backbone(), &["model.safetensors", "digest"]);
    for (ending, value, all, expected) in [
        (STEM, f32::NAN, false, "not finite"),
        (STEM, f32::NEG_INFINITY, false, "not finite"),
        ("norm0.running_var", -1., false, "negative variance"),
        ("top.dense1.weight", 3e38, true, "too large to compute with"),
    ] {
        std::fs::write(&model, &sound).unwrap();
        set(&model, ending, value, all);
        let explained = explain();
        let said = stderr(&explained);
        assert!(matches!(explained.status.code(), Some(1 | 3)), "{said}");
        assert!(said.contains(expected), "{said}");
        let table = std::fs::read_to_string(bench.path("maps/explanations.csv"));
        assert!(!table.unwrap_or_default().contains("NaN"));
        fails(&backbone(), &[expected]);
        assert!(!bench.path("weights.safetensors").exists());
    }
}

#[test]
fn pretrained_weights_that_are_not_finite_are_refused() {
    let bench = Bench::before("[model]", "[model]\nweights = \"weights.safetensors\"");
    let made = Bench::new();
    let model = made.run().join("model.safetensors");
    let weights = bench.path("weights.safetensors");
    let write = || {
        let arguments = ["backbone", model.to_str().unwrap(), "--out"];
        succeeds(&mut bench.cxr(&[&arguments[..], &[weights.to_str().unwrap()]].concat()));
    };
    write();
    set(&weights, STEM, f32::NAN, false);
    fails(
        &bench.train().output().unwrap(),
        &["weights.safetensors", "not finite", STEM],
    );
    write();
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 16;
    std::fs::write(&weights, bytes).unwrap();
    fails(
        &bench.train().output().unwrap(),
        &["weights.safetensors", "digest"],
    );
    write();
    succeeds(&mut bench.train());
}

/// Training went on with other pixels, or ended with SIGBUS.
#[test]
fn a_store_that_is_damaged_during_a_training_stops_it() {
    for truncate in [false, true] {
        let (bench, child) = Bench::long_run();
        let path = bench.path("runs/tiny/images-64.store");
        let mut file = std::fs::File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        match truncate {
            true => file.set_len(8192).unwrap(),
            false => file.write_all(&vec![7; length as usize]).unwrap(),
        }
        let what = if truncate {
            "cut after it was opened"
        } else {
            "are damaged"
        };
        fails(
            &child.output(),
            &[
                "images-64.store",
                "the pixels of `",
                what,
                "prepare it again",
            ],
        );
    }
}

/// The files of the rest of the run were written into a new folder, and "everything is in" it.
#[test]
fn a_run_folder_that_is_taken_away_ends_the_training() {
    let (bench, child) = Bench::long_run();
    std::fs::rename(bench.run(), bench.path("elsewhere")).unwrap();
    fails(
        &child.output(),
        &["deleted, moved or replaced", "runs/tiny/bce"],
    );
    let left: Vec<_> = std::fs::read_dir(bench.run())
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!bench.run().exists(), "the folder was made again: {left:?}");
}

/// An emptied event log was gone on with in silence; an absurd time in it ended `cxr runs` with a panic.
#[cfg(unix)]
#[test]
fn a_changed_event_log_is_said_and_an_absurd_time_is_no_panic() {
    let (bench, child) = Bench::long_run();
    child.interrupt();
    let events = bench.run().join("events.jsonl");
    let text = std::fs::read_to_string(&events).unwrap();
    for time in ["1e300", "-1e300", "1e18", "0"] {
        let line = r#"{"event":"step","stage":"all layers","epoch":7,"step":1,"steps":5,"loss":0.5,"time":"#;
        std::fs::write(&events, format!("{text}{line}{time}}}\n")).unwrap();
        let listed = succeeds(&mut bench.cxr(&["runs", "runs"]));
        let table = String::from_utf8(listed.stdout).unwrap();
        assert!(
            table.contains("stopped") && table.trim_end().ends_with('–'),
            "{table}"
        );
        assert!(bench.row()["time"].is_number());
    }
    let resumed = |text: &str| {
        std::fs::write(&events, text).unwrap();
        let mut child = Running::start(&mut bench.train());
        child.wait_until(|| {
            let length = std::fs::metadata(&events).map(|file| file.len());
            length.is_ok_and(|length| length > text.len() as u64)
        });
        stderr(&child.interrupt())
    };
    let lacks = "lacks what happened from epoch";
    let said = resumed(&text);
    assert!(!said.contains(lacks), "{said}");
    let whole = std::fs::read_to_string(&events).unwrap();
    let second = whole.lines().nth(2).unwrap();
    for text in [String::new(), whole.replacen(&format!("{second}\n"), "", 1)] {
        let said = resumed(&text);
        assert!(
            said.contains(lacks) && said.contains("events.jsonl"),
            "{said}"
        );
    }
    // A mean of squares below zero is the root of a NaN.
    let checkpoint = bench.run().join("checkpoints/latest.safetensors");
    set(&checkpoint, "second.top.dense1.bias", -1., false);
    fails(
        &bench.train().output().unwrap(),
        &["second.top.dense1.bias", "-1"],
    );
}

#[test]
fn too_many_threads_are_limited() {
    let bench = Bench::new();
    let mut evaluate = bench.evaluate();
    let said = stderr(&succeeds(evaluate.args(["--threads", "1000"])));
    assert!(
        said.contains("1000 threads were asked for; 256 are used"),
        "{said}"
    );
}

/// The same command with so many KiB of address space.
#[cfg(target_os = "linux")]
fn with_memory(bench: &Bench, command: &Command, kibibytes: usize) -> Command {
    let mut limited = Command::new("sh");
    limited.current_dir(bench.0.path());
    limited.args(["-c", &format!("ulimit -v {kibibytes}; exec \"$@\""), "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

#[cfg(target_os = "linux")]
#[test]
fn a_network_without_memory_is_an_error() {
    let bench = Bench::before("conv_channels = [8, 8]", "conv_channels = [16384, 16384]");
    let output = with_memory(&bench, &bench.train(), 6 << 20)
        .output()
        .unwrap();
    fails(&output, &["cannot have memory for", "top.conv2"]);
}

/// The global pool is started at its first use, where a thread that cannot start is a panic.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_cannot_start_is_an_error() {
    let bench = Bench::new();
    // The stacks of 256 threads alone are more.
    let mut limited = with_memory(&bench, &bench.evaluate(), 300_000);
    limited.env("RAYON_NUM_THREADS", "256");
    let output = limited.output().unwrap();
    fails(&output, &["cannot start 256 threads", "--threads"]);
}
