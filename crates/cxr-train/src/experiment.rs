//! What an experiment means: its network, its losses and its model card.

use std::path::Path;

use cxr_losses::MultiLabelLoss;
use cxr_ops::Precision;
use cxr_run::{Experiment, RunError, Variant, VariantExperiment};

use crate::components::{self, complete_model};
use crate::{ModelCard, TrainError};

/// Reads an experiment file and checks all of it: form and numbers, as [`Experiment::read`] does, and that its network
/// and its losses are known, have the options that are given to them, and go together. Names of options that have a new
/// one are read by their old one too, with a warning.
///
/// # Errors
/// [`RunError::ExperimentFile`] names the file and what in it is unknown, missing or out of range.
pub fn read_experiment(path: &Path) -> Result<Experiment, TrainError> {
    let experiment = Experiment::read(path)?;
    check_experiment(&experiment).map_err(|error| RunError::ExperimentFile {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    Ok(experiment)
}

/// Whether the network and the losses of an experiment are known, have the options that are given to them, and go
/// together. Training does it too, with the one loss that it uses.
///
/// # Errors
/// The first key that is wrong, with what it may be.
pub fn check_experiment(experiment: &Experiment) -> Result<(), TrainError> {
    components::check(experiment)?;
    components::warn_of_old_names(&experiment.model);
    for variant in &experiment.variants {
        loss(variant)?;
    }
    Ok(())
}

/// The loss of a variant.
///
/// # Errors
/// A name or parameter that `cxr-losses` does not know, or a parameter out of range.
pub fn loss(variant: &Variant) -> Result<Box<dyn MultiLabelLoss>, TrainError> {
    Ok(cxr_losses::by_name(&variant.loss, &variant.parameters)?)
}

/// What computes at the precision that an experiment asks for.
pub(crate) fn precision(asked: cxr_run::Precision) -> Precision {
    match asked {
        cxr_run::Precision::Single => Precision::Single,
        cxr_run::Precision::Bf16 => Precision::Bf16,
    }
}

/// The same experiment with every option of its network filled in: what a run folder keeps as `experiment.toml`.
///
/// # Errors
/// A network that is not known, or cannot have these options.
pub fn complete(variant: &VariantExperiment) -> Result<VariantExperiment, TrainError> {
    let model = complete_model(&variant.experiment().model)?;
    Ok(variant.clone().with_model(model))
}

/// Whether `text`, a complete experiment file of this or an earlier version, is of this very run.
pub fn is_written_as(variant: &VariantExperiment, text: &str) -> bool {
    let written = complete(variant).ok().and_then(|all| all.to_toml().ok());
    written.is_some() && (written.as_deref() == Some(text) || written == complete_text(text))
}

/// What begins the line behind a complete experiment file that names parts which are not the experiment's.
pub(crate) const NOT_OF_THIS_FILE: &str = "# not of this file: ";

/// A complete experiment file as this version writes it; `None` where it is not one.
pub(crate) fn complete_text(text: &str) -> Option<String> {
    let own_parts = text.rfind(NOT_OF_THIS_FILE).map_or("", |at| &text[at..]);
    let experiment = Experiment::parse_silently(text).ok()?;
    let [variant] = experiment.variants.as_slice() else {
        return None;
    };
    let variant = experiment.variant(&variant.name).ok()?;
    Some(complete(&variant).ok()?.to_toml().ok()? + own_parts)
}

impl ModelCard {
    /// What a model file of this experiment will say of itself, for these labels.
    ///
    /// # Errors
    /// No label, or a network that is not known. A crop that the backbone shrinks to nothing is found when the
    /// classifier is made.
    pub fn new<L: AsRef<str>>(
        variant: &VariantExperiment,
        labels: &[L],
    ) -> Result<Self, TrainError> {
        if labels.is_empty() {
            return Err(TrainError::setting("labels", "at least one", 0));
        }
        let (experiment, chosen) = (variant.experiment(), variant.chosen());
        let model = complete_model(&experiment.model)?;
        let labels = labels.iter().map(|label| label.as_ref().to_owned());
        let labels: Vec<String> = labels.collect();
        Ok(Self {
            experiment: experiment.name.clone(),
            variant: chosen.name.clone(),
            loss: chosen.loss.clone(),
            loss_parameters: chosen.parameters.clone(),
            backbone: model.backbone,
            head: model.head,
            image_size: experiment.augmentation.image_size(),
            crop_size: experiment.augmentation.crop_size(),
            normalization_mean: cxr_augment::Normalization::IMAGENET.mean(),
            normalization_std: cxr_augment::Normalization::IMAGENET.std(),
            logit_thresholds: vec![0.; labels.len()],
            own_parts: Vec::new(),
            labels,
        })
    }
}
