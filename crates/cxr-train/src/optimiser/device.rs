//! Steps on a CUDA device: what the optimiser keeps stays there, and all tensors are updated by one launch.

use std::collections::BTreeMap;

use candle_core::{Device, Result};
use cxr_ops::{
    AdamWConstants, CudaUpdate, CudaValues, RmsPropConstants, cuda_adamw, cuda_rmsprop, cuda_sgd,
};

use super::{Rule, State};

/// What is kept for each parameter, on the device.
#[derive(Debug)]
pub(super) struct OnDevice {
    /// Where the values of a parameter begin in each of `values`, and how many they are.
    places: BTreeMap<String, (usize, usize)>,
    /// One for each kind of state, and behind them one that is not read, for what is not kept.
    values: Vec<CudaValues>,
}

impl OnDevice {
    /// Takes the state of the parameters `names` out of `all` to a device. `kinds` is how many values are kept for
    /// each of a parameter's.
    pub(super) fn new(
        all: &mut BTreeMap<String, State>,
        names: &[&str],
        kinds: usize,
        device: &Device,
    ) -> Result<Self> {
        let mut places = BTreeMap::new();
        let mut rows = vec![Vec::new(); kinds];
        for &name in names {
            let state = all.remove(name).unwrap_or_default();
            let begin = rows.first().map_or(0, Vec::len);
            places.insert(name.to_owned(), (begin, state.first().map_or(0, Vec::len)));
            for (row, values) in rows.iter_mut().zip(&state) {
                row.extend_from_slice(values);
            }
        }
        rows.push(vec![0.]);
        let values = rows.iter().map(|row| CudaValues::new(row, device));
        Ok(Self {
            places,
            values: values.collect::<Result<_>>()?,
        })
    }

    /// Brings it back.
    pub(super) fn to_host(&self) -> Result<BTreeMap<String, State>> {
        let rows = self.values.iter().map(CudaValues::to_vec);
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let parameters = self.places.iter();
        Ok(parameters
            .map(|(name, &(begin, n_values))| {
                let kept = |row: &Vec<f32>| row[begin..begin + n_values].to_vec();
                let kinds = rows.len().saturating_sub(1);
                let state = if n_values == 0 {
                    Vec::new()
                } else {
                    rows.iter().take(kinds).map(kept).collect()
                };
                (name.clone(), state)
            })
            .collect())
    }

    /// Whether it is that of all these parameters.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        names.iter().all(|&name| self.places.contains_key(name))
    }

    /// Where a parameter's values begin.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).map(|&(begin, _)| begin)
    }

    /// One step; `updates` have the rule of each parameter, and `scale` the one value that multiplies gradients.
    pub(super) fn step(
        &mut self,
        updates: &[(Rule, CudaUpdate<'_>)],
        scale: &CudaValues,
    ) -> Result<()> {
        let tensors = updates.iter().map(|&(rule, update)| match rule {
            Rule::AdamW(rule) => CudaUpdate {
                rate: rule.rate,
                decay: if rule.is_coupled {
                    rule.in_gradient
                } else {
                    rule.keep
                },
                ..update
            },
            Rule::RmsProp(rule) => CudaUpdate {
                rate: rule.rate,
                decay: rule.weight_decay,
                ..update
            },
            Rule::Sgd(rule) => CudaUpdate {
                rate: rule.rate,
                decay: rule.weight_decay,
                ..update
            },
        });
        let tensors: Vec<_> = tensors.collect();
        match (updates.first(), self.values.as_mut_slice()) {
            (Some((Rule::AdamW(rule), _)), [first, second, _]) => {
                let constants = AdamWConstants {
                    beta1: rule.beta1,
                    new_in_first: rule.new_in_first,
                    beta2: rule.beta2,
                    new_in_second: rule.new_in_second,
                    second_correction: rule.second_correction,
                    eps: rule.eps,
                    decay_in_gradient: rule.is_coupled,
                };
                cuda_adamw(&tensors, first, second, scale, &constants)
            }
            // The momentum, or what is not read.
            (Some((Rule::RmsProp(rule), _)), [squares, buffer, ..]) => {
                let constants = RmsPropConstants {
                    alpha: rule.alpha,
                    new_in_square: rule.new_in_square,
                    eps: rule.eps,
                    momentum: rule.momentum,
                };
                cuda_rmsprop(&tensors, squares, buffer, scale, &constants)
            }
            (Some((Rule::Sgd(rule), _)), [buffer, ..]) => {
                cuda_sgd(&tensors, buffer, scale, rule.momentum, rule.nesterov)
            }
            (None, _) => Ok(()),
            _ => candle_core::bail!("optimiser step: state of another optimiser"),
        }
    }
}
