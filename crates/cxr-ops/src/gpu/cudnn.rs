//! Convolutions by cuDNN.
//!
//! The algorithms are cuDNN's deterministic ones, the first that takes the convolution or, after
//! [`set_autotune`](super::set_autotune), the fastest; what none of them takes is a product of patches. Sums are single
//! precision. Products of single-precision numbers are TF32, with ten bits of fraction instead of 23, unless
//! [`set_exact_f32`](super::set_exact_f32) asks for all.
//!
//! What cuDNN has to know of a convolution is told once: descriptors, the algorithm that was chosen and the size of its
//! workspace are kept by shape, and all convolutions of a thread share one workspace.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgorithm,
    cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm, cudnnConvolutionFwdAlgo_t as Algorithm,
    cudnnConvolutionMode_t as Mode, cudnnMathType_t as Math, cudnnTensorFormat_t as Format,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType,
    CudnnError, FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::sys::{CUevent_flags, CUstreamCaptureStatus};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
use candle_core::{CudaDevice, Error, Result, bail};
use half::bf16;

use super::choices::{Trouble, Work, is_refusal};
use super::convolution::{Layout, Sizes, Worst, by_product, worst};
use super::cuda::{Gpu, Values};
use super::is_exact_f32;
use super::machine::{Machine as _, Pass, View};
use super::memory::Lot;
use super::settings::CHOICES;
use crate::Precision;
use crate::conv::Geometry;

thread_local! {
    /// A handle belongs to a thread and a stream.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
    /// What is known of the convolutions that came before.
    static KNOWN: RefCell<HashMap<Key, Rc<Known>>> = RefCell::default();
    /// By device the workspace of its convolutions, which are done one after the other.
    static ROOMS: RefCell<HashMap<DeviceId, CudaSlice<u8>>> = RefCell::default();
}

fn handle(device: &CudaDevice) -> Result<Arc<Cudnn>> {
    HANDLES.with_borrow_mut(|handles| {
        if let Some(handle) = handles.get(&device.id()) {
            return Ok(handle.clone());
        }
        let handle = Cudnn::new(device.cuda_stream()).map_err(Error::wrap)?;
        handles.insert(device.id(), handle.clone());
        Ok(handle)
    })
}

/// Frees the workspaces of this thread.
pub(super) fn release_rooms() {
    ROOMS.with_borrow_mut(HashMap::clear);
}

/// A type of convolved values.
trait Element: CudnnDataType + Copy {
    /// The result is written once, and nothing is added to it.
    const ONCE: (Self, Self);
}

impl Element for f32 {
    const ONCE: (Self, Self) = (1., 0.);
}

impl Element for bf16 {
    const ONCE: (Self, Self) = (bf16::ONE, bf16::ZERO);
}

/// How values are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Arithmetic {
    F32,
    Tf32,
    Bf16,
}

impl Arithmetic {
    fn of(precision: Precision) -> Self {
        match precision {
            Precision::Bf16 => Self::Bf16,
            Precision::Single if is_exact_f32() => Self::F32,
            Precision::Single => Self::Tf32,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "TF32",
            Self::Bf16 => "bf16",
        }
    }

    /// What cuDNN calls it, best first. By default it multiplies single precision as TF32, but bf16 on tensor cores only
    /// where it is asked to.
    fn maths(self) -> &'static [Math] {
        match self {
            Self::F32 => &[Math::CUDNN_FMA_MATH],
            Self::Tf32 => &[Math::CUDNN_DEFAULT_MATH],
            Self::Bf16 => &[Math::CUDNN_TENSOR_OP_MATH, Math::CUDNN_DEFAULT_MATH],
        }
    }

    /// What a probe tries.
    fn probed_maths(self) -> &'static [Math] {
        match self {
            Self::F32 => self.maths(),
            Self::Tf32 | Self::Bf16 => Self::Bf16.maths(),
        }
    }
}

/// One of cuDNN's algorithms.
#[derive(Debug, Clone, Copy)]
enum Routine {
    Forward(Algorithm),
    OfInput(DataAlgorithm),
    OfWeight(FilterAlgorithm),
}

