use candle_core::{Result, Tensor};

use crate::element::{ClassWeights, ElementLoss, Margin, Term, per_element};
use crate::error::non_negative;
use crate::inputs::Targets;
use crate::number::Number;
use crate::{Granularity, LabelCounts, LossError, MultiLabelLoss};

/// Binary cross-entropy with logits, `−y log σ(x) − (1 − y) log(1 − σ(x))`.
///
/// One value per element; soft targets are allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bce;

impl MultiLabelLoss for Bce {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        per_element(self, logits, targets, mask, None)
    }

    fn name(&self) -> &str {
        "bce"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

impl ElementLoss for Bce {
    const TARGETS: Targets = Targets::Soft;

    #[inline]
    fn positive<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error> {
        Ok(Term {
            value: label.nll.affine(1.0, 0.0)?,
            slope: label.wrong.affine(-1.0, 0.0)?,
        })
    }

    #[inline]
    fn negative<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error> {
        self.positive(label)
    }
}

/// Binary cross-entropy in which present and absent labels have different weights,
/// `−w⁺ y log σ(x) − w⁻ (1 − y) log(1 − σ(x))`.
///
/// One value per element; soft targets are allowed. Weights are not normalised: weights of mean above one enlarge the
/// gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedBce {
    weights: Balance,
}

#[derive(Debug, Clone, PartialEq)]
enum Balance {
    /// The same w⁺ for all labels.
    Uniform(f64),
    /// A w⁺ for each label.
    PerLabel(Vec<f64>),
    /// A w⁺ and a w⁻ for each label.
    OfCounts(ClassWeights),
    /// β⁺ and β⁻ from the counts of the batch.
    Batch,
}

impl WeightedBce {
    const NAME: &'static str = "weighted-bce";

    /// The same weight w⁺ for every present label; absent labels have weight 1.
    ///
    /// # Errors
    /// When the weight is negative or not finite.
    pub fn uniform(positive_weight: f64) -> std::result::Result<Self, LossError> {
        let weight = non_negative(Self::NAME, "positive_weight", positive_weight)?;
        Ok(Self {
            weights: Balance::Uniform(weight),
        })
    }

    /// A weight w⁺ for each label's presence, in label order; absent labels have weight 1. A common choice is the number
    /// of images without the label over the number with it.
    ///
    /// # Errors
    /// When a weight is negative or not finite. That their number is the logits' L shows only in
    /// [`forward`](MultiLabelLoss::forward).
    pub fn per_label(positive_weights: &[f64]) -> std::result::Result<Self, LossError> {
        let weights = positive_weights
            .iter()
            .map(|&weight| non_negative(Self::NAME, "positive_weights", weight))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self {
            weights: Balance::PerLabel(weights),
        })
    }

    /// Weights of each label from the training images, w⁺ = T/P and w⁻ = T/N, where P of them are known to have the label,
    /// N not to have it, and T = P + N. Gündel et al., arXiv 1803.04565; unlike [`Self::batch_balanced`] for each label and
    /// once for all batches. A half that no image has gets the weight 0, which then does not matter.
    pub fn of_counts(counts: &LabelCounts) -> Self {
        let weight = |count: usize, total: usize| match count {
            0 => 0.0,
            _ => total as f64 / count as f64,
        };
        let pairs = || counts.present.iter().zip(&counts.absent);
        Self {
            weights: Balance::OfCounts(ClassWeights {
                positive: pairs().map(|(&p, &n)| weight(p, p + n)).collect(),
                negative: pairs().map(|(&p, &n)| weight(n, p + n)).collect(),
            }),
        }
    }

    /// Weights from the counts of each batch, w⁺ = (|P| + |N|) / |P| and w⁻ = (|P| + |N|) / |N|, where |P| and |N| are
    /// the numbers of known present and absent labels in the whole batch (with soft targets or mask weights, their sums).
    ///
    /// Wang et al., ChestX-ray8, CVPR 2017, equation 1 (W-CEL). A half that does not occur in the batch has no weight to
    /// matter. The mean over all elements is the mean cost of a present label plus the mean cost of an absent one. The
    /// counts are read back from the device at every call.
    pub fn batch_balanced() -> Self {
        Self {
            weights: Balance::Batch,
        }
    }
}

