//! `cargo xtask bench`: our throughput beside that of the usual Python tools on the same work.
//!
//! Ours is measured by the crates' own benchmark binaries, the peer by a script of `xtask/peers`, on as many
//! threads each. They run in turn, round after round, so that whatever else the machine does meets both;
//! the median round counts. Where the peer is not installed its figures are `null`.

mod data;
mod gpu;
mod metrics;
mod network;
pub(crate) mod peer;
mod predict;
mod system;

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;
use cxr_terminal::{say, tell};
use serde::Serialize;

use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    work: Work,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// How often ours and the peer run in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// For `data`: a folder of PNGs to decode and resize, the first sixty by name
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// For the network: images at once [default: 8; of `gpu` 64 and 256]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch: Option<usize>,
    /// Threads of ours and the peer: of the network all cores (with `--clock processor` one), of the rest one, if not given
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
    /// For `gpu`: its program, built elsewhere, on a machine without a Rust toolchain
    #[arg(long, value_name = "FILE")]
    built: Option<PathBuf>,
    /// For `train`, `frozen` and `infer`: a backbone that torchvision has by the same name. DenseNet121 has the top
    /// network, all others a linear head
    #[arg(long, value_name = "NAME", default_value = "densenet121")]
    backbone: String,
    /// For `train`: the numbers that convolutions multiply
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Dtype,
    /// For `train`, `frozen` and `infer`: which seconds count. Those of processors say something on a busy machine too; they
    /// are of one thread unless more are asked for, as a thread that waits may count as one that works
    #[arg(long, value_enum, default_value = "wall")]
    clock: Clock,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected a number of at least 1".to_owned()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Dtype {
    F32,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Clock {
    /// Seconds on the wall
    Wall,
    /// Seconds that processors worked for the program
    Processor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Work {
    /// AUC and the bootstrap of a test set's size, against scikit-learn
    Metrics,
    /// Decoding, resizing and augmentation, against Pillow and torchvision
    Data,
    /// A training step of a backbone with a head, against PyTorch
    Train,
    /// The same with a frozen backbone: the head learns
    Frozen,
    /// Prediction by them, against ONNX Runtime
    Infer,
    /// Files to a table of probabilities, end to end, against Pillow and ONNX Runtime
    Predict,
    /// All three on an NVIDIA GPU, f32 and bf16, against PyTorch, after every operation was held to the CPU's
    Gpu,
}

impl Work {
    /// Whether a backbone does it on the CPU.
    fn is_of_network(self) -> bool {
        matches!(self, Self::Train | Self::Frozen | Self::Infer)
    }

    /// Threads, if none are asked for.
    fn threads(self) -> usize {
        match self {
            Self::Metrics | Self::Data => 1,
            Self::Train | Self::Frozen | Self::Infer | Self::Predict | Self::Gpu => {
                std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
            }
        }
    }
}

/// One kind of work, measured. Throughput is in images per second, of the wall or of processors as asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Measurement {
    name: String,
    ours_img_s: f64,
    peer_img_s: Option<f64>,
    /// Ours by the peer's: above one, we are faster.
    ratio: Option<f64>,
    /// The largest resident memory of the process that measured this, all its work together; `None`
    /// where the system does not tell.
    ours_peak_mib: Option<f64>,
    peer_peak_mib: Option<f64>,
}

/// Kinds of work by name, each with images per second.
type Throughput = Vec<(String, f64)>;

/// What one run of one program measured.
#[derive(Clone, Debug, Default, PartialEq)]
struct Round {
    throughput: Throughput,
    peak_mib: Option<f64>,
}

/// A program that measures, and how its output is read.
struct Program {
    command: Box<dyn Fn() -> Command>,
    read: Read,
}

/// How it is known what a program measured.
enum Read {
    /// It says so on standard output.
    Output(fn(&str) -> anyhow::Result<Throughput>),
    /// By the time that it took for so many images.
    Wall { name: String, n_images: usize },
}

