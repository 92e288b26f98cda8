//! A small experiment on phantoms, reproduced four times: at one go, at one go again, stopped in the
//! middle and resumed, and several variants at once. All end in the same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use cxr_terminal::{say, tell};

use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

const NAME: &str = "verify-demo";
const VARIANTS: [&str; 3] = ["bce", "zlpr", "fzlpr-0.2"];
/// A call that has not come so far by then has failed.
const PATIENCE: Duration = Duration::from_secs(900);
const PAUSE: Duration = Duration::from_millis(20);
/// What differs between two equal runs: the clock's.
const TIME_TABLE: &str = "tables/time.csv";

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let place = workspace.root().join("target").join("verify").join("demo");
    let bench = Bench {
        interrupt,
        phantoms: workspace.root().join("data").join("phantoms").join(NAME),
        experiment: place.join(format!("{NAME}.toml")),
        place,
        program: std::env::current_exe().context("cannot find this program")?,
    };
    for folder in [&bench.place, &bench.phantoms] {
        remove(folder)?;
    }
    std::fs::create_dir_all(&bench.place)?;
    std::fs::write(&bench.experiment, reduced(workspace)?)?;
    match bench.all() {
        Err(error) if interrupt.is_raised() => {
            say!("{error:#}");
            Ok(Ending::Interrupted)
        }
        Err(error) => {
            say!("error: {error:#}\nhint: see `{}`", bench.place.display());
            Ok(Ending::Failed)
        }
        Ok(()) => {
            for folder in [&bench.place, &bench.phantoms] {
                remove(folder)?;
            }
            Ok(Ending::Done)
        }
    }
}

/// The demo with few and small phantoms, one epoch a stage and three variants.
fn reduced(workspace: &Workspace) -> anyhow::Result<String> {
    let path = workspace.root().join("crates/cxr/experiments/demo.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut demo: toml::Table = toml::from_str(&text)?;
    demo.insert("name".to_owned(), NAME.into());
    let phantoms = toml::from_str(
        "seed = 3\ntrain_val = 160\ntest = 60\nleast_positives = [8, 3]\nside = 256",
    )?;
    let mut put = |keys: &[&str], value: toml::Value| -> anyhow::Result<()> {
        let (last, way) = keys.split_last().context("no key")?;
        let mut table = &mut demo;
        for key in way {
            let next = table.get_mut(*key).and_then(toml::Value::as_table_mut);
            table = next.with_context(|| format!("`{}` has no [{key}]", path.display()))?;
        }
        table.insert((*last).to_owned(), value);
        Ok(())
    };
    put(&["data", "phantoms"], toml::Value::Table(phantoms))?;
    // So that a stop is within an epoch, and a checkpoint too.
    put(&["training", "checkpoint_steps"], 2.into())?;
    if let Some(toml::Value::Array(stages)) =
        demo.get_mut("training").and_then(|t| t.get_mut("stages"))
    {
        for stage in stages.iter_mut().filter_map(toml::Value::as_table_mut) {
            stage.insert("epochs".to_owned(), 1.into());
        }
    }
    if let Some(toml::Value::Array(variants)) = demo.get_mut("variants") {
        variants.retain(|variant| {
            let name = variant.get("name").and_then(toml::Value::as_str);
            name.is_some_and(|name| VARIANTS.contains(&name))
        });
    }
    Ok(toml::to_string(&demo)?)
}

struct Bench<'a> {
    interrupt: &'a Interrupt,
    place: PathBuf,
    phantoms: PathBuf,
    experiment: PathBuf,
    /// `xtask` itself.
    program: PathBuf,
}