/// A way to do a pass.
#[derive(Debug, Clone, Copy)]
enum Method {
    Cudnn(Math, Routine),
    /// The product of patches, when nothing else does it.
    Product,
}

/// An algorithm, and its name without and with `TENSOR_OP_MATH`.
type Named = (Routine, [&'static str; 2]);

/// Algorithms that give the same bits every time, in the order in which they are tried where nothing is timed.
const FORWARD: [Named; 6] = [
    (
        Routine::Forward(Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM),
        [
            "implicit-precomputed-gemm",
            "tensor-op implicit-precomputed-gemm",
        ],
    ),
    (
        Routine::Forward(Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM),
        ["implicit-gemm", "tensor-op implicit-gemm"],
    ),
    (
        Routine::Forward(Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_GEMM),
        ["gemm", "tensor-op gemm"],
    ),
    (
        Routine::Forward(Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD),
        ["winograd", "tensor-op winograd"],
    ),
    (
        Routine::Forward(Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED),
        ["winograd-nonfused", "tensor-op winograd-nonfused"],
    ),
    (
        Routine::Forward(Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING),
        ["fft-tiling", "tensor-op fft-tiling"],
    ),
];

/// As [`FORWARD`]; algorithm 0 adds in any order.
const OF_INPUT: [Named; 4] = [
    (
        Routine::OfInput(DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1),
        ["1", "tensor-op 1"],
    ),
    (
        Routine::OfInput(DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED),
        ["winograd-nonfused", "tensor-op winograd-nonfused"],
    ),
    (
        Routine::OfInput(DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD),
        ["winograd", "tensor-op winograd"],
    ),
    (
        Routine::OfInput(DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING),
        ["fft-tiling", "tensor-op fft-tiling"],
    ),
];

/// As [`FORWARD`]; algorithms 0 and 3 add in any order.
const OF_WEIGHT: [Named; 3] = [
    (
        Routine::OfWeight(FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1),
        ["1", "tensor-op 1"],
    ),
    (
        Routine::OfWeight(FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED),
        ["winograd-nonfused", "tensor-op winograd-nonfused"],
    ),
    (
        Routine::OfWeight(FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING),
        ["fft-tiling", "tensor-op fft-tiling"],
    ),
];

/// All ways to do a pass, in the order in which they are tried.
fn methods(pass: &Pass<'_, CudaSlice<f32>>, maths: &[Math]) -> Vec<(Method, &'static str)> {
    let routines: &[Named] = match pass {
        Pass::Forward { .. } => &FORWARD,
        Pass::OfInput { .. } => &OF_INPUT,
        Pass::OfWeight { .. } => &OF_WEIGHT,
    };
    let by_cudnn = maths.iter().flat_map(|&math| {
        let is_tensor_op = usize::from(math == Math::CUDNN_TENSOR_OP_MATH);
        let routines = routines.iter();
        routines.map(move |&(routine, names)| (Method::Cudnn(math, routine), names[is_tensor_op]))
    });
    by_cudnn.chain([(Method::Product, "product")]).collect()
}

/// What cuDNN is told of a convolution.
struct Descriptors<T> {
    images: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    output: TensorDescriptor<T>,
    convolutions: Vec<(Math, ConvDescriptor<f32>)>,
}

impl<T: Element> Descriptors<T> {
    fn new(device: &CudaDevice, s: &Sizes, maths: &[Math]) -> Result<Self> {
        let handle = handle(device)?;
        let ints = |sizes: [usize; 4]| -> Result<[i32; 4]> {
            match sizes.map(i32::try_from) {
                [Ok(a), Ok(b), Ok(c), Ok(d)] => Ok([a, b, c, d]),
                _ => bail!("conv2d: sizes {sizes:?} are too large for cuDNN"),
            }
        };
        let [padding, stride, one, _] = ints([s.padding, s.stride, 1, 1])?;
        let convolution = |&math: &Math| -> Result<_> {
            let mode = Mode::CUDNN_CROSS_CORRELATION;
            let mut convolution = handle
                .create_conv2d::<f32>([padding; 2], [stride; 2], [one; 2], mode)
                .map_err(Error::wrap)?;
            convolution.set_math_type(math).map_err(Error::wrap)?;
            Ok((math, convolution))
        };
        let format = match s.layout {
            Layout::Nchw => Format::CUDNN_TENSOR_NCHW,
            Layout::Nhwc => Format::CUDNN_TENSOR_NHWC,
        };
        let tensor = |sizes| -> Result<_> {
            let tensor = handle.create_4d_tensor::<T>(format, ints(sizes)?);
            tensor.map_err(Error::wrap)
        };
        let filter = ints([s.outputs, s.inputs, s.kernel[0], s.kernel[1]])?;
        let weight = handle.create_4d_filter::<T>(format, filter);
        Ok(Self {
            images: tensor([s.images, s.inputs, s.height, s.width])?,
            weight: weight.map_err(Error::wrap)?,
            output: tensor([s.images, s.outputs, s.height_out, s.width_out])?,
            convolutions: maths.iter().map(convolution).collect::<Result<_>>()?,
        })
    }

    fn convolution(&self, math: Math) -> std::result::Result<&ConvDescriptor<f32>, Trouble> {
        let mut all = self.convolutions.iter();
        match all.find(|(known, _)| *known == math) {
            Some((_, convolution)) => Ok(convolution),
            None => Err(Error::msg("conv2d: cuDNN was not told of this arithmetic").into()),
        }
    }

    /// Bytes of the workspace that a routine needs.
    fn bytes(&self, math: Math, routine: Routine) -> std::result::Result<usize, Trouble> {
        let conv = self.convolution(math)?;
        let (x, w, y) = (&self.images, &self.weight, &self.output);
        let bytes = match routine {
            Routine::Forward(of) => ConvForward { conv, x, w, y }.get_workspace_size(of),
            Routine::OfInput(of) => {
                let call = ConvBackwardData {
                    conv,
                    dx: x,
                    w,
                    dy: y,
                };
                call.get_workspace_size(of)
            }
            Routine::OfWeight(of) => {
                let call = ConvBackwardFilter {
                    conv,
                    x,
                    dw: w,
                    dy: y,
                };
                call.get_workspace_size(of)
            }
        };
        bytes.map_err(trouble)
    }

    /// Runs a routine on its two operands.
    fn launch(
        &self,
        (math, routine): (Math, Routine),
        room: &mut CudaSlice<u8>,
        [first, second]: [&CudaView<'_, T>; 2],
        out: &mut CudaViewMut<'_, T>,
    ) -> std::result::Result<(), Trouble> {
        let conv = self.convolution(math)?;
        let (x, w, y) = (&self.images, &self.weight, &self.output);
        let (room, once) = (Some(room), T::ONCE);
        // SAFETY: the three are of the described sizes, which `Convolve::new` has checked.
        let done = unsafe {
            match routine {
                Routine::Forward(of) => {
                    let call = ConvForward { conv, x, w, y };
                    call.launch(of, room, once, first, second, out)
                }
                Routine::OfInput(of) => {
                    let call = ConvBackwardData {
                        conv,
                        dx: x,
                        w,
                        dy: y,
                    };
                    call.launch(of, room, once, out, second, first)
                }
                Routine::OfWeight(of) => {
                    let call = ConvBackwardFilter {
                        conv,
                        x,
                        dw: w,
                        dy: y,
                    };
                    call.launch(of, room, once, second, out, first)
                }
            }
        };
        done.map_err(trouble)
    }
}

/// cuDNN's status: another algorithm may do what this one does not support.
fn trouble(error: CudnnError) -> Trouble {
    let status = error.to_string();
    match is_refusal(&status) {
        true => Trouble::Refused(status),
        false => Trouble::Failed(Error::msg(format!("cuDNN: {status}"))),
    }
}

/// By which convolutions are told apart.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    device: DeviceId,
    arithmetic: Arithmetic,
    sizes: Sizes,
    pass: &'static str,
}

/// What is known of one pass of a convolution.
struct Known {
    descriptors: Typed,
    methods: Vec<(Method, &'static str)>,
    chosen: Cell<Option<Chosen>>,
}

/// Descriptors by the type of what is convolved.
enum Typed {
    Single(Descriptors<f32>),
    Bf16(Descriptors<bf16>),
}

#[derive(Debug, Clone, Copy)]
struct Chosen {
    method: Method,
    /// Of its workspace.
    bytes: usize,
    /// That of the choices which led to it.
    generation: usize,
}

impl Known {
    fn of(gpu: &Gpu, key: Key, pass: &Pass<'_, CudaSlice<f32>>) -> Result<Rc<Self>> {
        if let Some(known) = KNOWN.with_borrow(|known| known.get(&key).cloned()) {
            return Ok(known);
        }
        let known = Rc::new(Self::new(gpu, &key.sizes, key.arithmetic.maths(), pass)?);
        KNOWN.with_borrow_mut(|all| all.insert(key, known.clone()));
        Ok(known)
    }

    fn new(
        gpu: &Gpu,
        sizes: &Sizes,
        maths: &[Math],
        pass: &Pass<'_, CudaSlice<f32>>,
    ) -> Result<Self> {
        let device = &gpu.device;
        let descriptors = match gpu.precision {
            Precision::Single => Typed::Single(Descriptors::new(device, sizes, maths)?),
            Precision::Bf16 => Typed::Bf16(Descriptors::new(device, sizes, maths)?),
        };
        Ok(Self {
            descriptors,
            methods: methods(pass, maths),
            chosen: Cell::new(None),
        })
    }

    fn bytes(&self, method: Method) -> std::result::Result<usize, Trouble> {
        match (method, &self.descriptors) {
            (Method::Product, _) => Ok(0),
            (Method::Cudnn(math, routine), Typed::Single(of)) => of.bytes(math, routine),
            (Method::Cudnn(math, routine), Typed::Bf16(of)) => of.bytes(math, routine),
        }
    }
}

/// One pass of a convolution at work.
struct Convolve<'a> {
    gpu: &'a Gpu,
    sizes: &'a Sizes,
    arithmetic: Arithmetic,
    known: &'a Known,
    pass: Pass<'a, CudaSlice<f32>>,
    out: &'a mut CudaSlice<f32>,
    /// The method of the last run.
    last: Option<Method>,
}

impl Convolve<'_> {
    /// With a workspace of this size.
    fn launch(
        &mut self,
        method: Method,
        room: &mut CudaSlice<u8>,
    ) -> std::result::Result<(), Trouble> {
        self.last = Some(method);
        let Method::Cudnn(math, routine) = method else {
            return Ok(by_product(self.gpu, self.sizes, self.pass, self.out)?);
        };
        let (n_out, n_operands) = self.sizes.n_of(&self.pass);
        let operands = self.pass.operands();
        match &self.known.descriptors {
            Typed::Single(of) => launch(
                of,
                (math, routine),
                room,
                operands,
                n_operands,
                (self.out, n_out),
            ),
            Typed::Bf16(of) => launch(
                of,
                (math, routine),
                room,
                operands,
                n_operands,
                (self.out, n_out),
            ),
        }
    }

    /// In the workspace of the device, which grows as it has to.
    fn run_in_room(&mut self, method: Method, bytes: usize) -> std::result::Result<(), Trouble> {
        let device = self.gpu.device.clone();
        ROOMS.with_borrow_mut(|rooms| {
            if rooms
                .get(&device.id())
                .is_none_or(|room| room.len() < bytes)
            {
                rooms.remove(&device.id());
                rooms.insert(device.id(), room(&device, bytes)?);
            }
            match rooms.get_mut(&device.id()) {
                Some(room) => self.launch(method, room),
                None => Err(Error::msg("conv2d: no workspace").into()),
            }
        })
    }
}

/// The first `n` values of activations.
fn read<'a, T>(values: Values<'a>, n: usize) -> Option<CudaView<'a, T>> {
    let view = values.memory.try_slice(values.offset..)?;
    // SAFETY: any bits are a value of `f32` and of bf16, the only types this is called with.
    unsafe { view.transmute::<T>(n) }
}

