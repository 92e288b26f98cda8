//! How long each kind of work takes on a CUDA device, by events around every launch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream};
use candle_core::{Error, Result};

use super::traffic::Least;

/// What was seen of one kind of work.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// A kernel, or a product or convolution by its sizes.
    pub name: String,
    /// How often it was launched.
    pub launches: usize,
    /// All of that together, with what the device waits between an event and a launch.
    pub milliseconds: f64,
    /// Bytes that it reads and writes at least; 0 where that is not known.
    pub bytes: f64,
    /// Floating-point operations of its products.
    pub operations: f64,
}

static IS_ON: AtomicBool = AtomicBool::new(false);
static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());

struct Span {
    name: String,
    least: Least,
    begin: CudaEvent,
    end: CudaEvent,
}

/// Calls `work` on a CUDA device and returns, beside its result, how long each kind of work took that this crate's kernels,
/// products and convolutions did for any thread, longest first. What candle launches by itself is not seen.
///
/// # Errors
/// Those of `work`, and what the device reports.
pub fn cuda_profile<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<KernelTime>)> {
    let spans = || SPANS.lock().unwrap_or_else(PoisonError::into_inner);
    spans().clear();
    IS_ON.store(true, Ordering::Relaxed);
    let done = work();
    IS_ON.store(false, Ordering::Relaxed);
    let spans = std::mem::take(&mut *spans());
    let done = done?;
    let mut kinds: BTreeMap<String, KernelTime> = BTreeMap::new();
    for Span {
        name,
        least,
        begin,
        end,
    } in spans
    {
        let milliseconds = begin.elapsed_ms(&end).map_err(Error::wrap)?;
        let kind = kinds.entry(name.clone()).or_insert(KernelTime {
            name,
            launches: 0,
            milliseconds: 0.,
            bytes: 0.,
            operations: 0.,
        });
        kind.launches += 1;
        kind.milliseconds += f64::from(milliseconds);
        kind.bytes += least.bytes;
        kind.operations += least.operations;
    }
    let mut kinds: Vec<KernelTime> = kinds.into_values().collect();
    kinds.sort_by(|a, b| b.milliseconds.total_cmp(&a.milliseconds));
    Ok((done, kinds))
}

/// Whether a profile is being made.
pub(super) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Launches `run`, of which `what` tells name and least work, between two events while a profile is made.
pub(super) fn around<T>(
    stream: &CudaStream,
    what: impl FnOnce() -> (String, Least),
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if !is_on() {
        return run();
    }
    let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let (name, least) = what();
    let begin = stream.record_event(flags).map_err(Error::wrap)?;
    let done = run()?;
    let end = stream.record_event(flags).map_err(Error::wrap)?;
    let span = Span {
        name,
        least,
        begin,
        end,
    };
    SPANS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(span);
    Ok(done)
}
