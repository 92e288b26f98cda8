//! What decides the course of a run besides the optimiser: groups, clipping, accumulation, the average of
//! the weights, early stopping; and what stops it.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::{Device, Tensor};
use cxr_augment::ViewSet;
use cxr_dataset::Part;
use cxr_train::{
    EpochRecord, Event, Experiment, Observer, RunError, RunFolder, TrainError, TrainOutcome,
    Trainer, TrainingData, load_model, predict,
};

use phantoms::{StopAfter, data};

/// `@training` and `@stage` are replaced.
const EXPERIMENT: &str = r#"
name = "course"
seed = 3

[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { top-network = { conv_channels = [8, 8], hidden = 8 } }

[augmentation]
image_size = 64
crop_size = 56

[training]
batch_size = 6
checkpoint_steps = 2
@training

[[training.stages]]
name = "first"
epochs = 3
@stage

[[training.stages]]
name = "second"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }

[[variants]]
name = "hbm"
loss = "hbm"
"#;

const RATE: &str = "schedule = { constant = { learning_rate = 1e-3 } }";

const EVERYTHING: (&str, &str) = (
    r#"
gradient_accumulation_steps = 2
clip_norm = 0.5
ema_decay = 0.8
optimiser = { kind = "sgd", momentum = 0.9, nesterov = true, weight_decay = 1e-3 }"#,
    r#"
patience = 2
schedule = { cosine = { learning_rate = 1e-2, min_learning_rate = 1e-4, warmup = 2 } }
groups = [
    { parameters = "features.conv0.*", frozen = true },
    { parameters = "*.bias", weight_decay = 0.0 },
    { parameters = "features.*", learning_rate_factor = 0.3 },
]"#,
);

fn experiment(training: &str, stage: &str) -> Experiment {
    let text = EXPERIMENT.replace("@training", training);
    Experiment::parse(&text.replace("@stage", stage)).unwrap()
}

/// Steps of a run: images, loss, rate, gradient norm.
#[derive(Default)]
struct Steps(Vec<(usize, f64, f64, f64)>);

impl Observer for Steps {
    fn on(&mut self, event: &Event<'_>) {
        if let Event::Step {
            images,
            loss,
            rate,
            gradient_norm,
            ..
        } = *event
        {
            self.0.push((images, loss, rate, gradient_norm));
        }
    }
}

fn history(outcome: TrainOutcome) -> Vec<EpochRecord> {
    match outcome {
        TrainOutcome::Finished { history, .. } => history,
        TrainOutcome::Stopped(position) => panic!("stopped at {position:?}"),
    }
}

/// Trains in `folder`, stopping after every `steps` steps, which are looked at `looking` at a time; the model's bytes.
fn train(
    experiment: &Experiment,
    data: &TrainingData,
    folder: &Path,
    steps: usize,
    looking: usize,
) -> Vec<u8> {
    let variant = experiment.variant("hbm").unwrap();
    for _ in 0..50 {
        let folder = RunFolder::open(folder).unwrap();
        let trainer = Trainer::new(&variant, data, &folder, &Device::Cpu).unwrap();
        let mut trainer = trainer.sync_every(looking);
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            left: AtomicUsize::new(steps),
            stop: &stop,
        };
        if let TrainOutcome::Finished { .. } = trainer.run(&mut observer, &stop).unwrap() {
            return std::fs::read(folder.model_file()).unwrap();
        }
    }
    panic!("the run does not get on");
}

/// The message with which a trainer refuses a folder.
fn refusal(experiment: &Experiment, data: &TrainingData, folder: &Path) -> String {
    let variant = experiment.variant("hbm").unwrap();
    let folder = RunFolder::open(folder).unwrap();
    let trainer = Trainer::new(&variant, data, &folder, &Device::Cpu);
    trainer.err().unwrap().to_string()
}

