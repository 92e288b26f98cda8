//! What a head asks for beside the images: of how many images it is known.

use std::collections::BTreeMap;

use cxr_dataset::Part;
use cxr_model::InputEncoding;
use cxr_run::{InputCount, Parts};

use super::Trainer;
use crate::{ModelCard, TrainingData};

/// Warns of images of which is not known what the head asks for.
pub(super) fn say_unknown(card: &ModelCard, data: &TrainingData) {
    for part in Part::ALL {
        for (input, count) in data.count_inputs(&card.inputs, part) {
            let (part, total) = (part.name(), count.total());
            if count.missing > 0 {
                tracing::warn!(
                    "{} of {total} {part} images have no `{input}`: the head is given that it is missing",
                    count.missing
                );
            }
            if count.unusable > 0 {
                tracing::warn!(
                    "{} of {total} {part} images have a `{input}` that has no number, such as an age above 120 years or a view that is neither PA nor AP: the head is given that it is missing",
                    count.unusable
                );
            }
        }
    }
    let n_before = match card.inputs.is_empty() {
        true => 0,
        false => data.n_not_looked_at(),
    };
    if n_before > 0 {
        tracing::warn!(
            "{n_before} images were prepared by an earlier version, which kept no age, sex and view of DICOM files\nhint: where they are DICOM files, delete `{}`, and they are prepared again",
            data.store().path().display()
        );
    }
}

impl Trainer<'_> {
    /// Of how many images is known what the head asks for.
    pub(super) fn inputs(&self) -> BTreeMap<String, Parts<InputCount>> {
        let counts = Parts::of(|part| self.data.count_inputs(&self.card.inputs, part));
        let names = self.card.inputs.iter().map(InputEncoding::input);
        names
            .map(|input| {
                let of = |counts: &BTreeMap<String, InputCount>| {
                    counts.get(input.name()).copied().unwrap_or_default()
                };
                let of_input = Parts {
                    train: of(&counts.train),
                    validation: of(&counts.validation),
                    test: of(&counts.test),
                };
                (input.to_string(), of_input)
            })
            .collect()
    }
}
