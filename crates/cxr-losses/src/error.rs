use candle_core::DType;

use crate::Granularity;

/// What can be wrong with a loss's parameters or inputs.
///
/// [`MultiLabelLoss::forward`](crate::MultiLabelLoss::forward) returns candle's error type, which then wraps one of these:
/// the message is the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// No loss has this name.
    #[error("no loss is called `{name}`; expected one of: {available}")]
    UnknownLoss {
        /// The name that was asked for.
        name: String,
        /// Every name with its parameters, for the message.
        available: String,
    },
    /// A name that is to be registered, and is another loss's.
    #[error("there is a loss `{name}` already")]
    Taken {
        /// The name.
        name: String,
    },
    /// A name that is to be registered, and that no experiment file could have.
    #[error("a loss cannot be called `{name}`; expected letters, digits, `-`, `_` and `.`")]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// The loss exists, but has no such parameter.
    #[error("loss `{loss}` has no parameter `{parameter}`; {available}")]
    UnknownParameter {
        /// The loss's name.
        loss: &'static str,
        /// The parameter that was given.
        parameter: String,
        /// The parameters that exist, for the message.
        available: String,
    },
    /// A parameter is outside its range.
    #[error("parameter `{parameter}` of loss `{loss}` must be {expected}, got `{got}`")]
    ParameterRange {
        /// The loss's name.
        loss: &'static str,
        /// The parameter's name.
        parameter: &'static str,
        /// The range in words.
        expected: &'static str,
        /// The value that was given.
        got: f64,
    },
    /// There must be one weight per label.
    #[error("expected one weight for each of {n_labels} labels, got {got}")]
    WeightCount {
        /// Labels of the logits.
        n_labels: usize,
        /// Weights that were given.
        got: usize,
    },
    /// A label that no image has would have an infinite weight.
    #[error("label {label} has no image: its weight would be infinite")]
    NoImages {
        /// The label's place, from 0.
        label: usize,
    },
    /// A loss whose weights are made of the training images' labels was asked for without them.
    #[error(
        "loss `{loss}` takes its weights from how many training images have each label, which are not known here"
    )]
    NeedsCounts {
        /// The loss's name.
        loss: &'static str,
    },
    /// A loss that divides by the largest logit of the batch needs one that is positive.
    #[error(
        "loss `{loss}` divides by the largest logit of the batch, which must be greater than 0, got `{got}`"
    )]
    NoPositiveLogit {
        /// The loss's name.
        loss: &'static str,
        /// The largest known logit.
        got: f64,
    },
    /// A negative number has no such power.
    #[error(
        "loss `{loss}` is undefined in row {row}, label {label}: the probability lies too far below the margin, and the smoothed focus is negative under the exponent {exponent}; expected no smoothing, or an exponent that is an integer"
    )]
    NegativeFocus {
        /// The loss's name.
        loss: &'static str,
        /// Row (image) of the logit, from 0.
        row: usize,
        /// Column (label) of the logit, from 0.
        label: usize,
        /// The exponent of the focus.
        exponent: f64,
    },
    /// Logits must be a non-empty matrix.
    #[error("logits must be a non-empty N×L matrix, got shape {got:?}")]
    LogitsShape {
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// The columns of a loss's labels must be all columns from 0 on, each once.
    #[error("expected every column of the logits from 0 on to be one label's, got {got:?}")]
    Columns {
        /// The columns that were named, sorted.
        got: Vec<usize>,
    },
    /// A loss whose labels have several logits has so many for each image.
    #[error("logits must be a non-empty matrix with {n_logits} columns, got shape {got:?}")]
    OutputsShape {
        /// The logits of all labels.
        n_logits: usize,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// Logits must be floating-point numbers.
    #[error("logits must be `f64`, `f32`, `bf16` or `f16`, got `{}`", got.as_str())]
    LogitsDtype {
        /// The dtype that was given.
        got: DType,
    },
    /// Targets and mask must have the logits' shape.
    #[error("{what} must have the logits' shape {expected:?}, got {got:?}")]
    ShapeMismatch {
        /// `targets` or `mask`.
        what: &'static str,
        /// The logits' shape.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
    },
    /// The values of a loss must have the shape that its granularity says.
    #[error(
        "the values of loss `{loss}`, one for each {}, must have shape {expected:?}, got {got:?}",
        match granularity {
            Granularity::Element => "element",
            Granularity::Image => "image",
            Granularity::Label => "label",
        }
    )]
    ValuesShape {
        /// The loss's name.
        loss: String,
        /// What one value is said to stand for.
        granularity: Granularity,
        /// The shape that follows from it and the logits.
        expected: Vec<usize>,
        /// The shape that the values have.
        got: Vec<usize>,
    },
    /// Targets and mask must lie on the logits' device or on the CPU.
    #[error("{what} must lie on the logits' device {expected} or on the CPU, but lies on {got}")]
    DeviceMismatch {
        /// `targets` or `mask`.
        what: &'static str,
        /// The logits' device.
        expected: String,
        /// The other one.
        got: String,
    },
    /// A value of the targets or the mask is outside its range.
    #[error("{what} must be {expected}, got `{got}` in row {row}, label {label}")]
    Value {
        /// `targets` or `mask`.
        what: &'static str,
        /// The range in words.
        expected: &'static str,
        /// Row (image) of the value, from 0.
        row: usize,
        /// Column (label) of the value, from 0.
        label: usize,
        /// The value.
        got: f64,
    },
    /// Candle could not make a trainable parameter.
    #[error("the loss's trainable bound could not be made")]
    Variable(#[source] candle_core::Error),
}

impl From<LossError> for candle_core::Error {
    fn from(error: LossError) -> Self {
        candle_core::Error::wrap(error)
    }
}

/// A parameter that must be finite and at least zero.
pub(crate) fn non_negative(
    loss: &'static str,
    parameter: &'static str,
    got: f64,
) -> Result<f64, LossError> {
    in_range(loss, parameter, "finite and at least 0", got, |value| {
        value.is_finite() && value >= 0.0
    })
}

/// A parameter that must be finite and greater than zero.
pub(crate) fn positive(
    loss: &'static str,
    parameter: &'static str,
    got: f64,
) -> Result<f64, LossError> {
    in_range(loss, parameter, "finite and greater than 0", got, |value| {
        value.is_finite() && value > 0.0
    })
}

/// A parameter with a range of its own.
pub(crate) fn in_range(
    loss: &'static str,
    parameter: &'static str,
    expected: &'static str,
    got: f64,
    accepts: impl Fn(f64) -> bool,
) -> Result<f64, LossError> {
    if accepts(got) {
        Ok(got)
    } else {
        Err(LossError::ParameterRange {
            loss,
            parameter,
            expected,
            got,
        })
    }
}
