//! What a trainer writes: checkpoints, and models with what they say of their data.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use candle_core::Tensor;
use cxr_dataset::Part;
use cxr_fs::Staged;
use cxr_model::{DataCard, ValidationAucs, check_model, model_bytes};
use cxr_run::{Event, Position};

use super::Trainer;
use crate::checkpoint::{self, Identity};
use crate::{Experiment, ModelCard, Observer, TrainError, TrainingData, compute, save_model};

impl Trainer<'_> {
    pub(super) fn checkpoint(&self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let _span = self.profile.span("checkpoint");
        self.folder.check()?;
        let Position { epoch, step, .. } = self.state.progress.position;
        let course = self.course();
        observer.on(&Event::Checkpoint {
            epoch: course.epoch(self.state.progress.position),
            step,
            scheduled: course.has_checkpoint_after(step),
        });
        observer.before_checkpoint()?;
        self.check_replicas()?;
        if !self.ranks.is_first() {
            return Ok(());
        }
        compute::of(self.classifier.parameters().device()).record(self.folder)?;
        let mut parameters = self.classifier.parameters().tensors("");
        let of_loss = self.loss_variables.iter();
        parameters.extend(of_loss.map(|(name, var)| (name.clone(), var.as_tensor().detach())));
        let (latest, begin) = (self.folder.latest_checkpoint(), Instant::now());
        checkpoint::save(&latest, self.identity(), &self.state, parameters)?;
        let seconds = begin.elapsed().as_secs_f64();
        tracing::debug!(epoch, step, seconds, "checkpoint written");
        Ok(())
    }

    pub(super) fn identity(&self) -> Identity<'_> {
        Identity {
            experiment: &self.experiment_text,
            data: &self.data_fingerprints,
        }
    }

    /// Writes the model beside its place, where it can be read back, to be put there with the others of `staged`; it
    /// says how well it ranks the validation images, where that is known.
    ///
    /// # Errors
    /// A file that cannot be written, or weights that no network can compute with.
    pub fn stage_model(
        &self,
        staged: &mut Staged,
        validation: Option<ValidationAucs>,
    ) -> Result<(), TrainError> {
        self.folder.check()?;
        let place = self.folder.model_file();
        let card = ModelCard {
            validation,
            ..self.card_with_thresholds()?
        };
        let save = |trainer: &Self| Ok(model_bytes(&place, &card, &trainer.classifier)?);
        let bytes = self.with_average(save)?;
        staged.write(&place, |file| file.write_all(&bytes))?;
        let written = staged.path_of(&place).unwrap_or(&place);
        Ok(check_model(written, &place)?)
    }

    /// Writes the network that is evaluated: the average where there is one. Rank 0 does it.
    pub(super) fn save(&self, path: &Path) -> Result<(), TrainError> {
        if !self.ranks.is_first() {
            return Ok(());
        }
        self.folder.check()?;
        let card = self.card_with_thresholds()?;
        self.with_average(|trainer| Ok(save_model(path, &card, &trainer.classifier)?))
    }

    /// A bound that the loss has learnt goes with the network; it is not averaged.
    fn card_with_thresholds(&self) -> Result<ModelCard, TrainError> {
        let mut card = self.card.clone();
        card.logit_thresholds
            .fill(self.loss.logit_threshold()? as f32);
        Ok(card)
    }

    /// Lets `act` see the average of the weights in the place of the weights, where there is one.
    pub(super) fn with_average<T>(
        &self,
        act: impl FnOnce(&Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let average = self.state.average.as_ref();
        let Some(average) = average.filter(|average| average.updates() > 0) else {
            return act(self);
        };
        self.with_weights(average.tensors(), act)
    }

    /// Lets `act` see other weights in the place of the network's.
    pub(super) fn with_weights<T>(
        &self,
        weights: &BTreeMap<String, Tensor>,
        act: impl FnOnce(&Self) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let parameters = self.classifier.parameters();
        let own = parameters.tensors("").into_iter();
        let own: BTreeMap<String, Tensor> = own
            .map(|(name, tensor)| Ok((name, tensor.copy()?)))
            .collect::<candle_core::Result<_>>()?;
        parameters.load("", weights)?;
        let done = act(self);
        parameters.load("", &own)?;
        done
    }
}

/// What the model file says of the data.
pub(super) fn data_card(
    data: &TrainingData,
    experiment: &Experiment,
) -> Result<DataCard, TrainError> {
    let images = |part| data.split().part(part).len();
    let rule = data.split().report(data.index())?.rule;
    Ok(DataCard {
        release: data.index().release().to_string(),
        fingerprint: data.fingerprint(),
        split: match experiment.data.hold_out {
            Some(one_in) => format!("{rule}; one in {one_in} images held out for the test"),
            None => rule,
        },
        split_seed: experiment.split_seed(),
        train: images(Part::Train),
        validation: images(Part::Validation),
        test: images(Part::Test),
    })
}
