//! What is read and how it is written: a borrowed grey image, and three normalised channels.

use serde::{Deserialize, Serialize};

use crate::AugmentError;

/// The longest side of an image.
pub const MAX_SIDE: usize = 8192;

/// A borrowed 8-bit grey image, row by row, 0 black and 255 white.
#[derive(Clone, Copy)]
pub struct GrayImageRef<'a> {
    pixels: &'a [u8],
    width: usize,
    height: usize,
}

impl<'a> GrayImageRef<'a> {
    /// Joins pixels and size.
    ///
    /// # Errors
    /// [`AugmentError::ImageShape`] when they disagree, or a side is zero or above [`MAX_SIDE`].
    pub fn new(pixels: &'a [u8], width: usize, height: usize) -> Result<Self, AugmentError> {
        let sides = 1..=MAX_SIDE;
        if sides.contains(&width) && sides.contains(&height) && pixels.len() == width * height {
            Ok(Self {
                pixels,
                width,
                height,
            })
        } else {
            Err(AugmentError::ImageShape {
                width,
                height,
                found: pixels.len(),
            })
        }
    }

    /// A square image.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn square(pixels: &'a [u8], side: usize) -> Result<Self, AugmentError> {
        Self::new(pixels, side, side)
    }

    /// The pixels, row by row.
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }
}

/// How grey becomes the three channels a network expects: channel c is
/// `(grey / 255 − mean[c]) / std[c]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawNormalization", into = "RawNormalization")]
pub struct Normalization {
    mean: [f32; 3],
    std: [f32; 3],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNormalization {
    mean: [f32; 3],
    std: [f32; 3],
}

impl Normalization {
    /// The means and deviations of ImageNet, with which torchvision's weights were trained.
    pub const IMAGENET: Self = Self {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// Checks means and deviations.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] for a mean that is not finite, or a deviation that is not
    /// positive and finite.
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Result<Self, AugmentError> {
        if let Some(bad) = mean.iter().find(|mean| !mean.is_finite()) {
            return Err(AugmentError::setting("mean", "a finite number", bad));
        }
        if let Some(bad) = std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            return Err(AugmentError::setting("std", "a positive number", bad));
        }
        Ok(Self { mean, std })
    }

    /// The mean of each channel, for grey in [0, 1].
    pub fn mean(&self) -> [f32; 3] {
        self.mean
    }

    /// The deviation of each channel, for grey in [0, 1].
    pub fn std(&self) -> [f32; 3] {
        self.std
    }

    /// For each channel the factor and summand that take grey from 0 to 255 to the channel.
    pub fn factors_and_summands(&self) -> [[f32; 2]; 3] {
        self.lines().map(|line| [line.factor, line.summand])
    }

    /// The same, as the warp takes it.
    pub(crate) fn lines(&self) -> [Line; 3] {
        let [first, second, third] = self.mean;
        let [first_std, second_std, third_std] = self.std;
        [(first, first_std), (second, second_std), (third, third_std)].map(|(mean, std)| {
            let (mean, std) = (f64::from(mean), f64::from(std));
            Line {
                factor: (1.0 / (255.0 * std)) as f32,
                summand: (-mean / std) as f32,
            }
        })
    }
}

impl Default for Normalization {
    fn default() -> Self {
        Self::IMAGENET
    }
}

impl TryFrom<RawNormalization> for Normalization {
    type Error = AugmentError;

    fn try_from(raw: RawNormalization) -> Result<Self, AugmentError> {
        Self::new(raw.mean, raw.std)
    }
}

impl From<Normalization> for RawNormalization {
    fn from(normalization: Normalization) -> Self {
        Self {
            mean: normalization.mean,
            std: normalization.std,
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Line {
    factor: f32,
    summand: f32,
}

impl Line {
    /// Leaves grey as it is, to the last bit.
    pub(crate) const IDENTITY: Self = Self {
        factor: 1.0,
        summand: 0.0,
    };

    #[inline(always)]
    pub(crate) fn at(self, gray: f32) -> f32 {
        gray * self.factor + self.summand
    }
}
