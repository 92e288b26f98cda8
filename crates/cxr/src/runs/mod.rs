//! `cxr runs`: which runs there are, and how far each is.

mod jobs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use cxr_run::{Finish, Part, RunFolder, RunStatus, ViewSet};
use serde::Serialize;

use self::jobs::{Task, TaskState};
use crate::progress::{duration, say};
use crate::{SOME_FAILED, scoring};

/// List runs: finished, running or stopped, and where; best validation AUC, last loss, when
///
/// Of runs that `cxr reproduce --slurm` submitted it also says which wait in Slurm's queue, and why, and which failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where run folders are kept: a folder of experiments, or one experiment
    #[arg(value_name = "DIR", default_value = "models/runs")]
    folder: PathBuf,

    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// A run as it is listed.
#[derive(Serialize)]
struct Row {
    /// Its folder.
    path: PathBuf,
    /// `finished`, `running`, `stopped`, or `changed`: finished, but its files are not those any more. Of a task of Slurm's
    /// also `waiting` and `failed`.
    state: State,
    /// Slurm's number of the task that makes it, where one was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<String>,
    /// Why Slurm lets it wait, or how it failed and where its output is.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What happened to the files of a changed one.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<String>,
    /// The stage it is in; `null` when all are done.
    stage: Option<String>,
    /// The epoch that is made next, counted through the stages from 0; of a running one that is made.
    epoch: usize,
    /// The step within it.
    step: usize,
    /// The best mean AUC of the validation images.
    best: Option<Best>,
    /// Mean loss of the last epoch, or the loss of the last step before one has ended.
    loss: Option<f64>,
    /// When something last happened, in seconds since 1970-01-01 UTC.
    time: Option<f64>,
    /// Mean AUC of the test images, single view.
    test_auc: Option<f64>,
}

#[derive(Serialize)]
struct Best {
    validation_auc: f64,
    epoch: usize,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Finished,
    Running,
    Stopped,
    Changed,
    Waiting,
    Failed,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (mut rows, mut failed) = (Vec::new(), false);
    let (folders, experiments) = run_folders(&args.folder)?;
    for folder in folders {
        match row(&folder) {
            Ok(row) => {
                if let Some(changes) = &row.changes {
                    say(&format!(
                        "`{0}` is finished, but {changes} since\nhint: `cxr evaluate {0} --data DIR` makes its files again",
                        folder.display()
                    ));
                }
                rows.push(row);
            }
            Err(error) => {
                failed = true;
                say(&format!("`{}`: {error:#}", folder.display()));
            }
        }
    }
    for folder in experiments {
        match jobs::tasks(&folder) {
            Ok(tasks) => tasks.into_iter().for_each(|task| add_task(&mut rows, task)),
            Err(error) => {
                failed = true;
                say(&format!("`{}`: {error:#}", folder.display()));
            }
        }
    }
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    if args.json {
        scoring::print_json(&serde_json::to_value(&rows)?)?;
    } else if rows.is_empty() {
        say(&format!("no run in `{}`", args.folder.display()));
    } else {
        scoring::print(&table(&rows, &args.folder))?;
    }
    Ok(match failed {
        true => ExitCode::from(SOME_FAILED),
        false => ExitCode::SUCCESS,
    })
}

/// Adds what Slurm knows of a run to its row, or a row of its own for one that has not begun.
fn add_task(rows: &mut Vec<Row>, task: Task) {
    let place = match rows.iter().position(|row| row.path == task.run) {
        Some(place) => place,
        // Over, and nothing was made: its folder was taken away since.
        None if task.state == TaskState::Over => return,
        None => {
            rows.push(Row::not_begun(task.run));
            rows.len() - 1
        }
    };
    let Some(row) = rows.get_mut(place) else {
        return;
    };
    row.job = Some(task.job);
    // What its folder says of a run that is at work or done is known better there.
    let says_more = matches!(row.state, State::Stopped | State::Waiting);
    match task.state {
        TaskState::Waiting { reason } if says_more => {
            (row.state, row.reason) = (State::Waiting, Some(reason));
        }
        TaskState::Running if says_more => row.state = State::Running,
        TaskState::Failed { why } if says_more => {
            (row.state, row.reason) = (State::Failed, Some(why));
        }
        _ => {}
    }
}

impl Row {
    /// A run that only Slurm knows of.
    fn not_begun(path: PathBuf) -> Self {
        Self {
            path,
            state: State::Waiting,
            job: None,
            reason: None,
            changes: None,
            stage: None,
            epoch: 0,
            step: 0,
            best: None,
            loss: None,
            time: None,
            test_auc: None,
        }
    }
}

