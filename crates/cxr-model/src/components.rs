//! The backbone and the head that an experiment or a model file names.

use cxr_backbone::{BackboneConfig, BackboneError};
use cxr_ops::{EntryError, OptionEntry, old_names};
use cxr_run::{Component, Experiment, ModelConfig, NetworkPart, RunError, Stage};
use cxr_top::{HeadConfig, HeadError};

use crate::{BACKBONE_PREFIX, ModelError};

/// The backbone that a component names, its options checked.
///
/// # Errors
/// An unknown name, or an option that it cannot have.
pub fn backbone(component: &Component) -> Result<Box<dyn BackboneConfig>, BackboneError> {
    cxr_backbone::by_name(component.name(), component.options())
}

/// The head that a component names, its options checked.
///
/// # Errors
/// An unknown name, or an option that it cannot have.
pub fn head(component: &Component) -> Result<Box<dyn HeadConfig>, HeadError> {
    cxr_top::by_name(component.name(), component.options())
}

fn setting(key: &str, expected: impl Into<String>, found: impl ToString) -> ModelError {
    RunError::setting(key, expected, found).into()
}

/// What is wrong with the component under a key of an experiment.
fn of_key(key: &str, error: EntryError) -> ModelError {
    match error {
        EntryError::Unknown {
            name, available, ..
        } => setting(key, format!("one of {available}"), format!("`{name}`")),
        EntryError::Option { name, source, .. } => {
            let key = match source.key.as_str() {
                "" => format!("{key}.{name}"),
                option => format!("{key}.{name}.{option}"),
            };
            setting(&key, source.expected, source.found)
        }
        other => setting(key, "a component", other),
    }
}

/// A backbone and a head; `None` for what is the author's own.
type Parts = (Option<Box<dyn BackboneConfig>>, Option<Box<dyn HeadConfig>>);

/// The backbone and the head of an experiment; errors name its keys.
fn parts(model: &ModelConfig) -> Result<Parts, ModelError> {
    let known = |component: &&Component| component.custom_name().is_none();
    let backbone = Some(&model.backbone).filter(known).map(backbone);
    let backbone = backbone.transpose().map_err(|error| match error {
        BackboneError::Entry(error) => of_key("model.backbone", error),
        other => other.into(),
    })?;
    let head = Some(&model.head).filter(known).map(head);
    let head = head.transpose().map_err(|error| match error {
        HeadError::Entry(error) => of_key("model.head", error),
        other => other.into(),
    })?;
    Ok((backbone, head))
}

/// The network with every option filled in.
///
/// # Errors
/// A name that is not known or an option that it cannot have, by its key.
pub fn complete_network(model: &ModelConfig) -> Result<ModelConfig, ModelError> {
    let (backbone, head) = parts(model)?;
    Ok(ModelConfig {
        backbone: backbone.map_or(model.backbone.clone(), |config| {
            model.backbone.completed(config.options())
        }),
        weights: model.weights.clone(),
        head: head.map_or(model.head.clone(), |config| {
            model.head.completed(config.options())
        }),
    })
}

/// Whether backbone and head can be made, go together, and have what they need from the rest of the experiment: a
/// backbone that cannot be trained has weights, and no stage that would train it. Of what is the author's own nothing is
/// known here.
///
/// # Errors
/// The first key of the experiment that is wrong.
pub fn check_network(experiment: &Experiment) -> Result<(), ModelError> {
    let model = &experiment.model;
    let (backbone, head) = parts(model)?;
    let Some(backbone) = backbone else {
        return Ok(());
    };
    if !backbone.is_trainable() && model.weights.is_none() {
        let expected =
            format!("a file of weights: {backbone} is frozen, and nothing would train it");
        return Err(setting("model.weights", expected, "none"));
    }
    let (crop, multiple) = (
        experiment.augmentation.crop_size(),
        backbone.side_multiple(),
    );
    if multiple > 1 && (crop == 0 || !crop.is_multiple_of(multiple)) {
        let expected = format!("a multiple of {multiple} for {backbone}");
        return Err(setting("augmentation.crop_size", expected, crop));
    }
    // Features without a place in the image, whatever its size.
    let is_pooled = matches!(backbone.feature_shape(1 << 24, 1 << 24), (_, 1, 1));
    if is_pooled && head.is_some_and(|head| head.least_side() > 1) {
        let expected =
            format!("`{{ linear = {{}} }}`: the features of {backbone} are means of maps");
        let found = format!("`{}`", model.head.name());
        return Err(setting("model.head", expected, found));
    }
    if !backbone.is_trainable() {
        let why =
            format!("{backbone} is a frozen feature extractor, whose layers give no gradients");
        check_backbone_is_frozen(&experiment.training.stages, &why)?;
    }
    Ok(())
}

