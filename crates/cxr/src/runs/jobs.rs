//! What Slurm knows of the runs that `cxr reproduce --slurm` submitted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::progress::say;
use crate::reproduce::slurm::{FOLDER, JOBS_FILE, TASKS_FILE, TRAIN, exit_file, output_file};

/// No file of the scripts' folder is longer.
const MAX_BYTES: u64 = 1 << 24;

/// A run that is a task of an array.
#[derive(Debug, PartialEq)]
pub(super) struct Task {
    /// The run's folder, which need not be there yet.
    pub(super) run: PathBuf,
    pub(super) state: TaskState,
    /// Slurm's number of the task, such as `12_3`.
    pub(super) job: String,
}

#[derive(Debug, PartialEq)]
pub(super) enum TaskState {
    /// In the queue, for this reason of Slurm's, such as `Priority` or `Dependency`.
    Waiting {
        reason: String,
    },
    Running,
    /// It ended without a finished run: with an exit code, or in a state of Slurm's.
    Failed {
        why: String,
    },
    /// Neither in the queue nor failed.
    Over,
}

/// The tasks of an experiment that was submitted; none where there are no scripts or they were not submitted.
pub(super) fn tasks(experiment_folder: &Path) -> anyhow::Result<Vec<Task>> {
    let folder = experiment_folder.join(FOLDER);
    let (tasks, jobs) = (folder.join(TASKS_FILE), folder.join(JOBS_FILE));
    if !tasks.is_file() || !jobs.is_file() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = serde_json::from_str(&cxr_fs::read_text(&tasks, MAX_BYTES)?)
        .with_context(|| format!("`{}` is not what `--slurm` wrote", tasks.display()))?;
    let jobs = cxr_fs::read_text(&jobs, MAX_BYTES)?;
    let array = jobs.lines().find_map(|line| {
        let (name, job) = line.split_once(' ')?;
        let is_number = !job.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit());
        (name == TRAIN && is_number).then_some(job)
    });
    let Some(array) = array else {
        return Ok(Vec::new());
    };
    let queue = queue(array).unwrap_or_else(|why| {
        say(&format!(
            "what Slurm knows of job {array} is not shown: {why:#}"
        ));
        String::new()
    });
    let mut found = Vec::new();
    for (task, name) in names.iter().enumerate() {
        // A name of somebody's file is no path.
        let name = cxr_fs::FileName::from_text(name);
        let exit = std::fs::read_to_string(folder.join(exit_file(task))).ok();
        let output = folder.join(output_file(task));
        found.push(Task {
            run: experiment_folder.join(name.as_str()),
            state: state(&queue, array, task, exit.as_deref(), &output),
            job: format!("{array}_{task}"),
        });
    }
    Ok(found)
}

/// What `squeue` says of an array, a line for each task: number, state, reason.
fn queue(array: &str) -> anyhow::Result<String> {
    let output = Command::new("squeue")
        .args(["--noheader", "--array", "--states=all", "--format=%i|%T|%r"])
        .arg(format!("--jobs={array}"))
        .output()
        .context("cannot start `squeue`")?;
    // A job that Slurm has forgotten is an error of `squeue`'s.
    let forgotten = String::from_utf8_lossy(&output.stderr).contains("Invalid job id");
    anyhow::ensure!(
        output.status.success() || forgotten,
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn state(queue: &str, array: &str, task: usize, exit: Option<&str>, output: &Path) -> TaskState {
    let known = queue.lines().find_map(|line| {
        let mut fields = line.trim().splitn(3, '|');
        let is_this = fields.next()? == format!("{array}_{task}");
        is_this.then_some((fields.next()?, fields.next().unwrap_or("")))
    });
    let failed = |what: String| TaskState::Failed {
        why: format!("{what}; `{}`", output.display()),
    };
    match known {
        Some(("PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "CONFIGURING" | "SUSPENDED", reason)) => {
            TaskState::Waiting {
                reason: reason.to_owned(),
            }
        }
        Some(("RUNNING" | "COMPLETING" | "STOPPED" | "SIGNALING" | "STAGE_OUT", _)) => {
            TaskState::Running
        }
        Some(("COMPLETED", _)) => TaskState::Over,
        Some((other, _)) if !other.is_empty() && exit.is_none() => failed(other.to_lowercase()),
        _ => match exit.map(str::trim) {
            None | Some("0") => TaskState::Over,
            Some(code) => failed(format!("exit code {code}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Slurm 22.05 prints them.
    const QUEUE: &str = "7_2|PENDING|Dependency\n7_3|PENDING|Resources\n7_0|RUNNING|None\n7_1|FAILED|NonZeroExitCode\n\
                         7_4|TIMEOUT|TimeLimit\n7_5|COMPLETED|None\n";

    #[test]
    fn a_task_is_what_slurm_says_or_how_it_ended() {
        let output = Path::new("out");
        let of = |task, exit| state(QUEUE, "7", task, exit, output);
        let failed = |why: &str| TaskState::Failed {
            why: format!("{why}; `out`"),
        };
        assert_eq!(of(0, None), TaskState::Running);
        assert_eq!(of(1, Some("1\n")), failed("exit code 1"));
        let reason = "Dependency".to_owned();
        assert_eq!(of(2, None), TaskState::Waiting { reason });
        assert_eq!(of(4, None), failed("timeout"));
        assert_eq!(of(5, Some("0")), TaskState::Over);
        // Forgotten by Slurm: its own word remains.
        assert_eq!(of(9, Some("137\n")), failed("exit code 137"));
        assert_eq!(of(9, Some("0\n")), TaskState::Over);
        assert_eq!(of(9, None), TaskState::Over);
        // Another array's.
        assert_eq!(state(QUEUE, "70", 0, None, output), TaskState::Over);
    }
}
