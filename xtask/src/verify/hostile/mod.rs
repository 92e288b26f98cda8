//! Hostile surroundings: real `cxr` processes whose terminal is closed, whose log disk is full, that are sent signals, read
//! devices and pipes, and run out of disk.
//!
//! Each check says what it did. A training that nobody reads must end in the bytes of an undisturbed one; everything
//! else must end by itself, with the code that `cxr --help` names, and never with a panic (101) or an abort (134).

mod child;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cxr_terminal::{say, tell};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use self::child::{Terminal, Watched};
use crate::workspace::{BUILD_CXR, Workspace};
use cxr_terminal::{Ending, INTERRUPTED, Interrupt};

const EXPERIMENT: &str = include_str!("hostile.toml");
/// What is compared of a run.
const RESULTS: [&str; 3] = [
    "model.safetensors",
    "predictions-test.csv",
    "labels-test.csv",
];
/// No input takes more address space than this to be refused, in KiB: `/dev/zero` took 22 GB.
const ADDRESS_SPACE: &str = "6000000";

/// One check: its name, and what it does. What it returns is said.
type Check = (&'static str, fn(&Bench<'_>) -> anyhow::Result<String>);

const CHECKS: [Check; 13] = [
    ("closed terminal", closed_terminal),
    ("reader gone", reader_gone),
    ("full log disk", full_log_disk),
    ("closed descriptors", closed_descriptors),
    ("nohup", nohup),
    ("hangup", |bench| stopped(bench, Signal::HUP)),
    ("SIGTERM", |bench| stopped(bench, Signal::TERM)),
    ("Ctrl-C", |bench| stopped(bench, Signal::INT)),
    ("Ctrl-C before anything is done", waiting),
    ("results that cannot be printed", lost_results),
    ("pipes", pipes),
    ("inputs without an end", endless_inputs),
    ("full disk", full_disk),
];

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (ended, executable) = workspace.build(interrupt, &BUILD_CXR, "cxr")?;
    let Some(executable) = executable.filter(|_| ended.ending == Ending::Done) else {
        return Ok(ended.ending);
    };
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let bench = Bench::new(&executable, folder.path(), interrupt)?;
    let mut all_well = true;
    for (name, act) in CHECKS {
        let begin = Instant::now();
        match act(&bench) {
            Ok(what) => tell!("   {name}: {what} ({:.1} s)", begin.elapsed().as_secs_f64()),
            Err(_) if interrupt.is_raised() => {}
            Err(error) => {
                say!("error: {name}: {error:#}");
                all_well = false;
            }
        }
        if interrupt.is_raised() {
            return Ok(Ending::Interrupted);
        }
    }
    Ok(if all_well {
        Ending::Done
    } else {
        Ending::Failed
    })
}

/// Data, tables, and what an undisturbed training ends in.
struct Bench<'a> {
    executable: &'a Path,
    folder: &'a Path,
    interrupt: &'a Interrupt,
    expected: BTreeMap<&'static str, String>,
}

impl<'a> Bench<'a> {
    fn new(
        executable: &'a Path,
        folder: &'a Path,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let mut bench = Self {
            executable,
            folder,
            interrupt,
            expected: BTreeMap::new(),
        };
        std::fs::write(bench.path("hostile.toml"), EXPERIMENT)?;
        std::fs::write(
            bench.path("labels.csv"),
            "image,Mass\na.png,1\nb.png,0\nc.png,1\n",
        )?;
        std::fs::write(
            bench.path("scores.csv"),
            "image,Mass\na.png,0.9\nb.png,0.1\nc.png,0.3\n",
        )?;
        let mut phantoms = bench.cxr();
        phantoms.args(["phantoms", "--experiment", "hostile.toml", "--data", "data"]);
        bench.quiet(phantoms)?.ends_with(0)?;
        let begin = Instant::now();
        bench.quiet(bench.train("undisturbed"))?.ends_with(0)?;
        bench.expected = bench.results("undisturbed")?;
        tell!(
            "   undisturbed training in {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        Ok(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn cxr(&self) -> Command {
        let mut command = Command::new(self.executable);
        command.current_dir(self.folder);
        command
    }

    /// `cxr` behind a line of shell that changes what it inherits, and ends in `"$@"`.
    fn through_shell(&self, line: &str, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", line, "sh"]).arg(command.get_program());
        shell.args(command.get_args()).current_dir(self.folder);
        shell
    }

    fn train(&self, runs: &str) -> Command {
        let mut command = self.cxr();
        command.args(["train", "--experiment", "hostile.toml", "--variant", "bce"]);
        command.args(["--data", "data", "--threads", "1", "--runs", runs]);
        command
    }

    fn run_folder(&self, runs: &str) -> PathBuf {
        self.path(runs).join("hostile").join("bce")
    }

