//! Whether every loss of `cxr-losses` overfits thirty-two phantoms: what it is above its infimum
//! falls tenfold, and the AUC of every label that is present reaches 1 on these images.
//!
//! `cargo run --release -p cxr-train --example overfit -- [LOSS …]`, or `cargo xtask verify overfit`

mod phantoms;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use cxr_augment::ViewSet;
use cxr_dataset::Part;
use cxr_losses::LOSSES;
use cxr_metrics::{Scored, roc_auc};
use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use cxr_train::{Event, Experiment, Observer, RunFolder, Trainer, TrainingData, predict};

/// As the `cxr` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IMAGES: usize = 32;
/// Of the training list a tenth, rounded down, validates.
const LISTED: usize = 35;
const SIDE: usize = 64;

/// No augmentation, no dropout, no decay: nothing keeps the network from overfitting. One step is all
/// images. The logits are normalised, so that only the last normalisation's weights make them large; at the
/// rate of the others they would take thousands of steps.
const EXPERIMENT: &str = r#"
name = "overfit"

[model]
backbone = { densenet = { stem_channels = 16, growth_rate = 8, block_layers = [2, 3] } }
head = { top-network = { conv_channels = [32, 32], hidden = 64, dropout = 0.0, norm_momentum = 0.1 } }

[augmentation]
flip_probability = 0.0
max_rotation = 0.0
image_size = 64
crop_size = 64

[training]
batch_size = 32
optimiser = { weight_decay = 0.0 }

[[training.stages]]
name = "all layers"
epochs = 200
schedule = { cosine = { learning_rate = 1e-2, min_learning_rate = 0.0 } }
groups = [{ parameters = "top.norm4.*", learning_rate_factor = 4.0 }]
"#;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let folder = tempfile::tempdir()?;
    let data = data(folder.path())?;
    let truth = Truth::new(&data);
    println!(
        "{IMAGES} images, {} of 14 labels present\n{:<26} {:>9} {:>9} {:>9} {:>10}",
        truth.n_present(),
        "loss",
        "at first",
        "at last",
        "ratio",
        "least AUC"
    );
    let mut learned_all = true;
    for entry in LOSSES {
        if !only.is_empty() && !only.iter().any(|name| name == entry.name) {
            continue;
        }
        let (first, last, auc) = learn(entry.name, &data, &truth, folder.path())?;
        let infimum = infimum(entry.name, &truth);
        let (first, last) = (first - infimum, last - infimum);
        let learned = last <= first / 10. && auc == Some(1.);
        learned_all &= learned;
        println!(
            "{:<26} {first:>9.5} {last:>9.5} {:>9.1} {:>10} {}",
            entry.name,
            first / last,
            auc.map_or("undefined".to_owned(), |auc| format!("{auc:.4}")),
            if learned { "" } else { "NOT LEARNED" }
        );
    }
    Ok(match learned_all {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The greatest lower bound of a loss on these images. Each is a sum of terms that logits which are far
/// on the right side bring as near to 0 as one likes, but for sigmoidF1, in which a label that is present in
/// no image costs 1 whatever its logits.
fn infimum(loss: &str, truth: &Truth) -> f64 {
    match loss {
        "sigmoid-f1" => (truth.labels.len() - truth.n_present()) as f64 / truth.labels.len() as f64,
        _ => 0.,
    }
}

/// Phantoms in a folder, prepared; the training images are the ones to be learned.
fn data(folder: &Path) -> Result<TrainingData, Box<dyn Error>> {
    let size = |images, least_positives| ListSize {
        images,
        least_positives,
    };
    let config = PhantomConfig::new(5, size(LISTED, 3), size(12, 1))?.with_side(2 * SIDE)?;
    write_dataset(&config, folder, &|_| (), &AtomicBool::new(false))?;
    let data = phantoms::prepared(folder, SIDE as u32, 3)?;
    assert_eq!(data.split().train().len(), IMAGES);
    Ok(data)
}

/// Which training images have which label.
struct Truth {
    labels: Vec<String>,
    /// Row by row.
    positive: Vec<bool>,
}

impl Truth {
    fn new(data: &TrainingData) -> Self {
        let records = data.split().train().iter();
        let records = records.filter_map(|name| data.index().get(name));
        let states = records.flat_map(|record| &record.labels);
        Self {
            labels: data.labels().to_vec(),
            positive: states.map(|state| state.target() > 0.).collect(),
        }
    }

    fn of_label(&self, label: usize) -> Vec<bool> {
        let rows = self.positive.chunks(self.labels.len());
        rows.map(|row| row[label]).collect()
    }

    fn n_present(&self) -> usize {
        let labels = 0..self.labels.len();
        labels
            .filter(|&label| self.of_label(label).contains(&true))
            .count()
    }
}

/// The losses of the first and the last step, and the smallest AUC of a label.
fn learn(
    loss: &str,
    data: &TrainingData,
    truth: &Truth,
    folder: &Path,
) -> Result<(f64, f64, Option<f64>), Box<dyn Error>> {
    let text = format!("{EXPERIMENT}\n[[variants]]\nname = \"{loss}\"\nloss = \"{loss}\"\n");
    let experiment = Experiment::parse(&text)?;
    let variant = experiment.variant(loss)?;
    let run = RunFolder::open(folder.join("runs").join(loss))?;
    let mut trainer = Trainer::new(&variant, data, &run, &Device::Cpu)?;
    let (mut losses, stop) = (Losses::default(), AtomicBool::new(false));
    trainer.run(&mut losses, &stop)?;
    let prediction = predict(
        trainer.classifier(),
        trainer.card(),
        data,
        Part::Train,
        ViewSet::Single,
        IMAGES,
        &mut (),
        &stop,
    )?;
    let logits = match prediction {
        Some(prediction) => prediction.logits(ViewSet::Single)?,
        None => return Err("prediction was stopped".into()),
    };
    let mut least = None;
    for label in 0..truth.labels.len() {
        let column = logits.iter().skip(label).step_by(truth.labels.len());
        let (column, positive): (Vec<f32>, _) = (column.copied().collect(), truth.of_label(label));
        if let Some(auc) = roc_auc(Scored::new(&column, &positive)?) {
            least = Some(least.map_or(auc, |least: f64| least.min(auc)));
        }
    }
    let (Some(first), Some(last)) = (losses.first, losses.last) else {
        return Err("no step was made".into());
    };
    Ok((first, last, least))
}

/// The losses of the first and the last step.
#[derive(Default)]
struct Losses {
    first: Option<f64>,
    last: Option<f64>,
}

impl Observer for Losses {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Step { loss, .. } = *event {
            self.first.get_or_insert(loss);
            self.last = Some(loss);
        }
    }
}
