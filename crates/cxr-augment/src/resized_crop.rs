//! A crop of random size and shape.

use serde::{Deserialize, Serialize};

use crate::transform::check;
use crate::{Affine, AugmentError, KeyedRng, Transform};

/// Cuts out a part of random area and aspect ratio and resizes it to the output: torchvision's `RandomResizedCrop`. It takes the
/// place of the crop with which a [`Pipeline`](crate::Pipeline) ends otherwise.
///
/// The area is uniform between `min_area` and `max_area` of the image's, the logarithm of width over height uniform between
/// ±log `max_aspect`; ten times another part is drawn where one does not fit, then the largest centred part of an allowed ratio is
/// taken. Positions are those of a bilinear resize without antialiasing, from the image itself: at the edge of the part its
/// neighbours count too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawRandomResizedCrop", into = "RawRandomResizedCrop")]
pub struct RandomResizedCrop {
    min_area: f64,
    max_area: f64,
    max_aspect: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRandomResizedCrop {
    min_area: f64,
    max_area: f64,
    #[serde(default = "four_thirds")]
    max_aspect: f64,
}

fn four_thirds() -> f64 {
    4.0 / 3.0
}

/// How often another part is drawn where one does not fit.
const ATTEMPTS: usize = 10;

impl RandomResizedCrop {
    /// 0 < `min_area` ≤ `max_area` ≤ 1 and `max_aspect` from 1 to 10. torchvision's defaults are 0.08, 1 and 4/3.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] names the setting that is out of range.
    pub fn new(min_area: f64, max_area: f64, max_aspect: f64) -> Result<Self, AugmentError> {
        check("min_area", min_area, f64::MIN_POSITIVE, 1.0)?;
        check("max_area", max_area, min_area, 1.0)?;
        check("max_aspect", max_aspect, 1.0, 10.0)?;
        Ok(Self {
            min_area,
            max_area,
            max_aspect,
        })
    }

    /// Smallest area, as a fraction of the image's.
    pub fn min_area(&self) -> f64 {
        self.min_area
    }

    /// Largest area, as a fraction of the image's.
    pub fn max_area(&self) -> f64 {
        self.max_area
    }

    /// Largest ratio of width to height; the smallest is its inverse.
    pub fn max_aspect(&self) -> f64 {
        self.max_aspect
    }

    /// Left, top, width and height of the part that `rng` draws of an image of this size.
    pub fn part(&self, rng: &mut KeyedRng, width: usize, height: usize) -> [usize; 4] {
        let (w, h) = (width as f64, height as f64);
        for _ in 0..ATTEMPTS {
            let area = w * h * rng.uniform(self.min_area, self.max_area);
            let log = self.max_aspect.ln();
            let aspect = rng.uniform(-log, log).exp();
            let part_width = (area * aspect).sqrt().round_ties_even() as usize;
            let part_height = (area / aspect).sqrt().round_ties_even() as usize;
            let fits = |side: usize, limit: usize| (1..=limit).contains(&side);
            if fits(part_width, width) && fits(part_height, height) {
                let top = rng.below((height - part_height) as u64 + 1) as usize;
                let left = rng.below((width - part_width) as u64 + 1) as usize;
                return [left, top, part_width, part_height];
            }
        }
        self.largest_part(width, height)
    }

    fn largest_part(&self, width: usize, height: usize) -> [usize; 4] {
        let (w, h) = (width as f64, height as f64);
        let (part_width, part_height) = if w / h < 1.0 / self.max_aspect {
            (width, (w * self.max_aspect).round_ties_even() as usize)
        } else if w / h > self.max_aspect {
            ((h * self.max_aspect).round_ties_even() as usize, height)
        } else {
            (width, height)
        };
        let (left, top) = ((width - part_width) / 2, (height - part_height) / 2);
        [left, top, part_width, part_height]
    }
}

/// Where the pixels of an output of `side × side` lie in a part of an image.
fn resize([left, top, width, height]: [usize; 4], side: usize) -> Affine {
    let (xx, yy) = (width as f64 / side as f64, height as f64 / side as f64);
    Affine {
        xx,
        xy: 0.0,
        x0: left as f64 + xx / 2.0 - 0.5,
        yx: 0.0,
        yy,
        y0: top as f64 + yy / 2.0 - 0.5,
    }
}

impl TryFrom<RawRandomResizedCrop> for RandomResizedCrop {
    type Error = AugmentError;

    fn try_from(raw: RawRandomResizedCrop) -> Result<Self, AugmentError> {
        Self::new(raw.min_area, raw.max_area, raw.max_aspect)
    }
}

impl From<RandomResizedCrop> for RawRandomResizedCrop {
    fn from(
        RandomResizedCrop {
            min_area,
            max_area,
            max_aspect,
        }: RandomResizedCrop,
    ) -> Self {
        Self {
            min_area,
            max_area,
            max_aspect,
        }
    }
}

impl Transform for RandomResizedCrop {
    fn name(&self) -> &str {
        "random-resized-crop"
    }

    fn crop(&self, rng: &mut KeyedRng, width: usize, height: usize, side: usize) -> Option<Affine> {
        Some(resize(self.part(rng, width, height), side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torchvision.transforms.RandomResizedCrop.get_params` of images too long for the ratios: (left, top, width, height).
    #[test]
    fn the_last_resort_is_torchvisions() {
        let crop = RandomResizedCrop::new(0.08, 1.0, 4.0 / 3.0).unwrap();
        assert_eq!(crop.largest_part(30, 100), [0, 30, 30, 40]);
        assert_eq!(crop.largest_part(101, 30), [30, 0, 40, 30]);
        assert_eq!(crop.largest_part(30, 25), [0, 0, 30, 25]);
    }
}
