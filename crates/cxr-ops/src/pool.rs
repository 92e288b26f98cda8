//! Max and average pooling.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::cpu::{values, with_values};

/// The maximum over `kernel`×`kernel` windows of `N×C×H×W`, `stride` apart, after `padding` cells
/// of −∞ on every side: `N×C×H'×W'` with `H' = (H + 2·padding − kernel) / stride + 1` rounded down.
///
/// The gradient goes to the first maximum of a window in reading order, as in PyTorch; windows
/// may overlap. A NaN in a window is its maximum.
///
/// # Errors
/// A kernel or stride of 0, padding above half the kernel (a window of padding alone has no
/// maximum), a kernel larger than the padded image, another type than `f32`, or a device that
/// is neither the CPU nor, with the feature `cuda`, a CUDA device.
pub fn max_pool2d(images: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    if 2 * padding > kernel {
        bail!("max_pool2d: expected padding of at most half the kernel {kernel}, got {padding}");
    }
    let windows = Windows::new("max_pool2d", images.dims4()?, kernel, stride, padding)?;
    images.contiguous()?.apply_op1(MaxPool2d(windows))
}

/// The mean of neighbouring `kernel`×`kernel` windows of `N×C×H×W`: `N×C×⌊H/kernel⌋×⌊W/kernel⌋`.
/// Rows and columns that fill no window are left out, as in PyTorch.
///
/// # Errors
/// A kernel of 0 or larger than the image, another type than `f32`, or a device that is
/// neither the CPU nor, with the feature `cuda`, a CUDA device.
pub fn avg_pool2d(images: &Tensor, kernel: usize) -> Result<Tensor> {
    let windows = Windows::new("avg_pool2d", images.dims4()?, kernel, kernel, 0)?;
    images.contiguous()?.apply_op1(AveragePool2d(windows))
}

/// All sizes of one pooling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) height_out: usize,
    pub(crate) width_out: usize,
}

