//! What changes the weights: an optimiser's state, and one pass over all parameters.

mod adamw;
mod device;
mod rmsprop;
mod sgd;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Tensor, bail};
use cxr_run::OptimiserConfig;
use rayon::prelude::*;

use crate::{Gradients, TrainError, Trained, compute};

/// An optimiser whose state can be saved and restored. Weights are updated in place, all tensors in
/// one parallel pass, or one launch on a CUDA device, without intermediate tensors.
#[derive(Debug)]
pub struct Optimiser {
    config: OptimiserConfig,
    steps: u64,
    /// What is kept for each parameter, in the order of [`state_names`].
    state: BTreeMap<String, State>,
    /// The state of parameters on a CUDA device, which is not among those above.
    on_device: Option<device::OnDevice>,
}

type State = Vec<Vec<f32>>;

impl Optimiser {
    /// An optimiser without history.
    pub fn new(config: OptimiserConfig) -> Self {
        Self {
            config,
            steps: 0,
            state: BTreeMap::new(),
            on_device: None,
        }
    }

    /// Steps made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step at learning rate `rate`, which each parameter multiplies by its own factor.
    /// `gradients` are those of `trained`, in the same order; that they are finite is the caller's to
    /// see to.
    ///
    /// # Errors
    /// Gradients of other parameters, or tensors that are not `f32`.
    pub fn step(
        &mut self,
        rate: f64,
        trained: &[Trained],
        gradients: &Gradients,
    ) -> Result<(), TrainError> {
        self.steps += 1;
        self.begin(trained);
        let pairs: Vec<_> = gradients.pair(trained)?.collect();
        let (on_device, pairs): (Vec<_>, Vec<_>) = (pairs.into_iter())
            .partition(|(parameter, _)| compute::of(parameter.var.device()).has_optimiser());
        self.step_on_device(rate, &on_device, gradients)?;
        let mut states: BTreeMap<&str, &mut State> = (self.state.iter_mut())
            .map(|(name, state)| (name.as_str(), state))
            .collect();
        let mut updates = Vec::with_capacity(pairs.len());
        for (parameter, gradient) in pairs {
            let Some(state) = states.remove(parameter.name.as_str()) else {
                let expected = "unlike the others";
                return Err(TrainError::setting("parameter", expected, &parameter.name));
            };
            let rule = Rule::new(&self.config, rate, self.steps, parameter);
            let update = Update {
                rule,
                scale: gradients.scale() as f32,
                state: Mutex::new(state),
            };
            updates.push((parameter, gradient, update));
        }
        updates
            .into_par_iter()
            .try_for_each(|(parameter, gradient, update)| {
                let weights = parameter.var.as_tensor();
                weights.inplace_op2(&gradient.contiguous()?, &update)
            })?;
        Ok(())
    }

    /// Begins the state of parameters that have none yet.
    fn begin(&mut self, trained: &[Trained]) {
        for parameter in trained {
            let n_values = parameter.var.elem_count();
            let new = || vec![vec![0.; n_values]; state_names(&self.config).len()];
            if (self.on_device.as_ref()).is_some_and(|here| here.place(&parameter.name).is_some()) {
                continue;
            }
            if !self.state.contains_key(&parameter.name) {
                self.state.insert(parameter.name.clone(), new());
            }
        }
    }

