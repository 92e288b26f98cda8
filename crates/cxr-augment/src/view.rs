//! Views of one image whose predictions are averaged at test time.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::augmentation::center;
use crate::{Affine, AugmentError, GrayImageRef, Normalization, warp};

/// One way to look at a test image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The central window of the output's size; offsets round towards the upper left corner.
    Center,
    /// The same window of the image mirrored left to right.
    HorizontalFlip,
    /// A centred window whose side is the output's divided by this factor, resampled to the
    /// output: above 1 the image is enlarged. From ½ to 2.
    Zoom(f32),
}

impl View {
    /// The map from an output of `size × size` pixels to an image of this width and height.
    ///
    /// # Errors
    /// [`AugmentError::Setting`] for a zoom outside ½ … 2, or an output larger than the image.
    pub fn map(&self, width: usize, height: usize, size: usize) -> Result<Affine, AugmentError> {
        if size > width.min(height) {
            let expected = format!("at most the image's {width}×{height}");
            return Err(AugmentError::setting("output size", expected, size));
        }
        let (left, top) = (((width - size) / 2) as f64, ((height - size) / 2) as f64);
        match *self {
            Self::Center => Ok(Affine::crop(left, top)),
            Self::HorizontalFlip => {
                Ok(Affine::horizontal_flip(width).then(&Affine::crop(left, top)))
            }
            Self::Zoom(factor) if (0.5..=2.0).contains(&factor) => {
                let (center_x, center_y) = center(width, height);
                let middle = (size as f64 - 1.0) / 2.0;
                let zoom = Affine::scaling(f64::from(factor), center_x, center_y);
                Ok(zoom.then(&Affine::crop(center_x - middle, center_y - middle)))
            }
            Self::Zoom(factor) => Err(AugmentError::setting(
                "zoom",
                "a factor from 0.5 to 2",
                factor,
            )),
        }
    }

    /// Writes this view of the image, three normalised channels of `size × size`.
    ///
    /// # Errors
    /// As [`Self::map`] and [`warp`].
    pub fn apply(
        &self,
        image: GrayImageRef<'_>,
        size: usize,
        normalization: &Normalization,
        output: &mut [f32],
    ) -> Result<(), AugmentError> {
        let map = self.map(image.width(), image.height(), size)?;
        warp(image, &map, (size, size), normalization, output)
    }
}

/// The named sets of views of the paper's Table 3.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ViewSet {
    /// The central window alone.
    Single,
    /// With its mirror image.
    #[serde(rename = "hflip")]
    HorizontalFlip,
    /// With its mirror image and zooms of 1.1 and 0.9: four views.
    #[default]
    #[serde(rename = "hflip-zoom")]
    HorizontalFlipZoom,
}

impl ViewSet {
    /// The three sets, from one view to four.
    pub const ALL: [Self; 3] = [Self::Single, Self::HorizontalFlip, Self::HorizontalFlipZoom];

    /// The views in the order in which they are computed and summed.
    pub fn views(self) -> &'static [View] {
        const FOUR: &[View] = &[
            View::Center,
            View::HorizontalFlip,
            View::Zoom(1.1),
            View::Zoom(0.9),
        ];
        match self {
            Self::Single => &[View::Center],
            Self::HorizontalFlip => &[View::Center, View::HorizontalFlip],
            Self::HorizontalFlipZoom => FOUR,
        }
    }

    /// `single`, `hflip` or `hflip-zoom`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::HorizontalFlip => "hflip",
            Self::HorizontalFlipZoom => "hflip-zoom",
        }
    }
}

impl fmt::Display for ViewSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for ViewSet {
    type Err = AugmentError;

    fn from_str(name: &str) -> Result<Self, AugmentError> {
        let found = Self::ALL.into_iter().find(|set| set.name() == name);
        found.ok_or_else(|| AugmentError::ViewSet(name.to_owned()))
    }
}
