//! Ranks that are threads of one process.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{Ranks, RanksError};

/// A rank that is a thread of this process: what is trained on several of them, tests of programs included, needs no MPI
/// and no second process. A rank that is dropped has ended; the others get [`RanksError::Gone`].
///
/// ```
/// use cxr_train::{Ranks, ThreadRanks};
///
/// let ranks = ThreadRanks::group(2);
/// std::thread::scope(|scope| {
///     for rank in ranks {
///         scope.spawn(move || assert_eq!(rank.all_gather(&[rank.rank() as u8]), Ok(vec![vec![0], vec![1]])));
///     }
/// });
/// ```
#[derive(Debug)]
pub struct ThreadRanks {
    rank: usize,
    size: usize,
    board: Arc<Board>,
}

/// Where the ranks leave what they give.
#[derive(Debug, Default)]
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

type Parts = Vec<Vec<u8>>;

#[derive(Debug, Default)]
struct State {
    /// How many collective calls are over.
    calls: u64,
    /// What came so far for the present one, by rank.
    given: Vec<Option<Parts>>,
    /// What came for the last one. It is not replaced before every rank has taken it: each gives to the next call first.
    last: Arc<Vec<Parts>>,
    gone: Option<usize>,
}

impl ThreadRanks {
    /// So many ranks, at least one, in order: one for each thread.
    pub fn group(size: usize) -> Vec<Self> {
        let size = size.max(1);
        let board = Arc::new(Board::default());
        board.lock().given = (0..size).map(|_| None).collect();
        let rank = |rank| Self {
            rank,
            size,
            board: Arc::clone(&board),
        };
        (0..size).map(rank).collect()
    }

    /// What every rank gives, once all have given it.
    fn exchange(&self, mine: Parts) -> Result<Arc<Vec<Parts>>, RanksError> {
        let mut state = self.board.lock();
        let call = state.calls;
        if let Some(place) = state.given.get_mut(self.rank) {
            *place = Some(mine);
        }
        if state.given.iter().all(Option::is_some) {
            let given = state.given.iter_mut().filter_map(Option::take).collect();
            state.last = Arc::new(given);
            state.calls += 1;
            self.board.changed.notify_all();
            return Ok(Arc::clone(&state.last));
        }
        while state.calls == call {
            if let Some(rank) = state.gone {
                return Err(RanksError::Gone { rank });
            }
            let waited = self.board.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(Arc::clone(&state.last))
    }
}

impl Board {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ThreadRanks {
    fn drop(&mut self) {
        self.board.lock().gone.get_or_insert(self.rank);
        self.board.changed.notify_all();
    }
}

impl Ranks for ThreadRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        let all = self.exchange(vec![mine.to_vec()])?;
        Ok(all.iter().map(|parts| parts.concat()).collect())
    }

    fn all_to_all(&self, parts: &[&[f32]]) -> Result<Vec<Vec<f32>>, RanksError> {
        let all = self.exchange(parts.iter().map(|part| bytes_of(part)).collect())?;
        let for_this = |parts: &Parts| parts.get(self.rank).map_or_else(Vec::new, |p| values_of(p));
        Ok(all.iter().map(for_this).collect())
    }

    fn all_gather_values(&self, mine: &[f32]) -> Result<Vec<f32>, RanksError> {
        let all = self.exchange(vec![bytes_of(mine)])?;
        Ok(all
            .iter()
            .flatten()
            .flat_map(|part| values_of(part))
            .collect())
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, RanksError> {
        let mine = if self.rank == 0 { bytes } else { Vec::new() };
        let all = self.exchange(vec![mine])?;
        Ok(all.iter().take(1).flatten().flatten().copied().collect())
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn values_of(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values
        .iter()
        .map(|&value| f32::from_le_bytes(value))
        .collect()
}
