//! Parts of networks by their names: what the registries of backbones and heads have in common.

use std::fmt;

use serde_json::Value;

use crate::{OptionEntry, OptionError};

/// A part of a network that experiment files can name. `C` is what it is before it has parameters: its checked options.
#[non_exhaustive]
pub struct Entry<C: ?Sized + 'static> {
    /// The name, as in experiment files.
    pub name: &'static str,
    /// What it is, in a few words.
    pub summary: &'static str,
    /// Its options, in the order in which they are documented.
    pub options: &'static [OptionEntry],
    parse: fn(&Value) -> Result<Box<C>, OptionError>,
}

impl<C: ?Sized> Entry<C> {
    /// An entry whose options `parse` reads and checks; [`parse_options`](crate::parse_options) reads a table.
    pub const fn new(
        name: &'static str,
        summary: &'static str,
        options: &'static [OptionEntry],
        parse: fn(&Value) -> Result<Box<C>, OptionError>,
    ) -> Self {
        Self {
            name,
            summary,
            options,
            parse,
        }
    }

    /// The part with these options, [`Value::Null`] where there are none; those left out have their defaults.
    ///
    /// # Errors
    /// An option that is unknown, missing, of another type or out of its range.
    pub fn parse(&self, options: &Value) -> Result<Box<C>, OptionError> {
        (self.parse)(options)
    }

    /// The part called `name` among `entries`, with these options; `kind` is what they are, for the error.
    ///
    /// # Errors
    /// An unknown name, or an option that it cannot have.
    pub fn by_name(
        kind: &'static str,
        entries: &[Self],
        name: &str,
        options: &Value,
    ) -> Result<Box<C>, EntryError> {
        let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
            let names: Vec<String> = (entries.iter())
                .map(|entry| format!("`{}`", entry.name))
                .collect();
            return Err(EntryError::Unknown {
                kind,
                name: name.to_owned(),
                available: names.join(", "),
            });
        };
        entry.parse(options).map_err(|source| EntryError::Option {
            kind,
            name: name.to_owned(),
            source: Box::new(source),
        })
    }
}

// Derived, these would ask the same of `C`.
impl<C: ?Sized> Clone for Entry<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized> Copy for Entry<C> {}

impl<C: ?Sized> fmt::Debug for Entry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("summary", &self.summary)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Why a registry does not have what is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// No entry has the name.
    #[error("unknown {kind} `{name}`; there are {available}")]
    Unknown {
        /// What the entries are, such as `backbone`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        available: String,
    },
    /// A name that is to be registered, and is another entry's.
    #[error("there is a {kind} `{name}` already")]
    Taken {
        /// What the entries are.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A name that is to be registered, and that no file could have.
    #[error(
        "a {kind} cannot be called `{name}`; expected letters, digits, `-`, `_` and `.`, and another name than `custom`"
    )]
    Name {
        /// What the entries are.
        kind: &'static str,
        /// The name, escaped.
        name: String,
    },
    /// An option that it cannot have.
    #[error("{kind} `{name}`: {source}")]
    Option {
        /// What the entries are.
        kind: &'static str,
        /// The entry's name.
        name: String,
        /// The option.
        source: Box<OptionError>,
    },
}
