//! What a program decides while a training runs, and what it is refused before one begins.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::{D, Device, Result, Tensor};
use cxr_augment::{KeyedRng, Transform, ViewSet};
use cxr_dataset::Part;
use cxr_losses::BiasedBoundMargin;
use cxr_ops::{Conv2d, Conv2dConfig, Init, Linear, OpsError, ParameterPath};
use cxr_run::Finish;
use cxr_train::{
    Backbone, Decision, Event, Experiment, Granularity, Head, MultiLabelLoss, Observer, OwnParts,
    Phase, RunFolder, TrainError, TrainOutcome, Trainer, TrainingData, VariantExperiment,
    at_epoch_end, load_model, on_event, predict,
};

use phantoms::{StopAfter, data};

/// `@first` is replaced.
const EXPERIMENT: &str = r#"
name = "control"
seed = 3
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { linear = {} }
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
ema_decay = 0.5
[[training.stages]]
name = "first"
epochs = @first
schedule = { constant = { learning_rate = 1e-3 } }
[[training.stages]]
name = "second"
epochs = @second
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

fn variant(first: usize, second: usize) -> VariantExperiment {
    let text = EXPERIMENT.replace("@first", &first.to_string());
    let text = text.replace("@second", &second.to_string());
    Experiment::parse(&text).unwrap().variant("bce").unwrap()
}

/// The weights of a model file.
fn weights(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let (_, classifier) = load_model(path, &Device::Cpu).unwrap();
    let tensors = classifier.parameters().tensors("").into_iter();
    tensors
        .map(|(name, tensor)| (name, tensor.flatten_all().unwrap().to_vec1().unwrap()))
        .collect()
}

/// The lines of `events.jsonl` without what the clock says.
fn events(run: &RunFolder) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.events_file()).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields = line.as_object_mut().unwrap();
        fields.remove("time");
        fields.remove("seconds");
        line
    };
    text.lines().map(line).collect()
}

/// Ends the first stage after two epochs and the training after another: by what is in the history, so that a resumed run
/// decides the same.
fn two_and_one() -> impl Observer {
    at_epoch_end(|end| {
        let of_stage = end
            .history
            .iter()
            .filter(|record| record.stage == end.stage);
        Ok(match (end.stage, of_stage.count()) {
            ("first", 2) => Decision::EndStage,
            ("second", 1) => Decision::Finish,
            _ => Decision::Continue,
        })
    })
}

fn train(
    variant: &VariantExperiment,
    data: &TrainingData,
    run: &RunFolder,
    steps: usize,
    observer: &mut dyn Observer,
) -> TrainOutcome {
    loop {
        let locked = RunFolder::open(run.path()).unwrap();
        let mut trainer = Trainer::new(variant, data, &locked, &Device::Cpu).unwrap();
        let stop = AtomicBool::new(false);
        let stopper = StopAfter {
            left: AtomicUsize::new(steps),
            stop: &stop,
        };
        let log = trainer.event_log().unwrap();
        let mut observers = (log, stopper, &mut *observer);
        let outcome = trainer.run(&mut observers, &stop).unwrap();
        if let TrainOutcome::Finished { .. } = outcome {
            return outcome;
        }
    }
}

#[test]
fn a_training_that_is_ended_is_the_one_that_was_planned_shorter() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = |name: &str| RunFolder::at(folder.path().join(name));
    let (planned, ended, resumed) = (run("planned"), run("ended"), run("resumed"));
    train(&variant(2, 1), &data, &planned, usize::MAX, &mut ());
    let finished = run("finished");
    train(
        &variant(2, 5),
        &data,
        &finished,
        usize::MAX,
        &mut two_and_one(),
    );
    assert_eq!(
        weights(&finished.model_file()),
        weights(&planned.model_file())
    );
    // The second stage draws as if the first had all its epochs, so that it is compared up to there.
    let long = variant(4, 5);
    let outcome = train(&long, &data, &ended, usize::MAX, &mut two_and_one());
    let TrainOutcome::Finished { history, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        history
            .iter()
            .map(|record| record.epoch)
            .collect::<Vec<_>>(),
        [0, 1, 4]
    );
    assert_eq!(
        weights(&ended.before_stage(1)),
        weights(&planned.before_stage(1))
    );

    // Stopped at every step and asked again, it decides the same, and leaves the same lines.
    train(&long, &data, &resumed, 1, &mut two_and_one());
    let model = |run: &RunFolder| std::fs::read(run.model_file()).unwrap();
    assert!(model(&ended) == model(&resumed), "the models differ");
    assert_eq!(events(&ended), events(&resumed));
    let decided: Vec<_> = (events(&ended).into_iter())
        .filter(|line| line["event"] == "decided")
        .map(|line| {
            (
                line["stage"].clone(),
                line["epoch"].clone(),
                line["decision"].clone(),
            )
        })
        .collect();
    let decided = serde_json::to_value(decided).unwrap();
    let expected = serde_json::json!([["first", 1, "end-stage"], ["second", 4, "finish"]]);
    assert_eq!(decided, expected);
}

