//! How fast this machine trains and predicts, before anything is trained.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use cxr_dataset::{ImageAttributes, ImageName};
use cxr_losses::LabelCounts;
use cxr_model::encode_inputs;
use cxr_ops::Phase;
use cxr_run::{TrainingConfig, Variant};

use crate::experiment::loss_of_model;
use crate::groups;
use crate::trainer::step::{NotFinite, Step, StepError};
use crate::{
    Alone, Batch, Classifier, ModelCard, Optimiser, Profile, TrainError, VariantExperiment,
    WeightAverage,
};

/// What a run's parts cost, measured with its own network, loss, optimiser and average on images that are
/// nothing but a formula's values. Reading and varying images is left out: it is done beside.
#[derive(Debug, Clone, PartialEq)]
pub struct Rehearsal {
    /// Training images a second in each stage, in order.
    pub training: Vec<f64>,
    /// Images a second in prediction, one view each.
    pub predicting: f64,
    /// Values of the network, running statistics included.
    pub values: usize,
    /// Values that each stage trains, in order: the optimiser keeps two more for each.
    pub trained: Vec<usize>,
}

/// Makes a step on `batch` images in each stage of the experiment, then steps for `budget`, and
/// predicts as long, for a network with `n_labels` logits.
///
/// # Errors
/// A network that cannot be made or trained so; `batch` below 2.
pub fn rehearse(
    variant: &VariantExperiment,
    n_labels: usize,
    batch: usize,
    budget: Duration,
    device: &Device,
) -> Result<Rehearsal, TrainError> {
    if batch < 2 {
        return Err(TrainError::setting("batch", "at least 2", batch));
    }
    let experiment = variant.experiment();
    let labels: Vec<String> = (0..n_labels).map(|label| label.to_string()).collect();
    let card = ModelCard::new(variant, &labels)?;
    let classifier = Classifier::new(&card, experiment.seed, device)?;
    let side = card.crop_size;
    let images = pattern(batch * 3 * side * side, 0.01)?.reshape((batch, 3, side, side))?;
    let images = images.to_device(device)?;
    // Weights of labels change no time, and labels have no names here.
    let chosen = Variant {
        label_weights: None,
        ..variant.chosen().clone()
    };
    let counts = LabelCounts {
        present: vec![1; n_labels],
        absent: vec![1; n_labels],
    };
    let targets = pattern(batch * n_labels, 1.)?.ge(0.5)?;
    let targets = targets.to_dtype(candle_core::DType::F32)?;
    let names = (0..batch).map(|index| ImageName::new(&format!("{index}.png")));
    let nothing_known = vec![ImageAttributes::default(); batch];
    let batch_of_images = Batch {
        images,
        non_image: encode_inputs(&card.inputs, nothing_known, device)?,
        targets: targets.reshape((batch, n_labels))?,
        mask: None,
        names: names.collect::<Result<_, _>>()?,
        image_keys: (0..batch as u64).collect(),
    };
    // Every step is on one batch, whatever the experiment accumulates.
    let training = TrainingConfig {
        gradient_accumulation_steps: 1,
        ..experiment.training.clone()
    };

    let mut rehearsal = Rehearsal {
        training: Vec::new(),
        predicting: 0.,
        values: classifier
            .parameters()
            .tensors("")
            .values()
            .map(Tensor::elem_count)
            .sum(),
        trained: Vec::new(),
    };
    for stage in &experiment.training.stages {
        // A loss's own variables, of which there are a handful, are left out.
        let trained = groups::trained(stage, classifier.parameters(), &[]);
        let mut optimiser = Optimiser::new(experiment.training.optimiser);
        let mut average = training.ema_decay.map(WeightAverage::new);
        let loss = loss_of_model(&chosen, &card, &counts)?;
        let step = Step {
            classifier: &classifier,
            loss: &*loss,
            loss_is_own: false,
            loss_variables: &[],
            training: &training,
            norm_statistics: stage.norm_statistics,
            trained: &trained,
            epoch: 0,
            step: 0,
            // The network stays finite, whatever its images are.
            learning_rate: 0.,
            n_batches: 1,
            ranks: &Alone,
            stop: &AtomicBool::new(false),
            profile: &Profile::OFF,
        };
        let rate = images_a_second(batch, budget, device, &mut || {
            let mut batches = std::iter::once(Ok(batch_of_images.clone()));
            let made = step.make(&mut optimiser, average.as_mut(), &mut batches, false);
            match made {
                Ok(_) => Ok(()),
                Err(StepError::Other(error)) => Err(*error),
                Err(StepError::NotFinite(NotFinite { what, .. })) => {
                    Err(TrainError::setting("network", "finite", what))
                }
            }
        })?;
        rehearsal.training.push(rate);
        let values = trained.iter().map(|trained| trained.var.elem_count());
        rehearsal.trained.push(values.sum());
    }
    rehearsal.predicting = images_a_second(batch, budget, device, &mut || {
        let Batch {
            images, non_image, ..
        } = &batch_of_images;
        classifier.forward_with(images, non_image.as_ref(), Phase::Evaluate)?;
        Ok(())
    })?;
    Ok(rehearsal)
}

/// The first call touches memory for the first time and does not count.
fn images_a_second(
    batch: usize,
    budget: Duration,
    device: &Device,
    step: &mut dyn FnMut() -> Result<(), TrainError>,
) -> Result<f64, TrainError> {
    step()?;
    device.synchronize()?;
    let begin = Instant::now();
    let mut steps = 0;
    while steps == 0 || begin.elapsed() < budget {
        step()?;
        device.synchronize()?;
        steps += 1;
    }
    Ok((steps * batch) as f64 / begin.elapsed().as_secs_f64())
}

/// Values in [0, 1) that are not all alike.
fn pattern(count: usize, step: f64) -> candle_core::Result<Tensor> {
    let golden = 0.618_033_988_749_895 * step;
    let values: Vec<f32> = (0..count)
        .map(|at| (at as f64 * golden).fract() as f32)
        .collect();
    Tensor::from_vec(values, count, &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Experiment;

    #[test]
    fn every_stage_is_measured_and_counted() {
        let experiment = Experiment::parse(
            r#"
            name = "tiny"
            [model]
            backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 1] } }
            head = { top-network = { conv_channels = [8, 8], hidden = 8 } }
            [augmentation]
            image_size = 64
            crop_size = 56
            [[training.stages]]
            name = "top network"
            epochs = 1
            frozen = ["features."]
            schedule = { constant = { learning_rate = 1e-3 } }
            [[training.stages]]
            name = "all layers"
            epochs = 1
            schedule = { constant = { learning_rate = 1e-3 } }
            [[variants]]
            name = "zlpr"
            loss = "zlpr"
            "#,
        )
        .unwrap();
        let variant = experiment.variant("zlpr").unwrap();
        let measured = |batch| rehearse(&variant, 3, batch, Duration::ZERO, &Device::Cpu);
        let made = measured(2).unwrap();
        assert!(made.training.iter().all(|&rate| rate > 0.) && made.predicting > 0.);
        let [top, all] = made.trained[..] else {
            panic!("{made:?}")
        };
        assert!(0 < top && top < all && all < made.values, "{made:?}");
        assert!(measured(1).is_err());
    }
}
