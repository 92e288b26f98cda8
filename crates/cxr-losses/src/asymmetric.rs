//! The asymmetric loss and the polynomial losses built on it.

use candle_core::{Result, Tensor};

use crate::element::{ClassWeights, ElementLoss, Margin, Term, per_element};
use crate::error::{in_range, non_negative};
use crate::inputs::Targets;
use crate::number::{Number, ln_1p};
use crate::{Granularity, LossError, MultiLabelLoss};

/// Asymmetric loss (ASL): present labels cost `−(1 − p)^γ⁺ log p`, absent ones `−p_m^γ⁻ log(1 − p_m)`, where p = σ(x) and
/// p_m = max(p − m, 0) is the probability shifted by the margin m.
///
/// Ridnik et al., Asymmetric Loss for Multi-Label Classification, ICCV 2021, equations 5 to 7. One value per element;
/// targets must be 0 or 1. The gradient passes through the focusing factors too, as in the paper's analysis (the authors'
/// code can stop it there), and no probability is clamped. γ⁺ = γ⁻ = m = 0 is [`Bce`](crate::Bce); γ⁺ = γ⁻ and m = 0 is
/// [`Focal`](crate::Focal) without α. The authors train on the sum over labels and batch, here
/// [`Reduction::Sum`](crate::Reduction::Sum).
#[derive(Debug, Clone, PartialEq)]
pub struct Asymmetric {
    shape: Polynomial,
    positive_weights: Option<Vec<f64>>,
}

impl Asymmetric {
    const NAME: &'static str = "asymmetric";

    /// A loss with this focus.
    ///
    /// # Errors
    /// When a parameter is outside its range.
    pub fn new(focus: Focus) -> std::result::Result<Self, LossError> {
        Ok(Self {
            shape: Polynomial::logarithmic(focus.checked(Self::NAME)?),
            positive_weights: None,
        })
    }

    /// The same loss with a weight ≥ 0 for each label's presence, in label order; absent labels keep weight 1.
    ///
    /// # Errors
    /// When a weight is negative or not finite. That their number is the logits' L shows only in
    /// [`forward`](MultiLabelLoss::forward).
    pub fn with_positive_weights(self, weights: &[f64]) -> std::result::Result<Self, LossError> {
        let weights = weights
            .iter()
            .map(|&weight| non_negative(Self::NAME, "positive_weights", weight))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            positive_weights: Some(weights),
            ..self
        })
    }
}

impl MultiLabelLoss for Asymmetric {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let weights = self.positive_weights.clone().map(ClassWeights::of_presence);
        per_element(&self.shape, logits, targets, mask, weights.as_ref())
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

/// Asymmetric polynomial loss (APL): [`Asymmetric`] with other leading coefficients in the Taylor series of its logarithms.
///
/// With `−log p = Σ_k (1 − p)^k / k`, a present label costs `(1 − p)^γ⁺ (α₁ (1 − p) + α₂ (1 − p)² + Σ_{k≥3} (1 − p)^k / k)`,
/// an absent one `p_m^γ⁻ (β₁ p_m + Σ_{k≥2} p_m^k / k)`.
///
/// Huang et al., Asymmetric Polynomial Loss for Multi-Label Classification, ICASSP 2023. One value per element; targets
/// must be 0 or 1. The authors' code has α₁ = 1 − `epsilon_pos`, α₂ = ½ − ½ `epsilon_pos_pow` and β₁ = 1 + `epsilon_neg`; its
/// defaults are α₁ = 0, α₂ = 1.75, β₁ = 1 with the focus 0, 4, 0.05. (For `epsilon_neg` ≠ 0 it multiplies 1 − p_m where the
/// series has −p_m, which adds `−epsilon_neg · p_m^γ⁻`.) α₁ = 1, α₂ = ½, β₁ = 1 is [`Asymmetric`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AsymmetricPolynomial {
    shape: Polynomial,
}

/// The focusing of [`Asymmetric`] and its relatives; the default is the papers' choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Focus {
    /// γ⁺ ≥ 0: how much easy present labels are played down.
    pub gamma_positive: f64,
    /// γ⁻ ≥ 0: how much easy absent labels are played down.
    pub gamma_negative: f64,
    /// 0 ≤ m < 1: absent labels with a probability up to this cost nothing.
    pub margin: f64,
}

impl Default for Focus {
    fn default() -> Self {
        Self {
            gamma_positive: 0.0,
            gamma_negative: 4.0,
            margin: 0.05,
        }
    }
}