/// A training that was finished in its first stage never was before the second.
#[test]
fn a_finished_training_is_evaluated_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant(3, 2), &data, &run, &Device::Cpu).unwrap();
    let mut finish = at_epoch_end(|_| Ok(Decision::Finish));
    let never = AtomicBool::new(false);
    let outcome = trainer.run(&mut finish, &never).unwrap();
    assert!(matches!(outcome, TrainOutcome::Finished { .. }));
    assert!(run.model_file().is_file());
    let metrics = trainer.evaluate(&mut (), &never).unwrap().unwrap();
    assert_eq!(run.finish().unwrap(), Finish::Finished);
    assert_eq!(metrics.history.len(), 1);
    let stages: Vec<&str> = metrics.stages.iter().map(|stage| &*stage.before).collect();
    assert_eq!(stages, ["first"]);
    // Called again, it is finished and asks nobody.
    let mut asked = at_epoch_end(|_| Err("nobody is to be asked".into()));
    let again = trainer.run(&mut asked, &never).unwrap();
    assert!(matches!(again, TrainOutcome::Finished { .. }));
}

#[test]
fn an_observer_sees_the_network_that_was_validated() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant(2, 1), &data, &run, &Device::Cpu).unwrap();
    let never = AtomicBool::new(false);
    let (mut n_seen, mut steps) = (0, 0);
    let look = at_epoch_end(|end| {
        let part = Part::Validation;
        let (classifier, card) = (end.classifier, end.card);
        let again = predict(
            classifier,
            card,
            end.data,
            part,
            ViewSet::Single,
            5,
            &mut (),
            &never,
        )?;
        assert_eq!(again.as_ref(), Some(end.validation));
        let mean = end
            .validation
            .macro_auc(ViewSet::Single, end.data.index())?;
        assert_eq!(end.record.validation_auc, mean.map(|mean| mean.value));
        assert_eq!(end.history.last(), Some(end.record));
        assert_eq!((end.epoch, end.history.len()), (n_seen, n_seen + 1));
        n_seen += 1;
        Ok(Decision::Continue)
    });
    let count = on_event(|event| steps += usize::from(matches!(event, Event::Step { .. })));
    let mut observers: Vec<Box<dyn Observer + '_>> = vec![Box::new(look), Box::new(count)];
    trainer.run(&mut observers, &never).unwrap();
    drop(observers);
    // 22 images in batches of six.
    assert_eq!((n_seen, steps), (3, 12));
}

#[test]
fn of_several_decisions_the_strongest_counts_and_all_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant(3, 1), &data, &run, &Device::Cpu).unwrap();
    let mut asked = 0;
    let mut observers = (
        at_epoch_end(|_| Ok(Decision::EndStage)),
        at_epoch_end(|end| {
            asked += 1;
            Ok(if end.stage == "first" {
                Decision::Continue
            } else {
                Decision::Finish
            })
        }),
    );
    trainer
        .run(&mut observers, &AtomicBool::new(false))
        .unwrap();
    drop(observers);
    assert_eq!(asked, 2);
}

#[test]
fn an_error_of_an_observer_ends_the_training_before_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let variant = variant(2, 1);
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let mut observer = at_epoch_end(|end| match end.epoch {
        0 => Ok(Decision::Continue),
        _ => Err("the disk of my own table is full".into()),
    });
    let error = trainer
        .run(&mut observer, &AtomicBool::new(false))
        .unwrap_err();
    let TrainError::Observer { source } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(source.to_string(), "the disk of my own table is full");
    // The next trainer makes the second epoch again.
    let trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    assert_eq!((trainer.position().epoch, trainer.position().step), (1, 0));
}

/// A head on the mean of each map, with `1 + more` times as many logits as are asked for.
struct Wide(Linear);

impl Head for Wide {
    fn forward_t(&self, maps: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.0
            .forward_t(&maps.mean(D::Minus1)?.mean(D::Minus1)?, phase)
    }
}

fn wide(more: usize) -> OwnParts<'static> {
    OwnParts::new().head("wide", move |(maps, ..), labels, path| {
        Linear::new(maps, labels + more, Init::GlorotUniform, path).map(Wide)
    })
}

/// One convolution, which is wrong about how many maps it makes.
struct Liar(Conv2d);

impl Backbone for Liar {
    fn forward_t(&self, images: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        self.0.forward_t(images, phase)
    }

