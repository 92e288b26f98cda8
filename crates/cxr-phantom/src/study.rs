//! One image before it is drawn: its row of the label file, the body and how it was taken.

use crate::finding::FindingSet;
use crate::random::Draws;
use crate::{FindingBox, Radiograph, drawing};

/// The official list that an image belongs to; no patient is in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// Training and validation.
    TrainVal,
    /// Test.
    Test,
}

impl List {
    /// Name of the list's file.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::TrainVal => "train_val_list.txt",
            Self::Test => "test_list.txt",
        }
    }
}

/// A patient's sex as the label file writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sex {
    /// `F`
    Female,
    /// `M`
    Male,
}

impl Sex {
    /// The letter of the label file.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Female => "F",
            Self::Male => "M",
        }
    }
}

/// Direction of the beam.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// Postero-anterior: standing, arms away, heart close to the film.
    Pa,
    /// Antero-posterior: in bed, arms beside the body, heart and mediastinum magnified.
    Ap,
}

impl View {
    /// The two letters of the label file.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Pa => "PA",
            Self::Ap => "AP",
        }
    }
}

/// How an image was taken and of what kind of body: everything that varies beside the findings. None of
/// these depends on a finding, so that a network can be pretrained on them without having seen one.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Nuisance {
    /// Direction of the beam.
    pub view: View,
    /// Exposure in [−1, 1]: −1 is pale (underexposed), 1 is dark.
    pub exposure: f32,
    /// Width of the grey scale in [−1, 1]: −1 is flat, 1 is hard.
    pub contrast: f32,
    /// Grain in [0, 1].
    pub noise: f32,
    /// Build of the body in [−1, 1]: −1 is slender, 1 is stout.
    pub habitus: f32,
    /// Depth of the breath in [−1, 1]: −1 leaves the diaphragm high.
    pub inspiration: f32,
    /// Rotation in the plane of the film in degrees, [−7, 7]; positive is clockwise.
    pub tilt_degrees: f32,
    /// Rotation about the body's axis in [−1, 1], which moves the mediastinum and the clavicles.
    pub obliquity: f32,
    /// Height of the field in millimetres of the patient, 320 … 410: the distance of the film.
    pub field_mm: f32,
}

/// The part of a patient's body that no image changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Body {
    pub(crate) sex: Sex,
    pub(crate) size: f32,
    pub(crate) habitus: f32,
    pub(crate) heart: f32,
    pub(crate) breast: f32,
    pub(crate) scoliosis: f32,
    pub(crate) rib_slope: f32,
    pub(crate) bone: f32,
    pub(crate) vessels: f32,
    pub(crate) great_vessels: [f32; 3],
}

/// One image that can be rendered, with its row of the label file.
#[derive(Clone, Debug, PartialEq)]
pub struct Study {
    seed: u64,
    file_name: String,
    patient_id: u32,
    follow_up: u32,
    list: List,
    age: u32,
    body: Body,
    nuisance: Nuisance,
    labels: FindingSet,
    shown: FindingSet,
    original: Original,
    rgba: bool,
}

/// Size of the film before it was reduced, and its pixels' spacing, as the label file writes them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Original {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) spacing: &'static str,
}

/// Frequent films of ChestX-ray14, with the number of images of each; the odd digits are the label
/// file's own.
const ORIGINALS: [(f64, u32, u32, &str); 10] = [
    (29_986.0, 2500, 2048, "0.168"),
    (21_961.0, 2992, 2991, "0.14300000000000002"),
    (15_340.0, 3056, 2544, "0.139"),
    (7_141.0, 2500, 2048, "0.171"),
    (5_817.0, 2048, 2500, "0.168"),
    (4_264.0, 2021, 2021, "0.19431099999999998"),
    (2_838.0, 2048, 2500, "0.171"),
    (2_418.0, 2544, 3056, "0.139"),
    (483.0, 2990, 2991, "0.14300000000000002"),
    (310.0, 2020, 2021, "0.19431099999999998"),
];

/// Share of files with four channels; two of 96 originals that were looked at are such.
const RGBA_SHARE: f32 = 0.02;

impl Study {
    /// The images of one patient, oldest first. `shown` decides what an image with given labels shows.
    pub(crate) fn series(
        seed: u64,
        patient_id: u32,
        list: List,
        labels: &[FindingSet],
        shown: impl Fn(FindingSet, &mut Draws) -> FindingSet,
    ) -> Vec<Self> {
        let mut draws = Draws::keyed("patient", seed, &format!("{patient_id:08}"));
        let body = Body::draw(&mut draws);
        let in_bed = draws.chance(0.36);
        let first_index = u32::from(draws.chance(0.06));
        let mut age = (47.0 + 16.5 * draws.normal()).clamp(16.0, 93.0) as u32;
        let mut studies = Vec::with_capacity(labels.len());
        for (follow_up, &labels) in (0..).zip(labels) {
            let file_name = format!("{patient_id:08}_{:03}.png", first_index + follow_up);
            let mut draws = Draws::keyed("study", seed, &file_name);
            if follow_up > 0 && draws.chance(0.3) && age < 94 {
                age += 1;
            }
            let nuisance = Nuisance::draw(&body, in_bed, &mut draws);
            let original = Original::draw(&mut draws);
            let rgba = draws.chance(RGBA_SHARE);
            let shown = shown(labels, &mut draws);
            studies.push(Self {
                seed,
                file_name,
                patient_id,
                follow_up,
                list,
                age,
                body,
                nuisance,
                labels,
                shown,
                original,
                rgba,
            });
        }
        studies
    }

