//! Frozen feature extractors as experiment files name them.

use std::path::Path;

use cxr_ops::{OptionEntry, OptionError, ParameterPath, Parameters, parse_options};
use serde_json::Value;

use super::{ConvNextConfig, DinoV2Config, FrozenConfig, FrozenExtractor, TransformerSizes};
use crate::{
    Backbone, BackboneConfig, BackboneEntry, BackboneError, PretrainedError, PretrainedReport,
    load_extractor,
};

/// ConvNeXt.
pub(crate) const CONVNEXT: BackboneEntry = BackboneEntry::new(
    "convnext",
    "ConvNeXt or ConvNeXt V2, frozen, under timm's names",
    &[
        OptionEntry::new(
            "size",
            "`atto`, `femto`, `pico`, `nano`, `tiny`, `small`, `base` or `large`",
        ),
        OptionEntry::new("v2", "`true` for the second version"),
    ],
    |options| {
        let config: ConvNextConfig = parse_options(options, CONVNEXT.options)?;
        Ok(Box::new(FrozenConfig::ConvNext(config)))
    },
);

/// DINOv2.
pub(crate) const DINOV2: BackboneEntry = BackboneEntry::new(
    "dinov2",
    "DINOv2, frozen, under its authors' names; `small`, `base`, `large` or sizes",
    &[
        OptionEntry::new("depth", "layers, at least 1"),
        OptionEntry::new("width", "features of a token, a multiple of `heads`"),
        OptionEntry::new("heads", "heads of attention, at least 1"),
    ],
    |options| {
        let config = match options {
            Value::String(size) => match size.as_str() {
                "small" => DinoV2Config::Small,
                "base" => DinoV2Config::Base,
                "large" => DinoV2Config::Large,
                other => {
                    let expected = "`small`, `base`, `large` or sizes";
                    return Err(OptionError::new("", expected, format!("`{other}`")));
                }
            },
            sizes => {
                let sizes: TransformerSizes = parse_options(sizes, DINOV2.options)?;
                sizes.check()?;
                DinoV2Config::Other(sizes)
            }
        };
        Ok(Box::new(FrozenConfig::DinoV2(config)))
    },
);

impl BackboneConfig for FrozenConfig {
    fn options(&self) -> Value {
        let options = match self {
            Self::ConvNext(config) => serde_json::to_value(config),
            Self::DinoV2(config) => serde_json::to_value(config),
        };
        options.unwrap_or_default()
    }

    fn build(&self, path: &ParameterPath) -> Result<Box<dyn Backbone>, BackboneError> {
        Ok(Box::new(FrozenExtractor::new(self, path)?))
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        FrozenConfig::feature_shape(self, height, width)
    }

    fn is_trainable(&self) -> bool {
        false
    }

    fn side_multiple(&self) -> usize {
        self.patch()
    }

    fn load_weights(
        &self,
        path: &Path,
        parameters: &Parameters,
        prefix: &str,
    ) -> Result<PretrainedReport, PretrainedError> {
        load_extractor(path, parameters, prefix)
    }
}
