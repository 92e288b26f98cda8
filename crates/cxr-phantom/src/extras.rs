//! What is on a film beside the patient: leads, lines and lead letters.
//!
//! Devices are likelier in bed, as in life; none depends on a finding.

use crate::chest::{Chest, Side};
use crate::field::{Field, Point};
use crate::math::sin_cos;
use crate::projection::Projection;
use crate::random::Draws;
use crate::study::View;

/// What devices a film shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Devices {
    /// Whether there are electrodes in the chest's upper and in its lower half.
    pub(crate) electrodes: [bool; 2],
    pub(crate) venous_line: bool,
    pub(crate) pacemaker: bool,
}

/// Adds devices and letters to the thickness of the body, and tells which devices.
pub(crate) fn add(
    chest: &Chest,
    projection: &Projection,
    body: &mut Field,
    draws: &mut Draws,
) -> Devices {
    let mut devices = Devices::default();
    let in_bed = chest.view == View::Ap;
    if draws.chance(if in_bed { 0.55 } else { 0.04 }) {
        devices.electrodes = electrodes(body, draws);
    }
    if draws.chance(if in_bed { 0.35 } else { 0.06 }) {
        venous_line(chest, body, draws);
        devices.venous_line = true;
    }
    if draws.chance(0.04) {
        pacemaker(chest, body, draws);
        devices.pacemaker = true;
    }
    letters(projection, body, draws);
    devices
}

/// A curve through points, drawn as a wire: straight pieces short enough to look bent.
fn wire(body: &mut Field, points: &[Point], radius: f32, amount: f32) {
    const PIECES: usize = 8;
    let drawn = radius.max(0.7 * body.frame.pixel);
    let amount = amount * radius / drawn;
    let Some(last) = points.len().checked_sub(1) else {
        return;
    };
    let at = |index: isize| points[index.clamp(0, last as isize) as usize];
    let mut from = points[0];
    for start in 0..last as isize {
        let [a, b, c, d] = [-1, 0, 1, 2].map(|offset| at(start + offset));
        for piece in 1..=PIECES {
            let t = piece as f32 / PIECES as f32;
            // Catmull and Rom's curve goes through its points.
            let blend = |a: f32, b: f32, c: f32, d: f32| {
                b + 0.5
                    * t
                    * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
            };
            let to = (blend(a.0, b.0, c.0, d.0), blend(a.1, b.1, c.1, d.1));
            body.capsule(from, to, (drawn, drawn), |distance, _, value| {
                *value += amount * (1.0 - distance * distance);
            });
            from = to;
        }
    }
}

/// Tells in which halves of the chest they are, the upper and the lower.
fn electrodes(body: &mut Field, draws: &mut Draws) -> [bool; 2] {
    let mut halves = [false; 2];
    let ends = (draws.between(-120.0, 120.0), 230.0);
    for _ in 0..2 + draws.below(4) {
        let side = Side::draw(draws);
        let at = (
            side.direction() * draws.between(40.0, 150.0),
            draws.between(-110.0, 110.0),
        );
        halves[usize::from(at.1 > 0.0)] = true;
        let radius = draws.between(2.5, 4.5);
        let amount = draws.between(14.0, 40.0);
        body.ellipsoid(at, (radius, radius), 0.0, |depth, _, value| {
            *value += amount * depth.min(0.5);
        });
        let middle = (
            0.5 * (at.0 + ends.0) + 35.0 * draws.normal(),
            0.5 * (at.1 + ends.1) + 20.0 * draws.normal(),
        );
        wire(body, &[at, middle, ends], 0.8, 0.5 * amount);
    }
    halves
}

fn venous_line(chest: &Chest, body: &mut Field, draws: &mut Draws) {
    let side = Side::draw(draws).direction();
    let tip_y = draws.between(-25.0, 25.0);
    let tip = (chest.midline(tip_y) - 20.0, tip_y);
    let turn = (chest.midline(-70.0) - 18.0 + 4.0 * draws.normal(), -72.0);
    let amount = draws.between(8.0, 18.0);
    if draws.chance(0.3) {
        // A port under the skin, from which the line climbs over the collar bone.
        let port = (
            side * draws.between(70.0, 105.0),
            draws.between(-70.0, -35.0),
        );
        let radius = draws.between(8.0, 11.0);
        body.ellipsoid(port, (radius, radius), 0.0, |depth, _, value| {
            *value += 2.2 * amount * depth.min(0.6);
        });
        let top = (side * 55.0, -120.0 + 6.0 * draws.normal());
        wire(body, &[port, top, turn, tip], 1.1, amount);
    } else {
        let entry = (
            side * draws.between(24.0, 110.0),
            draws.between(-150.0, -100.0),
        );
        wire(body, &[entry, turn, tip], 1.0, amount);
    }
}

