//! What to compute on.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use candle_core::Device;
use cxr_train::DeviceOptions;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeviceArgs {
    /// What to compute on: cpu, cuda, or cuda:N for a GPU other than the first; docs/cuda.md
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceName,

    /// On a GPU multiply in all of single precision, not in TF32; slower
    #[arg(long)]
    exact_f32: bool,

    /// On a GPU let timings choose how convolutions are computed; training records the choices in algorithms.json
    #[arg(long)]
    autotune: bool,

    /// On a GPU repeat the backbone's passes in training as CUDA graphs: the same numbers, fewer launches
    #[arg(long)]
    graphs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceName {
    Cpu,
    Cuda(usize),
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = match text.split_once(':') {
            None if text == "cpu" => Some(Self::Cpu),
            None if text == "cuda" => Some(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().ok().map(Self::Cuda),
            _ => None,
        };
        name.ok_or_else(|| "expected `cpu`, `cuda` or `cuda:N`".to_owned())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl DeviceArgs {
    /// The same, for a process that this one starts.
    pub(crate) fn pass_on(&self, command: &mut std::process::Command) {
        command.args(["--device", &self.device.to_string()]);
        for (flag, is_set) in [
            ("--exact-f32", self.exact_f32),
            ("--autotune", self.autotune),
            ("--graphs", self.graphs),
        ] {
            if is_set {
                command.arg(flag);
            }
        }
    }

    pub(crate) fn open(&self) -> anyhow::Result<Device> {
        match self.device {
            DeviceName::Cpu => Ok(Device::Cpu),
            DeviceName::Cuda(number) => self.cuda(number),
        }
    }

    fn cuda(&self, number: usize) -> anyhow::Result<Device> {
        if !cfg!(feature = "cuda") {
            anyhow::bail!(
                "this `cxr` was built without CUDA\nhint: build it with `cargo build --release --package cxr --features cuda` (docs/cuda.md), or leave `--device` out"
            );
        }
        let options = DeviceOptions {
            exact_f32: self.exact_f32,
            autotune: self.autotune,
            graphs: self.graphs,
        };
        cxr_train::cuda_device(number, options).with_context(|| {
            format!("cannot use GPU {number}\nhint: `nvidia-smi` lists those that the driver sees")
        })
    }
}

/// What `environment.json` says of it.
pub(crate) fn name(device: &Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(_) => {
            let options = DeviceOptions::current();
            let products = if options.exact_f32 {
                "exact f32"
            } else {
                "TF32"
            };
            let choice = if options.autotune { ", autotuned" } else { "" };
            let graphs = if options.graphs { ", graphs" } else { "" };
            format!("cuda, {products}{choice}{graphs}")
        }
        Device::Metal(_) => "metal".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceName;

    #[test]
    fn a_gpu_is_named_by_its_number_or_is_the_first() {
        for (text, expected) in [
            ("cpu", Some(DeviceName::Cpu)),
            ("cuda", Some(DeviceName::Cuda(0))),
            ("cuda:3", Some(DeviceName::Cuda(3))),
            ("cuda:", None),
            ("cpu:0", None),
            ("gpu", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
