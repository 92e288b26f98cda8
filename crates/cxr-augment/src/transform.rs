//! Further ways to vary an image, to be added to the paper's, and a trait for one's own.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::augmentation::center;
use crate::{Affine, AugmentError, KeyedRng, RandAugment, RandomResizedCrop};

/// One random variation of an image. A [`Pipeline`](crate::Pipeline) composes several.
///
/// Each transform draws from its own stream, keyed by its name besides seed, epoch and image: to
/// add or remove a transform does not change what the others draw. In one pipeline no two may
/// have the same name.
pub trait Transform: Send + Sync {
    /// What tells this transform's draws from all others'.
    fn name(&self) -> &str;

    /// Geometry: where the pixels of the changed image lie in an image of `width × height`. All
    /// maps of a pipeline are composed, so that the image is still interpolated once.
    fn map(&self, rng: &mut KeyedRng, width: usize, height: usize) -> Affine {
        let _ = (rng, width, height);
        Affine::IDENTITY
    }

    /// What takes the place of the crop with which a pipeline ends: where the pixels of an output of `side × side` lie in an image
    /// of `width × height`, whose geometry is that of all maps before. Called after [`Self::map`] with the same stream; the
    /// first transform that has one decides.
    fn crop(&self, rng: &mut KeyedRng, width: usize, height: usize, side: usize) -> Option<Affine> {
        let _ = (rng, width, height, side);
        None
    }

    /// Grey levels of the cropped image, row by row, 0 black and 255 white; results are clamped to
    /// that range, and must be numbers. Called after [`Self::map`] and [`Self::crop`] with the same stream.
    fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], width: usize) {
        let _ = (rng, gray, width);
    }
}

/// A pointer to a transform is that transform.
macro_rules! forward_to_the_transform {
    ($($pointer:ident),*) => {
        $(
            impl<T: Transform + ?Sized> Transform for $pointer<T> {
                fn name(&self) -> &str {
                    (**self).name()
                }

                fn map(&self, rng: &mut KeyedRng, width: usize, height: usize) -> Affine {
                    (**self).map(rng, width, height)
                }

                fn crop(
                    &self,
                    rng: &mut KeyedRng,
                    width: usize,
                    height: usize,
                    side: usize,
                ) -> Option<Affine> {
                    (**self).crop(rng, width, height, side)
                }

                fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], width: usize) {
                    (**self).change_gray(rng, gray, width);
                }
            }
        )*
    };
}

forward_to_the_transform!(Box, Arc);

/// The transforms of this crate as data, for experiment files.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum StandardTransform {
    /// See [`Translation`].
    Translation(Translation),
    /// See [`Scaling`].
    Scaling(Scaling),
    /// See [`BrightnessContrast`].
    BrightnessContrast(BrightnessContrast),
    /// See [`GaussianNoise`].
    GaussianNoise(GaussianNoise),
    /// See [`RandomErasing`].
    RandomErasing(RandomErasing),
    /// See [`RandAugment`].
    RandAugment(RandAugment),
    /// See [`RandomResizedCrop`].
    RandomResizedCrop(RandomResizedCrop),
}

impl StandardTransform {
    fn inner(&self) -> &dyn Transform {
        match self {
            Self::Translation(transform) => transform,
            Self::Scaling(transform) => transform,
            Self::BrightnessContrast(transform) => transform,
            Self::GaussianNoise(transform) => transform,
            Self::RandomErasing(transform) => transform,
            Self::RandAugment(transform) => transform,
            Self::RandomResizedCrop(transform) => transform,
        }
    }
}

impl Transform for StandardTransform {
    fn name(&self) -> &str {
        self.inner().name()
    }

    fn map(&self, rng: &mut KeyedRng, width: usize, height: usize) -> Affine {
        self.inner().map(rng, width, height)
    }

    fn crop(&self, rng: &mut KeyedRng, width: usize, height: usize, side: usize) -> Option<Affine> {
        self.inner().crop(rng, width, height, side)
    }

    fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], width: usize) {
        self.inner().change_gray(rng, gray, width);
    }
}

/// Moves the image by up to a fraction of its size, uniformly and independently in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawTranslation", into = "RawTranslation")]
pub struct Translation {
    max_fraction: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTranslation {
    max_fraction: f64,
}

impl Translation {
    /// `max_fraction` from 0 to ½.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] names the setting that is out of range.
    pub fn new(max_fraction: f64) -> Result<Self, AugmentError> {
        check("max_fraction", max_fraction, 0.0, 0.5)?;
        Ok(Self { max_fraction })
    }

    /// Largest move, as a fraction of width or height.
    pub fn max_fraction(&self) -> f64 {
        self.max_fraction
    }
}

impl TryFrom<RawTranslation> for Translation {
    type Error = AugmentError;

