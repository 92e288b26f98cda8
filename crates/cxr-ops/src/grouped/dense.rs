//! A dense layer: norm1 ─ relu ─ conv1 1×1 ─ norm2 ─ relu ─ conv2 3×3, its maps appended to the block's.

use rayon::prelude::*;

use super::conv3x3::{Conv3x3, Conv3x3Gradient, Method, Strips, TAPS};
use super::halves::{map_pairs, map_pairs_mut, normalise_relu_pairs};
use super::kernels::convolve;
use super::norm::{Affine, Combination, Norm, Sums, TileSums};
use super::pointwise::{BackwardTile, Pointwise, Tile};
use super::rows::{add_through_relu, combine, normalise_relu, shift_relu, through_relu};
use super::weights::Convolution;
use super::{
    Buffer, ChannelStatistics, Correction, Extent, Group, Grouping, LANES, NormGradients,
    NormWeights, Pool, TILE, ZERO, tiles,
};
use crate::Precision;
use crate::simd::{Vectors, with_vectors};

/// The shape of a dense layer: how the maps that it reads, its bottleneck and its new maps are grouped.
#[derive(Debug, Clone)]
pub struct DenseLayer {
    /// The maps that are there before it.
    pub input: Grouping,
    /// The maps between its two convolutions.
    pub bottleneck: Grouping,
    /// The maps that it appends.
    pub output: Grouping,
}

/// The trained values of a dense layer, as torchvision names them.
#[derive(Debug, Clone, Copy)]
pub struct DenseLayerWeights<'a> {
    /// Normalises what the layer reads.
    pub norm1: NormWeights<'a>,
    /// 1×1, bottleneck × input.
    pub conv1: &'a [f32],
    /// Normalises the bottleneck.
    pub norm2: NormWeights<'a>,
    /// 3×3, output × bottleneck × 3 × 3.
    pub conv2: &'a [f32],
}

/// Their gradients.
#[derive(Debug, Clone)]
pub struct DenseLayerGradients {
    /// Of [`DenseLayerWeights::norm1`].
    pub norm1: NormGradients,
    /// Of [`DenseLayerWeights::conv1`].
    pub conv1: Vec<f32>,
    /// Of [`DenseLayerWeights::norm2`].
    pub norm2: NormGradients,
    /// Of [`DenseLayerWeights::conv2`].
    pub conv2: Vec<f32>,
}

/// What the backward pass needs of the forward pass, beside the block's maps.
#[derive(Debug)]
pub struct DenseLayerTape {
    norm1: Norm,
    norm2: Norm,
    /// The output of conv1: `N × bottleneck groups × pixels`.
    bottleneck: Buffer,
    /// The statistics of the bottleneck, for the running averages.
    pub statistics: Vec<ChannelStatistics>,
}

/// What a layer's weights are readied for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// [`DenseLayer::forward`]; in bf16 both convolutions are.
    Forward(Precision),
    /// [`DenseLayer::backward`]; in bf16 the 1×1 convolution is, whose weight takes no other way. The 3×3
    /// one is transformed, which pays as much and would multiply the rounding error of bf16.
    Backward(Precision),
    /// [`DenseLayer::evaluate`].
    Evaluate,
}

/// The weights of a dense layer's convolutions in the order in which one pass reads them.
#[derive(Debug)]
pub struct DenseLayerKernels {
    pass: Pass,
    conv1: Pointwise,
    conv2: Conv3x3,
}

impl Pass {
    /// How 3×3 convolutions are computed. The transform's larger rounding error would be
    /// amplified by the batch statistics of all layers behind, and is kept out of training's forward pass.
    fn method(self) -> Method {
        match self {
            Self::Forward(precision) => Method::Direct(precision),
            Self::Backward(_) | Self::Evaluate => Method::Fast,
        }
    }

    fn precision(self) -> Precision {
        match self {
            Self::Forward(precision) | Self::Backward(precision) => precision,
            Self::Evaluate => Precision::Single,
        }
    }
}

