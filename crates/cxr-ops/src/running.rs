//! Updates of running statistics that are kept back, so that several batches' can be applied in an order of the caller's.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor, Var, bail};

/// A running statistic that is to move towards a batch's: `r ← (1 − momentum)·r + momentum·batch`, computed in double
/// precision.
#[derive(Debug, Clone)]
pub struct RunningUpdate {
    /// The running mean or variance, one value per channel.
    pub running: Var,
    /// The batch's mean, or its variance with divisor n − 1, per channel.
    pub batch: Vec<f64>,
    /// The share of the new value, in [0, 1].
    pub momentum: f64,
}

impl RunningUpdate {
    /// Moves the running statistic.
    ///
    /// # Errors
    /// Another number of channels than the running statistic has.
    pub fn apply(&self) -> Result<()> {
        let Self {
            running,
            batch,
            momentum,
        } = self;
        if running.dims() != [batch.len()] {
            bail!(
                "running statistics: expected {:?} values, got {}",
                running.dims(),
                batch.len()
            );
        }
        let updated: Vec<f32> = running
            .to_vec1::<f32>()?
            .iter()
            .zip(batch)
            .map(|(&old, &new)| ((1. - momentum) * f64::from(old) + momentum * new) as f32)
            .collect();
        running.set(&Tensor::from_vec(updated, batch.len(), running.device())?)
    }
}

/// Keeps back what training forward passes would change of the running statistics.
///
/// Processes that each compute a batch of one step collect their updates, exchange them, and apply all of them in the
/// order of the batches: every process then has the running statistics of one process that computed the batches in turn.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use cxr_ops::{Activation, BatchNorm, BatchNormConfig, Parameters, Phase, RunningUpdates};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let parameters = Parameters::new(0, &Device::Cpu);
/// let norm = BatchNorm::new(2, BatchNormConfig::default(), &parameters.root())?;
/// let images = Tensor::rand(1f32, 2., (4, 2, 3, 3), &Device::Cpu)?;
/// let updates = RunningUpdates::new();
/// updates.scope(|| norm.forward_t(&images, Activation::Relu, Phase::Train { image_keys: &[] }))?;
/// assert_eq!(norm.running_mean().to_vec1::<f32>()?, [0., 0.]);
/// for update in updates.take() {
///     update.apply()?;
/// }
/// assert!(norm.running_mean().to_vec1::<f32>()?.iter().all(|&mean| mean > 0.));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct RunningUpdates {
    /// In the order in which they came.
    updates: Arc<Mutex<Vec<RunningUpdate>>>,
}

thread_local! {
    /// That of the scope which this thread is in.
    static CURRENT: RefCell<Option<RunningUpdates>> = const { RefCell::new(None) };
}

impl RunningUpdates {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `f`. Normalisations that are called within, on this thread and in training, leave their running statistics
    /// as they are and hand in what would change them. On a CUDA device they fail.
    pub fn scope<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Restore(Option<RunningUpdates>);
        impl Drop for Restore {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _restore = Restore(CURRENT.replace(Some(self.clone())));
        f()
    }

    /// Takes what was handed in, in order.
    pub fn take(&self) -> Vec<RunningUpdate> {
        let mut updates = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *updates)
    }

    /// Keeps an update for the scope that this thread is in; outside of any it is applied.
    pub(crate) fn hand_in(update: RunningUpdate) -> Result<()> {
        let kept = CURRENT.with_borrow(|current| match current {
            Some(Self { updates }) => {
                let mut updates = updates.lock().unwrap_or_else(PoisonError::into_inner);
                updates.push(update.clone());
                true
            }
            None => false,
        });
        match kept {
            true => Ok(()),
            false => update.apply(),
        }
    }

    /// Kernels of a CUDA device move running statistics themselves.
    #[cfg(feature = "cuda")]
    pub(crate) fn refuse_device() -> Result<()> {
        match CURRENT.with_borrow(Option::is_some) {
            true => bail!("running statistics cannot be kept back on a CUDA device"),
            false => Ok(()),
        }
    }
}
