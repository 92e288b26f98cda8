//! What the calls ask of a device: memory, and a kernel started on it.

use std::ops::DerefMut;

use candle_core::Result;

use crate::Precision;

/// Threads of every block, as `kernels.cu` has them.
pub(super) const THREADS: usize = 256;

/// Threads that finish one channel's sum, as `kernels.cu` has them.
pub(super) const WARP: usize = 32;

/// Activations that a thread moves at once: 16 bytes, `PACK` of `kernels.cu`. Channels on rows come by so many, which is
/// also what tensor cores take.
pub(super) fn pack(precision: Precision) -> usize {
    match precision {
        Precision::Single => 4,
        Precision::Bf16 => 8,
    }
}

/// A device that runs `kernels.cu`. Kernels run in the order in which they are launched.
pub(super) trait Machine {
    /// Single-precision values in its memory.
    type Memory: ?Sized;

    /// The same, given back when dropped.
    type Owned: DerefMut<Target = Self::Memory>;

    /// Numbers and addresses in its memory.
    type Table;

    /// Memory for `len` values, whatever they are.
    fn alloc(&self, len: usize) -> Result<Self::Owned>;

    /// Copies a table to its memory.
    fn upload(&self, table: &[u64]) -> Result<Self::Table>;

    /// Copies bytes to a memory, from byte `offset` on.
    fn write_bytes(&self, memory: &mut Self::Memory, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Copies values back to the host, which waits for the device.
    fn read(&self, memory: &Self::Memory) -> Result<Vec<f32>>;

    /// Where values are, as a kernel that finds it in a table reads them.
    fn address(&self, values: View<'_, Self::Memory>) -> u64;

    /// What activations are, which the kernels call `value`.
    fn precision(&self) -> Precision;

    /// Memory for `n` activations, whatever they are. Its first one stands at its beginning.
    fn alloc_activations(&self, n: usize) -> Result<Self::Owned> {
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

/// `out = left·right` of row-major matrices of activations.
pub(super) struct Product<'a, M: ?Sized> {
    /// Rows of `out`.
    pub(super) rows: usize,
    /// Columns of `out`.
    pub(super) columns: usize,
    /// Columns of `left`, rows of `right`.
    pub(super) inner: usize,
    pub(super) left: Matrix<'a, M>,
    pub(super) right: Matrix<'a, M>,
    pub(super) out: &'a mut M,
    /// Values of `out` before its first row.
    pub(super) out_offset: usize,
    /// From a row of `out` to the next.
    pub(super) out_pitch: usize,
    /// `out` is single precision, whatever activations are.
    pub(super) is_out_single: bool,
}

/// A factor of a [`Product`].
pub(super) struct Matrix<'a, M: ?Sized> {
    pub(super) memory: &'a M,
    /// Activations before the first row.
    pub(super) offset: usize,
    /// From a row to the next, as it lies in memory.
    pub(super) pitch: usize,
    /// The factor is the transpose of what lies in memory.
    pub(super) is_transposed: bool,
}

impl<'a, M: ?Sized> Matrix<'a, M> {
    /// A factor as it lies at the beginning of a memory.
    pub(super) fn plain(memory: &'a M, pitch: usize) -> Self {
        Self {
            memory,
            offset: 0,
            pitch,
            is_transposed: false,
        }
    }

    /// The transpose of what lies there.
    pub(super) fn transposed(memory: &'a M, pitch: usize) -> Self {
        Self {
            is_transposed: true,
            ..Self::plain(memory, pitch)
        }
    }
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

/// Which of a convolution's products, and of what; all are activations, in bf16 from the beginning of a memory on.
pub(super) enum Pass<'a, M: ?Sized> {
    /// The output.
    Forward {
        input: View<'a, M>,
        weight: View<'a, M>,
    },
    /// The gradient of the input.
    OfInput {
        gradient: View<'a, M>,
        weight: View<'a, M>,
    },
    /// The gradient of the weight.
    OfWeight {
        gradient: View<'a, M>,
        input: View<'a, M>,
    },
}

impl<'a, M: ?Sized> Pass<'a, M> {
    /// Its name in messages and among choices.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Forward { .. } => "forward",
            Self::OfInput { .. } => "images' gradient",
            Self::OfWeight { .. } => "weight's gradient",
        }
    }

    /// What it reads.
    pub(super) fn operands(self) -> [View<'a, M>; 2] {
        match self {
            Self::Forward { input, weight } => [input, weight],
            Self::OfInput { gradient, weight } => [gradient, weight],
            Self::OfWeight { gradient, input } => [gradient, input],
        }
    }
}

impl<M: ?Sized> Clone for Pass<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: ?Sized> Copy for Pass<'_, M> {}

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

    /// A warp for each of `n` channels.
    pub(super) fn for_channels(n: usize) -> Self {
        Self::for_each(n * WARP)
    }

    /// A thread for each of `n` values of an image, and a row of blocks for each image.
    pub(super) fn for_images(n: usize, images: usize) -> Result<Self> {
        /// What CUDA takes.
        const MOST: usize = 65_535;
        if images > MOST {
            candle_core::bail!("a GPU takes at most {MOST} images at once, got {images}");
        }
        Ok(Self {
            y: images as u32,
            ..Self::for_values(n)
        })
    }
}

/// Values of a memory from `offset` on.
pub(super) struct View<'a, M: ?Sized> {
    pub(super) memory: &'a M,
    pub(super) offset: usize,
}

impl<M: ?Sized> Clone for View<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: ?Sized> Copy for View<'_, M> {}

impl<'a, M: ?Sized> From<&'a M> for View<'a, M> {
    fn from(memory: &'a M) -> Self {
        Self { memory, offset: 0 }
    }
}

/// One argument of a kernel.
pub(super) enum Argument<'a, M: ?Sized, T> {
    /// Values that are read.
    Read(View<'a, M>),
    /// Values that are written, from an offset on.
    Write(&'a mut M, usize),
    Table(&'a T),
    Int(i32),
    Long(i64),
    Float(f32),
}

impl<'a, M: ?Sized, T> From<View<'a, M>> for Argument<'a, M, T> {
    fn from(view: View<'a, M>) -> Self {
        Self::Read(view)
    }
}

impl<'a, M: ?Sized, T> From<&'a M> for Argument<'a, M, T> {
    fn from(memory: &'a M) -> Self {
        Self::Read(memory.into())
    }
}

impl<'a, M: ?Sized, T> From<&'a mut M> for Argument<'a, M, T> {
    fn from(memory: &'a mut M) -> Self {
        Self::Write(memory, 0)
    }
}
