//! The course of training.

mod course;
mod evaluation;
mod exchange;
mod files;
mod inputs;
mod replicas;
mod sets;
pub(crate) mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor, Var};
use cxr_augment::{Pipeline, ViewSet};
use cxr_dataset::{Part, Tone, ValidationSplit};
use cxr_fs::Staged;
use cxr_losses::MultiLabelLoss;
use cxr_model::{
    BACKBONE_PREFIX, ModelError, check_backbone_is_frozen, check_network, weight_file_bytes,
};
use cxr_run::{
    BestEpoch, Decision, EpochRecord, Event, EventLog, LastBatch, LockedRunFolder, Position, Stage,
    UncertaintyPolicy, VariantExperiment,
};

use self::course::{Course, Standing};
use self::files::data_card;
use self::sets::of_sets;
use self::step::{MadeStep, NotFinite, PendingSteps, Step, StepError};
use crate::checkpoint::{self, State};
use crate::compute;
use crate::data::DataFingerprints;
use crate::dry_pass::check_inputs;
use crate::experiment::{NOT_OF_THIS_FILE, complete, label_counts, loss_of_model, with_custom};
use crate::groups;
use crate::loader::Loader;
use crate::predict::predict_on;
use crate::{
    Alone, Classifier, EpochEnd, Experiment, ModelCard, Observer, Optimiser, OwnParts, Profile,
    Ranks, Sampler, TrainError, Trained, TrainingData, dry_pass,
};

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

/// Trains one variant of an experiment in a run folder, alone or as one of several [`Ranks`].
pub struct Trainer<'a> {
    variant: Arc<VariantExperiment>,
    data: &'a TrainingData,
    folder: &'a LockedRunFolder,
    card: ModelCard,
    classifier: Classifier,
    pipeline: Arc<Pipeline>,
    sampler: Arc<dyn Sampler>,
    loss: Arc<dyn MultiLabelLoss>,
    loss_is_own: bool,
    loss_variables: Vec<(String, Var)>,
    experiment_text: String,
    data_fingerprints: DataFingerprints,
    state: State,
    profile: &'a Profile,
    /// The processes that share the batches of a step.
    ranks: &'a dyn Ranks,
    /// So many steps are read at once.
    sync_every: usize,
}

impl<'a> Trainer<'a> {
    /// A trainer at the start of the run, or where its last checkpoint left it.
    ///
    /// # Errors
    /// An experiment that does not fit the data, weights that do not load, or a folder that holds
    /// another run.
    pub fn new(
        variant: &VariantExperiment,
        data: &'a TrainingData,
        folder: &'a LockedRunFolder,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Self::with_parts(variant, data, folder, device, &OwnParts::new())
    }

    /// The same with parts of your own in place of those that the experiment names. Before anything is trained, two images
    /// are taken through all of them: see [`dry_pass`].
    ///
    /// # Errors
    /// As [`Self::new`], a part that cannot be made, and [`TrainError::Part`] for one that does not go with the others.
    pub fn with_parts(
        variant: &VariantExperiment,
        data: &'a TrainingData,
        folder: &'a LockedRunFolder,
        device: &Device,
        parts: &OwnParts<'_>,
    ) -> Result<Self, TrainError> {
        Self::on_ranks(variant, data, folder, device, parts, &Alone)
    }

