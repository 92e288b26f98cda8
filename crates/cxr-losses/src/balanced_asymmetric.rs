use candle_core::{DType, Result, Tensor};

use crate::asymmetric::Focus;
use crate::error::{in_range, non_negative};
use crate::inputs::{Inputs, Targets, working_dtype};
use crate::number::{Number as _, softplus};
use crate::{Granularity, LossError, MultiLabelLoss};

/// The probability below which the authors' code clamps a logarithm.
const LEAST_PROBABILITY: f64 = 1e-8;

/// Balanced asymmetric loss (BAL): an asymmetric loss of logits divided by the largest of the batch, with label smoothing of
/// present labels and a weight for each label's presence.
///
/// With z = x / max x, p = σ(z), q = min(1 − p + m, 1), ε the smoothing and L the number of labels, a label of target t has
/// t⁺ = (1 − ε) t + ε/L and t⁻ = 1 − t, and costs
/// `−(1 − p t⁺ − q t⁻)^(γ⁺ t⁺ + γ⁻ t⁻) · (t⁺ (1 + w) log p + t⁻ log q)`, where w is its class weight (0 without weights). The
/// logarithms are taken of at least 10⁻⁸. The gradient passes through the division and through the focusing factor.
///
/// Timmermann et al., LM-CLIP: Adapting Positive Asymmetric Loss for Long-Tailed Multi-Label Classification, IEEE Access 2025,
/// in the form of the authors' code, which is the only full definition. One value per element; targets must be 0 or 1. The batch
/// is part of the definition, through its largest known logit.
///
/// **Undefined**, and an error here where that code gives NaN or turns around: a batch without a positive logit, by which it
/// would divide; and an absent label whose probability lies so far below the margin that the smoothed focus is negative, under an
/// exponent that is not an integer. Without smoothing there is no such label.
#[derive(Debug, Clone, PartialEq)]
pub struct BalancedAsymmetric {
    focus: Focus,
    smoothing: f64,
    class_weights: Option<Vec<f64>>,
}

impl BalancedAsymmetric {
    const NAME: &'static str = "balanced-asymmetric";

    /// A loss with this focus, and a smoothing ε in 0 ≤ ε ≤ 1. The authors' settings are γ⁺ = 0, γ⁻ from 9.8 to 12,
    /// m = 0.05 and ε from 0.01 to 0.1.
    ///
    /// # Errors
    /// When a parameter is outside its range.
    pub fn new(focus: Focus, smoothing: f64) -> std::result::Result<Self, LossError> {
        let within = |value| (0.0..=1.0).contains(&value);
        Ok(Self {
            focus: focus.checked(Self::NAME)?,
            smoothing: in_range(Self::NAME, "smoothing", "from 0 to 1", smoothing, within)?,
            class_weights: None,
        })
    }

