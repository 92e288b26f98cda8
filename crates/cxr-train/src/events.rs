//! `events.jsonl`: what happened in a run, one JSON object a line.
//!
//! The file is a function of the run but for the fields `time` and `seconds`: where a run was
//! stopped or killed and resumed leaves no trace in it. What was written after the checkpoint that
//! a run goes on from is cut off, since it happens again; the beginning of a stage is written once;
//! a checkpoint that was only written because the run was stopped is not.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{Event, Observer, TrainError};

/// Writes `events.jsonl` of a run folder; [`Trainer::event_log`](crate::Trainer::event_log) opens it.
#[derive(Debug)]
pub struct EventLog {
    path: PathBuf,
    file: File,
    failure: Option<std::io::Error>,
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a Event<'a>,
    /// Seconds since 1970-01-01 UTC.
    time: f64,
}

/// What of a line says when it happened.
#[derive(Deserialize)]
struct When {
    event: String,
    /// Of everything but the beginning of a stage.
    epoch: Option<usize>,
    /// Of a step and a checkpoint.
    step: Option<usize>,
    /// Of the beginning of a stage.
    first_epoch: Option<usize>,
}

impl When {
    /// Whether it comes before step `next` = (epoch, step), and so will not happen again.
    fn is_before(&self, next: (usize, usize)) -> bool {
        match (self.event.as_str(), self.epoch, self.step, self.first_epoch) {
            ("stage", _, _, Some(first_epoch)) => (first_epoch, 0) < next,
            ("step", Some(epoch), Some(step), _) => (epoch, step) < next,
            ("epoch" | "early-stop", Some(epoch), _, _) => epoch < next.0,
            ("checkpoint", Some(epoch), Some(step), _) => (epoch, step) <= next,
            _ => false,
        }
    }
}

impl EventLog {
    /// Opens the file at `path` for a run whose next step is `next` = (epoch, step), the epoch
    /// counted through the stages, and cuts off everything from that step on.
    pub(crate) fn open(path: &Path, next: (usize, usize)) -> Result<Self, TrainError> {
        let failed = |action| {
            move |source| TrainError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(failed("open"))?;
        let text = std::fs::read(path).map_err(failed("read"))?;
        file.set_len(length_before(&text, next))
            .map_err(failed("write"))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            failure: None,
        })
    }

    /// Ends the log.
    ///
    /// # Errors
    /// The first line that could not be written.
    pub fn finish(mut self) -> Result<(), TrainError> {
        self.check()
    }

    fn check(&mut self) -> Result<(), TrainError> {
        match self.failure.take() {
            None => Ok(()),
            Some(source) => Err(TrainError::Io {
                action: "write",
                path: self.path.clone(),
                source,
            }),
        }
    }

    fn write(&mut self, event: &Event<'_>) -> std::io::Result<()> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let milliseconds = since_1970.unwrap_or_default().as_millis();
        let time = milliseconds as f64 / 1e3;
        let mut line = serde_json::to_vec(&Line { event, time })?;
        line.push(b'\n');
        self.file.write_all(&line)
    }
}

impl Observer for EventLog {
    fn on(&mut self, event: &Event<'_>) {
        let is_of_the_run = match *event {
            Event::Stage {
                first_epoch, from, ..
            } => from == (first_epoch, 0),
            Event::Checkpoint { scheduled, .. } => scheduled,
            Event::Predicting { .. } => false,
            _ => true,
        };
        if is_of_the_run
            && self.failure.is_none()
            && let Err(error) = self.write(event)
        {
            self.failure = Some(error);
        }
    }

    /// Nothing that comes before a checkpoint is lost once there is the checkpoint.
    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        if self.failure.is_none() {
            self.failure = self.file.sync_data().err();
        }
        self.check()
    }
}

/// Bytes of the whole lines that come before `next`. A line that is torn or that nobody wrote here
/// ends them.
fn length_before(text: &[u8], next: (usize, usize)) -> u64 {
    let kept = text
        .split_inclusive(|&byte| byte == b'\n')
        .take_while(|line| {
            let when = serde_json::from_slice::<When>(line);
            line.ends_with(b"\n") && when.is_ok_and(|when| when.is_before(next))
        });
    kept.map(|line| line.len() as u64).sum()
}
