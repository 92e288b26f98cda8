//! `events.jsonl`: what happened in a run, one JSON object a line.
//!
//! The file is a function of the run but for the fields `time` and `seconds`: where a run was
//! stopped or killed and resumed leaves no trace in it. What was written after the checkpoint that
//! a run goes on from is cut off, since it happens again; the beginning of a stage is written once;
//! a checkpoint that was only written because the run was stopped is not.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{LockedRunFolder, RunError};

/// Something that happened; also a line of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage begins, or goes on after a resume.
    Stage {
        /// Its name.
        stage: &'a str,
        /// Epochs before it.
        first_epoch: usize,
        /// Its epochs.
        epochs: usize,
        /// Steps of an epoch.
        steps: usize,
        /// The epoch and step at which this process takes it up.
        from: (usize, usize),
        /// Values that are trained.
        trained_values: usize,
    },
    /// An optimiser step was made.
    Step {
        /// The stage's name.
        stage: &'a str,
        /// The epoch, counted through the stages from 0.
        epoch: usize,
        /// The step within the epoch, from 0.
        step: usize,
        /// Steps of an epoch.
        steps: usize,
        /// The mean loss of the step's images.
        loss: f64,
        /// The learning rate it was made with.
        rate: f64,
        /// Euclidean norm of the gradient, before it was clipped.
        gradient_norm: f64,
        /// The step's images.
        images: usize,
        /// Seconds since the step before.
        seconds: f64,
    },
    /// An epoch ended and the validation images were scored.
    Epoch {
        /// The stage's name.
        stage: &'a str,
        /// The epoch, counted through the stages from 0.
        epoch: usize,
        /// Mean loss over its steps.
        mean_loss: f64,
        /// Mean AUC of the validation images over the labels that have both classes.
        validation_auc: Option<f64>,
        /// Over how many labels.
        validation_labels: usize,
        /// Whether this is the best mean so far.
        best: bool,
        /// Seconds it took, validation included.
        seconds: f64,
    },
    /// A stage ended early: its validation mean had not risen for as many epochs as its patience.
    EarlyStop {
        /// The stage's name.
        stage: &'a str,
        /// The last epoch, counted through the stages from 0.
        epoch: usize,
        /// The stage's patience.
        patience: usize,
    },
    /// An observer decided at the end of an epoch that the training does not go on as the experiment says.
    Decided {
        /// The stage's name.
        stage: &'a str,
        /// The epoch that had ended, counted through the stages from 0.
        epoch: usize,
        /// What was decided.
        decision: Decision,
    },
    /// A checkpoint is written now: what was reported before this is not reported again when the run goes on from it.
    Checkpoint {
        /// The epoch it resumes in.
        epoch: usize,
        /// The step it resumes at.
        step: usize,
        /// Whether every run writes it, stopped here or not.
        #[serde(skip)]
        scheduled: bool,
    },
    /// Some images were predicted.
    Predicting {
        /// What is predicted: `validation`, `test`.
        part: &'a str,
        /// Images done.
        done: usize,
        /// Images in all.
        total: usize,
    },
}

/// How a training goes on after an epoch. Of two decisions the later in this order is the stronger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// As the experiment says.
    #[default]
    Continue,
    /// With the next stage; after the last one it is finished.
    EndStage,
    /// Not at all: it is finished, as after its last stage.
    Finish,
}

/// Writes `events.jsonl` of a run folder.
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
            ("epoch" | "early-stop" | "decided", Some(epoch), _, _) => epoch < next.0,
            ("checkpoint", Some(epoch), Some(step), _) => (epoch, step) <= next,
            _ => false,
        }
    }
}

impl EventLog {
    /// Opens the file of a run whose next step is `next` = (epoch, step), the epoch counted through the stages, and
    /// cuts off everything from that step on.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(run: &LockedRunFolder, next: (usize, usize)) -> Result<Self, RunError> {
        let path = &run.events_file();
        let failed = |action| RunError::io(action, path);
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
    pub fn finish(mut self) -> Result<(), RunError> {
        self.check()
    }

    /// Writes what happened, if it is of the run: what only this process has to do with leaves no line. An error is
    /// kept for [`Self::sync`] and [`Self::finish`].
    pub fn record(&mut self, event: &Event<'_>) {
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

    /// Makes sure that all lines are on the disk: nothing that comes before a checkpoint is lost once there is the
    /// checkpoint.
    ///
    /// # Errors
    /// The first line that could not be written, or a file that is no longer there.
    pub fn sync(&mut self) -> Result<(), RunError> {
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

    fn check(&mut self) -> Result<(), RunError> {
        match self.failure.take() {
            None => Ok(()),
            Some(error) => Err(RunError::io("write", &self.path)(error)),
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
            ("early-stop" | "decided", _, _, _) => may_skip_epochs = true,
            _ => {}
        }
    }
    let skips = may_skip_epochs && next.1 == 0 && next.0 >= expected.0;
    (expected != next && !skips).then_some(expected)
}

/// The last step of `events.jsonl`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LastStep {
    /// The stage's name.
    pub stage: String,
    /// The epoch, counted through the stages from 0.
    pub epoch: usize,
    /// The step within the epoch, from 0.
    pub step: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// The batch's loss.
    pub loss: f64,
    /// When it was made, in seconds since 1970-01-01 UTC.
    pub time: f64,
}

/// The last step of an `events.jsonl`, if its line is whole and among the last ones; `None` also without a readable
/// file.
pub fn last_step(path: &Path) -> Option<LastStep> {
    /// More than the lines of an epoch's end take.
    const TAIL: u64 = 1 << 16;
    let mut file = cxr_fs::open_regular(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    let mut lines = tail.rsplit(|&byte| byte == b'\n');
    lines.find_map(|line| serde_json::from_slice(line).ok())
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
    fn epochs_that_were_left_out_are_not_missed() {
        epochs_are_left_out_after("{\"event\":\"early-stop\",\"epoch\":0,\"patience\":1}\n");
        epochs_are_left_out_after("{\"event\":\"decided\",\"epoch\":0,\"decision\":\"finish\"}\n");
    }

    fn epochs_are_left_out_after(stop: &str) {
        let before = [&step(0, 0), &step(0, 1), stop].concat();
        assert_eq!(first_gap(before.as_bytes(), (4, 0)), None);
        let after = [&before, &step(4, 0)].map(String::as_str).concat();
        assert_eq!(first_gap(after.as_bytes(), (4, 1)), None);
        assert_eq!(first_gap(before.as_bytes(), (4, 1)), Some((1, 0)));
    }
}
