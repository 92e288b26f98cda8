//! What the tests of training share: data, and a stop after some steps.

// Every test that includes the module uses a part of it.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "shared by several tests"
)]

#[path = "../../examples/phantoms/mod.rs"]
mod prepared;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use cxr_train::{Event, Observer, TrainingData};

/// Phantoms in a folder, prepared: 22 images to train on, 2 to validate, 12 to test.
pub(crate) fn data(folder: &Path) -> TrainingData {
    write(folder, 24);
    read(folder)
}

/// Writes so many phantoms to train on and validate, and 12 to test.
pub(crate) fn write(folder: &Path, train_val: usize) {
    let size = |images| ListSize {
        images,
        least_positives: 1,
    };
    let config = PhantomConfig::new(5, size(train_val), size(12))
        .unwrap()
        .with_side(64)
        .unwrap();
    write_dataset(&config, folder, &|_| (), &AtomicBool::new(false)).unwrap();
}

/// Prepares the phantoms of a folder.
pub(crate) fn read(folder: &Path) -> TrainingData {
    prepared::prepared(folder, 64, 3).unwrap()
}

/// Sets the stop flag after so many steps.
pub(crate) struct StopAfter<'a> {
    pub(crate) left: AtomicUsize,
    pub(crate) stop: &'a AtomicBool,
}

impl Observer for StopAfter<'_> {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Step { .. } = event
            && self.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}
