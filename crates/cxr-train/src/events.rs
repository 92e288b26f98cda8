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
    /// Steps of an epoch.
    steps: Option<usize>,
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
        let kept = length_before(&text, next);
        if let Some((epoch, step)) = first_gap(text.get(..kept as usize).unwrap_or(&text), next) {
            tracing::warn!(
                "`{}` lacks what happened from epoch {epoch}, step {step} on, before epoch {}, step {}, where the run goes on: its lines were removed or damaged after they were written; the run itself is not affected",
                path.display(),
                next.0,
                next.1
            );
        }
        file.set_len(kept).map_err(failed("write"))?;
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
            self.failure = match cxr_fs::is_at(&self.file, &self.path) {
                true => self.file.sync_data().err(),
                false => Some(std::io::Error::other(
                    "it was deleted, moved or replaced while the run wrote to it",
                )),
            };
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

/// The first step before `next` whose line is not in `text`, all of whose lines come before `next`.
fn first_gap(text: &[u8], next: (usize, usize)) -> Option<(usize, usize)> {
    let mut expected = (0, 0);
    // A stage that ends early leaves out its other epochs.
    let mut may_skip_epochs = false;
    for line in text.split(|&byte| byte == b'\n') {
        let Ok(when) = serde_json::from_slice::<When>(line) else {
            continue;
        };
        match (when.event.as_str(), when.epoch, when.step, when.steps) {
            ("step", Some(epoch), Some(step), Some(steps)) => {
                let skips = may_skip_epochs && step == 0 && epoch >= expected.0;
                if (epoch, step) != expected && !skips {
                    return Some(expected);
                }
                may_skip_epochs = false;
                expected = match step + 1 < steps {
                    true => (epoch, step + 1),
                    false => (epoch.saturating_add(1), 0),
                };
            }
            ("early-stop", _, _, _) => may_skip_epochs = true,
            _ => {}
        }
    }
    let skips = may_skip_epochs && next.1 == 0 && next.0 >= expected.0;
    (expected != next && !skips).then_some(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(epoch: usize, step: usize) -> String {
        format!("{{\"event\":\"step\",\"epoch\":{epoch},\"step\":{step},\"steps\":2}}\n")
    }

    #[test]
    fn a_line_that_is_gone_is_missed_wherever_it_was() {
        let lines = [step(0, 0), step(0, 1), step(1, 0), step(1, 1), step(2, 0)];
        let all = lines.concat();
        assert_eq!(first_gap(all.as_bytes(), (2, 1)), None);
        assert_eq!(first_gap(b"", (0, 0)), None);
        assert_eq!(first_gap(b"", (2, 1)), Some((0, 0)));
        for (gone, place) in [(0, (0, 0)), (1, (0, 1)), (2, (1, 0)), (4, (2, 0))] {
            let mut lines = lines.clone();
            lines[gone].clear();
            assert_eq!(first_gap(lines.concat().as_bytes(), (2, 1)), Some(place));
        }
    }

    #[test]
    fn epochs_that_an_early_stop_left_out_are_not_missed() {
        let stop = "{\"event\":\"early-stop\",\"epoch\":0,\"patience\":1}\n";
        let before = [&step(0, 0), &step(0, 1), stop].concat();
        assert_eq!(first_gap(before.as_bytes(), (4, 0)), None);
        let after = [&before, &step(4, 0)].map(String::as_str).concat();
        assert_eq!(first_gap(after.as_bytes(), (4, 1)), None);
        assert_eq!(first_gap(before.as_bytes(), (4, 1)), Some((1, 0)));
    }
}
