//! The backbones that experiment files can name.

use std::fmt::{Debug, Display};
use std::path::Path;

use cxr_ops::{
    Entry, EntryError, NetworkDescription, OpsError, ParameterPath, Parameters, Registry,
};
use serde_json::Value;

use crate::{
    Backbone, FrozenError, PretrainedError, PretrainedReport, densenet, downsampled, ensemble,
    frozen, load_network, networks,
};

/// Every backbone of this crate. A new one is a file with its entry and a line here.
pub const BACKBONES: &[BackboneEntry] = &[
    densenet::DENSENET121,
    densenet::DENSENET169,
    densenet::DENSENET201,
    densenet::DENSENET,
    networks::RESNET18,
    networks::RESNET34,
    networks::RESNET38,
    networks::RESNET50,
    networks::RESNET101,
    networks::RESNET152,
    networks::RESNEXT50,
    networks::RESNEXT101,
    networks::VGG16,
    networks::VGG16_BN,
    networks::MOBILENET_V2,
    networks::EFFICIENTNET_B0,
    networks::EFFICIENTNET_B1,
    networks::EFFICIENTNET_B2,
    networks::EFFICIENTNET_B3,
    networks::EFFICIENTNET_B4,
    networks::EFFICIENTNET_V2_S,
    networks::INCEPTION_V3,
    networks::REGNET_X_400MF,
    networks::REGNET_X_800MF,
    networks::REGNET_X_1_6GF,
    networks::REGNET_X_3_2GF,
    networks::REGNET_Y_400MF,
    networks::REGNET_Y_800MF,
    networks::REGNET_Y_1_6GF,
    networks::REGNET_Y_3_2GF,
    networks::CONVNEXT_TINY,
    networks::CONVNEXT_SMALL,
    networks::CONVNEXT_BASE,
    networks::CONVNEXTV2_TINY,
    networks::CONVNEXTV2_BASE,
    networks::XCEPTION,
    frozen::CONVNEXT,
    frozen::DINOV2,
    ensemble::ENSEMBLE,
    downsampled::DOWNSAMPLED,
];

static REGISTRY: Registry<dyn BackboneConfig> = Registry::new("backbone", BACKBONES);

/// From now on `model.backbone` may have the name of this entry, in every experiment and model file that this program
/// reads; names are registered once, and ours stay what they are.
///
/// ```
/// use std::fmt;
/// use cxr_backbone::{Backbone, BackboneConfig, BackboneEntry, BackboneError, register};
/// use cxr_ops::{ConvLayer, NetworkBuilder, OptionEntry, ParameterPath, parse_options};
/// use serde_json::{Value, json};
///
/// /// One convolution with so many maps.
/// #[derive(Debug, serde::Deserialize)]
/// struct OneLayer { maps: usize }
///
/// impl fmt::Display for OneLayer {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         write!(f, "one layer of {} maps", self.maps)
///     }
/// }
///
/// impl BackboneConfig for OneLayer {
///     fn options(&self) -> Value {
///         json!({"maps": self.maps})
///     }
///     fn build(&self, path: &ParameterPath) -> Result<Box<dyn Backbone>, BackboneError> {
///         let mut net = NetworkBuilder::new(3);
///         let maps = net.conv("conv", net.images(), ConvLayer::new(self.maps, 3).stride(2).same());
///         Ok(Box::new(net.finish(maps)?.build(path)?))
///     }
///     fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
///         (self.maps, height.div_ceil(2), width.div_ceil(2))
///     }
/// }
///
/// const OPTIONS: &[OptionEntry] = &[OptionEntry::new("maps", "feature maps, at least 1")];
/// register(BackboneEntry::new("one-layer", "one convolution", OPTIONS, |options| {
///     Ok(Box::new(parse_options::<OneLayer>(options, OPTIONS)?))
/// }))?;
/// let net = cxr_backbone::by_name("one-layer", &json!({"maps": 8}))?;
/// assert_eq!(net.feature_shape(64, 64), (8, 32, 32));
/// # Ok::<(), cxr_backbone::BackboneError>(())
/// ```
///
/// # Errors
/// [`EntryError::Taken`] or [`EntryError::Name`].
pub fn register(entry: BackboneEntry) -> Result<(), EntryError> {
    REGISTRY.register(entry)
}

/// Every backbone that [`by_name`] knows: [`BACKBONES`], then those that this program has [registered](register).
pub fn entries() -> Vec<BackboneEntry> {
    REGISTRY.entries()
}

/// A backbone that [`by_name`] knows.
pub type BackboneEntry = Entry<dyn BackboneConfig>;

