//! What the libraries on a machine are, and what each of cuDNN's algorithms makes of the convolutions of our networks.

use candle_core::cuda_backend::cudarc::cublas::sys::cublasGetVersion_v2;
use candle_core::cuda_backend::cudarc::cudnn::result::{get_cudart_version, get_version};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{Device, Error, Result, Tensor};

use super::choices::Trouble;
use super::convolution::{Layout, Sizes};
use super::cuda::{self, Gpu};
use super::cudnn::{Arithmetic, try_all};
use super::machine::{Machine as _, Pass, View, pack};
use super::memory::Lot;
use super::nvrtc::{driver_version, nvrtc_version};
use super::rows::{WeightShape, pack_weight_to};
use super::set_exact_f32;
use crate::Precision;

/// One way to do one pass of a convolution, tried.
#[derive(Debug, Clone, PartialEq)]
pub struct ConvolutionTrial {
    /// The pass and the convolution, in words.
    pub work: String,
    /// The algorithm, with its arithmetic where there is a choice.
    pub method: String,
    /// `ok`, why it refuses, or what failed.
    pub status: String,
    /// The mean of some runs.
    pub milliseconds: Option<f64>,
    /// Whether NaN came out, as none went in.
    pub makes_nan: Option<bool>,
}

/// The GPU and the libraries that this process has loaded for it, as names and versions.
///
/// # Errors
/// A device that is no CUDA device, or what it reports.
pub fn cuda_versions(device: &Device) -> Result<Vec<(&'static str, String)>> {
    let device = device.as_cuda_device()?;
    let stream = device.cuda_stream();
    let context = stream.context();
    let (major, minor) = context.compute_capability().map_err(Error::wrap)?;
    let (free, total) = context.mem_get_info().map_err(Error::wrap)?;
    let (driver, nvrtc) = (driver_version()?, nvrtc_version()?);
    let mut cublas = 0;
    // SAFETY: the handle lives, and one number is written.
    let status = unsafe { cublasGetVersion_v2(*device.cublas_handle().handle(), &raw mut cublas) };
    status.result().map_err(Error::wrap)?;
    Ok(vec![
        ("GPU", context.name().map_err(Error::wrap)?),
        ("compute capability", format!("{major}.{minor}")),
        (
            "memory",
            format!("{} MiB, {} MiB free", total >> 20, free >> 20),
        ),
        ("driver", format!("CUDA {}.{}", driver.0, driver.1)),
        ("NVRTC", format!("CUDA {}.{}", nvrtc.0, nvrtc.1)),
        ("cuBLAS", cublas.to_string()),
        ("cuDNN", get_version().to_string()),
        ("cuDNN's CUDA runtime", get_cudart_version().to_string()),
    ])
}

/// Layout, side, inputs, outputs, kernel, stride and padding of the convolutions of DenseNet121, its top network, and a
/// ResNet-50. Images by rows have one pack of channels.
type Shape = (Layout, usize, Option<usize>, usize, usize, usize, usize);
const SHAPES: [Shape; 12] = [
    (Layout::Nhwc, 224, None, 64, 7, 2, 3),
    (Layout::Nhwc, 56, Some(128), 32, 3, 1, 1),
    (Layout::Nhwc, 28, Some(128), 32, 3, 1, 1),
    (Layout::Nhwc, 14, Some(128), 32, 3, 1, 1),
    (Layout::Nhwc, 7, Some(128), 32, 3, 1, 1),
    (Layout::Nhwc, 56, Some(64), 64, 3, 1, 1),
    (Layout::Nhwc, 56, Some(128), 128, 3, 2, 1),
    (Layout::Nchw, 224, Some(3), 64, 7, 2, 3),
    (Layout::Nchw, 56, Some(128), 32, 3, 1, 1),
    (Layout::Nchw, 14, Some(1024), 512, 1, 1, 0),
    (Layout::Nchw, 7, Some(1024), 256, 3, 1, 0),
    (Layout::Nchw, 5, Some(256), 128, 3, 1, 0),
];

