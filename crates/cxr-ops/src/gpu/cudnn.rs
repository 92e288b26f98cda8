//! Convolutions by cuDNN.
//!
//! The algorithms are cuDNN's deterministic ones, the first that takes the convolution at hand or, after
//! [`set_autotune`](super::set_autotune), the fastest. Sums are single precision. Products of single-precision numbers are
//! TF32, with ten bits of fraction instead of 23, unless [`set_exact_f32`](super::set_exact_f32) asks for all.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgorithm,
    cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm, cudnnConvolutionFwdAlgo_t as Algorithm,
    cudnnConvolutionMode_t as Mode, cudnnMathType_t as Math, cudnnStatus_t as Status,
    cudnnTensorFormat_t as Format,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType,
    CudnnError, FilterDescriptor, TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
use candle_core::{CudaDevice, Error, Result, bail};
use half::bf16;

use super::choices::Act;
use super::cuda::{Gpu, Values};
use super::is_exact_f32;
use super::machine::{Convolution, Machine, Pass};
use crate::Precision;
use crate::conv::Geometry;

thread_local! {
    /// A handle belongs to a thread and a stream.
    static HANDLES: RefCell<HashMap<DeviceId, Arc<Cudnn>>> = RefCell::default();
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

/// A type of convolved values.
trait Element: CudnnDataType + Copy {
    /// The result is written once, and nothing is added to it.
    const ONCE: (Self, Self);
    /// Whether it can be multiplied in more than one precision.
    const HAS_TF32: bool;

    /// How it is multiplied.
    fn name() -> &'static str {
        match (Self::HAS_TF32, is_exact_f32()) {
            (true, true) => "f32",
            (true, false) => "TF32",
            (false, _) => "bf16",
        }
    }
}

impl Element for f32 {
    const ONCE: (Self, Self) = (1., 0.);
    const HAS_TF32: bool = true;
}

impl Element for bf16 {
    const ONCE: (Self, Self) = (bf16::ONE, bf16::ZERO);
    const HAS_TF32: bool = false;
}

/// The sizes of a convolution, and how its values are laid out.
struct Sizes {
    format: Format,
    images: usize,
    maps_in: usize,
    height: usize,
    width: usize,
    maps_out: usize,
    kernel: [usize; 2],
    height_out: usize,
    width_out: usize,
    stride: usize,
    padding: usize,
}

impl From<&Geometry> for Sizes {
    fn from(g: &Geometry) -> Self {
        Self {
            format: Format::CUDNN_TENSOR_NCHW,
            images: g.images,
            maps_in: g.maps_in,
            height: g.height,
            width: g.width,
            maps_out: g.maps_out,
            kernel: [g.kernel_height, g.kernel_width],
            height_out: g.height_out,
            width_out: g.width_out,
            stride: g.stride,
            padding: g.padding,
        }
    }
}

impl From<&Convolution> for Sizes {
    fn from(c: &Convolution) -> Self {
        Self {
            format: Format::CUDNN_TENSOR_NHWC,
            images: c.images,
            maps_in: c.inputs,
            height: c.height,
            width: c.width,
            maps_out: c.outputs,
            kernel: [c.kernel; 2],
            height_out: c.height_out(),
            width_out: c.width_out(),
            stride: c.stride,
            padding: c.padding,
        }
    }
}

impl Sizes {
    fn words(&self, dtype: &str) -> String {
        let layout = match self.format {
            Format::CUDNN_TENSOR_NHWC => "NHWC",
            _ => "NCHW",
        };
        let Self {
            images,
            height,
            width,
            maps_in,
            maps_out,
            kernel: [rows, columns],
            stride,
            padding,
            ..
        } = self;
        format!(
            "{layout} {dtype} {images}×{height}×{width}×{maps_in} by {maps_out}×{rows}×{columns}/{stride}+{padding}"
        )
    }
}

