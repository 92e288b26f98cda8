//! A model file alone predicts what the run that trained it predicted.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what should not happen"
)]

mod phantoms;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use candle_core::Device;
use cxr_augment::ViewSet;
use cxr_dataset::{Part, decode_radiograph};
use cxr_model::{Predictor, PreparedImage, RESEARCH_USE};
use cxr_phantom::{ListSize, PhantomConfig, write_dataset};
use cxr_train::{Experiment, RunFolder, TrainOutcome, Trainer, predict};

const EXPERIMENT: &str = include_str!("earlier/experiment.toml");

/// Phantoms that are larger than the network's images.
fn write_larger(folder: &Path) {
    let size = |images| ListSize {
        images,
        least_positives: 1,
    };
    let config = PhantomConfig::new(5, size(24), size(12)).unwrap();
    let config = config.with_side(150).unwrap();
    write_dataset(&config, folder, &|_| (), &AtomicBool::new(false)).unwrap();
}

#[test]
fn a_model_file_predicts_what_its_run_predicted_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    write_larger(folder.path());
    let data = phantoms::read(folder.path());
    let experiment = Experiment::parse(EXPERIMENT).unwrap();
    let variant = experiment.variant("fzlpr-0.2").unwrap();
    let run = RunFolder::open(folder.path().join("run")).unwrap();
    let mut trainer = Trainer::new(&variant, &data, &run, &Device::Cpu).unwrap();
    let stop = AtomicBool::new(false);
    let outcome = trainer.run(&mut (), &stop).unwrap();
    assert!(matches!(outcome, TrainOutcome::Finished { .. }));
    let views = ViewSet::HorizontalFlipZoom;
    let of_run = predict(
        trainer.classifier(),
        trainer.card(),
        &data,
        Part::Test,
        views,
        32,
        &mut (),
        &stop,
    );
    let of_run = of_run.unwrap().unwrap();

    // From the files, not from the prepared store.
    let predictor = Predictor::open(&run.model_file(), &Device::Cpu).unwrap();
    let prepared: Vec<PreparedImage> = of_run
        .names()
        .iter()
        .map(|name| {
            let path = folder.path().join("images").join(name.as_str());
            let image = decode_radiograph(&path).unwrap();
            predictor.prepare(&image).unwrap()
        })
        .collect();
    for set in ViewSet::ALL {
        let expected = of_run.logits(set).unwrap();
        let batches = prepared.chunks(5);
        let found = batches.flat_map(|batch| predictor.logits(batch, set).unwrap());
        assert_eq!(found.flatten().collect::<Vec<f32>>(), expected, "{set}");
    }

    // The same of files and of a store, of which nothing is known but the names.
    let files: Vec<_> = (of_run.names().iter())
        .map(|name| {
            (
                name.clone(),
                folder.path().join("images").join(name.as_str()),
            )
        })
        .collect();
    assert_eq!(predictor.predict_files(&files, views).unwrap(), of_run);
    let of_store = predictor.predict_store(data.store(), views).unwrap();
    assert_eq!(of_store.names().len(), data.store().len());
    let labels = data.labels().len();
    for set in ViewSet::ALL {
        let (all, expected) = (of_store.logits(set).unwrap(), of_run.logits(set).unwrap());
        for (name, expected) in of_run.names().iter().zip(expected.chunks(labels)) {
            let row = of_store
                .names()
                .iter()
                .position(|other| other == name)
                .unwrap();
            assert_eq!(&all[row * labels..][..labels], expected, "{set} {name}");
        }
    }
    let error = predictor
        .predict_files(&[&files[..1], &files[..1]].concat(), views)
        .unwrap_err();
    assert!(error.to_string().contains("is predicted twice"), "{error}");

    // AUCs by counting pairs.
    let set = ViewSet::HorizontalFlip;
    let (found, logits) = (
        of_run.validation_aucs(set, data.index()).unwrap(),
        of_run.logits(set).unwrap(),
    );
    let n_labels = data.labels().len();
    let expected: Vec<Option<f64>> = (0..n_labels)
        .map(|label| {
            let of_image = |(row, name)| {
                let record = data.index().get(name).unwrap();
                (
                    record.labels[label].target() > 0.,
                    logits[row * n_labels + label],
                )
            };
            let images: Vec<(bool, f32)> =
                of_run.names().iter().enumerate().map(of_image).collect();
            let with = |has: bool| images.iter().filter(move |(found, _)| *found == has);
            let pairs = with(true).flat_map(|(_, positive)| {
                with(false).map(move |(_, negative)| match positive.total_cmp(negative) {
                    std::cmp::Ordering::Greater => 1.,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.,
                })
            });
            let pairs: Vec<f64> = pairs.collect();
            (!pairs.is_empty()).then(|| pairs.iter().sum::<f64>() / pairs.len() as f64)
        })
        .collect();
    assert!(expected.iter().any(Option::is_some));
    for (found, expected) in found.labels.iter().zip(&expected) {
        assert_eq!(found.is_some(), expected.is_some());
        let difference = found.unwrap_or(0.) - expected.unwrap_or(0.);
        assert!(difference.abs() < 1e-12, "{found:?} {expected:?}");
    }
    assert_eq!((found.images, found.views), (of_run.names().len(), set));

    let card = predictor.card();
    let of_data = card.data.as_ref().unwrap();
    assert_eq!(of_data.fingerprint, data.fingerprint());
    assert_eq!(
        [of_data.train, of_data.validation, of_data.test],
        Part::ALL.map(|part| data.split().part(part).len())
    );
    assert_eq!(card.intended_use.as_deref(), Some(RESEARCH_USE));
    assert!(!card.stretched);
}
