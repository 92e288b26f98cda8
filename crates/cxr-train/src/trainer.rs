//! The course of training.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{Device, Var};
use cxr_augment::{Pipeline, ViewSet};
use cxr_dataset::Part;
use cxr_losses::MultiLabelLoss;
use cxr_ops::{Phase, Role};

use crate::checkpoint::{self, Identity, Progress};
use crate::frozen::load_weights;
use crate::loader::{Batch, LastBatch, Loader, image_keys};
use crate::{
    AdamW, BestEpoch, Classifier, EpochRecord, Event, EventLog, ModelCard, Observer, OwnParts,
    Position, Profile, Stage, TrainError, TrainingConfig, TrainingData, VariantExperiment, predict,
    save_model, write_atomically,
};

/// Files of a run folder.
pub(crate) const LATEST: &str = "checkpoints/latest.safetensors";
pub(crate) const EVENTS: &str = "events.jsonl";
pub(crate) const LOCK: &str = ".lock";

/// The files of a run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held as long as the folder is used.
    _lock: File,
}

impl RunFolder {
    /// Opens a run folder for writing, and keeps other processes out of it until it is dropped.
    ///
    /// # Errors
    /// The folder cannot be made, or another process is working in it.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let failed = |source| TrainError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        };
        std::fs::create_dir_all(path).map_err(failed)?;
        let lock = File::create(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(TrainError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The trained model.
    pub fn model(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// A table of predictions.
    pub fn predictions(&self, part: Part, views: ViewSet) -> PathBuf {
        let suffix = match views {
            ViewSet::Single => String::new(),
            other => format!("-{other}"),
        };
        self.path.join(format!("predictions-{part}{suffix}.csv"))
    }

    /// The network as it was before a stage, counted from 0: before stage 0 it is untrained but for
    /// the weights it began with.
    pub fn before_stage(&self, stage: usize) -> PathBuf {
        let file = format!("before-stage-{stage}.safetensors");
        self.path.join("checkpoints").join(file)
    }

    fn latest(&self) -> PathBuf {
        self.path.join(LATEST)
    }

    fn best(&self) -> PathBuf {
        self.path.join("checkpoints").join("best.safetensors")
    }
}

/// How a call of [`Trainer::run`] ended.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainOutcome {
    /// All stages are done.
    Finished {
        /// Every epoch.
        history: Vec<EpochRecord>,
        /// The epoch with the best validation mean.
        best: Option<BestEpoch>,
    },
    /// The stop flag was set; the next call goes on from here.
    Stopped(Position),
}

/// Trains one variant of an experiment in a run folder.
pub struct Trainer<'a> {
    variant: &'a VariantExperiment,
    data: &'a TrainingData,
    folder: &'a RunFolder,
    card: ModelCard,
    classifier: Classifier,
    pipeline: Arc<Pipeline>,
    loss: Box<dyn MultiLabelLoss>,
    loss_variables: Vec<(String, Var)>,
    experiment_text: String,
    data_fingerprint: String,
    progress: Progress,
    optimiser: AdamW,
    profile: &'a Profile,
}

impl<'a> Trainer<'a> {
    /// A trainer at the start of the run, or where its last checkpoint left it.
    ///
    /// # Errors
    /// An experiment that does not fit the data, weights that do not load, or a folder that holds
    /// another run.
    pub fn new(
        variant: &'a VariantExperiment,
        data: &'a TrainingData,
        folder: &'a RunFolder,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Self::with_parts(variant, data, folder, device, OwnParts::new())
    }