fn values(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<&str, Vec<f32>> {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    let each = tensors.iter();
    each.map(|(name, tensor)| (name.as_str(), flat(tensor)))
        .collect()
}

#[test]
fn everything_that_keeps_a_state_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = experiment(EVERYTHING.0, EVERYTHING.1);
    let whole = train(
        &experiment,
        &data,
        &folder.path().join("whole"),
        usize::MAX,
        1,
    );
    for (steps, looking) in [(1, 1), (3, 1), (2, 2), (usize::MAX, 3)] {
        let cut = folder.path().join(format!("cut-{steps}-{looking}"));
        let model = train(&experiment, &data, &cut, steps, looking);
        assert!(whole == model, "stopped after {steps}, looked at {looking}");
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
    let alone = folder.path().join("one-thread");
    let one = || train(&experiment, &data, &alone, usize::MAX, 1);
    assert!(whole == pool.build().unwrap().install(one));
}

#[test]
fn a_step_takes_as_many_batches_as_are_accumulated() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = experiment("gradient_accumulation_steps = 3", RATE);
    let variant = experiment.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let mut steps = Steps::default();
    trainer.run(&mut steps, &AtomicBool::new(false)).unwrap();
    // 22 images in batches of 6, 6, 6 and 4: two steps in each of the four epochs.
    let images: Vec<usize> = steps.0.iter().map(|step| step.0).collect();
    assert_eq!(images, [18, 4].repeat(4));
}

#[test]
fn one_batch_is_left_alone_however_many_a_step_could_take() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let model = |training: &str, name: &str| {
        let text = EXPERIMENT.replace("batch_size = 6", "batch_size = 22");
        let text = text.replace("@training", training).replace("@stage", RATE);
        let experiment = Experiment::parse(&text).unwrap();
        train(&experiment, &data, &folder.path().join(name), usize::MAX, 1)
    };
    let (alone, accumulated) = (
        model("", "alone"),
        model("gradient_accumulation_steps = 4", "accumulated"),
    );
    assert!(tensors_of(&alone) == tensors_of(&accumulated));
}

/// The bytes of a model file after its header, in which settings stand.
fn tensors_of(model: &[u8]) -> &[u8] {
    let header = u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
    &model[8 + header..]
}

#[test]
fn a_clipped_step_is_no_longer_than_rate_times_bound() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let training =
        "clip_norm = 0.01\noptimiser = { kind = 'sgd', momentum = 0.0, weight_decay = 0.0 }";
    let experiment = experiment(
        training,
        "schedule = { constant = { learning_rate = 0.5 } }",
    );
    let variant = experiment.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let trainable = |trainer: &Trainer<'_>| {
        let vars = trainer.classifier().parameters();
        let vars = vars.select(cxr_ops::Role::Trainable, "");
        let flat = vars.iter().map(|(_, var)| var.flatten_all().unwrap());
        let values: Vec<Vec<f32>> = flat.map(|flat| flat.to_vec1().unwrap()).collect();
        values.concat()
    };
    let before = trainable(&trainer);
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        left: AtomicUsize::new(1),
        stop: &stop,
    };
    trainer.run(&mut observer, &stop).unwrap();
    let after = trainable(&trainer);
    let squares = before
        .iter()
        .zip(&after)
        .map(|(a, b)| f64::from(a - b).powi(2));
    let length = squares.sum::<f64>().sqrt();
    // The loss's own bound moved too, so it may be a little less.
    assert!(length <= 0.5 * 0.01 * 1.001, "{length}");
    assert!(length >= 0.5 * 0.01 * 0.5, "{length}");
}

