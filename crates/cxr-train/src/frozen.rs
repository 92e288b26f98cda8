//! What an experiment must say for a backbone that cannot be trained.

use std::path::Path;

use cxr_backbone::{FrozenConfig, PretrainedError, load_extractor, load_pretrained};
use cxr_ops::Parameters;

use crate::experiment::Network;
use crate::groups::{self, BACKBONE};
use crate::{BackboneConfig, Experiment, HeadConfig, TrainError};

/// Whether an experiment on a frozen extractor has weights, images and a head for it, and no stage
/// that would train it.
pub(crate) fn check(config: &FrozenConfig, experiment: &Experiment) -> Result<(), TrainError> {
    let model = &experiment.model;
    if model.weights.is_none() {
        let expected = format!("a file of weights: {config} is frozen, and nothing would train it");
        return Err(TrainError::setting("model.weights", expected, "none"));
    }
    let crop = experiment.augmentation.crop_size();
    if crop == 0 || !crop.is_multiple_of(config.patch()) {
        let expected = format!("a multiple of {} for {config}", config.patch());
        return Err(TrainError::setting(
            "augmentation.crop_size",
            expected,
            crop,
        ));
    }
    let (_, height, width) = config.feature_shape(crop, crop);
    if model.head == HeadConfig::TopNetwork && (height, width) == (1, 1) {
        let expected = format!("`{{ linear = {{}} }}`: the features of {config} are means of maps");
        return Err(TrainError::setting(
            "model.head",
            expected,
            "the top network",
        ));
    }
    let why = format!("{config} is a frozen feature extractor, whose layers give no gradients");
    groups::check_backbone_is_frozen(&experiment.training.stages, &why)
}

/// Sets the weights under `features.` from a file, as whoever trained such a backbone names them.
pub(crate) fn load_weights(
    backbone: &BackboneConfig,
    path: &Path,
    parameters: &Parameters,
) -> Result<(), PretrainedError> {
    let load = match backbone.network() {
        Network::DenseNet(_) => load_pretrained,
        Network::Frozen(_) => load_extractor,
    };
    load(path, parameters, BACKBONE).map(|_| ())
}
