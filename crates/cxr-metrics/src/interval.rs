use crate::error::MetricError;
use crate::normal;
use crate::student;

/// A confidence level strictly between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "f64", into = "f64"))]
pub struct Level(f64);

impl Level {
    /// 90 %.
    pub const P90: Self = Self(0.90);
    /// 95 %, the field's habit.
    pub const P95: Self = Self(0.95);
    /// 99 %.
    pub const P99: Self = Self(0.99);

    /// A level such as 0.95.
    ///
    /// # Errors
    /// [`MetricError::OutOfRange`] unless `0 < level < 1`.
    pub fn new(level: f64) -> Result<Self, MetricError> {
        if level > 0.0 && level < 1.0 {
            Ok(Self(level))
        } else {
            let what = "the confidence level";
            Err(MetricError::OutOfRange {
                what,
                range: "(0, 1)",
                value: level,
            })
        }
    }

    /// The level as a number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The standard normal quantile of a two-sided interval: 1.96 for 95 %.
    pub(crate) fn z(self) -> f64 {
        -normal::quantile((1.0 - self.0) / 2.0)
    }

    /// The same quantile of Student's t distribution: 2.23 for 95 % and 10 degrees of freedom.
    pub(crate) fn t(self, degrees_of_freedom: f64) -> f64 {
        student::two_sided_quantile(1.0 - self.0, degrees_of_freedom)
    }
}

impl TryFrom<f64> for Level {
    type Error = MetricError;

    fn try_from(level: f64) -> Result<Self, MetricError> {
        Self::new(level)
    }
}

impl From<Level> for f64 {
    fn from(level: Level) -> Self {
        level.0
    }
}

/// A two-sided confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Interval {
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
    /// The level it was made for.
    pub level: Level,
}

impl Interval {
    /// Whether a value lies between the ends, ends included.
    pub fn contains(&self, value: f64) -> bool {
        self.lower <= value && value <= self.upper
    }
}

/// A share of a count, such as a sensitivity: `hits` of `of`, with `of` at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Proportion {
    /// How many were counted.
    pub hits: u64,
    /// Out of how many.
    pub of: u64,
}

impl Proportion {
    /// `None` for nothing out of nothing.
    pub(crate) fn new(hits: u64, of: u64) -> Option<Self> {
        (of > 0).then_some(Self { hits, of })
    }

    /// The share, 0 … 1.
    pub fn value(&self) -> f64 {
        self.hits as f64 / self.of as f64
    }

    /// Wilson's score interval (1927), which stays in [0, 1] and has width even at 0 and 1.
    /// It takes the counted examples as independent: several images of one patient are not, and
    /// [`ClusteredProportion`](crate::ClusteredProportion) is for them.
    pub fn wilson(&self, level: Level) -> Interval {
        wilson(self.value(), self.of as f64, level)
    }
}

/// Wilson's interval of the share `p` of `n` examples, a number that need not be whole.
pub(crate) fn wilson(p: f64, n: f64, level: Level) -> Interval {
    let z = level.z();
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Interval {
        lower: (centre - half).max(0.0),
        upper: (centre + half).min(1.0),
        level,
    }
}
