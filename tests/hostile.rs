//! Streams that cannot be written, signals, outputs that would replace something, and inputs without an end.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const LABELS: &str = "image,Mass\na.png,1\nb.png,0\nc.png,1\nd.png,0\n";
const SCORES: &str = "image,Mass\na.png,0.9\nb.png,0.1\nc.png,0.3\nd.png,0.5\n";

/// A folder with a label table, predictions and small images.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.put("labels.csv", LABELS);
        bench.put("scores.csv", SCORES);
        std::fs::create_dir(bench.path("images")).unwrap();
        for (number, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            write_png(&bench.path(&format!("images/{name}.png")), number as u8);
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
        command.current_dir(self.0.path()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn works(&self, arguments: &[&str]) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
    }

    /// Ends with code 1 and says `why`.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], why: &str) {
        let output = self.run(arguments);
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.contains(why), "{arguments:?}: {complaint}");
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    }
}

fn write_png(path: &Path, grey: u8) {
    let mut png = png::Encoder::new(File::create(path).unwrap(), 40, 40);
    png.set_color(png::ColorType::Grayscale);
    let pixels: Vec<u8> = (0..40 * 40).map(|at| grey + (at % 200) as u8).collect();
    let mut writer = png.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits for a child, which is killed if it takes too long.
#[track_caller]
fn end(child: &mut Child) -> std::process::ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it has not ended in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(child: &Child, signal: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
}

const SCORE: [&str; 4] = ["score", "scores.csv", "--labels", "labels.csv"];

// `println!`, `eprintln!` and clap's printing on a full disk: panics, exit code 101.
#[cfg(target_os = "linux")]
#[test]
fn a_stream_that_cannot_be_written_is_no_panic() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let bench = Bench::new();
    for arguments in [
        &SCORE[..],
        &["inspect", "labels.csv", "--json"],
        &["--help"],
    ] {
        let mut command = bench.command(arguments);
        let output = command.stdout(full()).output().unwrap();
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot write to standard output"), "{said}");
    }
    for (arguments, code) in [
        (&SCORE[..], 0),
        (&["score", "none.csv", "--labels", "labels.csv"], 1),
        (&["score"], 2),
        (&["prepare", "images", "--out", "a.store"], 0),
    ] {
        let mut command = bench.command(arguments);
        command.stderr(full()).stdout(Stdio::null());
        command.env("CXR_LOG", "trace");
        let status = command.status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let bench = Bench::new();
    for arguments in [
        &SCORE[..],
        &["--help"],
        &["prepare", "images", "--out", "a.store"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = bench.command(arguments);
        command.stderr(writer.try_clone().unwrap()).stdout(writer);
        assert_eq!(command.status().unwrap().code(), Some(0), "{arguments:?}");
    }
}

// Every write to a closed terminal fails with EIO, as one to this process's first page of memory does.
#[cfg(target_os = "linux")]
#[test]
fn a_closed_terminal_is_no_panic() {
    let bench = Bench::new();
    let closed = || File::options().write(true).open("/proc/self/mem").unwrap();
    assert_eq!(closed().write(b"line").unwrap_err().raw_os_error(), Some(5));
    let mut command = bench.command(&["prepare", "images", "--out", "a.store"]);
    command.stderr(closed()).stdout(closed());
    assert_eq!(command.status().unwrap().code(), Some(0));
}

/// Draws phantoms for minutes; it is asked to stop once the first is there.
fn draw(bench: &Bench, shell: &str) -> Child {
    let mut command = Command::new("sh");
    command.current_dir(bench.0.path());
    command.args(["-c", &format!("{shell} exec \"$@\""), "sh"]);
    command.arg(env!("CARGO_BIN_EXE_cxr"));
    command.args([
        "phantoms",
        "--data",
        "drawn",
        "--images",
        "20000",
        "--threads",
        "1",
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let images = bench.path("drawn/images");
    let begin = Instant::now();
    while std::fs::read_dir(&images).map_or(0, Iterator::count) == 0 {
        assert!(begin.elapsed() < PATIENCE, "nothing is drawn");
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

// `nohup cxr train` ended when the terminal was closed: a handler had replaced what `nohup` had set.
#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let bench = Bench::new();
    let mut child = draw(&bench, "trap '' HUP;");
    send(&child, "HUP");
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(child.try_wait().unwrap(), None, "the hangup ended it");
    send(&child, "INT");
    assert_eq!(end(&mut child).code(), Some(130));
}

/// Whether the tests themselves were started so that a signal is ignored, as `nohup` and `&` do: what they start inherits
/// that, and waits where a user's command would end. Says so.
fn is_inherited_ignored(signal: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let is_ignored = mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1);
    if is_ignored {
        println!("skipped: signal {signal} is ignored where the tests run");
    }
    is_ignored
}

const HANGUP: u32 = 1;
const INTERRUPT: u32 = 2;

#[test]
fn a_hangup_stops_a_command_in_order() {
    if is_inherited_ignored(HANGUP) {
        return;
    }
    let bench = Bench::new();
    let mut child = draw(&bench, "");
    send(&child, "HUP");
    assert_eq!(end(&mut child).code(), Some(130));
}

// An input was replaced by the output that was named like it, under another name or a link as well.
#[test]
fn an_input_is_never_an_output() {
    let bench = Bench::new();
    bench.put("model.safetensors", "no model, and not even looked at");
    bench.put("experiment.toml", "");
    symlink("labels.csv", bench.path("link.csv")).unwrap();
    std::fs::hard_link(bench.path("labels.csv"), bench.path("hard.csv")).unwrap();
    for output in [
        "labels.csv",
        "link.csv",
        "hard.csv",
        "scores.csv",
        "images/../labels.csv",
    ] {
        for force in [&[][..], &["--force"]] {
            let arguments = [&SCORE[..], &["--json", output], force].concat();
            bench.refuses(&arguments, "it is also read");
        }
    }
    let same = [
        "compare",
        "scores.csv",
        "scores.csv",
        "--labels",
        "labels.csv",
    ];
    bench.refuses(
        &[&same[..], &["--json", "scores.csv"]].concat(),
        "it is also read",
    );
    let model = "model.safetensors";
    bench.refuses(
        &["backbone", model, "--out", model, "--force"],
        "it is also read",
    );
    let split = ["inspect", "labels.csv", "--hold-out", "2", "--no-images"];
    bench.refuses(
        &[&split[..], &["--write-split", "labels.csv", "--force"]].concat(),
        "it is also read",
    );
    bench.refuses(
        &[
            "prepare",
            "images/a.png",
            "--out",
            "images/a.png",
            "--force",
        ],
        "it is also read",
    );
    bench.refuses(
        &[
            "prepare",
            "images",
            "--out",
            "labels.csv",
            "--labels",
            "labels.csv",
            "--force",
        ],
        "it is also read",
    );
    assert_eq!(
        (bench.text("labels.csv"), bench.text("scores.csv")),
        (LABELS.into(), SCORES.into())
    );
}

#[test]
fn a_file_that_somebody_else_wrote_needs_force() {
    let bench = Bench::new();
    let split = ["inspect", "labels.csv", "--hold-out", "2", "--write-split"];
    for command in [
        &[&SCORE[..], &["--json"]].concat()[..],
        &[
            "compare",
            "scores.csv",
            "scores.csv",
            "--labels",
            "labels.csv",
            "--json",
        ],
        &split,
        &["prepare", "images", "--out"],
    ] {
        bench.put("out", "the notes of a week");
        let named = [command, &["out"]].concat();
        bench.refuses(&named, "--force");
        assert_eq!(bench.text("out"), "the notes of a week");
        bench.works(&[&named[..], &["--force"]].concat());
        // Now it is the program's own.
        bench.works(&named);
        // And an empty one, as `mktemp` makes it, holds nothing.
        bench.put("out", "");
        bench.works(&named);
        std::fs::remove_file(bench.path("out")).unwrap();
    }
}

// NIH's own lists were replaced by made ones.
#[test]
fn official_lists_are_not_replaced() {
    let bench = Bench::new();
    let make = [
        "inspect",
        "labels.csv",
        "--no-images",
        "--hold-out",
        "2",
        "--write-lists",
        ".",
    ];
    bench.put("train_val_list.txt", "00000001_000.png\n");
    bench.put("test_list.txt", "00000003_000.png\n");
    bench.refuses(&make, "--force");
    assert_eq!(bench.text("train_val_list.txt"), "00000001_000.png\n");
    assert_eq!(bench.text("test_list.txt"), "00000003_000.png\n");
    bench.works(&[&make[..], &["--force"]].concat());
    let made = bench.text("test_list.txt");
    assert!(made.contains(".png") && made != "00000003_000.png\n");
    // The same again, after a kill between the two as well.
    bench.works(&make);
    std::fs::remove_file(bench.path("test_list.txt")).unwrap();
    bench.works(&make);
    assert_eq!(bench.text("test_list.txt"), made);
    // Other lists are somebody else's again.
    let other = [&make[..], &["--seed", "5"]].concat();
    bench.refuses(&other, "--force");
}

// As root, `--json /dev/stdout` left a regular file in place of the device.
#[cfg(target_os = "linux")]
#[test]
fn devices_pipes_and_links_are_written_to_and_stay() {
    let bench = Bench::new();
    let kind = |path: &Path| std::fs::symlink_metadata(path).unwrap().file_type();
    bench.works(&[&SCORE[..], &["--json", "/dev/null"]].concat());
    assert!(kind(Path::new("/dev/null")).is_char_device());

    let arguments = [&SCORE[..], &["--json", "/dev/stdout"]].concat();
    let piped = String::from_utf8(bench.run(&arguments).stdout).unwrap();
    assert!(
        piped.starts_with('{') && piped.contains("mean of 1"),
        "{piped}"
    );
    assert!(kind(Path::new("/dev/stdout")).is_symlink());
    let mut command = bench.command(&arguments);
    let file = File::create(bench.path("all.txt")).unwrap();
    assert!(command.stdout(file).status().unwrap().success());
    assert_eq!(bench.text("all.txt"), piped);

    let fifo = bench.fifo("fifo");
    let mut child = bench.command(&[&SCORE[..], &["--json", "fifo"]].concat());
    let mut child = child.stdout(Stdio::null()).spawn().unwrap();
    let mut json = String::new();
    File::open(&fifo)
        .unwrap()
        .read_to_string(&mut json)
        .unwrap();
    assert_eq!(end(&mut child).code(), Some(0));
    assert!(json.starts_with('{') && json.ends_with("}\n"), "{json}");
    assert!(kind(&fifo).is_fifo());

    symlink("made.json", bench.path("link")).unwrap();
    bench.works(&[&SCORE[..], &["--json", "link"]].concat());
    assert!(kind(&bench.path("link")).is_symlink());
    assert_eq!(bench.text("made.json"), json);
    symlink("made.store", bench.path("store")).unwrap();
    bench.works(&["prepare", "images", "--out", "store"]);
    assert!(kind(&bench.path("store")).is_symlink());
    assert!(bench.path("made.store").is_file());
}

#[test]
fn leftovers_of_killed_commands_are_removed_beside_outputs() {
    let bench = Bench::new();
    let [left, mine] = [".tmpQx81Zb.tmp", ".tmp-mine.tmp"];
    bench.put(left, "{ \"labels\": [");
    bench.put(mine, "a draft");
    bench.works(&[&SCORE[..], &["--json", "out.json"]].concat());
    assert!(!bench.path(left).exists());
    assert!(bench.path(mine).exists());
}

#[test]
fn tables_come_through_pipes() {
    let bench = Bench::new();
    let fifo = bench.fifo("fifo");
    let write = std::thread::spawn(move || {
        File::options()
            .write(true)
            .open(fifo)
            .unwrap()
            .write_all(LABELS.as_bytes())
    });
    bench.works(&["score", "scores.csv", "--labels", "fifo"]);
    write.join().unwrap().unwrap();
}

// A pipe that nobody writes to was waited for, deaf to Ctrl-C where a command listens for it.
#[test]
fn waiting_for_a_pipe_ends_with_ctrl_c() {
    if is_inherited_ignored(INTERRUPT) {
        return;
    }
    let bench = Bench::new();
    bench.fifo("fifo");
    for arguments in [
        &["score", "scores.csv", "--labels", "fifo"][..],
        &["score", "fifo", "--labels", "labels.csv"],
        &["inspect", "images", "--labels", "fifo"],
        &["prepare", "images", "--labels", "fifo", "--out", "a.store"],
        &["phantoms", "--data", "drawn", "--experiment", "fifo"],
        &["plan", "--experiment", "fifo"],
        &[
            "train",
            "--experiment",
            "fifo",
            "--variant",
            "a",
            "--data",
            ".",
        ],
    ] {
        let mut command = bench.command(arguments);
        command.stderr(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "{arguments:?} does not wait"
        );
        send(&child, "INT");
        let status = end(&mut child);
        let interrupted = status.signal() == Some(2) || status.code() == Some(130);
        assert!(interrupted, "{arguments:?}: {status}");
    }
}

// `/dev/zero` took 22 GB.
#[cfg(target_os = "linux")]
#[test]
fn inputs_without_an_end_are_refused() {
    let bench = Bench::new();
    symlink("/dev/zero", bench.path("zero")).unwrap();
    bench.fifo("pipe.safetensors");
    let pipe = "pipe.safetensors";
    for (arguments, got) in [
        (&["score", "scores.csv", "--labels", "zero"][..], "a device"),
        (&["score", "zero", "--labels", "labels.csv"], "a device"),
        (
            &["inspect", "labels.csv", "--split-file", "zero"],
            "a device",
        ),
        (&["plan", "--experiment", "zero"], "a device"),
        (&["explain", "zero", "images/a.png"], "a device"),
        (&["backbone", "zero", "--out", "b"], "a device"),
        (&["inspect", "zero"], "a device"),
        (&["backbone", pipe, "--out", "b"], "a pipe"),
        (&["explain", pipe, "images/a.png"], "a pipe"),
    ] {
        let mut command = bench.command(arguments);
        command.stderr(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let status = end(&mut child);
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_to_string(&mut said).unwrap();
        assert!(
            status.code().is_some_and(|code| code == 1 || code == 3),
            "{arguments:?}: {status}, {said}"
        );
        assert!(said.contains(got), "{arguments:?}: {said}");
    }
}

// An image that is no file, or a file of gigabytes that is no image, must neither stop the others nor be read.
#[cfg(target_os = "linux")]
#[test]
fn images_that_are_no_files_are_named_and_the_others_prepared() {
    let bench = Bench::new();
    symlink("/dev/zero", bench.path("images/zero.png")).unwrap();
    bench.fifo("images/fifo.png");
    File::create(bench.path("images/sparse.png"))
        .unwrap()
        .set_len(3 << 30)
        .unwrap();
    // As large, but with an image's first bytes.
    std::fs::copy(bench.path("images/a.png"), bench.path("images/long.png")).unwrap();
    let long = File::options()
        .write(true)
        .open(bench.path("images/long.png"))
        .unwrap();
    long.set_len(3 << 30).unwrap();
    for arguments in [
        &["prepare", "images", "--out", "all.store"][..],
        &["inspect", "images"],
    ] {
        let mut command = bench.command(arguments);
        command.stderr(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert_eq!(end(&mut child).code(), Some(3));
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        for (name, got) in [
            ("zero.png", "got a device"),
            ("fifo.png", "got a pipe"),
            ("sparse.png", "expected"),
            ("long.png", "expected at most 268435456 bytes"),
        ] {
            let line = said.lines().find(|line| line.contains(name));
            assert!(
                line.is_some_and(|line| line.contains(got)),
                "{name}: {said}"
            );
        }
    }
    bench.works(&["inspect", "all.store"]);
}
