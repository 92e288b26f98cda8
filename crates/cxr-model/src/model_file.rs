//! Safetensors files that say what they hold.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use cxr_ops::{OpsError, WeightFile, check_weights};
use cxr_run::{DESCRIPTION_KEY, description_of};
use serde::Serialize;

use crate::{Classifier, ModelCard, ModelError, OwnNetwork, Reference};

/// The largest file that is read. A checkpoint of the largest network here has a tenth of it.
const MAX_BYTES: u64 = 1 << 34;

/// What the names of a backbone's parameters begin with.
pub const BACKBONE_PREFIX: &str = "features.";

/// What a file of a model is called in errors.
const MODEL: &str = "model";

/// Writes the classifier's weights with `card` in the file's metadata.
///
/// # Errors
/// The file cannot be written; what stood there before still does.
pub fn save_model(
    path: &Path,
    card: &ModelCard,
    classifier: &Classifier,
) -> Result<(), ModelError> {
    Ok(cxr_fs::write(path, &model_bytes(path, card, classifier)?)?)
}

/// The bytes of a model file; `path` is for errors.
///
/// # Errors
/// A card that does not [check](ModelCard::check), or tensors that cannot be written.
pub fn model_bytes(
    path: &Path,
    card: &ModelCard,
    classifier: &Classifier,
) -> Result<Vec<u8>, ModelError> {
    card.check()?;
    to_bytes(path, card, &classifier.parameters().tensors(""))
}

/// Whether a model file can be read back, its weights are finite and its digest is right; errors name it as `place`.
///
/// # Errors
/// A file that is no model, or was changed after it was written.
pub fn check_model(path: &Path, place: &Path) -> Result<(), ModelError> {
    let rename = |error| match error {
        ModelError::BadFile { kind, problem, .. } => ModelError::BadFile {
            path: place.to_owned(),
            kind,
            problem,
        },
        other => other,
    };
    let (_, tensors) = read_model(path).map_err(rename)?;
    check_weights(&tensors).map_err(unusable(place, MODEL))
}

/// The card and the tensors of a model file.
fn read_model(path: &Path) -> Result<(ModelCard, BTreeMap<String, Tensor>), ModelError> {
    parse_model(path, &weight_file_bytes(path)?)
}

/// The card and the tensors of a model file that was read; errors name it as `path`. The tensors are not looked at.
///
/// # Errors
/// A file that is no model, or was changed after it was written.
pub fn parse_model(
    path: &Path,
    bytes: &[u8],
) -> Result<(ModelCard, BTreeMap<String, Tensor>), ModelError> {
    let (description, tensors) = parse_weight_file(path, MODEL, bytes)?;
    Ok((parse_card(path, &description)?, tensors))
}

fn parse_card(path: &Path, description: &str) -> Result<ModelCard, ModelError> {
    ModelCard::parse(description).map_err(|problem| bad(path, MODEL, problem))
}

fn bad(path: &Path, kind: &'static str, problem: impl ToString) -> ModelError {
    ModelError::BadFile {
        path: path.to_owned(),
        kind,
        problem: problem.to_string(),
    }
}

/// Writes the backbone of a classifier alone, the tensors under `features.`: a file that
/// [`cxr_backbone::load_pretrained`] reads, and with it an experiment's `model.weights`. Its
/// metadata say what trained the weights and under which `licence` they are.
///
/// # Errors
/// The file cannot be written; what stood there before still does.
pub fn save_backbone(
    path: &Path,
    card: &ModelCard,
    classifier: &Classifier,
    licence: Option<&str>,
) -> Result<(), ModelError> {
    let description = BackboneCard {
        trained_as: card,
        licence,
    };
    write_weight_file(
        path,
        &description,
        &classifier.parameters().tensors(BACKBONE_PREFIX),
    )
}

/// What a backbone's file says of itself.
#[derive(Serialize)]
struct BackboneCard<'a> {
    licence: Option<&'a str>,
    trained_as: &'a ModelCard,
}

/// Reads a file that [`save_model`] wrote: the description and the network, weights in place.
///
/// # Errors
/// A file of another kind or one that was changed after it was written, weights that are not those of the network it
/// describes, are not finite, or have a negative variance; parts that are the author's own.
pub fn load_model(path: &Path, device: &Device) -> Result<(ModelCard, Classifier), ModelError> {
    load_model_with(path, &OwnNetwork::new(), device)
}

/// As [`load_model`], of a network with parts of one's own: those by whose names the file knows its own parts.
///
/// # Errors
/// As [`load_model`], and a part that the file names and `own` lacks, or the other way round.
pub fn load_model_with(
    path: &Path,
    own: &OwnNetwork<'_>,
    device: &Device,
) -> Result<(ModelCard, Classifier), ModelError> {
    let (card, classifier, _) = load_model_and_reference(path, own, device)?;
    Ok((card, classifier))
}

