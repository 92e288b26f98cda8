//! From the gradient of the feature maps to those of all parameters.

use candle_core::{Result, bail};

use super::{DenseNetPlan, Tape};
use crate::gpu::machine::{Convolution, Machine, Matrix, Pass, Product, View};
use crate::gpu::rows::{
    self, Corrections, Rows, WeightShape, activate, norm_gradients, unpack_weight,
};

/// The gradients of parameters in one memory, filled from the last to the first.
struct Gradients<'a, M: ?Sized> {
    memory: &'a mut M,
    /// Where those begin that are there.
    begin: usize,
}

impl<M: ?Sized> Gradients<'_, M> {
    /// Where the `values` in front of those that are there go.
    fn before(&mut self, values: usize) -> Result<(&mut M, usize)> {
        match self.begin.checked_sub(values) {
            Some(begin) => {
                self.begin = begin;
                Ok((self.memory, begin))
            }
            None => bail!("a DenseNet's gradients begin early"),
        }
    }
}

/// The gradients of a 1×1 convolution `x·weightᵀ`, of x and, to `gradients`, of the weight.
fn multiply_backward<N: Machine>(
    machine: &N,
    gradient: &N::Memory,
    (x, rows): (&N::Memory, usize),
    weight: &N::Memory,
    (inputs, outputs): (usize, usize),
    gradients: &mut Gradients<'_, N::Memory>,
) -> Result<N::Owned> {
    let (out, out_offset) = gradients.before(outputs * inputs)?;
    machine.multiply(Product {
        rows: outputs,
        columns: inputs,
        inner: rows,
        left: Matrix::transposed(gradient, outputs),
        right: Matrix::plain(x, inputs),
        out,
        out_offset,
        out_pitch: inputs,
        is_out_single: true,
    })?;
    let mut of_x = machine.alloc_activations(rows * inputs)?;
    machine.multiply(Product {
        rows,
        columns: inputs,
        inner: outputs,
        left: Matrix::plain(gradient, outputs),
        right: Matrix::plain(weight, inputs),
        out: &mut *of_x,
        out_offset: 0,
        out_pitch: inputs,
        is_out_single: false,
    })?;
    Ok(of_x)
}

/// The gradient of a convolution's weight, to `gradients`.
fn weight_backward<N: Machine>(
    machine: &N,
    convolution: &Convolution,
    pass: Pass<'_, N::Memory>,
    shape: WeightShape,
    gradients: &mut Gradients<'_, N::Memory>,
) -> Result<()> {
    let n_packed = shape.outputs * shape.taps * shape.packed_inputs;
    let mut packed = machine.alloc_activations(n_packed)?;
    machine.convolve(convolution, pass, &mut packed)?;
    let out = gradients.before(shape.outputs * shape.taps * shape.inputs)?;
    unpack_weight(machine, &packed, shape, out)
}