    fn try_from(raw: RawTranslation) -> Result<Self, AugmentError> {
        Self::new(raw.max_fraction)
    }
}

impl From<Translation> for RawTranslation {
    fn from(Translation { max_fraction }: Translation) -> Self {
        Self { max_fraction }
    }
}

impl Transform for Translation {
    fn name(&self) -> &str {
        "translation"
    }

    fn map(&self, rng: &mut KeyedRng, width: usize, height: usize) -> Affine {
        let mut shift =
            |size: usize| size as f64 * rng.uniform(-self.max_fraction, self.max_fraction);
        let dx = shift(width);
        Affine::translation(dx, shift(height))
    }
}

/// Enlarges the image about its centre by a factor whose logarithm is uniform, so that shrinking by
/// a half is as likely as doubling.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawScaling", into = "RawScaling")]
pub struct Scaling {
    smallest: f64,
    largest: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScaling {
    smallest: f64,
    largest: f64,
}

impl Scaling {
    /// ½ ≤ `smallest` ≤ `largest` ≤ 2.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] names the setting that is out of range.
    pub fn new(smallest: f64, largest: f64) -> Result<Self, AugmentError> {
        check("smallest", smallest, 0.5, 2.0)?;
        check("largest", largest, smallest, 2.0)?;
        Ok(Self { smallest, largest })
    }

    /// Smallest factor; below 1 the image shrinks and its reflection shows.
    pub fn smallest(&self) -> f64 {
        self.smallest
    }

    /// Largest factor.
    pub fn largest(&self) -> f64 {
        self.largest
    }
}

impl TryFrom<RawScaling> for Scaling {
    type Error = AugmentError;

    fn try_from(raw: RawScaling) -> Result<Self, AugmentError> {
        Self::new(raw.smallest, raw.largest)
    }
}

impl From<Scaling> for RawScaling {
    fn from(Scaling { smallest, largest }: Scaling) -> Self {
        Self { smallest, largest }
    }
}

impl Transform for Scaling {
    fn name(&self) -> &str {
        "scaling"
    }

    fn map(&self, rng: &mut KeyedRng, width: usize, height: usize) -> Affine {
        let factor = rng.uniform(self.smallest.ln(), self.largest.ln()).exp();
        let (x, y) = center(width, height);
        Affine::scaling(factor, x, y)
    }
}

/// Multiplies the distance from the image's mean grey by a contrast factor and adds a brightness,
/// both uniform: `gray ↦ mean + contrast · (gray − mean) + 255 · brightness`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawBrightnessContrast", into = "RawBrightnessContrast")]
pub struct BrightnessContrast {
    max_brightness: f64,
    max_contrast: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBrightnessContrast {
    max_brightness: f64,
    max_contrast: f64,
}

impl BrightnessContrast {
    /// `max_brightness` from 0 to 1, `max_contrast` from 0 to 1.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] names the setting that is out of range.
    pub fn new(max_brightness: f64, max_contrast: f64) -> Result<Self, AugmentError> {
        check("max_brightness", max_brightness, 0.0, 1.0)?;
        check("max_contrast", max_contrast, 0.0, 1.0)?;
        Ok(Self {
            max_brightness,
            max_contrast,
        })
    }

    /// Largest brightness added or taken, as a fraction of white.
    pub fn max_brightness(&self) -> f64 {
        self.max_brightness
    }

    /// Largest distance of the contrast factor from 1.
    pub fn max_contrast(&self) -> f64 {
        self.max_contrast
    }
}

impl TryFrom<RawBrightnessContrast> for BrightnessContrast {
    type Error = AugmentError;

    fn try_from(raw: RawBrightnessContrast) -> Result<Self, AugmentError> {
        Self::new(raw.max_brightness, raw.max_contrast)
    }
}

impl From<BrightnessContrast> for RawBrightnessContrast {
    fn from(
        BrightnessContrast {
            max_brightness,
            max_contrast,
        }: BrightnessContrast,
    ) -> Self {
        Self {
            max_brightness,
            max_contrast,
        }
    }
}

impl Transform for BrightnessContrast {
    fn name(&self) -> &str {
        "brightness-contrast"
    }

    fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], _width: usize) {
        let contrast = rng.uniform(1.0 - self.max_contrast, 1.0 + self.max_contrast);
        let brightness = 255.0 * rng.uniform(-self.max_brightness, self.max_brightness);
        let sum: f64 = gray.iter().map(|&gray| f64::from(gray)).sum();
        let mean = sum / gray.len() as f64;
        let summand = (mean - contrast * mean + brightness) as f32;
        for gray in gray {
            *gray = contrast as f32 * *gray + summand;
        }
    }
}

/// Adds independent normal noise to every pixel, with a standard deviation that is itself uniform.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawGaussianNoise", into = "RawGaussianNoise")]
pub struct GaussianNoise {
    max_std: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGaussianNoise {
    max_std: f64,
}

impl GaussianNoise {
    /// `max_std` from 0 to 1.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] names the setting that is out of range.
    pub fn new(max_std: f64) -> Result<Self, AugmentError> {
        check("max_std", max_std, 0.0, 1.0)?;
        Ok(Self { max_std })
    }

