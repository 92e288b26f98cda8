//! The geometry of one chest: where its walls, domes and borders are.

use crate::field::Point;
use crate::math::{rounded, smoothstep, through};
use crate::random::Draws;
use crate::study::{Body, Nuisance, Sex, View};

/// A side of the patient. The patient's right is on the left of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Right,
    Left,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Right, Self::Left];

    /// −1 on the picture's left, 1 on its right.
    pub(crate) fn direction(self) -> f32 {
        match self {
            Self::Right => -1.0,
            Self::Left => 1.0,
        }
    }

    pub(crate) fn of(x: f32) -> Self {
        if x < 0.0 { Self::Right } else { Self::Left }
    }

    pub(crate) fn draw(draws: &mut Draws) -> Self {
        Self::of(draws.sign())
    }
}

/// One diaphragm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dome {
    /// Height of its top.
    pub(crate) top: f32,
    /// Distance of its top from the midline.
    pub(crate) centre: f32,
    /// How far the angle at the wall lies below the top.
    pub(crate) drop: f32,
}

/// Measures in millimetres of a patient of ordinary size; the projection scales them.
#[derive(Clone, Debug)]
pub(crate) struct Chest {
    pub(crate) view: View,
    pub(crate) sex: Sex,
    pub(crate) habitus: f32,
    pub(crate) breast: f32,
    pub(crate) bone: f32,
    pub(crate) rib_slope: f32,
    pub(crate) vessels: f32,
    /// Half the inner width of the rib cage at its widest.
    pub(crate) half_width: f32,
    pub(crate) apex: f32,
    pub(crate) domes: [Dome; 2],
    /// Longest path through a lung.
    pub(crate) lung_depth: [f32; 2],
    /// Width of the heart.
    pub(crate) heart_width: f32,
    /// Displacement of the mediastinum by the patient's rotation or by a finding.
    pub(crate) shift: f32,
    pub(crate) obliquity: f32,
    scoliosis: f32,
    /// How far veins, aortic arch and pulmonary trunk stand out beyond the ordinary.
    vein: f32,
    arch: f32,
    trunk: f32,
}

impl Chest {
    pub(crate) fn of(body: &Body, nuisance: &Nuisance) -> Self {
        let breath = nuisance.inspiration;
        let right_top = 79.0 + 15.0 * breath;
        let (magnified, drop) = match nuisance.view {
            View::Pa => (1.0, 40.0),
            View::Ap => (1.12, 36.0),
        };
        let half_width = 134.0 + 2.0 * breath;
        let ratio =
            (0.445 + 0.022 * body.heart + 0.018 * nuisance.habitus - 0.012 * breath) * magnified;
        let depth = 158.0 + 6.0 * breath;
        Self {
            view: nuisance.view,
            sex: body.sex,
            habitus: nuisance.habitus,
            breast: body.breast,
            bone: body.bone,
            rib_slope: body.rib_slope,
            vessels: body.vessels,
            half_width,
            apex: -130.0,
            domes: [
                Dome {
                    top: right_top,
                    centre: 68.0,
                    drop,
                },
                Dome {
                    top: right_top + 11.0,
                    centre: 72.0,
                    drop: drop - 4.0,
                },
            ],
            // The side that turns towards the film is longer in the beam's way.
            lung_depth: [
                depth * (1.0 - 0.05 * nuisance.obliquity),
                depth * (1.0 + 0.05 * nuisance.obliquity),
            ],
            heart_width: ratio * 2.0 * half_width,
            shift: 7.0 * nuisance.obliquity,
            obliquity: nuisance.obliquity,
            scoliosis: body.scoliosis,
            vein: 2.0 * body.great_vessels[0],
            arch: 3.0 * body.great_vessels[1] + 1.0,
            trunk: 3.0 * body.great_vessels[2],
        }
    }

    /// The spine's midline at a height.
    pub(crate) fn spine(&self, y: f32) -> f32 {
        let bend = (y + 10.0) / 130.0;
        4.0 * self.scoliosis * (1.0 - bend * bend)
    }

    /// The mediastinum's midline at a height.
    pub(crate) fn midline(&self, y: f32) -> f32 {
        // The neck stays where it is.
        self.spine(y) * 0.7 + self.shift * smoothstep(-138.0, -92.0, y)
    }

    pub(crate) fn dome(&self, side: Side) -> &Dome {
        &self.domes[side as usize]
    }

    pub(crate) fn dome_mut(&mut self, side: Side) -> &mut Dome {
        &mut self.domes[side as usize]
    }

    pub(crate) fn depth(&self, side: Side) -> f32 {
        self.lung_depth[side as usize]
    }

    /// Depth of the lung at a height as a share of its greatest: the apices are shallow.
    pub(crate) fn depth_at(&self, y: f32) -> f32 {
        through(
            &[
                (self.apex - 5.0, 0.44),
                (self.apex + 75.0, 0.86),
                (self.apex + 130.0, 1.0),
            ],
            y,
        )
    }

