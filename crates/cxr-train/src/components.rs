//! The backbone and the head that an experiment or a model file names.

use cxr_backbone::{BACKBONES, BackboneConfig, BackboneError};
use cxr_ops::{OptionEntry, OptionError, old_names};
use cxr_run::{Component, Experiment, ModelConfig};
use cxr_top::{HEADS, HeadConfig, HeadError};
use serde_json::Value;

use crate::{TrainError, groups};

pub(crate) fn backbone(component: &Component) -> Result<Box<dyn BackboneConfig>, BackboneError> {
    cxr_backbone::by_name(component.name(), component.options())
}

pub(crate) fn head(component: &Component) -> Result<Box<dyn HeadConfig>, HeadError> {
    cxr_top::by_name(component.name(), component.options())
}

/// The component with all its options, those that were left out too.
pub(crate) fn complete(component: &Component, options: Value) -> Component {
    match options {
        Value::Null => Component::named(component.name()),
        options => Component::with_options(component.name(), options),
    }
}

/// A backbone and a head.
type Parts = (Box<dyn BackboneConfig>, Box<dyn HeadConfig>);

/// The backbone and the head of an experiment; errors name its keys.
fn parts(model: &ModelConfig) -> Result<Parts, TrainError> {
    let unknown = |key: &str, name: String, available: String| {
        TrainError::setting(key, format!("one of {available}"), format!("`{name}`"))
    };
    let of_option = |key: &str, name: &str, error: OptionError| {
        let key = match error.key.as_str() {
            "" => format!("{key}.{name}"),
            option => format!("{key}.{name}.{option}"),
        };
        TrainError::setting(&key, error.expected, error.found)
    };
    let backbone = backbone(&model.backbone).map_err(|error| match error {
        BackboneError::Unknown { name, available } => unknown("model.backbone", name, available),
        BackboneError::Option { name, source } => of_option("model.backbone", &name, source),
        other => other.into(),
    })?;
    let head = head(&model.head).map_err(|error| match error {
        HeadError::Unknown { name, available } => unknown("model.head", name, available),
        HeadError::Option { name, source } => of_option("model.head", &name, source),
        other => other.into(),
    })?;
    Ok((backbone, head))
}

/// The network with every option filled in.
pub(crate) fn complete_model(model: &ModelConfig) -> Result<ModelConfig, TrainError> {
    let (backbone, head) = parts(model)?;
    Ok(ModelConfig {
        backbone: complete(&model.backbone, backbone.options()),
        weights: model.weights.clone(),
        head: complete(&model.head, head.options()),
    })
}

/// Whether backbone and head can be made, go together, and have what they need from the rest of the experiment: a
/// backbone that cannot be trained has weights, and no stage that would train it.
pub(crate) fn check(experiment: &Experiment) -> Result<(), TrainError> {
    let model = &experiment.model;
    let (backbone, head) = parts(model)?;
    if !backbone.is_trainable() && model.weights.is_none() {
        let expected =
            format!("a file of weights: {backbone} is frozen, and nothing would train it");
        return Err(TrainError::setting("model.weights", expected, "none"));
    }
    let (crop, multiple) = (
        experiment.augmentation.crop_size(),
        backbone.side_multiple(),
    );
    if multiple > 1 && (crop == 0 || !crop.is_multiple_of(multiple)) {
        let expected = format!("a multiple of {multiple} for {backbone}");
        return Err(TrainError::setting(
            "augmentation.crop_size",
            expected,
            crop,
        ));
    }
    // Features without a place in the image, whatever its size.
    let is_pooled = matches!(backbone.feature_shape(1 << 24, 1 << 24), (_, 1, 1));
    if is_pooled && head.least_side() > 1 {
        let expected =
            format!("`{{ linear = {{}} }}`: the features of {backbone} are means of maps");
        let found = format!("`{}`", model.head.name());
        return Err(TrainError::setting("model.head", expected, found));
    }
    if !backbone.is_trainable() {
        let why =
            format!("{backbone} is a frozen feature extractor, whose layers give no gradients");
        groups::check_backbone_is_frozen(&experiment.training.stages, &why)?;
    }
    Ok(())
}

/// Warns of names of options that have a new one.
pub(crate) fn warn_of_old_names(model: &ModelConfig) {
    let warn = |part: &str, component: &Component, options: &[OptionEntry]| {
        let name = component.name();
        for (old, new) in old_names(component.options(), options) {
            tracing::warn!(
                "the experiment's key `model.{part}.{name}.{old}` is an old name: it is now called `{new}`"
            );
        }
    };
    let (backbone, head) = (&model.backbone, &model.head);
    if let Some(entry) = (BACKBONES.iter()).find(|entry| entry.name == backbone.name()) {
        warn("backbone", backbone, entry.options);
    }
    if let Some(entry) = HEADS.iter().find(|entry| entry.name == head.name()) {
        warn("head", head, entry.options);
    }
}
