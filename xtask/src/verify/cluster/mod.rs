//! Trainings on the ranks of a real MPI, and in jobs of a real Slurm, end in the bytes of one process: undisturbed, with a
//! rank killed, and requeued again and again.

mod slurm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cxr_terminal::{Ending, Interrupt, say, tell};

use super::resume::{EXPERIMENTS, digests};
use crate::workspace::Workspace;

/// Builds `cxr` with the features of the whole workspace and those of clusters.
const BUILD_WITH_MPI: [&str; 5] = ["build", "--bin", "cxr", "--features", "cxr/mpi"];

/// What only the features of clusters may bring in: packages whose names begin so.
const OF_CLUSTERS: [&str; 4] = ["mpi", "nccl", "object_store", "libffi"];

/// How long a job may go on after one of its ranks was killed.
const MOST_SECONDS_AFTER_A_KILL: u64 = 20;

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    if !without_features(workspace)? {
        return Ok(Ending::Failed);
    }
    let has_mpi = Command::new("mpirun").arg("--version").output().is_ok();
    if !has_mpi {
        tell!("   skipped: no `mpirun` is in the PATH (docs/clusters.md)");
        return Ok(Ending::Done);
    }
    let (ended, executable) = workspace.build(interrupt, &BUILD_WITH_MPI, "cxr")?;
    let Some(executable) = executable.filter(|_| ended.ending == Ending::Done) else {
        return Ok(ended.ending);
    };
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    // The next build of `cxr` takes its place.
    let kept = folder.path().join("cxr");
    std::fs::copy(&executable, &kept).context("cannot copy `cxr`")?;
    let cluster = Cluster {
        executable: kept,
        folder: folder.path().to_owned(),
    };
    let mut is_good = true;
    for training in Training::all() {
        match cluster.check(&training, interrupt)? {
            Ending::Done => {}
            Ending::Failed => is_good = false,
            Ending::Interrupted => return Ok(Ending::Interrupted),
        }
    }
    match slurm::check(&cluster, interrupt)? {
        Ending::Done => {}
        Ending::Failed => is_good = false,
        Ending::Interrupted => return Ok(Ending::Interrupted),
    }
    Ok(if is_good {
        Ending::Done
    } else {
        Ending::Failed
    })
}