/// Runs a routine on operands and an output of so many values.
fn launch<T: Element>(
    of: &Descriptors<T>,
    routine: (Math, Routine),
    room: &mut CudaSlice<u8>,
    operands: [Values<'_>; 2],
    n_operands: [usize; 2],
    (out, n_out): (&mut CudaSlice<f32>, usize),
) -> std::result::Result<(), Trouble> {
    let too_small = || Error::msg("conv2d: a memory is smaller than its activations");
    let [first, second] = operands;
    let first = read::<T>(first, n_operands[0]).ok_or_else(too_small)?;
    let second = read::<T>(second, n_operands[1]).ok_or_else(too_small)?;
    // SAFETY: as in `read`.
    let out = unsafe { out.transmute_mut::<T>(n_out) };
    let mut out = out.ok_or_else(too_small)?;
    of.launch(routine, room, [&first, &second], &mut out)
}

/// A workspace. Where there is too little memory, an algorithm that needs less may do.
fn room(device: &CudaDevice, bytes: usize) -> std::result::Result<CudaSlice<u8>, Trouble> {
    // SAFETY: cuDNN takes it as it comes. Some devices cannot give none.
    let room = unsafe { device.alloc::<u8>(bytes.max(1)) };
    let mib = bytes.div_ceil(1 << 20);
    room.map_err(|error| {
        Trouble::Refused(format!("no memory for its workspace of {mib} MiB: {error}"))
    })
}

impl Work for Convolve<'_> {
    type Algorithm = Method;

    fn name(&self) -> String {
        let words = self.sizes.words(self.arithmetic.name());
        format!("{} {words}", self.pass.name())
    }

    fn run(&mut self, method: Method) -> std::result::Result<(), Trouble> {
        let bytes = self.known.bytes(method)?;
        self.run_in_room(method, bytes)
    }

    /// Of one of some runs in succession, in a workspace of its own.
    fn time(&mut self, method: Method) -> std::result::Result<f64, Trouble> {
        const RUNS: u32 = 10;
        /// Bytes of a workspace that no speed is worth more of.
        const MOST: usize = 1 << 30;
        let bytes = self.known.bytes(method)?;
        if bytes > MOST {
            let mib = bytes >> 20;
            return Err(Trouble::Refused(format!("a workspace of {mib} MiB")));
        }
        let mut room = room(&self.gpu.device, bytes)?;
        let stream = self.gpu.stream().clone();
        let failed = |error| Trouble::Failed(Error::wrap(error));
        let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
        // Each begins on an idle device, at work on a first run while the host tells it the others.
        stream.synchronize().map_err(failed)?;
        self.launch(method, &mut room)?;
        let begin = stream.record_event(flags).map_err(failed)?;
        for _ in 0..RUNS {
            self.launch(method, &mut room)?;
        }
        let end = stream.record_event(flags).map_err(failed)?;
        Ok(f64::from(begin.elapsed_ms(&end).map_err(failed)?) / 1e3 / f64::from(RUNS))
    }

    fn is_sound(&mut self) -> Result<Option<bool>> {
        // The last resort's result is what it is.
        if matches!(self.last, Some(Method::Product)) {
            return Ok(Some(true));
        }
        let status = self.gpu.stream().capture_status()?;
        // Work that is recorded has not been done.
        if status != CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE {
            return Ok(None);
        }
        let gpu = &self.gpu.without_pool();
        let (n_out, n_operands) = self.sizes.n_of(&self.pass);
        if worst(gpu, View::from(&*self.out), n_out)? != Worst::Nan {
            return Ok(Some(true));
        }
        for (operand, n) in self.pass.operands().into_iter().zip(n_operands) {
            if worst(gpu, operand, n)? != Worst::Finite {
                return Ok(None);
            }
        }
        tracing::warn!(
            work = self.name(),
            method = ?self.last,
            "cuDNN made NaN of numbers: this algorithm is not used for this convolution"
        );
        Ok(Some(false))
    }
}

