//! A [`Machine`] on a CUDA device, and candle's storages and tensors as its memory.

use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaView, CudaViewMut, DevicePtr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Error, Layout, Result, Shape, Storage, Tensor, bail};

use super::machine::{Argument, Blocks, Convolution, Machine, Pass, Product, THREADS, View};
use crate::Precision;

/// The values of a tensor on a CUDA device.
pub(super) type Values<'a> = View<'a, CudaSlice<f32>>;

/// A device with the precision of activations.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    pub(super) device: CudaDevice,
    pub(super) precision: Precision,
}

/// `kernels.cu` for every GPU that the installed NVRTC knows; the driver translates it for the one at hand.
fn ptx(precision: Precision) -> Result<&'static str> {
    static PTX: [OnceLock<std::result::Result<String, String>>; 2] = [const { OnceLock::new() }; 2];
    let (compiled, options) = match precision {
        Precision::Single => (&PTX[0], Vec::new()),
        Precision::Bf16 => (&PTX[1], vec!["-DBF16".to_owned()]),
    };
    let compiled = compiled.get_or_init(|| {
        let options = nvrtc::CompileOptions {
            options,
            ..Default::default()
        };
        nvrtc::compile_ptx_with_opts(include_str!("kernels.cu"), options)
            .map(|ptx| ptx.to_src())
            .map_err(|error| error.to_string())
    });
    match compiled {
        Ok(ptx) => Ok(ptx),
        Err(error) => bail!(
            "NVRTC could not compile the GPU kernels: {error}\nhint: docs/cuda.md names the libraries to install"
        ),
    }
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
    /// With activations of single precision.
    pub(super) fn single(device: &CudaDevice) -> Self {
        Self {
            device: device.clone(),
            precision: Precision::Single,
        }
    }
}

impl Machine for Gpu {
    type Memory = CudaSlice<f32>;
    type Table = CudaSlice<u64>;

    fn alloc(&self, len: usize) -> Result<Self::Memory> {
        // SAFETY: every value is a valid `f32`, and each call writes all of what it allocates before anything reads it,
        // which the emulator, whose fresh memory is NaN, would show. The gain: no kernel that zeroes it.
        unsafe { self.device.alloc(len) }
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

    fn address(&self, values: View<'_, Self::Memory>) -> u64 {
        let view = values.memory.slice(values.offset..);
        // Of work on this stream nothing has to be waited for, and a device has one.
        let stream = self.device.cuda_stream();
        let (address, _sync) = view.device_ptr(&stream);
        address
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn multiply(&self, product: Product<'_, Self::Memory>) -> Result<()> {
        super::cublas::multiply(self, product)
    }

    fn convolve(
        &self,
        convolution: &Convolution,
        pass: Pass<'_, Self::Memory>,
        out: &mut Self::Memory,
    ) -> Result<()> {
        super::cudnn::convolve(self, convolution, pass, out)
    }

    fn launch(
        &self,
        kernel: &'static str,
        blocks: Blocks,
        arguments: &mut [Argument<'_, Self::Memory, Self::Table>],
    ) -> Result<()> {
        let module = match self.precision {
            Precision::Single => "cxr-ops-f32",
            Precision::Bf16 => "cxr-ops-bf16",
        };
        let text = ptx(self.precision)?;
        let function = self.device.get_or_load_custom_func(kernel, module, text);
        let function = function.map_err(|error| {
            error.context("the driver does not take the kernels that NVRTC compiled\nhint: an NVRTC newer than the driver does that; docs/cuda.md")
        })?;
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
        let mut launch = function.builder();
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
        unsafe { launch.launch(config) }.map_err(Error::wrap)?;
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
    f(&Gpu::single(first.device().as_cuda_device()?), views)
}

/// A storage that owns `memory`.
pub(super) fn storage(memory: CudaSlice<f32>, gpu: &Gpu) -> CudaStorage {
    CudaStorage::wrap_cuda_slice(memory, gpu.device.clone())
}

/// A tensor that owns `memory`, outside autograd.
pub(super) fn tensor(memory: CudaSlice<f32>, gpu: &Gpu, shape: impl Into<Shape>) -> Tensor {
    let storage = Storage::Cuda(storage(memory, gpu));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}

#[cfg(test)]
mod tests {
    /// NVRTC needs no GPU.
    #[test]
    fn nvrtc_takes_the_kernels() {
        for precision in crate::Precision::ALL {
            let ptx = super::ptx(precision).unwrap();
            for kernel in [
                "statistics_parts",
                "max_pool",
                "adamw",
                "rmsprop",
                "add_masked_parts",
                "warp",
            ] {
                assert!(ptx.contains(&format!(".entry {kernel}(")), "{kernel}");
            }
        }
    }
}
