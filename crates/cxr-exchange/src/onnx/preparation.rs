//! From radiographs to what the network takes, inside the graph.

use cxr_model::ModelCard;

use super::graph::{Attribute, Graph};
use crate::ExchangeError;

/// Grey values in [0, 1], `N×1×S×S`, to normalised images `N×3×S×S`.
pub(super) fn normalise(graph: &mut Graph, card: &ModelCard, grey: &str) -> String {
    let sides = [1, 3, 1, 1];
    let mean = graph.constant("normalization.mean", &sides, &card.normalization_mean);
    let deviation = graph.constant("normalization.std", &sides, &card.normalization_std);
    let centred = graph.add("Sub", &[grey, &mean], &[]);
    graph.named("normalization", "Div", &[&centred, &deviation], &[])
}

/// Bytes `N×1×H×W` of any size to the central window of the resized image, grey values in [0, 1].
///
/// # Errors
/// A model whose images are stretched before they are resized.
pub(super) fn resize(
    graph: &mut Graph,
    card: &ModelCard,
    bytes: &str,
) -> Result<String, ExchangeError> {
    if card.stretched {
        return Err(ExchangeError::Preparation {
            why: "the model takes images whose grey values are stretched to the whole range before they are resized".to_owned(),
        });
    }
    let (size, crop) = (card.image_size, card.crop_size);
    // Pillow's filter: its weights are those of a wider window where the image shrinks, and add up to 1 at the edges.
    let sizes = graph.integers(&[size, size]);
    let mut x = graph.named(
        "resize",
        "Resize",
        &[bytes, "", "", &sizes],
        &[
            Attribute::Ints("axes", &[2, 3]),
            Attribute::Int("antialias", 1),
            Attribute::Text("mode", "cubic"),
            Attribute::Float("cubic_coeff_a", -0.5),
            Attribute::Text("coordinate_transformation_mode", "half_pixel"),
            Attribute::Int("exclude_outside", 1),
        ],
    );
    if crop < size {
        let margin = (size - crop) / 2;
        let begin = graph.integers(&[margin, margin]);
        let end = graph.integers(&[margin + crop, margin + crop]);
        let axes = graph.integers(&[2, 3]);
        x = graph.named("crop", "Slice", &[&x, &begin, &end, &axes], &[]);
    }
    let float = Attribute::Int("to", i64::from(super::proto::FLOAT));
    let x = graph.add("Cast", &[&x], &[float]);
    let most = graph.unnamed_constant(&[], &[255.]);
    Ok(graph.add("Div", &[&x, &most], &[]))
}