#[test]
fn the_average_is_what_is_validated_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = experiment("ema_decay = 0.9", RATE);
    let variant = experiment.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let stop = AtomicBool::new(false);
    let history = history(trainer.run(&mut (), &stop).unwrap());
    let (card, averaged) = load_model(&run.model_file(), &Device::Cpu).unwrap();
    let (saved, weights) = (
        averaged.parameters().tensors(""),
        trainer.classifier().parameters().tensors(""),
    );
    let (saved, weights) = (values(&saved), values(&weights));
    assert!(saved.keys().eq(weights.keys()));
    for (name, saved) in &saved {
        assert_ne!(*saved, weights[name], "{name} is not averaged");
    }
    let prediction = predict(
        &averaged,
        &card,
        &data,
        Part::Validation,
        ViewSet::Single,
        4,
        &mut (),
        &stop,
    );
    let prediction = prediction.unwrap().unwrap();
    let mean = prediction.macro_auc(ViewSet::Single, data.index()).unwrap();
    let last = history.last().unwrap();
    assert_eq!(last.validation_auc, mean.map(|mean| mean.value));
    // Without the setting the weights are the same, and are what is saved.
    let plain = plain();
    let variant = plain.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("plain")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    trainer.run(&mut (), &stop).unwrap();
    let (_, classifier) = load_model(&run.model_file(), &Device::Cpu).unwrap();
    let tensors = classifier.parameters().tensors("");
    assert_eq!(values(&tensors), weights);
}

fn plain() -> Experiment {
    experiment("", RATE)
}

#[test]
fn a_stage_ends_when_its_patience_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    // Six of them validate.
    phantoms::write(folder.path(), 60);
    let data = phantoms::read(folder.path());
    let run = |stage: &str, name: &str| {
        let text = EXPERIMENT.replace("epochs = 3", "epochs = 12");
        let text = text.replace("@training", "").replace("@stage", stage);
        let experiment = Experiment::parse(&text).unwrap();
        let variant = experiment.variant("hbm").unwrap();
        let run = RunFolder::open(folder.path().join(name)).unwrap();
        let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
        history(trainer.run(&mut (), &AtomicBool::new(false)).unwrap())
    };
    let whole = run(RATE, "whole");
    assert_eq!(whole.len(), 13);
    let patience = 2;
    let stopped = run(&format!("patience = {patience}\n{RATE}"), "stopped");
    // The first epoch after which the best mean is two epochs old, of a run that went on.
    let means: Vec<f64> = whole
        .iter()
        .map(|e| e.validation_auc.unwrap_or(-1.))
        .collect();
    let is_spent = |epoch: &usize| {
        let best = means[..=*epoch].iter().copied().fold(-1., f64::max);
        let first_best = means.iter().position(|&mean| mean == best).unwrap();
        epoch - first_best >= patience && best >= 0.
    };
    let expected = (0..12).find(is_spent).unwrap();
    assert!(
        expected < 11,
        "the run is too short to be stopped: {means:?}"
    );
    let epochs: Vec<usize> = stopped.iter().map(|record| record.epoch).collect();
    // The second stage counts, and draws, as if the first had been made whole.
    let planned: Vec<usize> = (0..=expected).chain([12]).collect();
    assert_eq!(epochs, planned);
    for (stopped, whole) in stopped.iter().zip(&whole).take(expected + 1) {
        assert_eq!(stopped.validation_auc, whole.validation_auc);
    }
}

