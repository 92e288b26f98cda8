//! The loader: the same batches whoever makes them, and what ends it.

#![expect(clippy::unwrap_used, reason = "a test stops at what should not happen")]

use std::path::Path;

use candle_core::Device;
use cxr_augment::{
    Augmentation, GaussianNoise, GrayImageRef, KeyedRng, Normalization, Pipeline, Scaling,
    Transform,
};
use cxr_dataset::{
    ImageName, Index, LabelSet, LabelState, OfficialLists, Part, PrepareOptions, Record, Split,
    Store, StoreSettings, ValidationSplit, prepare,
};
use cxr_train::{
    Batch, Experiment, LastBatch, Loader, RunError, TrainError, TrainingData, Uncertainty,
    epoch_order,
};

const SIDE: usize = 40;
const N_TRAIN: usize = 27;

fn name(number: usize) -> ImageName {
    ImageName::new(&format!("{number:02}.png")).unwrap()
}

/// 30 images to train and validate, three to test; of every fourth, one label is not known.
fn data(folder: &Path) -> TrainingData {
    let sources: Vec<_> = (0..33)
        .map(|number| {
            let path = folder.join(name(number));
            let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 50, 50);
            encoder.set_color(png::ColorType::Grayscale);
            let pixels: Vec<u8> = (0..2500)
                .map(|at| (at * at * (number + 3) / 7 % 251) as u8)
                .collect();
            encoder
                .write_header()
                .unwrap()
                .write_image_data(&pixels)
                .unwrap();
            (name(number), path)
        })
        .collect();
    let settings = StoreSettings::new(SIDE as u32).unwrap();
    let target = folder.join("images.store");
    let prepared = prepare(&sources, &target, settings, PrepareOptions::default()).unwrap();
    let store = prepared.commit().unwrap();
    data_of(store)
}

fn data_of(store: Store) -> TrainingData {
    let labels = LabelSet::new(["A", "B"].map(str::to_owned).to_vec()).unwrap();
    let records = (0..33).map(|number| {
        let second = match number % 4 {
            0 => LabelState::Unknown,
            1 => LabelState::Positive,
            _ => LabelState::Negative,
        };
        let first = [LabelState::Negative, LabelState::Positive][number % 2];
        Record::new(name(number), [first, second])
    });
    let index = Index::new(labels, records.collect()).unwrap();
    let names = |numbers: std::ops::Range<usize>| numbers.map(name).collect();
    let lists = OfficialLists::new(names(0..30), names(30..33)).unwrap();
    let split = Split::new(&index, &lists, ValidationSplit::Paper, 1).unwrap();
    assert_eq!(split.part(Part::Train).len(), N_TRAIN);
    TrainingData::new(index, split, store).unwrap()
}

fn pipeline() -> Pipeline {
    Pipeline::new(Augmentation::new(0.5, 0.4, SIDE, 32).unwrap())
        .with(Scaling::new(0.9, 1.1).unwrap())
        .unwrap()
        .with(GaussianNoise::new(0.05).unwrap())
        .unwrap()
}

/// All of a batch as plain values.
type Values = (Vec<ImageName>, Vec<f32>, Vec<f32>, Option<Vec<f32>>);

fn values(batch: &Batch) -> Values {
    let flat =
        |tensor: &candle_core::Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    (
        batch.names.clone(),
        flat(&batch.images),
        flat(&batch.targets),
        batch.mask.as_ref().map(flat),
    )
}

fn epoch(loader: &Loader<'_>, epoch: usize, first: usize) -> Vec<Values> {
    std::thread::scope(|scope| {
        let batches = loader.epoch(scope, epoch, first);
        batches.map(|batch| values(&batch.unwrap())).collect()
    })
}

