/// What cannot be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// Grad-CAM takes one image at a time.
    #[error("expected one image `1×3×H×W`, got {found:?}")]
    OneImage {
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A label that the classifier does not have.
    #[error("expected a label below {labels}, got {label}")]
    Label {
        /// The label asked for.
        label: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A head whose weights are no maps of labels.
    #[error(
        "the head has no class activation maps: it does not end in a pooling and a dense layer, as `linear` and `transition` do; take a method that works by gradients"
    )]
    NoClassMaps,
    /// A logit, or a value of its heat map, that is not a number: the network's weights are of no use.
    #[error(
        "the {what} of label {label} is {value}: the network's weights are damaged, or too large to compute with"
    )]
    NotFinite {
        /// The logit or the heat map.
        what: &'static str,
        /// The label's number.
        label: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// A region that is empty or reaches outside the image.
    #[error(
        "expected a region of positive size in the unit square, got left {left}, top {top}, width {width}, height {height}"
    )]
    Region {
        /// Left edge as a share of the image's width.
        left: f64,
        /// Top edge as a share of the image's height.
        top: f64,
        /// Width, likewise.
        width: f64,
        /// Height, likewise.
        height: f64,
    },
    /// A heat map of another size than its values, or with values that are not finite.
    #[error("expected {expected} finite values for the heat map, got {found}")]
    Values {
        /// Height times width.
        expected: usize,
        /// Number of finite values.
        found: usize,
    },
    /// A picture with another number of pixels than its size.
    #[error("expected {expected} pixels, got {found}")]
    Pixels {
        /// Height times width.
        expected: usize,
        /// The number of pixels given.
        found: usize,
    },
    /// An image that the model does not take.
    #[error(transparent)]
    Model(#[from] cxr_model::ModelError),
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