    fn feature_shape(&self, height: usize, width: usize) -> (usize, usize, usize) {
        (5, height, width)
    }
}

fn liar(path: &ParameterPath) -> std::result::Result<Liar, OpsError> {
    let config = Conv2dConfig {
        padding: 1,
        ..Conv2dConfig::default()
    };
    Conv2d::new(3, 4, 3, config, Init::GlorotUniform, path).map(Liar)
}

/// Says that its values are one for each image, and makes one for each element.
#[derive(Debug)]
struct Misjudged;

impl MultiLabelLoss for Misjudged {
    fn forward(&self, logits: &Tensor, targets: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
        (logits - targets)?.sqr()
    }

    fn name(&self) -> &str {
        "misjudged"
    }

    fn granularity(&self) -> Granularity {
        Granularity::Image
    }
}

/// Divides by the darkest grey of an image, which is 0 where a corner is black.
struct Division;

impl Transform for Division {
    fn name(&self) -> &str {
        "division"
    }

    fn change_gray(&self, _: &mut KeyedRng, gray: &mut [f32], _width: usize) {
        gray.iter_mut().for_each(|gray| *gray = *gray * 0. / 0.);
    }
}

fn refusal(data: &TrainingData, folder: &Path, parts: &OwnParts<'_>) -> String {
    let run = RunFolder::open(folder).unwrap();
    let trainer = Trainer::with_parts(&variant(2, 1), data, &run, &Device::Cpu, parts);
    let error = trainer.err().unwrap().to_string();
    assert!(!run.latest_checkpoint().exists() && !run.events_file().exists());
    error
}

/// Each once failed in the first step, with two shapes and no name, or not at all.
#[test]
fn a_part_that_does_not_fit_is_named_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let run = |name: &str| folder.path().join(name);
    let n_labels = data.labels().len();
    let head = refusal(&data, &run("head"), &wide(3));
    let expected = format!(
        "head `wide`: logits must have shape [2, {n_labels}], got [2, {}]",
        n_labels + 3
    );
    assert_eq!(head, expected);
    let backbone = refusal(
        &data,
        &run("backbone"),
        &OwnParts::new().backbone("liar", liar),
    );
    let expected =
        "backbone `liar`: feature maps must have shape [2, 5, 56, 56], got [2, 4, 56, 56]";
    assert_eq!(backbone, expected);
    let loss = refusal(&data, &run("loss"), &OwnParts::new().loss(Misjudged));
    assert!(
        loss.starts_with("loss `misjudged`: ") && loss.contains("one for each image"),
        "{loss}"
    );
    let transform = refusal(
        &data,
        &run("transform"),
        &OwnParts::new().transform(Division),
    );
    assert_eq!(
        transform,
        "transform `division` makes grey levels that are not numbers"
    );
    // One that fits is trained.
    let fits = RunFolder::open(run("fits")).unwrap();
    let trainer =
        Trainer::with_parts(&variant(2, 1), &data, &fits, &Device::Cpu, &wide(0)).unwrap();
    assert_eq!(trainer.loss().name(), "bce");
    assert_eq!(trainer.pipeline().augmentation().crop_size(), 56);
}

#[test]
fn parts_serve_several_runs_and_a_loss_begins_each_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let bound = BiasedBoundMargin::new(1., 0.1, 0.25, &Device::Cpu).unwrap();
    let parts = wide(0)
        .loss(bound)
        .transform(cxr_augment::Scaling::new(0.9, 1.1).unwrap());
    let variant = variant(1, 1);
    let train = |name: &str| {
        let run = RunFolder::open(folder.path().join(name)).unwrap();
        let mut trainer = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &parts).unwrap();
        assert_eq!(trainer.loss().logit_threshold().unwrap(), 0.25);
        assert!(format!("{:?}", trainer.pipeline()).contains("scaling"));
        trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
        assert_ne!(trainer.loss().logit_threshold().unwrap(), 0.25);
        std::fs::read(run.model_file()).unwrap()
    };
    assert!(
        train("first") == train("second"),
        "the second run began with the first one's bound"
    );

    let run = |name: &str| RunFolder::open(folder.path().join(name)).unwrap();
    let (third, fourth) = (run("third"), run("fourth"));
    let using = Trainer::with_parts(&variant, &data, &third, &Device::Cpu, &parts).unwrap();
    let refused = Trainer::with_parts(&variant, &data, &fourth, &Device::Cpu, &parts).err();
    let refused = refused.unwrap().to_string();
    assert!(
        refused.contains("another trainer is still using it"),
        "{refused}"
    );
    drop(using);
    Trainer::with_parts(&variant, &data, &fourth, &Device::Cpu, &parts).unwrap();
}
