//! Where a run stands, for whoever looks from outside.

use std::path::Path;

use serde::Deserialize;

use crate::{
    BestEpoch, EpochRecord, LastStep, Position, Progress, RunError, RunFolder, description_of,
    last_step,
};

/// What the files of a run say of it. Reading it disturbs no process that is working there.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStatus {
    /// The names of its stages.
    pub stages: Vec<String>,
    /// All epochs of the stages before the current one, also where one of them ended early.
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

impl RunStatus {
    /// Reads the status of the run in `folder`.
    ///
    /// # Errors
    /// A folder without a readable `experiment.toml`, or a checkpoint that is not whole.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let run = RunFolder::at(folder);
        let experiment = run.experiment()?;
        let stages = experiment.training.stages;
        let checkpoint = run.latest_checkpoint();
        let progress = match checkpoint.is_file() {
            true => progress_of(&checkpoint)?,
            false => Progress::default(),
        };
        let before = stages.iter().take(progress.position.stage);
        Ok(Self {
            first_epoch: before.fold(0, |sum, stage| sum.saturating_add(stage.epochs)),
            stages: stages.into_iter().map(|stage| stage.name).collect(),
            in_use: run.is_in_use(),
            position: progress.position,
            history: progress.history,
            best: progress.best,
            last_step: last_step(&run.events_file()),
        })
    }

    /// Whether all stages are done; predictions may not be.
    pub fn is_trained(&self) -> bool {
        self.position.stage >= self.stages.len()
    }
}

/// How far the training of a checkpoint is, without reading its tensors.
fn progress_of(checkpoint: &Path) -> Result<Progress, RunError> {
    /// What of a checkpoint's description is needed here.
    #[derive(Deserialize)]
    struct Description {
        progress: Progress,
    }
    const KIND: &str = "checkpoint";
    let bad = |problem: String| RunError::BadFile {
        path: checkpoint.to_owned(),
        kind: KIND,
        problem,
    };
    let text = description_of(checkpoint, KIND)?;
    let text = text.ok_or_else(|| bad("it has no description in its metadata".to_owned()))?;
    let description: Description =
        serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    Ok(description.progress)
}
