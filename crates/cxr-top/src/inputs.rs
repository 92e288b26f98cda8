//! What a head may ask for beside feature maps: age, sex and view of an image.

use std::fmt;

use candle_core::{Result, Tensor, bail};
use cxr_ops::{NetworkBuilder, Node, OptionEntry, OptionError};
use serde::{Deserialize, Serialize};

/// Something that is known of an image besides its pixels, as a head asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NonImageInput {
    /// The patient's age.
    Age,
    /// The patient's sex.
    Sex,
    /// How the radiograph was taken: from back to front (PA) or from front to back (AP).
    View,
}

impl NonImageInput {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Age, Self::Sex, Self::View];

    /// Columns of each among the numbers that a head is given: the value, and 1 where it is missing. The value is 0 there.
    pub const COLUMNS: usize = 2;

    /// Its name in experiment files and model files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Sex => "sex",
            Self::View => "view",
        }
    }
}

impl fmt::Display for NonImageInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The option by which heads of this crate ask.
pub(crate) const INPUTS: OptionEntry = OptionEntry::new(
    "inputs",
    "what is joined to the pooled features, among `age`, `sex` and `view`, nothing unless given",
);

/// Refuses an input that is asked for twice.
pub(crate) fn check_inputs(inputs: &[NonImageInput]) -> std::result::Result<(), OptionError> {
    let twice = |(at, input): &(usize, &NonImageInput)| inputs[..*at].contains(input);
    match inputs.iter().enumerate().find(twice) {
        None => Ok(()),
        Some((_, input)) => {
            let expected = "a list in which each of `age`, `sex` and `view` is once at most";
            Err(OptionError::new(
                "inputs",
                expected,
                format!("`{input}` twice"),
            ))
        }
    }
}

/// Pooled features `N×C` and behind them the non-image inputs that a head asks for, `N×2K`.
///
/// # Errors
/// Inputs that are asked for and not given, or the other way round; another shape.
pub(crate) fn join(
    pooled: &Tensor,
    non_image: Option<&Tensor>,
    inputs: &[NonImageInput],
) -> Result<Tensor> {
    let Some(non_image) = non_image else {
        if inputs.is_empty() {
            return Ok(pooled.clone());
        }
        bail!(
            "the head takes the non-image inputs {} beside the images, and got none",
            list(inputs)
        );
    };
    let expected = [pooled.dim(0)?, NonImageInput::COLUMNS * inputs.len()];
    if inputs.is_empty() || non_image.dims() != expected {
        bail!(
            "the head takes the non-image inputs {} of shape {expected:?}, got {:?}",
            list(inputs),
            non_image.dims()
        );
    }
    Tensor::cat(&[pooled, non_image], 1)
}

/// The same in a description.
pub(crate) fn describe_join(
    net: &mut NetworkBuilder,
    pooled: Node,
    inputs: &[NonImageInput],
) -> Node {
    match inputs {
        [] => pooled,
        inputs => {
            let non_image = net.non_image(NonImageInput::COLUMNS * inputs.len());
            net.concat(&[pooled, non_image])
        }
    }
}

fn list(inputs: &[NonImageInput]) -> String {
    let names: Vec<String> = inputs.iter().map(|input| format!("`{input}`")).collect();
    match names.is_empty() {
        true => "(none)".to_owned(),
        false => names.join(", "),
    }
}
