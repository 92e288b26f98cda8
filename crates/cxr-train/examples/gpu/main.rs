//! Operations and training on a CUDA device: their results beside the CPU's, and their speed.
//!
//! `cargo run --release -p cxr-train --features cuda --example gpu -- COMMAND`, of which `cargo xtask bench gpu` calls
//! all:
//!
//! * `probe [IMAGES]`: the libraries' versions, and how every algorithm of cuDNN's does with every pass of twelve convolutions.
//! * `check [SEED]`: every operation on fresh random inputs, against the CPU; ends with 1 when one is too far off.
//!   `check SEED cpu` compares the CPU with itself, which tries this program where there is no GPU.
//! * `tiny`: one training step of a tiny DenseNet in TF32 and bf16, which compares nothing: for `compute-sanitizer`.
//! * `rates`: what the device multiplies and copies, as a JSON object.
//! * `time train|graphs|frozen|infer BATCH STEPS f32|bf16`: images per second and peak memory, as a JSON object; `graphs`
//!   is training whose backbone's passes are repeated as CUDA graphs.
//! * `profile BATCH f32|bf16`: where the time of a training step goes, beside the least that each part could take.
//! * `train STEPS`: a small network on phantoms, whose memory must not grow and whose losses must be the CPU's.
//!   `train STEPS cpu` tries it on the CPU.
//! * `course f32|bf16 [IMAGES EPOCHS]`: both stages of the paper's training on phantoms, prepared images to the last
//!   step, and what the whole of it would take, as a JSON object. `course f32 IMAGES EPOCHS cpu` tries it on the CPU.
//! * `parity [SEEDS]`: two epochs of training on the GPU and on the CPU; ends with 1 when the mean AUCs are more than
//!   0.01 apart. `parity SEEDS cpu` compares the CPU with itself at a rate that differs by a millionth.

mod check;
mod course;
#[path = "../phantoms/mod.rs"]
mod phantoms;
mod probe;
mod speed;
mod steps;

use std::process::ExitCode;
use std::time::SystemTime;

use candle_core::Device;
use cxr_ops::{DeviceOptions, Precision, cuda_device};
use serde::Serialize;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: gpu COMMAND, one of
  probe [IMAGES]                                          versions, and cuDNN's algorithms on twelve convolutions
  check [SEED]                                            every operation beside the CPU's
  tiny                                                    one training step, for compute-sanitizer
  rates                                                   what the GPU multiplies and copies
  time train|graphs|frozen|infer BATCH STEPS f32|bf16     images per second and peak memory
  profile BATCH f32|bf16                                  where the time of a training step goes
  train STEPS                                             a small network on phantoms: losses and memory
  course f32|bf16 [IMAGES EPOCHS]                         both stages of the paper's training on phantoms
  parity [SEEDS]                                          two epochs on the GPU and on the CPU";

/// As the `cxr` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let gpu = || cuda_device(0, DeviceOptions::default());
    match arguments[..] {
        ["probe"] => probe::run(64, &gpu()?),
        ["probe", images] => probe::run(images.parse()?, &gpu()?),
        ["tiny"] => check::tiny(&gpu()?),
        ["tiny", "cpu"] => check::tiny(&Device::Cpu),
        ["profile", batch, dtype] => {
            speed::profile(batch.parse()?, precision(dtype)?)?;
            Ok(ExitCode::SUCCESS)
        }
        ["train", steps] => steps::run(steps.parse()?, &gpu()?),
        ["train", steps, "cpu"] => steps::run(steps.parse()?, &Device::Cpu),
        ["check"] => {
            let seed = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
            check::run(seed, &gpu()?)
        }
        ["check", seed] => check::run(seed.parse()?, &gpu()?),
        ["check", seed, "cpu"] => check::run(seed.parse()?, &Device::Cpu),
        ["rates"] => print(&speed::rates(&gpu()?)?),
        ["time", work, batch, steps, dtype] => {
            let precision = precision(dtype)?;
            print(&speed::time(
                work,
                batch.parse()?,
                steps.parse()?,
                precision,
            )?)
        }
        ["course", dtype] => course(dtype, ["3200", "6"], &gpu()?),
        ["course", dtype, images, epochs] => course(dtype, [images, epochs], &gpu()?),
        ["course", dtype, images, epochs, "cpu"] => course(dtype, [images, epochs], &Device::Cpu),
        ["parity"] => course::parity(3, &gpu()?),
        ["parity", seeds] => course::parity(seeds.parse()?, &gpu()?),
        ["parity", seeds, "cpu"] => course::parity(seeds.parse()?, &Device::Cpu),
        _ => Err(USAGE.into()),
    }
}

fn course(dtype: &str, [images, epochs]: [&str; 2], device: &Device) -> Result<ExitCode> {
    let (images, epochs) = (images.parse()?, epochs.parse()?);
    print(&course::run(precision(dtype)?, images, epochs, device)?)
}

fn precision(name: &str) -> Result<Precision> {
    let mut all = Precision::ALL.into_iter();
    Ok(all
        .find(|precision| precision.name() == name)
        .ok_or(USAGE)?)
}

fn print(result: &impl Serialize) -> Result<ExitCode> {
    println!("{}", serde_json::to_string(result)?);
    Ok(ExitCode::SUCCESS)
}
