//! `cargo xtask bench gpu`: the operations compared with the CPU's, then DenseNet121 with the top network beside PyTorch on
//! the same GPU, then whole trainings: how long the paper's would take, and whether two epochs end where the CPU's do.
//!
//! The program that is measured is an example of `cxr-train`. `--built` names one that was built elsewhere, for a machine
//! that has the GPU and no Rust toolchain.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use cxr_terminal::{say, tell};
use serde::{Deserialize, Serialize};

use super::metrics::built;
use super::peer;
use crate::workspace::Workspace;
use cxr_terminal::{Ending, Interrupt};

/// How the program is built, on a machine with a CUDA toolkit.
pub(crate) const BUILD: [&str; 8] = [
    "build",
    "--release",
    "--package",
    "cxr-train",
    "--features",
    "cuda",
    "--example",
    "gpu",
];
/// Steps of a measurement.
const STEPS: &str = "50";

/// What one program says of one kind of work.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Timed {
    img_s: f64,
    peak_mib: Option<f64>,
    /// Of ours: what an image needs at least.
    #[serde(default)]
    operations: f64,
    #[serde(default)]
    bytes: f64,
}

/// What the GPU multiplies and copies.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
struct Rates {
    f32_flops: f64,
    tf32_flops: f64,
    bf16_flops: f64,
    bytes_a_second: f64,
}

impl Rates {
    /// Seconds that an image's work takes at least: the larger of its operations and its bytes.
    fn floor(&self, timed: &Timed, dtype: &str) -> f64 {
        let flops = if dtype == "bf16" {
            self.bf16_flops
        } else {
            self.tf32_flops
        };
        (timed.operations / flops).max(timed.bytes / self.bytes_a_second)
    }
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    work: String,
    dtype: String,
    batch: usize,
    ours_img_s: Option<f64>,
    eager_img_s: Option<f64>,
    eager_ratio: Option<f64>,
    compiled_img_s: Option<f64>,
    compiled_ratio: Option<f64>,
    ours_peak_mib: Option<f64>,
    peer_peak_mib: Option<f64>,
    /// Of the time, how much the floor is.
    floor_share: Option<f64>,
}

/// A training on phantoms, and what it says of the paper's.
#[derive(Debug, Deserialize, Serialize)]
struct Course {
    #[serde(default)]
    dtype: String,
    steps: usize,
    frozen_img_s: f64,
    train_img_s: f64,
    validation_img_s: f64,
    projected_minutes: f64,
    peak_mib: Option<f64>,
}

/// What is printed as JSON.
#[derive(Serialize)]
struct Results<'a> {
    rates: Option<Rates>,
    rows: &'a [Row],
    courses: &'a [Course],
}

