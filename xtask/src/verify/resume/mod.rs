//! Training that is killed again and again, and training on another number of threads, must end in the
//! same bytes as a run that nobody disturbed; so must the commands around it, of which [`commands`] kills each.
//!
//! The processes are real: `cxr train`, killed with SIGKILL (on Windows, terminated), some while they
//! write a checkpoint. That a kill fell into a write is seen by the unfinished file it leaves.

mod commands;

#[cfg(unix)]
pub(super) use self::commands::leftovers;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cxr_terminal::{say, tell};
use sha2::{Digest, Sha256};

use crate::workspace::{BUILD_CXR, Workspace};
use cxr_terminal::{Ending, Interrupt};

/// What is trained: the file's name, its text, the variant.
pub(super) const EXPERIMENTS: [(&str, &str, &str); 2] = [
    ("plain", include_str!("plain.toml"), "fzlpr-0.2"),
    ("everything", include_str!("everything.toml"), "hbm"),
];

/// Kills of each kind, for each experiment: at any moment, and within a checkpoint write.
const KILLS: usize = 3;
/// Runs that may pass before all of them have hit.
const MOST_RUNS: usize = 10;

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (ended, executable) = workspace.build(interrupt, &BUILD_CXR, "cxr")?;
    let Some(executable) = executable.filter(|_| ended.ending == Ending::Done) else {
        return Ok(ended.ending);
    };
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut same = true;
    for (name, text, variant) in EXPERIMENTS {
        let bench = Bench {
            executable: &executable,
            folder: folder.path(),
            name,
            variant,
        };
        let experiment = bench.experiment();
        std::fs::write(&experiment, text)
            .with_context(|| format!("cannot write `{}`", experiment.display()))?;
        match bench.check(interrupt)? {
            Ending::Done => {}
            Ending::Failed => same = false,
            Ending::Interrupted => return Ok(Ending::Interrupted),
        }
        // One data set and one run are enough for the commands that do not train.
        if name == EXPERIMENTS[0].0 {
            match commands::check(&bench, interrupt)? {
                Ending::Done => {}
                Ending::Failed => same = false,
                Ending::Interrupted => return Ok(Ending::Interrupted),
            }
        }
    }
    let left = commands::walk(folder.path())?;
    for path in left.iter().filter(|path| commands::is_unfinished(path)) {
        cxr_terminal::say!("error: left behind: {}", path.display());
        same = false;
    }
    Ok(if same { Ending::Done } else { Ending::Failed })
}

/// One experiment, and where its runs go.
struct Bench<'a> {
    executable: &'a Path,
    folder: &'a Path,
    name: &'a str,
    variant: &'a str,
}