    fn start(&self, mut command: Command) -> anyhow::Result<Watched<'a>> {
        Watched::start(&mut command, self.interrupt)
    }

    fn quiet(&self, mut command: Command) -> anyhow::Result<Watched<'a>> {
        command.stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.start(command)
    }

    /// The digests of a run's results.
    fn results(&self, runs: &str) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let mut digests = BTreeMap::new();
        for name in RESULTS {
            let path = self.run_folder(runs).join(name);
            let bytes = std::fs::read(&path)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            let digest = Sha256::digest(&bytes);
            let hex = digest.iter().map(|byte| format!("{byte:02x}"));
            digests.insert(name, hex.collect());
        }
        Ok(digests)
    }

    /// Makes sure that a run ended as if nothing had happened, with every step in its log.
    fn is_undisturbed(&self, runs: &str) -> anyhow::Result<()> {
        let found = self.results(runs)?;
        for (name, digest) in &self.expected {
            ensure!(found.get(name) == Some(digest), "`{name}` has other bytes");
        }
        let steps = |runs: &str| -> anyhow::Result<Vec<String>> {
            let events = std::fs::read_to_string(self.run_folder(runs).join("events.jsonl"))?;
            let of_steps = events.lines().filter(|line| line.contains("\"loss\""));
            // Times differ.
            let loss = |line: &str| {
                line.split("\"loss\":")
                    .nth(1)?
                    .split(',')
                    .next()
                    .map(str::to_owned)
            };
            Ok(of_steps.filter_map(loss).collect())
        };
        let (expected, found) = (steps("undisturbed")?, steps(runs)?);
        ensure!(!expected.is_empty(), "the event log has no steps");
        ensure!(
            expected == found,
            "the event log has other steps: {} and not {}",
            found.len(),
            expected.len()
        );
        Ok(())
    }

    /// Waits until a training has made steps.
    fn wait_for_steps(&self, runs: &str, child: &mut Watched<'_>) -> anyhow::Result<()> {
        let events = self.run_folder(runs).join("events.jsonl");
        child.wait_until("a step is made", || {
            std::fs::read_to_string(&events).is_ok_and(|text| text.lines().count() > 3)
        })
    }
}

fn closed_terminal(bench: &Bench<'_>) -> anyhow::Result<String> {
    let (terminal, mut screen) = Terminal::open()?;
    let mut command = bench.train("closed-terminal");
    command.stdin(terminal.stdio()?);
    command.stdout(terminal.stdio()?).stderr(terminal.stdio()?);
    drop(terminal);
    let mut child = bench.start(command)?;
    let seen = screen.read_until("epoch")?;
    bench.wait_for_steps("closed-terminal", &mut child)?;
    drop(screen);
    child.ends_with(0)?;
    bench.is_undisturbed("closed-terminal")?;
    Ok(format!(
        "closed after {seen} bytes of bars and lines; the training ended in the same bytes"
    ))
}

fn reader_gone(bench: &Bench<'_>) -> anyhow::Result<String> {
    let (mut reader, writer) = std::io::pipe()?;
    let mut command = bench.train("reader-gone");
    command.env("CXR_LOG", "debug");
    command.stdout(writer.try_clone()?).stderr(writer);
    let child = bench.start(command)?;
    reader.read_exact(&mut [0; 40])?;
    drop(reader);
    child.ends_with(0)?;
    bench.is_undisturbed("reader-gone")?;
    Ok("it read 40 bytes and went; the training ended in the same bytes".to_owned())
}

fn full_log_disk(bench: &Bench<'_>) -> anyhow::Result<String> {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return Ok("skipped: there is no /dev/full".to_owned());
    };
    let mut command = bench.train("full-log-disk");
    command.env("CXR_LOG", "debug");
    command.stdout(full.try_clone()?).stderr(full);
    bench.start(command)?.ends_with(0)?;
    bench.is_undisturbed("full-log-disk")?;
    Ok("both streams full from the first byte; the training ended in the same bytes".to_owned())
}

fn closed_descriptors(bench: &Bench<'_>) -> anyhow::Result<String> {
    let train = bench.train("closed-descriptors");
    let command = bench.through_shell("exec \"$@\" 0<&- 1>&- 2>&-", &train);
    bench.start(command)?.ends_with(0)?;
    bench.is_undisturbed("closed-descriptors")?;
    Ok("started with 0, 1 and 2 closed; the training ended in the same bytes".to_owned())
}

fn nohup(bench: &Bench<'_>) -> anyhow::Result<String> {
    let train = bench.train("nohup");
    let command = bench.through_shell("trap '' HUP; exec \"$@\"", &train);
    let mut child = bench.quiet(command)?;
    bench.wait_for_steps("nohup", &mut child)?;
    child.send(Signal::HUP)?;
    child.ends_with(0)?;
    bench.is_undisturbed("nohup")?;
    Ok("a SIGHUP that was ignored at the start stayed ignored".to_owned())
}