    /// The same with parts of your own in place of those that the experiment names.
    ///
    /// # Errors
    /// As [`Self::new`], and a part that cannot be made.
    pub fn with_parts(
        variant: &'a VariantExperiment,
        data: &'a TrainingData,
        folder: &'a RunFolder,
        device: &Device,
        mut parts: OwnParts<'_>,
    ) -> Result<Self, TrainError> {
        let experiment = variant.experiment();
        let training = &experiment.training;
        let images = data.split().train().len();
        let keeps_last = training.last_batch == LastBatch::Keep;
        if keeps_last && images % training.batch_size == 1 {
            return Err(TrainError::LastBatchOfOne {
                images,
                batch: training.batch_size,
            });
        }
        let (asked, stored) = (experiment.augmentation.image_size(), data.store().side());
        if asked != stored {
            let expected = format!("the prepared store's {stored}");
            return Err(TrainError::setting(
                "augmentation.image_size",
                expected,
                asked,
            ));
        }
        let names = parts.names();
        let mut transforms = std::mem::take(&mut parts.transforms).into_iter();
        let pipeline = transforms.try_fold(experiment.pipeline()?, Pipeline::with)?;
        let (batch_size, last_batch) = (training.batch_size, training.last_batch);
        Loader::new(
            data,
            &pipeline,
            batch_size,
            last_batch,
            experiment.seed,
            device,
        )?;
        let mut card = variant.model_card(data.labels())?;
        let classifier = parts.classifier(&card, experiment.seed, device)?;
        check_frozen(training, &classifier)?;
        let loss = match parts.loss {
            Some(loss) => {
                card.loss = loss.name().to_owned();
                card.loss_parameters.clear();
                loss
            }
            None => variant.chosen().loss()?,
        };
        let mut experiment_text = variant.to_toml()?;
        if !names.is_empty() {
            experiment_text += &format!("# not of this file: {}\n", names.join(", "));
        }
        card.own_parts = names;
        let loss_variables: Vec<_> = (loss.vars().into_iter().enumerate())
            .map(|(index, var)| (format!("loss.{index}"), var))
            .collect();
        let mut trainer = Self {
            variant,
            data,
            folder,
            card,
            classifier,
            pipeline: Arc::new(pipeline),
            loss,
            loss_variables,
            experiment_text,
            data_fingerprint: data.fingerprint(),
            progress: Progress::default(),
            optimiser: AdamW::new(training.optimiser),
            profile: &Profile::OFF,
        };
        let latest = folder.latest();
        if latest.exists() {
            (trainer.progress, trainer.optimiser) = checkpoint::load(
                &latest,
                trainer.identity(),
                &trainer.classifier,
                &trainer.loss_variables,
                training.optimiser,
            )?;
            tracing::debug!(position = ?trainer.progress.position, "checkpoint read");
        } else {
            if let Some(weights) = &experiment.model.weights {
                let parameters = trainer.classifier.parameters();
                load_weights(&experiment.model.backbone, weights, parameters)?;
            }
            let text = trainer.experiment_text.clone();
            write_atomically(&folder.path().join("experiment.toml"), |file| {
                file.write_all(text.as_bytes())
            })?;
        }
        Ok(trainer)
    }

    /// Measures where the time goes.
    #[must_use]
    pub fn profiled(self, profile: &'a Profile) -> Self {
        Self { profile, ..self }
    }

    /// `events.jsonl` of the run folder, without what comes after the position of this trainer: an
    /// observer of [`Self::run`], or part of one.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn event_log(&self) -> Result<EventLog, TrainError> {
        let Position { epoch, step, .. } = self.progress.position;
        let path = self.folder.path().join(EVENTS);
        EventLog::open(&path, (self.first_epoch() + epoch, step))
    }