#[test]
fn batches_do_not_depend_on_the_number_of_workers_or_where_an_epoch_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let pipeline = pipeline();
    let loader = Loader::new(&data, &pipeline, 4, LastBatch::Keep, 9, &Device::Cpu).unwrap();
    let one = epoch(&loader.clone().with_workers(1), 3, 0);
    assert_eq!((one.len(), loader.steps()), (7, 7));
    for workers in [0, 2, 3, 16] {
        assert_eq!(
            epoch(&loader.clone().with_workers(workers), 3, 0),
            one,
            "{workers} workers"
        );
    }
    assert_eq!(epoch(&loader, 3, 5), one[5..]);
    assert_eq!(epoch(&loader, 3, 7), []);
    assert_ne!(epoch(&loader, 4, 0), one);
}

#[test]
fn a_batch_holds_the_pipelines_pixels_and_the_tables_labels() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let pipeline = pipeline();
    let loader = Loader::new(&data, &pipeline, 4, LastBatch::Keep, 9, &Device::Cpu).unwrap();
    let order = epoch_order(data.split().train(), 9, 2);
    let mut seen = Vec::new();
    for (names, images, targets, mask) in epoch(&loader, 2, 0) {
        for (at, name) in names.iter().enumerate() {
            let pixels = data.store().image(name).unwrap();
            let image = GrayImageRef::square(&pixels, SIDE).unwrap();
            let mut expected = vec![0.0; 3 * 32 * 32];
            let normalization = Normalization::IMAGENET;
            pipeline
                .apply(9, 2, name.as_str(), image, &normalization, &mut expected)
                .unwrap();
            assert!(
                images[at * expected.len()..][..expected.len()] == expected,
                "{name}"
            );
            for (label, state) in data.index().get(name).unwrap().labels.iter().enumerate() {
                assert_eq!(targets[2 * at + label], state.target());
                let known = mask.as_ref().map_or(1.0, |mask| mask[2 * at + label]);
                assert_eq!(known == 1.0, state.is_known());
            }
        }
        seen.extend(names);
    }
    assert_eq!(seen, order);
}

#[test]
fn a_last_batch_that_is_not_full_is_kept_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let pipeline = pipeline();
    let sizes = |batch_size, last_batch| -> Vec<usize> {
        let loader =
            Loader::new(&data, &pipeline, batch_size, last_batch, 9, &Device::Cpu).unwrap();
        let batches = epoch(&loader, 0, 0);
        assert_eq!(batches.len(), loader.steps());
        batches.iter().map(|(names, ..)| names.len()).collect()
    };
    assert_eq!(sizes(10, LastBatch::Keep), [10, 10, 7]);
    assert_eq!(sizes(10, LastBatch::Drop), [10, 10]);
    for last_batch in [LastBatch::Keep, LastBatch::Drop] {
        assert_eq!(sizes(9, last_batch), [9, 9, 9]);
        let none = Loader::new(&data, &pipeline, 0, last_batch, 9, &Device::Cpu);
        assert!(matches!(
            none,
            Err(TrainError::Run(RunError::Setting { .. }))
        ));
    }
    assert_eq!(sizes(40, LastBatch::Keep), [27]);
    let never = Loader::new(&data, &pipeline, 40, LastBatch::Drop, 9, &Device::Cpu);
    assert!(matches!(
        never,
        Err(TrainError::Run(RunError::Setting { .. }))
    ));
}

#[test]
fn an_image_that_cannot_be_read_ends_the_epoch_and_leaving_early_ends_the_workers() {
    let folder = tempfile::tempdir().unwrap();
    let whole = data(folder.path());
    let pipeline = pipeline();
    let loader = Loader::new(&whole, &pipeline, 2, LastBatch::Keep, 9, &Device::Cpu).unwrap();
    for n_taken in [0, 1, 3] {
        // The scope ends only when every worker has.
        std::thread::scope(|scope| {
            assert_eq!(loader.epoch(scope, 0, 0).take(n_taken).count(), n_taken);
        });
    }

    let fifth = epoch_order(whole.split().train(), 9, 0)[8].clone();
    let path = folder.path().join("images.store");
    let mut bytes = std::fs::read(&path).unwrap();
    let pixels_at = bytes.len() - 33 * SIDE * SIDE;
    let slot: usize = fifth.as_str()[..2].parse().unwrap();
    bytes[pixels_at + slot * SIDE * SIDE + 5] ^= 1;
    let damaged = folder.path().join("damaged.store");
    std::fs::write(&damaged, bytes).unwrap();
    let data = data_of(Store::open(&damaged).unwrap());
    for workers in [1, 2, 5] {
        let loader = Loader::new(&data, &pipeline, 2, LastBatch::Keep, 9, &Device::Cpu).unwrap();
        let loader = loader.with_workers(workers);
        std::thread::scope(|scope| {
            let mut batches = loader.epoch(scope, 0, 0);
            for _ in 0..4 {
                assert!(batches.next().unwrap().is_ok());
            }
            let error = batches.next().unwrap().unwrap_err().to_string();
            assert!(
                error.contains(fifth.as_str()) && error.contains("damaged"),
                "{error}"
            );
            assert!(batches.next().is_none());
        });
    }
}