pub(super) fn run(
    workspace: &Workspace,
    interrupt: &Interrupt,
    batches: &[usize],
    program: Option<&Path>,
    is_json: bool,
) -> anyhow::Result<Ending> {
    crate::cuda::find_driver()?;
    let program = match program {
        Some(program) => std::path::absolute(program)?,
        None => {
            let Some(program) = built(workspace, interrupt, &BUILD, "gpu")? else {
                return Ok(Ending::Interrupted);
            };
            program
        }
    };
    // What fails is shown and counted, and hides nothing of what comes after.
    let mut failures = Vec::new();
    let mut check = Command::new(&program);
    check.arg("check");
    if is_json {
        check.stdout(Stdio::null());
    }
    match interrupt.run(&mut check)?.ending {
        Ending::Done => {}
        Ending::Failed => {
            say!("some of the GPU's results are not the CPU's (see above): timed all the same");
            failures.push("check".to_owned());
        }
        Ending::Interrupted => return Ok(Ending::Interrupted),
    }
    let mut command = Command::new(&program);
    command.arg("rates");
    let rates = match read::<Rates>(interrupt, command, &mut failures)? {
        Read::Interrupted => return Ok(Ending::Interrupted),
        Read::Printed(rates) => Some(rates),
        Read::Failed => None,
    };
    let python = peer::python(&["torch", "torchvision"])?;
    if python.is_none() {
        say!("the peer is not installed (see CXR_PYTHON): only ours is measured");
    }
    if !is_json {
        print_head(rates.as_ref());
    }
    let mut rows = Vec::new();
    // By (batch, dtype) what the peers' training was, which also stands beside ours with graphs.
    let mut trained = HashMap::new();
    for &batch in batches {
        for work in ["train", "graphs", "frozen", "infer"] {
            for dtype in ["f32", "bf16"] {
                // Prediction is single precision.
                if (work, dtype) == ("infer", "bf16") {
                    continue;
                }
                let shape = [work, &batch.to_string(), STEPS, dtype];
                let mut command = Command::new(&program);
                command.arg("time").args(shape);
                let ours = match read::<Timed>(interrupt, command, &mut failures)? {
                    Read::Interrupted => return Ok(Ending::Interrupted),
                    Read::Printed(ours) => Some(ours),
                    Read::Failed => None,
                };
                let mut peers = [None; 2];
                if work == "graphs" {
                    peers = trained.get(&(batch, dtype)).copied().unwrap_or(peers);
                } else if let Some(python) = &python {
                    for (peer, mode) in peers.iter_mut().zip(["eager", "compiled"]) {
                        let command = peer_command(workspace, python, shape, mode);
                        // A compiler that is missing, say, is no fault of ours.
                        *peer = match read::<Timed>(interrupt, command, &mut Vec::new())? {
                            Read::Interrupted => return Ok(Ending::Interrupted),
                            Read::Printed(timed) => Some(timed),
                            Read::Failed => None,
                        };
                    }
                }
                if work == "train" {
                    trained.insert((batch, dtype), peers);
                }
                let [eager, compiled] = peers;
                let ratio = |peer: Option<Timed>| Some(ours?.img_s / peer?.img_s);
                let row = Row {
                    work: work.to_owned(),
                    dtype: dtype.to_owned(),
                    batch,
                    ours_img_s: ours.map(|ours| ours.img_s),
                    eager_img_s: eager.map(|peer| peer.img_s),
                    eager_ratio: ratio(eager),
                    compiled_img_s: compiled.map(|peer| peer.img_s),
                    compiled_ratio: ratio(compiled),
                    ours_peak_mib: ours.and_then(|ours| ours.peak_mib),
                    peer_peak_mib: eager.and_then(|peer| peer.peak_mib),
                    floor_share: floor_share(rates.as_ref(), ours, dtype),
                };
                if !is_json {
                    row.print();
                }
                rows.push(row);
            }
        }
    }
    let mut courses = Vec::new();
    for dtype in ["f32", "bf16"] {
        let mut command = Command::new(&program);
        command.args(["course", dtype]);
        let course = match read::<Course>(interrupt, command, &mut failures)? {
            Read::Interrupted => return Ok(Ending::Interrupted),
            Read::Printed(course) => course,
            Read::Failed => continue,
        };
        let course = Course {
            dtype: dtype.to_owned(),
            ..course
        };
        if !is_json {
            course.print();
        }
        courses.push(course);
    }
    if is_json {
        let results = Results {
            rates,
            rows: &rows,
            courses: &courses,
        };
        tell!("{}", serde_json::to_string_pretty(&results)?);
    }
    let mut parity = Command::new(&program);
    parity.current_dir(workspace.root()).arg("parity");
    if is_json {
        parity.stdout(Stdio::null());
    }
    match interrupt.run(&mut parity)?.ending {
        Ending::Done => {}
        // It says itself what is wrong.
        Ending::Failed => failures.push("parity".to_owned()),
        Ending::Interrupted => return Ok(Ending::Interrupted),
    }
    if !failures.is_empty() {
        bail!("these failed (see above): {}", failures.join(", "));
    }
    Ok(Ending::Done)
}

/// Of the time that an image takes, how much it takes at least.
fn floor_share(rates: Option<&Rates>, ours: Option<Timed>, dtype: &str) -> Option<f64> {
    let ours = ours?;
    Some(rates?.floor(&ours, dtype) * ours.img_s)
}

fn peer_command(workspace: &Workspace, python: &Path, shape: [&str; 4], mode: &str) -> Command {
    let script: PathBuf = [workspace.root(), Path::new("xtask/peers/gpu.py")]
        .iter()
        .collect();
    let mut command = Command::new(python);
    command.arg(script).args(shape).arg(mode);
    command
}

/// What came of a program that prints a JSON object.
enum Read<T> {
    Printed(T),
    Failed,
    Interrupted,
}