#[test]
fn a_frozen_group_stays_and_a_pattern_that_fits_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let frozen = experiment(
        "",
        &format!("{RATE}\ngroups = [{{ parameters = 'features.*.weight', frozen = true }}]"),
    );
    let variant = frozen.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let tensors = |trainer: &Trainer<'_>| {
        let tensors = trainer.classifier().parameters().tensors("");
        let owned = values(&tensors).into_iter();
        owned
            .map(|(name, values)| (name.to_owned(), values))
            .collect::<BTreeMap<_, _>>()
    };
    let before = tensors(&trainer);
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        left: AtomicUsize::new(4),
        stop: &stop,
    };
    trainer.run(&mut observer, &stop).unwrap();
    for (name, after) in tensors(&trainer) {
        let is_frozen = name.starts_with("features.") && name.ends_with(".weight");
        assert_eq!(after == before[&name], is_frozen, "{name}");
    }
    drop(trainer);
    drop(run);

    // By running statistics the backbone trains and its averages stay; the head's move.
    let running = experiment("", &format!("norm_statistics = \"running\"\n{RATE}"));
    let variant = running.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("running")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let before = tensors(&trainer);
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        left: AtomicUsize::new(4),
        stop: &stop,
    };
    trainer.run(&mut observer, &stop).unwrap();
    for (name, after) in tensors(&trainer) {
        let stays = name.starts_with("features.") && name.contains(".running_");
        assert_eq!(after == before[&name], stays, "{name}");
    }
    drop(trainer);
    drop(run);
    let refused = folder.path().join("refused");
    for (stage, expected) in [
        (
            "groups = [{ parameters = 'feature.*', learning_rate_factor = 0.1 }]",
            "training.stages[0].groups[0].parameters",
        ),
        (
            "groups = [{ parameters = '*', learning_rate_factor = 0.1 }, { parameters = 'top.*', weight_decay = 0.0 }]",
            "training.stages[0].groups[1].parameters",
        ),
        (
            "groups = [{ parameters = 'features.*', frozen = true }, { parameters = 'top.*', frozen = true }]",
            "such that something is trained",
        ),
    ] {
        let experiment = experiment("", &format!("{RATE}\n{stage}"));
        let found = refusal(&experiment, &data, &refused);
        assert!(found.contains(expected), "{stage}: {found}");
    }
    let long = experiment(
        "",
        "schedule = { constant = { learning_rate = 1.0, warmup = 3, per = 'epoch' } }",
    );
    let found = refusal(&long, &data, &refused);
    assert!(
        found.contains("shorter than the stage's 3 epochs"),
        "{found}"
    );
}

#[test]
fn a_bound_that_the_loss_learns_is_the_threshold_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let thresholds = |name: &str, stage: &str| {
        let text = EXPERIMENT.replace("loss = \"hbm\"", "loss = \"hbm\"\nbound = 0.5");
        let text = text.replace("@training", "").replace("@stage", RATE);
        let rate = "schedule = { constant = { learning_rate = 1e-3 } }";
        let text = text.replace(rate, &format!("{rate}\n{stage}"));
        let experiment = Experiment::parse(&text).unwrap();
        let folder = folder.path().join(name);
        train(&experiment, &data, &folder, usize::MAX, 1);
        let model = RunFolder::open(&folder).unwrap().model_file();
        let (card, _) = load_model(&model, &Device::Cpu).unwrap();
        assert_eq!(card.logit_thresholds.len(), card.labels.len());
        card.logit_thresholds[0]
    };
    let learnt = thresholds("learnt", "");
    assert!(
        (learnt - 0.5).abs() > 1e-4 && learnt.is_finite(),
        "{learnt}"
    );
    // Frozen by the prefix of the loss's own parameters it stays what it was.
    assert!(thresholds("frozen", "frozen = ['loss.']") == 0.5);
}

/// Fails at every event.
struct Forgetful;

impl Observer for Forgetful {
    fn on(&mut self, _event: &Event<'_>) {}

    fn before_checkpoint(&mut self) -> Result<(), TrainError> {
        Err(TrainError::LoaderPanicked)
    }
}

#[test]
fn no_checkpoint_is_written_whose_past_was_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = experiment("", RATE);
    let variant = experiment.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let stopped = trainer.run(&mut Forgetful, &AtomicBool::new(false));
    assert!(matches!(stopped, Err(TrainError::LoaderPanicked)));
    assert!(!run.path().join("checkpoints/latest.safetensors").exists());
}