    /// Draws the image at `side` × `side` pixels. The same study gives the same pixels at every call; at
    /// another side it shows the same chest.
    ///
    /// A side of 0 gives an image without pixels.
    #[must_use]
    pub fn render(&self, side: usize) -> Radiograph {
        drawing::render(self, side)
    }

    /// Where the findings are in an image of that side, without drawing it: the boxes of
    /// [`Radiograph::boxes`].
    #[must_use]
    pub fn boxes(&self, side: usize) -> Vec<FindingBox> {
        drawing::boxes(self, side)
    }

    /// The same body, taken in the same way, on a day when it showed `shown` and that was recorded.
    #[must_use]
    pub fn showing(&self, shown: FindingSet) -> Self {
        Self {
            labels: shown,
            shown,
            ..self.clone()
        }
    }

    /// `PPPPPPPP_FFF.png`: patient and running number.
    #[must_use]
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The patient's number, from 1.
    #[must_use]
    pub fn patient_id(&self) -> u32 {
        self.patient_id
    }

    /// How many images of this patient are older. Not always the number in the file name.
    #[must_use]
    pub fn follow_up(&self) -> u32 {
        self.follow_up
    }

    /// The official list that the image is in.
    #[must_use]
    pub fn list(&self) -> List {
        self.list
    }

    /// The patient's age in years on that day.
    #[must_use]
    pub fn age(&self) -> u32 {
        self.age
    }

    /// The patient's sex.
    #[must_use]
    pub fn sex(&self) -> Sex {
        self.body.sex
    }

    /// What the label file records, some of it wrongly.
    #[must_use]
    pub fn labels(&self) -> FindingSet {
        self.labels
    }

    /// What the image truly shows.
    #[must_use]
    pub fn shown(&self) -> FindingSet {
        self.shown
    }

    /// How the image was taken and of what kind of body.
    #[must_use]
    pub fn nuisance(&self) -> Nuisance {
        self.nuisance
    }

    /// Is the file written with four channels?
    #[must_use]
    pub fn is_rgba(&self) -> bool {
        self.rgba
    }

    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    pub(crate) fn original(&self) -> Original {
        self.original
    }

    /// Draws for one part of the picture; a follow-up of the same patient has others.
    pub(crate) fn image_draws(&self, purpose: &str) -> Draws {
        Draws::keyed(purpose, self.seed, &self.file_name)
    }

    /// Draws for a part of the picture that all images of a patient share.
    pub(crate) fn patient_draws(&self, purpose: &str) -> Draws {
        Draws::keyed(purpose, self.seed, &format!("{:08}", self.patient_id))
    }
}

impl Body {
    fn draw(draws: &mut Draws) -> Self {
        let sex = if draws.chance(0.435) {
            Sex::Female
        } else {
            Sex::Male
        };
        let sex_size = match sex {
            Sex::Female => 0.95,
            Sex::Male => 1.03,
        };
        Self {
            sex,
            size: sex_size + 0.04 * draws.normal(),
            habitus: (0.42 * draws.normal()).clamp(-1.0, 1.0),
            heart: draws.normal(),
            breast: match sex {
                Sex::Female => draws.between(0.15, 1.0),
                Sex::Male => 0.0,
            },
            scoliosis: 0.5 * draws.normal(),
            rib_slope: draws.normal(),
            bone: (1.0 + 0.13 * draws.normal()).max(0.6),
            vessels: (1.0 + 0.12 * draws.normal()).max(0.6),
            great_vessels: [draws.normal(), draws.normal(), draws.normal()],
        }
    }
}

impl Nuisance {
    fn draw(body: &Body, in_bed: bool, draws: &mut Draws) -> Self {
        let bed_today = draws.chance(if in_bed { 0.85 } else { 0.12 });
        let view = if bed_today { View::Ap } else { View::Pa };
        // In bed everything is less controlled: breath, position, exposure.
        let (care, inspiration) = match view {
            View::Pa => (1.0, 0.15),
            View::Ap => (1.7, -0.25),
        };
        let bounded = |value: f32| value.clamp(-1.0, 1.0);
        Self {
            view,
            exposure: bounded(0.33 * care * draws.normal()),
            contrast: bounded(0.4 * draws.normal()),
            noise: draws.unit(),
            habitus: bounded(body.habitus + 0.08 * draws.normal()),
            inspiration: bounded(inspiration + 0.38 * draws.normal()),
            tilt_degrees: (1.5 * care * draws.normal()).clamp(-7.0, 7.0),
            obliquity: bounded(0.3 * care * draws.normal()),
            field_mm: (358.0 + 15.0 * draws.normal()).clamp(320.0, 410.0),
        }
    }
}

impl Original {
    fn draw(draws: &mut Draws) -> Self {
        let index = draws.weighted(&ORIGINALS.map(|film| film.0)).unwrap_or(0);
        let (_, width, height, spacing) = ORIGINALS[index];
        Self {
            width,
            height,
            spacing,
        }
    }
}
