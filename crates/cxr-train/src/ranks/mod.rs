//! Ranks: the processes, on one machine or several, that train one network together.
//!
//! A training needs four collective calls of whatever carries messages, the trait [`Ranks`]. [`Alone`] is a process by
//! itself; [`ThreadRanks`] are threads of one process, with which tests run what runs on ranks; `MpiRanks`, behind the
//! feature `mpi`, are the processes of an MPI job.

#[cfg(feature = "mpi")]
mod mpi;
mod threads;

use std::fmt::Display;

#[cfg(feature = "mpi")]
pub use self::mpi::MpiRanks;
pub use self::threads::ThreadRanks;

/// The processes that work on one training, as one of them sees them: numbered from 0, its own number being
/// [`Self::rank`].
///
/// All calls but the first two are collective: every rank makes the same calls in the same order, and each returns when
/// all ranks have made it. What is received is in the order of the ranks, whichever answered first, so that sums over it
/// have one order.
///
/// An error of a collective call is final: the ranks no longer make the same calls, and whoever gets it should end the
/// process, and with it the job.
pub trait Ranks: std::fmt::Debug + Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are, at least one.
    fn size(&self) -> usize;

    /// The bytes that each rank gives, in the order of the ranks. Lengths may differ.
    ///
    /// # Errors
    /// A rank that is gone, or what the transport reports.
    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError>;

    /// Sends `parts[r]` to rank r, and gives what each rank has sent here, in the order of the ranks. There are as many
    /// parts as ranks; lengths may differ.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    fn all_to_all(&self, parts: &[&[f32]]) -> Result<Vec<Vec<f32>>, RanksError>;

    /// The values that each rank gives, one behind the other in the order of the ranks.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    fn all_gather_values(&self, mine: &[f32]) -> Result<Vec<f32>, RanksError>;

    /// The bytes of rank 0, on every rank; what the others give is not looked at.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, RanksError>;

    /// Returns when every rank has come here.
    ///
    /// # Errors
    /// As [`Self::all_gather`].
    fn barrier(&self) -> Result<(), RanksError> {
        self.all_gather(&[]).map(drop)
    }
}

/// Why ranks cannot go on together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RanksError {
    /// A rank has ended while the others were waiting for it.
    #[error("rank {rank} has ended before the others")]
    Gone {
        /// Which.
        rank: usize,
    },
    /// Another rank could not do its part; it reports the error itself.
    #[error("rank {rank}: {problem}")]
    Failed {
        /// Which.
        rank: usize,
        /// Its error.
        problem: String,
    },
    /// The ranks are not at work on the same run.
    #[error(
        "rank {rank} and rank 0 differ in {what}; start every rank with the same program, arguments and data, on processors of one kind"
    )]
    Differ {
        /// The first rank that differs.
        rank: usize,
        /// In what.
        what: String,
    },
    /// What carries the messages has failed.
    #[error("cannot {action} between ranks: {problem}")]
    Transport {
        /// What was tried.
        action: &'static str,
        /// What it reports.
        problem: String,
    },
}

/// A process by itself: rank 0 of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        Ok(vec![mine.to_vec()])
    }

    fn all_to_all(&self, parts: &[&[f32]]) -> Result<Vec<Vec<f32>>, RanksError> {
        Ok(parts.iter().map(|part| part.to_vec()).collect())
    }

    fn all_gather_values(&self, mine: &[f32]) -> Result<Vec<f32>, RanksError> {
        Ok(mine.to_vec())
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>, RanksError> {
        Ok(bytes)
    }
}

/// How a message that may be an error begins.
const DONE: u8 = 1;
const FAILED: u8 = 0;

impl dyn Ranks + '_ {
    /// Whether this is rank 0, which writes the run's files and reports what happens.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// What `make` makes on rank 0, on every rank; collective. It is not called on the others.
    ///
    /// # Errors
    /// On rank 0 that of `make`, on the others [`RanksError::Failed`] with its text; and those of [`Ranks::broadcast`].
    pub fn from_first<E: From<RanksError> + Display>(
        &self,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        if self.size() == 1 {
            return make();
        }
        if self.is_first() {
            let made = make();
            self.broadcast(message(&made))?;
            return made;
        }
        Ok(parse(0, self.broadcast(Vec::new())?)?)
    }

    /// The bytes of every rank, in the order of the ranks, where all have some; collective.
    ///
    /// # Errors
    /// The rank's own error where it has one, else [`RanksError::Failed`] with that of the first rank which has one; and
    /// those of [`Ranks::all_gather`].
    pub fn agree<E: From<RanksError> + Display>(
        &self,
        mine: Result<Vec<u8>, E>,
    ) -> Result<Vec<Vec<u8>>, E> {
        if self.size() == 1 {
            return Ok(vec![mine?]);
        }
        let all = self.all_gather(&message(&mine));
        mine?;
        let all = all?.into_iter().enumerate();
        Ok(all
            .map(|(rank, message)| parse(rank, message))
            .collect::<Result<_, _>>()?)
    }

    /// Whether every rank gives the same text for each of `parts`, which are named alike; collective.
    ///
    /// # Errors
    /// [`RanksError::Differ`] with the first rank and the first part, and those of [`Ranks::all_gather`].
    pub fn check_equal(&self, parts: &[(&str, String)]) -> Result<(), RanksError> {
        if self.size() == 1 {
            return Ok(());
        }
        let mut mine = Vec::new();
        for (_, text) in parts {
            mine.extend((text.len() as u64).to_le_bytes());
            mine.extend(text.as_bytes());
        }
        let all = self.all_gather(&mine)?;
        let texts = |mut bytes: &[u8]| {
            let mut texts: Vec<Vec<u8>> = Vec::new();
            while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
                let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
                let Some((text, rest)) = rest.split_at_checked(length) else {
                    break;
                };
                texts.push(text.to_vec());
                bytes = rest;
            }
            texts
        };
        let Some(first) = all.first().map(|bytes| texts(bytes)) else {
            return Ok(());
        };
        for (rank, bytes) in all.iter().enumerate() {
            let texts = texts(bytes);
            let differs = |at: &usize| first.get(*at) != texts.get(*at);
            if let Some(at) = (0..first.len().max(texts.len())).find(differs) {
                let what = parts.get(at).map_or("what they do", |(what, _)| what);
                return Err(RanksError::Differ {
                    rank,
                    what: what.to_owned(),
                });
            }
        }
        Ok(())
    }
}