/// A described network, part by part, for images of `side × side` pixels and so many labels: its backbone, and its head
/// where that is described too. Empty where the backbone is not described or its author's own.
///
/// # Errors
/// A name that is not known or an option that it cannot have, by its key; images that are too small.
pub fn network_parts(
    model: &ModelConfig,
    side: usize,
    labels: usize,
) -> Result<Vec<NetworkPart>, ModelError> {
    let (Some(backbone), head) = parts(model)? else {
        return Ok(Vec::new());
    };
    let Some(description) = backbone.description() else {
        return Ok(Vec::new());
    };
    let part = |part: cxr_ops::NetworkPart, is_head: bool| NetworkPart {
        name: part.name,
        is_head,
        layers: part.layers,
        channels: part.channels,
        height: part.height,
        width: part.width,
        parameters: part.parameters,
        multiply_adds: part.multiply_adds,
    };
    let shape = backbone.feature_shape(side, side);
    let of_head = match head.map(|head| head.describe(shape, labels)) {
        None | Some(Err(HeadError::NotDescribed { .. })) => Vec::new(),
        Some(described) => described?.parts(shape.1, shape.2)?,
    };
    let of_backbone = description.parts(side, side)?;
    let of_backbone = of_backbone.into_iter().map(|found| part(found, false));
    Ok(of_backbone
        .chain(of_head.into_iter().map(|found| part(found, true)))
        .collect())
}

/// Whether the network is one that this program can build: none of its parts is the author's own.
///
/// # Errors
/// The key of the experiment whose component is.
pub fn check_is_known(model: &ModelConfig) -> Result<(), ModelError> {
    for (key, component) in [
        ("model.backbone", &model.backbone),
        ("model.head", &model.head),
    ] {
        if let Some(name) = component.custom_name() {
            let expected = "a component of this program";
            let found = format!("`{name}`, which is its author's own");
            return Err(setting(key, expected, found));
        }
    }
    Ok(())
}

/// A backbone that gives no gradients, `why`, has to be frozen in every stage.
///
/// # Errors
/// The stage that would train it.
pub fn check_backbone_is_frozen(stages: &[Stage], why: &str) -> Result<(), ModelError> {
    for (index, stage) in stages.iter().enumerate() {
        if !stage.freezes(BACKBONE_PREFIX) {
            let key = format!("training.stages[{index}].frozen");
            let expected = format!("such that it has `{BACKBONE_PREFIX}`: {why}");
            let found = format!("{:?}", stage.frozen);
            return Err(setting(&key, expected, found));
        }
    }
    Ok(())
}

/// Warns of names of options that have a new one.
pub fn warn_of_old_names(model: &ModelConfig) {
    let warn = |part: &str, component: &Component, options: &[OptionEntry]| {
        let name = component.name();
        for (old, new) in old_names(component.options(), options) {
            tracing::warn!(
                "the experiment's key `model.{part}.{name}.{old}` is an old name: it is now called `{new}`"
            );
        }
    };
    let (backbone, head) = (&model.backbone, &model.head);
    let backbones = cxr_backbone::entries();
    if let Some(entry) = (backbones.iter()).find(|entry| entry.name == backbone.name()) {
        warn("backbone", backbone, entry.options);
    }
    let heads = cxr_top::entries();
    if let Some(entry) = heads.iter().find(|entry| entry.name == head.name()) {
        warn("head", head, entry.options);
    }
}
