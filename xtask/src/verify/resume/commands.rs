//! The commands around training, killed again and again: `phantoms`, `prepare`, `evaluate` and `explain` must end in the
//! bytes of an undisturbed call and leave nothing half-written behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::{Bench, random, wait_or_kill};
use cxr_terminal::{Ending, Interrupt};

/// Kills of each command.
const KILLS: usize = 4;
/// Calls that may end before they are killed until all kills have hit.
const MOST_CALLS: usize = 60;

/// Digests of files by their path within a folder.
type Files = BTreeMap<String, String>;

/// A command that makes files in a folder.
struct Killed<'a> {
    name: &'static str,
    /// The call whose files are at this place in the end.
    call: &'a dyn Fn(&Path) -> Command,
    /// Brings such a place to where the call begins.
    begin: &'a dyn Fn(&Path) -> anyhow::Result<()>,
    /// Whether a file is the same whenever it is made; the others say how long something took.
    is_compared: fn(&str) -> bool,
    /// Whether what is there before the call must be whole after each kill, too.
    replaces: bool,
}

/// Kills the commands on the data and the finished run of `bench`.
pub(super) fn check(bench: &Bench<'_>, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let data = bench.data();
    let experiment = bench.folder.join("two-threads").join(bench.name);
    let cxr = |arguments: &[&str]| {
        let mut command = Command::new(bench.executable);
        command.args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let empty = |place: &Path| {
        std::fs::create_dir_all(place).with_context(|| format!("cannot make `{}`", place.display()))
    };
    // Beside the run are the prepared images that it was trained on.
    let copied = |place: &Path| copy(&experiment, place);
    let run = |place: &Path| place.join(bench.variant);
    let phantoms = |place: &Path| {
        let mut command = cxr(&["phantoms", "--experiment"]);
        command.arg(bench.experiment()).arg("--data").arg(place);
        command
    };
    let prepare = |place: &Path| {
        let mut command = cxr(&["prepare", "--side", "256", "--out"]);
        command.arg(place.join("images-256.store"));
        command.arg(data.join("images"));
        command
    };
    let evaluate = |place: &Path| {
        let mut command = cxr(&["evaluate", "--data"]);
        command.arg(&data).arg(run(place));
        command
    };
    let explain = |place: &Path| {
        let mut command = cxr(&["explain", "--data"]);
        command.arg(&data).arg(run(place));
        command
    };
    let all: fn(&str) -> bool = |name| !name.ends_with(".lock");
    let outputs: fn(&str) -> bool =
        |name| !name.ends_with(".lock") && !name.ends_with("metrics.json");
    let commands = [
        Killed {
            name: "phantoms",
            call: &phantoms,
            begin: &empty,
            is_compared: all,
            replaces: false,
        },
        Killed {
            name: "prepare",
            call: &prepare,
            begin: &empty,
            is_compared: all,
            replaces: false,
        },
        Killed {
            name: "evaluate",
            call: &evaluate,
            begin: &copied,
            is_compared: outputs,
            replaces: true,
        },
        Killed {
            name: "explain",
            call: &explain,
            begin: &copied,
            is_compared: all,
            replaces: false,
        },
    ];
    let mut ending = Ending::Done;
    for command in &commands {
        match command.check(bench.folder, interrupt)? {
            Ending::Done => {}
            Ending::Failed => ending = Ending::Failed,
            Ending::Interrupted => return Ok(Ending::Interrupted),
        }
    }
    Ok(ending)
}

impl Killed<'_> {
    fn check(&self, folder: &Path, interrupt: &Interrupt) -> anyhow::Result<Ending> {
        let name = self.name;
        let place = |what: &str| folder.join(format!("{name}-{what}"));
        let undisturbed = place("undisturbed");
        (self.begin)(&undisturbed)?;
        let start = Instant::now();
        let ended = interrupt.run(&mut (self.call)(&undisturbed))?;
        match ended.ending {
            Ending::Done => {}
            Ending::Interrupted => return Ok(Ending::Interrupted),
            Ending::Failed => bail!("`cxr {name}` failed: {}", ended.status),
        }
        let duration = start.elapsed();
        let expected = self.files(&undisturbed)?;

        let (mut kills, mut within_writes, mut same) = (0, 0, true);
        for call in 0..MOST_CALLS {
            let killed = place(&format!("killed-{call}"));
            (self.begin)(&killed)?;
            let before = self.files(&killed)?;
            // Killed on the way to the end, and gone on with: until a call is over first.
            loop {
                let wait = duration.mul_f64(random());
                let mut child = (self.call)(&killed).spawn().context("cannot start `cxr`")?;
                let begin = Instant::now();
                let kill = || kills < KILLS && begin.elapsed() >= wait;
                let was_killed = wait_or_kill(&mut child, interrupt, kill)?;
                if interrupt.is_raised() {
                    return Ok(Ending::Interrupted);
                }
                if !was_killed {
                    break;
                }
                kills += 1;
                within_writes += usize::from(!leftovers(&killed)?.is_empty());
                if self.replaces {
                    let after = self.files(&killed)?;
                    same &= said(name, "after a kill", &before, &after);
                }
            }
            let found = self.files(&killed)?;
            same &= said(name, "after all kills", &expected, &found);
            let left = leftovers(&killed)?;
            if !left.is_empty() {
                cxr_terminal::say!("error: {name}: left behind: {}", left.join(", "));
                same = false;
            }
            std::fs::remove_dir_all(&killed)
                .with_context(|| format!("cannot remove `{}`", killed.display()))?;
            if kills >= KILLS {
                break;
            }
        }
        if kills < KILLS {
            bail!("`cxr {name}`: expected {KILLS} kills in {MOST_CALLS} calls, got {kills}");
        }
        cxr_terminal::tell!(
            "   {name}: {kills} kills, {within_writes} of them within a write; {} files {}",
            expected.len(),
            if same {
                "are the same bytes, and no leftovers"
            } else {
                "are not as they should be"
            }
        );
        Ok(if same { Ending::Done } else { Ending::Failed })
    }

    /// What is to be the same each time, unfinished files left out.
    fn files(&self, folder: &Path) -> anyhow::Result<Files> {
        let mut files = Files::new();
        for path in walk(folder)? {
            let name = relative(folder, &path);
            if (self.is_compared)(&name) && !is_unfinished(&path) {
                let bytes = std::fs::read(&path)
                    .with_context(|| format!("cannot read `{}`", path.display()))?;
                let digest = Sha256::digest(&bytes);
                files.insert(
                    name,
                    digest.iter().map(|byte| format!("{byte:02x}")).collect(),
                );
            }
        }
        Ok(files)
    }
}

