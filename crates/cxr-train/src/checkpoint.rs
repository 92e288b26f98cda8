//! Where a run stands, exactly.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use cxr_model::{parse_weight_file, unusable, write_weight_file};
use cxr_ops::check_weights;
use cxr_run::{Progress, TrainingConfig};
use serde::{Deserialize, Serialize};

use crate::data::DataFingerprints;
use crate::experiment::complete_text;
use crate::{Classifier, Optimiser, TrainError, WeightAverage};

#[derive(Serialize, Deserialize)]
pub(crate) struct Description {
    /// The complete experiment file of the run.
    experiment: String,
    /// Digests of its data.
    data: DataFingerprints,
    optimiser_steps: u64,
    average_updates: u64,
    pub(crate) progress: Progress,
}

impl Description {
    /// Of a file that says so of itself.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, TrainError> {
        serde_json::from_str(text).map_err(|error| TrainError::BadFile {
            path: path.to_owned(),
            kind: "checkpoint",
            problem: error.to_string(),
        })
    }
}

/// What a checkpoint belongs to; resuming checks it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity<'a> {
    pub(crate) experiment: &'a str,
    pub(crate) data: &'a DataFingerprints,
}

const PARAMETERS: &str = "parameters.";
const OPTIMISER: &str = "optimiser.";
const AVERAGE: &str = "average.";

/// What a checkpoint holds besides the weights, which the network has.
pub(crate) struct State {
    pub(crate) progress: Progress,
    pub(crate) optimiser: Optimiser,
    /// Where the experiment asks for it.
    pub(crate) average: Option<WeightAverage>,
}

impl State {
    /// At the start of a run.
    pub(crate) fn new(training: &TrainingConfig) -> Self {
        Self {
            progress: Progress::default(),
            optimiser: Optimiser::new(training.optimiser),
            average: training.ema_decay.map(WeightAverage::new),
        }
    }
}

pub(crate) fn save(
    path: &Path,
    identity: Identity<'_>,
    state: &State,
    parameters: BTreeMap<String, Tensor>,
) -> Result<(), TrainError> {
    let State {
        progress,
        optimiser,
        average,
    } = state;
    let description = Description {
        experiment: identity.experiment.to_owned(),
        data: identity.data.clone(),
        optimiser_steps: optimiser.steps(),
        average_updates: average.as_ref().map_or(0, WeightAverage::updates),
        progress: progress.clone(),
    };
    let prefixed = |prefix: &'static str, tensors: BTreeMap<String, Tensor>| {
        tensors
            .into_iter()
            .map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
    };
    let averaged = average
        .as_ref()
        .map_or_else(BTreeMap::new, |average| average.tensors().clone());
    let tensors = prefixed(PARAMETERS, parameters)
        .chain(prefixed(OPTIMISER, optimiser.tensors()?))
        .chain(prefixed(AVERAGE, averaged))
        .collect();
    Ok(write_weight_file(path, &description, &tensors)?)
}

/// Puts the weights of a checkpoint, whose bytes were read from `path`, into the network and returns the rest.
pub(crate) fn load(
    path: &Path,
    bytes: &[u8],
    identity: Identity<'_>,
    classifier: &Classifier,
    loss_variables: &[(String, candle_core::Var)],
    training: &TrainingConfig,
) -> Result<State, TrainError> {
    let (description, tensors) = parse_weight_file(path, "checkpoint", bytes)?;
    let description = Description::parse(path, &description)?;
    let folder = path.parent().and_then(Path::parent).unwrap_or(path);
    let another = |what: &str| TrainError::AnotherRun {
        path: folder.to_owned(),
        what: what.to_owned(),
    };
    let before = &description.experiment;
    if before != identity.experiment
        && complete_text(before).as_deref() != Some(identity.experiment)
    {
        return Err(another(&differing_lines(
            &description.experiment,
            identity.experiment,
        )));
    }
    if let Some(difference) = description.data.difference(identity.data) {
        return Err(another(&difference));
    }
    let under = |prefix: &str| -> BTreeMap<String, Tensor> {
        let named = tensors.iter().filter_map(|(name, tensor)| {
            name.strip_prefix(prefix)
                .map(|name| (name.to_owned(), tensor.clone()))
        });
        named.collect()
    };
    let bad = |problem: String| TrainError::BadFile {
        path: path.to_owned(),
        kind: "checkpoint",
        problem,
    };
    let known = [PARAMETERS, OPTIMISER, AVERAGE];
    let unknown = |name: &&String| !known.iter().any(|prefix| name.starts_with(prefix));
    if let Some(name) = tensors.keys().find(unknown) {
        return Err(bad(format!("`{name}` is not part of a checkpoint")));
    }
    let mut weights = under(PARAMETERS);
    let averaged = under(AVERAGE);
    for tensors in [&weights, &averaged] {
        check_weights(tensors).map_err(unusable(path, "checkpoint"))?;
    }
    for (name, var) in loss_variables {
        let missing = || bad(format!("`{name}` is missing"));
        var.set(&weights.remove(name).ok_or_else(missing)?)?;
    }
    classifier.parameters().load("", &weights)?;
    let n_values = |name: &str| {
        let of_loss = || loss_variables.iter().find(|(known, _)| known == name);
        let of_network = weights.get(name).map(Tensor::elem_count);
        of_network.or_else(|| of_loss().map(|(_, var)| var.elem_count()))
    };
    let optimiser = Optimiser::restore(
        training.optimiser,
        description.optimiser_steps,
        &under(OPTIMISER),
        n_values,
    )
    .map_err(bad)?;
    let updates = description.average_updates;
    let fits = averaged.len() == weights.len()
        && (weights.iter()).all(|(name, weights)| {
            let averaged = averaged.get(name);
            averaged.is_some_and(|averaged| averaged.shape() == weights.shape())
        });
    let is_averaged = training.ema_decay.is_some() && fits;
    if !(is_averaged || (updates == 0 && averaged.is_empty())) {
        return Err(bad(
            "the average is not of this network's weights".to_owned()
        ));
    }
    let device = classifier.parameters().device();
    let averaged = averaged
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.to_device(device)?)))
        .collect::<candle_core::Result<_>>()?;
    let average = training
        .ema_decay
        .map(|decay| WeightAverage::restore(decay, updates, averaged));
    Ok(State {
        progress: description.progress,
        optimiser,
        average,
    })
}

/// The settings in which two experiment files differ, for a message.
fn differing_lines(before: &str, now: &str) -> String {
    let only = |these: &str, those: &str| -> Vec<String> {
        let lines = these
            .lines()
            .filter(|line| !those.lines().any(|other| other == *line));
        lines.map(|line| format!("`{line}`")).collect()
    };
    let (before_only, now_only) = (only(before, now), only(now, before));
    format!(
        "the settings (there {}, now {})",
        before_only.join(", "),
        now_only.join(", ")
    )
}
