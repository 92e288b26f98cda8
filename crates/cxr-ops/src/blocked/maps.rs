//! Memory for blocked maps, and the ways from and to candle's order.

use std::ops::{Deref, DerefMut};

use rayon::prelude::*;

use super::point::add_to;
use super::{Block, Extent, LANES, View, ZERO};
use crate::grouped::{Buffer, Pool};
use crate::simd::Vectors;

/// Blocks in memory of a [`Pool`], to which they return: fresh memory would cost a page fault each time.
#[derive(Debug)]
pub(crate) struct Room {
    buffer: Buffer,
    len: usize,
}

impl Room {
    /// Blocks with whatever values the memory held.
    pub(crate) fn take(len: usize, pool: &Pool) -> Self {
        Self {
            // A buffer's unit is two blocks.
            buffer: pool.take_close(len.div_ceil(2)),
            len,
        }
    }
}

impl Deref for Room {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        &self.buffer.as_flattened().as_chunks().0[..self.len]
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [Block] {
        &mut self.buffer.as_flattened_mut().as_chunks_mut().0[..self.len]
    }
}

/// Maps that are stored, in memory of a [`Pool`].
#[derive(Debug)]
pub(crate) struct Maps {
    room: Room,
    extent: Extent,
}

impl Maps {
    /// Maps with whatever values the memory held.
    pub(crate) fn take(extent: Extent, pool: &Pool) -> Self {
        Self {
            room: Room::take(extent.len(), pool),
            extent,
        }
    }

    pub(crate) fn extent(&self) -> Extent {
        self.extent
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::plain(self, self.extent)
    }

    /// From `N×C×H×W`.
    pub(crate) fn from_nchw(values: &[f32], extent: Extent, pool: &Pool) -> Self {
        let mut maps = Self::take(extent, pool);
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        maps.par_chunks_mut(plane)
            .enumerate()
            .for_each(|(chunk, out)| {
                let (image, block) = (chunk / blocks, chunk % blocks);
                let lanes = extent.lanes(block);
                if lanes < LANES {
                    out.fill(ZERO);
                }
                let first = (image * extent.maps + block * LANES) * plane;
                for (lane, values) in values[first..first + lanes * plane]
                    .chunks_exact(plane)
                    .enumerate()
                {
                    for (out, &value) in out.iter_mut().zip(values) {
                        out[lane] = value;
                    }
                }
            });
        maps
    }

    /// As [`Self::clone`] would do, in memory of a pool.
    pub(crate) fn copy(&self, pool: &Pool) -> Self {
        let mut copy = Self::take(self.extent, pool);
        copy.par_chunks_mut(1 << 12)
            .zip(self.par_chunks(1 << 12))
            .for_each(|(copy, values)| copy.copy_from_slice(values));
        copy
    }

    /// Adds other maps.
    pub(crate) fn add<S: Vectors>(&mut self, simd: S, other: &Self) {
        self.par_chunks_mut(1 << 12)
            .zip(other.par_chunks(1 << 12))
            .for_each(|(sum, values)| {
                simd.within(
                    #[inline(always)]
                    || {
                        add_to(simd, values, false, sum);
                    },
                );
            });
    }
}

impl Deref for Maps {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        &self.room
    }
}

impl DerefMut for Maps {
    fn deref_mut(&mut self) -> &mut [Block] {
        &mut self.room
    }
}

impl View<'_> {
    /// To `N×C×H×W`.
    pub(crate) fn to_nchw<S: Vectors>(self, simd: S) -> Vec<f32> {
        let extent = self.extent;
        let plane = extent.pixels();
        let mut values = vec![0f32; extent.images * extent.maps * plane];
        values
            .par_chunks_mut(extent.maps * plane)
            .enumerate()
            .for_each(|(image, values)| {
                values
                    .par_chunks_mut(LANES * plane)
                    .enumerate()
                    .for_each_init(
                        || vec![ZERO; plane],
                        |line, (block, values)| {
                            self.read(simd, image, block, 0, line);
                            for (lane, values) in values.chunks_exact_mut(plane).enumerate() {
                                for (value, pixel) in values.iter_mut().zip(&*line) {
                                    *value = pixel[lane];
                                }
                            }
                        },
                    );
            });
        values
    }
}
