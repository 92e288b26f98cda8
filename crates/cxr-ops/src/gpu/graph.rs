//! A DenseNet's training passes as CUDA graphs: a thousand launches told to the driver once, and repeated by one call.
//!
//! A graph repeats launches with the very addresses that they had. Images and the gradient of the features are therefore
//! copied to a place of their own before it; the memory between belongs to the graph; features and gradients are
//! copied out of it after. Parameters are where the optimiser changes them in place. That nothing else enters, no number
//! from the host and no table, is what the test `graph` of the emulator shows.
//!
//! Launches are recorded on a stream that nobody else uses: other threads work on the device's own meanwhile.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::backend::BackendDevice as _;
use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode,
};
use candle_core::cuda_backend::cudarc::driver::{CudaGraph, CudaSlice, result};
use candle_core::{CudaDevice, Error, Result, Tensor, bail};

use super::calls;
use super::cuda::{self, Gpu, Values};
use super::densenet::{self, DenseNetPlan, Statistics, Tape};
use super::machine::{Machine as _, View};
use super::rows::Grid;
use super::settings::{
    GRAPH_LAUNCHES, give_back_freed_memory, give_back_memory_of_graphs, is_exact_f32, uses_graphs,
};
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
    /// By device the same one with a stream that nobody else uses.
    recorders: HashMap<DeviceId, CudaDevice>,
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

/// One pass.
struct Pass {
    graph: CudaGraph,
    /// Memory that the graph has not freed is freed by its next launch.
    was_launched: bool,
}

struct Graphs {
    key: Key,
    turn: Arc<()>,
    gpu: Gpu,
    /// The device by the stream that recorded.
    recorder: Gpu,
    images: CudaSlice<f32>,
    gradient: CudaSlice<f32>,
    forward: Pass,
    backward: Pass,
    // Of the graphs, which give it a place at every launch: not to be freed while they live.
    features: ManuallyDrop<CudaSlice<f32>>,
    tape: ManuallyDrop<Tape<CudaSlice<f32>>>,
    gradients: ManuallyDrop<CudaSlice<f32>>,
    /// What the backward graph reads to gather the gradients.
    _rows: CudaSlice<u64>,
}