impl DenseLayer {
    /// Readies the weights of the layers of a block, all of them at once so that no thread waits.
    pub fn kernels(
        layers: &[Self],
        weights: &[DenseLayerWeights<'_>],
        extent: Extent,
        pass: Pass,
        pool: &Pool,
    ) -> Vec<DenseLayerKernels> {
        with_vectors!(simd => {
            layers
                .par_iter()
                .zip(weights)
                .map(|(layer, weights)| layer.kernels_on(simd, *weights, extent, pass, pool))
                .collect()
        })
    }

    fn kernels_on<S: Vectors>(
        &self,
        simd: S,
        weights: DenseLayerWeights<'_>,
        extent: Extent,
        pass: Pass,
        pool: &Pool,
    ) -> DenseLayerKernels {
        let (conv1, conv2) = (self.conv1(weights.conv1), self.conv2(weights.conv2));
        let (narrow, new) = (self.bottleneck.groups(), self.output.groups());
        let strips = self.strips(extent, pass);
        let inputs = match pass {
            Pass::Backward(_) => narrow,
            Pass::Forward(_) | Pass::Evaluate => self.input.groups(),
        };
        let (conv1, groups, conv2) = match pass {
            Pass::Forward(_) => (
                conv1.forward(None, pool),
                (narrow, new),
                conv2.forward(None, pool),
            ),
            Pass::Backward(_) => (conv1.backward(pool), (new, narrow), conv2.backward(pool)),
            Pass::Evaluate => {
                let norm2 = Affine::of_running(weights.norm2, &self.bottleneck);
                let scales: Vec<Group> = norm2.iter().map(|affine| affine.scale).collect();
                (
                    conv1.forward(Some(&scales), pool),
                    (narrow, new),
                    conv2.forward(None, pool),
                )
            }
        };
        DenseLayerKernels {
            pass,
            conv1: Pointwise::new(simd, pass.precision(), inputs, conv1, pool),
            conv2: Conv3x3::new(simd, strips, groups, conv2, pool),
        }
    }

    /// The strips of the 3×3 convolution in one pass.
    fn strips(&self, extent: Extent, pass: Pass) -> Strips {
        let (narrow, new) = (self.bottleneck.groups(), self.output.groups());
        let groups = match pass {
            Pass::Backward(_) => narrow + new,
            Pass::Forward(_) | Pass::Evaluate => narrow,
        };
        Strips::new(extent, groups, pass.method())
    }

    /// Appends the layer's maps to those of a block in training. `maps` is `N × block_groups × pixels`; the
    /// layer reads the groups of [`Self::input`], writes those after, and returns their statistics with
    /// what the backward pass needs. `statistics` are those of all groups it reads.
    pub fn forward(
        &self,
        weights: DenseLayerWeights<'_>,
        kernels: &DenseLayerKernels,
        extent: Extent,
        maps: &mut [Group],
        statistics: &[ChannelStatistics],
        pool: &Pool,
    ) -> (Vec<ChannelStatistics>, DenseLayerTape) {
        with_vectors!(simd => self.forward_on(simd, weights, kernels, extent, maps, statistics, pool))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    fn forward_on<S: Vectors>(
        &self,
        simd: S,
        weights: DenseLayerWeights<'_>,
        kernels: &DenseLayerKernels,
        extent: Extent,
        maps: &mut [Group],
        statistics: &[ChannelStatistics],
        pool: &Pool,
    ) -> (Vec<ChannelStatistics>, DenseLayerTape) {
        let pixels = extent.pixels();
        let narrow = self.bottleneck.groups();
        let image_groups = maps.len() / extent.images;
        let count = extent.images * pixels;
        let norm1 = Norm::new(weights.norm1, &self.input, statistics);
        let mut bottleneck = pool.take(extent.images * narrow * pixels);
        let parts: Vec<Vec<Sums>> = bottleneck
            .par_chunks_mut(narrow * pixels)
            .zip(maps.par_chunks(image_groups))
            .map(|(bottleneck, maps)| {
                let mut tile = kernels.conv1.tile(pool);
                let maps = Image { maps, pixels };
                let conv1 = &kernels.conv1;
                self.narrow_image(simd, &norm1.affine, conv1, maps, bottleneck, &mut tile)
            })
            .collect();
        let sums = Sums::total(narrow, parts.iter().map(Vec::as_slice));
        let of_bottleneck = statistics_of(&sums, count);
        let norm2 = Norm::new(weights.norm2, &self.bottleneck, &of_bottleneck);

        let (strips, conv2) = (self.strips(extent, kernels.pass), &kernels.conv2);
        let is_paired = kernels.pass.precision() == Precision::Bf16;
        let parts: Vec<Vec<Sums>> = maps
            .par_chunks_mut(image_groups)
            .zip(bottleneck.par_chunks(narrow * pixels))
            .map(|(maps, bottleneck)| {
                let mut padded = pool.take(strips.padded(narrow));
                let mut scratch = conv2.scratch(pool);
                let new = &mut maps[self.input.groups() * pixels..];
                let mut sums = vec![Sums::ZERO; self.output.groups()];
                for (first, rows) in strips.rows() {
                    let source = |group: usize, y: usize| {
                        &bottleneck[group * pixels + y * extent.width..][..extent.width]
                    };
                    if is_paired {
                        let padded = &mut map_pairs_mut(&mut padded)[..strips.padded(narrow)];
                        strips.pad(first, padded, |group, y, line| {
                            normalise_relu_pairs(
                                simd,
                                &norm2.affine[group],
                                source(group, y),
                                line,
                            );
                        });
                    } else {
                        strips.pad(first, &mut padded, |group, y, line| {
                            normalise_relu(simd, &norm2.affine[group], source(group, y), line);
                        });
                        conv2.transform(simd, &padded, rows, &mut scratch);
                    }
                    for (group, sums) in sums.iter_mut().enumerate() {
                        let from = group * pixels + first * extent.width;
                        let out = &mut new[from..from + rows * extent.width];
                        if is_paired {
                            conv2.write_pairs(simd, group, map_pairs(&padded), out);
                        } else {
                            conv2.write(simd, group, &padded, &mut scratch, out);
                        }
                        for tile in out.chunks(TILE) {
                            sums.add_tile(&TileSums::of(simd, tile));
                        }
                    }
                }
                sums
            })
            .collect();
        let sums = Sums::total(self.output.groups(), parts.iter().map(Vec::as_slice));
        let tape = DenseLayerTape {
            norm1,
            norm2,
            bottleneck,
            statistics: of_bottleneck,
        };
        (statistics_of(&sums, count), tape)
    }

    /// As [`Self::forward`], with running statistics. norm2 is part of conv1's weights.
    pub fn evaluate(
        &self,
        weights: DenseLayerWeights<'_>,
        kernels: &DenseLayerKernels,
        extent: Extent,
        maps: &mut [Group],
        pool: &Pool,
    ) {
        with_vectors!(simd => self.evaluate_on(simd, weights, kernels, extent, maps, pool));
    }

    fn evaluate_on<S: Vectors>(
        &self,
        simd: S,
        weights: DenseLayerWeights<'_>,
        kernels: &DenseLayerKernels,
        extent: Extent,
        maps: &mut [Group],
        pool: &Pool,
    ) {
        let (pixels, width) = (extent.pixels(), extent.width);
        let (wide, narrow) = (self.input.groups(), self.bottleneck.groups());
        let norm1 = Affine::of_running(weights.norm1, &self.input);
        let norm2 = Affine::of_running(weights.norm2, &self.bottleneck);
        let (conv1, _) = kernels.conv1.single().as_chunks::<LANES>();
        let (strips, conv2) = (self.strips(extent, Pass::Evaluate), &kernels.conv2);
        let (line, plane) = (strips.line(), strips.plane());
        let wide_lines = (TILE / width).max(1);
        let wide_taps: Vec<usize> = (0..wide).map(|group| group * wide_lines * width).collect();
        maps.par_chunks_mut(maps.len() / extent.images)
            .for_each(|maps| {
                let (input, new) = maps.split_at_mut(wide * pixels);
                let mut activated = pool.take(wide * wide_lines * width);
                // Line l of a strip is row `first + l − 1` of the image; the border stays 0.
                let mut padded = pool.take(strips.padded(narrow));
                padded.fill(ZERO);
                let mut scratch = conv2.scratch(pool);
                let mut ready = 0;
                for (first, rows) in strips.rows() {
                    if first > 0 {
                        // The last two lines of the strip before are the first two of this.
                        for padded in padded.chunks_exact_mut(plane) {
                            padded.copy_within(strips.height * line.., 0);
                        }
                    }
                    let end = (first + rows + 1).min(extent.height);
                    while ready < end {
                        let lines = wide_lines.min(end - ready);
                        let tiles = activated.chunks_exact_mut(wide_lines * width);
                        for (group, activated) in tiles.enumerate() {
                            let run = group * pixels + ready * width;
                            let run = &input[run..run + lines * width];
                            normalise_relu(simd, &norm1[group], run, activated);
                        }
                        for (group, padded) in padded.chunks_exact_mut(plane).enumerate() {
                            let conv1 = &conv1[group * wide..][..wide];
                            for row in 0..lines {
                                let from = (ready + row + 1 - first) * line + 1;
                                let out = &mut padded[from..from + width];
                                convolve(simd, &activated[row * width..], &wide_taps, conv1, out);
                                shift_relu(simd, &norm2[group].shift, out);
                            }
                        }
                        ready += lines;
                    }
                    if first + rows == extent.height {
                        for padded in padded.chunks_exact_mut(plane) {
                            padded[(rows + 1) * line..].fill(ZERO);
                        }
                    }
                    let own = new.chunks_exact_mut(pixels).take(self.output.groups());
                    conv2.transform(simd, &padded, rows, &mut scratch);
                    for (group, new) in own.enumerate() {
                        let out = &mut new[first * width..(first + rows) * width];
                        conv2.write(simd, group, &padded, &mut scratch, out);
                    }
                }
            });
    }

    /// norm1, relu and conv1 of one image; the sums of what it writes.
    fn narrow_image<S: Vectors>(
        &self,
        simd: S,
        norm1: &[Affine],
        conv1: &Pointwise,
        image: Image<'_>,
        bottleneck: &mut [Group],
        tile: &mut Tile,
    ) -> Vec<Sums> {
        let pixels = image.pixels;
        let mut sums = vec![Sums::ZERO; self.bottleneck.groups()];
        for (first, count) in tiles(pixels) {
            for (group, affine) in norm1.iter().enumerate() {
                tile.normalise_relu(simd, group, affine, image.run(group, first, count));
            }
            for (group, sums) in sums.iter_mut().enumerate() {
                let out = &mut bottleneck[group * pixels + first..][..count];
                conv1.write(simd, group, tile, out);
                sums.add_tile(&TileSums::of(simd, out));
            }
        }
        sums
    }

    /// The backward pass. `gradient` is that of the block's maps, shaped like them, and `corrections` what is still
    /// to be added to each of its groups: both are read for the new maps and added to for those that the
    /// layer reads.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    pub fn backward(
        &self,
        weights: DenseLayerWeights<'_>,
        kernels: &DenseLayerKernels,
        tape: &DenseLayerTape,
        extent: Extent,
        maps: &[Group],
        gradient: &mut [Group],
        corrections: &mut [Correction],
        pool: &Pool,
    ) -> DenseLayerGradients {
        with_vectors!(simd => {
            let (wide, new) = corrections.split_at_mut(self.input.groups());
            let new: Vec<Combination> = new[..self.output.groups()]
                .iter()
                .map(|correction| correction.with_scale([1.; LANES]))
                .collect();
            let (masked, sums, conv2) =
                self.backward_conv2(simd, weights, kernels, tape, extent, maps, gradient, &new, pool);
            let (norm2, of_bottleneck) = tape.norm2.backward(&sums);
            let of_bottleneck: Vec<Combination> = (of_bottleneck.iter().zip(&tape.norm2.affine))
                .map(|(correction, affine)| correction.with_scale(affine.scale))
                .collect();
            let (sums, conv1) = self.backward_conv1(
                simd, weights, kernels, tape, extent, maps, gradient, &masked, &of_bottleneck, pool,
            );
            let (norm1, of_input) = tape.norm1.backward(&sums);
            for (total, correction) in wide.iter_mut().zip(&of_input) {
                total.add(correction);
            }
            DenseLayerGradients { norm1, conv1, norm2, conv2 }
        })
    }

    /// From the gradient of the new maps to that in front of norm2's ReLU, its sums, and conv2's.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    fn backward_conv2<S: Vectors>(
        &self,
        simd: S,
        weights: DenseLayerWeights<'_>,
        kernels: &DenseLayerKernels,
        tape: &DenseLayerTape,
        extent: Extent,
        maps: &[Group],
        gradient: &[Group],
        of_new: &[Combination],
        pool: &Pool,
    ) -> (Buffer, Vec<Sums>, Vec<f32>) {
        let pixels = extent.pixels();
        let (narrow, new) = (self.bottleneck.groups(), self.output.groups());
        let image_groups = maps.len() / extent.images;
        let convolution = self.conv2(weights.conv2);
        let (strips, of_input) = (self.strips(extent, kernels.pass), &kernels.conv2);
        let of_weight = Conv3x3Gradient::new(strips, (narrow, new));
        let mut masked = pool.take(extent.images * narrow * pixels);
        let mut partial_sums = pool.take(extent.parts() * of_weight.part());
        let first_new = self.input.groups() * pixels;
        let sums: Vec<Vec<Sums>> = masked
            .par_chunks_mut(extent.images_a_part() * narrow * pixels)
            .zip(partial_sums.par_chunks_mut(of_weight.part()))
            .enumerate()
            .map(|(part, (masked, partial_sum))| {
                let mut activated = pool.take(strips.padded(narrow));
                let mut of_output = pool.take(strips.padded(new));
                let mut of_activated = pool.take(strips.height * extent.width);
                let mut of_input_scratch = of_input.scratch(pool);
                let mut of_weight_scratch = of_weight.scratch(pool);
                let mut sums = vec![Sums::ZERO; narrow];
                partial_sum.fill(ZERO);
                for (index, masked) in masked.chunks_exact_mut(narrow * pixels).enumerate() {
                    let image = part * extent.images_a_part() + index;
                    let maps = &maps[image * image_groups + first_new..];
                    let gradient = &gradient[image * image_groups + first_new..];
                    let bottleneck = &tape.bottleneck[image * narrow * pixels..][..narrow * pixels];
                    for (first, rows) in strips.rows() {
                        strips.pad(first, &mut activated, |group, y, line| {
                            let from = group * pixels + y * extent.width;
                            let source = &bottleneck[from..from + extent.width];
                            normalise_relu(simd, &tape.norm2.affine[group], source, line);
                        });
                        strips.pad(first, &mut of_output, |group, y, line| {
                            let row = group * pixels + y * extent.width;
                            let row = row..row + extent.width;
                            let (g, x) = (&gradient[row.clone()], &maps[row]);
                            combine(simd, &of_new[group], g, x, line);
                        });
                        of_input.transform(simd, &of_output, rows, &mut of_input_scratch);
                        let of_activated = &mut of_activated[..rows * extent.width];
                        for (group, sums) in sums.iter_mut().enumerate() {
                            let scratch = &mut of_input_scratch;
                            of_input.write(simd, group, &of_output, scratch, of_activated);
                            for (row, g) in of_activated.chunks_exact(extent.width).enumerate() {
                                let line = strips.plane() * group + (row + 1) * strips.line() + 1;
                                let run = group * pixels + (first + row) * extent.width;
                                let run = run..run + extent.width;
                                let (activated, x) = (&activated[line..], &bottleneck[run.clone()]);
                                let out = &mut masked[run];
                                sums.add_tile(&through_relu(simd, g, activated, x, out));
                            }
                        }
                        of_weight.add(
                            simd,
                            rows,
                            &activated,
                            &of_output,
                            &mut of_weight_scratch,
                            partial_sum,
                        );
                    }
                }
                sums
            })
            .collect();
        let sums = Sums::total(narrow, sums.iter().map(Vec::as_slice));
        let of_weight = of_weight.finish(simd, &convolution, &partial_sums, pool);
        (masked, sums, of_weight)
    }

