//! Several data sets in folders of one folder, as one.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    Blanks, DataFolder, DatasetError, Found, ImageName, Index, MergeSource, Part, Split, Survey,
    SurveyOptions,
};

/// One of several data sets that are trained on together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Its folder, below the one that has all. Its images are called `folder/name`, and so are its patients.
    pub folder: ImageName,
    /// How much of an epoch is drawn of its images, in proportion to the other sets' weights; every image once an epoch where
    /// no set has a weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
}

/// Surveys each set by itself, with its own parts, and makes one of them.
pub(crate) fn survey(
    folder: &DataFolder,
    options: &SurveyOptions,
    found: &mut dyn FnMut(Found<'_>),
) -> Result<Survey, DatasetError> {
    let of_set = SurveyOptions {
        sets: Vec::new(),
        // A rule may be of a label that one of them does not have.
        blank: Blanks::default(),
        ..options.clone()
    };
    let mut surveys = Vec::with_capacity(options.sets.len());
    for set in &options.sets {
        let of_set = folder.set(&set.folder).survey(&of_set, found)?;
        surveys.push((set.folder.as_str(), of_set));
    }
    let sources: Vec<MergeSource<'_>> = (surveys.iter())
        .map(|(name, survey)| {
            MergeSource::new(&survey.index)
                .in_folder(name)
                .patient_prefix(&format!("{name}/"))
        })
        .collect();
    let index = Index::merge(&sources)?.with_blanks(&options.blank)?;
    let splits: Vec<(&str, &Split)> = (surveys.iter())
        .map(|(name, survey)| (*name, &survey.split))
        .collect();
    let split = Split::joined(&index, &splits)?;
    let ready = folder.store_of(options)?;
    let mut files = HashMap::new();
    let mut read = Vec::new();
    for (name, survey) in &surveys {
        for (image, path) in &survey.files {
            files.insert(below(name, image)?, path.clone());
        }
        read.extend(survey.read.iter().cloned());
    }
    let split = match &ready {
        Some(store) => {
            found(Found::Store(store));
            folder.without_missing_in(&split, store, found)?
        }
        None => split,
    };
    let settings = crate::StoreSettings::new(options.side)?;
    Ok(Survey {
        index,
        split,
        settings,
        ready,
        files,
        read,
        is_phantom: surveys.iter().any(|(_, survey)| survey.is_phantom),
    })
}

/// The name of an image of a set.
pub(crate) fn below(folder: &str, image: &ImageName) -> Result<ImageName, DatasetError> {
    ImageName::new(&format!("{folder}/{image}"))
}

impl Split {
    /// The splits of several sets as one, whose images are called `folder/name`.
    fn joined(index: &Index, splits: &[(&str, &Self)]) -> Result<Self, DatasetError> {
        let images = |part: Part| -> Result<Vec<ImageName>, DatasetError> {
            let all = splits.iter().flat_map(|(folder, split)| {
                split
                    .part(part)
                    .iter()
                    .map(move |image| below(folder, image))
            });
            all.collect()
        };
        let [train, validation, test] = Part::ALL.map(images);
        let joined = Self::from_lists(index, train?, validation?, test?)?;
        Ok(splits
            .iter()
            .fold(joined, |joined, (_, split)| joined.counting_those_of(split)))
    }
}
