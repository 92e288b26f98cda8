//! An operation with a hand-written backward pass and any number of inputs.
//!
//! Candle's custom operations take three inputs at most; a network's block has hundreds of parameters. Here
//! they hang on a tree of joins whose values nobody reads: backwards, the operation is visited first and
//! leaves the gradients in slots, from which the joins hand them to the parameters. So `backward` on
//! whatever follows finds every gradient, as if the block had been built of single operations.
//!
//! Each of these hand-overs costs candle a tensor of zeros and a sum, which on a GPU is two kernels. Who calls
//! `backward` can have the gradients of variables past autograd, in a [`GradientSink`].

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use candle_core::backend::BackendStorage as _;
use candle_core::backprop::GradStore;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Storage, Tensor, Var,
    bail,
};

use crate::cpu::values;

/// An operation on contiguous `f32` tensors of the CPU, with a backward pass of its own.
pub trait Fused: Send + Sync + 'static {
    /// What the forward pass keeps for the backward pass.
    type Tape: Send + Sync;

    /// The name in error messages.
    fn name(&self) -> &'static str;

    /// The output, its shape, and the tape.
    ///
    /// # Errors
    /// Inputs that the operation cannot take.
    fn forward(&self, inputs: &[&[f32]]) -> Result<(Vec<f32>, Shape, Self::Tape)>;

    /// The gradient of each input for that of the output; `None` for an input that has none.
    ///
    /// # Errors
    /// Gradients that the operation cannot compute.
    fn backward(
        &self,
        inputs: &[&[f32]],
        tape: &Self::Tape,
        gradient: &[f32],
    ) -> Result<Vec<Option<Vec<f32>>>>;
}

/// Applies an operation. Gradients flow to the inputs that take part in autograd.
///
/// # Errors
/// What the operation refuses; another type than `f32`, or a device other than the CPU.
pub fn apply_fused<O: Fused>(op: O, inputs: &[Tensor]) -> Result<Tensor> {
    apply_tensor_op(OnSlices(op), inputs)
}

/// As [`Fused`], on tensors of any device.
pub(crate) trait TensorOp: Send + Sync + 'static {
    type Tape: Send + Sync;

    fn name(&self) -> &'static str;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Self::Tape)>;

    fn backward(
        &self,
        inputs: &[Tensor],
        tape: &Self::Tape,
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>>;
}

/// Takes the gradients of variables that are inputs of [fused operations](apply_fused), so that they need not go through
/// candle's autograd, where each costs a tensor of zeros and a sum.
///
/// ```
/// use candle_core::{Device, Result, Tensor, Var};
/// use cxr_ops::GradientSink;
///
/// # fn network(images: &Tensor, weight: &Var) -> Result<Tensor> { images * weight.as_tensor() }
/// # fn main() -> Result<()> {
/// # let images = Tensor::new(&[3f32], &Device::Cpu)?;
/// # let weight = Var::new(&[2f32], &Device::Cpu)?;
/// let sink = GradientSink::new();
/// let output = sink.scope(|| network(&images, &weight))?;
/// let mut gradients = output.sum_all()?.backward()?;
/// sink.add_to(&mut gradients)?;
/// assert!(gradients.get(&weight).is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct GradientSink {
    /// Variables and their gradients, in the order in which they came.
    gradients: Arc<Mutex<Vec<(Tensor, Tensor)>>>,
}

thread_local! {
    /// That of the scope which this thread is in.
    static SINK: RefCell<Option<GradientSink>> = const { RefCell::new(None) };
}

impl GradientSink {
    /// One that has taken nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `f`. Operations that are applied within, on this thread, give the gradients of their variables to this sink
    /// when `backward` comes to them, and not to the store that `backward` returns.
    pub fn scope<T>(&self, f: impl FnOnce() -> T) -> T {
        struct Restore(Option<GradientSink>);
        impl Drop for Restore {
            fn drop(&mut self) {
                SINK.set(self.0.take());
            }
        }
        let _restore = Restore(SINK.replace(Some(self.clone())));
        f()
    }