    /// From the gradient in front of norm2's ReLU to the block's maps (added to `gradient`), the sums that
    /// norm1 needs, and conv1's.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    fn backward_conv1<S: Vectors>(
        &self,
        simd: S,
        weights: DenseLayerWeights<'_>,
        kernels: &DenseLayerKernels,
        tape: &DenseLayerTape,
        extent: Extent,
        maps: &[Group],
        gradient: &mut [Group],
        masked: &[Group],
        of_bottleneck: &[Combination],
        pool: &Pool,
    ) -> (Vec<Sums>, Vec<f32>) {
        let pixels = extent.pixels();
        let (wide, narrow) = (self.input.groups(), self.bottleneck.groups());
        let image_groups = maps.len() / extent.images;
        let convolution = self.conv1(weights.conv1);
        let part_blocks = convolution.gradient_blocks() * LANES;
        let mut of_weight = pool.take(extent.parts() * part_blocks);
        let sums: Vec<Vec<Sums>> = gradient
            .par_chunks_mut(extent.images_a_part() * image_groups)
            .zip(of_weight.par_chunks_mut(part_blocks))
            .enumerate()
            .map(|(part, (gradient, of_weight))| {
                let mut tile = BackwardTile::new(kernels.pass.precision(), narrow, pool);
                let mut activated = pool.take(TILE);
                let mut line = pool.take(TILE);
                of_weight.fill(ZERO);
                let (blocks, _) = of_weight.as_chunks_mut::<LANES>();
                let mut sums = vec![Sums::ZERO; wide];
                for (index, gradient) in gradient.chunks_exact_mut(image_groups).enumerate() {
                    let image = part * extent.images_a_part() + index;
                    let maps = &maps[image * image_groups..][..image_groups];
                    let narrow_image = image * narrow * pixels..(image + 1) * narrow * pixels;
                    let bottleneck = &tape.bottleneck[narrow_image.clone()];
                    let masked = &masked[narrow_image];
                    for (first, count) in tiles(pixels) {
                        for (group, combination) in of_bottleneck.iter().enumerate() {
                            let run = group * pixels + first;
                            let (g, x) = (&masked[run..][..count], &bottleneck[run..][..count]);
                            tile.fill(simd, group, count, |out| {
                                combine(simd, combination, g, x, out);
                            });
                        }
                        for (group, sums) in sums.iter_mut().enumerate() {
                            let affine = &tape.norm1.affine[group];
                            let run = group * pixels + first;
                            let run = run..run + count;
                            let x = &maps[run.clone()];
                            normalise_relu(simd, affine, x, &mut activated[..count]);
                            tile.of_input(simd, &kernels.conv1, group, &mut line[..count]);
                            sums.add_tile(&add_through_relu(
                                simd,
                                &line[..count],
                                &activated[..count],
                                x,
                                &affine.scale,
                                &mut gradient[run],
                            ));
                            tile.add_of_weight(simd, &activated[..count], blocks, |out| {
                                convolution.gradient_block(0, group, out)
                            });
                        }
                    }
                }
                sums
            })
            .collect();
        let sums = Sums::total(wide, sums.iter().map(Vec::as_slice));
        (sums, convolution.gradient(&of_weight))
    }

    fn conv1<'a>(&'a self, weight: &'a [f32]) -> Convolution<'a, 1> {
        Convolution {
            weight,
            input: &self.input,
            output: &self.bottleneck,
        }
    }

    fn conv2<'a>(&'a self, weight: &'a [f32]) -> Convolution<'a, TAPS> {
        Convolution {
            weight,
            input: &self.bottleneck,
            output: &self.output,
        }
    }
}

/// The maps of one image.
#[derive(Clone, Copy)]
struct Image<'a> {
    maps: &'a [Group],
    pixels: usize,
}

impl<'a> Image<'a> {
    fn run(self, group: usize, first: usize, count: usize) -> &'a [Group] {
        &self.maps[group * self.pixels + first..][..count]
    }
}

fn statistics_of(sums: &[Sums], count: usize) -> Vec<ChannelStatistics> {
    sums.iter()
        .map(|sums| ChannelStatistics::of(sums, count))
        .collect()
}
