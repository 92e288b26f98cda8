//! What a trained run ends with: its model, predictions, labels and `metrics.json`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use cxr_augment::ViewSet;
use cxr_dataset::{ImageName, Index, Part};
use cxr_fs::Staged;
use cxr_model::{network_parts, parse_model, unusable, weight_file_bytes};
use cxr_ops::check_weights;
use cxr_run::{
    DataFacts, Evaluation, LabelRow, LabelTable, MeanAuc, NetworkPart, Predictions, RunFolder,
    RunMetrics, Seconds, StageFacts, Summary, SummaryOptions, Truth, Unscorable,
};

use super::Trainer;
use super::sets::is_of;
use crate::predict::predict_on;
use crate::{Observer, Prediction, TrainError};

impl Trainer<'_> {
    /// Makes all that a finished run has: `model.safetensors`, the predictions of the validation and test images under
    /// each set of views, the labels of all images, and `metrics.json`. They are made and checked beside their places,
    /// and moved there together once all are good. A report of the run's folder needs nothing else.
    ///
    /// `None` when `stop` was set; nothing is changed then. Of several ranks each predicts its part, rank 0 writes, and all
    /// return the same.
    ///
    /// # Errors
    /// [`TrainError::NotTrained`] before the end of the last stage; a file that cannot be read or written; logits that are
    /// not finite. The run's folder is as it was.
    pub fn evaluate(
        &self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<RunMetrics>, TrainError> {
        self.folder.outcome(self.make_metrics(observer, stop))
    }

    fn make_metrics(
        &self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<RunMetrics>, TrainError> {
        let (experiment, data, folder) = (self.variant.experiment(), self.data, self.folder);
        if self.position().stage < experiment.training.stages.len() {
            return Err(TrainError::NotTrained {
                path: folder.path().to_owned(),
            });
        }
        let mut staged = Staged::new();
        let model = self.ranks.from_first(|| {
            self.stage_model(&mut staged, None)?;
            // The network that is predicted with is the one in the file.
            let staged = staged_file(&staged, &folder.model_file())?;
            Ok::<_, TrainError>(weight_file_bytes(staged)?)
        })?;
        let start = Instant::now();
        let (mut validation, mut predictions) = (None, Vec::new());
        for part in [Part::Validation, Part::Test] {
            let views = ViewSet::HorizontalFlipZoom;
            let place = folder.model_file();
            let prediction = self.predict_with(&place, &model, part, views, observer, stop)?;
            let Some(prediction) = prediction else {
                return Ok(None);
            };
            if part == Part::Validation {
                validation = Some(prediction.validation_aucs(ViewSet::Single, data.index())?);
            }
            predictions.push((part, prediction));
        }
        let Some(stages) = self.before_stages(observer, stop)? else {
            return Ok(None);
        };
        let predict_seconds = start.elapsed().as_secs_f64();
        let made = self.ranks.from_first(|| {
            for (part, prediction) in &predictions {
                for views in ViewSet::ALL {
                    let path = folder.predictions_file(*part, views);
                    prediction.stage(views, &path, &mut staged)?;
                }
            }
            // Now the file can say how good the network is.
            self.stage_model(&mut staged, validation)?;
            let metrics = self.commit_metrics(staged, stages, predict_seconds)?;
            serde_json::to_vec(&metrics).map_err(|error| unreadable_metrics(folder, &error))
        })?;
        let metrics = serde_json::from_slice(&made);
        Ok(Some(
            metrics.map_err(|error| unreadable_metrics(folder, &error))?,
        ))
    }

    /// Stages the labels and the metrics beside the predictions, and puts everything in its place.
    fn commit_metrics(
        &self,
        mut staged: Staged,
        stages: Vec<StageFacts>,
        predict_seconds: f64,
    ) -> Result<RunMetrics, TrainError> {
        let (experiment, data, folder) = (self.variant.experiment(), self.data, self.folder);
        for part in Part::ALL {
            let table = LabelTable::of(data.index(), data.split().part(part));
            table.stage(&folder.labels_file(part), &mut staged)?;
        }
        let progress = &self.state.progress;
        let mut train_seconds = BTreeMap::new();
        for epoch in &progress.history {
            *train_seconds.entry(epoch.stage.clone()).or_default() += epoch.seconds;
        }
        let mut metrics = RunMetrics {
            experiment: self.card.experiment.clone(),
            variant: self.card.variant.clone(),
            loss: self.card.loss.clone(),
            loss_parameters: self.card.loss_parameters.clone(),
            label_weights: self.variant.chosen().label_weights.clone(),
            system: self.variant.chosen().system.clone(),
            custom_components: self.card.own_parts.clone(),
            loss_curve: self.loss_curve(),
            network: self.network(),
            seed: experiment.seed,
            data: DataFacts {
                hold_out: experiment.data.hold_out,
                ..DataFacts::of(data.index(), data.split(), data.is_phantom())?
            },
            inputs: self.inputs(),
            validation: self.summaries(&staged, Part::Validation)?,
            test: self.summaries(&staged, Part::Test)?,
            test_by_set: self.summaries_by_set(&staged)?,
            stages,
            best_epoch: progress.best.clone(),
            history: progress.history.clone(),
            seconds: Seconds {
                prepare: data.seconds_to_prepare(),
                train: train_seconds,
                predict: predict_seconds,
            },
            files: BTreeMap::new(),
        };
        metrics.stage(folder.path(), &mut staged)?;
        folder.check()?;
        staged.commit()?;
        Ok(metrics)
    }

    /// The network's parts, where its backbone is described.
    fn network(&self) -> Vec<NetworkPart> {
        let experiment = self.variant.experiment();
        let side = experiment.augmentation.crop_size();
        network_parts(&experiment.model, side, self.card.n_outputs()).unwrap_or_else(|error| {
            tracing::debug!(%error, "the network is not drawn");
            Vec::new()
        })
    }

    /// What the loss says of an image with one positive label; empty for those of the paper, whose formulas a report has,
    /// and for one that does not take a single label.
    fn loss_curve(&self) -> Vec<[f64; 2]> {
        let parameters = &self.card.loss_parameters;
        let is_known = match self.card.loss.as_str() {
            "bce" | "zlpr" | "fzlpr" => true,
            "focal" => parameters.get("gamma") == Some(&2.) && parameters.len() == 1,
            _ => false,
        };
        if is_known && !self.loss_is_own {
            return Vec::new();
        }
        let logits: Vec<f32> = (-120..=120).map(|at| at as f32 / 40.).collect();
        let values = || -> candle_core::Result<Vec<f32>> {
            let device = self.classifier.parameters().device();
            let targets = Tensor::ones((logits.len(), 1), DType::F32, &Device::Cpu)?;
            let logits = Tensor::from_slice(&logits, (logits.len(), 1), device)?;
            let values = self.loss.forward(&logits, &targets, None)?;
            values.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
        };
        match values() {
            Ok(values) if values.len() == logits.len() => (logits.iter().zip(values))
                .map(|(&logit, loss)| [f64::from(logit), f64::from(loss)])
                .filter(|[_, loss]| loss.is_finite())
                .collect(),
            Ok(_) => Vec::new(),
            Err(error) => {
                tracing::debug!(%error, "the loss takes no single label; no curve is drawn of it");
                Vec::new()
            }
        }
    }

    /// Predictions of a part by the network with the weights of a model file, whose bytes were read from `place`.
    fn predict_with(
        &self,
        place: &Path,
        model: &[u8],
        part: Part,
        views: ViewSet,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Prediction>, TrainError> {
        let (card, weights) = parse_model(place, model)?;
        check_weights(&weights).map_err(unusable(place, "model"))?;
        let batch_size = self.variant.experiment().training.evaluation_batch_size;
        self.with_weights(&weights, |trainer| {
            predict_on(
                trainer.ranks,
                &trainer.classifier,
                &card,
                trainer.data,
                part,
                views,
                batch_size,
                observer,
                stop,
            )
        })
    }

    /// Mean AUCs of the network as it was before each stage: what pretraining alone is worth, and the head alone. `None`
    /// when `stop` was set.
    fn before_stages(
        &self,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<StageFacts>>, TrainError> {
        let stages = &self.variant.experiment().training.stages;
        let mut facts = Vec::with_capacity(stages.len());
        let mut first_epoch = 0;
        for (index, stage) in stages.iter().enumerate() {
            let mut history = self.state.progress.history.iter();
            if !history.any(|record| record.epoch >= first_epoch) {
                // An observer finished the training before this stage.
                break;
            }
            first_epoch += stage.epochs;
            let path = self.folder.before_stage(index);
            let model = self.ranks.from_first(|| match path.is_file() {
                true => Ok::<_, TrainError>(weight_file_bytes(&path)?),
                false => Ok(Vec::new()),
            })?;
            if model.is_empty() {
                // A run of an earlier version; what it did not keep is not guessed.
                return Ok(Some(Vec::new()));
            }
            let views = ViewSet::Single;
            let mut mean_of = |part| {
                let prediction = self.predict_with(&path, &model, part, views, observer, stop)?;
                let Some(prediction) = prediction else {
                    return Ok(None);
                };
                let mean = prediction.macro_auc(views, self.data.index())?;
                Ok::<_, TrainError>(Some(MeanAuc {
                    auc: mean.map(|mean| mean.value),
                    n_labels: mean.map_or(0, |mean| mean.n_labels),
                }))
            };
            let (Some(validation), Some(test)) = (mean_of(Part::Validation)?, mean_of(Part::Test)?)
            else {
                return Ok(None);
            };
            facts.push(StageFacts {
                before: stage.name.clone(),
                validation,
                test,
            });
        }
        Ok(Some(facts))
    }

    /// Scores the predictions as they will be in the run folder, so that anybody can do it again.
    fn summaries(
        &self,
        staged: &Staged,
        part: Part,
    ) -> Result<BTreeMap<ViewSet, Summary>, TrainError> {
        let truth = Truth::of(self.data.index())?;
        let mut summaries = BTreeMap::new();
        for views in ViewSet::ALL {
            let path = self.folder.predictions_file(part, views);
            let predictions = Predictions::read(staged_file(staged, &path)?, Unscorable::Refuse)?;
            let (rows, images) = (
                predictions.images().len(),
                self.data.split().part(part).len(),
            );
            if rows != images {
                return Err(TrainError::BadFile {
                    path,
                    kind: "table of predictions",
                    problem: format!("it would have {rows} rows for {images} images"),
                });
            }
            let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Refuse)?;
            let options = SummaryOptions {
                by_patient: evaluation.patients().is_ok(),
                ..SummaryOptions::default()
            };
            summaries.insert(views, Summary::new(&evaluation, &options)?);
        }
        Ok(summaries)
    }

    /// The test images of each of several data sets by themselves, single view; empty where there is one, and without
    /// those that have no test images.
    fn summaries_by_set(&self, staged: &Staged) -> Result<BTreeMap<String, Summary>, TrainError> {
        let mut summaries = BTreeMap::new();
        let path = self.folder.predictions_file(Part::Test, ViewSet::Single);
        for set in &self.variant.experiment().data.sets {
            let has_any = |name: &ImageName| is_of(&set.folder, name);
            if !self.data.split().test().iter().any(has_any) {
                continue;
            }
            let truth = truth_of_set(self.data.index(), &set.folder)?;
            let predictions = Predictions::read(staged_file(staged, &path)?, Unscorable::Refuse)?;
            // Images of the other sets are not this one's.
            let evaluation = Evaluation::join(&predictions, &truth, &[], Unscorable::Count)?;
            let options = SummaryOptions {
                by_patient: evaluation.patients().is_ok(),
                ..SummaryOptions::default()
            };
            let summary = Summary::new(&evaluation, &options)?;
            summaries.insert(set.folder.to_string(), summary);
        }
        Ok(summaries)
    }
}

/// The images of one data set among those of several.
fn truth_of_set(index: &Index, folder: &ImageName) -> Result<Truth, TrainError> {
    let mut truth = Truth::new(index.label_set().names());
    for record in index.records() {
        if is_of(folder, &record.name) {
            let row = LabelRow::of(record);
            truth.add(&row.image, row.states, row.patient.as_deref())?;
        }
    }
    Ok(truth)
}

fn unreadable_metrics(folder: &RunFolder, error: &serde_json::Error) -> TrainError {
    TrainError::BadFile {
        path: folder.metrics_file(),
        kind: "table of metrics",
        problem: error.to_string(),
    }
}

/// Where a staged file is now.
fn staged_file<'a>(staged: &'a Staged, path: &Path) -> Result<&'a Path, TrainError> {
    staged.path_of(path).ok_or_else(|| TrainError::Io {
        action: "write",
        path: path.to_owned(),
        source: std::io::Error::other("it was not made"),
    })
}
