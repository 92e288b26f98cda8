use candle_core::Shape;

/// What can go wrong with a network's parameters; the operations themselves return candle's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpsError {
    /// Two layers asked for a parameter of one name.
    #[error("parameter `{name}` exists twice in the network")]
    DuplicateParameter {
        /// The full dotted name.
        name: String,
    },
    /// The tensors offered do not fit the network, tensor for tensor.
    #[error("the weights do not fit the network: {}", summarise(differences))]
    WeightMismatch {
        /// Every difference found, in name order.
        differences: Vec<TensorDifference>,
    },
    /// A parameter for which the system has no memory.
    #[error("cannot have memory for parameter `{name}` of shape {shape:?}")]
    TooLarge {
        /// The full dotted name.
        name: String,
        /// Its shape.
        shape: Shape,
    },
    /// Bytes that are no weight file.
    #[error("it is not a whole safetensors file")]
    NoWeightFile(#[from] safetensors::SafeTensorError),
    /// The digest in a weight file is not that of its tensors and description.
    #[error("it was changed or damaged after it was written: its digest does not match")]
    WeightFileDamaged,
    /// A tensor that cannot be a network's weights.
    #[error("`{name}` {problem}")]
    Weights {
        /// The tensor's full dotted name.
        name: String,
        /// What is wrong with its values or its type.
        problem: String,
    },
    /// A described network that cannot be.
    #[error("layer `{layer}` {problem}")]
    Network {
        /// The layer's name.
        layer: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An error of the tensor library.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// One way in which a set of tensors does not fit a network's parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorDifference {
    /// The network has this tensor, the set does not.
    #[error("`{name}` is missing")]
    Missing {
        /// The full dotted name.
        name: String,
    },
    /// The set has this tensor, the network does not.
    #[error("`{name}` is not part of the network")]
    Extra {
        /// The full dotted name.
        name: String,
    },
    /// Both have it, in different shapes.
    #[error("`{name}` has shape {found:?}, expected {expected:?}")]
    Shape {
        /// The full dotted name.
        name: String,
        /// The network's shape.
        expected: Shape,
        /// The shape that was offered.
        found: Shape,
    },
    /// Both have it, but what is offered is not of floating-point numbers.
    #[error("`{name}` holds {found}, expected floating-point numbers")]
    Type {
        /// The full dotted name.
        name: String,
        /// The type that was offered.
        found: String,
    },
}

fn summarise(differences: &[TensorDifference]) -> String {
    const SHOWN: usize = 8;
    let mut text = differences
        .iter()
        .take(SHOWN)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    if differences.len() > SHOWN {
        text.push_str(&format!("; and {} more", differences.len() - SHOWN));
    }
    text
}
