//! Training in bf16 ends where single precision does: the demo's BCE, with twice the epochs so that it is nearer to
//! its end, on three seeds each.
//!
//! Trainings that differ in rounding alone end up to 0.01 apart (docs/performance.md), so the means over the
//! seeds are compared.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use cxr_terminal::tell;

use crate::workspace::{BUILD_CXR, Workspace};
use cxr_terminal::{Ending, Interrupt};

const VARIANT: &str = "bce";
const SEEDS: i64 = 3;
/// Of the second stage.
const EPOCHS: i64 = 14;
/// How far the mean test AUCs may be apart.
const BOUND: f64 = 0.01;

pub(super) fn check(workspace: &Workspace, interrupt: &Interrupt) -> anyhow::Result<Ending> {
    let (ended, executable) = workspace.build(interrupt, &BUILD_CXR, "cxr")?;
    let Some(executable) = executable.filter(|_| ended.ending == Ending::Done) else {
        return Ok(ended.ending);
    };
    let place = workspace.root().join("target").join("verify").join("bf16");
    if place.is_dir() {
        std::fs::remove_dir_all(&place)
            .with_context(|| format!("cannot remove `{}`", place.display()))?;
    }
    std::fs::create_dir_all(&place)
        .with_context(|| format!("cannot make `{}`", place.display()))?;
    let (data, runs) = (place.join("phantoms"), place.join("runs"));
    let cxr = || {
        let mut command = Command::new(&executable);
        command.current_dir(workspace.root());
        command
    };
    let mut means = Vec::new();
    for precision in ["f32", "bf16"] {
        let experiment = place.join(format!("{precision}.toml"));
        std::fs::write(&experiment, changed(workspace, precision)?)
            .with_context(|| format!("cannot write `{}`", experiment.display()))?;
        let mut phantoms = cxr();
        phantoms
            .arg("phantoms")
            .arg("--experiment")
            .arg(&experiment);
        phantoms.arg("--data").arg(&data);
        let ended = interrupt.run(&mut phantoms)?;
        if ended.ending != Ending::Done {
            return Ok(ended.ending);
        }
        let mut aucs = Vec::new();
        for seed in 0..SEEDS {
            let mut train = cxr();
            train.arg("train").arg("--experiment").arg(&experiment);
            train.args(["--variant", VARIANT, "--seed", &seed.to_string()]);
            train.arg("--data").arg(&data).arg("--runs").arg(&runs);
            let ended = interrupt.run(&mut train)?;
            if ended.ending != Ending::Done {
                return Ok(ended.ending);
            }
            let name = match seed {
                0 => VARIANT.to_owned(),
                _ => format!("{VARIANT}-seed{seed}"),
            };
            let run = runs.join(format!("verify-{precision}")).join(name);
            aucs.push(mean_auc(&run)?);
        }
        let mean = aucs.iter().sum::<f64>() / aucs.len() as f64;
        let shown: Vec<String> = aucs.iter().map(|auc| format!("{auc:.4}")).collect();
        tell!(
            "   {precision:<5} mean test AUC {}: {mean:.4}",
            shown.join(", ")
        );
        means.push(mean);
    }
    let difference = means[1] - means[0];
    tell!("   difference of the means {difference:+.4}, bound {BOUND}");
    Ok(if difference.abs() <= BOUND {
        Ending::Done
    } else {
        Ending::Failed
    })
}

/// The demo with one variant, more epochs, and this precision.
fn changed(workspace: &Workspace, precision: &str) -> anyhow::Result<String> {
    let path = workspace.root().join("crates/cxr/experiments/demo.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let mut demo: toml::Table = toml::from_str(&text)?;
    demo.insert("name".to_owned(), format!("verify-{precision}").into());
    let training = demo.get_mut("training").and_then(toml::Value::as_table_mut);
    let training = training.with_context(|| format!("`{}` has no [training]", path.display()))?;
    training.insert("precision".to_owned(), precision.into());
    let stages = training
        .get_mut("stages")
        .and_then(toml::Value::as_array_mut);
    let second = stages.and_then(|stages| stages.get_mut(1)?.as_table_mut());
    let second = second.with_context(|| format!("`{}` has no second stage", path.display()))?;
    second.insert("epochs".to_owned(), EPOCHS.into());
    if let Some(toml::Value::Array(variants)) = demo.get_mut("variants") {
        let name = |variant: &toml::Value| Some(variant.get("name")?.as_str()?.to_owned());
        variants.retain(|variant| name(variant).is_some_and(|name| name == VARIANT));
    }
    Ok(toml::to_string(&demo)?)
}

fn mean_auc(run: &Path) -> anyhow::Result<f64> {
    let path = run.join("metrics.json");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let metrics: serde_json::Value = serde_json::from_str(&text)?;
    (metrics.pointer("/test/single/macro/auc"))
        .and_then(serde_json::Value::as_f64)
        .with_context(|| format!("`{}` has no mean test AUC", path.display()))
}
