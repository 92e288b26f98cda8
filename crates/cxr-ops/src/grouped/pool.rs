//! Buffers that outlive a step.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Group, ZERO};

/// Memory of earlier steps, to be used again. Fresh memory costs a page fault per four kilobytes and has
/// to be zeroed, which together is a quarter of a training step. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    free: Arc<Mutex<Vec<Vec<Group>>>>,
}

impl Pool {
    /// A buffer of `len` groups with whatever values its last user left.
    pub fn take(&self, len: usize) -> Buffer {
        self.take_within(len, usize::MAX)
    }

    /// As [`Self::take`], but never much more memory than is needed: for who asks for small and large buffers in
    /// turn.
    pub(crate) fn take_close(&self, len: usize) -> Buffer {
        self.take_within(len, len + len / 4)
    }

    fn take_within(&self, len: usize, most: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is large enough, so that large ones stay for large requests.
        let fitting = (0..free.len())
            .filter(|&at| (len..=most).contains(&free[at].len()))
            .min_by_key(|&at| free[at].len());
        let reused = fitting.map(|at| free.swap_remove(at));
        drop(free);
        Buffer {
            groups: reused.unwrap_or_else(|| vec![ZERO; len]),
            len,
            pool: self.clone(),
        }
    }
}

/// Groups from a [`Pool`], to which they return.
#[derive(Debug)]
pub struct Buffer {
    /// At least `len`, and never made shorter: lengthening it again would write zeros.
    groups: Vec<Group>,
    len: usize,
    pool: Pool,
}

impl Deref for Buffer {
    type Target = [Group];

    fn deref(&self) -> &[Group] {
        &self.groups[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [Group] {
        &mut self.groups[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let groups = std::mem::take(&mut self.groups);
        let mut free = self
            .pool
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        free.push(groups);
    }
}
