//! The parts of one kind that experiment files can name: ours, and those that a program registers.

use std::fmt;
use std::sync::{PoisonError, RwLock};

use serde_json::Value;

use crate::{Entry, EntryError};

/// The parts of one kind by their names: those of this workspace, and those that a program [registers](Self::register),
/// for as long as it runs. `C` is as for an [`Entry`].
pub struct Registry<C: ?Sized + 'static> {
    kind: &'static str,
    ours: &'static [Entry<C>],
    registered: RwLock<Vec<Entry<C>>>,
}

impl<C: ?Sized> Registry<C> {
    /// A registry of `ours`; `kind` is what they are called in errors, such as `backbone`.
    pub const fn new(kind: &'static str, ours: &'static [Entry<C>]) -> Self {
        Self {
            kind,
            ours,
            registered: RwLock::new(Vec::new()),
        }
    }

    /// From now on the entry's name is one that experiment files and model files may have.
    ///
    /// # Errors
    /// [`EntryError::Taken`]; [`EntryError::Name`] for a name that no file could have.
    pub fn register(&self, entry: Entry<C>) -> Result<(), EntryError> {
        let (kind, name) = (self.kind, entry.name);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // `{ custom = "name" }` is a part that is given to a trainer.
        if name.is_empty() || name == "custom" || !name.chars().all(is_plain) {
            let name = name.escape_debug().to_string();
            return Err(EntryError::Name { kind, name });
        }
        let mut registered = (self.registered.write()).unwrap_or_else(PoisonError::into_inner);
        if self
            .ours
            .iter()
            .chain(&*registered)
            .any(|other| other.name == name)
        {
            let name = name.to_owned();
            return Err(EntryError::Taken { kind, name });
        }
        registered.push(entry);
        Ok(())
    }

    /// All of them, ours first.
    pub fn entries(&self) -> Vec<Entry<C>> {
        let registered = (self.registered.read()).unwrap_or_else(PoisonError::into_inner);
        self.ours.iter().chain(&*registered).copied().collect()
    }

    /// The part called `name`, with these options.
    ///
    /// # Errors
    /// An unknown name, or an option that it cannot have.
    pub fn by_name(&self, name: &str, options: &Value) -> Result<Box<C>, EntryError> {
        Entry::by_name(self.kind, &self.entries(), name, options)
    }
}

impl<C: ?Sized> fmt::Debug for Registry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.entries().iter().map(|entry| entry.name).collect();
        f.debug_tuple("Registry").field(&names).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_registered_once_and_ours_stay() {
        const fn entry(name: &'static str) -> Entry<str> {
            Entry::new(name, "", &[], |options| Ok(options.to_string().into()))
        }
        static REGISTRY: Registry<str> = Registry::new("word", &[entry("ours")]);
        REGISTRY.register(entry("mine-2.0")).unwrap();
        for name in ["ours", "mine-2.0"] {
            let error = REGISTRY.register(entry(name)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("there is a word `{name}` already")
            );
        }
        for name in ["", "custom", "a b", "a/b", "ö"] {
            let error = REGISTRY.register(entry(name)).unwrap_err();
            assert!(matches!(error, EntryError::Name { .. }), "{name}: {error}");
        }
        let names: Vec<&str> = REGISTRY.entries().iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["ours", "mine-2.0"]);
        assert_eq!(
            &*REGISTRY.by_name("mine-2.0", &Value::Bool(true)).unwrap(),
            "true"
        );
        let error = REGISTRY
            .by_name("yours", &Value::Null)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "unknown word `yours`; there are `ours`, `mine-2.0`");
    }
}