/// A backbone's checked options: what it is, before it has parameters. Displayed it is what people call it.
pub trait BackboneConfig: Debug + Display + Send + Sync {
    /// All options, defaults filled in; [`Value::Null`] for a backbone that has none. The entry reads them as this very
    /// backbone.
    fn options(&self) -> Value;

    /// The network, with new parameters under `path`.
    ///
    /// # Errors
    /// `path` already holds parameters of these names, or this build does not have the network.
    fn build(&self, path: &ParameterPath) -> Result<Box<dyn Backbone>, BackboneError>;

    /// `(C, h, w)` of the features of images of `height`×`width` pixels.
    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize);

    /// The network as data, if it is described: what it costs, and what its layers are called.
    fn description(&self) -> Option<&NetworkDescription> {
        None
    }

    /// How torchvision has the same network; `None` where it does not.
    fn torchvision(&self) -> Option<Torchvision> {
        None
    }

    /// Whether a gradient reaches its parameters; one that cannot be trained needs weights.
    fn is_trainable(&self) -> bool {
        true
    }

    /// Sides of images are multiples of this.
    fn side_multiple(&self) -> usize {
        1
    }

    /// Sets every parameter under `prefix` from a safetensors file, in which the tensors have the names that whoever
    /// published such weights gave them: unless it is said here, those of the parameters, with the prefix or without.
    ///
    /// # Errors
    /// A file that does not fit the network, tensor for tensor; the network is then unchanged.
    fn load_weights(
        &self,
        path: &Path,
        parameters: &Parameters,
        prefix: &str,
    ) -> Result<PretrainedReport, PretrainedError> {
        load_network(path, parameters, prefix, &[])
    }
}

/// How torchvision has a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torchvision {
    /// What makes it, in `torchvision.models`.
    pub constructor: String,
    /// With these arguments, in Python.
    pub arguments: String,
    /// What the names of its feature extractor's parameters begin with: `features.`, or nothing.
    pub prefix: &'static str,
    /// The dense layer that reads the means of the last maps; `None` where the network ends otherwise.
    pub classifier: Option<&'static str>,
}

/// Why a backbone cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackboneError {
    /// A name that is not among the [`entries`], or an option that it cannot have.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// A frozen feature extractor that cannot be built.
    #[error(transparent)]
    Frozen(#[from] FrozenError),
    /// Parameters that cannot be added.
    #[error(transparent)]
    Parameters(#[from] OpsError),
}

/// The backbone called `name`, with `options` as an experiment file gives them.
///
/// ```
/// use serde_json::{Value, json};
///
/// let net = cxr_backbone::by_name("densenet121", &Value::Null)?;
/// assert_eq!(net.feature_shape(224, 224), (1024, 7, 7));
///
/// let net = cxr_backbone::by_name(
///     "densenet",
///     &json!({"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 2]}),
/// )?;
/// assert_eq!(net.options()["bottleneck_size"], 4);
/// # Ok::<(), cxr_backbone::BackboneError>(())
/// ```
///
/// # Errors
/// An unknown name or an option that it cannot have; the message lists what there is.
pub fn by_name(name: &str, options: &Value) -> Result<Box<dyn BackboneConfig>, BackboneError> {
    Ok(REGISTRY.by_name(name, options)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[test]
    fn complete_options_are_read_as_the_same_backbone() {
        let names: BTreeSet<&str> = BACKBONES.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), BACKBONES.len());
        for entry in BACKBONES {
            let options = match entry.name {
                "densenet" => json!({"stem_channels": 8, "growth_rate": 4, "block_layers": [1, 2]}),
                "convnext" => json!({"size": "tiny"}),
                "dinov2" => json!("small"),
                "ensemble" => json!({"members": ["resnet18", "densenet121"]}),
                "downsampled" => json!({"network": "densenet121"}),
                _ => Value::Null,
            };
            let net = entry.parse(&options).unwrap();
            let again = entry.parse(&net.options()).unwrap();
            assert_eq!(net.options(), again.options());
            assert_eq!(format!("{net:?}"), format!("{again:?}"));
            if let Value::Object(options) = net.options() {
                // A published network does not say that it has no second pool.
                let names = entry.options.iter().map(|option| option.name);
                let known: BTreeSet<&str> = names
                    .filter(|name| *name != "max_pool_after_layer1")
                    .collect();
                let complete: BTreeSet<&str> = options.keys().map(String::as_str).collect();
                assert_eq!(known, complete, "{}", entry.name);
            }
        }
    }

    #[test]
    fn an_unknown_name_lists_the_others() {
        let error = by_name("resnet-50", &Value::Null).unwrap_err().to_string();
        assert!(
            error.contains("`densenet121`") && error.contains("`dinov2`"),
            "{error}"
        );
    }
}
