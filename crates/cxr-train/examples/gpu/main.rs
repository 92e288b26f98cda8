//! Operations and training on a CUDA device: their results beside the CPU's, and their speed.
//!
//! `cargo run --release -p cxr-train --features cuda --example gpu -- COMMAND`, of which `cargo xtask bench gpu` calls
//! all:
//!
//! * `check [SEED]`: every operation on fresh random inputs, against the CPU; ends with 1 when one is too far off.
//!   `check SEED cpu` compares the CPU with itself, which tries this program where there is no GPU.
//! * `rates`: what the device multiplies and copies, as a JSON object.
//! * `time train|graphs|frozen|infer BATCH STEPS f32|bf16`: images per second and peak memory, as a JSON object; `graphs`
//!   is training whose backbone's passes are repeated as CUDA graphs.
//! * `course f32|bf16 [IMAGES EPOCHS]`: both stages of the paper's training on phantoms, prepared images to the last
//!   step, and what the whole of it would take, as a JSON object. `course f32 IMAGES EPOCHS cpu` tries it on the CPU.
//! * `parity [SEEDS]`: two epochs of training on the GPU and on the CPU; ends with 1 when the mean AUCs are more than
//!   0.01 apart. `parity SEEDS cpu` compares the CPU with itself at a rate that differs by a millionth.

mod check;
mod course;
#[path = "../phantoms/mod.rs"]
mod phantoms;
mod speed;

use std::process::ExitCode;
use std::time::SystemTime;

use candle_core::Device;
use cxr_ops::{DeviceOptions, Precision, cuda_device};
use serde::Serialize;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "gpu check [SEED] | rates | time train|graphs|frozen|infer BATCH STEPS f32|bf16 | course f32|bf16 [IMAGES EPOCHS] | parity [SEEDS]";

/// As the `cxr` binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["check"] => {
            let seed = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
            check::run(seed, &cuda_device(0, DeviceOptions::default())?)
        }
        ["check", seed] => check::run(seed.parse()?, &cuda_device(0, DeviceOptions::default())?),
        ["check", seed, "cpu"] => check::run(seed.parse()?, &Device::Cpu),
        ["rates"] => print(&speed::rates(&cuda_device(0, DeviceOptions::default())?)?),
        ["time", work, batch, steps, dtype] => {
            let precision = precision(dtype)?;
            print(&speed::time(
                work,
                batch.parse()?,
                steps.parse()?,
                precision,
            )?)
        }
        ["course", dtype] => course(
            dtype,
            ["3200", "6"],
            &cuda_device(0, DeviceOptions::default())?,
        ),
        ["course", dtype, images, epochs] => course(
            dtype,
            [images, epochs],
            &cuda_device(0, DeviceOptions::default())?,
        ),
        ["course", dtype, images, epochs, "cpu"] => course(dtype, [images, epochs], &Device::Cpu),
        ["parity"] => course::parity(3, &cuda_device(0, DeviceOptions::default())?),
        ["parity", seeds] => {
            course::parity(seeds.parse()?, &cuda_device(0, DeviceOptions::default())?)
        }
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
