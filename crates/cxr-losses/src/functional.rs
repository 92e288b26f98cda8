//! The losses as plain functions, for those who need no trait object.
//!
//! Arguments and results are those of [`MultiLabelLoss::forward`]: N×L logits, targets and optional mask in, unreduced
//! values out. (HBM is not among them: it has a trainable parameter to keep.)

use candle_core::{Result, Tensor};

use crate::{
    Asymmetric, AsymmetricPolynomial, BalancedAsymmetric, Bce, Coefficients,
    DistributionallyRobust, Focal, Focus, Fzlpr, LabelCorrelation, Lsep, MultiLabelLoss,
    MultiLabelSoftmax, PairwiseHinge, RobustAsymmetric, SigmoidF1, WeightedBce, Zlpr,
};

/// [`Bce`]: N×L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit.
pub fn bce(logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Bce.forward(logits, targets, mask)
}

/// [`WeightedBce`] with a weight for each label's presence: N×L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or a weight is negative, not finite or missing.
pub fn weighted_bce(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    positive_weights: &[f64],
) -> Result<Tensor> {
    WeightedBce::per_label(positive_weights)?.forward(logits, targets, mask)
}

/// [`Focal`] without α: N×L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or `gamma` is out of range.
pub fn focal(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    gamma: f64,
) -> Result<Tensor> {
    Focal::new(gamma, None)?.forward(logits, targets, mask)
}

/// [`Lsep`]: N values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit.
pub fn lsep(logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Lsep.forward(logits, targets, mask)
}

/// [`PairwiseHinge`]: N values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or `margin` is out of range.
pub fn pairwise_hinge(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    margin: f64,
) -> Result<Tensor> {
    PairwiseHinge::new(margin)?.forward(logits, targets, mask)
}

/// [`MultiLabelSoftmax`]: N values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit.
pub fn multi_label_softmax(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    MultiLabelSoftmax.forward(logits, targets, mask)
}

/// [`LabelCorrelation`]: N values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit.
pub fn label_correlation(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
) -> Result<Tensor> {
    LabelCorrelation.forward(logits, targets, mask)
}

/// [`BalancedAsymmetric`] without class weights: N×L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, a parameter is out of range, or the loss is undefined for these logits.
pub fn balanced_asymmetric(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    focus: Focus,
    smoothing: f64,
) -> Result<Tensor> {
    BalancedAsymmetric::new(focus, smoothing)?.forward(logits, targets, mask)
}

/// [`Zlpr`]: N values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit.
pub fn zlpr(logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    Zlpr.forward(logits, targets, mask)
}

/// [`Fzlpr`] at temperature `tau`: N values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or `tau` is out of range.
pub fn fzlpr(logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>, tau: f64) -> Result<Tensor> {
    Fzlpr::new(tau)?.forward(logits, targets, mask)
}

/// [`Asymmetric`]: N×L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or a parameter of `focus` is out of range.
pub fn asymmetric(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    focus: Focus,
) -> Result<Tensor> {
    Asymmetric::new(focus)?.forward(logits, targets, mask)
}

/// [`AsymmetricPolynomial`]: N×L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or a parameter is out of range.
pub fn asymmetric_polynomial(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    focus: Focus,
    coefficients: Coefficients,
) -> Result<Tensor> {
    AsymmetricPolynomial::new(focus, coefficients)?.forward(logits, targets, mask)
}

/// [`RobustAsymmetric`]: N×L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or a parameter is out of range.
pub fn robust_asymmetric(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    lambda: f64,
    focus: Focus,
    coefficients: Coefficients,
) -> Result<Tensor> {
    RobustAsymmetric::new(lambda, focus, coefficients)?.forward(logits, targets, mask)
}

/// [`SigmoidF1`] of the logits: L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or a parameter is out of range.
pub fn sigmoid_f1(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    beta: f64,
    eta: f64,
) -> Result<Tensor> {
    SigmoidF1::new(beta, eta)?.forward(logits, targets, mask)
}

/// [`DistributionallyRobust`]: L values.
///
/// # Errors
/// When shapes, dtypes, devices or targets do not fit, or a parameter is out of range.
pub fn distributionally_robust(
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    gamma_1: f64,
    gamma_2: f64,
) -> Result<Tensor> {
    DistributionallyRobust::new(gamma_1, gamma_2)?.forward(logits, targets, mask)
}