fn message<E: Display>(result: &Result<Vec<u8>, E>) -> Vec<u8> {
    let (kind, content) = match result {
        Ok(bytes) => (DONE, bytes.clone()),
        // With its causes, where its type can tell them.
        Err(error) => (FAILED, format!("{error:#}").into_bytes()),
    };
    let mut message = vec![kind];
    message.extend(content);
    message
}

fn parse(rank: usize, mut message: Vec<u8>) -> Result<Vec<u8>, RanksError> {
    let content = message.split_off(message.len().min(1));
    match message.first() {
        Some(&DONE) => Ok(content),
        _ => Err(RanksError::Failed {
            rank,
            problem: String::from_utf8_lossy(&content).into_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `work` gives on each of so many ranks.
    fn on_ranks<T: Send>(size: usize, work: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
        let ranks = ThreadRanks::group(size);
        std::thread::scope(|scope| {
            let started: Vec<_> = ranks
                .into_iter()
                .map(|ranks| scope.spawn(|| work(&{ ranks })))
                .collect();
            started
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    #[test]
    fn messages_come_in_the_order_of_the_ranks() {
        let gathered = on_ranks(3, |ranks| {
            let mine = vec![ranks.rank() as u8; ranks.rank()];
            let values = vec![ranks.rank() as f32; 3 - ranks.rank()];
            let parts: Vec<Vec<f32>> = (0..3).map(|to| vec![to as f32; ranks.rank()]).collect();
            let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
            (
                ranks.all_gather(&mine).unwrap(),
                ranks.all_gather_values(&values).unwrap(),
                ranks.all_to_all(&parts).unwrap(),
                ranks.broadcast(mine.clone()).unwrap(),
            )
        });
        for (rank, (bytes, values, sent, from_first)) in gathered.into_iter().enumerate() {
            assert_eq!(bytes, [vec![], vec![1], vec![2, 2]]);
            assert_eq!(values, [0., 0., 0., 1., 1., 2.]);
            let here = rank as f32;
            assert_eq!(sent, [vec![], vec![here], vec![here, here]]);
            assert_eq!(from_first, [0u8; 0]);
        }
    }

    /// A rank that fails must not leave the others waiting: they learn why, and only it reports its own error.
    #[test]
    fn the_failure_of_one_rank_is_that_of_all() {
        let failed = |rank: usize| RanksError::Transport {
            action: "test",
            problem: format!("at {rank}"),
        };
        let ended = on_ranks(3, |ranks| {
            ranks.agree(match ranks.rank() {
                1 => Err(failed(1)),
                rank => Ok(vec![rank as u8]),
            })
        });
        let of_others = RanksError::Failed {
            rank: 1,
            problem: "cannot test between ranks: at 1".to_owned(),
        };
        let of_others = || Err(of_others.clone());
        assert_eq!(ended, [of_others(), Err(failed(1)), of_others()]);
        let ended = on_ranks(2, |ranks| {
            ranks.from_first(|| match ranks.rank() {
                0 => Ok::<_, RanksError>(vec![7]),
                _ => panic!("only rank 0 makes it"),
            })
        });
        assert_eq!(ended, [Ok(vec![7]), Ok(vec![7])]);
    }

    #[test]
    fn what_differs_is_named() {
        let compared = on_ranks(3, |ranks| {
            let seed = if ranks.rank() == 2 { "1" } else { "0" };
            ranks.check_equal(&[("the data", "a".to_owned()), ("the seed", seed.to_owned())])
        });
        let differ = RanksError::Differ {
            rank: 2,
            what: "the seed".to_owned(),
        };
        assert_eq!(compared, vec![Err(differ); 3]);
    }

    #[test]
    fn a_rank_that_is_gone_is_named_and_not_waited_for() {
        let ended = on_ranks(3, |ranks| match ranks.rank() {
            1 => Ok(()),
            _ => ranks.barrier(),
        });
        let gone = Err(RanksError::Gone { rank: 1 });
        assert_eq!(ended, [gone.clone(), Ok(()), gone]);
    }
}
