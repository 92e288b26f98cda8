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
    product(inputs, weight, bias, false)
}

/// As [`linear`], where on a CPU a row of the outputs is the same bits whatever other rows there are, and however many:
/// what is predicted of an image does not depend on the batch that it is in.
///
/// # Errors
/// As [`linear`].
pub fn linear_by_row(inputs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    product(inputs, weight, bias, true)
}

fn product(
    inputs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    by_row: bool,
) -> Result<Tensor> {
    let (rows, inputs_wide) = inputs.dims2()?;
    let (outputs_wide, weight_wide) = weight.dims2()?;
    if weight_wide != inputs_wide {
        bail!("linear: the weight reads {weight_wide} values, the inputs have {inputs_wide}");
    }
    let op = Linear {
        rows,
        inputs: inputs_wide,
        outputs: outputs_wide,
        by_row,
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
    /// Whether a row does not depend on the number of rows.
    by_row: bool,
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

    /// So many rows make one product where rows are independent, at least and at most.
    ///
    /// The kernel's order of summation depends on sizes: products of up to 256 values have a kernel of their own, as
    /// have those of a single row or column, and one of more than 64 in a direction is cut in other places. With these
    /// bounds the sizes of every product are on one side of each of them.
    fn rows_at_once(&self) -> (usize, usize) {
        match self.outputs {
            0 | 1 => (1, 1),
            outputs => {
                let fewest = 256 / outputs + 1;
                match fewest <= 64 {
                    true => (fewest.max(2), 64),
                    false => (fewest, fewest),
                }
            }
        }
    }

    /// Each row of outputs the same for any number of rows.
    fn row_by_row(&self, inputs: &[f32], weight: &[f32]) -> Vec<f32> {
        let (fewest, most) = self.rows_at_once();
        let right = (weight, self.weight_matrix().transposed());
        let mut outputs = Vec::with_capacity(self.rows * self.outputs);
        for first in (0..self.rows).step_by(most) {
            let rows = most.min(self.rows - first);
            let inputs = &inputs[first * self.inputs..(first + rows) * self.inputs];
            let product = |rows, inputs| {
                let left = (inputs, Matrix::dense(0, rows, self.inputs));
                self.product(rows, self.outputs, left, right)
            };
            if rows < fewest {
                let mut padded = inputs.to_vec();
                padded.resize(fewest * self.inputs, 0.);
                let mut product = product(fewest, &padded);
                product.truncate(rows * self.outputs);
                outputs.extend(product);
            } else {
                outputs.extend(product(rows, inputs));
            }
        }
        outputs
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
        let outputs = match self.by_row {
            true => self.row_by_row(inputs, weight),
            false => self.product(
                self.rows,
                self.outputs,
                (inputs, self.inputs_matrix()),
                (weight, self.weight_matrix().transposed()),
            ),
        };
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