    /// The same loss with a weight w ≥ 0 for each label, in label order: its presence counts 1 + w times.
    /// [`label_weights::inverse_frequency`](crate::label_weights::inverse_frequency) gives those of the authors.
    ///
    /// # Errors
    /// When a weight is negative or not finite. That their number is the logits' L shows only in
    /// [`forward`](MultiLabelLoss::forward).
    pub fn with_class_weights(self, weights: &[f64]) -> std::result::Result<Self, LossError> {
        let weights = weights
            .iter()
            .map(|&weight| non_negative(Self::NAME, "class_weights", weight))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            class_weights: Some(weights),
            ..self
        })
    }

    /// What the presence of each label counts, 1×L.
    fn presence(&self, like: &Tensor) -> Result<Tensor> {
        let n_labels = like.dim(1)?;
        let presence = match &self.class_weights {
            None => vec![1.0; n_labels],
            Some(weights) if weights.len() == n_labels => {
                weights.iter().map(|weight| 1.0 + weight).collect()
            }
            Some(weights) => Err(LossError::WeightCount {
                n_labels,
                got: weights.len(),
            })?,
        };
        Tensor::from_vec(presence, (1, n_labels), like.device())?.to_dtype(like.dtype())
    }

    /// What a present and an absent label cost at these logits z; `is_absent` is 1 where the absent cost is wanted.
    fn costs(&self, z: &Tensor, is_absent: &Tensor) -> Result<(Tensor, Tensor)> {
        let Focus {
            gamma_positive,
            gamma_negative,
            margin,
        } = self.focus;
        let least = LEAST_PROBABILITY.ln();
        let at_least = |logarithm: Tensor| {
            logarithm
                .affine(1.0, -least)?
                .positive_part()?
                .affine(1.0, least)
        };
        let present_share = 1.0 - self.smoothing + self.smoothing / z.dim(1)? as f64;
        let absent_share = self.smoothing / z.dim(1)? as f64;

        let log_p = softplus(&z.neg()?)?.neg()?;
        let log_rest = softplus(z)?.neg()?;
        let (p, rest) = (log_p.exp()?, log_rest.exp()?);
        let of_presence = at_least(log_p)?.broadcast_mul(&self.presence(z)?)?;

        let base = rest.affine(present_share, 1.0 - present_share)?;
        let focus = base.power(gamma_positive * present_share)?;
        let present = focus.mul(&of_presence)?.affine(-present_share, 0.0)?;

        let shifted = p.affine(1.0, -margin)?.positive_part()?;
        let log_q = match margin == 0.0 {
            true => log_rest,
            false => shifted.affine(-1.0, 1.0)?.log()?,
        };
        let base = (shifted - p.affine(absent_share, 0.0)?)?;
        // Nothing is wanted of present labels, whose base may have no such power.
        let base = is_absent.gt(0f64)?.where_cond(&base, &base.ones_like()?)?;
        let exponent = gamma_positive * absent_share + gamma_negative;
        self.check_base(&base, exponent)?;
        let focus = power_of_zero_or_more(&base, exponent)?;
        let logarithms = (of_presence.affine(absent_share, 0.0)? + at_least(log_q)?)?;
        Ok((present, focus.mul(&logarithms)?.neg()?))
    }

    fn check_base(&self, base: &Tensor, exponent: f64) -> Result<()> {
        if self.smoothing == 0.0 || exponent.fract() == 0.0 {
            return Ok(());
        }
        let rows = base.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
        for (row, values) in rows.iter().enumerate() {
            if let Some(label) = values.iter().position(|&value| value < 0.0) {
                Err(LossError::NegativeFocus {
                    loss: Self::NAME,
                    row,
                    label,
                    exponent,
                })?;
            }
        }
        Ok(())
    }
}

impl MultiLabelLoss for BalancedAsymmetric {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let inputs = Inputs::new(logits, targets, mask, Targets::Hard)?;
        let result = working_dtype(logits)?;
        let dtype = match inputs.on_cpu() {
            true => DType::F64,
            false => result,
        };
        let weights = match &inputs.mask {
            Some(mask) => mask.to_dtype(dtype)?,
            None => inputs.targets.ones_like()?.to_dtype(dtype)?,
        };
        let known = weights.gt(0f64)?;
        let x = logits.to_dtype(dtype)?;
        let x = known.where_cond(&x, &x.zeros_like()?)?;
        let Some(largest) = largest(&x, &known)? else {
            // Nothing is known: no cost, and no gradient.
            return x.mul(&x.zeros_like()?)?.to_dtype(result);
        };
        let z = x.broadcast_div(&largest)?;
        let targets = inputs.targets.to_dtype(dtype)?;
        let is_present = known.where_cond(&targets, &targets.zeros_like()?)?;
        let is_absent = (known.to_dtype(dtype)? - &is_present)?;
        let (present, absent) = self.costs(&z, &is_absent)?;
        let values = (is_present.mul(&present)? + is_absent.mul(&absent)?)?;
        values.mul(&weights)?.to_dtype(result)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

/// The largest known logit as a 1×1 tensor through which gradients pass, shared between logits that tie for it; `None` where
/// nothing is known.
fn largest(x: &Tensor, known: &Tensor) -> Result<Option<Tensor>> {
    let lowest = x.ones_like()?.affine(f64::from(f32::MIN), 0.0)?;
    let candidates = known.where_cond(&x.detach(), &lowest)?;
    let value = candidates.flatten_all()?.max(0)?;
    let got = value.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if known.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()? == 0.0 {
        return Ok(None);
    }
    // Not a number is refused too.
    if got.is_nan() || got <= 0.0 {
        Err(LossError::NoPositiveLogit {
            loss: BalancedAsymmetric::NAME,
            got,
        })?;
    }
    let ties = candidates.broadcast_eq(&value)?.to_dtype(x.dtype())?;
    let shares = ties.broadcast_div(&ties.sum_all()?)?;
    x.mul(&shares)?.sum_all()?.reshape((1, 1)).map(Some)
}

/// A power whose gradient at 0 is 0, which for an exponent below 1 has none.
fn power_of_zero_or_more(base: &Tensor, exponent: f64) -> Result<Tensor> {
    if exponent == 0.0 {
        return base.ones_like();
    }
    let is_zero = base.eq(0f64)?;
    let power = is_zero
        .where_cond(&base.ones_like()?, base)?
        .power(exponent)?;
    is_zero.where_cond(&power.zeros_like()?, &power)
}
