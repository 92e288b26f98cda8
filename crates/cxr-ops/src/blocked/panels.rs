//! The weights of a convolution, in the order in which the kernels read them.

use std::ops::Range;

use rayon::prelude::*;

use super::kernels::{Kernels, Products, Rows, Start, Tap};
use super::maps::Room;
use super::{Block, LANES, ZERO};
use crate::grouped::Pool;

/// What some blocks are computed from: the weights of 16 or 32 maps, in the kernel's order.
pub(super) struct Panel {
    /// Blocks that are computed.
    pub(super) to: Range<usize>,
    /// Blocks that are read.
    pub(super) from: Range<usize>,
    /// Where its weights begin.
    weights: usize,
}

/// A convolution's weights in the kernel's order, whatever the size of its maps.
pub(crate) struct Panels {
    panels: Vec<Panel>,
    weights: Room,
    /// Maps that are read.
    from: usize,
}

/// Blocks of `from` maps that blocks `to` of `maps` maps are connected with.
pub(super) fn connected(to: Range<usize>, maps: usize, from: usize, groups: usize) -> Range<usize> {
    let (per_group, from_group) = (maps / groups, from / groups);
    let last = (to.end * LANES).min(maps) - 1;
    let first = to.start * LANES / per_group * from_group;
    let end = (last / per_group + 1) * from_group;
    first / LANES..end.div_ceil(LANES)
}

/// Blocks that are computed together. Blocks of narrow groups read different maps.
fn width(maps: usize, groups: usize) -> usize {
    if groups == 1 || maps / groups >= 2 * LANES {
        2
    } else {
        1
    }
}

/// Weights as candle has them, of a convolution of one group.
#[derive(Clone, Copy)]
pub(super) struct Dense<'a> {
    pub(super) values: &'a [f32],
    /// Values from a map that is computed to the next, and from a map that is read to the next.
    pub(super) strides: [usize; 2],
    /// A factor for each map that is computed.
    pub(super) scale: Option<&'a [f32]>,
}

impl Dense<'_> {
    /// Lays out the weights of maps `to`, two blocks at most, from maps `from`, one block at most: a line for each tap and
    /// map that is read, with the maps that are computed. The order is that of memory, of which each line is read once.
    /// Some remainders of a stride have no taps.
    pub(super) fn lay_out(
        &self,
        to: Range<usize>,
        from: Range<usize>,
        taps: &[usize],
        line: usize,
        out: &mut [f32],
    ) {
        if taps.is_empty() {
            return;
        }
        let [to_stride, from_stride] = self.strides;
        let lanes = from.len();
        if let ([tap], true) = (taps, from_stride == 1 && to_stride > 1) {
            // Of single pixels: rows of maps that are read.
            for map in to.clone() {
                let values = &self.values[map * to_stride + from.start + tap..][..lanes];
                let factor = self.scale.map_or(1., |scale| scale[map]);
                let places = out[map - to.start..].iter_mut().step_by(line);
                for (place, value) in places.zip(values) {
                    *place = value * factor;
                }
            }
            return;
        }
        let mut put = |map: usize, lane: usize| {
            let values = &self.values[map * to_stride + (from.start + lane) * from_stride..];
            let factor = self.scale.map_or(1., |scale| scale[map]);
            let places = out[lane * line + map - to.start..].iter_mut();
            for (place, &tap) in places.step_by(lanes * line).zip(taps) {
                *place = values[tap] * factor;
            }
        };
        if to_stride > from_stride {
            for map in to.clone() {
                for lane in 0..lanes {
                    put(map, lane);
                }
            }
        } else {
            for lane in 0..lanes {
                for map in to.clone() {
                    put(map, lane);
                }
            }
        }
    }
}

/// Panels for all blocks of `to` maps, which read all of `from` maps.
pub(super) fn dense_panels(
    to: usize,
    from: usize,
    taps: &[usize],
    weight: &Dense<'_>,
    pool: &Pool,
) -> Panels {
    Panels::filled(to, from, 1, taps.len(), pool, |panel, out| {
        let maps = panel.to.start * LANES..(panel.to.end * LANES).min(to);
        let line = panel.to.len() * LANES;
        let mut rest = out.as_flattened_mut();
        for block in panel.from.clone() {
            let read = block * LANES..block * LANES + lanes(from, block);
            let (now, later) = rest.split_at_mut(taps.len() * read.len() * line);
            rest = later;
            weight.lay_out(maps.clone(), read, taps, line, now);
        }
    })
}

