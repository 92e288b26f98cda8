//! From the gradient of the feature maps to those of all parameters.

use candle_core::{Result, bail};

use super::{DenseNetPlan, Tape};
use crate::gpu::machine::{Machine, Matrix, Pass, Product, View};
use crate::gpu::rows::{self, Corrections, Rows, activate, norm_gradients, unpack_weight};

/// The gradients of a 1×1 convolution `x·weightᵀ`: of x, and of the weight in single precision.
fn multiply_backward<N: Machine>(
    machine: &N,
    gradient: &N::Memory,
    (x, rows): (&N::Memory, usize),
    weight: &N::Memory,
    inputs: usize,
    outputs: usize,
) -> Result<(N::Memory, N::Memory)> {
    let plain = |memory, pitch| Matrix {
        memory,
        pitch,
        is_transposed: false,
    };
    let mut of_weight = machine.alloc(outputs * inputs)?;
    machine.multiply(Product {
        rows: outputs,
        columns: inputs,
        inner: rows,
        left: Matrix {
            is_transposed: true,
            ..plain(gradient, outputs)
        },
        right: plain(x, inputs),
        out: &mut of_weight,
        out_pitch: inputs,
        is_out_single: true,
    })?;
    let mut of_x = machine.alloc_activations(rows * inputs)?;
    machine.multiply(Product {
        rows,
        columns: inputs,
        inner: outputs,
        left: plain(gradient, outputs),
        right: plain(weight, inputs),
        out: &mut of_x,
        out_pitch: inputs,
        is_out_single: false,
    })?;
    Ok((of_x, of_weight))
}