/// As [`load_model_with`], with the images that the model knows, where the file has them.
pub(crate) fn load_model_and_reference(
    path: &Path,
    own: &OwnNetwork<'_>,
    device: &Device,
) -> Result<(ModelCard, Classifier, Option<Reference>), ModelError> {
    let (card, mut tensors) = read_model(path)?;
    let reference = Reference::take(card.reference.as_ref(), &mut tensors);
    let reference = reference.map_err(|problem| bad(path, MODEL, problem))?;
    check_weights(&tensors).map_err(unusable(path, MODEL))?;
    let given = own.names();
    let is_of_network = |name: &&String| name.starts_with("backbone ") || name.starts_with("head ");
    let missing: Vec<&str> = (card.own_parts.iter().filter(is_of_network))
        .filter(|name| !given.contains(name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let problem = format!(
            "its {} are the author's own\nhint: give them to `load_model_with`, in an `OwnNetwork`",
            missing.join(", ")
        );
        return Err(bad(path, MODEL, problem));
    }
    if let Some(other) = given.iter().find(|name| !card.own_parts.contains(name)) {
        let problem = format!("it has no {other} of its author's own");
        return Err(bad(path, MODEL, problem));
    }
    let classifier = own.classifier(&card, 0, device)?;
    card.check_inputs(&classifier)?;
    classifier.parameters().load("", &tensors)?;
    Ok((card, classifier, reference))
}

/// Puts the weights of a model file into a network that was built before, and returns what the file says of itself.
///
/// # Errors
/// As [`load_model`]; the network then is as it was.
pub fn load_weights(path: &Path, classifier: &Classifier) -> Result<ModelCard, ModelError> {
    let (card, mut tensors) = read_model(path)?;
    Reference::take(card.reference.as_ref(), &mut tensors)
        .map_err(|problem| bad(path, MODEL, problem))?;
    check_weights(&tensors).map_err(unusable(path, MODEL))?;
    classifier.parameters().load("", &tensors)?;
    Ok(card)
}

impl ModelCard {
    /// What a model file says of itself, without reading its tensors; neither they nor the digest are checked.
    ///
    /// # Errors
    /// A file of another kind.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        parse_card(path, &read_description(path, MODEL)?)
    }
}

/// Writes a weight file whose digest covers `description` and `tensors`.
///
/// # Errors
/// The file cannot be written; what stood there before still does.
pub fn write_weight_file(
    path: &Path,
    description: &impl Serialize,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<(), ModelError> {
    let bytes = to_bytes(path, description, tensors)?;
    Ok(cxr_fs::write(path, &bytes)?)
}

fn to_bytes(
    path: &Path,
    description: &impl Serialize,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<u8>, ModelError> {
    let text = serde_json::to_string(description).map_err(|error| bad(path, "file", error))?;
    WeightFile::to_bytes(&text, tensors).map_err(|error| bad(path, "file", chain(&error)))
}

/// The JSON that a file says of itself, without reading its tensors; `kind` is what it should be.
///
/// # Errors
/// A file that is no weight file or says nothing of itself.
pub fn read_description(path: &Path, kind: &'static str) -> Result<String, ModelError> {
    let text = description_of(path, kind)?;
    let text = text.ok_or_else(|| bad(path, kind, no_description()))?;
    Ok(WeightFile::split_digest(&text).1)
}

fn no_description() -> String {
    format!(
        "it does not say what it is of: it has no `{DESCRIPTION_KEY}` in its metadata\nhint: weights of other programs begin an \
         experiment as its `model.weights`"
    )
}

/// Reads a weight file whose digest is right: the JSON that it says of itself, and its tensors on the CPU. Neither is
/// looked at.
///
/// # Errors
/// A file that is no weight file, was changed after it was written, or says nothing of itself.
pub fn read_weight_file(
    path: &Path,
    kind: &'static str,
) -> Result<(String, BTreeMap<String, Tensor>), ModelError> {
    parse_weight_file(path, kind, &weight_file_bytes(path)?)
}

/// The bytes of a file that may be a weight file: what [`parse_weight_file`] takes, here or in another process.
///
/// # Errors
/// A file that cannot be read, is too large, or does not begin as a weight file does.
pub fn weight_file_bytes(path: &Path) -> Result<Vec<u8>, ModelError> {
    // A header of JSON follows its length in eight bytes.
    let is_wanted = |start: &[u8]| start.get(8) == Some(&b'{');
    Ok(cxr_fs::read_recognised(path, MAX_BYTES, is_wanted)?)
}

/// As [`read_weight_file`], of bytes that were read; errors name them as `path`.
///
/// # Errors
/// As [`read_weight_file`].
pub fn parse_weight_file(
    path: &Path,
    kind: &'static str,
    bytes: &[u8],
) -> Result<(String, BTreeMap<String, Tensor>), ModelError> {
    let file = WeightFile::parse(bytes).map_err(unusable(path, kind))?;
    let description = file.description;
    let description = description.ok_or_else(|| bad(path, kind, no_description()))?;
    if !file.has_digest {
        tracing::debug!(path = %path.display(), "a file without a digest, as early versions wrote it");
    }
    Ok((description, file.tensors))
}

/// For `map_err`: what is wrong with a weight file.
pub fn unusable(path: &Path, kind: &'static str) -> impl Fn(OpsError) -> ModelError {
    let path = path.to_owned();
    move |error| bad(&path, kind, chain(&error))
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