impl Focus {
    pub(crate) fn checked(self, loss: &'static str) -> std::result::Result<Self, LossError> {
        non_negative(loss, "gamma_positive", self.gamma_positive)?;
        non_negative(loss, "gamma_negative", self.gamma_negative)?;
        in_range(
            loss,
            "margin",
            "at least 0 and below 1",
            self.margin,
            |margin| (0.0..1.0).contains(&margin),
        )?;
        Ok(self)
    }
}

/// The leading coefficients of [`AsymmetricPolynomial`]; the default is the authors' choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficients {
    /// α₁, of 1 − p for present labels.
    pub alpha_1: f64,
    /// α₂, of (1 − p)² for present labels.
    pub alpha_2: f64,
    /// β₁, of p_m for absent labels.
    pub beta_1: f64,
}

impl Default for Coefficients {
    fn default() -> Self {
        Self {
            alpha_1: 0.0,
            alpha_2: 1.75,
            beta_1: 1.0,
        }
    }
}

impl Coefficients {
    fn checked(self, loss: &'static str) -> std::result::Result<Self, LossError> {
        let finite = |parameter, value| in_range(loss, parameter, "finite", value, f64::is_finite);
        finite("alpha_1", self.alpha_1)?;
        finite("alpha_2", self.alpha_2)?;
        finite("beta_1", self.beta_1)?;
        Ok(self)
    }
}

impl AsymmetricPolynomial {
    const NAME: &'static str = "asymmetric-polynomial";

    /// A loss with this focus and these coefficients.
    ///
    /// # Errors
    /// When a parameter is outside its range.
    pub fn new(focus: Focus, coefficients: Coefficients) -> std::result::Result<Self, LossError> {
        let focus = focus.checked(Self::NAME)?;
        let coefficients = coefficients.checked(Self::NAME)?;
        Ok(Self {
            shape: Polynomial::new(focus, coefficients, None),
        })
    }
}

impl MultiLabelLoss for AsymmetricPolynomial {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        per_element(&self.shape, logits, targets, mask, None)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

/// Robust asymmetric loss (RAL): [`AsymmetricPolynomial`] whose absent labels are also multiplied by the Hill term
/// `(λ − p) p² (λ − 1 + p_m)`, which plays down absent labels that the model is sure of and that may be mislabelled.
///
/// Park et al., Robust Asymmetric Loss for Multi-Label Long-Tailed Learning, ICCV Workshops 2023, after the Hill loss of
/// Zhang et al., arXiv:2112.07368, 2021. The factor is the one of the authors' published training code, the full
/// definition used here: Hill's own `(λ − p) p²` times a second `λ − (1 − p_m)`. One value per element; targets must be 0 or
/// 1. Defaults: λ = 1.5 and those of the polynomial loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RobustAsymmetric {
    shape: Polynomial,
}

impl RobustAsymmetric {
    const NAME: &'static str = "robust-asymmetric";

    /// A loss with Hill parameter `lambda` ≥ 1, this focus and these coefficients.
    ///
    /// # Errors
    /// When a parameter is outside its range.
    pub fn new(
        lambda: f64,
        focus: Focus,
        coefficients: Coefficients,
    ) -> std::result::Result<Self, LossError> {
        let lambda = in_range(
            Self::NAME,
            "lambda",
            "finite and at least 1",
            lambda,
            |value| value.is_finite() && value >= 1.0,
        )?;
        let focus = focus.checked(Self::NAME)?;
        let coefficients = coefficients.checked(Self::NAME)?;
        Ok(Self {
            shape: Polynomial::new(focus, coefficients, Some(lambda)),
        })
    }
}

impl MultiLabelLoss for RobustAsymmetric {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        per_element(&self.shape, logits, targets, mask, None)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

/// The three losses in one form.
///
/// With w = 1 − p a present label costs `w^γ⁺ (−log p + a₁ w + a₂ w²)`, an absent one
/// `p_m^γ⁻ (−log(1 − p_m) + b p_m) H(p)`, where H is 1 or the Hill term.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Polynomial {
    focus: Focus,
    a1: f64,
    a2: f64,
    b: f64,
    lambda: Option<f64>,
}

impl Polynomial {
    fn new(focus: Focus, coefficients: Coefficients, lambda: Option<f64>) -> Self {
        Self {
            focus,
            a1: coefficients.alpha_1 - 1.0,
            a2: coefficients.alpha_2 - 0.5,
            b: coefficients.beta_1 - 1.0,
            lambda,
        }
    }

