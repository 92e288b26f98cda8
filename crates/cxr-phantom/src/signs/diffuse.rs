//! Findings of a whole organ: cardiomegaly, edema, emphysema, fibrosis.

use super::Canvas;
use crate::chest::{Chest, Side};
use crate::field::{Area, Point, relief};
use crate::math::{exp, sin_cos, smoothstep};
use crate::random::Draws;
use crate::vessels::VesselStyle;

/// Widens the heart.
pub(super) fn enlarge_heart(chest: &mut Chest, severity: f32) {
    chest.heart_width *= 1.13 + 0.25 * severity;
}

/// The rectangle around the heart.
pub(super) fn heart_area(chest: &Chest) -> Area {
    let (x, y) = chest.heart_centre();
    let centre = (x - 0.025 * chest.heart_width, y);
    Area::around(centre, 0.5 * chest.heart_width, 0.45 * chest.heart_height())
}

/// The whole of both lungs.
fn both_lungs(chest: &Chest) -> Area {
    Area {
        left: -chest.half_width - 5.0,
        top: chest.apex,
        right: chest.half_width + 5.0,
        bottom: chest.angle(Side::Left).max(chest.angle(Side::Right)),
    }
}

/// Wide vessels, in the upper lobes above all.
pub(super) fn congest(chest: &mut Chest, vessels: &mut VesselStyle, severity: f32) {
    vessels.calibre *= 1.08 + 0.22 * severity;
    vessels.upper *= 1.1 + 0.35 * severity;
    chest.heart_width *= 1.0 + 0.05 * severity;
}

/// Haze like a butterfly around the hila, and short septal lines beside the wall.
pub(super) fn edema(
    chest: &Chest,
    canvas: &mut Canvas,
    severity: f32,
    draws: &mut Draws,
) -> Vec<Area> {
    let density = 0.14 + 0.34 * severity;
    let reach = 52.0 + 22.0 * severity;
    for side in Side::BOTH {
        let weight = density * draws.between(0.85, 1.1);
        let (x, y) = chest.hilum(side);
        let centre = (x + 14.0 * side.direction(), y + 26.0);
        let area = Area::around(centre, 2.1 * reach, 2.3 * reach);
        canvas.fill(area, |px, py, texture| {
            if (px - chest.midline(py)) * side.direction() < 0.0 {
                return 0.0;
            }
            let (u, v) = ((px - centre.0) / reach, (py - centre.1) / (1.12 * reach));
            weight * exp(-0.8 * (u * u + v * v)) * (1.0 + 0.6 * texture)
        });
        let lines = 3 + (8.0 * severity) as usize;
        for _ in 0..lines {
            let y = chest.angle(side) - draws.between(16.0, 72.0);
            let wall = chest.lateral(side, y) - 1.5;
            let inner = wall - draws.between(9.0, 19.0);
            let points = [
                (side.direction() * wall, y),
                (side.direction() * inner, y + draws.between(-2.5, 2.5)),
            ];
            canvas.solid.line(&points, 0.6, 2.0 + 1.6 * severity);
        }
    }
    vec![both_lungs(chest)]
}

/// Deep lungs over a low, flat diaphragm, a narrow heart, few vessels.
pub(super) fn overinflate(chest: &mut Chest, vessels: &mut VesselStyle, severity: f32) {
    for side in Side::BOTH {
        let dome = chest.dome_mut(side);
        dome.top += 7.0 + 13.0 * severity;
        dome.drop *= 0.78 - 0.33 * severity;
    }
    for depth in &mut chest.lung_depth {
        *depth *= 1.025 + 0.06 * severity;
    }
    chest.half_width += 2.0 + 4.0 * severity;
    chest.heart_width *= 0.97 - 0.09 * severity;
    vessels.calibre *= 0.94 - 0.2 * severity;
    vessels.reach *= 0.85 - 0.5 * severity;
}

/// Bullae: thin rings around air that has lost its tissue.
pub(super) fn emphysema(
    chest: &Chest,
    canvas: &mut Canvas,
    severity: f32,
    draws: &mut Draws,
) -> Vec<Area> {
    let bullae = draws.below(2 + (4.0 * severity) as usize);
    for _ in 0..bullae {
        let side = Side::draw(draws);
        let centre = chest.lung_point(side, draws.between(0.35, 0.85), draws.between(0.1, 0.45));
        let radius = draws.between(8.0, 15.0) + 9.0 * severity;
        canvas
            .vessels
            .ellipsoid(centre, (radius, radius), 0.0, |depth, _, vessel| {
                *vessel *= 1.0 - smoothstep(0.1, 0.5, depth);
            });
        canvas
            .lungs
            .ellipsoid(centre, (radius, radius), 0.0, |depth, _, air| {
                *air *= 1.0 + 0.05 * depth;
            });
        let ring: Vec<Point> = (0..=24)
            .map(|step| {
                let (sin, cos) = sin_cos(step as f32 * (std::f32::consts::TAU / 24.0));
                (centre.0 + radius * cos, centre.1 + radius * sin)
            })
            .collect();
        canvas.solid.line(&ring, 0.5, 1.6);
    }
    vec![both_lungs(chest)]
}

/// Stiff lungs are small.
pub(super) fn shrink(chest: &mut Chest, severity: f32) {
    for side in Side::BOTH {
        chest.dome_mut(side).top -= 4.0 + 12.0 * severity;
    }
}

/// A net of fine lines towards the bases and the wall, or towards the apices.
pub(super) fn fibrosis(
    chest: &Chest,
    canvas: &mut Canvas,
    severity: f32,
    draws: &mut Draws,
) -> Vec<Area> {
    let apical = draws.chance(0.3);
    let mesh = draws.between(5.0, 7.5);
    let net = relief(
        canvas.lungs.frame,
        &[(mesh, 0.8), (0.55 * mesh, 0.5)],
        draws,
    );
    let strength = 16.0 + 24.0 * severity;
    let reach = 0.45 + 0.35 * severity;
    let lungs = &canvas.lungs;
    let area = both_lungs(chest);
    let bottom = chest.angle(Side::Left);
    let mut weight = net;
    weight.paint_with(area, lungs, |x, y, air, value| {
        let side = Side::of(x);
        let down = ((y - chest.apex) / (bottom - chest.apex)).clamp(0.0, 1.0);
        let outwards = (x.abs() / chest.lateral(side, y).max(1.0)).clamp(0.0, 1.0);
        let place = if apical {
            smoothstep(reach + 0.15, reach - 0.2, down)
        } else {
            smoothstep(1.05 - reach, 1.3 - reach, down) * smoothstep(0.1, 0.8, outwards)
        };
        // The crests of the relief are the net's threads.
        let thread = (1.0 - 2.3 * value.abs()).max(0.0);
        *value = strength * place * (thread + 0.25) * (air / (air + 20.0));
    });
    canvas
        .solid
        .paint_with(area, &weight, |_, _, thread, value| *value += thread);
    vec![area]
}