/// Panels for all blocks of `to` maps, each reading the blocks of `from` maps that it is connected with;
/// `weight(to map, from map, tap)`.
pub(super) fn panels(
    to: usize,
    from: usize,
    groups: usize,
    taps: &[usize],
    pool: &Pool,
    weight: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Panels {
    Panels::filled(to, from, groups, taps.len(), pool, |panel, out| {
        let mut lines = out.chunks_exact_mut(panel.to.len());
        for block in panel.from.clone() {
            for &tap in taps {
                for lane in 0..lanes(from, block) {
                    let Some(line) = lines.next() else {
                        continue;
                    };
                    let values = line.as_flattened_mut().iter_mut();
                    let maps = panel.to.start * LANES..to;
                    for (value, map) in values.zip(maps) {
                        *value = weight(map, block * LANES + lane, tap);
                    }
                }
            }
        }
    })
}

/// Maps of block `block` of `maps` maps.
pub(super) fn lanes(maps: usize, block: usize) -> usize {
    (maps - block * LANES).min(LANES)
}

impl Panels {
    /// `fill` writes the weights of each panel, where they are not 0.
    fn filled(
        to: usize,
        from: usize,
        groups: usize,
        taps: usize,
        pool: &Pool,
        fill: impl Fn(&Panel, &mut [Block]) + Sync,
    ) -> Self {
        let mut panels: Vec<Panel> = Vec::new();
        let mut length = 0;
        let (wide, blocks) = (width(to, groups), to.div_ceil(LANES));
        for first in (0..blocks).step_by(wide) {
            let blocks = first..(first + wide).min(blocks);
            let read = connected(blocks.clone(), to, from, groups);
            let start = length;
            let maps: usize = read.clone().map(|block| lanes(from, block)).sum();
            length += maps * taps * blocks.len();
            panels.push(Panel {
                to: blocks,
                from: read,
                weights: start,
            });
        }
        let mut weights = Room::take(length, pool);
        let mut rest = &mut weights[..];
        let mut parts = Vec::with_capacity(panels.len());
        for (index, panel) in panels.iter().enumerate() {
            let end = panels.get(index + 1).map_or(length, |next| next.weights);
            let (now, later) = rest.split_at_mut(end - panel.weights);
            rest = later;
            parts.push((panel, now));
        }
        parts.into_par_iter().for_each(|(panel, out)| {
            // Of maps that there are not.
            if panel.to.end * LANES > to {
                out.fill(ZERO);
            }
            fill(panel, out);
        });
        Self {
            panels,
            weights,
            from,
        }
    }

    /// Those that compute some blocks, of which they are all.
    pub(super) fn of_blocks(&self, blocks: Range<usize>) -> &[Panel] {
        let first = self
            .panels
            .partition_point(|panel| panel.to.start < blocks.start);
        let end = self
            .panels
            .partition_point(|panel| panel.to.start < blocks.end);
        &self.panels[first..end]
    }

    /// The taps of a panel: those at `offsets` of each block that it reads, which are `plane` pixels each.
    pub(super) fn taps(&self, panel: &Panel, plane: usize, offsets: &[usize], taps: &mut Vec<Tap>) {
        taps.clear();
        taps.extend(panel.from.clone().flat_map(|block| {
            offsets.iter().map(move |offset| Tap {
                offset: (block - panel.from.start) * plane + offset,
                lanes: lanes(self.from, block),
            })
        }));
    }

    /// Computes the pixels of a panel's blocks, `out`, from what its [taps](Self::taps) read.
    pub(super) fn run<S: Kernels>(
        &self,
        simd: S,
        panel: &Panel,
        (rows, taps, x): (Rows, &[Tap], &[Block]),
        start: Start<'_>,
        out: &mut [&mut [Block]],
    ) {
        let weights = &self.weights[panel.weights..];
        if let [first, second] = out {
            let (weights, _) = weights.as_chunks();
            let products = Products {
                rows,
                x,
                taps,
                weights,
                start,
            };
            simd.convolve_two(products, &mut [first, second]);
        } else if let [one] = out {
            let (weights, _) = weights.as_chunks();
            let products = Products {
                rows,
                x,
                taps,
                weights,
                start,
            };
            simd.convolve_one(products, &mut [one]);
        }
    }
}

/// Blocks that some panels read.
pub(super) fn needed(panels: &[Panel]) -> Range<usize> {
    let start = panels.iter().map(|panel| panel.from.start).min();
    let end = panels.iter().map(|panel| panel.from.end).max();
    start.unwrap_or(0)..end.unwrap_or(0)
}
