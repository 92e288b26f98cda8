//! Losses of pairs of a present and an absent label of one image, other than those through log-sum-exps.

use candle_core::{Result, Tensor};

use crate::error::positive;
use crate::graph::Evaluated;
use crate::inputs::{Inputs, Targets};
use crate::line::{Known, LineLoss, per_line};
use crate::log_sum::{LogSum, LogSums};
use crate::number::{Number as _, sigmoid, softplus};
use crate::{Granularity, LossError, MultiLabelLoss};

/// Pairwise hinge loss, `Σ_{i∈P} Σ_{j∈N} max(0, m − (x_i − x_j))`, where P are the present and N the absent labels.
///
/// The ranking loss that [`Lsep`](crate::Lsep) smooths (Li, Song and Luo, CVPR 2017, equation 2; after Weston et al., WSABIE,
/// IJCAI 2011). One value per image, 0 for an image in which all labels have the same state; targets must be 0 or 1. At the
/// hinge itself the gradient is 0. A weight of a mask multiplies its pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairwiseHinge {
    margin: f64,
}

impl PairwiseHinge {
    const NAME: &'static str = "pairwise-hinge";

    /// Margin `margin` > 0 by which a present label's logit must exceed an absent one's to cost nothing.
    ///
    /// # Errors
    /// When the margin is not greater than zero, or not finite.
    pub fn new(margin: f64) -> std::result::Result<Self, LossError> {
        let margin = positive(Self::NAME, "margin", margin)?;
        Ok(Self { margin })
    }
}

impl MultiLabelLoss for PairwiseHinge {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        per_line(self, logits, targets, mask)
    }

    fn name(&self) -> &str {
        Self::NAME
    }

    fn granularity(&self) -> Granularity {
        Granularity::Image
    }
}

impl LineLoss for PairwiseHinge {
    const TARGETS: Targets = Targets::Hard;
    const GRANULARITY: Granularity = Granularity::Image;
    type Scratch = ();

    fn on_line(&self, image: &[Known], (): &mut (), slopes: &mut [f64]) -> f64 {
        let mut value = 0.0;
        for present in image.iter().filter(|label| label.target > 0.0) {
            for absent in image.iter().filter(|label| label.target == 0.0) {
                let short = self.margin - (present.logit - absent.logit);
                if short > 0.0 {
                    let weight = present.weight * absent.weight;
                    value += weight * short;
                    slopes[present.position] -= weight;
                    slopes[absent.position] += weight;
                }
            }
        }
        value
    }

    fn on_tensors(&self, inputs: &Inputs) -> Result<Evaluated> {
        let (present, absent) = inputs.sides()?;
        let differences =
            (inputs.logits.unsqueeze(2)?).broadcast_sub(&inputs.logits.unsqueeze(1)?)?;
        let short = differences.affine(-1.0, self.margin)?;
        let weights = present.unsqueeze(2)?.broadcast_mul(&absent.unsqueeze(1)?)?;
        let counted = weights.mul(&short.is_positive()?)?;
        Ok(Evaluated {
            values: counted.mul(&short)?.sum((1, 2))?,
            slopes: (counted.sum(1)? - counted.sum(2)?)?,
        })
    }
}

/// Multi-label softmax loss: for each present label the cross-entropy of a softmax over it and all absent labels, averaged over
/// the present labels, `1/|P| Σ_{i∈P} log(1 + Σ_{j∈N} exp(x_j − x_i))`.
///
/// Ge et al., Improving Multi-Label Chest X-Ray Disease Diagnosis by Exploiting Disease and Health Labels Dependencies, 2020 (MSML).
/// One value per image, 0 for an image in which all labels have the same state; targets must be 0 or 1. A weight of a mask
/// multiplies its label's share of the mean, or its exponential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MultiLabelSoftmax;

impl MultiLabelLoss for MultiLabelSoftmax {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        per_line(self, logits, targets, mask)
    }

    fn name(&self) -> &str {
        "multi-label-softmax"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Image
    }
}

impl LineLoss for MultiLabelSoftmax {
    const TARGETS: Targets = Targets::Hard;
    const GRANULARITY: Granularity = Granularity::Image;
    type Scratch = LogSum;

    fn on_line(&self, image: &[Known], absent: &mut LogSum, slopes: &mut [f64]) -> f64 {
        absent.clear();
        for label in image.iter().filter(|label| label.target == 0.0) {
            absent.push(label.position, label.weight, label.logit);
        }
        let log = absent.log();
        let present = || image.iter().filter(|label| label.target > 0.0);
        let total: f64 = present().map(|label| label.weight).sum();
        let (mut value, mut together) = (0.0, 0.0);
        for label in present() {
            let share = label.weight / total;
            let excess = log - label.logit;
            let (Ok(cost), Ok(wrong)) = (softplus(&excess), sigmoid(&excess));
            value += share * cost;
            slopes[label.position] -= share * wrong;
            together += share * wrong;
        }
        absent.add_slopes(together, slopes);
        value
    }

