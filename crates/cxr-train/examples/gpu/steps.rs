//! Some hundred steps of a small network on phantoms: memory that does not grow, and losses as on the CPU.

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use cxr_ops::cuda_memory_peak;
use cxr_train::{Event, Experiment, Observer, RunFolder, Trainer, TrainingData};

use super::Result;
use super::course::data;

const BATCH: usize = 16;
/// Images of a training whose epoch has this many steps; a tenth more of them validates.
const STEPS_AN_EPOCH: usize = 25;

fn experiment(epochs: usize, rate: f64) -> String {
    format!(
        r#"
name = "steps"
[data]
validation = "paper"
[model]
backbone = {{ densenet = {{ stem_channels = 32, growth_rate = 32, bottleneck_size = 1, block_layers = [1, 3, 4, 4] }} }}
[augmentation]
flip_probability = 0.5
max_rotation = 0.4
image_size = 256
crop_size = 224
[training]
batch_size = {BATCH}
[[training.stages]]
name = "all layers"
epochs = {epochs}
schedule = {{ constant = {{ learning_rate = {rate:e} }} }}
[[variants]]
name = "bce"
loss = "bce"
"#
    )
}

/// The losses of all steps, and the peak of the device's memory after each epoch, in MiB.
struct Seen<'a> {
    device: &'a Device,
    losses: Vec<f64>,
    peaks: Vec<f64>,
}

impl Observer for Seen<'_> {
    fn on(&mut self, event: &Event<'_>) {
        match *event {
            Event::Step { loss, .. } => self.losses.push(loss),
            Event::Epoch { .. } if self.device.is_cuda() => {
                let peak = cuda_memory_peak(self.device).ok().flatten();
                self.peaks
                    .extend(peak.map(|bytes| bytes as f64 / f64::from(1 << 20)));
            }
            _ => {}
        }
    }
}

fn trained<'a>(
    data: &TrainingData,
    epochs: usize,
    rate: f64,
    device: &'a Device,
) -> Result<Seen<'a>> {
    let folder = tempfile::tempdir()?;
    let variant = Experiment::parse(&experiment(epochs, rate))?.variant("bce")?;
    let run = RunFolder::open(folder.path())?;
    let mut seen = Seen {
        device,
        losses: Vec::new(),
        peaks: Vec::new(),
    };
    Trainer::new(&variant, data, &run, device)?.run(&mut seen, &AtomicBool::new(false))?;
    Ok(seen)
}

/// So many steps on a device, of which the first epoch is made on the CPU too. Ends with 1 where a loss is not a number,
/// the first epoch's mean losses are further apart than 2 %, or memory grows after the second epoch.
pub(super) fn run(steps: usize, device: &Device) -> Result<ExitCode> {
    const RATE: f64 = 1e-3;
    const BOUND: f64 = 0.02;
    let folder = tempfile::tempdir()?;
    let data = data(folder.path(), BATCH * STEPS_AN_EPOCH * 10 / 9 + BATCH, 32)?;
    let here = trained(&data, 1, RATE, &Device::Cpu)?;
    let an_epoch = here.losses.len();
    // A rate that differs by a millionth stands for rounding where there is no GPU.
    let rate = match device {
        Device::Cpu => RATE * (1. + 1e-6),
        _ => RATE,
    };
    let there = trained(&data, steps.div_ceil(an_epoch).max(1), rate, device)?;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    println!(
        "{:>5} {:>10} {:>10} {:>10}",
        "epoch", "mean loss", "on the CPU", "peak MiB"
    );
    for (epoch, losses) in there.losses.chunks(an_epoch).enumerate() {
        let on_cpu = match epoch {
            0 => format!("{:.5}", mean(&here.losses)),
            _ => "–".to_owned(),
        };
        let peak = there.peaks.get(epoch);
        let peak = peak.map_or_else(|| "–".to_owned(), |peak| format!("{peak:.0}"));
        println!(
            "{:>5} {:>10.5} {on_cpu:>10} {peak:>10}",
            epoch + 1,
            mean(losses)
        );
    }
    let mut is_good = true;
    let mut tell = |what: &str, holds: bool| {
        println!("{what}: {}", if holds { "ok" } else { "NO" });
        is_good &= holds;
    };
    tell(
        &format!("{} losses are numbers", there.losses.len()),
        there.losses.iter().all(|loss| loss.is_finite()),
    );
    let first = there.losses.get(..an_epoch).unwrap_or_default();
    let difference = mean(first) / mean(&here.losses) - 1.;
    tell(
        &format!("the first epoch's mean loss is {difference:+.2e} from the CPU's, bound {BOUND}"),
        difference.abs() <= BOUND,
    );
    if let [_, second, .., last] = there.peaks[..] {
        tell(
            &format!("memory is {second:.0} MiB after two epochs and {last:.0} MiB at the end"),
            last <= 1.01 * second,
        );
    }
    Ok(match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