#[test]
fn what_is_not_finite_stops_with_step_images_and_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let fails = |experiment: &Experiment, name: &str, looking: usize| {
        let variant = experiment.variant("hbm").unwrap();
        let run = RunFolder::open(folder.path().join(name)).unwrap();
        let trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
        let mut trainer = trainer.sync_every(looking);
        let error = trainer.run(&mut (), &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
        assert!(!run.model_file().exists());
        error.to_string()
    };
    let at_once = experiment("", "schedule = { constant = { learning_rate = 1e38 } }");
    let found = fails(&at_once, "at-once", 1);
    // An error that is read later names the step in which it happened, and none is saved after it.
    assert_eq!(fails(&at_once, "at-once-and-later", 16), found);
    assert!(
        found.contains("is not finite at step 0 of epoch 0 in stage `first`")
            && found.contains(".png`")
            && found.contains("no checkpoint was written before it"),
        "{found}"
    );
    // In the second stage there is a checkpoint, and the run is ready to go on from it.
    let text = EXPERIMENT.replace(
        "epochs = 1\nschedule = { constant = { learning_rate = 1e-3",
        "epochs = 1\nschedule = { constant = { learning_rate = 1e38",
    );
    assert_ne!(text, EXPERIMENT);
    let text = text.replace("@training", "").replace("@stage", RATE);
    let later = Experiment::parse(&text).unwrap();
    let found = fails(&later, "later", 1);
    let late = fails(&later, "later-and-later", 5);
    assert_eq!(late.replace("later-and-later", "later"), found);
    assert!(
        found.contains("in stage `second`")
            && found.contains("the last good checkpoint is `")
            && found.contains("latest.safetensors`"),
        "{found}"
    );
    let variant = later.variant("hbm").unwrap();
    let run = RunFolder::open(folder.path().join("later")).unwrap();
    let trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    assert_eq!(trainer.position().stage, 1);
    let tensors = trainer.classifier().parameters().tensors("");
    let all = values(&tensors);
    assert!(all.values().flatten().all(|value| value.is_finite()));
}

#[test]
fn changed_data_are_refused_by_what_changed() {
    let folder = tempfile::tempdir().unwrap();
    let first = data(folder.path());
    let experiment = plain();
    let run = folder.path().join("run");
    train(&experiment, &first, &run, usize::MAX, 1);
    drop(first);
    let table = folder.path().join("Data_Entry_2017_v2020.csv");
    let text = std::fs::read_to_string(&table).unwrap();
    let changed = text.replacen("No Finding", "Hernia", 1);
    assert_ne!(text, changed);
    std::fs::write(&table, changed).unwrap();
    let found = refusal(&experiment, &phantoms::read(folder.path()), &run);
    assert!(found.contains("the label table differ"), "{found}");
    std::fs::write(&table, text).unwrap();
    let list = folder.path().join("train_val_list.txt");
    let names = std::fs::read_to_string(&list).unwrap();
    let fewer: Vec<&str> = names.lines().skip(1).collect();
    std::fs::write(&list, fewer.join("\n")).unwrap();
    let found = refusal(&experiment, &phantoms::read(folder.path()), &run);
    assert!(
        found.contains("list (there 2") && found.contains("the prepared images"),
        "{found}"
    );
}

#[test]
fn what_a_killed_process_left_half_written_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    std::fs::create_dir_all(&checkpoints).unwrap();
    let left = [
        checkpoints.join(".tmpAbCdEf.tmp"),
        folder.path().join(".tmp012345.tmp"),
    ];
    let others = [
        checkpoints.join("mine.tmp"),
        folder.path().join("notes.txt"),
    ];
    for path in left.iter().chain(&others) {
        std::fs::write(path, "half").unwrap();
    }
    RunFolder::open(folder.path()).unwrap();
    assert!(left.iter().all(|path| !path.exists()));
    assert!(others.iter().all(|path| path.exists()));
}

#[test]
fn the_settings_of_the_readme_are_an_experiment() {
    let readme = include_str!("../README.md");
    let (_, block) = readme.split_once("```toml\n").unwrap();
    let (settings, _) = block.split_once("```").unwrap();
    let text = format!("name = 'readme'\n{settings}\n[[variants]]\nname = 'bce'\nloss = 'bce'\n");
    let experiment = Experiment::parse(&text).unwrap();
    assert_eq!(experiment.training.stages[0].groups.len(), 3);
}

#[test]
fn a_run_that_is_looked_at_for_a_moment_opens_and_one_in_use_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let in_use = RunFolder::open(&path).unwrap();
    let error = RunFolder::open(&path).unwrap_err();
    assert!(matches!(error, RunError::InUse { .. }), "{error}");
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(60));
        drop(in_use);
    });
    RunFolder::open(&path).unwrap();
    release.join().unwrap();
}