/// The gradients of all parameters, one behind the other in their order, to `gradients`, from that of the feature maps.
pub(in crate::gpu) fn backward<N: Machine>(
    machine: &N,
    plan: &DenseNetPlan,
    tape: &Tape<N::Owned>,
    gradient: View<'_, N::Memory>,
    gradients: &mut N::Memory,
) -> Result<()> {
    let Some(last) = tape.blocks.last() else {
        bail!("a DenseNet needs at least one block");
    };
    let mut gradients = Gradients {
        memory: gradients,
        begin: plan.n_parameters(),
    };
    let channels = last.block.channels;
    let of_maps = Rows::packed(&*last.maps, channels);
    let mut corrections = Corrections::alloc(machine, channels)?;
    let (grid, scales) = (last.block.grid, &tape.tail_scales);
    let mean = last.statistics.mean_view();
    let (mut of_block, parts) =
        rows::feature_gradient(machine, gradient, of_maps, grid, scales, mean)?;
    let count = (channels, grid.rows());
    let out = gradients.before(2 * channels)?;
    norm_gradients(
        machine,
        &parts,
        mean,
        scales,
        count,
        &mut corrections,
        false,
        out,
    )?;
    drop(parts);

    for (index, block_tape) in tape.blocks.iter().enumerate().rev() {
        let (block, maps) = (
            block_tape.block,
            Rows::packed(&*block_tape.maps, block_tape.block.channels),
        );
        let (rows, block_mean) = (block.grid.rows(), block_tape.statistics.mean_view());
        for (layer, layer_tape) in block_tape.layers.iter().enumerate().rev() {
            let inputs = block.first + layer * plan.growth;
            let narrow = Rows::packed(&*layer_tape.bottleneck, plan.narrow);
            let own = (inputs, plan.growth);
            let of_new = rows::take_gradient(machine, &of_block, maps, rows, &corrections, own)?;
            let grow = plan.grow(block.grid);
            let [weight1, weight2] = &layer_tape.weights;
            {
                let activated = activate(machine, narrow, rows, &layer_tape.scales2)?;
                let pass = Pass::OfWeight {
                    gradient: (&*of_new).into(),
                    input: (&*activated).into(),
                };
                weight_backward(machine, &grow, pass, plan.grow_weight(), &mut gradients)?;
            }
            let mut of_narrow = machine.alloc_activations(rows * plan.narrow)?;
            let pass = Pass::OfInput {
                gradient: (&*of_new).into(),
                weight: (&**weight2).into(),
            };
            machine.convolve(&grow, pass, &mut of_narrow)?;
            drop(of_new);
            let (scales2, mean2) = (&layer_tape.scales2, layer_tape.statistics2.mean_view());
            let parts = rows::mask(machine, &mut of_narrow, narrow, rows, scales2, mean2)?;
            let mut corrections2 = Corrections::alloc(machine, plan.narrow)?;
            let count = (plan.narrow, rows);
            let out = gradients.before(2 * plan.narrow)?;
            norm_gradients(
                machine,
                &parts,
                mean2,
                scales2,
                count,
                &mut corrections2,
                false,
                out,
            )?;
            rows::combine(
                machine,
                &mut of_narrow,
                narrow,
                rows,
                scales2,
                &corrections2,
            )?;

            let x = Rows {
                channels: inputs,
                ..maps
            };
            let scales1 = &layer_tape.scales1;
            let activated = activate(machine, x, rows, scales1)?;
            let of_x = multiply_backward(
                machine,
                &of_narrow,
                (&activated, rows),
                weight1,
                (inputs, plan.narrow),
                &mut gradients,
            )?;
            drop((activated, of_narrow));
            let parts =
                rows::add_masked(machine, &of_x, x, rows, scales1, block_mean, &mut of_block)?;
            let count = (inputs, rows);
            let out = gradients.before(2 * inputs)?;
            norm_gradients(
                machine,
                &parts,
                block_mean,
                scales1,
                count,
                &mut corrections,
                true,
                out,
            )?;
        }
        let own = (0, block.first);
        let of_first = rows::take_gradient(machine, &of_block, maps, rows, &corrections, own)?;
        drop(of_block);
        let before = index
            .checked_sub(1)
            .and_then(|index| tape.blocks.get(index));
        let Some((before, (scales, weight))) =
            before.and_then(|before| Some((before, before.transition.as_ref()?)))
        else {
            let stem = Rows::packed(&*tape.stem, plan.stem_maps);
            let grid = tape.images.strided();
            let (scales, mean) = (&tape.stem_scales, tape.stem_statistics.mean_view());
            let (mut of_stem, parts) =
                rows::stem_unpool(machine, &of_first, &tape.stem_places, stem, grid, mean)?;
            let mut corrections = Corrections::alloc(machine, plan.stem_maps)?;
            let count = (plan.stem_maps, grid.rows());
            let out = gradients.before(2 * plan.stem_maps)?;
            norm_gradients(
                machine,
                &parts,
                mean,
                scales,
                count,
                &mut corrections,
                false,
                out,
            )?;
            rows::combine(
                machine,
                &mut of_stem,
                stem,
                grid.rows(),
                scales,
                &corrections,
            )?;
            let pass = Pass::OfWeight {
                gradient: (&*of_stem).into(),
                input: (&*tape.image_rows).into(),
            };
            let precision = machine.precision();
            let shape = plan.stem_weight(precision);
            let stem = plan.stem(tape.images, precision);
            return weight_backward(machine, &stem, pass, shape, &mut gradients);
        };
        let channels = before.block.channels;
        let of_maps = Rows::packed(&*before.maps, channels);
        let pooled = rows::activate_pool(machine, of_maps, before.block.grid, scales)?;
        let of_pooled = multiply_backward(
            machine,
            &of_first,
            (&pooled, rows),
            weight,
            (channels, block.first),
            &mut gradients,
        )?;
        drop(pooled);
        let (grid, mean) = (before.block.grid, before.statistics.mean_view());
        let (of_before, parts) = rows::unpool(machine, &of_pooled, of_maps, grid, scales, mean)?;
        let mut next = Corrections::alloc(machine, channels)?;
        let count = (channels, grid.rows());
        let out = gradients.before(2 * channels)?;
        norm_gradients(machine, &parts, mean, scales, count, &mut next, false, out)?;
        (of_block, corrections) = (of_before, next);
    }
    bail!("a DenseNet's tape has no stem")
}