    /// The polynomial of the logarithm itself.
    fn logarithmic(focus: Focus) -> Self {
        Self {
            focus,
            a1: 0.0,
            a2: 0.0,
            b: 0.0,
            lambda: None,
        }
    }
}

impl ElementLoss for Polynomial {
    const TARGETS: Targets = Targets::Hard;

    #[inline]
    fn positive<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error> {
        let (right, wrong) = (&label.right, &label.wrong);
        let gamma = self.focus.gamma_positive;
        let cost = wrong
            .affine(self.a2, self.a1)?
            .mul(wrong)?
            .add(&label.nll)?;
        // dw/dz = −w (1 − w), d(−log p)/dz = −w.
        let cost_slope = wrong
            .affine(2.0 * self.a2, self.a1)?
            .mul(right)?
            .affine(1.0, 1.0)?
            .mul(wrong)?;
        let focus_slope = right.mul(&cost)?.affine(gamma, 0.0)?;
        let focus = wrong.power(gamma)?;
        Ok(Term {
            value: focus.mul(&cost)?,
            slope: cost_slope
                .add(&focus_slope)?
                .mul(&focus)?
                .affine(-1.0, 0.0)?,
        })
    }

    #[inline]
    fn negative<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error> {
        let p = &label.wrong;
        let gamma = self.focus.gamma_negative;
        let shifted = Shifted::new(label, self.focus.margin)?;
        let cost = shifted.p.affine(self.b, 0.0)?.add(&shifted.nll)?;
        let cost_slope = shifted
            .change
            .affine(self.b, 0.0)?
            .add(&shifted.nll_slope)?;
        // cost / p_m stays finite as p_m → 0, where p_m^(γ−1) need not.
        let nothing = shifted.p.is_positive()?.affine(-1.0, 1.0)?;
        let relative_cost = cost.div(&shifted.p.add(&nothing)?)?;
        let focus_slope = relative_cost.mul(&shifted.change)?.affine(gamma, 0.0)?;
        let focus = shifted.p.power(gamma)?;
        let value = focus.mul(&cost)?;
        let slope = focus.mul(&cost_slope.add(&focus_slope)?)?;
        let Some(lambda) = self.lambda else {
            return Ok(Term {
                value,
                slope: slope.affine(-1.0, 0.0)?,
            });
        };
        let (from_above, from_below) = (
            p.affine(-1.0, lambda)?,
            shifted.p.affine(1.0, lambda - 1.0)?,
        );
        let square = p.mul(p)?;
        let hill = from_above.mul(&square)?.mul(&from_below)?;
        // dH/dp, times dp/d(−z) = p (1 − p). Below the margin the value it multiplies is 0.
        let hill_slope = from_above
            .mul(p)?
            .affine(2.0, 0.0)?
            .sub(&square)?
            .mul(&from_below)?
            .add(&from_above.mul(&square)?)?
            .mul(&p.mul(&label.right)?)?;
        Ok(Term {
            value: value.mul(&hill)?,
            slope: slope
                .mul(&hill)?
                .add(&value.mul(&hill_slope)?)?
                .affine(-1.0, 0.0)?,
        })
    }
}

/// The shifted probability p_m = max(p − m, 0) of an absent label. Slopes are by the logit, along which p grows.
struct Shifted<R> {
    /// p_m.
    p: R,
    /// dp_m/dx.
    change: R,
    /// −log(1 − p_m).
    nll: R,
    /// d(−log(1 − p_m))/dx.
    nll_slope: R,
}

impl<R: Number> Shifted<R> {
    #[inline]
    fn new(label: &Margin<R>, margin: f64) -> std::result::Result<Self, R::Error> {
        let p = label.wrong.affine(1.0, -margin)?.positive_part()?;
        let change = label.wrong.mul(&label.right)?;
        if margin == 0.0 {
            return Ok(Self {
                p,
                change,
                nll: label.nll.affine(1.0, 0.0)?,
                nll_slope: label.wrong.affine(1.0, 0.0)?,
            });
        }
        let change = change.mul(&p.is_positive()?)?;
        let complement = p.affine(-1.0, 0.0)?;
        Ok(Self {
            nll: ln_1p(&complement)?.affine(-1.0, 0.0)?,
            nll_slope: change.div(&complement.affine(1.0, 1.0)?)?,
            p,
            change,
        })
    }
}