fn stopped(bench: &Bench<'_>, signal: Signal) -> anyhow::Result<String> {
    let runs = format!("stopped-by-{}", signal.as_raw());
    let mut child = bench.quiet(bench.train(&runs))?;
    bench.wait_for_steps(&runs, &mut child)?;
    child.send(signal)?;
    child.ends_with(INTERRUPTED.into())?;
    bench.quiet(bench.train(&runs))?.ends_with(0)?;
    bench.is_undisturbed(&runs)?;
    Ok("stopped with 130 after some steps; the same command ended in the same bytes".to_owned())
}

fn waiting(bench: &Bench<'_>) -> anyhow::Result<String> {
    let fifo = bench.path("nobody");
    make_fifo(&fifo)?;
    for arguments in [
        &["score", "scores.csv", "--labels", "nobody"][..],
        &["score", "nobody", "--labels", "labels.csv"],
        &["inspect", "data", "--labels", "nobody"],
        &[
            "prepare",
            "data/images",
            "--labels",
            "nobody",
            "--out",
            "a.store",
        ],
        &["phantoms", "--experiment", "nobody", "--data", "never"],
        &[
            "train",
            "--experiment",
            "nobody",
            "--variant",
            "bce",
            "--data",
            "data",
        ],
    ] {
        let mut command = bench.cxr();
        command.args(arguments);
        let child = bench.quiet(command)?;
        std::thread::sleep(Duration::from_millis(200));
        child.send(Signal::INT)?;
        child
            .ends_interrupted()
            .with_context(|| arguments.join(" "))?;
    }
    // A lock that another process holds.
    let mut first = bench.quiet({
        let mut command = bench.cxr();
        command.args(["phantoms", "--images", "50000", "--data", "locked"]);
        command.args(["--threads", "1"]);
        command
    })?;
    let begun = bench.path("locked").join("PHANTOMS.txt");
    first.wait_until("phantoms are drawn", || begun.is_file())?;
    let mut command = bench.cxr();
    command.args(["phantoms", "--images", "50000", "--data", "locked"]);
    let second = bench.quiet(command)?;
    std::thread::sleep(Duration::from_millis(500));
    second.send(Signal::INT)?;
    second.ends_with(INTERRUPTED.into())?;
    first.send(Signal::INT)?;
    first.ends_with(INTERRUPTED.into())?;
    Ok("six commands waiting for a pipe's writer and one for a lock ended at once".to_owned())
}

fn lost_results(bench: &Bench<'_>) -> anyhow::Result<String> {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return Ok("skipped: there is no /dev/full".to_owned());
    };
    for arguments in [
        &["score", "scores.csv", "--labels", "labels.csv"][..],
        &["inspect", "labels.csv", "--json"],
        &["runs", "undisturbed", "--json"],
        &["--help"],
        &["train", "--help"],
    ] {
        let named = || arguments.join(" ");
        let mut command = bench.cxr();
        command.args(arguments).stderr(Stdio::null());
        command.stdout(full.try_clone()?);
        bench.start(command)?.ends_with(1).with_context(named)?;
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut command = bench.cxr();
        command.args(arguments).stderr(Stdio::null()).stdout(writer);
        bench.start(command)?.ends_with(0).with_context(named)?;
    }
    Ok("five commands: 1 on a full disk, 0 for a reader that has gone away".to_owned())
}

fn pipes(bench: &Bench<'_>) -> anyhow::Result<String> {
    let fifo = bench.path("table");
    make_fifo(&fifo)?;
    let labels = std::fs::read(bench.path("labels.csv"))?;
    let writer = std::thread::spawn(move || {
        let mut pipe = File::options().write(true).open(fifo)?;
        pipe.write_all(&labels)
    });
    let mut command = bench.cxr();
    command.args(["score", "scores.csv", "--labels", "table"]);
    bench.quiet(command)?.ends_with(0)?;
    writer.join().ok().context("the writer panicked")??;

    let out = bench.path("json");
    make_fifo(&out)?;
    let mut command = bench.cxr();
    command.args([
        "score",
        "scores.csv",
        "--labels",
        "labels.csv",
        "--json",
        "json",
    ]);
    let child = bench.quiet(command)?;
    let mut json = String::new();
    File::open(&out)?.read_to_string(&mut json)?;
    child.ends_with(0)?;
    serde_json::from_str::<serde_json::Value>(&json).context("what came through is no JSON")?;
    ensure!(!out.is_file(), "the pipe was replaced by a file");
    Ok("a label table came in and JSON went out".to_owned())
}