    /// The network as it is now.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// What its model file says of it.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// The step that is made next.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// Trains to the end of the last stage, or until `stop` is set: it is looked at after each
    /// step, and a checkpoint is written before returning. Ends with `model.safetensors`.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, an image that cannot be read, a file that cannot be
    /// written. The last checkpoint stays.
    pub fn run(
        &mut self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<TrainOutcome, TrainError> {
        let training = &self.variant.experiment().training;
        while let Some(stage) = training.stages.get(self.progress.position.stage) {
            let position = self.progress.position;
            let first_epoch = self.first_epoch();
            let trained = trained(stage, &self.classifier, &self.loss_variables);
            if (position.epoch, position.step) == (0, 0) {
                let path = self.folder.before_stage(position.stage);
                save_model(&path, &self.card, &self.classifier)?;
            }
            observer.on(&Event::Stage {
                stage: &stage.name,
                first_epoch,
                epochs: stage.epochs,
                steps: self.steps_an_epoch(),
                from: (first_epoch + position.epoch, position.step),
                trained_values: trained.iter().map(|(_, var)| var.elem_count()).sum(),
            });
            while self.progress.position.epoch < stage.epochs {
                let finished = self.epoch(stage, &trained, observer, stop)?;
                if !finished || !self.end_epoch(stage, observer, stop)? {
                    self.checkpoint(observer)?;
                    return Ok(TrainOutcome::Stopped(self.progress.position));
                }
                if self.progress.position.epoch == stage.epochs {
                    self.progress.position = Position {
                        stage: position.stage + 1,
                        epoch: 0,
                        step: 0,
                    };
                    self.optimiser = AdamW::new(training.optimiser);
                    self.checkpoint(observer)?;
                    break;
                }
                self.checkpoint(observer)?;
            }
        }
        save_model(&self.folder.model(), &self.card, &self.classifier)?;
        Ok(TrainOutcome::Finished {
            history: self.progress.history.clone(),
            best: self.progress.best.clone(),
        })
    }

    /// The steps of the current epoch from where it stands; false when stopped.
    fn epoch(
        &mut self,
        stage: &Stage,
        trained: &[(String, Var)],
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<bool, TrainError> {
        let experiment = self.variant.experiment();
        let training = &experiment.training;
        let (data, seed, profile) = (self.data, experiment.seed, self.profile);
        let steps = self.steps_an_epoch();
        let epoch = self.first_epoch() + self.progress.position.epoch;
        let device = self.classifier.parameters().device().clone();
        let (batch_size, last_batch) = (training.batch_size, training.last_batch);
        // The loader outlives the borrow of `self` that a step needs.
        let pipeline = Arc::clone(&self.pipeline);
        let loader = Loader::new(data, &pipeline, batch_size, last_batch, seed, &device)?;
        std::thread::scope(|scope| {
            let mut batches = loader.epoch(scope, epoch, self.progress.position.step);
            let mut before = Instant::now();
            loop {
                let step = self.progress.position.step;
                let waiting = profile.span("loader wait").of_step(epoch, step);
                let Some(batch) = batches.next() else {
                    return Ok(true);
                };
                drop(waiting);
                let batch = batch?;
                let step_of_stage = self.progress.position.epoch * steps + step;
                let rate = stage.schedule.rate(step_of_stage, steps * stage.epochs);
                let loss = self.step(stage, trained, &batch, epoch, rate)?;
                let seconds = before.elapsed().as_secs_f64();
                before = Instant::now();
                self.progress.position.step += 1;
                self.progress.loss_sum += loss;
                self.progress.seconds += seconds;
                observer.on(&Event::Step {
                    stage: &stage.name,
                    epoch,
                    step,
                    steps,
                    loss,
                    rate,
                    images: batch.names.len(),
                    seconds,
                });
                if stop.load(Ordering::Relaxed) {
                    return Ok(false);
                }
                if self
                    .progress
                    .position
                    .step
                    .is_multiple_of(training.checkpoint_steps)
                    && self.progress.position.step < steps
                {
                    self.checkpoint(observer)?;
                }
            }
        })
    }

    /// One optimiser step; returns the loss before it.
    fn step(
        &mut self,
        stage: &Stage,
        trained: &[(String, Var)],
        batch: &Batch,
        epoch: usize,
        rate: f64,
    ) -> Result<f64, TrainError> {
        let step = self.progress.position.step;
        let _span = self.profile.span("step").of_step(epoch, step);
        let seed = self.variant.experiment().seed;
        let keys = image_keys(&batch.names, seed, epoch);
        let phase = Phase::Train { image_keys: &keys };
        let backbone_is_frozen = !trained
            .iter()
            .any(|(name, _)| name.starts_with("features."));
        let span = self.profile.span("forward");
        let features = if backbone_is_frozen {
            self.classifier
                .features(&batch.images, Phase::Evaluate)?
                .detach()
        } else {
            self.classifier.features(&batch.images, phase)?
        };
        let logits = self.classifier.logits(&features, phase)?;
        drop(span);
        let span = self.profile.span("loss");
        let loss = self
            .loss
            .loss(&logits, &batch.targets, batch.mask.as_ref())?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        drop(span);
        let not_finite = |what: String| TrainError::NotFinite {
            what,
            stage: stage.name.clone(),
            epoch,
            step: self.progress.position.step,
            images: batch
                .names
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", "),
            checkpoint: self.folder.latest(),
        };
        if !value.is_finite() {
            return Err(not_finite("the loss".to_owned()));
        }
        let gradients = self.profile.time("backward", || loss.backward())?;
        let _span = self.profile.span("optimiser");
        if let Some(name) = first_not_finite(trained, &gradients)? {
            return Err(not_finite(format!("the gradient of `{name}`")));
        }
        self.optimiser.step(rate, trained, &gradients)?;
        Ok(value)
    }

    /// Scores the validation images and closes the epoch; false when stopped before that.
    fn end_epoch(
        &mut self,
        stage: &Stage,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<bool, TrainError> {
        let start = Instant::now();
        let batch_size = self.variant.experiment().training.evaluation_batch_size;
        let span = self.profile.span("validation");
        let prediction = predict(
            &self.classifier,
            &self.card,
            self.data,
            Part::Validation,
            ViewSet::Single,
            batch_size,
            observer,
            stop,
        )?;
        drop(span);
        let Some(prediction) = prediction else {
            return Ok(false);
        };
        let mean = prediction.macro_auc(ViewSet::Single, self.data)?;
        let epoch = self.first_epoch() + self.progress.position.epoch;
        let steps = self.steps_an_epoch();
        let record = EpochRecord {
            stage: stage.name.clone(),
            epoch,
            steps,
            mean_loss: self.progress.loss_sum / steps as f64,
            validation_auc: mean.map(|mean| mean.value),
            validation_labels: mean.map_or(0, |mean| mean.n_labels),
            seconds: self.progress.seconds + start.elapsed().as_secs_f64(),
        };
        let so_far = self.progress.best.as_ref().map(|best| best.validation_auc);
        let best = mean.is_some_and(|mean| so_far.is_none_or(|so_far| mean.value > so_far));
        if let (true, Some(mean)) = (best, mean) {
            let stage = stage.name.clone();
            self.progress.best = Some(BestEpoch {
                stage,
                epoch,
                validation_auc: mean.value,
            });
            save_model(&self.folder.best(), &self.card, &self.classifier)?;
        }
        observer.on(&Event::Epoch {
            stage: &stage.name,
            epoch,
            mean_loss: record.mean_loss,
            validation_auc: record.validation_auc,
            validation_labels: record.validation_labels,
            best,
            seconds: record.seconds,
        });
        self.progress.history.push(record);
        self.progress.position.epoch += 1;
        self.progress.position.step = 0;
        self.progress.loss_sum = 0.;
        self.progress.seconds = 0.;
        Ok(true)
    }

    fn checkpoint(&self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let _span = self.profile.span("checkpoint");
        let Position { epoch, step, .. } = self.progress.position;
        let every = self.variant.experiment().training.checkpoint_steps;
        observer.on(&Event::Checkpoint {
            epoch: self.first_epoch() + epoch,
            step,
            scheduled: step < self.steps_an_epoch() && step.is_multiple_of(every),
        });
        let mut parameters = self.classifier.parameters().tensors("");
        let of_loss = self.loss_variables.iter();
        parameters.extend(of_loss.map(|(name, var)| (name.clone(), var.as_tensor().detach())));
        let (latest, begin) = (self.folder.latest(), Instant::now());
        checkpoint::save(
            &latest,
            self.identity(),
            &self.progress,
            parameters,
            &self.optimiser,
        )?;
        let seconds = begin.elapsed().as_secs_f64();
        tracing::debug!(epoch, step, seconds, "checkpoint written");
        Ok(())
    }

    fn identity(&self) -> Identity<'_> {
        Identity {
            experiment: &self.experiment_text,
            data: &self.data_fingerprint,
        }
    }

    /// Epochs of the stages before the current one.
    fn first_epoch(&self) -> usize {
        let stages = &self.variant.experiment().training.stages;
        stages
            .iter()
            .take(self.progress.position.stage)
            .map(|stage| stage.epochs)
            .sum()
    }

    fn steps_an_epoch(&self) -> usize {
        let training = &self.variant.experiment().training;
        let images = self.data.split().train().len();
        training.last_batch.steps(images, training.batch_size)
    }
}

/// The parameters that a stage trains, in name order, the loss's own last.
pub(crate) fn trained(
    stage: &Stage,
    classifier: &Classifier,
    loss_variables: &[(String, Var)],
) -> Vec<(String, Var)> {
    let frozen = |name: &str| {
        let mut prefixes = stage.frozen.iter();
        prefixes.any(|prefix| name.starts_with(prefix.as_str()))
    };
    let all = classifier.parameters().select(Role::Trainable, "");
    let trained = all.into_iter().filter(|(name, _)| !frozen(name));
    trained.chain(loss_variables.iter().cloned()).collect()
}

/// A frozen prefix that matches nothing is a misspelling; a stage that trains nothing a mistake.
fn check_frozen(training: &TrainingConfig, classifier: &Classifier) -> Result<(), TrainError> {
    for (index, stage) in training.stages.iter().enumerate() {
        let key = format!("training.stages[{index}].frozen");
        let all = classifier.parameters().select(Role::Trainable, "");
        let names = classifier.parameters().tensors("");
        let matches = |prefix: &String, name: &str| name.starts_with(prefix.as_str());
        if !classifier.backbone_is_trainable()
            && !stage
                .frozen
                .iter()
                .any(|prefix| matches(prefix, "features."))
        {
            let expected = "such that it has `features.`: the backbone gives no gradients";
            let found = format!("{:?}", stage.frozen);
            return Err(TrainError::setting(&key, expected, found));
        }
        for prefix in &stage.frozen {
            if !names.keys().any(|name| matches(prefix, name)) {
                let expected = "the beginning of a parameter's name, such as `features.`";
                return Err(TrainError::setting(&key, expected, format!("`{prefix}`")));
            }
        }
        if all
            .iter()
            .all(|(name, _)| stage.frozen.iter().any(|prefix| matches(prefix, name)))
        {
            return Err(TrainError::setting(
                &key,
                "such that something is trained",
                "all frozen",
            ));
        }
    }
    Ok(())
}

/// The first trained parameter whose gradient is not finite.
fn first_not_finite(
    trained: &[(String, Var)],
    gradients: &GradStore,
) -> Result<Option<String>, TrainError> {
    for (name, var) in trained {
        if let Some(gradient) = gradients.get(var) {
            // A sum of squares is finite only if every value is; overflow would be as bad.
            let sum = gradient.sqr()?.sum_all()?.to_scalar::<f32>()?;
            if !sum.is_finite() {
                return Ok(Some(name.clone()));
            }
        }
    }
    Ok(None)
}