/// Algorithms that give the same bits every time, in the order in which they are tried where nothing is timed.
const FORWARD: [(Algorithm, &str); 6] = [
    (
        Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
        "implicit-precomputed-gemm",
    ),
    (
        Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
        "implicit-gemm",
    ),
    (Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_GEMM, "gemm"),
    (Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD, "winograd"),
    (
        Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_WINOGRAD_NONFUSED,
        "winograd-nonfused",
    ),
    (
        Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_FFT_TILING,
        "fft-tiling",
    ),
];

/// As [`FORWARD`]; algorithm 0 adds in any order.
const OF_IMAGES: [(DataAlgorithm, &str); 4] = [
    (DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1, "1"),
    (
        DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD_NONFUSED,
        "winograd-nonfused",
    ),
    (
        DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_WINOGRAD,
        "winograd",
    ),
    (
        DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_FFT_TILING,
        "fft-tiling",
    ),
];

/// As [`FORWARD`]; algorithms 0 and 3 add in any order.
const OF_WEIGHT: [(FilterAlgorithm, &str); 3] = [
    (FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1, "1"),
    (
        FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_WINOGRAD_NONFUSED,
        "winograd-nonfused",
    ),
    (
        FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_FFT_TILING,
        "fft-tiling",
    ),
];

/// What cuDNN knows of one convolution.
struct Descriptors<T> {
    images: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    output: TensorDescriptor<T>,
    convolution: ConvDescriptor<f32>,
    /// The convolution in words, as choices by timing are kept.
    words: String,
}

impl<T: Element> Descriptors<T> {
    fn new(device: &CudaDevice, sizes: &Sizes) -> Result<Self> {
        let handle = handle(device)?;
        let ints = |sizes: [usize; 4]| -> Result<[i32; 4]> {
            match sizes.map(i32::try_from) {
                [Ok(a), Ok(b), Ok(c), Ok(d)] => Ok([a, b, c, d]),
                _ => bail!("conv2d: sizes {sizes:?} are too large for cuDNN"),
            }
        };
        let s = sizes;
        let [padding, stride, one, _] = ints([s.padding, s.stride, 1, 1])?;
        let mode = Mode::CUDNN_CROSS_CORRELATION;
        let mut convolution = handle
            .create_conv2d::<f32>([padding; 2], [stride; 2], [one; 2], mode)
            .map_err(Error::wrap)?;
        // By default cuDNN multiplies on tensor cores: single precision as TF32, bf16 as it is.
        let math = match T::HAS_TF32 && is_exact_f32() {
            true => Math::CUDNN_FMA_MATH,
            false => Math::CUDNN_DEFAULT_MATH,
        };
        convolution.set_math_type(math).map_err(Error::wrap)?;
        let tensor = |sizes| -> Result<_> {
            let sizes = ints(sizes)?;
            handle
                .create_4d_tensor::<T>(s.format, sizes)
                .map_err(Error::wrap)
        };
        let filter = ints([s.maps_out, s.maps_in, s.kernel[0], s.kernel[1]])?;
        Ok(Self {
            images: tensor([s.images, s.maps_in, s.height, s.width])?,
            weight: handle
                .create_4d_filter::<T>(s.format, filter)
                .map_err(Error::wrap)?,
            output: tensor([s.images, s.maps_out, s.height_out, s.width_out])?,
            convolution,
            words: sizes.words(T::name()),
        })
    }

    fn forward(
        &self,
        device: &CudaDevice,
        images: &CudaView<'_, T>,
        weight: &CudaView<'_, T>,
        output: &mut CudaViewMut<'_, T>,
    ) -> Result<()> {
        let call = ConvForward {
            conv: &self.convolution,
            x: &self.images,
            w: &self.weight,
            y: &self.output,
        };
        let bytes = |algorithm| call.get_workspace_size(algorithm);
        by_one_of(
            device,
            ("forward", &self.words),
            &FORWARD,
            bytes,
            |algorithm, room| {
                // SAFETY: the three are of the described sizes.
                unsafe { call.launch(algorithm, Some(room), T::ONCE, images, weight, output) }
            },
        )
    }

