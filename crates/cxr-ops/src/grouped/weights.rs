//! Weights in the order in which the kernels read them, and their gradients back.

use rayon::prelude::*;

use super::{Buffer, Group, Grouping, LANES, Pool, ZERO};

/// The weight `O×C×K×K` of a convolution with `taps` = K² between two groupings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolution<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) taps: usize,
    pub(crate) input: &'a Grouping,
    pub(crate) output: &'a Grouping,
}

impl Convolution<'_> {
    /// For the forward pass: per output group, tap and input group, a block of input lane × output lane.
    /// `scale` multiplies each output map.
    pub(crate) fn forward(&self, scale: Option<&[Group]>, pool: &Pool) -> Buffer {
        let (inputs, taps) = (self.input.groups(), self.taps);
        let mut packed = pool.take(self.output.groups() * taps * inputs * LANES);
        packed
            .par_chunks_mut(taps * inputs * LANES)
            .zip(self.output.spans().collect::<Vec<_>>())
            .enumerate()
            .for_each(|(out_group, (packed, (first_out, used_out)))| {
                let (blocks, _) = packed.as_chunks_mut::<LANES>();
                blocks.fill([ZERO; LANES]);
                self.for_each_weight(
                    self.input.spans(),
                    first_out..first_out + used_out,
                    |tap, in_group, in_lane, out_lane, value| {
                        let scale = scale.map_or(1., |scale| scale[out_group][out_lane]);
                        blocks[tap * inputs + in_group][in_lane][out_lane] = scale * value;
                    },
                );
            });
        packed
    }

    /// For the gradient towards the input: per input group, mirrored tap and output group, a block of
    /// output lane × input lane.
    pub(crate) fn backward(&self, pool: &Pool) -> Buffer {
        let (outputs, taps) = (self.output.groups(), self.taps);
        let mut packed = pool.take(self.input.groups() * taps * outputs * LANES);
        packed
            .par_chunks_mut(taps * outputs * LANES)
            .zip(self.input.spans().collect::<Vec<_>>())
            .for_each(|(packed, span)| {
                let (blocks, _) = packed.as_chunks_mut::<LANES>();
                blocks.fill([ZERO; LANES]);
                for (out_group, (first_out, used_out)) in self.output.spans().enumerate() {
                    self.for_each_weight(
                        std::iter::once(span),
                        first_out..first_out + used_out,
                        |tap, _, in_lane, out_lane, value| {
                            let block = (taps - 1 - tap) * outputs + out_group;
                            blocks[block][out_lane][in_lane] = value;
                        },
                    );
                }
            });
        packed
    }

    /// Calls `visit(tap, input group, input lane, output lane, weight)` for the weights between some input
    /// groups and a run of output maps.
    #[inline(always)]
    fn for_each_weight(
        &self,
        inputs: impl Iterator<Item = (usize, usize)>,
        outputs: std::ops::Range<usize>,
        mut visit: impl FnMut(usize, usize, usize, usize, f32),
    ) {
        let (taps, maps_in) = (self.taps, self.input.maps());
        for (in_group, (first_in, used_in)) in inputs.enumerate() {
            for (out_lane, out_map) in outputs.clone().enumerate() {
                let from = (out_map * maps_in + first_in) * taps;
                let weights = &self.weight[from..from + used_in * taps];
                for (in_lane, weights) in weights.chunks_exact(taps).enumerate() {
                    for (tap, &weight) in weights.iter().enumerate() {
                        visit(tap, in_group, in_lane, out_lane, weight);
                    }
                }
            }
        }
    }

    /// Blocks of one partial sum of the weight's gradient.
    pub(crate) fn gradient_blocks(&self) -> usize {
        self.taps * self.input.groups() * self.output.groups()
    }

    /// The place of a block of input lane × output lane in a partial sum.
    pub(crate) fn gradient_block(&self, tap: usize, in_group: usize, out_group: usize) -> usize {
        (tap * self.input.groups() + in_group) * self.output.groups() + out_group
    }

    /// The gradient in the weight's own order: the partial sums of `parts`, added in order.
    pub(crate) fn gradient(&self, parts: &[Group]) -> Vec<f32> {
        let map_values = self.input.maps() * self.taps;
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
        let map_values = self.input.maps() * self.taps;
        let part = self.gradient_blocks() * LANES;
        for (in_group, (first_in, used_in)) in self.input.spans().enumerate() {
            for tap in 0..self.taps {
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
                        map[(first_in + in_lane) * self.taps + tap] = total;
                    }
                }
            }
        }
    }
}