    /// Largest standard deviation, as a fraction of white.
    pub fn max_std(&self) -> f64 {
        self.max_std
    }
}

impl TryFrom<RawGaussianNoise> for GaussianNoise {
    type Error = AugmentError;

    fn try_from(raw: RawGaussianNoise) -> Result<Self, AugmentError> {
        Self::new(raw.max_std)
    }
}

impl From<GaussianNoise> for RawGaussianNoise {
    fn from(GaussianNoise { max_std }: GaussianNoise) -> Self {
        Self { max_std }
    }
}

impl Transform for GaussianNoise {
    fn name(&self) -> &str {
        "gaussian-noise"
    }

    fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], _width: usize) {
        let std = 255.0 * rng.uniform(0.0, self.max_std);
        for gray in gray {
            *gray += (std * rng.normal()) as f32;
        }
    }
}

/// With a probability, paints a rectangle over with the image's mean grey (Zhong et al. 2020, with
/// the mean for noise). Its area is uniform, the logarithm of width over height too; it lies inside.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRandomErasing", into = "RawRandomErasing")]
pub struct RandomErasing {
    probability: f64,
    min_area: f64,
    max_area: f64,
    max_aspect: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRandomErasing {
    probability: f64,
    min_area: f64,
    max_area: f64,
    max_aspect: f64,
}

impl RandomErasing {
    /// `probability` in [0, 1], 0 < `min_area` ≤ `max_area` ≤ ½, `max_aspect` from 1 to 10.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] names the setting that is out of range.
    pub fn new(
        probability: f64,
        min_area: f64,
        max_area: f64,
        max_aspect: f64,
    ) -> Result<Self, AugmentError> {
        check("probability", probability, 0.0, 1.0)?;
        check("min_area", min_area, f64::MIN_POSITIVE, 0.5)?;
        check("max_area", max_area, min_area, 0.5)?;
        check("max_aspect", max_aspect, 1.0, 10.0)?;
        Ok(Self {
            probability,
            min_area,
            max_area,
            max_aspect,
        })
    }

    /// Probability of erasing.
    pub fn probability(&self) -> f64 {
        self.probability
    }

    /// Smallest area, as a fraction of the image.
    pub fn min_area(&self) -> f64 {
        self.min_area
    }

    /// Largest area, as a fraction of the image.
    pub fn max_area(&self) -> f64 {
        self.max_area
    }

    /// Largest ratio of width to height; the smallest is its inverse.
    pub fn max_aspect(&self) -> f64 {
        self.max_aspect
    }
}

impl TryFrom<RawRandomErasing> for RandomErasing {
    type Error = AugmentError;

    fn try_from(raw: RawRandomErasing) -> Result<Self, AugmentError> {
        Self::new(raw.probability, raw.min_area, raw.max_area, raw.max_aspect)
    }
}

impl From<RandomErasing> for RawRandomErasing {
    fn from(
        RandomErasing {
            probability,
            min_area,
            max_area,
            max_aspect,
        }: RandomErasing,
    ) -> Self {
        Self {
            probability,
            min_area,
            max_area,
            max_aspect,
        }
    }
}

impl Transform for RandomErasing {
    fn name(&self) -> &str {
        "random-erasing"
    }

    fn change_gray(&self, rng: &mut KeyedRng, gray: &mut [f32], width: usize) {
        let height = gray.len() / width;
        let erases = rng.chance(self.probability);
        let area = rng.uniform(self.min_area, self.max_area) * gray.len() as f64;
        let aspect = rng
            .uniform(-self.max_aspect.ln(), self.max_aspect.ln())
            .exp();
        let side = |length: f64, limit: usize| (length.round() as usize).clamp(1, limit);
        let erased_width = side((area * aspect).sqrt(), width);
        let erased_height = side((area / aspect).sqrt(), height);
        let left = rng.below((width - erased_width) as u64 + 1) as usize;
        let top = rng.below((height - erased_height) as u64 + 1) as usize;
        if !erases {
            return;
        }
        let sum: f64 = gray.iter().map(|&gray| f64::from(gray)).sum();
        let mean = (sum / gray.len() as f64) as f32;
        for row in gray.chunks_exact_mut(width).skip(top).take(erased_height) {
            for gray in row.iter_mut().skip(left).take(erased_width) {
                *gray = mean;
            }
        }
    }
}

pub(crate) fn check(
    setting: &'static str,
    found: f64,
    least: f64,
    most: f64,
) -> Result<(), AugmentError> {
    // A range that holds no number (least above most) and a NaN are refused alike.
    if (least..=most).contains(&found) {
        Ok(())
    } else {
        let expected = format!("a number from {least} to {most}");
        Err(AugmentError::setting(setting, expected, found))
    }
}
