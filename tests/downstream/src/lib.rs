//! What the examples begin with: drawn chest X-rays in a folder, and a network that is small enough to be trained in
//! seconds. Each example is what a program of its kind takes; the parts between `// begin` and `// end` are counted.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};

/// What an example ends in.
pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Writes drawn chest X-rays of 64×64 pixels into a folder, as ChestX-ray14 is laid out: `train_val` to train on and to
/// validate, and 24 to test.
///
/// # Errors
/// A folder that cannot be written.
pub fn write_phantoms(folder: &Path, seed: u64, train_val: usize) -> Outcome {
    let size = |images| ListSize {
        images,
        least_positives: 2,
    };
    let config = PhantomConfig::new(seed, size(train_val), size(24))?.with_side(64)?;
    write_dataset(&config, folder, &|_| (), &AtomicBool::new(false))?;
    Ok(())
}

/// An experiment with a small network, for such images.
pub const EXPERIMENT: &str = r#"
name = "downstream"
seed = 1
[data]
validation = "patient"
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { linear = {} }
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 8
last_batch = "drop"
[[training.stages]]
name = "all layers"
epochs = 3
schedule = { constant = { learning_rate = 3e-3 } }
[[variants]]
name = "bce"
loss = "bce"
"#;