    fn of_images(
        &self,
        device: &CudaDevice,
        gradient: &CudaView<'_, T>,
        weight: &CudaView<'_, T>,
        result: &mut CudaViewMut<'_, T>,
    ) -> Result<()> {
        let call = ConvBackwardData {
            conv: &self.convolution,
            dx: &self.images,
            w: &self.weight,
            dy: &self.output,
        };
        let bytes = |algorithm| call.get_workspace_size(algorithm);
        let work = ("images' gradient", self.words.as_str());
        by_one_of(device, work, &OF_IMAGES, bytes, |algorithm, room| {
            // SAFETY: as in `forward`.
            unsafe { call.launch(algorithm, Some(room), T::ONCE, result, weight, gradient) }
        })
    }

    fn of_weight(
        &self,
        device: &CudaDevice,
        gradient: &CudaView<'_, T>,
        images: &CudaView<'_, T>,
        result: &mut CudaViewMut<'_, T>,
    ) -> Result<()> {
        let call = ConvBackwardFilter {
            conv: &self.convolution,
            x: &self.images,
            dw: &self.weight,
            dy: &self.output,
        };
        let bytes = |algorithm| call.get_workspace_size(algorithm);
        let work = ("weight's gradient", self.words.as_str());
        by_one_of(device, work, &OF_WEIGHT, bytes, |algorithm, room| {
            // SAFETY: as in `forward`.
            unsafe { call.launch(algorithm, Some(room), T::ONCE, images, result, gradient) }
        })
    }
}

/// Does one pass of a convolution, given in words, by one of these algorithms, each of which needs a workspace of some
/// bytes.
fn by_one_of<A: Copy>(
    device: &CudaDevice,
    (pass, words): (&str, &str),
    algorithms: &[(A, &'static str)],
    bytes: impl Fn(A) -> std::result::Result<usize, CudnnError>,
    mut launch: impl FnMut(A, &mut CudaSlice<u8>) -> std::result::Result<(), CudnnError>,
) -> Result<()> {
    let work = || format!("{pass} {words}");
    let done = super::settings::CHOICES.run(work, algorithms, |algorithm, act| {
        let mut room = workspace(device, bytes(algorithm)?)?;
        let mut once = || launch(algorithm, &mut room);
        match act {
            Act::Do => once().map(|()| 0.),
            Act::Time => time(device, &mut once),
        }
    });
    done.map_err(|error| error.context("conv2d by cuDNN"))
}

/// Seconds of one of some runs in succession.
fn time(
    device: &CudaDevice,
    once: &mut dyn FnMut() -> std::result::Result<(), CudnnError>,
) -> std::result::Result<f64, CudnnError> {
    const RUNS: u32 = 10;
    let stream = device.cuda_stream();
    // cuDNN's error stands for the driver's, which would be the same for every algorithm.
    let failed = |_| CudnnError(Status::CUDNN_STATUS_EXECUTION_FAILED);
    let flags = Some(CUevent_flags::CU_EVENT_DEFAULT);
    // Each begins on an idle device, at work on a first run while the host tells it the others.
    stream.synchronize().map_err(failed)?;
    once()?;
    let begin = stream.record_event(flags).map_err(failed)?;
    for _ in 0..RUNS {
        once()?;
    }
    let end = stream.record_event(flags).map_err(failed)?;
    Ok(f64::from(begin.elapsed_ms(&end).map_err(failed)?) / 1e3 / f64::from(RUNS))
}

/// Where there is too little memory, an algorithm that needs less may do, as where timing chooses and one asks for more
/// than its speed is worth.
fn workspace(device: &CudaDevice, bytes: usize) -> std::result::Result<CudaSlice<u8>, CudnnError> {
    const MOST: usize = 1 << 30;
    if bytes > MOST && super::settings::CHOICES.get().is_some() {
        return Err(CudnnError(Status::CUDNN_STATUS_ALLOC_FAILED));
    }
    // SAFETY: cuDNN takes it as it comes. Some devices cannot give none.
    let room = unsafe { device.alloc::<u8>(bytes.max(1)) };
    room.map_err(|_| CudnnError(Status::CUDNN_STATUS_ALLOC_FAILED))
}

fn view<'a>(values: Values<'a>) -> CudaView<'a, f32> {
    values.memory.slice(values.offset..)
}

