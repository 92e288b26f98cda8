//! Options of a network's part, as experiment files and model files write them.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// An option that a part of a network takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptionEntry {
    /// The name, as in experiment files.
    pub name: &'static str,
    /// What it is, its range and its default, in a few words.
    pub summary: &'static str,
    /// The name that earlier versions had for it, which is still read.
    pub old_name: Option<&'static str>,
}

impl OptionEntry {
    /// An option.
    pub const fn new(name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            summary,
            old_name: None,
        }
    }

    /// The same option, which was once called `old_name`.
    #[must_use]
    pub const fn once_called(self, old_name: &'static str) -> Self {
        Self {
            old_name: Some(old_name),
            ..self
        }
    }
}

/// An option that a part of a network cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} must be {expected}, got {found}", named(key))]
#[non_exhaustive]
pub struct OptionError {
    /// The option, such as `growth_rate`; empty for the options as a whole.
    pub key: String,
    /// What it may be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

fn named(key: &str) -> String {
    match key {
        "" => "its options".to_owned(),
        key => format!("its option `{key}`"),
    }
}

impl OptionError {
    /// `key` must be `expected`, and is `found`.
    pub fn new(key: &str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self {
            key: key.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// Reads the options of a part: a table, or [`Value::Null`] where none are given. Old names are read as the new ones.
///
/// ```
/// use cxr_ops::{OptionEntry, parse_options};
/// use serde_json::json;
///
/// #[derive(Debug, PartialEq, serde::Deserialize)]
/// struct Options {
///     width: usize,
/// }
///
/// let known = [OptionEntry::new("width", "channels").once_called("maps")];
/// let options: Options = parse_options(&json!({"maps": 8}), &known)?;
/// assert_eq!(options, Options { width: 8 });
/// let error = parse_options::<Options>(&json!({"width": -1}), &known).unwrap_err();
/// assert_eq!(error.key, "width");
/// # Ok::<(), cxr_ops::OptionError>(())
/// ```
///
/// # Errors
/// Something else than a table, an unknown name, a name that is given beside its old one, a missing option, or a value
/// of another type.
pub fn parse_options<T: DeserializeOwned>(
    given: &Value,
    known: &[OptionEntry],
) -> Result<T, OptionError> {
    let options = match given {
        Value::Null => Map::new(),
        Value::Object(options) => with_new_names(options, known)?,
        other => return Err(OptionError::new("", list(known), kind(other))),
    };
    serde_path_to_error::deserialize(Value::Object(options)).map_err(|error| {
        let key = error.path().to_string();
        explain(&key, &error.into_inner().to_string())
    })
}

/// Which options are given by the names that earlier versions had for them: each old name with the new one.
pub fn old_names(given: &Value, known: &[OptionEntry]) -> Vec<(&'static str, &'static str)> {
    let with_old_name = known
        .iter()
        .filter_map(|entry| Some((entry.old_name?, entry.name)));
    with_old_name
        .filter(|(old, _)| given.get(old).is_some())
        .collect()
}

fn with_new_names(
    given: &Map<String, Value>,
    known: &[OptionEntry],
) -> Result<Map<String, Value>, OptionError> {
    let mut options = Map::new();
    for (name, value) in given {
        let is_entry =
            |entry: &&OptionEntry| entry.name == name || entry.old_name == Some(name.as_str());
        let Some(entry) = known.iter().find(is_entry) else {
            return Err(OptionError::new("", list(known), format!("`{name}`")));
        };
        if let Some(old) = entry.old_name
            && given.contains_key(old)
            && given.contains_key(entry.name)
        {
            let expected = format!("given once, and not as `{old}` too");
            return Err(OptionError::new(entry.name, expected, "both"));
        }
        if value.is_null() {
            // TOML has no null: it is what JSON makes of such a number.
            let expected = "a finite number";
            return Err(OptionError::new(entry.name, expected, "nan or an infinity"));
        }
        options.insert(entry.name.to_owned(), value.clone());
    }
    Ok(options)
}

/// What options there are.
fn list(known: &[OptionEntry]) -> String {
    let names: Vec<_> = known
        .iter()
        .map(|entry| format!("`{}`", entry.name))
        .collect();
    match names.as_slice() {
        [] => "left out: there are none".to_owned(),
        names => format!("among {}", names.join(", ")),
    }
}

fn kind(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// The reader's message in the form of every other error of a setting.
fn explain(path: &str, message: &str) -> OptionError {
    // Where the table itself is wrong the path is a full stop.
    let path = if path == "." { "" } else { path };
    if let Some(name) =
        (message.strip_prefix("missing field `")).and_then(|rest| rest.split('`').next())
    {
        let key = match path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        };
        return OptionError::new(&key, "given", "nothing");
    }
    let Some((found, expected)) = message.rsplit_once(", expected ") else {
        return OptionError::new(path, "readable", message);
    };
    let found = found
        .trim_start_matches("invalid type: ")
        .trim_start_matches("invalid value: ");
    let expected = match expected {
        "usize" | "u64" => "a whole number of at least 0",
        "f64" => "a number",
        "a boolean" => "`true` or `false`",
        other => other,
    };
    OptionError::new(path, expected, found)
}

/// Refuses a number that is not in `range`, which `expected` describes.
///
/// # Errors
/// The option by its name.
pub fn check_option<N: PartialOrd + ToString>(
    key: &str,
    value: N,
    expected: &str,
    is_in_range: impl FnOnce(&N) -> bool,
) -> Result<(), OptionError> {
    match is_in_range(&value) {
        true => Ok(()),
        false => Err(OptionError::new(key, expected, value)),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sizes {
        layers: Vec<usize>,
        #[serde(default)]
        rate: f64,
        #[serde(default)]
        twice: bool,
    }

    const KNOWN: [OptionEntry; 3] = [
        OptionEntry::new("layers", "").once_called("blocks"),
        OptionEntry::new("rate", ""),
        OptionEntry::new("twice", ""),
    ];

    #[test]
    fn every_mistake_names_its_option() {
        for (given, expected) in [
            (
                json!({"layers": [1], "rat": 1.}),
                "its options must be among `layers`, `rate`, `twice`, got `rat`",
            ),
            (
                json!({"layers": [1, -2]}),
                "its option `layers[1]` must be a whole number of at least 0, got integer `-2`",
            ),
            (
                json!({"layers": [1], "rate": "x"}),
                "its option `rate` must be a number, got string \"x\"",
            ),
            (
                json!({"layers": [1], "rate": null}),
                "its option `rate` must be a finite number, got nan or an infinity",
            ),
            (
                json!({"layers": [1], "twice": 1}),
                "its option `twice` must be `true` or `false`, got integer `1`",
            ),
            (json!({}), "its option `layers` must be given, got nothing"),
            (
                json!({"layers": [1], "blocks": [1]}),
                "its option `layers` must be given once, and not as `blocks` too, got both",
            ),
            (
                json!("small"),
                "its options must be among `layers`, `rate`, `twice`, got \"small\"",
            ),
        ] {
            let error = parse_options::<Sizes>(&given, &KNOWN).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let error = parse_options::<()>(&json!({"a": 1}), &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its options must be left out: there are none, got `a`"
        );
    }

    #[test]
    fn old_names_are_read() {
        let given = json!({"blocks": [1, 2], "rate": 1});
        let sizes: Sizes = parse_options(&given, &KNOWN).unwrap();
        assert_eq!((sizes.layers, sizes.rate), (vec![1, 2], 1.));
        assert_eq!(old_names(&given, &KNOWN), [("blocks", "layers")]);
        assert_eq!(old_names(&json!({"layers": [1]}), &KNOWN), []);
        assert_eq!(old_names(&Value::Null, &KNOWN), []);
    }
}
