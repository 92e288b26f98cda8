//! Where the pieces that a pass takes are in one large piece of memory, so that a pass asks the driver for none.
//!
//! Kept on the host: a piece is a range of places, whatever is there. Space has no end; how far it was used tells how
//! much memory the next pass of the same kind needs.

use std::collections::BTreeMap;

/// Pieces begin at multiples of so many values: 256 bytes, as the driver's do.
const GRAIN: usize = 64;

/// See the module. The same sequence of pieces taken and given back comes to lie at the same places.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// By its beginning each gap between pieces, with its length.
    gaps: BTreeMap<usize, usize>,
    /// Where the last piece ends.
    end: usize,
    /// The largest `end` that there was.
    most: usize,
    /// Pieces taken and not given back.
    pieces: usize,
}

impl Arena {
    /// Takes a piece of `len` values: the smallest gap that holds it, else the place behind the last piece.
    pub(super) fn take(&mut self, len: usize) -> usize {
        let len = rounded(len);
        self.pieces += 1;
        let gaps = self.gaps.iter().filter(|(_, gap)| **gap >= len);
        let smallest = gaps.min_by_key(|(_, gap)| **gap);
        if let Some((&begin, &gap)) = smallest {
            self.gaps.remove(&begin);
            if gap > len {
                self.gaps.insert(begin + len, gap - len);
            }
            return begin;
        }
        let begin = self.end;
        self.end += len;
        self.most = self.most.max(self.end);
        begin
    }

    /// Gives a piece back.
    pub(super) fn give_back(&mut self, begin: usize, len: usize) {
        self.pieces -= 1;
        let (mut begin, mut len) = (begin, rounded(len));
        if let Some((&before, &gap)) = self.gaps.range(..begin).next_back()
            && before + gap == begin
        {
            self.gaps.remove(&before);
            (begin, len) = (before, gap + len);
        }
        if let Some(gap) = self.gaps.remove(&(begin + len)) {
            len += gap;
        }
        if begin + len == self.end {
            self.end = begin;
        } else {
            self.gaps.insert(begin, len);
        }
    }

    /// Whether all pieces were given back.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces == 0
    }

    /// Values that hold all that was ever taken at once.
    pub(super) fn most(&self) -> usize {
        self.most
    }
}

/// Pieces are no shorter than one grain: a piece without values has a place too.
fn rounded(len: usize) -> usize {
    len.max(1).next_multiple_of(GRAIN)
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};

    use super::*;

    #[test]
    fn pieces_do_not_overlap_and_gaps_are_used_again() {
        let mut arena = Arena::default();
        let mut draws = ChaCha8Rng::seed_from_u64(1);
        let mut pieces: Vec<(usize, usize)> = Vec::new();
        let (mut lent, mut most_lent) = (0, 0);
        for _ in 0..5_000 {
            let draw = draws.next_u32() as usize;
            if draw % 5 < 3 || pieces.is_empty() {
                let len = draw / 5 % 3_000;
                let begin = arena.take(len);
                assert!(begin.is_multiple_of(GRAIN));
                let overlaps = |&(other, other_len): &(usize, usize)| {
                    begin < other + rounded(other_len) && other < begin + rounded(len)
                };
                assert!(!pieces.iter().any(overlaps), "{begin} + {len}");
                assert!(begin + rounded(len) <= arena.most());
                pieces.push((begin, len));
                lent += rounded(len);
                most_lent = most_lent.max(lent);
            } else {
                let (begin, len) = pieces.swap_remove(draw / 5 % pieces.len());
                arena.give_back(begin, len);
                lent -= rounded(len);
            }
        }
        // Random lengths and orders leave gaps, but no more than a quarter.
        assert!(
            4 * arena.most() <= 5 * most_lent,
            "{} of {most_lent}",
            arena.most()
        );
        for (begin, len) in pieces {
            arena.give_back(begin, len);
        }
        assert!(arena.is_empty() && arena.gaps.is_empty() && arena.end == 0);
    }

    #[test]
    fn what_is_done_again_lies_where_it_lay() {
        let mut arena = Arena::default();
        let mut pass = || {
            let places = [1_000, 64, 65, 0].map(|len| (arena.take(len), len));
            arena.give_back(places[1].0, places[1].1);
            let last = (arena.take(30), 30);
            let all = [places[0], places[2], places[3], last];
            for (begin, len) in all {
                arena.give_back(begin, len);
            }
            (all, arena.most())
        };
        let first = pass();
        assert_eq!(pass(), first);
        // The gap of the second piece has the last.
        assert_eq!(first.0[3].0, 1_024);
        assert_eq!(first.1, 1_024 + 64 + 128 + 64);
    }
}
