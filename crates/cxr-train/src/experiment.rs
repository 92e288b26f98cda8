//! What an experiment means: its network and its losses.

use std::path::Path;

use cxr_losses::{LabelColumns, MultiLabelLoss, UncertainClass};
use cxr_model::{ModelCard, check_is_known, check_network, complete_network, warn_of_old_names};
use cxr_ops::{NormStatistics, Precision};
use cxr_run::{Component, Experiment, RunError, Variant, VariantExperiment};

use crate::TrainError;

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
    check_is_known(&experiment.model)?;
    check_network(experiment)?;
    warn_of_old_names(&experiment.model);
    for variant in &experiment.variants {
        loss(variant)?;
        if experiment.data.uncertain.has_multi_class() {
            check_multi_class(&variant.loss)?;
        }
        if variant.has_tables() {
            let own = experiment.variant(&variant.name)?;
            check_is_known(&own.experiment().model)?;
            check_network(own.experiment())?;
            warn_of_old_names(&own.experiment().model);
        }
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

/// The loss of a variant for a model with these labels: where uncertain is a class of its own for some,
/// [`UncertainClass`] in the place of `bce`, of the network's [outputs](cxr_model::Classifier::outputs).
///
/// # Errors
/// As [`loss`], or another loss than `bce` beside such labels.
pub(crate) fn loss_of_model(
    variant: &Variant,
    card: &ModelCard,
) -> Result<Box<dyn MultiLabelLoss>, TrainError> {
    if card.multi_class.is_empty() {
        return loss(variant);
    }
    check_multi_class(&variant.loss)?;
    let columns = card.outputs().into_iter().map(|outputs| LabelColumns {
        present: outputs.present,
        absent_and_uncertain: outputs.absent_and_uncertain,
    });
    let columns: Vec<LabelColumns> = columns.collect();
    Ok(Box::new(UncertainClass::new(&columns)?))
}

/// Whether a loss may be that of the labels for which uncertain is no class of its own.
fn check_multi_class(loss: &str) -> Result<(), TrainError> {
    match loss {
        "bce" => Ok(()),
        loss => Err(TrainError::setting(
            "data.uncertain",
            "policies other than `multi-class`, whose loss is a softmax cross-entropy and goes with `bce` alone",
            format!("it beside the loss `{loss}`"),
        )),
    }
}

/// What computes at the precision that an experiment asks for.
pub(crate) fn precision(asked: cxr_run::Precision) -> Precision {
    match asked {
        cxr_run::Precision::Single => Precision::Single,
        cxr_run::Precision::Bf16 => Precision::Bf16,
    }
}

/// The layers' name of what a stage asks its normalisations to use.
pub(crate) fn norm_statistics(asked: cxr_run::NormStatistics) -> NormStatistics {
    match asked {
        cxr_run::NormStatistics::Batch => NormStatistics::Batch,
        cxr_run::NormStatistics::Running => NormStatistics::Running,
    }
}

/// The same experiment with every option of its network filled in: what a run folder keeps as `experiment.toml`.
///
/// # Errors
/// A network that is not known, or cannot have these options.
pub fn complete(variant: &VariantExperiment) -> Result<VariantExperiment, TrainError> {
    let model = complete_network(&variant.experiment().model)?;
    Ok(variant.clone().with_model(model))
}

/// Whether `text`, a complete experiment file of this or an earlier version, is of this very run.
pub fn is_written_as(variant: &VariantExperiment, text: &str) -> bool {
    let written = complete(variant).ok().and_then(|all| all.to_toml().ok());
    written.is_some() && (written.as_deref() == Some(text) || written == complete_text(text))
}

/// The same with the components that take the place of the experiment's, each by its kind and its name, such as
/// ``head `max` ``. Transforms have no such place.
pub(crate) fn with_custom<'a>(
    variant: &VariantExperiment,
    names: impl IntoIterator<Item = &'a str>,
) -> VariantExperiment {
    let mut variant = variant.clone();
    let mut model = variant.experiment().model.clone();
    for name in names {
        let parts = name
            .strip_suffix('`')
            .and_then(|name| name.split_once(" `"));
        match parts {
            Some(("backbone", name)) => model.backbone = Component::custom(name),
            Some(("head", name)) => model.head = Component::custom(name),
            Some(("loss", name)) => variant = variant.with_loss(name),
            _ => {}
        }
    }
    variant.with_model(model)
}

/// What begins the line behind a complete experiment file that names parts which are not the experiment's.
pub(crate) const NOT_OF_THIS_FILE: &str = "# not of this file: ";

/// A complete experiment file as this version writes it; `None` where it is not one.
pub(crate) fn complete_text(text: &str) -> Option<String> {
    let own_parts = text.rfind(NOT_OF_THIS_FILE).map_or("", |at| &text[at..]);
    let own_names = own_parts.trim_end().strip_prefix(NOT_OF_THIS_FILE);
    let own_names = own_names.into_iter().flat_map(|names| names.split(", "));
    let experiment = Experiment::parse_silently(text).ok()?;
    let [variant] = experiment.variants.as_slice() else {
        return None;
    };
    let variant = with_custom(&experiment.variant(&variant.name).ok()?, own_names);
    Some(complete(&variant).ok()?.to_toml().ok()? + own_parts)
}
