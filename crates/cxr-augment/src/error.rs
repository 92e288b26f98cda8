//! What can go wrong.

/// Every failure of this crate: settings out of range, or buffers of the wrong size.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentError {
    /// A setting is outside its range.
    #[error("`{setting}`: expected {expected}, got {found}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its range.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The pixels are not `width × height`, or a side is zero or above [`MAX_SIDE`](crate::MAX_SIDE).
    #[error(
        "expected {width}×{height} pixels with sides from 1 to {}, got {found}",
        crate::MAX_SIDE
    )]
    ImageShape {
        /// Declared width.
        width: usize,
        /// Declared height.
        height: usize,
        /// Pixels given.
        found: usize,
    },
    /// The output buffer has another length than three channels of the output size.
    #[error("expected an output of 3×{height}×{width} values, got {found}")]
    OutputShape {
        /// Columns of the output.
        width: usize,
        /// Rows of the output.
        height: usize,
        /// Values given.
        found: usize,
    },
    /// The map leaves the image by more than its size, or is not finite.
    #[error("the map does not stay near the image of {width}×{height} pixels")]
    MapTooFar {
        /// Width of the source image.
        width: usize,
        /// Height of the source image.
        height: usize,
    },
    /// Two transforms of a pipeline have the same name, and would draw the same numbers.
    #[error("two transforms are named `{0}`")]
    TransformTwice(String),
    /// A transform made grey levels that are not numbers; its name.
    #[error("transform `{0}` makes grey levels that are not numbers")]
    NotANumber(String),
    /// No set of views has this name.
    #[error("expected `single`, `hflip` or `hflip-zoom`, got `{0}`")]
    ViewSet(String),
}

impl AugmentError {
    pub(crate) fn setting(
        setting: &'static str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Setting {
            setting,
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
