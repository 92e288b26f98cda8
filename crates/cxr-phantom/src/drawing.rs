//! Puts one chest together: anatomy, findings, film.

use crate::chest::Chest;
use crate::extras::Devices;
use crate::field::{Area, Field, Frame, relief};
use crate::film;
use crate::finding::Finding;
use crate::projection::Projection;
use crate::signs::{self, Canvas};
use crate::study::Study;
use crate::{anatomy, bones, extras, vessels};

/// A rendered image.
#[derive(Clone, Debug, PartialEq)]
pub struct Radiograph {
    side: usize,
    pixels: Vec<u8>,
    boxes: Vec<FindingBox>,
}

/// Where a finding is drawn, in pixels of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FindingBox {
    /// The finding.
    pub finding: Finding,
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width, above 0.
    pub width: f32,
    /// Height, above 0.
    pub height: f32,
}

impl Radiograph {
    /// Width and height in pixels.
    #[must_use]
    pub fn side(&self) -> usize {
        self.side
    }

    /// Grey levels, row by row from the upper left: 0 is black (air), 255 white (bone). As in
    /// ChestX-ray14 the patient's right is on the left.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Where the findings are: one box or more for each finding that is drawn at a place. Findings
    /// that change a whole lung are boxed as a whole.
    #[must_use]
    pub fn boxes(&self) -> &[FindingBox] {
        &self.boxes
    }
}

pub(crate) fn render(study: &Study, side: usize) -> Radiograph {
    let projection = projection(study);
    let frame = frame(&projection, side);
    let (chest, canvas, areas) = contents(study, frame);
    let boxes = on_film(&areas, &projection, side);
    if side == 0 {
        let pixels = Vec::new();
        return Radiograph {
            side,
            pixels,
            boxes,
        };
    }

    let mut thickness = anatomy::body(&chest, frame, &mut study.patient_draws("body"));
    anatomy::gas(&chest, &mut thickness, &mut study.image_draws("gas"));
    bones::add(&chest, &mut thickness, &mut study.patient_draws("bones"));
    canvas.add_to(&mut thickness);
    extras::add(
        &chest,
        &projection,
        &mut thickness,
        &mut study.image_draws("extras"),
    );

    let draws = &mut study.image_draws("film");
    Radiograph {
        side,
        pixels: film::expose(&thickness, &projection, &study.nuisance(), side, draws),
        boxes,
    }
}

/// The boxes of [`render`]: the findings are painted on a corner of its grid, which costs nothing and
/// leaves every draw the same.
pub(crate) fn boxes(study: &Study, side: usize) -> Vec<FindingBox> {
    let projection = projection(study);
    let (_, _, areas) = contents(study, corner(&projection));
    on_film(&areas, &projection, side)
}

/// The devices of [`render`], on a corner of its grid.
pub(crate) fn devices(study: &Study) -> Devices {
    let projection = projection(study);
    let (chest, _) = reshaped(study);
    let mut corner = Field::zero(corner(&projection));
    let draws = &mut study.image_draws("extras");
    extras::add(&chest, &projection, &mut corner, draws)
}

/// Two points by two of the grid.
fn corner(projection: &Projection) -> Frame {
    Frame {
        width: 2,
        height: 2,
        ..frame(projection, 1024)
    }
}

fn projection(study: &Study) -> Projection {
    let draws = &mut study.image_draws("projection");
    Projection::new(&study.nuisance(), study.body().size, draws)
}

/// The chest as the findings have left it, and its vessels.
fn reshaped(study: &Study) -> (Chest, vessels::VesselStyle) {
    let mut chest = Chest::of(study.body(), &study.nuisance());
    let mut style = vessels::VesselStyle {
        calibre: 1.0,
        upper: 1.0,
        reach: 0.94,
    };
    for sign in signs::of(study) {
        sign.reshape(&mut chest, &mut style);
    }
    (chest, style)
}

/// The chest as the findings have left it, what is in it, and where each finding is.
fn contents(study: &Study, frame: Frame) -> (Chest, Canvas, Vec<(Finding, Area)>) {
    let (chest, style) = reshaped(study);
    let signs = signs::of(study);
    let mut lungs = anatomy::lungs(&chest, frame);
    anatomy::displace_by_mediastinum(&chest, &mut lungs, &mut study.patient_draws("mediastinum"));
    let relief_of_tissue = [(27.0, 0.5), (11.0, 0.36), (4.6, 0.28), (2.3, 0.2)];
    let mut canvas = Canvas {
        vessels: vessels::draw(&chest, style, frame, &mut study.patient_draws("vessels")),
        solid: Field::zero(frame),
        lungs,
        texture: relief(frame, &relief_of_tissue, &mut study.image_draws("texture")),
    };
    let mut areas = Vec::new();
    for sign in &signs {
        let painted = sign.paint(&chest, &mut canvas);
        areas.extend(painted.into_iter().map(|area| (sign.finding(), area)));
    }
    (chest, canvas, areas)
}

/// The grid that anatomy is drawn on: half as fine as a large picture, whose finest structures are a few
/// pixels wide, and never so coarse that a small picture's sampling would show.
fn frame(projection: &Projection, side: usize) -> Frame {
    let points = side.div_ceil(2).max(side.min(512)).max(256);
    let (half_width, half_height) = projection.half_extent();
    let pixel = projection.field.0.max(projection.field.1) / points as f32;
    let count = |half: f32| (2.0 * half / pixel).ceil() as usize + 2;
    let (width, height) = (count(half_width), count(half_height));
    Frame {
        left: projection.centre.0 - 0.5 * width as f32 * pixel,
        top: projection.centre.1 - 0.5 * height as f32 * pixel,
        pixel,
        width,
        height,
    }
}

/// The upright boxes around areas of the patient, cut off at the picture's edge; what is not on the film
/// has none.
fn on_film(areas: &[(Finding, Area)], projection: &Projection, side: usize) -> Vec<FindingBox> {
    let pixels = side as f32;
    let mut boxes = Vec::new();
    for &(finding, area) in areas {
        let corners = [
            (area.left, area.top),
            (area.right, area.top),
            (area.left, area.bottom),
            (area.right, area.bottom),
        ]
        .map(|corner| projection.to_picture(corner));
        let span = |values: [f32; 4]| {
            let least = values.into_iter().fold(f32::INFINITY, f32::min);
            let most = values.into_iter().fold(f32::NEG_INFINITY, f32::max);
            (
                least.clamp(0.0, 1.0) * pixels,
                most.clamp(0.0, 1.0) * pixels,
            )
        };
        let (x, right) = span(corners.map(|corner| corner.0));
        let (y, bottom) = span(corners.map(|corner| corner.1));
        let (width, height) = (right - x, bottom - y);
        if width >= 1.0 && height >= 1.0 {
            boxes.push(FindingBox {
                finding,
                x,
                y,
                width,
                height,
            });
        }
    }
    boxes
}