/// Whether `cargo tree` of `cxr` has nothing that only its features for clusters need.
fn without_features(workspace: &Workspace) -> anyhow::Result<bool> {
    let tree = |features: &[&str]| -> anyhow::Result<Vec<String>> {
        let mut command = workspace.cargo();
        command.args(["tree", "--package", "cxr", "--edges", "normal,build"]);
        command
            .args(["--prefix", "none", "--locked"])
            .args(features);
        let output = command.output().context("cannot start `cargo tree`")?;
        if !output.status.success() {
            bail!(
                "`cargo tree` failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_of_clusters =
            |line: &&str| OF_CLUSTERS.iter().any(|package| line.starts_with(package));
        Ok(text
            .lines()
            .filter(is_of_clusters)
            .map(str::to_owned)
            .collect())
    };
    let (without, with) = (tree(&[])?, tree(&["--features", "mpi"])?);
    if with.is_empty() {
        say!(
            "error: `cargo tree --features mpi` shows no package of MPI: the check looks for the wrong names"
        );
        return Ok(false);
    }
    if let [first, ..] = &without[..] {
        say!("error: without features `cxr` is built with `{first}`");
        return Ok(false);
    }
    tell!("   without features nothing of MPI, NCCL or object stores is compiled");
    Ok(true)
}

/// A program and a place to run it.
pub(super) struct Cluster {
    pub(super) executable: PathBuf,
    pub(super) folder: PathBuf,
}

/// What is trained.
pub(super) struct Training {
    name: String,
    text: String,
    variant: &'static str,
}

impl Training {
    /// Two batches a step in single precision and in bf16, and everything that keeps a state.
    fn all() -> Vec<Self> {
        let [(_, plain, variant), (_, everything, of_everything)] = EXPERIMENTS;
        let training = |name: &str, options: &str| Self {
            name: name.to_owned(),
            text: plain
                .replace("name = \"plain\"", &format!("name = \"{name}\""))
                .replace("[training]\n", &format!("[training]\n{options}\n")),
            variant,
        };
        vec![
            training("f32", "gradient_accumulation_steps = 2"),
            training(
                "bf16",
                "gradient_accumulation_steps = 2\nprecision = \"bf16\"",
            ),
            Self {
                name: "everything".to_owned(),
                text: everything.to_owned(),
                variant: of_everything,
            },
        ]
    }
}

impl Training {
    /// One that is long enough to be requeued on its way.
    fn long() -> Self {
        let [(_, plain, variant), _] = EXPERIMENTS;
        Self {
            name: "long".to_owned(),
            text: plain
                .replace("name = \"plain\"", "name = \"long\"")
                .replace("epochs = 3", "epochs = 60")
                .replace(
                    "[training]\n",
                    "[training]\ngradient_accumulation_steps = 2\n",
                ),
            variant,
        }
    }
}

/// The results of a run by name, and its events without their times.
pub(super) type Results = BTreeMap<String, String>;

impl Cluster {
    pub(super) fn experiment(&self, training: &Training) -> PathBuf {
        self.folder.join(format!("{}.toml", training.name))
    }

    pub(super) fn run_folder(&self, training: &Training, runs: &str) -> PathBuf {
        let runs = self.folder.join(runs).join(&training.name);
        runs.join(training.variant)
    }

    /// The arguments of `cxr train`.
    pub(super) fn arguments(&self, training: &Training, runs: &str, threads: usize) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        vec![
            "train".to_owned(),
            "--experiment".to_owned(),
            text(self.experiment(training)),
            "--variant".to_owned(),
            training.variant.to_owned(),
            "--data".to_owned(),
            text(self.folder.join("data")),
            "--runs".to_owned(),
            text(self.folder.join(runs)),
            "--threads".to_owned(),
            threads.to_string(),
        ]
    }

    fn on_ranks(&self, ranks: usize, training: &Training, runs: &str) -> Command {
        let mut command = mpirun(ranks);
        command.arg(&self.executable);
        command.args(self.arguments(training, runs, 1));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Trains by one process, and gives what all others are held to.
    pub(super) fn alone(
        &self,
        training: &Training,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<Results>> {
        let experiment = self.experiment(training);
        std::fs::write(&experiment, &training.text)
            .with_context(|| format!("cannot write `{}`", experiment.display()))?;
        let data = self.folder.join("data");
        let mut phantoms = Command::new(&self.executable);
        phantoms
            .arg("phantoms")
            .arg("--experiment")
            .arg(&experiment);
        phantoms.arg("--data").arg(&data);
        let mut train = Command::new(&self.executable);
        train.args(self.arguments(training, "alone", 2));
        for command in [&mut phantoms, &mut train] {
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let ended = interrupt.run(command)?;
            match ended.ending {
                Ending::Done => {}
                Ending::Interrupted => return Ok(None),
                Ending::Failed => {
                    bail!("`{}`: one process failed: {}", training.name, ended.status)
                }
            }
        }
        results(&self.run_folder(training, "alone")).map(Some)
    }

    fn check(&self, training: &Training, interrupt: &Interrupt) -> anyhow::Result<Ending> {
        let begin = Instant::now();
        let Some(expected) = self.alone(training, interrupt)? else {
            return Ok(Ending::Interrupted);
        };
        let name = &training.name;
        tell!(
            "   {name}: one process that accumulates two batches, {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        let begin = Instant::now();
        let ended = interrupt.run(&mut self.on_ranks(2, training, "two-ranks"))?;
        match ended.ending {
            Ending::Done => {}
            Ending::Interrupted => return Ok(Ending::Interrupted),
            Ending::Failed => bail!("`{name}`: two ranks failed: {}", ended.status),
        }
        let what = format!("two ranks, {:.1} s", begin.elapsed().as_secs_f64());
        let mut is_good = self.compare(training, "two-ranks", &what, &expected)?;
        let Some((message, seconds)) = self.kill_a_rank(training, interrupt)? else {
            return Ok(Ending::Interrupted);
        };
        tell!("   {name}: rank 1 killed: the job ended {seconds:.1} s later: {message}");
        is_good &= seconds < MOST_SECONDS_AFTER_A_KILL as f64 && message.contains("rank 1");
        // What it left goes on with one process, and ends as if nothing had been.
        let mut alone = Command::new(&self.executable);
        alone.args(self.arguments(training, "killed", 2));
        alone.stdout(Stdio::null()).stderr(Stdio::null());
        let ended = interrupt.run(&mut alone)?;
        if ended.ending != Ending::Done {
            return Ok(ended.ending);
        }
        let what = "a rank killed, then one process";
        is_good &= self.compare(training, "killed", what, &expected)?;
        Ok(if is_good {
            Ending::Done
        } else {
            Ending::Failed
        })
    }

    /// Kills rank 1 of two once there is a checkpoint: what the launcher says of it, and how long the job went on.
    fn kill_a_rank(
        &self,
        training: &Training,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Option<(String, f64)>> {
        let log = self.folder.join("killed.log");
        let mut command = self.on_ranks(2, training, "killed");
        command.stderr(std::fs::File::create(&log).context("cannot write a log")?);
        let mut launcher = command.spawn().context("cannot start `mpirun`")?;
        let checkpoints = self.run_folder(training, "killed").join("checkpoints");
        let latest = checkpoints.join("latest.safetensors");
        let begin = Instant::now();
        while !latest.exists() {
            if interrupt.is_raised() {
                let _ = launcher.kill();
                return Ok(None);
            }
            if let Some(status) = launcher.try_wait()? {
                bail!("two ranks ended before their first checkpoint: {status}");
            }
            if begin.elapsed() > Duration::from_secs(300) {
                let _ = launcher.kill();
                bail!("two ranks wrote no checkpoint within five minutes");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let [.., second] = ranks_of(launcher.id())?[..] else {
            bail!("expected two ranks below `mpirun`");
        };
        let begin = Instant::now();
        let killed = Command::new("kill")
            .args(["-9", &second.to_string()])
            .status()?;
        if !killed.success() {
            bail!("cannot kill rank 1");
        }
        let status = launcher.wait().context("cannot wait for `mpirun`")?;
        let seconds = begin.elapsed().as_secs_f64();
        if status.success() {
            bail!("a job whose rank was killed ended well");
        }
        let text = std::fs::read_to_string(&log).context("cannot read a log")?;
        let line = text.lines().find(|line| line.contains("rank 1"));
        Ok(Some((
            line.unwrap_or("no line names rank 1").to_owned(),
            seconds,
        )))
    }

    /// Whether a run ended in the expected bytes, and left nothing half-written; says so.
    pub(super) fn compare(
        &self,
        training: &Training,
        runs: &str,
        what: &str,
        expected: &Results,
    ) -> anyhow::Result<bool> {
        let folder = self.run_folder(training, runs);
        let found = results(&folder)?;
        let names = expected.keys().chain(found.keys());
        let mut differing: Vec<&str> = names
            .filter(|name| expected.get(*name) != found.get(*name))
            .map(String::as_str)
            .collect();
        differing.sort_unstable();
        differing.dedup();
        let name = &training.name;
        let left = super::resume::leftovers(&folder)?;
        if !left.is_empty() {
            say!("error: {name}: {what}: left behind: {}", left.join(", "));
        }
        match differing.is_empty() {
            true => tell!(
                "   {name}: {what}: the same bytes in {} files",
                expected.len()
            ),
            false => say!(
                "error: {name}: {what}: other bytes in {}",
                differing.join(", ")
            ),
        }
        Ok(differing.is_empty() && left.is_empty())
    }
}

/// `mpirun` of so many ranks, also where the caller is root, as in a container.
pub(super) fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["-n", &ranks.to_string()]);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1");
    command.env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command
}

/// The processes of `cxr` that a launcher has started, in the order of their ranks.
fn ranks_of(launcher: u32) -> anyhow::Result<Vec<u32>> {
    let mut ranks = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read `/proc`")? {
        let path = entry?.path();
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap_or_default();
        let status = read("status");
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| value.trim().parse::<u32>().ok())
        };
        if field("PPid:") != Some(launcher) {
            continue;
        }
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let rank = (environment.split('\0'))
            .find_map(|line| line.strip_prefix("OMPI_COMM_WORLD_RANK="))
            .and_then(|rank| rank.parse::<u32>().ok());
        if let (Some(rank), Some(process)) = (rank, field("Pid:")) {
            ranks.push((rank, process));
        }
    }
    ranks.sort_unstable();
    Ok(ranks.into_iter().map(|(_, process)| process).collect())
}

/// Digests of a run's model and predictions, and its events without times.
pub(super) fn results(run: &Path) -> anyhow::Result<Results> {
    let mut results = digests(run)?;
    let path = run.join("events.jsonl");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut events = String::new();
    for line in text.lines() {
        let mut event: serde_json::Value = serde_json::from_str(line)
            .with_context(|| format!("`{}`: a line that is not JSON", path.display()))?;
        if let Some(fields) = event.as_object_mut() {
            fields.remove("time");
            fields.remove("seconds");
        }
        events += &format!("{event}\n");
    }
    results.insert("events".to_owned(), events);
    Ok(results)
}
