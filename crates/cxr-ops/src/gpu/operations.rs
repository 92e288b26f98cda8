//! What convolution, pooling and dropout do with tensors of a CUDA device.

use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::calls;
use super::cuda::{self, Gpu, Values};
use super::cudnn;
use crate::conv::Geometry;
use crate::pool::Windows;

/// A tensor as candle hands it to a custom operation.
pub(super) type Input<'a> = (&'a CudaStorage, &'a Layout);

fn values<'a>((storage, layout): Input<'a>, op: &'static str) -> Result<Values<'a>> {
    cuda::values(storage, layout, op)
}

/// The output of a convolution.
pub(crate) fn conv2d(
    g: &Geometry,
    images: Input<'_>,
    weight: Input<'_>,
) -> Result<(CudaStorage, Shape)> {
    let gpu = &Gpu::single(&images.0.device)?;
    let (images, weight) = (values(images, "conv2d")?, values(weight, "conv2d")?);
    let output = cudnn::forward(gpu, g, images, weight)?;
    let shape = (g.images, g.maps_out, g.height_out, g.width_out);
    Ok((cuda::storage(output, gpu)?, shape.into()))
}

/// The gradients of a convolution's images and weight, where they take part in autograd.
pub(crate) fn conv2d_gradients(
    g: &Geometry,
    images: &Tensor,
    weight: &Tensor,
    gradient: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    cuda::with_values([gradient, images, weight], "conv2d", |gpu, views| {
        let [of_output, image_values, weights] = views;
        let of_images = if images.track_op() {
            let result = cudnn::images_gradient(gpu, g, of_output, weights)?;
            Some(cuda::tensor(result, gpu, images.shape())?)
        } else {
            None
        };
        let of_weight = if weight.track_op() {
            let result = cudnn::weight_gradient(gpu, g, of_output, image_values)?;
            Some(cuda::tensor(result, gpu, weight.shape())?)
        } else {
            None
        };
        Ok((of_images, of_weight))
    })
}

/// The output of a max pooling.
pub(crate) fn max_pool2d(w: &Windows, input: Input<'_>) -> Result<(CudaStorage, Shape)> {
    let gpu = &Gpu::single(&input.0.device)?;
    let output = calls::max_pool(gpu, values(input, "max_pool2d")?, w)?;
    Ok((cuda::storage(output, gpu)?, w.shape_out()))
}

/// The gradient of its input.
pub(crate) fn max_pool2d_gradient(
    w: &Windows,
    input: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    cuda::with_values([input, gradient], "max_pool2d", |gpu, [x, g]| {
        let result = calls::max_pool_gradient(gpu, x, g, w)?;
        cuda::tensor(result, gpu, input.shape())
    })
}

/// The output of an average pooling.
pub(crate) fn average_pool2d(w: &Windows, input: Input<'_>) -> Result<(CudaStorage, Shape)> {
    let gpu = &Gpu::single(&input.0.device)?;
    let output = calls::average_pool(gpu, values(input, "avg_pool2d")?, w)?;
    Ok((cuda::storage(output, gpu)?, w.shape_out()))
}

/// The gradient of its input.
pub(crate) fn average_pool2d_gradient(
    w: &Windows,
    input: &Tensor,
    gradient: &Tensor,
) -> Result<Tensor> {
    cuda::with_values([gradient], "avg_pool2d", |gpu, [g]| {
        let result = calls::average_pool_gradient(gpu, g, w)?;
        cuda::tensor(result, gpu, input.shape())
    })
}

/// Dropout by the draws of one key for each image; see [`calls::dropout`].
pub(crate) fn dropout(
    input: &Tensor,
    keys: Vec<[u64; 4]>,
    threshold: u32,
    kept: f32,
) -> Result<Tensor> {
    input.contiguous()?.apply_op1(Dropout {
        keys,
        threshold,
        kept,
    })
}

#[derive(Debug, Clone)]
struct Dropout {
    keys: Vec<[u64; 4]>,
    threshold: u32,
    kept: f32,
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("dropout: this is the way of a CUDA device")
    }

    fn cuda_fwd(&self, input: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let gpu = &Gpu::single(&input.device)?;
        let values_an_image = layout.shape().elem_count() / self.keys.len().max(1);
        let output = calls::dropout(
            gpu,
            values((input, layout), "dropout")?,
            values_an_image,
            &self.keys,
            self.threshold,
            self.kept,
        )?;
        Ok((cuda::storage(output, gpu)?, layout.shape().clone()))
    }

    /// The same draws, on the gradient.
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        Ok(Some(gradient.apply_op1_no_bwd(self)?))
    }
}
