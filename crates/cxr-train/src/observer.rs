//! What sees the events of a run.

use cxr_run::{Event, EventLog};

use crate::TrainError;

/// Receives the events of a run. `()` ignores them.
pub trait Observer {
    /// Called from the training thread, between steps: it should return soon.
    fn on(&mut self, event: &Event<'_>);

    /// Called before a checkpoint is written, after its event. An error ends the run with the
    /// checkpoint before: a run never goes on from one whose past was not kept.
    ///
    /// # Errors
    /// An event could not be kept.
    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Ok(())
    }
}

impl Observer for () {
    fn on(&mut self, _event: &Event<'_>) {}
}

/// Keeps what happens; no checkpoint is written before the lines of what came before it are on the disk.
impl Observer for EventLog {
    fn on(&mut self, event: &Event<'_>) {
        self.record(event);
    }

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Ok(self.sync()?)
    }
}
