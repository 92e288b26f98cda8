//! The published lists of images to train on and to test on.

use std::collections::HashSet;
use std::path::Path;

use cxr_table::{numbered_lines, read_text};

use crate::split::{by_patient, first_of};
use crate::{DatasetError, ImageName, Index};

/// Which images belong to training and validation together, and which to the test.
///
/// No image is in both, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfficialLists {
    train_val: Vec<ImageName>,
    test: Vec<ImageName>,
}

impl OfficialLists {
    /// Reads two lists of one image name a line, such as NIH's `train_val_list.txt` and
    /// `test_list.txt`, in any encoding and with any line ends that [`Index::read`] reads. Blank lines are
    /// skipped; the last line needs no end.
    ///
    /// # Errors
    /// An unreadable or empty list, a line that is no image name, or an image listed twice.
    pub fn read(train_val: impl AsRef<Path>, test: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let mut listed = HashSet::new();
        Ok(Self {
            train_val: read_list(train_val.as_ref(), &mut listed)?,
            test: read_list(test.as_ref(), &mut listed)?,
        })
    }

    /// Lists made in memory.
    ///
    /// # Errors
    /// [`DatasetError::Split`] for an empty list or an image that occurs twice.
    pub fn new(train_val: Vec<ImageName>, test: Vec<ImageName>) -> Result<Self, DatasetError> {
        let refuse = |problem: String, repair: &str| {
            Err(DatasetError::Split {
                problem,
                repair: repair.to_owned(),
            })
        };
        if train_val.is_empty() || test.is_empty() {
            return refuse(
                "one of the lists is empty".to_owned(),
                "list images for both",
            );
        }
        let mut listed = HashSet::new();
        for name in train_val.iter().chain(&test) {
            if !listed.insert(name) {
                return refuse(format!("`{name}` is listed twice"), "list every image once");
            }
        }
        Ok(Self { train_val, test })
    }

    /// Lists for a data set that has none: one in `of` images is for the test, as
    /// [`Split`](crate::Split) chooses validation images by `seed`. Where the index knows the
    /// patients the test has whole patients, with its share of each label's positive images; where
    /// it knows none it has single images.
    ///
    /// # Errors
    /// [`DatasetError::Split`] unless `of` is from 2 to the number of images (or patients), or when
    /// the patients of some images are known and those of others are not.
    pub fn hold_out(index: &Index, seed: u64, of: usize) -> Result<Self, DatasetError> {
        let names: Vec<ImageName> = (index.records().iter())
            .map(|record| record.name.clone())
            .collect();
        let anonymous = index.n_patients() == 0;
        let n_units = if anonymous {
            names.len()
        } else {
            index.n_patients()
        };
        if !(2..=n_units).contains(&of) {
            return Err(DatasetError::Split {
                problem: format!("one in {of} cannot be taken of {n_units}"),
                repair: "take one in 2 or more".to_owned(),
            });
        }
        let (test, train_val) = if anonymous {
            let chosen = first_of(names.iter().collect(), seed, of);
            (names.iter().cloned()).partition(|name| chosen.contains(name))
        } else {
            by_patient(index, &names, seed, 0, of)?
        };
        Self::new(train_val, test)
    }

    /// Writes the two lists as [`Self::read`] reads them.
    ///
    /// # Errors
    /// [`DatasetError::Io`].
    pub fn write(
        &self,
        train_val: impl AsRef<Path>,
        test: impl AsRef<Path>,
    ) -> Result<(), DatasetError> {
        let lists = [
            (train_val.as_ref(), &self.train_val),
            (test.as_ref(), &self.test),
        ];
        for (path, names) in lists {
            let mut text = String::new();
            for name in names {
                text += name.as_str();
                text.push('\n');
            }
            cxr_fs::write(path, text.as_bytes())?;
        }
        Ok(())
    }

    /// The images of training and validation, in the list's order.
    pub fn train_val(&self) -> &[ImageName] {
        &self.train_val
    }

    /// The images of the test, in the list's order.
    pub fn test(&self) -> &[ImageName] {
        &self.test
    }
}

fn read_list(path: &Path, listed: &mut HashSet<ImageName>) -> Result<Vec<ImageName>, DatasetError> {
    let text = read_text(path)?;
    let mut names = Vec::new();
    for (line_number, line) in numbered_lines(&text) {
        if line.trim().is_empty() {
            continue;
        }
        let name = ImageName::new(line.trim()).map_err(|refused| {
            DatasetError::line(
                path,
                line_number,
                refused.to_string(),
                "write one image name a line",
            )
        })?;
        if !listed.insert(name.clone()) {
            return Err(DatasetError::line(
                path,
                line_number,
                format!("`{name}` is listed twice, here or in the other list"),
                "list every image once, for training or for the test",
            ));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(DatasetError::table(
            path,
            "expected image names, got an empty list",
            "write one image name a line",
        ));
    }
    Ok(names)
}
