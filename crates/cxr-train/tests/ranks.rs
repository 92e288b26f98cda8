//! Several ranks train what one process trains that makes all batches of a step itself: the same bytes, for any number of
//! ranks that the batches of a step go round, whoever stops, and wherever a run goes on with another number of them.
//!
//! The ranks are threads here; `cargo xtask verify cluster` does it with processes of an MPI job.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::{Device, Result as TensorResult, Tensor, Var};
use cxr_ops::{Init, OpsError, ParameterPath};
use cxr_train::{
    Backbone, Decision, EpochEnd, Experiment, Granularity, LockedRunFolder, MultiLabelLoss,
    Observer, OwnParts, Phase, Ranks, RanksError, RunFolder, ThreadRanks, TrainError, TrainOutcome,
    Trainer, TrainingData,
};

use phantoms::{StopAfter, data};

/// Seven batches of three images and one of one are left over by nothing: 22 images in batches of 3 are 8 batches, the
/// last of one image dropped, so that the last step of an epoch has fewer batches than the others.
const EXPERIMENT: &str = r#"
name = "ranks"
seed = 3

[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56

[training]
batch_size = 3
last_batch = "drop"
checkpoint_steps = 1
gradient_accumulation_steps = 4
evaluation_batch_size = 5
clip_norm = 0.5
ema_decay = 0.8
@training

[[training.stages]]
name = "first"
epochs = 1
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-3 } }

[[training.stages]]
name = "second"
epochs = 2
schedule = { cosine = { learning_rate = 1e-2, min_learning_rate = 1e-4, warmup = 2 } }
groups = [{ parameters = "features.conv0.*", frozen = true }]

[[training.stages]]
name = "third"
epochs = 1
norm_statistics = "running"
schedule = { constant = { learning_rate = 1e-3 } }

[[variants]]
name = "hbm"
loss = "hbm"
"#;

fn experiment(training: &str) -> Experiment {
    Experiment::parse(&EXPERIMENT.replace("@training", training)).unwrap()
}

/// What a rank of a training gave: how it ended, or its error.
type Ended = Result<TrainOutcome, Box<TrainError>>;

/// Trains on so many ranks until all stop after `steps` steps of the call, or to the end with evaluation; only rank
/// `stopped` is asked to stop.
fn train(
    experiment: &Experiment,
    data: &TrainingData,
    path: &Path,
    size: usize,
    (stopped, steps): (usize, usize),
) -> Vec<Ended> {
    on_ranks(size, |ranks| {
        let variant = experiment.variant("hbm").unwrap();
        let folder = folder_of(ranks, path);
        let parts = OwnParts::new();
        let mut trainer = Trainer::on_ranks(&variant, data, &folder, &Device::Cpu, &parts, ranks)?;
        let stop = AtomicBool::new(false);
        let left = if ranks.rank() == stopped {
            steps
        } else {
            usize::MAX
        };
        let stop_after = StopAfter {
            left: AtomicUsize::new(left),
            stop: &stop,
        };
        let mut observer = (
            stop_after,
            ranks
                .is_first()
                .then(|| trainer.event_log().unwrap())
                .into_iter()
                .collect::<Vec<_>>(),
        );
        let outcome = trainer.train(&mut observer, &stop).map_err(Box::new)?;
        if let TrainOutcome::Finished { .. } = outcome {
            let metrics = trainer.evaluate(&mut (), &AtomicBool::new(false));
            let metrics = metrics.map_err(Box::new)?;
            assert!(metrics.is_some());
        }
        Ok(outcome)
    })
}

fn folder_of(ranks: &dyn Ranks, path: &Path) -> LockedRunFolder {
    match ranks.is_first() {
        true => RunFolder::open(path).unwrap(),
        false => RunFolder::of_first_rank(path),
    }
}

/// What `work` gives on each of so many ranks.
fn on_ranks<T: Send>(size: usize, work: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let started: Vec<_> = (ThreadRanks::group(size).into_iter())
            .map(|ranks| scope.spawn(|| work(&{ ranks })))
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}

/// The bytes of a finished run: all of its results, and what happened but for the times.
fn results(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(path)
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let is_result = name.starts_with("predictions-") || name.starts_with("model");
            is_result.then(|| (name, std::fs::read(entry.path()).unwrap()))
        })
        .collect();
    for checkpoint in ["best", "before-stage-1"] {
        let file = path.join(format!("checkpoints/{checkpoint}.safetensors"));
        files.insert(checkpoint.to_owned(), std::fs::read(file).unwrap());
    }
    let events = std::fs::read_to_string(path.join("events.jsonl")).unwrap();
    let without_times = events.lines().map(|line| {
        let mut event: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = event.as_object_mut().unwrap();
        fields.remove("time");
        fields.remove("seconds");
        format!("{event}\n")
    });
    files.insert(
        "events".to_owned(),
        without_times.collect::<String>().into_bytes(),
    );
    assert_eq!(files.len(), 10, "{:?}", files.keys());
    files
}