impl MultiLabelLoss for WeightedBce {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let n_labels = logits.dims().last().copied().unwrap_or(0);
        let class_weights = match &self.weights {
            Balance::Uniform(weight) => ClassWeights::of_presence(vec![*weight; n_labels]),
            Balance::PerLabel(weights) => ClassWeights::of_presence(weights.clone()),
            Balance::OfCounts(weights) => weights.clone(),
            Balance::Batch => {
                let (present, absent) = count_states(targets, mask)?;
                let balance = |count: f64| {
                    if count > 0.0 {
                        (present + absent) / count
                    } else {
                        0.0
                    }
                };
                ClassWeights {
                    positive: vec![balance(present); n_labels],
                    negative: vec![balance(absent); n_labels],
                }
            }
        };
        per_element(&Bce, logits, targets, mask, Some(&class_weights))
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

/// How many known labels of the batch are present, and how many absent.
fn count_states(targets: &Tensor, mask: Option<&Tensor>) -> Result<(f64, f64)> {
    let in_f64 = |tensor: &Tensor| -> Result<Vec<f64>> {
        tensor
            .detach()
            .to_device(&candle_core::Device::Cpu)?
            .to_dtype(candle_core::DType::F64)?
            .flatten_all()?
            .to_vec1()
    };
    let targets = in_f64(targets)?;
    let mask = match mask {
        Some(mask) => in_f64(mask)?,
        None => vec![1.0; targets.len()],
    };
    let known = targets
        .iter()
        .zip(&mask)
        .filter(|(_, weight)| **weight > 0.0);
    Ok(
        known.fold((0.0, 0.0), |(present, absent), (target, weight)| {
            (present + weight * target, absent + weight * (1.0 - target))
        }),
    )
}

/// Focal loss, `−αₜ (1 − pₜ)^γ log pₜ`, where pₜ is the probability given to the label's true state.
///
/// Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equations 4 and 5. One value per element; targets must be
/// 0 or 1. γ = 0 without α is [`Bce`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Focal {
    gamma: f64,
    alpha: Option<f64>,
}

impl Focal {
    const NAME: &'static str = "focal";

    /// Focusing strength `gamma` ≥ 0; `alpha`, if any, weights present labels by α and absent ones by 1 − α.
    ///
    /// # Errors
    /// When γ is negative or not finite, or α lies outside 0 … 1.
    pub fn new(gamma: f64, alpha: Option<f64>) -> std::result::Result<Self, LossError> {
        let gamma = non_negative(Self::NAME, "gamma", gamma)?;
        let alpha = match alpha {
            Some(alpha) => Some(crate::error::in_range(
                Self::NAME,
                "alpha",
                "from 0 to 1",
                alpha,
                |value| (0.0..=1.0).contains(&value),
            )?),
            None => None,
        };
        Ok(Self { gamma, alpha })
    }
}

impl MultiLabelLoss for Focal {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        per_element(self, logits, targets, mask, None)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

impl ElementLoss for Focal {
    const TARGETS: Targets = Targets::Hard;

    #[inline]
    fn positive<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error> {
        focused(label, self.gamma, self.alpha.unwrap_or(1.0))
    }

    #[inline]
    fn negative<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error> {
        focused(
            label,
            self.gamma,
            self.alpha.map_or(1.0, |alpha| 1.0 - alpha),
        )
    }
}

/// `−weight · q^γ log p` and its slope `−weight · q^γ (q − γ p log p)`.
#[inline]
fn focused<R: Number>(
    label: &Margin<R>,
    gamma: f64,
    weight: f64,
) -> std::result::Result<Term<R>, R::Error> {
    let focus = label.wrong.power(gamma)?.affine(weight, 0.0)?;
    let steepness = label
        .right
        .mul(&label.nll)?
        .affine(gamma, 0.0)?
        .add(&label.wrong)?;
    Ok(Term {
        value: focus.mul(&label.nll)?,
        slope: focus.mul(&steepness)?.affine(-1.0, 0.0)?,
    })
}