/// The gradients of all parameters, in their order, from that of the feature maps.
pub(in crate::gpu) fn backward<N: Machine>(
    machine: &N,
    plan: &DenseNetPlan,
    tape: &Tape<N::Memory>,
    gradient: View<'_, N::Memory>,
) -> Result<Vec<N::Memory>> {
    let Some(last) = tape.blocks.last() else {
        bail!("a DenseNet needs at least one block");
    };
    // From the last parameter to the first.
    let mut gradients: Vec<N::Memory> = Vec::new();
    let push_norm = |gradients: &mut Vec<N::Memory>, [weight, bias]: [N::Memory; 2]| {
        gradients.push(bias);
        gradients.push(weight);
    };
    let channels = last.block.channels;
    let of_maps = Rows::packed(&last.maps, channels);
    let mut corrections = Corrections::alloc(machine, channels)?;
    let (grid, scales) = (last.block.grid, &tape.tail_scales);
    let (mut of_block, parts) = rows::feature_gradient(
        machine,
        gradient,
        of_maps,
        grid,
        scales,
        last.statistics.mean_view(),
    )?;
    let count = (channels, grid.rows());
    let mean_of_last = last.statistics.mean_view();
    let norm = norm_gradients(
        machine,
        &parts,
        mean_of_last,
        scales,
        count,
        &mut corrections,
        false,
    )?;
    push_norm(&mut gradients, norm);

    for (index, block_tape) in tape.blocks.iter().enumerate().rev() {
        let (block, maps) = (
            block_tape.block,
            Rows::packed(&block_tape.maps, block_tape.block.channels),
        );
        let (rows, block_mean) = (block.grid.rows(), block_tape.statistics.mean_view());
        for (layer, layer_tape) in block_tape.layers.iter().enumerate().rev() {
            let inputs = block.first + layer * plan.growth;
            let narrow = Rows::packed(&layer_tape.bottleneck, plan.narrow);
            let own = (inputs, plan.growth);
            let of_new = rows::take_gradient(machine, &of_block, maps, rows, &corrections, own)?;
            let grow = plan.grow(block.grid);
            let [weight1, weight2] = &layer_tape.weights;
            let shape2 = plan.grow_weight();
            let of_weight2 = {
                let activated = activate(machine, narrow, rows, &layer_tape.scales2)?;
                let mut packed = machine
                    .alloc_activations(shape2.outputs * shape2.taps * shape2.packed_inputs)?;
                let pass = Pass::OfWeight {
                    gradient: &of_new,
                    input: &activated,
                };
                machine.convolve(&grow, pass, &mut packed)?;
                unpack_weight(machine, &packed, shape2)?
            };
            let mut of_narrow = machine.alloc_activations(rows * plan.narrow)?;
            let pass = Pass::OfInput {
                gradient: &of_new,
                weight: weight2,
            };
            machine.convolve(&grow, pass, &mut of_narrow)?;
            let (scales2, mean2) = (&layer_tape.scales2, layer_tape.statistics2.mean_view());
            let parts = rows::mask(machine, &mut of_narrow, narrow, rows, scales2, mean2)?;
            let mut corrections2 = Corrections::alloc(machine, plan.narrow)?;
            let count = (plan.narrow, rows);
            let norm2 = norm_gradients(
                machine,
                &parts,
                mean2,
                scales2,
                count,
                &mut corrections2,
                false,
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
            let (of_x, of_weight1) = multiply_backward(
                machine,
                &of_narrow,
                (&activated, rows),
                weight1,
                inputs,
                plan.narrow,
            )?;
            drop(activated);
            let parts =
                rows::add_masked(machine, &of_x, x, rows, scales1, block_mean, &mut of_block)?;
            let count = (inputs, rows);
            let norm1 = norm_gradients(
                machine,
                &parts,
                block_mean,
                scales1,
                count,
                &mut corrections,
                true,
            )?;
            gradients.push(of_weight2);
            push_norm(&mut gradients, norm2);
            gradients.push(of_weight1);
            push_norm(&mut gradients, norm1);
        }
        let own = (0, block.first);
        let of_first = rows::take_gradient(machine, &of_block, maps, rows, &corrections, own)?;
        let before = index
            .checked_sub(1)
            .and_then(|index| tape.blocks.get(index));
        let Some((before, (scales, weight))) =
            before.and_then(|before| Some((before, before.transition.as_ref()?)))
        else {
            let stem = Rows::packed(&tape.stem, plan.stem_maps);
            let grid = tape.images.strided();
            let (scales, mean) = (&tape.stem_scales, tape.stem_statistics.mean_view());
            let (mut of_stem, parts) =
                rows::stem_unpool(machine, &of_first, stem, grid, scales, mean)?;
            let mut corrections = Corrections::alloc(machine, plan.stem_maps)?;
            let count = (plan.stem_maps, grid.rows());
            let norm = norm_gradients(
                machine,
                &parts,
                mean,
                scales,
                count,
                &mut corrections,
                false,
            )?;
            rows::combine(
                machine,
                &mut of_stem,
                stem,
                grid.rows(),
                scales,
                &corrections,
            )?;
            let shape = plan.stem_weight();
            let mut packed =
                machine.alloc_activations(shape.outputs * shape.taps * shape.packed_inputs)?;
            let pass = Pass::OfWeight {
                gradient: &of_stem,
                input: &tape.image_rows,
            };
            machine.convolve(&plan.stem(tape.images), pass, &mut packed)?;
            push_norm(&mut gradients, norm);
            gradients.push(unpack_weight(machine, &packed, shape)?);
            break;
        };
        let channels = before.block.channels;
        let of_maps = Rows::packed(&before.maps, channels);
        let pooled = rows::activate_pool(machine, of_maps, before.block.grid, scales)?;
        let (of_pooled, of_weight) = multiply_backward(
            machine,
            &of_first,
            (&pooled, rows),
            weight,
            channels,
            block.first,
        )?;
        drop(pooled);
        let (grid, mean) = (before.block.grid, before.statistics.mean_view());
        let (of_before, parts) = rows::unpool(machine, &of_pooled, of_maps, grid, scales, mean)?;
        let mut next = Corrections::alloc(machine, channels)?;
        let count = (channels, grid.rows());
        let norm = norm_gradients(machine, &parts, mean, scales, count, &mut next, false)?;
        gradients.push(of_weight);
        push_norm(&mut gradients, norm);
        (of_block, corrections) = (of_before, next);
    }
    gradients.reverse();
    Ok(gradients)
}
