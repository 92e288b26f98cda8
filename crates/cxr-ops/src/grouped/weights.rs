//! Weights in the order in which the kernels read them, and their gradients back.

use rayon::prelude::*;

use super::{Buffer, Group, Grouping, LANES, Pool, ZERO};

/// The weight `O×C×K×K` of a convolution between two groupings; `TAPS` is K².
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolution<'a, const TAPS: usize> {
    pub(crate) weight: &'a [f32],
    pub(crate) input: &'a Grouping,
    pub(crate) output: &'a Grouping,
}

impl<const TAPS: usize> Convolution<'_, TAPS> {
    /// For the forward pass: per output group, tap and input group, a block of input lane × output lane.
    /// `scale` multiplies each output map.
    pub(crate) fn forward(&self, scale: Option<&[Group]>, pool: &Pool) -> Buffer {
        let inputs = self.input.groups();
        let mut packed = pool.take(self.output.groups() * TAPS * inputs * LANES);
        packed
            .par_chunks_mut(TAPS * inputs * LANES)
            .zip(self.output.spans().collect::<Vec<_>>())
            .enumerate()
            .for_each(|(out_group, (packed, outputs))| {
                let (blocks, _) = packed.as_chunks_mut::<LANES>();
                let scale = scale.map_or(&[1.; LANES], |scale| &scale[out_group]);
                for (in_group, inputs_here) in self.input.spans().enumerate() {
                    self.for_each_row(inputs_here, outputs, |tap, out_lane, row| {
                        let block = &mut blocks[tap * inputs + in_group];
                        for (line, value) in block.iter_mut().zip(row) {
                            line[out_lane] = scale[out_lane] * value;
                        }
                    });
                }
            });
        packed
    }

    /// For the gradient towards the input: per input group, mirrored tap and output group, a block of
    /// output lane × input lane.
    pub(crate) fn backward(&self, pool: &Pool) -> Buffer {
        let outputs = self.output.groups();
        let mut packed = pool.take(self.input.groups() * TAPS * outputs * LANES);
        packed
            .par_chunks_mut(TAPS * outputs * LANES)
            .zip(self.input.spans().collect::<Vec<_>>())
            .for_each(|(packed, inputs)| {
                let (blocks, _) = packed.as_chunks_mut::<LANES>();
                for (out_group, outputs_here) in self.output.spans().enumerate() {
                    self.for_each_row(inputs, outputs_here, |tap, out_lane, row| {
                        blocks[(TAPS - 1 - tap) * outputs + out_group][out_lane] = row;
                    });
                }
            });
        packed
    }

    /// Calls `visit(tap, output lane, weights of the input lanes)` for the weights between a group of input maps
    /// and one of output maps, each given as its first map and how many it has. Unused lanes have weight 0.
    fn for_each_row(
        &self,
        inputs: (usize, usize),
        outputs: (usize, usize),
        mut visit: impl FnMut(usize, usize, Group),
    ) {
        for out_lane in 0..LANES {
            let kernels = if out_lane < outputs.1 {
                let from = (outputs.0 + out_lane) * self.input.maps() + inputs.0;
                &self.weight[from * TAPS..][..inputs.1 * TAPS]
            } else {
                &[]
            };
            for tap in 0..TAPS {
                visit(tap, out_lane, lanes::<TAPS>(kernels, tap));
            }
        }
    }

    /// Blocks of one partial sum of the weight's gradient.
    pub(crate) fn gradient_blocks(&self) -> usize {
        TAPS * self.input.groups() * self.output.groups()
    }

    /// The place of a block of input lane × output lane in a partial sum.
    pub(crate) fn gradient_block(&self, tap: usize, in_group: usize, out_group: usize) -> usize {
        (tap * self.input.groups() + in_group) * self.output.groups() + out_group
    }

    /// The gradient in the weight's own order: the partial sums of `parts`, added in order.
    pub(crate) fn gradient(&self, parts: &[Group]) -> Vec<f32> {
        let map_values = self.input.maps() * TAPS;
        let mut gradient = vec![0f32; self.output.maps() * map_values];
        let mut rest = &mut gradient[..];
        let of_groups: Vec<&mut [f32]> = self
            .output
            .spans()
            .map(|(_, used)| {
                let (of_group, others) = std::mem::take(&mut rest).split_at_mut(used * map_values);
                rest = others;
                of_group
            })
            .collect();
        of_groups
            .into_par_iter()
            .enumerate()
            .for_each(|(out_group, gradient)| self.gradient_of(out_group, parts, gradient));
        gradient
    }

    fn gradient_of(&self, out_group: usize, parts: &[Group], gradient: &mut [f32]) {
        let map_values = self.input.maps() * TAPS;
        let part = self.gradient_blocks() * LANES;
        for (in_group, (first_in, used_in)) in self.input.spans().enumerate() {
            for tap in 0..TAPS {
                for in_lane in 0..used_in {
                    let line = self.gradient_block(tap, in_group, out_group) * LANES + in_lane;
                    let mut total = ZERO;
                    for line in parts.iter().skip(line).step_by(part) {
                        for lane in 0..LANES {
                            total[lane] += line[lane];
                        }
                    }
                    let maps = gradient.chunks_exact_mut(map_values);
                    for (map, total) in maps.zip(total) {
                        map[(first_in + in_lane) * TAPS + tap] = total;
                    }
                }
            }
        }
    }
}

/// One tap of up to 32 kernels; what is beyond them is 0.
#[inline(always)]
fn lanes<const TAPS: usize>(kernels: &[f32], tap: usize) -> Group {
    let mut row = ZERO;
    for (lane, kernel) in row.iter_mut().zip(kernels.as_chunks::<TAPS>().0) {
        *lane = kernel[tap];
    }
    row
}
