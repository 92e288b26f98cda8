use candle_core::{DType, Result, Tensor};

use crate::error::non_negative;
use crate::inputs::working_dtype;
use crate::{Bce, Granularity, LabelCorrelation, LossError, MultiLabelLoss, MultiLabelSoftmax};

/// Binary cross-entropy with a multi-label softmax and a label-correlation loss beside it: for each image
/// `mean over labels of BCE + α · MSML + β · correlation`, of [`Bce`], [`MultiLabelSoftmax`] and [`LabelCorrelation`].
///
/// Ge et al., Improving Multi-Label Chest X-Ray Disease Diagnosis by Exploiting Disease and Health Labels Dependencies, 2020. They
/// give 0.1 and 0.3 as the two weights; which belongs to which loss their abstract leaves open, and is decided here in the order
/// in which it names them. Their networks have "no finding" as a label of its own, so that no image is without a present one. One
/// value per image; targets must be 0 or 1. The mean over labels is over the known ones, by a mask's weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiseaseHealth {
    alpha: f64,
    beta: f64,
}

impl DiseaseHealth {
    const NAME: &'static str = "disease-health";

    /// Weights α of the multi-label softmax and β of the label correlation, at least 0.
    ///
    /// # Errors
    /// When a weight is negative or not finite.
    pub fn new(alpha: f64, beta: f64) -> std::result::Result<Self, LossError> {
        Ok(Self {
            alpha: non_negative(Self::NAME, "alpha", alpha)?,
            beta: non_negative(Self::NAME, "beta", beta)?,
        })
    }
}

impl MultiLabelLoss for DiseaseHealth {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let result = working_dtype(logits)?;
        let dtype = match logits.device().is_cpu() {
            true => DType::F64,
            false => result,
        };
        let logits = logits.to_dtype(dtype)?;
        // Before the others: they allow what this does not.
        let softmax = MultiLabelSoftmax.forward(&logits, targets, mask)?;
        let correlation = LabelCorrelation.forward(&logits, targets, mask)?;
        let bce = Bce.forward(&logits, targets, mask)?;
        let known = match mask {
            Some(mask) => mask.detach().to_device(bce.device())?.to_dtype(dtype)?,
            None => bce.detach().ones_like()?,
        };
        let total = known.sum(1)?;
        let total = (&total + total.eq(0f64)?.to_dtype(dtype)?)?;
        let values = (bce.sum(1)?.div(&total)? + (softmax * self.alpha)?)?;
        (values + (correlation * self.beta)?)?.to_dtype(result)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Image
    }
}