/// Tries every algorithm on every pass of twelve convolutions of so many images, in single precision, TF32 and, by rows, in
/// bf16, and calls `see` with each. What fails is seen too, and ends nothing.
///
/// # Errors
/// A device that is no CUDA device, kernels that cannot be loaded, or too little memory for a convolution's values.
pub fn cuda_probe(
    device: &Device,
    images: usize,
    see: &mut dyn FnMut(&ConvolutionTrial),
) -> Result<()> {
    for arithmetic in [Arithmetic::Bf16, Arithmetic::Tf32, Arithmetic::F32] {
        set_exact_f32(arithmetic == Arithmetic::F32);
        let precision = match arithmetic {
            Arithmetic::Bf16 => Precision::Bf16,
            _ => Precision::Single,
        };
        let gpu = Gpu::new(device.as_cuda_device()?, precision)?;
        for shape in SHAPES {
            // Maps are single precision.
            if shape.0 == Layout::Nchw && precision == Precision::Bf16 {
                continue;
            }
            probe(
                &gpu,
                device,
                &sizes(shape, images, precision),
                arithmetic,
                see,
            )?;
        }
    }
    set_exact_f32(false);
    Ok(())
}

fn sizes(
    (layout, side, inputs, outputs, kernel, stride, padding): Shape,
    images: usize,
    precision: Precision,
) -> Sizes {
    let out = (side + 2 * padding - kernel) / stride + 1;
    Sizes {
        layout,
        images,
        inputs: inputs.unwrap_or(pack(precision)),
        height: side,
        width: side,
        outputs,
        kernel: [kernel; 2],
        height_out: out,
        width_out: out,
        stride,
        padding,
    }
}

/// Standard normal activations.
fn noise(gpu: &Gpu, device: &Device, n: usize) -> Result<Lot> {
    let values = Tensor::randn(0f32, 1., n, device)?;
    let mut out = gpu.alloc_activations(n)?;
    // A weight of one tap is taken over as it is.
    let shape = WeightShape {
        outputs: 1,
        inputs: n,
        taps: 1,
        packed_inputs: n,
    };
    cuda::with_values([&values], "probe", |_, [values]| {
        pack_weight_to(gpu, values, shape, &mut out)
    })?;
    Ok(out)
}

fn probe(
    gpu: &Gpu,
    device: &Device,
    sizes: &Sizes,
    arithmetic: Arithmetic,
    see: &mut dyn FnMut(&ConvolutionTrial),
) -> Result<()> {
    let input = noise(gpu, device, sizes.n_input())?;
    let weight = noise(gpu, device, sizes.n_weight())?;
    let gradient = noise(gpu, device, sizes.n_output())?;
    let [input, weight, gradient]: [View<'_, CudaSlice<f32>>; 3] =
        [&input, &weight, &gradient].map(|lot| View::from(&**lot));
    for pass in [
        Pass::Forward { input, weight },
        Pass::OfInput { gradient, weight },
        Pass::OfWeight { gradient, input },
    ] {
        let mut out = gpu.alloc_activations(sizes.n_of(&pass).0)?;
        let work = format!("{} {}", pass.name(), sizes.words(arithmetic.name()));
        try_all(
            gpu,
            sizes,
            arithmetic,
            pass,
            &mut out,
            &mut |method, tried| {
                let (status, milliseconds, makes_nan) = match tried {
                    Ok((seconds, is_sound)) => (
                        "ok".to_owned(),
                        Some(1e3 * seconds),
                        is_sound.map(|is_sound| !is_sound),
                    ),
                    Err(Trouble::Refused(why)) => (why, None, None),
                    Err(Trouble::Failed(error)) => (format!("FAILED: {error}"), None, None),
                };
                see(&ConvolutionTrial {
                    work: work.clone(),
                    method: method.to_owned(),
                    status,
                    milliseconds,
                    makes_nan,
                });
            },
        )?;
    }
    Ok(())
}
