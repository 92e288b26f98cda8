//! One sort per label, from which every ranking metric is one pass.
//!
//! An entry packs the score as an integer whose order is the score's order (32 bits), the row
//! (31 bits) and the label (1 bit). Integers sort by counting digits, four to five times faster
//! than floats sort by comparing, and a pass over the sorted entries touches no other memory.
//! Scores that need the precision of `f64` are sorted by comparing first, and their ranks packed.

use crate::scored::{Scores, Values, is_single};

/// Rows are stored in 31 bits.
pub(crate) const MAX_EXAMPLES: usize = (1 << 31) - 1;

const DIGIT_SHIFTS: [u32; 3] = [32, 43, 54];
const BUCKETS: usize = 1 << 11;
/// Below this length the histograms cost more than comparing.
const COMPARISON_SORT_BELOW: usize = 1024;

/// One example in a sorted list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry(u64);

impl Entry {
    fn new(score: f32, row: usize, label: bool) -> Self {
        Self(u64::from(ordered_bits(score)) << 32 | (row as u64) << 1 | u64::from(label))
    }

    /// For scores that 32 bits cannot tell apart: the place of the score among the distinct ones.
    fn ranked(rank: u32, row_and_label: u32) -> Self {
        Self(u64::from(rank) << 32 | u64::from(row_and_label))
    }

    pub(crate) fn key(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn row(self) -> usize {
        (self.0 as u32 >> 1) as usize
    }

    pub(crate) fn label(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Maps a finite score to an integer of the same order; both zeros map to one integer.
fn ordered_bits(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    let negative = ((bits as i32) >> 31) as u32;
    bits ^ (negative | 1 << 31)
}

fn ordered_bits_of_double(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    let negative = ((bits as i64) >> 63) as u64;
    bits ^ (negative | 1 << 63)
}

/// Sorts label after label in the same two buffers.
#[derive(Default)]
pub(crate) struct Sorter {
    entries: Vec<Entry>,
    scratch: Vec<Entry>,
}

impl Sorter {
    /// The examples in ascending order of score, ties in order of row.
    pub(crate) fn sort(&mut self, scores: Scores<'_>, labels: &[bool]) -> &[Entry] {
        match scores.0 {
            Values::Single(scores) => self.sort_singles(scores.iter().copied(), labels),
            Values::Double(scores) if scores.iter().all(|&score| is_single(score)) => {
                self.sort_singles(scores.iter().map(|&score| score as f32), labels);
            }
            Values::Double(scores) => self.sort_doubles(scores, labels),
        }
        &self.entries
    }

    fn sort_singles(&mut self, scores: impl Iterator<Item = f32>, labels: &[bool]) {
        self.entries.clear();
        let rows = scores.zip(labels).enumerate();
        self.entries
            .extend(rows.map(|(row, (score, &label))| Entry::new(score, row, label)));
        if self.entries.len() < COMPARISON_SORT_BELOW {
            self.entries.sort_unstable();
        } else {
            self.sort_by_digits();
        }
    }

    fn sort_doubles(&mut self, scores: &[f64], labels: &[bool]) {
        let rows = scores.iter().zip(labels).enumerate();
        let mut keys: Vec<(u64, u32)> = rows
            .map(|(row, (&score, &label))| {
                let row_and_label = (row as u32) << 1 | u32::from(label);
                (ordered_bits_of_double(score), row_and_label)
            })
            .collect();
        keys.sort_unstable();
        self.entries.clear();
        let ties = keys.chunk_by(|a, b| a.0 == b.0).zip(0..);
        self.entries.extend(ties.flat_map(|(tied, rank)| {
            let ranked = move |&(_, row_and_label): &(u64, u32)| Entry::ranked(rank, row_and_label);
            tied.iter().map(ranked)
        }));
    }

    /// Least significant digit first; the rows are in order to begin with, so only scores are sorted.
    fn sort_by_digits(&mut self) {
        let mut counts = [[0_usize; BUCKETS]; 3];
        for entry in &self.entries {
            for (count, shift) in counts.iter_mut().zip(DIGIT_SHIFTS) {
                count[digit(*entry, shift)] += 1;
            }
        }
        self.scratch.resize(self.entries.len(), Entry(0));
        for (count, shift) in counts.iter_mut().zip(DIGIT_SHIFTS) {
            if count.contains(&self.entries.len()) {
                continue; // every score has this digit in common
            }
            let mut start = 0;
            for slot in count.iter_mut() {
                (start, *slot) = (start + *slot, start);
            }
            for &entry in &self.entries {
                let slot = &mut count[digit(entry, shift)];
                self.scratch[*slot] = entry;
                *slot += 1;
            }
            std::mem::swap(&mut self.entries, &mut self.scratch);
        }
    }
}

fn digit(entry: Entry, shift: u32) -> usize {
    (entry.0 >> shift) as usize & (BUCKETS - 1)
}

/// The runs of equal scores, in the order of the entries.
pub(crate) fn tie_groups(entries: &[Entry]) -> impl DoubleEndedIterator<Item = &[Entry]> {
    entries.chunk_by(|a, b| a.key() == b.key())
}

/// Positives and negatives of a group.
pub(crate) fn count_labels(entries: &[Entry]) -> (u64, u64) {
    let positives = entries.iter().filter(|entry| entry.label()).count();
    (positives as u64, (entries.len() - positives) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_the_order_of_scores() {
        let ascending = [
            f32::MIN,
            -1.5,
            -f32::MIN_POSITIVE,
            -1e-45,
            0.0,
            1e-45,
            f32::MIN_POSITIVE,
            0.5,
            f32::MAX,
        ];
        for pair in ascending.windows(2) {
            assert!(ordered_bits(pair[0]) < ordered_bits(pair[1]), "{pair:?}");
            let [low, high] = [pair[0], pair[1]].map(|score| ordered_bits_of_double(score.into()));
            assert!(low < high, "{pair:?}");
        }
        assert_eq!(ordered_bits(-0.0), ordered_bits(0.0));
        assert_eq!(ordered_bits_of_double(-0.0), ordered_bits_of_double(0.0));
    }

    #[test]
    fn sorting_by_digits_equals_sorting_by_comparison() {
        let mut state = 1_u32;
        let scores: Vec<f32> = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 18) as f32 / 4096.0 - 2.0
            })
            .collect();
        let labels: Vec<bool> = (0..5000).map(|row| row % 3 == 0).collect();
        let mut sorter = Sorter::default();
        let by_digits = sorter.sort((&scores).into(), &labels).to_vec();
        let mut by_comparison: Vec<Entry> = (0..5000)
            .map(|row| Entry::new(scores[row], row, labels[row]))
            .collect();
        by_comparison.sort();
        assert_eq!(by_digits, by_comparison);
        // As f64 they take the same way; with one score that needs f64, ranks in the same order.
        let mut doubles: Vec<f64> = scores.iter().map(|&score| score.into()).collect();
        assert_eq!(sorter.sort((&doubles).into(), &labels), by_digits);
        doubles[0] += 1e-12;
        let rows = |entries: &[Entry]| entries.iter().map(|e| e.row()).collect::<Vec<_>>();
        let by_rank = rows(sorter.sort((&doubles).into(), &labels));
        let mut expected: Vec<usize> = (0..5000).collect();
        expected.sort_by(|&a, &b| doubles[a].total_cmp(&doubles[b]));
        assert_eq!(by_rank, expected);
    }
}
