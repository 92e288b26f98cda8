//! What the calls ask of a device: memory, and a kernel started on it.

use candle_core::Result;

use crate::Precision;

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

    /// Copies bytes to a memory, from byte `offset` on.
    fn write_bytes(&self, memory: &mut Self::Memory, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Where values are, as a kernel that finds it in a table reads them.
    fn address(&self, values: View<'_, Self::Memory>) -> u64;

    /// What activations are, which the kernels call `value`.
    fn precision(&self) -> Precision;

    /// Memory for `n` activations, whatever they are. Its first one stands at its beginning.
    fn alloc_activations(&self, n: usize) -> Result<Self::Memory> {
        self.alloc(match self.precision() {
            Precision::Single => n,
            Precision::Bf16 => n.div_ceil(2),
        })
    }

    /// A product of matrices.
    fn multiply(&self, product: Product<'_, Self::Memory>) -> Result<()>;

    /// A convolution, or one of its gradients.
    fn convolve(
        &self,
        convolution: &Convolution,
        pass: Pass<'_, Self::Memory>,
        out: &mut Self::Memory,
    ) -> Result<()>;

    /// Starts a kernel. The arguments are those of its definition, in order; the kernel must stay inside them.
    fn launch(
        &self,
        kernel: &'static str,
        blocks: Blocks,
        arguments: &mut [Argument<'_, Self::Memory, Self::Table>],
    ) -> Result<()>;
}

/// `out = left·right` of row-major matrices of activations, which begin at the beginning of their memory.
pub(super) struct Product<'a, M> {
    /// Rows of `out`.
    pub(super) rows: usize,
    /// Columns of `out`.
    pub(super) columns: usize,
    /// Columns of `left`, rows of `right`.
    pub(super) inner: usize,
    pub(super) left: Matrix<'a, M>,
    pub(super) right: Matrix<'a, M>,
    pub(super) out: &'a mut M,
    /// From a row of `out` to the next.
    pub(super) out_pitch: usize,
    /// `out` is single precision, whatever activations are.
    pub(super) is_out_single: bool,
}

/// A factor of a [`Product`].
pub(super) struct Matrix<'a, M> {
    pub(super) memory: &'a M,
    /// From a row to the next, as it lies in memory.
    pub(super) pitch: usize,
    /// The factor is the transpose of what lies in memory.
    pub(super) is_transposed: bool,
}

/// A convolution of activations N×H×W×C with a weight O×K×K×C.
#[derive(Debug, Clone, Copy)]
pub(super) struct Convolution {
    pub(super) images: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Convolution {
    pub(super) fn height_out(&self) -> usize {
        (self.height + 2 * self.padding - self.kernel) / self.stride + 1
    }

    pub(super) fn width_out(&self) -> usize {
        (self.width + 2 * self.padding - self.kernel) / self.stride + 1
    }
}

/// Which of a convolution's products, and of what; all are activations.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pass<'a, M> {
    /// The output.
    Forward { input: &'a M, weight: &'a M },
    /// The gradient of the input.
    OfInput { gradient: &'a M, weight: &'a M },
    /// The gradient of the weight.
    OfWeight { gradient: &'a M, input: &'a M },
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
