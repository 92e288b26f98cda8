//! Convolutions by cuDNN.
//!
//! The algorithms are cuDNN's deterministic ones. Products are TF32, with a tenth of the mantissa of single precision and
//! single-precision sums, unless [`set_exact_f32`](super::set_exact_f32) asks for all of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use candle_core::cuda_backend::DeviceId;
use candle_core::cuda_backend::cudarc::cudnn::sys::{
    cudnnConvolutionBwdDataAlgo_t as DataAlgorithm,
    cudnnConvolutionBwdFilterAlgo_t as FilterAlgorithm, cudnnConvolutionFwdAlgo_t as Algorithm,
    cudnnConvolutionMode_t as Mode, cudnnMathType_t as Math, cudnnTensorFormat_t as Format,
};
use candle_core::cuda_backend::cudarc::cudnn::{
    ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, FilterDescriptor,
    TensorDescriptor,
};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView};
use candle_core::{CudaDevice, Error, Result};

use super::cuda::Values;
use super::is_exact_f32;
use super::machine::Machine;
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

/// What cuDNN knows of one convolution.
struct Descriptors {
    images: TensorDescriptor<f32>,
    weight: FilterDescriptor<f32>,
    output: TensorDescriptor<f32>,
    convolution: ConvDescriptor<f32>,
}

impl Descriptors {
    fn new(device: &CudaDevice, g: &Geometry) -> Result<Self> {
        let handle = handle(device)?;
        let ints = |sizes: [usize; 4]| -> Result<[i32; 4]> {
            let ints = sizes.map(i32::try_from);
            match ints {
                [Ok(a), Ok(b), Ok(c), Ok(d)] => Ok([a, b, c, d]),
                _ => candle_core::bail!("conv2d: sizes {sizes:?} are too large for cuDNN"),
            }
        };
        let nchw = Format::CUDNN_TENSOR_NCHW;
        let [padding, stride, one, _] = ints([g.padding, g.stride, 1, 1])?;
        let mut convolution = handle
            .create_conv2d::<f32>(
                [padding; 2],
                [stride; 2],
                [one; 2],
                Mode::CUDNN_CROSS_CORRELATION,
            )
            .map_err(Error::wrap)?;
        let math = if is_exact_f32() {
            Math::CUDNN_FMA_MATH
        } else {
            Math::CUDNN_TENSOR_OP_MATH
        };
        convolution.set_math_type(math).map_err(Error::wrap)?;
        let tensor = |sizes| -> Result<_> {
            let sizes = ints(sizes)?;
            handle
                .create_4d_tensor::<f32>(nchw, sizes)
                .map_err(Error::wrap)
        };
        let filter = ints([g.maps_out, g.maps_in, g.kernel_height, g.kernel_width])?;
        Ok(Self {
            images: tensor([g.images, g.maps_in, g.height, g.width])?,
            weight: handle
                .create_4d_filter::<f32>(nchw, filter)
                .map_err(Error::wrap)?,
            output: tensor([g.images, g.maps_out, g.height_out, g.width_out])?,
            convolution,
        })
    }
}

fn view<'a>(values: Values<'a>) -> CudaView<'a, f32> {
    values.memory.slice(values.offset..)
}

fn workspace(device: &CudaDevice, bytes: usize) -> Result<CudaSlice<u8>> {
    // SAFETY: cuDNN takes it as it comes.
    unsafe { device.alloc::<u8>(bytes) }
}

const ONCE: (f32, f32) = (1., 0.);

/// The output.
pub(super) fn forward(
    device: &CudaDevice,
    g: &Geometry,
    images: Values<'_>,
    weight: Values<'_>,
) -> Result<CudaSlice<f32>> {
    let of = Descriptors::new(device, g)?;
    let call = ConvForward {
        conv: &of.convolution,
        x: &of.images,
        w: &of.weight,
        y: &of.output,
    };
    let algorithm = Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
    let bytes = call.get_workspace_size(algorithm).map_err(Error::wrap)?;
    let mut room = workspace(device, bytes)?;
    let mut output = Machine::alloc(device, g.images * g.maps_out * g.pixels_out())?;
    // SAFETY: the three are contiguous and of the described sizes.
    unsafe {
        call.launch(
            algorithm,
            Some(&mut room),
            ONCE,
            &view(images),
            &view(weight),
            &mut output,
        )
    }
    .map_err(Error::wrap)?;
    Ok(output)
}

/// The gradient of the images.
pub(super) fn images_gradient(
    device: &CudaDevice,
    g: &Geometry,
    gradient: Values<'_>,
    weight: Values<'_>,
) -> Result<CudaSlice<f32>> {
    let of = Descriptors::new(device, g)?;
    let call = ConvBackwardData {
        conv: &of.convolution,
        dx: &of.images,
        w: &of.weight,
        dy: &of.output,
    };
    let algorithm = DataAlgorithm::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
    let bytes = call.get_workspace_size(algorithm).map_err(Error::wrap)?;
    let mut room = workspace(device, bytes)?;
    let mut result = Machine::alloc(device, g.images * g.image_values())?;
    // SAFETY: as in `forward`.
    unsafe {
        call.launch(
            algorithm,
            Some(&mut room),
            ONCE,
            &mut result,
            &view(weight),
            &view(gradient),
        )
    }
    .map_err(Error::wrap)?;
    Ok(result)
}

/// The gradient of the weight.
pub(super) fn weight_gradient(
    device: &CudaDevice,
    g: &Geometry,
    gradient: Values<'_>,
    images: Values<'_>,
) -> Result<CudaSlice<f32>> {
    let of = Descriptors::new(device, g)?;
    let call = ConvBackwardFilter {
        conv: &of.convolution,
        x: &of.images,
        dw: &of.weight,
        dy: &of.output,
    };
    let algorithm = FilterAlgorithm::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;
    let bytes = call.get_workspace_size(algorithm).map_err(Error::wrap)?;
    let mut room = workspace(device, bytes)?;
    let mut result = Machine::alloc(device, g.maps_out * g.patch_rows())?;
    // SAFETY: as in `forward`.
    unsafe {
        call.launch(
            algorithm,
            Some(&mut room),
            ONCE,
            &view(images),
            &mut result,
            &view(gradient),
        )
    }
    .map_err(Error::wrap)?;
    Ok(result)
}
