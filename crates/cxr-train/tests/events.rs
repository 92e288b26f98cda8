//! `events.jsonl` of a run that is stopped, killed and resumed is that of an undisturbed run.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

#[path = "../examples/own_data/images.rs"]
mod images;

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use cxr_train::{
    Event, Experiment, Observer, Profile, RunFolder, RunStatus, TrainOutcome, Trainer, TrainingData,
};
use serde_json::Value;

const EXPERIMENT: &str = r#"
name = "watched"
[data]
validation = { patient-fold = { fold = 0, of = 4 } }
[model]
backbone = { densenet = { stem_channels = 4, growth_rate = 4, block_layers = [1, 1] } }
head = { linear = {} }
[augmentation]
image_size = 40
crop_size = 32
[training]
batch_size = 12
checkpoint_steps = 2
[[training.stages]]
name = "head"
epochs = 2
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-3 } }
[[training.stages]]
name = "all"
epochs = 2
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// Stops, or ends the process as a kill would: by a panic in the middle of a run.
struct Disturb<'a> {
    log: &'a mut dyn Observer,
    stop: &'a AtomicBool,
    left: usize,
    kill: bool,
}

impl Observer for Disturb<'_> {
    fn on(&mut self, event: &Event<'_>) {
        self.log.on(event);
        if matches!(event, Event::Predicting { .. }) {
            return;
        }
        self.left = self.left.saturating_sub(1);
        if self.left == 0 && self.kill {
            panic!("killed");
        }
        if self.left == 0 {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs to the end, disturbed after every `events` events, or never; looks at steps `looking` at a time.
fn run(
    experiment: &Experiment,
    data: &TrainingData,
    path: &Path,
    events: Option<(usize, bool)>,
    looking: usize,
) -> Vec<Value> {
    let variant = experiment.variant("bce").unwrap();
    for process in 0.. {
        assert!(process < 200, "the run does not get on");
        let folder = RunFolder::open(path).unwrap();
        let trainer = Trainer::new(&variant, data, &folder, &Device::Cpu).unwrap();
        let mut trainer = trainer.sync_every(looking);
        let mut log = trainer.event_log().unwrap();
        let stop = AtomicBool::new(false);
        let (left, kill) = events.unwrap_or((usize::MAX, false));
        // A kill inside a step after which no checkpoint stands would come back for ever.
        let left = left + process;
        let mut observer = Disturb {
            log: &mut log,
            stop: &stop,
            left,
            kill,
        };
        let work = std::panic::AssertUnwindSafe(|| trainer.run(&mut observer, &stop).unwrap());
        let Ok(outcome) = std::panic::catch_unwind(work) else {
            // Half a line, as a kill may leave it.
            let path = path.join("events.jsonl");
            let mut file = std::fs::File::options().append(true).open(path).unwrap();
            file.write_all(b"{\"event\":\"st").unwrap();
            continue;
        };
        log.finish().unwrap();
        if let TrainOutcome::Finished { .. } = outcome {
            break;
        }
    }
    let text = std::fs::read_to_string(path.join("events.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

fn data(folder: &Path) -> TrainingData {
    images::write(folder).unwrap();
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    TrainingData::from_table(&folder.join("labels.csv"), folder, 4, &experiment).unwrap()
}

fn without_times(mut events: Vec<Value>) -> Vec<Value> {
    for event in &mut events {
        let fields = event.as_object_mut().unwrap();
        assert!(fields.remove("time").unwrap().as_f64().unwrap() > 1.7e9);
        fields.remove("seconds");
    }
    events
}

#[test]
fn however_a_run_is_disturbed_its_events_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let whole = the_same_however_disturbed(&experiment, &data, folder.path());
    let of = |kind| of_kind(&whole, kind);
    // Some fifty images train, in batches of 12: five steps an epoch, checkpoints at 2 and 4.
    assert_eq!(data.split().train().len().div_ceil(12), 5);
    let step_4 = &of("step")[4];
    assert_eq!((&step_4["step"], &step_4["steps"]), (&4.into(), &5.into()));
    assert_eq!((of("stage").len(), of("step").len()), (2, 20));
    assert_eq!((of("epoch").len(), of("checkpoint").len()), (4, 12));
}

/// The second stage's events stand behind an early end of the first: a resume there must keep both.
#[test]
fn an_early_stop_stays_in_the_events_of_a_disturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    // A head that hardly moves: no epoch is better than the first.
    let text = EXPERIMENT.replacen("epochs = 2", "epochs = 3\npatience = 1", 1);
    let text = text.replacen("rate = 1e-3", "rate = 1e-12", 1);
    let experiment = Experiment::parse(&text).unwrap();
    let whole = the_same_however_disturbed(&experiment, &data, folder.path());
    let [stop] = of_kind(&whole, "early-stop")[..] else {
        panic!("expected one early stop: {whole:?}");
    };
    assert_eq!(
        (&stop["epoch"], &stop["patience"]),
        (&1.into(), &1.into()),
        "{stop}"
    );
    let epochs = of_kind(&whole, "epoch").into_iter();
    let epochs: Vec<u64> = epochs
        .map(|event| event["epoch"].as_u64().unwrap())
        .collect();
    assert_eq!(epochs, [0, 1, 3, 4]);
    // Whoever looks at the run counts epochs as the events do, the one that was not made too.
    let status = RunStatus::read(&folder.path().join("whole")).unwrap();
    assert_eq!((status.first_epoch, status.history.len()), (5, 4));
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let is_kind = |event: &&Value| event["event"] == kind;
    events.iter().filter(is_kind).collect()
}

/// The events of an undisturbed run, which are those of disturbed ones.
fn the_same_however_disturbed(
    experiment: &Experiment,
    data: &TrainingData,
    folder: &Path,
) -> Vec<Value> {
    let run = |name: &str, events, looking| {
        without_times(run(experiment, data, &folder.join(name), events, looking))
    };
    let whole = run("whole", None, 1);
    for (every, kill, looking) in [
        (1, false, 1),
        (4, false, 1),
        (3, true, 1),
        (7, true, 1),
        (4, false, 3),
        (5, true, 16),
    ] {
        let name = format!("{every}-{kill}-{looking}");
        assert_eq!(
            run(&name, Some((every, kill)), looking),
            whole,
            "disturbed after every {every} events, killed: {kill}, steps looked at: {looking}"
        );
    }
    assert_eq!(run("late", None, 16), whole);
    whole
}

#[test]
fn a_profile_is_a_trace_of_nested_spans() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let variant = experiment.variant("bce").unwrap();
    let path = folder.path().join("trace.json");
    let profile = Profile::create(&path).unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let mut trainer = trainer.profiled(&profile);
    trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
    drop(trainer);
    profile.finish().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let named = |name: &str| -> Vec<&Value> {
        let has_name = |event: &&Value| event["name"] == name && event["ph"] == "X";
        events.iter().filter(has_name).collect()
    };
    for (name, count) in [
        ("step", 20),
        ("forward", 20),
        ("loss", 20),
        ("backward", 20),
        ("optimiser", 20),
        ("loader wait", 20),
        ("checkpoint", 12),
        ("validation", 4),
    ] {
        assert_eq!(named(name).len(), count, "{name}");
    }
    let span = |event: &Value| {
        let number = |key: &str| event[key].as_f64().unwrap();
        (number("ts"), number("ts") + number("dur"))
    };
    let steps = named("step");
    assert_eq!(
        steps[7]["args"],
        serde_json::json!({ "epoch": 1, "step": 2 })
    );
    for (step, backward) in steps.iter().zip(named("backward")) {
        let ((begin, end), (inner_begin, inner_end)) = (span(step), span(backward));
        assert!(begin <= inner_begin && inner_begin <= inner_end && inner_end <= end);
    }
}