#[test]
fn an_experiment_file_names_subset_transforms_and_last_batch_and_is_silent_about_defaults() {
    let text = |more: &str, validation: &str, last: &str| {
        format!(
            r#"
            name = "own"
            {more}
            [data]
            {validation}
            [training]
            {last}
            [[training.stages]]
            name = "all layers"
            epochs = 1
            schedule = {{ constant = {{ learning_rate = 1e-3 }} }}
            [[variants]]
            name = "zlpr"
            loss = "zlpr"
            "#
        )
    };
    let transforms = r#"transforms = [
        { translation = { max_fraction = 0.05 } },
        { scaling = { smallest = 0.9, largest = 1.1 } },
        { brightness-contrast = { max_brightness = 0.1, max_contrast = 0.2 } },
        { gaussian-noise = { max_std = 0.02 } },
        { random-erasing = { probability = 0.25, min_area = 0.02, max_area = 0.2, max_aspect = 3.0 } },
    ]"#;
    let validation = r#"validation = { patient-fold = { fold = 0, of = 5 } }
        subset = { view = "PA", min_age = 18 }"#;
    let experiment =
        Experiment::parse(&text(transforms, validation, "last_batch = \"drop\"")).unwrap();
    assert_eq!(experiment.transforms.len(), 5);
    assert_eq!(
        experiment.data.validation,
        ValidationSplit::PatientFold { fold: 0, of: 5 }
    );
    assert_eq!(
        experiment.data.subset.to_string(),
        "view PA, at least 18 years"
    );
    assert_eq!(experiment.training.last_batch, LastBatch::Drop);
    let written = experiment.variant("zlpr").unwrap().to_toml().unwrap();
    assert_eq!(Experiment::parse(&written).unwrap(), experiment);

    let plain = Experiment::parse(&text("", "", ""))
        .unwrap()
        .variant("zlpr")
        .unwrap();
    let plain = plain.to_toml().unwrap();
    for key in ["subset", "transforms", "last_batch"] {
        assert!(
            written.contains(key) && !plain.contains(key),
            "{key} in\n{plain}"
        );
    }
    let twice = "transforms = [{ gaussian-noise = { max_std = 0.1 } }, { gaussian-noise = { max_std = 0.2 } }]";
    let error = Experiment::parse(&text(twice, "", ""))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("two transforms are named `gaussian-noise`"),
        "{error}"
    );
}

/// Panics on its third image.
struct Fragile(std::sync::atomic::AtomicUsize);

impl Transform for Fragile {
    fn name(&self) -> &str {
        "fragile"
    }

    fn change_gray(&self, _rng: &mut KeyedRng, _gray: &mut [f32], _width: usize) {
        let before = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        assert!(before < 2, "fragile");
    }
}

