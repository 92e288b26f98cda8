#![doc = include_str!("../README.md")]

mod calibration;
mod card;
mod classifier;
mod components;
mod error;
mod fit;
mod inputs;
mod model_file;
mod observed;
mod own_network;
mod prediction;
mod predictor;
mod reference;

/// The tensor library, in the version that this crate's interface has.
pub use candle_core;
pub use cxr_augment::{View, ViewSet};
pub use cxr_backbone::Backbone;
pub use cxr_dataset::{GrayImage, ImageAttributes, Sex, ViewPosition};
pub use cxr_ops::{ParameterPath, Phase};
pub use cxr_run::Component;
pub use cxr_top::{Head, NonImageInput};

pub use calibration::{Calibration, LabelCalibration};
pub use card::{
    DataCard, LabelOutputs, ModelCard, Origin, RESEARCH_USE, ThresholdOrigin, ThresholdRule,
    ValidationAucs,
};
pub use classifier::{Classifier, check_finite};
pub use components::{
    backbone, check_backbone_is_frozen, check_is_known, check_network, complete_network, head,
    network_parts, warn_of_old_names,
};
pub use error::ModelError;
pub use fit::CalibrationMethod;
pub use inputs::{InputEncoding, InputValue, count_inputs, encode_inputs};
pub use model_file::{
    BACKBONE_PREFIX, check_model, load_model, load_model_with, load_weights, model_bytes,
    parse_model, parse_weight_file, read_description, read_weight_file, save_backbone, save_model,
    unusable, weight_file_bytes, write_weight_file,
};
pub use observed::{FittedLabel, NotFitted, Observed, TestedLabel, TestedRate};
pub use own_network::OwnNetwork;
pub use prediction::Prediction;
pub use predictor::{Predictor, PreparedImage, image_buffer, mean_over_views};
pub use reference::{FEWEST_REFERENCE_IMAGES, REFERENCE_PREFIX, Reference, ReferenceCard};
