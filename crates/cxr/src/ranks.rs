//! The ranks of an MPI job that a command runs on, and how they end together.

use std::process::ExitCode;

use anyhow::bail;
use cxr_train::{Alone, Ranks};
#[cfg(feature = "mpi")]
use cxr_train::{MpiRanks, RanksError};

#[cfg(feature = "mpi")]
use crate::progress;

/// What the launchers of MPI's implementations and of Slurm tell a process of the number of ranks, and who does.
const LAUNCHERS: [(&str, &str); 3] = [
    ("OMPI_COMM_WORLD_SIZE", "Open MPI's `mpirun`"),
    ("PMI_SIZE", "MPICH's `mpirun`"),
    ("SLURM_STEP_NUM_TASKS", "`srun`"),
];

/// The ranks of this job: the process alone, unless a launcher of MPI has started it.
pub(crate) enum Job {
    /// No launcher, or one process of it.
    Alone(Alone),
    /// Several processes.
    #[cfg(feature = "mpi")]
    Mpi(MpiRanks),
}

impl Job {
    /// Joins the other ranks, where a launcher has started some. From here on only rank 0 says what it does.
    ///
    /// # Errors
    /// A launcher's ranks that this program cannot join: each would do the whole work by itself.
    pub(crate) fn join() -> anyhow::Result<Self> {
        let Some((launched, launcher)) = launched().filter(|&(launched, _)| launched > 1) else {
            return Ok(Self::Alone(Alone));
        };
        #[cfg(feature = "mpi")]
        {
            let ranks = MpiRanks::join()?;
            if ranks.size() == 1 {
                bail!(
                    "{launcher} has started {launched} processes, but MPI knows of one: each would train by itself\nhint: with `srun`, name an MPI that Slurm and the program's MPI have in common, such as `srun --mpi=pmix` (`srun --mpi=list` shows them), or call `mpirun` inside the job"
                );
            }
            if ranks.rank() > 0 {
                progress::be_quiet();
            }
            Ok(Self::Mpi(ranks))
        }
        #[cfg(not(feature = "mpi"))]
        bail!(
            "{launcher} has started {launched} processes, but this `cxr` was built without MPI: each would train by itself\nhint: build it with `cargo build --release --package cxr --features mpi` (docs/clusters.md), or start one process"
        )
    }

    /// As they see each other.
    pub(crate) fn ranks(&self) -> &dyn Ranks {
        match self {
            Self::Alone(alone) => alone,
            #[cfg(feature = "mpi")]
            Self::Mpi(ranks) => ranks,
        }
    }

    /// What `decide` finds on rank 0, on every rank.
    ///
    /// # Errors
    /// That of `decide`, which rank 0 reports.
    pub(crate) fn decide(
        &self,
        decide: impl FnOnce() -> anyhow::Result<bool>,
    ) -> anyhow::Result<bool> {
        let bytes = (self.ranks()).from_first(|| decide().map(|found| vec![u8::from(found)]))?;
        Ok(bytes == [1])
    }

    /// Ends this rank's part. A rank that failed says so with its number and machine and ends all others, which may be
    /// waiting for it.
    pub(crate) fn end(self, result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        match self {
            Self::Alone(_) => result,
            #[cfg(feature = "mpi")]
            Self::Mpi(ranks) => match result {
                Ok(code) => {
                    // Waits for the others.
                    drop(ranks);
                    Ok(code)
                }
                Err(error) => {
                    let is_of_another =
                        matches!(ranks_error(&error), Some(RanksError::Failed { .. }));
                    // The rank whose error it is, or rank 0 where all have the same, ends the job first.
                    match (is_of_another, ranks.rank()) {
                        (true, _) => std::thread::sleep(3 * GRACE),
                        (false, 0) => {}
                        (false, _) => std::thread::sleep(GRACE),
                    }
                    if !is_of_another {
                        progress::say_error(&format!(
                            "error on rank {} of {} ({}): {error:#}",
                            ranks.rank(),
                            ranks.size(),
                            MpiRanks::host()
                        ));
                    }
                    ranks.abort(1)
                }
            },
        }
    }
}

/// How long a rank waits for another one to report its error and to end the job.
#[cfg(feature = "mpi")]
const GRACE: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(feature = "mpi")]
fn ranks_error(error: &anyhow::Error) -> Option<&RanksError> {
    let mut causes = error.chain();
    causes.find_map(|cause| {
        let of_training = cause.downcast_ref::<cxr_train::TrainError>();
        let of_training = of_training.and_then(|error| match error {
            cxr_train::TrainError::Ranks(error) => Some(error),
            _ => None,
        });
        of_training.or_else(|| cause.downcast_ref())
    })
}

/// How many processes a launcher has started as one job, and which launcher.
fn launched() -> Option<(usize, &'static str)> {
    LAUNCHERS.into_iter().find_map(|(variable, launcher)| {
        let size = std::env::var(variable).ok()?.trim().parse().ok()?;
        Some((size, launcher))
    })
}