#[test]
fn a_worker_that_panics_is_an_error_and_not_the_end_of_the_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let data = data(folder.path());
    let pipeline = Pipeline::new(Augmentation::new(0.5, 0.4, SIDE, 32).unwrap())
        .with(Fragile(0.into()))
        .unwrap();
    let loader = Loader::new(&data, &pipeline, 2, LastBatch::Keep, 9, &Device::Cpu).unwrap();
    let loader = loader.with_workers(1);
    let mut second = None;
    let scope = std::panic::AssertUnwindSafe(|| {
        std::thread::scope(|scope| {
            let mut batches = loader.epoch(scope, 0, 0);
            assert!(batches.next().unwrap().is_ok());
            second = batches.next();
        });
    });
    // The scope hands the worker's panic on.
    assert!(std::panic::catch_unwind(scope).is_err());
    assert!(matches!(second, Some(Err(TrainError::LoaderPanicked))));
}

/// CheXpert's −1 was masked whatever an experiment wanted.
#[test]
fn uncertain_labels_become_what_their_policy_says() {
    let folder = tempfile::tempdir().unwrap();
    let known = data(folder.path());
    let labels = LabelSet::new(["A", "B"].map(str::to_owned).to_vec()).unwrap();
    let records = (0..33).map(|number| {
        let second = match number % 3 {
            0 => LabelState::Unknown,
            1 => LabelState::Uncertain,
            _ => LabelState::Positive,
        };
        Record::new(name(number), [LabelState::Uncertain, second])
    });
    let index = Index::new(labels, records.collect()).unwrap();
    let store = Store::open(folder.path().join("images.store")).unwrap();
    let data = TrainingData::new(index, known.split().clone(), store).unwrap();
    let pipeline = pipeline();
    let loader = Loader::new(&data, &pipeline, 4, LastBatch::Keep, 9, &Device::Cpu).unwrap();
    let policies = |text: &str| toml::from_str::<Uncertainty>(text).unwrap();
    // Image by image: number, target and mask of both labels.
    let targets = |loader: &Loader<'_>, at: usize| {
        let mut rows: Vec<(usize, [f32; 2], [f32; 2])> = Vec::new();
        for (names, _, targets, mask) in epoch(loader, at, 0) {
            let mask = mask.unwrap_or(vec![1.; targets.len()]);
            for ((name, target), mask) in names.iter().zip(targets.chunks(2)).zip(mask.chunks(2)) {
                let number = name.as_str()[..2].parse().unwrap();
                rows.push((number, [target[0], target[1]], [mask[0], mask[1]]));
            }
        }
        rows.sort_by_key(|row| row.0);
        rows
    };
    for (policy, of_uncertain) in [
        ("", None),
        ("default = \"ignore\"", None),
        ("default = \"zeros\"", Some(0.)),
        ("default = \"ones\"", Some(1.)),
        (
            "default = \"zeros\"\nlabels = { B = \"ones\", A = \"ones\" }",
            Some(1.),
        ),
    ] {
        let loader = loader.clone().with_uncertainty(&policies(policy)).unwrap();
        for (number, target, mask) in targets(&loader, 0) {
            let (value, weight) = of_uncertain.map_or((0., 0.), |value| (value, 1.));
            let second = match number % 3 {
                // What nothing is said of stays out, whatever the policy.
                0 => (0., 0.),
                1 => (value, weight),
                _ => (1., 1.),
            };
            assert_eq!(
                (target, mask),
                ([value, second.0], [weight, second.1]),
                "{policy} {number}"
            );
        }
    }
    let soft = "labels = { A = { soft = [0.55, 0.85] } }";
    let soft = loader.clone().with_uncertainty(&policies(soft)).unwrap();
    let (first, again) = (targets(&soft, 2), targets(&soft.clone().with_workers(3), 2));
    assert_eq!(first, again);
    assert_ne!(first, targets(&soft, 3));
    let drawn: Vec<f32> = first.iter().map(|row| row.1[0]).collect();
    assert!(drawn.iter().all(|target| (0.55..0.85).contains(target)));
    assert!(
        first
            .iter()
            .all(|row| row.2[0] == 1. && (row.0 % 3 != 1 || row.2[1] == 0.))
    );
    let error = loader
        .with_uncertainty(&policies("labels = { C = \"ones\" }"))
        .unwrap_err();
    assert!(
        matches!(error, TrainError::Run(RunError::Setting { .. })),
        "{error:?}"
    );
}