impl Windows {
    pub(crate) fn new(
        op: &'static str,
        (images, channels, height, width): (usize, usize, usize, usize),
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Result<Self> {
        if kernel == 0 || stride == 0 || images * channels == 0 {
            bail!("{op}: expected kernel, stride, images and channels of at least 1");
        }
        let (padded_height, padded_width) = (height + 2 * padding, width + 2 * padding);
        if kernel > padded_height || kernel > padded_width {
            bail!(
                "{op}: kernel {kernel} does not fit the padded image {padded_height}×{padded_width}"
            );
        }
        Ok(Self {
            images,
            channels,
            height,
            width,
            kernel,
            stride,
            padding,
            height_out: (padded_height - kernel) / stride + 1,
            width_out: (padded_width - kernel) / stride + 1,
        })
    }

    pub(crate) fn shape_out(&self) -> Shape {
        (self.images, self.channels, self.height_out, self.width_out).into()
    }

    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    pub(crate) fn pixels_out(&self) -> usize {
        self.height_out * self.width_out
    }

    /// Fills every output plane from its input plane, in parallel over planes.
    fn pool(&self, input: &[f32], plane: impl Fn(&[f32], &mut [f32]) + Sync) -> CpuStorage {
        let mut output = vec![0f32; self.images * self.channels * self.pixels_out()];
        output
            .par_chunks_mut(self.pixels_out())
            .zip(input.par_chunks(self.pixels()))
            .for_each(|(output, input)| plane(input, output));
        CpuStorage::F32(output)
    }

    /// Along one axis: the cells of window `index` that lie inside the image.
    fn cells(&self, index: usize, size: usize) -> std::ops::Range<usize> {
        let start = index * self.stride;
        start.saturating_sub(self.padding)..(start + self.kernel - self.padding).min(size)
    }

    /// The position of a window's first maximum.
    fn argmax(&self, plane: &[f32], row: usize, column: usize) -> usize {
        let mut best = None;
        for y in self.cells(row, self.height) {
            for x in self.cells(column, self.width) {
                let here = y * self.width + x;
                let beaten = best.is_none_or(|best: usize| {
                    plane[here] > plane[best] || plane[here].is_nan() && !plane[best].is_nan()
                });
                if beaten {
                    best = Some(here);
                }
            }
        }
        // Padding of at most half the kernel leaves every window at least one cell.
        best.unwrap_or(0)
    }
}

struct MaxPool2d(Windows);

impl CustomOp1 for MaxPool2d {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = &self.0;
        let output = w.pool(values(input, layout, self.name())?, |input, output| {
            for (row, output) in output.chunks_exact_mut(w.width_out).enumerate() {
                for (column, output) in output.iter_mut().enumerate() {
                    *output = input[w.argmax(input, row, column)];
                }
            }
        });
        Ok((output, w.shape_out()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        input: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        crate::gpu::max_pool2d(&self.0, (input, layout))
    }

    fn bwd(&self, input: &Tensor, _output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let w = &self.0;
        let gradient = gradient.contiguous()?;
        #[cfg(feature = "cuda")]
        if gradient.device().is_cuda() {
            return crate::gpu::max_pool2d_gradient(w, input, &gradient).map(Some);
        }
        let mut result = vec![0f32; input.elem_count()];
        with_values(&gradient, self.name(), |gradient| {
            with_values(input, self.name(), |input| {
                result
                    .par_chunks_mut(w.pixels())
                    .zip(
                        input
                            .par_chunks(w.pixels())
                            .zip(gradient.par_chunks(w.pixels_out())),
                    )
                    .for_each(|(result, (input, gradient))| {
                        for (row, gradient) in gradient.chunks_exact(w.width_out).enumerate() {
                            for (column, &gradient) in gradient.iter().enumerate() {
                                result[w.argmax(input, row, column)] += gradient;
                            }
                        }
                    });
            })
        })??;
        Tensor::from_vec(result, input.shape(), input.device()).map(Some)
    }
}

struct AveragePool2d(Windows);

impl AveragePool2d {
    fn share(&self) -> f32 {
        1. / (self.0.kernel * self.0.kernel) as f32
    }
}

impl CustomOp1 for AveragePool2d {
    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let w = &self.0;
        let output = w.pool(values(input, layout, self.name())?, |input, output| {
            for (row, output) in output.chunks_exact_mut(w.width_out).enumerate() {
                for y in w.cells(row, w.height) {
                    let line = &input[y * w.width..(y + 1) * w.width];
                    for (output, cells) in output.iter_mut().zip(line.chunks_exact(w.kernel)) {
                        *output += cells.iter().sum::<f32>() * self.share();
                    }
                }
            }
        });
        Ok((output, w.shape_out()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        input: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        crate::gpu::average_pool2d(&self.0, (input, layout))
    }

    fn bwd(&self, input: &Tensor, _output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let w = &self.0;
        let gradient = gradient.contiguous()?;
        #[cfg(feature = "cuda")]
        if gradient.device().is_cuda() {
            return crate::gpu::average_pool2d_gradient(w, input, &gradient).map(Some);
        }
        let mut result = vec![0f32; input.elem_count()];
        with_values(&gradient, self.name(), |gradient| {
            result
                .par_chunks_mut(w.pixels())
                .zip(gradient.par_chunks(w.pixels_out()))
                .for_each(|(result, gradient)| {
                    for (row, gradient) in gradient.chunks_exact(w.width_out).enumerate() {
                        for y in w.cells(row, w.height) {
                            let line = &mut result[y * w.width..(y + 1) * w.width];
                            for (cells, &gradient) in line.chunks_exact_mut(w.kernel).zip(gradient)
                            {
                                cells.fill(gradient * self.share());
                            }
                        }
                    }
                });
        })?;
        Tensor::from_vec(result, input.shape(), input.device()).map(Some)
    }
}
