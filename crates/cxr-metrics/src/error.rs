/// What is wrong with an input.
///
/// A quantity that is merely undefined, because one class is absent, is no error: it is `None`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// There is nothing to measure.
    #[error("expected at least one example, got none")]
    Empty,
    /// Two inputs that go together differ in length.
    #[error("expected {expected} {what}, got {found}")]
    Length {
        /// What was counted, in the plural: `labels`, `clusters`.
        what: &'static str,
        /// How many were needed.
        expected: usize,
        /// How many came.
        found: usize,
    },
    /// More examples than a 31-bit row number can tell apart.
    #[error("expected at most 2147483647 examples, got {found}")]
    TooManyExamples {
        /// How many came.
        found: usize,
    },
    /// A score is NaN or infinite: it has no rank, or hides an overflow.
    #[error("expected a finite score, got `{value}` at position {index}")]
    NotFinite {
        /// Position in the scores as they were given.
        index: usize,
        /// The score.
        value: f64,
    },
    /// A probability was needed and the score is none.
    #[error("expected a probability in [0, 1], got `{value}` at position {index}")]
    NotAProbability {
        /// Position in the scores as they were given.
        index: usize,
        /// The score.
        value: f64,
    },
    /// A row was asked for that the data do not have.
    #[error("expected a row below {n_images}, got {row}")]
    NoSuchRow {
        /// The row.
        row: usize,
        /// How many images there are.
        n_images: usize,
    },
    /// Points of a rising function are not in order.
    #[error(
        "expected scores that rise and probabilities that never fall, got others at position {index}"
    )]
    NotAscending {
        /// The position of the second of two that are out of order.
        index: usize,
    },
    /// A parameter lies outside its range.
    #[error("expected {what} in {range}, got `{value}`")]
    OutOfRange {
        /// The parameter.
        what: &'static str,
        /// Its range, in mathematical notation.
        range: &'static str,
        /// What came.
        value: f64,
    },
    /// No label has this name.
    #[error("expected one of the labels `{}`, got `{label}`", known.join("`, `"))]
    UnknownLabel {
        /// The name that was asked for.
        label: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// Two labels have one name.
    #[error("expected every label once, got `{label}` twice")]
    DuplicateLabel {
        /// The name.
        label: String,
    },
    /// Two models are compared on different labels or different truth.
    #[error("expected the same labels and truth for both models, got a difference at `{label}`")]
    Mismatch {
        /// The first label that differs, as the second model names it.
        label: String,
    },
}

pub(crate) fn check_length(
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), MetricError> {
    if expected == found {
        Ok(())
    } else {
        Err(MetricError::Length {
            what,
            expected,
            found,
        })
    }
}
