//! A small trained run, and the program as a user calls it.
//!
//! Included by tests that need no other run than this one.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::AtomicBool;

use cxr_phantom::{ListSize, PhantomConfig, write_dataset};

/// A network that trains in a moment.
const EXPERIMENT: &str = r#"
name = "tiny"
licence = "cc-by-4.0"
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// Runs `cxr` in a folder.
pub(crate) fn cxr(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cxr"));
    command.current_dir(folder).args(arguments);
    command.output().unwrap()
}

/// What it said.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A trained run in `models/runs/tiny/bce` and its data in `data`.
pub(crate) fn trained() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let size = |images| ListSize {
        images,
        least_positives: 1,
    };
    let config = PhantomConfig::new(5, size(24), size(14))
        .unwrap()
        .with_side(96)
        .unwrap();
    let data = folder.path().join("data");
    write_dataset(&config, &data, &|_| (), &AtomicBool::new(false)).unwrap();
    std::fs::write(folder.path().join("tiny.toml"), EXPERIMENT).unwrap();
    let train = [
        "train",
        "--experiment",
        "tiny.toml",
        "--variant",
        "bce",
        "--data",
        "data",
    ];
    let output = cxr(folder.path(), &train);
    assert!(output.status.success(), "{}", stderr(&output));
    folder
}