fn is_finished(ended: &[Ended]) -> bool {
    let is_finished = |ended: &Ended| match ended {
        Ok(TrainOutcome::Finished { .. }) => true,
        Ok(_) => false,
        Err(error) => panic!("{error}"),
    };
    let finished = ended.iter().filter(|ended| is_finished(ended)).count();
    assert!(
        finished == 0 || finished == ended.len(),
        "all ranks end alike"
    );
    finished > 0
}

fn assert_same(
    expected: &BTreeMap<String, Vec<u8>>,
    found: &BTreeMap<String, Vec<u8>>,
    what: &str,
) {
    let differing: Vec<_> = (expected.iter())
        .filter(|(name, bytes)| found.get(*name) != Some(bytes))
        .map(|(name, _)| name)
        .collect();
    assert!(differing.is_empty(), "{what}: {differing:?}");
}

#[test]
fn ranks_give_the_bytes_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    for training in ["", "precision = \"bf16\""] {
        let experiment = experiment(training);
        let place = |what: &str| folder.path().join(format!("{what}-{}", training.len()));
        let alone = place("alone");
        assert!(is_finished(&train(
            &experiment,
            &data,
            &alone,
            1,
            (0, usize::MAX)
        )));
        let expected = results(&alone);
        // Two and four ranks share a step's four batches evenly; of three the third is idle in the second round.
        for size in [2, 3, 4] {
            let shared = place(&format!("{size}-ranks"));
            assert!(is_finished(&train(
                &experiment,
                &data,
                &shared,
                size,
                (0, usize::MAX)
            )));
            assert_same(
                &expected,
                &results(&shared),
                &format!("{size} ranks, `{training}`"),
            );
        }
    }
}

/// A stop that one rank is asked for ends the others after the same step; whoever goes on with the run goes on with it.
#[test]
fn a_stopped_run_goes_on_with_another_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = experiment("");
    let alone = folder.path().join("alone");
    assert!(is_finished(&train(
        &experiment,
        &data,
        &alone,
        1,
        (0, usize::MAX)
    )));
    let stopped = folder.path().join("stopped");
    let mut calls = 0;
    loop {
        let size = [2, 1, 4, 3][calls % 4];
        let last = size - 1;
        if is_finished(&train(&experiment, &data, &stopped, size, (last, 1))) {
            break;
        }
        calls += 1;
    }
    assert!(calls >= 4, "{calls} stops");
    assert_same(&results(&alone), &results(&stopped), "stopped");
}

/// A loss that is not a number at a certain call, once it is armed.
#[derive(Debug, Clone, Default)]
struct Breaks(Arc<AtomicUsize>);

impl MultiLabelLoss for Breaks {
    fn forward(
        &self,
        logits: &Tensor,
        targets: &Tensor,
        _: Option<&Tensor>,
    ) -> TensorResult<Tensor> {
        let values = (logits - targets)?.sqr()?;
        match self
            .0
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
        {
            Ok(1) => values * f64::NAN,
            _ => Ok(values),
        }
    }

    fn name(&self) -> &str {
        "breaks"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Element
    }
}

/// One process reports the images of the first batch whose loss is not finite; so does every rank, whichever had it.
#[test]
fn what_is_not_finite_on_one_rank_is_reported_by_all_as_by_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = experiment("");
    // The third batch of the first step: the third call of one process, the second of rank 0 of two, the first of rank 2.
    let failures = |size: usize, (rank, call): (usize, usize)| {
        let path = folder.path().join(format!("breaks-{size}"));
        on_ranks(size, |ranks| {
            let variant = experiment.variant("hbm").unwrap();
            let run = folder_of(ranks, &path);
            let loss = Breaks::default();
            let parts = OwnParts::new().loss(loss.clone());
            let mut trainer =
                Trainer::on_ranks(&variant, &data, &run, &Device::Cpu, &parts, ranks).unwrap();
            if ranks.rank() == rank {
                loss.0.store(call, Relaxed);
            }
            let failed = trainer.train(&mut (), &AtomicBool::new(false)).unwrap_err();
            assert!(!run.latest_checkpoint().exists());
            failed.to_string()
        })
    };
    let [of_one] = failures(1, (0, 3)).try_into().unwrap();
    assert!(
        of_one.starts_with("the loss is not finite at step 0 of epoch 0"),
        "{of_one}"
    );
    for (size, place) in [(2, (0, 2)), (3, (2, 1)), (4, (2, 1))] {
        assert_eq!(failures(size, place), vec![of_one.clone(); size]);
    }
}

