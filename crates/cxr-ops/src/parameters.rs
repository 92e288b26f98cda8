//! A network's named tensors.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

use crate::error::{OpsError, TensorDifference};

/// Where the values of a new parameter come from.
///
/// Draws depend on the seed of the [`Parameters`] and the full name alone, so that adding a layer
/// changes no other layer's start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// Normal with variance 2 / fan-in (He et al. 2015, equation 10); fan-in is the number of
    /// values that one output reads.
    KaimingNormal,
    /// Normal with variance 2 / fan-out; fan-out is the number of outputs times the taps of the window, as PyTorch
    /// counts it whatever the number of groups.
    KaimingFanOut,
    /// Normal with this standard deviation, values beyond ±2 drawn again, as PyTorch's `trunc_normal_` has it.
    Normal(f32),
    /// All of one value.
    Constant(f32),
    /// Uniform in ±√(6 / (fan-in + fan-out)) (Glorot & Bengio 2010, equation 16), Keras's default.
    GlorotUniform,
}

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The optimiser changes it.
    Trainable,
    /// The forward pass changes it: running statistics.
    Running,
    /// Nothing changes it: weights of a network that cannot be trained.
    Fixed,
}

/// A network's tensors by name, in name order. Cloning gives another handle to the same tensors.
#[derive(Debug, Clone)]
pub struct Parameters {
    seed: u64,
    device: Device,
    entries: Arc<Mutex<BTreeMap<String, (Role, Var)>>>,
}