impl Bench<'_> {
    fn experiment(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.name))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn run_folder(&self, runs: &str) -> PathBuf {
        let runs = self.folder.join(runs);
        runs.join(self.name).join(self.variant)
    }

    fn train(&self, runs: &str, threads: usize) -> Command {
        let mut command = Command::new(self.executable);
        command.arg("train").arg("--experiment");
        command
            .arg(self.experiment())
            .args(["--variant", self.variant]);
        command.arg("--data").arg(self.data());
        command.arg("--runs").arg(self.folder.join(runs));
        command.env("RAYON_NUM_THREADS", threads.to_string());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn check(&self, interrupt: &Interrupt) -> anyhow::Result<Ending> {
        let mut phantoms = Command::new(self.executable);
        phantoms.arg("phantoms").arg("--experiment");
        phantoms
            .arg(self.experiment())
            .arg("--data")
            .arg(self.data());
        phantoms.stdout(Stdio::null()).stderr(Stdio::null());
        let ended = interrupt.run(&mut phantoms)?;
        if ended.ending != Ending::Done {
            return Ok(ended.ending);
        }
        let begin = Instant::now();
        let ended = interrupt.run(&mut self.train("two-threads", 2))?;
        if ended.ending != Ending::Done {
            bail!("`cxr train` of `{}` failed: {}", self.name, ended.status);
        }
        let duration = begin.elapsed();
        let expected = digests(&self.run_folder("two-threads"))?;
        tell!(
            "   {}: undisturbed on two threads in {:.1} s, {} files, model {}",
            self.name,
            duration.as_secs_f64(),
            expected.len(),
            short(expected.get("model.safetensors"))
        );
        let ended = interrupt.run(&mut self.train("one-thread", 1))?;
        if ended.ending != Ending::Done {
            return Ok(ended.ending);
        }
        let mut same = self.compare("one-thread", "on one thread", &expected)?;

        let mut kills = Kills::default();
        for run in 0..MOST_RUNS {
            let runs = format!("killed-{run}");
            let Some(of_run) = self.kill_and_resume(&runs, duration, &mut kills, interrupt)? else {
                return Ok(Ending::Interrupted);
            };
            let what = format!("killed {of_run} times and resumed");
            same &= self.compare(&runs, &what, &expected)?;
            if kills.are_enough() {
                break;
            }
        }
        tell!(
            "   {}: {} kills at random moments, {} of them within a checkpoint write; {} aimed at one, {} of which hit",
            self.name,
            kills.random,
            kills.random_in_write,
            kills.aimed,
            kills.aimed_in_write
        );
        if !kills.are_enough() {
            bail!(
                "expected {KILLS} kills of each kind within {MOST_RUNS} runs, got {} and {}",
                kills.random,
                kills.aimed_in_write
            );
        }
        Ok(if same { Ending::Done } else { Ending::Failed })
    }

    /// Trains to the end, killing the process again and again; how often, or `None` when interrupted.
    fn kill_and_resume(
        &self,
        runs: &str,
        duration: Duration,
        kills: &mut Kills,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<usize>> {
        let checkpoints = self.run_folder(runs).join("checkpoints");
        let mut of_run = 0;
        loop {
            let aims = of_run % 2 == 1;
            // So that a run is killed some times on its way to the end.
            let wait = duration.mul_f64(0.4 * random());
            let mut child = self.train(runs, 2).spawn().context("cannot start `cxr`")?;
            let was_killed = if kills.are_enough() {
                wait_or_kill(&mut child, interrupt, || false)?
            } else {
                let begin = Instant::now();
                wait_or_kill(&mut child, interrupt, || {
                    begin.elapsed() >= wait && (!aims || has_unfinished(&checkpoints))
                })?
            };
            if interrupt.is_raised() {
                return Ok(None);
            }
            if !was_killed {
                return Ok(Some(of_run));
            }
            of_run += 1;
            kills.count(aims, has_unfinished(&checkpoints));
        }
    }

    /// Whether a run ended in the expected bytes; says so.
    fn compare(
        &self,
        runs: &str,
        what: &str,
        expected: &BTreeMap<String, String>,
    ) -> anyhow::Result<bool> {
        let found = digests(&self.run_folder(runs))?;
        let names = expected.keys().chain(found.keys());
        let mut differing: Vec<&str> = names
            .filter(|name| expected.get(*name) != found.get(*name))
            .map(String::as_str)
            .collect();
        differing.sort_unstable();
        differing.dedup();
        if differing.is_empty() {
            tell!("   {}: {what}: the same bytes", self.name);
        } else {
            let files = differing.join(", ");
            say!("error: {}: {what}: other bytes in {files}", self.name);
        }
        Ok(differing.is_empty())
    }
}

/// Kills so far, by what they were meant to hit and what they hit.
#[derive(Default)]
struct Kills {
    random: usize,
    random_in_write: usize,
    aimed: usize,
    aimed_in_write: usize,
}

impl Kills {
    fn count(&mut self, aimed: bool, in_write: bool) {
        let (kills, hits) = match aimed {
            true => (&mut self.aimed, &mut self.aimed_in_write),
            false => (&mut self.random, &mut self.random_in_write),
        };
        *kills += 1;
        *hits += usize::from(in_write);
    }

    fn are_enough(&self) -> bool {
        self.random >= KILLS && self.aimed_in_write >= KILLS
    }
}

/// Waits for a child to end well, or kills it as soon as `kill` says so; whether it was killed.
fn wait_or_kill(
    child: &mut Child,
    interrupt: &Interrupt,
    kill: impl Fn() -> bool,
) -> anyhow::Result<bool> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for `cxr`")? {
            if !status.success() && !interrupt.is_raised() {
                bail!("`cxr` failed after being killed before: {status}");
            }
            return Ok(false);
        }
        if kill() || interrupt.is_raised() {
            child.kill().context("cannot kill `cxr`")?;
            child.wait().context("cannot wait for `cxr`")?;
            return Ok(true);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Whether a file is being written in a folder, or was when its writer was killed.
fn has_unfinished(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return false;
    };
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().ends_with(".tmp"))
}

/// SHA-256 of a run's model and predictions, by file name.
pub(super) fn digests(run: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let failed = || format!("cannot read `{}`", run.display());
    let mut digests = BTreeMap::new();
    for entry in std::fs::read_dir(run).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name == "model.safetensors" || name.starts_with("predictions-") {
            let bytes = std::fs::read(&path).with_context(failed)?;
            let digest = Sha256::digest(&bytes);
            let hex = digest.iter().map(|byte| format!("{byte:02x}"));
            digests.insert(name.to_owned(), hex.collect());
        }
    }
    if digests.len() != 7 {
        bail!(
            "`{}`: expected a model and six tables of predictions, got {} files",
            run.display(),
            digests.len()
        );
    }
    Ok(digests)
}

fn short(digest: Option<&String>) -> String {
    digest.map_or_else(String::new, |digest| digest.chars().take(16).collect())
}

/// Uniform in [0, 1), another one at each call.
fn random() -> f64 {
    let bits = RandomState::new().hash_one(0);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
