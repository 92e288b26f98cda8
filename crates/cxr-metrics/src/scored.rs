use crate::error::{MetricError, check_length};
use crate::sorted::MAX_EXAMPLES;

/// Scores in either precision, borrowed: made from a slice, array or vector of `f32` or `f64`.
///
/// Nothing is lost: `f64` scores that differ in the last bit are no tie, as saturated probabilities
/// often would be in `f32`. Scores that are exact in `f32` sort as fast in either type.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a>(pub(crate) Values<'a>);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Values<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

impl<'a> Scores<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self.0 {
            Values::Single(values) => values.len(),
            Values::Double(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score at this position; `None` beyond the end.
    pub fn get(&self, at: usize) -> Option<f64> {
        match self.0 {
            Values::Single(values) => values.get(at).copied().map(f64::from),
            Values::Double(values) => values.get(at).copied(),
        }
    }

    /// All scores in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = f64> + Clone + 'a {
        let values = self.0;
        (0..self.len()).map(move |at| match values {
            Values::Single(values) => f64::from(values[at]),
            Values::Double(values) => values[at],
        })
    }

    /// The number that a reader would recognise in an error: of an `f32` the shortest decimal.
    pub(crate) fn as_written(&self, at: usize) -> f64 {
        match self.0 {
            Values::Single(values) => {
                let value = values[at];
                value.to_string().parse().unwrap_or(f64::from(value))
            }
            Values::Double(values) => values[at],
        }
    }

    /// The scores at some positions.
    pub(crate) fn gather(&self, places: impl Iterator<Item = usize>) -> OwnedScores {
        match self.0 {
            Values::Single(values) => OwnedScores::Single(places.map(|at| values[at]).collect()),
            Values::Double(values) => OwnedScores::of(places.map(|at| values[at]).collect()),
        }
    }
}

macro_rules! from_slices {
    ($type:ty, $variant:ident) => {
        impl<'a> From<&'a [$type]> for Scores<'a> {
            fn from(scores: &'a [$type]) -> Self {
                Self(Values::$variant(scores))
            }
        }

        impl<'a> From<&'a Vec<$type>> for Scores<'a> {
            fn from(scores: &'a Vec<$type>) -> Self {
                Self(Values::$variant(scores))
            }
        }

        impl<'a, const N: usize> From<&'a [$type; N]> for Scores<'a> {
            fn from(scores: &'a [$type; N]) -> Self {
                Self(Values::$variant(scores))
            }
        }
    };
}

from_slices!(f32, Single);
from_slices!(f64, Double);

/// Scores that are kept: in `f32` where that loses nothing.
#[derive(Clone, Debug)]
pub(crate) enum OwnedScores {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl OwnedScores {
    fn of(values: Vec<f64>) -> Self {
        if values.iter().all(|&value| is_single(value)) {
            Self::Single(values.into_iter().map(|value| value as f32).collect())
        } else {
            Self::Double(values)
        }
    }

    /// One after another.
    pub(crate) fn concatenated<'a>(parts: impl Iterator<Item = Scores<'a>> + Clone) -> Self {
        let mut single = Vec::new();
        for part in parts.clone() {
            match part.0 {
                Values::Single(values) => single.extend_from_slice(values),
                Values::Double(_) => {
                    return Self::Double(parts.flat_map(|part| part.iter()).collect());
                }
            }
        }
        Self::Single(single)
    }

    pub(crate) fn borrow(&self) -> Scores<'_> {
        match self {
            Self::Single(values) => values.into(),
            Self::Double(values) => values.into(),
        }
    }
}

/// Whether a finite score is the same number in `f32`.
pub(crate) fn is_single(value: f64) -> bool {
    f64::from(value as f32) == value
}

/// The scores of one label over some images, with the truth: what every ranking metric takes.
///
/// Built once from slices of the caller's, then trusted: as many labels as scores, at least one,
/// all scores finite. Scores may be probabilities or logits, `f32` or `f64`; ranking metrics read
/// their order only.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    scores: Scores<'a>,
    labels: &'a [bool],
}

impl<'a> Scored<'a> {
    /// Pairs scores with labels (`true` where the finding is present).
    ///
    /// # Errors
    /// [`MetricError::Empty`], [`MetricError::Length`], [`MetricError::TooManyExamples`], and
    /// [`MetricError::NotFinite`] for a score that is NaN or ±∞.
    ///
    /// ```
    /// use cxr_metrics::{MetricError, Scored};
    /// let error = Scored::new(&[0.2, f32::INFINITY], &[false, true]).unwrap_err();
    /// assert_eq!(error, MetricError::NotFinite { index: 1, value: f64::INFINITY });
    /// assert!(Scored::new(&[1e38, 1e39], &[false, true]).is_ok()); // f64
    /// ```
    pub fn new(scores: impl Into<Scores<'a>>, labels: &'a [bool]) -> Result<Self, MetricError> {
        let scores = scores.into();
        if scores.is_empty() {
            return Err(MetricError::Empty);
        }
        check_length("labels", scores.len(), labels.len())?;
        if scores.len() > MAX_EXAMPLES {
            return Err(MetricError::TooManyExamples {
                found: scores.len(),
            });
        }
        check_finite(scores, |_| true)?;
        Ok(Self { scores, labels })
    }

    /// For columns that were checked when they were stored.
    pub(crate) fn trusted(scores: Scores<'a>, labels: &'a [bool]) -> Self {
        Self { scores, labels }
    }

    /// One score per example.
    pub fn scores(&self) -> Scores<'a> {
        self.scores
    }

    /// One label per example.
    pub fn labels(&self) -> &'a [bool] {
        self.labels
    }

    /// The number of examples, at least 1.
    #[expect(
        clippy::len_without_is_empty,
        reason = "never empty: `new` refuses that"
    )]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// How many labels are `true`.
    pub fn positives(&self) -> usize {
        self.labels.iter().filter(|&&label| label).count()
    }

    /// How many labels are `false`.
    pub fn negatives(&self) -> usize {
        self.len() - self.positives()
    }
}

/// The first score that is NaN or ±∞, of those that are asked for, is an error.
pub(crate) fn check_finite(
    scores: Scores<'_>,
    is_known: impl Fn(usize) -> bool,
) -> Result<(), MetricError> {
    let at_fault = match scores.0 {
        Values::Single(values) => {
            (0..values.len()).find(|&at| !values[at].is_finite() && is_known(at))
        }
        Values::Double(values) => {
            (0..values.len()).find(|&at| !values[at].is_finite() && is_known(at))
        }
    };
    match at_fault {
        Some(index) => Err(MetricError::NotFinite {
            index,
            value: scores.as_written(index),
        }),
        None => Ok(()),
    }
}
