//! What is installed, and what cuDNN's algorithms make of our convolutions.

use std::collections::BTreeMap;
use std::process::ExitCode;

use candle_core::Device;
use cxr_ops::{ConvolutionTrial, cuda_probe, cuda_versions};

use super::Result;

/// Prints versions, every trial, and the fastest of each kind of work.
pub(super) fn run(images: usize, device: &Device) -> Result<ExitCode> {
    for (name, version) in cuda_versions(device)? {
        println!("{name:<22} {version}");
    }
    println!(
        "\n{:<66} {:<36} {:>9} {:<5} status",
        "work", "method", "ms", "NaN"
    );
    let mut fastest: BTreeMap<String, (f64, String)> = BTreeMap::new();
    let (mut trials, mut good, mut nan) = (0, 0, 0);
    let done = cuda_probe(device, images, &mut |trial: &ConvolutionTrial| {
        let ConvolutionTrial {
            work,
            method,
            status,
            milliseconds,
            makes_nan,
        } = trial;
        let time = milliseconds.map_or_else(|| "–".to_owned(), |time| format!("{time:.4}"));
        let verdict = match makes_nan {
            Some(true) => "NaN",
            Some(false) => "no",
            None => "–",
        };
        let status = status.replace('\n', " ");
        println!("{work:<66} {method:<36} {time:>9} {verdict:<5} {status}");
        trials += 1;
        nan += usize::from(*makes_nan == Some(true));
        let Some(time) = milliseconds.filter(|_| *makes_nan != Some(true)) else {
            return;
        };
        good += 1;
        let least = fastest.get(work).map_or(f64::INFINITY, |(least, _)| *least);
        if time < least {
            fastest.insert(work.clone(), (time, method.clone()));
        }
    });
    println!("\n{:<66} {:<36} {:>9}", "fastest", "method", "ms");
    for (work, (time, method)) in &fastest {
        println!("{work:<66} {method:<36} {time:>9.4}");
    }
    println!("\n{trials} trials, {good} did it, {nan} made NaN of numbers");
    done?;
    Ok(ExitCode::SUCCESS)
}