fn pacemaker(chest: &Chest, body: &mut Field, draws: &mut Draws) {
    let box_centre = (draws.between(85.0, 110.0), draws.between(-85.0, -60.0));
    let size = draws.between(17.0, 22.0);
    body.ellipsoid(
        box_centre,
        (size, 0.85 * size),
        draws.unit(),
        |depth, _, value| {
            *value += 110.0 * depth.min(0.35);
        },
    );
    let apex = chest.heart_centre();
    let tips = [
        (apex.0 + 12.0, apex.1 + 30.0),
        (chest.midline(apex.1) - 25.0, apex.1),
    ];
    for tip in tips.into_iter().take(1 + draws.below(2)) {
        let turn = (chest.midline(-60.0) - 16.0, -60.0);
        wire(body, &[box_centre, (50.0, -112.0), turn, tip], 0.9, 30.0);
    }
}

/// Strokes of a letter in a unit square, y downwards.
type Strokes = &'static [&'static [Point]];

const LEFT: Strokes = &[&[(0.0, 0.0), (0.0, 1.0), (0.6, 1.0)]];
const RIGHT: Strokes = &[
    &[
        (0.0, 1.0),
        (0.0, 0.0),
        (0.5, 0.0),
        (0.6, 0.25),
        (0.5, 0.5),
        (0.0, 0.5),
    ],
    &[(0.3, 0.5), (0.6, 1.0)],
];
const INITIALS: [Strokes; 6] = [
    &[
        &[(0.0, 1.0), (0.3, 0.0), (0.6, 1.0)],
        &[(0.12, 0.6), (0.48, 0.6)],
    ],
    &[
        &[(0.6, 0.0), (0.0, 0.0), (0.0, 1.0), (0.6, 1.0)],
        &[(0.0, 0.5), (0.5, 0.5)],
    ],
    &[
        &[(0.0, 0.0), (0.0, 1.0)],
        &[(0.6, 0.0), (0.6, 1.0)],
        &[(0.0, 0.5), (0.6, 0.5)],
    ],
    &[&[(0.0, 1.0), (0.0, 0.0), (0.35, 0.6), (0.7, 0.0), (0.7, 1.0)]],
    &[&[(0.0, 0.0), (0.6, 0.0)], &[(0.3, 0.0), (0.3, 1.0)]],
    &[&[(0.0, 0.0), (0.3, 1.0), (0.6, 0.0)]],
];

/// Lead letters that say which side is which and who took the film.
fn letters(projection: &Projection, body: &mut Field, draws: &mut Draws) {
    let mut texts: Vec<(Strokes, Point)> = Vec::new();
    let left = (draws.between(0.86, 0.96), draws.between(0.02, 0.16));
    let height = draws.between(0.018, 0.04);
    if draws.chance(0.85) {
        texts.push((LEFT, left));
        for initial in 0..draws.below(4) {
            let letter = INITIALS[draws.below(INITIALS.len())];
            texts.push((
                letter,
                (left.0, left.1 + 1.35 * height * (initial + 1) as f32),
            ));
        }
    } else if draws.chance(0.5) {
        texts.push((
            RIGHT,
            (draws.between(0.03, 0.12), draws.between(0.02, 0.14)),
        ));
    }
    let (sin, cos) = sin_cos(0.12 * draws.normal());
    // A letter laid face down shows as in a mirror.
    let mirrored = if draws.chance(0.2) { -1.0 } else { 1.0 };
    let amount = draws.between(90.0, 320.0);
    let radius = 0.11 * height * projection.field.1;
    for (strokes, (u, v)) in texts {
        for stroke in strokes {
            let points: Vec<Point> = stroke
                .iter()
                .map(|&(x, y)| {
                    let (x, y) = (mirrored * (x - 0.3) * height, (y - 0.5) * height);
                    projection.to_patient((u + cos * x - sin * y, v + sin * x + cos * y))
                })
                .collect();
            for pair in points.windows(2) {
                body.capsule(pair[0], pair[1], (radius, radius), |_, _, value| {
                    *value = value.max(amount);
                });
            }
        }
    }
}
