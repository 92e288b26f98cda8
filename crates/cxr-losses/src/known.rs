//! Targets without what is unknown, for losses from outside this crate.

use candle_core::{DType, Result, Tensor};

/// Targets that arithmetic may touch, and the mask that says which of them count.
///
/// Unknown targets may be anything, NaN included, and a loss that multiplies by the mask after its arithmetic still has
/// a NaN gradient: 0 × NaN is NaN. Begin an own [`MultiLabelLoss::forward`](crate::MultiLabelLoss::forward) with this
/// instead, and leave the unknown elements to [`Reduction::apply`](crate::Reduction::apply), which makes them 0 and counts
/// them out, or multiply by the mask where values are summed within an image or a label.
///
/// * `targets`, `mask` – N×L, any dtype and device, as of a loss.
/// * The first of the result: the targets as `f32` (`f64` if they were), 0 where unknown. The second: of the same
///   shape and dtype, the mask's values, 0 where unknown. Without a mask a target is unknown when it is NaN.
///
/// # Errors
/// A mask of another shape.
///
/// ```
/// use candle_core::{Device, Tensor};
///
/// let targets = Tensor::new(&[[1f32, f32::NAN]], &Device::Cpu)?;
/// let mask = Tensor::new(&[[1u8, 0]], &Device::Cpu)?;
/// let (targets, mask) = cxr_losses::known(&targets, Some(&mask))?;
/// assert_eq!(targets.to_vec2::<f32>()?, [[1., 0.]]);
/// assert_eq!(mask.to_vec2::<f32>()?, [[1., 0.]]);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn known(targets: &Tensor, mask: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    let dtype = match targets.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let targets = targets.detach().to_dtype(dtype)?;
    let mask = match mask {
        Some(mask) if mask.dims() == targets.dims() => mask.detach().to_dtype(dtype)?,
        Some(mask) => Err(crate::LossError::ShapeMismatch {
            what: "mask",
            expected: targets.dims().to_vec(),
            got: mask.dims().to_vec(),
        })?,
        // Only NaN differs from itself.
        None => targets.eq(&targets)?.to_dtype(dtype)?,
    };
    let mask = mask.to_device(targets.device())?;
    let is_known = mask.gt(0f64)?;
    let zeros = targets.zeros_like()?;
    Ok((
        is_known.where_cond(&targets, &zeros)?,
        is_known.where_cond(&mask, &zeros)?,
    ))
}
