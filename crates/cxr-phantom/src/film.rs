//! From path lengths to grey levels: grey scale, grain, borders, letters.

use crate::field::{Field, Frame};
use crate::math::exp;
use crate::projection::Projection;
use crate::random::Draws;
use crate::study::{Nuisance, View};

/// Thickest path that is distinguished, in millimetres of water, and steps per millimetre.
const THICKEST: f32 = 480.0;
const STEPS: f32 = 8.0;

/// What the film shows behind a path.
#[derive(Clone, Copy, Debug, Default)]
struct Exposure {
    /// Grey level.
    level: f32,
    /// Standard deviation of the grain, in grey levels.
    grain: f32,
}

/// The exposure for every thickness.
struct GreyScale {
    exposures: Vec<Exposure>,
}

impl GreyScale {
    fn new(nuisance: &Nuisance, draws: &mut Draws) -> Self {
        // The automatic exposure follows the body's thickness, not what is in the lungs.
        let typical = 117.0 * (1.0 + 0.14 * nuisance.habitus);
        let centre = typical + 36.0 * nuisance.exposure;
        let scatter = match nuisance.view {
            View::Pa => 1.0,
            View::Ap => 1.16,
        };
        let width = 45.0 * scatter * (1.0 - 0.3 * nuisance.contrast);
        let black = draws.between(0.0, 14.0);
        let white = draws.between(222.0, 255.0);
        let grain = 0.5 + 1.6 * nuisance.noise * nuisance.noise;
        let exposures = (0..=(THICKEST * STEPS) as usize)
            .map(|step| {
                let thickness = step as f32 / STEPS;
                let share = 1.0 / (1.0 + exp((centre - thickness) / width));
                // Where nothing absorbs there is no grain; behind much tissue few quanta arrive.
                let few_quanta = (1.0 - exp(-thickness / 25.0)) * (0.75 + thickness / 400.0);
                Exposure {
                    level: black + (white - black) * share,
                    grain: grain * few_quanta,
                }
            })
            .collect();
        Self { exposures }
    }

    fn at(&self, thickness: f32) -> Exposure {
        let step = (thickness.max(0.0) * STEPS) as usize;
        self.exposures[step.min(self.exposures.len() - 1)]
    }
}

/// Exposes the film: `side` × `side` grey levels, for a side of at least 1.
pub(crate) fn expose(
    thickness: &Field,
    projection: &Projection,
    nuisance: &Nuisance,
    side: usize,
    draws: &mut Draws,
) -> Vec<u8> {
    let scale = GreyScale::new(nuisance, draws);
    let margins = Margins::draw(draws);
    let exposed: Vec<Exposure> = thickness
        .values
        .iter()
        .map(|&path| scale.at(path))
        .collect();

    let samples = (thickness.frame.width as f32 / side as f32)
        .round()
        .max(1.0) as usize;
    let walk = Walk::new(thickness.frame, projection, side * samples);
    let share = 1.0 / (samples * samples) as f32;
    let mut noise = vec![0_u8; 2 * side];
    let mut sums = vec![Exposure::default(); side];
    let mut pixels = Vec::with_capacity(side * side);
    for row in 0..side {
        sums.fill(Exposure::default());
        for sample in 0..samples {
            walk.add_row(&exposed, row * samples + sample, samples, &mut sums);
        }
        draws.fill(&mut noise);
        for (sum, noise) in sums.iter().zip(noise.chunks_exact(2)) {
            // The sum of two uniform bytes has a mean of 255 and a standard deviation of 104.5.
            let noise = f32::from(u16::from(noise[0]) + u16::from(noise[1])) - 255.0;
            let level = share * (sum.level + sum.grain * noise * (1.0 / 104.5));
            // Rounds half upwards; the conversion keeps to 0 … 255.
            pixels.push((level + 0.5) as u8);
        }
    }
    margins.paint(&mut pixels, side);
    pixels
}

