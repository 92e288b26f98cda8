//! Gradients on their way through what happens to single pixels: normalisation, activation, gates, sums.

use rayon::prelude::*;

use super::activation::{Curve, at_least, with_curve};
use super::maps::Maps;
use super::{
    Affine, Block, Extent, LANES, RUN, Sums, View, ZERO, by_block, in_block, min_chunks, of_block,
    vectors,
};
use crate::grouped::Pool;
use crate::simd::Vectors;

/// The gradient of maps: `factor·g + shift`, of which the two may be applied when it is next read.
#[derive(Debug)]
pub(crate) struct Gradient {
    pub(crate) maps: Maps,
    /// One per image and map.
    factor: Option<Vec<Block>>,
    /// One per image and map.
    shift: Option<Vec<Block>>,
    /// Where it was taken back through its maps' activation already, as [`behind`] does: the sums.
    pub(crate) behind: Option<Vec<Sums>>,
}

/// What multiplies a gradient behind a normalisation, the value before it and 1 in the gradient before it, per block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coefficients {
    pub(crate) gradient: Block,
    pub(crate) value: Block,
    pub(crate) constant: Block,
}

impl Coefficients {
    pub(crate) const IDENTITY: Self = Self {
        gradient: [1.; LANES],
        value: ZERO,
        constant: ZERO,
    };
}

impl Gradient {
    pub(crate) fn new(maps: Maps) -> Self {
        Self {
            maps,
            factor: None,
            shift: None,
            behind: None,
        }
    }

    /// That of maps of which only the mean over pixels was used: `shift` everywhere.
    pub(crate) fn constant(extent: Extent, shift: Vec<Block>, pool: &Pool) -> Self {
        let mut maps = Maps::take(extent, pool);
        maps.par_chunks_mut(1 << 12)
            .for_each(|values| values.fill(ZERO));
        Self {
            maps,
            factor: None,
            shift: Some(shift),
            behind: None,
        }
    }

    /// Multiplies each map by a factor, later.
    pub(crate) fn scale(&mut self, factors: &[Block]) {
        let times = |blocks: &mut Option<Vec<Block>>, or: bool| match blocks {
            Some(blocks) => {
                for (block, factor) in blocks.iter_mut().zip(factors) {
                    for lane in 0..LANES {
                        block[lane] *= factor[lane];
                    }
                }
            }
            None if or => *blocks = Some(factors.to_vec()),
            None => {}
        };
        times(&mut self.factor, true);
        times(&mut self.shift, false);
    }

    /// Adds a constant to each map, later.
    pub(crate) fn shift(&mut self, shifts: Vec<Block>) {
        match &mut self.shift {
            None => self.shift = Some(shifts),
            Some(before) => {
                for (before, shift) in before.iter_mut().zip(&shifts) {
                    for lane in 0..LANES {
                        before[lane] += shift[lane];
                    }
                }
            }
        }
    }

    /// Factor and shift of one block of an image.
    fn late(&self, chunk: usize) -> (Block, Block) {
        (
            self.factor
                .as_ref()
                .map_or([1.; LANES], |factor| factor[chunk]),
            self.shift.as_ref().map_or(ZERO, |shift| shift[chunk]),
        )
    }

    /// Applies what is to be applied.
    pub(crate) fn settle<S: Vectors>(&mut self, simd: S) {
        if self.factor.is_none() && self.shift.is_none() {
            return;
        }
        let plane = self.maps.extent().pixels();
        let (factors, shifts) = (self.factor.take(), self.shift.take());
        let late = |chunk: usize| {
            (
                factors.as_ref().map_or([1.; LANES], |factor| factor[chunk]),
                shifts.as_ref().map_or(ZERO, |shift| shift[chunk]),
            )
        };
        self.maps
            .par_chunks_mut(plane)
            .with_min_len(min_chunks(plane))
            .enumerate()
            .for_each(|(chunk, values)| {
                let (factor, shift) = late(chunk);
                simd.within(
                    #[inline(always)]
                    || {
                        scale_and_shift(simd, &factor, &shift, values);
                    },
                );
            });
    }

