//! What an experiment means: its network and its losses.

use std::path::Path;

use cxr_dataset::LabelState;
use cxr_losses::label_weights::{effective_number, inverse_frequency};
use cxr_losses::{
    LabelColumns, LabelCounts, LabelWeighted, LossError, MultiLabelLoss, UncertainClass,
};
use cxr_model::{ModelCard, check_is_known, check_network, complete_network, warn_of_old_names};
use cxr_ops::{NormStatistics, Precision};
use cxr_run::{
    Component, Experiment, LabelWeights, RunError, Uncertainty, UncertaintyPolicy, Variant,
    VariantExperiment,
};

use crate::{TrainError, TrainingData};

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
        cxr_losses::check_parameters(&variant.loss, &variant.parameters)?;
        let uncertain = variant.uncertain.as_ref();
        let uncertain = uncertain.unwrap_or(&experiment.data.uncertain);
        if uncertain.has_multi_class() {
            check_multi_class(variant)?;
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

/// The loss of a variant that needs to know nothing of the data: a training loop of one's own has it before its images.
///
/// # Errors
/// A name or parameter that `cxr-losses` does not know, or a parameter out of range; a loss or weights of labels that are
/// made of the training images, for which there is [`loss_for`].
pub fn loss(variant: &Variant) -> Result<Box<dyn MultiLabelLoss>, TrainError> {
    if let Some(weights) = &variant.label_weights {
        let expected = "left out where the labels of the data are not known";
        let key = "variants.label_weights";
        return Err(TrainError::setting(key, expected, weights.words()));
    }
    Ok(cxr_losses::by_name(&variant.loss, &variant.parameters)?)
}

/// The loss of a variant for these labels, of which the training images have so many: some losses, and weights of labels,
/// are made of these numbers.
///
/// # Errors
/// A name or parameter that `cxr-losses` does not know, or a parameter out of range; weights of a label that there is not,
/// or that no training image has.
pub fn loss_for(
    variant: &Variant,
    labels: &[String],
    counts: &LabelCounts,
) -> Result<Box<dyn MultiLabelLoss>, TrainError> {
    let loss = cxr_losses::by_name_with_counts(&variant.loss, &variant.parameters, counts)?;
    let Some(weights) = &variant.label_weights else {
        return Ok(loss);
    };
    let named = |error: LossError| match error {
        LossError::NoImages { label } => TrainError::setting(
            "variants.label_weights",
            "weights of labels that training images have, as that of a label without any would be infinite",
            labels.get(label).map_or("another", String::as_str),
        ),
        other => other.into(),
    };
    let present = &counts.present;
    let weights = match weights {
        LabelWeights::EffectiveNumber(beta) => effective_number(present, *beta).map_err(named)?,
        LabelWeights::InverseFrequency(power) => {
            inverse_frequency(present, *power).map_err(named)?
        }
        LabelWeights::Given(given) => {
            if let Some(stranger) = given.keys().find(|name| !labels.contains(name)) {
                let expected = format!("labels of the data set, {}", labels.join(", "));
                let key = "variants.label_weights.given";
                return Err(TrainError::setting(key, expected, stranger));
            }
            let of_label = |label: &String| given.get(label).copied().unwrap_or(1.);
            labels.iter().map(of_label).collect()
        }
        other => {
            let expected = "weights that this version can make";
            let key = "variants.label_weights";
            return Err(TrainError::setting(key, expected, other.words()));
        }
    };
    Ok(Box::new(LabelWeighted::new(loss, &weights)?))
}

/// How many training images are known to have each label, and not to have it; labels that are called uncertain count as the
/// policies say, soft ones not at all.
///
/// # Errors
/// A policy for a label that there is not.
pub fn label_counts(
    data: &TrainingData,
    uncertainty: &Uncertainty,
) -> Result<LabelCounts, TrainError> {
    let policies = uncertainty.of_labels(data.labels())?;
    let mut counts = LabelCounts {
        present: vec![0; policies.len()],
        absent: vec![0; policies.len()],
    };
    for name in data.split().train() {
        let states = data.label_states(name).iter().zip(&policies);
        let cells = counts.present.iter_mut().zip(&mut counts.absent);
        for ((state, policy), (present, absent)) in states.zip(cells) {
            match (state, policy) {
                (LabelState::Positive, _) | (LabelState::Uncertain, UncertaintyPolicy::Ones) => {
                    *present += 1;
                }
                (LabelState::Negative, _) | (LabelState::Uncertain, UncertaintyPolicy::Zeros) => {
                    *absent += 1;
                }
                _ => {}
            }
        }
    }
    Ok(counts)
}

/// The loss of a variant for a model with these labels: where uncertain is a class of its own for some,
/// [`UncertainClass`] in the place of `bce`, of the network's [outputs](cxr_model::Classifier::outputs).
///
/// # Errors
/// As [`loss_for`], or another loss than `bce`, or weights of labels, beside such labels.
pub(crate) fn loss_of_model(
    variant: &Variant,
    card: &ModelCard,
    counts: &LabelCounts,
) -> Result<Box<dyn MultiLabelLoss>, TrainError> {
    if card.multi_class.is_empty() {
        return loss_for(variant, &card.labels, counts);
    }
    check_multi_class(variant)?;
    let columns = card.outputs().into_iter().map(|outputs| LabelColumns {
        present: outputs.present,
        absent_and_uncertain: outputs.absent_and_uncertain,
    });
    let columns: Vec<LabelColumns> = columns.collect();
    Ok(Box::new(UncertainClass::new(&columns)?))
}

/// Whether a variant's loss may be that of the labels for which uncertain is no class of its own.
fn check_multi_class(variant: &Variant) -> Result<(), TrainError> {
    let found = match (&*variant.loss, &variant.label_weights) {
        ("bce", None) => return Ok(()),
        ("bce", Some(_)) => "it beside `label_weights`".to_owned(),
        (loss, _) => format!("it beside the loss `{loss}`"),
    };
    Err(TrainError::setting(
        "data.uncertain",
        "policies other than `multi-class`, whose loss is a softmax cross-entropy and goes with `bce` alone",
        found,
    ))
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
