//! Heat maps of one finding scored against its boxes.

use crate::{HeatMap, Region};

/// Sums over the boxes of one finding.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BoxTally {
    /// Boxes scored.
    pub boxes: usize,
    /// Boxes that hold the peak of their map: the pointing game.
    pub hits: usize,
    /// Boxes whose map is zero everywhere: a miss, and an overlap of 0.
    pub empty_maps: usize,
    area: f64,
    overlap: f64,
}

impl BoxTally {
    /// Scores a map against a box; a cell is hot from `hot_share` of the map's largest value on.
    pub fn add(&mut self, map: &HeatMap, region: &Region, hot_share: f32) {
        self.boxes += 1;
        self.area += region.area();
        match (map.peak_is_in(region), map.overlap(region, hot_share)) {
            (Some(is_hit), Some(overlap)) => {
                self.hits += usize::from(is_hit);
                self.overlap += overlap;
            }
            _ => self.empty_maps += 1,
        }
    }

    /// The boxes' mean share of the picture: how often a peak at random would hit.
    pub fn mean_area(&self) -> Option<f64> {
        (self.boxes > 0).then(|| self.area / self.boxes as f64)
    }

    /// Mean intersection over union.
    pub fn mean_overlap(&self) -> Option<f64> {
        (self.boxes > 0).then(|| self.overlap / self.boxes as f64)
    }
}
