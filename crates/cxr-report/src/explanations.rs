//! What `cxr explain` leaves in a run's folder: `explanations/explanations.json` and pictures beside
//! it. The report shows it and loads no network to do so.

use std::path::Path;

use serde::{Deserialize, Serialize};

use cxr_fs::FsError;
use cxr_run::{RunError, read_run_file, write_json};

use crate::ReportError;

/// The folder in a run's folder.
pub const EXPLANATIONS_FOLDER: &str = "explanations";
/// The name of the file in it that holds its [`Explanations`].
pub const EXPLANATIONS_FILE: &str = "explanations.json";

/// Grad-CAM of a run's model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanations {
    /// Digest of all that they were made from: with the same one they need not be made again.
    #[serde(default)]
    pub made_from: String,
    /// How the images of the panel were chosen, in a sentence.
    pub rule: String,
    /// How the samples were chosen, in a sentence.
    pub sample_rule: String,
    /// Images with their labels, as the paper's Figure 4 shows some.
    pub samples: Vec<Sample>,
    /// Heat maps of the paper's Figure 7, in the order of their kinds.
    pub panel: Vec<Example>,
    /// How well heat maps agree with boxes; `None` when there were no boxes.
    pub boxes: Option<BoxScores>,
    /// The same of heat maps by other methods than Grad-CAM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_methods: Vec<BoxScores>,
}

fn grad_cam() -> String {
    "Grad-CAM".to_owned()
}

/// One image with its labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The image.
    pub image: String,
    /// Its labels; none is "no finding".
    pub labels: Vec<String>,
    /// The picture's file.
    pub picture: String,
}

/// One heat map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// How prediction and truth agree.
    pub kind: ExampleKind,
    /// The image.
    pub image: String,
    /// The labels it has.
    pub labels: Vec<String>,
    /// The labels that the model predicts.
    pub predicted: Vec<String>,
    /// The label that the heat map is of.
    pub explained: String,
    /// Its logit.
    pub logit: f64,
    /// Whether the map is zero everywhere: nothing speaks for the label.
    pub is_empty: bool,
    /// The file of the picture as the network sees it.
    pub picture: String,
    /// The file of the same with the heat map over it.
    pub overlay: String,
}

/// How the predicted labels of an image agree with its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExampleKind {
    /// Exactly the one label that the image has.
    RightSingle,
    /// Exactly the several labels that the image has, or none where it has none.
    RightSeveralOrNone,
    /// Some label is missed or added.
    Wrong,
}

impl Example {
    /// The caption of the map.
    pub fn about_map(&self) -> String {
        let sign = if self.logit < 0.0 { "−" } else { "" };
        let empty = if self.is_empty {
            ", zero everywhere"
        } else {
            ""
        };
        format!(
            "map of {}, logit {sign}{:.2}{empty}",
            self.explained.replace('_', " "),
            self.logit.abs()
        )
    }
}

impl ExampleKind {
    /// The kinds in the order of the panel.
    pub const ALL: [Self; 3] = [Self::RightSingle, Self::RightSeveralOrNone, Self::Wrong];

    /// What a reader is shown.
    pub fn words(self) -> &'static str {
        match self {
            Self::RightSingle => "right, one label",
            Self::RightSeveralOrNone => "right, several labels or none",
            Self::Wrong => "wrong",
        }
    }
}

/// Heat maps scored against boxes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoxScores {
    /// How the heat maps were made.
    #[serde(default = "grad_cam")]
    pub method: String,
    /// A cell counts as hot from this share of its map's largest value on.
    pub hot_share: f64,
    /// One entry per finding that has boxes, in the order of the labels.
    pub findings: Vec<FindingScores>,
    /// Boxes of the list whose image is not among the available test images.
    pub boxes_of_other_images: usize,
    /// Boxes outside what the network sees.
    pub boxes_outside: usize,
}

/// The heat maps of one finding against its boxes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingScores {
    /// The finding.
    pub finding: String,
    /// Boxes scored.
    pub boxes: usize,
    /// Boxes that the peak of the map lies in: the pointing game (Zhang et al. 2018).
    pub hits: usize,
    /// Boxes whose image has a map that is zero everywhere: a miss, and an overlap of 0.
    pub empty_maps: usize,
    /// The share of the network's field that the boxes cover on average: what a peak at random hits.
    pub mean_box_area: f64,
    /// Mean intersection over union of the hot cells and the box.
    pub mean_overlap: f64,
}

impl FindingScores {
    /// The pointing game's accuracy; `None` without a box.
    pub fn accuracy(&self) -> Option<f64> {
        (self.boxes > 0).then(|| self.hits as f64 / self.boxes as f64)
    }
}

impl Explanations {
    /// The names of all pictures.
    pub fn picture_files(&self) -> impl Iterator<Item = &str> {
        let of_samples = self.samples.iter().map(|sample| &sample.picture);
        let of_panel = self.panel.iter().map(|example| &example.picture);
        let overlays = self.panel.iter().map(|example| &example.overlay);
        let names = of_samples.chain(of_panel).chain(overlays);
        names.map(String::as_str)
    }

    /// Reads those of a run's folder; `None` when there are none.
    ///
    /// # Errors
    /// A file that cannot be read, [`RunError::RunFile`] when the file is not what this version
    /// writes, and [`ReportError::Picture`] when a picture's name is no plain file name.
    pub fn read(run_folder: &Path) -> Result<Option<Self>, ReportError> {
        let path = run_folder.join(EXPLANATIONS_FOLDER).join(EXPLANATIONS_FILE);
        let Some(text) = read_run_file(&path)? else {
            return Ok(None);
        };
        let explanations: Self = match serde_json::from_str(&text) {
            Ok(explanations) => explanations,
            Err(source) => return Err(RunError::RunFile { path, source }.into()),
        };
        // They become paths.
        let is_name = |picture: &str| cxr_fs::FileName::exactly(picture).is_some();
        if let Some(picture) = explanations.picture_files().find(|name| !is_name(name)) {
            return Err(ReportError::Picture {
                picture: cxr_table::excerpt(picture),
                problem: "expected the name of a file beside it",
                path,
            });
        }
        Ok(Some(explanations))
    }

    /// Writes them into a run's folder, whole or not at all; the pictures are the caller's business
    /// and come first.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, run_folder: &Path) -> Result<(), ReportError> {
        let folder = run_folder.join(EXPLANATIONS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(FsError::at("make", &folder))?;
        Ok(write_json(&folder.join(EXPLANATIONS_FILE), self)?)
    }
}