impl Read {
    fn throughput(&self, output: &str, time: std::time::Duration) -> anyhow::Result<Throughput> {
        match self {
            Self::Output(read) => read(output),
            Self::Wall { name, n_images } => {
                Ok(vec![(name.clone(), *n_images as f64 / time.as_secs_f64())])
            }
        }
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Ending> {
    let interrupt = Interrupt::install()?;
    // Before our own builds make work.
    if arguments.clock == Clock::Processor && !arguments.work.is_of_network() {
        bail!("`--clock processor` is an option of `train`, `frozen` and `infer`");
    }
    let by_wall = arguments.clock == Clock::Wall;
    if let Some(load) = system::other_load().filter(|_| by_wall) {
        say!("warning: the machine is busy (load {load:.1}): these figures will say little");
    }
    if arguments.work == Work::Gpu {
        let batches = arguments.batch.map_or(vec![64, 256], |batch| vec![batch]);
        let program = arguments.built.as_deref();
        return gpu::run(workspace, &interrupt, &batches, program, arguments.json);
    }
    let threads = match arguments.clock {
        Clock::Wall => arguments.work.threads(),
        Clock::Processor => 1,
    };
    let threads = arguments.threads.unwrap_or(threads);
    // What is predicted is drawn into it, and goes with it.
    let scratch = tempfile::tempdir()?;
    let prepared = match arguments.work {
        Work::Metrics => metrics::programs(workspace, &interrupt)?,
        Work::Data => data::programs(workspace, &interrupt, arguments.images.as_deref())?,
        Work::Predict => {
            let batch = arguments.batch.unwrap_or(8);
            predict::programs(workspace, &interrupt, scratch.path(), batch, threads)?
        }
        work @ (Work::Train | Work::Frozen | Work::Infer | Work::Gpu) => {
            let settings = network::Settings {
                work,
                batch: arguments.batch.unwrap_or(8),
                threads,
                dtype: arguments.dtype,
                backbone: arguments.backbone.clone(),
                clock: arguments.clock,
            };
            network::programs(workspace, &interrupt, &settings)?
        }
    };
    let Some((ours, peer)) = prepared else {
        return Ok(Ending::Interrupted);
    };
    if peer.is_none() {
        say!("the peer is not installed (see CXR_PYTHON): only ours is measured");
    }
    let (mut our_rounds, mut peer_rounds) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        for (programs, rounds) in [
            (ours.as_slice(), &mut our_rounds),
            (peer.as_slice(), &mut peer_rounds),
        ] {
            for program in programs {
                let Some(round) = measure(&interrupt, program, threads)? else {
                    return Ok(Ending::Interrupted);
                };
                rounds.push(round);
            }
        }
    }
    let measurements = compare(&our_rounds, &peer_rounds);
    if arguments.json {
        tell!("{}", serde_json::to_string_pretty(&measurements)?);
    } else {
        print_table(&measurements, threads, arguments.clock);
    }
    Ok(Ending::Done)
}

/// `None` when interrupted.
fn measure(
    interrupt: &Interrupt,
    program: &Program,
    threads: usize,
) -> anyhow::Result<Option<Round>> {
    let mut command = (program.command)();
    // Both sides on as many threads: what is compared is the work, not the machine.
    for variable in [
        "RAYON_NUM_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    ] {
        command.env(variable, threads.to_string());
    }
    let name = command.get_program().to_string_lossy().into_owned();
    let begin = std::time::Instant::now();
    let (output, peak_mib) = system::watch(interrupt, || interrupt.output(&mut command));
    let time = begin.elapsed();
    let (ended, output) = output?;
    match ended.ending {
        Ending::Done => Ok(Some(Round {
            throughput: program.read.throughput(&output, time)?,
            peak_mib,
        })),
        Ending::Failed => bail!("`{name}` failed: {}", ended.status),
        Ending::Interrupted => Ok(None),
    }
}

/// The medians, in the order in which ours were first named.
fn compare(ours: &[Round], peer: &[Round]) -> Vec<Measurement> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in ours.iter().flat_map(|round| &round.throughput) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut measurements = Vec::new();
    for name in names {
        let (Some((ours_img_s, ours_peak_mib)), peer) = (median(ours, name), median(peer, name))
        else {
            continue;
        };
        let peer_img_s = peer.map(|(img_s, _)| img_s);
        measurements.push(Measurement {
            name: name.to_owned(),
            ours_img_s,
            peer_img_s,
            ratio: peer_img_s.map(|peer_img_s| ours_img_s / peer_img_s),
            ours_peak_mib,
            peer_peak_mib: peer.and_then(|(_, peak_mib)| peak_mib),
        });
    }
    measurements
}

