//! Safetensors files that say what they hold.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::Path;

use candle_core::{Device, Tensor};
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
    write(path, card, &classifier.parameters().tensors(""))
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
/// A file of another kind, or weights that are not those of the network it describes.
pub fn load_model(path: &Path, device: &Device) -> Result<(ModelCard, Classifier), TrainError> {
    let (card, tensors): (ModelCard, _) = read(path, "model", device)?;
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
/// A file of another kind, or weights that are not those of the network, which then is as it was.
pub fn load_weights(path: &Path, classifier: &Classifier) -> Result<ModelCard, TrainError> {
    let device = classifier.parameters().device();
    let (card, tensors) = read(path, "model", device)?;
    classifier.parameters().load("", &tensors)?;
    Ok(card)
}

pub(crate) fn write(
    path: &Path,
    description: &impl Serialize,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<(), TrainError> {
    let bad = |problem: String| TrainError::BadFile {
        path: path.to_owned(),
        kind: "file",
        problem,
    };
    let text = serde_json::to_string(description).map_err(|error| bad(error.to_string()))?;
    // One entry: the file's bytes would depend on the order of several.
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    let bytes =
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| bad(error.to_string()))?;
    Ok(cxr_fs::write(path, &bytes)?)
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
    serde_json::from_str(text).map_err(|error| bad(error.to_string()))
}

pub(crate) fn read<D: DeserializeOwned>(
    path: &Path,
    kind: &'static str,
    device: &Device,
) -> Result<(D, BTreeMap<String, Tensor>), TrainError> {
    let bad = |problem: String| TrainError::BadFile {
        path: path.to_owned(),
        kind,
        problem,
    };
    // A header of JSON follows its length in eight bytes.
    let is_wanted = |start: &[u8]| start.get(8) == Some(&b'{');
    let bytes = cxr_fs::read_recognised(path, MAX_BYTES, is_wanted)?;
    let (_, metadata) =
        safetensors::SafeTensors::read_metadata(&bytes).map_err(|error| bad(error.to_string()))?;
    let text = metadata
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| bad(format!("it has no `{KEY}` in its metadata")))?;
    let description = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, device)?;
    Ok((description, tensors.into_iter().collect()))
}
