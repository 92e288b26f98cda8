use candle_core::{DType, Result, Tensor};

use crate::inputs::{Inputs, Targets};
use crate::{Granularity, LossError, MultiLabelLoss, Reduction};

/// Which columns of the logits are one label's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabelColumns {
    /// That of the logit of presence.
    pub present: usize,
    /// Those of the logits of absence and of uncertainty, of a label that has three. A label with one has 0 as its logit of
    /// absence, and is never uncertain.
    pub absent_and_uncertain: Option<(usize, usize)>,
}

/// The target of a label that is uncertain.
const UNCERTAIN: f64 = 2.0;
/// The logit of a class that a label does not have: its probability is 0.
const NEVER: f64 = -1e30;

/// Softmax cross-entropy over the classes absent, present and uncertain, `log(eᵃ + eᵖ + eᵘ) − c`, where a, p and u are the
/// label's three logits and c is that of its class; a label with one logit has two classes and the cost of [`Bce`](crate::Bce).
///
/// U-MultiClass of Irvin et al., CheXpert, AAAI 2019: the mean over labels and images; when it is tested a label's
/// probability is `eᵖ / (eᵃ + eᵖ)`, the sigmoid of p − a.
///
/// Unlike other losses, it takes N×K **logits**, of which each label has one or three, beside N×L **targets** and mask. A
/// target is 0, 1, 2 for a label that is uncertain and has three logits, or a number between 0 and 1, with which absence and
/// presence share the cost. One value per element, N×L.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncertainClass {
    labels: Vec<LabelColumns>,
}

impl UncertainClass {
    /// A loss of these labels; no column is named twice, and all from 0 on are named.
    ///
    /// # Errors
    /// [`LossError::Columns`] where they are not so, or for no label.
    pub fn new(labels: &[LabelColumns]) -> std::result::Result<Self, LossError> {
        let others = |label: &LabelColumns| label.absent_and_uncertain;
        let mut columns: Vec<usize> = (labels.iter())
            .flat_map(|label| {
                let others = others(label).map(|(absent, uncertain)| [absent, uncertain]);
                [label.present]
                    .into_iter()
                    .chain(others.into_iter().flatten())
            })
            .collect();
        columns.sort_unstable();
        if columns.is_empty() || !columns.iter().copied().eq(0..columns.len()) {
            return Err(LossError::Columns { got: columns });
        }
        Ok(Self {
            labels: labels.to_vec(),
        })
    }

    /// The number K of logits of an image.
    pub fn n_logits(&self) -> usize {
        let n_three = (self.labels.iter())
            .filter(|label| label.absent_and_uncertain.is_some())
            .count();
        self.labels.len() + 2 * n_three
    }

    /// N×L logits of one class, of N×K logits with columns of 0 and of [`NEVER`] behind them.
    fn of_class(
        &self,
        padded: &Tensor,
        known: Option<&Tensor>,
        column: impl Fn(&LabelColumns) -> usize,
    ) -> Result<Tensor> {
        let columns: Vec<u32> = (self.labels.iter())
            .map(|label| column(label) as u32)
            .collect();
        let columns = Tensor::new(columns, padded.device())?;
        let logits = padded.index_select(&columns, 1)?;
        match known {
            // Before any arithmetic: what is not known may be NaN.
            Some(known) => known.where_cond(&logits, &logits.zeros_like()?),
            None => Ok(logits),
        }
    }
}

