use candle_core::{Result, Tensor, Var};

use crate::error::non_negative;
use crate::{Granularity, LossError, MultiLabelLoss, Reduction};

/// Any loss with a weight for each label.
///
/// A weight multiplies the label's terms wherever they stand: the values of losses per element; the exponentials of the
/// ranking losses, `log(1 + Σ w_i exp(−x_i)) + …` (the same as raising a present label's logit by −log w and an absent one's
/// by log w); the values of losses per label. Weight 1 changes nothing, weight 0 leaves the label out. [`Reduction::Mean`]
/// divides as if there were no weights.
#[derive(Debug, Clone)]
pub struct LabelWeighted<L> {
    loss: L,
    weights: Vec<f64>,
}

impl<L: MultiLabelLoss> LabelWeighted<L> {
    /// `loss` with these weights, in label order.
    ///
    /// # Errors
    /// When a weight is negative or not finite. That their number is the logits' L shows only in
    /// [`forward`](MultiLabelLoss::forward).
    pub fn new(loss: L, weights: &[f64]) -> std::result::Result<Self, LossError> {
        let weights = weights
            .iter()
            .map(|&weight| non_negative("label-weighted", "weights", weight))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { loss, weights })
    }
}

impl<L: MultiLabelLoss> MultiLabelLoss for LabelWeighted<L> {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let n_labels = logits.dims().last().copied().unwrap_or(0);
        if self.weights.len() != n_labels {
            Err(LossError::WeightCount {
                n_labels,
                got: self.weights.len(),
            })?;
        }
        let weights_on = |device| Tensor::new(self.weights.as_slice(), device);
        if self.granularity() == Granularity::Label {
            let values = self.loss.forward(logits, targets, mask)?;
            let weights = weights_on(values.device())?;
            return values.mul(&weights.to_dtype(values.dtype())?);
        }
        // They are a mask, and are checked as one: on the host where the targets are there.
        let weights = weights_on(mask.unwrap_or(targets).device())?;
        let weighted_mask = match mask {
            Some(mask) => mask.to_dtype(weights.dtype())?.broadcast_mul(&weights)?,
            None => weights.broadcast_as(logits.shape())?,
        };
        self.loss.forward(logits, targets, Some(&weighted_mask))
    }

    fn name(&self) -> &str {
        self.loss.name()
    }

    fn granularity(&self) -> Granularity {
        self.loss.granularity()
    }

    fn vars(&self) -> Vec<Var> {
        self.loss.vars()
    }

    fn default_reduction(&self) -> Reduction {
        self.loss.default_reduction()
    }
}
