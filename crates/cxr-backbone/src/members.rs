//! Backbones within a backbone, as experiment files name them: a name, or a table of one name with its options.

use cxr_ops::OptionError;
use serde_json::{Map, Value};

use crate::{BackboneConfig, by_name};

const EXPECTED: &str = "a backbone's name, or `{ name = { … } }`";

/// A backbone and what it is called.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) config: Box<dyn BackboneConfig>,
}

impl Member {
    /// The backbone that `value` names, the option `key`.
    pub(crate) fn parse(key: &str, value: &Value) -> Result<Self, OptionError> {
        let (name, options) = match value {
            Value::String(name) => (name, &Value::Null),
            Value::Object(table) if table.len() == 1 => match table.iter().next() {
                Some(entry) => entry,
                None => return Err(OptionError::new(key, EXPECTED, value)),
            },
            _ => return Err(OptionError::new(key, EXPECTED, value)),
        };
        let config = by_name(name, options)
            .map_err(|error| OptionError::new(key, EXPECTED, format!("`{name}`: {error}")))?;
        let name = name.clone();
        Ok(Self { name, config })
    }

    /// What [`Self::parse`] reads as this backbone, all options filled in.
    pub(crate) fn value(&self) -> Value {
        match self.config.options() {
            Value::Null => Value::String(self.name.clone()),
            options => Value::Object(Map::from_iter([(self.name.clone(), options)])),
        }
    }
}
