//! The calls of `cxr` that do the work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use cxr_train::Experiment;

use super::runs::Run;
use crate::device::DeviceArgs;
use crate::experiments::ExperimentSource;
use crate::progress::say;
use crate::scoring::print;
use cxr_terminal::{Ended, Ending, Interrupt};

/// What all calls have in common.
pub(super) struct Work<'a> {
    pub(super) interrupt: &'a Interrupt,
    pub(super) experiment: &'a Experiment,
    /// How an interrupt is passed on to the children.
    pub(super) source: &'a ExperimentSource,
    /// This program.
    pub(super) executable: PathBuf,
    pub(super) data: &'a Path,
    pub(super) metadata: Option<&'a Path>,
    pub(super) allow_missing: bool,
    pub(super) device: &'a DeviceArgs,
    pub(super) runs: &'a Path,
}

/// A finished call: what it was, how long it took and how it ended.
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) time: Duration,
    pub(super) ended: anyhow::Result<Ended>,
}

impl Outcome {
    /// How it ended; a failure has been reported. A program that cannot be started is a failure.
    pub(super) fn ending(&self) -> Ending {
        match &self.ended {
            Ok(ended) => {
                if ended.ending == Ending::Failed {
                    say(&format!(
                        "`{}` failed ({}); going on",
                        self.name, ended.status
                    ));
                }
                ended.ending
            }
            Err(error) => {
                say(&format!("`{}` failed: {error:#}; going on", self.name));
                Ending::Failed
            }
        }
    }
}

impl Work<'_> {
    /// Writes the experiment's phantoms, those that are missing; phantoms of other settings make way.
    pub(super) fn phantoms(&self) -> Outcome {
        self.announce("phantoms");
        self.alone("phantoms".to_owned(), &mut self.phantoms_command())
    }

    pub(super) fn phantoms_command(&self) -> Command {
        let mut command = self.cxr("phantoms");
        self.add_experiment(&mut command);
        command.arg("--data").arg(self.data).arg("--replace");
        command
    }

    /// Makes what Figures 4 and 7 show of a finished run; returns at once where that is there.
    pub(super) fn explain(&self, run: &Run) -> Outcome {
        let name = format!("explain {}", run.name());
        self.announce(&name);
        self.alone(name, &mut self.explain_command(run))
    }

    pub(super) fn explain_command(&self, run: &Run) -> Command {
        let mut command = self.cxr("explain");
        command.arg(self.folder(run));
        self.device.pass_on(&mut command);
        self.add_data(&mut command);
        command
    }

    /// The report of all runs that are finished.
    pub(super) fn report_command(&self) -> Command {
        let mut command = self.cxr("report");
        command.arg(self.runs.join(&self.experiment.name));
        command
    }

    /// Trains `runs`, `jobs` of them at once, and gives back how each went, in their order. After a
    /// signal no further one is begun, and none is given back.
    pub(super) fn train(&self, runs: &[Run], jobs: usize) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = runs.iter().map(|_| None).collect();
        {
            let waiting = Mutex::new(runs.iter().zip(&mut outcomes));
            std::thread::scope(|scope| {
                for _ in 0..jobs.min(runs.len()) {
                    scope.spawn(|| {
                        loop {
                            // The lock is let go before the run begins.
                            let next = waiting
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .next();
                            let Some((run, outcome)) = next else { return };
                            if self.interrupt.is_raised() {
                                return;
                            }
                            *outcome = Some(self.train_one(run, jobs));
                        }
                    });
                }
            });
        }
        outcomes.into_iter().flatten().collect()
    }

    fn train_one(&self, run: &Run, jobs: usize) -> Outcome {
        let name = run.name();
        self.announce(&name);
        let begin = Instant::now();
        let mut command = self.training(run, jobs);
        let ended = if jobs == 1 {
            self.interrupt.run(&mut command)
        } else {
            self.interrupt.run_labelled(&mut command, &name)
        };
        Outcome {
            name,
            time: begin.elapsed(),
            ended: ended.map_err(Into::into),
        }
    }

    pub(super) fn training(&self, run: &Run, jobs: usize) -> Command {
        let mut command = self.cxr("train");
        self.add_experiment(&mut command);
        command.args(["--variant", &run.variant]);
        if let Some(seed) = run.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        self.add_data(&mut command);
        command.arg("--runs").arg(self.runs);
        self.device.pass_on(&mut command);
        if jobs > 1 {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let threads = (cores / jobs).max(1);
            command.args(["--threads", &threads.to_string()]);
        }
        command
    }

    /// Where a run is kept.
    pub(super) fn folder(&self, run: &Run) -> PathBuf {
        self.runs.join(&self.experiment.name).join(run.name())
    }

    fn announce(&self, name: &str) {
        // Whoever reads it may be gone; the work goes on.
        let _ = print(&format!("\n== {} / {name}\n", self.experiment.name));
    }

    fn alone(&self, name: String, command: &mut Command) -> Outcome {
        let begin = Instant::now();
        let ended = self.interrupt.run(command);
        Outcome {
            name,
            time: begin.elapsed(),
            ended: ended.map_err(Into::into),
        }
    }

    /// It runs in the home folder, which an experiment's paths are relative to.
    fn cxr(&self, what: &str) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg(what);
        command
    }

    fn add_experiment(&self, command: &mut Command) {
        command.arg("--experiment");
        match self.source {
            ExperimentSource::File(path) => command.arg(path),
            built_in => command.arg(built_in.to_string()),
        };
    }

    fn add_data(&self, command: &mut Command) {
        command.arg("--data").arg(self.data);
        if let Some(metadata) = self.metadata {
            command.arg("--metadata").arg(metadata);
        }
        if self.allow_missing {
            command.arg("--allow-missing");
        }
    }
}
