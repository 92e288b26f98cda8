//! Safetensors files that say what they hold.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;

use candle_core::{Device, Tensor};
use cxr_ops::{OpsError, WeightFile, check_weights};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Classifier, ModelCard, TrainError};

/// The metadata key under which the description stands, as JSON.
const KEY: &str = "cxr";

/// The largest file that is read. A checkpoint of the largest network here has a tenth of it.
const MAX_BYTES: u64 = 1 << 34;

/// What the names of a backbone's parameters begin with.
const BACKBONE: &str = "features.";

/// Writes the classifier's weights with `card` in the file's metadata.
///
/// # Errors
/// The file cannot be written; what stood there before still does.
pub fn save_model(
    path: &Path,
    card: &ModelCard,
    classifier: &Classifier,
) -> Result<(), TrainError> {
    Ok(cxr_fs::write(path, &model_bytes(path, card, classifier)?)?)
}

/// The bytes of a model file; `path` is for errors.
pub(crate) fn model_bytes(
    path: &Path,
    card: &ModelCard,
    classifier: &Classifier,
) -> Result<Vec<u8>, TrainError> {
    to_bytes(path, card, &classifier.parameters().tensors(""))
}

/// Whether a model file can be read back, its weights are finite and its digest is right; errors name it as `place`.
pub(crate) fn check_model(path: &Path, place: &Path) -> Result<(), TrainError> {
    let rename = |error| match error {
        TrainError::BadFile { kind, problem, .. } => TrainError::BadFile {
            path: place.to_owned(),
            kind,
            problem,
        },
        other => other,
    };
    let (_, tensors): (ModelCard, _) = read(path, "model").map_err(rename)?;
    check_weights(&tensors).map_err(unusable(place, "model"))
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
) -> Result<(), TrainError> {
    let description = BackboneCard {
        trained_as: card,
        licence,
    };
    write(
        path,
        &description,
        &classifier.parameters().tensors(BACKBONE),
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
/// describes, are not finite, or have a negative variance.
pub fn load_model(path: &Path, device: &Device) -> Result<(ModelCard, Classifier), TrainError> {
    let (card, tensors): (ModelCard, _) = read(path, "model")?;
    check_weights(&tensors).map_err(unusable(path, "model"))?;
    if !card.own_parts.is_empty() {
        return Err(TrainError::BadFile {
            path: path.to_owned(),
            kind: "model",
            problem: format!(
                "its {} are the author's own\nhint: build the network with `OwnParts::classifier` and call `load_weights`",
                card.own_parts.join(", ")
            ),
        });
    }
    if card.logit_thresholds.len() != card.labels.len() || card.labels.is_empty() {
        return Err(TrainError::BadFile {
            path: path.to_owned(),
            kind: "model",
            problem: format!(
                "expected a threshold for each of its labels, got {} for {}",
                card.logit_thresholds.len(),
                card.labels.len()
            ),
        });
    }
    let classifier = Classifier::new(&card, 0, device)?;
    classifier.parameters().load("", &tensors)?;
    Ok((card, classifier))
}

/// Puts the weights of a model file into a network that was built before, such as one with
/// [`OwnParts`](crate::OwnParts), and returns what the file says of itself.
///
/// # Errors
/// As [`load_model`]; the network then is as it was.
pub fn load_weights(path: &Path, classifier: &Classifier) -> Result<ModelCard, TrainError> {
    let (card, tensors) = read(path, "model")?;
    check_weights(&tensors).map_err(unusable(path, "model"))?;
    classifier.parameters().load("", &tensors)?;
    Ok(card)
}

/// Writes a weight file whose digest covers `description` and `tensors`.
pub(crate) fn write(
    path: &Path,
    description: &impl Serialize,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<(), TrainError> {
    let bytes = to_bytes(path, description, tensors)?;
    Ok(cxr_fs::write(path, &bytes)?)
}

fn to_bytes(
    path: &Path,
    description: &impl Serialize,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<Vec<u8>, TrainError> {
    let bad = |problem: String| TrainError::BadFile {
        path: path.to_owned(),
        kind: "file",
        problem,
    };
    let text = serde_json::to_string(description).map_err(|error| bad(error.to_string()))?;
    WeightFile::to_bytes(&text, tensors).map_err(|error| bad(chain(&error)))
}

/// What a file says of itself, without reading its tensors.
pub(crate) fn read_description<D: DeserializeOwned>(
    path: &Path,
    kind: &'static str,
) -> Result<D, TrainError> {
    /// The format's own limit.
    const LONGEST: u64 = 100 << 20;
    #[derive(Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        metadata: HashMap<String, String>,
    }
    let io = |source| TrainError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let bad = |problem: String| TrainError::BadFile {
        path: path.to_owned(),
        kind,
        problem,
    };
    let mut file = cxr_fs::open_regular(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST {
        return Err(bad(format!("its header is {length} bytes long")));
    }
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(io)?;
    let header: Header = serde_json::from_slice(&header).map_err(|error| bad(error.to_string()))?;
    let text = header.metadata.get(KEY);
    let text = text.ok_or_else(|| bad(format!("it has no `{KEY}` in its metadata")))?;
    let (_, description) = WeightFile::split_digest(text);
    serde_json::from_str(&description).map_err(|error| bad(error.to_string()))
}

/// Reads a weight file: its description, and its tensors on the CPU, whose digest is right. Their values are not
/// looked at.
pub(crate) fn read<D: DeserializeOwned>(
    path: &Path,
    kind: &'static str,
) -> Result<(D, BTreeMap<String, Tensor>), TrainError> {
    // A header of JSON follows its length in eight bytes.
    let is_wanted = |start: &[u8]| start.get(8) == Some(&b'{');
    let bytes = cxr_fs::read_recognised(path, MAX_BYTES, is_wanted)?;
    let file = WeightFile::parse(&bytes).map_err(unusable(path, kind))?;
    let bad = |problem: String| TrainError::BadFile {
        path: path.to_owned(),
        kind,
        problem,
    };
    let text = file.description;
    let text = text.ok_or_else(|| bad(format!("it has no `{KEY}` in its metadata")))?;
    let description = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if !file.has_digest {
        tracing::debug!(path = %path.display(), "a file without a digest, as early versions wrote it");
    }
    Ok((description, file.tensors))
}

/// For `map_err`: what is wrong with a weight file.
pub(crate) fn unusable(path: &Path, kind: &'static str) -> impl Fn(OpsError) -> TrainError {
    let path = path.to_owned();
    move |error| TrainError::BadFile {
        path: path.clone(),
        kind,
        problem: chain(&error),
    }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