/// Walks along the picture's rows over the grid, in steps of 2⁻¹⁶ of a grid point.
struct Walk {
    origin: (f32, f32),
    /// Grid points from one sample to the next along a row and down a column.
    along: (f32, f32),
    down: (f32, f32),
    width: usize,
}

const FRACTION_BITS: u32 = 16;
const ONE: f32 = (1 << FRACTION_BITS) as f32;

impl Walk {
    fn new(frame: Frame, projection: &Projection, samples_per_side: usize) -> Self {
        let per_side = 1.0 / samples_per_side as f32;
        let (x, y) = projection.to_patient((0.5 * per_side, 0.5 * per_side));
        let (sin, cos) = projection.tilt;
        let (wide, high) = (
            projection.field.0 * per_side / frame.pixel,
            projection.field.1 * per_side / frame.pixel,
        );
        Self {
            origin: (
                (x - frame.left) / frame.pixel - 0.5,
                (y - frame.top) / frame.pixel - 0.5,
            ),
            along: (cos * wide, -sin * wide),
            down: (sin * high, cos * high),
            width: frame.width,
        }
    }

    /// Adds a row of samples, `samples` of them to each sum.
    fn add_row(&self, exposed: &[Exposure], row: usize, samples: usize, sums: &mut [Exposure]) {
        let start = |origin: f32, down: f32| ((origin + row as f32 * down) * ONE) as i32;
        let mut x = start(self.origin.0, self.down.0);
        let mut y = start(self.origin.1, self.down.1);
        let step = ((self.along.0 * ONE) as i32, (self.along.1 * ONE) as i32);
        let fraction = |position: i32| (position & ((1 << FRACTION_BITS) - 1)) as f32 * (1.0 / ONE);
        for sum in sums {
            for _ in 0..samples {
                let corner =
                    (y >> FRACTION_BITS) as usize * self.width + (x >> FRACTION_BITS) as usize;
                let upper = exposed.get(corner..corner + 2);
                let lower = exposed.get(corner + self.width..corner + self.width + 2);
                // The grid covers the picture, so that all four neighbours are there.
                if let (Some([a, b]), Some([c, d])) = (upper, lower) {
                    let (fx, fy) = (fraction(x), fraction(y));
                    let top = a.level + fx * (b.level - a.level);
                    let bottom = c.level + fx * (d.level - c.level);
                    sum.level += top + fy * (bottom - top);
                    sum.grain += a.grain;
                }
                x += step.0;
                y += step.1;
            }
        }
    }
}

/// Edges of the cassette and shutters: black or white strips along some sides, not quite straight.
struct Margins {
    level: u8,
    strips: Vec<Strip>,
}

struct Strip {
    /// 0 is the upper edge, then the lower, the left and the right.
    edge: u8,
    /// Width at the edge's beginning, and how much it grows along it, in shares of the side.
    width: f32,
    growth: f32,
}

impl Margins {
    fn draw(draws: &mut Draws) -> Self {
        let present = draws.chance(0.4);
        let black = draws.chance(0.6);
        let level = if black {
            draws.between(0.0, 16.0)
        } else {
            draws.between(228.0, 255.0)
        };
        let mut strips = Vec::new();
        for edge in 0..4 {
            let strip = Strip {
                edge,
                width: 0.002 + 0.055 * draws.unit() * draws.unit(),
                growth: 0.012 * draws.normal(),
            };
            if draws.chance(0.4) && present {
                strips.push(strip);
            }
        }
        Self {
            level: level as u8,
            strips,
        }
    }

    fn paint(&self, pixels: &mut [u8], side: usize) {
        for strip in &self.strips {
            for along in 0..side {
                let share = strip.width + strip.growth * along as f32 / side as f32;
                let depth = (share.clamp(0.0, 0.1) * side as f32 + 0.5) as usize;
                for from_edge in 0..depth {
                    let (row, column) = match strip.edge {
                        0 => (from_edge, along),
                        1 => (side - 1 - from_edge, along),
                        2 => (along, from_edge),
                        _ => (along, side - 1 - from_edge),
                    };
                    pixels[row * side + column] = self.level;
                }
            }
        }
    }
}
