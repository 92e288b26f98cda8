use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Result, Tensor, Var};

use crate::{LossError, Reduction};

/// A loss of an N×L matrix of logits (N images or documents, L labels) against N×L targets.
///
/// Shared by all implementations of this crate:
///
/// * **logits** — N×L, `f64`, `f32`, `bf16` or `f16`, before any sigmoid. Value and gradient are finite for |logit| ≤ 10⁴.
/// * **targets** — N×L, any dtype: 1 where the label is present, 0 where it is absent. Losses that are linear in the
///   target also take soft targets between 0 and 1; the others answer them with
///   [`LossError::Value`](crate::LossError::Value). Each loss says which it is.
/// * **mask** — N×L, any dtype: 1 where the target is known, 0 where it is not. An unknown label adds nothing to the loss,
///   its gradient is zero, and its logit and target are not looked at (either may be NaN). A value between the two, or
///   above one, is a weight of that label in that image.
/// * **devices** — any; targets and mask are on the logits' device or on the CPU. On the CPU they are checked without
///   waiting for the device, which a training step should prefer: they are small.
/// * **result** — `f64` for `f64` logits, `f32` otherwise. On the CPU every intermediate is `f64`; elsewhere it has the
///   result's dtype. The gradient reaches the logits in their own dtype. Targets and mask receive no gradient, and the
///   loss has no second derivative.
pub trait MultiLabelLoss: Debug + Send + Sync {
    /// The loss before reduction: one value per element, image or label, as [`granularity`](Self::granularity) says.
    ///
    /// # Errors
    /// A [`LossError`](crate::LossError) inside candle's error when shapes, dtypes, devices or targets do not fit.
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor>;

    /// The name by which [`by_name`](crate::by_name) makes this loss.
    fn name(&self) -> &str;

    /// What one value of [`forward`](Self::forward) stands for.
    fn granularity(&self) -> Granularity;

    /// The loss's own trainable parameters: hand them to the optimiser beside the model's.
    fn vars(&self) -> Vec<Var> {
        Vec::new()
    }

    /// The logit above which a label is predicted: 0 unless the loss has a bound of its own.
    ///
    /// # Errors
    /// A bound on a device that cannot be read.
    fn logit_threshold(&self) -> Result<f64> {
        Ok(0.)
    }

    /// The reduction that [`loss`](Self::loss) applies: the mean over the values of [`forward`](Self::forward).
    ///
    /// For BCE, focal and their relatives that is the mean over labels and batch; for the ranking losses, whose value for
    /// one image is already a sum over its labels, it is the mean over the batch. With L labels the gradient of a ranking
    /// loss is therefore about L times that of BCE. Under plain gradient descent a learning rate found for one does not fit
    /// the other; Adam-like optimisers divide that factor out again, but for weight decay and gradient clipping it
    /// stays. [`Reduction::MeanOverImages`] puts BCE on the ranking losses' scale.
    fn default_reduction(&self) -> Reduction {
        Reduction::Mean
    }

    /// The scalar to train on: [`forward`](Self::forward) followed by [`default_reduction`](Self::default_reduction).
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), and values that are not of the shape that [`granularity`](Self::granularity)
    /// says.
    fn loss(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let values = self.forward(logits, targets, mask)?;
        self.granularity()
            .check(self.name(), logits.dims(), values.dims())?;
        self.default_reduction()
            .apply(&values, self.granularity(), mask)
    }
}

/// What one value of an unreduced loss stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// One label of one image: the unreduced loss is N×L. BCE, focal and their relatives.
    Element,
    /// One image with all its labels: the unreduced loss has N values. The ranking losses.
    Image,
    /// One label over the batch: the unreduced loss has L values. SigmoidF1 and the distributionally robust loss.
    Label,
}

impl Granularity {
    /// Whether a loss's values have its shape: N×L, N or L.
    fn check(self, loss: &str, logits: &[usize], values: &[usize]) -> Result<()> {
        let expected = match (self, logits) {
            (Self::Element, _) => logits,
            (Self::Image, [images, ..]) => std::slice::from_ref(images),
            (Self::Label, [.., labels]) => std::slice::from_ref(labels),
            (_, []) => &[],
        };
        if values == expected {
            return Ok(());
        }
        Err(LossError::ValuesShape {
            loss: loss.to_owned(),
            granularity: self,
            expected: expected.to_vec(),
            got: values.to_vec(),
        })?
    }
}

/// A pointer to a loss is that loss.
macro_rules! forward_to_the_loss {
    ($($pointer:ident),*) => {
        $(
            impl<L: MultiLabelLoss + ?Sized> MultiLabelLoss for $pointer<L> {
                fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
                    (**self).forward(logits, targets, mask)
                }

                fn name(&self) -> &str {
                    (**self).name()
                }

                fn granularity(&self) -> Granularity {
                    (**self).granularity()
                }

                fn vars(&self) -> Vec<Var> {
                    (**self).vars()
                }

                fn logit_threshold(&self) -> Result<f64> {
                    (**self).logit_threshold()
                }

                fn default_reduction(&self) -> Reduction {
                    (**self).default_reduction()
                }

                fn loss(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
                    (**self).loss(logits, targets, mask)
                }
            }
        )*
    };
}

forward_to_the_loss!(Box, Arc);