/// Whether files are as expected; says which are not.
fn said(name: &str, when: &str, expected: &Files, found: &Files) -> bool {
    let names = expected.keys().chain(found.keys());
    let differing: Vec<&str> = names
        .filter(|name| expected.get(*name) != found.get(*name))
        .map(String::as_str)
        .collect();
    if !differing.is_empty() {
        cxr_terminal::say!(
            "error: {name}: {when}: other bytes in {}",
            differing.join(", ")
        );
    }
    differing.is_empty()
}

/// What a write that did not end has left.
pub(in crate::verify) fn leftovers(folder: &Path) -> anyhow::Result<Vec<String>> {
    let left = walk(folder)?.into_iter().filter(|path| is_unfinished(path));
    Ok(left.map(|path| relative(folder, &path)).collect())
}

pub(super) fn is_unfinished(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(".tmp") || name.ends_with(".tmp") || name.ends_with(".partial")
}

fn relative(folder: &Path, path: &Path) -> String {
    let below = path.strip_prefix(folder).unwrap_or(path);
    below.display().to_string()
}

/// All files below a folder, by name.
pub(super) fn walk(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("cannot read `{}`", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        match path.is_dir() {
            true => files.extend(walk(&path)?),
            false => files.push(path),
        }
    }
    files.sort();
    Ok(files)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    for path in walk(from)? {
        let place = to.join(relative(from, &path));
        let copied = (place.parent().map_or(Ok(()), std::fs::create_dir_all))
            .and_then(|()| std::fs::copy(&path, &place));
        copied.with_context(|| format!("cannot copy `{}`", path.display()))?;
    }
    Ok(())
}
