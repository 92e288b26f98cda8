use candle_core::{D, Result, Tensor};

use crate::Granularity;

/// How the values of an unreduced loss become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Reduction {
    /// The mean over the values, of which those without any known label are left out.
    ///
    /// With a mask the divisor is, by granularity: the sum of the mask; the number of images with a known label; the number
    /// of labels known in some image. A batch without a single known label has loss 0 and gradient 0.
    #[default]
    Mean,
    /// The sum over all values.
    Sum,
    /// The sum over all values, divided by the number of images that have a known label: for BCE and its relatives, sum
    /// over labels and mean over the batch. The same as [`Mean`](Self::Mean) for losses with one value per image or label.
    MeanOverImages,
    /// No reduction: the values as they are.
    None,
}

impl Reduction {
    /// Reduces `values`, the result of a loss of this `granularity` under this `mask` (N×L, as given to the loss).
    ///
    /// Values of elements that the mask says are unknown count as 0 and have gradient 0, whatever they are; within the
    /// values of images and labels the loss itself has left them out. Returns a scalar tensor, or for
    /// [`Reduction::None`] the values.
    ///
    /// # Errors
    /// When `mask` is not a matrix, or values of elements are not of its shape.
    pub fn apply(
        self,
        values: &Tensor,
        granularity: Granularity,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let mask = mask.map(|mask| {
            let mask = mask.detach().to_dtype(values.dtype())?;
            mask.to_device(values.device())
        });
        let mask = mask.transpose()?;
        let known = match (&mask, granularity) {
            (Some(mask), Granularity::Element) => {
                mask.gt(0f64)?.where_cond(values, &values.zeros_like()?)?
            }
            _ => values.clone(),
        };
        let total = match self {
            Self::None => return Ok(known),
            Self::Sum => return known.sum_all(),
            Self::Mean | Self::MeanOverImages => known.sum_all()?,
        };
        let Some(mask) = mask else {
            let count = match (self, granularity) {
                (Self::MeanOverImages, Granularity::Element) => values.dim(0)?,
                _ => values.elem_count(),
            };
            return total.affine(1.0 / count as f64, 0.0);
        };
        let count = match (self, granularity) {
            (Self::Mean, Granularity::Element) => mask.sum_all()?,
            (_, Granularity::Label) => known_lines(&mask, D::Minus2)?,
            (_, Granularity::Image | Granularity::Element) => known_lines(&mask, D::Minus1)?,
        };
        // Without any known label the total is 0: dividing by 1 instead of 0 keeps it so.
        let nothing_known = count.eq(0f64)?.to_dtype(count.dtype())?;
        total.div(&(count + nothing_known)?)
    }
}

/// The number of rows or columns of the mask with an entry above zero along `dim`.
fn known_lines(mask: &Tensor, dim: D) -> Result<Tensor> {
    mask.max(dim)?.gt(0f64)?.to_dtype(mask.dtype())?.sum_all()
}
