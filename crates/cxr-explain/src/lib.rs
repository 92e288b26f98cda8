//! Where a classifier looks: Grad-CAM, and how well it agrees with boxes that radiologists drew.
//!
//! [`grad_cam`] gives a [`HeatMap`] for one label of one image; [`overlay`] lays it over the
//! radiograph; [`HeatMap::peak_is_in`] (the pointing game) and [`HeatMap::overlap`] (intersection
//! over union) score it against a [`Region`], and a [`BoxTally`] sums that up; [`choose_panel`]
//! says which images to show, by a rule.
//!
//! **Never here:** training, files.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use cxr_explain::{Region, grad_cam};
//! use cxr_train::{Classifier, Experiment, ModelCard};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let experiment = Experiment::parse(r#"
//! #     name = "tiny"
//! #     [model]
//! #     backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 1] } }
//! #     [[training.stages]]
//! #     name = "all"
//! #     epochs = 1
//! #     schedule = { constant = { learning_rate = 1e-3 } }
//! #     [[variants]]
//! #     name = "zlpr"
//! #     loss = "zlpr"
//! # "#)?;
//! # let card = ModelCard::new(&experiment.variant("zlpr")?, &["Edema", "Hernia"])?;
//! let classifier = Classifier::new(&card, 0, &Device::Cpu)?;
//! let image = Tensor::ones((1, 3, 224, 224), DType::F32, &Device::Cpu)?;
//! let map = grad_cam(&classifier, &image, 1)?;
//! let lower_left = Region::new(0.0, 0.5, 0.5, 0.5)?;
//! println!("hit: {:?}", map.peak_is_in(&lower_left));
//! # Ok(()) }
//! ```

mod error;
mod grad_cam;
mod heat_map;
mod overlay;
mod panel;
mod tally;

pub use error::ExplainError;
pub use grad_cam::grad_cam;
pub use heat_map::{HeatMap, Region};
pub use overlay::{OverlayStyle, overlay};
pub use panel::{Agreement, Candidate, Choice, choose_panel};
pub use tally::BoxTally;
