//! Yes-or-no questions about how an image was taken and of what body: labels to pretrain a network on
//! that has not seen a finding.

use crate::drawing;
use crate::study::{Sex, Study, View};

/// What [`Study::nuisance_answers`] answers: one question about the view, some for each other factor about
/// where in its range it is, some about the body and about devices on the film.
pub const NUISANCE_QUESTIONS: [&str; 33] = [
    "AP",
    "exposure above -0.3",
    "exposure above 0",
    "exposure above 0.3",
    "contrast above -0.25",
    "contrast above 0.25",
    "noise above 0.35",
    "noise above 0.7",
    "habitus above -0.3",
    "habitus above 0",
    "habitus above 0.3",
    "inspiration above -0.3",
    "inspiration above 0",
    "inspiration above 0.3",
    "tilt above -1.5 degrees",
    "tilt above 0 degrees",
    "tilt above 1.5 degrees",
    "obliquity beyond 0.15",
    "obliquity beyond 0.35",
    "field above 350 mm",
    "field above 366 mm",
    "female",
    "breasts above 0.5",
    "size above 1",
    "bones above 1",
    "vessels above 0.95",
    "vessels above 1.05",
    "scoliosis beyond 0.3",
    "ribs steeper than usual",
    "electrode in the upper half",
    "electrode in the lower half",
    "venous line",
    "pacemaker",
];

impl Study {
    /// The answers to [`NUISANCE_QUESTIONS`], in their order. None depends on a finding.
    #[must_use]
    pub fn nuisance_answers(&self) -> [bool; NUISANCE_QUESTIONS.len()] {
        let (nuisance, body) = (self.nuisance(), self.body());
        let devices = drawing::devices(self);
        let [upper, lower] = devices.electrodes;
        [
            nuisance.view == View::Ap,
            nuisance.exposure > -0.3,
            nuisance.exposure > 0.0,
            nuisance.exposure > 0.3,
            nuisance.contrast > -0.25,
            nuisance.contrast > 0.25,
            nuisance.noise > 0.35,
            nuisance.noise > 0.7,
            nuisance.habitus > -0.3,
            nuisance.habitus > 0.0,
            nuisance.habitus > 0.3,
            nuisance.inspiration > -0.3,
            nuisance.inspiration > 0.0,
            nuisance.inspiration > 0.3,
            nuisance.tilt_degrees > -1.5,
            nuisance.tilt_degrees > 0.0,
            nuisance.tilt_degrees > 1.5,
            nuisance.obliquity.abs() > 0.15,
            nuisance.obliquity.abs() > 0.35,
            nuisance.field_mm > 350.0,
            nuisance.field_mm > 366.0,
            body.sex == Sex::Female,
            body.breast > 0.5,
            body.size > 1.0,
            body.bone > 1.0,
            body.vessels > 0.95,
            body.vessels > 1.05,
            body.scoliosis.abs() > 0.3,
            body.rib_slope > 0.0,
            upper,
            lower,
            devices.venous_line,
            devices.pacemaker,
        ]
    }
}
