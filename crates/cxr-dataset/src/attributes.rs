//! What is known of an image besides its pixels and findings: age, sex and view, from tables, DICOM files and stores.

use std::collections::HashMap;
use std::path::Path;

use cxr_table::excerpt;

use crate::{DatasetError, Index, Sex, ViewPosition, formats, has_image_extension};

/// Age, sex and view of an image, each where it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ImageAttributes {
    /// Age in completed years, as recorded; tables also have impossible ones.
    pub age_years: Option<u16>,
    /// Sex as recorded.
    pub sex: Option<Sex>,
    /// How the radiograph was taken.
    pub view: Option<ViewPosition>,
}

impl ImageAttributes {
    /// The same, and what these do not say as `other` says it.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            age_years: self.age_years.or(other.age_years),
            sex: self.sex.or(other.sex),
            view: self.view.or(other.view),
        }
    }
}

/// Ages, sexes and views of images by their names.
///
/// ```
/// use cxr_dataset::AttributeTable;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("patients.csv");
/// std::fs::write(&path, "image,age,sex,view\nfilm.png,61,F,PA\nother.png,,M,\n")?;
/// let table = AttributeTable::read(&path)?;
/// let [film, stranger] = table.of_images(["scans/film.png", "scans/x.png"])?[..] else { panic!() };
/// assert_eq!(film.and_then(|film| film.age_years), Some(61));
/// assert_eq!(stranger, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct AttributeTable {
    path: std::path::PathBuf,
    by_name: HashMap<String, ImageAttributes>,
}

impl AttributeTable {
    /// Reads the label tables of a data set, as [`Index::read`] does, or a table without labels: the image's name or path in
    /// the first column, and columns `age`, `sex` and `view`, one of them at least, in any order and among others.
    ///
    /// # Errors
    /// As [`Index::read`]; a table that has none of the three columns, or names an image twice.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, DatasetError> {
        formats::read_attributes(path.as_ref())
    }

    /// What an index says of its images. Those of a published data set are also called without their first folder, where only
    /// one is called so: the tables of CheXpert begin every path with the name of the release.
    pub fn of(index: &Index, path: &Path) -> Self {
        let records = || index.records().iter();
        let by_name = records().map(|record| (record.name.to_string(), record.attributes()));
        let mut by_name: HashMap<String, ImageAttributes> = by_name.collect();
        let mut shorter: HashMap<&str, Option<ImageAttributes>> = HashMap::new();
        for record in records().filter(|_| index.has_ids()) {
            if let Some(rest) = record.name.without_root() {
                let held = shorter.entry(rest);
                held.and_modify(|held| *held = None)
                    .or_insert(Some(record.attributes()));
            }
        }
        for (name, attributes) in shorter {
            if let Some(attributes) = attributes {
                by_name.entry(name.to_owned()).or_insert(attributes);
            }
        }
        Self::new(path, by_name)
    }

    pub(crate) fn new(path: &Path, by_name: HashMap<String, ImageAttributes>) -> Self {
        Self {
            path: path.to_owned(),
            by_name,
        }
    }

    /// What is known of each of some images, in their order; `None` for one that the table does not name. An image is the row
    /// that is called as its path ends, or as that does without the extension of an image.
    ///
    /// # Errors
    /// [`DatasetError::Table`] for a row that two images are called by.
    pub fn of_images<'a>(
        &self,
        images: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<Option<ImageAttributes>>, DatasetError> {
        let mut taken: HashMap<&str, &str> = HashMap::new();
        let mut found = Vec::new();
        for image in images {
            let Some((row, attributes)) = self.row(image) else {
                found.push(None);
                continue;
            };
            if let Some(other) = taken.insert(row, image) {
                return Err(DatasetError::table(
                    &self.path,
                    format!(
                        "its row `{}` may be of `{}` and of `{}`",
                        excerpt(row),
                        excerpt(other),
                        excerpt(image)
                    ),
                    "write the folders too, so that every image has a row of its own",
                ));
            }
            found.push(Some(attributes));
        }
        Ok(found)
    }

    /// The row of an image, by the longest end of its path that names one.
    fn row(&self, image: &str) -> Option<(&str, ImageAttributes)> {
        let separators = |text: char| text == '/' || text == '\\';
        let begins = image.match_indices(separators).map(|(at, _)| at + 1);
        let ends = || {
            std::iter::once(0)
                .chain(begins.clone())
                .filter_map(|begin| image.get(begin..))
        };
        let without_extension = |end: &'_ str| -> Option<usize> {
            let (stem, _) = end.rsplit_once('.')?;
            has_image_extension(end).then_some(stem.len())
        };
        let whole = ends().find_map(|end| self.get(end));
        whole.or_else(|| ends().find_map(|end| self.get(end.get(..without_extension(end)?)?)))
    }

    fn get(&self, name: &str) -> Option<(&str, ImageAttributes)> {
        let name = match name.contains('\\') {
            true => name.replace('\\', "/"),
            false => name.to_owned(),
        };
        let (row, attributes) = self.by_name.get_key_value(&name)?;
        Some((row, *attributes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AttributeTable, DatasetError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.csv");
        std::fs::write(&path, text).unwrap();
        AttributeTable::read(&path)
    }

    #[test]
    fn images_are_found_by_the_ends_of_their_paths() {
        let table = read(
            "file,note,Patient Age,sex,View Position\n\
             a/1.png,tall,061Y,F,PA\n2.dcm,\"x, y\",1,,AP\n3,,,M,lateral\n",
        )
        .unwrap();
        let found = table
            .of_images(["/scans/a/1.png", "C:\\scans\\2.dcm", "deep/3.jpg", "1.png"])
            .unwrap();
        let [first, second, third, stranger] = found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            first,
            Some(ImageAttributes {
                age_years: Some(61),
                sex: Some(Sex::Female),
                view: Some(ViewPosition::PosteroAnterior),
            })
        );
        assert_eq!(
            second.map(|found| (found.age_years, found.sex, found.view)),
            Some((Some(1), None, Some(ViewPosition::AnteroPosterior)))
        );
        assert_eq!(
            third.map(|found| (found.age_years, found.sex, found.view)),
            Some((None, Some(Sex::Male), Some(ViewPosition::Lateral)))
        );
        assert_eq!(stranger, None);
    }

    /// A row of a bare file name in a folder for each patient once would have been everybody's.
    #[test]
    fn one_row_is_of_one_image() {
        let table = read("image,age\nview1.png,50\n").unwrap();
        let error = table
            .of_images(["p1/view1.png", "p2/view1.png"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`view1.png` may be of `p1/view1.png` and of `p2/view1.png`"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (text, says) in [
            ("image,Edema\na.png,1\n", "`age`, `sex` or `view`"),
            ("image,age\na.png,old\n", "whole years"),
            ("image,sex\na.png,7\n", "`F`, `M` or `Unknown`"),
            ("image,view\na.png,upside down\n", "`PA`, `AP` or `lateral`"),
            ("image,age\na.png,1\na.png,2\n", "`a.png` is listed twice"),
            ("image,age,Patient Age\na.png,1,2\n", "say the same"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_published_label_table_is_one_too() {
        let table = read(
            "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n\
             CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0\n",
        )
        .unwrap();
        let [found] = table
            .of_images(["train/patient00001/study1/view1_frontal.jpg"])
            .unwrap()[..]
        else {
            panic!()
        };
        assert_eq!(found.and_then(|found| found.age_years), Some(68));
    }
}
