//! A transition: norm ─ relu ─ conv 1×1 ─ mean of 2×2 pixels.
//!
//! A 1×1 convolution and a mean over pixels commute, so that the mean is taken first and the convolution
//! has a quarter of the pixels.

use rayon::prelude::*;

use super::kernels::{Rows, convolve, outer_sums};
use super::norm::{Affine, Combination, Norm, Sums, TileSums};
use super::rows::{combine, normalise_relu_pool, unpool_through_relu};
use super::weights::Convolution;
use super::{
    ChannelStatistics, Correction, Extent, Group, Grouping, LANES, NormGradients, NormWeights,
    Pool, TILE, ZERO,
};
use crate::simd::{Vectors, with_vectors};

/// The shape of a transition: how the maps before and after it are grouped.
#[derive(Debug, Clone)]
pub struct Transition {
    /// The maps that it reads.
    pub input: Grouping,
    /// The maps that it makes.
    pub output: Grouping,
}

/// The trained values of a transition, as torchvision names them.
#[derive(Debug, Clone, Copy)]
pub struct TransitionWeights<'a> {
    /// Normalises what it reads.
    pub norm: NormWeights<'a>,
    /// 1×1, output × input.
    pub conv: &'a [f32],
}

/// Their gradients.
#[derive(Debug, Clone)]
pub struct TransitionGradients {
    /// Of [`TransitionWeights::norm`].
    pub norm: NormGradients,
    /// Of [`TransitionWeights::conv`].
    pub conv: Vec<f32>,
}

impl Transition {
    /// The first groups of the next block in training, written to `next` (`N × its groups × pixels`), and their
    /// statistics. `extent` is that of `maps`, whose `statistics` are given.
    pub fn forward(
        &self,
        weights: TransitionWeights<'_>,
        extent: Extent,
        maps: &[Group],
        statistics: &[ChannelStatistics],
        next: &mut [Group],
        pool: &Pool,
    ) -> Vec<ChannelStatistics> {
        let norm = Norm::new(weights.norm, &self.input, statistics);
        let sums = with_vectors!(simd => {
            self.forward_on(simd, &norm.affine, weights, extent, maps, next, pool)
        });
        let count = extent.images * extent.halved().pixels();
        sums.iter()
            .map(|sums| ChannelStatistics::of(sums, count))
            .collect()
    }

    /// As [`Self::forward`], with running statistics.
    pub fn evaluate(
        &self,
        weights: TransitionWeights<'_>,
        extent: Extent,
        maps: &[Group],
        next: &mut [Group],
        pool: &Pool,
    ) {
        let norm = Affine::of_running(weights.norm, &self.input);
        with_vectors!(simd => self.forward_on(simd, &norm, weights, extent, maps, next, pool));
    }