    /// The same for one of several processes that train together; every rank makes its trainer and then makes the same
    /// calls. A step's batches, as many as the experiment accumulates, are dealt to the ranks in turn; their gradients and
    /// the statistics of normalisations are added up in the order of the batches. So weights, files and events (but for
    /// times) are, bit by bit, what one process gives that makes all batches itself, and a run goes on with another number
    /// of ranks. Validation and predictions are shared too.
    ///
    /// Rank 0 has the folder [open](cxr_run::RunFolder::open) and writes; the others name it by
    /// [`RunFolder::of_first_rank`](cxr_run::RunFolder::of_first_rank) and need not see it, as they are sent what they need
    /// of it. Each rank has the experiment, the data and the pretrained weights. Observers of all ranks are called, and the
    /// strongest [`Decision`] of any counts; a stop flag that one rank finds set stops all after the same step. On a rank
    /// that fails the call returns, and the others may wait for it: it should end the job.
    ///
    /// # Errors
    /// As [`Self::with_parts`]; [`RanksError`](crate::RanksError), such as
    /// [`RanksError::Differ`](crate::RanksError::Differ) where the ranks have other experiments or data; a device that is
    /// not the CPU where there are several ranks.
    pub fn on_ranks(
        variant: &VariantExperiment,
        data: &'a TrainingData,
        folder: &'a LockedRunFolder,
        device: &Device,
        parts: &OwnParts<'_>,
        ranks: &'a dyn Ranks,
    ) -> Result<Self, TrainError> {
        if ranks.size() > 1 && !device.is_cpu() {
            let expected = "`cpu` where several ranks train together";
            return Err(TrainError::setting("--device", expected, "a GPU"));
        }
        let (names, begins_as) = (parts.names(), &variant.experiment().model.backbone);
        let mut variant = with_custom(variant, names.iter().map(String::as_str));
        if data.split().rule() == ValidationSplit::Lists {
            // The run's own file says so, whatever rule the experiment has.
            variant = variant.with_validation(ValidationSplit::Lists);
        }
        check_network(variant.experiment())?;
        let variant = Arc::new(complete(&variant)?);
        let experiment = variant.experiment();
        let training = &experiment.training;
        let sampler: Arc<dyn Sampler> = match of_sets(experiment, data)? {
            Some(sampler) if !parts.has_sampler() => Arc::new(sampler),
            _ => parts.sampler_of_a_run(),
        };
        let images = sampler.images_per_epoch(data.split().train().len());
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
        let pipeline = parts.pipeline(experiment)?;
        let (batch_size, last_batch) = (training.batch_size, training.last_batch);
        Loader::new(
            data,
            &pipeline,
            batch_size,
            last_batch,
            experiment.seed,
            device,
        )?
        .with_sampler(&*sampler)?
        .with_uncertainty(&experiment.data.uncertain)?;
        let mut card = ModelCard::new(&variant, data.labels())?;
        let classifier = parts.network().classifier(&card, experiment.seed, device)?;
        card = card.with_inputs(classifier.inputs());
        let own_loss = parts.loss_of_a_run()?;
        let is_ours = |entry: &cxr_losses::LossEntry| entry.name == variant.chosen().loss;
        let loss_is_own = own_loss.is_some() || !cxr_losses::LOSSES.iter().any(is_ours);
        let loss = match own_loss {
            Some(loss) if !card.multi_class.is_empty() => {
                return Err(TrainError::setting(
                    "data.uncertain",
                    "policies other than `multi-class`, which is a loss of its own",
                    format!("it beside the loss `{}`", loss.name()),
                ));
            }
            Some(loss) => {
                card.loss = loss.name().to_owned();
                card.loss_parameters.clear();
                loss
            }
            None => {
                let counts = label_counts(data, &experiment.data.uncertain)?;
                loss_of_model(variant.chosen(), &card, &counts)?.into()
            }
        };
        if card.multi_class.is_empty() {
            check_soft_targets(&*loss, experiment, data.labels())?;
        }
        let mut experiment_text = variant.to_toml()?;
        let has_own_parts = !names.is_empty() || loss_is_own || !network_is_ours(experiment);
        if !names.is_empty() {
            experiment_text += &format!("{NOT_OF_THIS_FILE}{}\n", names.join(", "));
        }
        card.own_parts = names;
        card.check_inputs(&classifier)?;
        check_inputs(&card, data)?;
        inputs::say_unknown(&card, data);
        card.stretched = data.store().settings().tone() == Tone::Stretched;
        card.data = Some(data_card(data, experiment)?);
        let loss_variables: Vec<_> = (loss.vars().into_iter().enumerate())
            .map(|(index, var)| (format!("loss.{index}"), var))
            .collect();
        groups::check(&training.stages, classifier.parameters(), &loss_variables)?;
        if !classifier.backbone_is_trainable() {
            let why = "the backbone gives no gradients";
            check_backbone_is_frozen(&training.stages, why)?;
        }
        let inputs = card.inputs.clone();
        let mut trainer = Self {
            variant: Arc::clone(&variant),
            data,
            folder,
            card,
            classifier,
            pipeline: Arc::new(pipeline),
            sampler,
            loss,
            loss_is_own,
            loss_variables,
            experiment_text,
            data_fingerprints: data.fingerprints(&experiment.data.uncertain, &inputs),
            state: State::new(training),
            profile: &Profile::OFF,
            ranks,
            sync_every: compute::of(device).sync_every(),
        };
        trainer.course().check()?;
        if has_own_parts {
            trainer.dry_pass()?;
        }
        compute::of(device).recall(folder)?;
        let latest = folder.latest_checkpoint();
        let begun = ranks.from_first(|| match latest.exists() {
            true => Ok::<_, TrainError>(weight_file_bytes(&latest)?),
            false => Ok(Vec::new()),
        })?;
        if !begun.is_empty() {
            trainer.state = checkpoint::load(
                &latest,
                &begun,
                trainer.identity(),
                &trainer.classifier,
                &trainer.loss_variables,
                training,
            )?;
            tracing::debug!(position = ?trainer.state.progress.position, "checkpoint read");
        } else {
            if let Some(weights) = &experiment.model.weights {
                let parameters = trainer.classifier.parameters();
                cxr_model::backbone(begins_as)
                    .map_err(ModelError::from)?
                    .load_weights(weights, parameters, BACKBONE_PREFIX)?;
            }
            if ranks.is_first() {
                folder.check()?;
                let text = trainer.experiment_text.as_bytes();
                cxr_fs::write(&folder.experiment_file(), text)?;
            }
        }
        trainer.check_ranks()?;
        Ok(trainer)
    }

