//! A map of importance over an image, and regions of it.

use cxr_dataset::FindingBox;

use crate::ExplainError;

/// Importance over what the network saw: height × width values of at least 0.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

/// A rectangle as shares of the image that the network saw, from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Region {
    /// All of the image.
    pub const WHOLE: Self = Self {
        left: 0.,
        top: 0.,
        right: 1.,
        bottom: 1.,
    };

    /// The central square of `crop` pixels of an image that was resized to `resized` pixels: what a network sees. Nothing
    /// but the whole image where it sees all.
    pub fn of_window(resized: usize, crop: usize) -> Self {
        let margin = (resized.saturating_sub(crop) / 2) as f64 / resized.max(1) as f64;
        let end = (margin + crop as f64 / resized.max(1) as f64).min(1.);
        Self {
            left: margin,
            top: margin,
            right: end,
            bottom: end,
        }
    }

    /// Whether the centre of the pixel at `row` and `column` of `height`×`width` is in it.
    pub(crate) fn has_pixel(
        &self,
        (row, column): (usize, usize),
        (height, width): (usize, usize),
    ) -> bool {
        let share = |at: usize, side: usize| (at as f64 + 0.5) / side as f64;
        let (x, y) = (share(column, width), share(row, height));
        (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
    }

    /// A rectangle inside the unit square.
    ///
    /// # Errors
    /// One that is empty or reaches outside.
    pub fn new(left: f64, top: f64, width: f64, height: f64) -> Result<Self, ExplainError> {
        let (right, bottom) = (left + width, top + height);
        // Written so that a NaN fails.
        if left >= 0. && top >= 0. && width > 0. && height > 0. && right <= 1. && bottom <= 1. {
            Ok(Self {
                left,
                top,
                right,
                bottom,
            })
        } else {
            Err(ExplainError::Region {
                left,
                top,
                width,
                height,
            })
        }
    }

    /// The part of a box, drawn on an image of `side`×`side` pixels, that the network sees when it
    /// is shown the central `crop` of `resized` pixels; `None` when the box lies outside.
    pub fn of_box(finding: &FindingBox, side: f64, resized: f64, crop: f64) -> Option<Self> {
        let margin = (resized - crop) / 2.;
        let share = |pixels: f64| ((pixels * resized / side - margin) / crop).clamp(0., 1.);
        let (left, top) = (share(finding.x), share(finding.y));
        let (right, bottom) = (
            share(finding.x + finding.width),
            share(finding.y + finding.height),
        );
        (left < right && top < bottom).then_some(Self {
            left,
            top,
            right,
            bottom,
        })
    }

    /// Its share of the picture.
    pub fn area(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }
}

impl HeatMap {
    /// A map of height × width finite values, row by row.
    ///
    /// # Errors
    /// Another number of values, or one that is not finite.
    pub fn new(height: usize, width: usize, values: Vec<f32>) -> Result<Self, ExplainError> {
        let finite = values.iter().filter(|value| value.is_finite()).count();
        if finite != height * width || finite != values.len() || finite == 0 {
            return Err(ExplainError::Values {
                expected: height * width,
                found: finite,
            });
        }
        Ok(Self {
            height,
            width,
            values,
        })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The largest value.
    pub fn peak(&self) -> f32 {
        self.values.iter().copied().fold(0., f32::max)
    }

    /// The map at `height`×`width` pixels, bilinearly between the centres of its cells, constant
    /// beyond the outermost ones.
    #[must_use]
    pub fn resized(&self, height: usize, width: usize) -> Self {
        self.within(height, width, &Region::WHOLE)
    }

    /// The map at `height`×`width` pixels of a picture of which it covers `window`, as [`Self::resized`] there and 0
    /// outside.
    #[must_use]
    pub fn within(&self, height: usize, width: usize, window: &Region) -> Self {
        let rows = taps(self.height, height, window.top, window.bottom);
        let columns = taps(self.width, width, window.left, window.right);
        let at = |row: usize, column: usize| f64::from(self.values[row * self.width + column]);
        let mut values = Vec::with_capacity(height * width);
        for (row, &(above, below, down)) in rows.iter().enumerate() {
            for (column, &(left, right, across)) in columns.iter().enumerate() {
                if !window.has_pixel((row, column), (height, width)) {
                    values.push(0.);
                    continue;
                }
                let upper = at(above, left) * (1. - across) + at(above, right) * across;
                let lower = at(below, left) * (1. - across) + at(below, right) * across;
                values.push((upper * (1. - down) + lower * down) as f32);
            }
        }
        Self {
            height,
            width,
            values,
        }
    }

    /// The pointing game (Zhang et al. 2018): whether the centre of the largest cell lies in the
    /// region; of several largest the first. `None` for a map that is zero everywhere.
    pub fn peak_is_in(&self, region: &Region) -> Option<bool> {
        let peak = self.peak();
        if peak <= 0. {
            return None;
        }
        let place = self.values.iter().position(|&value| value == peak)?;
        let x = ((place % self.width) as f64 + 0.5) / self.width as f64;
        let y = ((place / self.width) as f64 + 0.5) / self.height as f64;
        let inside = (region.left..region.right).contains(&x);
        Some(inside && (region.top..region.bottom).contains(&y))
    }

    /// Intersection over union of the region and the cells of at least `share` of the largest
    /// value. `None` for a map that is zero everywhere.
    pub fn overlap(&self, region: &Region, share: f32) -> Option<f64> {
        let peak = self.peak();
        if peak <= 0. {
            return None;
        }
        let cell = 1. / (self.height * self.width) as f64;
        let (mut hot, mut shared) = (0., 0.);
        for (place, _) in self
            .values
            .iter()
            .enumerate()
            .filter(|&(_, &v)| v >= share * peak)
        {
            let (row, column) = ((place / self.width) as f64, (place % self.width) as f64);
            let span = |from: f64, cells: usize, low: f64, high: f64| {
                ((from + 1.) / cells as f64).min(high) - (from / cells as f64).max(low)
            };
            hot += cell;
            shared += span(column, self.width, region.left, region.right).max(0.)
                * span(row, self.height, region.top, region.bottom).max(0.);
        }
        Some(shared / (hot + region.area() - shared))
    }
}

/// For each of `to` pixels, of which `from` cells cover those between the shares `low` and `high`, the two cells that it
/// lies between, and how far it is to the second.
fn taps(from: usize, to: usize, low: f64, high: f64) -> Vec<(usize, usize, f64)> {
    let last = from.saturating_sub(1);
    (0..to)
        .map(|pixel| {
            let share = ((pixel as f64 + 0.5) / to as f64 - low) / (high - low);
            let place = share * from as f64 - 0.5;
            let place = place.clamp(0., last as f64);
            let first = place.floor() as usize;
            (first, (first + 1).min(last), place - first as f64)
        })
        .collect()
}
