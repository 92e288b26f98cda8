//! What holds for all CUDA devices of the process: precision, choices, graphs, and the driver's memory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cublas::sys::cublasSetWorkspace_v2;
use candle_core::cuda_backend::cudarc::driver::result::device::get_default_mem_pool;
use candle_core::cuda_backend::cudarc::driver::result::mem_pool;
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr as _};
use candle_core::{CudaDevice, Device, Error, Result};

use crate::{Algorithms, DeviceOptions};

use super::choices::Choices;

pub(super) static CHOICES: Choices = Choices::none();
pub(super) static GRAPH_LAUNCHES: AtomicUsize = AtomicUsize::new(0);
/// cuBLAS's, of the devices that were opened.
static WORKSPACES: Mutex<Vec<(DeviceId, CudaSlice<u8>)>> = Mutex::new(Vec::new());
static IS_EXACT: AtomicBool = AtomicBool::new(false);
static USES_GRAPHS: AtomicBool = AtomicBool::new(false);

/// Lets timing choose how each convolution on a CUDA device is computed, for the whole process: the first time that
/// a shape comes, each algorithm of cuDNN's that is deterministic is timed, and the fastest stays. What is
/// among `known` is taken as it is: with all that [`autotuned`] tells, the same bits come out again.
///
/// Without it the choice is fixed.
pub fn set_autotune(known: Algorithms) {
    CHOICES.set(Some(known));
}

/// Ends what [`set_autotune`] began, and forgets its choices.
pub fn end_autotune() {
    CHOICES.set(None);
}

/// What [`set_autotune`] has chosen so far; `None` where it was not called.
pub fn autotuned() -> Option<Algorithms> {
    CHOICES.get().map(|chosen| (*chosen).clone())
}

/// How often this process has launched a CUDA graph: twice in each training step that is repeated.
pub fn cuda_graph_launches() -> usize {
    GRAPH_LAUNCHES.load(Ordering::Relaxed)
}

/// Whether training steps on CUDA devices repeat a DenseNet's passes as CUDA graphs.
pub fn uses_graphs() -> bool {
    USES_GRAPHS.load(Ordering::Relaxed)
}

/// Chooses for the whole process. Passes over batches of one size are recorded when they come for the third time, and
/// repeated from then on, which spares the host some thousand launches a step; they hold their memory from one step
/// to the next. What is computed is the same. At first nothing is recorded.
pub fn set_graphs(uses_graphs: bool) {
    USES_GRAPHS.store(uses_graphs, Ordering::Relaxed);
}

/// Whether products on CUDA devices are all of single precision. By default their factors are rounded to TF32:
/// ten bits of fraction instead of 23, summed in single precision, several times as fast.
pub fn is_exact_f32() -> bool {
    IS_EXACT.load(Ordering::Relaxed)
}

/// Chooses for the whole process; see [`is_exact_f32`].
pub fn set_exact_f32(is_exact: bool) {
    IS_EXACT.store(is_exact, Ordering::Relaxed);
    candle_core::cuda::set_gemm_reduced_precision_f32(!is_exact);
}

/// The CUDA device `ordinal`, counted from 0, with a stream of its own, so that tensors may cross threads.
///
/// From now on CUDA devices of this process compute as `options` say.
///
/// # Errors
/// No such device, or libraries that cannot be loaded.
pub fn cuda_device(ordinal: usize, options: DeviceOptions) -> Result<Device> {
    set_exact_f32(options.exact_f32);
    set_graphs(options.graphs);
    match options.autotune {
        true => set_autotune(autotuned().unwrap_or_default()),
        false => end_autotune(),
    }
    let device = Device::new_cuda_with_stream(ordinal)?;
    let cuda = device.as_cuda_device()?;
    // SAFETY: all work for this device goes to its one stream, in whose order memory is taken and given back. The
    // gain: no two events for every tensor and no waiting for them.
    unsafe { cuda.disable_event_tracking() };
    keep_freed_memory(cuda)?;
    let workspace = (cuda.id(), blas_workspace(cuda)?);
    let mut workspaces = WORKSPACES.lock().unwrap_or_else(PoisonError::into_inner);
    workspaces.push(workspace);
    Ok(device)
}

/// Memory for cuBLAS, as much as it takes for itself on a large GPU: what it chooses depends on how much it has, and what
/// it takes for itself while a graph is recorded would be the graph's. Valid as long as it is not dropped.
pub(super) fn blas_workspace(device: &CudaDevice) -> Result<CudaSlice<u8>> {
    const BYTES: usize = 32 << 20;
    // SAFETY: cuBLAS takes it as it comes.
    let workspace = unsafe { device.alloc::<u8>(BYTES) }?;
    let stream = device.cuda_stream();
    let (address, sync) = workspace.device_ptr(&stream);
    let handle = *device.cublas_handle().handle();
    // SAFETY: the memory is there for as long as whoever asked keeps it.
    let status = unsafe { cublasSetWorkspace_v2(handle, address as *mut _, BYTES) };
    status.result().map_err(Error::wrap)?;
    drop(sync);
    Ok(workspace)
}

/// The largest number of bytes that were taken on a CUDA device at once: tensors, what operations keep, and their
/// workspaces; not the driver's context and what its libraries take by themselves. `None` where the driver does not count.
///
/// # Errors
/// A device that is no CUDA device, or what it reports.
pub fn cuda_memory_peak(device: &Device) -> Result<Option<u64>> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(None);
    }
    let mut peak = 0u64;
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: as in `keep_freed_memory`.
    unsafe {
        let pool = get_default_mem_pool(context.cu_device())?;
        mem_pool::get_attribute(pool, attribute, (&raw mut peak).cast())?;
    }
    Ok(Some(peak))
}

/// Gives freed memory back, which lies in pieces, before a large piece is taken.
pub(super) fn give_back_freed_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(());
    }
    // SAFETY: as in `keep_freed_memory`.
    unsafe {
        let pool = get_default_mem_pool(context.cu_device())?;
        mem_pool::trim_to(pool, 0)?;
    }
    Ok(())
}

/// By default the driver gives freed memory back to the system whenever the host waits for the device, which is at
/// every step.
fn keep_freed_memory(device: &CudaDevice) -> Result<()> {
    let stream = device.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut threshold = u64::MAX;
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a `u64`, and the device's own pool lives as long as the device.
    unsafe {
        let pool = get_default_mem_pool(context.cu_device())?;
        mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast())?;
    }
    Ok(())
}