    /// The backward pass. `next` and `of_next` are the next block's maps and their gradient, `corrections` what
    /// is still to be added to it. Writes the gradient of `maps` to `gradient`, all groups of it, and
    /// returns what is still to be added to that.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass between two blocks needs them all"
    )]
    pub fn backward(
        &self,
        weights: TransitionWeights<'_>,
        extent: Extent,
        (maps, statistics): (&[Group], &[ChannelStatistics]),
        (next, of_next): (&[Group], &[Group]),
        corrections: &[Correction],
        gradient: &mut [Group],
        pool: &Pool,
    ) -> (TransitionGradients, Vec<Correction>) {
        let norm = Norm::new(weights.norm, &self.input, statistics);
        let (sums, conv) = with_vectors!(simd => self.backward_on(
            simd, &norm, weights, extent, maps, (next, of_next), corrections, gradient, pool,
        ));
        let (norm, corrections) = norm.backward(&sums);
        (TransitionGradients { norm, conv }, corrections)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a pass between two blocks needs them all"
    )]
    fn forward_on<S: Vectors>(
        &self,
        simd: S,
        norm: &[Affine],
        weights: TransitionWeights<'_>,
        extent: Extent,
        maps: &[Group],
        next: &mut [Group],
        pool: &Pool,
    ) -> Vec<Sums> {
        let (wide, narrow) = (self.input.groups(), self.output.groups());
        let (pixels, pooled) = (extent.pixels(), extent.halved());
        let conv = self.convolution(weights.conv).forward(None, pool);
        let (conv, _) = conv.as_chunks::<LANES>();
        let lines = Lines::new(simd, extent);
        let taps = lines.taps(wide);
        let parts: Vec<Vec<Sums>> = next
            .par_chunks_mut(next.len() / extent.images)
            .zip(maps.par_chunks(maps.len() / extent.images))
            .map(|(next, maps)| {
                let mut activated = pool.take(wide * lines.tile());
                let mut sums = vec![Sums::ZERO; narrow];
                for (first, rows) in lines.tiles() {
                    let tiles = activated.chunks_exact_mut(lines.tile());
                    for (group, activated) in tiles.enumerate() {
                        let maps = &maps[group * pixels..][..pixels];
                        lines.pool(&norm[group], first, rows, maps, activated);
                    }
                    for (group, sums) in sums.iter_mut().enumerate() {
                        let from = group * pooled.pixels() + first * pooled.width;
                        let out = &mut next[from..from + rows * pooled.width];
                        let conv = &conv[group * wide..][..wide];
                        convolve(simd, &activated, &taps, conv, out);
                        sums.add_tile(&TileSums::of(simd, out));
                    }
                }
                sums
            })
            .collect();
        Sums::total(narrow, parts.iter().map(Vec::as_slice))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a pass between two blocks needs them all"
    )]
    fn backward_on<S: Vectors>(
        &self,
        simd: S,
        norm: &Norm,
        weights: TransitionWeights<'_>,
        extent: Extent,
        maps: &[Group],
        (next, of_next): (&[Group], &[Group]),
        corrections: &[Correction],
        gradient: &mut [Group],
        pool: &Pool,
    ) -> (Vec<Sums>, Vec<f32>) {
        let (wide, narrow) = (self.input.groups(), self.output.groups());
        let (pixels, pooled) = (extent.pixels(), extent.halved());
        let (image_groups, next_groups) = (maps.len() / extent.images, next.len() / extent.images);
        let of_next_maps: Vec<Combination> = corrections[..narrow]
            .iter()
            .map(|correction| correction.with_scale([1.; LANES]))
            .collect();
        let convolution = self.convolution(weights.conv);
        let conv = convolution.backward(pool);
        let (conv, _) = conv.as_chunks::<LANES>();
        let part_blocks = convolution.gradient_blocks() * LANES;
        let mut of_weight = pool.take(extent.parts() * part_blocks);
        let lines = Lines::new(simd, extent);
        let taps = lines.taps(narrow);
        let sums: Vec<Vec<Sums>> = gradient
            .par_chunks_mut(extent.images_a_part() * image_groups)
            .zip(of_weight.par_chunks_mut(part_blocks))
            .enumerate()
            .map(|(part, (gradient, of_weight))| {
                let mut of_output = pool.take(narrow * lines.tile());
                let mut activated = pool.take(lines.tile());
                let mut of_pooled = pool.take(lines.tile());
                of_weight.fill(ZERO);
                let (blocks, _) = of_weight.as_chunks_mut::<LANES>();
                let mut sums = vec![Sums::ZERO; wide];
                for (index, gradient) in gradient.chunks_exact_mut(image_groups).enumerate() {
                    let image = part * extent.images_a_part() + index;
                    let maps = &maps[image * image_groups..][..image_groups];
                    let next = &next[image * next_groups..][..next_groups];
                    let of_next = &of_next[image * next_groups..][..next_groups];
                    for (first, rows) in lines.tiles() {
                        let count = rows * pooled.width;
                        let tiles = of_output.chunks_exact_mut(lines.tile());
                        for (group, out) in tiles.enumerate() {
                            let run = group * pooled.pixels() + first * pooled.width;
                            let run = run..run + count;
                            combine(
                                simd,
                                &of_next_maps[group],
                                &of_next[run.clone()],
                                &next[run],
                                out,
                            );
                        }
                        for (group, sums) in sums.iter_mut().enumerate() {
                            let affine = &norm.affine[group];
                            let maps = &maps[group * pixels..][..pixels];
                            lines.pool(affine, first, rows, maps, &mut activated);
                            let run = Rows {
                                rows: 1,
                                width: count,
                                strides: [0; 2],
                            };
                            for out in 0..narrow {
                                outer_sums(
                                    simd,
                                    run,
                                    &activated,
                                    &of_output[out * lines.tile()..],
                                    &mut blocks[convolution.gradient_block(0, group, out)],
                                );
                            }
                            let conv = &conv[group * narrow..][..narrow];
                            convolve(simd, &of_output, &taps, conv, &mut of_pooled[..count]);
                            let gradient = &mut gradient[group * pixels..][..pixels];
                            let g = &of_pooled[..count];
                            lines.unpool(affine, first, rows, g, maps, gradient, sums);
                        }
                    }
                    // A last odd row is read by nobody.
                    for gradient in gradient.chunks_exact_mut(pixels) {
                        gradient[2 * pooled.height * extent.width..].fill(ZERO);
                    }
                }
                sums
            })
            .collect();
        let sums = Sums::total(wide, sums.iter().map(Vec::as_slice));
        (sums, convolution.gradient(&of_weight))
    }

    fn convolution<'a>(&'a self, weight: &'a [f32]) -> Convolution<'a, 1> {
        Convolution {
            weight,
            input: &self.input,
            output: &self.output,
        }
    }
}

