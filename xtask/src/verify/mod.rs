//! `cargo xtask verify`: checks that are too slow, or need too much, for every day.

mod bf16;
mod browser;
#[cfg(unix)]
mod cluster;
mod coverage;
mod demo;
mod downstream;
mod exchange;
#[cfg(unix)]
mod hostile;
mod networks;
mod overfit;
mod page;
mod probe;
mod related;
mod resume;

use std::path::PathBuf;
use std::time::Instant;

use crate::workspace::{Workspace, absolute};
use cxr_terminal::tell;
use cxr_terminal::{Ending, Interrupt};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// These checks only; without any, all of them
    #[arg(value_enum)]
    checks: Vec<Check>,
    /// Check this report.html; without it, one that is made from formulas
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The browser; without it, the first Chromium or Chrome of the PATH
    #[arg(long, value_name = "FILE")]
    chromium: Option<PathBuf>,
    /// Keep pictures of the page in this folder
    #[arg(long, value_name = "DIR")]
    screenshots: Option<PathBuf>,
    /// For `export`: these backbones only
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    networks: Vec<String>,
    /// The finished demo, for the probe [default: models/runs/demo]
    #[arg(long, value_name = "DIR")]
    demo: Option<PathBuf>,
}

/// In the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Check {
    /// A small experiment on phantoms twice, stopped and resumed, two variants at once, and in shards: the
    /// same bytes each time
    Demo,
    /// The finished demo against a linear probe on thumbnails: good enough, not trivial, not given away
    Probe,
    /// A small version of every published system on phantoms, twice: each above its untrained network by more than the
    /// interval, the same tables; two reproductions of `related-demo`
    Related,
    /// The report's page in a browser: nothing on the console, no request, every figure drawn, sorting
    /// and pointing work, readable in dark, nothing wider than a phone
    Page,
    /// Real training processes that are killed and resumed, or have another number of threads, end in the
    /// bytes of an undisturbed run; so do phantoms, prepare, evaluate and explain, and none leaves anything half-written
    Resume,
    /// Ranks of a real MPI and jobs of a real Slurm end in the bytes of one process, undisturbed, with a rank killed and
    /// requeued five times; without its features `cxr` compiles nothing of MPI. Skips what is not installed
    Cluster,
    /// Closed terminals, full log disks, signals, pipes, devices and full disks: a training goes on or is stopped
    /// in order, nothing panics, hangs or reads without an end
    Hostile,
    /// Every loss overfits thirty-two phantoms
    Overfit,
    /// Intervals and tests by patient hold on simulated test sets, down to eight patients with a finding
    Coverage,
    /// Programs outside the workspace that use the crates are built and run, and have no more lines than they may;
    /// what `docs` shows of them is what they say
    Downstream,
    /// Every described network against torchvision and timm, values and gradients, at sizes from 64 to 1024 pixels, with
    /// the same bits for one thread and two; needs a Python that has them (CXR_PYTHON)
    Networks,
    /// Training in bf16 ends within 0.01 mean AUC of single precision: six trainings, a quarter of an hour
    Bf16,
    /// Every network and every head, exported: ONNX Runtime, PyTorch and tract compute our logits. Needs a Python with them
    /// (CXR_PYTHON); tract alone takes minutes to build
    Export,
    /// Weights of torchvision, timm, torchxrayvision and medical_mae: `cxr import` and `cxr predict` give their authors'
    /// logits. Needs a Python with PyTorch and these packages (CXR_PYTHON)
    Import,
}

const ALL: [Check; 14] = [
    Check::Demo,
    Check::Probe,
    Check::Related,
    Check::Page,
    Check::Resume,
    Check::Cluster,
    Check::Hostile,
    Check::Overfit,
    Check::Coverage,
    Check::Downstream,
    Check::Networks,
    Check::Bf16,
    Check::Export,
    Check::Import,
];

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Ending> {
    let interrupt = Interrupt::install()?;
    let is_wanted = |check: &Check| arguments.checks.is_empty() || arguments.checks.contains(check);
    for check in ALL.into_iter().filter(is_wanted) {
        let begin = Instant::now();
        tell!("== {check:?}");
        let ending = match check {
            Check::Demo => demo::check(workspace, &interrupt)?,
            Check::Probe => {
                let usual = || workspace.root().join("models/runs/demo");
                let demo = arguments
                    .demo
                    .as_deref()
                    .map_or_else(|| Ok(usual()), absolute)?;
                probe::check(workspace, &interrupt, &demo)?
            }
            Check::Related => related::check(workspace, &interrupt)?,
            Check::Page => page::check(workspace, &interrupt, arguments)?,
            Check::Resume => resume::check(workspace, &interrupt)?,
            #[cfg(unix)]
            Check::Cluster => cluster::check(workspace, &interrupt)?,
            #[cfg(not(unix))]
            Check::Cluster => {
                tell!("   skipped: its launchers are those of Unix");
                Ending::Done
            }
            #[cfg(unix)]
            Check::Hostile => hostile::check(workspace, &interrupt)?,
            #[cfg(not(unix))]
            Check::Hostile => {
                tell!("   skipped: its signals and pipes are those of Unix");
                Ending::Done
            }
            Check::Overfit => overfit::check(workspace, &interrupt)?,
            Check::Coverage => coverage::check(workspace, &interrupt)?,
            Check::Downstream => downstream::check(workspace, &interrupt)?,
            Check::Networks => networks::check(workspace, &interrupt)?,
            Check::Bf16 => bf16::check(workspace, &interrupt)?,
            Check::Export => exchange::check_export(workspace, &interrupt, &arguments.networks)?,
            Check::Import => exchange::check_import(workspace, &interrupt)?,
        };
        if ending != Ending::Done {
            return Ok(ending);
        }
        tell!("   passed in {:.1} s", begin.elapsed().as_secs_f64());
    }
    Ok(Ending::Done)
}