    /// Adds another gradient of the same maps.
    pub(crate) fn add<S: Vectors>(&mut self, simd: S, mut other: Self) {
        self.settle(simd);
        other.settle(simd);
        self.maps.add(simd, &other.maps);
    }

    /// Σ g' and Σ g'·(x − centre) of each block, over all images, where g' is the gradient before the activation
    /// of `view`.
    pub(crate) fn sums<S: Vectors>(&self, simd: S, view: &View<'_>) -> Vec<Sums> {
        let extent = self.maps.extent();
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        let of_images: Vec<Sums> = self
            .maps
            .par_chunks(plane)
            .with_min_len(min_chunks(plane))
            .enumerate()
            .map(|(chunk, gradient)| {
                let (image, block) = (chunk / blocks, chunk % blocks);
                let stored = &view.stored(image, block, 0)[..plane];
                let affine = view.affine_of(block);
                let (factor, shift) = self.late(chunk);
                let mut sums = Sums::ZERO;
                for (gradient, stored) in gradient.chunks(RUN).zip(stored.chunks(RUN)) {
                    let (mut plain, mut products) = (ZERO, ZERO);
                    with_curve!(view.nonlinearity, C => simd.within(
                        #[inline(always)]
                        || {
                            for vector in 0..vectors::<S>() {
                                let affine = affine.vectors::<S>(vector);
                                let factor = of_block::<S>(&factor, vector);
                                let shift = of_block::<S>(&shift, vector);
                                let mut sums = Pairs::<S>::new(simd);
                                for (g, x) in gradient.iter().zip(stored) {
                                    let x = of_block::<S>(x, vector);
                                    let g = simd.mul_add_e_f32s(of_block::<S>(g, vector), factor, shift);
                                    let g = simd.mul_f32s(g, C::slope(simd, affine.apply(simd, x)));
                                    sums.add(simd, g, simd.sub_f32s(x, affine.centre));
                                }
                                sums.write(simd, vector, &mut plain, &mut products);
                            }
                        },
                    ));
                    sums.add_run(&plain, &products);
                }
                sums
            })
            .collect();
        Sums::over_images(&of_images, blocks)
    }

    /// Takes the gradient back through the activation of `view`, with the sums of [`Self::sums`].
    pub(crate) fn take_behind<S: Vectors>(&mut self, simd: S, view: &View<'_>) -> Vec<Sums> {
        let extent = self.maps.extent();
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        let late: Vec<_> = (0..extent.images * blocks)
            .map(|chunk| self.late(chunk))
            .collect();
        (self.factor, self.shift) = (None, None);
        let of_images: Vec<Sums> = (self.maps.par_chunks_mut(plane))
            .with_min_len(min_chunks(plane))
            .zip(&late)
            .enumerate()
            .map(|(chunk, (gradient, (factor, shift)))| {
                let place = (chunk / blocks, chunk % blocks);
                let mut sums = Sums::ZERO;
                for (run, gradient) in gradient.chunks_mut(RUN).enumerate() {
                    simd.within(
                        #[inline(always)]
                        || {
                            scale_and_shift(simd, factor, shift, gradient);
                        },
                    );
                    behind(
                        simd,
                        view,
                        (place.0, place.1, run * RUN),
                        gradient,
                        &mut sums,
                    );
                }
                sums
            })
            .collect();
        Sums::over_images(&of_images, blocks)
    }

