//! Ranks that are the processes of an MPI job.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ::mpi::Threading;
use ::mpi::collective::CommunicatorCollectives as _;
use ::mpi::datatype::{Partition, PartitionMut};
use ::mpi::environment::Universe;
use ::mpi::topology::{Communicator as _, SimpleCommunicator};
use ::mpi::traits::Root as _;

use super::{Ranks, RanksError};

/// The processes that `mpirun` or `srun --mpi=…` has started, as one of them sees them.
///
/// MPI is finalised when this is dropped, which waits for the other ranks. A process that ends without it, or calls
/// [`Self::abort`], ends the job.
pub struct MpiRanks {
    rank: usize,
    size: usize,
    /// MPI is called by one thread at a time.
    universe: Mutex<Universe>,
}

impl std::fmt::Debug for MpiRanks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("MpiRanks")
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl MpiRanks {
    /// Joins the job. A process calls it once.
    ///
    /// # Errors
    /// [`RanksError::Transport`] where MPI was initialised before, or does not let threads other than its first call it.
    pub fn join() -> Result<Self, RanksError> {
        let failed = |problem: &str| RanksError::Transport {
            action: "begin the messages",
            problem: problem.to_owned(),
        };
        let (universe, threading) = ::mpi::initialize_with_threading(Threading::Serialized)
            .ok_or_else(|| failed("MPI was initialised before in this process"))?;
        if threading < Threading::Serialized {
            return Err(failed("this MPI was built without support for threads"));
        }
        let world = SimpleCommunicator::world();
        let number = |number: i32| usize::try_from(number).unwrap_or_default();
        Ok(Self {
            rank: number(world.rank()),
            size: number(world.size()),
            universe: Mutex::new(universe),
        })
    }

    /// The machine that this rank runs on, by the name that MPI has for it.
    pub fn host() -> String {
        ::mpi::environment::processor_name()
            .unwrap_or_else(|_| "a machine without a name".to_owned())
    }

    /// Ends all ranks at once, this one with `exit_code`: for a rank that cannot go on while others may be waiting for it.
    pub fn abort(&self, exit_code: i32) -> ! {
        SimpleCommunicator::world().abort(exit_code)
    }

    fn world(&self) -> (MutexGuard<'_, Universe>, SimpleCommunicator) {
        let guard = self.universe.lock().unwrap_or_else(PoisonError::into_inner);
        (guard, SimpleCommunicator::world())
    }
}

/// Counts and places of several parts in one buffer, in MPI's own type.
struct Layout {
    counts: Vec<i32>,
    places: Vec<i32>,
    total: usize,
}

impl Layout {
    fn new(
        action: &'static str,
        lengths: impl IntoIterator<Item = usize>,
    ) -> Result<Self, RanksError> {
        let too_large = |_| RanksError::Transport {
            action,
            problem: "more than 2³¹ values at once".to_owned(),
        };
        let (mut counts, mut places, mut total) = (Vec::new(), Vec::new(), 0);
        for length in lengths {
            counts.push(i32::try_from(length).map_err(too_large)?);
            places.push(i32::try_from(total).map_err(too_large)?);
            total += length;
        }
        Ok(Self {
            counts,
            places,
            total,
        })
    }

    /// The parts of a buffer.
    fn parts<'a, T>(&self, buffer: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        let mut rest = buffer;
        let lengths: Vec<usize> = (self.counts.iter())
            .map(|&count| usize::try_from(count).unwrap_or_default())
            .collect();
        lengths.into_iter().map(move |length| {
            let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = behind;
            part
        })
    }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        let (_guard, world) = self.world();
        let mut lengths = vec![0u64; self.size];
        world.all_gather_into(&(mine.len() as u64), &mut lengths[..]);
        let lengths = lengths.into_iter();
        let lengths = lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let layout = Layout::new("gather", lengths)?;
        let mut all = vec![0u8; layout.total];
        let mut into = PartitionMut::new(&mut all[..], &layout.counts[..], &layout.places[..]);
        world.all_gather_varcount_into(mine, &mut into);
        Ok(layout.parts(&all).map(<[u8]>::to_vec).collect())
    }

    fn all_to_all(&self, parts: &[&[f32]]) -> Result<Vec<Vec<f32>>, RanksError> {
        const ACTION: &str = "exchange values";
        if parts.len() != self.size {
            return Err(RanksError::Transport {
                action: ACTION,
                problem: format!("{} parts for {} ranks", parts.len(), self.size),
            });
        }
        let (_guard, world) = self.world();
        let lengths: Vec<u64> = parts.iter().map(|part| part.len() as u64).collect();
        let mut coming = vec![0u64; self.size];
        world.all_to_all_into(&lengths[..], &mut coming[..]);
        let coming = coming.into_iter();
        let coming = coming.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let to = Layout::new(ACTION, parts.iter().map(|part| part.len()))?;
        let from = Layout::new(ACTION, coming)?;
        let sent = parts.concat();
        let mut received = vec![0f32; from.total];
        let sending = Partition::new(&sent[..], &to.counts[..], &to.places[..]);
        let mut receiving =
            PartitionMut::new(&mut received[..], &from.counts[..], &from.places[..]);
        world.all_to_all_varcount_into(&sending, &mut receiving);
        Ok(from.parts(&received).map(<[f32]>::to_vec).collect())
    }

    fn all_gather_values(&self, mine: &[f32]) -> Result<Vec<f32>, RanksError> {
        let (_guard, world) = self.world();
        let mut lengths = vec![0u64; self.size];
        world.all_gather_into(&(mine.len() as u64), &mut lengths[..]);
        let lengths = lengths.into_iter();
        let lengths = lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let layout = Layout::new("gather values", lengths)?;
        let mut all = vec![0f32; layout.total];
        let mut into = PartitionMut::new(&mut all[..], &layout.counts[..], &layout.places[..]);
        world.all_gather_varcount_into(mine, &mut into);
        Ok(all)
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, RanksError> {
        let (_guard, world) = self.world();
        let root = world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        root.broadcast_into(&mut length);
        let mut bytes = match self.rank {
            0 => bytes,
            _ => vec![0; usize::try_from(length).unwrap_or_default()],
        };
        // A checkpoint may have more bytes than MPI counts at once.
        for part in bytes.chunks_mut(1 << 30) {
            root.broadcast_into(part);
        }
        Ok(bytes)
    }
}
