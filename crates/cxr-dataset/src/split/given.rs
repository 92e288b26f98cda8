//! A split that somebody has made: three lists.

use std::collections::HashSet;

use super::{Split, ValidationSplit, not_in_index};
use crate::{DatasetError, ImageName, Index};

impl Split {
    /// The split that three lists say; nothing is chosen here. Its rule is [`ValidationSplit::Lists`]. Patients in several
    /// of them are counted by [`Self::report`], not refused.
    ///
    /// # Errors
    /// [`DatasetError::Split`] for an image that is not in the index, or is listed twice.
    pub fn from_lists(
        index: &Index,
        train: Vec<ImageName>,
        validation: Vec<ImageName>,
        test: Vec<ImageName>,
    ) -> Result<Self, DatasetError> {
        let parts = [train, validation, test];
        let mut listed = HashSet::new();
        for name in parts.iter().flatten() {
            if index.get(name).is_none() {
                return Err(not_in_index(name));
            }
            if !listed.insert(name) {
                return Err(DatasetError::Split {
                    problem: format!("`{name}` is listed twice"),
                    repair: "list every image once, in one of the three lists".to_owned(),
                });
            }
        }
        Ok(Self {
            rule: ValidationSplit::Lists,
            seed: 0,
            parts,
            absent: [0; 3],
            excluded: [0; 3],
        })
    }

    /// With the absent and excluded images of another split beside its own.
    #[must_use]
    pub(crate) fn counting_those_of(mut self, other: &Self) -> Self {
        let own = self.absent.iter_mut().chain(&mut self.excluded);
        for (count, more) in own.zip(other.absent.iter().chain(&other.excluded)) {
            *count += more;
        }
        self
    }
}