    /// Takes the gradient of a sum back through its ReLU, where `output` is what that gave, with [`Self::sums`] for each
    /// of some `views`, whose activation is the identity.
    pub(crate) fn through_sum<S: Vectors>(
        &mut self,
        simd: S,
        output: Option<&[Block]>,
        views: &[View<'_>],
    ) -> Vec<Vec<Sums>> {
        let extent = self.maps.extent();
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        let late: Vec<_> = (0..extent.images * blocks)
            .map(|chunk| self.late(chunk))
            .collect();
        let is_late = self.factor.is_some() || self.shift.is_some();
        (self.factor, self.shift) = (None, None);
        let of_images: Vec<Vec<Sums>> = (self.maps.par_chunks_mut(plane))
            .with_min_len(min_chunks(plane))
            .zip(&late)
            .enumerate()
            .map(|(chunk, (gradient, (factor, shift)))| {
                let mut sums = vec![Sums::ZERO; views.len()];
                for (run, gradient) in gradient.chunks_mut(RUN).enumerate() {
                    let output =
                        output.map(|output| &output[chunk * plane + run * RUN..][..gradient.len()]);
                    simd.within(
                        #[inline(always)]
                        || {
                            if is_late {
                                scale_and_shift(simd, factor, shift, gradient);
                            }
                            let zero = simd.splat_f32s(0.);
                            for (g, y) in gradient.iter_mut().zip(output.unwrap_or_default()) {
                                for vector in 0..vectors::<S>() {
                                    let is_open =
                                        simd.greater_than_f32s(of_block::<S>(y, vector), zero);
                                    let g = in_block::<S>(g, vector);
                                    *g = simd.select_f32s(is_open, *g, zero);
                                }
                            }
                        },
                    );
                    for (view, sums) in views.iter().zip(&mut sums) {
                        let place = (chunk / blocks, chunk % blocks, run * RUN);
                        behind(simd, view, place, gradient, sums);
                    }
                }
                sums
            })
            .collect();
        (0..views.len())
            .map(|view| {
                let of_images: Vec<Sums> = of_images.iter().map(|sums| sums[view]).collect();
                Sums::over_images(&of_images, blocks)
            })
            .collect()
    }

    /// As [`Self::through`], of a copy: this gradient stays as it is.
    pub(crate) fn through_copy<S: Vectors>(
        &self,
        simd: S,
        view: &View<'_>,
        coefficients: Option<&[Coefficients]>,
        pool: &Pool,
    ) -> Self {
        let extent = self.maps.extent();
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        let mut maps = Maps::take(extent, pool);
        maps.par_chunks_mut(plane)
            .with_min_len(min_chunks(plane))
            .enumerate()
            .for_each(|(chunk, out)| {
                let gradient = &self.maps[chunk * plane..][..plane];
                let of = coefficients.map_or(Coefficients::IDENTITY, |all| all[chunk % blocks]);
                let late = self.late(chunk);
                for (run, (out, gradient)) in
                    (out.chunks_mut(RUN)).zip(gradient.chunks(RUN)).enumerate()
                {
                    out.copy_from_slice(gradient);
                    let place = (chunk / blocks, chunk % blocks, run * RUN);
                    through(simd, view, place, late, &of, out);
                }
            });
        Self::new(maps)
    }

    /// Takes the gradient back through the activation and the affine map of `view`.
    pub(crate) fn through<S: Vectors>(
        &mut self,
        simd: S,
        view: &View<'_>,
        coefficients: Option<&[Coefficients]>,
    ) {
        let extent = self.maps.extent();
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        let late: Vec<_> = (0..extent.images * blocks)
            .map(|chunk| self.late(chunk))
            .collect();
        (self.factor, self.shift) = (None, None);
        self.maps
            .par_chunks_mut(plane)
            .with_min_len(min_chunks(plane))
            .zip(&late)
            .enumerate()
            .for_each(|(chunk, (gradient, (factor, shift)))| {
                let of = coefficients.map_or(Coefficients::IDENTITY, |all| all[chunk % blocks]);
                let place = (chunk / blocks, chunk % blocks, 0);
                through(simd, view, place, (*factor, *shift), &of, gradient);
            });
    }

    /// Σ g·u over the pixels of each image and map, where `view` is u: the gradient of a gate.
    pub(crate) fn of_gate<S: Vectors>(&self, simd: S, view: &View<'_>) -> Vec<Block> {
        let extent = self.maps.extent();
        let (blocks, plane) = (extent.blocks(), extent.pixels());
        self.maps
            .par_chunks(plane)
            .with_min_len(min_chunks(plane))
            .enumerate()
            .map(|(chunk, gradient)| {
                let (image, block) = (chunk / blocks, chunk % blocks);
                let (factor, shift) = self.late(chunk);
                let stored = &view.stored(image, block, 0)[..plane];
                let affine = view.affine_of(block);
                let mut total = [0f64; LANES];
                for (gradient, stored) in gradient.chunks(RUN).zip(stored.chunks(RUN)) {
                    let mut sum = ZERO;
                    with_curve!(view.nonlinearity, C => simd.within(
                        #[inline(always)]
                        || {
                            for vector in 0..vectors::<S>() {
                                let affine = affine.vectors::<S>(vector);
                                let factor = of_block::<S>(&factor, vector);
                                let shift = of_block::<S>(&shift, vector);
                                let mut sums = Pairs::<S>::new(simd);
                                for (g, x) in gradient.iter().zip(stored) {
                                    let x = affine.apply(simd, of_block::<S>(x, vector));
                                    let g = simd.mul_add_e_f32s(of_block::<S>(g, vector), factor, shift);
                                    sums.add(simd, g, C::value(simd, x));
                                }
                                sums.write(simd, vector, &mut [0.; LANES], &mut sum);
                            }
                        },
                    ));
                    for lane in 0..LANES {
                        total[lane] += f64::from(sum[lane]);
                    }
                }
                total.map(|total| total as f32)
            })
            .collect()
    }
}

#[inline(always)]
fn scale_and_shift<S: Vectors>(simd: S, factor: &Block, shift: &Block, values: &mut [Block]) {
    for vector in 0..vectors::<S>() {
        let [factor, shift] = [factor, shift].map(|block| of_block::<S>(block, vector));
        for value in &mut *values {
            let value = in_block::<S>(value, vector);
            *value = simd.mul_add_e_f32s(*value, factor, shift);
        }
    }
}

/// Adds values, with a ReLU of the sums if wanted. A NaN passes, so that a broken training step is noticed.
#[inline(always)]
pub(crate) fn add_to<S: Vectors>(simd: S, values: &[Block], relu: bool, sums: &mut [Block]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        for vector in 0..vectors::<S>() {
            let total = in_block::<S>(sum, vector);
            *total = simd.add_f32s(*total, of_block::<S>(value, vector));
            if relu {
                *total = at_least(simd, 0., *total);
            }
        }
    }
}