    /// Measures where the time goes.
    #[must_use]
    pub fn profiled(self, profile: &'a Profile) -> Self {
        Self { profile, ..self }
    }

    /// Reads the losses and norms of so many steps at once, at least one: reports them to observers, and finds what is
    /// not finite. Unless set it is 1 on a CPU, and 16 on a GPU, where every read waits for the device.
    ///
    /// Read one by one, a step that goes wrong changes no weights; else the weights that steps after it have are of no
    /// use, and the error still names the step. What is trained and written is the same: at a checkpoint, the end of an
    /// epoch and a stop all steps are read.
    #[must_use]
    pub fn sync_every(self, steps: usize) -> Self {
        Self {
            sync_every: steps.max(1),
            ..self
        }
    }

    /// `events.jsonl` of the run folder, without what comes after the position of this trainer: an
    /// observer of [`Self::run`], or part of one.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn event_log(&self) -> Result<EventLog, TrainError> {
        let position = self.state.progress.position;
        let next = (self.course().epoch(position), position.step);
        Ok(EventLog::open(self.folder, next)?)
    }

    /// The network as the last step left it, not averaged.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// What its model file says of it.
    pub fn card(&self) -> &ModelCard {
        &self.card
    }

    /// What it is trained on.
    pub fn data(&self) -> &'a TrainingData {
        self.data
    }

    /// The experiment, with every option of its network.
    pub fn variant(&self) -> &VariantExperiment {
        &self.variant
    }

    /// How training images are varied.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The loss, with its variables where it has some.
    pub fn loss(&self) -> &dyn MultiLabelLoss {
        &*self.loss
    }

    /// Takes two images through all parts, as [`dry_pass`](crate::dry_pass) says; nothing changes.
    ///
    /// # Errors
    /// As there.
    pub fn dry_pass(&self) -> Result<(), TrainError> {
        dry_pass(
            &self.classifier,
            &self.card,
            self.data,
            &self.pipeline,
            &*self.loss,
        )
    }

    /// The step that is made next.
    pub fn position(&self) -> Position {
        self.state.progress.position
    }

    /// [Trains](Self::train), and ends with `model.safetensors`, which is read back before it is put in its place.
    ///
    /// # Errors
    /// As [`Self::train`] and [`Self::stage_model`].
    pub fn run(
        &mut self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<TrainOutcome, TrainError> {
        let outcome = self.train(observer, stop)?;
        if matches!(outcome, TrainOutcome::Finished { .. }) && self.ranks.is_first() {
            let mut staged = Staged::new();
            self.stage_model(&mut staged, None)?;
            staged.commit()?;
        }
        Ok(outcome)
    }

    /// Trains to the end of the last stage, until `observer` decides to finish, or until `stop` is set: it is looked at
    /// after each step, and a checkpoint is written before returning. The model is still to be written.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, an image that cannot be read, a file that cannot be
    /// written, an error of the observer, more ranks than a step has batches. The last checkpoint stays.
    pub fn train(
        &mut self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<TrainOutcome, TrainError> {
        let accumulated = self
            .variant
            .experiment()
            .training
            .gradient_accumulation_steps;
        if accumulated < self.ranks.size() {
            let key = "training.gradient_accumulation_steps";
            let expected = format!(
                "at least {}, as so many ranks share the batches of a step",
                self.ranks.size()
            );
            return Err(TrainError::setting(key, expected, accumulated));
        }
        let outcome = self.stages(observer, stop);
        compute::of(self.classifier.parameters().device()).release();
        self.folder.outcome(outcome)
    }

    /// The course that the experiment describes.
    fn course(&self) -> Course<'_> {
        Course::new(&self.variant.experiment().training, self.images_per_epoch())
    }

    fn images_per_epoch(&self) -> usize {
        let n_training = self.data.split().train().len();
        self.sampler.images_per_epoch(n_training)
    }

    fn stages(
        &mut self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<TrainOutcome, TrainError> {
        let variant = Arc::clone(&self.variant);
        let training = &variant.experiment().training;
        let course = Course::new(training, self.images_per_epoch());
        while let Some(stage) = course.stage(self.state.progress.position) {
            let position = self.state.progress.position;
            let first_epoch = course.first_epoch(position);
            let trained = self.trained(stage);
            if (position.epoch, position.step) == (0, 0) {
                let path = self.folder.before_stage(position.stage);
                self.save(&path)?;
            }
            observer.on(&Event::Stage {
                stage: &stage.name,
                first_epoch,
                epochs: stage.epochs,
                steps: course.steps_per_epoch(),
                from: (first_epoch + position.epoch, position.step),
                trained_values: (trained.iter())
                    .map(|parameter| parameter.var.elem_count())
                    .sum(),
            });
            while self.state.progress.position.epoch < stage.epochs {
                let finished = self.epoch(course, stage, &trained, observer, stop)?;
                let ended = match finished {
                    true => self.end_epoch(course, stage, observer, stop)?,
                    false => None,
                };
                let Some(decision) = ended else {
                    self.checkpoint(observer)?;
                    return Ok(TrainOutcome::Stopped(self.state.progress.position));
                };
                let epoch = course.epoch(self.state.progress.position) - 1;
                let standing = course.standing(stage, &self.state.progress);
                if let Standing::StoppedEarly { patience } = standing {
                    observer.on(&Event::EarlyStop {
                        stage: &stage.name,
                        epoch,
                        patience,
                    });
                }
                if decision != Decision::Continue {
                    observer.on(&Event::Decided {
                        stage: &stage.name,
                        epoch,
                        decision,
                    });
                }
                let next_stage = match (decision, standing) {
                    (Decision::Continue, Standing::GoesOn) => {
                        self.checkpoint(observer)?;
                        continue;
                    }
                    (Decision::Finish, _) => training.stages.len(),
                    _ => position.stage + 1,
                };
                self.state.progress.position = Position {
                    stage: next_stage,
                    epoch: 0,
                    step: 0,
                };
                self.state.optimiser = Optimiser::new(training.optimiser);
                self.checkpoint(observer)?;
                break;
            }
        }
        Ok(TrainOutcome::Finished {
            history: self.state.progress.history.clone(),
            best: self.state.progress.best.clone(),
        })
    }

    /// The steps of the current epoch from where it stands; false when stopped.
    fn epoch(
        &mut self,
        course: Course<'_>,
        stage: &Stage,
        trained: &[Trained],
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<bool, TrainError> {
        let variant = Arc::clone(&self.variant);
        let experiment = variant.experiment();
        let training = &experiment.training;
        let (data, seed) = (self.data, experiment.seed);
        let steps = course.steps_per_epoch();
        let device = self.classifier.parameters().device().clone();
        let (batch_size, last_batch) = (training.batch_size, training.last_batch);
        // The loader outlives the borrow of `self` that a step needs.
        let (pipeline, sampler) = (Arc::clone(&self.pipeline), Arc::clone(&self.sampler));
        let loader = Loader::new(data, &pipeline, batch_size, last_batch, seed, &device)?;
        let loader = loader.with_sampler(&*sampler)?;
        let loader = loader.with_uncertainty(&experiment.data.uncertain)?;
        let loader = loader.with_inputs(&self.card.inputs);
        let accumulated = training.gradient_accumulation_steps;
        let ranks = self.ranks;
        let loader = loader.of_rank(ranks.rank(), ranks.size(), accumulated);
        let position = self.state.progress.position;
        let epoch = course.epoch(position);
        std::thread::scope(|scope| {
            let first = position.step * accumulated;
            let mut batches = loader.epoch(scope, epoch, first);
            let mut pending = PendingSteps::new();
            for step in position.step..steps {
                let made = Step {
                    classifier: &self.classifier,
                    loss: &*self.loss,
                    loss_is_own: self.loss_is_own,
                    loss_variables: &self.loss_variables,
                    training,
                    norm_statistics: stage.norm_statistics,
                    trained,
                    epoch,
                    step,
                    learning_rate: course.learning_rate(stage, position, step),
                    n_batches: (loader.steps() - step * accumulated).min(accumulated),
                    ranks,
                    stop,
                    profile: self.profile,
                }
                .make(
                    &mut self.state.optimiser,
                    self.state.average.as_mut(),
                    &mut batches,
                    self.sync_every == 1,
                );
                let told_to_stop = match made {
                    Ok(made) => {
                        let told = made.stop;
                        pending.push(made);
                        told
                    }
                    Err(error) => {
                        // What went wrong in a step before may be why.
                        self.flush(course, stage, &mut pending, observer)?;
                        return Err(self.step_error(error, stage, epoch, step));
                    }
                };
                self.state.progress.position.step += 1;
                let is_last = step + 1 == steps;
                let is_due = course.has_checkpoint_after(step + 1);
                if pending.len() >= self.sync_every || is_last || is_due {
                    self.flush(course, stage, &mut pending, observer)?;
                    self.folder.check()?;
                }
                // What the ranks have told each other stops all of them after the same step.
                if told_to_stop || ranks.size() == 1 && stop.load(Ordering::Relaxed) {
                    self.flush(course, stage, &mut pending, observer)?;
                    return Ok(false);
                }
                if is_due {
                    self.checkpoint(observer)?;
                }
            }
            Ok(true)
        })
    }

    /// Reads the steps that are pending, checks them, and counts and reports each.
    fn flush(
        &mut self,
        course: Course<'_>,
        stage: &Stage,
        pending: &mut PendingSteps,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (steps, epoch) = (pending.take(), course.epoch(self.state.progress.position));
        let read = |made: &MadeStep| {
            let read = made.read();
            read.map_err(|error| self.step_error(error, stage, epoch, made.step))
        };
        let losses: Vec<(f64, f64)> = steps.iter().map(read).collect::<Result<_, _>>()?;
        let seconds = pending.seconds_a_step(steps.len());
        for (made, (loss, gradient_norm)) in steps.iter().zip(losses) {
            self.state.progress.loss_sum += loss;
            self.state.progress.seconds += seconds;
            observer.on(&Event::Step {
                stage: &stage.name,
                epoch,
                step: made.step,
                steps: course.steps_per_epoch(),
                loss,
                rate: made.learning_rate,
                gradient_norm,
                images: made.n_images(),
                seconds,
            });
        }
        Ok(())
    }

    fn step_error(&self, error: StepError, stage: &Stage, epoch: usize, step: usize) -> TrainError {
        match error {
            StepError::Other(error) => *error,
            StepError::NotFinite(NotFinite { what, images }) => {
                let names = images.iter().map(|name| format!("`{name}`"));
                let names: Vec<String> = names.collect();
                self.not_finite(what, stage, epoch, step, names.join(", "))
            }
        }
    }

    fn not_finite(
        &self,
        what: String,
        stage: &Stage,
        epoch: usize,
        step: usize,
        images: String,
    ) -> TrainError {
        let latest = self.folder.latest_checkpoint();
        TrainError::NotFinite {
            what,
            stage: stage.name.clone(),
            epoch,
            step,
            images,
            checkpoint: latest.exists().then_some(latest),
        }
    }

    /// Scores the validation images, closes the epoch and asks the observer how it goes on; `None` when stopped before.
    fn end_epoch(
        &mut self,
        course: Course<'_>,
        stage: &Stage,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Decision>, TrainError> {
        let start = Instant::now();
        let batch_size = self.variant.experiment().training.evaluation_batch_size;
        let span = self.profile.span("validation");
        let prediction = self.with_average(|trainer| {
            predict_on(
                trainer.ranks,
                &trainer.classifier,
                &trainer.card,
                trainer.data,
                Part::Validation,
                ViewSet::Single,
                batch_size,
                observer,
                stop,
            )
        });
        drop(span);
        let prediction = match prediction {
            Err(TrainError::Model(ModelError::LogitNotFinite { label, image, .. })) => {
                let what = format!("the logit of `{label}`, in validation,");
                let position = self.state.progress.position;
                let epoch = course.epoch(position);
                return Err(self.not_finite(what, stage, epoch, position.step, image));
            }
            prediction => prediction?,
        };
        let Some(prediction) = prediction else {
            return Ok(None);
        };
        let mean = prediction.macro_auc(ViewSet::Single, self.data.index())?;
        let epoch = course.epoch(self.state.progress.position);
        let steps = course.steps_per_epoch();
        let record = EpochRecord {
            stage: stage.name.clone(),
            epoch,
            steps,
            mean_loss: self.state.progress.loss_sum / steps as f64,
            validation_auc: mean.map(|mean| mean.value),
            validation_labels: mean.map_or(0, |mean| mean.n_labels),
            seconds: self.state.progress.seconds + start.elapsed().as_secs_f64(),
        };
        let so_far = self
            .state
            .progress
            .best
            .as_ref()
            .map(|best| best.validation_auc);
        let best = mean.is_some_and(|mean| so_far.is_none_or(|so_far| mean.value > so_far));
        if let (true, Some(mean)) = (best, mean) {
            self.save(&self.folder.best_checkpoint())?;
            self.state.progress.best = Some(BestEpoch {
                stage: stage.name.clone(),
                epoch,
                validation_auc: mean.value,
            });
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
        self.state.progress.history.push(record.clone());
        let decision = self.with_average(|trainer| {
            observer.epoch_end(&EpochEnd {
                stage: &stage.name,
                epoch,
                classifier: &trainer.classifier,
                card: &trainer.card,
                data: trainer.data,
                validation: &prediction,
                record: &record,
                history: &trainer.state.progress.history,
                best: trainer.state.progress.best.as_ref(),
            })
        });
        let decision = self.decide(decision)?;
        self.state.progress.position.epoch += 1;
        self.state.progress.position.step = 0;
        self.state.progress.loss_sum = 0.;
        self.state.progress.seconds = 0.;
        Ok(Some(decision))
    }

    /// The strongest decision of all ranks' observers.
    fn decide(&self, own: Result<Decision, TrainError>) -> Result<Decision, TrainError> {
        let no_decision = |error: serde_json::Error| TrainError::Observer {
            source: Box::new(error),
        };
        let own = own.and_then(|decision| serde_json::to_vec(&decision).map_err(no_decision));
        let mut strongest = Decision::Continue;
        for decision in self.ranks.agree(own)? {
            let decision = serde_json::from_slice(&decision).map_err(no_decision)?;
            strongest = strongest.max(decision);
        }
        Ok(strongest)
    }

    fn trained(&self, stage: &Stage) -> Vec<Trained> {
        groups::trained(stage, self.classifier.parameters(), &self.loss_variables)
    }
}

/// Whether backbone and head are of this workspace, not registered by a program.
fn network_is_ours(experiment: &Experiment) -> bool {
    let (backbone, head) = (&experiment.model.backbone, &experiment.model.head);
    let mut backbones = cxr_backbone::BACKBONES.iter();
    let mut heads = cxr_top::HEADS.iter();
    backbones.any(|entry| entry.name == backbone.name())
        && heads.any(|entry| entry.name == head.name())
}

/// Refuses soft targets for uncertain labels beside a loss that takes none, before anything is trained.
fn check_soft_targets(
    loss: &dyn MultiLabelLoss,
    experiment: &Experiment,
    labels: &[String],
) -> Result<(), TrainError> {
    let policies = experiment.data.uncertain.of_labels(labels)?;
    let is_soft = |policy: &UncertaintyPolicy| matches!(policy, UncertaintyPolicy::Soft(_));
    if !policies.iter().any(is_soft) {
        return Ok(());
    }
    let matrix = |values: [f32; 4]| Tensor::from_slice(&values, (2, 2), &Device::Cpu);
    let logits = matrix([0.5, -0.5, 1., -1.])?;
    let value = loss.loss(&logits, &matrix([0.5, 1., 0., 0.5])?, None);
    value.map(drop).map_err(|error| {
        let found = format!("{error}");
        TrainError::setting(
            "data.uncertain",
            format!(
                "policies other than `soft` beside the loss `{}`",
                loss.name()
            ),
            found,
        )
    })
}
