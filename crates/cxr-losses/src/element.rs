//! Losses that treat every label of every image by itself: `y · ℓ⁺(x) + (1 − y) · ℓ⁻(x)`.

use candle_core::{DType, Device, Result, Tensor, WithDType};

use crate::graph::Evaluated;
use crate::inputs::{Inputs, Rows, Targets};
use crate::number::{Number, ln_1p};
use crate::parallel::for_row_blocks;
use crate::{Granularity, LossError};

/// A loss given by what a present and an absent label cost.
pub(crate) trait ElementLoss: Sync {
    const TARGETS: Targets;

    /// What a present label costs, as a function of its logit z = x.
    fn positive<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error>;

    /// What an absent label costs, as a function of its negated logit z = −x.
    fn negative<R: Number>(&self, label: &Margin<R>) -> std::result::Result<Term<R>, R::Error>;
}

/// A label's state seen from the truth: z is large where the model is right.
pub(crate) struct Margin<R> {
    /// σ(z): the probability given to the truth.
    pub(crate) right: R,
    /// 1 − σ(z): the probability given to the opposite.
    pub(crate) wrong: R,
    /// −log σ(z).
    pub(crate) nll: R,
}

impl<R: Number> Margin<R> {
    #[inline]
    fn new(z: &R) -> std::result::Result<Self, R::Error> {
        let exp = z.abs()?.affine(-1.0, 0.0)?.exp()?;
        let larger = exp.affine(1.0, 1.0)?.recip()?;
        let smaller = exp.mul(&larger)?;
        let right = z.choose(&larger, &smaller)?;
        let wrong = z.choose(&smaller, &larger)?;
        let nll = z.affine(-1.0, 0.0)?.positive_part()?.add(&ln_1p(&exp)?)?;
        Ok(Self { right, wrong, nll })
    }
}

/// A cost and its derivative by z.
pub(crate) struct Term<R> {
    pub(crate) value: R,
    pub(crate) slope: R,
}

/// Factors by label for the two halves of the loss: class weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClassWeights {
    pub(crate) positive: Vec<f64>,
    pub(crate) negative: Vec<f64>,
}

impl ClassWeights {
    /// Weights for the labels' presence; absence has weight 1.
    pub(crate) fn of_presence(weights: Vec<f64>) -> Self {
        Self {
            negative: vec![1.0; weights.len()],
            positive: weights,
        }
    }

    fn check(&self, n_labels: usize) -> std::result::Result<(), LossError> {
        for weights in [&self.positive, &self.negative] {
            if weights.len() != n_labels {
                return Err(LossError::WeightCount {
                    n_labels,
                    got: weights.len(),
                });
            }
        }
        Ok(())
    }
}

/// Evaluates `loss` for every element and attaches the result to the graph of `logits`.
pub(crate) fn per_element<L: ElementLoss>(
    loss: &L,
    logits: &Tensor,
    targets: &Tensor,
    mask: Option<&Tensor>,
    class_weights: Option<&ClassWeights>,
) -> Result<Tensor> {
    let inputs = Inputs::new(logits, targets, mask, L::TARGETS)?;
    if let Some(weights) = class_weights {
        weights.check(inputs.n_labels)?;
    }
    let evaluated = if !inputs.on_cpu() {
        by_tensors(loss, inputs, class_weights)?
    } else if inputs.logits.dtype() == DType::F64 {
        by_numbers::<L, f64>(loss, &inputs, class_weights)?
    } else {
        by_numbers::<L, f32>(loss, &inputs, class_weights)?
    };
    evaluated.attach(logits, Granularity::Element)
}

/// The CPU kernel.
fn by_numbers<L: ElementLoss, T: WithDType>(
    loss: &L,
    inputs: &Inputs,
    class_weights: Option<&ClassWeights>,
) -> Result<Evaluated> {
    let shape = (inputs.n_images, inputs.n_labels);
    let n_elements = inputs.n_images * inputs.n_labels;
    let mut values = vec![T::zero(); n_elements];
    let mut slopes = vec![T::zero(); n_elements];
    inputs.with_rows(|rows: Rows<'_, T>| {
        for_row_blocks(
            inputs.n_images,
            &mut values,
            &mut slopes,
            |first_row, values, slopes| {
                let lines = values
                    .chunks_mut(rows.n_labels)
                    .zip(slopes.chunks_mut(rows.n_labels));
                for (row, (values, slopes)) in lines.enumerate() {
                    let start = (first_row + row) * rows.n_labels;
                    for (label, (value, slope)) in values.iter_mut().zip(slopes).enumerate() {
                        let at = start + label;
                        let weight = rows.mask.map_or(1.0, |mask| mask[at].to_f64());
                        if weight == 0.0 {
                            continue;
                        }
                        let target = rows.targets[at].to_f64();
                        let (mut present, mut absent) = (weight * target, weight * (1.0 - target));
                        if let Some(class_weights) = class_weights {
                            present *= class_weights.positive[label];
                            absent *= class_weights.negative[label];
                        }
                        let term = element(loss, rows.logits[at].to_f64(), present, absent);
                        *value = T::from_f64(term.value);
                        *slope = T::from_f64(term.slope);
                    }
                }
            },
        );
    })?;
    Ok(Evaluated {
        values: Tensor::from_vec(values, shape, &Device::Cpu)?,
        slopes: Tensor::from_vec(slopes, shape, &Device::Cpu)?,
    })
}

/// Value and slope by the logit of one element whose two halves have these weights.
#[inline]
fn element<L: ElementLoss>(loss: &L, logit: f64, present: f64, absent: f64) -> Term<f64> {
    let mut sum = Term {
        value: 0.0,
        slope: 0.0,
    };
    if present != 0.0 {
        let Ok(margin) = Margin::new(&logit);
        let Ok(term) = loss.positive(&margin);
        sum.value += present * term.value;
        sum.slope += present * term.slope;
    }
    if absent != 0.0 {
        let Ok(margin) = Margin::new(&-logit);
        let Ok(term) = loss.negative(&margin);
        sum.value += absent * term.value;
        sum.slope -= absent * term.slope;
    }
    sum
}

/// The same by tensor operations, for any device.
fn by_tensors<L: ElementLoss>(
    loss: &L,
    inputs: Inputs,
    class_weights: Option<&ClassWeights>,
) -> Result<Evaluated> {
    let inputs = inputs.silence_unknown()?;
    let (mut present, mut absent) = inputs.sides()?;
    if let Some(class_weights) = class_weights {
        let row = |weights: &[f64]| {
            Tensor::new(weights, inputs.logits.device())?.to_dtype(inputs.logits.dtype())
        };
        present = present.broadcast_mul(&row(&class_weights.positive)?)?;
        absent = absent.broadcast_mul(&row(&class_weights.negative)?)?;
    }
    let positive = loss.positive(&Margin::new(&inputs.logits)?)?;
    let negative = loss.negative(&Margin::new(&inputs.logits.neg()?)?)?;
    Ok(Evaluated {
        values: (present.mul(&positive.value)? + absent.mul(&negative.value)?)?,
        slopes: (present.mul(&positive.slope)? - absent.mul(&negative.slope)?)?,
    })
}
