//! Several data sets in one: which images are of which, and how often each is drawn.

use cxr_dataset::ImageName;

use crate::{Experiment, TrainError, TrainingData, WeightedSampler};

/// Draws of each of several data sets in proportion to its weight; `None` where they have none.
pub(super) fn of_sets(
    experiment: &Experiment,
    data: &TrainingData,
) -> Result<Option<WeightedSampler>, TrainError> {
    let sets = &experiment.data.sets;
    let weight_of = |name: &ImageName| {
        let set = sets.iter().position(|set| is_of(&set.folder, name))?;
        Some((set, sets.get(set)?.weight?))
    };
    let mut counts = vec![0_usize; sets.len()];
    let mut weights = Vec::new();
    for name in data.split().train() {
        let Some((set, weight)) = weight_of(name) else {
            return Ok(None);
        };
        if let Some(count) = counts.get_mut(set) {
            *count += 1;
        }
        weights.push((name.clone(), set, weight));
    }
    let of_image = |(name, set, weight): (ImageName, usize, f64)| {
        let count = counts.get(set).copied().unwrap_or(1);
        (name, weight / count as f64)
    };
    let sampler = WeightedSampler::new("data sets", weights.into_iter().map(of_image))?;
    Ok((!sets.is_empty()).then_some(sampler))
}

/// Whether an image is of the data set in this folder.
pub(super) fn is_of(folder: &ImageName, image: &ImageName) -> bool {
    let rest = image.as_str().strip_prefix(folder.as_str());
    rest.is_some_and(|rest| rest.starts_with('/'))
}