/// The rows of pooled pixels that are worked on together.
#[derive(Clone, Copy)]
struct Lines<S> {
    simd: S,
    extent: Extent,
    rows: usize,
}

impl<S: Vectors> Lines<S> {
    fn new(simd: S, extent: Extent) -> Self {
        let width = extent.halved().width;
        Self {
            simd,
            extent,
            rows: (TILE / width.max(1)).max(1),
        }
    }

    /// Pooled pixels of a tile.
    fn tile(self) -> usize {
        self.rows * self.extent.halved().width
    }

    /// One tap for each of `groups` groups of tiles.
    fn taps(self, groups: usize) -> Vec<usize> {
        (0..groups).map(|group| group * self.tile()).collect()
    }

    /// `(first pooled row, pooled rows)` of each tile.
    fn tiles(self) -> impl Iterator<Item = (usize, usize)> {
        let all = self.extent.halved().height;
        (0..all)
            .step_by(self.rows)
            .map(move |first| (first, self.rows.min(all - first)))
    }

    /// The activated and pooled rows of one group.
    fn pool(
        self,
        affine: &Affine,
        first: usize,
        rows: usize,
        maps: &[Group],
        activated: &mut [Group],
    ) {
        let (width, pooled) = (self.extent.width, self.extent.halved().width);
        for (row, out) in activated.chunks_exact_mut(pooled).take(rows).enumerate() {
            let above = &maps[2 * (first + row) * width..][..2 * width];
            let (above, below) = above.split_at(width);
            normalise_relu_pool(self.simd, affine, [above, below], out);
        }
    }

    /// From the gradient `g` of pooled rows of one group to that of its maps.
    #[expect(
        clippy::too_many_arguments,
        reason = "three images, and what connects them"
    )]
    fn unpool(
        self,
        affine: &Affine,
        first: usize,
        rows: usize,
        g: &[Group],
        maps: &[Group],
        gradient: &mut [Group],
        sums: &mut Sums,
    ) {
        let (width, pooled) = (self.extent.width, self.extent.halved().width);
        for (row, g) in g.chunks_exact(pooled).take(rows).enumerate() {
            let from = 2 * (first + row) * width;
            let lines = gradient[from..].chunks_exact_mut(width).take(2);
            for (out, x) in lines.zip(maps[from..].chunks_exact(width)) {
                sums.add_tile(&unpool_through_relu(self.simd, affine, g, x, out));
            }
        }
    }
}
