//! Phantoms that `cxr_phantom::write_dataset` has written, as data to train on: for examples and tests.

use std::error::Error;
use std::path::Path;

use cxr_dataset::{
    ImageName, Index, OfficialLists, Part, PrepareOptions, Split, StoreSettings, ValidationSplit,
    prepare,
};
use cxr_train::TrainingData;

/// Prepares the phantoms of a folder; a tenth of those that are not for the test validates.
pub(crate) fn prepared(
    folder: &Path,
    side: u32,
    split_seed: u64,
) -> Result<TrainingData, Box<dyn Error>> {
    let index = Index::read(folder.join("Data_Entry_2017_v2020.csv"))?;
    let lists = OfficialLists::read(
        folder.join("train_val_list.txt"),
        folder.join("test_list.txt"),
    )?;
    let split = Split::new(&index, &lists, ValidationSplit::Paper, split_seed)?;
    let sources: Vec<(ImageName, _)> = (Part::ALL.into_iter().flat_map(|part| split.part(part)))
        .map(|name| (name.clone(), folder.join("images").join(name.as_str())))
        .collect();
    let store = folder.join("images.store");
    let settings = StoreSettings::new(side)?;
    let prepared = prepare(&sources, store, settings, PrepareOptions::default())?;
    if let Some((name, error)) = prepared.failures().first() {
        return Err(format!("`{name}`: {error}").into());
    }
    Ok(TrainingData::new(index, split, prepared.commit()?)?)
}
