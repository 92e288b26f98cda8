//! The network of an experiment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Component;

/// The name of the paper's top network, which is the head where none is given.
const TOP_NETWORK: &str = "top-network";

/// The network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ModelKeys")]
pub struct ModelConfig {
    /// The feature extractor, `"densenet121"` unless given.
    pub backbone: Component,
    /// A safetensors file with the backbone's weights, relative to the working directory; without
    /// one the backbone starts from random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// What stands between feature maps and logits: the paper's top network unless given.
    pub head: Component,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            backbone: default_backbone(),
            weights: None,
            head: Component::named(TOP_NETWORK),
        }
    }
}

fn default_backbone() -> Component {
    Component::named("densenet121")
}

/// The keys of the table, old ones included.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelKeys {
    #[serde(default = "default_backbone")]
    backbone: Component,
    weights: Option<PathBuf>,
    head: Option<Component>,
    top: Option<Value>,
}

impl TryFrom<ModelKeys> for ModelConfig {
    type Error = String;

    fn try_from(keys: ModelKeys) -> Result<Self, String> {
        Ok(Self {
            backbone: keys.backbone,
            weights: keys.weights,
            head: head_of_keys(keys.head, keys.top)?,
        })
    }
}

/// The head that the keys `head` and `top` give, of an experiment's table `model` or of a model file: the options of the
/// top network once stood under `top`, whatever the head was.
///
/// # Errors
/// Options of the top network under both.
pub fn head_of_keys(head: Option<Component>, top: Option<Value>) -> Result<Component, String> {
    let head = head.unwrap_or_else(|| Component::named(TOP_NETWORK));
    match top {
        Some(top) if head.name() == TOP_NETWORK => match head.options() {
            Value::Null => Ok(Component::with_options(TOP_NETWORK, top)),
            _ => Err(format!(
                "the options of `{TOP_NETWORK}` stand under `head` and under `top`, which is the old place for them: \
                 leave out `top`"
            )),
        },
        _ => Ok(head),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> ModelConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_old_place_of_the_top_networks_options_is_read() {
        let options = json!({"hidden": 8});
        let expected = Component::with_options("top-network", options);
        for text in [
            "top = { hidden = 8 }",
            "head = \"top-network\"\n[top]\nhidden = 8",
            "head = { top-network = { hidden = 8 } }",
        ] {
            assert_eq!(parse(text).head, expected, "{text}");
        }
        // Earlier versions wrote the table into every complete file.
        let linear = parse("head = { linear = {} }\n[top]\nhidden = 8").head;
        assert_eq!(linear, Component::with_options("linear", json!({})));
        let text = "head = { top-network = { hidden = 8 } }\ntop = { hidden = 8 }";
        let error = toml::from_str::<ModelConfig>(text).unwrap_err().to_string();
        assert!(error.contains("leave out `top`"), "{error}");
    }

    #[test]
    fn what_is_not_given_is_the_papers() {
        assert_eq!(parse(""), ModelConfig::default());
        let error = toml::from_str::<ModelConfig>("bakbone = \"x\"").unwrap_err();
        assert!(error.to_string().contains("unknown field `bakbone`"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let model = parse(
            "weights = \"w\"\nhead = { linear = { dropout = 0.5 } }\nbackbone = { dinov2 = \"small\" }",
        );
        let text = toml::to_string(&model).unwrap();
        assert_eq!(parse(&text), model);
    }
}