/// The output.
pub(super) fn forward(
    gpu: &Gpu,
    g: &Geometry,
    images: Values<'_>,
    weight: Values<'_>,
) -> Result<CudaSlice<f32>> {
    let mut output = gpu.alloc(g.images * g.maps_out * g.pixels_out())?;
    let of = Descriptors::new(&gpu.device, &g.into())?;
    let out = &mut output.slice_mut(..);
    of.forward(&gpu.device, &view(images), &view(weight), out)?;
    Ok(output)
}

/// The gradient of the images.
pub(super) fn images_gradient(
    gpu: &Gpu,
    g: &Geometry,
    gradient: Values<'_>,
    weight: Values<'_>,
) -> Result<CudaSlice<f32>> {
    let mut result = gpu.alloc(g.images * g.image_values())?;
    let of = Descriptors::new(&gpu.device, &g.into())?;
    let out = &mut result.slice_mut(..);
    of.of_images(&gpu.device, &view(gradient), &view(weight), out)?;
    Ok(result)
}

/// The gradient of the weight.
pub(super) fn weight_gradient(
    gpu: &Gpu,
    g: &Geometry,
    gradient: Values<'_>,
    images: Values<'_>,
) -> Result<CudaSlice<f32>> {
    let mut result = gpu.alloc(g.maps_out * g.patch_rows())?;
    let of = Descriptors::new(&gpu.device, &g.into())?;
    let out = &mut result.slice_mut(..);
    of.of_weight(&gpu.device, &view(gradient), &view(images), out)?;
    Ok(result)
}

/// A convolution of rows.
pub(super) fn convolve(
    gpu: &Gpu,
    convolution: &Convolution,
    pass: Pass<'_, CudaSlice<f32>>,
    out: &mut CudaSlice<f32>,
) -> Result<()> {
    match gpu.precision {
        Precision::Single => convolve_as::<f32>(gpu, convolution, pass, out),
        Precision::Bf16 => convolve_as::<bf16>(gpu, convolution, pass, out),
    }
}

/// The first `n` values of a memory of activations.
fn read<T>(memory: &CudaSlice<f32>, n: usize) -> Option<CudaView<'_, T>> {
    // SAFETY: any bits are a value of `f32` and of bf16, the only types this is called with.
    unsafe { memory.transmute::<T>(n) }
}

fn convolve_as<T: Element>(
    gpu: &Gpu,
    c: &Convolution,
    pass: Pass<'_, CudaSlice<f32>>,
    out: &mut CudaSlice<f32>,
) -> Result<()> {
    let of = Descriptors::<T>::new(&gpu.device, &c.into())?;
    let n_images = c.images * c.height * c.width * c.inputs;
    let n_weight = c.outputs * c.kernel * c.kernel * c.inputs;
    let n_output = c.images * c.height_out() * c.width_out() * c.outputs;
    let too_small = || Error::msg("conv2d: a memory is smaller than its activations");
    let n_out = match pass {
        Pass::Forward { .. } => n_output,
        Pass::OfInput { .. } => n_images,
        Pass::OfWeight { .. } => n_weight,
    };
    // SAFETY: as in `read`.
    let out = unsafe { out.transmute_mut::<T>(n_out) };
    let out = &mut out.ok_or_else(too_small)?;
    match pass {
        Pass::Forward { input, weight } => {
            let input = read(input, n_images).ok_or_else(too_small)?;
            let weight = read(weight, n_weight).ok_or_else(too_small)?;
            of.forward(&gpu.device, &input, &weight, out)
        }
        Pass::OfInput { gradient, weight } => {
            let gradient = read(gradient, n_output).ok_or_else(too_small)?;
            let weight = read(weight, n_weight).ok_or_else(too_small)?;
            of.of_images(&gpu.device, &gradient, &weight, out)
        }
        Pass::OfWeight { gradient, input } => {
            let gradient = read(gradient, n_output).ok_or_else(too_small)?;
            let input = read(input, n_images).ok_or_else(too_small)?;
            of.of_weight(&gpu.device, &gradient, &input, out)
        }
    }
}