fn endless_inputs(bench: &Bench<'_>) -> anyhow::Result<String> {
    if !Path::new("/dev/zero").exists() {
        return Ok("skipped: there is no /dev/zero".to_owned());
    }
    let link = |name: &str| std::os::unix::fs::symlink("/dev/zero", bench.path(name));
    link("zero.safetensors")?;
    let images = bench.path("zero-images");
    std::fs::create_dir_all(&images)?;
    std::os::unix::fs::symlink("/dev/zero", images.join("zero.png"))?;
    File::create(images.join("sparse.png"))?.set_len(3 << 30)?;
    make_fifo(&images.join("fifo.png"))?;
    File::create(bench.path("sparse.safetensors"))?.set_len(3 << 30)?;
    let all = [
        &["score", "scores.csv", "--labels", "/dev/zero"][..],
        &["score", "/dev/zero", "--labels", "labels.csv"],
        &["inspect", "/dev/zero"],
        &["inspect", "zero-images"],
        &[
            "inspect",
            "data",
            "--split-file",
            "/dev/zero",
            "--no-images",
        ],
        &["prepare", "zero-images", "--out", "zero.store"],
        &["prepare", "zero-images/zero.png", "--out", "zero.store"],
        &["explain", "zero.safetensors", "zero-images/zero.png"],
        &["explain", "sparse.safetensors", "zero-images/zero.png"],
        &["backbone", "zero.safetensors", "--out", "b.safetensors"],
        &[
            "train",
            "--experiment",
            "/dev/zero",
            "--variant",
            "bce",
            "--data",
            "data",
        ],
        &["plan", "--experiment", "/dev/zero"],
    ];
    for arguments in all {
        let mut command = bench.cxr();
        command.args(arguments);
        let line = format!("ulimit -v {ADDRESS_SPACE}; exec \"$@\"");
        let mut child = bench.quiet(bench.through_shell(&line, &command))?;
        let code = child.code().with_context(|| arguments.join(" "))?;
        ensure!(
            code == 1 || code == 3,
            "`cxr {}` ended with {code}",
            arguments.join(" ")
        );
    }
    Ok(format!(
        "{} commands refused devices, pipes and sparse files",
        all.len()
    ))
}

/// A file system of a few megabytes, which only root may make.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: PathBuf, size: &str) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(&place)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        mount.arg(&place).stderr(Stdio::null());
        Ok(mount
            .status()
            .is_ok_and(|status| status.success())
            .then_some(Self(place)))
    }

    fn resize(&self, size: &str) -> anyhow::Result<()> {
        let options = format!("remount,size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-o", &options]).arg(&self.0);
        ensure!(mount.status()?.success(), "cannot enlarge the small disk");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn full_disk(bench: &Bench<'_>) -> anyhow::Result<String> {
    let Some(disk) = SmallDisk::mount(bench.path("disk"), "1m")? else {
        return Ok("skipped: a small tmpfs cannot be mounted here".to_owned());
    };
    let json = disk.0.join("out.json");
    let score = || {
        let mut command = bench.cxr();
        command.args(["score", "scores.csv", "--labels", "labels.csv", "--json"]);
        command.arg(&json);
        bench.quiet(command)
    };
    score()?.ends_with(0)?;
    let before = std::fs::read(&json)?;
    let filler = disk.0.join("filler");
    let filled = File::create(&filler).and_then(|mut file| file.write_all(&[1; 2 << 20]));
    ensure!(filled.is_err(), "the small disk is not full");
    score()?.ends_with(1)?;
    ensure!(std::fs::read(&json)? == before, "the earlier JSON is gone");
    std::fs::remove_file(&filler)?;

    let mut attempts = 0;
    for size in ["1m", "2m", "4m", "64m"] {
        disk.resize(size)?;
        attempts += 1;
        match bench.quiet(bench.train("disk"))?.code()? {
            0 => break,
            1 => {}
            code => bail!("with {size} of disk the training ended with {code}"),
        }
    }
    bench.is_undisturbed("disk")?;
    let left: Vec<PathBuf> = unfinished(&disk.0)?;
    ensure!(left.is_empty(), "leftovers: {left:?}");
    Ok(format!(
        "an earlier file survived; a training that ran out of disk {} times ended in the same bytes",
        attempts - 1
    ))
}

/// Temporary files below a folder.
fn unfinished(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(unfinished(&path)?);
        } else if cxr_fs::is_unfinished(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

fn make_fifo(path: &Path) -> anyhow::Result<()> {
    let made = Command::new("mkfifo").arg(path).status();
    ensure!(
        made.is_ok_and(|status| status.success()),
        "cannot make the pipe `{}`",
        path.display()
    );
    Ok(())
}
