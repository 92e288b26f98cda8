//! The paper's augmentation with further transforms.

use crate::augmentation::Draw;
use crate::image::Line;
use crate::warp::warp_lines;
use crate::{Affine, AugmentError, Augmentation, GrayImageRef, KeyedRng, Normalization, Transform};

/// Flip, rotation and crop of an [`Augmentation`], and between rotation and crop the geometry of
/// further [`Transform`]s, one of which may bring a crop of its own; after the crop their changes of grey, in their order.
///
/// Without further transforms the result is that of [`Augmentation::apply`], bit for bit.
///
/// ```
/// use cxr_augment::{Augmentation, BrightnessContrast, GrayImageRef, Normalization, Pipeline, Scaling};
///
/// # fn main() -> Result<(), cxr_augment::AugmentError> {
/// let pipeline = Pipeline::new(Augmentation::default())
///     .with(Scaling::new(0.9, 1.1)?)?
///     .with(BrightnessContrast::new(0.1, 0.2)?)?;
/// let pixels = vec![128; 256 * 256];
/// let image = GrayImageRef::square(&pixels, 256)?;
/// let mut input = vec![0.0; 3 * 224 * 224];
/// pipeline.apply(1, 0, "00000013_005.png", image, &Normalization::IMAGENET, &mut input)?;
/// # Ok(())
/// # }
/// ```
pub struct Pipeline {
    augmentation: Augmentation,
    transforms: Vec<Box<dyn Transform>>,
}

impl Pipeline {
    /// The augmentation alone.
    pub fn new(augmentation: Augmentation) -> Self {
        Self {
            augmentation,
            transforms: Vec::new(),
        }
    }

    /// Adds a transform behind those added before.
    ///
    /// # Errors
    /// [`AugmentError::TransformTwice`] when one of the same name is there already.
    pub fn with(mut self, transform: impl Transform + 'static) -> Result<Self, AugmentError> {
        if self
            .transforms
            .iter()
            .any(|held| held.name() == transform.name())
        {
            return Err(AugmentError::TransformTwice(transform.name().to_owned()));
        }
        self.transforms.push(Box::new(transform));
        Ok(self)
    }

    /// The augmentation with which it begins.
    pub fn augmentation(&self) -> &Augmentation {
        &self.augmentation
    }

    /// The one map that varies an image of this size in this epoch, where there are no further transforms, which may
    /// change its grey. Resampled by it and normalised, the image is what [`Self::apply`] writes.
    pub fn map(
        &self,
        seed: u64,
        epoch: u64,
        image_name: &str,
        (width, height): (usize, usize),
    ) -> Option<Affine> {
        let draw = self.augmentation.draw(seed, epoch, image_name);
        self.transforms.is_empty().then(|| draw.map(width, height))
    }

    /// Writes the image as it is varied in this epoch, three normalised channels of
    /// `crop_size × crop_size`: a function of the arguments and nothing else.
    ///
    /// # Errors
    /// As [`Augmentation::apply`]; [`AugmentError::MapTooFar`] when the transforms together move
    /// the image out of sight; [`AugmentError::NotANumber`] when one makes grey levels that are none.
    pub fn apply(
        &self,
        seed: u64,
        epoch: u64,
        image_name: &str,
        image: GrayImageRef<'_>,
        normalization: &Normalization,
        output: &mut [f32],
    ) -> Result<(), AugmentError> {
        let draw = self.augmentation.draw(seed, epoch, image_name);
        if self.transforms.is_empty() {
            return self.augmentation.apply(&draw, image, normalization, output);
        }
        let size = self.augmentation.crop_size();
        self.augmentation.check_image(image)?;
        let mut map = Draw {
            dx: 0,
            dy: 0,
            ..draw
        }
        .map(image.width(), image.height());
        let mut streams = Vec::with_capacity(self.transforms.len());
        for transform in &self.transforms {
            let purpose = format!("augment/{}", transform.name());
            let mut rng = KeyedRng::new(&purpose, seed, epoch, image_name);
            map = map.then(&transform.map(&mut rng, image.width(), image.height()));
            streams.push(rng);
        }
        let (width, height) = (image.width(), image.height());
        let crop = (self.transforms.iter().zip(&mut streams))
            .find_map(|(transform, rng)| transform.crop(rng, width, height, size));
        let crop = crop.unwrap_or_else(|| Affine::crop(draw.dx as f64, draw.dy as f64));
        let map = map.then(&crop);
        warp_lines(image, &map, (size, size), [Line::IDENTITY; 3], output)?;

        let (gray, rest) = output.split_at_mut(size * size);
        for (transform, rng) in self.transforms.iter().zip(&mut streams) {
            transform.change_gray(rng, gray, size);
            let mut are_numbers = true;
            for gray in gray.iter_mut() {
                are_numbers &= !gray.is_nan();
                *gray = gray.clamp(0.0, 255.0);
            }
            if !are_numbers {
                return Err(AugmentError::NotANumber(transform.name().to_owned()));
            }
        }
        let [red, green, blue] = normalization.lines();
        let (second, third) = rest.split_at_mut(size * size);
        for ((first, second), third) in gray.iter_mut().zip(second).zip(third) {
            let gray = *first;
            *first = red.at(gray);
            *second = green.at(gray);
            *third = blue.at(gray);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.transforms.iter().map(|held| held.name()).collect();
        formatter
            .debug_struct("Pipeline")
            .field("augmentation", &self.augmentation)
            .field("transforms", &names)
            .finish()
    }
}
