//! Where a run stands, for whoever looks from outside.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::Description;
use crate::model_file::read_description;
use crate::run_folder::{EVENTS, LATEST, LOCK};
use crate::{BestEpoch, EpochRecord, Experiment, Position, TrainError};

/// What the files of a run say of it. Reading it disturbs no process that is working there.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStatus {
    /// The names of its stages.
    pub stages: Vec<String>,
    /// Epochs of the stages before the one it stands in, all of them, where one ended early too.
    pub first_epoch: usize,
    /// Whether a process is working in the folder.
    pub in_use: bool,
    /// Where its last checkpoint goes on; the beginning when there is none yet.
    pub position: Position,
    /// The finished epochs of that checkpoint.
    pub history: Vec<EpochRecord>,
    /// The best of them.
    pub best: Option<BestEpoch>,
    /// The last step that was made, which may be after the checkpoint.
    pub last_step: Option<LastStep>,
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

impl RunStatus {
    /// Reads the status of the run in `folder`.
    ///
    /// # Errors
    /// A folder without a readable `experiment.toml`, or a checkpoint that is not whole.
    pub fn read(folder: &Path) -> Result<Self, TrainError> {
        let experiment = Experiment::read(&folder.join("experiment.toml"))?;
        let stages = experiment.training.stages;
        let checkpoint = folder.join(LATEST);
        let progress = match checkpoint.is_file() {
            true => read_description::<Description>(&checkpoint, "checkpoint")?.progress,
            false => Default::default(),
        };
        let before = stages.iter().take(progress.position.stage);
        Ok(Self {
            first_epoch: before.fold(0, |sum, stage| sum.saturating_add(stage.epochs)),
            stages: stages.into_iter().map(|stage| stage.name).collect(),
            in_use: cxr_fs::Lock::is_held(&folder.join(LOCK)),
            position: progress.position,
            history: progress.history,
            best: progress.best,
            last_step: last_step(&folder.join(EVENTS)),
        })
    }

    /// Whether all stages are done; predictions may not be.
    pub fn is_trained(&self) -> bool {
        self.position.stage >= self.stages.len()
    }
}

/// The last whole line of a step, if it is among the last ones.
fn last_step(path: &Path) -> Option<LastStep> {
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
