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
        let (rows, columns) = (taps(self.height, height), taps(self.width, width));
        let at = |row: usize, column: usize| f64::from(self.values[row * self.width + column]);
        let mut values = Vec::with_capacity(height * width);
        for &(above, below, down) in &rows {
            for &(left, right, across) in &columns {
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

/// For each of `to` pixels the two of `from` cells it lies between, and how far it is to the second.
fn taps(from: usize, to: usize) -> Vec<(usize, usize, f64)> {
    let last = from.saturating_sub(1);
    (0..to)
        .map(|pixel| {
            let place = (pixel as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            let place = place.clamp(0., last as f64);
            let first = place.floor() as usize;
            (first, (first + 1).min(last), place - first as f64)
        })
        .collect()
}