/// The JSON object that a program prints last. Where it fails, that is shown, and the program added to `failures`.
fn read<T: for<'de> Deserialize<'de>>(
    interrupt: &Interrupt,
    mut command: Command,
    failures: &mut Vec<String>,
) -> anyhow::Result<Read<T>> {
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy());
    let words = arguments.collect::<Vec<_>>().join(" ");
    let printed = match interrupt.output(&mut command) {
        Ok((ended, output)) => match ended.ending {
            Ending::Done => last_object(&output),
            Ending::Failed => Err(anyhow::anyhow!("{}", ended.status)),
            Ending::Interrupted => return Ok(Read::Interrupted),
        },
        Err(error) => Err(error.into()),
    };
    match printed {
        Ok(printed) => Ok(Read::Printed(printed)),
        Err(error) => {
            let name = command.get_program().to_string_lossy().into_owned();
            say!("`{name} {words}` failed: {error:#}; going on without");
            failures.push(words);
            Ok(Read::Failed)
        }
    }
}

/// What the last line of an output says.
fn last_object<T: for<'de> Deserialize<'de>>(output: &str) -> anyhow::Result<T> {
    let last = output.trim().lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("it printed `{last}`"))
}

fn print_head(rates: Option<&Rates>) {
    if let Some(rates) = rates {
        tell!(
            "\nTFLOP/s: f32 {:.0}, TF32 {:.0}, bf16 {:.0}; GB/s: {:.0}",
            rates.f32_flops / 1e12,
            rates.tf32_flops / 1e12,
            rates.bf16_flops / 1e12,
            rates.bytes_a_second / 1e9
        );
    }
    tell!(
        "{:<20} {:>10} {:>10} {:>6} {:>10} {:>6} {:>9} {:>9} {:>6}",
        "",
        "ours img/s",
        "eager",
        "ratio",
        "compiled",
        "ratio",
        "ours MiB",
        "peer MiB",
        "floor"
    );
}

impl Row {
    fn print(&self) {
        let or_dash = |value: Option<f64>, decimals: usize| {
            value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
        };
        tell!(
            "{:<20} {:>10} {:>10} {:>6} {:>10} {:>6} {:>9} {:>9} {:>5}%",
            format!("{} {} × {}", self.work, self.dtype, self.batch),
            or_dash(self.ours_img_s, 0),
            or_dash(self.eager_img_s, 0),
            or_dash(self.eager_ratio, 2),
            or_dash(self.compiled_img_s, 0),
            or_dash(self.compiled_ratio, 2),
            or_dash(self.ours_peak_mib, 0),
            or_dash(self.peer_peak_mib, 0),
            or_dash(self.floor_share.map(|share| 100. * share), 0),
        );
    }
}

impl Course {
    fn print(&self) {
        tell!(
            "\ntraining on phantoms, {}, {} steps: {:.0} img/s frozen, {:.0} img/s whole, validation {:.0} img/s;\n\
             the paper's 25 epochs of 77,872 images: {:.1} min (there 189 min)",
            self.dtype,
            self.steps,
            self.frozen_img_s,
            self.train_img_s,
            self.validation_img_s,
            self.projected_minutes,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_larger_of_operations_and_bytes() {
        let rates = Rates {
            f32_flops: 1.,
            tf32_flops: 10.,
            bf16_flops: 20.,
            bytes_a_second: 4.,
        };
        let timed = |operations, bytes| Timed {
            img_s: 1.,
            peak_mib: None,
            operations,
            bytes,
        };
        assert_eq!(rates.floor(&timed(100., 8.), "f32"), 10.);
        assert_eq!(rates.floor(&timed(100., 8.), "bf16"), 5.);
        assert_eq!(rates.floor(&timed(10., 8.), "bf16"), 2.);
        let ours = Some(timed(10., 8.));
        assert_eq!(floor_share(Some(&rates), ours, "bf16"), Some(2.));
        assert_eq!(floor_share(None, ours, "bf16"), None);
        assert_eq!(floor_share(Some(&rates), None, "bf16"), None);
    }

    /// One refusal once ended the whole table.
    #[test]
    fn a_program_that_fails_is_counted_and_the_next_is_read() -> anyhow::Result<()> {
        let interrupt = Interrupt::install()?;
        let mut failures = Vec::new();
        let mut shell = |script: &str| -> anyhow::Result<Option<f64>> {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Ok(match read::<f64>(&interrupt, command, &mut failures)? {
                Read::Printed(number) => Some(number),
                Read::Failed | Read::Interrupted => None,
            })
        };
        assert_eq!(shell("exit 3")?, None);
        assert_eq!(shell("echo first; echo no number")?, None);
        assert_eq!(shell("echo first; echo 2.5")?, Some(2.5));
        assert_eq!(failures, ["-c exit 3", "-c echo first; echo no number"]);
        Ok(())
    }
}
