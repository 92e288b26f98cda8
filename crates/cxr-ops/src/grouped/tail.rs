//! The end: norm ─ relu, and back to candle's `N×C×H×W`.

use rayon::prelude::*;

use super::norm::{Affine, Norm, Sums};
use super::rows::{combine, normalise_relu, through_relu};
use super::{
    ChannelStatistics, Extent, Group, Grouping, LANES, NormGradients, NormWeights, Pool, ZERO,
};
use crate::simd::{Vectors, with_vectors};

/// The last normalisation of a network of grouped maps.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The maps that it reads.
    pub input: Grouping,
}

impl Tail {
    /// Feature maps `N×C×H×W` in training.
    pub fn forward(
        &self,
        weights: NormWeights<'_>,
        extent: Extent,
        maps: &[Group],
        statistics: &[ChannelStatistics],
        pool: &Pool,
    ) -> Vec<f32> {
        let norm = Norm::new(weights, &self.input, statistics);
        with_vectors!(simd => self.forward_on(simd, &norm.affine, extent, maps, pool))
    }

    /// As [`Self::forward`], with running statistics.
    pub fn evaluate(
        &self,
        weights: NormWeights<'_>,
        extent: Extent,
        maps: &[Group],
        pool: &Pool,
    ) -> Vec<f32> {
        let norm = Affine::of_running(weights, &self.input);
        with_vectors!(simd => self.forward_on(simd, &norm, extent, maps, pool))
    }

    fn forward_on<S: Vectors>(
        &self,
        simd: S,
        norm: &[Affine],
        extent: Extent,
        maps: &[Group],
        pool: &Pool,
    ) -> Vec<f32> {
        let pixels = extent.pixels();
        let mut features = vec![0f32; extent.images * self.input.maps() * pixels];
        features
            .par_chunks_mut(self.input.maps() * pixels)
            .zip(maps.par_chunks(maps.len() / extent.images))
            .for_each(|(features, maps)| {
                let mut activated = pool.take(pixels);
                for (group, (first, used)) in self.input.spans().enumerate() {
                    let maps = &maps[group * pixels..][..pixels];
                    normalise_relu(simd, &norm[group], maps, &mut activated);
                    let planes = &mut features[first * pixels..(first + used) * pixels];
                    for (lane, plane) in planes.chunks_exact_mut(pixels).enumerate() {
                        for (out, activated) in plane.iter_mut().zip(activated.iter()) {
                            *out = activated[lane];
                        }
                    }
                }
            });
        features
    }

    /// Writes the gradient of `maps`, all groups of it and complete, given that of the features.
    #[expect(
        clippy::too_many_arguments,
        reason = "a pass over a block needs them all"
    )]
    pub fn backward(
        &self,
        weights: NormWeights<'_>,
        extent: Extent,
        maps: &[Group],
        statistics: &[ChannelStatistics],
        of_features: &[f32],
        gradient: &mut [Group],
        pool: &Pool,
    ) -> NormGradients {
        let norm = Norm::new(weights, &self.input, statistics);
        let pixels = extent.pixels();
        let image_groups = maps.len() / extent.images;
        let image_features = self.input.maps() * pixels;
        with_vectors!(simd => {
            let sums: Vec<Vec<Sums>> = gradient
                .par_chunks_mut(image_groups)
                .zip(maps.par_chunks(image_groups))
                .zip(of_features.par_chunks(image_features))
                .map(|((gradient, maps), of_features)| {
                    let mut activated = pool.take(pixels);
                    let mut g = pool.take(pixels);
                    let mut sums = vec![Sums::ZERO; self.input.groups()];
                        for (group, (first, used)) in self.input.spans().enumerate() {
                            let x = &maps[group * pixels..][..pixels];
                            normalise_relu(simd, &norm.affine[group], x, &mut activated);
                            gather(&of_features[first * pixels..][..used * pixels], &mut g);
                            let out = &mut gradient[group * pixels..][..pixels];
                            sums[group].add_tile(&through_relu(simd, &g, &activated, x, out));
                        }
                        sums
                })
                .collect();
            let sums = Sums::total(self.input.groups(), sums.iter().map(Vec::as_slice));
            let (gradients, corrections) = norm.backward(&sums);
            gradient
                .par_chunks_mut(image_groups)
                .zip(maps.par_chunks(image_groups))
                .for_each(|(gradient, maps)| {
                    let mut masked = pool.take(pixels);
                    for (group, correction) in corrections.iter().enumerate() {
                            let combination = correction.with_scale(norm.affine[group].scale);
                            let run = group * pixels..(group + 1) * pixels;
                            masked.copy_from_slice(&gradient[run.clone()]);
                            combine(simd, &combination, &masked, &maps[run.clone()], &mut gradient[run]);
                        }
                });
            gradients
        })
    }
}

/// Planes of single maps as one group of pixels; lanes without a plane are 0.
fn gather(planes: &[f32], out: &mut [Group]) {
    let pixels = out.len();
    if planes.len() < LANES * pixels {
        out.fill(ZERO);
    }
    for (lane, plane) in planes.chunks_exact(pixels).enumerate() {
        for (out, &value) in out.iter_mut().zip(plane) {
            out[lane] = value;
        }
    }
}