/// A pass of a convolution.
pub(super) fn convolve(
    gpu: &Gpu,
    sizes: &Sizes,
    pass: Pass<'_, CudaSlice<f32>>,
    out: &mut CudaSlice<f32>,
) -> Result<()> {
    let arithmetic = Arithmetic::of(gpu.precision);
    let key = Key {
        device: gpu.device.id(),
        arithmetic,
        sizes: sizes.clone(),
        pass: pass.name(),
    };
    let known = Known::of(gpu, key, &pass)?;
    let generation = CHOICES.generation();
    let mut work = Convolve {
        gpu,
        sizes,
        arithmetic,
        known: &known,
        pass,
        out,
        last: None,
    };
    if let Some(chosen) = known.chosen.get()
        && chosen.generation == generation
    {
        match work.run_in_room(chosen.method, chosen.bytes) {
            Ok(()) => return Ok(()),
            Err(Trouble::Failed(error)) => {
                return Err(error.context(format!("conv2d by cuDNN: {}", work.name())));
            }
            // There is less memory than there was.
            Err(Trouble::Refused(why)) => {
                tracing::warn!(work = work.name(), why, "another algorithm is looked for");
            }
        }
    }
    let index = CHOICES.run(&mut work, &known.methods);
    let index = index.map_err(|error| error.context("conv2d by cuDNN"))?;
    let (method, name) = known.methods[index];
    if matches!(method, Method::Product) && CHOICES.get().is_none() {
        tracing::warn!(
            work = work.name(),
            "no deterministic algorithm of cuDNN's does this: it is done as a {name} of patches, which takes more time and memory"
        );
    }
    // What has not been checked yet goes through the choices again.
    if !CHOICES.is_sound(&work.name(), name) {
        return Ok(());
    }
    let bytes = match known.bytes(method) {
        Ok(bytes) => bytes,
        Err(_) => return Ok(()),
    };
    known.chosen.set(Some(Chosen {
        method,
        bytes,
        generation,
    }));
    Ok(())
}