/// Ends the training after its first epoch, on one rank.
struct Finish(bool);

impl Observer for Finish {
    fn epoch_end(&mut self, _: &EpochEnd<'_>) -> Result<Decision, TrainError> {
        Ok(match self.0 {
            true => Decision::Finish,
            false => Decision::Continue,
        })
    }
}

#[test]
fn the_decision_of_any_rank_s_observer_counts() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = experiment("");
    let path = folder.path().join("decided");
    let epochs = on_ranks(2, |ranks| {
        let variant = experiment.variant("hbm").unwrap();
        let folder = folder_of(ranks, &path);
        let parts = OwnParts::new();
        let mut trainer =
            Trainer::on_ranks(&variant, &data, &folder, &Device::Cpu, &parts, ranks).unwrap();
        let mut observer = Finish(ranks.rank() == 1);
        match trainer.run(&mut observer, &AtomicBool::new(false)).unwrap() {
            TrainOutcome::Finished { history, .. } => history.len(),
            TrainOutcome::Stopped(position) => panic!("stopped at {position:?}"),
        }
    });
    assert_eq!(epochs, [1, 1]);
}

#[test]
fn ranks_of_other_experiments_and_more_ranks_than_batches_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let path = folder.path().join("refused");
    let make = |ranks: &dyn Ranks, experiment: &Experiment| {
        let variant = experiment.variant("hbm").unwrap();
        let folder = folder_of(ranks, &path);
        let parts = OwnParts::new();
        let trainer = Trainer::on_ranks(&variant, &data, &folder, &Device::Cpu, &parts, ranks);
        let mut trainer = trainer.map_err(Box::new)?;
        let trained = trainer.train(&mut (), &AtomicBool::new(false));
        trained.map(drop).map_err(Box::new)
    };
    let (plain, other) = (experiment(""), experiment("precision = \"bf16\""));
    for error in on_ranks(2, |ranks| {
        let experiment = if ranks.is_first() { &plain } else { &other };
        make(ranks, experiment).unwrap_err()
    }) {
        let TrainError::Ranks(RanksError::Differ { rank: 1, what }) = *error else {
            panic!("{error}");
        };
        assert_eq!(what, "the experiment");
    }
    for error in on_ranks(5, |ranks| make(ranks, &plain).unwrap_err()) {
        let error = error.to_string();
        assert!(
            error.contains("gradient_accumulation_steps") && error.contains("at least 5"),
            "{error}"
        );
    }
}

/// A backbone that moves a running statistic of its own by itself, on each rank by that rank's batches.
struct Counting {
    scale: Tensor,
    count: Var,
}

impl Backbone for Counting {
    fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> TensorResult<Tensor> {
        if let Phase::Train { .. } = phase {
            let mean = images.mean_all()?.reshape(1)?;
            self.count.set(&(self.count.as_tensor() + mean)?)?;
        }
        images.avg_pool2d(8)?.broadcast_mul(&self.scale)
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        (3, height / 8, width / 8)
    }
}

#[test]
fn ranks_that_come_apart_are_found_before_anything_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let path = folder.path().join("apart");
    let text = EXPERIMENT
        .replace("@training", "")
        .replace("frozen = [\"features.\"]", "");
    let text = text.replace(
        "groups = [{ parameters = \"features.conv0.*\", frozen = true }]",
        "",
    );
    let experiment = Experiment::parse(&text).unwrap();
    for error in on_ranks(2, |ranks| {
        let variant = experiment.variant("hbm").unwrap();
        let folder = folder_of(ranks, &path);
        let make = |path: &ParameterPath| {
            Ok::<_, OpsError>(Counting {
                scale: path.trainable("scale", 1, Init::Ones)?,
                count: path.running("count", 1, Init::Zeros)?,
            })
        };
        let parts = OwnParts::new().backbone("counting", make);
        let trainer = Trainer::on_ranks(&variant, &data, &folder, &Device::Cpu, &parts, ranks);
        let trained = trainer.unwrap().train(&mut (), &AtomicBool::new(false));
        trained.unwrap_err().to_string()
    }) {
        assert!(
            error.contains("differ in the weights and running statistics"),
            "{error}"
        );
    }
    assert!(!path.join("checkpoints/latest.safetensors").exists());
}
