//! What the calls ask of a device: memory, and a kernel started on it.

use candle_core::Result;

/// Threads of every block, as `kernels.cu` has them.
pub(super) const THREADS: usize = 256;

/// A device that runs `kernels.cu`. Kernels run in the order in which they are launched.
pub(super) trait Machine {
    /// Single-precision values in its memory.
    type Memory;

    /// Numbers and addresses in its memory.
    type Table;

    /// Memory for `len` values, whatever they are.
    fn alloc(&self, len: usize) -> Result<Self::Memory>;

    /// Copies a table to its memory.
    fn upload(&self, table: &[u64]) -> Result<Self::Table>;

    /// Where values are, as a kernel that finds it in a table reads them.
    fn address(&self, values: View<'_, Self::Memory>) -> u64;

    /// Starts a kernel. The arguments are those of its definition, in order; the kernel must stay inside them.
    fn launch(
        &self,
        kernel: &'static str,
        blocks: Blocks,
        arguments: &mut [Argument<'_, Self::Memory, Self::Table>],
    ) -> Result<()>;
}

/// The blocks of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub(super) x: u32,
    pub(super) y: u32,
}

impl Blocks {
    /// A thread for each of `n` values, but no more blocks than a large GPU keeps busy: the kernels go on in strides.
    pub(super) fn for_values(n: usize) -> Self {
        const MOST: usize = 1 << 13;
        Self {
            x: n.div_ceil(THREADS).clamp(1, MOST) as u32,
            y: 1,
        }
    }

    /// A thread for each of `n` values.
    pub(super) fn for_each(n: usize) -> Self {
        Self {
            x: n.div_ceil(THREADS).max(1) as u32,
            y: 1,
        }
    }
}

/// Values of a memory from `offset` on.
#[derive(Debug)]
pub(super) struct View<'a, M> {
    pub(super) memory: &'a M,
    pub(super) offset: usize,
}

impl<M> Clone for View<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for View<'_, M> {}

impl<'a, M> From<&'a M> for View<'a, M> {
    fn from(memory: &'a M) -> Self {
        Self { memory, offset: 0 }
    }
}

/// One argument of a kernel.
pub(super) enum Argument<'a, M, T> {
    /// Values that are read.
    Read(View<'a, M>),
    /// Values that are written, from an offset on.
    Write(&'a mut M, usize),
    Table(&'a T),
    Int(i32),
    Long(i64),
    Float(f32),
}

impl<'a, M, T> From<View<'a, M>> for Argument<'a, M, T> {
    fn from(view: View<'a, M>) -> Self {
        Self::Read(view)
    }
}

impl<'a, M, T> From<&'a M> for Argument<'a, M, T> {
    fn from(memory: &'a M) -> Self {
        Self::Read(memory.into())
    }
}

impl<'a, M, T> From<&'a mut M> for Argument<'a, M, T> {
    fn from(memory: &'a mut M) -> Self {
        Self::Write(memory, 0)
    }
}