/// The folders with an `experiment.toml`, at most two below `folder`, by name; and those above and beside them, which
/// may be those of experiments.
fn run_folders(folder: &Path) -> anyhow::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    let mut level = vec![folder.to_owned()];
    for _ in 0..=2 {
        let mut below = Vec::new();
        for folder in level {
            if RunFolder::at(&folder).experiment_file().is_file() {
                found.push(folder);
                continue;
            }
            others.push(folder.clone());
            let entries = std::fs::read_dir(&folder)
                .with_context(|| format!("cannot read `{}`", folder.display()))?;
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() {
                    below.push(path);
                }
            }
        }
        level = below;
    }
    found.sort();
    Ok((found, others))
}

fn row(folder: &Path) -> anyhow::Result<Row> {
    let status = RunStatus::read(folder)?;
    let run = RunFolder::at(folder);
    // A process that works there may be replacing the files.
    let finish = match status.in_use {
        true => Finish::Unfinished,
        false => run.finish()?,
    };
    let state = match &finish {
        _ if status.in_use => State::Running,
        Finish::Unfinished => State::Stopped,
        Finish::Finished | Finish::Unverified => State::Finished,
        Finish::Changed(_) => State::Changed,
    };
    let metrics = match state {
        State::Finished => Some(run.metrics()?),
        // As it stands; what is said of the run says that it may not be trusted.
        State::Changed | State::Running => run.metrics().ok(),
        State::Stopped | State::Waiting | State::Failed => None,
    };
    let epoch_of_checkpoint = status.first_epoch.saturating_add(status.position.epoch);
    let (mut epoch, mut step) = (epoch_of_checkpoint, status.position.step);
    let mut stage = status.stages.get(status.position.stage).cloned();
    let last_step = status.last_step.as_ref();
    if let (State::Running, Some(last)) = (state, last_step)
        && (last.epoch, last.step) >= (epoch, step)
    {
        (epoch, step) = (last.epoch, last.step);
        stage = Some(last.stage.clone());
    }
    let mean = status.history.last().map(|epoch| epoch.mean_loss);
    Ok(Row {
        path: folder.to_owned(),
        state,
        job: None,
        reason: None,
        changes: finish.changes(),
        stage,
        epoch,
        step,
        best: status.best.as_ref().map(|best| Best {
            validation_auc: best.validation_auc,
            epoch: best.epoch,
        }),
        loss: mean.or(last_step.map(|step| step.loss)),
        time: time_of(&run.metrics_file()).or(last_step.map(|step| step.time)),
        test_auc: metrics
            .and_then(|metrics| metrics.summary(Part::Test, ViewSet::Single)?.means.auc),
    })
}

/// In seconds.
const DAY: f64 = 86_400.;
/// No run is as old as 1970.
const LONGEST: f64 = 50. * 365. * DAY;

fn time_of(file: &Path) -> Option<f64> {
    let changed = std::fs::metadata(file).ok()?.modified().ok()?;
    Some(changed.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

fn table(rows: &[Row], folder: &Path) -> String {
    let names = rows.iter().map(|row| name(row, folder));
    let states = rows.iter().map(state);
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.4}"));
    let mut text = String::new();
    let cells: Vec<[String; 6]> = (names.zip(states).zip(rows))
        .map(|((name, state), row)| {
            let best = row.best.as_ref().map(|best| best.validation_auc);
            let when = row.time.map_or("–".to_owned(), ago);
            let [best, loss, test] = [best, row.loss, row.test_auc].map(number);
            [name, state, best, test, loss, when]
        })
        .collect();
    let head = ["run", "state", "best AUC", "test AUC", "loss", "when"].map(str::to_owned);
    let lines = || std::iter::once(&head).chain(&cells);
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let width = |cells: &[String; 6]| cells[column].chars().count();
            lines().map(width).max().unwrap_or(0)
        })
        .collect();
    for cells in lines() {
        let padded = cells.iter().zip(&widths);
        let line: Vec<String> = padded
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// The run's folder, as seen from the one that was asked for.
fn name(row: &Row, folder: &Path) -> String {
    match row.path.strip_prefix(folder) {
        Ok(below) if below != Path::new("") => below.display().to_string(),
        _ => row.path.display().to_string(),
    }
}

fn state(row: &Row) -> String {
    let reason = row.reason.as_deref().unwrap_or_default();
    let place = match &row.stage {
        None if row.state == State::Running && row.time.is_none() => "beginning".to_owned(),
        Some(stage) => format!("`{stage}`, epoch {}, step {}", row.epoch, row.step),
        None => "prediction".to_owned(),
    };
    match row.state {
        State::Finished => "finished".to_owned(),
        State::Changed => "finished, changed since".to_owned(),
        State::Running => format!("running: {place}"),
        State::Stopped => format!("stopped: {place}"),
        State::Waiting => format!("waiting: {reason}"),
        State::Failed => format!("failed: {reason}"),
    }
}

fn ago(time: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let passed = now.unwrap_or_default().as_secs_f64() - time;
    // A file may hold any number; a clock that runs a little ahead is no reason to say so.
    match passed > -DAY && passed < LONGEST {
        true => format!("{} ago", duration(Duration::from_secs_f64(passed.max(0.)))),
        false => "–".to_owned(),
    }
}