/// Repeats a training step's forward pass, and calls `see` with what it left. `None` where it is not to be repeated, or
/// not yet: a pass is recorded when it comes again and again.
pub(super) fn forward(
    gpu: &Gpu,
    plan: &DenseNetPlan,
    (images, grid): (Values<'_>, Grid),
    parameters: &[Values<'_>],
    see: impl FnOnce(&Tape<CudaSlice<f32>>) -> Result<()>,
) -> Result<Option<(CudaSlice<f32>, Repeated)>> {
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
            // What is there no more makes room first.
            recorded.graphs = None;
            let recorder = recorded.recorder(gpu)?;
            match Graphs::record(gpu, recorder, plan, (images, grid), parameters, key.clone()) {
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

/// Frees what graphs of this thread hold, but for passes that wait for their backward pass.
pub fn release_graphs() {
    RECORDED.with_borrow_mut(|recorded| {
        if recorded.graphs.as_ref().is_some_and(Graphs::is_idle) {
            recorded.graphs = None;
        }
    });
}

impl Recorded {
    fn recorder(&mut self, gpu: &Gpu) -> Result<Gpu> {
        let id = gpu.device.id();
        let device = match self.recorders.get(&id) {
            Some(device) => device.clone(),
            None => {
                let ordinal = gpu.device.cuda_stream().context().ordinal();
                let device = CudaDevice::new_with_stream(ordinal)?;
                // SAFETY: what one stream writes the other reads only after a wait of the host, or when it launches the
                // graph.
                unsafe { device.disable_event_tracking() };
                self.recorders.insert(id, device.clone());
                device
            }
        };
        Ok(Gpu {
            device,
            precision: gpu.precision,
        })
    }
}

/// The backward pass of one that was repeated.
pub(super) fn backward(
    repeated: &Repeated,
    gradient: Values<'_>,
    shapes: &[Vec<usize>],
) -> Result<Vec<Tensor>> {
    RECORDED.with_borrow_mut(|recorded| match &mut recorded.graphs {
        Some(graphs) if Arc::ptr_eq(&graphs.turn, &repeated.turn) => {
            graphs.backward(gradient, shapes)
        }
        _ => bail!("a DenseNet's backward pass came on another thread than its forward pass"),
    })
}

impl Graphs {
    fn record(
        gpu: &Gpu,
        recorder: Gpu,
        plan: &DenseNetPlan,
        (images, grid): (Values<'_>, Grid),
        parameters: &[Values<'_>],
        key: Key,
    ) -> Result<Self> {
        let stream = gpu.device.cuda_stream();
        if !stream.context().has_async_alloc() {
            bail!("this driver has no stream-ordered memory, which CUDA graphs need");
        }
        let features = plan.feature_grid(grid).rows() * plan.feature_maps();
        let input = copied(gpu, images, 3 * grid.rows())?;
        let gradient = gpu.device.alloc_zeros::<f32>(features)?;
        let shapes = plan.parameter_shapes();
        let sizes: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
        let mut rows = gpu.device.alloc_zeros::<u64>(3 * sizes.len())?;
        gpu.device.synchronize()?;

        let forward = || {
            let images = (View::from(&input), grid);
            densenet::forward(&recorder, plan, images, parameters, Statistics::OfBatch)
        };
        // Once as it is: what libraries load and choose at the first call cannot be recorded.
        let (_, tape) = forward()?;
        drop(densenet::backward(
            &recorder,
            plan,
            &tape,
            (&gradient).into(),
        )?);
        drop(tape);
        // Rows of zeros copy nothing.
        let mut all = recorder.alloc(sizes.iter().sum())?;
        calls::gather(&recorder, &rows, sizes.len(), &mut all)?;
        drop(all);
        recorder.device.synchronize()?;
        give_back_freed_memory(&gpu.device)?;

        let (graph, (features, tape)) = recorded(&recorder, forward)?;
        let (features, tape) = (ManuallyDrop::new(features), ManuallyDrop::new(tape));
        let forward = Pass {
            graph,
            was_launched: false,
        };
        let mut places = Vec::new();
        let (graph, gradients) = recorded(&recorder, || {
            let gradients = densenet::backward(&recorder, plan, &tape, (&gradient).into())?;
            let each = gradients.iter().zip(&sizes);
            places = each
                .map(|(memory, &size)| (recorder.address(memory.into()), size))
                .collect();
            let mut all = recorder.alloc(sizes.iter().sum())?;
            calls::gather(&recorder, &rows, sizes.len(), &mut all)?;
            Ok(all)
        })?;
        let backward = Pass {
            graph,
            was_launched: false,
        };
        gpu.device
            .memcpy_htod(&calls::gather_rows(&places), &mut rows)?;
        Ok(Self {
            key,
            turn: Arc::new(()),
            gpu: gpu.clone(),
            recorder,
            images: input,
            gradient,
            forward,
            backward,
            features,
            tape,
            gradients: ManuallyDrop::new(gradients),
            _rows: rows,
        })
    }

    /// Whether no forward pass waits for its backward pass.
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.turn) == 1
    }

    fn forward(
        &mut self,
        images: Values<'_>,
        see: impl FnOnce(&Tape<CudaSlice<f32>>) -> Result<()>,
    ) -> Result<(CudaSlice<f32>, Repeated)> {
        copy(&self.gpu, images, &mut self.images)?;
        self.forward.launch(&self.gpu)?;
        see(&self.tape)?;
        let features = copied(&self.gpu, (&*self.features).into(), self.features.len())?;
        let turn = Arc::clone(&self.turn);
        Ok((features, Repeated { turn }))
    }

    fn backward(&mut self, gradient: Values<'_>, shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
        copy(&self.gpu, gradient, &mut self.gradient)?;
        self.backward.launch(&self.gpu)?;
        let n = self.gradients.len();
        let all = copied(&self.gpu, (&*self.gradients).into(), n)?;
        let all = cuda::tensor(all, &self.gpu, n);
        let mut begin = 0;
        let each = shapes.iter().map(|shape| {
            let values = shape.iter().product();
            let gradient = all.narrow(0, begin, values)?.reshape(shape.as_slice());
            begin += values;
            gradient
        });
        each.collect()
    }
}

impl Pass {
    fn launch(&mut self, gpu: &Gpu) -> Result<()> {
        let stream = gpu.device.cuda_stream();
        stream.context().bind_to_thread().map_err(Error::wrap)?;
        // SAFETY: the graph and the stream live, and are of one context; the graph is this thread's.
        unsafe { result::graph::launch(self.graph.cu_graph_exec(), stream.cu_stream()) }
            .map_err(Error::wrap)?;
        self.was_launched = true;
        GRAPH_LAUNCHES.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Graphs {
    fn drop(&mut self) {
        // Nothing may be at work on what is freed. An error is one of the work before, and is told where that is read.
        let _ = self.gpu.device.synchronize();
        if self.forward.was_launched {
            // SAFETY: neither is used again. The launch has given them their place, which is freed once.
            unsafe {
                ManuallyDrop::drop(&mut self.features);
                ManuallyDrop::drop(&mut self.tape);
            }
        }
        if self.backward.was_launched {
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(&mut self.gradients) };
        }
        let _ = self.recorder.device.synchronize();
        let _ = give_back_memory_of_graphs(&self.gpu.device);
    }
}

/// What `work` asks of a device, as a graph, and what it returned. Memory that it has not freed is the graph's.
fn recorded<T>(recorder: &Gpu, work: impl FnOnce() -> Result<T>) -> Result<(CudaGraph, T)> {
    let stream = recorder.device.cuda_stream();
    let mode = Mode::CU_STREAM_CAPTURE_MODE_RELAXED;
    stream.begin_capture(mode).map_err(Error::wrap)?;
    let done = work();
    // Ended whatever came of it: a stream that still records does nothing else.
    let graph = stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
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

/// A copy of the first `n` values.
fn copied(gpu: &Gpu, from: Values<'_>, n: usize) -> Result<CudaSlice<f32>> {
    let mut to = gpu.alloc(n)?;
    copy(gpu, from, &mut to)?;
    Ok(to)
}