/// Takes the gradient of some pixels of a block back through the activation and the affine map of `view`; factor and shift
/// are applied before.
fn through<S: Vectors>(
    simd: S,
    view: &View<'_>,
    (image, block, pixel): (usize, usize, usize),
    (factor, shift): (Block, Block),
    of: &Coefficients,
    gradient: &mut [Block],
) {
    let stored = &view.stored(image, block, pixel)[..gradient.len()];
    let affine = view.affine_of(block);
    with_curve!(view.nonlinearity, C => simd.within(
        #[inline(always)]
        || {
            for vector in 0..vectors::<S>() {
                let affine = affine.vectors::<S>(vector);
                let factor = of_block::<S>(&factor, vector);
                let shift = of_block::<S>(&shift, vector);
                let [of_gradient, of_value, constant] =
                    [&of.gradient, &of.value, &of.constant].map(|block| of_block::<S>(block, vector));
                for (g, x) in gradient.iter_mut().zip(stored) {
                    let x = of_block::<S>(x, vector);
                    let g = in_block::<S>(g, vector);
                    let slope = C::slope(simd, affine.apply(simd, x));
                    let behind = simd.mul_f32s(simd.mul_add_e_f32s(*g, factor, shift), slope);
                    // Centred, as the three terms nearly cancel in small batches.
                    let centred = simd.sub_f32s(x, affine.centre);
                    let rest = simd.mul_add_e_f32s(of_value, centred, constant);
                    *g = simd.mul_add_e_f32s(of_gradient, behind, rest);
                }
            }
        },
    ));
}