impl Parameters {
    /// An empty set; `seed` is for the initial values of what is added to it.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            seed,
            device: device.clone(),
            entries: Arc::default(),
        }
    }

    /// The path of the network itself, with an empty name.
    pub fn root(&self) -> ParameterPath {
        ParameterPath {
            parameters: self.clone(),
            prefix: String::new(),
        }
    }

    /// Where the tensors live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Everything that has role `role` and whose name starts with `prefix`, in name order.
    pub fn select(&self, role: Role, prefix: &str) -> Vec<(String, Var)> {
        self.lock()
            .iter()
            .filter(|(name, (its_role, _))| *its_role == role && name.starts_with(prefix))
            .map(|(name, (_, var))| (name.clone(), var.clone()))
            .collect()
    }

    /// Number of values under `prefix`, running statistics included.
    pub fn count(&self, prefix: &str) -> usize {
        let entries = self.lock();
        entries
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, (_, var))| var.elem_count())
            .sum()
    }

    /// The tensors under `prefix` by full name, detached. They share storage with the network:
    /// copy what must outlive its next change.
    pub fn tensors(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let entries = self.lock();
        let under = entries.iter().filter(|(name, _)| name.starts_with(prefix));
        under
            .map(|(name, (_, var))| (name.clone(), var.as_tensor().detach()))
            .collect()
    }

    /// Sets every tensor under `prefix` from `tensors`, whose names are full names. Nothing is
    /// changed unless everything fits: no name missing, none left over, every shape the same.
    /// Other floating-point types are converted to `f32`; integers are refused. Values are not looked at:
    /// [`check_weights`](crate::check_weights) does that where weights come from a file.
    ///
    /// # Errors
    /// [`OpsError::WeightMismatch`] with every difference.
    pub fn load(&self, prefix: &str, tensors: &BTreeMap<String, Tensor>) -> Result<(), OpsError> {
        let entries = self.lock();
        let under = || entries.iter().filter(|(name, _)| name.starts_with(prefix));
        let mut differences: Vec<TensorDifference> = under()
            .filter_map(|(name, (_, var))| match tensors.get(name) {
                None => Some(TensorDifference::Missing { name: name.clone() }),
                Some(found) if found.shape() != var.shape() => Some(TensorDifference::Shape {
                    name: name.clone(),
                    expected: var.shape().clone(),
                    found: found.shape().clone(),
                }),
                Some(found) if !found.dtype().is_float() => Some(TensorDifference::Type {
                    name: name.clone(),
                    found: found.dtype().as_str().to_uppercase(),
                }),
                Some(_) => None,
            })
            .collect();
        let extra = tensors
            .keys()
            .filter(|name| !(name.starts_with(prefix) && entries.contains_key(*name)));
        differences.extend(extra.map(|name| TensorDifference::Extra { name: name.clone() }));
        if !differences.is_empty() {
            return Err(OpsError::WeightMismatch { differences });
        }
        for (name, (_, var)) in under() {
            if let Some(tensor) = tensors.get(name) {
                var.set(&tensor.to_device(&self.device)?.to_dtype(DType::F32)?)?;
            }
        }
        Ok(())
    }

    fn add(&self, name: String, role: Role, shape: Shape, init: Init) -> Result<Var, OpsError> {
        let values = initial_values(self.seed, &name, &shape, init)?;
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.device)?)?;
        match self.lock().insert(name.clone(), (role, var.clone())) {
            None => Ok(var),
            Some(_) => Err(OpsError::DuplicateParameter { name }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Role, Var)>> {
        // A panic elsewhere cannot leave the map half-written: every change is one insertion.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in a network's tree of names, where layers add their parameters.
#[derive(Debug, Clone)]
pub struct ParameterPath {
    parameters: Parameters,
    prefix: String,
}

impl ParameterPath {
    /// The place `name` below this one.
    #[must_use]
    pub fn pp(&self, name: impl std::fmt::Display) -> Self {
        Self {
            parameters: self.parameters.clone(),
            prefix: self.full(&name.to_string()),
        }
    }

    /// The full dotted name of this place; empty at the root.
    pub fn name(&self) -> &str {
        &self.prefix
    }

    /// Adds a tensor that the optimiser trains.
    ///
    /// # Errors
    /// The name is taken.
    pub fn trainable(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        init: Init,
    ) -> Result<Tensor, OpsError> {
        let var = self
            .parameters
            .add(self.full(name), Role::Trainable, shape.into(), init)?;
        Ok(var.as_tensor().clone())
    }

    /// Adds a tensor that the forward pass keeps.
    ///
    /// # Errors
    /// The name is taken.
    pub fn running(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        init: Init,
    ) -> Result<Var, OpsError> {
        self.parameters
            .add(self.full(name), Role::Running, shape.into(), init)
    }

    /// Adds a tensor that nothing but loading changes; no gradient is recorded for it.
    ///
    /// # Errors
    /// The name is taken.
    pub fn fixed(
        &self,
        name: &str,
        shape: impl Into<Shape>,
        init: Init,
    ) -> Result<Tensor, OpsError> {
        let var = self
            .parameters
            .add(self.full(name), Role::Fixed, shape.into(), init)?;
        Ok(var.as_tensor().detach())
    }

    /// Where its tensors live.
    pub fn device(&self) -> &Device {
        &self.parameters.device
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

fn initial_values(seed: u64, name: &str, shape: &Shape, init: Init) -> Result<Vec<f32>, OpsError> {
    // Sizes come from an experiment file, which may ask for anything.
    let dims = shape.dims().iter();
    let n_values = dims.copied().try_fold(1_usize, usize::checked_mul);
    let mut values = Vec::new();
    let n_values = n_values
        .filter(|&n_values| values.try_reserve_exact(n_values).is_ok())
        .ok_or_else(|| OpsError::TooLarge {
            name: name.to_owned(),
            shape: shape.clone(),
        })?;
    let mut draws = Draws::new(seed, name);
    // A weight is `outputs × inputs × taps…`.
    let dims = shape.dims();
    let taps: usize = dims.iter().skip(2).product();
    let fan_out = (dims.first().copied().unwrap_or(1) * taps) as f64;
    let fan_in = (dims.get(1).copied().unwrap_or(1) * taps) as f64;
    let next: &mut dyn FnMut() -> f64 = match init {
        Init::Zeros => &mut || 0.,
        Init::Ones => &mut || 1.,
        Init::KaimingNormal => &mut || (2. / fan_in).sqrt() * draws.normal(),
        Init::KaimingFanOut => &mut || (2. / fan_out).sqrt() * draws.normal(),
        Init::Normal(deviation) => &mut move || loop {
            let value = f64::from(deviation) * draws.normal();
            if value.abs() <= 2. {
                break value;
            }
        },
        Init::Constant(value) => &mut move || f64::from(value),
        Init::GlorotUniform => {
            &mut || (6. / (fan_in + fan_out)).sqrt() * (2. * draws.uniform() - 1.)
        }
    };
    values.extend((0..n_values).map(|_| next() as f32));
    Ok(values)
}

/// ChaCha8 keyed by (purpose, seed, tensor name).
struct Draws(ChaCha8Rng);

impl Draws {
    fn new(seed: u64, name: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"initial weights\0");
        hash.update(seed.to_le_bytes());
        hash.update(name.as_bytes());
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// Uniform in [0, 1), 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1. / (1u64 << 53) as f64)
    }

    /// Standard normal, by Box and Muller's transform.
    fn normal(&mut self) -> f64 {
        let radius = (-2. * (1. - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