impl MultiLabelLoss for UncertainClass {
    fn forward(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let n_logits = self.n_logits();
        let n_images = match logits.dims() {
            &[n_images, found] if found == n_logits && n_images > 0 => n_images,
            found => Err(LossError::OutputsShape {
                n_logits,
                got: found.to_vec(),
            })?,
        };
        let dtype = match (logits.dtype(), logits.device().is_cpu()) {
            (DType::F64, _) => DType::F64,
            // As the other losses on a CPU.
            (DType::F32 | DType::BF16 | DType::F16, true) => DType::F64,
            (DType::F32 | DType::BF16 | DType::F16, false) => DType::F32,
            (got, _) => Err(LossError::LogitsDtype { got })?,
        };
        let result = match logits.dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let logits = logits.to_dtype(dtype)?;
        let column =
            |value: f64| Tensor::full(value, (n_images, 1), logits.device())?.to_dtype(dtype);
        let padded = Tensor::cat(&[&logits, &column(0.0)?, &column(NEVER)?], 1)?;
        let (zero, never) = (n_logits, n_logits + 1);

        // Targets and mask are checked beside logits of their shape.
        let present = |label: &LabelColumns| label.present;
        let of_presence = self.of_class(&padded.detach(), None, present)?;
        let inputs = Inputs::new(&of_presence, targets, mask, Targets::SoftOrUncertain)?;
        self.check_classes(targets, mask)?;
        let inputs = inputs.silence_unknown()?;
        let (targets, mask) = (inputs.targets.to_dtype(dtype)?, inputs.mask);
        let mask = mask.map(|mask| mask.to_dtype(dtype)).transpose()?;
        let known = mask.as_ref().map(|mask| mask.gt(0f64)).transpose()?;

        let known = known.as_ref();
        let p = self.of_class(&padded, known, present)?;
        let a = self.of_class(&padded, known, |label| {
            label
                .absent_and_uncertain
                .map_or(zero, |(absent, _)| absent)
        })?;
        let u = self.of_class(&padded, known, |label| {
            let columns = label.absent_and_uncertain;
            columns.map_or(never, |(_, uncertain)| uncertain)
        })?;
        let largest = p.maximum(&a)?.maximum(&u)?.detach();
        let share = |logits: &Tensor| logits.sub(&largest)?.exp();
        let total = ((share(&a)? + share(&p)?)? + share(&u)?)?;
        let log_sum = (total.log()? + &largest)?;

        let is_uncertain = targets.eq(UNCERTAIN)?.to_dtype(dtype)?;
        let is_certain = is_uncertain.affine(-1.0, 1.0)?;
        let is_present = targets.mul(&is_certain)?;
        let is_absent = (&is_certain - &is_present)?;
        let of_class = ((a.mul(&is_absent)? + p.mul(&is_present)?)? + u.mul(&is_uncertain)?)?;
        let values = (log_sum - of_class)?;
        let values = match &mask {
            Some(mask) => values.mul(mask)?,
            None => values,
        };
        values.to_dtype(result)
    }

    fn name(&self) -> &str {
        "uncertain-class"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }

    fn loss(&self, logits: &Tensor, targets: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let values = self.forward(logits, targets, mask)?;
        Reduction::Mean.apply(&values, self.granularity(), mask)
    }
}

impl UncertainClass {
    /// Labels with one logit are never uncertain. Targets and mask are looked at where they are: on the host, no device
    /// is waited for.
    fn check_classes(&self, targets: &Tensor, mask: Option<&Tensor>) -> Result<()> {
        if self
            .labels
            .iter()
            .all(|label| label.absent_and_uncertain.is_some())
        {
            return Ok(());
        }
        let rows = |tensor: &Tensor| tensor.detach().to_dtype(DType::F64)?.to_vec2::<f64>();
        let (targets, mask) = (rows(targets)?, mask.map(rows).transpose()?);
        for (row, targets) in targets.iter().enumerate() {
            for (label, (columns, &target)) in self.labels.iter().zip(targets).enumerate() {
                let weight = mask.as_ref().and_then(|mask| mask.get(row)?.get(label));
                let is_known = weight.is_none_or(|weight| *weight > 0.0);
                if is_known && target == UNCERTAIN && columns.absent_and_uncertain.is_none() {
                    Err(LossError::Value {
                        what: "targets",
                        expected: "from 0 to 1 for a label with one logit",
                        row,
                        label,
                        got: target,
                    })?;
                }
            }
        }
        Ok(())
    }
}
