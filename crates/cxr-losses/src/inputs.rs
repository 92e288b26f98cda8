use candle_core::{DType, Device, Layout, Result, Storage, Tensor, WithDType};

use crate::LossError;

/// Which targets a loss accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Targets {
    /// 0 or 1.
    Hard,
    /// Anything from 0 to 1.
    Soft,
    /// Anything from 0 to 1, or 2, which is uncertain.
    SoftOrUncertain,
}

impl Targets {
    fn accepts(self, value: f64) -> bool {
        match self {
            Self::Hard => value == 0.0 || value == 1.0,
            Self::Soft => (0.0..=1.0).contains(&value),
            Self::SoftOrUncertain => (0.0..=1.0).contains(&value) || value == 2.0,
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Self::Hard => "0 or 1",
            Self::Soft => "from 0 to 1",
            Self::SoftOrUncertain => "from 0 to 1, or 2 where it is uncertain",
        }
    }
}

/// Logits, targets and mask after the checks: detached, contiguous, of one shape, working dtype and the logits' device.
pub(crate) struct Inputs {
    pub(crate) logits: Tensor,
    pub(crate) targets: Tensor,
    pub(crate) mask: Option<Tensor>,
    pub(crate) n_images: usize,
    pub(crate) n_labels: usize,
}

impl Inputs {
    pub(crate) fn new(
        logits: &Tensor,
        targets: &Tensor,
        mask: Option<&Tensor>,
        accepted: Targets,
    ) -> Result<Self> {
        let (n_images, n_labels) = match logits.dims() {
            &[n_images, n_labels] if n_images > 0 && n_labels > 0 => (n_images, n_labels),
            dims => Err(LossError::LogitsShape { got: dims.to_vec() })?,
        };
        let dtype = working_dtype(logits)?;
        let prepare = |tensor: &Tensor| tensor.detach().to_dtype(dtype)?.contiguous();
        agree("targets", logits, targets)?;
        let targets = prepare(targets)?;
        let mask = match mask {
            Some(mask) => {
                agree("mask", logits, mask)?;
                Some(prepare(mask)?)
            }
            None => None,
        };
        let inputs = Self {
            logits: prepare(logits)?,
            targets,
            mask,
            n_images,
            n_labels,
        };
        inputs.check_values(accepted)?;
        inputs.on_one_device()
    }

    /// Targets and mask where the logits are.
    fn on_one_device(&self) -> Result<Self> {
        let device = self.logits.device();
        let mask = self.mask.as_ref();
        Ok(Self {
            logits: self.logits.clone(),
            targets: self.targets.to_device(device)?,
            mask: mask.map(|mask| mask.to_device(device)).transpose()?,
            ..*self
        })
    }

    /// Whether the CPU kernels apply.
    pub(crate) fn on_cpu(&self) -> bool {
        is_on_host(&self.logits)
    }

