//! A dense layer.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

use crate::cpu::{Matrix, matmul, values, with_values};

/// `inputs · weightᵀ + bias`: `N×I` inputs and an `O×I` weight give `N×O`; `bias` has `O` values.
///
/// Candle's own product shares one matrix among all threads; here it runs on the calling thread,
/// so that the result cannot depend on their number. On other devices it is candle's.
///
/// # Errors
/// Shapes that do not fit, or another type than `f32`.
pub fn linear(inputs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (rows, inputs_wide) = inputs.dims2()?;
    let (outputs_wide, weight_wide) = weight.dims2()?;
    if weight_wide != inputs_wide {
        bail!("linear: the weight reads {weight_wide} values, the inputs have {inputs_wide}");
    }
    let op = Linear {
        rows,
        inputs: inputs_wide,
        outputs: outputs_wide,
    };
    let outputs = if inputs.device().is_cpu() {
        inputs.contiguous()?.apply_op2(&weight.contiguous()?, op)?
    } else {
        inputs.matmul(&weight.t()?)?
    };
    match bias {
        None => Ok(outputs),
        Some(bias) => outputs.broadcast_add(bias),
    }
}

struct Linear {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    fn product(
        &self,
        rows: usize,
        columns: usize,
        left: (&[f32], Matrix),
        right: (&[f32], Matrix),
    ) -> Vec<f32> {
        let mut result = vec![0f32; rows * columns];
        matmul(
            (&mut result, Matrix::dense(0, rows, columns)),
            left,
            right,
            false,
        );
        result
    }

    fn inputs_matrix(&self) -> Matrix {
        Matrix::dense(0, self.rows, self.inputs)
    }

    fn weight_matrix(&self) -> Matrix {
        Matrix::dense(0, self.outputs, self.inputs)
    }

    fn outputs_matrix(&self) -> Matrix {
        Matrix::dense(0, self.rows, self.outputs)
    }
}

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        inputs: &CpuStorage,
        inputs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let inputs = values(inputs, inputs_layout, self.name())?;
        let weight = values(weight, weight_layout, self.name())?;
        let outputs = self.product(
            self.rows,
            self.outputs,
            (inputs, self.inputs_matrix()),
            (weight, self.weight_matrix().transposed()),
        );
        Ok((CpuStorage::F32(outputs), (self.rows, self.outputs).into()))
    }

    fn bwd(
        &self,
        inputs: &Tensor,
        weight: &Tensor,
        _outputs: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let of_inputs = if inputs.track_op() {
            let values = with_values(&gradient, self.name(), |gradient| {
                with_values(weight, self.name(), |weight| {
                    let left = (gradient, self.outputs_matrix());
                    self.product(self.rows, self.inputs, left, (weight, self.weight_matrix()))
                })
            })??;
            Some(Tensor::from_vec(values, inputs.shape(), inputs.device())?)
        } else {
            None
        };
        let of_weight = if weight.track_op() {
            let values = with_values(&gradient, self.name(), |gradient| {
                with_values(inputs, self.name(), |inputs| {
                    let left = (gradient, self.outputs_matrix().transposed());
                    self.product(
                        self.outputs,
                        self.inputs,
                        left,
                        (inputs, self.inputs_matrix()),
                    )
                })
            })??;
            Some(Tensor::from_vec(values, weight.shape(), weight.device())?)
        } else {
            None
        };
        Ok((of_inputs, of_weight))
    }
}
