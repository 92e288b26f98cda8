//! A part of a network, by its name.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A part of a network as experiment files and model files name it: `"densenet121"`, or a name with options, `{ linear
/// = { dropout = 0.1 } }`.
///
/// What the options mean is the business of whoever builds the part; here they are only kept. An empty table of options
/// is not the same as none: `{ linear = {} }` asks for the defaults of `linear`, and the registry that knows `linear`
/// fills them in.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    name: String,
    options: Option<Value>,
}

/// What parts are called that no registry knows.
const CUSTOM: &str = "custom";

impl Component {
    /// A part without options.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            options: None,
        }
    }

    /// A part with options.
    pub fn with_options(name: impl Into<String>, options: Value) -> Self {
        Self {
            name: name.into(),
            options: Some(options),
        }
    }

    /// The part of the same name with all its options; [`Value::Null`] for one that has none.
    #[must_use]
    pub fn completed(&self, options: Value) -> Self {
        match options {
            Value::Null => Self::named(&self.name),
            options => Self::with_options(&self.name, options),
        }
    }

    /// A part that no registry knows, by its author's name for it: `{ custom = "max" }`. Only a program that has it can
    /// build it.
    pub fn custom(name: impl Into<String>) -> Self {
        Self::with_options(CUSTOM, Value::String(name.into()))
    }

    /// The author's name for a part that no registry knows.
    pub fn custom_name(&self) -> Option<&str> {
        match self.name == CUSTOM {
            true => self.options().as_str(),
            false => None,
        }
    }

    /// The name, as in a registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The options; [`Value::Null`] where there are none.
    pub fn options(&self) -> &Value {
        self.options.as_ref().unwrap_or(&Value::Null)
    }
}

/// The name, and the options as JSON where there are any.
impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.options {
            None => write!(f, "{}", self.name),
            Some(options) => write!(f, "{} {options}", self.name),
        }
    }
}

impl Serialize for Component {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(options) = &self.options else {
            return serializer.serialize_str(&self.name);
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.name, options)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Component {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ComponentVisitor)
    }
}

struct ComponentVisitor;

impl<'de> Visitor<'de> for ComponentVisitor {
    type Value = Component;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name, or one name with its options")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Component, E> {
        Ok(Component::named(name))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Component, A::Error> {
        let Some((name, options)) = map.next_entry::<String, Value>()? else {
            return Err(A::Error::custom(
                "expected a name with its options, got an empty table",
            ));
        };
        if let Some(second) = map.next_key::<String>()? {
            return Err(A::Error::custom(format!(
                "expected one name with its options, got `{name}` and `{second}`"
            )));
        }
        Ok(Component::with_options(name, options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Model {
        backbone: Component,
    }

    #[test]
    fn names_and_options_survive_toml_and_json() {
        for text in [
            "backbone = \"densenet121\"\n",
            "[backbone]\ndinov2 = \"small\"\n",
            "[backbone.densenet]\nblock_layers = [\n    1,\n    2,\n]\ngrowth_rate = 4\nnorm_momentum = 0.1\n",
        ] {
            let model: Model = toml::from_str(text).unwrap();
            assert_eq!(
                toml::from_str::<Model>(&toml::to_string(&model).unwrap()).unwrap(),
                model
            );
            let json = serde_json::to_string(&model).unwrap();
            assert_eq!(serde_json::from_str::<Model>(&json).unwrap(), model);
        }
    }

    #[test]
    fn a_component_of_ones_own_has_its_author_s_name() {
        let model: Model = toml::from_str("backbone = { custom = \"mine\" }").unwrap();
        assert_eq!(model.backbone, Component::custom("mine"));
        assert_eq!(model.backbone.custom_name(), Some("mine"));
        let named = ["backbone = \"custom\"", "backbone = { custom = { a = 1 } }"];
        for text in named {
            let model: Model = toml::from_str(text).unwrap();
            assert_eq!(model.backbone.custom_name(), None, "{text}");
        }
        assert_eq!(Component::named("mine").custom_name(), None);
    }

    #[test]
    fn options_keep_their_kinds_of_numbers() {
        let model: Model = toml::from_str("backbone = { net = { a = 1, b = 1.0 } }").unwrap();
        assert!(model.backbone.options()["a"].is_u64());
        assert!(model.backbone.options()["b"].is_f64());
    }

    #[test]
    fn what_is_no_component_is_refused() {
        for text in [
            "backbone = 1",
            "backbone = {}",
            "backbone = { a = {}, b = {} }",
            "backbone = [\"a\"]",
        ] {
            toml::from_str::<Model>(text).unwrap_err();
        }
    }
}
