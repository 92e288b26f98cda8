//! Age, sex and view of images on the command line, for models that ask for them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::ensure;
use cxr_dataset::{AttributeTable, ImageAttributes};
use cxr_model::{InputEncoding, InputValue};
use sha2::{Digest as _, Sha256};

use crate::progress::say;

/// Where ages, sexes and views come from.
#[derive(Debug, clap::Args)]
pub(crate) struct NonImageArg {
    /// Age, sex and view of the images, for a model that asks for them: a table with the image's name in the first column
    /// and columns age, sex and view, or a data set's label table. What it does not say is taken from DICOM files and
    /// stores; what they do not say either, the model is told to be missing
    #[arg(long, value_name = "TABLE")]
    non_image: Option<PathBuf>,
}

impl NonImageArg {
    /// Whether there is a table.
    pub(crate) fn is_given(&self) -> bool {
        self.non_image.is_some()
    }

    /// What the table says of each of some images, for a model that asks for `inputs`; nothing without a table.
    ///
    /// # Errors
    /// A table that cannot be read, or one for a model that asks for nothing.
    pub(crate) fn of_images<'a>(
        &self,
        inputs: &[InputEncoding],
        images: impl IntoIterator<Item = &'a str>,
    ) -> anyhow::Result<Vec<ImageAttributes>> {
        let Some(path) = &self.non_image else {
            return Ok(Vec::new());
        };
        ensure!(
            !inputs.is_empty(),
            "`--non-image`: the model reads the images alone, and asks for no age, sex or view"
        );
        let found = AttributeTable::read(path)?.of_images(images)?;
        let n_rows = found.iter().filter(|found| found.is_some()).count();
        if n_rows < found.len() {
            say(&format!(
                "`{}` names {n_rows} of {} images",
                path.display(),
                found.len()
            ));
        }
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }
}

/// A digest of what is known of some images; `None` where no table says anything.
pub(crate) fn digest(attributes: &[ImageAttributes]) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut digest = Sha256::new();
    for image in attributes {
        let mut add = |text: Option<String>| {
            digest.update(text.unwrap_or_default().as_bytes());
            digest.update([0]);
        };
        add(image.age_years.map(|years| years.to_string()));
        add(image.sex.map(|sex| sex.to_string()));
        add(image.view.map(|view| view.to_string()));
    }
    let digest = digest.finalize();
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a model asks for and does not get of an image, by name.
pub(crate) fn missing(inputs: &[InputEncoding], image: &ImageAttributes) -> Vec<String> {
    let is_missing = |input: &&InputEncoding| !matches!(input.value(image), InputValue::Known(_));
    let missing = inputs.iter().filter(is_missing);
    missing.map(|input| input.input().to_string()).collect()
}

/// How many images lack each input.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    by_input: BTreeMap<String, usize>,
    n_images: usize,
}

impl Missing {
    /// Counts an image that lacks these.
    pub(crate) fn add(&mut self, missing: &[String]) {
        self.n_images += 1;
        for input in missing {
            *self.by_input.entry(input.clone()).or_default() += 1;
        }
    }

    /// Warns of those that are missing of some.
    pub(crate) fn say(&self) {
        for (input, count) in &self.by_input {
            say(&format!(
                "warning: {count} of {} images have no usable `{input}`: the model was told that it is missing",
                self.n_images
            ));
        }
        if !self.by_input.is_empty() {
            say(
                "hint: `--non-image TABLE` says age (whole years up to 120), sex (F or M) and view (PA or AP) of images",
            );
        }
    }
}