/// What came of one way to do a pass: seconds of a run, and whether no NaN came out.
pub(super) type Tried = std::result::Result<(f64, Option<bool>), Trouble>;

/// Tries every way to do a pass of a convolution, and calls `see` with its name and what came of it.
pub(super) fn try_all(
    gpu: &Gpu,
    sizes: &Sizes,
    arithmetic: Arithmetic,
    pass: Pass<'_, CudaSlice<f32>>,
    out: &mut CudaSlice<f32>,
    see: &mut dyn FnMut(&str, Tried),
) -> Result<()> {
    let known = Known::new(gpu, sizes, arithmetic.probed_maths(), &pass)?;
    let mut work = Convolve {
        gpu,
        sizes,
        arithmetic,
        known: &known,
        pass,
        out,
        last: None,
    };
    for &(method, name) in &known.methods {
        let tried = work.time(method);
        see(
            name,
            tried.and_then(|seconds| Ok((seconds, work.is_sound()?))),
        );
    }
    Ok(())
}

/// The output.
pub(super) fn forward(
    gpu: &Gpu,
    g: &Geometry,
    input: Values<'_>,
    weight: Values<'_>,
) -> Result<Lot> {
    of_maps(gpu, g, Pass::Forward { input, weight })
}

/// The gradient of the images.
pub(super) fn images_gradient(
    gpu: &Gpu,
    g: &Geometry,
    gradient: Values<'_>,
    weight: Values<'_>,
) -> Result<Lot> {
    of_maps(gpu, g, Pass::OfInput { gradient, weight })
}

/// The gradient of the weight.
pub(super) fn weight_gradient(
    gpu: &Gpu,
    g: &Geometry,
    gradient: Values<'_>,
    input: Values<'_>,
) -> Result<Lot> {
    of_maps(gpu, g, Pass::OfWeight { gradient, input })
}

/// A pass of a convolution of maps N×C×H×W.
fn of_maps(gpu: &Gpu, g: &Geometry, pass: Pass<'_, CudaSlice<f32>>) -> Result<Lot> {
    let sizes = Sizes::from(g);
    let mut out = gpu.alloc(sizes.n_of(&pass).0)?;
    convolve(gpu, &sizes, pass, &mut out)?;
    Ok(out)
}