/// The median throughput over the rounds that measured `name`, and the highest of their peaks.
fn median(rounds: &[Round], name: &str) -> Option<(f64, Option<f64>)> {
    let mut values = Vec::new();
    let mut peak_mib: Option<f64> = None;
    for round in rounds {
        if let Some((_, img_s)) = round.throughput.iter().find(|(other, _)| other == name) {
            values.push(*img_s);
            peak_mib = peak_mib.into_iter().chain(round.peak_mib).reduce(f64::max);
        }
    }
    values.sort_by(f64::total_cmp);
    let middle = values.get(values.len() / 2)?;
    Some((*middle, peak_mib))
}

fn print_table(measurements: &[Measurement], threads: usize, clock: Clock) {
    let or_dash = |value: Option<f64>, decimals: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
    };
    tell!(
        "{:<36} {:>13} {:>13} {:>7} {:>9} {:>9}",
        match clock {
            Clock::Wall => format!("threads: {threads}"),
            Clock::Processor => format!("seconds of processors, threads: {threads}"),
        },
        "ours img/s",
        "peer img/s",
        "ratio",
        "ours MiB",
        "peer MiB"
    );
    for measurement in measurements {
        tell!(
            "{:<36} {:>13.1} {:>13} {:>7} {:>9} {:>9}",
            measurement.name,
            measurement.ours_img_s,
            or_dash(measurement.peer_img_s, 1),
            or_dash(measurement.ratio, 2),
            or_dash(measurement.ours_peak_mib, 0),
            or_dash(measurement.peer_peak_mib, 0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(throughput: &[(&str, f64)], peak_mib: Option<f64>) -> Round {
        Round {
            throughput: throughput
                .iter()
                .map(|&(name, img_s)| (name.to_owned(), img_s))
                .collect(),
            peak_mib,
        }
    }

    #[test]
    fn the_median_round_counts_and_the_highest_peak() {
        let ours = [
            round(&[("auc", 30.0)], Some(5.0)),
            round(&[("auc", 10.0)], Some(7.0)),
            round(&[("auc", 20.0)], None),
        ];
        let peer = [round(&[("auc", 4.0)], Some(100.0))];
        let measured = compare(&ours, &peer);
        assert_eq!(measured.len(), 1);
        assert_eq!(measured[0].ours_img_s, 20.0);
        assert_eq!(measured[0].ratio, Some(5.0));
        assert_eq!(measured[0].ours_peak_mib, Some(7.0));
        assert_eq!(measured[0].peer_peak_mib, Some(100.0));
    }

    #[test]
    fn without_a_peer_its_figures_are_null() {
        let ours = [round(&[("auc", 30.0), ("bootstrap", 1.0)], None)];
        let peer = [round(&[("auc", 15.0)], None)];
        let json = serde_json::to_value(compare(&ours, &peer)).unwrap();
        assert_eq!(json[0]["ratio"], 2.0);
        for key in ["peer_img_s", "ratio", "ours_peak_mib", "peer_peak_mib"] {
            assert_eq!(json[1].get(key), Some(&serde_json::Value::Null), "{key}");
        }
    }
}
