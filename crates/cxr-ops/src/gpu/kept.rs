//! What is made once and kept as long as nothing went wrong with it.

use std::collections::HashMap;
use std::hash::Hash;

use candle_core::Result;

/// See the module.
#[derive(Debug)]
pub(super) struct Kept<K, V>(HashMap<K, V>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V> Kept<K, V> {
    /// Works with what is kept under `key`, which is made where it is missing. After an error it is dropped, with whatever
    /// state the error left in it.
    pub(super) fn with<T>(
        &mut self,
        key: K,
        make: impl FnOnce() -> Result<V>,
        work: impl FnOnce(&V) -> Result<T>,
    ) -> Result<T> {
        let value = match self.0.remove(&key) {
            Some(value) => value,
            None => make()?,
        };
        let done = work(&value)?;
        self.0.insert(key, value);
        Ok(done)
    }

    /// Drops all of it.
    #[cfg(feature = "cuda")]
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose capture failed, and the error that cudarc noted when its memory was freed, were used again.
    #[test]
    fn what_failed_is_made_again() {
        let mut kept = Kept::default();
        let mut made = 0;
        let mut run = |fails: bool| {
            let make = || {
                made += 1;
                Ok(made)
            };
            kept.with("device", make, |&number| match fails {
                true => candle_core::bail!("the capture failed"),
                false => Ok(number),
            })
        };
        assert_eq!(run(false).ok(), Some(1));
        assert_eq!(run(false).ok(), Some(1));
        assert!(run(true).is_err());
        assert_eq!(run(false).ok(), Some(2));
        assert_eq!(run(false).ok(), Some(2));
    }
}