    /// Adds what came to what `backward` found, and is empty again.
    ///
    /// # Errors
    /// Gradients of one variable that cannot be added.
    pub fn add_to(&self, store: &mut GradStore) -> Result<()> {
        for (variable, gradient) in std::mem::take(&mut *lock(&self.gradients)) {
            let sum = match store.get(&variable) {
                Some(before) => (before + gradient)?,
                None => gradient,
            };
            store.insert(&variable, sum);
        }
        Ok(())
    }
}

/// As [`apply_fused`]; the inputs are on one device.
pub(crate) fn apply_tensor_op<O: TensorOp>(op: O, inputs: &[Tensor]) -> Result<Tensor> {
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(Tensor::contiguous)
        .collect::<Result<_>>()?;
    let device = inputs
        .first()
        .map_or(Device::Cpu, |input| input.device().clone());
    let slots: Slots = Arc::new(Mutex::new(vec![None; inputs.len()]));
    let sink = SINK.with_borrow(Clone::clone);
    let tracked = inputs.iter().enumerate().filter(|(_, t)| t.track_op());
    let (past, through): (Vec<_>, Vec<_>) =
        tracked.partition(|(_, tensor)| sink.is_some() && tensor.is_variable());
    let leaves: Vec<(Option<usize>, Tensor)> = through
        .into_iter()
        .map(|(index, tensor)| (Some(index), tensor.clone()))
        .collect();
    let anchor = match (leaves.is_empty(), past.is_empty()) {
        // Without a variable before it `backward` would not come to the operation.
        (true, false) => Var::from_tensor(&nothing(&device)?)?.into_inner(),
        _ => join(leaves, &slots, &device)?,
    };
    let root = Root {
        op,
        inputs,
        tape: OnceLock::new(),
        slots,
        sink,
    };
    anchor.apply_op1(root)
}

/// Gradients by input.
type Slots = Arc<Mutex<Vec<Option<Tensor>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Joins tensors in pairs until one is left. An index is that of an input; a join has none.
fn join(mut level: Vec<(Option<usize>, Tensor)>, slots: &Slots, device: &Device) -> Result<Tensor> {
    if level.is_empty() {
        return nothing(device);
    }
    loop {
        let mut next = Vec::with_capacity(level.len().div_ceil(2));
        let mut pairs = level.chunks_exact(2);
        for pair in &mut pairs {
            let [(first, a), (second, b)] = pair else {
                continue;
            };
            let op = Join {
                indices: [*first, *second],
                slots: slots.clone(),
            };
            next.push((None, a.apply_op2(b, op)?));
        }
        next.extend(pairs.remainder().iter().cloned());
        level = next;
        if let [(index, tensor)] = &level[..] {
            // A single input has no pair: it is joined with nothing.
            return match index {
                None => Ok(tensor.clone()),
                Some(_) => tensor.apply_op2(
                    &nothing(device)?,
                    Join {
                        indices: [*index, None],
                        slots: slots.clone(),
                    },
                ),
            };
        }
    }
}

/// The value of a join, and its gradient.
fn nothing(device: &Device) -> Result<Tensor> {
    Tensor::zeros(1, DType::F32, device)
}

struct Join {
    indices: [Option<usize>; 2],
    slots: Slots,
}

impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.]), 1.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        first: &candle_core::CudaStorage,
        _: &Layout,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let zero = first.device.alloc_zeros::<f32>(1)?;
        let storage = candle_core::CudaStorage::wrap_cuda_slice(zero, first.device.clone());
        Ok((storage, 1.into()))
    }

    fn bwd(
        &self,
        first: &Tensor,
        second: &Tensor,
        _: &Tensor,
        _: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = |index: Option<usize>, tensor: &Tensor| match index {
            None => {
                let nothing = tensor.track_op().then(|| nothing(tensor.device()));
                Ok(nothing.transpose()?)
            }
            Some(index) => match lock(&self.slots)[index].take() {
                Some(gradient) => Ok(Some(gradient)),
                None => bail!(
                    "input {index} of a fused operation takes part in autograd, but has no gradient"
                ),
            },
        };
        Ok((
            gradient(self.indices[0], first)?,
            gradient(self.indices[1], second)?,
        ))
    }
}

/// An operation on slices, as one on tensors of the CPU.
struct OnSlices<O>(O);

impl<O: Fused> OnSlices<O> {
    /// Calls `f` with the values of all inputs.
    fn with_slices<T>(
        &self,
        inputs: &[Tensor],
        f: impl FnOnce(&[&[f32]]) -> Result<T>,
    ) -> Result<T> {
        let guards: Vec<_> = inputs.iter().map(Tensor::storage_and_layout).collect();
        let slices = guards
            .iter()
            .map(|(storage, layout)| match &**storage {
                Storage::Cpu(storage) => values(storage, layout, self.0.name()),
                _ => bail!("{}: expected CPU tensors", self.0.name()),
            })
            .collect::<Result<Vec<&[f32]>>>()?;
        f(&slices)
    }
}

impl<O: Fused> TensorOp for OnSlices<O> {
    type Tape = O::Tape;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, O::Tape)> {
        let (output, shape, tape) = self.with_slices(inputs, |inputs| self.0.forward(inputs))?;
        Ok((Tensor::from_vec(output, shape, &Device::Cpu)?, tape))
    }

    fn backward(
        &self,
        inputs: &[Tensor],
        tape: &O::Tape,
        gradient: &Tensor,
    ) -> Result<Vec<Option<Tensor>>> {
        let gradients = crate::cpu::with_values(gradient, self.name(), |gradient| {
            self.with_slices(inputs, |inputs| self.0.backward(inputs, tape, gradient))
        })??;
        let pairs = inputs.iter().zip(gradients);
        pairs
            .map(|(input, gradient)| {
                let wanted = gradient.filter(|_| input.track_op());
                wanted
                    .map(|values| Tensor::from_vec(values, input.shape(), &Device::Cpu))
                    .transpose()
            })
            .collect()
    }
}

struct Root<O: TensorOp> {
    op: O,
    inputs: Vec<Tensor>,
    tape: OnceLock<O::Tape>,
    slots: Slots,
    /// Which takes the gradients of variables.
    sink: Option<GradientSink>,
}

impl<O: TensorOp> Root<O> {
    fn forward(&self) -> Result<Tensor> {
        let (output, tape) = self.op.forward(&self.inputs)?;
        if self.tape.set(tape).is_err() {
            bail!("{}: applied twice", self.op.name());
        }
        Ok(output)
    }
}

impl<O: TensorOp> CustomOp1 for Root<O> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = self.forward()?;
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("{}: the output left the CPU", self.op.name()),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let output = self.forward()?;
        let (storage, layout) = output.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            _ => bail!("{}: the output left its CUDA device", self.op.name()),
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Some(tape) = self.tape.get() else {
            bail!("{}: backward before forward", self.op.name());
        };
        let gradient = gradient.contiguous()?;
        let gradients = self.op.backward(&self.inputs, tape, &gradient)?;
        let mut slots = lock(&self.slots);
        for ((slot, input), gradient) in slots.iter_mut().zip(&self.inputs).zip(gradients) {
            let gradient = gradient.filter(|_| input.track_op());
            match (gradient, &self.sink) {
                (Some(gradient), Some(sink)) if input.is_variable() => {
                    lock(&sink.gradients).push((input.clone(), gradient));
                }
                (gradient, _) => *slot = gradient,
            }
        }
        Ok(Some(nothing(gradient.device())?))
    }
}