/// Takes the gradient of some pixels of a block back through the activation of `view`, and adds Σ g and Σ g·(x − centre) of
/// what it is then.
pub(crate) fn behind<S: Vectors>(
    simd: S,
    view: &View<'_>,
    (image, block, pixel): (usize, usize, usize),
    gradient: &mut [Block],
    sums: &mut Sums,
) {
    let stored = &view.stored(image, block, pixel)[..gradient.len()];
    let affine = view.affine_of(block);
    for (gradient, stored) in gradient.chunks_mut(RUN).zip(stored.chunks(RUN)) {
        let (mut plain, mut products) = (ZERO, ZERO);
        with_curve!(view.nonlinearity, C => simd.within(
            #[inline(always)]
            || {
                for vector in 0..vectors::<S>() {
                    let affine = affine.vectors::<S>(vector);
                    let mut sums = Pairs::<S>::new(simd);
                    for (g, x) in gradient.iter_mut().zip(stored) {
                        let x = of_block::<S>(x, vector);
                        let g = in_block::<S>(g, vector);
                        *g = simd.mul_f32s(*g, C::slope(simd, affine.apply(simd, x)));
                        sums.add(simd, *g, simd.sub_f32s(x, affine.centre));
                    }
                    sums.write(simd, vector, &mut plain, &mut products);
                }
            },
        ));
        sums.add_run(&plain, &products);
    }
}

/// Σ g and Σ g·x of one vector, each in two runs of sums, as one would wait for its own last addition.
struct Pairs<S: Vectors> {
    now: [S::f32s; 2],
    next: [S::f32s; 2],
}

impl<S: Vectors> Pairs<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        let zero = simd.splat_f32s(0.);
        Self {
            now: [zero; 2],
            next: [zero; 2],
        }
    }

    #[inline(always)]
    fn add(&mut self, simd: S, g: S::f32s, x: S::f32s) {
        let [plain, products] = self.now;
        let now = [simd.add_f32s(plain, g), simd.mul_add_e_f32s(g, x, products)];
        self.now = std::mem::replace(&mut self.next, now);
    }

    #[inline(always)]
    fn write(self, simd: S, vector: usize, plain: &mut Block, products: &mut Block) {
        *in_block::<S>(plain, vector) = simd.add_f32s(self.now[0], self.next[0]);
        *in_block::<S>(products, vector) = simd.add_f32s(self.now[1], self.next[1]);
    }
}

/// A batch's own statistics or running ones, as what a normalisation does to its input.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) affine: Vec<Affine>,
    /// 1/√(σ² + ε), per map.
    inverse_deviation: Vec<f64>,
    /// γ/√(σ² + ε), per map.
    scale: Vec<f64>,
    /// Values behind each statistic; `None` where they are constants.
    count: Option<f64>,
}

impl Norm {
    pub(crate) fn new(
        mean: &[f64],
        variance: &[f64],
        weight: &[f32],
        bias: &[f32],
        eps: f64,
        count: Option<f64>,
    ) -> Self {
        let inverse_deviation: Vec<f64> =
            variance.iter().map(|v| (v + eps).sqrt().recip()).collect();
        let scale: Vec<f64> = (weight.iter().zip(&inverse_deviation))
            .map(|(&weight, inverse)| f64::from(weight) * inverse)
            .collect();
        let centre: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
        // What rounding took off the centre is added to the shift.
        let shift: Vec<f32> = (bias.iter().zip(mean))
            .zip(centre.iter().zip(&scale))
            .map(|((&bias, mean), (&centre, scale))| {
                (f64::from(bias) - scale * (mean - f64::from(centre))) as f32
            })
            .collect();
        let single: Vec<f32> = scale.iter().map(|&scale| scale as f32).collect();
        let affine = (by_block(&centre, 0.).into_iter())
            .zip(by_block(&single, 0.).into_iter().zip(by_block(&shift, 0.)))
            .map(|(centre, (scale, shift))| Affine {
                centre,
                scale,
                shift,
            })
            .collect();
        Self {
            affine,
            inverse_deviation,
            scale,
            count,
        }
    }

