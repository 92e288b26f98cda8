//! A [`Machine`] on a CUDA device, and candle's storages and tensors as its memory.

use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, CudaView, CudaViewMut, DevicePtr, LaunchConfig, PushKernelArg,
};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, Shape, Storage, Tensor, bail};

use super::convolution::Sizes;
use super::machine::{Argument, Blocks, Convolution, Machine, Pass, Product, THREADS, View};
use super::memory::{Lot, Pool};
use super::nvrtc::Kernels;
use super::profile;
use super::traffic::{self, Least};
use crate::Precision;

/// The values of a tensor on a CUDA device.
pub(super) type Values<'a> = View<'a, CudaSlice<f32>>;

/// A device with the precision of activations.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    pub(super) device: CudaDevice,
    pub(super) precision: Precision,
    stream: Arc<CudaStream>,
    kernels: Arc<Kernels>,
    /// Out of which memory comes; without one the driver lends it.
    pool: Option<Arc<Pool>>,
}

/// An argument as the driver takes it.
enum Held<'a> {
    Read(CudaView<'a, f32>),
    Write(CudaViewMut<'a, f32>),
    Table(&'a CudaSlice<u64>),
    Int(i32),
    Long(i64),
    Float(f32),
}

impl Gpu {
    /// # Errors
    /// Kernels that cannot be compiled or loaded.
    pub(super) fn new(device: &CudaDevice, precision: Precision) -> Result<Self> {
        let stream = device.cuda_stream();
        Ok(Self {
            device: device.clone(),
            precision,
            kernels: Kernels::of(stream.context(), precision)?,
            stream,
            pool: None,
        })
    }

    /// With activations of single precision.
    pub(super) fn single(device: &CudaDevice) -> Result<Self> {
        Self::new(device, Precision::Single)
    }

    /// With memory out of a pool.
    pub(super) fn with_pool(self, pool: Option<Arc<Pool>>) -> Self {
        Self { pool, ..self }
    }

    /// With memory that the driver lends.
    pub(super) fn without_pool(&self) -> Self {
        self.clone().with_pool(None)
    }

    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }
}

impl Machine for Gpu {
    type Memory = CudaSlice<f32>;
    type Owned = Lot;
    type Table = CudaSlice<u64>;

    fn alloc(&self, len: usize) -> Result<Lot> {
        if let Some(pool) = &self.pool {
            return pool.alloc(len);
        }
        // SAFETY: every value is a valid `f32`, and each call writes all of what it allocates before anything reads it,
        // which the emulator, whose fresh memory is NaN, would show. The gain: no kernel that zeroes it.
        Ok(unsafe { self.device.alloc::<f32>(len) }?.into())
    }

    fn upload(&self, table: &[u64]) -> Result<Self::Table> {
        self.device.clone_htod(table)
    }

    fn write_bytes(&self, memory: &mut Self::Memory, offset: usize, bytes: &[u8]) -> Result<()> {
        let n = memory.len() * size_of::<f32>();
        // SAFETY: any bytes are values of `f32`.
        let mut room = unsafe { memory.transmute_mut::<u8>(n) };
        let part = offset..offset + bytes.len();
        let Some(mut room) = room.as_mut().and_then(|room| room.try_slice_mut(part)) else {
            bail!(
                "{} bytes do not fit a memory of {n} from {offset} on",
                bytes.len()
            );
        };
        self.device.memcpy_htod(bytes, &mut room)
    }

    fn read(&self, memory: &Self::Memory) -> Result<Vec<f32>> {
        self.device.clone_dtoh(memory)
    }

    fn address(&self, values: View<'_, Self::Memory>) -> u64 {
        let view = values.memory.slice(values.offset..);
        // Of work on this stream nothing has to be waited for, and a device has one.
        let (address, _sync) = view.device_ptr(&self.stream);
        address
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn multiply(&self, product: Product<'_, Self::Memory>) -> Result<()> {
        let (name, least) = match profile::is_on() {
            true => {
                // The rows of a weight's gradient are what is summed over.
                let rows = product.rows.max(product.inner);
                let least = traffic::of_product(&product, self.precision);
                (format!("products over {rows} rows"), least)
            }
            false => Default::default(),
        };
        let run = || super::cublas::multiply(self, product);
        profile::around(&self.stream, || (name, least), run)
    }

    fn convolve(
        &self,
        convolution: &Convolution,
        pass: Pass<'_, Self::Memory>,
        out: &mut Self::Memory,
    ) -> Result<()> {
        let sizes = &Sizes::from(convolution);
        let what = || {
            let (n_out, [first, second]) = sizes.n_of(&pass);
            let name = format!("{} {}", pass.name(), sizes.words(self.precision.name()));
            let least =
                traffic::of_convolution(n_out + first + second, sizes.products(), self.precision);
            (name, least)
        };
        profile::around(&self.stream, what, || {
            super::cudnn::convolve(self, sizes, pass, out)
        })
    }

    fn launch(
        &self,
        kernel: &'static str,
        blocks: Blocks,
        arguments: &mut [Argument<'_, Self::Memory, Self::Table>],
    ) -> Result<()> {
        let function = self.kernels.get(kernel)?;
        let least = match profile::is_on() {
            true => traffic::of_kernel(kernel, arguments, self.precision).unwrap_or_default(),
            false => Least::default(),
        };
        let mut held: Vec<Held<'_>> = arguments
            .iter_mut()
            .map(|argument| match argument {
                Argument::Read(view) => Held::Read(view.memory.slice(view.offset..)),
                Argument::Write(memory, offset) => Held::Write(memory.slice_mut(*offset..)),
                Argument::Table(table) => Held::Table(table),
                Argument::Int(value) => Held::Int(*value),
                Argument::Long(value) => Held::Long(*value),
                Argument::Float(value) => Held::Float(*value),
            })
            .collect();
        let mut launch = self.stream.launch_builder(function);
        for argument in &mut held {
            match argument {
                Held::Read(view) => launch.arg(&*view),
                Held::Write(view) => launch.arg(view),
                Held::Table(table) => launch.arg(*table),
                Held::Int(value) => launch.arg(&*value),
                Held::Long(value) => launch.arg(&*value),
                Held::Float(value) => launch.arg(&*value),
            };
        }
        let config = LaunchConfig {
            grid_dim: (blocks.x, blocks.y, 1),
            block_dim: (THREADS as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the arguments are those of the kernel, and it stays inside them: the emulator runs the same
        // calls with the same text. There is no safe way to start a kernel.
        let run = || unsafe { launch.launch(config) }.map_err(Error::wrap);
        profile::around(&self.stream, || (kernel.to_owned(), least), run)?;
        Ok(())
    }
}

/// The values of a contiguous `f32` storage.
pub(super) fn values<'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
    op: &'static str,
) -> Result<Values<'a>> {
    let Ok(memory) = storage.as_cuda_slice::<f32>() else {
        bail!("{op}: expected `f32`, got `{:?}`", storage.dtype());
    };
    match layout.contiguous_offsets() {
        Some((offset, _)) => Ok(View { memory, offset }),
        None => bail!(
            "{op}: expected a contiguous tensor, got strides {:?}",
            layout.stride()
        ),
    }
}

/// Calls `f` with the values of contiguous tensors of one CUDA device.
pub(super) fn with_values<const N: usize, T>(
    tensors: [&Tensor; N],
    op: &'static str,
    f: impl FnOnce(&Gpu, [Values<'_>; N]) -> Result<T>,
) -> Result<T> {
    let guards = tensors.map(Tensor::storage_and_layout);
    let views = guards
        .iter()
        .map(|(storage, layout)| match &**storage {
            Storage::Cuda(storage) => values(storage, layout, op),
            _ => bail!("{op}: expected all tensors on one CUDA device"),
        })
        .collect::<Result<Vec<_>>>()?;
    let (Ok(views), Some(first)) = (<[_; N]>::try_from(views), tensors.first()) else {
        bail!("{op}: expected at least one tensor");
    };
    f(&Gpu::single(first.device().as_cuda_device()?)?, views)
}

/// A storage that owns `memory`, which is no piece of a pool.
pub(super) fn storage(memory: Lot, gpu: &Gpu) -> Result<CudaStorage> {
    let device = gpu.device.clone();
    Ok(CudaStorage::wrap_cuda_slice(memory.into_slice()?, device))
}

/// A tensor that owns `memory`, which is no piece of a pool, outside autograd.
pub(super) fn tensor(memory: Lot, gpu: &Gpu, shape: impl Into<Shape>) -> Result<Tensor> {
    let storage = Storage::Cuda(storage(memory, gpu)?);
    Ok(Tensor::from_storage(
        storage,
        shape,
        BackpropOp::none(),
        false,
    ))
}