    fn step_on_device(
        &mut self,
        rate: f64,
        pairs: &[(&Trained, &Tensor)],
        gradients: &Gradients,
    ) -> Result<(), TrainError> {
        let Some((first, _)) = pairs.first() else {
            return Ok(());
        };
        let names: Vec<&str> = (pairs.iter())
            .map(|(parameter, _)| parameter.name.as_str())
            .collect();
        let mut here = match self.on_device.take() {
            Some(here) if here.has(&names) => here,
            before => {
                // The first step, or the first of a stage that trains others.
                if let Some(before) = before {
                    self.state.extend(before.to_host()?);
                }
                let kinds = state_names(&self.config).len();
                device::OnDevice::new(&mut self.state, &names, kinds, first.var.device())?
            }
        };
        let updates: Vec<_> = (pairs.iter())
            .map(|&(parameter, gradient)| {
                let rule = Rule::new(&self.config, rate, self.steps, parameter);
                let update = cxr_ops::CudaUpdate {
                    weights: parameter.var.as_tensor(),
                    gradient,
                    state: here.place(&parameter.name).unwrap_or_default(),
                    rate: 0.,
                    decay: 0.,
                };
                (rule, update)
            })
            .collect();
        let made = match gradients.scale_on_device() {
            Some(scale) => here.step(&updates, scale),
            None => {
                let scale = [gradients.scale() as f32];
                let scale = cxr_ops::CudaValues::new(&scale, first.var.device());
                scale.and_then(|scale| here.step(&updates, &scale))
            }
        };
        self.on_device = Some(here);
        Ok(made?)
    }

    /// The state as tensors, such as `first.…` and `second.…` of each parameter.
    pub(crate) fn tensors(&self) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        let on_device = (self.on_device.as_ref()).map(device::OnDevice::to_host);
        let on_device: BTreeMap<_, _> = on_device.transpose()?.unwrap_or_default();
        for (name, state) in self.state.iter().chain(&on_device) {
            for (kind, values) in state_names(&self.config).iter().zip(state) {
                let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
                tensors.insert(format!("{kind}.{name}"), tensor);
            }
        }
        Ok(tensors)
    }

    /// The optimiser that [`Self::tensors`] and [`Self::steps`] describe; `n_values` tells how many
    /// values a parameter has. What is wrong with the tensors, otherwise.
    pub(crate) fn restore(
        config: OptimiserConfig,
        steps: u64,
        tensors: &BTreeMap<String, Tensor>,
        n_values: impl Fn(&str) -> Option<usize>,
    ) -> Result<Self, String> {
        let kinds = state_names(&config);
        let mut state = BTreeMap::<String, State>::new();
        for (full_name, tensor) in tensors {
            let parts = full_name.split_once('.');
            let known = parts.and_then(|(kind, name)| {
                let index = kinds.iter().position(|known| *known == kind)?;
                Some((index, name, n_values(name)?))
            });
            let Some((index, name, expected)) = known else {
                return Err(format!("`{full_name}` is no state of this optimiser"));
            };
            let values: Vec<f32> = tensor.to_vec1().map_err(|error| error.to_string())?;
            // A mean of squares may be as large as it likes; everything else stays finite in training.
            let is_square = ["second", "square"].contains(&kinds[index]);
            let is_sound = |value: &f32| match is_square {
                true => *value >= 0.,
                false => value.is_finite(),
            };
            if let Some(value) = values.iter().find(|value| !is_sound(value)) {
                return Err(format!("`{full_name}` holds {value}"));
            }
            if values.len() != expected {
                let found = values.len();
                return Err(format!(
                    "`{full_name}` has {found} values, expected {expected}"
                ));
            }
            let new = || vec![Vec::new(); kinds.len()];
            state.entry(name.to_owned()).or_insert_with(new)[index] = values;
        }
        for (name, state) in &state {
            if let Some(missing) = state.iter().position(Vec::is_empty) {
                return Err(format!("`{}.{name}` is missing", kinds[missing]));
            }
        }
        Ok(Self {
            config,
            steps,
            state,
            on_device: None,
        })
    }
}

/// What one step does to a parameter.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Adam too.
    AdamW(adamw::Rule),
    RmsProp(rmsprop::Rule),
    Sgd(sgd::Rule),
}

