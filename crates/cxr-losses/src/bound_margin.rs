use candle_core::{DType, Device, Result, Tensor, Var};

use crate::error::{in_range, non_negative};
use crate::graph::Evaluated;
use crate::inputs::{Inputs, Targets, working_dtype};
use crate::line::{Known, LineLoss, per_line};
use crate::log_sum::LogSums;
use crate::ranking::{Sides, link_tensors};
use crate::{Granularity, LossError, MultiLabelLoss, Zlpr};

/// Hierarchy-aware biased bound margin loss (HBM) in its flat form: all labels are children of one node.
///
/// [`Zlpr`] with a learnable bound t in place of zero, biases and a margin:
/// `log(1 + Σ_{i∈P'} exp(−(x_i − t) + b_P)) + log(1 + Σ_{j∈N'} exp((x_j − t) + b_N))`. The bias of a side is α times the
/// sample standard deviation of its logits (0 for fewer than two), through which no gradient passes. P' and N' leave out
/// the labels on the right side of the bound by enough: those with σ(−2(x_i − t)) ≤ m, σ(2(x_j − t)) ≤ m respectively.
///
/// Kim et al., Hierarchy-aware Biased Bound Margin Loss Function for Hierarchical Text Classification, Findings of ACL
/// 2024, in the form of the authors' code; there a small network predicts a bound for each node, here t is one trainable
/// number, handed out by [`vars`](MultiLabelLoss::vars). A label is predicted when its logit exceeds t. One value per image;
/// targets must be 0 or 1. α = 0, m = 0 and t = 0 is ZLPR. A weight of a mask multiplies its exponential; the standard
/// deviation takes all known labels alike.
#[derive(Debug, Clone)]
pub struct BiasedBoundMargin {
    alpha: f64,
    /// ½ log(m / (1 − m)): where ±2(x − t) has its margin.
    threshold: f64,
    bound: Var,
}

impl BiasedBoundMargin {
    const NAME: &'static str = "hbm";

    /// Bias strength `alpha` ≥ 0, `margin` in 0 ≤ m < 1, and the `bound` to start from, an `f32` variable on `device`.
    /// The authors start at 0 with α = 1 and m = 0.1.
    ///
    /// # Errors
    /// When a parameter is outside its range, or the variable cannot be made.
    pub fn new(
        alpha: f64,
        margin: f64,
        bound: f64,
        device: &Device,
    ) -> std::result::Result<Self, LossError> {
        let alpha = non_negative(Self::NAME, "alpha", alpha)?;
        let below_one = |value| (0.0..1.0).contains(&value);
        let margin = in_range(
            Self::NAME,
            "margin",
            "at least 0 and below 1",
            margin,
            below_one,
        )?;
        let bound = in_range(Self::NAME, "bound", "finite", bound, f64::is_finite)?;
        Ok(Self {
            alpha,
            threshold: 0.5 * (margin / (1.0 - margin)).ln(),
            bound: Var::new(bound as f32, device).map_err(LossError::Variable)?,
        })
    }

    /// The trainable bound t, a scalar.
    pub fn bound(&self) -> &Var {
        &self.bound
    }
}

impl MultiLabelLoss for BiasedBoundMargin {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let dtype = working_dtype(logits)?;
        let bound = self.bound.to_device(logits.device())?.to_dtype(dtype)?;
        let from_bound = logits.to_dtype(dtype)?.broadcast_sub(&bound)?;
        per_line(self, &from_bound, targets, mask)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Image
    }

    fn vars(&self) -> Vec<Var> {
        vec![self.bound.clone()]
    }

    fn logit_threshold(&self) -> Result<f64> {
        self.bound.to_dtype(DType::F64)?.to_scalar()
    }
}

/// The loss of logits from which the bound has been subtracted.
impl LineLoss for BiasedBoundMargin {
    const TARGETS: Targets = Targets::Hard;
    const GRANULARITY: Granularity = Granularity::Image;
    type Scratch = Sides;

    fn on_line(&self, image: &[Known], sides: &mut Sides, slopes: &mut [f64]) -> f64 {
        sides.read(image, 1.0);
        for side in [&mut sides.positive, &mut sides.negative] {
            let bias = self.alpha * side.deviation();
            side.keep_above(self.threshold, bias);
        }
        sides.evaluate(&Zlpr, 1.0, slopes)
    }

    fn on_tensors(&self, inputs: &Inputs) -> Result<Evaluated> {
        let (present, absent) = inputs.sides()?;
        let positive = self.biased(&inputs.logits.neg()?, &present)?;
        let negative = self.biased(&inputs.logits, &absent)?;
        link_tensors(&Zlpr, &positive, &negative, 1.0)
    }
}

impl BiasedBoundMargin {
    /// One side's sums, with its bias and margin.
    fn biased(&self, exponents: &Tensor, weights: &Tensor) -> Result<LogSums> {
        let member = weights.gt(0f64)?.to_dtype(weights.dtype())?;
        let count = member.sum_keepdim(1)?;
        let at_least_one = count.maximum(&count.ones_like()?)?;
        let mean = (exponents.mul(&member)?.sum_keepdim(1)? / &at_least_one)?;
        let squares = exponents.broadcast_sub(&mean)?.mul(&member)?.sqr()?;
        let freedom = count.affine(1.0, -1.0)?.maximum(&count.ones_like()?)?;
        let deviation = (squares.sum_keepdim(1)? / freedom)?.sqrt()?;
        let kept = match self.threshold.is_finite() {
            true => exponents.gt(self.threshold)?,
            false => member.ones_like()?.to_dtype(DType::U8)?,
        };
        let biased = exponents.broadcast_add(&deviation.affine(self.alpha, 0.0)?)?;
        LogSums::new(&biased, &weights.mul(&kept.to_dtype(weights.dtype())?)?, 1)
    }
}
