//! A classifier as an ONNX graph.

mod graph;
mod layers;
mod preparation;
mod probabilities;
mod proto;

use cxr_model::{Classifier, ModelCard};
use prost::Message as _;

use crate::ExchangeError;
use crate::network::DescribedModel;
use graph::{Attribute, Graph, Side, value};
use proto::{FLOAT, ModelProto, OperatorSetIdProto, StringStringEntryProto, UINT8};

/// What a graph does besides computing logits of normalised images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnnxOptions {
    /// How the images come.
    pub input: OnnxInput,
    /// Whether the graph gives `probabilities` (`N×L`, calibrated where the model is) besides `logits`.
    pub probabilities: bool,
}

/// What a graph takes as `images`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnnxInput {
    /// `f32`, `N×3×S×S`, normalised as the card says.
    #[default]
    Normalised,
    /// `f32`, `N×1×S×S`, grey values in [0, 1].
    Grey,
    /// `u8`, `N×1×H×W` of any size: the graph resizes them as the model takes them, with antialiasing (ONNX's operator
    /// set 18).
    Bytes,
}

/// Protobuf's bound on a message.
const MOST_BYTES: usize = (1 << 31) - 1;
/// The version of ONNX's file format.
const IR_VERSION: i64 = 8;

/// How a file that [`onnx_bytes`] made begins: the version of the format, then who wrote it.
pub const ONNX_START: &[u8] = b"\x08\x08\x12\x03cxr";

/// The bytes of an ONNX file: a graph from `images` to `logits` (`f32`, `N×L`), for any number `N` of images at once.
///
/// Parameters have the names of the model file. The file's metadata have the model's card as JSON (`cxr.card`) and, one by one,
/// `labels`, `logit_thresholds`, `calibration`, `image_size`, `crop_size`, `normalization_mean`, `normalization_std`,
/// `licence` and `intended_use`, those that the card has, each as JSON or, of the last two, as text.
///
/// # Errors
/// A backbone or a head that is not described as data, a model whose images are stretched with
/// [`OnnxInput::Bytes`], or a graph of more than two gigabytes.
pub fn onnx_bytes(
    card: &ModelCard,
    classifier: &Classifier,
    options: OnnxOptions,
) -> Result<Vec<u8>, ExchangeError> {
    let model = DescribedModel::new(card, classifier)?;
    let mut graph = Graph::default();
    let size = card.crop_size;
    let (side, n) = (Side::Fixed(size), Side::Free("N"));
    let (x, kind, sides) = match options.input {
        OnnxInput::Normalised => ("images".to_owned(), FLOAT, [n, Side::Fixed(3), side, side]),
        OnnxInput::Grey => {
            let x = preparation::normalise(&mut graph, card, "images");
            (x, FLOAT, [n, Side::Fixed(1), side, side])
        }
        OnnxInput::Bytes => {
            let grey = preparation::resize(&mut graph, card, "images")?;
            let x = preparation::normalise(&mut graph, card, &grey);
            let (height, width) = (Side::Free("height"), Side::Free("width"));
            (x, UINT8, [n, Side::Fixed(1), height, width])
        }
    };
    let mut x = x;
    for (prefix, description) in model.parts() {
        x = layers::write(&mut graph, &model, prefix, description, &x)?;
    }
    let flat = Attribute::Int("axis", 1);
    match card.multi_class.is_empty() {
        true => graph.giving("logits", "logits", "Flatten", &[&x], &[flat]),
        false => {
            let outputs = graph.add("Flatten", &[&x], &[flat]);
            let sides = [card.n_outputs(), card.labels.len()];
            let differences = graph.constant("differences", &sides, &differences(card));
            graph.giving("logits", "logits", "MatMul", &[&outputs, &differences], &[]);
        }
    }
    let labels = [n, Side::Fixed(card.labels.len())];
    let mut outputs = vec![value("logits", FLOAT, &labels, card.labels.join(", "))];
    if options.probabilities {
        probabilities::write(&mut graph, card, "logits");
        outputs.push(value(
            "probabilities",
            FLOAT,
            &labels,
            card.labels.join(", "),
        ));
    }
    let images = value("images", kind, &sides, input_doc(card, options.input));
    let opset = match options.input {
        OnnxInput::Bytes => 18,
        _ => 17,
    };
    let file = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "cxr".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        doc_string: card.intended_use.clone().unwrap_or_default(),
        graph: Some(graph.finish(
            format!("{}-{}", card.experiment, card.variant),
            images,
            outputs,
        )),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: opset,
        }],
        metadata_props: metadata(card)?,
    };
    let bytes = file.encoded_len();
    if bytes > MOST_BYTES {
        let limit = MOST_BYTES;
        return Err(ExchangeError::TooLarge { bytes, limit });
    }
    Ok(file.encode_to_vec())
}

/// The matrix, `K×L`, that makes logits of outputs: that of presence, less that of absence where there is one.
fn differences(card: &ModelCard) -> Vec<f32> {
    let n_labels = card.labels.len();
    let mut matrix = vec![0.; card.n_outputs() * n_labels];
    for (label, outputs) in card.outputs().into_iter().enumerate() {
        let absent = outputs
            .absent_and_uncertain
            .map(|(absent, _)| (absent, -1.));
        for (output, factor) in [(outputs.present, 1.)].into_iter().chain(absent) {
            if let Some(value) = matrix.get_mut(output * n_labels + label) {
                *value = factor;
            }
        }
    }
    matrix
}

/// What the images are, in words.
fn input_doc(card: &ModelCard, input: OnnxInput) -> String {
    let (size, mean, std) = (
        card.image_size,
        card.normalization_mean,
        card.normalization_std,
    );
    match input {
        OnnxInput::Normalised => format!(
            "Grey values in [0, 1] on three channels, minus {mean:?}, divided by {std:?}: the central window of an image \
             resized to {size}×{size} pixels with antialiased bicubic interpolation"
        ),
        OnnxInput::Grey => format!(
            "Grey values in [0, 1]: the central window of an image resized to {size}×{size} pixels with antialiased bicubic \
             interpolation"
        ),
        OnnxInput::Bytes => "Grey values from 0 to 255, images of any size".to_owned(),
    }
}

fn metadata(card: &ModelCard) -> Result<Vec<StringStringEntryProto>, ExchangeError> {
    let mut entries = vec![
        ("cxr.card", serde_json::to_string(card)?),
        ("labels", serde_json::to_string(&card.labels)?),
        (
            "logit_thresholds",
            serde_json::to_string(&card.logit_thresholds)?,
        ),
        ("image_size", card.image_size.to_string()),
        ("crop_size", card.crop_size.to_string()),
        (
            "normalization_mean",
            serde_json::to_string(&card.normalization_mean)?,
        ),
        (
            "normalization_std",
            serde_json::to_string(&card.normalization_std)?,
        ),
    ];
    if let Some(calibration) = &card.calibration {
        entries.push(("calibration", serde_json::to_string(calibration)?));
    }
    let texts = [
        ("licence", &card.licence),
        ("intended_use", &card.intended_use),
    ];
    entries.extend(
        texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, text.clone()?))),
    );
    Ok(entries
        .into_iter()
        .map(|(key, value)| StringStringEntryProto {
            key: key.to_owned(),
            value,
        })
        .collect())
}