    /// Factor and bias that it makes of a convolution before it, with that convolution's own bias.
    pub(crate) fn folded(&self, bias: Option<&[f32]>) -> (Vec<f32>, Vec<f32>) {
        let scale: Vec<f32> = self.scale.iter().map(|&scale| scale as f32).collect();
        let shift = (0..scale.len()).map(|map| {
            let affine = &self.affine[map / LANES];
            let lane = map % LANES;
            let centred = bias.map_or(0., |bias| bias[map]) - affine.centre[lane];
            centred * affine.scale[lane] + affine.shift[lane]
        });
        let shift = shift.collect();
        (scale, shift)
    }

    /// From Σ g and Σ g·(x − centre): the gradients of γ and β, and how the gradient goes on.
    pub(crate) fn backward(&self, sums: &[Sums]) -> (Vec<f32>, Vec<f32>, Vec<Coefficients>) {
        let maps = self.scale.len();
        let at = |map: usize| &sums[map / LANES];
        let of_bias: Vec<f64> = (0..maps).map(|map| at(map).plain[map % LANES]).collect();
        // Σ g·x̂
        let of_weight: Vec<f64> = (0..maps)
            .map(|map| at(map).products[map % LANES] * self.inverse_deviation[map])
            .collect();
        let mut coefficients = vec![Coefficients::IDENTITY; sums.len()];
        for map in 0..maps {
            let (of, lane) = (&mut coefficients[map / LANES], map % LANES);
            let scale = self.scale[map];
            of.gradient[lane] = scale as f32;
            if let Some(count) = self.count {
                // dx = scale·(g − mean(g) − x̂·mean(g·x̂))
                let of_value = -scale * self.inverse_deviation[map] * of_weight[map] / count;
                of.value[lane] = of_value as f32;
                of.constant[lane] = (-scale * of_bias[map] / count) as f32;
            }
        }
        let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        (single(of_weight), single(of_bias), coefficients)
    }
}

/// Σ x and Σ x² of each block, over all images.
pub(crate) fn statistics<S: Vectors>(simd: S, view: &View<'_>) -> Vec<Sums> {
    let extent = view.extent;
    let (blocks, plane) = (extent.blocks(), extent.pixels());
    let of_images: Vec<Sums> = (0..extent.images * blocks)
        .into_par_iter()
        .with_min_len(min_chunks(plane))
        .map_init(
            || vec![ZERO; RUN],
            |line, chunk| {
                let mut sums = Sums::ZERO;
                for pixel in (0..plane).step_by(RUN) {
                    let line = &mut line[..RUN.min(plane - pixel)];
                    view.read(simd, chunk / blocks, chunk % blocks, pixel, line);
                    sums.add_squares(simd, line);
                }
                sums
            },
        )
        .collect();
    Sums::over_images(&of_images, blocks)
}

/// The sum of two views, with a ReLU if wanted.
pub(crate) fn add<S: Vectors>(
    simd: S,
    first: &View<'_>,
    second: &View<'_>,
    relu: bool,
    out: &mut [Block],
) {
    let extent = first.extent;
    let (blocks, plane) = (extent.blocks(), extent.pixels());
    out.par_chunks_mut(plane)
        .with_min_len(min_chunks(plane))
        .enumerate()
        .for_each_init(
            || vec![ZERO; RUN],
            |line, (chunk, out)| {
                let (image, block) = (chunk / blocks, chunk % blocks);
                for (run, out) in out.chunks_mut(RUN).enumerate() {
                    first.read(simd, image, block, run * RUN, out);
                    let line = &mut line[..out.len()];
                    second.read(simd, image, block, run * RUN, line);
                    simd.within(
                        #[inline(always)]
                        || {
                            add_to(simd, line, relu, out);
                        },
                    );
                }
            },
        );
}