    /// Lends the values of CPU tensors of dtype `T` to `kernel`.
    pub(crate) fn with_rows<T: WithDType, Output>(
        &self,
        kernel: impl FnOnce(Rows<'_, T>) -> Output,
    ) -> Result<Output> {
        let (logits, logits_layout) = self.logits.storage_and_layout();
        let (targets, targets_layout) = self.targets.storage_and_layout();
        let mask = self.mask.as_ref().map(Tensor::storage_and_layout);
        Ok(kernel(Rows {
            n_labels: self.n_labels,
            logits: values(&logits, logits_layout)?,
            targets: values(&targets, targets_layout)?,
            mask: match &mask {
                Some((mask, layout)) => Some(values(mask, layout)?),
                None => None,
            },
        }))
    }

    /// Makes masked entries harmless for tensor arithmetic: logit and target 0, whatever they were.
    pub(crate) fn silence_unknown(self) -> Result<Self> {
        let Some(mask) = &self.mask else {
            return Ok(self);
        };
        let known = mask.gt(0f64)?;
        let zeros = self.logits.zeros_like()?;
        Ok(Self {
            logits: known.where_cond(&self.logits, &zeros)?,
            targets: known.where_cond(&self.targets, &zeros)?,
            ..self
        })
    }

    /// The weights with which each label counts as present, and as absent.
    pub(crate) fn sides(&self) -> Result<(Tensor, Tensor)> {
        let present = self.targets.clone();
        let absent = self.targets.affine(-1.0, 1.0)?;
        match &self.mask {
            Some(mask) => Ok((present.mul(mask)?, absent.mul(mask)?)),
            None => Ok((present, absent)),
        }
    }

    fn check_values(&self, accepted: Targets) -> Result<()> {
        let is_on_host = is_on_host(&self.targets) && self.mask.as_ref().is_none_or(is_on_host);
        if !is_on_host && self.on_one_device()?.values_fit(accepted)? {
            return Ok(());
        }
        // On the host the search is the check; elsewhere a copy is made only to say which value is wrong.
        let targets = self.targets.to_device(&Device::Cpu)?;
        let mask = self.mask.as_ref();
        let on_host = Self {
            // Not looked at: to copy logits from a device would wait for it.
            logits: targets.clone(),
            targets,
            mask: mask.map(|mask| mask.to_device(&Device::Cpu)).transpose()?,
            ..*self
        };
        let outcome = match on_host.targets.dtype() {
            DType::F64 => on_host.with_rows(|rows: Rows<'_, f64>| rows.check(accepted))?,
            _ => on_host.with_rows(|rows: Rows<'_, f32>| rows.check(accepted))?,
        };
        Ok(outcome?)
    }

    /// The check by tensor operations, with a single number read back from the device.
    fn values_fit(&self, accepted: Targets) -> Result<bool> {
        let below = self.targets.lt(0f64)?;
        let above = match accepted {
            Targets::SoftOrUncertain => self.targets.gt(1f64)?.mul(&self.targets.ne(2f64)?)?,
            Targets::Hard | Targets::Soft => self.targets.gt(1f64)?,
        };
        let not_a_number = self.targets.ne(&self.targets)?;
        let mut wrong = ((below + above)? + not_a_number)?;
        if accepted == Targets::Hard {
            wrong = (wrong + self.targets.ne(0f64)?.mul(&self.targets.ne(1f64)?)?)?;
        }
        if let Some(mask) = &self.mask {
            let wrong_mask = (mask.lt(0f64)? + mask.ge(f64::from(f32::MAX))?)?;
            let wrong_mask = (wrong_mask + mask.ne(mask)?)?;
            wrong = (wrong.mul(&mask.gt(0f64)?)? + wrong_mask)?;
        }
        let count = wrong.to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?;
        Ok(count == 0.0)
    }
}

/// The values of [`Inputs`] as row-major slices.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    pub(crate) n_labels: usize,
    pub(crate) logits: &'a [T],
    pub(crate) targets: &'a [T],
    pub(crate) mask: Option<&'a [T]>,
}

impl<T: WithDType> Rows<'_, T> {
    fn check(&self, accepted: Targets) -> std::result::Result<(), LossError> {
        let at = |index: usize| (index / self.n_labels, index % self.n_labels);
        if let Some(mask) = self.mask {
            let wrong = mask.iter().position(|weight| {
                let weight = weight.to_f64();
                !(weight >= 0.0 && weight < f64::from(f32::MAX))
            });
            if let Some(index) = wrong {
                let (row, label) = at(index);
                return Err(LossError::Value {
                    what: "mask",
                    expected: "finite and at least 0",
                    row,
                    label,
                    got: mask[index].to_f64(),
                });
            }
        }
        let wrong = self.targets.iter().enumerate().position(|(index, target)| {
            let known = self.mask.is_none_or(|mask| mask[index].to_f64() > 0.0);
            known && !accepted.accepts(target.to_f64())
        });
        match wrong {
            None => Ok(()),
            Some(index) => {
                let (row, label) = at(index);
                Err(LossError::Value {
                    what: "targets",
                    expected: accepted.expected(),
                    row,
                    label,
                    got: self.targets[index].to_f64(),
                })
            }
        }
    }
}

/// The dtype in which a loss of these logits is returned, and computed where there is no kernel.
pub(crate) fn working_dtype(logits: &Tensor) -> std::result::Result<DType, LossError> {
    match logits.dtype() {
        DType::F64 => Ok(DType::F64),
        DType::F32 | DType::BF16 | DType::F16 => Ok(DType::F32),
        got => Err(LossError::LogitsDtype { got }),
    }
}

fn agree(
    what: &'static str,
    logits: &Tensor,
    other: &Tensor,
) -> std::result::Result<(), LossError> {
    if logits.dims() != other.dims() {
        return Err(LossError::ShapeMismatch {
            what,
            expected: logits.dims().to_vec(),
            got: other.dims().to_vec(),
        });
    }
    if !other.device().is_cpu() && !logits.device().same_device(other.device()) {
        return Err(LossError::DeviceMismatch {
            what,
            expected: format!("{:?}", logits.device().location()),
            got: format!("{:?}", other.device().location()),
        });
    }
    Ok(())
}

/// Whether the host can read a tensor without waiting.
fn is_on_host(tensor: &Tensor) -> bool {
    #[cfg(test)]
    if crate::tensor_path::FORCED.get() {
        return false;
    }
    tensor.device().is_cpu()
}

/// The values of a contiguous CPU tensor.
fn values<'a, T: WithDType>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    let (Storage::Cpu(storage), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        candle_core::bail!("a loss kernel was given a tensor that is not contiguous on the CPU")
    };
    let values = T::cpu_storage_as_slice(storage)?;
    values
        .get(start..end)
        .ok_or_else(|| candle_core::Error::msg("a tensor's layout exceeds its storage"))
}
