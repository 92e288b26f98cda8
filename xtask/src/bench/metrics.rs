//! `cxr-metrics` against scikit-learn.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::{Program, Read, Throughput, peer};
use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

/// The images of the benchmark's data, which has the size of ChestX-ray14's test split.
const N_IMAGES: f64 = 25_596.0;

/// What the benchmark calls its measurements, and what we call them.
const NAMES: [(&str, &str); 3] = [
    ("auc_25596x14_ms", "auc"),
    (
        "auc_clustered_delong_average_precision_25596x14_ms",
        "auc, patient errors, precision",
    ),
    (
        "patient_bootstrap_replicate_ms",
        "patient bootstrap replicate",
    ),
];

/// Ours and the peer; `None` when interrupted.
pub(super) fn programs(
    workspace: &Workspace,
    interrupt: &Interrupt,
) -> anyhow::Result<Option<(Vec<Program>, Option<Program>)>> {
    let build = [
        "bench",
        "--no-run",
        "--package",
        "cxr-metrics",
        "--bench",
        "metrics",
    ];
    let Some(executable) = built(workspace, interrupt, &build, "metrics")? else {
        return Ok(None);
    };
    let ours = Program {
        command: Box::new(move || Command::new(&executable)),
        read: Read::Output(read),
    };
    let peer = peer::find(workspace, "metrics.py", &["numpy", "sklearn"], Vec::new())?;
    Ok(Some((vec![ours], peer)))
}

/// Builds a benchmark; `None` when interrupted.
pub(crate) fn built(
    workspace: &Workspace,
    interrupt: &Interrupt,
    build: &[&str],
    target: &str,
) -> anyhow::Result<Option<PathBuf>> {
    let (ended, executable) = workspace.build(interrupt, build, target)?;
    match (ended.ending, executable) {
        (Ending::Interrupted, _) => Ok(None),
        (Ending::Done, Some(executable)) => Ok(Some(executable)),
        _ => bail!("cannot build the benchmark `{target}`: {}", ended.status),
    }
}

#[derive(Deserialize)]
struct Line {
    name: String,
    median_ms: f64,
}

/// One JSON object a line.
fn read(output: &str) -> anyhow::Result<Throughput> {
    let mut measured = Vec::new();
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line)
            .with_context(|| format!("the benchmark of `cxr-metrics` printed `{line}`"))?;
        if let Some((_, name)) = NAMES.iter().find(|(theirs, _)| *theirs == line.name) {
            measured.push(((*name).to_owned(), 1e3 * N_IMAGES / line.median_ms));
        }
    }
    if measured.len() != NAMES.len() {
        bail!(
            "expected {} measurements of `cxr-metrics`, got {}",
            NAMES.len(),
            measured.len()
        );
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_become_images_per_second_and_a_missing_measurement_is_an_error() {
        let line = |name: &str| format!("{{\"name\": \"{name}\", \"median_ms\": 25.596}}\n");
        let all: String = NAMES.iter().map(|(theirs, _)| line(theirs)).collect();
        let measured = read(&all).unwrap();
        assert_eq!(measured.len(), 3);
        assert_eq!(measured[0].0, "auc");
        assert!((measured[0].1 - 1e6).abs() < 1e-6, "{measured:?}");
        assert!(read(&line("auc_25596x14_ms")).is_err());
        assert!(read("not JSON").is_err());
    }
}