impl Bench<'_> {
    fn all(&self) -> anyhow::Result<()> {
        self.reproduce("first", &[])?;
        let expected = self.files("first")?;
        let drawn = modified(&self.phantoms.join("images"))?;
        tell!("   {} files to compare", expected.len());

        self.reproduce("second", &[])?;
        self.compare("second", &expected)?;
        if modified(&self.phantoms.join("images"))? != drawn {
            bail!("the phantoms were drawn again");
        }
        tell!("   twice: the same bytes");

        remove(&self.phantoms)?;
        self.stop_and_go_on(&expected)?;

        self.reproduce("at-once", &["--jobs", "2"])?;
        self.compare("at-once", &expected)?;
        tell!("   two variants at once: the same bytes");

        self.reproduce("shards", &["--shard", "1/2"])?;
        if self.run("shards", "zlpr").join("metrics.json").exists() {
            bail!("the first shard ran what is the second's");
        }
        self.reproduce("shards", &["--shard", "2/2"])?;
        self.compare("shards", &expected)?;
        tell!("   in two parts: the same bytes");
        Ok(())
    }

    /// Stops while phantoms are drawn, while the first variant trains, and while the second does.
    fn stop_and_go_on(&self, expected: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
        let folder = "stopped";
        let images = self.phantoms.join("images");
        self.stop_when(folder, "phantoms are drawn", &|| count(&images) >= 20)?;
        let drawn = modified(&images)?;
        if drawn.len() >= 220 {
            bail!("expected to stop while phantoms are drawn, and all were");
        }
        for (variant, steps) in [("bce", 1), ("zlpr", 6)] {
            let run = self.run(folder, variant);
            let events = run.join("events.jsonl");
            let has_begun = || steps_in(&events) >= steps;
            self.stop_when(folder, &format!("`{variant}` trains"), &has_begun)?;
            if run.join("metrics.json").exists() {
                bail!("expected to stop while `{variant}` trains, and it was finished");
            }
        }
        let finished = modified(&self.run(folder, "bce"))?;
        self.reproduce(folder, &[])?;
        self.compare(folder, expected)?;
        let now = modified(&images)?;
        if drawn.iter().any(|(name, time)| now.get(name) != Some(time)) {
            bail!("phantoms that were there were drawn again");
        }
        if modified(&self.run(folder, "bce"))? != finished {
            bail!("the variant that was finished was touched again");
        }
        let steps = ["bce", "zlpr", "fzlpr-0.2"].map(|variant| {
            let run = |folder: &str| steps_in(&self.run(folder, variant).join("events.jsonl"));
            (run("first"), run(folder))
        });
        for (whole, pieces) in steps {
            if whole == 0 || whole != pieces {
                bail!(
                    "{whole} steps at one go, {pieces} in pieces: something was repeated or left out"
                );
            }
        }
        tell!("   stopped three times: the same bytes, nothing done twice");
        Ok(())
    }

    fn run(&self, folder: &str, variant: &str) -> PathBuf {
        self.place.join(folder).join(NAME).join(variant)
    }

    /// `reproduce` as a user calls it, its output in a file.
    fn start(&self, folder: &str, more: &[&str]) -> anyhow::Result<Child> {
        let log = self.place.join(format!("{folder}.log"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)?;
        let mut command = Command::new(&self.program);
        command.arg("reproduce").arg(&self.experiment);
        command
            .arg("--runs")
            .arg(self.place.join(folder))
            .args(more);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // A group of its own: a signal to the group is what a terminal sends.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().context("cannot start `xtask reproduce`")
    }

    fn reproduce(&self, folder: &str, more: &[&str]) -> anyhow::Result<()> {
        let mut child = self.start(folder, more)?;
        match self.wait(&mut child, &|| false)? {
            Some(0) => Ok(()),
            code => bail!("expected `reproduce` to end with 0, got {code:?}: see {folder}.log"),
        }
    }

    /// Starts, sends SIGINT as soon as `is_time`, and expects exit code 130.
    fn stop_when(
        &self,
        folder: &str,
        what: &str,
        is_time: &dyn Fn() -> bool,
    ) -> anyhow::Result<()> {
        let mut child = self.start(folder, &[])?;
        match self.wait(&mut child, is_time)? {
            Some(130) => Ok(()),
            code => bail!("expected to stop while {what} with 130, got {code:?}: see {folder}.log"),
        }
    }

    /// Waits for a child, and sends its group SIGINT once: when `is_time`, or when we are told to stop.
    fn wait(&self, child: &mut Child, is_time: &dyn Fn() -> bool) -> anyhow::Result<Option<i32>> {
        let begin = Instant::now();
        let mut is_told = false;
        loop {
            if let Some(status) = child.try_wait()? {
                if self.interrupt.is_raised() {
                    bail!("interrupted");
                }
                return Ok(status.code());
            }
            if !is_told && (is_time() || self.interrupt.is_raised()) {
                is_told = true;
                interrupt_group(child.id())?;
            }
            if begin.elapsed() > PATIENCE {
                child.kill()?;
                bail!("`reproduce` has not ended after {PATIENCE:?}");
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// All tables, predictions and pictures, but for the table of times, by name.
    fn files(&self, folder: &str) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        results(&self.place.join(folder).join(NAME))
    }

    fn compare(&self, folder: &str, expected: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
        let found = self.files(folder)?;
        let names = expected.keys().chain(found.keys());
        let mut differing: Vec<&str> = names
            .filter(|name| expected.get(*name) != found.get(*name))
            .map(String::as_str)
            .collect();
        differing.sort_unstable();
        differing.dedup();
        if !differing.is_empty() {
            bail!(
                "`{folder}` differs from the first in {}",
                differing.join(", ")
            );
        }
        // What a comparison of nothing would not notice.
        for name in [
            "tables/table2.csv",
            "tables/table5.csv",
            "figures/figure7.png",
            "bce/predictions-test.csv",
        ] {
            if !found.contains_key(name) {
                bail!("`{folder}` lacks `{name}`");
            }
        }
        Ok(())
    }
}

/// All tables, predictions and pictures of an experiment's folder, but for the table of times, by name.
pub(super) fn results(root: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            let extension = path.extension().and_then(|extension| extension.to_str());
            let is_compared = extension.is_some_and(|e| ["csv", "svg", "png"].contains(&e));
            let is_explanation = name.ends_with("explanations.json");
            if (is_compared || is_explanation) && name != TIME_TABLE {
                files.insert(name, std::fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

#[cfg(unix)]
fn interrupt_group(leader: u32) -> anyhow::Result<()> {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -s INT -- -{leader}")]);
    let status = kill.status().context("cannot start `sh`")?;
    if !status.success() {
        bail!("cannot interrupt process group {leader}");
    }
    Ok(())
}

#[cfg(not(unix))]
fn interrupt_group(_: u32) -> anyhow::Result<()> {
    bail!("this check sends signals, which only Unix has")
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

/// When each file of a folder was last written; half-written ones are left out.
fn modified(folder: &Path) -> anyhow::Result<BTreeMap<String, SystemTime>> {
    let mut times = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let facts = entry.metadata()?;
        if facts.is_file() && !name.ends_with(".tmp") && name != ".lock" {
            times.insert(name, facts.modified()?);
        }
    }
    Ok(times)
}

/// Optimiser steps in a run's events.
fn steps_in(events: &Path) -> usize {
    let text = std::fs::read_to_string(events).unwrap_or_default();
    let is_step = |line: &&str| line.contains("\"event\":\"step\"");
    text.lines().filter(is_step).count()
}
