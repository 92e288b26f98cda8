//! The weights of a convolution, in the order in which the kernels read them.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::kernels::{Kernels, Products, Rows, Tap};
use super::{Block, Extent, LANES, ZERO};

/// What a block's maps are computed from: the weights of 16 or 32 maps, in the kernel's order.
pub(super) struct Panel {
    /// Blocks that are computed.
    pub(super) to: Range<usize>,
    /// Blocks that are read.
    pub(super) from: Range<usize>,
    pub(super) taps: Arc<[Tap]>,
    /// Where its weights begin.
    weights: usize,
}

/// A convolution's weights in the kernel's order.
pub(crate) struct Panels {
    panels: Vec<Panel>,
    weights: Vec<Block>,
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

/// Panels for all blocks of `to`, each reading the blocks of `from` that it is connected with. `taps` are `(index,
/// offset)`; `weight(to map, from map, tap)`.
pub(super) fn panels(
    to: Extent,
    from: Extent,
    groups: usize,
    plane: usize,
    taps: &[(usize, usize)],
    weight: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Panels {
    let mut panels: Vec<Panel> = Vec::new();
    let mut length = 0;
    let wide = width(to.maps, groups);
    for first in (0..to.blocks()).step_by(wide) {
        let blocks = first..(first + wide).min(to.blocks());
        let read = connected(blocks.clone(), to.maps, from.maps, groups);
        let same = panels
            .last()
            .filter(|panel| panel.from == read && groups == 1);
        let all: Arc<[Tap]> = match same {
            Some(panel) => panel.taps.clone(),
            None => read
                .clone()
                .flat_map(|block| {
                    taps.iter().map(move |&(_, offset)| Tap {
                        offset: (block - read.start) * plane + offset,
                        lanes: from.lanes(block),
                    })
                })
                .collect(),
        };
        let lines: usize = all.iter().map(|tap| tap.lanes).sum();
        // Aligned for pairs of blocks.
        let start = length;
        length += lines * blocks.len();
        panels.push(Panel {
            to: blocks,
            from: connected(
                first..(first + wide).min(to.blocks()),
                to.maps,
                from.maps,
                groups,
            ),
            taps: all,
            weights: start,
        });
    }
    let mut weights = vec![ZERO; length];
    let mut rest = &mut weights[..];
    let mut parts = Vec::with_capacity(panels.len());
    for (index, panel) in panels.iter().enumerate() {
        let end = panels.get(index + 1).map_or(length, |next| next.weights);
        let (now, later) = rest.split_at_mut(end - panel.weights);
        rest = later;
        parts.push((panel, now));
    }
    parts.into_par_iter().for_each(|(panel, out)| {
        let mut lines = out.chunks_exact_mut(panel.to.len());
        for block in panel.from.clone() {
            for &(tap, _) in taps {
                for lane in 0..from.lanes(block) {
                    let Some(line) = lines.next() else {
                        continue;
                    };
                    let values = line.as_flattened_mut().iter_mut();
                    let maps = panel.to.start * LANES..to.maps;
                    for (value, map) in values.zip(maps) {
                        *value = weight(map, block * LANES + lane, tap);
                    }
                }
            }
        }
    });
    Panels { panels, weights }
}

impl Panels {
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

    /// Computes pixels `run` of a panel's blocks, which are `plane` pixels each in `out`.
    #[expect(clippy::too_many_arguments, reason = "the inside of two loops")]
    pub(super) fn run<S: Kernels>(
        &self,
        simd: S,
        panel: &Panel,
        rows: Rows,
        x: &[Block],
        accumulate: bool,
        plane: usize,
        run: Range<usize>,
        out: &mut [Block],
    ) {
        let weights = &self.weights[panel.weights..];
        let taps = &panel.taps[..];
        if panel.to.len() == 2 {
            let (first, second) = out.split_at_mut(plane);
            let mut out = [&mut first[run.clone()], &mut second[run]];
            let (weights, _) = weights.as_chunks();
            let products = Products {
                rows,
                x,
                taps,
                weights,
                accumulate,
            };
            simd.convolve_two(products, &mut out);
        } else {
            let mut out = [&mut out[run]];
            let (weights, _) = weights.as_chunks();
            let products = Products {
                rows,
                x,
                taps,
                weights,
                accumulate,
            };
            simd.convolve_one(products, &mut out);
        }
    }
}

/// Blocks that some panels read.
pub(super) fn needed(panels: &[Panel]) -> Range<usize> {
    let start = panels.iter().map(|panel| panel.from.start).min();
    let end = panels.iter().map(|panel| panel.from.end).max();
    start.unwrap_or(0)..end.unwrap_or(0)
}
