//! A head that asks for age, sex and view: trained, resumed, evaluated, and predicted with to the same bits.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use candle_core::{D, Device, Result, Tensor};
use cxr_augment::ViewSet;
use cxr_dataset::{ImageName, Index, Part, Record, Sex, Store, ViewPosition};
use cxr_model::{NonImageInput, OwnNetwork, Predictor};
use cxr_ops::{Init, Linear, Phase};
use cxr_top::Head;
use cxr_train::{
    Experiment, OwnParts, RunFolder, TrainError, TrainOutcome, Trainer, TrainingData, dry_pass,
    load_model_with, predict,
};

use phantoms::StopAfter;

const EXPERIMENT: &str = r#"
name = "tiny"
seed = 3
[model]
backbone = { densenet = { stem_channels = 8, growth_rate = 4, block_layers = [1, 2] } }
head = { linear = { inputs = ["age", "sex", "view"] } }
[augmentation]
image_size = 64
crop_size = 56
[training]
batch_size = 6
checkpoint_steps = 2
gradient_accumulation_steps = 1
[[training.stages]]
name = "head"
epochs = 1
frozen = ["features."]
schedule = { constant = { learning_rate = 1e-2 } }
[[training.stages]]
name = "all layers"
epochs = 1
schedule = { constant = { learning_rate = 1e-3 } }
[[variants]]
name = "bce"
loss = "bce"
"#;

/// The phantoms of a folder, of which some records are changed.
fn data_with(folder: &Path, change: impl Fn(usize, &mut Record)) -> TrainingData {
    let whole = phantoms::read(folder);
    let mut records = whole.index().records().to_vec();
    for (number, record) in records.iter_mut().enumerate() {
        change(number, record);
    }
    let index = Index::new(whole.index().label_set().clone(), records).unwrap();
    let store = Store::open(whole.store().path()).unwrap();
    TrainingData::new(index, whole.split().clone(), store).unwrap()
}

/// Every third age, every fifth sex and every seventh view is not known; one age and one view have no number.
fn gaps(number: usize, record: &mut Record) {
    if number.is_multiple_of(3) {
        record.age_years = None;
    }
    if number.is_multiple_of(5) {
        record.sex = None;
    }
    if number.is_multiple_of(7) {
        record.view = None;
    }
    if number == 1 {
        record.age_years = Some(412);
        record.view = Some(ViewPosition::Lateral);
    }
}

fn train(data: &TrainingData, folder: &Path, steps: usize) -> Vec<u8> {
    let variant = Experiment::parse(EXPERIMENT)
        .unwrap()
        .variant("bce")
        .unwrap();
    let run = RunFolder::open(folder).unwrap();
    loop {
        let mut trainer = Trainer::new(&variant, data, &run, &Device::Cpu).unwrap();
        let stop = AtomicBool::new(false);
        let mut observer = StopAfter {
            left: AtomicUsize::new(steps),
            stop: &stop,
        };
        if let TrainOutcome::Finished { .. } = trainer.run(&mut observer, &stop).unwrap() {
            let metrics = trainer
                .evaluate(&mut (), &AtomicBool::new(false))
                .unwrap()
                .unwrap();
            check_counts(data, &metrics);
            return std::fs::read(run.model_file()).unwrap();
        }
    }
}

/// By hand, from the records.
fn check_counts(data: &TrainingData, metrics: &cxr_run::RunMetrics) {
    let of_train = data.split().train().iter();
    let records: Vec<&Record> = of_train
        .map(|name| data.index().get(name).unwrap())
        .collect();
    let count = |is: &dyn Fn(&Record) -> bool| records.iter().filter(|record| is(record)).count();
    let found = metrics.inputs["age"].train;
    assert_eq!(
        (found.known, found.missing, found.unusable),
        (
            count(&|record| record.age_years.is_some_and(|age| age <= 120)),
            count(&|record| record.age_years.is_none()),
            count(&|record| record.age_years.is_some_and(|age| age > 120)),
        )
    );
    assert_eq!(
        metrics.inputs["sex"].train.missing,
        count(&|record| record.sex.is_none())
    );
    let names: Vec<&str> = metrics.inputs.keys().map(String::as_str).collect();
    assert_eq!(names, ["age", "sex", "view"]);
    for counts in metrics.inputs.values() {
        assert_eq!(counts.train.total(), data.split().train().len());
        assert_eq!(counts.test.total(), data.split().test().len());
    }
}

#[test]
fn a_run_and_its_model_file_predict_the_same_bits_and_a_stop_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    phantoms::write(folder.path(), 24);
    let data = data_with(folder.path(), gaps);
    let whole = train(&data, &folder.path().join("whole"), 1000);
    let cut = train(&data, &folder.path().join("cut"), 1);
    assert!(whole == cut, "a stop changed the model");

    let run = folder.path().join("whole");
    let predictor = Predictor::open(&run.join("model.safetensors"), &Device::Cpu).unwrap();
    let views = ViewSet::HorizontalFlipZoom;
    let stop = AtomicBool::new(false);
    let of_run = predict(
        predictor.classifier(),
        predictor.card(),
        &data,
        Part::Test,
        views,
        32,
        &mut (),
        &stop,
    );
    let of_run = of_run.unwrap().unwrap();
    let known = |name: &ImageName| data.index().get(name).unwrap().attributes();
    let names = of_run.names();
    let of_store = predictor.predict_stored_with(data.store(), names, views, |name, of_file| {
        known(name).or(of_file)
    });
    assert_eq!(of_store.unwrap(), of_run);
    let files: Vec<_> = (names.iter())
        .map(|name| {
            (
                name.clone(),
                folder.path().join("images").join(name.as_str()),
            )
        })
        .collect();
    let of_files =
        predictor.predict_files_with(&files, views, |name, of_file| known(name).or(of_file));
    assert_eq!(of_files.unwrap(), of_run);

    // The run's own table has the same numbers, and an image of nobody has others.
    let single = of_run.logits(ViewSet::Single).unwrap();
    let table = std::fs::read_to_string(run.join("predictions-test.csv")).unwrap();
    let first = table.lines().nth(1).unwrap().split(',').nth(1).unwrap();
    assert_eq!(first.parse::<f32>().unwrap(), single[0]);
    let of_nobody = predictor.predict_files(&files, ViewSet::Single).unwrap();
    assert_ne!(of_nobody.logits(ViewSet::Single).unwrap(), single);
}