    fn on_tensors(&self, inputs: &Inputs) -> Result<Evaluated> {
        let (present, absent) = inputs.sides()?;
        let absent = LogSums::new(&inputs.logits, &absent, 1)?;
        let excess = inputs.logits.neg()?.broadcast_add(&absent.log)?;
        let shares = present.broadcast_div(&or_one(&present.sum_keepdim(1)?)?)?;
        let wrong = sigmoid(&excess)?.mul(&shares)?;
        let together = absent.shares.broadcast_mul(&wrong.sum_keepdim(1)?)?;
        Ok(Evaluated {
            values: softplus(&excess)?.mul(&shares)?.sum(1)?,
            slopes: (together - wrong)?,
        })
    }
}

/// Label-correlation loss: the mean over pairs of a present and an absent label of `exp(−(p_i − p_j))`, where p = σ(x).
///
/// Ge et al., Improving Multi-Label Chest X-Ray Disease Diagnosis by Exploiting Disease and Health Labels Dependencies, 2020, who
/// take it from BP-MLL (Zhang and Zhou, IEEE TKDE 2006, equation 3), where the outputs are bounded too; of logits it would
/// overflow. One value per image between 1/e and e, 0 for an image in which all labels have the same state; targets must be 0
/// or 1. A weight of a mask weights its label in the mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LabelCorrelation;

impl MultiLabelLoss for LabelCorrelation {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        per_line(self, logits, targets, mask)
    }

    fn name(&self) -> &str {
        "label-correlation"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Image
    }
}

/// The mean over pairs is the product of the two sides' means.
impl LineLoss for LabelCorrelation {
    const TARGETS: Targets = Targets::Hard;
    const GRANULARITY: Granularity = Granularity::Image;
    type Scratch = ();

    fn on_line(&self, image: &[Known], (): &mut (), slopes: &mut [f64]) -> f64 {
        let mut sums = [0.0; 2];
        let mut totals = [0.0; 2];
        for label in image {
            let side = Side::of(label);
            sums[side.at()] += label.weight * side.exponential(label.logit);
            totals[side.at()] += label.weight;
        }
        if totals.contains(&0.0) {
            return 0.0;
        }
        let value = sums[0] / totals[0] * (sums[1] / totals[1]);
        for label in image {
            let side = Side::of(label);
            let share = label.weight * side.exponential(label.logit) / sums[side.at()];
            let (Ok(p), Ok(rest)) = (sigmoid(&label.logit), sigmoid(&-label.logit));
            slopes[label.position] = side.sign() * value * share * p * rest;
        }
        value
    }

    fn on_tensors(&self, inputs: &Inputs) -> Result<Evaluated> {
        let (present, absent) = inputs.sides()?;
        let p = sigmoid(&inputs.logits)?;
        let change = p.mul(&sigmoid(&inputs.logits.neg()?)?)?;
        let side = |exponents: &Tensor, weights: &Tensor| -> Result<(Tensor, Tensor)> {
            let total = or_one(&weights.sum_keepdim(1)?)?;
            let terms = exponents.exp()?.mul(weights)?.broadcast_div(&total)?;
            Ok((terms.sum_keepdim(1)?, terms))
        };
        let (of_present, present) = side(&p.neg()?, &present)?;
        let (of_absent, absent) = side(&p, &absent)?;
        let by_p = (absent.broadcast_mul(&of_present)? - present.broadcast_mul(&of_absent)?)?;
        Ok(Evaluated {
            values: of_present.mul(&of_absent)?.squeeze(1)?,
            slopes: by_p.mul(&change)?,
        })
    }
}

/// Which of a pair's two labels one is.
#[derive(Clone, Copy)]
enum Side {
    Present,
    Absent,
}

impl Side {
    fn of(label: &Known) -> Self {
        match label.target > 0.0 {
            true => Self::Present,
            false => Self::Absent,
        }
    }

    fn at(self) -> usize {
        match self {
            Self::Present => 0,
            Self::Absent => 1,
        }
    }

    fn sign(self) -> f64 {
        match self {
            Self::Present => -1.0,
            Self::Absent => 1.0,
        }
    }

    fn exponential(self, logit: f64) -> f64 {
        let Ok(p) = sigmoid(&logit);
        (self.sign() * p).exp()
    }
}

/// The same with 1 in the place of 0, to divide by.
fn or_one(total: &Tensor) -> Result<Tensor> {
    total + total.eq(0f64)?.to_dtype(total.dtype())?
}
