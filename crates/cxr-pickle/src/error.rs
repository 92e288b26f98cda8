//! What is wrong with a file.

/// Why a file's weights cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// A file of another kind.
    #[error("it is {what}\nhint: {hint}")]
    Format {
        /// What it is.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A file that ends too early.
    #[error("it is cut off in {what}")]
    Truncated {
        /// Within what.
        what: String,
    },
    /// A pickle that does what `torch.save` never writes.
    #[error("its pickle is damaged, or not written by `torch.save`: {problem} at byte {at}")]
    Pickle {
        /// What it does.
        problem: String,
        /// Where, in the pickle.
        at: usize,
    },
    /// More of something than any network has.
    #[error("it has more than {limit} {what}, which no file of weights has")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most that are read.
        limit: usize,
    },
    /// An archive that is not whole, or not as PyTorch writes it.
    #[error("its archive is damaged, or not PyTorch's: {problem}")]
    Archive {
        /// What is wrong.
        problem: String,
    },
    /// A tensor that is not what it says.
    #[error("the tensor `{name}` {problem}")]
    Tensor {
        /// Its name, escaped.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file without weights.
    #[error(
        "it holds no weights: {found}\nhint: expected a state dictionary, one under a key such as `state_dict` or `model`, or a module"
    )]
    NoWeights {
        /// What it holds instead.
        found: String,
    },
}

/// A name of the file as errors show it: on one line, and not too long.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 120;
    let mut shown: String = name.escape_debug().take(LONGEST).collect();
    if name.chars().count() > LONGEST {
        shown.push('…');
    }
    shown
}
