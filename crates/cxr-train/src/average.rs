//! An average of the weights over the steps.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor, bail};
use cxr_ops::Parameters;

use crate::{TrainError, compute};

/// Exponential moving average of a network's weights and running statistics: after the first update
/// it is what it was given, after each further one `decay·average + (1 − decay)·weights`. So PyTorch's
/// `AveragedModel` does it with `get_ema_multi_avg_fn` and `use_buffers`.
#[derive(Debug)]
pub struct WeightAverage {
    decay: f64,
    updates: u64,
    tensors: BTreeMap<String, Tensor>,
}

impl WeightAverage {
    /// An average of nothing yet; `decay` in [0, 1).
    pub fn new(decay: f64) -> Self {
        Self {
            decay,
            updates: 0,
            tensors: BTreeMap::new(),
        }
    }

    /// Takes in the network as it is now.
    ///
    /// # Errors
    /// Another network than before, or tensors that are not `f32`.
    pub fn update(&mut self, parameters: &Parameters) -> Result<(), TrainError> {
        let now = parameters.tensors("");
        if self.updates == 0 {
            let copies = now.into_iter().map(|(name, tensor)| {
                let copy = tensor.copy()?;
                Ok((name, copy))
            });
            self.tensors = copies.collect::<candle_core::Result<_>>()?;
        } else {
            let pairs = self.tensors.iter().map(|(name, average)| {
                let Some(now) = now.get(name) else {
                    bail!("average of weights: `{name}` is missing");
                };
                Ok((average, now.contiguous()?))
            });
            let pairs = pairs.collect::<candle_core::Result<Vec<_>>>()?;
            let averages = pairs.iter().map(|(average, _)| *average);
            compute::of_tensors(averages).lerp(&pairs, (1. - self.decay) as f32)?;
        }
        self.updates += 1;
        Ok(())
    }

    /// Updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averaged tensors by name; none before the first update. They share storage with the
    /// average.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// The average that [`Self::tensors`] and [`Self::updates`] describe.
    pub(crate) fn restore(decay: f64, updates: u64, tensors: BTreeMap<String, Tensor>) -> Self {
        Self {
            decay,
            updates,
            tensors,
        }
    }
}

/// `average ← average + share·(weights − average)`.
pub(crate) struct Lerp {
    pub(crate) share: f32,
}

impl InplaceOp2 for Lerp {
    fn name(&self) -> &'static str {
        "average-of-weights"
    }

    fn cpu_fwd(
        &self,
        average: &mut CpuStorage,
        average_layout: &Layout,
        weights: &CpuStorage,
        weights_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(average), CpuStorage::F32(weights)) = (average, weights) else {
            bail!("average of weights: expected `f32` tensors");
        };
        let (Some((start, end)), Some((weights_start, weights_end))) = (
            average_layout.contiguous_offsets(),
            weights_layout.contiguous_offsets(),
        ) else {
            bail!("average of weights: expected contiguous tensors");
        };
        let (average, weights) = (
            &mut average[start..end],
            &weights[weights_start..weights_end],
        );
        if average.len() != weights.len() {
            bail!(
                "average of weights: expected {} values, got {}",
                average.len(),
                weights.len()
            );
        }
        for (average, &weight) in average.iter_mut().zip(weights) {
            *average += self.share * (weight - *average);
        }
        Ok(())
    }
}
