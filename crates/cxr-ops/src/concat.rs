//! Feature maps side by side.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::cpu::{values, with_values};

/// The maps of `first` (`N×C×H×W`) followed by those of `second` (`N×D×H×W`): `N×(C+D)×H×W`.
///
/// As candle's `cat`, on all threads of the CPU, and there with gradients that are contiguous.
///
/// # Errors
/// Another number or size of images, or another type than `f32`.
pub fn concat_maps(first: &Tensor, second: &Tensor) -> Result<Tensor> {
    let (images, maps, height, width) = first.dims4()?;
    let (other_images, other_maps, other_height, other_width) = second.dims4()?;
    if (images, height, width) != (other_images, other_height, other_width) {
        bail!(
            "concat_maps: expected images of one number and size, got {:?} and {:?}",
            first.dims(),
            second.dims()
        );
    }
    if images * maps * other_maps * height * width == 0 {
        bail!("concat_maps: expected at least one value in every dimension");
    }
    if !first.device().is_cpu() {
        return Tensor::cat(&[first, second], 1);
    }
    let op = ConcatMaps {
        shape: (images, maps + other_maps, height, width),
        first: maps * height * width,
        second: other_maps * height * width,
    };
    first.contiguous()?.apply_op2(&second.contiguous()?, op)
}

struct ConcatMaps {
    shape: (usize, usize, usize, usize),
    /// Values of an image in the first tensor.
    first: usize,
    /// Values of an image in the second.
    second: usize,
}

impl CustomOp2 for ConcatMaps {
    fn name(&self) -> &'static str {
        "concat_maps"
    }

    fn cpu_fwd(
        &self,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let first = values(first, first_layout, self.name())?;
        let second = values(second, second_layout, self.name())?;
        let mut output = vec![0f32; first.len() + second.len()];
        output
            .par_chunks_mut(self.first + self.second)
            .zip(
                first
                    .par_chunks(self.first)
                    .zip(second.par_chunks(self.second)),
            )
            .for_each(|(output, (first, second))| {
                output[..self.first].copy_from_slice(first);
                output[self.first..].copy_from_slice(second);
            });
        Ok((CpuStorage::F32(output), self.shape.into()))
    }

    fn bwd(
        &self,
        first: &Tensor,
        second: &Tensor,
        _output: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let part = |of: &Tensor, from: usize, len: usize| -> Result<Option<Tensor>> {
            if !of.track_op() {
                return Ok(None);
            }
            let mut result = vec![0f32; of.elem_count()];
            with_values(&gradient, self.name(), |gradient| {
                result
                    .par_chunks_mut(len)
                    .zip(gradient.par_chunks(self.first + self.second))
                    .for_each(|(result, gradient)| {
                        result.copy_from_slice(&gradient[from..from + len]);
                    });
            })?;
            Tensor::from_vec(result, of.shape(), of.device()).map(Some)
        };
        Ok((
            part(first, 0, self.first)?,
            part(second, self.first, self.second)?,
        ))
    }
}