    /// Lowest point of the pleural space, beside the wall.
    pub(crate) fn angle(&self, side: Side) -> f32 {
        let dome = self.dome(side);
        dome.top + dome.drop
    }

    /// Distance of the lung's outer outline from x = 0 at a height; 0 above the apex.
    pub(crate) fn lateral(&self, side: Side, y: f32) -> f32 {
        let inner = 52.0;
        let t = (y - self.apex) / (self.angle(side) - self.apex);
        if t <= 0.0 {
            return 0.0;
        }
        let rest = 1.0 - t.min(1.0);
        // Between a circle and a wall: exponents 2 and 3 in equal parts.
        let shape = (1.0 - rest * rest * (0.4 + 0.6 * rest)).sqrt();
        let below = smoothstep(0.86, 1.25, t) * 9.0;
        inner + (self.half_width - inner) * shape - below
    }

    /// Distance of the lung's inner outline from the midline at a height: the edge of the mediastinum.
    pub(crate) fn medial(&self, y: f32) -> f32 {
        let t = (y - self.apex) / 62.0;
        let border = 19.0;
        52.0 - (52.0 - border) * rounded(t)
    }

    /// Height of the diaphragm at a distance from the midline.
    pub(crate) fn diaphragm(&self, side: Side, distance: f32) -> f32 {
        let dome = self.dome(side);
        if distance > dome.centre {
            let t = (distance - dome.centre) / (self.half_width - dome.centre);
            dome.top + dome.drop * t * t * (0.62 + 0.38 * t)
        } else {
            let t = (dome.centre - distance) / dome.centre;
            dome.top + 0.42 * dome.drop * t * t
        }
    }

    /// A point of a lung: `across` from the mediastinum (0) to the wall (1), `down` from the apex (0) to
    /// the diaphragm (1).
    pub(crate) fn lung_point(&self, side: Side, across: f32, down: f32) -> Point {
        let middle = 0.5 * (self.half_width + 20.0);
        let floor = self.diaphragm(side, middle * (0.6 + 0.8 * across));
        let y = self.apex + down * (floor - self.apex);
        let inner = self.medial(y);
        let distance = inner + across * (self.lateral(side, y) - inner);
        (side.direction() * distance, y)
    }

    /// Where the vessels leave the mediastinum.
    pub(crate) fn hilum(&self, side: Side) -> Point {
        let (distance, y) = match side {
            Side::Right => (33.0, -4.0),
            Side::Left => (35.0, -16.0),
        };
        (side.direction() * distance + self.midline(y), y)
    }

    /// Middle of the heart, which rests on the left dome.
    pub(crate) fn heart_centre(&self) -> Point {
        let y = self.heart_floor() - 0.47 * self.heart_height();
        (self.midline(y) + 0.15 * self.heart_width, y)
    }

    /// How high the heart reaches: a wide one is a flat one, as the great vessels above it stay.
    pub(crate) fn heart_height(&self) -> f32 {
        self.heart_width.min((self.heart_floor() + 33.0) / 0.97)
    }

    /// Height of the heart's lowest point.
    fn heart_floor(&self) -> f32 {
        self.dome(Side::Left).top + 15.0
    }

    /// Distances of the right and the left border of heart and great vessels from the midline, as knots
    /// of (height, distance) from the thoracic inlet down to the heart's lowest point.
    pub(crate) fn silhouette(&self) -> [[(f32, f32); 10]; 2] {
        let (width, floor) = (self.heart_width, self.heart_floor());
        let at = |share: f32| floor - share * self.heart_height();
        // Veins on the right, the bulge of the atrium below them.
        let right = [
            (-150.0, 36.0),
            (-118.0, 29.0),
            (-84.0, 26.0 + self.vein),
            (-50.0, 27.0 + self.vein),
            (at(0.95).min(-14.0), 26.0 + 0.6 * self.vein),
            (at(0.72), 0.26 * width),
            (at(0.47), 0.345 * width),
            (at(0.25), 0.33 * width),
            (at(0.08), 0.26 * width),
            (floor, 0.2 * width),
        ];
        // Subclavian artery, aortic arch, pulmonary trunk, ventricle.
        let left = [
            (-150.0, 38.0),
            (-100.0, 27.0),
            (-78.0, 30.0 + 0.5 * self.arch),
            (-61.0, 38.0 + self.arch),
            (-41.0, 28.0 + 0.2 * self.arch),
            (at(0.97).min(-20.0), 30.0 + self.trunk),
            (at(0.72), 0.375 * width),
            (at(0.42), 0.56 * width),
            (at(0.18), 0.65 * width),
            (floor, 0.53 * width),
        ];
        [right, left]
    }
}
