//! The heads that experiment files can name.

use std::fmt::Debug;

use cxr_ops::{
    Entry, EntryError, NetworkDescription, OpsError, OptionError, ParameterPath, Registry,
    check_option,
};
use serde_json::Value;

use crate::{
    Head, TopNetworkError, class_attention, dense_head, linear_head, residual_attention,
    top_network, transition,
};

/// Every head of this crate. A new one is a file with its entry and a line here.
pub const HEADS: &[HeadEntry] = &[
    top_network::TOP_NETWORK,
    linear_head::LINEAR,
    dense_head::DENSE,
    transition::TRANSITION,
    class_attention::CSRA,
    residual_attention::CRAL,
];

static REGISTRY: Registry<dyn HeadConfig> = Registry::new("head", HEADS);

/// From now on `model.head` may have the name of this entry, in every experiment and model file that this program reads;
/// names are registered once, and ours stay what they are.
///
/// ```
/// use candle_core::{Result, Tensor};
/// use cxr_ops::{Init, Linear, ParameterPath, Phase};
/// use cxr_top::{Head, HeadConfig, HeadEntry, HeadError, register};
/// use serde_json::Value;
///
/// /// A dense layer on the largest value of each map.
/// #[derive(Debug)]
/// struct Largest;
/// struct LargestHead(Linear);
///
/// impl Head for LargestHead {
///     fn forward_t(&self, features: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
///         self.0.forward_t(&features.flatten_from(2)?.max(2)?, phase)
///     }
/// }
///
/// impl HeadConfig for Largest {
///     fn options(&self) -> Value {
///         Value::Null
///     }
///     fn build(
///         &self,
///         (channels, ..): (usize, usize, usize),
///         labels: usize,
///         path: &ParameterPath,
///     ) -> std::result::Result<Box<dyn Head>, HeadError> {
///         let dense = Linear::new(channels, labels, Init::GlorotUniform, &path.pp("dense"))?;
///         Ok(Box::new(LargestHead(dense)))
///     }
/// }
///
/// register(HeadEntry::new("largest", "a dense layer on maxima", &[], |_| Ok(Box::new(Largest))))?;
/// assert_eq!(cxr_top::by_name("largest", &Value::Null)?.least_side(), 1);
/// # Ok::<(), HeadError>(())
/// ```
///
/// # Errors
/// [`EntryError::Taken`] or [`EntryError::Name`].
pub fn register(entry: HeadEntry) -> Result<(), EntryError> {
    REGISTRY.register(entry)
}

/// Every head that [`by_name`] knows: [`HEADS`], then those that this program has [registered](register).
pub fn entries() -> Vec<HeadEntry> {
    REGISTRY.entries()
}

/// A head that [`by_name`] knows.
pub type HeadEntry = Entry<dyn HeadConfig>;

/// A head's checked options: what it is, before it has parameters.
pub trait HeadConfig: Debug + Send + Sync {
    /// All options, defaults filled in; [`Value::Null`] for a head that has none. The entry reads them as this very
    /// head.
    fn options(&self) -> Value;

    /// The network, with new parameters under `path`, for maps of shape `(C, h, w)` and `labels` logits.
    ///
    /// # Errors
    /// Maps that it cannot take, or `path` already holds parameters of these names.
    fn build(
        &self,
        maps: (usize, usize, usize),
        labels: usize,
        path: &ParameterPath,
    ) -> Result<Box<dyn Head>, HeadError>;

    /// The network as data, for maps of shape `(C, h, w)` and `labels` logits: it takes the maps as images and ends in
    /// maps of one pixel, the logits. Its parameters have the names that [`Self::build`] gives them.
    ///
    /// # Errors
    /// Maps that it cannot take, or [`HeadError::NotDescribed`], as of every head that does not say otherwise: such a head
    /// is trained and used here, and not exported.
    fn describe(
        &self,
        maps: (usize, usize, usize),
        labels: usize,
    ) -> Result<NetworkDescription, HeadError> {
        let _ = (maps, labels);
        Err(HeadError::NotDescribed {
            head: format!("{self:?}"),
        })
    }

    /// Height and width of the smallest maps that it can take.
    fn least_side(&self) -> usize {
        1
    }
}

/// Why a head cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// A name that is not among the [`entries`], or an option that it cannot have.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A top network that cannot be built.
    #[error(transparent)]
    TopNetwork(#[from] TopNetworkError),
    /// Parameters that cannot be added.
    #[error(transparent)]
    Parameters(#[from] OpsError),
    /// A head whose layers are not known as data.
    #[error(
        "the head {head} is not described layer by layer, so that it cannot be written for other programs"
    )]
    NotDescribed {
        /// The head with its options.
        head: String,
    },
}

/// The head called `name`, with `options` as an experiment file gives them.
///
/// ```
/// use serde_json::{Value, json};
///
/// let head = cxr_top::by_name("top-network", &json!({"hidden": 128}))?;
/// assert_eq!(head.options()["conv_channels"], json!([256, 128]));
/// assert_eq!(cxr_top::by_name("linear", &Value::Null)?.least_side(), 1);
/// # Ok::<(), cxr_top::HeadError>(())
/// ```
///
/// # Errors
/// An unknown name or an option that it cannot have; the message lists what there is.
pub fn by_name(name: &str, options: &Value) -> Result<Box<dyn HeadConfig>, HeadError> {
    Ok(REGISTRY.by_name(name, options)?)
}

pub(crate) fn check_dropout(share: f64) -> Result<(), OptionError> {
    check_option("dropout", share, "in [0, 1)", |share| {
        (0. ..1.).contains(share)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn complete_options_are_read_as_the_same_head() {
        let names: BTreeSet<&str> = HEADS.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), HEADS.len());
        for entry in HEADS {
            let head = entry.parse(&Value::Null).unwrap();
            let again = entry.parse(&head.options()).unwrap();
            assert_eq!(format!("{head:?}"), format!("{again:?}"));
            let Value::Object(options) = head.options() else {
                panic!("{head:?}")
            };
            let known: BTreeSet<&str> = entry.options.iter().map(|option| option.name).collect();
            let complete: BTreeSet<&str> = options.keys().map(String::as_str).collect();
            assert_eq!(known, complete, "{}", entry.name);
        }
    }

    #[test]
    fn an_unknown_name_lists_the_others() {
        let error = by_name("attention", &Value::Null).unwrap_err().to_string();
        assert!(
            error.contains("`top-network`") && error.contains("`linear`"),
            "{error}"
        );
    }
}