/// One that asks for an age where the table has none was trained on zeros, had it not been looked for.
#[test]
fn a_head_that_asks_for_what_no_image_has_is_named() {
    let folder = tempfile::tempdir().unwrap();
    phantoms::write(folder.path(), 24);
    let variant = Experiment::parse(EXPERIMENT)
        .unwrap()
        .variant("bce")
        .unwrap();
    let new = |data: &TrainingData, name: &str| {
        let run = RunFolder::open(folder.path().join(name)).unwrap();
        let trainer = Trainer::new(&variant, data, &run, &Device::Cpu);
        trainer.err().map(|error| error.to_string())
    };
    let ageless = data_with(folder.path(), |_, record| record.age_years = None);
    let error = new(&ageless, "a").unwrap();
    assert!(
        error.starts_with("head `linear`: it asks for the input `age`, and no training image has one\nhint: add a column `age`"),
        "{error}"
    );
    let lateral = data_with(folder.path(), |_, record| {
        record.view = Some(ViewPosition::Lateral);
    });
    let error = new(&lateral, "b").unwrap();
    assert!(
        error.contains("`view`") && error.contains("of no use"),
        "{error}"
    );
    let one = data_with(folder.path(), |number, record| {
        record.sex = (number < 12).then_some(Sex::Female);
    });
    assert_eq!(new(&one, "c"), None);

    // The dry pass of a loop of one's own says the same.
    let run = RunFolder::open(folder.path().join("d")).unwrap();
    let whole = phantoms::read(folder.path());
    let trainer = Trainer::new(&variant, &whole, &run, &Device::Cpu).unwrap();
    let error = dry_pass(
        trainer.classifier(),
        trainer.card(),
        &ageless,
        trainer.pipeline(),
        trainer.loss(),
    );
    assert!(matches!(error, Err(TrainError::Part { part, .. }) if part == "head `linear`"));
    trainer.dry_pass().unwrap();
}

#[test]
fn a_run_does_not_go_on_with_other_ages() {
    let folder = tempfile::tempdir().unwrap();
    phantoms::write(folder.path(), 24);
    let variant = Experiment::parse(EXPERIMENT)
        .unwrap()
        .variant("bce")
        .unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let whole = phantoms::read(folder.path());
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter {
        left: AtomicUsize::new(2),
        stop: &stop,
    };
    let mut trainer = Trainer::new(&variant, &whole, &run, &Device::Cpu).unwrap();
    trainer.run(&mut observer, &stop).unwrap();
    drop(trainer);
    let older = data_with(folder.path(), |number, record| {
        if number == 0 {
            record.age_years = record.age_years.map(|age| age + 1);
        }
    });
    let error = Trainer::new(&variant, &older, &run, &Device::Cpu)
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("the ages, sexes or views of the images differ"),
        "{error}"
    );
    Trainer::new(&variant, &whole, &run, &Device::Cpu).unwrap();
}

/// The means of the maps and the age, for a head from outside.
struct WithAge(Linear);

impl Head for WithAge {
    fn forward_t(&self, _: &Tensor, _: Phase<'_>) -> Result<Tensor> {
        candle_core::bail!("expected the age")
    }

    fn inputs(&self) -> &[NonImageInput] {
        &[NonImageInput::Age]
    }

    fn forward_with_inputs(&self, maps: &Tensor, age: &Tensor, phase: Phase<'_>) -> Result<Tensor> {
        let means = maps.mean((D::Minus2, D::Minus1))?;
        self.0.forward_t(&Tensor::cat(&[&means, age], 1)?, phase)
    }
}

#[test]
fn a_head_from_outside_may_ask_too() {
    let folder = tempfile::tempdir().unwrap();
    phantoms::write(folder.path(), 24);
    let data = data_with(folder.path(), gaps);
    let text = EXPERIMENT.replace(
        "{ linear = { inputs = [\"age\", \"sex\", \"view\"] } }",
        "\"linear\"",
    );
    let variant = Experiment::parse(&text).unwrap().variant("bce").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let make = |(maps, ..): (usize, usize, usize), labels: usize, path: &cxr_ops::ParameterPath| {
        let dense = Linear::new(maps + 2, labels, Init::GlorotUniform, &path.pp("dense"));
        dense.map(WithAge)
    };
    let parts = OwnParts::new().head("with-age", make);
    let mut trainer = Trainer::with_parts(&variant, &data, &run, &Device::Cpu, &parts).unwrap();
    trainer.run(&mut (), &AtomicBool::new(false)).unwrap();
    let metrics = trainer
        .evaluate(&mut (), &AtomicBool::new(false))
        .unwrap()
        .unwrap();
    assert!(metrics.inputs["age"].test.known > 0);
    let own = OwnNetwork::new().head("with-age", make);
    let (card, classifier) = load_model_with(&run.model_file(), &own, &Device::Cpu).unwrap();
    assert_eq!(card.inputs.len(), 1);
    assert_eq!(classifier.inputs(), [NonImageInput::Age]);
}