impl Rule {
    /// What step `step`, counted from 1, does to a parameter.
    fn new(config: &OptimiserConfig, rate: f64, step: u64, parameter: &Trained) -> Self {
        let rate = rate * parameter.learning_rate_factor;
        let (weight_decay, decay_vectors) = config.weight_decay();
        let decays = decay_vectors || parameter.var.rank() > 1;
        let usual = if decays { weight_decay } else { 0. };
        let weight_decay = parameter.weight_decay.unwrap_or(usual);
        match config {
            OptimiserConfig::AdamW(config) => {
                Self::AdamW(adamw::Rule::new(config, rate, weight_decay, step))
            }
            OptimiserConfig::Adam(config) => {
                Self::AdamW(adamw::Rule::coupled(config, rate, weight_decay, step))
            }
            OptimiserConfig::RmsProp(config) => {
                Self::RmsProp(rmsprop::Rule::new(config, rate, weight_decay))
            }
            OptimiserConfig::Sgd(config) => Self::Sgd(sgd::Rule::new(config, rate, weight_decay)),
        }
    }
}

/// What is kept for each parameter.
fn state_names(config: &OptimiserConfig) -> &'static [&'static str] {
    match config {
        OptimiserConfig::AdamW(_) | OptimiserConfig::Adam(_) => &["first", "second"],
        OptimiserConfig::RmsProp(config) if config.momentum == 0. => &["square"],
        OptimiserConfig::RmsProp(_) => &["square", "momentum"],
        OptimiserConfig::Sgd(config) if config.momentum == 0. => &[],
        OptimiserConfig::Sgd(_) => &["momentum"],
    }
}

/// One tensor's step, as an operation in place.
struct Update<'a> {
    rule: Rule,
    /// The gradient is multiplied by this first.
    scale: f32,
    /// Candle hands the operation out by shared reference.
    state: Mutex<&'a mut State>,
}

/// Values that one task updates: what they need then stays in the cache.
const PART: usize = 1 << 14;

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "optimiser-step"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(weights), CpuStorage::F32(gradient)) = (weights, gradient) else {
            bail!("optimiser step: expected `f32` weights and gradients");
        };
        let (Some((start, end)), Some((gradient_start, gradient_end))) = (
            weights_layout.contiguous_offsets(),
            gradient_layout.contiguous_offsets(),
        ) else {
            bail!("optimiser step: expected contiguous weights and gradients");
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let sizes = state.iter().map(Vec::len);
        let n_values = end - start;
        if sizes
            .chain([gradient_end - gradient_start])
            .any(|n| n != n_values)
        {
            bail!("optimiser step: expected gradient and state of {n_values} values");
        }
        let values = weights[start..end]
            .par_chunks_mut(PART)
            .zip(gradient[gradient_start..gradient_end].par_chunks(PART));
        let scale = self.scale;
        match (self.rule, state.as_mut_slice()) {
            (Rule::AdamW(rule), [first, second]) => values
                .zip(first.par_chunks_mut(PART).zip(second.par_chunks_mut(PART)))
                .for_each(|((weights, gradient), (first, second))| {
                    rule.apply(weights, gradient, scale, first, second);
                }),
            (Rule::RmsProp(rule), [square, momentum]) => values
                .zip(
                    square
                        .par_chunks_mut(PART)
                        .zip(momentum.par_chunks_mut(PART)),
                )
                .for_each(|((weights, gradient), (square, momentum))| {
                    rule.apply_with_momentum(weights, gradient, scale, square, momentum);
                }),
            (Rule::RmsProp(rule), [square]) => {
                values.zip(square.par_chunks_mut(PART)).for_each(
                    |((weights, gradient), square)| {
                        rule.apply(weights, gradient, scale, square);
                    },
                );
            }
            (Rule::Sgd(rule), [momentum]) => values.zip(momentum.par_chunks_mut(PART)).for_each(
                |((weights, gradient), momentum)| {
                    rule.apply_with_momentum(weights, gradient, scale, momentum);
                },
            ),
            (Rule::Sgd(rule), []) => values.for_each(|(weights, gradient)| {
                rule.apply(weights, gradient, scale);
            }),
            _ => bail!("optimiser step: state of another optimiser"),
        }
        Ok(())
    }
}
