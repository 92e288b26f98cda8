//! A DenseNet's training passes as CUDA graphs: a thousand launches told to the driver once, and repeated by one call.
//!
//! A graph repeats launches with the very addresses that they had. Images and the gradient of the features are therefore
//! copied to a place of their own before it, features and gradients out of one after it, and all memory between is a
//! pool that is there before anything is recorded: a graph has no memory of its own. Parameters are where the optimiser
//! changes them in place. That nothing else enters, no number from the host and no table, is what the test `graph` of the
//! emulator shows.
//!
//! Launches are recorded on a stream that nobody else uses: other threads work on the device's own meanwhile.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::backend::BackendDevice as _;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode,
};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaSlice, result};
use candle_core::{CudaDevice, Error, Result, bail};

use super::cuda::{Gpu, Values};
use super::cudnn::release_rooms;
use super::densenet::{self, DenseNetPlan, Statistics, Tape};
use super::kept::Kept;
use super::machine::{Machine as _, View};
use super::memory::{Lot, Pool, release_pools};
use super::rows::Grid;
use super::settings::{GRAPH_LAUNCHES, blas_workspace, is_exact_f32, uses_graphs};
use crate::Precision;

/// What has to be the same for passes to be repeated.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    device: DeviceId,
    plan: DenseNetPlan,
    images: [usize; 3],
    precision: Precision,
    is_exact: bool,
    /// Where the parameters are.
    parameters: Vec<u64>,
}

/// The graphs of a thread, and what it has lately done without.
#[derive(Default)]
struct Recorded {
    graphs: Option<Graphs>,
    /// Passes that came without being repeated, and how often in succession.
    lately: Option<(Key, usize)>,
    /// Passes that could not be recorded.
    refused: Option<Key>,
    /// By device the same one as it records.
    recorders: Kept<DeviceId, Recorder>,
}

thread_local! {
    /// Graphs may not be used by several threads at once.
    static RECORDED: RefCell<Recorded> = RefCell::default();
}

/// A forward pass that a graph has made, for its backward pass.
#[derive(Debug)]
pub(super) struct Repeated {
    /// That of the graphs; while another holds it, nothing is repeated over what this one has left.
    turn: Arc<()>,
}

/// A device with a stream that nobody else uses.
#[derive(Debug)]
struct Recorder {
    device: CudaDevice,
    /// cuBLAS's.
    _workspace: CudaSlice<u8>,
}

struct Graphs {
    key: Key,
    turn: Arc<()>,
    gpu: Gpu,
    forward: CudaGraph,
    backward: CudaGraph,
    images: CudaSlice<f32>,
    gradient: CudaSlice<f32>,
    features: Lot,
    tape: Tape<Lot>,
    gradients: Lot,
}

