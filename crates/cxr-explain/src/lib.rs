//! Where a classifier looks: class activation maps, and how well they agree with boxes that radiologists drew.
//!
//! [`explain`] gives a [`HeatMap`] for one label of one image that a [`cxr_model::Predictor`] takes, [`FeatureMaps`] for a
//! tensor and any classifier, by one of the [`CamMethod`]s; [`overlay`] lays it over the
//! radiograph; [`HeatMap::peak_is_in`] (the pointing game) and [`HeatMap::overlap`] (intersection
//! over union) score it against a [`Region`], and a [`BoxTally`] sums that up; [`choose_panel`]
//! says which images to show, by a rule.
//!
//! **Never here:** training, files.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use cxr_explain::{CamMethod, FeatureMaps, Region};
//! use cxr_model::{Classifier, ModelCard};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let card = ModelCard::parse(r#"{
//! #     "experiment": "tiny", "variant": "zlpr", "loss": "zlpr", "loss_parameters": {},
//! #     "labels": ["Edema", "Hernia"], "image_size": 256, "crop_size": 224,
//! #     "backbone": {"densenet": {"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 1]}},
//! #     "normalization_mean": [0.485, 0.456, 0.406], "normalization_std": [0.229, 0.224, 0.225],
//! #     "logit_thresholds": [0.0, 0.0]
//! # }"#)?;
//! let classifier = Classifier::new(&card, 0, &Device::Cpu)?;
//! let image = Tensor::ones((1, 3, 224, 224), DType::F32, &Device::Cpu)?;
//! let map = FeatureMaps::new(&classifier, &image)?.heat_map(1, CamMethod::GradCam)?;
//! let lower_left = Region::new(0.0, 0.5, 0.5, 0.5)?;
//! println!("hit: {:?}", map.peak_is_in(&lower_left));
//! # Ok(()) }
//! ```

mod activation_map;
mod error;
mod heat_map;
mod overlay;
mod panel;
mod tally;

/// The tensor library, in the version that this crate's interface has.
pub use candle_core;

pub use activation_map::{CamMethod, FeatureMaps, explain};
pub use error::ExplainError;
pub use heat_map::{HeatMap, Region};
pub use overlay::{OverlayStyle, overlay};
pub use panel::{Agreement, Candidate, Choice, choose_panel};
pub use tally::BoxTally;

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