/// Repeats a training step's forward pass, and calls `see` with what it left. `None` where it is not to be repeated, or
/// not yet: a pass is recorded when it comes again and again.
pub(super) fn forward(
    gpu: &Gpu,
    plan: &DenseNetPlan,
    (images, grid): (Values<'_>, Grid),
    parameters: &[Values<'_>],
    see: impl FnOnce(&Tape<Lot>) -> Result<()>,
) -> Result<Option<(Lot, Repeated)>> {
    /// Batches of another size, at the end of an epoch, come once.
    const TIMES: usize = 3;
    if !uses_graphs() {
        return Ok(None);
    }
    let key = Key {
        device: gpu.device.id(),
        plan: plan.clone(),
        images: [grid.images, grid.height, grid.width],
        precision: gpu.precision,
        is_exact: is_exact_f32(),
        parameters: parameters
            .iter()
            .map(|&values| gpu.address(values))
            .collect(),
    };
    RECORDED.with_borrow_mut(|recorded| {
        let is_idle = recorded.graphs.as_ref().is_none_or(Graphs::is_idle);
        let is_recorded = (recorded.graphs.as_ref()).is_some_and(|graphs| graphs.key == key);
        if !is_idle || recorded.refused.as_ref() == Some(&key) {
            return Ok(None);
        }
        if is_recorded {
            recorded.lately = None;
        } else {
            let times = match recorded.lately.take() {
                Some((before, times)) if before == key => times + 1,
                _ => 1,
            };
            if times < TIMES {
                recorded.lately = Some((key, times));
                return Ok(None);
            }
            // What is there no more makes room first, and what launches one by one have used.
            recorded.graphs = None;
            release_pools();
            let graphs = recorded.recorders.with(
                gpu.device.id(),
                || Recorder::new(&gpu.device),
                |recorder| {
                    let images = (images, grid);
                    Graphs::record(gpu, recorder, plan, images, parameters, key.clone())
                },
            );
            match graphs {
                Ok(graphs) => recorded.graphs = Some(graphs),
                Err(error) => {
                    tracing::warn!(%error, "a DenseNet's passes cannot be recorded as graphs: launched one by one");
                    recorded.refused = Some(key);
                    return Ok(None);
                }
            }
        }
        let Some(graphs) = &mut recorded.graphs else {
            bail!("no graphs were recorded");
        };
        graphs.forward(images, see).map(Some)
    })
}

/// Frees what passes on CUDA devices keep from one step to the next: memory, and the graphs and workspaces of this thread.
/// What a pass needs that waits for its backward pass stays.
pub fn release_step_memory() {
    RECORDED.with_borrow_mut(|recorded| {
        if recorded.graphs.as_ref().is_none_or(Graphs::is_idle) {
            recorded.graphs = None;
            recorded.recorders.clear();
            release_rooms();
        }
    });
    release_pools();
}

impl Recorder {
    fn new(device: &CudaDevice) -> Result<Self> {
        let ordinal = device.cuda_stream().context().ordinal();
        let device = CudaDevice::new_with_stream(ordinal)?;
        // SAFETY: what one stream writes the other reads only after a wait of the host, or when it launches the
        // graph.
        unsafe { device.disable_event_tracking() };
        let workspace = blas_workspace(&device)?;
        Ok(Self {
            device,
            _workspace: workspace,
        })
    }
}

/// The backward pass of one that was repeated: the gradients of all parameters, one behind the other.
pub(super) fn backward(repeated: &Repeated, gradient: Values<'_>) -> Result<Lot> {
    RECORDED.with_borrow_mut(|recorded| match &mut recorded.graphs {
        Some(graphs) if Arc::ptr_eq(&graphs.turn, &repeated.turn) => graphs.backward(gradient),
        _ => bail!("a DenseNet's backward pass came on another thread than its forward pass"),
    })
}

impl Graphs {
    fn record(
        gpu: &Gpu,
        recorder: &Recorder,
        plan: &DenseNetPlan,
        (images, grid): (Values<'_>, Grid),
        parameters: &[Values<'_>],
        key: Key,
    ) -> Result<Self> {
        let Some(pool) = Pool::of(&recorder.device) else {
            bail!("CUDA graphs need a device without event tracking, as `cuda_device` opens it");
        };
        let recorder = Gpu::new(&recorder.device, gpu.precision)?.with_pool(Some(pool.clone()));
        let plain = gpu.without_pool();
        let n_features = plan.feature_grid(grid).rows() * plan.feature_maps();
        let input = copied(gpu, images, 3 * grid.rows())?.into_slice()?;
        let gradient = gpu.device.alloc_zeros::<f32>(n_features)?;
        let mut features = plain.alloc(n_features)?;
        let mut gradients = plain.alloc(plan.n_parameters())?;
        gpu.device.synchronize()?;

        let mut forward = || {
            let images = (View::from(&input), grid);
            let statistics = Statistics::OfBatch;
            densenet::forward(
                &recorder,
                plan,
                images,
                parameters,
                statistics,
                &mut features,
            )
        };
        let mut backward = |tape: &Tape<Lot>| {
            let gradient = View::from(&gradient);
            densenet::backward(&recorder, plan, tape, gradient, &mut gradients)
        };
        // Once as it is: what libraries load and choose at the first call cannot be recorded, and the pool learns how
        // much the passes need.
        let tape = forward()?;
        backward(&tape)?;
        drop(tape);
        recorder.device.synchronize()?;
        pool.fit()?;
        let (forward, tape) = recorded(&recorder, forward)?;
        let (backward, ()) = recorded(&recorder, || backward(&tape))?;
        if pool.outside() > 0 {
            bail!("the recorded passes need more memory than the pass before them");
        }
        Ok(Self {
            key,
            turn: Arc::new(()),
            gpu: gpu.clone(),
            forward,
            backward,
            images: input,
            gradient,
            features,
            tape,
            gradients,
        })
    }

    /// Whether no forward pass waits for its backward pass.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.turn) == 1
    }

    fn forward(
        &mut self,
        images: Values<'_>,
        see: impl FnOnce(&Tape<Lot>) -> Result<()>,
    ) -> Result<(Lot, Repeated)> {
        copy(&self.gpu, images, &mut self.images)?;
        launch(&self.gpu, &self.forward)?;
        see(&self.tape)?;
        let features = copied(&self.gpu, (&*self.features).into(), self.features.len())?;
        let turn = Arc::clone(&self.turn);
        Ok((features, Repeated { turn }))
    }

    fn backward(&mut self, gradient: Values<'_>) -> Result<Lot> {
        copy(&self.gpu, gradient, &mut self.gradient)?;
        launch(&self.gpu, &self.backward)?;
        let n = self.gradients.len();
        copied(&self.gpu, (&*self.gradients).into(), n)
    }
}

fn launch(gpu: &Gpu, graph: &CudaGraph) -> Result<()> {
    let stream = gpu.stream();
    stream.context().bind_to_thread().map_err(Error::wrap)?;
    // SAFETY: the graph and the stream live, and are of one context; the graph is this thread's.
    unsafe { result::graph::launch(graph.cu_graph_exec(), stream.cu_stream()) }
        .map_err(Error::wrap)?;
    GRAPH_LAUNCHES.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

impl Drop for Graphs {
    fn drop(&mut self) {
        // Nothing may be at work on what is freed. An error is one of the work before, and is reported where that is read.
        let _ = self.gpu.device.synchronize();
    }
}

/// What `work` asks of a device, as a graph, and what it returned.
fn recorded<T>(recorder: &Gpu, work: impl FnOnce() -> Result<T>) -> Result<(CudaGraph, T)> {
    let stream = recorder.stream();
    let mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
    stream.begin_capture(mode).map_err(Error::wrap)?;
    let done = work();
    // Ended whatever came of it: a stream that still records does nothing else.
    let graph = stream.end_capture(Flags(0));
    let done = done?;
    match graph.map_err(Error::wrap)? {
        Some(graph) => Ok((graph, done)),
        None => bail!("the driver recorded no graph"),
    }
}

/// Copies as many values as `to` has.
fn copy(gpu: &Gpu, from: Values<'_>, to: &mut CudaSlice<f32>) -> Result<()> {
    let n = to.len();
    let from = from.memory.try_slice(from.offset..from.offset + n);
    match from {
        Some(from) => gpu.device.memcpy_dtod(&from, to),
        None => bail!("a graph expects {n} values"),
    }
}

/// A copy of the first `n` values, of its own.
fn copied(gpu: &Gpu, from: Values<'_>, n: usize) -> Result<Lot> {
    let mut to = gpu.without_pool().alloc(n)?;
    copy(gpu, from, &mut to)?;
    Ok(to)
}
